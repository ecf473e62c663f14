"""Compiled inner loops that count a column's missing values and measure the rest, without a copy.

Sums run in a fixed number of accumulators, and nothing is reassociated: a column gives the same bits on every machine.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from rootdata.compiling import compiled

LANES = 64  # accumulators of a sum: so many that they fill the vector registers of any processor

_SINGLES = numba.types.Array(numba.float32, 1, "C", readonly=True)  # or not: a cache hands out read-only ones
_DOUBLES = numba.types.Array(numba.float64, 1, "C", readonly=True)
_COUNTS = numba.types.UniTuple(numba.int64, 3)
_NUMBERS = numba.types.UniTuple(numba.float64, 4)
_RANKS = numba.types.Array(numba.int64, 1, "C", readonly=True)
_PLACES = numba.types.Array(numba.int64, 1, "C")


def _compiled(*signatures: Any) -> Any:
    return compiled(signatures)


@_compiled(_COUNTS(_SINGLES, _SINGLES), _COUNTS(_DOUBLES, _DOUBLES))
def count_missing(values: npt.NDArray[Any], sentinels: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Count the values that are missing.

    Parameters
    ----------
    values : (n,) float32 or float64
    sentinels : (k,) of the same type, finite, each once: what stands for "none"

    Returns
    -------
    nans, infinities, sentinels : values of each kind
    """
    # Loops over numbers, as numba makes vector instructions of no others.
    strange = nans = hits = 0
    for i in range(len(values)):
        strange += values[i] - values[i] != 0  # NaN and infinities
    if strange:
        for i in range(len(values)):
            nans += values[i] != values[i]
    for sentinel in sentinels:
        for i in range(len(values)):
            hits += values[i] == sentinel
    return nans, strange - nans, hits


@_compiled(_NUMBERS(_SINGLES), _NUMBERS(_DOUBLES))
def moments_of(values: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    """Measure finite values in two passes over memory.

    Parameters
    ----------
    values : (n,) float32 or float64, at least one

    Returns
    -------
    low, high : smallest and largest value
    mean, m2 : and the sum of squared deviations from it
    """
    low = high = values[0]
    for value in values:
        low = min(low, value)
        high = max(high, value)
    whole = len(values) // LANES * LANES
    lanes = np.zeros(LANES)
    for start in range(0, whole, LANES):
        part = values[start : start + LANES]
        for j in range(LANES):
            lanes[j] += part[j]
    for j, value in enumerate(values[whole:]):
        lanes[j] += value
    total = 0.0
    for lane in lanes:
        total += lane
    mean = total / len(values)

    lanes[:] = 0.0
    for start in range(0, whole, LANES):
        part = values[start : start + LANES]
        for j in range(LANES):
            lanes[j] += (part[j] - mean) * (part[j] - mean)
    for j, value in enumerate(values[whole:]):
        lanes[j] += (value - mean) * (value - mean)
    m2 = 0.0
    for lane in lanes:
        m2 += lane
    return low, high, mean, m2


@_compiled(_PLACES(_DOUBLES, _RANKS, _RANKS, numba.int64))
def neighbours_within(
    values: npt.NDArray[np.float64], low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], gap: int
) -> npt.NDArray[np.int64]:
    """Choose a few of some sorted values, the first and the last among them.

    Parameters
    ----------
    values, low, high : (n,) at least one, as :class:`rootdata.events.quantiles.Quantiles` has them
    gap : how far the rank of one may lie behind that of the one before it, at most, unless both are equal

    Returns
    -------
    (k,) their positions; more than ``gap`` apart are only those that were neighbours before
    """
    kept = np.empty(len(values), np.int64)
    kept[0] = at = 0
    k = 1
    while at < len(values) - 1:
        following = at + 1
        while following + 1 < len(values) and (
            high[following + 1] - low[at] <= gap or values[following + 1] == values[at]
        ):
            following += 1
        kept[k] = at = following
        k += 1
    return kept[:k].copy()
