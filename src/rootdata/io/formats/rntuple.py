"""Read blocks of an RNTuple straight into numpy: numbers, lists of numbers, and what is in collections of records.

What the file holds is told by whoever opened it. A block is read in three steps: the pages of the lists' offsets, then
those of the values, with few large requests; each page is decompressed and decoded into its place in the whole column.
Decompressing, copying and decoding release the interpreter lock. A column that was added late begins with zeros that
the file does not hold; one that is stored in several ways is taken as each cluster has it.

Every cluster must hold as many elements of a column as its entries, or its lists, say: anything else is a
:class:`~rootdata.causes.ContradictionError`.

The format: https://github.com/root-project/root/blob/master/tree/ntuple/doc/BinaryFormatSpecification.md
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from rootdata.arena import shared
from rootdata.causes import ContradictionError
from rootdata.io.formats.inflate import inflate
from rootdata.io.formats.page_lists import CHECKSUM, Page
from rootdata.io.formats.parts import ListsOfLists
from rootdata.io.formats.records import KEY_BYTES, Records, nearest_record
from rootdata.io.local import Span
from rootdata.jagged import Column, Ints, Jagged

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Fetch = Callable[[int, int], bytes | memoryview]
"""Return the bytes of a file from an offset, of a length, fewer where it ends; they last until the next call."""

LEAF, COLLECTION, RECORD = 0, 1, 2  # roles of fields
_MAYBE_NONE = (
    "std::optional",
    "std::unique_ptr",
)  # collections of one object at most, which stand for what may be absent

GAP = 16 * 1024  # bytes between two pages that are read along: less than a request costs
REQUEST_BYTES = 400_000  # read at once: so few that they are in the processor's cache when they are decoded
MOST_INFLATED = 1 << 16  # bytes that one byte can become at most, with any of the compressions
TRUNCATED, QUANTIZED = 0x1C, 0x1D  # column types of floats of any number of bits


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements of a column are stored.

    Parameters
    ----------
    dtype : little-endian numpy type of an element; ``?`` for bits
    is_split : the first bytes of all elements of a page come first, then all second ones, and so on
    is_zigzag : the sign is in the lowest bit
    is_delta : each element but the first of a page is stored as the difference to the one before
    bits : of a float of any number of them, one after the other: its first ones, or where it lies between ``bounds``
    """

    dtype: str
    is_split: bool = False
    is_zigzag: bool = False
    is_delta: bool = False
    bits: int = 0
    bounds: tuple[float, float] | None = None

    def size_of(self, elements: int) -> int:
        """Return the bytes of some elements, uncompressed."""
        bits = self.bits or (1 if self.dtype == "?" else 8 * np.dtype(self.dtype).itemsize)
        return (elements * bits + 7) // 8


# The number of a column type, in the file, to how it is stored. Absent: switches; floats of any number of bits, which
# columns have of their own.
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
class NTupleColumn:
    """A column by its number in the file, and how it is stored.

    Parameters
    ----------
    first : elements before those that the file holds: zeros
    others : the same column, stored in other ways; each cluster has it in one of them
    """

    number: int
    encoding: Encoding
    first: int = 0
    others: tuple[NTupleColumn, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type that holds the elements, in whichever way they are stored."""
        return np.result_type(*(column.encoding.dtype for column in (self, *self.others)))


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """What a field is made of.

    Parameters
    ----------
    values : column of the numbers
    lists : column with where each list ends, counted in its cluster; none for flat fields
    inner : column with where each list in a list ends; none where lists hold numbers
    shape : of the numbers of an entry or an object, where there are several
    is_count : the numbers are the lengths of lists, and ``values`` says where those end
    """

    values: NTupleColumn
    lists: NTupleColumn | None = None
    inner: NTupleColumn | None = None
    shape: tuple[int, ...] = ()
    is_count: bool = False

    @property
    def width(self) -> int:
        """Numbers an entry, or an object; 0 for one."""
        return math.prod(self.shape) if self.shape else 0

    @property
    def kind(self) -> str:
        """``flat``, ``jagged`` or ``fixed``."""
        return "jagged" if self.lists else "fixed" if self.width else "flat"

    @property
    def dtype(self) -> str:
        """Numpy name of the number type that comes out."""
        return "int64" if self.is_count else self.values.dtype.name

    @property
    def ends(self) -> NTupleColumn | None:
        """Column with where lists end, to be read for this field."""
        return self.values if self.is_count else self.lists


class ClusterLike(Protocol):
    """Entries that are stored together: the first, how many, and the pages of a column by its number, if it has any."""

    @property
    def first(self) -> int: ...  # noqa: D102
    @property
    def entries(self) -> int: ...  # noqa: D102
    @property
    def pages(self) -> Callable[[int], Sequence[Page] | None]: ...  # noqa: D102


# What the file holds


class NTupleFields:
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
        line = [*reversed(self._outer(number)), *self._inner(number)]
        leaf = line[-1]
        lists = [i for i in line if self._role(i) == COLLECTION]
        arrays = [i for i in line if self._fields[i].repetition]
        if any(self._role(i) not in {COLLECTION, RECORD, LEAF} for i in line) or self._role(leaf) != LEAF:
            return None
        if (
            len(lists) > 2
            or (len(lists) == 2 and arrays)
            or any(self._fields[i].type_name.startswith(_MAYBE_NONE) for i in lists)
        ):
            return None
        if lists and arrays and line.index(arrays[0]) < line.index(lists[0]):
            return None
        return self._leaf(leaf, lists, tuple(int(self._fields[i].repetition) for i in arrays))

    def _leaf(self, number: int, collections: Sequence[int], shape: tuple[int, ...]) -> Field | None:
        is_count = "RNTupleCardinality" in self._fields[number].type_name
        values = self._column(number, is_index=is_count)
        if values is None or (is_count and (shape or collections)):
            return None
        if not collections:
            return Field(values, shape=shape, is_count=is_count)
        lists = [column for i in collections if (column := self._column(i, is_index=True)) is not None]
        if len(lists) < len(collections) or values.first or any(column.first for column in lists[1:]):
            return None
        return Field(values, lists[0], lists[1] if len(lists) > 1 else None, shape=shape)

    def _inner(self, number: int) -> list[int]:
        """Return a field, and what alone is in it: the objects of a collection or an array, the number of an atomic."""
        line = [number]
        while self._role(line[-1]) != RECORD and len(children := self._children.get(line[-1], [])) == 1:
            line.append(children[0])
        return line

    def _outer(self, number: int) -> list[int]:
        outer: list[int] = []
        while (parent := self._fields[number].parent_field_id) != number:
            if len(outer) == len(self._fields):
                raise ContradictionError("fields lie in each other")
            outer.append(parent)
            number = parent
        return outer

    def _role(self, number: int) -> int:
        return int(self._fields[number].struct_role)

    def _column(self, number: int, *, is_index: bool) -> NTupleColumn | None:
        """Find the column of a field, or of the one that it shows again under another name."""
        source = self._fields[number].source_field_id
        owned = self._owned.get(number if source is None else source, [])
        if len({self._columns[i].repr_idx for i in owned}) != len(owned) or not owned:
            return None  # several belong together, as those of a string
        found = [self._stored(i, is_index=is_index) for i in owned]
        if None in found:
            return None
        column, *others = (c for c in found if c is not None)
        # One that is stored in another way from some entry on begins there, but not with zeros.
        return dataclasses.replace(column, others=tuple(dataclasses.replace(c, first=0) for c in others))

    def _stored(self, i: int, *, is_index: bool) -> NTupleColumn | None:
        record = self._columns[i]
        encoding = ENCODINGS.get(record.type)
        if record.type in {TRUNCATED, QUANTIZED} and 0 < record.nbits <= 32:
            bounds = (float(record.min_value), float(record.max_value)) if record.type == QUANTIZED else None
            encoding = Encoding("f4", bits=int(record.nbits), bounds=bounds)
        if encoding is None or (record.type in INDEX_TYPES) != is_index:
            return None
        first = int(record.first_element_index)
        return NTupleColumn(i, encoding, 0 if first >> 63 else first)  # negative: not used from the beginning


# Reading


@dataclasses.dataclass(frozen=True, slots=True)
class _WantedEntries:
    """The entries of a cluster that are wanted, counted from its first."""

    cluster: ClusterLike
    low: int
    high: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """Elements of a page that are wanted: those from ``skip``, as many as fit into ``out``."""

    page: Page
    encoding: Encoding
    skip: int
    out: Array
    where: Callable[[], str]

    @property
    def size(self) -> int:
        """Bytes of the page, uncompressed."""
        return self.encoding.size_of(self.page.elements)

    @property
    def is_bare(self) -> bool:
        """Whether neither a checksum nor a compression tells that the bytes are those of the page."""
        return not self.page.has_checksum and self.page.size == self.size

    @property
    def begin(self) -> int:
        """Where to read from."""
        return max(0, self.page.offset - KEY_BYTES) if self.is_bare else self.page.offset


def read(
    fetch: Fetch,
    fields: Mapping[str, Field],
    clusters: Sequence[ClusterLike],
    start: int,
    stop: int,
    *,
    records: Records | None = None,
) -> dict[str, Column | ListsOfLists]:
    """Read entries ``start`` to ``stop`` of some fields.

    Parameters
    ----------
    fetch : gives the bytes of the file: is told where they begin and how many they are
    fields : name to what it is made of
    clusters : those of the file, in its order
    start, stop : entries, within those of the clusters
    records : of the file; without them pages that have neither checksum nor compression are believed to be in place

    Returns
    -------
    name to numbers (n,) or (n, width), lists, or lists of lists; those of one collection share one array of offsets

    Raises
    ------
    ContradictionError
        Where the bytes are not what they must be, or what describes them contradicts itself.
    """
    parts = _parts(clusters, start, stop)
    names = _names(fields)
    ends = {f.ends: _Wanted(names[f.ends], _ends_of(parts)) for f in fields.values() if f.ends}
    lists = {
        column: _joined(found, parts, ends[column])
        for column, found in _read_columns(fetch, ends, parts, records).items()
    }
    within = {f.inner: _inner_parts(parts, lists[f.lists]) for f in fields.values() if f.inner and f.lists}
    ends = {column: _Wanted(names[column], [_ends_within(p) for p in inner]) for column, inner in within.items()}
    for column, found in _read_columns(fetch, ends, parts, records).items():
        lists[column] = _joined(found, within[column], ends[column])
    wanted = {f.values: _wanted(f, names[f.values], parts, lists) for f in fields.values() if not f.is_count}
    values = _read_columns(fetch, wanted, parts, records)
    return {name: _assemble(f, values, lists) for name, f in fields.items()}


def places(fields: Iterable[Field], clusters: Sequence[ClusterLike], start: int, stop: int) -> Iterator[Span]:
    """Say where the pages lie that reading these entries needs.

    Parameters
    ----------
    fields : that will be read
    clusters : those of the file, in its order
    start, stop : entries, within those of the clusters

    Raises
    ------
    ContradictionError
        As :func:`read`.
    """
    for p in _pages(fields, clusters, start, stop):
        yield p.offset if p.has_checksum else max(0, p.offset - KEY_BYTES), p.stop


def elements(fields: Iterable[Field], clusters: Sequence[ClusterLike], start: int, stop: int) -> int:
    """Count the elements that the pages of all clusters with some entries declare.

    Parameters
    ----------
    fields : that will be read
    clusters : those of the file, in its order
    start, stop : entries, within those of the clusters

    Raises
    ------
    ContradictionError
        As :func:`read`.
    """
    return sum(page.elements for page in _pages(fields, clusters, start, stop))


def _pages(fields: Iterable[Field], clusters: Sequence[ClusterLike], start: int, stop: int) -> Iterator[Page]:
    columns = {c for f in fields for whole in (f.values, f.ends, f.inner) if whole for c in (whole, *whole.others)}
    for part in _parts(clusters, start, stop):
        for column in columns:
            yield from part.cluster.pages(column.number) or ()


def _names(fields: Mapping[str, Field]) -> dict[NTupleColumn, str]:
    """Name a field for each column, to say what is damaged."""
    found: dict[NTupleColumn, str] = {}
    for name, field in fields.items():
        for column in (field.values, field.ends, field.inner):
            if column is not None:
                found.setdefault(column, name)
    return found


def _parts(clusters: Sequence[ClusterLike], start: int, stop: int) -> list[_WantedEntries]:
    parts: list[_WantedEntries] = []
    at = start
    begin = max(0, bisect.bisect_right(clusters, start, key=lambda c: c.first) - 1)
    for cluster in itertools.takewhile(lambda c: c.first < stop, itertools.islice(clusters, begin, None)):
        low, high = max(start - cluster.first, 0), min(stop - cluster.first, cluster.entries)
        if low < high:
            if cluster.first + low != at:
                raise ContradictionError(f"no cluster holds entry {at}")
            parts.append(_WantedEntries(cluster, low, high))
            at = cluster.first + high
    if at < stop:
        raise ContradictionError(f"no cluster holds entry {at}")
    return parts


@dataclasses.dataclass(frozen=True, slots=True)
class _WantedLists(_WantedEntries):
    """The lists of a cluster that are wanted, counted from its first, and how many it has."""

    total: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Span:
    """Elements of a column in a cluster: those wanted, how many there must be, and which is the first in the file."""

    low: int
    high: int
    total: int
    first: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """The elements of a column that are wanted of each cluster, for a field."""

    name: str
    spans: Sequence[_Span]

    def where(self, part: _WantedEntries) -> str:
        """Say what is read."""
        first = part.cluster.first
        return f"branch {self.name!r}, cluster with entries {first} to {first + part.cluster.entries}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Lists:
    """The lists of a block: its offsets, and the elements of each cluster that are in them."""

    offsets: Ints
    spans: Sequence[_Span]


def _ends_of(parts: Sequence[_WantedEntries]) -> list[_Span]:
    """Say which ends of lists are needed: a list begins where the one before ends, and the last says how many it is."""
    return [_Span(max(p.low - 1, 0), p.cluster.entries, p.cluster.entries, p.cluster.first) for p in parts]


def _ends_within(part: _WantedLists) -> _Span:
    return _Span(max(part.low - 1, 0), part.total, part.total, 0)


def _inner_parts(parts: Sequence[_WantedEntries], outer: _Lists) -> list[_WantedLists]:
    """Say which lists in the lists of each cluster are wanted."""
    return [_WantedLists(p.cluster, s.low, s.high, s.total) for p, s in zip(parts, outer.spans, strict=True)]


def _wanted(field: Field, name: str, parts: Sequence[_WantedEntries], lists: Mapping[NTupleColumn, _Lists]) -> _Wanted:
    n = field.width or 1
    if holder := field.inner or field.lists:
        return _Wanted(name, [_Span(s.low * n, s.high * n, s.total * n, s.first) for s in lists[holder].spans])
    spans = [_Span(p.low * n, p.high * n, p.cluster.entries * n, p.cluster.first * n) for p in parts]
    return _Wanted(name, spans)


def _assemble(
    field: Field, values: Mapping[NTupleColumn, Array], lists: Mapping[NTupleColumn, _Lists]
) -> Array | Jagged | ListsOfLists:
    if field.is_count:
        return np.diff(lists[field.values].offsets)
    found = values[field.values]
    if field.inner and field.lists:
        return ListsOfLists(lists[field.lists].offsets, np.diff(lists[field.inner].offsets), found)
    found = found.reshape(-1, field.width) if field.width else found
    return Jagged(lists[field.lists].offsets, found) if field.lists else found


def _joined(ends: Array, parts: Sequence[_WantedEntries], wanted: _Wanted) -> _Lists:
    """Make offsets that count in the block of ends that count in clusters."""
    offsets = np.zeros(1 + sum(p.high - p.low for p in parts), np.int64)
    spans: list[_Span] = []
    at, read_at = 1, 0
    for part, span in zip(parts, wanted.spans, strict=True):
        n, begins_inside = part.high - part.low, int(part.low > 0)
        mine = ends[read_at : read_at + span.high - span.low].astype(np.int64, copy=False)
        if (mine[:1] < 0).any() or (mine[1:] < mine[:-1]).any():
            raise ContradictionError(f"{wanted.where(part)}: a list ends before it begins")
        low, total = int(mine[0]) if begins_inside else 0, int(mine[-1]) if len(mine) else 0
        mine = mine[begins_inside : begins_inside + n]
        spans.append(_Span(low, int(mine[-1]) if n else low, total, 0))
        np.add(mine, offsets[at - 1] - low, out=offsets[at : at + n])
        at, read_at = at + n, read_at + span.high - span.low
    return _Lists(offsets, spans)


def _read_columns(
    fetch: Fetch, wanted: Mapping[NTupleColumn, _Wanted], parts: Sequence[_WantedEntries], records: Records | None
) -> dict[NTupleColumn, Array]:
    """Read some elements of columns, of each cluster one range."""
    pieces: list[_Piece] = []
    found: dict[NTupleColumn, Array] = {}
    for column, of_column in wanted.items():
        held = [
            list(_overlapping(column, part.cluster, span, functools.partial(of_column.where, part)))
            for part, span in zip(parts, of_column.spans, strict=True)
        ]
        out = shared().empty(sum(span.high - span.low for span in of_column.spans), _memory_type(column))
        found[column] = out
        at = 0
        for part, span, overlapping in zip(parts, of_column.spans, held, strict=True):
            zeros = span.high - span.low - sum(n for _, _, _, n in overlapping)
            out[at : at + zeros] = 0
            at += zeros
            for page, encoding, skip, n in overlapping:
                where = functools.partial(of_column.where, part)
                pieces.append(_Piece(page, encoding, skip, out[at : at + n], where))
                at += n
    _read_pieces(fetch, pieces, records)
    return found


def _memory_type(column: NTupleColumn) -> np.dtype[Any]:
    return np.dtype(np.int64) if column.encoding.is_delta else column.dtype


def _overlapping(
    column: NTupleColumn, cluster: ClusterLike, span: _Span, where: Callable[[], str]
) -> Iterator[tuple[Page, Encoding, int, int]]:
    """Return the pages that hold wanted elements of a cluster, with how many to skip and to take of each."""
    encoding, pages = _stored(column, cluster, where)
    # The elements before the first that the file holds are zeros, and have no pages.
    at = min(max(column.first - span.first, 0), span.total)
    if sum(page.elements for page in pages) != span.total - at:
        held = sum(page.elements for page in pages)
        raise ContradictionError(f"{where()}: its pages hold {held:,} elements; {span.total - at:,} are needed")
    for page in pages:
        first, last = max(span.low - at, 0), min(span.high - at, page.elements)
        if first < last:
            # Before memory is asked for.
            if encoding.size_of(page.elements) > max(page.size, 0) * MOST_INFLATED:
                raise ContradictionError(
                    f"{where()}: a page of {page.size} bytes can't hold {page.elements:,} elements"
                )
            yield page, encoding, first, last - first
        at += page.elements


def _stored(column: NTupleColumn, cluster: ClusterLike, where: Callable[[], str]) -> tuple[Encoding, Sequence[Page]]:
    """Say in which way a cluster has a column, and on which pages."""
    found = [(c.encoding, p) for c in (column, *column.others) if (p := cluster.pages(c.number)) is not None]
    if len(found) > 1:
        raise ContradictionError(f"{where()}: it is stored in {len(found)} ways at once")
    return found[0] if found else (column.encoding, ())


def _read_pieces(fetch: Fetch, pieces: Iterable[_Piece], records: Records | None) -> None:
    for start, stop, group in _requests(sorted(pieces, key=lambda p: (p.page.offset, p.page.stop))):
        data = memoryview(fetch(start, stop - start))
        if len(data) < stop - start:
            raise ContradictionError(f"{len(data)} of {stop - start} bytes can be read at {start}")
        if records is not None and (bare := [p for p in group if p.is_bare]):
            data = _in_place(bare, data, start, records)
        for piece in group:
            page = piece.page
            try:
                _decode(piece, _checked(page, data[page.offset - start : page.stop - start]))
            except ContradictionError as error:
                raise ContradictionError(f"{piece.where()}: {error}") from error


def _requests(pieces: Iterable[_Piece]) -> Iterator[tuple[int, int, list[_Piece]]]:
    """Join neighbouring pages: where to read from and to, and what comes."""
    group: list[_Piece] = []
    start = stop = 0
    before: Span = (0, 0)
    for piece in pieces:
        page = piece.page
        place = (page.offset, page.stop)
        if page.offset < before[1] and place != before:  # pages of the same bytes may lie in one place
            raise ContradictionError(f"{piece.where()}: a page lies in another")
        before = place
        if group and (piece.begin - stop > GAP or max(stop, page.stop) - start > REQUEST_BYTES):
            yield start, stop, group
            group = []
        if not group:
            start = stop = piece.begin
        group.append(piece)
        start, stop = min(start, piece.begin), max(stop, page.stop)
    if group:
        yield start, stop, group


def _in_place(pieces: Iterable[_Piece], data: memoryview, start: int, records: Records) -> memoryview:
    """Check that pages lie in records of the file: in that of the nearest key, or else of any key.

    Returns
    -------
    ``data``, or a copy: it does not outlast what is fetched of other keys
    """
    lost: list[_Piece] = []
    for piece in pieces:
        record = nearest_record(bytes(data[piece.begin - start : piece.page.stop - start]), piece.begin)
        if record is None:
            lost.append(piece)
        else:
            _check_inside(piece, record, records)
    if lost:
        data = memoryview(bytes(data))
    for piece in lost:
        if (record := records.around(piece.page.offset)) is not None:
            _check_inside(piece, record, records)
    return data


def _check_inside(piece: _Piece, record: Span, records: Records) -> None:
    """Compare a page with the record that it lies in, as the first one or behind another."""
    page = piece.page
    is_inside = record[0] <= page.offset <= page.stop <= record[1]
    if not is_inside or (page.offset != record[0] and not records.has_end(page.offset)):
        raise ContradictionError(f"{piece.where()}: the page at {page.offset} is not where its record has one")


def _checked(page: Page, data: memoryview) -> memoryview:
    """Compare a page with its checksum, where it has one, and return its bytes without it."""
    if not page.has_checksum:
        return data
    content = data[: page.size]
    if CHECKSUM.unpack(data[page.size :])[0] != xxhash.xxh3_64_intdigest(content):
        raise ContradictionError(f"the page at {page.offset} differs from its checksum")
    return content


def _decode(piece: _Piece, data: memoryview) -> None:
    encoding, skip, out = piece.encoding, piece.skip, piece.out
    raw = inflate(data, piece.size)
    if encoding.dtype == "?":
        bits = np.unpackbits(raw, count=skip + len(out), bitorder="little")[skip:]
        out[:] = bits.view(np.bool_)
    elif encoding.is_delta:
        differences = np.empty(skip + len(out), encoding.dtype)
        _unsplit(raw, 0, differences, is_zigzag=False)
        out[:] = np.cumsum(differences, dtype=np.int64)[skip:]
    elif encoding.bits:
        out[:] = _floats(raw, skip + len(out), encoding)[skip:]
    elif not encoding.is_split:
        out[:] = raw.view(encoding.dtype)[skip : skip + len(out)]
    elif out.dtype == encoding.dtype:
        _unsplit(raw, skip, out, is_zigzag=encoding.is_zigzag)
    else:  # stored in several ways
        found = np.empty(len(out), encoding.dtype)
        _unsplit(raw, skip, found, is_zigzag=encoding.is_zigzag)
        out[:] = found


def _floats(raw: Bytes, count: int, encoding: Encoding) -> Array:
    """Restore floats of which only some bits are stored."""
    bits = np.unpackbits(raw, count=count * encoding.bits, bitorder="little").reshape(count, encoding.bits)
    whole = np.zeros((count, 32), np.uint8)
    if encoding.bounds is None:  # the last bits of the mantissa are left out
        whole[:, 32 - encoding.bits :] = bits
        return np.packbits(whole, axis=1, bitorder="little").view("<f4").reshape(-1)
    whole[:, : encoding.bits] = bits
    steps = np.packbits(whole, axis=1, bitorder="little").view("<u4").reshape(-1)
    low, high = encoding.bounds
    return low + steps * (high - low) / ((1 << encoding.bits) - 1)


def _unsplit(raw: Bytes, skip: int, out: Array, *, is_zigzag: bool) -> None:
    from rootdata.io.formats.decode import unsplit  # takes a second: not for those who only look

    unsplit(raw, skip, is_zigzag, out.view(f"u{out.itemsize}"))
