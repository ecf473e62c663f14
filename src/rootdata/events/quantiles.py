"""Quantiles of a column of any size, from few of its values: accurate in rank, whatever the values are.

A summary keeps some of the values, in order, and between which bounds the rank of each lies: after Greenwald and Khanna
(SIGMOD 2001, and PODS 2004 for merging). How far a quantile can be off follows from the bounds, so that each summary
knows its own accuracy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

RANK_ACCURACY = 0.001  # of all values: a quantile's rank is never further off
KEPT = 2048  # values, above which some are left out; a column of so few, or of half as many different ones, is exact

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Quantiles:
    """What is kept of a column to tell its quantiles.

    However parts of a column are merged, each quantile is within :data:`RANK_ACCURACY` of the rank that was asked for.
    The same parts merged in the same order and grouping give the same bits; another order or grouping may keep other
    values. Parts that are added one after the other, as blocks in file order are, leave some :data:`KEPT` values;
    parts that were merged from as many parts each leave a few times that.

    Parameters
    ----------
    count : values that were summarised
    values : (k,) not falling; of equal ones the first and the last at most
    low, high : (k,) bounds of the rank of each, from 1: the first value has 1, the last one ``count``
    """

    count: int
    values: Floats
    low: Ints
    high: Ints

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        """Summarise values (n,) of any number type, all finite."""
        ordered = np.sort(values).astype(np.float64) + 0.0  # no -0.0, which is as large as 0.0 and might come first
        ranks = np.arange(1, len(ordered) + 1)
        whole = cls(count=len(ordered), values=ordered, low=ranks, high=ranks)
        return whole._thinned(2 * len(ordered) // KEPT)

    def merge(self, other: Quantiles) -> Quantiles:
        """Add two parts of a column."""
        if not (self.count and other.count):
            return self if self.count else other
        # Of equal values the own ones come first.
        before_own = np.searchsorted(other.values, self.values, side="left")
        before_others = np.searchsorted(self.values, other.values, side="right")
        k = len(self.values) + len(other.values)
        values, low, high = np.empty(k), np.empty(k, np.int64), np.empty(k, np.int64)
        for part, rest, before in ((self, other, before_own), (other, self, before_others)):
            places = np.arange(len(part.values)) + before
            values[places] = part.values
            low[places] = part.low + np.append(0, rest.low)[before]
            high[places] = part.high + np.append(rest.high - 1, rest.count)[before]
        count = self.count + other.count
        whole = Quantiles(count=count, values=values, low=low, high=high)
        return whole._thinned(int(2 * RANK_ACCURACY * count))

    def at(self, q: float) -> float:
        """Return the value below or at which a share ``q`` of the values lies.

        Raises
        ------
        ValueError
            Where there is no value, or for a share that is none.

        Examples
        --------
        >>> Quantiles.of(np.array([3, 1, 2])).at(0.5)
        2.0
        """
        if not self.count or not 0.0 <= q <= 1.0:
            raise ValueError(f"quantile {q} of {self.count} values: there is none")
        rank = max(1, math.ceil(q * self.count))
        equal = self.values[1:] == self.values[:-1]
        # Between the first and the last of equal values lie no others.
        first = np.where(np.append(False, equal), np.roll(self.high, 1), self.high)
        last = np.where(np.append(equal, False), np.roll(self.low, -1), self.low)
        return float(self.values[np.argmin(np.maximum(np.maximum(first - rank, rank - last), 0))])

    @property
    def error(self) -> float:
        """How far the rank of a quantile can be off, as a share of all values; 0 where each value is known."""
        gaps = np.where(self.values[1:] == self.values[:-1], 0, self.high[1:] - self.low[:-1])
        return int(gaps.max(initial=0)) // 2 / max(1, self.count)

    def _thinned(self, gap: int) -> Self:
        """Leave out values, where there are too many, that a quantile can do without.

        Parameters
        ----------
        gap : how far apart the bounds of two neighbours may then be, in ranks
        """
        if len(self.values) <= KEPT:
            return self
        same = self.values[1:] == self.values[:-1]
        ends = self._taken(np.flatnonzero(~(np.append(False, same) & np.append(same, False))))
        if len(ends.values) <= KEPT:
            return ends
        from rootdata.events import moments  # here: who only applies a scaling, as servers do, need not wait for numba

        return ends._taken(moments.neighbours_within(ends.values, ends.low, ends.high, gap))  # noqa: SLF001

    def _taken(self, kept: Ints) -> Self:
        return dataclasses.replace(self, values=self.values[kept], low=self.low[kept], high=self.high[kept])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Quantiles):
            return NotImplemented
        pairs = ((self.values, other.values), (self.low, other.low), (self.high, other.high))
        return self.count == other.count and all(np.array_equal(a, b) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment] # arrays can't be

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {f.name: np.asarray(getattr(self, f.name)).tolist() for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_dict` wrote."""
        low, high = (np.array(plain[name], np.int64) for name in ("low", "high"))
        return cls(count=int(plain["count"]), values=np.array(plain["values"], np.float64), low=low, high=high)
