"""Memory: how much there is, how much bodies and answers may take of it, and how it is given back."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from rootdata.arena import give_back
from serve.errors import Overloaded, TooLarge

LARGE = 8_000_000  # bytes from which it is worth while to ask the allocator for what is free
_SHARE = 16  # of the memory; a body lies in an API process, in a worker, and there in columns too
_LEAST = 1_000_000_000  # bytes; a worker with less would hardly run
_CGROUPS = Path("/sys/fs/cgroup")
_MAPPED = 1 << 22  # bytes from which the C library maps a block by itself
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


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


def keep_no_large_blocks() -> None:
    """Let the C library give large blocks back to the system as soon as they are free.

    By itself it soon keeps them on its heap, where slices of different sizes leave holes into which the next ones do
    not fit.
    """
    for parameter, value in ((_MMAP_THRESHOLD, _MAPPED), (_TRIM_THRESHOLD, 2 * _MAPPED)):
        _of_libc("mallopt", parameter, value)


def limit_of_worker(workers: int) -> int:
    """Return the bytes of memory that a worker may have, unless it is told: three quarters of all, shared."""
    return max(_LEAST, memory() * 3 // 4 // workers)


def _limits(root: Path, path: str) -> Iterator[int]:
    """Return the limits of a cgroup and of all above it; versions 1 and 2 have different names for them."""
    folder = root / path
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            return
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                yield int((place / name).read_text())


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking again and again at millions of values that make no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _of_libc(name: str, *arguments: int) -> None:
    """Call a function that glibc has and other C libraries may lack."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)


class Room:
    """The bytes of bodies and answers that a process holds, and how many it may.

    Parameters
    ----------
    most : bytes
    most_requests : that one key may have at work at the same time; None for any number
    """

    def __init__(self, most: int, *, most_requests: int | None = None) -> None:
        self.used = 0
        self._most, self._most_requests = most, most_requests
        self._bytes: collections.Counter[str] = collections.Counter()  # by key
        self._requests: collections.Counter[str] = collections.Counter()

    def enter(self, who: str) -> None:
        """Count a request of a key.

        Raises
        ------
        Overloaded
            If the key has its share of the requests already.
        """
        if self._most_requests is not None and self._requests[who] >= self._most_requests:
            raise Overloaded(
                f"{self._requests[who]} requests with the key of {who!r} wait already, which is its share; try again "
                "later",
                code="share",
            )
        self._requests[who] += 1

    def leave(self, who: str, size: int) -> None:
        """Count the end of a request of a key, and the bytes that it held."""
        self._requests[who] -= 1
        self._bytes[who] -= size
        if not self._requests[who]:
            del self._requests[who], self._bytes[who]

    def share(self, who: str, size: int, *, own: int) -> None:
        """Count bytes of a key: one request may have all, several of a key together half.

        Parameters
        ----------
        who : name of the key
        size : bytes to be counted
        own : bytes that the same request holds already

        Raises
        ------
        Overloaded
            If the key has its share of the bytes already.
        """
        others = self._bytes[who] - own
        if others and others + own + size > self._most // 2:
            raise Overloaded(
                f"bodies with the key of {who!r} take {others} bytes already, and its share is {self._most // 2}; try "
                "again later",
                code="share",
            )
        self.count(who, size)

    def count(self, who: str, size: int) -> None:
        """Count bytes of a key that can't be refused any more."""
        self._bytes[who] += size

    def take(self, size: int, *, own: int = 0) -> None:
        """Count bytes that are about to be held.

        Parameters
        ----------
        size : bytes
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
                f"other requests and their answers take {self.used - own} of the {self._most} bytes for all of them; "
                "try again later",
                code="no_room",
            )
        self.used += size

    def keep(self, size: int) -> None:
        """Go on counting bytes that can't be freed yet though their request is over."""
        self.used += size

    def free(self, size: int) -> None:
        """Count bytes that are not held any more."""
        self.used -= size
        if size >= LARGE:
            give_back()


class Hold:
    """The part of a room that one request takes; a context manager that gives it back.

    Parameters
    ----------
    who : whose request it is; None where nobody is asked
    """

    def __init__(self, room: Room, *, who: str | None = None) -> None:
        self._room, self._who = room, who
        self._size = self._shared = 0

    def grow(self, size: int) -> None:
        """Take more.

        Raises
        ------
        TooLarge, Overloaded
            As :meth:`Room.take` and :meth:`Room.share`.
        """
        self._room.take(size, own=self._size)
        self._size += size
        if self._who is not None:
            self._room.share(self._who, size, own=self._size - size)
            self._shared += size

    def answer(self, size: int) -> None:
        """Count the bytes of an answer in place of those of the body, which is not needed any more.

        They are never refused: what others send has to wait while answers take the room.
        """
        if self._who is not None:
            self._room.count(self._who, size - self._shared)
            self._shared = size
        self._room.keep(size)
        self._room.free(self._size)
        self._size = size

    def __enter__(self) -> Self:
        if self._who is not None:
            self._room.enter(self._who)
        return self

    def __exit__(self, *_: object) -> None:
        if self._who is not None:
            self._room.leave(self._who, self._shared)
        if self._size:
            self._room.free(self._size)
