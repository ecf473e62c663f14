"""What is in ROOT files: their trees, and what the first entries of a tree tell of every branch.

Nothing here decides what to train on; :mod:`rootdata.inspect.suggest` does, from what is measured here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootdata.causes import reason_of
from rootdata.errors import ConfigError, RootDataError
from rootdata.events.statistics import ColumnStats
from rootdata.io.block_size import BLOCK_BYTES
from rootdata.io.branches import Branch
from rootdata.io.files import find
from rootdata.io.guard import concerns_all
from rootdata.io.reader import BlockReader
from rootdata.io.trees import Tree, use_fast_inflate
from rootdata.jagged import Jagged
from rootdata.location import Location
from rootdata.options.read import ReadConfig

ENTRIES = 10_000  # of a file that are read
MEASURED_FILES = 3  # of each argument; of the others only the names and kinds of branches are looked at
TYPICAL_SENTINELS = (-99999.0, -9999.0, -1000.0, -999.0, -99.0)
HUGE = 1e30  # in GeV, cm or rad nothing real is as large
SPREAD = 1e-3  # of a value: less is rounding, as in the mass of a muon
FEW = 10  # values that differ: fewer may all fall to one part of a split

Role = Literal["feature", "counter", "label", "identifier", "index", "weight", "truth", "trigger"]

# By their names in the formats of CMS (NanoAOD) and ATLAS, and of the examples that come with ROOT.
_FLAGS = re.compile(r"(HLT|L1|DST|AlCa|Flag)_|HLTrigger|L1simulation|L1Reco|MC_\w+_v\d+$")
_TRIGGER = re.compile(r"n?trig|pass_?(trig|hlt)", re.IGNORECASE)
_WEIGHT = re.compile(r"weight|(^|_)wgt|^(xsec|cross_?section)", re.IGNORECASE)
_TRUTH = re.compile(
    r"(^|_)n?(gen|Gen|SubGen|LHE|HTXS|truth|Truth|mc)(?=[A-Z_0-9]|$)|^MC(?=[a-z_])|^(Generator|Pileup)_|fiducialGen"
    r"|([hH]adron|[pP]arton|mc)Flavou?r|n[BC]Hadrons"
)
_INDEX = re.compile(r"Idx(G|s|\d)?$")
_IDENTIFIER = re.compile(
    r"(run|event|evt|lumi|luminosity_?block|lumi_?block|ls|bx|bunch_?crossing|orbit)(_?(number|num|id|nr))?"
    r"|(mc_?)?channel_?number|dsid|entry|index", re.IGNORECASE
)  # fmt: skip
_LABEL = re.compile(r"is_?sig(nal)?|signal|(true_?|truth_?)?label|class(_?id)?|target", re.IGNORECASE)
_WITH_TREE = re.compile(r"(?P<path>.+\.root):[^:/]+$")
_NAMED = re.compile(r"(?P<name>[A-Za-z]\w*)=(?P<pattern>.+)$")
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What the entries read tell of a branch.

    Parameters
    ----------
    entries : entries read
    objects : values read
    longest : largest number of objects in an event, of a jagged branch
    stats : of the values that are not sentinels
    sentinels : values that look like "none" (-999, 1e35), and how often they come
    middle : the median, or nearly, of the values
    varied : values other than ``middle``
    is_binary : whether all values are 0 or 1
    counts_up : whether every value is the one before plus one
    marks : file to a hash of the numbers of objects: equal where two branches share their counts
    """

    branch: Branch
    entries: int = 0
    objects: int = 0
    longest: int = 0
    stats: ColumnStats = dataclasses.field(default_factory=ColumnStats)
    sentinels: Mapping[float, int] = dataclasses.field(default_factory=dict)
    middle: float = 0.0
    varied: int = 0
    is_binary: bool = True
    counts_up: bool = True
    marks: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether it holds numbers that can be read."""
        return self.branch.kind != "unusable"

    def merge(self, other: Column) -> Column:
        """Add what another file told of the same branch."""
        both = self.stats.count and other.stats.count
        differ = min(self.stats.count, other.stats.count) if both and self.middle != other.middle else 0
        return Column(
            branch=self.branch,
            entries=self.entries + other.entries,
            objects=self.objects + other.objects,
            longest=max(self.longest, other.longest),
            stats=self.stats.merge(other.stats),
            sentinels=dict(Counter(self.sentinels) + Counter(other.sentinels)),
            middle=self.middle if self.stats.count else other.middle,
            varied=self.varied + other.varied + differ,
            is_binary=self.is_binary and other.is_binary,
            counts_up=self.counts_up and other.counts_up,
            marks={**self.marks, **other.marks},
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
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
    columns: Mapping[str, Column]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
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

    sources: tuple[Source, ...]
    trees: tuple[TreeInfo, ...]
    columns: Mapping[str, Column]
    collections: Mapping[str, tuple[str, ...]]
    absent: Mapping[str, str]
    flags: tuple[str, ...]
    entries: int

    @property
    def counters(self) -> dict[str, str]:
        """Branches that hold the number of objects of a collection, and its name."""
        known = {c.branch.counter: group for group, names in self.collections.items() for c in self._of(names)}
        guessed = {f"{n}{group}": group for group in self.collections for n in ("n", "N", "n_")}
        both = guessed | {counter: group for counter, group in known.items() if counter}
        return {name: group for name, group in both.items() if name in self.columns}

    def _of(self, names: Iterable[str]) -> list[Column]:
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
    tree : its name, for all files; by default the only one, ``Events``, or the one with most entries
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
        for name, pattern, locations in _resolve(arguments, tree):
            measured: list[dict[str, Column]] = []
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
            sources.append(Source(name=name, pattern=pattern, locations=tuple(chosen), columns=_merge(measured)))
    _check_once(sources)
    merged = _merge(source.columns for source in sources)
    collections = collections_of(merged)
    return Inspection(
        sources=tuple(sources),
        trees=tuple(trees),
        columns=_without_own_counters(merged, collections),
        collections=collections,
        absent=_absent(surveys),
        flags=tuple(hidden or ()),
        entries=entries,
    )


# Which files and trees


def _resolve(arguments: Sequence[str], tree: str | None) -> Iterator[tuple[str, str, list[Location]]]:
    """Yield (name, pattern, files) of every argument, under names of their own."""
    parts = []
    for argument in arguments:
        given = None if Path(argument).exists() else _NAMED.match(argument)
        name, pattern = (given["name"], given["pattern"]) if given else ("", argument)
        match = _WITH_TREE.match(pattern)
        parts.append((name, match["path"] if match else pattern, find([pattern], tree=tree, where="inspect")))
    paths = Counter(pattern for _, pattern, _ in parts)
    taken: set[str] = set()
    for name, pattern, found in parts:
        shared = paths[pattern] > 1 and found[0].tree
        name = name or _word(shared.rsplit("/", 1)[-1] if shared else _stem(pattern))
        numbered = (f"{name}_{i}" for i in range(2, len(parts) + 2))
        name = name if name not in taken else next(n for n in numbered if n not in taken)
        taken.add(name)
        yield name, pattern, found


def _stem(pattern: str) -> str:
    path = Path(pattern.rsplit("://", 1)[-1])
    if path.is_dir():
        return path.resolve().name
    return re.split(r"[*?\[]", path.stem)[0] or path.absolute().parent.name


def _word(text: str) -> str:
    word = re.sub(r"\W+", "_", text).strip("_") or "sample"
    return word if not word[0].isdigit() else f"sample_{word}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What a file holds: its trees, and of the chosen one the place, entries, branches and the flags left out."""

    trees: tuple[TreeInfo, ...]
    location: Location
    entries: int
    branches: Mapping[str, Branch]
    flags: tuple[str, ...]


def _look(reader: BlockReader, location: Location, *, flags: bool) -> _Found:
    """List the trees of a file, and look at the one that is likely meant."""
    given = location.tree.split(";")[0].strip("/") if location.tree else None
    # The chosen tree is opened once, below: with 1,600 branches it takes a second.
    contents = reader.look_into(location, leave=lambda names: given or _likely(names))
    counted = {tree.name: tree.entries or 0 for tree in contents.usable}
    name = given or _likely(counted) or max(counted, key=counted.__getitem__, default=None)
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
    return _Found(trees=tuple(infos), location=found, entries=entries, branches=branches, flags=hidden)


def _likely(names: Collection[str]) -> str | None:
    """Choose the only tree, or the one called ``Events``."""
    likely = [name for name in names if name.lower() == "events"]
    return next(iter(names if len(names) == 1 else likely), None)


def _check_once(sources: Sequence[Source]) -> None:
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
    names = dict.fromkeys(n for n in every if (flags or not _FLAGS.match(n)) and not _ALIAS.match(n))
    short = {n: _with_underscore(n) for n in names}
    branches = {
        s if s == n or s not in names else n: dataclasses.replace(tree.describe(n), name=s if s not in names else n)
        for n, s in short.items()
    }
    return tree.location, tree.num_entries, branches, tuple(n for n in every if not flags and _FLAGS.match(n))


def _with_underscore(name: str) -> str:
    """Give the name ``Jet_pt`` to an RNTuple's ``Jet.pt``, if reading by it finds the branch again."""
    short = name.replace(".", "_", 1)
    return short if short.replace("_", ".", 1) == name else name


def _measure_tree(reader: BlockReader, found: _Found, entries: int) -> dict[str, Column]:
    stop = min(entries, found.entries)
    usable = [name for name, branch in found.branches.items() if branch.kind != "unusable"]
    columns = {name: Column(branch=branch) for name, branch in found.branches.items()}
    portions = reader.use(found.location, functools.partial(_portions, usable, stop)) if stop else []
    for names in portions:
        arrays, broken = reader.use(found.location, functools.partial(_read, names, stop))
        for name in names:
            branch = found.branches[name]
            if name in arrays:
                columns[name] = measure(branch, arrays[name], place=f"{found.location.path}:{found.location.tree}")
            else:
                unusable = Branch(branch.name, "unusable", note=f"it can't be read ({broken[name]})")
                columns[name] = Column(branch=unusable)
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


def measure(branch: Branch, array: Any, *, place: str = "") -> Column:
    """Measure the values of a branch.

    Parameters
    ----------
    array : (n,) or (n, k), or jagged
    place : the file and tree that it comes from
    """
    jagged = array if isinstance(array, Jagged) else None
    values = jagged.content if jagged is not None else np.asarray(array).reshape(-1)
    sentinels = find_sentinels(values)
    stats = ColumnStats.of(values, missing=tuple(sentinels))
    # As the type holds it: a float can't tell 2**64 - 1 from 2**64.
    middle = np.partition(values, len(values) // 2)[len(values) // 2] if len(values) else values.dtype.type(0)
    same = int(np.count_nonzero(values == middle))
    return Column(
        branch=branch,
        entries=len(array),
        objects=len(values),
        longest=int(jagged.counts.max(initial=0)) if jagged is not None else branch.width,
        stats=stats,
        sentinels=sentinels,
        middle=middle.item(),
        varied=len(values) - same,
        is_binary=bool(np.isin(values, (0, 1)).all()),
        counts_up=_counts_up(values),
        marks={} if jagged is None else {place: hash(jagged.counts.tobytes())},
    )


def _counts_up(values: npt.NDArray[Any]) -> bool:
    is_wide = values.dtype.kind in "iu" and values.dtype.itemsize >= 4  # a narrow one starts again at 0
    return is_wide and len(values) > FEW and bool((values[1:] == values[:-1] + 1).all())


def find_sentinels(values: npt.NDArray[Any]) -> dict[float, int]:
    """Find values that stand for "none", with their numbers.

    -999 and its like count where nothing else comes near: all other values are above half of it. Any number
    beyond 1e30 counts.

    Examples
    --------
    >>> find_sentinels(np.array([25.0, -999.0, 31.0, -999.0]))
    {-999.0: 2}
    >>> find_sentinels(np.array([-1001.0, -999.0, -998.0]))
    {}
    """
    if values.dtype.kind not in "if" or not len(values):
        return {}
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    finite = finite.astype(np.float32) if finite.dtype == np.float16 else finite  # which HUGE is beyond
    if not len(finite) or (finite.min() > max(TYPICAL_SENTINELS) / 2 and finite.max() < HUGE):
        return {}
    wide = finite.astype(np.float64)
    huge = np.abs(wide) > HUGE
    rest = wide[~huge & ~np.isin(wide, TYPICAL_SENTINELS)]
    lowest = float(rest.min()) if len(rest) else 0.0
    numbers = {s: int(np.count_nonzero(wide == s)) for s in TYPICAL_SENTINELS if lowest > s / 2}
    beyond, counts = np.unique(wide[huge], return_counts=True)
    common = np.argsort(-counts, kind="stable")[:3]
    return {s: n for s, n in numbers.items() if n} | {float(beyond[i]): int(counts[i]) for i in common}


def _merge(parts: Iterable[Mapping[str, Column]]) -> dict[str, Column]:
    merged: dict[str, Column] = {}
    for part in parts:
        for name, column in part.items():
            merged[name] = merged[name].merge(column) if name in merged else column
    return merged


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


# Collections


def collections_of(columns: Mapping[str, Column]) -> dict[str, tuple[str, ...]]:
    """Group the jagged branches that share their counts: by the counter that the file names, or by their names.

    Returns
    -------
    name of a collection to its branches, both in file order
    """
    shared = Counter(column.branch.counter for column in columns.values())
    buckets: dict[tuple[str | None, str], list[str]] = {}
    for name, column in columns.items():
        if column.branch.kind == "jagged":
            # A counter for each branch, as uproot writes them, says nothing; then names and counts do.
            counter = column.branch.counter if shared[column.branch.counter] > 1 else None
            buckets.setdefault((counter, "" if counter else _first_word(name)), []).append(name)
    groups: dict[str, tuple[str, ...]] = {}
    for (counter, word), names in buckets.items():
        for members in _with_same_counts(names, columns):
            is_one = counter or word or len(_common_start(members)) > 2
            for together in [members] if is_one else [[name] for name in members]:
                title = _title(together, counter)
                numbered = (f"{title}_{i}" for i in range(2, len(columns) + 2))
                groups[title if title not in groups else next(n for n in numbered if n not in groups)] = tuple(together)
    return groups


def _with_same_counts(names: Sequence[str], columns: Mapping[str, Column]) -> list[list[str]]:
    """Divide branches into groups that agree in every file; one may be absent from files that another is in."""
    groups: list[tuple[dict[str, int], list[str]]] = []
    for name in sorted(names, key=lambda n: -len(columns[n].marks)):
        marks = columns[name].marks
        fitting = (g for g in groups if all(g[0].get(file, mark) == mark for file, mark in marks.items()))
        known, members = next(fitting, ({}, []))
        if not members:
            groups.append((known, members))
        known.update(marks)
        members.append(name)
    order = {name: i for i, name in enumerate(columns)}
    return sorted((sorted(members, key=order.__getitem__) for _, members in groups), key=lambda m: order[m[0]])


def _without_own_counters(
    columns: Mapping[str, Column], collections: Mapping[str, tuple[str, ...]]
) -> dict[str, Column]:
    """Leave out ``nJet_eta`` of ``Jet_eta`` where the branch is one of a collection: it tells nothing more."""
    members = (columns[name].branch for names in collections.values() if len(names) > 1 for name in names)
    own = {b.counter for b in members if b.counter == f"n{b.name}"}
    return {name: column for name, column in columns.items() if name not in own}


def _first_word(name: str) -> str:
    """Take what comes before the first separator, or the lower-case head of ``jetPt``; nothing for one plain word."""
    match = re.match(r"([A-Za-z0-9]+)[_.]|([a-z0-9]{2,})(?=[A-Z])", name)
    return (match[1] or match[2]) if match else ""


def _title(names: Sequence[str], counter: str | None) -> str:
    """Name a collection after its counter, or the words or letters that its branches begin with."""
    stem = re.sub(r"^[nN]_?(?=\w)|_(size|count|[nN])$", "", counter) if counter else ""
    if stem and names[0].startswith(stem):
        return stem
    words = [re.split(r"[_.]", name) for name in names]
    common = _common_start(words)[: min(map(len, words)) - 1]
    return "_".join(common) or stem or _first_word(names[0]) or "".join(_common_start(names))


def _common_start(sequences: Sequence[Sequence[str]]) -> list[str]:
    together = zip(*sequences, strict=False)
    return [items[0] for items in itertools.takewhile(lambda items: len(set(items)) == 1, together)]


# Roles and findings


def role_of(column: Column, counters: Collection[str]) -> Role:
    """Tell from its name, and a little from its values, what a branch is for.

    Parameters
    ----------
    counters : names of the branches that hold numbers of objects

    Examples
    --------
    >>> role_of(Column(branch=Branch("Jet_hadronFlavour", "jagged", "int32")), ())
    'truth'
    """
    name = column.branch.name
    is_flat = column.branch.kind == "flat"
    if is_flat and (_LABEL.fullmatch(name) or (name.lower() == "y" and column.is_binary)):
        return "label"
    if is_flat and (_IDENTIFIER.fullmatch(name) or (column.counts_up and column.objects)):
        return "identifier"
    matches: tuple[tuple[Role, re.Match[str] | None], ...] = (
        ("weight", _WEIGHT.search(name)),
        ("truth", _TRUTH.search(name)),
        ("trigger", _FLAGS.match(name) or _TRIGGER.match(name)),
        ("index", _INDEX.search(name)),
    )
    return next((role for role, match in matches if match), "counter" if name in counters else "feature")


def finding(column: Column) -> str:
    """Say what keeps a branch from being a feature; nothing if it can be one."""
    branch, stats = column.branch, column.stats
    if branch.note:
        return branch.note
    if not column.objects:
        return "always empty" if column.entries else "no entries"
    if not stats.count:
        return "no value in it but NaN, infinities and sentinels"
    if stats.high - stats.low <= SPREAD * max(abs(stats.low), abs(stats.high)):
        return f"constant, {_number(stats.low)}"
    if column.varied < FEW:
        return f"{_number(column.middle)} but for {column.varied} values"
    return ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else f"{value:g}"
