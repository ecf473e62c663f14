"""Open trees, lent to those who read, and opened again, or elsewhere, where reading fails."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from rootdata.errors import FileError
from rootdata.io.contents import Contents
from rootdata.io.files import state_of
from rootdata.io.friends.friended import open_friended
from rootdata.io.retry import PlaceError, failed, is_passing, persist, within
from rootdata.io.trees import Tree, look_into
from rootdata.location import Location, State, is_remote
from rootdata.options.read import ReadConfig

T = TypeVar("T")

OPEN_TREES = 16


class TreePool:
    """Lends open trees, each to one thread at a time, and keeps the last few that came back open.

    Parameters
    ----------
    read : how long remote files that fail are tried again, and what one attempt may take
    limit : trees that are kept open
    follow : whether friends that a file names are read; they lead to other files
    """

    def __init__(self, read: ReadConfig = ReadConfig(), *, limit: int = OPEN_TREES, follow: bool = True) -> None:
        self._limit, self._read_config, self._follow = limit, read, follow
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._idle: list[Tree] = []
        self._first: dict[str, tuple[str, str]] = {}  # path to where it was opened first, and the UUID found there
        self._worked: dict[str, str] = {}  # path to where it was read last

    @contextmanager
    def __call__(self, location: Location) -> Iterator[Tree]:
        """Lend the open tree of a location, opened at its path; nothing is tried again.

        Raises
        ------
        FileError, BranchError
            As :func:`rootdata.io.trees.open_tree`.
        """
        tree = self._borrow(location, location.path)
        try:
            yield tree
        finally:
            self._give_back(tree)

    def use(self, location: Location, action: Callable[[Tree], T]) -> T:
        """Do something with the open tree of a location.

        Where the network or a server fails, the tree is opened anew, at the next of its places, and the action is
        repeated. A file with replicas is read where that worked last.

        Raises
        ------
        FileError
            Where patience has run out, or every place fails for good; where copies are different files; and as
            :func:`rootdata.io.trees.open_tree`.
        BranchError
            As :func:`rootdata.io.trees.open_tree`; and what ``action`` raises.
        """
        if _is_here(location):
            with self(location) as tree:
                return action(tree)
        return self._persist(location, functools.partial(self._read, location, action))

    def look_into(self, location: Location, *, leave: Callable[[Sequence[str]], str | None]) -> Contents:
        """List the trees of the file of a location; see :func:`rootdata.io.trees.look_into`.

        Raises
        ------
        FileError
            As :meth:`use`.
        """
        return self.ask(location, functools.partial(look_into, leave=leave))

    def ask(self, location: Location, question: Callable[[str], T]) -> T:
        """Ask something of the file of a location that takes the place at which it is opened.

        Raises
        ------
        FileError
            As :meth:`use`; and what the question raises.
        """
        return question(location.path) if _is_here(location) else self._persist(location, question)

    def state_of(self, location: Location) -> State:
        """Return the state of a file now; a server is asked once, and not at all after :meth:`close`."""
        return state_of(location, read=dataclasses.replace(self._read_config, patience=0.0), closed=self._closed)

    def _persist(self, location: Location, attempt: Callable[[str], T]) -> T:
        places = (location.path, *location.replicas)
        last = self._worked.get(location.path)
        return persist(
            sorted(places, key=lambda place: place != last),
            functools.partial(self._attempt, location, attempt),
            patience=self._read_config.patience,
            closed=self._closed,
        )

    def _attempt(self, location: Location, attempt: Callable[[str], T], place: str) -> T:
        try:
            is_here = not is_remote(place) and not any(is_remote(friend.path) for friend in location.friends)
            result = attempt(place) if is_here else self._in_time(attempt, place)
        except Exception as error:
            if is_passing(error) or isinstance(error, PlaceError):
                raise failed(error, place) from error
            raise
        self._worked[location.path] = place
        return result

    def _in_time(self, attempt: Callable[[str], T], place: str) -> T:
        return within(self._read_config.deadline, functools.partial(attempt, place), place=place, closed=self._closed)

    def _read(self, location: Location, action: Callable[[Tree], T], place: str) -> T:
        tree = self._borrow(location, place)
        try:
            result = action(tree)
        except Exception:
            _close(tree)
            raise
        self._give_back(tree)
        return result

    def _borrow(self, location: Location, place: str) -> Tree:
        tree = self._take(location, place) or open_friended(location, place=place, follow=self._follow)
        with self._lock:
            first, uuid = self._first.setdefault(location.path, (place, tree.uuid))
        if place != first and tree.uuid != uuid:
            _close(tree)
            raise FileError(
                f"{place} is not a copy of {first}: their UUIDs are {tree.uuid} and {uuid}; "
                "name copies of one file only"
            )
        return tree

    def _take(self, location: Location, place: str) -> Tree | None:
        with self._lock:
            for i, tree in enumerate(self._idle):
                if tree.place == place and location in (tree.location, tree.asked):
                    return self._idle.pop(i)
        return None

    def _give_back(self, tree: Tree) -> None:
        with self._lock:
            self._idle.append(tree)
            allowed = 0 if self._closed.is_set() else self._limit
            surplus = [self._idle.pop(0) for _ in range(len(self._idle) - allowed)]
        for tree in surplus:
            _close(tree)

    def close(self) -> None:
        """Close every tree that came back, and let attempts that wait give up."""
        self._closed.set()
        with self._lock:
            while self._idle:
                _close(self._idle.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_here(location: Location) -> bool:
    return not location.replicas and not location.needs_network


def _close(tree: Tree) -> None:
    with contextlib.suppress(Exception):  # of a connection that is gone
        tree.close()
