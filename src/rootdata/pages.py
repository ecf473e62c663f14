"""Read blocks of an RNTuple straight into numpy: numbers, lists of numbers, and what is in collections of records.

What the file holds is told by whoever opened it. A block is read in three steps: the pages of the lists' offsets, then
those of the values, with few large requests; each page is decompressed and decoded into its place in the whole column.
Decompressing, copying and decoding release the interpreter lock.

The format: https://github.com/root-project/root/blob/master/tree/ntuple/doc/BinaryFormatSpecification.md
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from rootdata.inflate import inflate
from rootdata.jagged import Columns, Ints, Jagged
from rootdata.lending import shared

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Fetch = Callable[[int, int], bytes | memoryview]
"""Return the bytes of a file from an offset, of a length, fewer where it ends; they last until the next call."""

LEAF, COLLECTION, RECORD = 0, 1, 2  # roles of fields
DEFERRED = 1  # flag of a column that begins later than the first entry

GAP = 16 * 1024  # bytes between two pages that are read along: less than a request costs
REQUEST_BYTES = 400_000  # read at once: so few that they are in the processor's cache when they are decoded
MOST_INFLATED = 1 << 16  # bytes that one byte can become at most, with any of the compressions
CHECKSUM = struct.Struct("<Q")  # of a page, behind it


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements of a column are stored.

    Parameters
    ----------
    dtype : little-endian numpy type of an element; ``?`` for bits
    is_split : the first bytes of all elements of a page come first, then all second ones, and so on
    is_zigzag : the sign is in the lowest bit
    is_delta : each element but the first of a page is stored as the difference to the one before
    """

    dtype: str
    is_split: bool = False
    is_zigzag: bool = False
    is_delta: bool = False

    def size_of(self, elements: int) -> int:
        """Return the bytes of some elements, uncompressed."""
        return (elements + 7) // 8 if self.dtype == "?" else elements * np.dtype(self.dtype).itemsize


# The number of a column type, in the file, to how it is stored. Absent: switches, and floats of any number of bits.
ENCODINGS = {
    **dict(enumerate(map(Encoding, ("?", "u1", "u1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")))),
    **{0x0B + i: Encoding(t) for i, t in enumerate(("f2", "f4", "f8", "u4", "i8"))},
    **{0x11 + 2 * i: Encoding(t, is_split=True, is_zigzag=True) for i, t in enumerate(("i2", "i4", "i8"))},
    **{0x12 + 2 * i: Encoding(t, is_split=True) for i, t in enumerate(("u2", "u4", "u8"))},
    **{0x17 + i: Encoding(t, is_split=True) for i, t in enumerate(("f2", "f4", "f8"))},
    **{0x1A + i: Encoding(t, is_split=True, is_delta=True) for i, t in enumerate(("u4", "i8"))},
}
INDEX_TYPES = frozenset({0x0E, 0x0F, 0x1A, 0x1B})


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column by its number in the file, and how it is stored."""

    number: int
    encoding: Encoding


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """What a field is made of.

    Parameters
    ----------
    values : column of the numbers
    lists : column with where each list ends, counted in its cluster; none for flat fields
    width : numbers an entry, of a field of fixed size; 0 otherwise
    is_count : the numbers are the lengths of lists, and ``values`` says where those end
    """

    values: Column
    lists: Column | None = None
    width: int = 0
    is_count: bool = False

    @property
    def kind(self) -> str:
        """``flat``, ``jagged`` or ``fixed``."""
        return "jagged" if self.lists else "fixed" if self.width else "flat"

    @property
    def dtype(self) -> str:
        """Numpy name of the number type that comes out."""
        return "int64" if self.is_count else np.dtype(self.values.encoding.dtype).name

    @property
    def ends(self) -> Column | None:
        """Column with where lists end, to be read for this field."""
        return self.values if self.is_count else self.lists


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Where a page of a column lies: ``elements`` of it, in ``size`` bytes as stored."""

    elements: int
    offset: int
    size: int
    has_checksum: bool

    @property
    def stop(self) -> int:
        """Where it ends in the file, its checksum included."""
        return self.offset + self.size + CHECKSUM.size * self.has_checksum


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """Entries that are stored together: the first, how many, and the pages of a column by its number."""

    first: int
    entries: int
    pages: Callable[[int], Sequence[Page]]


# What the file holds


class Schema:
    """The fields of an RNTuple and their columns.

    Parameters
    ----------
    fields, columns : uproot's records of them, in the file's order
    """

    def __init__(self, fields: Sequence[Any], columns: Sequence[Any]) -> None:
        self._fields, self._columns = fields, columns
        self._children: dict[int, list[int]] = {}
        self._owned: dict[int, list[int]] = {}
        for i, field in enumerate(fields):
            if field.parent_field_id != i:
                self._children.setdefault(field.parent_field_id, []).append(i)
        for i, column in enumerate(columns):
            self._owned.setdefault(column.field_id, []).append(i)

    def find(self, number: int) -> Field | None:
        """Say what a field is made of; none where that is not simple."""
        outer = self._outer(number)
        if any(self._role(i) not in {COLLECTION, RECORD} for i in outer):
            return None
        lists = [i for i in outer if self._role(i) == COLLECTION]
        if self._role(number) == COLLECTION:
            lists.append(number)
            number = self._only_child(number)
        if number < 0 or self._role(number) != LEAF or len(lists) > 1:
            return None
        return self._leaf(number, lists[0] if lists else None)

    def _leaf(self, number: int, collection: int | None) -> Field | None:
        if "RNTupleCardinality" in self._fields[number].type_name:
            counted = self._column(number, is_index=True)
            return Field(counted, is_count=True) if counted and collection is None else None
        width = int(self._fields[number].repetition)
        if width:
            number = self._only_child(number) if number in self._children else number
            if number < 0 or self._role(number) != LEAF or self._fields[number].repetition or collection is not None:
                return None
        values = self._column(number, is_index=False)
        lists = None if collection is None else self._column(collection, is_index=True)
        return None if values is None or (collection is not None and lists is None) else Field(values, lists, width)

    def _outer(self, number: int) -> list[int]:
        outer: list[int] = []
        while (parent := self._fields[number].parent_field_id) != number:
            outer.append(parent)
            number = parent
        return outer

    def _role(self, number: int) -> int:
        return int(self._fields[number].struct_role)

    def _only_child(self, number: int) -> int:
        children = self._children.get(number, [])
        return children[0] if len(children) == 1 else -1

    def _column(self, number: int, *, is_index: bool) -> Column | None:
        """Find the only column of a field, or of the one that it shows again under another name."""
        source = self._fields[number].source_field_id
        owned = self._owned.get(number if source is None else source, [])
        if len(owned) != 1:
            return None
        record = self._columns[owned[0]]
        encoding = ENCODINGS.get(record.type)
        if encoding is None or record.flags & DEFERRED or (record.type in INDEX_TYPES) != is_index:
            return None
        return Column(owned[0], encoding)


def cluster_of(summary: Any, columns: Sequence[Any]) -> Cluster:
    """Take uproot's description of a cluster; that of its pages is looked at when they are read."""

    def pages(number: int) -> Sequence[Page]:
        if number >= len(columns) or columns[number].suppressed:
            raise ValueError(f"a cluster lacks column {number}")
        return [
            Page(int(p.num_elements), int(p.locator.offset), int(p.locator.num_bytes), bool(p.has_checksum))
            for p in columns[number].pages
        ]

    return Cluster(int(summary.num_first_entry), int(summary.num_entries), pages)


# Reading


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """The entries of a cluster that are wanted, counted from its first."""

    cluster: Cluster
    low: int
    high: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """Elements of a page that are wanted: those from ``skip``, as many as fit into ``out``."""

    page: Page
    encoding: Encoding
    skip: int
    out: Array


def read(fetch: Fetch, fields: Mapping[str, Field], clusters: Sequence[Cluster], start: int, stop: int) -> Columns:
    """Read entries ``start`` to ``stop`` of some fields.

    Parameters
    ----------
    fields : name to what it is made of
    clusters : those of the file, in its order

    Returns
    -------
    name to numbers (n,) or (n, width), or lists; those of one collection share one array of offsets

    Raises
    ------
    ValueError
        Where the bytes are not what they must be.
    """
    parts = _parts(clusters, start, stop)
    offsets, ranges = _read_lists(fetch, {f.ends for f in fields.values() if f.ends}, parts)
    wanted = {f.values: _ranges(f, parts, ranges) for f in fields.values() if not f.is_count}
    values = _read_columns(fetch, wanted, parts)
    return {name: _assemble(f, values, offsets) for name, f in fields.items()}


def _parts(clusters: Sequence[Cluster], start: int, stop: int) -> list[_Part]:
    parts: list[_Part] = []
    at = start
    begin = max(0, bisect.bisect_right(clusters, start, key=lambda c: c.first) - 1)
    for cluster in itertools.takewhile(lambda c: c.first < stop, itertools.islice(clusters, begin, None)):
        low, high = max(start - cluster.first, 0), min(stop - cluster.first, cluster.entries)
        if low < high:
            if cluster.first + low != at:
                raise ValueError(f"no cluster holds entry {at}")
            parts.append(_Part(cluster, low, high))
            at = cluster.first + high
    if at < stop:
        raise ValueError(f"no cluster holds entry {at}")
    return parts


Ranges = list[tuple[int, int]]
"""The elements of a column that are wanted of each cluster."""


def _ranges(field: Field, parts: Sequence[_Part], of_lists: Mapping[Column, Ranges]) -> Ranges:
    if field.lists:
        return of_lists[field.lists]
    width = field.width or 1
    return [(p.low * width, p.high * width) for p in parts]


def _assemble(field: Field, values: Mapping[Column, Array], offsets: Mapping[Column, Ints]) -> Array | Jagged:
    if field.is_count:
        return np.diff(offsets[field.values])
    found = values[field.values]
    if field.lists:
        return Jagged(offsets[field.lists], found)
    return found.reshape(-1, field.width) if field.width else found


def _read_lists(
    fetch: Fetch, columns: Iterable[Column], parts: Sequence[_Part]
) -> tuple[dict[Column, Ints], dict[Column, Ranges]]:
    """Read where lists begin and end: offsets in the block, and the elements that are in its lists."""
    # A list begins where the one before ends.
    stored = [(max(p.low - 1, 0), p.high) for p in parts]
    ends = _read_columns(fetch, dict.fromkeys(columns, stored), parts)
    offsets: dict[Column, Ints] = {}
    ranges: dict[Column, Ranges] = {}
    for column, values in ends.items():
        offsets[column], ranges[column] = _joined(values, parts)
    return offsets, ranges


def _joined(ends: Ints, parts: Sequence[_Part]) -> tuple[Ints, Ranges]:
    """Make offsets that count in the block of those that count in clusters."""
    offsets = np.zeros(1 + sum(p.high - p.low for p in parts), np.int64)
    ranges: Ranges = []
    at, read_at = 1, 0
    for part in parts:
        n, begins_inside = part.high - part.low, int(part.low > 0)
        mine = ends[read_at : read_at + n + begins_inside]
        low = int(mine[0]) if begins_inside else 0
        ranges.append((low, int(mine[-1])))
        np.add(mine[begins_inside:], offsets[at - 1] - low, out=offsets[at : at + n])
        at, read_at = at + n, read_at + len(mine)
        if low < 0:
            raise ValueError("a list begins before its cluster")
    if (offsets[1:] < offsets[:-1]).any():
        raise ValueError("a list ends before it begins")
    return offsets, ranges


def _read_columns(fetch: Fetch, wanted: Mapping[Column, Ranges], parts: Sequence[_Part]) -> dict[Column, Array]:
    """Read some elements of columns, of each cluster one range."""
    pieces: list[_Piece] = []
    found: dict[Column, Array] = {}
    for column, ranges in wanted.items():
        overlapping = [
            list(_overlapping(column, part.cluster.pages(column.number), low, high))
            for part, (low, high) in zip(parts, ranges, strict=True)
        ]
        encoding = column.encoding
        out = shared().empty(sum(high - low for low, high in ranges), np.int64 if encoding.is_delta else encoding.dtype)
        found[column] = out
        at = 0
        for page, skip, n in (one for pages in overlapping for one in pages):
            pieces.append(_Piece(page, encoding, skip, out[at : at + n]))
            at += n
    _read_pieces(fetch, pieces)
    return found


def _overlapping(column: Column, pages: Iterable[Page], low: int, high: int) -> Iterator[tuple[Page, int, int]]:
    """Return the pages that hold elements ``low`` to ``high``, with how many to skip and to take of each."""
    at, found = 0, 0
    for page in pages:
        first, last = max(low - at, 0), min(high - at, page.elements)
        if first < last:
            # Before memory is asked for.
            if column.encoding.size_of(page.elements) > max(page.size, 0) * MOST_INFLATED:
                raise ValueError(f"a page of {page.size} bytes can't hold {page.elements} elements")
            yield page, first, last - first
            found += last - first
        at += page.elements
    if found < high - low:
        raise ValueError(f"the pages of a column hold {at} elements; {high} are needed")


def _read_pieces(fetch: Fetch, pieces: Iterable[_Piece]) -> None:
    for start, stop, group in _requests(sorted(pieces, key=lambda p: p.page.offset)):
        data = memoryview(fetch(start, stop - start))
        if len(data) < stop - start:
            raise ValueError(f"{len(data)} of {stop - start} bytes can be read at {start}")
        for piece in group:
            _decode(piece, _checked(piece.page, data[piece.page.offset - start : piece.page.stop - start]))


def _requests(pieces: Iterable[_Piece]) -> Iterator[tuple[int, int, list[_Piece]]]:
    """Join neighbouring pages: where to read from and to, and what comes."""
    group: list[_Piece] = []
    start = stop = 0
    for piece in pieces:
        page = piece.page
        if group and (page.offset - stop > GAP or max(stop, page.stop) - start > REQUEST_BYTES):
            yield start, stop, group
            group = []
        if not group:
            start = stop = page.offset
        group.append(piece)
        stop = max(stop, page.stop)
    if group:
        yield start, stop, group


def _checked(page: Page, data: memoryview) -> memoryview:
    """Compare a page with its checksum, where it has one, and return its bytes without it."""
    if not page.has_checksum:
        return data
    content = data[: page.size]
    if CHECKSUM.unpack(data[page.size :])[0] != xxhash.xxh3_64_intdigest(content):
        raise ValueError(f"the page at {page.offset} differs from its checksum")
    return content


def _decode(piece: _Piece, data: memoryview) -> None:
    encoding, skip, out = piece.encoding, piece.skip, piece.out
    size = encoding.size_of(piece.page.elements)
    is_plain = encoding.dtype != "?" and not encoding.is_split
    raw = inflate(data, size)
    if is_plain:
        out[:] = raw.view(encoding.dtype)[skip : skip + len(out)]
    elif encoding.dtype == "?":
        out.view(np.uint8)[:] = np.unpackbits(raw, count=skip + len(out), bitorder="little")[skip:]
    elif encoding.is_delta:
        differences = np.empty(skip + len(out), encoding.dtype)
        _unsplit(raw, 0, differences, is_zigzag=False)
        out[:] = np.cumsum(differences, dtype=np.int64)[skip:]
    else:
        _unsplit(raw, skip, out, is_zigzag=encoding.is_zigzag)


def _unsplit(raw: Bytes, skip: int, out: Array, *, is_zigzag: bool) -> None:
    from rootdata.decoding import unsplit  # takes a second: not for those who only look

    unsplit(raw, skip, is_zigzag, out.view(f"u{out.itemsize}"))
