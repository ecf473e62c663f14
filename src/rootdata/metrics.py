"""Figures of merit of a classifier, with event weights: pure functions of arrays.

Scores are probabilities: (n,) of label 1 for two classes, or (n, classes). Labels are integers from 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rootdata.errors import ShapeError

Floats = NDArray[np.float64]
Numbers = NDArray[Any]


class Roc(NamedTuple):
    """A receiver operating characteristic, from (0, 0) to (1, 1).

    Attributes
    ----------
    background : efficiency for label 0 of the cut ``score >= threshold`` (the false positive rate)
    signal : efficiency for label 1 of that cut (the true positive rate)
    threshold : falling, one for each distinct score after a first one above all
    """

    background: Floats
    signal: Floats
    threshold: Floats


def roc(score: Numbers, label: Numbers, *, weight: Numbers | None = None) -> Roc:
    """Follow the efficiencies for signal and background while the cut on the score loosens.

    Parameters
    ----------
    score : (n,) higher is more like signal
    label : (n,) 1 is signal, 0 background
    weight : (n,) or None for one each

    Returns
    -------
    One point more than there are distinct scores; all NaN where signal or background has no weight.
    """
    score, label, weight = parse(score, label, weight, is_binary=True)
    order = np.argsort(-score, kind="stable")
    score, label, weight = score[order], label[order], weight[order]
    last_of_ties = np.flatnonzero(np.diff(score, append=np.nan) != 0)
    background = efficiency(weight * (label == 0), at=last_of_ties)
    signal = efficiency(weight * (label == 1), at=last_of_ties)
    above = np.nextafter(score[:1], np.inf)
    return Roc(background, signal, np.concatenate([above, score[last_of_ties]]))


def efficiency(weight: Floats, *, at: NDArray[np.intp]) -> Floats:
    """Give the share of the weight up to and including the rows ``at``, after a first 0."""
    total = weight.sum()
    if total == 0:
        return np.full(len(at) + 1, np.nan)
    return np.concatenate([[0.0], np.cumsum(weight)[at] / total])


def area(curve: Roc) -> float:
    """Integrate a curve by trapezoids: the probability that signal scores above background, ties half counted."""
    return float(np.trapezoid(curve.signal, curve.background))


def auc(score: Numbers, label: Numbers, *, weight: Numbers | None = None) -> float:
    """Give the area under the curve of :func:`roc`; NaN where a class is absent.

    Examples
    --------
    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    return area(roc(score, label, weight=weight))


def thin(curve: Roc, *, n_points: int = 400) -> Roc:
    """Keep about ``n_points`` points of a curve, dense in signal efficiency and in the logarithm of the background's.

    Both ends stay, so a small curve stays as it is.
    """
    if len(curve.signal) <= n_points or np.isnan(curve.signal + curve.background).any():
        return curve
    half = n_points // 2
    by_signal = np.searchsorted(curve.signal, np.linspace(0, 1, half))
    by_background = np.searchsorted(curve.background, np.geomspace(1e-5, 1, half))
    keep = np.unique(np.concatenate([by_signal, by_background, [0, len(curve.signal) - 1]]))
    keep = keep[keep < len(curve.signal)]
    return Roc(curve.background[keep], curve.signal[keep], curve.threshold[keep])


def accuracy(score: Numbers, label: Numbers, *, weight: Numbers | None = None) -> float:
    """Give the share of events whose likeliest class is their label; with two classes the cut is at one half.

    Examples
    --------
    >>> accuracy(np.array([0.2, 0.9, 0.6]), np.array([0, 1, 0]), weight=np.array([1.0, 1.0, 2.0]))
    0.5
    """
    score, label, weight = parse(score, label, weight)
    guess = score.argmax(axis=1) if score.ndim == 2 else score >= 0.5
    return mean(guess == label, weight=weight)


def cross_entropy(score: Numbers, label: Numbers, *, weight: Numbers | None = None) -> float:
    """Give the mean of -log(probability of the label), where no probability counts as less than 1e-7."""
    score, label, weight = parse(score, label, weight)
    if score.ndim == 1:
        score = np.stack([1 - score, score], axis=1)
    chosen = np.take_along_axis(score, label[:, None], axis=1)[:, 0]
    return mean(-np.log(np.clip(chosen, 1e-7, None)), weight=weight)


def mean(values: Numbers, *, weight: Floats) -> float:
    """Average over events, (n,), with weights; NaN where these add up to nothing."""
    total = weight.sum()
    return float((values * weight).sum() / total) if total else float("nan")


def parse(
    score: Numbers, label: Numbers, weight: Numbers | None, *, is_binary: bool = False
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Bring the arrays to float64, int64, float64 and check that they are as long as each other."""
    score = np.asarray(score, dtype=np.float64)
    label = np.asarray(label, dtype=np.int64)
    weight = np.ones(label.shape) if weight is None else np.asarray(weight, dtype=np.float64)
    n_axes = (1,) if is_binary else (1, 2)
    if score.ndim not in n_axes or label.ndim != 1 or not score.shape[:1] == label.shape == weight.shape:
        allowed = "(n,)" if is_binary else "(n,) or (n, classes)"
        raise ShapeError(
            f"score, label, weight: got {score.shape}, {label.shape}, {weight.shape}; allowed: {allowed}, (n,), (n,)"
        )
    return score, label, weight
