"""Passing blocks from a reading process to the training: arrays in memory that both share.

Every reading process has one memory without a name, which therefore goes with the last process that has it open,
however that one ends. The process writes the arrays of a block where there is room (:class:`Sender`); the training maps
them without a copy (:class:`Receiver`), and says with its next request which are in nobody's hands any more. Using the
same pages again and again is most of the gain: fresh ones cost more than a copy through a pipe.

Where the system has no such memory, arrays go through the pipe.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import queue
import socket
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from rootdata.errors import ReaderError

ALIGNMENT = 64  # bytes, of every array: a line of a processor's cache
# Bytes of the memory at first, it doubles where that is too little; pages that nobody has written to do not exist.
FIRST_SIZE = 1 << 26


class Receiver:
    """The side of the training, one for every reading process; it is made before the process starts.

    Parameters
    ----------
    connection : to the process, which makes a :class:`Sender` of its end
    """

    def __init__(self, connection: Any) -> None:
        self._freed: queue.SimpleQueue[int] = queue.SimpleQueue()  # one that a finaliser may use
        self._memory: mmap.mmap | None = None
        self._descriptor = _new_memory()
        self._closing = weakref.finalize(self, _close, self._descriptor)
        connection.send(self._descriptor >= 0)
        if self._descriptor >= 0:
            with _as_socket(connection) as end:
                socket.send_fds(end, [b"."], [self._descriptor])

    def loads(self, message: bytes) -> Any:
        """Return what was packed into a message; its arrays are views of the memory, for as long as anybody has them.

        Raises
        ------
        ReaderError
            If the memory can't be mapped.
        """
        data, size, places = pickle.loads(message)  # noqa: S301 - of our own process
        if not places:
            return pickle.loads(data)  # noqa: S301
        start, stop = places[0][0], places[-1][1]
        # All views are of this array, so that it lives as long as the last of them.
        block = np.frombuffer(self._mapped(size), np.uint8, count=max(1, stop - start), offset=start)
        weakref.finalize(block, self._freed.put, start).atexit = False
        view = memoryview(block)  # type: ignore[arg-type]
        return pickle.loads(data, buffers=[view[a - start : b - start] for a, b in places])  # noqa: S301

    def freed(self) -> list[int]:
        """Return where blocks lay that nobody has any more, for :meth:`Sender.free`; each is returned once."""
        return [self._freed.get_nowait() for _ in range(self._freed.qsize())]

    def close(self) -> None:
        """Let go of the memory; arrays that somebody still has keep theirs. It may be called twice."""
        self._memory = None
        self._closing()

    def _mapped(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            try:
                self._memory = mmap.mmap(self._descriptor, size)
            except OSError as error:
                raise _too_little(size, error) from error
        return self._memory


class Sender:
    """The side of the reading process.

    Parameters
    ----------
    connection : the other end of a :class:`Receiver`'s
    """

    def __init__(self, connection: Any) -> None:
        self._size = 0
        self._taken: dict[int, int] = {}  # where blocks start and stop
        self._descriptor = -1
        if connection.recv():
            with _as_socket(connection) as end:
                _, (self._descriptor,), _, _ = socket.recv_fds(end, 1, 1)

    def dumps(self, thing: Any) -> bytes:
        """Write the arrays of anything that can be pickled to the memory, and return the message for the other side.

        Raises
        ------
        ReaderError
            If there is no memory left.
        """
        buffers: list[pickle.PickleBuffer] = []
        aside = buffers.append if self._descriptor >= 0 else None
        data = pickle.dumps(thing, protocol=5, buffer_callback=aside)
        places = self._write([buffer.raw() for buffer in buffers]) if buffers else []
        return pickle.dumps((data, self._size, places))

    def free(self, starts: Iterable[int]) -> None:
        """Use the room of these blocks again."""
        for start in starts:
            del self._taken[start]

    def _write(self, arrays: Sequence[memoryview]) -> list[tuple[int, int]]:
        *offsets, size = itertools.accumulate((_rounded(len(a)) for a in arrays), initial=0)
        try:
            start = self._room_for(max(ALIGNMENT, size))
            for array, offset in zip(arrays, offsets, strict=True):
                # Writing to a mapping would end the process where there is no memory.
                _write_all(self._descriptor, array, start + offset)
        except OSError as error:
            raise _too_little(size, error) from error
        self._taken[start] = start + max(ALIGNMENT, size)
        return [(start + offset, start + offset + len(a)) for a, offset in zip(arrays, offsets, strict=True)]

    def _room_for(self, size: int) -> int:
        """Find the first gap, which is the one whose pages were most likely in use before."""
        start = 0
        for taken in sorted(self._taken):
            if taken - start >= size:
                break
            start = self._taken[taken]
        if start + size > self._size:
            needed = max(FIRST_SIZE, 2 * self._size, start + size)
            os.ftruncate(self._descriptor, needed)
            self._size = needed
        return start


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _write_all(descriptor: int, array: memoryview, offset: int) -> None:
    while len(array):  # the system writes 2 GB at once
        written = os.pwrite(descriptor, array, offset)
        array, offset = array[written:], offset + written


def _too_little(size: int, error: OSError) -> ReaderError:
    return ReaderError(
        f"{size:,} bytes of memory that is shared with a reading process: {error.strerror}; take smaller chunk_size or "
        "fewer num_workers (0 reads in threads)"
    )


def _new_memory() -> int:
    with suppress(AttributeError, OSError):  # not Linux, or forbidden
        return os.memfd_create("rootdata")
    return -1


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


@contextmanager
def _as_socket(connection: Any) -> Iterator[socket.socket]:
    """Borrow the socket that a two-way pipe is."""
    borrowed = socket.socket(fileno=connection.fileno())
    borrowed.setblocking(True)  # a default timeout, which a program may have set, would change that for the pipe too
    try:
        yield borrowed
    finally:
        borrowed.detach()
