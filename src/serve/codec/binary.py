"""Columns as they lie in memory, behind a header in JSON: the format that costs least.

All numbers are little endian::

    8 bytes    b"RDCOLS1" and a line feed
    4 bytes    length of the header, unsigned
    header     JSON: {"num_events": 2, "counts": ["jets"], "columns": [{"name": "HT", "dtype": "<f4"},
               {"name": "Jet_pt", "dtype": "<f4", "counts": "jets"}, {"name": "cov", "dtype": "<f8", "width": 3}]}
    padding    to a multiple of 8 bytes from the start
    buffers    for each of the counts int32 (num_events,), then the values of each column; each padded to 8 bytes
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from rootdata.bundle.assemble import Column, Table
from rootdata.bundle.manifest import Manifest
from rootdata.jagged import Ints, Jagged, offsets_of
from serve.codec import schema
from serve.codec.casting import Array
from serve.errors import BadRequest, InvalidEvents
from serve.parsing import check_keys, check_names, given, parse_object, shown
from serve.settings import Settings

MAGIC = b"RDCOLS1\n"
DTYPES = ("<f2", "<f4", "<f8", "<i1", "<i2", "<i4", "<i8", "<u1", "<u2", "<u4", "<u8", "|b1")
_LENGTH = struct.Struct("<I")
_START = len(MAGIC) + _LENGTH.size
_COUNTS = np.dtype("<i4")
_NUMBER_TYPES = {name: np.dtype(name) for name in DTYPES}
# numpy writes the types of one byte without an order.
_NAMES = {dtype: name for name, dtype in _NUMBER_TYPES.items()}


def decode(body: bytes, manifest: Manifest, *, settings: Settings) -> Table:
    """Decode the columns of some events.

    Returns
    -------
    columns that share the memory of ``body`` where they have the type that the model wants

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming what is wrong, where, in which event.
    """
    header, rest = _header(body)
    wanted = schema.schema_of(manifest, [c.name for c in header.columns])
    schema.check_events(header.num_events, settings)
    check_names([c.name for c in header.columns], wanted.specs)
    return schema.conform(_columns(header, rest, settings), header.num_events, wanted, settings)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    name: str
    dtype: np.dtype[Any]
    counts: str | None = None
    width: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    num_events: int
    counts: tuple[str, ...]
    columns: tuple[_Column, ...]


class _Rest:
    """The buffers, to be taken one by one."""

    def __init__(self, body: bytes, offset: int) -> None:
        self._body, self._offset = body, offset

    def take(self, name: str, dtype: np.dtype[Any], size: int) -> Array:
        """Take ``size`` numbers and what pads them."""
        start, stop = self._offset, self._offset + size * dtype.itemsize
        if padded(stop) > len(self._body):
            raise BadRequest(
                f"{name!r}: its values end at byte {padded(stop)}, padding included; the body has "
                f"{len(self._body)} bytes; it is truncated, or num_events or counts are wrong",
                field=name,
            )
        self._offset = padded(stop)
        if dtype.kind == "b" and np.count_nonzero(np.frombuffer(self._body, np.uint8, size, start) > 1):
            raise BadRequest(f"{name!r}: a truth value is one byte, 0 or 1; got another", field=name)
        return np.frombuffer(self._body, dtype, size, start)

    def check_end(self) -> None:
        """Check that nothing is left."""
        if self._offset != len(self._body):
            left = len(self._body) - self._offset
            raise BadRequest(f"body: {left} bytes are left after the last column; check num_events, counts and columns")


def padded(size: int) -> int:
    """Round up to a multiple of 8.

    Examples
    --------
    >>> padded(0), padded(1), padded(8)
    (0, 8, 8)
    """
    return -(-size // 8) * 8


def _header(body: bytes) -> tuple[_Header, _Rest]:
    if body[: len(MAGIC)] != MAGIC:
        raise BadRequest(f"body: got {bytes(body[:8])!r} at the start; expected {MAGIC!r}")
    if len(body) < _START:
        raise BadRequest(f"body: got {len(body)} bytes; at least {_START} are needed; the body is truncated")
    (length,) = _LENGTH.unpack_from(body, len(MAGIC))
    if _START + length > len(body):
        raise BadRequest(f"header: its length is {length}; the body has {len(body)} bytes; it is truncated")
    plain = parse_object(memoryview(body)[_START : _START + length], what="header")
    return _parsed(plain), _Rest(body, padded(_START + length))


def _parsed(plain: Mapping[str, Any]) -> _Header:
    check_keys(plain, known=("num_events", "counts", "columns"), needed=("num_events", "columns"), what="header")
    num_events, counts, columns = plain["num_events"], plain.get("counts", []), plain["columns"]
    _check_size(num_events, "num_events", least=0)
    if type(counts) is not list or not all(type(name) is str for name in counts):
        raise BadRequest(f"header: counts: got {given(counts)}; expected a list of names", field="counts")
    if type(columns) is not list:
        raise BadRequest(f"header: columns: got {given(columns)}; expected a list of objects", field="columns")
    header = _Header(num_events=num_events, counts=tuple(counts), columns=tuple(map(_parse_column, columns)))
    for what, names in (("counts", counts), ("columns", [c.name for c in header.columns])):
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise BadRequest(f"header: {what}: {shown(twice)} is named twice", field=twice[:60])
    for column in header.columns:
        if column.counts is not None and column.counts not in header.counts:
            message = f"header: column {shown(column.name)}: counts {shown(column.counts)} are not declared in counts"
            raise BadRequest(message, field=column.name[:60])
    return header


def _check_size(value: Any, what: str, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise BadRequest(f"header: {what}: got {given(value)}; expected an integer from {least} on", field=what)


def _parse_column(plain: Any) -> _Column:
    if type(plain) is not dict:
        raise BadRequest(f"header: columns: got {given(plain)}; expected an object", field="columns")
    known = ("name", "dtype", "counts", "width")
    check_keys(plain, known=known, needed=("name", "dtype"), what="header: columns")
    name, dtype, counts, width = (plain.get(key) for key in known)
    if type(name) is not str:
        raise BadRequest(f"header: columns: name: got {given(name)}; expected a string", field="columns")
    if type(dtype) is not str or dtype not in _NUMBER_TYPES:
        message = f"header: column {shown(name)}: dtype: got {given(dtype)}; allowed: {', '.join(DTYPES)}"
        raise BadRequest(message, field=name[:60])
    if counts is not None and (type(counts) is not str or width is not None):
        message = f"header: column {shown(name)}: counts: got {given(counts)}; expected one name, and no width"
        raise BadRequest(message, field=name[:60])
    if width is not None:
        _check_size(width, f"width of {shown(name)}", least=1)
    return _Column(name=name, dtype=_NUMBER_TYPES[dtype], counts=counts, width=width)


def _columns(header: _Header, rest: _Rest, settings: Settings) -> dict[str, Column]:
    offsets: dict[str, Ints] = {}
    for name in header.counts:
        counts = rest.take(f"counts.{name}"[:60], _COUNTS, header.num_events)
        schema.check_counts(counts, name[:60], settings)
        offsets[name] = offsets_of(counts)
    columns = {c.name: _values(c, header.num_events, offsets, rest) for c in header.columns}
    rest.check_end()
    return columns


def _values(column: _Column, num_events: int, offsets: Mapping[str, Ints], rest: _Rest) -> Column:
    if column.counts is not None:
        own = offsets[column.counts]
        return Jagged(own, rest.take(column.name[:60], column.dtype, int(own[-1])))
    if column.width is not None:
        values = rest.take(column.name[:60], column.dtype, num_events * column.width)
        return values.reshape(num_events, column.width)
    return rest.take(column.name[:60], column.dtype, num_events)


def encode(table: Table) -> bytes:
    """Write columns: what a client sends, and an answer.

    Parameters
    ----------
    table : columns of any number type that the format knows; jagged ones with equal counts share them in the body

    Raises
    ------
    InvalidEvents
        For a column of another type.
    """
    groups: dict[str, Ints] = {}
    header = {
        "num_events": table.num_events,
        "columns": [_described(name, column, groups) for name, column in table.columns.items()],
        "counts": list(groups),
    }
    parts = [head(header)]
    for offsets in groups.values():
        parts += _padded_bytes(np.diff(offsets).astype(_COUNTS))
    for column in table.columns.values():
        parts += _padded_bytes(column.content if isinstance(column, Jagged) else column)
    return b"".join(parts)


def head(header: Mapping[str, Any]) -> bytes:
    """Write what stands before the buffers, padding included."""
    text = orjson.dumps(header)
    start = MAGIC + _LENGTH.pack(len(text)) + text
    return start.ljust(padded(len(start)), b"\0")


def _described(name: str, column: Column, groups: dict[str, Ints]) -> dict[str, Any]:
    values = column.content if isinstance(column, Jagged) else column
    dtype = _NAMES.get(values.dtype)
    if dtype is None:
        raise InvalidEvents(f"{name!r}: got numbers of type {values.dtype}; allowed: {', '.join(DTYPES)}", field=name)
    described: dict[str, Any] = {"name": name, "dtype": dtype}
    if isinstance(column, Jagged):
        described["counts"] = _group_of(name, column.offsets, groups)
    elif column.ndim == 2:
        described["width"] = column.shape[1]
    return described


def _group_of(name: str, offsets: Ints, groups: dict[str, Ints]) -> str:
    """Find counts that are the same, or add them under the name of their first column."""
    for group, known in groups.items():
        if known is offsets or np.array_equal(known, offsets):
            return group
    groups[name] = offsets
    return name


def _padded_bytes(values: Array) -> Iterator[bytes]:
    raw = values.astype(_NUMBER_TYPES[_NAMES[values.dtype]], copy=False).tobytes()
    yield raw
    yield bytes(padded(len(raw)) - len(raw))
