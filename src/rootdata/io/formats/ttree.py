"""Numbers and lists of numbers straight from the baskets of a TTree into columns.

uproot opens a file and says where its baskets lie and how they are laid out. Their bytes are read here, and what the
file says in two places is compared. The layout of a branch is never guessed from its bytes: one that is not known here
raises :class:`UnusualError`, and bytes that do not fit theirs a :class:`~rootdata.causes.ContradictionError`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.arena import shared
from rootdata.causes import ContradictionError, reason_of
from rootdata.io.formats.inflate import inflate
from rootdata.io.formats.object_lists import ARRAY_HEADER, VECTOR_HEADER, object_list_of
from rootdata.io.formats.parts import ListsOfLists, has_header, is_record, lengths_agree
from rootdata.io.guard import Unusable, concerns_all, guarded
from rootdata.io.local import ByteSource, Span
from rootdata.jagged import Ints, Jagged, offsets_of

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

# Of the key: fNbytes, fVersion, fObjlen, fDatime, fKeylen, fCycle; at its end: fNevBuf, fLast and a flag
# (TKey::Streamer and TBasket::Streamer of ROOT). Between them lie two places in the file, of eight bytes each in keys
# of a version above 1000, the names of the class and of the branch, and the title.
_HEAD = struct.Struct(">ihiIhh")
_FOOT = struct.Struct(">iiB")
_MIN_KEY = _HEAD.size + 19
_POSITION = struct.Struct(">i")
_LONG_NAME = 255  # the length of a name that is as long or longer, followed by four bytes with the true one

POINTER_HEADER = 1  # a byte before the numbers of a C array of a class: whether there are any
GENERATES_POSITIONS = 1  # bit of a branch whose lists do not say where they begin (kGenerateOffsetMap of ROOT)
BITS = 15  # type of a member that holds bits (TVirtualStreamerInfo::kBits): more bytes where the object is referenced


class UnusualError(Exception):
    """A branch is laid out in a way that is not known here.

    Parameters
    ----------
    name : the branch
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


class CountsError(ContradictionError):
    """Lists are of other lengths than the branch that counts them says."""


@dataclasses.dataclass(frozen=True, slots=True)
class Embedded:
    """A basket that lies in the tree's own record; see :class:`_Basket`."""

    data: Bytes
    keylen: int
    border: int


@dataclasses.dataclass(frozen=True, slots=True)
class BasketTable:
    """Where the baskets of a branch lie, and what they hold.

    Parameters
    ----------
    dtype : numpy name of the number type
    width : numbers an event of a ``fixed`` branch, 0 for one number; -k for lists of objects of k numbers each
    header : bytes before each list
    entry_offsets : (n_baskets + 1,) the first entry of every basket, and the number of entries
    seeks, nbytes : (n,) where each basket begins in the file, and its length
    counter : table of the branch that counts the objects of the lists, where there is one
    embedded : the last n_baskets - n baskets
    is_bare : lists may not say where they begin: the counter does
    stored : bytes of a number as it is stored, 0 for as many as it has
    convert : turns the bytes of some numbers into these, where they are not stored as they are
    has_bits : of objects, which have more of them where others refer to them
    is_nested : entries hold lists of lists, each with the number of its objects in front
    record : of what a row holds, where that is more than numbers of one type; the column is then of bytes
    owner, owners : name of the branch in the tree, and of all branches
    """

    name: str
    dtype: str
    width: int
    header: int
    entry_offsets: Ints
    seeks: Ints
    nbytes: Ints
    counter: BasketTable | None = None
    embedded: tuple[Embedded, ...] = ()
    is_bare: bool = False
    stored: int = 0
    convert: Callable[[Bytes], Array] | None = None
    has_bits: bool = False
    record: np.dtype[Any] | None = None
    is_nested: bool = False
    owner: bytes = b""
    owners: frozenset[bytes] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether its first seven fields and the counter, which a basket index keeps, are enough to read it."""
        is_alone = self.counter is None or self.counter.is_plain
        is_odd = self.is_bare or self.has_bits or self.is_nested or self.record is not None
        return is_alone and not self.embedded and not is_odd and self.convert is None

    @property
    def size(self) -> int:
        """Bytes of a number, as it is stored."""
        return self.stored or np.dtype(self.dtype).itemsize

    @property
    def row(self) -> int:
        """Bytes of an entry that is no list, or of an object of a list."""
        return max(1, abs(self.width)) * self.size


# What describes a branch


@dataclasses.dataclass(frozen=True, slots=True)
class Owners:
    """The branches of a tree.

    Parameters
    ----------
    num_entries : of the tree
    size : of the file, in bytes; 0 where that is not known
    by_leaf : identity of a leaf to the branch that has no other
    counters : identity of a leaf to the table of its branch, as far as it is known; one for all that it counts
    """

    num_entries: int
    size: int
    names: frozenset[bytes]
    by_leaf: Mapping[int, Any]
    counters: dict[int, BasketTable | None] = dataclasses.field(default_factory=dict)


def owners_of(tree: Any, *, size: int) -> Owners:
    """List the branches of one of uproot's trees."""
    known = [(b, guarded(functools.partial(_name_and_leaves, b))) for b in _below(tree)]
    found = [(b, *about) for b, about in known if not isinstance(about, Unusable)]
    names = frozenset(name.encode() for _, name, _ in found)
    return Owners(int(tree.num_entries), size, names, {id(leaves[0]): b for b, _, leaves in found if len(leaves) == 1})


def _name_and_leaves(branch: Any) -> tuple[str, list[Any]]:
    return str(branch.member("fName")), list(branch.member("fLeaves"))


def _below(branch: Any) -> Iterator[Any]:
    inside = guarded(lambda: list(branch.member("fBranches")))
    for inner in [] if isinstance(inside, Unusable) else inside:
        yield inner
        yield from _below(inner)


def table_of(name: str, branch: Any, owners: Owners) -> BasketTable:
    """Describe the baskets of one of uproot's branches.

    Parameters
    ----------
    name : what its column will be called
    branch : of an open file
    owners : the branches of its tree, among which the counter of a jagged one is found

    Raises
    ------
    UnusualError
        For a layout that is not known here.
    ContradictionError
        Where the baskets do not cover the entries, or lie outside of the file or in one another.
    """
    table = _layout(name, branch)
    if branch.num_entries < owners.num_entries:
        raise UnusualError(name, f"it has {branch.num_entries:,} entries, its tree {owners.num_entries:,}")
    try:
        embedded = tuple(_embedded(basket) for basket in branch.embedded_baskets)
        n = branch.num_baskets - len(embedded)
        table = dataclasses.replace(
            table,
            entry_offsets=np.array(branch.entry_offsets, np.int64),
            seeks=np.array(branch.member("fBasketSeek")[:n], np.int64),
            nbytes=np.array(branch.member("fBasketBytes")[:n], np.int64),
            counter=_counter(branch, owners) if table.width < 0 and table.header < ARRAY_HEADER else None,
            embedded=embedded,
            owner=str(branch.member("fName")).encode(),
            owners=owners.names,
        )
    except (ContradictionError, UnusualError):
        raise
    except Exception as error:  # whatever uproot raises for what it can't make sense of
        if concerns_all(error):
            raise
        if _bits_of(branch):
            raise UnusualError(name, f"uproot can't interpret its baskets ({reason_of(error)})") from error
        raise ContradictionError(f"branch {name!r}: its baskets can't be listed ({reason_of(error)})") from error
    if table.is_bare and table.counter is None:
        raise UnusualError(name, "its lists do not say where they begin, and no branch counts them")
    _check_sound(table, owners)
    return table


def _layout(name: str, branch: Any) -> BasketTable:
    """Say what baskets hold, without looking at them."""
    seen = guarded(lambda: _seen(branch))
    if isinstance(seen, Unusable):
        raise UnusualError(name, f"uproot can't interpret it ({seen.why})")
    content, wanted, header, typename, is_nested = seen
    is_list = header is not None
    header = header or 0
    record = wanted if wanted is not None and is_record(wanted) else None
    if wanted is None or (record is None and wanted.base.kind not in "iufb"):
        raise UnusualError(name, f"it holds {typename}, neither numbers nor lists of numbers")
    is_plain = record is None and _is_plain(content)
    is_odd = header and (header == POINTER_HEADER or record is None) and (wanted.shape or not is_plain)
    if header not in {0, POINTER_HEADER, ARRAY_HEADER, VECTOR_HEADER} or is_odd:
        raise UnusualError(name, f"its lists ({typename}) have {header} bytes before their numbers")
    width = wanted.itemsize if record is not None else math.prod(wanted.shape) if wanted.shape else 0
    nothing = np.zeros(0, np.int64)
    return BasketTable(
        name=name,
        dtype="uint8" if record is not None else wanted.base.newbyteorder("=").name,
        width=-max(1, width) if is_list else width,
        header=header,
        entry_offsets=nothing,
        seeks=nothing,
        nbytes=nothing,
        is_bare=is_list and not header and _is_bare(branch),
        stored=0 if is_plain or record is not None else content.from_dtype.base.itemsize,
        convert=None if is_plain or record is not None else _converter(content),
        has_bits=_has_bits(branch) or (record is not None and has_header(record)),
        record=record,
        is_nested=is_nested,
    )


def _seen(branch: Any) -> tuple[Any, np.dtype[Any] | None, int | None, str, bool]:
    """Return what uproot makes of numbers: them, their type, the bytes before a list, the name, if lists are nested."""
    reading = branch.interpretation
    typename = str(branch.typename)
    if (found := object_list_of(reading)) is not None:
        return found, found.to_dtype, found.header, typename, found.is_nested
    is_list = type(reading).__name__ == "AsJagged"
    content = reading.content if is_list else reading
    known = {"AsDtype": "to_dtype", "AsDouble32": "to_dtype", "AsFloat16": "to_dtype", "AsStridedObjects": "from_dtype"}
    wanted = getattr(content, known[type(content).__name__]) if type(content).__name__ in known else None
    wanted = content.from_dtype if wanted is not None and is_record(wanted) else wanted
    return content, wanted, int(reading.header_bytes) if is_list else None, typename, False


def _is_plain(content: Any) -> bool:
    """Say whether numbers are stored as they are to be, but for the order of their bytes."""
    stored, wanted = content.from_dtype.base, content.to_dtype.base
    is_number = stored.kind in "iufb" and stored.itemsize in {1, 2, 4, 8}
    is_same = stored.byteorder in ">|" and stored.newbyteorder("=") == wanted.newbyteorder("=")
    return type(content).__name__ in {"AsDtype", "ObjectList"} and is_number and is_same


def _converter(content: Any) -> Callable[[Bytes], Array]:
    wanted = content.to_dtype.base.newbyteorder("=")

    def convert(stored: Bytes) -> Array:
        found = content.basket_array(stored, None, None, None, None, 0, None, None)
        return np.ascontiguousarray(found, wanted).reshape(-1)

    return convert


def _is_bare(branch: Any) -> bool:
    return bool(_bits_of(branch) & GENERATES_POSITIONS) or not branch.member("fEntryOffsetLen")


def _has_bits(branch: Any) -> bool:
    return bool(branch.member("fStreamerType", none_if_missing=True) == BITS)


def _bits_of(branch: Any) -> int:
    features = branch.member("fIOFeatures", none_if_missing=True)
    return int(features.member("fIOBits")) if features is not None else 0


def _embedded(basket: Any) -> Embedded:
    """Take a basket that uproot found in the tree's record, with positions as those of others are stored."""
    keylen, border, starts = int(basket.member("fKeylen")), int(basket.border), basket.byte_offsets
    if starts is None:
        return Embedded(np.array(basket.data, np.uint8), keylen, border)
    positions = np.concatenate([[len(starts)], np.asarray(starts, np.int64) + keylen]).astype(">i4")
    return Embedded(np.concatenate([basket.data, positions.view(np.uint8)]), keylen, border)


def _counter(branch: Any, owners: Owners) -> BasketTable | None:
    """Describe the branch that counts the objects of lists, where it holds nothing else."""
    leaves = branch.member("fLeaves")
    leaf = leaves[0].member("fLeafCount") if len(leaves) == 1 else None
    counter = None if leaf is None else owners.by_leaf.get(id(leaf))
    if counter is None:
        return None
    if id(leaf) not in owners.counters:
        owners.counters[id(leaf)] = _counts(counter, owners)
    return owners.counters[id(leaf)]


def _counts(counter: Any, owners: Owners) -> BasketTable | None:
    try:
        table = table_of(str(counter.member("fName")), counter, owners)
    except UnusualError:
        return None
    return table if table.width == 0 and np.dtype(table.dtype).kind in "iu" else None


def _check_sound(table: BasketTable, owners: Owners) -> None:
    """Compare a table with its tree and its file."""
    edges, seeks, nbytes = table.entry_offsets, table.seeks, table.nbytes
    what = f"branch {table.name!r}: its baskets"
    if not len(edges) == len(seeks) + len(table.embedded) + 1 == len(nbytes) + len(table.embedded) + 1:
        raise ContradictionError(f"{what} are listed as {len(edges) - 1}, {len(seeks)} and {len(nbytes)}")
    if edges[0] or edges[-1] < owners.num_entries or (edges[1:] < edges[:-1]).any():
        raise ContradictionError(f"{what} do not cover the {owners.num_entries:,} entries of the tree")
    ends = seeks + nbytes
    if (seeks <= 0).any() or (nbytes <= 0).any() or (owners.size and (ends > owners.size).any()):
        raise ContradictionError(f"{what} lie outside of the file")
    order = np.argsort(seeks)
    if (ends[order[:-1]] > seeks[order[1:]]).any():
        raise ContradictionError(f"{what} lie in one another")


# Reading


def read_block(
    source: ByteSource, tables: Sequence[BasketTable], start: int, stop: int
) -> dict[str, Array | Jagged | ListsOfLists]:
    """Read some branches of a range of entries; lists of the same lengths share their offsets.

    Parameters
    ----------
    source : the bytes of the file
    tables : where the baskets of each branch lie, all of one tree
    start, stop : within the entries of the tables

    Raises
    ------
    ContradictionError
        For bytes that contradict themselves, each other, or the tables.
    EOFError
        Where the file ends too early.
    OSError
        Where it can't be read.
    """
    block = _OpenEntries(source, start, stop)
    with source.ahead([*block.places(tables)]):
        return {table.name: block.read(table) for table in tables}


@dataclasses.dataclass(frozen=True, slots=True)
class _Basket:
    """What a basket holds, inflated, and its wanted events ``low`` to ``high`` of the ``entries`` from ``first`` on.

    ``border`` bytes are numbers; the positions of lists follow, which count from ``keylen`` bytes before.
    """

    table: BasketTable
    index: int
    data: Bytes
    keylen: int
    border: int
    first: int
    entries: int
    low: int
    high: int

    def contradicts(self, why: str) -> Exception:
        """Make the error that says in which basket of which branch something is wrong."""
        return _contradiction(self.table, self.index, why)


_MORE_BITS = "it holds bits of objects, and more than these of objects that others refer to"
_NOT_ALIKE = "its objects are not all stored alike, as where others refer to some of them"


def _contradiction(table: BasketTable, index: int, why: str) -> Exception:
    if table.has_bits:
        return UnusualError(table.name, _NOT_ALIKE if table.record is not None else _MORE_BITS)
    first, following = table.entry_offsets[index : index + 2].tolist()
    return ContradictionError(f"branch {table.name!r}, basket {index} with entries {first} to {following}: {why}")


class _OpenEntries:
    """A range of entries while it is read: what several of its branches share is read once."""

    def __init__(self, source: ByteSource, start: int, stop: int) -> None:
        self._source, self._start, self._stop = source, start, stop
        self._known: list[Ints] = []  # offsets of lists
        self._agreed: set[tuple[int, int]] = set()  # identities of offsets, and of the counter that says the same
        self._numbers: dict[int, Array] = {}  # columns of one number an entry, by where their first basket lies

    def places(self, tables: Sequence[BasketTable]) -> Iterator[Span]:
        """Say where the bytes lie that will be needed."""
        counters = {id(t.counter): t.counter for t in tables if t.counter is not None}
        for table in (*tables, *counters.values()):
            span = _span(table, self._start, self._stop)  # embedded baskets come last, and have no place
            seeks = table.seeks[span]
            yield from zip(seeks.tolist(), (seeks + table.nbytes[span]).tolist(), strict=True)

    def read(self, table: BasketTable) -> Array | Jagged | ListsOfLists:
        """Read the column of a branch."""
        if table.width == 0:
            return self._number(table)
        baskets = self._baskets(table, self._start, self._stop)
        if table.is_nested:
            return _nested(table, baskets, [self._positions(basket) for basket in baskets])
        column = self._lists(table, baskets) if table.width < 0 else _numbers(table, baskets)
        if table.record is not None:
            rows = column.content if isinstance(column, Jagged) else column
            if not lengths_agree(rows, table.record):
                raise UnusualError(table.name, _NOT_ALIKE)
        return column

    def _number(self, table: BasketTable) -> Array:
        """Read a column of one number an entry, once: it may count lists, and be asked for itself."""
        place = int(table.seeks[0]) if len(table.seeks) else id(table)
        if place not in self._numbers:
            self._numbers[place] = _numbers(table, self._baskets(table, self._start, self._stop))
        return self._numbers[place]

    def _baskets(self, table: BasketTable, start: int, stop: int) -> list[_Basket]:
        span = _span(table, start, stop)
        return [self._basket(table, k, start, stop) for k in range(span.start, span.stop)]

    def _basket(self, table: BasketTable, k: int, start: int, stop: int) -> _Basket:
        """Read a basket, and inflate it while it is in the processor's cache."""
        first, following = table.entry_offsets[k : k + 2].tolist()
        n = following - first
        if k < len(table.seeks):
            data, keylen, border = _opened(self._source, table, k, entries=n)
        else:
            found = table.embedded[k - len(table.seeks)]
            data, keylen, border = found.data, found.keylen, found.border
        if not 0 <= border <= len(data) or (table.width >= 0 and border != n * table.row):
            raise _contradiction(table, k, "it holds more or fewer numbers than its entries have")
        low, high = max(start, first) - first, min(stop, following) - first
        return _Basket(table, k, data, keylen, border, first, n, low, high)

    def _lists(self, table: BasketTable, baskets: Sequence[_Basket]) -> Jagged:
        positions = [self._positions(basket) for basket in baskets]
        offsets = self._offsets(table, baskets, positions)
        if table.counter is not None:
            self._check_counts(table, table.counter, offsets)
        return Jagged(offsets, _content(table, baskets, positions, offsets))

    def _positions(self, basket: _Basket) -> _Positions:
        """Find where the wanted lists of a basket begin and end, and the stored positions of each but the end.

        Positions count from the beginning of the key; a number in front says how many there are, and the last of them
        means nothing: the border does. As many may follow that mean something only to objects with references.
        """
        section = basket.data[basket.border :]
        counter = basket.table.counter
        if basket.table.is_bare and counter is not None and not len(section):
            return self._made_positions(basket, counter)
        one = 4 * (basket.entries + 2)
        if len(section) not in {one, 2 * one}:
            raise basket.contradicts("it does not say where its lists begin")
        wanted = section[4 * (basket.low + 1) : 4 * (basket.high + 1)]
        end = basket.border
        if basket.high < basket.entries:
            end = _POSITION.unpack_from(section.data, 4 * (basket.high + 1))[0] - basket.keylen
        begin = _POSITION.unpack_from(wanted.data)[0] - basket.keylen if len(wanted) else end
        if not 0 <= begin <= end <= basket.border or (begin and not basket.low):
            raise basket.contradicts("its lists lie outside of it")
        return begin, end, wanted

    def _made_positions(self, basket: _Basket, counter: BasketTable) -> _Positions:
        """Compute where lists begin from their lengths, which the branch that counts them has."""
        first, following = basket.first, basket.first + basket.entries
        counts = _numbers(counter, self._baskets(counter, first, following)).astype(np.int64)
        edges = offsets_of(counts) * basket.table.row
        if (counts < 0).any() or edges[-1] != basket.border:
            raise basket.contradicts(f"it holds more or fewer numbers than its counter {counter.name!r} says")
        wanted = (edges[basket.low : basket.high] + basket.keylen).astype(">i4")
        return int(edges[basket.low]), int(edges[basket.high]), wanted.view(np.uint8)

    def _offsets(self, table: BasketTable, baskets: Sequence[_Basket], positions: Sequence[_Positions]) -> Ints:
        """Count the objects of the lists, and take offsets that are known already where they are the same."""
        from rootdata.io.formats.decode import agrees, decode  # takes a second: not for those who only look

        edges = np.cumsum([0, *(b.high - b.low for b in baskets)]).tolist()
        for offsets in reversed(self._known):  # branches of a collection are neighbours
            if len(offsets) == edges[-1] + 1 and all(
                agrees(wanted, end - begin, table.header, table.row, offsets[low : high + 1])
                for (begin, end, wanted), low, high in zip(positions, edges[:-1], edges[1:], strict=True)
            ):
                return offsets
        offsets = np.zeros(edges[-1] + 1, np.int64)
        for basket, (begin, end, wanted), low in zip(baskets, positions, edges[:-1], strict=True):
            high = low + basket.high - basket.low
            bad = decode(wanted, end - begin, table.header, table.row, offsets[low : high + 1])
            if bad >= 0:
                at = basket.first + basket.low + bad
                raise basket.contradicts(f"the list of entry {at} is no whole number of numbers")
        self._known.append(offsets)
        return offsets

    def _check_counts(self, table: BasketTable, counter: BasketTable, offsets: Ints) -> None:
        """Compare the lengths of lists with what another branch says that they are."""
        if (id(offsets), id(counter)) in self._agreed:
            return
        counts, declared = np.diff(offsets), self._number(counter)
        wrong = (counts != declared) & ((counts > 0) | (table.header != POINTER_HEADER))
        if wrong.any() and table.has_bits:
            raise _contradiction(table, 0, "")
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise CountsError(
                f"counter {counter.name!r} says {declared[at]} but {table.name!r} has {counts[at]} objects in entry "
                f"{self._start + at}"
            )
        self._agreed.add((id(offsets), id(counter)))


_Positions = tuple[int, int, Bytes]


def _span(table: BasketTable, start: int, stop: int) -> slice:
    """Find the baskets that hold some entries."""
    if start >= stop:
        return slice(0, 0)
    first = int(table.entry_offsets.searchsorted(start, "right")) - 1
    return slice(first, int(table.entry_offsets.searchsorted(stop, "left")))


def _opened(source: ByteSource, table: BasketTable, k: int, *, entries: int) -> tuple[Bytes, int, int]:
    """Read a basket of the file: its bytes, inflated, the length of its key and of the numbers."""
    place = int(table.nbytes[k])
    stored = np.frombuffer(source.fetch(int(table.seeks[k]), place), np.uint8)
    if place < _HEAD.size:
        raise _contradiction(table, k, "it is too short")
    nbytes, version, size, _, keylen, _ = _HEAD.unpack_from(stored.data)
    if nbytes != place or not _MIN_KEY <= keylen <= nbytes:
        raise _contradiction(table, k, "it has another length than the tree says")
    held, last, _ = _FOOT.unpack_from(stored.data, keylen - _FOOT.size)
    if held != entries or not 0 <= last - keylen <= size:
        raise _contradiction(table, k, "it holds other entries than the tree says")
    owner = _owner(stored.data[_HEAD.size + (16 if version > 1000 else 8) : keylen])
    if owner != table.owner and owner in table.owners:
        raise _contradiction(table, k, f"it belongs to branch {owner.decode(errors='replace')!r}")
    packed = stored[keylen:]
    try:
        data = packed.copy() if len(packed) == size else inflate(packed.data, size)
    except ContradictionError as error:
        raise _contradiction(table, k, str(error)) from error
    return data, keylen, last - keylen


def _owner(names: memoryview) -> bytes:
    """Return the second of some names, each behind its length; nothing where there is none."""
    at = 1 + names[0]
    if at >= len(names):
        return b""
    length, at = names[at], at + 1
    if length == _LONG_NAME and at + 4 <= len(names):
        length, at = _POSITION.unpack_from(names, at)[0], at + 4
    return bytes(names[at : at + length])


def _numbers(table: BasketTable, baskets: Sequence[_Basket]) -> Array:
    wanted = [basket.data[basket.low * table.row : basket.high * table.row] for basket in baskets]
    column = _column(table, wanted)
    return column.reshape(-1, table.width) if table.width else column


def _column(table: BasketTable, wanted: Sequence[Bytes]) -> Array:
    """Turn stored bytes into numbers."""
    from rootdata.io.formats.decode import swap

    if table.convert is not None:
        return np.concatenate([np.zeros(0, table.dtype), *map(table.convert, wanted)])
    column = shared().empty(sum(map(len, wanted)) // table.size, table.dtype)
    out, at = column.view(np.uint8), 0
    for stored in wanted:
        swap(stored, table.size, out[at : at + len(stored)])
        at += len(stored)
    return column


def _content(table: BasketTable, baskets: Sequence[_Basket], positions: Sequence[_Positions], offsets: Ints) -> Array:
    """Read the objects of lists: (n,), or (n, k) where each has k numbers."""
    from rootdata.io.formats.decode import swap_lists

    wanted = [basket.data[begin:end] for basket, (begin, end, _) in zip(baskets, positions, strict=True)]
    if not table.header:
        column = _column(table, wanted)
        return column.reshape(-1, -table.width) if table.width < -1 else column
    if table.record is not None:
        return _objects(table, baskets, wanted, offsets)
    column = shared().empty(int(offsets[-1]), table.dtype)
    out, at = column.view(np.uint8), 0
    for basket, stored in zip(baskets, wanted, strict=True):
        counts = offsets[at : at + basket.high - basket.low + 1]
        into = out[int(counts[0]) * table.size : int(counts[-1]) * table.size]
        bad = swap_lists(stored, table.header, table.size, counts, into)
        if table.header == ARRAY_HEADER:
            bad = _first_wrong(stored, table, counts)
        if bad >= 0:
            raise basket.contradicts(f"the list of entry {basket.first + basket.low + bad} is not as long as it says")
        at += basket.high - basket.low
    return column


_MEMBERWISE = 0x40  # bit of the first byte of the version of a vector (kStreamedMemberWise of ROOT)


def _first_wrong(stored: Bytes, table: BasketTable, counts: Ints) -> int:
    """Find the first list that is not as long as the number in front of it says, or -1."""
    heads = (counts[:-1] - counts[0]) * table.size + np.arange(len(counts) - 1) * table.header
    said = np.ascontiguousarray(stored[heads[:, np.newaxis] + np.arange(4)]).view(">u4").reshape(-1)
    wrong = np.flatnonzero(said != np.diff(counts))
    return int(wrong[0]) if len(wrong) else -1


def _nested(table: BasketTable, baskets: Sequence[_Basket], positions: Sequence[_Positions]) -> ListsOfLists:
    """Read lists of lists: each entry says how long it is and how many lists it has, each list how many numbers."""
    from rootdata.io.formats.decode import nested

    parts = []
    for basket, (begin, end, wanted) in zip(baskets, positions, strict=True):
        starts = wanted.view(">i4").astype(np.int64) - basket.keylen
        lists = np.zeros(len(starts) + 1, np.int64)
        room = (end - begin) // table.header if len(starts) else 0
        lengths = np.zeros((end - begin) // ARRAY_HEADER, np.int64)
        out = np.zeros(end - begin, np.uint8)
        bad, n, size = nested(basket.data[begin:end], starts - begin, table.row, lists, lengths, out)
        if bad >= 0 or room < len(starts):
            raise basket.contradicts(
                f"the lists of entry {basket.first + basket.low + max(bad, 0)} are not as long as they say"
            )
        parts.append((lists, lengths[:n], _in_order(out[:size], table)))
    counts = [np.zeros(0, np.int64), *(np.diff(lists) for lists, _, _ in parts)]
    lengths = np.concatenate([np.zeros(0, np.int64), *(found for _, found, _ in parts)])
    content = np.concatenate([_in_order(np.zeros(0, np.uint8), table), *(found for _, _, found in parts)])
    if table.record is not None and not lengths_agree(content, table.record):
        raise UnusualError(table.name, _NOT_ALIKE)
    return ListsOfLists(offsets_of(np.concatenate(counts)), lengths, content)


def _in_order(turned: Bytes, table: BasketTable) -> Array:
    """Return numbers of which the bytes were turned around; of records the bytes, turned back."""
    if table.record is None:
        return turned.view(np.dtype(table.dtype))
    return turned.reshape(-1, table.row)[:, ::-1]


def _objects(table: BasketTable, baskets: Sequence[_Basket], wanted: Sequence[Bytes], offsets: Ints) -> Bytes:
    """Read the objects of vectors as bytes, (n, k), and compare what is in front of each vector with its length."""
    column = np.empty((int(offsets[-1]), table.row), np.uint8)
    at = 0
    for basket, stored in zip(baskets, wanted, strict=True):
        edges = offsets[at : at + basket.high - basket.low + 1]
        heads = (edges[:-1] - edges[0]) * table.row + np.arange(len(edges) - 1) * table.header
        front = stored[heads[:, np.newaxis] + np.arange(table.header)]
        if (front[:, 4] & _MEMBERWISE).any():
            raise UnusualError(table.name, "its objects are stored member by member")
        counts = np.ascontiguousarray(front[:, 6:10]).view(">u4").reshape(-1)
        wrong = np.flatnonzero(counts != np.diff(edges))
        if len(wrong):
            raise basket.contradicts(
                f"the list of entry {basket.first + basket.low + wrong[0]} is not as long as it says"
            )
        is_member = np.ones(len(stored), bool)
        is_member[heads[:, np.newaxis] + np.arange(table.header)] = False
        column[edges[0] : edges[-1]] = stored[is_member].reshape(-1, table.row)
        at += basket.high - basket.low
    return column
