"""ROOT files: find them, open their trees, describe branches, cut trees into blocks and read one block."""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import uproot

from rootdata.errors import BranchError, FileError, nearest

T = TypeVar("T")
Kind = Literal["flat", "jagged", "fixed", "unusable"]

# A block is read at once: large enough that the cost of a read call is small beside decompression (measured with
# benchmarks.stream), small enough that many can be open at a time.
BLOCK_BYTES = 8_000_000
BLOCK_ENTRIES = 20_000
OPEN_TREES = 16

_WITH_TREE = re.compile(r"^(?P<path>.+\.root)(?::(?P<tree>[^:]+))?$")


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A file and, where it was given, the name of the tree in it.

    Parameters
    ----------
    replicas : other places at which copies of the file lie
    """

    path: str
    tree: str | None = None
    replicas: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """What a branch holds.

    Parameters
    ----------
    kind : ``flat`` (a number an event), ``jagged`` (a list), ``fixed`` (``width`` numbers an event) or ``unusable``
    dtype : numpy name of the number type, empty where unusable
    note : why it is unusable
    counter : name of the branch that holds the counts of a jagged branch, where the file says so
    """

    name: str
    kind: Kind
    dtype: str = ""
    width: int = 0
    note: str = ""
    counter: str | None = None


class Tree(Protocol):
    """An open TTree or RNTuple.

    ``asked`` is the location that was to be opened, ``location`` the same with the tree's name.
    """

    asked: Location
    location: Location
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

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """Read entries ``start`` to ``stop``: numpy for flat and fixed branches, awkward for jagged ones."""

    def close(self) -> None:
        """Close the file."""


def find(patterns: Iterable[str | tuple[str, ...]], *, tree: str | None = None, where: str = "files") -> list[Location]:
    """Turn paths, globs, folders, ``path:tree`` and text files of those into locations.

    Parameters
    ----------
    patterns : in the order in which files are wanted; a glob's matches come sorted
    tree : the tree's name for those that do not name one
    where : what to name in an error

    Raises
    ------
    FileError
        Where a path or a glob matches nothing, or a file is named twice.
    """
    found = [location for pattern in patterns for location in _places(pattern, tree, where)]
    seen: set[Location] = set()
    for location in found:
        if identity(location) in seen:
            raise FileError(f"{where}: {location.path} is named twice, its events would count double; name it once")
        seen.add(identity(location))
    return found


def _places(pattern: str | tuple[str, ...], tree: str | None, where: str) -> list[Location]:
    if isinstance(pattern, str):
        return _expand(pattern, tree, where)
    copies = [location for place in pattern for location in _expand(place, tree, where)]
    return [dataclasses.replace(copies[0], replicas=tuple(c.path for c in copies[1:]))]


def identity(location: Location) -> Location:
    """Return the location with its path in the one form that all ways to write it share."""
    if "://" in location.path:
        return location
    return dataclasses.replace(location, path=os.path.realpath(location.path))


def _expand(pattern: str, tree: str | None, where: str, lists: tuple[str, ...] = ()) -> list[Location]:
    text = os.path.expandvars(os.path.expanduser(pattern))  # noqa: PTH111 - globs are text, not paths
    match = _WITH_TREE.match(text)
    path, tree = (match["path"], match["tree"] or tree) if match else (text, tree)
    if "://" in path:
        return [Location(path, tree)]
    if Path(path).is_dir():
        path = str(Path(glob.escape(path)) / "*.root")
    if glob.has_magic(path) and not Path(path).exists():
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise FileError(f"{where}: no file matches {path!r} (seen from {Path.cwd()}); check the pattern")
        return [Location(m, tree) for m in matches]
    if not Path(path).exists():
        raise FileError(f"{where}: {path!r} does not exist{_neighbours(path)}; check the path (seen from {Path.cwd()})")
    if path.endswith((".txt", ".list")):
        return _expand_list(Path(path), tree, where, lists)
    return [Location(path, tree)]


def _expand_list(path: Path, tree: str | None, where: str, lists: tuple[str, ...]) -> list[Location]:
    if str(path) in lists:
        raise FileError(f"{where}: {path} names itself; take it out of the list")
    lines = (line.split("#", 1)[0].strip() if line.lstrip().startswith("#") else line.strip()
             for line in path.read_text().splitlines())  # fmt: skip
    inside, lists = f"{where} ({path})", (*lists, str(path))
    found = [location for line in lines if line for location in _expand(line, tree, inside, lists)]
    if not found:
        raise FileError(f"{where}: {path} names no file; write one path a line")
    return found


def _neighbours(path: str) -> str:
    folder = Path(path).parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return f"; {nearest(Path(path).name, names)}" if names else ""


def open_tree(location: Location) -> Tree:
    """Open the tree of a file.

    Raises
    ------
    FileError
        For a file that is absent, empty, truncated or not ROOT.
    BranchError
        Where the tree is absent, or none was named and the file holds several.
    """
    try:
        # No array cache: the same bytes would be kept twice.
        file = uproot.open(location.path, array_cache=None, object_cache=None, num_workers=1)
    except FileNotFoundError as error:
        raise FileError(f"{location.path} does not exist; check the path") from error
    except Exception as error:  # uproot has no common base for what broken bytes raise
        raise FileError(f"{location.path}: {_why_not_root(location.path)}; replace or remove the file") from error
    try:
        _check_whole(file.file.fEND, location.path)
        return _open_object(file, location)
    except Exception:
        file.close()
        raise


def _check_whole(end: int, path: str) -> None:
    """Compare the length that the header declares with the file's own."""
    size = _size(path)
    if size and size < end:
        raise FileError(f"{path}: the file is truncated: it has {size:,} of {end:,} bytes; replace or remove the file")


def _open_object(file: Any, location: Location) -> Tree:
    classes = _trees(file)
    name = location.tree
    if name is None:
        if len(classes) != 1:
            held = ", ".join(repr(c) for c in sorted(classes)) or "none"
            raise BranchError(
                f"{location.path} holds {len(classes)} trees: {held}; name one with tree=... or path:tree"
            )
        name = next(iter(classes))
    if name.split(";")[0].strip("/") not in classes:
        raise BranchError(f"tree {name!r} not found in {location.path}; {nearest(name, classes)}; check `tree`")
    try:
        source = file[name]
        kind = _NTuple if "RNTuple" in source.classname else _TTree
        return kind(source, location, dataclasses.replace(location, tree=name), file)
    except Exception as error:
        raise FileError(f"{location.path}: tree {name!r} can't be read ({_brief(error)}); replace the file") from error


def _trees(file: Any) -> dict[str, str]:
    return {
        key.split(";")[0]: name
        for key, name in file.classnames(recursive=True).items()
        if name in {"TTree", "TNtuple", "TNtupleD", "TChain"} or "RNTuple" in name
    }


def _why_not_root(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            head = file.read(4)
    except OSError as error:
        return f"can't be opened ({_brief(error)})"
    if not head:
        return "the file is empty"
    return "the file is truncated or damaged" if head == b"root" else "this is not a ROOT file"


def _brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def trees_in(path: str) -> dict[str, int]:
    """List the trees of a file with their numbers of entries."""
    with uproot.open(path) as file:
        return {name: int(file[name].num_entries) for name in _trees(file)}


class _Named:
    """Look-up of branches by full path, by short name, and with dots for underscores."""

    def __init__(self, source: Any, asked: Location, location: Location, file: Any) -> None:
        self.asked, self.location = asked, location
        self.num_entries = int(source.num_entries)
        self.uuid = str(file.file.uuid)
        self.size = _size(location.path)
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
        raise BranchError(message + f"{self.location.path}); check the names of features, derived columns and cuts")

    def close(self) -> None:
        self._file.close()


class _TTree(_Named):
    def _list_keys(self) -> list[str]:
        return list(self._source.keys(recursive=True, full_paths=True))

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            branch = self._source[self.key_of(name)]
            self._known[name] = _describe_branch(name, branch)
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

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        keys = {n: self.key_of(n) for n in names}
        try:
            got = self._source.arrays(
                list(dict.fromkeys(keys.values())), entry_start=start, entry_stop=stop, library="ak", how=dict
            )
        except Exception as error:
            raise _read_error(self.location, start, stop, error) from error
        return {n: _plain(got[k], self.describe(n)) for n, k in keys.items()}


class _NTuple(_Named):
    def _list_keys(self) -> list[str]:
        # The same as ``keys(recursive=True)``, which takes a time that is quadratic in the number of fields.
        fields = self._source.all_fields
        return [f.path for f in fields if f.path and not f.is_anonymous and not f.in_variant]

    def describe(self, name: str) -> Branch:
        if name not in self._known:
            field = self._source[self.key_of(name)]
            self._known[name] = _describe_field(name, field)
        return self._known[name]

    def edges(self, names: Sequence[str]) -> list[int]:  # noqa: ARG002 - clusters hold every field
        starts = [int(c.num_first_entry) for c in self._source.cluster_summaries if c.num_entries]
        return sorted({0, *starts, self.num_entries})

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        # The page lists would tell exactly, at the cost of reading them all; ten numbers a list is near enough.
        return float(sum(4 if self.describe(n).kind == "flat" else 40 for n in names))

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        try:
            return {
                n: _plain(self._source[self.key_of(n)].array(entry_start=start, entry_stop=stop), self.describe(n))
                for n in names
            }
        except Exception as error:
            raise _read_error(self.location, start, stop, error) from error


def _describe_branch(name: str, branch: Any) -> Branch:
    try:
        reading = branch.interpretation
        typename = str(branch.typename)
    except Exception as error:  # noqa: BLE001 - whatever an unknown streamer raises, it can't be read
        return Branch(name, "unusable", note=f"uproot can't interpret it ({_brief(error)})")
    kind = type(reading).__name__
    if kind == "AsJagged" and _number_type(reading.content):
        counter = branch.member("fLeaves")[0].member("fLeafCount")
        counter_name = None if counter is None else str(counter.member("fName"))
        return Branch(name, "jagged", _number_type(reading.content), counter=counter_name)
    dtype = _number_type(reading)
    if not dtype:
        return Branch(name, "unusable", note=f"it holds {typename or kind}, neither a number nor a list of numbers")
    shape = getattr(reading, "inner_shape", None) or ()
    if len(shape) > 1:
        return Branch(name, "unusable", note=f"it holds nested arrays ({typename})")
    return Branch(name, "fixed" if shape else "flat", dtype, width=shape[0] if shape else 0)


def _number_type(reading: Any) -> str:
    dtype = getattr(reading, "numpy_dtype", None)
    if dtype is None:
        return ""
    base = np.dtype(dtype).base
    return base.newbyteorder("=").name if base.kind in "iufb" else ""


def _describe_field(name: str, field: Any) -> Branch:
    import awkward as ak

    try:
        form = field.array(entry_start=0, entry_stop=0).layout.form
    except Exception as error:  # noqa: BLE001 - as above
        return Branch(name, "unusable", note=f"uproot can't interpret it ({_brief(error)})")
    is_list = isinstance(form, (ak.forms.ListOffsetForm, ak.forms.ListForm))
    is_fixed = isinstance(form, ak.forms.RegularForm)
    inner = form.content if is_list or is_fixed else form
    if not isinstance(inner, ak.forms.NumpyForm) or inner.parameter("__array__") is not None or inner.inner_shape:
        return Branch(name, "unusable", note=f"it holds {field.typename or 'records'}, not numbers or lists of numbers")
    kind: Kind = "jagged" if is_list else "fixed" if is_fixed else "flat"
    return Branch(name, kind, inner.primitive, width=form.size if is_fixed else 0)


def _plain(array: Any, branch: Branch) -> Any:
    import awkward as ak

    if branch.kind == "unusable":
        raise BranchError(f"branch {branch.name!r} can't be used: {branch.note}")
    if branch.kind == "jagged":
        return array
    layout = array.layout
    values = np.asarray(layout.data if isinstance(layout, ak.contents.NumpyArray) else ak.to_numpy(array))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _read_error(location: Location, start: int, stop: int, error: Exception) -> Exception:
    if isinstance(error, BranchError):
        return error
    return FileError(
        f"{location.path}: entries {start} to {stop} of tree {location.tree!r} can't be read ({_brief(error)}); "
        "the file is truncated or damaged: replace it, or take it out of the sample"
    )


def _short(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _size(path: str) -> int:
    return 0 if "://" in path else Path(path).stat().st_size


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


class Opener:
    """Lends open trees, each to one thread at a time, and keeps the last few that came back open."""

    def __init__(self, *, limit: int = OPEN_TREES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[Tree] = []

    @contextmanager
    def __call__(self, location: Location) -> Iterator[Tree]:
        """Lend the open tree of a location; see :meth:`use`.

        Raises
        ------
        FileError, BranchError
            As :func:`open_tree`.
        """
        tree = self._take(location) or open_tree(location)
        try:
            yield tree
        finally:
            with self._lock:
                self._idle.append(tree)
                oldest = self._idle.pop(0) if len(self._idle) > self._limit else None
            if oldest is not None:
                oldest.close()

    def use(self, location: Location, action: Callable[[Tree], T]) -> T:
        """Do something with the open tree of a location.

        Raises
        ------
        FileError, BranchError
            As :func:`open_tree`, and what ``action`` raises.
        """
        with self(location) as tree:
            return action(tree)

    def _take(self, location: Location) -> Tree | None:
        with self._lock:
            for i, tree in enumerate(self._idle):
                if tree.location == location or tree.asked == location:
                    return self._idle.pop(i)
        return None

    def close(self) -> None:
        """Close every tree that came back."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def use_fast_inflate() -> None:
    """Let uproot inflate zlib baskets with ISA-L, which takes half of zlib's time.

    uproot 5.7 documents ``uproot.ZLIB.library``, but reads with an instance of its own: that one is set, and
    what somebody writes with ``uproot.ZLIB`` stays as it is. The bytes that come out are the same.
    """
    from uproot import compression

    target = getattr(compression, "_decompress_ZLIB", None)
    if target is not None:
        target.library = "isal"


def check_same_kinds(branches: Mapping[str, Branch], other: Mapping[str, Branch], *, first: str, path: str) -> None:
    """Raise where a branch is of another kind in this file than in the first one.

    Raises
    ------
    BranchError
        Naming both files, the branch and both kinds.
    """
    for name, branch in branches.items():
        if (branch.kind, branch.width) != (other[name].kind, other[name].width):
            raise BranchError(
                f"branch {name!r} is {other[name].kind} in {path} but {branch.kind} in {first}; "
                "the files of all samples must agree: leave the branch out, or make the files anew"
            )
