"""What is in ROOT files: their trees, and what the first entries of a tree tell of every branch.

Nothing here decides what to train on; :mod:`rootdata.suggest` does, from what is measured here.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootdata.branches import Branch
from rootdata.errors import ConfigError, FileError
from rootdata.files import Location, find
from rootdata.jagged import Jagged
from rootdata.statistics import ColumnStats
from rootdata.trees import Tree, open_tree, use_fast_inflate

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
    kind : ``TTree`` or ``RNTuple``
    compression : of the file, such as ``ZLIB(1)``
    is_chosen : whether its branches are looked at
    """

    path: str
    name: str
    kind: str
    entries: int
    compression: str
    is_chosen: bool


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
    arguments: Sequence[str], *, tree: str | None = None, entries: int = ENTRIES, flags: bool = False
) -> Inspection:
    """Look into files.

    Parameters
    ----------
    arguments : paths, globs, folders, ``path:tree``, text files of those; each may be named, ``ttH=files``
    tree : its name, for all files; by default the only one, ``Events``, or the one with most entries
    entries : read of a file, from its start
    flags : whether to look at trigger bits and the like, too

    Raises
    ------
    FileError, BranchError
        For files that are absent or no ROOT files, and for a tree that is not there.
    """
    use_fast_inflate()
    trees: list[TreeInfo] = []
    surveys: dict[Location, dict[str, Branch]] = {}
    sources, hidden = [], None
    for name, pattern, locations in _resolve(arguments, tree):
        measured: list[dict[str, Column]] = []
        chosen = []
        for location in locations:
            with closing(_open(location, trees)) as opened:
                chosen.append(opened.location)
                hidden = [n for n in opened.names() if not flags and _FLAGS.match(n)] if hidden is None else hidden
                branches = surveys[opened.location] = _describe(opened, flags=flags)
                if not measured or (opened.num_entries and len(measured) < MEASURED_FILES):
                    measured.append(_measure_tree(opened, branches, entries))
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


def _open(location: Location, trees: list[TreeInfo]) -> Tree:
    """Open the tree of a file that is likely meant, and note down all trees that the file has."""
    import uproot

    try:
        file = uproot.open({location.path: None}, array_cache=None, object_cache=None)
    except Exception:
        open_tree(location).close()  # says in a sentence what is wrong with the file
        raise
    with file:
        classes = {key: kind for key, kind in file.classnames(recursive=True, cycle=False).items() if _is_tree(kind)}
        name = location.tree.split(";")[0].strip("/") if location.tree else _likely(classes)
        # The tree itself is opened once, below: with 1,600 branches it takes a second.
        entries = {key: int(file[key].num_entries) for key in classes if key != name}
        compression = str(file.file.compression or "none")
    name = name or max(entries, key=lambda key: entries[key], default=None)
    tree = open_tree(dataclasses.replace(location, tree=name))
    for key, kind in classes.items():
        known = tree.num_entries if key == name else entries[key]
        kind = "RNTuple" if "RNTuple" in kind else "TTree"
        trees.append(TreeInfo(location.path, key, kind, known, compression, is_chosen=key == name))
    return tree


def _is_tree(kind: str) -> bool:
    return kind in {"TTree", "TNtuple", "TNtupleD"} or "RNTuple" in kind


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


def _describe(tree: Tree, *, flags: bool) -> dict[str, Branch]:
    """Describe the branches of a tree under the names that a configuration uses."""
    names = dict.fromkeys(n for n in tree.names() if (flags or not _FLAGS.match(n)) and not _ALIAS.match(n))
    short = {n: _with_underscore(n) for n in names}
    return {
        s if s == n or s not in names else n: dataclasses.replace(tree.describe(n), name=s if s not in names else n)
        for n, s in short.items()
    }


def _with_underscore(name: str) -> str:
    """Give the name ``Jet_pt`` to an RNTuple's ``Jet.pt``, if reading by it finds the branch again."""
    short = name.replace(".", "_", 1)
    return short if short.replace("_", ".", 1) == name else name


def _measure_tree(tree: Tree, branches: Mapping[str, Branch], entries: int) -> dict[str, Column]:
    stop = min(entries, tree.num_entries)
    usable = [name for name, branch in branches.items() if branch.kind != "unusable"]
    arrays, broken = _read(tree, usable, stop) if stop else ({}, {})
    if broken and not arrays:
        tree.read(usable, 0, stop)  # raises: not a branch that can't be read, but the file
    place = f"{tree.location.path}:{tree.location.tree}"
    columns = {}
    for name, branch in branches.items():
        if name in broken:
            branch = dataclasses.replace(branch, kind="unusable", note=f"it can't be read ({broken[name]})")
        columns[name] = measure(branch, arrays[name], place=place) if name in arrays else Column(branch=branch)
    return columns


def _read(tree: Tree, names: Sequence[str], stop: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Read all in one go; where that fails, halves of it, until the branches that can't be read are known."""
    try:
        return tree.read(names, 0, stop), {}
    except FileError as error:
        if len(names) == 1:
            return {}, {names[0]: type(error.__cause__ or error).__name__}
    middle = len(names) // 2
    (first, bad), (second, worse) = _read(tree, names[:middle], stop), _read(tree, names[middle:], stop)
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
    middle = float(np.partition(values, len(values) // 2)[len(values) // 2]) if len(values) else 0.0
    same = int(np.count_nonzero(values == values.dtype.type(middle)))
    return Column(
        branch=branch,
        entries=len(array),
        objects=len(values),
        longest=int(jagged.counts.max(initial=0)) if jagged is not None else branch.width,
        stats=stats,
        sentinels=sentinels,
        middle=middle,
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
    if branch.kind == "unusable":
        return branch.note
    if not column.objects:
        return "always empty" if column.entries else "no entries"
    if not stats.count:
        return "no value in it but NaN, infinities and sentinels"
    if stats.high - stats.low <= SPREAD * max(abs(stats.low), abs(stats.high)):
        return f"constant, {stats.low:g}"
    if column.varied < FEW:
        return f"{column.middle:g} but for {column.varied} values"
    return ""
