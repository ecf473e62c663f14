"""The compiled inner loop of dealing in proportion."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from rootdata.compiling import compiled

Ints = npt.NDArray[np.int64]

_INTS = numba.types.Array(numba.int64, 1, "C", readonly=True)
_OUT = numba.types.Array(numba.int64, 2, "C")


@compiled([numba.void(_INTS, _INTS, _OUT)])
def deal(shares: Ints, ends: Ints, table: Ints) -> None:
    """Deal units of several sources in proportion, earliest due date first: as :func:`rootdata.order.mixing.apportion`.

    Parameters
    ----------
    shares : (k,) units of each source; their sum squared fits int64
    ends : (n,) where each stretch ends
    table : (n, k) becomes the units taken from each source before each end
    """
    total, taken, is_owed = shares.sum(), np.zeros(len(shares), np.int64), np.zeros(len(shares), np.bool_)
    for row in range(len(ends)):
        spare = ends[row]
        for s in range(len(shares)):
            exact = ends[row] * shares[s]
            taken[s] = max(taken[s], exact // total)
            is_owed[s] = taken[s] * total < exact
            spare -= taken[s]
        for _ in range(spare):
            first, earliest = -1, np.inf
            for s in range(len(shares)):
                due = (taken[s] + 1) * total / shares[s] if is_owed[s] else np.inf
                if due < earliest:
                    first, earliest = s, due
            if first >= 0:
                taken[first] += 1
                is_owed[first] = False
        table[row] = taken
