"""A tree as events are read from it: its branches, those of its friends, and the number of each entry."""

from __future__ import annotations

import contextlib
import dataclasses
import posixpath
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rootdata.errors import BranchError, FileError, RootDataError
from rootdata.expressions.nested import name_of as made_name
from rootdata.expressions.nested import split_name
from rootdata.expressions.vocabulary import ENTRY
from rootdata.io.branches import NUMBERS, Branch, unknown_branch
from rootdata.io.formats.basket_index import Baskets
from rootdata.io.friends.match import path_of
from rootdata.io.retry import is_passing
from rootdata.io.trees import Tree, friends_in, has_index, open_tree
from rootdata.jagged import Column, Columns
from rootdata.location import Friend, Location, State, together


@dataclasses.dataclass(frozen=True, slots=True)
class _Origin:
    """Where a column comes from: a tree and the name of the branch there; no tree for the number of the entry."""

    tree: Tree | None
    name: str


class FriendedTree:
    """A tree, and what is read as if it stood in it; see :class:`rootdata.io.trees.Tree`.

    A name means the first of: a branch of the tree; ``entry``, the number of an entry; ``alias.branch`` of a friend; a
    branch of the first friend that has one. Friends that the file names are opened when a name is not found before.

    Parameters
    ----------
    main : the open tree
    follow : whether friends that the file names are read
    """

    def __init__(self, main: Tree, *, follow: bool) -> None:
        self.main = main
        self.kind, self.asked, self.place = main.kind, main.asked, main.place
        self.num_entries, self.uuid = main.num_entries, main.uuid
        self._friends: dict[Friend, Tree] = {}
        self._left: list[str] = []  # friends that are not followed, and why
        self._is_followed = not follow
        self._used: set[int] = set()  # ids of the trees from which a branch is taken
        self._origins: dict[str, _Origin] = {}  # by name

    @property
    def location(self) -> Location:
        """Where it lies, with its friends; of those that the file names only the ones that are needed."""
        return dataclasses.replace(self.main.location, friends=tuple(self._needed()))

    @property
    def state(self) -> State:
        """That of the file and the friends that are needed, when they were opened."""
        return together([self.main.state, *(tree.state for tree in self._needed().values())])

    def _needed(self) -> dict[Friend, Tree]:
        return {f: tree for f, tree in self._friends.items() if not f.is_named or id(tree) in self._used}

    def join(self, friend: Friend) -> None:
        """Open a friend.

        Raises
        ------
        FileError, BranchError
            Where it can't be opened, or its entries are not those of the tree.
        """
        tree = open_tree(Location(friend.path, friend.tree))
        alias = friend.alias or posixpath.basename(str(tree.location.tree))
        try:
            self._check_suits(tree, alias)
        except Exception:
            tree.close()
            raise
        self._friends[dataclasses.replace(friend, tree=tree.location.tree, alias=alias)] = tree

    def _check_suits(self, tree: Tree, alias: str) -> None:
        if any(alias == other.alias for other in self._friends):
            raise FileError(
                f"{_called(self.main)} has two friends called {alias!r}; name them apart: friends: {{first: ..., "
                "second: ...}"
            )
        if tree.num_entries != self.num_entries:
            raise FileError(
                f"{_called(tree)} has {tree.num_entries:,} entries, {_called(self.main)} has {self.num_entries:,}: "
                "friends are read entry by entry; name the one that was made of this file"
            )
        if has_index(tree):
            raise FileError(
                f"{_called(tree)} has an index (TTreeIndex), by which ROOT finds its entries; friends are read entry "
                "by entry here: write it without an index, in the order of the other tree"
            )

    def _follow(self) -> None:
        """Open the friends that the file names, and remember why some can't be read."""
        if self._is_followed:
            return
        for named in friends_in(self.main):
            if all(named.alias != friend.alias for friend in self._friends):
                try:
                    self.join(Friend(path_of(named.file, self.place), named.tree, named.alias, named.file))
                except RootDataError as error:
                    if is_passing(error):
                        raise
                    self._left.append(f"friend tree {named.alias!r}, which the file names, can't be followed: {error}")
        self._is_followed = True

    # Where a column comes from

    def _find(self, name: str) -> _Origin:
        if name not in self._origins:
            self._origins[name] = self._look_for(name)
        origin = self._origins[name]
        self._used.add(id(origin.tree))
        return origin

    def _look_for(self, name: str) -> _Origin:
        try:
            self.main.describe(name)
        except BranchError as error:
            if name == ENTRY:
                return _Origin(None, name)
            origin = self._of_friends(name)
            if origin is None:
                self._follow()
                origin = self._of_friends(name)
            if origin is None:
                raise BranchError("; ".join([str(self._unknown(name, error)), *self._left])) from error
            return origin
        return _Origin(self.main, name)

    def _unknown(self, name: str, error: BranchError) -> BranchError:
        """Make the error for a name that no tree has, with near ones of friends, too; one of the tree's own stays."""
        if not self._friends or name in self.main.names():
            return error
        aliases = [friend.alias for friend in self._friends]
        known = [*self.names(), *(f"{f.alias}.{n}" for f, tree in self._friends.items() for n in tree.names())]
        place = f"tree {self.main.location.tree!r}, {self.place}, and its friends {', '.join(map(repr, aliases))}"
        return unknown_branch(name, known, where=place)

    def _of_friends(self, name: str) -> _Origin | None:
        ways: list[Callable[[str], str | None]] = [
            lambda alias: _without(f"{alias}.", name),
            lambda _: name,
            lambda alias: _without(f"{alias}_", name),  # as names with a dot may be written
        ]
        for way in ways:
            for friend, tree in self._friends.items():
                inner = way(friend.alias)
                if inner and _has(tree, inner):
                    return _Origin(tree, inner)
        return None

    def names(self) -> list[str]:
        """Return the names of all branches, those of friends behind them."""
        self._follow()
        names = dict.fromkeys(self.main.names())
        for friend, tree in self._friends.items():
            names |= dict.fromkeys(f"{friend.alias}.{n}" if n in names or n == ENTRY else n for n in tree.names())
        return list(names)

    def describe(self, name: str) -> Branch:
        """Say what a branch holds; :class:`BranchError` where there is none of that name."""
        origin = self._find(name)
        if origin.tree is None:
            return Branch(ENTRY, "flat", "int64", note=NUMBERS)
        branch = dataclasses.replace(origin.tree.describe(origin.name), name=name)
        alias = next((friend.alias for friend, tree in self._friends.items() if tree is origin.tree), "")
        return dataclasses.replace(branch, friend=alias) if alias else branch

    def _groups(self, names: Sequence[str]) -> Iterator[tuple[Tree, list[str]]]:
        """Say which branches are read of which tree; of the main one even if there are none."""
        origins = [self._find(name) for name in names]
        for tree in (self.main, *self._friends.values()):
            own = list(dict.fromkeys(origin.name for origin in origins if origin.tree is tree))
            if own or tree is self.main:
                yield tree, own

    # As of any tree

    def edges(self, names: Sequence[str]) -> list[int]:
        """Return the entries at which the given branches can be cut: those of all trees, or of the largest."""
        groups = [(tree, own) for tree, own in self._groups(names) if own] or [(self.main, [])]
        found = [tree.edges(own) for tree, own in groups]
        shared = set(found[0]).intersection(*found[1:])
        if len(shared) > 2 or len(found) == 1:
            return sorted(shared)
        sizes = [tree.bytes_per_entry(own) for tree, own in groups]
        return max(zip(sizes, found, strict=True))[1]

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        """Return the uncompressed size of the given branches, in bytes an entry."""
        return 8.0 * (ENTRY in names) + sum(tree.bytes_per_entry(own) for tree, own in self._groups(names) if own)

    def nbytes(self, names: Sequence[str], start: int, stop: int) -> int:
        """Return about how many bytes reading entries ``start`` to ``stop`` takes.

        Parameters
        ----------
        names : of the branches
        start, stop : entries, within those of the tree
        """
        return 8 * (stop - start) * (ENTRY in names) + sum(
            tree.nbytes(own, start, stop) for tree, own in self._groups(names) if own
        )

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read entries ``start`` to ``stop``.

        Parameters
        ----------
        names : of the branches
        start, stop : entries, 0 <= start <= stop <= ``num_entries``
        """
        read = {id(tree): tree.read(own, start, stop) for tree, own in self._groups(names)}

        def column(origin: _Origin) -> Column:
            return np.arange(start, stop) if origin.tree is None else read[id(origin.tree)][origin.name]

        return {name: column(self._find(name)) for name in names}

    def baskets(self, names: Sequence[str]) -> Baskets | None:
        """Say where the baskets of branches lie; ``None`` where more is asked for than branches of the tree."""
        return self.main.baskets(names) if all(self._find(n).tree is self.main for n in names) else None

    def close(self) -> None:
        """Close the file, and those of the friends."""
        with contextlib.ExitStack() as stack:
            for tree in (self.main, *self._friends.values()):
                stack.callback(tree.close)


def open_friended(location: Location, *, place: str | None = None, follow: bool = True) -> FriendedTree:
    """Open the tree of a file, and its friends.

    Parameters
    ----------
    location : path, copies and name of the tree, and its friends
    place : where it is opened: at the location's path, or at one of its replicas
    follow : whether friends that the file names are read

    Raises
    ------
    FileError, BranchError
        As :func:`rootdata.io.trees.open_tree`, and for friends whose entries are not those of the tree.
    """
    tree = FriendedTree(open_tree(location, place=place), follow=follow)
    try:
        for friend in location.friends:
            tree.join(friend)
    except Exception:
        tree.close()
        raise
    return tree


def _called(tree: Tree) -> str:
    return f"tree {tree.location.tree!r} of {tree.place}"


def _has(tree: Tree, name: str) -> bool:
    try:
        tree.describe(name)
    except BranchError:
        return False
    return True


def _without(prefix: str, name: str) -> str | None:
    """Take a friend's alias from a name, or from what is made of lists: ``flatten(alias.x)``."""
    if (made := split_name(name)) is not None:
        inner = _without(prefix, made[1])
        return made_name(made[0], inner) if inner else None
    return name[len(prefix) :] if name.startswith(prefix) else None
