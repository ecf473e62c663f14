"""Compiled inner loops that layouts share: columns to rows, and scattered rows to rectangular arrays.

They take addresses of arrays, many at a time, so that one call does the work of all columns or blocks: what lies at an
address is neither checked nor kept alive here, callers (:mod:`rootdata.layouts.pool`) do both. Compiled on first use
and kept on disk by numba; they release the interpreter lock.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

from rootdata.compiling import compiled

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

STRIP = 2048  # rows that are laid out at a time: short enough to stay in a core's cache until all columns are in

# Scattered events are rarely in a cache: so many events ahead, what lies at them is asked for (halves the time).
AHEAD = 4
CACHE_LINE = 64  # bytes

SINGLES = numba.types.Array(numba.float32, 1, "C", readonly=True)  # or not: a cache hands out read-only ones
INTS = numba.types.Array(numba.int64, 1, "C", readonly=True)
TABLE = numba.types.Array(numba.int64, 2, "C", readonly=True)
OUT = numba.types.Array(numba.float32, 2, "C")
BOOLS = numba.types.Array(numba.boolean, 2, "C")
OUT_SINGLES, OUT_INTS = numba.types.Array(numba.float32, 1, "C"), numba.types.Array(numba.int64, 1, "C")
OUT_TABLE = numba.types.Array(numba.int64, 2, "C")


def kernel(*arguments: Any) -> Any:
    """Decorate a loop that is compiled for some types of arguments."""
    return compiled([numba.void(*arguments)])


def _at_address(element: Any) -> Any:
    """Make the function that turns an address into a pointer to elements."""

    @intrinsic
    def at(context: Any, address: Any) -> Any:  # noqa: ARG001
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

        return numba.types.CPointer(element)(numba.int64), generate

    return at


_singles_at, _ints_at = _at_address(numba.float32), _at_address(numba.int64)


@intrinsic
def _prefetch(context: Any, address: Any) -> Any:  # noqa: ARG001
    """Let the processor fetch what lies at an address, without waiting for it."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        to_read, keep, data = number(0), number(3), number(1)
        builder.call(fetch, [builder.inttoptr(arguments[0], pointer), to_read, keep, data])
        return target.get_dummy_value()

    return numba.void(numba.int64), generate


@numba.njit(nogil=True, inline="always")
def _place(table: Ints, block: int, row: int, collection: int) -> tuple[int, int]:
    """Return where an event's objects start among those of its block, and how many there are."""
    if not table[block, 2 * collection + 1]:
        return row, 1
    offsets = _ints_at(table[block, 2 * collection + 1])
    return offsets[row], offsets[row + 1] - offsets[row]


@numba.njit(nogil=True, inline="always")
def count_of(table: Ints, block: int, row: int, collection: int) -> int:
    """Return how many objects an event has.

    Parameters
    ----------
    table : as in :func:`gather_objects`
    block : row of ``table``
    row : the event's number in its block
    collection : its number in the table
    """
    count: int = _place(table, block, row, collection)[1]
    return count


@numba.njit(nogil=True, inline="always")
def objects_of(table: Ints, block: int, row: int, collection: int, width: int, length: int) -> Singles:
    """View the features of an event's leading objects: loops over a view are twice as fast as over a pointer.

    Parameters
    ----------
    table : as in :func:`gather_objects`
    block : row of ``table``
    row : the event's number in its block
    collection : its number in the table
    width : features of an object
    length : objects that are kept of an event
    """
    start, count = _place(table, block, row, collection)
    address = table[block, 2 * collection] + 4 * width * start
    values: Singles = numba.carray(_singles_at(address), (min(count, length) * width,))
    return values


@numba.njit(nogil=True, inline="always")
def fetch_ahead(table: Ints, which: Ints, rows: Ints, i: int, collection: int, width: int, length: int) -> None:
    """Prefetch the objects of the event ``AHEAD`` places behind the i-th, and the offsets of the one twice as far.

    Parameters
    ----------
    table, which, rows : as in :func:`gather_objects`
    i : the event that is being copied; below 0 to begin before the first
    collection : its number in the table
    width : features of an object
    length : objects that are kept of an event
    """
    far, near = i + 2 * AHEAD, i + AHEAD
    if far < len(which) and table[which[far], 2 * collection + 1]:
        _prefetch(table[which[far], 2 * collection + 1] + 8 * rows[far])
    if 0 <= near < len(which):
        start, count = _place(table, which[near], rows[near], collection)
        first = table[which[near], 2 * collection] + 4 * width * start
        for line in range(0, 4 * width * min(count, length), CACHE_LINE):
            _prefetch(first + line)


@kernel(INTS, SINGLES, SINGLES, SINGLES, OUT)
def lay_out(columns: Ints, shifts: Singles, factors: Singles, clips: Singles, out: Singles) -> None:
    """Scale columns of float32 and put them side by side: ``(x - shift) * factor``, NaN where that is not finite.

    Parameters
    ----------
    columns : (k,) addresses of the columns, each (n,)
    shifts, factors : (k,)
    clips : (k,) sizes at which what is scaled is cut off
    out : (n, k)
    """
    for low in range(0, len(out), STRIP):
        high = min(low + STRIP, len(out))
        for c in range(len(columns)):
            values = numba.carray(_singles_at(columns[c]), (len(out),))[low:high]
            strip, shift, factor, clip = out[low:high, c], shifts[c], factors[c], clips[c]
            for i in range(len(values)):
                scaled = (values[i] - shift) * factor
                strip[i] = min(max(scaled, -clip), clip) if abs(scaled) < np.inf else np.nan


@kernel(TABLE, numba.int64, INTS, INTS, numba.int64, numba.int64, SINGLES, OUT, BOOLS)
def gather_objects(
    table: Ints,
    collection: int,
    which: Ints,
    rows: Ints,
    width: int,
    length: int,
    fill: Singles,
    out: Singles,
    mask: Bools,
) -> None:
    """Take the leading objects of one collection of scattered events, padded, and mark the objects that exist.

    Parameters
    ----------
    table : (n_blocks, 2 * n_collections) addresses of a collection's values in a block, (n_objects, width), NaN where
        missing, and of its offsets, (n_events + 1,); 0 instead of offsets: there is one object an event
    collection : its number in the table
    which, rows : (n,) block and event of every row
    width : features of an object
    length : objects that are kept of an event
    fill : (length * width,) what takes the place of what is not there
    out : (n, length * width)
    mask : (n, length) True where there is an object, whatever its features
    """
    for i in range(-2 * AHEAD, len(which)):
        fetch_ahead(table, which, rows, i, collection, width, length)
        if i < 0:
            continue
        values = objects_of(table, which[i], rows[i], collection, width, length)
        kept = out[i, : len(values)]
        for j in range(len(values)):
            kept[j] = values[j] if values[j] == values[j] else fill[j]
        rest, tail = out[i, len(values) :], fill[len(values) :]
        for j in range(len(rest)):
            rest[j] = tail[j]
        count = count_of(table, which[i], rows[i], collection)
        mask[i, : min(count, length)] = True
        mask[i, min(count, length) :] = False


@kernel(TABLE, INTS, INTS, OUT_INTS, OUT_SINGLES, OUT_TABLE)
def gather_facts(table: Ints, which: Ints, rows: Ints, label: Ints, weight: Singles, index: Ints) -> None:
    """Take label, weight and identity of scattered events.

    Parameters
    ----------
    table : (n_blocks, 5) addresses of a block's labels, weights and entries, its sample's number, its file's
    which, rows : (n,) block and event of every row
    label, weight, index : (n,), (n,), (n, 3)
    """
    for i in range(len(which)):
        block, row = table[which[i]], rows[i]
        label[i] = _ints_at(block[0])[row]
        weight[i] = _singles_at(block[1])[row]
        index[i, 0], index[i, 1], index[i, 2] = block[3], block[4], _ints_at(block[2])[row]
