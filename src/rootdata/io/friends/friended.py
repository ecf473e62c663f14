"""A tree as events are read from it: its branches, and the number of each entry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootdata.errors import BranchError
from rootdata.expressions.vocabulary import ENTRY
from rootdata.io.branches import NUMBERS, Branch
from rootdata.io.formats.basket_index import Baskets
from rootdata.io.trees import Tree
from rootdata.jagged import Columns
from rootdata.location import Location, State


class FriendedTree:
    """A tree, and what is read as if it stood in it; see :class:`rootdata.io.trees.Tree`.

    ``entry`` is the number of an entry in the tree, where the tree has no branch of that name.

    Parameters
    ----------
    main : the open tree
    """

    def __init__(self, main: Tree) -> None:
        self.main = main
        self.kind, self.asked, self.place = main.kind, main.asked, main.place
        self.num_entries, self.uuid = main.num_entries, main.uuid
        self._numbers: bool | None = None  # whether `entry` is no branch

    @property
    def location(self) -> Location:
        """Where it lies."""
        return self.main.location

    @property
    def state(self) -> State:
        """That of the file when it was opened."""
        return self.main.state

    def names(self) -> list[str]:
        """Return the names of all branches."""
        return self.main.names()

    def describe(self, name: str) -> Branch:
        """Say what a branch holds; :class:`BranchError` where there is none of that name."""
        return Branch(ENTRY, "flat", "int64", note=NUMBERS) if self._is_number(name) else self.main.describe(name)

    def _is_number(self, name: str) -> bool:
        if name != ENTRY:
            return False
        if self._numbers is None:
            try:
                self.main.describe(ENTRY)
                self._numbers = False
            except BranchError:
                self._numbers = True
        return self._numbers

    def _stored(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self._is_number(name)]

    def edges(self, names: Sequence[str]) -> list[int]:
        """Return the entries at which the given branches can be cut."""
        return self.main.edges(self._stored(names))

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        """Return the uncompressed size of the given branches, in bytes an entry."""
        stored = self._stored(names)
        return self.main.bytes_per_entry(stored) + 8.0 * (len(names) - len(stored))

    def nbytes(self, names: Sequence[str], start: int, stop: int) -> int:
        """Return about how many bytes reading entries ``start`` to ``stop`` takes.

        Parameters
        ----------
        names : of the branches
        start, stop : entries, within those of the tree
        """
        stored = self._stored(names)
        return self.main.nbytes(stored, start, stop) + 8 * (len(names) - len(stored)) * (stop - start)

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read entries ``start`` to ``stop``.

        Parameters
        ----------
        names : of the branches
        start, stop : entries, 0 <= start <= stop <= ``num_entries``
        """
        stored = self._stored(names)
        columns = self.main.read(stored, start, stop)
        if len(stored) == len(names):
            return columns
        return {n: np.arange(start, stop) if self._is_number(n) else columns[n] for n in names}

    def baskets(self, names: Sequence[str]) -> Baskets | None:
        """Say where the baskets of branches lie; ``None`` where more is asked for than branches."""
        return self.main.baskets(names) if len(self._stored(names)) == len(names) else None

    def close(self) -> None:
        """Close the file."""
        self.main.close()
