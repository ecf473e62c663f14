"""What the repository and the key file need of a file system: locks, whole files, and word of changes.

Renaming is the only way in which anything becomes visible, so a reader sees the old state or the new one. Locks are
``flock`` on a file of their own: they are held by an open file, so they work between threads too, are dropped by the
kernel when a process dies, and travel over NFS (Linux sends them to the server as byte-range locks).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from rootdata import disk
from serve.errors import Overloaded

T = TypeVar("T")

# Two changes within one tick of a file system's clock (4 ms, a second on old ones) look the same: what changed so
# recently is read again.
SETTLED_NS = 2_000_000_000
LOCK_SECONDS = 60.0


class Watched(Generic[T]):
    """Something read from a path, and read again once the path has changed.

    A look costs one ``stat``. Changes on the same machine are seen at once; over NFS after the attribute cache's time.

    Parameters
    ----------
    read : returns what is there, and whether that may be kept until the path changes
    """

    __slots__ = ("_kept", "_path", "_read")

    def __init__(self, path: str | Path, read: Callable[[], tuple[T, bool]]) -> None:
        self._path, self._read = str(path), read
        self._kept: tuple[tuple[int, int, int, int], T] | None = None

    def get(self) -> T:
        """Return what is there now.

        Raises
        ------
        OSError
            If the path can't be looked at.
        """
        seen = os.stat(self._path)  # noqa: PTH116  # a Path would cost more than the call
        stamp = (seen.st_ino, seen.st_mtime_ns, seen.st_size, seen.st_nlink)
        kept = self._kept
        if kept is not None and kept[0] == stamp:
            return kept[1]
        # Now, not after reading: what changes while a read takes its time may leave the stamp as it is.
        is_settled = time.time_ns() - seen.st_mtime_ns > SETTLED_NS
        value, may_keep = self._read()
        self._kept = (stamp, value) if may_keep and is_settled else None
        return value


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, against other threads, processes and machines.

    Raises
    ------
    Overloaded
        If somebody else holds it for a minute.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(handle, path)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        disk.lock(handle, until=time.monotonic() + LOCK_SECONDS)
    except BlockingIOError as error:
        raise Overloaded(f"another process holds the lock {path.name!r} for {LOCK_SECONDS:.0f} s; try again") from error


def try_lock(handle: int) -> bool:
    """Take the lock of an open file, which is dropped when it is closed; False where somebody else has it."""
    try:
        disk.lock(handle, until=0.0)
    except BlockingIOError:
        return False
    return True
