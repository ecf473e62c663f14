"""The order of events, as arithmetic: which row of which block is the n-th event of an epoch.

Nothing here reads, waits or knows of threads: every function maps integers to integers, so whoever asks gets the same
answer. The words: a *source* is what is mixed (a sample, or a file). An epoch is dealt to *partitions*: each holds an
equal part of every source and gives an equal part of every batch, so that a rank can read its own partitions alone.
Within a partition, a source's blocks are visited in a permuted order under a sliding *window* of K open blocks. A
*chunk* takes a share of every source; each partition's part of it is permuted as a whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from rootdata.errors import DataError
from rootdata.jagged import Ints, offsets_of
from rootdata.order.block_order import Order, Stream, Walk, concatenated, numbered
from rootdata.order.mixing import apportion

# What random numbers are for; part of their seed, so that no two uses share numbers (see also order.block_order).
_CHUNK, _DEAL = 3, 4


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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How an epoch is mixed.

    Parameters
    ----------
    chunk_size : events of a chunk, the last one of an epoch excepted; whole batches
    taken : (chunks + 1, partitions, sources) events that each partition takes from each source before each chunk
    streams : for each partition, one of every source
    """

    sources: tuple[Source, ...]
    chunk_size: int
    batch_size: int
    taken: Ints
    streams: tuple[tuple[Stream, ...], ...]
    shuffle: bool
    seed: int

    @property
    def num_events(self) -> int:
        """Events of an epoch."""
        return sum(s.share for s in self.sources)

    @property
    def num_chunks(self) -> int:
        """Chunks of an epoch."""
        return len(self.taken) - 1

    def chunks(self, epoch: int, *, start: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[Order]:
        """Yield the chunks of an epoch from number ``start`` on, as far as they concern one of ``world_size`` ranks.

        Rank r of R gets events ``n r // R`` to ``n (r + 1) // R`` of every batch of n, batch by batch. Starting late
        costs no more than starting at the front: nothing that came before is visited.

        Parameters
        ----------
        epoch : from 0; decides the order where there is shuffling
        start : number of the first chunk
        rank, world_size : leave out what other ranks get of each batch
        """
        partitions = self._partitions_of(rank, world_size)
        walks = {p: [self._walk(stream, epoch) for stream in self.streams[p]] for p in partitions}
        for c in range(start, self.num_chunks):
            parts = []
            for p in partitions:
                bounds = self.taken[c : c + 2, p].tolist()
                taken = [w.take(a, b) for w, a, b in zip(walks[p], *bounds, strict=True)]
                parts.append(self._mixed(taken, epoch, c, p))
            yield _joined(parts, self._rows_of(c, partitions, rank, world_size))

    def read_amplification(self, world_size: int) -> float:
        """Return how often an event is read in an epoch by all ranks together, blocks being read as a whole."""
        counts = {int(b): int(n) for s in self.sources for b, n in zip(s.blocks, s.counts, strict=True)}
        read = [self._blocks_of(rank, world_size) for rank in range(world_size)]
        once = set().union(*read)
        return sum(counts[b] for blocks in read for b in blocks) / sum(counts[b] for b in once)

    def _blocks_of(self, rank: int, world_size: int) -> set[int]:
        shares = self.taken[-1]
        return {
            block
            for p in self._partitions_of(rank, world_size)
            for stream, share in zip(self.streams[p], shares[p].tolist(), strict=True)
            for block in self._walk(stream, 0).touched(share)
        }

    def _walk(self, stream: Stream, epoch: int) -> Walk:
        return Walk(stream, seed=self.seed, epoch=epoch, shuffle=self.shuffle)

    def _partitions_of(self, rank: int, world_size: int) -> range:
        n = len(self.streams)
        return range(rank * n // world_size, -(-(rank + 1) * n // world_size))

    def _mixed(self, taken: Sequence[Order], epoch: int, chunk: int, partition: int) -> Order:
        order = concatenated(taken)
        if self.shuffle:
            seed = [self.seed, epoch, _CHUNK, chunk, partition]
            mixed = np.random.default_rng(seed).permutation(len(order))
        else:  # evenly: event i of n sits at (i + 1/2) / n
            at = np.concatenate([(np.arange(len(t)) + 0.5) / max(1, len(t)) for t in taken])
            mixed = np.argsort(at, kind="stable")
        return dataclasses.replace(order, which=order.which[mixed], rows=order.rows[mixed])

    def _rows_of(self, chunk: int, partitions: range, rank: int, world_size: int) -> Ints:
        """Lay the partitions' events out in batches: positions in their concatenation that the rank gets, in order."""
        n = min(self.chunk_size, self.num_events - chunk * self.chunk_size)
        full, rest = divmod(n, self.batch_size)
        starts = offsets_of(self.taken[chunk + 1, partitions].sum(1) - self.taken[chunk, partitions].sum(1))
        batches, tails = [], []
        for p, at in zip(partitions, starts.tolist(), strict=False):
            low, high, width = self._overlap(self.batch_size, p, rank, world_size)
            rows = at + np.arange(full * width).reshape(full, width)
            batches.append(rows[:, low:high])
            low, high, _ = self._overlap(rest, p, rank, world_size)
            tails.append(at + full * width + np.arange(low, high))
        return np.concatenate([np.concatenate(batches, axis=1).reshape(-1), *tails])

    def _overlap(self, n: int, partition: int, rank: int, world_size: int) -> tuple[int, int, int]:
        """Return which events of a partition's part of a batch of ``n`` are the rank's, and how many the part has."""
        parts = len(self.streams)
        start, stop = n * partition // parts, n * (partition + 1) // parts
        low, high = max(start, n * rank // world_size), min(stop, n * (rank + 1) // world_size)
        return low - start, max(low, high) - start, stop - start


def _joined(parts: Sequence[Order], positions: Ints) -> Order:
    """Take some events of the concatenated parts; a block that several parts need is named once."""
    order = concatenated(parts)
    blocks, which = numbered(order.blocks[order.which[positions]])
    return Order(blocks, which, order.rows[positions], np.unique(order.still_open))


def make_plan(
    sources: Sequence[Source],
    *,
    chunk_size: int,
    batch_size: int,
    shuffle: bool,
    seed: int,
    open_blocks: int | None = None,
    partitions: int = 1,
) -> Plan:
    """Decide the sizes of chunks and windows, and deal the events to partitions.

    Parameters
    ----------
    sources : what is mixed; those without events are left out
    chunk_size : rounded up to whole batches, so that a batch is a slice of one chunk
    batch_size : events of a batch over all ranks
    shuffle : whether blocks are visited, and the events of a chunk ordered, at random
    seed : of that order, together with the epoch
    open_blocks : blocks of each source that are open at a time, at least one for each partition; ``None``: enough to
        hold two chunks over all sources
    partitions : streams that the events are dealt to

    Raises
    ------
    DataError
        Where no source has an event.
    """
    some = tuple(s for s in sources if s.size and s.share)
    if not some:
        raise DataError("no event is left to read: every sample is empty after its cuts; loosen the cuts or the split")
    shares = [s.share for s in some]
    whole = -(-chunk_size // batch_size) * batch_size
    ends = _ends_of(sum(shares), whole, batch_size, partitions)
    table = apportion(shares, ends)
    given = np.diff(table, axis=0, prepend=0).reshape(-1, partitions, len(some))
    taken = np.cumsum(np.concatenate([np.zeros_like(given[:1]), given]), axis=0)
    columns = []
    for i, source in enumerate(some):
        pool = 2 * whole * source.share / sum(shares)
        window = open_blocks or max(2, -int(-pool * len(source.counts) // source.size))
        deal = _deal_out if source.quota is None else _deal_passes
        columns.append(
            deal(source, offsets_of(taken[-1, :, i]), window if shuffle else 1, i, seed if shuffle else None)
        )
    return Plan(
        sources=some,
        chunk_size=whole,
        batch_size=batch_size,
        taken=taken,
        streams=tuple(zip(*columns, strict=True)),
        shuffle=shuffle,
        seed=seed,
    )


def _ends_of(total: int, chunk_size: int, batch_size: int, partitions: int) -> Ints:
    """Return where each partition's part of each chunk ends, chunk after chunk, a chunk's parts side by side."""
    starts = np.arange(0, total, chunk_size)[:, None]
    full, rest = np.divmod(np.minimum(chunk_size, total - starts), batch_size)
    p = np.arange(1, partitions + 1)
    ends = starts + full * (batch_size * p // partitions) + rest * p // partitions
    return np.asarray(ends.reshape(-1), np.int64)


def _deal_out(source: Source, bounds: Ints, window: int, number: int, seed: int | None) -> list[Stream]:
    """Cut the blocks, in an order that no epoch changes, into stretches of exactly the partitions' sizes.

    A block at a cut belongs to two partitions. Both visit it first, or both last, so that whoever reads all partitions
    reads it once.
    """
    n, partitions = len(source.counts), len(bounds) - 1
    deal = np.arange(n) if seed is None else np.random.default_rng([seed, number, _DEAL]).permutation(n)
    edges = offsets_of(source.counts[deal])
    streams = []
    for p in range(partitions):
        low, high = int(bounds[p]), int(bounds[p + 1])
        at = np.arange(np.searchsorted(edges, low, side="right") - 1, np.searchsorted(edges, high, side="left"))
        starts, stops = np.maximum(edges[at], low), np.minimum(edges[at + 1], high)
        some = stops > starts
        at, starts, stops = at[some], starts[some], stops[some]
        ends = []
        if len(at) and seed is not None:
            ends = [(0, p % 2 == 0 and len(at) > 1)] if starts[0] > edges[at[0]] else []
            ends += [(len(at) - 1, p % 2 == 1 and len(at) > 1)] if stops[-1] < edges[at[-1] + 1] else []
        streams.append(
            Stream(
                blocks=source.blocks[deal[at]],
                counts=stops - starts,
                first=starts - edges[at],
                to_front=tuple(place for place, is_front in ends if is_front),
                to_back=tuple({place for place, is_front in ends if not is_front}),
                start=0,
                window=max(1, min(-(-window // partitions), len(at))),
                seed=(number, p),
            )
        )
    return streams


def _deal_passes(source: Source, bounds: Ints, window: int, number: int, seed: int | None) -> list[Stream]:  # noqa: ARG001
    """Let each partition take its stretch of one stream that passes through the source as often as needed.

    So every event comes equally often, to within one, however few there are.
    """
    return [
        Stream(
            blocks=source.blocks,
            counts=source.counts,
            first=np.zeros_like(source.counts),
            to_front=(),
            to_back=(),
            start=int(start),
            window=min(window, len(source.counts)),
            seed=(number, 0),
        )
        for start in bounds[:-1]
    ]
