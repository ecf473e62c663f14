"""What has no value: NaN in real columns, and a mask beside all others.

NaN, infinities, sentinels such as -999, an object that an event does not have: whatever the reason, from the moment a
branch is loaded there is one kind of missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """A column of which some values are missing, where NaN can't say so.

    Integers and booleans have no NaN; of a real branch it keeps which sentinel was read.

    Parameters
    ----------
    values : of any number type and shape; where it is missing, what was read, or anything
    valid : of the same shape, bool, True where there is a value
    """

    values: Array
    valid: Bools

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: Any) -> Masked:
        return Masked(self.values[which], self.valid[which])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the values."""
        return self.values.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.values.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.values.shape

    def take(self, rows: npt.NDArray[np.int64]) -> Masked:
        """Pick values by number."""
        return Masked(self.values.take(rows), self.valid.take(rows))

    def tolist(self) -> list[Any]:
        """Return plain values, ``None`` where one is missing."""
        plain = self.values.astype(object)
        plain[~self.valid] = None
        return list(plain.tolist())


Sentinels = tuple[float, ...] | Mapping[str, tuple[float, ...]]
"""Numbers that stand for "no value": in all branches, or by branch, with those of all others as ``default``."""


def sentinels_of(sentinels: Sentinels, column: str) -> tuple[float, ...]:
    """Return the sentinels of a branch, or of an element of one, ``cov[0]``.

    Examples
    --------
    >>> sentinels_of({"cov": (-1.0,), "default": (-999.0,)}, "cov[2]"), sentinels_of((-999.0,), "met")
    ((-1.0,), (-999.0,))
    """
    if not isinstance(sentinels, Mapping):
        return sentinels
    names = (column, column.rsplit("[", 1)[0], "default")
    return next((sentinels[name] for name in names if name in sentinels), ())


def mask_sentinels(values: Array, sentinels: Sequence[float]) -> Array | Masked:
    """Mask the sentinels in what was read; values without any are returned as they are.

    Examples
    --------
    >>> mask_sentinels(np.array([25, -999]), [-999.0]).tolist()
    [25, None]
    """
    marks = find_sentinels(values, sentinels)
    return values if marks is None else Masked(values, ~marks)


def find_sentinels(values: Array, sentinels: Sequence[float]) -> Bools | None:
    """Mark the values that are one of the sentinels; ``None`` where there is none of them."""
    marks = None
    for sentinel in sentinels:
        own = as_type(sentinel, values.dtype)
        if own is None:
            continue
        hits = values == own
        if hits.any():
            marks = hits if marks is None else marks | hits
    return marks


def as_type(sentinel: float, dtype: np.dtype[Any]) -> Any:
    """Return the sentinel as a column of this type holds it; ``None`` where the type can't."""
    if dtype.kind == "f":
        own = dtype.type(sentinel) if abs(sentinel) <= float(np.finfo(dtype).max) else None
        return None if own == 0 and sentinel else own  # what is rounded to 0 does not make every 0 missing
    if dtype.kind not in "iu" or sentinel % 1:  # NaN and infinities leave NaN
        return None
    info = np.iinfo(dtype)
    return dtype.type(int(sentinel)) if info.min <= int(sentinel) <= info.max else None


def with_sentinels(made: Array, read: Array, sentinels: Sequence[float]) -> Array:
    """Let numbers that were cast to a wider type say that they are missing as that type does.

    Parameters
    ----------
    made : what was cast; written to
    read : before it was
    sentinels : of the branch

    Examples
    --------
    >>> read = np.array([5, -999.9], np.float32)
    >>> read.astype(np.float64)[1] == -999.9, with_sentinels(read.astype(np.float64), read, [-999.9])[1] == -999.9
    (np.False_, np.True_)
    """
    if made is read or read.dtype.kind != "f" or made.dtype.kind != "f" or made.itemsize <= read.itemsize:
        return made
    for sentinel in sentinels:
        own = as_type(sentinel, read.dtype)
        if own is not None and float(own) != sentinel:
            made[read == own] = sentinel
    return made


def find_missing(column: Array | Masked) -> Bools | None:
    """Mark what has no value: NaN, infinities, and what is masked; ``None`` where there is none of them."""
    values = values_of(column)
    marks = ~column.valid if isinstance(column, Masked) and not column.valid.all() else None
    if values.dtype.kind != "f":
        return marks
    finite = np.isfinite(values)
    if finite.all():
        return marks
    return ~finite if marks is None else marks | ~finite


def values_of(column: Array | Masked) -> Array:
    """Return the values alone: anything where one is missing."""
    return column.values if isinstance(column, Masked) else column


def as_real(column: Array | Masked, dtype: npt.DTypeLike | None = None) -> Array:
    """Return a real column, NaN where a value is missing; infinities stay as they are.

    Parameters
    ----------
    column : of any number type, masked or not
    dtype : real type of the result; by default that of a real column, else float64
    """
    values = values_of(column)
    kind = np.dtype(dtype or (values.dtype if values.dtype.kind == "f" else np.float64))
    made = values.astype(kind, copy=False)
    return np.where(column.valid, made, np.nan).astype(kind, copy=False) if isinstance(column, Masked) else made


def without_infinities(values: Array) -> Array:
    """Put NaN in the place of infinities, in a copy, where there are any.

    Parameters
    ----------
    values : real
    """
    if np.isfinite(values).all() or not (infinite := np.isinf(values)).any():
        return values
    made: Array = np.where(infinite, np.nan, values)
    return made
