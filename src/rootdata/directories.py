"""Where baskets lie in files that were opened before: many small files take longer to open than to read."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rootdata.jagged import Columns, Ints

if TYPE_CHECKING:
    from rootdata.baskets import BasketTable

MAX_BYTES = 64_000_000  # of all that is remembered: some 5,000 files of 200 branches with a basket each

Kind = tuple[str, str, int, int]
"""Name, number type, width and header of a branch, as in a :class:`~rootdata.baskets.BasketTable`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    """The basket tables of some branches of one file, packed.

    Parameters
    ----------
    stamp : size and time of change, in ns, of the file as it was
    numbers : for each branch how many baskets it has, then their entries, places and lengths
    """

    stamp: tuple[int, int]
    kinds: tuple[Kind, ...]
    numbers: Ints

    def tables(self) -> list[BasketTable]:
        """Unpack the tables."""
        from rootdata.baskets import BasketTable

        found, at = [], 0
        for kind in self.kinds:
            n = int(self.numbers[at])
            edges, seeks, nbytes, at = at + 1, at + n + 2, at + 2 * n + 2, at + 3 * n + 2
            parts = (self.numbers[edges:seeks], self.numbers[seeks:nbytes], self.numbers[nbytes:at])
            found.append(BasketTable(*kind, *parts))
        return found


def directory_of(handle: int, tables: Sequence[BasketTable]) -> Directory:
    """Pack the tables of an open file."""
    parts = [np.concatenate([[len(t.seeks)], t.entry_offsets, t.seeks, t.nbytes]) for t in tables]
    kinds = tuple((sys.intern(t.name), sys.intern(t.dtype), t.width, t.header) for t in tables)
    return Directory(_stamp(handle), kinds, np.concatenate([np.zeros(0, np.int64), *parts]))


class Directories:
    """Remembers where baskets lie, by the path of their file, within a bound.

    Threads may share it. A file that has changed is forgotten.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._known: dict[str, Directory] = {}
        self._kinds: dict[tuple[Kind, ...], tuple[Kind, ...]] = {}  # the same for most files: kept once
        self._left = max_bytes

    def keep(self, path: str, look_up: Callable[[], Directory | None]) -> None:
        """Remember a file, if there is room, and it is not known yet."""
        directory = None if path in self._known else look_up()
        if directory is None or self._left < directory.numbers.nbytes:
            return
        self._left -= directory.numbers.nbytes
        kinds = self._kinds.setdefault(directory.kinds, directory.kinds)
        self._known[path] = dataclasses.replace(directory, kinds=kinds)

    def read(self, path: str, names: Sequence[str], start: int, stop: int) -> Columns | None:
        """Read entries of a remembered file; ``None`` where it is not known, has changed, or can't be read so."""
        known = self._known.get(path)
        if known is None or [kind[0] for kind in known.kinds] != list(names):
            return None
        from rootdata.baskets import UnusualError, read_block

        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                if _stamp(handle) == known.stamp:
                    return read_block(handle, known.tables(), start, stop)
            finally:
                os.close(handle)
        except (OSError, EOFError, ValueError, UnusualError):
            pass  # whoever opens the file says what is wrong
        self._known.pop(path, None)
        return None


def _stamp(handle: int) -> tuple[int, int]:
    status = os.fstat(handle)
    return status.st_size, status.st_mtime_ns
