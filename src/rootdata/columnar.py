"""Columns as they lie in memory, behind a header in JSON: how they are sent to a server and back, and how kept.

In both forms the lengths of a jagged column's lists stand apart from its values, equal lengths are written once, and
each array begins at a multiple of some bytes, so that what is read is a view of the bytes.

What is sent, ``application/vnd.rootdata.columns``, is little endian::

    8 bytes    b"RDCOLS1" and a line feed
    4 bytes    length of the header, unsigned
    header     JSON: {"num_events": 2, "counts": ["jets"], "columns": [{"name": "HT", "dtype": "<f4"},
               {"name": "Jet_pt", "dtype": "<f4", "counts": "jets"}, {"name": "cov", "dtype": "<f8", "width": 3}]}
    padding    to a multiple of 8 bytes from the start
    buffers    for each of the counts int32 (num_events,), then the values of each column; each padded to 8 bytes

What is kept has arrays of any shape and byte order; ``lists`` are int64 offsets, which a reader can use as they are::

    4 bytes    length of the header, unsigned
    header     JSON: {"key": "...", "lists": {"Jet_pt": 3}, "columns": [["met", "<f4", [2], null],
               ["Jet_pt", "<f4", [5], "Jet_pt"]]}: the length of each array of offsets, and the shape of each column
    padding    to a multiple of 64 bytes, of which some others may stand before the header
    buffers    for each of the lists its offsets, then the values of each column; each padded to 64 bytes
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ColumnsError, nearest
from rootdata.jagged import Column, Columns, Ints, Jagged, offsets_of, same_offsets
from rootdata.table import Table

Array = npt.NDArray[Any]
Bytes = bytes | bytearray | memoryview

MAGIC = b"RDCOLS1\n"
DTYPES = ("<f2", "<f4", "<f8", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "|b1")
CACHE_LINE = 64  # bytes: no array that is kept starts within one

NUMBER_TYPES = {name: np.dtype(name) for name in DTYPES}
# numpy writes the types of one byte without an order, and those of this machine by another name.
_NAMES = {dtype: name for name, dtype in NUMBER_TYPES.items()}
_LENGTH = struct.Struct("<I")
_START = len(MAGIC) + _LENGTH.size
_COUNTS = np.dtype("<i4")
_ALIGNED = 8
_SHOWN = 60  # characters of a name that an error repeats
_HEADER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What a header says of a column: which counts its lists have, or how many numbers an event."""

    name: str
    dtype: np.dtype[Any]
    counts: str | None
    width: int | None

    @classmethod
    def of(cls, plain: Any) -> Entry:
        """Check what was sent; :class:`~rootdata.errors.ColumnsError` for anything else."""
        _check_keys(plain, "header: columns", known=("name", "dtype", "counts", "width"), needed=("name", "dtype"))
        name, dtype, counts, width = (plain.get(key) for key in ("name", "dtype", "counts", "width"))
        if type(name) is not str:
            raise _error(f"header: columns: name: got {_given(name)}; expected a string", "columns")
        what = f"header: column {_given(name)}"
        if type(dtype) is not str or dtype not in NUMBER_TYPES:
            raise _error(f"{what}: dtype: got {_given(dtype)}; allowed: {', '.join(DTYPES)}", name)
        if counts is not None and (type(counts) is not str or width is not None):
            raise _error(f"{what}: counts: got {_given(counts)}; expected one name, and no width", name)
        if width is not None:
            _check_size(width, f"width of {_given(name)}", least=1)
        return cls(name=name, dtype=NUMBER_TYPES[dtype], counts=counts, width=width)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What stands before the buffers of columns that are sent."""

    num_events: int
    counts: tuple[str, ...]
    columns: tuple[Entry, ...]

    @classmethod
    def of(cls, plain: Any) -> Header:
        """Check what was sent; :class:`~rootdata.errors.ColumnsError` for what can't be, whatever the buffers are."""
        known = ("num_events", "counts", "columns")
        _check_keys(plain, "header", known=known, needed=("num_events", "columns"))
        num_events, counts, columns = plain["num_events"], plain.get("counts", []), plain["columns"]
        _check_size(num_events, "num_events", least=0)
        if type(counts) is not list or not all(type(name) is str for name in counts):
            raise _error(f"header: counts: got {_given(counts)}; expected a list of names", "counts")
        if type(columns) is not list:
            raise _error(f"header: columns: got {_given(columns)}; expected a list of objects", "columns")
        header = cls(num_events=num_events, counts=tuple(counts), columns=tuple(map(Entry.of, columns)))
        for what, names in (("counts", counts), ("columns", [c.name for c in header.columns])):
            if len(set(names)) < len(names):
                twice = next(name for i, name in enumerate(names) if name in names[:i])
                raise _error(f"header: {what}: {_given(twice)} is named twice", twice)
        for c in header.columns:
            if c.counts is not None and c.counts not in header.counts:
                words = f"column {_given(c.name)}: counts {_given(c.counts)} are not declared in counts"
                raise _error(f"header: {words}", c.name)
        return header


def _check_keys(plain: Any, what: str, *, known: Sequence[str], needed: Sequence[str]) -> None:
    if type(plain) is not dict:
        raise _error(f"{what}: got {_given(plain)}; expected an object", "columns")
    for key in plain.keys() - set(known):
        raise _error(f"{what}: unknown key {_given(key)}; {nearest(key[:_SHOWN], known)}", key)
    for key in set(needed) - plain.keys():
        raise _error(f"{what}: {key!r} is missing", key)


def _check_size(value: Any, what: str, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise _error(f"header: {what}: got {_given(value)}; expected an integer from {least} on", what)


# To bytes


def encode(table: Table) -> bytes:
    """Write columns as they are sent.

    Parameters
    ----------
    table : columns of any number type that the format knows; jagged ones with equal counts share them

    Raises
    ------
    ColumnsError
        For a column of another type.
    """
    lists, values = _taken_apart(table.columns)
    arrays = [np.diff(offsets).astype(_COUNTS) for offsets in lists.values()]
    columns = []
    for name, (array, group) in values.items():
        dtype = _NAMES.get(array.dtype.newbyteorder("<"))
        if dtype is None:
            raise _error(f"{name!r}: got numbers of type {array.dtype}; allowed: {', '.join(DTYPES)}", name)
        columns.append({"name": name, "dtype": dtype} | _shape(name, array, group))
        arrays.append(array.astype(NUMBER_TYPES[dtype], copy=False))
    start = head({"num_events": table.num_events, "columns": columns, "counts": list(lists)})
    return b"".join([start, *_buffers(arrays, _ALIGNED)])


def _shape(name: str, array: Array, group: str | None) -> dict[str, Any]:
    if array.ndim != 1 and (group is not None or array.ndim != 2 or not array.shape[1]):
        words = f"{name!r}: got values of shape {array.shape}; expected a number, some, or a list for each event"
        raise _error(words, name)
    if group is not None:
        return {"counts": group}
    return {} if array.ndim == 1 else {"width": array.shape[1]}


def head(header: Mapping[str, Any]) -> bytes:
    """Write what stands before the buffers of what is sent, padding included."""
    text = _HEADER.encode(header).encode()
    start = MAGIC + _LENGTH.pack(len(text)) + text
    return start.ljust(padded(len(start)), b"\0")


def padded(size: int, to: int = _ALIGNED) -> int:
    """Round up to a multiple.

    Examples
    --------
    >>> padded(0), padded(1), padded(8), padded(1, 64)
    (0, 8, 8, 64)
    """
    return -(-size // to) * to


def to_keep(columns: Columns, key: str, *, before: int) -> list[Any] | None:
    """Write columns as they are kept: a list of buffers, most of which are views.

    Parameters
    ----------
    columns : name to array or jagged array, of any length each
    key : what the columns are of
    before : bytes that stand before them

    Returns
    -------
    ``None`` for columns of a kind that is not kept: a masked array, say, is more than its values
    """
    if not all(map(_is_plain, columns.values())):
        return None
    lists, values = _taken_apart(columns)
    described = [[name, array.dtype.str, array.shape, group] for name, (array, group) in values.items()]
    counted = {name: len(offsets) for name, offsets in lists.items()}
    text = json.dumps({"key": key, "lists": counted, "columns": described}).encode()
    start = _LENGTH.pack(len(text)) + text
    arrays = [*lists.values(), *(array for array, _ in values.values())]
    return [start.ljust(padded(before + len(start), CACHE_LINE) - before, b"\0"), *_buffers(arrays, CACHE_LINE)]


def _is_plain(column: Any) -> bool:
    if isinstance(column, Jagged):
        return column.content.dtype.kind in "biuf" and column.valid is None
    return type(column) is np.ndarray and column.dtype.kind in "biuf" and column.ndim > 0


def _taken_apart(columns: Mapping[str, Column]) -> tuple[dict[str, Ints], dict[str, tuple[Array, str | None]]]:
    """Tell lists from values.

    Returns
    -------
    lists : different offsets, which begin with 0, by the name of the first column that has them
    values : of each column, and the name of its lists
    """
    lists: dict[str, Ints] = {}
    values: dict[str, tuple[Array, str | None]] = {}
    for name, column in columns.items():
        if isinstance(column, Jagged):
            own = column.trimmed()
            offsets = own.offsets.astype(np.int64, copy=False)
            group = next((g for g, known in lists.items() if same_offsets(known, offsets)), name)
            lists.setdefault(group, offsets)
            values[name] = own.content, group
        else:
            values[name] = column, None
    return lists, values


def _buffers(arrays: Iterable[Array], align: int) -> list[Any]:
    parts: list[Any] = []
    for array in arrays:
        parts += [np.ascontiguousarray(array).reshape(-1).view(np.uint8), bytes(-array.nbytes % align)]
    return parts


# From bytes


def decode(body: Bytes) -> Table:
    """Read columns that were sent.

    Returns
    -------
    columns that share the memory of ``body``

    Raises
    ------
    ColumnsError
        For anything else, cut bytes and sizes that do not fit among it.
    """
    text, start = header_of(body)
    try:
        plain = json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise ColumnsError(f"header: this is not JSON ({error!s:.80})") from error
    return columns_of(Header.of(plain), body, start)


def header_of(body: Bytes) -> tuple[memoryview, int]:
    """Find the header of columns that were sent, and where their buffers begin; :class:`ColumnsError` without one."""
    if body[: len(MAGIC)] != MAGIC:
        remedy = "; update the older one of client and server" if body[:6] == MAGIC[:6] else ""
        raise ColumnsError(f"body: got {bytes(body[:8])!r} at the start; expected {MAGIC!r}{remedy}")
    if len(body) < _START:
        raise ColumnsError(f"body: got {len(body)} bytes; at least {_START} are needed; the body is truncated")
    (length,) = _LENGTH.unpack_from(body, len(MAGIC))
    if _START + length > len(body):
        raise ColumnsError(f"header: its length is {length}; the body has {len(body)} bytes; it is truncated")
    return memoryview(body)[_START : _START + length], padded(_START + length)


def check_counts(counts: Array, name: str) -> None:
    """Check that no list has fewer than no objects; :class:`ColumnsError` for others."""
    if counts.min(initial=0) < 0:
        raise _error(f"counts of {name!r}: got {counts.min()}; expected 0 or more", name)


def columns_of(header: Header, body: Bytes, start: int, *, check: Callable[[Array, str], None] = check_counts) -> Table:
    """Read the buffers that a header describes: columns that share the memory of the body.

    Parameters
    ----------
    header : says names, types and widths, and how many events there are
    body : the whole body, header included
    start : byte of the body where they begin
    check : is given all counts, and their name, before they are used; raises for those that can't be

    Raises
    ------
    ColumnsError
        For buffers that are not there, that nothing describes, or that hold what their type can't.
    """
    rest, offsets = _Rest(body, start), {}
    for name in header.counts:
        counts = rest.take(f"counts.{name}", _COUNTS, header.num_events)
        check(counts, name[:_SHOWN])
        offsets[name] = offsets_of(counts)
    columns: dict[str, Column] = {}
    for entry in header.columns:
        own = None if entry.counts is None else offsets[entry.counts]
        size = header.num_events * (1 if entry.width is None else entry.width) if own is None else int(own[-1])
        values = rest.take(entry.name, entry.dtype, size)
        if own is not None:
            columns[entry.name] = Jagged(own, values)
        else:
            columns[entry.name] = values if entry.width is None else values.reshape(header.num_events, entry.width)
    rest.check_end()
    return Table(num_events=header.num_events, columns=columns)


def kept(content: memoryview, *, before: int) -> tuple[str, Columns]:
    """Read columns that were kept, as views; they are trusted to be as they were written, by whatever version.

    Parameters
    ----------
    content : what :func:`to_keep` wrote, with what stands before it
    before : bytes that stand before them

    Returns
    -------
    the key with which they were kept, and the columns

    Raises
    ------
    ColumnsError
        For a header of another version.
    """
    try:
        return _kept(content, before)
    except (KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise ColumnsError(f"header: these are no columns as they are kept now ({error!s:.80})") from error


def _kept(content: memoryview, before: int) -> tuple[str, Columns]:
    (length,) = _LENGTH.unpack_from(content, before)
    begin = before + _LENGTH.size
    header = json.loads(bytes(content[begin : begin + length]))
    if header.keys() != {"key", "lists", "columns"}:
        raise ValueError(f"its fields are {', '.join(header)}")
    at = padded(begin + length, CACHE_LINE)

    def view(dtype: str, shape: Sequence[int]) -> Array:
        nonlocal at
        array: Array = np.ndarray(shape, dtype, content, at)
        at += padded(array.nbytes, CACHE_LINE)
        return array

    lists = {name: view("<i8", (size,)) for name, size in header["lists"].items()}
    columns: Columns = {}
    for name, dtype, shape, group in header["columns"]:
        values = view(dtype, shape)
        columns[name] = values if group is None else Jagged(lists[group], values)
    return header["key"], columns


class _Rest:
    """The buffers, to be taken one by one."""

    def __init__(self, body: Bytes, start: int) -> None:
        self._body, self._start = body, start

    def take(self, name: str, dtype: np.dtype[Any], size: int) -> Array:
        """Take ``size`` numbers and what pads them."""
        start, stop = self._start, padded(self._start + size * dtype.itemsize)
        if stop > len(self._body):
            raise _error(
                f"{_given(name)}: its values end at byte {stop}, padding included; the body has "
                f"{len(self._body)} bytes; it is truncated, or num_events or counts are wrong",
                name,
            )
        self._start = stop
        if dtype.kind == "b" and np.count_nonzero(np.frombuffer(self._body, np.uint8, size, start) > 1):
            raise _error(f"{_given(name)}: a truth value is one byte, 0 or 1; got another", name)
        return np.frombuffer(self._body, dtype, size, start)

    def check_end(self) -> None:
        """Check that nothing is left."""
        if left := len(self._body) - self._start:
            words = f"{left} bytes are left after the last column; check num_events, counts and columns"
            raise ColumnsError(f"body: {words}")


def _error(words: str, field: str) -> ColumnsError:
    error = ColumnsError(words)
    error.field = field[:_SHOWN]
    return error


def _given(value: Any) -> str:
    """Show what was sent, cut short: what is long or deep costs nothing."""
    if isinstance(value, list | dict) or value is None:
        return "null" if value is None else "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
