"""What gives a sample away by its values, whatever its name: one branch that tells the classes apart by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rootdata.inspection.measure import BranchFacts, Reals

SEPARATES = 0.98  # AUC of one branch above which it is hardly physics; below 0.02 likewise
ENOUGH = 200  # entries of either class: with fewer, chance separates
FEW_VALUES = 32  # of which each may be ranked by how often it comes in either class


def tells_apart(columns: Sequence[BranchFacts | None], classes: Sequence[int]) -> str:
    """Say that a branch separates signal from background by itself; nothing if it doesn't.

    Parameters
    ----------
    columns : what was measured of the branch in each sample; None where a sample lacks it
    classes : 1 or 0, of each sample

    Examples
    --------
    >>> from rootdata.io.branches import Branch
    >>> from rootdata.inspection.measure import measure
    >>> pdg = Branch("pdg", "flat", "int32")
    >>> signal, background = (measure(pdg, np.full(500, value) + np.arange(500) % 2) for value in (24, 10))
    >>> tells_apart([signal, background], [1, 0])
    'it tells signal from background by itself (AUC 1.000 in 500 and 500 entries)'
    """
    known = [(column.kept, c) for column, c in zip(columns, classes, strict=True) if column is not None]
    return _told(*(np.concatenate([v for v, c in known if c == k] or [np.zeros(0)]) for k in (1, 0)))


def tells_label(column: BranchFacts, label: BranchFacts) -> str:
    """Say the same of a branch beside one that holds the label, 1 or 0, of each entry."""
    if len(column.kept) != len(label.kept):
        return ""
    return _told(column.kept[label.kept == 1], column.kept[label.kept != 1])


def _told(signal: Reals, background: Reals) -> str:
    """Compare all entries, and those alone that have a value: a code of the first jet tells only where there is one."""
    for one, other in ((signal, background), (signal[~np.isnan(signal)], background[~np.isnan(background)])):
        if min(len(one), len(other)) < ENOUGH:
            continue
        auc = separation(one, other)
        if not 1 - SEPARATES <= auc <= SEPARATES:
            numbers = f"{len(one):,} and {len(other):,} entries"
            return f"it tells signal from background by itself (AUC {auc:.3f} in {numbers})"
    return ""


def separation(signal: Reals, background: Reals) -> float:
    """Return the AUC of a branch: how likely a value of signal lies above one of background, equal ones counting half.

    Of a few values each, such as codes of particles, the order means nothing: they are ranked by how much more often
    they come in signal. A missing value is one of its own, below all others.

    Examples
    --------
    >>> separation(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    0.7777777777777778
    """
    both = np.concatenate([signal, background])
    values, where = np.unique(np.nan_to_num(both, nan=-np.inf), return_inverse=True)
    counts = np.bincount(where[: len(signal)], minlength=len(values))
    others = np.bincount(where[len(signal) :], minlength=len(values))
    ordered = _auc(counts, others)
    if not 2 < len(values) <= FEW_VALUES or not 1 - SEPARATES <= ordered <= SEPARATES:
        return ordered
    shares, other_shares = counts / len(signal), others / len(background)
    order = np.argsort(shares / (shares + other_shares), kind="stable")
    return _auc(counts[order], others[order])


def _auc(counts: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> float:
    below = np.cumsum(others) - others
    return float((counts * (below + others / 2)).sum() / (counts.sum() * others.sum()))


def names_its_sample(columns: Mapping[str, BranchFacts]) -> bool:
    """Say whether a branch is one number in each sample, and not the same in all."""
    stats = [column.stats for column in columns.values()]
    return len(stats) > 1 and all(s.low == s.high for s in stats) and len({s.low for s in stats}) > 1
