import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rootdata.errors import DataError
from rootdata.order.plan import Source, make_plan
from strategies import plans, sources


def source(name, *counts, first=0, quota=None):
    return Source(name=name, blocks=np.arange(first, first + len(counts)), counts=np.array(counts), quota=quota)


def events_of(order):
    """Return the events of a chunk as (block, row), in order."""
    return list(zip(order.blocks[order.which].tolist(), order.rows.tolist(), strict=True))


def epoch_of(plan, epoch=0, *, start=0):
    return [events_of(chunk) for chunk in plan.chunks(epoch, start=start)]


def flattened(chunks):
    return list(itertools.chain.from_iterable(chunks))


def every_event(plan):
    return [
        (int(b), row) for s in plan.sources for b, n in zip(s.blocks, s.counts, strict=True) for row in range(int(n))
    ]


def owners(plan):
    return {int(b): i for i, s in enumerate(plan.sources) for b in s.blocks}


# An epoch


@given(plans())
def test_an_epoch_holds_every_event_once(plan):
    chunks = epoch_of(plan, epoch=3)
    assert len(chunks) == plan.num_chunks
    assert [len(c) for c in chunks[:-1]] == [plan.chunk_size] * (plan.num_chunks - 1)
    assert 0 < len(chunks[-1]) <= plan.chunk_size
    assert sorted(flattened(chunks)) == every_event(plan)


@given(plans(quotas=True))
def test_with_quotas_an_epoch_holds_every_event_of_a_source_equally_often(plan):
    # Exactly: a source of n events with quota q gives each of them floor(q/n) or ceil(q/n) times.
    seen = Counter(flattened(epoch_of(plan)))
    assert sum(seen.values()) == plan.num_events == sum(s.share for s in plan.sources)
    for s in plan.sources:
        times = [seen[int(b), row] for b, n in zip(s.blocks, s.counts, strict=True) for row in range(int(n))]
        assert sum(times) == s.quota
        assert min(times) >= s.quota // s.size
        assert max(times) <= -(-s.quota // s.size)


def test_oversampling_threefold_gives_each_event_three_times_each_time_in_another_order():
    plan = make_plan([source("s", 40, quota=120)], chunk_size=40, batch_size=1, shuffle=True, seed=1)
    chunks = epoch_of(plan)
    assert [sorted(c) for c in chunks] == [[(0, row) for row in range(40)]] * 3
    assert len({tuple(c) for c in chunks}) == 3


def test_undersampling_gives_another_subset_each_epoch():
    plan = make_plan([source("s", 50, 50, quota=20)], chunk_size=20, batch_size=1, shuffle=True, seed=1)
    subsets = {tuple(sorted(flattened(epoch_of(plan, epoch)))) for epoch in range(5)}
    assert len(subsets) == 5


@given(plans(quotas=True), st.integers(0, 5), st.data())
def test_starting_at_a_chunk_gives_the_tail_of_the_whole(plan, epoch, data):
    start = data.draw(st.integers(0, plan.num_chunks))
    assert epoch_of(plan, epoch, start=start) == epoch_of(plan, epoch)[start:]


@given(plans(quotas=True))
def test_sources_keep_their_proportion_at_every_chunk(plan):
    owner, taken, passed = owners(plan), np.zeros(len(plan.sources)), 0
    for chunk in epoch_of(plan):
        taken += np.bincount([owner[b] for b, _ in chunk], minlength=len(plan.sources))
        passed += len(chunk)
        exact = np.array([s.share for s in plan.sources]) * passed / plan.num_events
        assert np.all(np.abs(taken - exact) < 1 + 1e-9)


def windows(plan):
    """Return how many blocks of each source may be open at a time, over all partitions."""
    return [sum(streams[i].window for streams in plan.streams) for i in range(len(plan.sources))]


@given(plans())
def test_open_blocks_stay_within_the_windows(plan):
    # A block is open at a chunk's edge if some of its events were delivered and some were not. (Without shuffling each
    # partition is read by another process.)
    assume(plan.shuffle or len(plan.streams) == 1)
    owner = owners(plan)
    sizes = {int(b): int(n) for s in plan.sources for b, n in zip(s.blocks, s.counts, strict=True)}
    seen = Counter()
    for order in plan.chunks(0):
        seen.update(b for b, _ in events_of(order))
        still_open = [b for b, n in seen.items() if n < sizes[b]]
        assert set(still_open) <= set(order.still_open.tolist())
        found = Counter(owner[b] for b in order.still_open.tolist() if seen[b])
        # those at the cuts between partitions are open in one and to be opened in the other
        cuts = len(plan.streams) - 1
        assert all(found[i] <= window + cuts for i, window in enumerate(windows(plan)))


@given(plans())
def test_a_chunk_needs_no_more_blocks_of_a_source_than_the_windows_and_those_it_finishes(plan):
    owner = owners(plan)
    sizes = {int(b): int(n) for s in plan.sources for b, n in zip(s.blocks, s.counts, strict=True)}
    seen = Counter()
    for chunk in plan.chunks(0):
        seen.update(chunk.blocks[chunk.which].tolist())
        assert len(set(chunk.blocks.tolist())) == len(chunk.blocks)
        assert set(chunk.which.tolist()) == set(range(len(chunk.blocks)))
        for i, window in enumerate(windows(plan)):
            needed = [b for b in chunk.blocks.tolist() if owner[b] == i]
            finished = sum(seen[b] == sizes[b] for b in needed)
            # a block at the cut of two partitions may be done in one of them
            assert len(needed) <= window + finished + len(plan.streams) - 1


@given(plans())
def test_no_block_is_opened_twice_in_an_epoch(plan):
    # A reader of all partitions holds what is still open: what comes again must be held.
    assume(plan.shuffle)
    held, done = set(), set()
    for chunk in plan.chunks(2):
        needed = set(chunk.blocks.tolist())
        assert not needed & done
        done |= (held | needed) - set(chunk.still_open.tolist())
        held = (held | needed) - done
    assert not held


# Ranks

worlds = st.integers(1, 7)


def batches_of(plan, epoch=0, **ranks):
    """Cut chunks into batches; those of a rank have its share of each batch."""
    rank, world = ranks.get("rank", 0), ranks.get("world_size", 1)
    found, left = [], plan.num_events
    for chunk in plan.chunks(epoch, **ranks):
        events, at = events_of(chunk), 0
        for _ in range(min(-(-left // plan.batch_size), plan.chunk_size // plan.batch_size)):
            n = min(plan.batch_size, left)
            size = n * (rank + 1) // world - n * rank // world
            found.append(events[at : at + size])
            at, left = at + size, left - n
        assert at == len(events)
    return found


@given(plans(quotas=True), worlds, st.integers(0, 3))
def test_ranks_share_every_batch_of_one_process(plan, world, epoch):
    whole = batches_of(plan, epoch)
    shares = [batches_of(plan, epoch, rank=r, world_size=world) for r in range(world)]
    assert [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == whole


@given(plans(quotas=True), worlds, st.data())
def test_a_rank_may_start_at_any_chunk(plan, world, data):
    rank, start = data.draw(st.integers(0, world - 1)), data.draw(st.integers(0, plan.num_chunks))
    late = [events_of(c) for c in plan.chunks(1, start=start, rank=rank, world_size=world)]
    assert late == [events_of(c) for c in plan.chunks(1, rank=rank, world_size=world)][start:]


@given(plans(), worlds)
def test_the_read_amplification_is_what_the_ranks_read(plan, world):
    assume(len(plan.streams) % world == 0)  # else a rank may leave out all events of a block that it opens
    counts = {int(b): int(n) for s in plan.sources for b, n in zip(s.blocks, s.counts, strict=True)}
    read = [
        {b for chunk in plan.chunks(0, rank=r, world_size=world) for b in chunk.blocks.tolist()} for r in range(world)
    ]
    found = sum(counts[b] for blocks in read for b in blocks) / sum(counts.values())
    assert plan.read_amplification(world) == pytest.approx(found)


@pytest.mark.parametrize("world", [2, 4])
def test_each_rank_reads_its_share_where_blocks_are_many(world):
    mixed = [source("a", *[20_000] * 300), source("b", *[18_000] * 90, first=300), source("c", *[500] * 40, first=390)]
    plan = make_plan(mixed, chunk_size=100_000, batch_size=1024, shuffle=True, seed=3, partitions=4)
    assert plan.read_amplification(1) == 1.0
    assert plan.read_amplification(world) < 1.04


def test_fewer_blocks_than_ranks_are_shared():
    plan = make_plan([source("a", 1000)], chunk_size=200, batch_size=40, shuffle=True, seed=3, partitions=4)
    shares = [flattened(events_of(c) for c in plan.chunks(0, rank=r, world_size=4)) for r in range(4)]
    assert [len(s) for s in shares] == [250] * 4
    assert sorted(flattened(shares)) == [(0, row) for row in range(1000)]


@given(plans())
def test_the_cut_into_partitions_is_the_same_in_every_epoch(plan):
    def owned(epoch):
        parts = len(plan.streams)
        return [
            sorted(flattened(events_of(c) for c in plan.chunks(epoch, rank=r, world_size=parts))) for r in range(parts)
        ]

    if plan.batch_size % len(plan.streams) == 0:
        assert owned(0) == owned(5)


# The order of an epoch


@pytest.mark.long
@given(plans(shuffle=True))
def test_the_order_follows_from_seed_and_epoch_alone(plan):
    assume(plan.num_events >= 20)  # 20! orders: two equal ones are an error, not chance
    again = dataclasses.replace(plan)
    assert flattened(epoch_of(plan, 1)) == flattened(epoch_of(again, 1))
    other_seed = dataclasses.replace(plan, seed=plan.seed + 1)
    orders = [flattened(epoch_of(p, e)) for p, e in [(plan, 0), (plan, 1), (other_seed, 0), (other_seed, 1)]]
    assert len({tuple(o) for o in orders}) == 4


@given(plans(shuffle=False))
def test_without_shuffling_each_source_comes_in_file_order_whatever_the_epoch(plan):
    assume(len(plan.streams) == 1)
    owner, order = owners(plan), flattened(epoch_of(plan, 0))
    for i in range(len(plan.sources)):
        mine = [event for event in order if owner[event[0]] == i]
        assert mine == sorted(mine)
    assert order == flattened(epoch_of(plan, 7))


GOLDEN = {
    (True, 1, 0): [
        [(0, 1), (0, 2), (0, 3), (4, 2), (0, 0), (3, 0)],
        [(3, 1), (2, 0), (4, 0), (1, 1), (1, 0), (1, 2)],
        [(2, 1), (4, 1)],
    ],
    (True, 1, 1): [
        [(0, 2), (0, 1), (4, 1), (2, 0), (0, 0), (4, 2)],
        [(2, 1), (0, 3), (3, 1), (1, 1), (1, 0), (3, 0)],
        [(4, 0), (1, 2)],
    ],
    (True, 2, 0): [
        [(2, 0), (4, 0), (3, 0), (1, 1), (2, 1), (1, 2)],
        [(0, 2), (0, 3), (0, 0), (4, 1), (3, 1), (1, 0)],
        [(0, 1), (4, 2)],
    ],
    (True, 2, 1): [
        [(2, 1), (4, 0), (3, 0), (1, 1), (2, 0), (1, 2)],
        [(3, 1), (4, 1), (0, 2), (0, 3), (0, 1), (1, 0)],
        [(0, 0), (4, 2)],
    ],
    (False, 1, 0): [
        [(0, 0), (3, 0), (0, 1), (0, 2), (3, 1), (0, 3)],
        [(1, 0), (4, 0), (1, 1), (1, 2), (4, 1), (2, 0)],
        [(2, 1), (4, 2)],
    ],
}


@pytest.mark.parametrize(("shuffle", "partitions", "epoch"), GOLDEN)
def test_the_order_is_the_one_that_checkpoints_were_made_with(shuffle, partitions, epoch):
    # (block, row) of every event, chunk by chunk. A change here makes every checkpoint of before useless: it needs
    # another version of the resume state, and a word in the changelog.
    plan = make_plan(
        [source("a", 4, 3, 2), source("b", 2, 3, first=3)],
        chunk_size=5, batch_size=2, shuffle=shuffle, seed=42, open_blocks=2, partitions=partitions,
    )  # fmt: skip
    assert plan.chunk_size == 6
    assert epoch_of(plan, epoch) == GOLDEN[shuffle, partitions, epoch]


def test_every_batch_mixes_all_open_blocks():
    # 20 blocks of 500 events and chunks of 1000: four blocks are open, and each batch of 100 has a part of each.
    plan = make_plan([source("s", *[500] * 20)], chunk_size=1000, batch_size=100, shuffle=True, seed=0)
    assert windows(plan) == [4]
    for chunk in epoch_of(plan):
        for low in range(0, 1000, 100):
            batch = Counter(block for block, _ in chunk[low : low + 100])
            assert len(batch) >= 4
            assert max(batch.values()) < 75


# Making a plan


@given(sources(), st.integers(1, 300), st.integers(1, 40))
def test_windows_hold_two_chunks_where_there_is_so_much(mixed, chunk_size, batch_size):
    plan = make_plan(mixed, chunk_size=chunk_size, batch_size=batch_size, shuffle=True, seed=0)
    assert plan.chunk_size % batch_size == 0
    assert chunk_size <= plan.chunk_size < chunk_size + batch_size
    total = sum(s.size for s in mixed)
    for s, window in zip(plan.sources, windows(plan), strict=True):
        held = window * s.size / len(s.counts)
        assert 1 <= window <= len(s.counts)
        assert window == len(s.counts) or held >= 2 * chunk_size * s.size / total


def test_empty_sources_take_no_part():
    mixed = [source("a", 3), Source(name="none", blocks=np.empty(0, int), counts=np.empty(0, int))]
    plan = make_plan([*mixed, source("out", 5, first=1, quota=0)], chunk_size=2, batch_size=1, shuffle=True, seed=0)
    assert [s.name for s in plan.sources] == ["a"]


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(DataError, match="no event is left to read"):
        make_plan([source("a", 3, quota=0)], chunk_size=2, batch_size=1, shuffle=True, seed=0)
