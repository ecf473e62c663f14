"""Where a file is, what it is called, and its state: what tells its content now from any other."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Sequence


def is_remote(path: str) -> bool:
    """Say whether a path is an address of another machine."""
    return "://" in path


def name_of(path: str) -> str:
    """Return the name of a file without its folder, its host, and what a URL says behind it (``?token=...``).

    Examples
    --------
    >>> name_of("https://host/data/ttH.root?X-Amz-Date=20260101"), name_of("data/what?.root")
    ('ttH.root', 'what?.root')
    """
    return posixpath.basename(without_query(path))


def without_query(path: str) -> str:
    """Return an address without query and fragment, which say who asks and for how long; other paths as they are."""
    return re.split("[?#]", path, maxsplit=1)[0] if is_remote(path) else path


@dataclasses.dataclass(frozen=True, slots=True)
class Friend:
    """A tree whose branches are read as if they stood in another one, entry by entry.

    Parameters
    ----------
    alias : what its branches are called by where another has their names, ``alias.branch``; by default the tree's name
    written : how the file of the other tree names its file, empty for that file itself; ``None`` where a person does
    """

    path: str
    tree: str | None = None
    alias: str = ""
    written: str | None = None

    @property
    def is_named(self) -> bool:
        """Whether the file of the other tree names it, and nobody else."""
        return self.written is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A file and, where it was given, the name of the tree in it.

    Parameters
    ----------
    replicas : other places at which copies of the file lie
    friends : trees that are read beside this one
    """

    path: str
    tree: str | None = None
    replicas: tuple[str, ...] = ()
    friends: tuple[Friend, ...] = ()

    @property
    def needs_network(self) -> bool:
        """Whether it, or a friend, lies on another machine."""
        return is_remote(self.path) or any(is_remote(friend.path) for friend in self.friends)


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What tells the content of a file from any other that it has had or will have, as far as can be seen from outside.

    Parameters
    ----------
    size : bytes; 0 where not known
    version : changes with the content: times of change of a local file, what the server calls its version of a remote
        one; empty where not known
    is_settled : whether any later change would show in the version, which counts seconds on some servers
    """

    size: int = 0
    version: str = ""
    is_settled: bool = dataclasses.field(default=True, compare=False)

    def differs_from(self, other: State) -> bool:
        """Say whether two states of a file are known to be of different contents."""
        pairs = ((self.size, other.size), (self.version, other.version))
        return any(a and b and a != b for a, b in pairs)


def together(states: Sequence[State]) -> State:
    """Return the state of several files that are read as one; what is not known of one is not known of all."""
    if len(states) == 1:
        return states[0]
    return State(
        size=sum(s.size for s in states) if all(s.size for s in states) else 0,
        version="+".join(s.version for s in states) if all(s.version for s in states) else "",
        is_settled=all(s.is_settled for s in states),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KnownFile:
    """What tells a file from any other.

    Parameters
    ----------
    location : with the name of the tree
    state : as it was when it was described
    """

    location: Location
    uuid: str
    entries: int
    state: State
