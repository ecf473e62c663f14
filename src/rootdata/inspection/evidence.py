"""What gives a sample away by its values, whatever its name: one branch that tells the classes apart by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rootdata.inspection.measure import BranchFacts, Reals

SEPARATES = 0.98  # AUC of one branch above which it is hardly physics; below 0.02 likewise
ENOUGH = 200  # entries of either class: with fewer, chance separates
FEW_VALUES = 32  # of which each may be ranked by how often it comes in either class


@dataclasses.dataclass(frozen=True, slots=True)
class _Entries:
    """What entries of one class have of a branch, and the sizes of their weights."""

    values: Reals
    sizes: Reals

    @property
    def present(self) -> _Entries:
        """Those that have a value."""
        known = ~np.isnan(self.values)
        return _Entries(self.values[known], self.sizes[known])

    @property
    def effective(self) -> float:
        """How many entries of equal weights would tell as much."""
        squares = float((self.sizes**2).sum())
        return float(self.sizes.sum()) ** 2 / squares if squares else 0.0


def tells_apart(
    columns: Sequence[BranchFacts | None],
    classes: Sequence[int],
    *,
    weights: Sequence[BranchFacts | None] | None = None,
) -> str:
    """Say that a branch separates signal from background by itself; nothing if it doesn't.

    Parameters
    ----------
    columns : what was measured of the branch in each sample; None where a sample lacks it
    classes : 1 or 0, of each sample
    weights : what was measured of the nominal weight in each sample, whose sizes count; without it, or where a sample
        lacks it, entries count alike

    Examples
    --------
    >>> from rootdata.io.branches import Branch
    >>> from rootdata.inspection.measure import measure
    >>> pdg = Branch("pdg", "flat", "int32")
    >>> signal, background = (measure(pdg, np.full(500, value) + np.arange(500) % 2) for value in (24, 10))
    >>> tells_apart([signal, background], [1, 0])
    'it tells signal from background by itself (AUC 1.000 in 500 and 500 entries)'
    """
    weights = [None] * len(columns) if weights is None else weights
    found = [(column.kept, weight, c) for column, weight, c in zip(columns, weights, classes, strict=True) if column]
    sizes = [_sizes(values, weight) for values, weight, _ in found]
    if any(own is None for own in sizes):
        sizes = [np.ones(len(values)) for values, _, _ in found]
    parts = [(values, own, c) for (values, _, c), own in zip(found, sizes, strict=True) if own is not None]

    def of_class(number: int) -> _Entries:
        own = [(values, size) for values, size, c in parts if c == number] or [(np.zeros(0), np.zeros(0))]
        return _Entries(np.concatenate([v for v, _ in own]), np.concatenate([s for _, s in own]))

    return _told(of_class(1), of_class(0))


def tells_label(column: BranchFacts, label: BranchFacts, *, weight: BranchFacts | None = None) -> str:
    """Say the same of a branch beside one that holds the label, 1 or 0, of each entry.

    Parameters
    ----------
    column : what was measured of the branch
    label : of that with the label
    weight : of that with the nominal weight, where there is one
    """
    if len(column.kept) != len(label.kept):
        return ""
    sizes = _sizes(column.kept, weight)
    sizes = np.ones(len(column.kept)) if sizes is None else sizes
    is_signal = label.kept == 1
    return _told(*(_Entries(column.kept[own], sizes[own]) for own in (is_signal, ~is_signal)))


def _sizes(values: Reals, weight: BranchFacts | None) -> Reals | None:
    """Return the sizes of the weights of the entries that have these values; none where they are not known."""
    if weight is None or len(weight.kept) != len(values) or not np.isfinite(weight.kept).all():
        return None
    return np.abs(weight.kept)


def _told(signal: _Entries, background: _Entries) -> str:
    """Compare all entries, and those alone that have a value: a code of the first jet tells only where there is one."""
    for one, other in ((signal, background), (signal.present, background.present)):
        if min(len(one.values), len(other.values)) < ENOUGH:
            continue
        is_weighted = min(one.effective, other.effective) >= ENOUGH
        sizes = (one.sizes, other.sizes) if is_weighted else None
        auc = separation(one.values, other.values, sizes=sizes)
        if not 1 - SEPARATES <= auc <= SEPARATES:
            numbers = f"{len(one.values):,} and {len(other.values):,} entries"
            how = ", weighted," if is_weighted and (np.ptp(one.sizes) or np.ptp(other.sizes)) else ""
            return f"it tells signal from background by itself (AUC {auc:.3f}{how} in {numbers})"
    return ""


def separation(signal: Reals, background: Reals, *, sizes: tuple[Reals, Reals] | None = None) -> float:
    """Return the AUC of a branch: how likely a value of signal lies above one of background, equal ones counting half.

    Of a few values each, such as codes of particles, the order means nothing: they are ranked by how much more often
    they come in signal. A missing value is one of its own, below all others.

    Parameters
    ----------
    signal, background : values of entries
    sizes : how much each of these entries counts, in sum more than 0; without it all count alike

    Examples
    --------
    >>> separation(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    0.7777777777777778
    """
    own, other = (None, None) if sizes is None else sizes
    both = np.concatenate([signal, background])
    values, where = np.unique(np.nan_to_num(both, nan=-np.inf), return_inverse=True)
    counts = np.bincount(where[: len(signal)], own, minlength=len(values)).astype(np.float64)
    others = np.bincount(where[len(signal) :], other, minlength=len(values)).astype(np.float64)
    ordered = _auc(counts, others)
    if not 2 < len(values) <= FEW_VALUES or not 1 - SEPARATES <= ordered <= SEPARATES:
        return ordered
    shares, other_shares = counts / counts.sum(), others / others.sum()
    order = np.argsort(shares / np.maximum(shares + other_shares, np.finfo(float).tiny), kind="stable")
    return _auc(counts[order], others[order])


def _auc(counts: Reals, others: Reals) -> float:
    below = np.cumsum(others) - others
    return float((counts * (below + others / 2)).sum() / (counts.sum() * others.sum()))


def names_its_sample(columns: Mapping[str, BranchFacts]) -> bool:
    """Say whether a branch is one number in each sample, and not the same in all."""
    stats = [column.stats for column in columns.values()]
    return len(stats) > 1 and all(s.low == s.high for s in stats) and len({s.low for s in stats}) > 1
