"""Figures of merit of a classifier, with event weights: pure functions of arrays.

Scores are probabilities: (n,) of label 1 for two classes, or (n, classes). Labels are integers from 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rootdata.errors import ShapeError

Floats = NDArray[np.float64]
AnyArray = NDArray[Any]

AREA_KEPT = 1e-4  # of a curve that is thinned
AT_ONCE = 1 << 16  # events that are sorted together at least


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


def roc(score: AnyArray, label: AnyArray, *, weight: AnyArray | None = None) -> Roc:
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


def auc(score: AnyArray, label: AnyArray, *, weight: AnyArray | None = None) -> float:
    """Give the area under the curve of :func:`roc`; NaN where a class is absent.

    Parameters
    ----------
    score : (n,) the higher, the more like signal
    label : (n,) 1 for signal, 0 for background
    weight : (n,) or None for one each

    Examples
    --------
    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    return area(roc(score, label, weight=weight))


class ScoreSums:
    """The weights of signal and background at each score: all that an area needs, in memory that is bounded.

    Scores are taken as float32, and kept apart as long as there are no more different ones than the limit. From then on
    scores that agree in all but their last bits are one: as few bits as suffice, so that what comes out depends neither
    on the order of the events nor on how they are dealt to several sums that are merged.

    Parameters
    ----------
    limit : different scores that are kept apart
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._bits = 0  # that are left out of each score
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)
        self._sums: Floats = np.empty((2, 0))  # of background, of signal
        self._waiting: list[tuple[NDArray[np.int64], Floats]] = []
        self._n_waiting = 0
        self._is_known = True

    def __len__(self) -> int:
        """Return how many scores are kept apart."""
        self._settle()
        return len(self._keys)

    def add(self, score: AnyArray, is_signal: AnyArray, *, weight: AnyArray | None = None) -> None:
        """Add events.

        Parameters
        ----------
        score : (n,) higher is more like signal; where one is NaN there is no area
        is_signal : (n,) bool or 0 and 1
        weight : (n,) or None for one each
        """
        score, label, weights = parse(score, is_signal, weight, is_binary=True)
        self._is_known &= not bool(np.isnan(score).any())
        self._wait(_keys_of(score) >> self._bits, np.where(label == np.array([[0], [1]]), weights, 0.0))

    def merge(self, other: ScoreSums) -> ScoreSums:
        """Add the sums of other events."""
        both = ScoreSums(limit=self._limit)
        both._bits, both._is_known = max(self._bits, other._bits), self._is_known and other._is_known
        for part in (self, other):
            part._settle()  # noqa: SLF001 - of its own class
            both._wait(part._keys >> (both._bits - part._bits), part._sums)  # noqa: SLF001
        return both

    def area(self) -> float:
        """Give the chance that signal scores above background, ties half counted; NaN where one has no weight."""
        self._settle()
        background, signal = self._sums
        below = np.cumsum(background) - background / 2
        total = background.sum() * signal.sum()
        return float((signal * below).sum() / total) if total and self._is_known else float("nan")

    def _wait(self, keys: NDArray[np.int64], sums: Floats) -> None:
        """Put events aside until there are enough for sorting to be worth it."""
        self._waiting.append((keys, sums))
        self._n_waiting += len(keys)
        if self._n_waiting > max(AT_ONCE, len(self._keys) // 2):
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        keys = np.concatenate([self._keys, *(k for k, _ in self._waiting)])
        sums = np.concatenate([self._sums, *(s for _, s in self._waiting)], axis=1)
        self._waiting, self._n_waiting = [], 0
        self._keys, self._sums = _grouped(keys, sums)
        while len(self._keys) > self._limit:
            self._bits += 1
            self._keys, self._sums = _grouped(self._keys >> 1, self._sums)


def _keys_of(score: Floats) -> NDArray[np.int64]:
    """Give each value of float32 a number, in their order."""
    bits = (score.astype(np.float32) + np.float32(0)).view(np.int32)  # no -0.0
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int64)


def _grouped(keys: NDArray[np.int64], sums: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Add up what has the same key: different keys, rising, and their sums, (2, n)."""
    found, where = np.unique(keys, return_inverse=True)
    return found, np.stack([np.bincount(where, row, minlength=len(found)) for row in sums])


def thin(curve: Roc, *, n_points: int = 400) -> Roc:
    """Keep about ``n_points`` points of a curve, dense in signal efficiency and in the logarithm of the background's.

    Both ends stay, so a small curve stays as it is; so does the area, to :data:`AREA_KEPT`, for which more points are
    kept where it takes them. With negative weights efficiencies fall, too: points are then chosen along the curve.
    """
    if len(curve.signal) <= n_points or np.isnan(curve.signal + curve.background).any():
        return curve
    half = n_points // 2
    by_signal = np.searchsorted(_way_along(curve.signal), np.linspace(0, 1, half))
    by_background = np.searchsorted(_way_along(curve.background), np.geomspace(1e-5, 1, half))
    keep = np.unique(np.concatenate([by_signal, by_background, [0, len(curve.signal) - 1]]))
    keep = _with_area(curve, keep[keep < len(curve.signal)])
    return Roc(curve.background[keep], curve.signal[keep], curve.threshold[keep])


def _way_along(efficiency: Floats) -> Floats:
    """Return the share of all its steps, up and down, behind each point: the efficiency itself, where it only rises."""
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(efficiency)))])
    along: Floats = way / way[-1]
    return along


def _with_area(curve: Roc, keep: NDArray[np.intp]) -> NDArray[np.intp]:
    """Add points in the middle of stretches whose chord cuts off too much, until the area is kept."""
    steps = (curve.signal[1:] + curve.signal[:-1]) / 2 * np.diff(curve.background)
    area = np.concatenate([[0.0], np.cumsum(steps)])
    while True:
        signal, background = curve.signal[keep], curve.background[keep]
        chords = (signal[1:] + signal[:-1]) / 2 * np.diff(background)
        cut_off = np.diff(area[keep]) - chords
        if abs(cut_off.sum()) <= AREA_KEPT:
            return keep
        wrong = np.flatnonzero((np.abs(cut_off) >= np.abs(cut_off).mean()) & (np.diff(keep) > 1))
        if not len(wrong):  # what is left is rounding
            return keep
        keep = np.unique(np.concatenate([keep, (keep[wrong] + keep[wrong + 1]) // 2]))


def accuracy(score: AnyArray, label: AnyArray, *, weight: AnyArray | None = None) -> float:
    """Give the share of events whose likeliest class is their label; with two classes the cut is at one half.

    Parameters
    ----------
    score : (n,) probability of label 1, or (n, classes)
    label : (n,) class numbers
    weight : (n,) or None for one each

    Examples
    --------
    >>> accuracy(np.array([0.2, 0.9, 0.6]), np.array([0, 1, 0]), weight=np.array([1.0, 1.0, 2.0]))
    0.5
    """
    score, label, weight = parse(score, label, weight)
    guess = score.argmax(axis=1) if score.ndim == 2 else score >= 0.5
    return mean(guess == label, weight=weight)


def cross_entropy(score: AnyArray, label: AnyArray, *, weight: AnyArray | None = None) -> float:
    """Give the mean of -log(probability of the label), where no probability counts as less than 1e-7.

    Parameters
    ----------
    score : (n,) probability of label 1, or (n, classes)
    label : (n,) class numbers
    weight : (n,) or None for one each
    """
    score, label, weight = parse(score, label, weight)
    if score.ndim == 1:
        score = np.stack([1 - score, score], axis=1)
    chosen = np.take_along_axis(score, label[:, None], axis=1)[:, 0]
    return mean(-np.log(np.clip(chosen, 1e-7, None)), weight=weight)


def mean(values: AnyArray, *, weight: Floats) -> float:
    """Average over events, (n,), with weights; NaN where these add up to nothing."""
    total = weight.sum()
    return float((values * weight).sum() / total) if total else float("nan")


def parse(
    score: AnyArray, label: AnyArray, weight: AnyArray | None, *, is_binary: bool = False
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Bring the arrays to float64, int64, float64 and check that they are as long as each other.

    Parameters
    ----------
    score : (n,) or (n, classes)
    label : (n,) class numbers
    weight : (n,) or None for one each
    is_binary : allow (n,) scores alone

    Raises
    ------
    ShapeError
        Where shapes do not fit each other.
    """
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
