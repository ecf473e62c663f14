"""Between a file and columns: the one way by which events are read, wherever the file lies."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from rootdata.errors import FileError
from rootdata.io.branches import Branch
from rootdata.io.contents import Contents
from rootdata.io.formats.basket_index import BasketIndex, Baskets
from rootdata.io.store import Store, key_of, through
from rootdata.io.tree_pool import OPEN_TREES, TreePool
from rootdata.io.trees import Tree, blocks_of
from rootdata.jagged import Columns
from rootdata.location import KnownFile, Location, State
from rootdata.options.read import ReadConfig

T = TypeVar("T")


class ChangedError(FileError):
    """A file is not the one that was described."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What opening a file told.

    Parameters
    ----------
    file : which file it is
    branches : by the names that were asked for
    blocks : (start, stop) of each
    baskets : where they lie, for a file of one block, which takes longer to open than to read
    """

    file: KnownFile
    branches: Mapping[str, Branch]
    blocks: tuple[tuple[int, int], ...]
    baskets: Baskets | None


class BlockReader:
    """Reads blocks of files; threads may share it.

    What fails on the way from a server is tried again, elsewhere where there are copies, in the time that is allowed.
    Open trees are kept, and what was read of remote files goes through a store.

    Parameters
    ----------
    read : how long remote files that fail are tried again, and what one attempt may take
    store : where blocks of remote files are looked for first, and kept
    index : where baskets lie in files that were opened before
    limit : trees that are kept open
    follow : whether friends that a file names are read; they lead to other files
    """

    def __init__(
        self,
        read: ReadConfig = ReadConfig(),
        *,
        store: Store | None = None,
        index: BasketIndex | None = None,
        limit: int = OPEN_TREES,
        follow: bool = True,
    ) -> None:
        self._store = store
        self._index = index
        self._trees = TreePool(read, limit=limit, follow=follow)

    def describe(self, location: Location, names: Sequence[str]) -> Described:
        """Open a file, and say what some branches hold and how their entries are cut into blocks.

        Raises
        ------
        FileError, BranchError
            As :meth:`use`.
        """
        return self.use(location, functools.partial(_describe, names))

    def read(
        self,
        file: KnownFile,
        names: Sequence[str],
        start: int,
        stop: int,
        *,
        is_good: Callable[[Columns], bool] | None = None,
        last: bool = False,
        keep: bool = True,
    ) -> Columns:
        """Read entries ``start`` to ``stop`` of some branches.

        Parameters
        ----------
        file : where it is, and its state, UUID and number of entries when it was scanned
        names : of the branches
        start, stop : entries, within those of the tree
        is_good : compares columns, read or kept by a store, with what is known of them; without it, what was kept is as
            good as the file's state
        last : whether nobody will ask for these again
        keep : whether a store may have them, and be given them

        Raises
        ------
        ChangedError
            Where another file lies there, or other columns than are known.
        FileError, BranchError
            As :meth:`use`.
        """
        # A file of this machine is read again as quickly as a store gives it.
        store = self._store if keep and file.location.needs_network else None
        # Servers tell times in seconds: what was kept may be of a file that was replaced within one.
        is_certain = bool(file.state.is_settled and file.state.version)

        def read() -> Columns:
            columns = self._read(file, names, start, stop)
            if is_good is not None and not is_good(columns):
                raise ChangedError(
                    f"{file.location.path}: entries {start} to {stop} are not those that the first pass read"
                )
            return columns

        return through(
            store, _key_of(file, names, start, stop), read, is_good=is_good or (lambda _: is_certain), last=last
        )

    def _read(self, file: KnownFile, names: Sequence[str], start: int, stop: int) -> Columns:
        place = (file.location.path, str(file.location.tree))

        def read(tree: Tree) -> Columns:
            if (tree.uuid, tree.num_entries) != (file.uuid, file.entries):
                raise ChangedError(f"{file.location.path} is not the file that the first pass saw")
            columns = tree.read(names, start, stop)
            if self._index is not None:
                self._index.keep(place, lambda: tree.baskets(names))
            return columns

        columns = None if self._index is None else self._index.read(place, names, start, stop)
        return self.use(file.location, read) if columns is None else columns

    def use(self, location: Location, action: Callable[[Tree], T]) -> T:
        """Do something with the open tree of a location; see :meth:`rootdata.io.tree_pool.TreePool.use`."""
        return self._trees.use(location, action)

    def look_into(self, location: Location, *, leave: Callable[[Sequence[str]], str | None]) -> Contents:
        """List the trees of the file of a location; see :func:`rootdata.io.trees.look_into`."""
        return self._trees.look_into(location, leave=leave)

    def ask(self, location: Location, question: Callable[[str], T]) -> T:
        """Ask something of the file of a location; see :meth:`rootdata.io.tree_pool.TreePool.ask`."""
        return self._trees.ask(location, question)

    def state_of(self, location: Location) -> State:
        """Return the state of a file now; a server is asked once, and not at all after :meth:`close`."""
        return self._trees.state_of(location)

    def close(self) -> None:
        """Close the files, and let attempts that wait give up."""
        self._trees.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key_of(file: KnownFile, names: Sequence[str], start: int, stop: int) -> str:
    content: list[Any] = [file.uuid, file.entries, file.state.size, file.state.version, str(file.location.tree)]
    content += [[friend.path, friend.tree, friend.alias] for friend in file.location.friends]
    return key_of(content, names=names, start=start, stop=stop)


def _describe(names: Sequence[str], tree: Tree) -> Described:
    branches = {name: tree.describe(name) for name in names}
    bounds = tuple(blocks_of(tree, names))
    state = State(tree.state.size) if tree.location.replicas else tree.state  # copies have times of their own
    return Described(
        file=KnownFile(location=tree.location, uuid=tree.uuid, entries=tree.num_entries, state=state),
        branches=branches,
        blocks=bounds,
        baskets=tree.baskets(names) if len(bounds) == 1 else None,
    )
