"""Bytes of files, for those who decode them.

Those of local files come through a small piece of memory that stays in the processor's cache. Into memory that is not
in the cache the kernel copies several times slower (2 instead of 13 GB/s on an AMD EPYC, as its ``rep movsb`` does
there), and pages that were never written to cost more than both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

PIECE = 1 << 17  # bytes, a part of the second level of any cache
GAP = 32_768  # bytes between two ranges that the system may read along
_own = threading.local()

Span = tuple[int, int]
"""Where bytes begin and end in a file."""


class ByteSource(Protocol):
    """The bytes of a file, here or elsewhere."""

    def fetch(self, at: int, size: int) -> memoryview:
        """Return bytes from some place on, which last until this thread's next call.

        Raises
        ------
        EOFError
            Where the file ends too early.
        OSError
            Where it can't be read.
        """

    def ahead(self, ranges: Sequence[Span]) -> AbstractContextManager[None]:
        """Get ready for what will be fetched while the context lasts."""


class LocalSource:
    """The bytes of an open file of this machine.

    Parameters
    ----------
    handle : file descriptor; its position is neither used nor changed
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def fetch(self, at: int, size: int) -> memoryview:
        """Return bytes from some place on; see :class:`ByteSource`."""
        if self._handle < 0:
            raise OSError("the file is closed")
        end = os.fstat(self._handle).st_size
        if at < 0 or size < 0 or at + size > end:  # before memory is asked for
            raise EOFError(f"{max(0, end - at):,} of {size:,} bytes at {at:,}")
        content = borrow(size)
        read_into(self._handle, at, content)
        return content.data

    def ahead(self, ranges: Sequence[Span]) -> AbstractContextManager[None]:
        """Say which parts of the file will be read, neighbours together: they are then read one by one."""
        for begin, end in joined(ranges, gap=GAP):
            announce(self._handle, begin, end)
        return nullcontext()

    def forget(self) -> None:
        """Read no more: the number of a file that is closed may be another file's."""
        self._handle = -1


def read_into(handle: int, at: int, out: Bytes) -> None:
    """Fill an array with the bytes of a file from some place on.

    Parameters
    ----------
    handle : file descriptor; its position is neither used nor changed
    at : byte of the file
    out : filled to its end

    Raises
    ------
    EOFError
        Where the file ends too early.
    OSError
        Where it can't be read.
    """
    done = 0
    while done < len(out):
        part = out[done : done + PIECE]
        if len(out) <= PIECE:
            got = os.preadv(handle, [part.data], at + done)
        else:
            piece = borrow(len(part), "piece")
            got = os.preadv(handle, [piece.data], at + done)
            part[:got] = piece[:got]
        if not got:
            raise EOFError(f"{done:,} of {len(out):,} bytes at {at:,}")
        done += got


def borrow(size: int, purpose: str = "whole") -> Bytes:
    """Return memory that is this thread's own until it borrows again for the same purpose."""
    memory: Bytes | None = getattr(_own, purpose, None)
    if memory is None or len(memory) < size:
        memory = np.empty(max(size, PIECE), np.uint8)
        setattr(_own, purpose, memory)
    return memory[:size]


def joined(ranges: Iterable[Span], *, gap: int) -> list[Span]:
    """Join ranges that overlap or are at most ``gap`` bytes apart.

    Examples
    --------
    >>> joined([(90, 95), (0, 10), (12, 20)], gap=5)
    [(0, 20), (90, 95)]
    """
    wide: list[Span] = []
    for start, stop in sorted(ranges):
        if wide and start - wide[-1][1] <= gap:
            wide[-1] = (wide[-1][0], max(stop, wide[-1][1]))
        else:
            wide.append((start, stop))
    return wide


def announce(handle: int, begin: int, end: int) -> None:
    """Have the system read a part of a file before it is asked for, where it can.

    Parameters
    ----------
    handle : file descriptor
    begin, end : bytes of the file
    """
    with suppress(AttributeError, OSError):  # not Linux, or a file system that does not
        os.posix_fadvise(handle, begin, end - begin, os.POSIX_FADV_WILLNEED)
