"""What the first entries of a tree tell of a branch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.events.statistics import ColumnStats
from rootdata.io.branches import Branch
from rootdata.jagged import Jagged

Reals = npt.NDArray[np.float64]

TYPICAL_SENTINELS = (-99999.0, -9999.0, -1000.0, -999.0, -99.0)
HUGE = 1e30  # in GeV, cm or rad nothing real is as large
SPECIAL = (-10.0, -5.0, -2.0, -1.0, 0.0)  # that stand for "none" where they are apart from all other values
APART, TINY = 0.1, 1e-9  # of the spread of the others, between such a value and the next; and at least
KEPT = 1_000  # entries of a file of which a value is kept, to hold samples against each other
FEW = 10  # values that differ: fewer may all fall to one part of a split


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BranchFacts:
    """What the entries read tell of a branch.

    Parameters
    ----------
    entries : entries read
    objects : values read
    longest : largest number of objects in an event, of a jagged branch
    stats : of the values that are not sentinels
    sentinels : values that look like "none" (-999, 1e35), and how often they come
    apart : values such as -1 or 0 that lie apart from all others and so may mean "none", and how often they come
    negative : values below 0, sentinels aside
    middle : the median, or nearly, of the values
    varied : values other than ``middle``
    is_binary : whether all values are 0 or 1
    counts_up : whether every value is the one before plus one
    marks : file to a hash of the numbers of objects: equal where two branches share their counts
    kept : (at most ``KEPT`` a file,) float64, of entries at equal distances: the value, the first one where there are
        several, NaN where there is none
    """

    branch: Branch
    entries: int = 0
    objects: int = 0
    longest: int = 0
    stats: ColumnStats = dataclasses.field(default_factory=ColumnStats)
    sentinels: Mapping[float, int] = dataclasses.field(default_factory=dict)
    apart: Mapping[float, int] = dataclasses.field(default_factory=dict)
    negative: int = 0
    middle: float = 0.0
    varied: int = 0
    is_binary: bool = True
    counts_up: bool = True
    marks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    kept: Reals = dataclasses.field(default_factory=lambda: np.zeros(0), compare=False, repr=False)

    @property
    def is_usable(self) -> bool:
        """Whether it holds numbers that can be read."""
        return self.branch.kind != "unusable"

    def merge(self, other: BranchFacts) -> BranchFacts:
        """Add what another file told of the same branch."""
        both = self.stats.count and other.stats.count
        differ = min(self.stats.count, other.stats.count) if both and self.middle != other.middle else 0
        return BranchFacts(
            branch=self.branch,
            entries=self.entries + other.entries,
            objects=self.objects + other.objects,
            longest=max(self.longest, other.longest),
            stats=self.stats.merge(other.stats),
            sentinels=dict(Counter(self.sentinels) + Counter(other.sentinels)),
            apart=_merge_apart(self, other),
            negative=self.negative + other.negative,
            middle=self.middle if self.stats.count else other.middle,
            varied=self.varied + other.varied + differ,
            is_binary=self.is_binary and other.is_binary,
            counts_up=self.counts_up and other.counts_up,
            marks={**self.marks, **other.marks},
            kept=np.concatenate([self.kept, other.kept]),
        )


def measure(branch: Branch, array: Any, *, place: str = "") -> BranchFacts:
    """Measure the values of a branch.

    Parameters
    ----------
    branch : what the file declares of it
    array : (n,) or (n, k), or jagged
    place : the file and tree that it comes from
    """
    jagged = array if isinstance(array, Jagged) else None
    values = jagged.content if jagged is not None else np.asarray(array).reshape(-1)
    sentinels = find_sentinels(values)
    stats = ColumnStats.of(values, missing=tuple(sentinels))
    # As the type holds it: a float can't tell 2**64 - 1 from 2**64.
    middle = np.partition(values, len(values) // 2)[len(values) // 2] if len(values) else values.dtype.type(0)
    same = int(np.count_nonzero(values == middle))
    return BranchFacts(
        branch=branch,
        entries=len(array),
        objects=len(values),
        longest=int(jagged.counts.max(initial=0)) if jagged is not None else branch.width,
        stats=stats,
        sentinels=sentinels,
        apart={} if sentinels else find_apart(values),
        negative=int(np.count_nonzero(values < 0)) - sum(n for value, n in sentinels.items() if value < 0),
        middle=middle.item(),
        varied=len(values) - same,
        is_binary=bool(np.isin(values, (0, 1)).all()),
        counts_up=_counts_up(values),
        marks={} if jagged is None else {place: hash(jagged.counts.tobytes())},
        kept=_keep(array),
    )


def _keep(array: Any) -> Reals:
    """Take the values of entries at equal distances: the same ones of all branches of a tree."""
    entries = np.linspace(0, len(array) - 1, min(KEPT, len(array))).astype(np.int64)
    if not isinstance(array, Jagged):
        several = np.asarray(array)
        values = several[entries] if several.ndim == 1 else several.reshape(len(several), -1)[entries, :1].reshape(-1)
        return values.astype(np.float64)
    kept = np.full(len(entries), np.nan)
    filled = array.counts[entries] > 0
    kept[filled] = array.content[array.offsets[:-1][entries[filled]]]
    return kept


def _counts_up(values: npt.NDArray[Any]) -> bool:
    is_wide = values.dtype.kind in "iu" and values.dtype.itemsize >= 4  # a narrow one starts again at 0
    return is_wide and len(values) > FEW and bool((values[1:] == values[:-1] + 1).all())


def find_sentinels(values: npt.NDArray[Any]) -> dict[float, int]:
    """Find values that stand for "none", and how often each occurs.

    -999 and its like count where nothing else comes near: all other values are above half of it. Any number
    beyond 1e30 counts.

    Examples
    --------
    >>> find_sentinels(np.array([25.0, -999.0, 31.0, -999.0]))
    {-999.0: 2}
    >>> find_sentinels(np.array([-1001.0, -999.0, -998.0]))
    {}
    """
    if values.dtype.kind not in "if" or not len(values):
        return {}
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    finite = finite.astype(np.float32) if finite.dtype == np.float16 else finite  # which HUGE is beyond
    if not len(finite) or (finite.min() > max(TYPICAL_SENTINELS) / 2 and finite.max() < HUGE):
        return {}
    wide = finite.astype(np.float64)
    huge = np.abs(wide) > HUGE
    rest = wide[~huge & ~np.isin(wide, TYPICAL_SENTINELS)]
    lowest = float(rest.min()) if len(rest) else 0.0
    numbers = {s: int(np.count_nonzero(wide == s)) for s in TYPICAL_SENTINELS if lowest > s / 2}
    beyond, counts = np.unique(wide[huge], return_counts=True)
    common = np.argsort(-counts, kind="stable")[:3]
    return {s: n for s, n in numbers.items() if n} | {float(beyond[i]): int(counts[i]) for i in common}


def find_apart(values: npt.NDArray[Any]) -> dict[float, int]:
    """Find -10, -5, -2, -1 or 0 where it comes several times, and all other values lie beyond a gap above it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> find_apart(np.concatenate([rng.uniform(0.05, 1, 100), [-1, -1, -1, -2, -2, -2]]))
    {-2.0: 3, -1.0: 3}
    >>> find_apart(rng.normal(size=100)), find_apart(np.array([0, 1, 2, 0, 0, 1, 3]))
    ({}, {})
    """
    if values.dtype.kind not in "if" or not len(values):
        return {}
    numbers = {s: int(np.count_nonzero(values == s)) for s in SPECIAL}
    if max(numbers.values()) <= 2:
        return {}
    finite = values[np.isfinite(values)].astype(np.float64)
    rest = finite[~np.isin(finite, SPECIAL)]
    some = rest[:: len(rest) // KEPT + 1]
    if len(np.unique(some)) <= FEW:
        return {}
    lowest, (low, high) = float(rest.min()), np.quantile(some, [0.05, 0.95])
    if values.dtype.kind == "i" and lowest <= 2:  # counts: 0, 1, 2; charges and places: -1, 0, 1
        return {}
    gap = max(APART * (high - low), TINY)
    below = {s: n for s, n in numbers.items() if n and (s < 0 <= lowest or lowest - s >= gap)}
    is_all = sum(below.values()) == len(finite) - len(rest)  # one within the others is a value, and so may all be
    return below if is_all and max(below.values(), default=0) > 2 else {}


def _merge_apart(first: BranchFacts, other: BranchFacts) -> dict[float, int]:
    """Keep what lies apart in both, where both have values."""
    both = dict(Counter(first.apart) + Counter(other.apart))
    lows = [part.stats.low for part in (first, other) if part.stats.count and not part.apart]
    return {} if any(low <= max(both) for low in lows if both) else both


def merge(parts: Iterable[Mapping[str, BranchFacts]]) -> dict[str, BranchFacts]:
    """Put the facts of several files together, by branch."""
    merged: dict[str, BranchFacts] = {}
    for part in parts:
        for name, column in part.items():
            merged[name] = merged[name].merge(column) if name in merged else column
    return merged
