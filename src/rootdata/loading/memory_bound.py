"""How much memory an epoch takes, and as many open blocks as a bound in bytes allows."""

from __future__ import annotations

from collections.abc import Callable

from rootdata.errors import ConfigError
from rootdata.layouts.layout import Layout
from rootdata.order.plan import Plan
from rootdata.scan.specs import Specs

# Bytes, measured with benchmarks.memory: what open files, libraries and the allocator take besides events.
FIXED = 40_000_000
# A block that is being read is there as it lies in the file, inflated, as columns and as rows.
COPIES_WHILE_READ = 3
# What the number of readers and of slabs made ahead are taken for, whatever they are: the order depends on it.
READERS, SLABS = 4, 4
ORDER_BYTES = 160  # an event of a chunk: where it is, several times while it is mixed


def bytes_per_event(layout: Layout, specs: Specs, *, carried: int = 0) -> float:
    """Return the memory of an event in an open block, in the mean.

    Parameters
    ----------
    layout : says how many features there are
    specs : tell how many objects events have
    carried : numbers that go with the inputs
    """
    facts = 8 + 8 + 4 + 2 * 8 * carried  # label, entry, weight; what is carried is joined over the open blocks
    size = facts + 4.0 * len(layout.flat)
    for collection in layout.collections:
        histogram = specs.multiplicity[collection.name]
        events = max(1, sum(histogram))
        objects = sum(n * count for n, count in enumerate(histogram)) / events
        size += 8 + 4 * len(collection.columns) * objects
    return size


def memory_of(plan: Plan, *, event: float, slab: int) -> int:
    """Estimate the peak of the memory that an epoch takes, in bytes.

    Parameters
    ----------
    plan : says how many blocks are open at a time, and how large they are
    event : bytes of an event in an open block
    slab : bytes of the batches that are made at a time
    """
    events, largest = 0.0, 0
    streams = [stream for streams in plan.streams for stream in streams]
    for stream, total in zip(streams, plan.taken[-1].reshape(-1).tolist(), strict=True):
        if len(stream.counts):
            # the open blocks, those that a chunk has closed, and those that the next one opens meanwhile
            seen = stream.window * float(stream.counts.mean()) + 2 * total / plan.num_chunks
            events += min(float(stream.size), seen)
            largest = max(largest, int(stream.counts.max()))
    held = event * (events + COPIES_WHILE_READ * READERS * largest)
    return int(FIXED + held + SLABS * slab + ORDER_BYTES * min(plan.chunk_size, plan.num_events))


def fitting(make: Callable[[int], Plan], bound: int, *, memory: Callable[[Plan], int], most: int) -> Plan:
    """Return the plan with the largest windows that stays below a bound.

    Parameters
    ----------
    make : makes the plan with so many open blocks of each source
    bound : bytes
    memory : of a plan, in bytes
    most : windows that need not be exceeded

    Raises
    ------
    ConfigError
        Where the smallest windows take more.
    """
    least = make(1)
    if memory(least) > bound:
        raise ConfigError(
            f"max_memory: got {bound:,} bytes, but at least {memory(least):,} are needed; allow so much, or take a "
            "smaller chunk_size, fewer partitions, or a smaller batch_size"
        )
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if memory(make(middle)) <= bound else (low, middle - 1)
    return make(low)
