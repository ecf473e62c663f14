"""The trees of ROOT files: open a TTree or RNTuple, describe its branches, cut it into blocks and read one block."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import uproot

from rootdata.causes import Cause, ContradictionError, cause_of, reason_of
from rootdata.errors import BranchError, DataError, RootDataError
from rootdata.expressions.nested import FLATTEN, split_name
from rootdata.io import remote
from rootdata.io.block_size import BLOCK_ENTRIES, entries_of_block
from rootdata.io.branches import (
    Branch,
    BranchKind,
    Reading,
    columns_in,
    describe_branch,
    divided,
    members_of,
    of_lists,
    reading_of,
    type_of,
    unknown_branch,
    unusable_branch,
    why_nested,
    why_no_numbers,
)
from rootdata.io.contents import Contents, bin_in, contents_of, find_named, find_only, kind_of, why_not_read
from rootdata.io.files import state_of, state_of_open
from rootdata.io.formats import rntuple, signatures
from rootdata.io.formats.basket_index import Baskets, baskets_of
from rootdata.io.formats.inflate import inflate
from rootdata.io.formats.page_lists import Cluster, Group, clusters_of
from rootdata.io.formats.parts import MOST_PARTS, BranchPart, ListsOfLists, parts_of, stem_of, stems_in, take
from rootdata.io.formats.records import Records
from rootdata.io.guard import Unusable, guarded
from rootdata.io.local import ByteSource, LocalSource, Span
from rootdata.io.retry import PlaceError, blamed, check_range, why_not_open
from rootdata.io.tables.known import format_of
from rootdata.jagged import Column, Columns
from rootdata.location import Location, State, is_remote

if TYPE_CHECKING:
    from rootdata.io.formats.ttree import BasketTable, Owners


_KINDS: Mapping[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


class Tree(Protocol):
    """An open TTree or RNTuple.

    ``asked`` is the location that was to be opened, ``location`` the same with the tree's name, ``place`` the path at
    which it was opened: the location's or a replica's. ``state`` is that of the file when it was opened.
    ``kind`` is ``TTree``, ``RNTuple`` or ``table``.
    """

    kind: str

    asked: Location
    place: str
    num_entries: int
    uuid: str

    @property
    def location(self) -> Location: ...  # noqa: D102
    @property
    def state(self) -> State: ...  # noqa: D102

    def names(self) -> list[str]:
        """Return the names of all branches."""

    def describe(self, name: str) -> Branch:
        """Say what a branch holds; :class:`BranchError` where there is none of that name."""

    def edges(self, names: Sequence[str]) -> list[int]:
        """Return the entries at which the given branches can be cut, 0 and ``num_entries`` included, rising."""

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        """Return the uncompressed size of the given branches, in bytes an entry."""

    def nbytes(self, names: Sequence[str], start: int, stop: int) -> int:
        """Return about how many bytes reading entries ``start`` to ``stop`` takes, as the file declares it.

        Parameters
        ----------
        names : of the branches
        start, stop : entries, within those of the tree
        """

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read entries ``start`` to ``stop``.

        Parameters
        ----------
        names : of the branches
        start, stop : entries, 0 <= start <= stop <= ``num_entries``
        """

    def baskets(self, names: Sequence[str]) -> Baskets | None:
        """Say where the baskets of branches lie, for reading them without the tree; ``None`` where that can't be."""

    def close(self) -> None:
        """Close the file."""


def open_tree(location: Location, *, place: str | None = None) -> Tree:
    """Open the tree of a file.

    Parameters
    ----------
    location : path, copies and name of the tree
    place : where it is opened: at the location's path, or at one of its replicas

    Raises
    ------
    FileError
        For a file that is absent, empty, truncated or not ROOT, or that can't be reached.
    BranchError
        Where the tree is absent, or none was named and the file holds several.
    """
    place = place or location.path
    before = State() if is_remote(place) else state_of(Location(place))  # of a server its source keeps watch
    other = format_of(place)
    tree = _open_tree(location, place) if other is None else other.open(location, place)
    _check_same(tree, before)
    return tree


def _open_tree(location: Location, place: str) -> Tree:
    file = _open(place)
    try:
        _check_whole(file, place)
        return _open_object(file, location, place)
    except Exception:
        file.close()
        raise


def _open(place: str, **how: bool) -> Any:
    # No array cache: the same bytes would be kept twice.
    plain = {"array_cache": None, "object_cache": None, "num_workers": 1, **how}
    try:
        if is_remote(place):
            return uproot.open({place: None}, handler=remote.RemoteSource, **plain)
        _check_local(place)
        return uproot.open({place: None}, **plain)
    except RootDataError:
        raise
    except Exception as error:  # uproot has no common base for what broken bytes raise
        raise why_not_open(place, error) from error


def _check_local(path: str) -> None:
    """Refuse what is no file, which might never end or never begin, and what does not begin as a ROOT file."""
    mode = os.stat(path).st_mode  # noqa: PTH116 - a Path would cost more than the call
    if not stat.S_ISREG(mode):
        kind = next((name for name, is_it in _KINDS.items() if is_it(mode)), "no regular file")
        raise PlaceError(f"{path} can't be opened, it is {kind}; name a ROOT file")
    with Path(path).open("rb") as file:
        why_not = signatures.why_not_root(file.read(signatures.LENGTH))
    if why_not:
        raise PlaceError(f"{path}: {why_not}")


def _check_whole(file: Any, place: str) -> None:
    """Compare the length that the header declares with the file's own."""
    size, end = _size(file, place), file.file.fEND
    if size and size < end:
        raise PlaceError(
            f"{place}: the file is truncated: it has {size:,} of {end:,} bytes; replace or remove the file"
        )


def _check_same(tree: Tree, before: State) -> None:
    if not is_remote(tree.place) and tree.state != before:
        tree.close()
        raise PlaceError(f"{tree.place} was replaced by another file while it was opened; start again")


def _open_object(file: Any, location: Location, place: str) -> Tree:
    name = location.tree
    try:
        name, key = find_only(file, place) if name is None else (name, find_named(file, name, place))
        kind = _NTuple if kind_of(key) == "RNTuple" else _TTree
        source = _sound(key, key.get(), name, place)
        return kind(source, location, dataclasses.replace(location, tree=name), file, place)
    except (RootDataError, MemoryError):
        raise
    except Exception as error:
        what = f"{place}: tree {name!r} can't be read"
        if cause_of(error) is Cause.BYTES:
            raise PlaceError(f"{what} ({reason_of(error)}); replace the file, or read another tree") from error
        raise blamed(error, what, is_remote=is_remote(place)) from error


def _sound(key: Any, source: Any, name: str, place: str) -> Any:
    if why := why_not_read(key, source):
        raise BranchError(f"tree {name!r} of {place} can't be used: {why}")
    return source


@dataclasses.dataclass(frozen=True, slots=True)
class NamedFriend:
    """A friend tree as a file names it: what it is called there, its tree, and its file where that is another."""

    alias: str
    tree: str
    file: str


def friends_in(tree: Tree) -> list[NamedFriend]:
    """Name the friends that a tree has in its file."""
    if not isinstance(tree, _TTree) or not tree.holds_a("TFriendElement"):
        return []
    with _open(tree.place, minimal_ttree_metadata=False) as file:
        friends = file[str(tree.location.tree)].member("fFriends", none_if_missing=True) or ()
        return [
            NamedFriend(*(str(friend.member(name)) for name in ("fName", "fTreeName", "fTitle"))) for friend in friends
        ]


def has_index(tree: Tree) -> bool:
    """Say whether ROOT finds the entries of a friend by an index, and not by their number."""
    return isinstance(tree, _TTree) and tree.holds_a("TTreeIndex")


def look_into(place: str, *, leave: Callable[[Sequence[str]], str | None] = lambda _: None) -> Contents:
    """List the trees of a file, with those that can't be used and why.

    Parameters
    ----------
    place : path or URL of the file
    leave : as :func:`rootdata.io.contents.contents_of` takes it

    Raises
    ------
    FileError
        As :func:`open_tree`.
    """
    other = format_of(place)
    if other is not None:
        return other.look_into(place, leave=leave)
    file = _open(place)
    with file:
        _check_whole(file, place)
        return contents_of(file, leave=leave)


def bin_of(place: str, *, histogram: str, which: int | str | None) -> float:
    """Return the content of one bin of a histogram.

    Parameters
    ----------
    place : path or URL of the file
    histogram, which : as :func:`rootdata.io.contents.bin_in` takes them

    Raises
    ------
    FileError, BranchError
        As :func:`open_tree` and :func:`rootdata.io.contents.bin_in`.
    """
    if format_of(place) is not None:
        raise BranchError(f"histogram {histogram!r} not found in {place}: it is no ROOT file; give another sum")
    with _open(place) as file:
        _check_whole(file, place)
        return bin_in(file, histogram, which, place)


def trees_in(path: str) -> dict[str, int]:
    """List the trees of a file that can be used, with their numbers of entries."""
    return {tree.name: tree.entries for tree in look_into(path).usable if tree.entries is not None}


class _Named:
    """Look-up of branches by full path, by short name, and with dots for underscores."""

    kind = "TTree"

    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        self.asked, self.location, self.place = asked, location, place
        self._source = source
        self._file = file
        self._bytes: ByteSource = file.file.source
        self._handle: int | None = None
        if not is_remote(place):
            self._handle = os.open(place, os.O_RDONLY)
            self._end = weakref.finalize(self, os.close, self._handle)
            self._bytes = LocalSource(self._handle)
        self.state = file.file.source.state if self._handle is None else state_of_open(self._handle)
        self.num_entries = self._count_entries()
        self.uuid = str(file.file.uuid)
        self._known: dict[str, Branch] = {}
        self._keys = self._list_keys()
        short = collections.Counter(_short(k) for k in self._keys)
        self._by_name = {_short(k): k for k in self._keys if short[_short(k)] == 1} | {k: k for k in self._keys}
        self._by_stem = {stem_of(name): key for name, key in reversed(self._by_name.items())}
        self._parts: dict[str, Mapping[str, BranchPart]] = {}  # by key: name of a column to what it is of the branch

    def _count_entries(self) -> int:
        raise NotImplementedError

    def _list_keys(self) -> list[str]:
        raise NotImplementedError

    def names(self) -> list[str]:
        return [name for key in self._keys for name in self._parts_of(key) or [self._name_of(key)]]

    def _name_of(self, key: str) -> str:
        return _short(key) if self._by_name.get(_short(key)) == key else key

    def key_of(self, name: str) -> str:
        """Return the key in the file of the branch that holds a column, asked for by any of its names."""
        return self._find(name)[0]

    def _find(self, name: str) -> tuple[str, BranchPart | None]:
        """Find a column: the key of its branch, and which part of that it is."""
        for candidate in (name, name.replace("_", ".", 1)):
            if candidate in self._by_name:
                return self._by_name[candidate], None
            for stem in stems_in(candidate):
                key = self._by_stem.get(stem)
                part = None if key is None else self._parts_of(key, stem).get(candidate)
                if key is not None and part is not None:
                    return key, part
        if (made := split_name(name)) is not None:
            for candidate in (made[1], made[1].replace("_", ".", 1)):
                if candidate in self._by_name:
                    return self._by_name[candidate], BranchPart("", 0, how=made[0])
                for stem in stems_in(candidate):
                    key = self._by_stem.get(stem)
                    part = None if key is None else self._members_of(key, made[0]).get(candidate.removeprefix(stem))
                    if key is not None and part is not None:
                        return key, part
        raise unknown_branch(name, self._by_name, where=f"tree {self.location.tree!r}, {self.place}")

    def _parts_of(self, key: str, stem: str | None = None) -> Mapping[str, BranchPart]:
        """Name the columns that a branch is divided into; none where it is one."""
        if key not in self._parts:
            self._parts[key] = {part.suffix: part for part in self._divide(key)}
        stem = stem_of(self._name_of(key)) if stem is None else stem
        return {stem + suffix: part for suffix, part in self._parts[key].items() if stem + suffix not in self._by_name}

    def _divide(self, key: str) -> Sequence[BranchPart]:
        raise NotImplementedError

    def _members_of(self, key: str, how: str) -> Mapping[str, BranchPart]:  # noqa: ARG002 - in an RNTuple fields are
        """Name what can be made of the members of lists of lists."""
        return {}

    def _column(self, whole: Column | ListsOfLists, part: BranchPart | None) -> Column:
        return whole if part is None and not isinstance(whole, ListsOfLists) else take(whole, part or BranchPart("", 0))

    def _check_range(self, start: int, stop: int) -> None:
        check_range(start, stop, num_entries=self.num_entries, place=self.place, tree=self.location.tree)

    def _read_error(self, start: int, stop: int, error: Exception) -> RootDataError:
        what = f"{self.place}: entries {start} to {stop} of tree {self.location.tree!r} can't be read"
        return blamed(error, what, is_remote=is_remote(self.place))

    def _unusable(self, name: str, why: str) -> BranchError:
        return unusable_branch(name, why, where=f"{self.place}, tree {self.location.tree!r}")

    def baskets(self, names: Sequence[str]) -> Baskets | None:  # noqa: ARG002 - of most kinds there is none
        return None

    def close(self) -> None:
        self._file.close()
        if isinstance(self._bytes, LocalSource):
            self._bytes.forget()
            self._end()


class _TTree(_Named):
    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        self._tables: dict[str, BasketTable] = {}  # by name of a branch
        self._readings: dict[str, Reading | Unusable] = {}  # by key
        super().__init__(source, asked, location, file, place)

    def _count_entries(self) -> int:
        return int(self._source.num_entries)

    def _list_keys(self) -> list[str]:
        paths = list(_walk(self._source))
        self._times = collections.Counter(path for path, _ in paths)
        self._branches = dict(reversed(paths))  # of several with one path the first, as in ROOT
        return list(self._times)

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            key, part = self._find(name)
            if part is None and (columns := self._parts_of(key)):
                self._known[name] = divided(name, list(columns))
            else:
                reading = self._reading(key)
                if (
                    part is not None
                    and isinstance(reading, Reading)
                    and reading.is_nested
                    and reading.dtype is not None
                ):
                    found = Branch(name, "jagged", np.dtype(part.dtype or reading.dtype).newbyteorder("=").name)
                else:
                    found = describe_branch(name, self._branches[key], reading)
                self._known[name] = found if found.kind == "unusable" else self._as_stored(found, key, part)
        return self._known[name]

    def _reading(self, key: str) -> Reading | Unusable:
        if key not in self._readings:
            self._readings[key] = reading_of(self._branches[key])
        return self._readings[key]

    def _divide(self, key: str) -> Sequence[BranchPart]:
        return columns_in(self._reading(key))

    def _members_of(self, key: str, how: str) -> Mapping[str, BranchPart]:
        return members_of(self._reading(key), how)

    def _as_stored(self, branch: Branch, key: str, part: BranchPart | None) -> Branch:
        """Describe a branch, or a part of it, as its baskets can be read."""
        from rootdata.io.formats.ttree import UnusualError

        source = self._branches[key]
        size = guarded(lambda: int(source.uncompressed_bytes))
        if isinstance(size, Unusable):
            return Branch(branch.name, "unusable", note=f"nobody knows how large it is ({size.why})")
        try:
            table = self._table(branch.name)
        except UnusualError as error:
            return Branch(branch.name, "unusable", note=str(error))
        except ContradictionError:  # whoever reads it says so, if it is one
            baskets = guarded(lambda: (source.num_baskets, source.entry_offsets))
            if isinstance(baskets, Unusable):
                return Branch(branch.name, "unusable", note=f"its baskets can't be found ({baskets.why})")
            return branch if part is None else self._of_part(branch, part, branch.dtype)
        kind: BranchKind = "jagged" if table.width < 0 else "fixed" if table.width else "flat"
        whole = dataclasses.replace(
            branch,
            kind=kind,
            dtype=table.dtype,
            width=max(0, table.width),
            counter=branch.counter if self._counts(branch.counter, source) else None,
            note=f"the first of {self._times[key]} branches of this name" if self._times[key] > 1 else "",
        )
        return whole if part is None else self._of_part(whole, part, table.dtype)

    def _of_part(self, whole: Branch, part: BranchPart, dtype: str) -> Branch:
        if part.how:
            reading = self._reading(self.key_of(whole.name))
            if part.how == FLATTEN and not part.dtype and isinstance(reading, Reading) and reading.parts:
                members = " or ".join(part.suffix for part in reading.parts)
                return Branch(
                    whole.name, "unusable", note=f"it is made of objects; put {members} behind the name in it"
                )
            dtype = np.dtype(part.dtype or dtype).newbyteorder("=").name
            return of_lists(whole, part.how, dtype, is_nested=isinstance(reading, Reading) and reading.is_nested)
        kind: BranchKind = "jagged" if whole.kind == "jagged" else "fixed" if part.width else "flat"
        name = np.dtype(part.dtype or dtype).newbyteorder("=").name
        return dataclasses.replace(whole, kind=kind, dtype=name, width=part.width)

    def holds_a(self, classname: str) -> bool:
        """Say whether an object of a class belongs to the tree, at a hundredth of the time that reading it takes."""
        content = guarded(self._told_of_it)
        return isinstance(content, bytes) and b"\xff\xff\xff\xff%b\0" % classname.encode() in content

    def _told_of_it(self) -> bytes:
        chunk, _ = find_named(self._file, str(self.location.tree), self.place).get_uncompressed_chunk_cursor()
        return bytes(chunk.raw_data)

    def _counts(self, counter: str | None, source: Any) -> bool:
        """Say whether the branch called as a counter is the one that counts, which may be a leaf of another."""
        called = self._branches.get(self._by_name.get(counter or "", ""))
        leaf = guarded(lambda: source.member("fLeaves")[0].member("fLeafCount"))
        return called is None or self._owners.by_leaf.get(id(leaf)) is called

    def edges(self, names: Sequence[str]) -> list[int]:
        usable = self._usable(names)
        try:
            found = {n: set(self._table(n).entry_offsets.tolist()) for n in usable}
        except ContradictionError as error:
            raise self._read_error(0, self.num_entries, error) from error
        filled = {n: edges for n, edges in found.items() if len(edges) > 1}
        if not self.num_entries or not filled:
            return [0, self.num_entries]
        inner = {e for e in set.intersection(*filled.values()) if 0 < e < self.num_entries}
        if not inner:
            # Baskets that never align: cut at those of the largest branch, so that memory stays bounded.
            largest = max(filled, key=lambda n: self._branches[self.key_of(n)].uncompressed_bytes)
            inner = {e for e in filled[largest] if 0 < e < self.num_entries}
        return [0, *sorted(inner), self.num_entries]

    def _usable(self, names: Sequence[str]) -> list[str]:
        return [n for n in dict.fromkeys(names) if self.describe(n).kind != "unusable"]

    def nbytes(self, names: Sequence[str], start: int, stop: int) -> int:
        return int(self.bytes_per_entry(names) * (stop - start))

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        keys = {self.key_of(n) for n in self._usable(names)}
        total = sum(self._branches[key].uncompressed_bytes for key in keys)
        return float(total) / max(1, self.num_entries)

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        from rootdata.io.formats.ttree import CountsError, UnusualError, read_block

        self._check_range(start, stop)
        for name in names:
            if (branch := self.describe(name)).kind == "unusable":
                raise self._unusable(name, branch.note)
        try:
            tables = {n: self._table(n) for n in dict.fromkeys(names)}
            whole = read_block(self._bytes, list({t.name: t for t in tables.values()}.values()), start, stop)
            return {n: self._column(whole[table.name], self._find(n)[1]) for n, table in tables.items()}
        except RootDataError:
            raise
        except UnusualError as error:
            raise self._unusable(error.name, str(error)) from error
        except CountsError as error:
            raise DataError(f"{error} of {self.place}; the file is damaged: make it anew") from error
        except Exception as error:
            raise self._read_error(start, stop, error) from error

    def _table(self, name: str) -> BasketTable:
        """Describe the baskets of a branch, or of the one that a column is part of."""
        key, part = self._find(name)
        name = name if part is None else self._name_of(key)
        if name not in self._tables:
            from rootdata.io.formats.ttree import table_of

            self._tables[name] = table_of(name, self._branches[key], self._owners)
        return self._tables[name]

    @functools.cached_property
    def _owners(self) -> Owners:
        from rootdata.io.formats.ttree import owners_of

        return owners_of(self._source, size=self.state.size)

    def baskets(self, names: Sequence[str]) -> Baskets | None:
        if self._handle is None:
            return None
        try:
            if any(self._find(n)[1] is not None for n in names):
                return None
            tables = [self._table(n) for n in names]
            return baskets_of(self._handle, tables) if all(t.is_plain for t in tables) else None
        except Exception:  # noqa: BLE001 - whoever reads the file says what is wrong with it
            return None


class _NTuple(_Named):
    kind = "RNTuple"

    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        self._fields: dict[str, Any] = {}  # by key, uproot's
        self._simple: dict[str, rntuple.Field | Unusable | None] = {}  # by key, what a field is made of
        super().__init__(source, asked, location, file, place)

    def _count_entries(self) -> int:
        return sum(c.entries for c in self._clusters)

    @functools.cached_property
    def _clusters(self) -> list[Cluster]:
        records = self._source.footer.cluster_group_records
        links = [(r.page_list_link.locator, int(r.page_list_link.env_uncomp_size)) for r in records]
        places = [(int(at.offset), int(at.offset + at.num_bytes)) for at, _ in links]
        groups = []
        with self._ahead(places):
            for record, (begin, end), (_, inflated) in zip(records, places, links, strict=True):
                data = inflate(self._bytes.fetch(begin, end - begin), inflated).tobytes()
                numbers = (int(record.min_entry_num), int(record.entry_span), int(record.num_clusters))
                groups.append(Group(memoryview(data), *numbers))
        return clusters_of(groups, schema=self._source.header.checksum)

    def _ahead(self, places: Sequence[Span]) -> AbstractContextManager[None]:
        """Ask for all places at once where each request costs; on this machine they are read one by one."""
        if self._handle is not None:
            return nullcontext()
        if self.state.size and any(end > self.state.size for _, end in places):
            raise ContradictionError("pages lie outside of the file")
        return self._bytes.ahead(places)

    def _list_keys(self) -> list[str]:
        # The same as ``keys(recursive=True)``, which takes a time that is quadratic in the number of fields.
        paths = ((guarded(functools.partial(_path_of, field)), field) for field in self._source.all_fields)
        for path, field in paths:
            if isinstance(path, str) and path:
                self._fields.setdefault(path, field)
        return list(self._fields)

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            key, part = self._find(name)
            if part is None and (columns := self._parts_of(key)):
                self._known[name] = divided(name, list(columns))
            else:
                self._known[name] = self._described(name, key, part)
        return self._known[name]

    def _described(self, name: str, key: str, part: BranchPart | None) -> Branch:
        made_of = self._made_of(key)
        if isinstance(made_of, rntuple.Field) and part is not None and part.how:
            whole = Branch(name, "jagged" if made_of.lists and not made_of.shape else "flat", made_of.dtype)
            return of_lists(whole, part.how, made_of.dtype, is_nested=made_of.inner is not None)
        if isinstance(made_of, rntuple.Field) and made_of.inner is not None:
            return Branch(name, "unusable", note=why_nested(type_of(self._fields[key])))
        if isinstance(made_of, rntuple.Field):
            width = made_of.width if part is None else part.width
            kind: BranchKind = "jagged" if made_of.lists else "fixed" if width else "flat"
            return Branch(name, kind, made_of.dtype, width=width)
        return Branch(name, "unusable", note=made_of.why if made_of else why_no_numbers(self._fields[key]))

    def _made_of(self, key: str) -> rntuple.Field | Unusable | None:
        """Say what a field is made of, in the file's own words: uproot looks at all its siblings to say it."""
        if key not in self._simple:
            number = guarded(lambda: int(self._fields[key].field_id))
            try:
                self._simple[key] = number if isinstance(number, Unusable) else self._schema.find(number)
            except ContradictionError as error:
                self._simple[key] = Unusable(str(error))
        return self._simple[key]

    def _divide(self, key: str) -> Sequence[BranchPart]:
        made_of = self._made_of(key)
        if not isinstance(made_of, rntuple.Field) or made_of.width > MOST_PARTS:
            return ()
        return parts_of(np.dtype((made_of.dtype, made_of.shape)), is_list=made_of.lists is not None)

    def edges(self, names: Sequence[str]) -> list[int]:  # noqa: ARG002 - clusters hold every field
        starts = [c.first for c in self._clusters if c.entries]
        return sorted({0, *starts, self.num_entries})

    def nbytes(self, names: Sequence[str], start: int, stop: int) -> int:
        fields = [self._field(name) for name in names]
        try:
            return 8 * rntuple.elements(fields, self._clusters, start, stop)
        except ContradictionError as error:
            raise self._read_error(start, stop, error) from error

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        # The page lists would tell exactly, at the cost of reading them all; ten numbers a list is near enough.
        return float(sum(4 if self.describe(n).kind == "flat" else 40 for n in names))

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        self._check_range(start, stop)
        fields = {n: self._field(n) for n in names}
        parts = {n: part for n in names if (part := self._find(n)[1]) is not None}
        try:
            far = [] if self._handle is not None else list(rntuple.places(fields.values(), self._clusters, start, stop))
            with self._ahead(far):
                whole = rntuple.read(self._bytes.fetch, fields, self._clusters, start, stop, records=self._records)
                return {n: self._column(column, parts.get(n)) for n, column in whole.items()}
        except RootDataError:
            raise
        except Exception as error:
            raise self._read_error(start, stop, error) from error

    def _field(self, name: str) -> rntuple.Field:
        branch = self.describe(name)
        if branch.kind == "unusable":
            raise self._unusable(name, branch.note)
        made_of = self._made_of(self.key_of(name))
        if not isinstance(made_of, rntuple.Field):  # which would be unusable
            raise self._unusable(name, "it is not simple")
        return made_of

    @functools.cached_property
    def _records(self) -> Records:
        return Records(self._bytes.fetch, self._page_ends)

    def _page_ends(self) -> set[int]:
        columns = range(len(self._source.column_records))
        return {page.stop for c in self._clusters for i in columns for page in c.pages(i) or ()}

    @functools.cached_property
    def _schema(self) -> rntuple.NTupleFields:
        return rntuple.NTupleFields(self._source.field_records, self._source.column_records)


def _path_of(field: Any) -> str:
    return "" if field.is_anonymous or field.in_variant else str(field.path or "")


def _walk(holder: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the branches below a tree or a branch, in all depths, with their paths."""
    for i, branch in enumerate(holder.branches):
        name = guarded(functools.partial(getattr, branch, "name"))
        path = f"{above}{name if isinstance(name, str) else i}"
        yield path, branch
        if not isinstance(guarded(functools.partial(getattr, branch, "branches")), Unusable):
            yield from _walk(branch, f"{path}/")


def _short(key: str) -> str:
    return key.rsplit("/", 1)[-1] or key


def _size(file: Any, place: str) -> int:
    return int(file.file.source.num_bytes) if is_remote(place) else Path(place).stat().st_size


def blocks_of(tree: Tree, names: Sequence[str]) -> list[tuple[int, int]]:
    """Cut a tree into blocks: neighbouring baskets or clusters, joined until reading them at once pays.

    Parameters
    ----------
    tree : open, or known well enough to tell its baskets or clusters
    names : the branches that will be read

    Returns
    -------
    (start, stop) of every block, in order, covering all entries
    """
    wanted = entries_of_block(tree.bytes_per_entry(names), most=BLOCK_ENTRIES)
    blocks: list[tuple[int, int]] = []
    edges = tree.edges(names)
    if tree.num_entries == 0:
        return []
    start = edges[0]
    for here, following in zip(edges[1:], [*edges[2:], None], strict=True):
        if following is None or following - start > wanted:
            if here > start:
                blocks.append((start, here))
            start = here
    return blocks


def use_fast_inflate() -> None:
    """Let uproot inflate zlib baskets with ISA-L, which takes half of zlib's time.

    uproot 5.7 documents ``uproot.ZLIB.library``, but reads with an instance of its own: that one is set, and
    what somebody writes with ``uproot.ZLIB`` stays as it is. The bytes that come out are the same.
    """
    from uproot import compression

    target = getattr(compression, "_decompress_ZLIB", None)
    if target is not None:
        target.library = "isal"
