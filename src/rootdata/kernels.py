"""Compiled inner loops: one pass that copies scattered rows into rectangular arrays, padded and masked.

Compiled on first use and kept on disk by numba; they release the interpreter lock.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_SINGLES = numba.types.Array(numba.float32, 1, "C")
_INTS = numba.types.Array(numba.int64, 1, "C", readonly=True)  # or not: a cache hands out read-only ones
_OUT = numba.types.Array(numba.float32, 2, "C")
_BOOLS = numba.types.Array(numba.boolean, 2, "C")


def _compiled(*arguments: Any) -> Any:
    return numba.njit([numba.void(*arguments)], nogil=True, cache=True)


@_compiled(_SINGLES, _INTS, numba.int64, _INTS, _INTS, numba.int64, numba.int64, numba.float32, _OUT, _BOOLS)
def copy_values(
    source: Singles,
    offsets: Ints,
    width: int,
    rows: Ints,
    at: Ints,
    length: int,
    column: int,
    pad: float,
    out: Singles,
    mask: Bools,
) -> None:
    """Copy the leading objects of some events to ``out[at, column:]``, padded to ``length``, and mark what is real.

    Parameters
    ----------
    source : (n_objects * width,) the features of an object side by side, NaN where missing
    offsets : (n_events + 1,) where each event's objects start
    rows, at : (k,) which events, and which rows of ``out`` they become
    length : objects kept per event
    out, mask : (m, total); ``mask`` is True where a value is neither padding nor NaN
    """
    for i in range(len(rows)):
        start, to = offsets[rows[i]], at[i]
        n = min(length, offsets[rows[i] + 1] - start) * width
        values = source[start * width : start * width + n]
        kept, marks = out[to, column : column + n], mask[to, column : column + n]
        for j in range(n):
            real = values[j] == values[j]
            kept[j] = values[j] if real else pad
            marks[j] = real
        out[to, column + n : column + length * width] = pad
        mask[to, column + n : column + length * width] = False


@_compiled(_SINGLES, _INTS, numba.int64, _INTS, _INTS, numba.int64, numba.float32, _OUT, _BOOLS)
def copy_objects(
    source: Singles, offsets: Ints, width: int, rows: Ints, at: Ints, length: int, pad: float, out: Singles, mask: Bools
) -> None:
    """Copy the leading objects of some events to ``out[at]``, padded to ``length``, and mark the objects that exist.

    Parameters
    ----------
    source, offsets, rows, at, length : as in :func:`copy_values`
    out : (m, length * width)
    mask : (m, length) True where there is an object, whatever its features
    """
    for i in range(len(rows)):
        start, to = offsets[rows[i]], at[i]
        count = min(length, offsets[rows[i] + 1] - start)
        n = count * width
        values, kept = source[start * width : start * width + n], out[to, :n]
        for j in range(n):
            kept[j] = values[j] if values[j] == values[j] else pad
        out[to, n:] = pad
        mask[to, :count] = True
        mask[to, count:] = False
