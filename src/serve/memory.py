"""Memory: how much there is, how much the bodies of requests may take of it, and how it is given back."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from serve.errors import Overloaded, TooLarge

LARGE = 8_000_000  # bytes from which it is worth while to ask the allocator for what is free
_SHARE = 16  # of the memory; a body lies in an API process, in a worker, and there in columns too
_LEAST = 1_000_000_000  # bytes; a worker with less would hardly run
_CGROUPS = Path("/sys/fs/cgroup")


def limit_of_bodies() -> int:
    """Return the bytes of bodies that a server holds at the same time, unless it is told."""
    return max(1, memory() // _SHARE)


def memory(*, groups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the memory that this process and its like may use: the machine's, or less where a cgroup says so, bytes.

    Parameters
    ----------
    groups : where the system shows its cgroups
    membership : file that names those of this process
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                found += _limits(groups / controllers, path.lstrip("/"))
    return min(found)


def bound_process(most: int) -> None:
    """Let this process have so many bytes of memory more than it has now; beyond that an allocation fails.

    What is mapped counts, used or not, so this is a stop for what runs away, and not what a request may take.
    """
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + most
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def limit_of_worker(workers: int) -> int:
    """Return the bytes of memory that a worker may have, unless it is told: three quarters of all, shared."""
    return max(_LEAST, memory() * 3 // 4 // workers)


def _limits(root: Path, path: str) -> Iterator[int]:
    """Give the limits of a cgroup and of all above it; version 2 and version 1 call them otherwise."""
    folder = root / path
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            return
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                yield int((place / name).read_text())


def give_back() -> None:
    """Give the system what the allocator keeps though nobody uses it."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Find the C library's function; that of glibc has it."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


class Room:
    """The bytes of bodies that a process holds, and how many it may.

    Parameters
    ----------
    most : bytes
    """

    def __init__(self, most: int) -> None:
        self.used = 0
        self._most = most

    def take(self, size: int, *, own: int = 0) -> None:
        """Count bytes that are about to be held.

        Parameters
        ----------
        own : bytes that the same request holds already

        Raises
        ------
        TooLarge
            For more than there will ever be room for.
        Overloaded
            While others take the room.
        """
        if own + size > self._most:
            raise TooLarge(
                f"body: more than the {self._most} bytes that the server holds of all bodies together; send less at "
                "once, or ask whoever runs it for more (--max-pending-bytes)",
                field="body",
            )
        if self.used + size > self._most:
            raise Overloaded(
                f"bodies of other requests take {self.used - own} of the {self._most} bytes that there are for them; "
                "try again later",
                code="no_room",
            )
        self.used += size

    def keep(self, size: int) -> None:
        """Count bytes that can't be let go of yet though their request is over."""
        self.used += size

    def free(self, size: int) -> None:
        """Count bytes that are not held any more."""
        self.used -= size
        if size >= LARGE:
            give_back()


class Hold:
    """The part of a room that one request takes; a context manager that gives it back."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def grow(self, size: int) -> None:
        """Take more.

        Raises
        ------
        TooLarge, Overloaded
            As :meth:`Room.take`.
        """
        self._room.take(size, own=self._size)
        self._size += size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._size:
            self._room.free(self._size)
