"""What to read and in which order, parsed once from plain dicts and lists into frozen dataclasses.

Two groups, kept apart on purpose: :class:`DataConfig` says *what* an event is (it decides the specs), and
:class:`OrderConfig` says in which order events come (policy: it changes no number that is learnt from the data).
Whoever holds one of these objects knows that it was checked.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rootdata import values
from rootdata.errors import ConfigError
from rootdata.expressions import parse

PARTS = ("train", "val", "test")
LAYOUTS = ("vector", "tokens")
TAKEN = ("x", "flat", "label", "weight", "index", "events", "scores")  # in batches, and in exported graphs
CACHE_IN_MEMORY = 4_000_000_000  # bytes, where none are given
CACHE_ON_DISK = 50_000_000_000
MOST_PREFETCHED = 256  # slabs: 2 to 4 GB
ON_BAD_FILE = ("error", "skip")
SCALINGS = ("standard", "minmax", "robust", "log", "none")

Part = Literal["train", "val", "test"]

DECIDES = "decides"
"""Key of a field's metadata: what the option decides. The one declaration of what makes two trainings the same.

``specs``: which events there are and what the first pass learns of them; ``files``: which files are used, which shows
in their list; ``inputs``: what a selected event becomes; ``order``: which event is the n-th of an epoch. A field
without it decides what its class says; one that decides nothing says how or where events are read.
"""


def _decides(*what: str) -> dict[str, frozenset[str]]:
    return {DECIDES: frozenset(what)}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A physics process and its files.

    Parameters
    ----------
    files : paths, URLs, globs, folders, ``path:tree`` or text files of those; a tuple in it holds replicas of one file
    tree : name of the tree, where a file holds several
    label : class number of every event of the sample
    cut : expression; events where it is false are left out
    weight : number or expression that multiplies the weight of every event
    """

    name: str
    files: tuple[str | tuple[str, ...], ...] = dataclasses.field(metadata=_decides())  # what was found is compared
    tree: str | None = None
    label: int | None = None
    cut: str | None = None
    weight: str | float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Jagged branches that share their counts.

    Parameters
    ----------
    branches : names of branches or derived columns, the features of an object
    length : objects kept per event, or ``"auto"``: the smallest length that keeps 99.9 % of all objects
    sort : column that orders the objects, descending with a leading ``-``
    cut : expression with one value an object; objects where it is false are left out
    """

    name: str
    branches: tuple[str, ...]
    length: int | Literal["auto"] = dataclasses.field(default="auto", metadata=_decides("inputs"))
    sort: str | None = None
    cut: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """How events are dealt to train, val and test.

    Parameters
    ----------
    by : ``"hash"`` (of file and entry), ``"entries"`` (ranges of every file), ``"files"``, or an integer expression
    train, val, test : a share in [0, 1], or for an expression the values that belong to the part (``None``: all
        others), or for files the patterns of their paths
    """

    by: str
    train: Any
    val: Any
    test: Any


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How the values of one column become network inputs: ``(f(x) - shift) * factor``.

    Parameters
    ----------
    kind : one of ``standard``, ``minmax``, ``robust``, ``log``, ``none`` (learnt from training events) or ``given``
    shift, factor : used as they are where ``kind`` is ``given``
    """

    kind: str
    shift: float = 0.0
    factor: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What an event is: its samples, features, cuts, label, weight, split, layout and scaling."""

    samples: tuple[Sample, ...]
    flat: tuple[str, ...] = ()
    jagged: tuple[Collection, ...] = ()
    derived: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cut: str | None = None
    label: str | None = None
    weight: str | float | None = None
    classes: tuple[str, ...] = ("background", "signal")
    layout: str = dataclasses.field(default="vector", metadata=_decides("inputs"))
    scale: Mapping[str, Scaling] = dataclasses.field(default_factory=dict, metadata=_decides("inputs"))
    default_scale: Scaling = dataclasses.field(
        default_factory=lambda: Scaling(kind="standard"), metadata=_decides("inputs")
    )
    missing: tuple[float, ...] = ()
    pad: float = dataclasses.field(default=0.0, metadata=_decides("inputs"))
    fraction: float = 1.0
    on_bad_file: str = dataclasses.field(default="error", metadata=_decides("files"))
    split: Split = dataclasses.field(default_factory=lambda: Split(by="hash", train=0.64, val=0.16, test=0.2))

    def scaling_of(self, column: str) -> Scaling:
        """Return the scaling of a column: its own, that of its fixed-size branch, or the default one."""
        if column in self.scale:
            return self.scale[column]
        branch = column.rsplit("[", 1)[0]
        return self.scale[branch] if branch in self.scale and column not in self.features else self.default_scale

    @property
    def cuts(self) -> tuple[str, ...]:
        """Every cut on events once, that of all samples first."""
        texts = (self.cut, *(s.cut for s in self.samples))
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature column once, flat ones first."""
        return tuple(dict.fromkeys((*self.flat, *(b for c in self.jagged for b in c.branches))))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderConfig:
    """In which order events come, and in what portions.

    Parameters
    ----------
    mix : ``"sample"``, ``"file"``, or a weight for each sample
    batch_size : events of a global batch
    chunk_size : events that are mixed at a time; rounded up to whole batches
    open_blocks : blocks of a sample that are open at a time; ``None`` chooses as many as hold twice a chunk
    partitions : streams that an epoch's events are dealt to, so that each rank reads its own ones
    max_memory : bytes that reading and mixing may take; as many blocks are open as that allows, if fewer than usual
    """

    mix: Literal["sample", "file"] | Mapping[str, float] = "sample"
    batch_size: int = 1024
    chunk_size: int = 100_000
    shuffle: bool = True
    seed: int = 42
    drop_last: bool = False
    open_blocks: int | None = None
    partitions: int = 4
    max_memory: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """Where decoded blocks are kept.

    Parameters
    ----------
    dir : folder on a local disk; ``None`` keeps them in memory
    max_bytes : never exceeded; the least recently used blocks go first
    """

    dir: str | None
    max_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadConfig:
    """How events are read: nothing here changes which events come, nor their order.

    Parameters
    ----------
    num_workers : reading processes; 0 reads in threads
    prefetch : slabs of batches that are made ahead of time
    patience : seconds during which a remote file that fails is tried again
    deadline : seconds that one attempt to read a block of a remote file may take
    cache : where decoded blocks are kept
    """

    num_workers: int = 0
    prefetch: int = 2
    patience: float = 120.0
    deadline: float = 60.0
    cache: CacheConfig | None = None


_BY_CLASS: dict[type, frozenset[str]] = {
    DataConfig: frozenset({"specs", "inputs"}),
    OrderConfig: frozenset({"order"}),
    ReadConfig: frozenset(),
}
READING = (*(f.name for f in dataclasses.fields(ReadConfig)), "pin_memory", "scheduler", "specs")
"""Options that change how events are read, not which; the last ones are the data module's own."""


def described(config: DataConfig | OrderConfig, *what: str) -> dict[str, Any]:
    """Return the options that decide something, as primitives.

    Parameters
    ----------
    what : any of ``specs``, ``files``, ``inputs`` and ``order``, see :data:`DECIDES`
    """
    plain = _described(config, frozenset(what), _BY_CLASS[type(config)])
    return plain if isinstance(plain, dict) else {}


def _described(value: Any, what: frozenset[str], usual: frozenset[str]) -> Any:
    if dataclasses.is_dataclass(value):
        found = {f.name: f.metadata.get(DECIDES, usual) for f in dataclasses.fields(value)}
        return {n: _described(getattr(value, n), what, usual) for n, decided in found.items() if decided & what}
    if isinstance(value, Mapping):
        return {str(k): _described(v, what, usual) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(v, what, usual) for v in value]
    return value


def parse_data(options: Mapping[str, Any]) -> DataConfig:
    """Check the options that say what an event is.

    Parameters
    ----------
    options : the keyword arguments of ``RootDataModule`` that :class:`DataConfig` knows

    Raises
    ------
    ConfigError
        For an unknown key (with the nearest known ones), a wrong type or a value out of range.
    ExpressionError
        For an expression that does not parse.
    """
    known = [f.name for f in dataclasses.fields(DataConfig) if f.name != "default_scale"]
    values.reject_unknown(options, known, where="the data options")
    samples = _samples(options.get("samples"))
    derived = _derived(options.get("derived"))
    flat = values.names(options.get("flat"), "flat")
    jagged = _collections(options.get("jagged"))
    if not flat and not jagged:
        raise ConfigError("no features: got neither flat nor jagged branches; name at least one branch in either")
    default, scale = _scale(options.get("scale", "standard"), (*flat, *(b for c in jagged for b in c.branches)))
    label = _expression(options.get("label"), "label")
    classes = _classes(options.get("classes"))
    if label is None:
        _check_labels(samples, classes)
    return DataConfig(
        samples=samples,
        flat=flat,
        jagged=jagged,
        derived=derived,
        cut=_expression(options.get("cut"), "cut"),
        label=label,
        weight=_weight(options.get("weight"), "weight"),
        classes=classes,
        layout=values.choice(options.get("layout", "vector"), LAYOUTS, "layout"),
        scale=scale,
        default_scale=default,
        missing=tuple(values.number(m, "missing") for m in values.listed(options.get("missing"), "missing")),
        pad=values.number(options.get("pad", 0.0), "pad"),
        fraction=_fraction(options.get("fraction", 1.0)),
        on_bad_file=values.choice(options.get("on_bad_file", "error"), ON_BAD_FILE, "on_bad_file"),
        split=_split(options.get("split", {"train": 0.64, "val": 0.16, "test": 0.2})),
    )


def parse_order(options: Mapping[str, Any], *, samples: Sequence[str]) -> OrderConfig:
    """Check the options that say in which order events come.

    Parameters
    ----------
    options : the keyword arguments of ``RootDataModule`` that :class:`OrderConfig` knows
    samples : names of the samples, which a mapping ``mix`` must name

    Raises
    ------
    ConfigError
        For an unknown key, a wrong type or a value out of range.
    """
    values.reject_unknown(options, [f.name for f in dataclasses.fields(OrderConfig)], where="the order options")
    given = {k: v for k, v in options.items() if v is not None}
    open_blocks, max_memory = given.get("open_blocks"), given.get("max_memory")
    if open_blocks is not None and max_memory is not None:
        raise ConfigError("open_blocks, max_memory: got both; max_memory chooses open_blocks: leave one out")
    return OrderConfig(
        mix=_mix(given.get("mix", "sample"), samples),
        batch_size=values.positive(given.get("batch_size", 1024), "batch_size"),
        chunk_size=values.positive(given.get("chunk_size", 100_000), "chunk_size"),
        shuffle=values.typed(given.get("shuffle", True), bool, "shuffle"),
        seed=values.natural(given.get("seed", 42), "seed"),
        drop_last=values.typed(given.get("drop_last", False), bool, "drop_last"),
        open_blocks=None if open_blocks is None else values.positive(open_blocks, "open_blocks"),
        partitions=values.positive(given.get("partitions", 4), "partitions"),
        max_memory=None if max_memory is None else values.positive(max_memory, "max_memory"),
    )


def parse_read(options: Mapping[str, Any]) -> ReadConfig:
    """Check the options that say how events are read.

    Parameters
    ----------
    options : the keyword arguments of ``RootDataModule`` that :class:`ReadConfig` knows

    Raises
    ------
    ConfigError
        For an unknown key, a wrong type or a value out of range.
    """
    values.reject_unknown(options, [f.name for f in dataclasses.fields(ReadConfig)], where="the reading options")
    given = {k: v for k, v in options.items() if v is not None}
    cache = _cache(given.get("cache"))
    if cache is not None and cache.dir is None and given.get("num_workers"):
        raise ConfigError(
            "cache: 'memory' belongs to one process, and num_workers reads in others; set num_workers=0, or give the "
            "cache a folder, {'dir': ...}"
        )
    return ReadConfig(
        num_workers=values.natural(given.get("num_workers", 0), "num_workers", most=_most_workers()),
        prefetch=values.natural(given.get("prefetch", 2), "prefetch", most=MOST_PREFETCHED),
        patience=values.seconds(given.get("patience", 120.0), "patience"),
        deadline=values.seconds(given.get("deadline", 60.0), "deadline"),
        cache=cache,
    )


def _most_workers() -> int:
    """Return how many reading processes make sense at most: some more than there are processors."""
    return max(16, 4 * (os.cpu_count() or 1))


def _cache(value: Any) -> CacheConfig | None:
    if value is None or isinstance(value, CacheConfig):
        return value
    if value == "memory":
        return CacheConfig(dir=None, max_bytes=CACHE_IN_MEMORY)
    if isinstance(value, str):
        raise ConfigError(f"cache: got {value!r}; allowed: 'memory', or {{'dir': ..., 'max_bytes': ...}}")
    table = values.mapping(value, "cache", "'memory', or {'dir': '/scratch/me/blocks', 'max_bytes': 50_000_000_000}")
    values.reject_unknown(table, ["dir", "max_bytes"], where="cache")
    folder = table.get("dir")
    default = CACHE_IN_MEMORY if folder is None else CACHE_ON_DISK
    return CacheConfig(
        dir=None if folder is None else values.path(folder, "cache.dir"),
        max_bytes=values.positive(table.get("max_bytes") or default, "cache.max_bytes"),
    )


def _samples(value: Any) -> tuple[Sample, ...]:
    table = values.mapping(value, "samples", "{'ttH': {'files': 'ttH*.root', 'label': 1}, ...}")
    if not table:
        raise ConfigError("no samples: got an empty mapping; name at least one, {'ttH': {'files': 'ttH*.root'}}")
    return tuple(_sample(str(name), options) for name, options in table.items())


def _sample(name: str, value: Any) -> Sample:
    where = f"samples.{name}"
    options = _fields(value, Sample) if not isinstance(value, Mapping) else value
    options = {"files": value} if options is None else options
    values.reject_unknown(options, ["files", "tree", "label", "cut", "weight"], where=where)
    files = tuple(_file(f, f"{where}.files") for f in values.listed(options.get("files"), f"{where}.files"))
    if not files:
        raise ConfigError(f"{where}.files is empty: give a path, a glob or a list of those")
    tree, label = options.get("tree"), options.get("label")
    return Sample(
        name=name,
        files=files,
        tree=None if tree is None else values.typed(tree, str, f"{where}.tree"),
        label=None if label is None else values.natural(label, f"{where}.label"),
        cut=_expression(options.get("cut"), f"{where}.cut"),
        weight=_weight(options.get("weight"), f"{where}.weight"),
    )


def _file(value: Any, where: str) -> str | tuple[str, ...]:
    """Check a path, or a list of paths at which copies of one file lie."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise ConfigError(f"{where}: got an empty list of replicas; name at least one place of the file")
        return tuple(values.path(v, where) for v in value)
    return values.path(value, where)


def _collections(value: Any) -> tuple[Collection, ...]:
    table = values.mapping(value or {}, "jagged", "{'jets': {'branches': ['Jet_pt', ...], 'length': 10}}")
    return tuple(_collection(str(name), options) for name, options in table.items())


def _collection(name: str, value: Any) -> Collection:
    where = f"jagged.{name}"
    if name in TAKEN or name.endswith("mask") or not name.isidentifier():
        raise ConfigError(
            f"{where}: a collection's name becomes a key of the batch; {name!r} is taken or no plain word"
        )
    options = _fields(value, Collection) if not isinstance(value, Mapping) else value
    options = {"branches": value} if options is None else options
    values.reject_unknown(options, ["branches", "length", "sort", "cut"], where=where)
    branches = values.names(options.get("branches"), f"{where}.branches")
    if not branches:
        raise ConfigError(f"{where}.branches is empty: name the jagged branches of the collection")
    length = options.get("length", "auto")
    if length != "auto":
        length = values.positive(length, f"{where}.length", or_else=" or 'auto'")
    sort = options.get("sort")
    if sort is not None:
        parse(values.typed(sort, str, f"{where}.sort").removeprefix("-"), where=f"{where}.sort")
    cut = _expression(options.get("cut"), f"{where}.cut")
    return Collection(name=name, branches=branches, length=length, sort=sort, cut=cut)


def _derived(value: Any) -> dict[str, str]:
    table = values.mapping(value or {}, "derived", "{'ht': 'sum(Jet_pt)'}")
    for name, text in table.items():
        parse(values.typed(text, str, f"derived.{name}"), where=f"derived.{name}")
    return {str(name): text for name, text in table.items()}


def _classes(value: Any) -> tuple[str, ...]:
    if value is None:
        return ("background", "signal")
    classes = tuple(str(c) for c in values.listed(value, "classes"))
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ConfigError(f"classes: got {list(classes)}; needs at least two different names, class 0 first")
    return classes


def _check_labels(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    labelled = [s for s in samples if s.label is not None]
    if labelled and len(labelled) < len(samples):
        name = next(s.name for s in samples if s.label is None)
        raise ConfigError(f"samples.{name}.label is missing while other samples have one; give each its class number")
    for sample in labelled:
        if sample.label is not None and sample.label >= len(classes):
            allowed = ", ".join(f"{i} ({c})" for i, c in enumerate(classes))
            raise ConfigError(
                f"samples.{sample.name}.label is {sample.label}; allowed: {allowed}; or declare more in `classes`"
            )


def _scale(value: Any, features: Sequence[str]) -> tuple[Scaling, dict[str, Scaling]]:
    if not isinstance(value, Mapping):
        return _scaling(value, "scale"), {}
    table = {str(k): _scaling(v, f"scale.{k}") for k, v in value.items()}
    default = table.pop("default", Scaling(kind="standard"))
    elements = [k for k in table if k.rsplit("[", 1)[0] in features and re.search(r"\[\d+\]$", k)]
    values.reject_unknown(table, [*features, *elements, "default"], where="scale")
    return default, table


def _scaling(value: Any, where: str) -> Scaling:
    if isinstance(value, Scaling):
        value = {"shift": value.shift, "factor": value.factor} if value.kind == "given" else value.kind
    if isinstance(value, Mapping):
        values.reject_unknown(value, ["shift", "factor"], where=where)
        shift, factor = (values.number(value.get(k, d), f"{where}.{k}") for k, d in (("shift", 0.0), ("factor", 1.0)))
        if not factor:
            raise ConfigError(f"{where}.factor is 0, which would make every value the same; give another number")
        return Scaling(kind="given", shift=shift, factor=factor)
    return Scaling(kind=values.choice(value if value is not None else "none", SCALINGS, where))


def _split(value: Any) -> Split:
    if isinstance(value, Split):
        value = dataclasses.asdict(value)
    table = dict(values.mapping(value, "split", "{'train': 0.64, 'val': 0.16, 'test': 0.2}"))
    values.reject_unknown(table, ["by", *PARTS], where="split")
    parts = {p: table.get(p) for p in PARTS}
    by = table.get("by")
    if by is None:
        by = "files" if any(isinstance(v, (str, list, tuple)) for v in parts.values()) else "hash"
    if by == "files":
        return Split(by="files", **{p: values.names(v, f"split.{p}") for p, v in parts.items()})
    if values.typed(by, str, "split.by") in {"hash", "entries"}:
        return Split(by=by, **_shares(parts))
    parse(by, where="split.by")
    return Split(by=by, **_split_values(parts))


def _shares(parts: Mapping[str, Any]) -> dict[str, float]:
    shares = {p: values.number(v if v is not None else 0.0, f"split.{p}") for p, v in parts.items()}
    total = math.fsum(shares.values())
    if min(shares.values()) < 0 or abs(total - 1.0) > 1e-6:
        shown = ", ".join(f"{p}={s:g}" for p, s in shares.items())
        raise ConfigError(f"split: got {shown}, which add up to {total:g}; shares are positive and add up to 1")
    return shares


def _split_values(parts: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    given = {p: None if v is None else values.integers(v, f"split.{p}") for p, v in parts.items()}
    rest = [p for p, v in given.items() if v is None]
    if given["train"] is not None or len(rest) > 1:
        given = {p: v if v is not None or p == "train" else () for p, v in given.items()}
    listed = [i for v in given.values() if v for i in v]
    twice = sorted({i for i in listed if listed.count(i) > 1})
    if twice:
        raise ConfigError(f"split: the value {twice[0]} is in two parts; each value belongs to one part")
    return given


def _fraction(value: Any) -> float:
    fraction = values.number(value, "fraction")
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"fraction: got {fraction:g}; expected a share of the blocks, above 0 and at most 1")
    return fraction


def _mix(value: Any, samples: Sequence[str]) -> Literal["sample", "file"] | dict[str, float]:
    if not isinstance(value, Mapping):
        return (
            "file"
            if values.choice(value, ("sample", "file"), "mix", or_else=" or a weight for each sample") == "file"
            else "sample"
        )
    values.reject_unknown(value, list(samples), where="mix")
    weights = {s: values.number(value.get(s, 0.0), f"mix.{s}") for s in samples}
    absent = [s for s in samples if s not in value]
    if absent:
        raise ConfigError(f"mix: no weight for sample {absent[0]!r}; give each sample one (0 leaves it out)")
    if min(weights.values()) < 0 or not sum(weights.values()):
        raise ConfigError(f"mix: got {weights}; weights are 0 or more, and at least one is positive")
    return weights


def _expression(value: Any, where: str) -> str | None:
    if value is None:
        return None
    parse(values.typed(value, str, where), where=where)
    return str(value)


def _weight(value: Any, where: str) -> str | float | None:
    return values.number(value, where) if isinstance(value, (int, float)) else _expression(value, where)


def _fields(value: Any, kind: type[Sample | Collection]) -> dict[str, Any] | None:
    """Take a ready-made part apart, so that it is checked like a plain one; None for anything else."""
    if not isinstance(value, kind):
        return None
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(kind) if f.name != "name"}
