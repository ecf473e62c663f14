"""How many events each sample gives: whole numbers in proportion, at no point off by a whole event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rootdata.jagged import Ints

EXACT_BELOW = 3_000_000_000  # events in all: int64 holds the square of so many


def quotas(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Turn mixing weights into events an epoch, as many in all as the weighted samples hold.

    A sample whose quota is larger than its size is gone through again, in another order each time (oversampling); one
    whose quota is smaller gives another subset each epoch (undersampling).

    Returns
    -------
    sample to events, rounded by largest remainders
    """
    total = sum(n for s, n in sizes.items() if weights[s] > 0)
    active = {s: w for s, w in weights.items() if w > 0 and sizes[s]}
    norm = sum(active.values())
    exact = {s: total * active.get(s, 0.0) / norm for s in sizes}
    rounded = {s: int(x) for s, x in exact.items()}
    by_remainder = sorted(active, key=lambda s: rounded[s] - exact[s])
    for s in by_remainder[: total - sum(rounded.values())]:
        rounded[s] += 1
    return rounded


def apportion(shares: Sequence[int], ends: Sequence[int] | Ints) -> Ints:
    """Deal the events of every source to consecutive stretches of an epoch, in proportion.

    Each source is, after every stretch, less than one event away from its exact proportion, and none ever gives an
    event back: units are due at ``k N / n`` events of the whole and are taken earliest due date first, which meets
    every date (Tijdeman, The chairman assignment problem, 1980).

    Parameters
    ----------
    shares : events of each source in the epoch
    ends : (n,) where each stretch ends, not falling; the last one is the end of the epoch

    Returns
    -------
    (n, sources) int64, events taken from each source before each end

    Examples
    --------
    >>> apportion([3, 5], [3, 6, 8]).tolist()
    [[1, 2], [2, 4], [3, 5]]
    """
    from rootdata.order.kernels import deal  # here, so that what never plans loads no compiler

    total = sum(shares)
    if total >= EXACT_BELOW:
        return _apportion_plainly(shares, ends)
    table = np.zeros((len(ends), len(shares)), np.int64)
    deal(np.array(shares, np.int64), np.array(ends, np.int64), table)
    return table


def _apportion_plainly(shares: Sequence[int], ends: Sequence[int] | Ints) -> Ints:
    """Do as :func:`apportion`, with integers of any size."""
    total = sum(shares)
    n = np.array(shares, dtype=object)
    table = np.zeros((len(ends), len(shares)), np.int64)
    taken = table[0]
    for row, end in enumerate(map(int, ends)):
        exact = end * n
        taken = np.maximum(taken, exact // total)
        spare = end - int(taken.sum())
        # a source that is owed a fraction may take its next unit early; the nearest due date goes first
        may = np.flatnonzero(taken * total < exact)
        due = ((taken[may] + 1) * total) / n[may]
        taken[may[np.argsort(due, kind="stable")[:spare]]] += 1
        table[row] = taken
    return table
