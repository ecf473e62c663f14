"""What each worker is doing, where all processes of a server see it: a file that they map.

A worker writes when it begins with something and when it looks for more. Nobody waits for anybody: who reads while
another writes may see the one with the time of the other, and looks again before it acts. Each number is written as a
whole word, never byte by byte: ``struct`` would clear it first, and a worker seem not to have been heard of for days.
"""

from __future__ import annotations

import mmap
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

BEAT = 1.0  # s after which an idle worker shows that it lives
_WORD = 8  # bytes
_SIGN, _DEADLINE = 0, 1  # words of times; behind them the count of numbers, and the numbers
_TIMES = 2


class Slot:
    """The place of one worker.

    Parameters
    ----------
    memory : of all workers
    start : of its bytes
    room : for numbers
    """

    def __init__(self, memory: mmap.mmap, *, start: int, room: int) -> None:
        words = memoryview(memory)[start : start + size_of(room)]
        self._times, self._given = words[: _TIMES * _WORD].cast("d"), words[_TIMES * _WORD :].cast("Q")
        self._room = room

    def work(self, numbers: Sequence[int], *, deadline: float) -> None:
        """Say what the worker begins with."""
        known = array("Q", numbers[: self._room])
        self._given[1 : 1 + len(known)] = known
        self._given[0] = len(known)
        self._hear(deadline)

    def rest(self) -> None:
        """Say that the worker looks for something to do."""
        self._given[0] = 0
        self._hear(0.0)

    def _hear(self, deadline: float) -> None:
        self._times[_SIGN] = time.monotonic()  # first: a worker that rests after long work was heard of just now
        self._times[_DEADLINE] = deadline

    def read(self) -> tuple[float, float]:
        """Return the last sign of life and when the work has to be done, 0 for a worker that waits for requests.

        Both are on the clock of ``time.monotonic``, s.
        """
        return self._times[_SIGN], self._times[_DEADLINE]

    def numbers(self) -> frozenset[int]:
        """Return the numbers of the requests that the worker works on."""
        count = min(self._given[0], self._room)
        return frozenset(self._given[1 : 1 + count])

    def silence(self, now: float) -> float:
        """Return for how long nothing has been heard that should have been, s."""
        sign, deadline = self.read()
        return max(0.0, now - sign - (0.0 if deadline else BEAT))


def size_of(room: int) -> int:
    """Return the bytes of a place for so many numbers."""
    return (_TIMES + 1 + room) * _WORD


def slots(path: Path, *, workers: int, room: int) -> list[Slot]:
    """Map the places of all workers; the first process to do so makes the file.

    Parameters
    ----------
    path : of the file
    workers : number of processes that run models
    room : requests that a worker may work on at the same time
    """
    size = size_of(room)
    with path.open("a+b") as file:
        if file.seek(0, 2) < size * workers:
            file.truncate(size * workers)
        memory = mmap.mmap(file.fileno(), size * workers)
    return [Slot(memory, start=size * worker, room=room) for worker in range(workers)]
