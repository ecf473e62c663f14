"""What each worker is doing, where all processes of a server see it: a file that they map.

A worker writes when it begins with something and when it looks for more. Nobody waits for anybody: who reads while
another writes may see the one with the time of the other, and looks again before it acts.
"""

from __future__ import annotations

import functools
import mmap
import struct
import time
from collections.abc import Sequence
from pathlib import Path

BEAT = 1.0  # s after which an idle worker shows that it lives
_HEAD = struct.Struct("<ddQ")  # sign, deadline, count
_NUMBER = 8  # bytes


class Slot:
    """The place of one worker.

    Parameters
    ----------
    memory : of all workers
    start : of its bytes
    room : for numbers
    """

    def __init__(self, memory: mmap.mmap, *, start: int, room: int) -> None:
        self._memory, self._start, self._room = memory, start, room

    def work(self, numbers: Sequence[int], *, deadline: float) -> None:
        """Say what the worker begins with."""
        known = numbers[: self._room]
        _format(len(known)).pack_into(self._memory, self._start + _HEAD.size, *known)
        _HEAD.pack_into(self._memory, self._start, time.monotonic(), deadline, len(known))

    def rest(self) -> None:
        """Say that the worker looks for something to do."""
        _HEAD.pack_into(self._memory, self._start, time.monotonic(), 0.0, 0)

    def read(self) -> tuple[float, float]:
        """Return the last sign of life and when the work has to be done, 0 for a worker that waits for requests.

        Both are on the clock of ``time.monotonic``, s.
        """
        sign, deadline, _ = _HEAD.unpack_from(self._memory, self._start)
        return sign, deadline

    def numbers(self) -> frozenset[int]:
        """Return the numbers of the requests that the worker works on."""
        count = min(_HEAD.unpack_from(self._memory, self._start)[2], self._room)
        return frozenset(_format(count).unpack_from(self._memory, self._start + _HEAD.size))

    def silence(self, now: float) -> float:
        """Return for how long nothing has been heard that should have been, s."""
        sign, deadline = self.read()
        return max(0.0, now - sign - (0.0 if deadline else BEAT))


@functools.cache  # as many as a worker may work on at the same time
def _format(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")


def slots(path: Path, *, workers: int, room: int) -> list[Slot]:
    """Map the places of all workers; the first process to do so makes the file.

    Parameters
    ----------
    path : of the file
    workers : number of processes that run models
    room : requests that a worker may work on at the same time
    """
    size = _HEAD.size + _NUMBER * room
    with path.open("a+b") as file:
        if file.seek(0, 2) < size * workers:
            file.truncate(size * workers)
        memory = mmap.mmap(file.fileno(), size * workers)
    return [Slot(memory, start=size * worker, room=room) for worker in range(workers)]
