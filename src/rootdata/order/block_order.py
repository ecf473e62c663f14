"""One stream of events: blocks in a permuted order, a window of them open, and which row of which one comes when.

Integers to integers: nothing is read here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from rootdata.jagged import Ints, offsets_of

# What a stream of random numbers is for; part of its seed, so that no two uses share numbers.
_BLOCKS, _ROWS, _STEP = range(3)
_NONE: Ints = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """Some consecutive events: event i is row ``rows[i]`` of block ``blocks[which[i]]``.

    Parameters
    ----------
    blocks : numbers of the blocks that are needed
    which : (n,) position in ``blocks``
    rows : (n,) number among the block's selected events
    still_open : blocks that have events before or in this stretch, and after it (and some that are yet to be opened)
    """

    blocks: Ints
    which: Ints
    rows: Ints
    still_open: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """What one partition takes from one source in an epoch: a stretch of the passes through some blocks.

    Parameters
    ----------
    blocks, counts : (n,) block numbers, and the events of each that belong here
    first : (n,) the row at which those events begin
    to_front, to_back : positions of blocks that are visited first or last, whatever the epoch
    start : position in the passes at which an epoch begins
    window : blocks that are open at a time
    seed : tells the stream's random numbers from those of others
    """

    blocks: Ints
    counts: Ints
    first: Ints
    to_front: tuple[int, ...]
    to_back: tuple[int, ...]
    start: int
    window: int
    seed: tuple[int, ...]

    @property
    def size(self) -> int:
        """Events of one pass."""
        return int(self.counts.sum())


def concatenated(orders: Sequence[Order]) -> Order:
    """Put the events of several orders one after the other."""
    starts = offsets_of(np.array([len(o.blocks) for o in orders]))
    return Order(
        np.concatenate([o.blocks for o in orders]),
        np.concatenate([o.which + s for o, s in zip(orders, starts, strict=False)]),
        np.concatenate([o.rows for o in orders]),
        np.concatenate([o.still_open for o in orders]),
    )


def numbered(values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct values in rising order, and the number of each value among them.

    As ``np.unique`` does, but without sorting: the values are whole numbers from 0 on, and not far from it.
    """
    occurs = np.zeros(int(values.max(initial=-1)) + 1, np.bool_)
    occurs[values] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[values]


class Walk:
    """One stream of an epoch: position to (block, row), remembering the open window.

    Parameters
    ----------
    stream : the blocks of one source and partition
    seed : of the order, together with the epoch and the stream's own
    epoch : from 0
    shuffle : whether blocks and events come at random; else in file order
    """

    def __init__(self, stream: Stream, *, seed: int, epoch: int, shuffle: bool) -> None:
        self._stream = stream
        self._seed = [seed, epoch, *stream.seed]
        self._shuffle = shuffle
        self._pass = -1
        # A line for each open block. Many small blocks are open at a time: no step goes over them one by one.
        self._rows = np.empty((stream.window, int(stream.counts.max(initial=0))), np.int64)
        self._opened = 0
        self._step: tuple[int, Ints, Ints] = (-1, _NONE, _NONE)

    def take(self, start: int, stop: int) -> Order:
        """Return the events from position ``start`` to ``stop`` of the epoch."""
        places: list[Ints] = []
        rows: list[Ints] = []
        start, stop = start + self._stream.start, stop + self._stream.start
        end = stop
        while start < stop:
            step, at = self._find(start)
            place, row = self._events_of(step)
            low = at - int(self._ends[step])
            high = min(len(row), low + stop - start)
            places.append(place[low:high])
            rows.append(row[low:high])
            start += high - low
        still_open = np.concatenate([self._open_at(end), self._at_cuts(end - self._stream.start)])
        if not places:
            return Order(_NONE, _NONE, _NONE, still_open)
        used, which = numbered(np.concatenate(places))
        return Order(self._stream.blocks[used], which, np.concatenate(rows), still_open)

    def touched(self, share: int) -> list[int]:
        """Return the blocks that an epoch of ``share`` events opens."""
        found: set[int] = set()
        start, stop = self._stream.start, self._stream.start + share
        while start < stop:
            step, at = self._find(start)
            ahead = stop - start + at
            last = int(np.searchsorted(self._ends, min(ahead, self._stream.size), side="left"))
            found.update(self._stream.blocks[self._visit[step : last - 1 + self._stream.window]].tolist())
            start += self._stream.size - at
        return sorted(found)

    def _find(self, position: int) -> tuple[int, int]:
        """Return the step that a position lies in, and the position within its pass."""
        number, at = divmod(position, self._stream.size)
        self._begin(number)
        return int(np.searchsorted(self._ends, at, side="right")) - 1, at

    def _open_at(self, position: int) -> Ints:
        """Return the blocks of the step that a position lies in: they have events yet to come."""
        if position == self._stream.start or not position % self._stream.size:
            return _NONE
        step, _ = self._find(position)
        return self._stream.blocks[self._visit[step : step + self._stream.window]]

    def _at_cuts(self, passed: int) -> Ints:
        """Return the blocks yet to be visited that another partition may have opened."""
        yet = [
            *(self._stream.to_front if not passed else ()),
            *(self._stream.to_back if passed < self._stream.size else ()),
        ]
        return self._stream.blocks[yet] if yet else _NONE

    def _random(self, purpose: int, *what: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, self._pass, purpose, *what])

    def _begin(self, number: int) -> None:
        """Lay out pass ``number`` through the blocks: their order and the size of every step."""
        if number == self._pass:
            return
        self._pass = number
        self._opened = 0
        self._step = (-1, _NONE, _NONE)
        window, n = self._stream.window, len(self._stream.counts)
        self._visit = self._order_of_blocks(n)
        steps = n - window + 1
        place = np.arange(n)
        self._first = np.maximum(0, place - window + 1)
        self._stays = np.minimum(place, steps - 1) - self._first + 1
        sizes = np.zeros(steps, np.int64)
        counts = self._stream.counts[self._visit]
        for k in range(window):  # the k-th open block of every step at once
            at = np.arange(steps) + k
            turn = np.arange(steps) - self._first[at]
            sizes += (turn + 1) * counts[at] // self._stays[at] - turn * counts[at] // self._stays[at]
        self._ends = offsets_of(sizes)

    def _order_of_blocks(self, n: int) -> Ints:
        if not self._shuffle:
            return np.arange(n, dtype=np.int64)
        front, back = self._stream.to_front, self._stream.to_back
        visit = self._random(_BLOCKS).permutation(n)
        inner = [place for place in visit.tolist() if place not in front and place not in back]
        return np.array([*front, *inner, *back], np.int64)

    def _events_of(self, step: int) -> tuple[Ints, Ints]:
        """Return the events of a step: an even share of every block that is open in it, permuted."""
        if self._step[0] == step:
            return self._step[1], self._step[2]
        self._open(step)
        places = np.arange(step, step + self._stream.window)
        blocks = self._visit[places]
        n, stays, turn = self._stream.counts[blocks], self._stays[places], step - self._first[places]
        low = turn * n // stays
        sizes = (turn + 1) * n // stays - low
        starts = offsets_of(sizes)
        slots = places % self._stream.window * self._rows.shape[1]
        row = self._rows.reshape(-1)[np.repeat(slots + low - starts[:-1], sizes) + np.arange(starts[-1])]
        where = np.repeat(blocks, sizes)
        if self._shuffle:
            mixed = self._random(_STEP, step).permutation(len(row))
            row, where = row[mixed], where[mixed]
        self._step = (step, where, row)
        return where, row

    def _open(self, step: int) -> None:
        """Lay out the rows of the blocks that are open in a step: a line each, in the place of one that is closed."""
        if step < self._step[0]:
            self._opened = 0
        for place in range(max(step, self._opened), step + self._stream.window):
            block = int(self._visit[place])
            first, n = int(self._stream.first[block]), int(self._stream.counts[block])
            rows = self._random(_ROWS, block).permutation(n) if self._shuffle else np.arange(n)
            self._rows[place % self._stream.window, :n] = first + rows
        self._opened = step + self._stream.window
