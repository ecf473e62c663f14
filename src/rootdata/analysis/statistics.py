"""What is certain of a score: errors of areas, differences of distributions, significances; with event weights.

Pure functions of arrays. Weights may have any sign; where all are 1, each formula is the one that its source gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rootdata.errors import ConfigError, ShapeError

Floats = NDArray[np.float64]
AnyArray = NDArray[Any]

TERMS = 100  # of the alternating series, which ends far earlier


class Areas(NamedTuple):
    """Areas under the curves of several scores of the same events.

    Attributes
    ----------
    values : (scores,)
    covariance : (scores, scores), since the events are the same
    """

    values: Floats
    covariance: Floats

    @property
    def errors(self) -> Floats:
        """Standard error of each, (scores,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))


class Distance(NamedTuple):
    """A distance between two samples, and how likely one as large is where they have the same distribution."""

    distance: float
    p_value: float


def effective_count(weight: AnyArray) -> float:
    """Return how many events of equal weights say as much as these: (sum w)^2 / sum w^2.

    Examples
    --------
    >>> effective_count(np.array([2.0, 2.0, 2.0]))
    3.0
    """
    weight = np.asarray(weight, np.float64)
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


# Areas


def areas(scores: AnyArray, label: AnyArray, *, weight: AnyArray | None = None) -> Areas:
    """Give the areas under the ROC curves of scores of the same events, with their covariance.

    E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837; the variance of each event's share in
    the area. With weights an area is a ratio of sums, and so is its variance: each event's deviation counts with the
    square of its weight, and the number of events is the effective one.

    Parameters
    ----------
    scores : (n,) or (scores, n), higher is more like signal
    label : (n,) 1 is signal, 0 background
    weight : (n,) or None for one each

    Returns
    -------
    NaN throughout where signal or background has no weight.

    Raises
    ------
    ShapeError
        Where shapes do not fit each other.
    """
    rows = np.atleast_2d(np.asarray(scores, np.float64))
    is_signal = np.asarray(label) == 1
    weights = np.ones(len(is_signal)) if weight is None else np.asarray(weight, np.float64)
    if rows.ndim != 2 or rows.shape[1:] != is_signal.shape or weights.shape != is_signal.shape:
        raise ShapeError(f"scores, label, weight: got {rows.shape}, {is_signal.shape}, {weights.shape}; the n differ")
    signal, background = weights[is_signal], weights[~is_signal]
    n = len(rows)
    if not signal.sum() or not background.sum():
        return Areas(np.full(n, np.nan), np.full((n, n), np.nan))
    of_signal = np.stack([_share_below(row[~is_signal], background, row[is_signal]) for row in rows])
    of_background = 1.0 - np.stack([_share_below(row[is_signal], signal, row[~is_signal]) for row in rows])
    values = of_signal @ signal / signal.sum()
    return Areas(values, _covariance(of_signal, signal, values) + _covariance(of_background, background, values))


def _share_below(values: Floats, weight: Floats, at: Floats) -> Floats:
    """Return the share of the weight of ``values`` that lies below each of ``at``; what is equal counts half."""
    order = np.argsort(values, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weight[order])])
    below, upto = (np.searchsorted(values[order], at, side=side) for side in ("left", "right"))
    shares: Floats = (sums[below] + sums[upto]) / (2 * sums[-1])
    return shares


def _covariance(shares: Floats, weight: Floats, means: Floats) -> Floats:
    count = effective_count(weight)
    if count <= 1:
        return np.full((len(means), len(means)), np.nan)
    deviations = (shares - means[:, None]) * weight
    found: Floats = deviations @ deviations.T / weight.sum() ** 2 * (count / (count - 1))
    return found


def difference(pair: Areas) -> tuple[float, float]:
    """Return the second area minus the first, and the error of that: smaller than of each, where events are shared."""
    (first, second), covariance = pair.values, pair.covariance
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return float(second - first), float(np.sqrt(max(variance, 0.0)))


# Efficiencies


def efficiency(passed: AnyArray, weight: AnyArray) -> tuple[float, float]:
    """Give the share of the weight that passes, with its error: binomial, where all weights are 1.

    Parameters
    ----------
    passed : (n,) bool
    weight : (n,)
    """
    weight, passed = np.asarray(weight, np.float64), np.asarray(passed, np.bool_)
    total = float(weight.sum())
    if not total:
        return float("nan"), float("nan")
    share = float(weight[passed].sum()) / total
    squares = weight**2
    variance = float(squares[passed].sum()) * (1 - share) ** 2 + float(squares[~passed].sum()) * share**2
    return share, variance**0.5 / abs(total)


# Distributions


def kolmogorov(x: float) -> float:
    """Return the chance that sqrt(n) times the largest distance is above ``x``: 2 sum (-1)^(k-1) exp(-2 k^2 x^2).

    Below 0.2, where the series converges slowly, it is 1 to twelve digits.
    """
    if x < 0.2:
        return 1.0
    k = np.arange(1, TERMS + 1)
    series = 2 * float(((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)).sum())
    return min(max(series, 0.0), 1.0)


def kolmogorov_smirnov(
    first: AnyArray, second: AnyArray, *, weights: tuple[AnyArray, AnyArray] | None = None
) -> Distance:
    """Compare two distributions by their largest distance, with event weights by effective counts.

    W. H. Press et al., Numerical Recipes, section 14.3: Q((sqrt n + 0.12 + 0.11 / sqrt n) D), n = n1 n2 / (n1 + n2). It
    says something of events alone that were used neither for training nor to choose when to stop.

    Parameters
    ----------
    first, second : (n,) and (m,) values
    weights : of both, (n,) and (m,); one each where there are none

    Returns
    -------
    NaN where one of them has no weight.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    ones = (np.ones(len(first)), np.ones(len(second)))
    w1, w2 = (np.asarray(w, np.float64) for w in (weights or ones))
    if not w1.sum() or not w2.sum():
        return Distance(float("nan"), float("nan"))
    values = np.concatenate([first, second])
    order = np.argsort(values, kind="stable")
    steps = np.concatenate([w1 / w1.sum(), -w2 / w2.sum()])[order]
    is_last_of_ties = np.diff(values[order], append=np.nan) != 0
    distance = float(np.abs(np.cumsum(steps)[is_last_of_ties]).max())
    n1, n2 = effective_count(w1), effective_count(w2)
    root = np.sqrt(n1 * n2 / (n1 + n2))
    return Distance(distance, kolmogorov((root + 0.12 + 0.11 / root) * distance))


# Significance


def asimov(signal: AnyArray, background: AnyArray, *, uncertainty: AnyArray | float = 0.0) -> Floats:
    """Give the median significance of a discovery in an experiment that counts.

    G. Cowan, K. Cranmer, E. Gross, O. Vitells, Eur. Phys. J. C 71 (2011) 1554, arXiv:1007.1727; with an uncertainty of
    the background: G. Cowan, "Discovery sensitivity for a counting experiment with background uncertainty" (2012).

    Parameters
    ----------
    signal, background : expected events
    uncertainty : of the background, one standard deviation, in events

    Returns
    -------
    NaN where no background, or a negative signal, is expected: such bins are merged with others.

    Examples
    --------
    >>> round(float(asimov(10.0, 100.0)), 4), round(float(asimov(10.0, 100.0, uncertainty=10.0)), 4)
    (0.984, 0.6902)
    """
    s, b, sigma = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (signal, background, uncertainty)))
    if (sigma < 0).any():
        raise ConfigError(f"background uncertainty: got {float(sigma.min()):g}; expected 0 or more")
    found = np.full(s.shape, np.nan)
    known = (b > 0) & (s >= 0)
    s, b, v = s[known], b[known], sigma[known] ** 2
    # Written so that logarithms of numbers close to 1 keep their digits.
    first = (s + b) * np.log1p(s * b / (b**2 + (s + b) * v))
    second = np.where(v > 0, b**2 / np.where(v > 0, v, 1.0) * np.log1p(v * s / (b * (b + v))), s)
    squared = 2 * (first - second)
    found[known] = np.sqrt(np.maximum(squared, 0.0))
    return found


# Curves that could have been


def replicas(sums: AnyArray, squares: AnyArray, *, count: int, seed: Sequence[int]) -> Floats:
    """Draw what the sums of weights in bins would be in other samples of the same size: a Poisson bootstrap, in bins.

    A bin is drawn as a scaled Poisson number of its mean and variance (G. Bohm, G. Zech, Nucl. Instrum. Meth. A 748
    (2014) 1); as a Gaussian, where its sum is not positive.

    Parameters
    ----------
    sums, squares : (bins,) of the weights, and of their squares
    count : of replicas
    seed : of the random numbers

    Returns
    -------
    (count, bins)
    """
    sums, squares = np.asarray(sums, np.float64), np.asarray(squares, np.float64)
    rng = np.random.default_rng(list(seed))
    is_counted = (sums > 0) & (squares > 0)
    scale = np.divide(squares, sums, out=np.ones_like(sums), where=is_counted)
    drawn = rng.poisson(np.where(is_counted, sums / scale, 0.0), (count, len(sums))) * scale
    spread = rng.normal(sums, np.sqrt(squares), (count, len(sums)))
    return np.where(is_counted, drawn, spread)
