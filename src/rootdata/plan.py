"""The order of events, as arithmetic: which row of which block is the n-th event of an epoch.

Nothing here reads, waits or knows of threads: every function maps integers to integers, so whoever asks gets the same
answer. The words: a *source* is what is mixed (a sample, or a file); its blocks are visited in a permuted order under a
sliding *window* of K open blocks; a *chunk* takes a share of every source and is permuted as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rootdata.errors import DataError
from rootdata.jagged import Ints, offsets_of

# What a stream of random numbers is for; part of its seed, so that no two uses share numbers.
_BLOCKS, _ROWS, _STEP, _CHUNK = range(4)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One ingredient of the mixture.

    Parameters
    ----------
    blocks : (n_blocks,) numbers of its blocks, in file order
    counts : (n_blocks,) selected events in each, all positive
    quota : events that it gives to an epoch; ``None`` gives each of its events once
    """

    name: str
    blocks: Ints
    counts: Ints
    quota: int | None = None

    @property
    def size(self) -> int:
        """Selected events in the source."""
        return int(self.counts.sum())

    @property
    def share(self) -> int:
        """Events that an epoch takes from the source."""
        return self.size if self.quota is None else self.quota


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """Some consecutive events: event i is row ``rows[i]`` of block ``blocks[which[i]]``.

    Parameters
    ----------
    blocks : numbers of the blocks that are needed
    which : (n,) position in ``blocks``
    rows : (n,) number among the block's selected events
    still_open : blocks that have events before or in this stretch, and after it (and the next ones to be opened)
    """

    blocks: Ints
    which: Ints
    rows: Ints
    still_open: Ints

    def __len__(self) -> int:
        return len(self.rows)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How an epoch is mixed.

    Parameters
    ----------
    chunk_size : events of a chunk, the last one of an epoch excepted
    window : blocks of each source that are open at a time
    """

    sources: tuple[Source, ...]
    chunk_size: int
    window: tuple[int, ...]
    shuffle: bool
    seed: int

    @property
    def num_events(self) -> int:
        """Events of an epoch."""
        return sum(s.share for s in self.sources)

    @property
    def num_chunks(self) -> int:
        """Chunks of an epoch."""
        return -(-self.num_events // self.chunk_size)

    def chunks(self, epoch: int, *, start: int = 0) -> Iterator[Order]:
        """Yield the chunks of an epoch from number ``start`` on.

        Starting late costs no more than starting at the front: nothing that came before is visited.
        """
        table = apportion([s.share for s in self.sources], self.chunk_size)
        walks = [_Walk(self, i, epoch) for i in range(len(self.sources))]
        for c in range(start, len(table) - 1):
            taken = [w.take(int(a), int(b)) for w, a, b in zip(walks, table[c], table[c + 1], strict=True)]
            yield self._mixed(taken, epoch, c)

    def _mixed(self, taken: Sequence[Order], epoch: int, chunk: int) -> Order:
        starts = offsets_of(np.array([len(t.blocks) for t in taken]))
        which = np.concatenate([t.which + s for t, s in zip(taken, starts, strict=False)])
        rows = np.concatenate([t.rows for t in taken])
        if self.shuffle:
            mixed = np.random.default_rng([self.seed, epoch, _CHUNK, chunk]).permutation(len(rows))
        else:  # evenly: event i of n sits at (i + 1/2) / n
            at = np.concatenate([(np.arange(len(t)) + 0.5) / max(1, len(t)) for t in taken])
            mixed = np.argsort(at, kind="stable")
        blocks, still_open = (np.concatenate([getattr(t, n) for t in taken]) for n in ("blocks", "still_open"))
        return Order(blocks, which[mixed], rows[mixed], still_open)


def make_plan(
    sources: Sequence[Source],
    *,
    chunk_size: int,
    batch_size: int,
    shuffle: bool,
    seed: int,
    open_blocks: int | None = None,
) -> Plan:
    """Decide the sizes of chunks and windows.

    Parameters
    ----------
    chunk_size : rounded up to whole batches, so that a batch is a slice of one chunk
    open_blocks : blocks of each source that are open at a time; ``None``: enough to hold two chunks over all sources

    Raises
    ------
    DataError
        Where no source has an event.
    """
    some = tuple(s for s in sources if s.size and s.share)
    if not some:
        raise DataError("no event is left to read: every sample is empty after its cuts; loosen the cuts or the split")
    total = sum(s.share for s in some)
    whole = -(-chunk_size // batch_size) * batch_size
    window = []
    for source in some:
        pool = 2 * whole * source.share / total
        count = open_blocks or max(2, -int(-pool * len(source.counts) // source.size))
        window.append(min(count, len(source.counts)) if shuffle else 1)
    return Plan(sources=some, chunk_size=whole, window=tuple(window), shuffle=shuffle, seed=seed)


def quotas(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """Turn mixing weights into events an epoch, as many in all as the weighted samples hold.

    A sample whose quota is larger than its size is gone through again, in another order each time (oversampling); one
    whose quota is smaller gives another subset each epoch (undersampling).

    Returns
    -------
    sample to events, rounded by largest remainders
    """
    total = sum(n for s, n in sizes.items() if weights[s] > 0)
    active = {s: w for s, w in weights.items() if w > 0 and sizes[s]}
    norm = sum(active.values())
    exact = {s: total * active.get(s, 0.0) / norm for s in sizes}
    rounded = {s: int(x) for s, x in exact.items()}
    by_remainder = sorted(active, key=lambda s: rounded[s] - exact[s])
    for s in by_remainder[: total - sum(rounded.values())]:
        rounded[s] += 1
    return rounded


def apportion(shares: Sequence[int], chunk_size: int) -> Ints:
    """Deal the events of every source to chunks, in proportion.

    Each source is, after every chunk, less than one event away from its exact proportion, and none ever gives an event
    back: units are due at ``k N / n`` events of the whole and are taken earliest due date first, which meets every
    date (Tijdeman, The chairman assignment problem, 1980).

    Parameters
    ----------
    shares : events of each source in the epoch
    chunk_size : events of a chunk; the last one holds what is left

    Returns
    -------
    (chunks + 1, sources) int64, events taken from each source before each chunk

    Examples
    --------
    >>> apportion([3, 5], 3).tolist()
    [[0, 0], [1, 2], [2, 4], [3, 5]]
    """
    total = sum(shares)
    # int64 holds total squared up to three milliards of events; beyond, Python's own integers
    n = np.array(shares, dtype=np.int64 if total < 3_000_000_000 else object)
    ends = [*range(0, total, chunk_size), total]
    table = np.zeros((len(ends), len(shares)), np.int64)
    for c, end in enumerate(ends[1:], start=1):
        exact = end * n
        floor = exact // total
        taken = np.maximum(table[c - 1], floor)
        spare = int(end - taken.sum())
        # a source that is owed a fraction may take its next unit early; the nearest due date goes first
        may = np.flatnonzero(taken * total < exact)
        due = ((taken[may] + 1) * total) / n[may]
        taken[may[np.argsort(due, kind="stable")[:spare]]] += 1
        table[c] = taken
    return table


class _Walk:
    """One source's stream of an epoch: position to (block, row), remembering the open window."""

    def __init__(self, plan: Plan, source: int, epoch: int) -> None:
        self._source = plan.sources[source]
        self._window = plan.window[source]
        self._seed = [plan.seed, epoch, source]
        self._shuffle = plan.shuffle
        self._pass = -1
        self._rows: dict[int, Ints] = {}
        self._step: tuple[int, Ints, Ints] = (-1, np.empty(0, np.int64), np.empty(0, np.int64))

    def take(self, start: int, stop: int) -> Order:
        """Return the events from position ``start`` to ``stop`` of the stream."""
        places: list[Ints] = []
        rows: list[Ints] = []
        size, end = self._source.size, stop
        while start < stop:
            number, at = divmod(start, size)
            self._begin(number)
            step = int(np.searchsorted(self._ends, at, side="right")) - 1
            place, row = self._events_of(step)
            low = at - int(self._ends[step])
            high = min(len(row), low + stop - start)
            places.append(place[low:high])
            rows.append(row[low:high])
            start += high - low
        if not places:
            return Order(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), self._open_at(end))
        used, which = np.unique(np.concatenate(places), return_inverse=True)
        return Order(self._source.blocks[used], which, np.concatenate(rows), self._open_at(end))

    def _open_at(self, position: int) -> Ints:
        """Return the blocks of the step that a position lies in: they have events yet to come."""
        number, at = divmod(position, self._source.size)
        if not at:
            return np.empty(0, np.int64)
        self._begin(number)
        step = int(np.searchsorted(self._ends, at, side="right")) - 1
        return self._source.blocks[self._visit[step : step + self._window]]

    def _random(self, purpose: int, *what: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, self._pass, purpose, *what])

    def _begin(self, number: int) -> None:
        """Lay out pass ``number`` through the source: the order of its blocks and the size of every step."""
        if number == self._pass:
            return
        self._pass = number
        self._rows.clear()
        self._step = (-1, self._step[1], self._step[2])
        n = len(self._source.counts)
        self._visit = self._random(_BLOCKS).permutation(n) if self._shuffle else np.arange(n)
        steps = n - self._window + 1
        place = np.arange(n)
        self._first = np.maximum(0, place - self._window + 1)
        self._stays = np.minimum(place, steps - 1) - self._first + 1
        sizes = np.zeros(steps, np.int64)
        counts = self._source.counts[self._visit]
        for k in range(self._window):  # the k-th open block of every step at once
            at = np.arange(steps) + k
            turn = np.arange(steps) - self._first[at]
            sizes += (turn + 1) * counts[at] // self._stays[at] - turn * counts[at] // self._stays[at]
        self._ends = offsets_of(sizes)

    def _events_of(self, step: int) -> tuple[Ints, Ints]:
        """Return the events of a step: an even share of every block that is open in it, permuted."""
        if self._step[0] == step:
            return self._step[1], self._step[2]
        self._rows = {place: rows for place, rows in self._rows.items() if place >= step}
        parts, places = [], []
        for place in range(step, step + self._window):
            block = int(self._visit[place])
            n, stays, turn = int(self._source.counts[block]), int(self._stays[place]), step - int(self._first[place])
            part = self._rows_of(place, block)[turn * n // stays : (turn + 1) * n // stays]
            parts.append(part)
            places.append(np.full(len(part), block, np.int64))
        row, where = np.concatenate(parts), np.concatenate(places)
        if self._shuffle:
            mixed = self._random(_STEP, step).permutation(len(row))
            row, where = row[mixed], where[mixed]
        self._step = (step, where, row)
        return where, row

    def _rows_of(self, place: int, block: int) -> Ints:
        if place not in self._rows:
            n = int(self._source.counts[block])
            self._rows[place] = self._random(_ROWS, block).permutation(n) if self._shuffle else np.arange(n)
        return self._rows[place]
