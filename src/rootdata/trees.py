"""The trees of ROOT files: open a TTree or RNTuple, describe its branches, cut it into blocks and read one block."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import uproot

from rootdata import pages, remote, signatures
from rootdata.branches import Branch, describe_branch, describe_field, to_column
from rootdata.causes import Cause, cause_of, reason_of
from rootdata.directories import Directory, directory_of
from rootdata.errors import BranchError, RootDataError, nearest
from rootdata.fetching import borrow, read_into
from rootdata.files import Location
from rootdata.jagged import Columns
from rootdata.patience import PlaceError, blamed, is_absent, is_passing

if TYPE_CHECKING:
    from rootdata.baskets import BasketTable


# A block is read at once: large enough that the cost of a read call is small beside decompression (measured with
# benchmarks.stream), small enough that many can be open at a time.
BLOCK_BYTES = 8_000_000
BLOCK_ENTRIES = 20_000

_KINDS: Mapping[str, Callable[[int], bool]] = {
    "a folder": stat.S_ISDIR,
    "a pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


class Tree(Protocol):
    """An open TTree or RNTuple.

    ``asked`` is the location that was to be opened, ``location`` the same with the tree's name, ``place`` the path at
    which it was opened: the location's or a replica's.
    """

    asked: Location
    location: Location
    place: str
    num_entries: int
    uuid: str
    size: int

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
    file = _open(place)
    try:
        _check_whole(file, place)
        return _open_object(file, location, place)
    except Exception:
        file.close()
        raise


def _open(place: str) -> Any:
    # No array cache: the same bytes would be kept twice.
    plain = {"array_cache": None, "object_cache": None, "num_workers": 1}
    try:
        if remote.is_remote(place):
            return uproot.open({place: None}, handler=remote.RemoteSource, **plain)
        _check_local(place)
        return uproot.open({place: None}, **plain)
    except RootDataError:
        raise
    except Exception as error:  # uproot has no common base for what broken bytes raise
        raise _why_not_open(place, error) from error


def _why_not_open(place: str, error: Exception) -> RootDataError:
    if is_absent(error):
        return PlaceError(f"{place} does not exist; check the path")
    if cause_of(error) is Cause.BYTES:
        return PlaceError(f"{place}: the file is truncated or damaged ({reason_of(error)}); replace or remove the file")
    what = f"{place} can't be {'reached' if is_passing(error) else 'opened'}"
    return blamed(error, what, is_remote=remote.is_remote(place))


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


def _open_object(file: Any, location: Location, place: str) -> Tree:
    classes = _trees(file)
    name = location.tree
    if name is None:
        if len(classes) != 1:
            held = ", ".join(repr(c) for c in sorted(classes)) or "none"
            raise BranchError(f"{place} holds {len(classes)} trees: {held}; name one with tree=... or path:tree")
        name = next(iter(classes))
    if name.split(";")[0].strip("/") not in classes:
        raise BranchError(f"tree {name!r} not found in {place}; {nearest(name, classes)}; check `tree`")
    try:
        source = file[name]
        kind = _NTuple if "RNTuple" in source.classname else _TTree
        return kind(source, location, dataclasses.replace(location, tree=name), file, place)
    except Exception as error:
        what = f"{place}: tree {name!r} can't be read"
        raise blamed(error, what, is_remote=remote.is_remote(place)) from error


def _trees(file: Any) -> dict[str, str]:
    return {
        key.split(";")[0]: name
        for key, name in file.classnames(recursive=True).items()
        if name in {"TTree", "TNtuple", "TNtupleD", "TChain"} or "RNTuple" in name
    }


def trees_in(path: str) -> dict[str, int]:
    """List the trees of a file with their numbers of entries."""
    with uproot.open(path) as file:
        return {name: int(file[name].num_entries) for name in _trees(file)}


class _Named:
    """Look-up of branches by full path, by short name, and with dots for underscores."""

    def __init__(self, source: Any, asked: Location, location: Location, file: Any, place: str) -> None:
        self.asked, self.location, self.place = asked, location, place
        self.num_entries = int(source.num_entries)
        self.uuid = str(file.file.uuid)
        self.size = _size(file, place)
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

    def _read_error(self, start: int, stop: int, error: Exception) -> RootDataError:
        what = f"{self.place}: entries {start} to {stop} of tree {self.location.tree!r} can't be read"
        return blamed(error, what, is_remote=remote.is_remote(self.place))

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

    def _list_keys(self) -> list[str]:
        return list(self._source.keys(recursive=True, full_paths=True))

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            branch = self._source[self.key_of(name)]
            self._known[name] = describe_branch(name, branch)
        return self._known[name]

    def edges(self, names: Sequence[str]) -> list[int]:
        branches = [self._source[self.key_of(n)] for n in names]
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
        total = sum(self._source[self.key_of(n)].uncompressed_bytes for n in names)
        return float(total) / max(1, self.num_entries)

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        keys = {n: self.key_of(n) for n in names}
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
            branch = self._source[self.key_of(name)]
            found = table_of(name, branch, num_entries=self.num_entries, size=self.size) if usable else None
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
        fields = self._source.all_fields
        return [f.path for f in fields if f.path and not f.is_anonymous and not f.in_variant]

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            field = self._source[self.key_of(name)]
            self._known[name] = describe_field(name, field)
        return self._known[name]

    def edges(self, names: Sequence[str]) -> list[int]:  # noqa: ARG002 - clusters hold every field
        starts = [int(c.num_first_entry) for c in self._clusters if c.num_entries]
        return sorted({0, *starts, self.num_entries})

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        # The page lists would tell exactly, at the cost of reading them all; ten numbers a list is near enough.
        return float(sum(4 if self.describe(n).kind == "flat" else 40 for n in names))

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
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


def _line(field: int, parents: Sequence[int]) -> set[int]:
    """Return a field and all that it is in."""
    line = {field}
    while parents[field] not in line:
        field = parents[field]
        line.add(field)
    return line


def _short(key: str) -> str:
    return key.rsplit("/", 1)[-1]


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
