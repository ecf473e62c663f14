"""Numbers and lists of numbers straight from the baskets of a local TTree into columns.

uproot opens a file and says where its baskets lie; what is read here is what most branches hold. A basket of another
kind raises :class:`UnusualError`, and is for uproot to read, or to say what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata import decoding
from rootdata.fetching import announce, borrow, read_into
from rootdata.inflate import inflate
from rootdata.jagged import Columns, Ints, Jagged
from rootdata.lending import shared
from rootdata.remote import joined

Bytes = npt.NDArray[np.uint8]

GAP = 32_768  # bytes between two baskets that the system may read along

# Of the key: fNbytes, fVersion, fObjlen, fDatime, fKeylen, fCycle; at its end: fVersion, fBufferSize, fNevBufSize,
# fNevBuf, fLast and a flag (TKey::Streamer and TBasket::Streamer of ROOT).
_HEAD = struct.Struct(">ihiIhh")
_FOOT = struct.Struct(">HiiiiB")
_POSITION = struct.Struct(">i")


class UnusualError(Exception):
    """A basket is not of the ordinary kind.

    Parameters
    ----------
    name : the branch
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"branch {name!r}: {why}")
        self.name = name


@dataclasses.dataclass(frozen=True, slots=True)
class BasketTable:
    """Where the baskets of a branch lie, and what they hold.

    Parameters
    ----------
    dtype : numpy name of the number type
    width : numbers an event of a ``fixed`` branch, 0 for one number, -1 for a list
    header : bytes before each list
    entry_offsets : (n_baskets + 1,) the first entry of every basket, and the number of entries
    seeks, nbytes : (n_baskets,) where each basket begins in the file, and its length
    """

    name: str
    dtype: str
    width: int
    header: int
    entry_offsets: Ints
    seeks: Ints
    nbytes: Ints


def table_of(name: str, branch: Any, *, num_entries: int, size: int) -> BasketTable | None:
    """Describe the baskets of one of uproot's branches; ``None`` where it is not one of numbers or lists of numbers.

    Parameters
    ----------
    name : what its column will be called
    num_entries : of the tree
    size : of the file, in bytes
    """
    reading = branch.interpretation
    is_list = type(reading).__name__ == "AsJagged"
    content = reading.content if is_list else reading
    shape = getattr(content, "inner_shape", ())
    if not _is_plain(content) or len(shape) > (0 if is_list else 1) or branch.embedded_baskets:
        return None
    n = branch.num_baskets
    table = BasketTable(
        name=name,
        dtype=content.to_dtype.base.newbyteorder("=").name,
        width=-1 if is_list else shape[0] if shape else 0,
        header=reading.header_bytes if is_list else 0,
        entry_offsets=np.array(branch.entry_offsets, np.int64),
        seeks=np.array(branch.member("fBasketSeek")[:n], np.int64),
        nbytes=np.array(branch.member("fBasketBytes")[:n], np.int64),
    )
    return table if _is_sound(table, num_entries, size) else None


def _is_plain(content: Any) -> bool:
    """Say whether numbers are stored as they are to be, but for the order of their bytes."""
    if type(content).__name__ != "AsDtype":
        return False
    stored, wanted = content.from_dtype.base, content.to_dtype.base
    is_number = stored.kind in "iufb" and stored.itemsize in {1, 2, 4, 8}
    return is_number and stored.byteorder in ">|" and stored.newbyteorder("=") == wanted.newbyteorder("=")


def _is_sound(table: BasketTable, num_entries: int, size: int) -> bool:
    """Say whether the baskets cover the entries and lie within the file."""
    edges, seeks, nbytes = table.entry_offsets, table.seeks, table.nbytes
    is_covering = len(edges) == len(seeks) + 1 == len(nbytes) + 1 and edges[0] == 0 and edges[-1] == num_entries
    is_inside = bool((seeks > 0).all() and (nbytes > 0).all() and (seeks + nbytes <= size).all())
    return is_covering and is_inside and bool((np.diff(edges) >= 0).all())


def read_block(handle: int, tables: Sequence[BasketTable], start: int, stop: int) -> Columns:
    """Read some branches of a range of entries; lists of the same lengths share their offsets.

    Parameters
    ----------
    handle : file descriptor; its position is neither used nor changed
    start, stop : within the entries of the tables

    Raises
    ------
    UnusualError
        For bytes that are no ordinary basket.
    ValueError
        For what can't be decompressed: uproot would not check the sizes before it allocates as much.
    EOFError
        Where the file ends too early.
    OSError
        Where it can't be read.
    """
    spans = [_span(table, start, stop) for table in tables]
    _announce(handle, tables, spans)
    known: list[Ints] = []
    columns: Columns = {}
    for table, span in zip(tables, spans, strict=True):
        baskets = [_read(handle, table, k, start, stop) for k in range(span.start, span.stop)]
        columns[table.name] = _lists(table, baskets, known) if table.width < 0 else _numbers(table, baskets)
    return columns


def _span(table: BasketTable, start: int, stop: int) -> slice:
    """Find the baskets that hold some entries."""
    if start >= stop:
        return slice(0, 0)
    first = int(table.entry_offsets.searchsorted(start, "right")) - 1
    return slice(first, int(table.entry_offsets.searchsorted(stop, "left")))


def _announce(handle: int, tables: Sequence[BasketTable], spans: Sequence[slice]) -> None:
    """Say which parts of the file will be read, neighbours together: baskets are then read one by one."""
    places = (
        (at, at + size)
        for table, span in zip(tables, spans, strict=True)
        for at, size in zip(table.seeks[span].tolist(), table.nbytes[span].tolist(), strict=True)
    )
    for begin, end in joined(places, gap=GAP):
        announce(handle, begin, end)


@dataclasses.dataclass(frozen=True, slots=True)
class _Basket:
    """What a basket holds, inflated, and its wanted events ``low`` to ``high`` of the ``entries`` that it has.

    ``border`` bytes are numbers; the positions of lists follow, which count from ``keylen`` bytes before.
    """

    data: Bytes
    keylen: int
    border: int
    entries: int
    low: int
    high: int


def _read(handle: int, table: BasketTable, k: int, start: int, stop: int) -> _Basket:
    """Read a basket, and inflate it while it is in the processor's cache."""
    first, following = table.entry_offsets[k : k + 2].tolist()
    stored = borrow(int(table.nbytes[k]))
    read_into(handle, int(table.seeks[k]), stored)
    if len(stored) < _HEAD.size:
        raise UnusualError(table.name, "a basket is too short")
    nbytes, _, size, _, keylen, _ = _HEAD.unpack_from(stored.data)
    if nbytes != len(stored) or not _HEAD.size + _FOOT.size <= keylen < nbytes:
        raise UnusualError(table.name, "a basket has another length than the tree says")
    *_, entries, last, _ = _FOOT.unpack_from(stored.data, keylen - _FOOT.size)
    if entries != following - first or not 0 <= last - keylen <= size:
        raise UnusualError(table.name, "a basket holds other entries than the tree says")
    border, low, high = last - keylen, max(start, first) - first, min(stop, following) - first
    if table.width >= 0 and border != entries * _row(table):
        raise UnusualError(table.name, "a basket holds more or fewer numbers than its entries have")
    return _Basket(_inflate(table.name, stored[keylen:], size), keylen, border, entries, low, high)


def _row(table: BasketTable) -> int:
    """Count the bytes of an entry that is no list."""
    return max(1, table.width) * np.dtype(table.dtype).itemsize


def _numbers(table: BasketTable, baskets: Sequence[_Basket]) -> npt.NDArray[Any]:
    dtype = np.dtype(table.dtype)
    row = _row(table)
    column = shared().empty(sum(b.high - b.low for b in baskets) * (row // dtype.itemsize), dtype)
    out, at = column.view(np.uint8), 0
    for basket in baskets:
        n = (basket.high - basket.low) * row
        decoding.swap(basket.data[basket.low * row :], dtype.itemsize, out[at : at + n])
        at += n
    return column.reshape(-1, table.width) if table.width else column


def _lists(table: BasketTable, baskets: Sequence[_Basket], known: list[Ints]) -> Jagged:
    dtype = np.dtype(table.dtype)
    positions = [_positions(table.name, basket) for basket in baskets]
    offsets = _offsets(table, baskets, positions, known)
    column = shared().empty(int(offsets[-1]), dtype)
    out, at = column.view(np.uint8), 0
    for basket, (begin, end, _) in zip(baskets, positions, strict=True):
        counts = offsets[at : at + basket.high - basket.low + 1]
        into = out[int(counts[0]) * dtype.itemsize : int(counts[-1]) * dtype.itemsize]
        if table.header:
            decoding.swap_lists(basket.data[begin:end], table.header, dtype.itemsize, counts, into)
        else:
            decoding.swap(basket.data[begin:end], dtype.itemsize, into)
        at += basket.high - basket.low
    return Jagged(offsets, column)


def _positions(name: str, basket: _Basket) -> tuple[int, int, Bytes]:
    """Find where the wanted lists of a basket begin and end, and the stored positions of each but the end.

    Positions count from the beginning of the key; a number in front says how many there are, and the last of them
    means nothing: the border does.
    """
    section = basket.data[basket.border :]
    if len(section) != 4 * (basket.entries + 2):
        raise UnusualError(name, "a basket of lists does not say where they begin")
    wanted = section[4 * (basket.low + 1) : 4 * (basket.high + 1)]
    end = basket.border
    if basket.high < basket.entries:
        end = _POSITION.unpack_from(section.data, 4 * (basket.high + 1))[0] - basket.keylen
    begin = _POSITION.unpack_from(wanted.data)[0] - basket.keylen if len(wanted) else end
    if not 0 <= begin <= end <= basket.border or (begin and not basket.low):
        raise UnusualError(name, "the positions of lists lie outside of their basket")
    return begin, end, wanted


def _offsets(
    table: BasketTable, baskets: Sequence[_Basket], positions: Sequence[tuple[int, int, Bytes]], known: list[Ints]
) -> Ints:
    """Count the objects of the lists, and take offsets that are known already where they are the same."""
    size = np.dtype(table.dtype).itemsize
    edges = np.cumsum([0, *(b.high - b.low for b in baskets)]).tolist()
    for offsets in known:
        if len(offsets) == edges[-1] + 1 and all(
            decoding.agrees(wanted, end - begin, table.header, size, offsets[low : high + 1])
            for (begin, end, wanted), low, high in zip(positions, edges[:-1], edges[1:], strict=True)
        ):
            return offsets
    offsets = np.zeros(edges[-1] + 1, np.int64)
    for (begin, end, wanted), low, high in zip(positions, edges[:-1], edges[1:], strict=True):
        if not decoding.decode(wanted, end - begin, table.header, size, offsets[low : high + 1]):
            raise UnusualError(table.name, "the positions of lists do not rise by whole numbers")
    known.append(offsets)
    return offsets


def _inflate(name: str, stored: Bytes, size: int) -> Bytes:
    """Return the inflated bytes of a basket, exactly as many as it says, in memory of their own."""
    try:
        return stored.copy() if len(stored) == size else inflate(stored.data, size)
    except Exception as error:  # the libraries have no common base for what broken bytes raise
        raise ValueError(f"a basket of branch {name!r} can't be decompressed ({error})") from error
