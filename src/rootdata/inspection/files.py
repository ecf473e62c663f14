"""What is in ROOT files: their trees, and what the first entries of a tree tell of every branch.

Nothing here decides what to train on; :mod:`rootdata.inspection.suggest` does, from what is measured here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rootdata.causes import reason_of
from rootdata.errors import ConfigError, RootDataError
from rootdata.inspection.grouping import collections_of, without_own_counters
from rootdata.inspection.measure import BranchFacts, measure, merge
from rootdata.inspection.roles import FLAGS
from rootdata.io.block_size import BLOCK_BYTES
from rootdata.io.branches import Branch
from rootdata.io.files import find
from rootdata.io.guard import concerns_all
from rootdata.io.reader import BlockReader
from rootdata.io.trees import Tree, use_fast_inflate
from rootdata.location import Location
from rootdata.options.read import ReadConfig

ENTRIES = 10_000  # of a file that are read
MEASURED_FILES = 3  # of each argument; of the others only the names and kinds of branches are looked at
_WITH_TREE = re.compile(r"(?P<path>.+\.root(?:\.\d+)?):(?P<tree>[^:/]+)$")
_NAMED = re.compile(r"(?P<name>[A-Za-z]\w*)=(?P<pattern>.+)$")
# Trees of events, as formats call them in lower case, most wanted first: CMS and EDM4hep, ATLAS (two), Delphes.
_EVENTS = ("events", "collectiontree", "eventdata", "delphes")
# Trees that keep books of a file: of POOL (ATLAS), CMS, podio (EDM4hep), LHCb and others.
_BOOKS = re.compile(
    r"##.*|(POOL|DataHeader|EventTag|MetaData).*|(.*/)?(Runs|LuminosityBlocks|ParameterSets|LumiTuple|navigator)|"
    r"(run|col|evt)?_?metadata|podio_metadata"
)
_ALIAS = re.compile(r"_collection\d+(\.|$)")  # ROOT's importer keeps a second name for the branches of a collection


@dataclasses.dataclass(frozen=True, slots=True)
class TreeInfo:
    """A tree of a file.

    Parameters
    ----------
    kind : ``TTree``, ``RNTuple`` or ``TChain``; ``folder`` of one in the file that can't be looked into
    entries : none where they can't be told
    compression : of the file, such as ``ZLIB(1)``
    is_chosen : whether its branches are looked at
    note : why it can't be used
    """

    path: str
    name: str
    kind: str
    entries: int | None
    compression: str
    is_chosen: bool
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NamedFiles:
    """An argument, before any file is opened.

    Parameters
    ----------
    name : of a sample that these files would be
    pattern : path, glob or folder, without a tree
    argument : path, glob or folder as it was given, with a tree where one was
    """

    name: str
    pattern: str
    argument: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InspectedSource:
    """An argument: files that belong together.

    Parameters
    ----------
    name : of a sample that these files would be
    pattern : as it was given, without a tree
    locations : every file, with the tree that was chosen in it
    """

    name: str
    pattern: str
    locations: tuple[Location, ...]
    columns: Mapping[str, BranchFacts]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found.

    Parameters
    ----------
    columns : every branch, over all sources, in the order of the first file
    collections : jagged branches that share their counts, under a name
    absent : branches that are not, or not of one kind, in all files, and why
    flags : names of trigger bits and the like that were not looked at
    entries : entries that were read of a file, at most
    """

    sources: tuple[InspectedSource, ...]
    trees: tuple[TreeInfo, ...]
    columns: Mapping[str, BranchFacts]
    collections: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, str]
    flags: tuple[str, ...]
    entries: int

    @functools.cached_property  # asked for with every branch
    def counters(self) -> dict[str, str]:
        """Branches that hold the number of objects of a collection, and its name."""
        known = {c.branch.counter: group for group, names in self.collections.items() for c in self._of(names)}
        guessed = {f"{n}{group}": group for group in self.collections for n in ("n", "N", "n_")}
        both = guessed | {counter: group for counter, group in known.items() if counter}
        return {name: group for name, group in both.items() if name in self.columns}

    @functools.cached_property
    def owners(self) -> dict[str, str]:
        """Branches of collections, and the collection of each."""
        return {name: group for group, names in self.collections.items() for name in names}

    def _of(self, names: Iterable[str]) -> list[BranchFacts]:
        return [self.columns[n] for n in names]


def inspect(
    arguments: Sequence[str],
    *,
    tree: str | None = None,
    entries: int = ENTRIES,
    flags: bool = False,
    patience: float = 20.0,
    deadline: float = 30.0,
) -> Inspection:
    """Look into files.

    Parameters
    ----------
    arguments : paths, globs, folders, ``path:tree``, text files of those; each may be named, ``ttH=files``
    tree : its name, for all files; by default the only one, one that formats call their events (``Events``,
        ``CollectionTree``), or the one with most entries that keeps no books of the file
    entries : read of a file, from its start
    flags : whether to look at trigger bits and the like, too
    patience, deadline : seconds, see :class:`rootdata.options.read.ReadConfig`; an attempt reads as much as a block

    Raises
    ------
    FileError, BranchError
        For files that are absent or no ROOT files, or don't come in time, and for a tree that is not there.
    """
    use_fast_inflate()
    trees: list[TreeInfo] = []
    surveys: dict[Location, Mapping[str, Branch]] = {}
    sources, hidden = [], None
    with BlockReader(ReadConfig(patience=patience, deadline=deadline), limit=1) as reader:
        for given in name_samples(arguments):
            locations = find([given.argument], tree=tree, where="inspect")
            measured: list[dict[str, BranchFacts]] = []
            chosen = []
            for location in locations:
                found = _look(reader, location, flags=flags)
                trees += found.trees
                chosen.append(found.location)
                hidden = found.flags if hidden is None else hidden
                surveys[found.location] = found.branches
                if not measured or (found.entries and len(measured) < MEASURED_FILES):
                    measured.append(_measure_tree(reader, found, entries))
                    surveys[found.location] = {n: column.branch for n, column in measured[-1].items()}
            sources.append(
                InspectedSource(
                    name=given.name, pattern=given.pattern, locations=tuple(chosen), columns=merge(measured)
                )
            )
    _check_once(sources)
    merged = merge(source.columns for source in sources)
    collections = collections_of(merged)
    return Inspection(
        sources=tuple(sources),
        trees=tuple(trees),
        columns=without_own_counters(merged, collections),
        collections=collections,
        absent=_absent(surveys),
        flags=tuple(hidden or ()),
        entries=entries,
    )


# Which files and trees


def name_samples(arguments: Sequence[str]) -> list[NamedFiles]:
    """Give every argument a name of its own: that before ``=``, of its file, or of its tree where others have the file.

    Examples
    --------
    >>> [s.name for s in name_samples(["ttH_1.root", "mine=b.root", "both.root:sig", "both.root:bkg"])]
    ['ttH_1', 'mine', 'sig', 'bkg']
    """
    parts = []
    for argument in arguments:
        given = None if Path(argument).exists() else _NAMED.match(argument)
        name, pattern = (given["name"], given["pattern"]) if given else ("", argument)
        match = _WITH_TREE.match(pattern)
        parts.append((name, match["path"] if match else pattern, match["tree"] if match else "", pattern))
    paths = Counter(path for _, path, _, _ in parts)
    named: dict[str, NamedFiles] = {}
    for name, path, tree, argument in parts:
        name = name or _word(tree if paths[path] > 1 and tree else _stem(path))
        numbered = (f"{name}_{i}" for i in range(2, len(parts) + 2))
        name = name if name not in named else next(n for n in numbered if n not in named)
        named[name] = NamedFiles(name, path, argument)
    return list(named.values())


def _stem(pattern: str) -> str:
    path = Path(pattern.rsplit("://", 1)[-1])
    if path.is_dir():
        return path.resolve().name
    return re.split(r"[*?\[]", path.stem)[0] or path.absolute().parent.name


def _word(text: str) -> str:
    word = re.sub(r"\W+", "_", text).strip("_") or "sample"
    return word if not word[0].isdigit() else f"sample_{word}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Inspected:
    """What a file holds: its trees, and of the chosen one the place, entries, branches and the flags left out."""

    trees: tuple[TreeInfo, ...]
    location: Location
    entries: int
    branches: Mapping[str, Branch]
    flags: tuple[str, ...]


def _look(reader: BlockReader, location: Location, *, flags: bool) -> _Inspected:
    """List the trees of a file, and look at the one that is likely meant."""
    given = location.tree.split(";")[0].strip("/") if location.tree else None
    # The chosen tree is opened once, below: with 1,600 branches it takes a second.
    contents = reader.look_into(location, leave=lambda names: given or _likely(names))
    counted = {tree.name: tree.entries or 0 for tree in contents.usable}
    name = given or _likely(counted) or _largest(counted)
    chosen = dataclasses.replace(location, tree=location.tree or name)
    found, entries, branches, hidden = reader.use(chosen, functools.partial(_describe, flags=flags))
    infos = (
        TreeInfo(
            path=location.path,
            name=tree.name,
            kind=tree.kind,
            entries=entries if tree.name == name else tree.entries,
            compression=contents.compression,
            is_chosen=tree.name == name,
            note=tree.note,
        )
        for tree in contents.trees
    )
    return _Inspected(trees=tuple(infos), location=found, entries=entries, branches=branches, flags=hidden)


def _likely(names: Collection[str]) -> str | None:
    """Choose the only tree, one that formats call their events, or the only one that keeps no books of the file.

    Examples
    --------
    >>> _likely(["##Links", "CollectionTree", "POOLContainer"]), _likely(["a", "b"])
    ('CollectionTree', None)
    """
    known = sorted((name for name in names if name.lower() in _EVENTS), key=lambda name: _EVENTS.index(name.lower()))
    others = [name for name in names if not _BOOKS.fullmatch(name)]
    alone = next((several for several in (others, names) if len(several) == 1), ())
    return next(iter(known or alone), None)


def _largest(entries: Mapping[str, int]) -> str | None:
    """Choose the tree with most entries, and one that keeps books only where there is no other."""
    return max(entries, key=lambda name: (not _BOOKS.fullmatch(name), entries[name]), default=None)


def _check_once(sources: Sequence[InspectedSource]) -> None:
    owner: dict[Location, str] = {}
    for source in sources:
        for location in source.locations:
            first = owner.setdefault(location, source.name)
            if first != source.name:
                raise ConfigError(
                    f"{location.path} (tree {location.tree!r}) is named twice, as {first!r} and {source.name!r}; "
                    "name it once, or another tree of it as path:tree"
                )


# What is in a tree


def _describe(tree: Tree, *, flags: bool) -> tuple[Location, int, dict[str, Branch], tuple[str, ...]]:
    """Describe the branches of a tree under the names that a configuration uses, and name the flags left out."""
    every = tree.names()
    names = dict.fromkeys(n for n in every if (flags or not FLAGS.match(n)) and not _ALIAS.match(n))
    short = {n: _with_underscore(n) if tree.kind != "TTree" else n for n in names}  # a TTree's are those of ROOT
    branches = {
        s if s == n or s not in names else n: dataclasses.replace(tree.describe(n), name=s if s not in names else n)
        for n, s in short.items()
    }
    return tree.location, tree.num_entries, branches, tuple(n for n in every if not flags and FLAGS.match(n))


def _with_underscore(name: str) -> str:
    """Give the name ``Jet_pt`` to an RNTuple's ``Jet.pt``, if reading by it finds the branch again."""
    short = name.replace(".", "_", 1)
    return short if short.replace("_", ".", 1) == name else name


def _measure_tree(reader: BlockReader, found: _Inspected, entries: int) -> dict[str, BranchFacts]:
    stop = min(entries, found.entries)
    usable = [name for name, branch in found.branches.items() if branch.kind != "unusable"]
    columns = {name: BranchFacts(branch=branch) for name, branch in found.branches.items()}
    portions = reader.use(found.location, functools.partial(_portions, usable, stop)) if stop else []
    for names in portions:
        arrays, broken = reader.use(found.location, functools.partial(_read, names, stop))
        for name in names:
            branch = found.branches[name]
            if name in arrays:
                columns[name] = measure(branch, arrays[name], place=f"{found.location.path}:{found.location.tree}")
            else:
                unusable = Branch(branch.name, "unusable", note=f"it can't be read ({broken[name]})")
                columns[name] = BranchFacts(branch=unusable)
    return columns


def _portions(names: Sequence[str], stop: int, tree: Tree) -> list[list[str]]:
    """Divide branches, in their order, so that the entries of each part take about as much as a block."""
    portions: list[list[str]] = []
    size = math.inf
    for name in names:
        own = tree.bytes_per_entry([name]) * stop
        if size + own > BLOCK_BYTES:
            portions.append([])
            size = 0.0
        portions[-1].append(name)
        size += own
    return portions


def _read(names: Sequence[str], stop: int, tree: Tree) -> tuple[dict[str, Any], dict[str, str]]:
    """Read all in one go; where that fails, halves of it, until the branches that can't be read are known."""
    try:
        return tree.read(names, 0, stop), {}
    except RootDataError as error:
        if concerns_all(error):
            raise
        if len(names) == 1:
            return {}, {names[0]: reason_of(error)}
    middle = len(names) // 2
    (first, bad), (second, worse) = _read(names[:middle], stop, tree), _read(names[middle:], stop, tree)
    return first | second, bad | worse


def _absent(surveys: Mapping[Location, Mapping[str, Branch]]) -> dict[str, str]:
    """Say which branches are not the same in all files."""
    notes: dict[str, str] = {}
    first: dict[str, tuple[Branch, Location]] = {}
    for place, branches in surveys.items():
        for name, branch in branches.items():
            known, origin = first.setdefault(name, (branch, place))
            if (known.kind, known.width) != (branch.kind, branch.width):
                files = f"{Path(origin.path).name}, {branch.kind} in {Path(place.path).name}"
                notes.setdefault(name, f"{known.kind} in {files}")
    counts = Counter(name for branches in surveys.values() for name in branches)
    gaps = {n: f"in {k} of {len(surveys)} files only" for n, k in counts.items() if k < len(surveys)}
    return notes | gaps
