"""Compiled inner loops of reading: bytes as they are stored to numbers, and positions of lists to their offsets.

Compiled on first use and kept on disk by numba; they release the interpreter lock. Whoever calls has checked lengths.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from rootdata.compiling import compiled
from rootdata.jagged import Ints

Bytes = npt.NDArray[np.uint8]

_SOURCE = numba.types.Array(numba.uint8, 1, "C", readonly=True)  # what is inflated may be read-only
_OUT = numba.types.Array(numba.uint8, 1, "C")
_INTS = numba.types.Array(numba.int64, 1, "C")
_UNSIGNED = (numba.uint16, numba.uint32, numba.uint64)


def _compiled(result: Any, *arguments: Any) -> Any:
    return compiled([result(*arguments)])


@_compiled(numba.void, _SOURCE, numba.int64, _OUT)
def swap(source: Bytes, size: int, out: Bytes) -> None:
    """Turn the order of the bytes of ``len(out) // size`` numbers.

    Parameters
    ----------
    source : bytes of the numbers in the file; at least as many as ``out`` has
    size : bytes of a number: 1, 2, 4 or 8
    out : bytes of whole numbers, in the other order
    """
    if size == 1:
        out[:] = source[: len(out)]
    elif size == 2:
        for i in range(0, len(out), 2):
            out[i], out[i + 1] = source[i + 1], source[i]
    elif size == 4:
        for j in range(len(out) // 4):
            i = 4 * j
            out[i], out[i + 1], out[i + 2], out[i + 3] = source[i + 3], source[i + 2], source[i + 1], source[i]
    else:
        for j in range(len(out) // 8):
            for k in range(8):
                out[8 * j + k] = source[8 * j + 7 - k]


@_compiled(numba.int64, _SOURCE, numba.int64, numba.int64, _INTS, _OUT)
def swap_lists(source: Bytes, header: int, size: int, offsets: Ints, out: Bytes) -> int:
    """Turn the order of the bytes of numbers in lists, and compare what is in front of each list with its length.

    Parameters
    ----------
    source : lists as they lie in the file, one behind the other
    header : bytes in front of each list, which are left out
    size : bytes of a number: 1, 2, 4 or 8
    offsets : (n + 1,) counts their numbers
    out : bytes of all numbers, in the other order

    Returns
    -------
    The first list that is not as long as it says, or -1.
    """
    first = offsets[0]
    for i in range(len(offsets) - 1):
        begin, end = (offsets[i] - first) * size, (offsets[i + 1] - first) * size
        if header == 10:  # a std::vector: how many bytes follow, with a flag, a version, how many numbers
            h = begin + i * header
            nbytes = source[h] << 24 | source[h + 1] << 16 | source[h + 2] << 8 | source[h + 3]
            count = source[h + 6] << 24 | source[h + 7] << 16 | source[h + 8] << 8 | source[h + 9]
            if nbytes != 0x40000000 + 6 + end - begin or count != offsets[i + 1] - offsets[i]:
                return i
        gap = (i + 1) * header
        for j in range(begin, end, size):
            for k in range(size):
                out[j + k] = source[gap + j + size - 1 - k]
    return -1


@_compiled(numba.boolean, _SOURCE, numba.int64, numba.int64, numba.int64, _INTS)
def agrees(positions: Bytes, nbytes: int, header: int, size: int, offsets: Ints) -> bool:
    """Say whether lists are as long as known ones.

    Parameters
    ----------
    positions : (4 * n,) big-endian, where each list begins
    nbytes : from the first list to the end of the last
    header : bytes in front of each list
    size : bytes of an element of a list
    offsets : (n + 1,) known ones; only their differences count
    """
    n = len(offsets) - 1
    if nbytes != (offsets[n] - offsets[0]) * size + n * header:
        return False
    base = 0
    for i in range(n):
        j = 4 * i
        at = positions[j] << 24 | positions[j + 1] << 16 | positions[j + 2] << 8 | positions[j + 3]
        if i == 0:
            base = at
        if at - base != (offsets[i] - offsets[0]) * size + i * header:
            return False
    return True


@_compiled(numba.int64, _SOURCE, numba.int64, numba.int64, numba.int64, _INTS)
def decode(positions: Bytes, nbytes: int, header: int, size: int, offsets: Ints) -> int:
    """Write the offsets of lists, from ``offsets[0]`` on.

    Parameters
    ----------
    positions, nbytes, header, size : as in :func:`agrees`
    offsets : (n + 1,) all but the first are written

    Returns
    -------
    The first list whose positions make no sense, or -1.
    """
    n = len(offsets) - 1
    base, before = 0, 0
    for i in range(n + 1):
        at = base + nbytes
        if i < n:
            j = 4 * i
            at = positions[j] << 24 | positions[j + 1] << 16 | positions[j + 2] << 8 | positions[j + 3]
        if i == 0:
            base, before = at, at
            continue
        count = at - before - header
        if count < 0 or count % size:
            return i - 1
        offsets[i] = offsets[i - 1] + count // size
        before = at
    return -1


@_compiled(numba.types.UniTuple(numba.int64, 3), _SOURCE, _INTS, numba.int64, _INTS, _INTS, _OUT)
def nested(source: Bytes, starts: Ints, size: int, lists: Ints, lengths: Ints, out: Bytes) -> tuple[int, int, int]:
    """Read vectors of lists, and turn the order of the bytes of their numbers.

    Parameters
    ----------
    source : entries as they lie in the file, one behind the other
    starts : (n,) where each begins
    size : bytes of a number
    lists : (n + 1,) is filled with the number of inner lists before each entry, and that of all
    lengths : is filled with the numbers of objects of the inner lists; has room for all that fit into ``source``
    out : is filled with the numbers; as long as ``source``

    Returns
    -------
    The first entry that is not as long as it says, or -1; how many lists there are; and bytes of numbers.
    """
    filled, at, n = 0, 0, len(starts)
    for i in range(n):
        end = starts[i + 1] if i + 1 < n else len(source)
        if starts[i] != at or end < at + 10 or end > len(source):
            return i, lists[i], filled
        nbytes = source[at] << 24 | source[at + 1] << 16 | source[at + 2] << 8 | source[at + 3]
        count = source[at + 6] << 24 | source[at + 7] << 16 | source[at + 8] << 8 | source[at + 9]
        if nbytes != 0x40000000 + end - at - 4 or count * 4 > end - at - 10:
            return i, lists[i], filled
        at += 10
        for j in range(lists[i], lists[i] + count):
            if at + 4 > end:
                return i, lists[i], filled
            length = source[at] << 24 | source[at + 1] << 16 | source[at + 2] << 8 | source[at + 3]
            at += 4
            if length * size > end - at:
                return i, lists[i], filled
            lengths[j] = length
            for _ in range(length):
                for b in range(size):
                    out[filled + b] = source[at + size - 1 - b]
                filled += size
                at += size
        if at != end:
            return i, lists[i], filled
        lists[i + 1] = lists[i] + count
    return -1, lists[n], filled


@compiled([numba.void(_SOURCE, numba.int64, numba.boolean, numba.types.Array(n, 1, "C")) for n in _UNSIGNED])
def unsplit(raw: Bytes, skip: int, is_zigzag: bool, out: npt.NDArray[Any]) -> None:
    """Put the bytes of elements together that are stored as all first bytes, all second ones, and so on.

    Parameters
    ----------
    raw : (width * n,) a page of n elements
    skip : the first elements, that are not wanted
    is_zigzag : whether the sign is in the lowest bit
    out : (m,) unsigned, at most n - skip
    """
    one = out.dtype.type(1)
    width = out.itemsize
    n = len(raw) // width
    for begin in range(0, len(out), 1024):
        part = out[begin : begin + 1024]
        for j in range(width):
            plane = raw[j * n + skip + begin : j * n + skip + begin + len(part)]
            shift = out.dtype.type(8 * j)
            for i in range(len(part)):
                byte = out.dtype.type(plane[i]) << shift
                part[i] = byte if j == 0 else part[i] | byte
        if is_zigzag:
            for i in range(len(part)):
                part[i] = (part[i] >> one) ^ (~(part[i] & one) + one)
