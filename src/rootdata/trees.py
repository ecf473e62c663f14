"""The trees of ROOT files: open a TTree or RNTuple, describe its branches, cut it into blocks and read one block."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import uproot

from rootdata import pages, remote
from rootdata.branches import Branch, check_usable, describe_branch, describe_field, to_column
from rootdata.contents import Contents, contents_of, find_named, find_only, kind_of
from rootdata.directories import Directory, directory_of
from rootdata.errors import BranchError, RootDataError, nearest
from rootdata.fetching import borrow, read_into
from rootdata.files import Location, state_of, state_of_open
from rootdata.guard import Unusable, concerns_all, guarded, reason_of
from rootdata.jagged import Columns
from rootdata.location import State
from rootdata.patience import PlaceError, brief, is_absent, is_passing

if TYPE_CHECKING:
    from rootdata.baskets import BasketTable


# A block is read at once: large enough that the cost of a read call is small beside decompression (measured with
# benchmarks.stream), small enough that many can be open at a time.
BLOCK_BYTES = 8_000_000
BLOCK_ENTRIES = 20_000


class Tree(Protocol):
    """An open TTree or RNTuple.

    ``asked`` is the location that was to be opened, ``location`` the same with the tree's name, ``place`` the path at
    which it was opened: the location's or a replica's. ``state`` is that of the file when it was opened.
    """

    asked: Location
    location: Location
    place: str
    num_entries: int
    uuid: str
    state: State

    def names(self) -> list[str]:
        """Return the names of all branches."""

    def describe(self, name: str) -> Branch:
        """Say what a branch holds; :class:`BranchError` where there is none of that name."""

    def edges(self, names: Sequence[str]) -> list[int]:
        """Return the entries at which the given branches can be cut, 0 and ``num_entries`` included, rising."""

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        """Return the uncompressed size of the given branches, in bytes an entry."""

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read entries ``start`` to ``stop``."""

    def directory(self, names: Sequence[str]) -> Directory | None:
        """Say where the baskets of branches lie, for reading them without the tree; ``None`` where that can't be."""

    def close(self) -> None:
        """Close the file."""


def open_tree(location: Location, *, place: str | None = None) -> Tree:
    """Open the tree of a file.

    Parameters
    ----------
    place : where it is opened: at the location's path, or at one of its replicas

    Raises
    ------
    FileError
        For a file that is absent, empty, truncated or not ROOT, or that can't be reached.
    BranchError
        Where the tree is absent, or none was named and the file holds several.
    """
    place = place or location.path
    before = state_of(Location(place))
    file = _open(place)
    try:
        _check_whole(file, place)
        tree = _open_object(file, location, place)
        _check_same(tree, before)
    except Exception:
        file.close()
        raise
    return tree


def _open(place: str) -> Any:
    # No array cache: the same bytes would be kept twice.
    plain = {"array_cache": None, "object_cache": None, "num_workers": 1}
    try:
        if remote.is_remote(place):
            return uproot.open({place: None}, handler=remote.RemoteSource, **plain)
        return uproot.open(place, **plain)
    except RootDataError:
        raise
    except Exception as error:  # uproot has no common base for what broken bytes raise
        raise PlaceError(_why_not_open(place, error)) from error


def _why_not_open(place: str, error: Exception) -> str:
    if remote.is_remote(place) and is_passing(error):
        return f"{place} can't be reached ({brief(error)})"
    if is_absent(error):
        return f"{place} does not exist; check the path"
    why = f"it can't be opened ({brief(error)})" if remote.is_remote(place) else _why_not_root(place)
    return f"{place}: {why}; replace or remove the file"


def _check_whole(file: Any, place: str) -> None:
    """Compare the length that the header declares with the file's own."""
    size, end = _size(file, place), file.file.fEND
    if size and size < end:
        raise PlaceError(
            f"{place}: the file is truncated: it has {size:,} of {end:,} bytes; replace or remove the file"
        )


def _check_same(tree: Tree, before: State) -> None:
    if not remote.is_remote(tree.place) and tree.state != before:
        tree.close()
        raise PlaceError(f"{tree.place} was replaced by another file while it was opened; start again")


def _open_object(file: Any, location: Location, place: str) -> Tree:
    name = location.tree
    try:
        name, key = find_only(file, place) if name is None else (name, find_named(file, name, place))
        kind = _NTuple if kind_of(key) == "RNTuple" else _TTree
        return kind(key.get(), location, dataclasses.replace(location, tree=name), file, place)
    except (RootDataError, MemoryError):
        raise
    except Exception as error:
        what = f"{place}: tree {name!r} can't be read ({reason_of(error)})"
        raise PlaceError(what if concerns_all(error) else f"{what}; replace the file, or read another tree") from error


def _why_not_root(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            head = file.read(4)
    except OSError as error:
        return f"can't be opened ({brief(error)})"
    if not head:
        return "the file is empty"
    return "the file is truncated or damaged" if head == b"root" else "this is not a ROOT file"


def look_into(place: str, *, leave: Callable[[Sequence[str]], str | None] = lambda _: None) -> Contents:
    """List the trees of a file, with those that can't be used and why.

    Parameters
    ----------
    leave : as :func:`rootdata.contents.contents_of` takes it

    Raises
    ------
    FileError
        As :func:`open_tree`.
    """
    file = _open(place)
    with file:
        _check_whole(file, place)
        return contents_of(file, leave=leave)


def trees_in(path: str) -> dict[str, int]:
    """List the trees of a file that can be used, with their numbers of entries."""
    return {tree.name: tree.entries for tree in look_into(path).usable if tree.entries is not None}


class _Named:
    """Look-up of branches by full path, by short name, and with dots for underscores."""

    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        self.asked, self.location, self.place = asked, location, place
        self.num_entries = int(source.num_entries)
        self.uuid = str(file.file.uuid)
        self.state = file.file.source.state if remote.is_remote(place) else state_of(Location(place))
        self._source = source
        self._file = file
        self._known: dict[str, Branch] = {}
        self._keys = self._list_keys()
        short = collections.Counter(_short(k) for k in self._keys)
        self._by_name = {_short(k): k for k in self._keys if short[_short(k)] == 1} | {k: k for k in self._keys}

    def _list_keys(self) -> list[str]:
        raise NotImplementedError

    def names(self) -> list[str]:
        return [_short(k) if self._by_name.get(_short(k)) == k else k for k in self._keys]

    def key_of(self, name: str) -> str:
        """Return the key in the file of a branch asked for by any of its names."""
        for candidate in (name, name.replace("_", ".", 1)):
            if candidate in self._by_name:
                return self._by_name[candidate]
        message = f"branch {name!r} not found; {nearest(name, self._by_name)} (tree {self.location.tree!r}, "
        raise BranchError(message + f"{self.place}); check the names of features, derived columns and cuts")

    def _check_usable(self, names: Iterable[str]) -> None:
        check_usable(map(self.describe, names), path=self.place, tree=self.location.tree)

    def describe(self, name: str) -> Branch:
        raise NotImplementedError

    def _read_error(self, start: int, stop: int, error: Exception) -> Exception:
        what = f"{self.place}: entries {start} to {stop} of tree {self.location.tree!r} can't be read ({brief(error)})"
        if remote.is_remote(self.place) and is_passing(error):
            return PlaceError(what)
        return PlaceError(f"{what}; the file is truncated or damaged: replace it, or take it out of the sample")

    def directory(self, names: Sequence[str]) -> Directory | None:  # noqa: ARG002 - of most kinds there is none
        return None

    def close(self) -> None:
        self._file.close()


class _TTree(_Named):
    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        super().__init__(source, asked, location, file, place)
        self._tables: dict[str, BasketTable | None] = {}  # by name; None for what uproot is to read
        self._handle: int | None = None
        if not remote.is_remote(place):
            self._handle = os.open(place, os.O_RDONLY)
            self._end = weakref.finalize(self, os.close, self._handle)
            self.state = state_of_open(self._handle)

    def _list_keys(self) -> list[str]:
        paths = list(_walk(self._source))
        self._times = collections.Counter(path for path, _ in paths)
        self._branches = dict(reversed(paths))  # of several with one path the first, as in ROOT
        return list(self._times)

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            key = self.key_of(name)
            branch = describe_branch(name, self._branches[key])
            if branch.kind != "unusable":
                why = self._why_not_found(key) or self._why_not_whole(self._branches[key])
                note = f"the first of {self._times[key]} branches of this name" if self._times[key] > 1 else ""
                counter = branch.counter if self._counts(branch.counter, self._branches[key]) else None
                known = dataclasses.replace(branch, counter=counter, note=note)
                branch = Branch(name, "unusable", note=why) if why else known
            self._known[name] = branch
        return self._known[name]

    def _why_not_found(self, key: str) -> str:
        """Say why uproot would not read a branch by its path; nothing where it does."""
        found = guarded(lambda: self._source.get(key))
        return "" if found is self._branches[key] else f"uproot takes {key!r} for another branch, or for none"

    def _counts(self, counter: str | None, branch: Any) -> bool:
        """Say whether a counter is not another branch than the one that counts, which may be part of a leaf list."""
        other = self._branches.get(self._by_name.get(counter or "", ""))
        if other is None:  # such as Jet_ of a collection
            return True
        counting = guarded(lambda: branch.member("fLeaves")[0].member("fLeafCount"))
        own = guarded(lambda: list(other.member("fLeaves")))
        return not isinstance(own, Unusable) and any(leaf is counting for leaf in own)

    def _why_not_whole(self, branch: Any) -> str:
        """Say why the entries of a branch can't be found; nothing where they can."""
        baskets = guarded(lambda: (branch.num_baskets, branch.entry_offsets, branch.uncompressed_bytes))
        if isinstance(baskets, Unusable):
            return f"its baskets can't be found ({baskets.why})"
        _, edges, _ = baskets
        held = int(edges[-1])
        return "" if held >= self.num_entries else f"it has {held:,} of the {self.num_entries:,} entries of its tree"

    def edges(self, names: Sequence[str]) -> list[int]:
        branches = [self._branches[self.key_of(n)] for n in names]
        filled = [b for b in branches if b.num_baskets]
        if not self.num_entries or not filled:
            return [0, self.num_entries]
        common = set.intersection(*(set(b.entry_offsets) for b in filled))
        inner = {int(e) for e in common if 0 < e < self.num_entries}
        if not inner:
            # Baskets that never align: cut at those of the largest branch, so that memory stays bounded.
            largest = max(filled, key=lambda b: b.uncompressed_bytes)
            inner = {int(e) for e in largest.entry_offsets if 0 < e < self.num_entries}
        return [0, *sorted(inner), self.num_entries]

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        total = sum(self._branches[self.key_of(n)].uncompressed_bytes for n in names)
        return float(total) / max(1, self.num_entries)

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        keys = {n: self.key_of(n) for n in names}
        self._check_usable(names)
        try:
            columns = self._read_baskets(names, start, stop)
            plain = {n: k for n, k in keys.items() if n not in columns}
            got = self._read_plainly(plain.values(), start, stop) if plain else {}
        except RootDataError:
            raise
        except Exception as error:
            raise self._read_error(start, stop, error) from error
        columns |= {n: to_column(got[k], self.describe(n)) for n, k in plain.items()}
        return {n: columns[n] for n in keys}

    def _read_plainly(self, keys: Iterable[str], start: int, stop: int) -> dict[str, Any]:
        """Read branches by uproot: key to array."""
        unique = list(dict.fromkeys(keys))
        got = self._source.arrays(unique, entry_start=start, entry_stop=stop, library="ak", how=dict)
        return cast("dict[str, Any]", got)

    def _read_baskets(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read the branches of ordinary baskets; uproot reads the others, or says what is wrong with them."""
        if self._handle is None or not 0 <= start <= stop <= self.num_entries:
            return {}
        from rootdata.baskets import UnusualError, read_block  # takes a second: not for those who only look

        try:
            tables = [table for n in names if (table := self._table(n)) is not None]
            return read_block(self._handle, tables, start, stop)
        except UnusualError as error:
            self._tables[error.name] = None
            return {}

    def _table(self, name: str) -> BasketTable | None:
        if name not in self._tables:
            from rootdata.baskets import table_of

            usable = self.describe(name).kind != "unusable"
            branch = self._branches[self.key_of(name)]
            found = table_of(name, branch, num_entries=self.num_entries, size=self.state.size) if usable else None
            self._tables[name] = found
        return self._tables[name]

    def directory(self, names: Sequence[str]) -> Directory | None:
        if self._handle is None:
            return None
        try:
            tables = [table for n in names if (table := self._table(n)) is not None]
            return directory_of(self._handle, tables) if len(tables) == len(names) else None
        except Exception:  # noqa: BLE001 - whoever reads the file says what is wrong with it
            return None

    def close(self) -> None:
        super().close()
        if self._handle is not None:
            self._end()


class _NTuple(_Named):
    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        self._source, self._file = source, file
        with self._together(record.page_list_link.locator for record in source.footer.cluster_group_records):
            self._clusters = list(source.cluster_summaries)
        self._made_of: dict[str, pages.Field | None] = {}  # by name; None for what uproot is to read
        super().__init__(source, asked, location, file, place)

    def _list_keys(self) -> list[str]:
        # The same as ``keys(recursive=True)``, which takes a time that is quadratic in the number of fields.
        paths = (guarded(functools.partial(_path_of, field)) for field in self._source.all_fields)
        return list(dict.fromkeys(path for path in paths if isinstance(path, str) and path))

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            key = self.key_of(name)
            field = guarded(lambda: self._source[key])
            if isinstance(field, Unusable):
                self._known[name] = Branch(name, "unusable", note=f"uproot does not find it ({field.why})")
            else:
                self._known[name] = describe_field(name, field)
        return self._known[name]

    def edges(self, names: Sequence[str]) -> list[int]:  # noqa: ARG002 - clusters hold every field
        starts = [int(c.num_first_entry) for c in self._clusters if c.num_entries]
        return sorted({0, *starts, self.num_entries})

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        # The page lists would tell exactly, at the cost of reading them all; ten numbers a list is near enough.
        return float(sum(4 if self.describe(n).kind == "flat" else 40 for n in names))

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        self._check_usable(names)
        is_usual = 0 <= start <= stop <= self.num_entries
        simple = {n: field for n in names if is_usual and (field := self._simple(n))}
        try:
            with self._together(self._pages(names, start, stop)):
                got = self._read_pages(simple, start, stop) if simple else {}
                got |= self._read_plainly([n for n in names if n not in simple], start, stop)
        except RootDataError:
            raise
        except Exception as error:
            raise self._read_error(start, stop, error) from error
        return {n: got[n] for n in names}

    def _read_pages(self, fields: Mapping[str, pages.Field], start: int, stop: int) -> Columns:
        source = self._file.file.source
        if source.closed:
            raise OSError(f"{self.place} is closed")
        if remote.is_remote(self.place):
            return pages.read(lambda at, n: source.chunk(at, at + n).raw_data, fields, self._contents, start, stop)
        with Path(self.place).open("rb", buffering=0) as file:
            number, end = file.fileno(), os.fstat(file.fileno()).st_size

            def fetch(at: int, n: int) -> memoryview:
                content = borrow(max(0, min(n, end - at)))
                read_into(number, at, content)
                return content.data

            return pages.read(fetch, fields, self._contents, start, stop)

    def _read_plainly(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read fields by uproot."""
        fields = {n: self._source[self.key_of(n)] for n in names}
        lengths: dict[str, Any] = {}  # of the lists of a collection, which all its fields share
        with self._up_to(stop):
            return {
                n: to_column(f.array(entry_start=start, entry_stop=stop, array_cache=lengths), self.describe(n))
                for n, f in fields.items()
            }

    def _simple(self, name: str) -> pages.Field | None:
        """Say what a field is made of, where its pages can be read and mean what uproot reads."""
        if name not in self._made_of:
            found, branch = self._schema.find(self._source[self.key_of(name)].field_id), self.describe(name)
            self._made_of[name] = found if found and (found.kind, found.dtype) == (branch.kind, branch.dtype) else None
        return self._made_of[name]

    @functools.cached_property
    def _schema(self) -> pages.Schema:
        return pages.Schema(self._source.field_records, self._source.column_records)

    @functools.cached_property
    def _contents(self) -> list[pages.Cluster]:
        of_columns = zip(self._clusters, self._source.page_link_list, strict=True)
        return [pages.cluster_of(summary, columns) for summary, columns in of_columns]

    @contextmanager
    def _up_to(self, stop: int) -> Iterator[None]:
        """Hide clusters that begin at ``stop`` or later from uproot, which reads one where a range ends."""
        self._source._cluster_summaries = [c for c in self._clusters if c.num_first_entry < stop]  # noqa: SLF001
        try:
            yield
        finally:
            self._source._cluster_summaries = self._clusters  # noqa: SLF001

    def _together(self, locators: Iterable[Any]) -> AbstractContextManager[None]:
        """Read what lies at some places of a remote file at once: uproot asks for one after the other."""
        source = self._file.file.source
        if not isinstance(source, remote.RemoteSource):
            return nullcontext()
        behind = pages.CHECKSUM.size  # that of a page lies behind it
        return source.ahead([(where.offset, where.offset + where.num_bytes + behind) for where in locators])

    def _pages(self, names: Sequence[str], start: int, stop: int) -> Iterator[Any]:
        """List where the pages of some fields lie, in the clusters that hold the entries."""
        columns = self._columns(names)
        for cluster, lists in zip(self._clusters, self._source.page_link_list, strict=True):
            first = cluster.num_first_entry
            if first < stop and first + cluster.num_entries > start:
                yield from (page.locator for i in columns if i < len(lists) for page in lists[i].pages)

    def _columns(self, names: Sequence[str]) -> set[int]:
        """Find the columns of fields, of all that is in them, and of the lists that they are in."""
        parents = [record.parent_field_id for record in self._source.field_records]
        lines = [_line(i, parents) for i in range(len(parents))]
        wanted = {self._source[self.key_of(n)].field_id for n in names}
        related = wanted.union(*(lines[i] for i in wanted)) | {i for i, line in enumerate(lines) if line & wanted}
        return {c.idx for c in self._source.column_records if c.field_id in related}


def _walk(holder: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the branches below a tree or a branch, in all depths, with their paths."""
    for i, branch in enumerate(holder.branches):
        name = guarded(functools.partial(getattr, branch, "name"))
        path = f"{above}{name if isinstance(name, str) else i}"
        yield path, branch
        if not isinstance(guarded(functools.partial(getattr, branch, "branches")), Unusable):
            yield from _walk(branch, f"{path}/")


def _line(field: int, parents: Sequence[int]) -> set[int]:
    """Return a field and all that it is in."""
    line = {field}
    while parents[field] not in line:
        field = parents[field]
        line.add(field)
    return line


def _path_of(field: Any) -> str:
    return "" if field.is_anonymous or field.in_variant else str(field.path or "")


def _short(key: str) -> str:
    return key.rsplit("/", 1)[-1] or key


def _size(file: Any, place: str) -> int:
    return int(file.file.source.num_bytes) if remote.is_remote(place) else Path(place).stat().st_size


def blocks_of(tree: Tree, names: Sequence[str]) -> list[tuple[int, int]]:
    """Cut a tree into blocks: neighbouring baskets or clusters, joined until reading them at once pays.

    Parameters
    ----------
    names : the branches that will be read

    Returns
    -------
    (start, stop) of every block, in order, covering all entries
    """
    wanted = min(BLOCK_ENTRIES, max(1000, int(BLOCK_BYTES / max(1.0, tree.bytes_per_entry(names)))))
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
