"""What an event is: samples, features, cuts, label, weight, split, layout and scaling. It decides the specs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from rootdata.errors import ConfigError
from rootdata.expressions.grammar import parse as parse_expression
from rootdata.expressions.vocabulary import ENTRY
from rootdata.missing import Sentinels, sentinels_of
from rootdata.options import typed, values, weighting
from rootdata.options.image import ImageConfig, check_onto, completed, expressions_of, parse_image, reduction_of
from rootdata.options.typed import option
from rootdata.options.weighting import Reweight, WeightSource
from rootdata.registry import FORMS, LAYOUTS, SCALINGS

T = TypeVar("T")

PARTS = ("train", "val", "test")
TAKEN = ("x", "flat", "label", "weight", "index", "events", "scores", "targets")  # in batches, and in exported graphs
ON_BAD_FILE = ("error", "skip")
FEWEST_FOLDS = 3
SPLIT_KINDS = ("hash", "entries", "files")  # what a split goes by where it is no expression

MOST = 1 << 40  # objects of an event; none has so many
TARGETS = "targets"  # key of a batch
OBSERVED = "observers/"  # what the keys of a batch with observers begin with
VARIED = "variations/"  # the same of weights under variations
NOMINAL = "nominal"
TARGET_SCALES = ("standard", "minmax", "robust", "log", "none")

PartName = Literal["train", "val", "test"]


def _expression(value: Any, where: str) -> str | None:
    return None if value is None else _required_expression(value, where)


def _required_expression(value: Any, where: str) -> str:
    parse_expression(values.typed(value, str, where), where=where)
    return str(value)


# Samples


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    return tuple(values.number(m, where) for m in values.listed(value, where))


def _files(value: Any, where: str) -> tuple[str | tuple[str, ...], ...]:
    files = tuple(_file(one, where) for one in values.listed(value, where))
    if not files:
        raise ConfigError(f"{where} is empty: give a path, a glob or a list of those")
    return files


def _file(value: Any, where: str) -> str | tuple[str, ...]:
    """Check a path, or a list of paths at which copies of one file lie."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise ConfigError(f"{where}: got an empty list of replicas; name at least one place of the file")
        return tuple(values.path(v, where) for v in value)
    return values.path(value, where)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FriendFiles:
    """Files with trees that are read beside those of a sample.

    Parameters
    ----------
    files : paths, URLs, globs, folders, ``path:tree``
    alias : what their branches are called by, ``alias.branch``; empty for the name of their tree
    """

    files: tuple[str, ...]
    alias: str = ""


def _friends(value: Any, where: str) -> tuple[FriendFiles, ...]:
    if isinstance(value, (list, tuple)) and any(isinstance(one, FriendFiles) for one in value):
        return tuple(value)  # taken apart from a sample that was checked
    if isinstance(value, Mapping):
        return tuple(FriendFiles(files=_paths(v, f"{where}.{k}"), alias=str(k)) for k, v in value.items())
    return (FriendFiles(files=_paths(value, where)),) if value else ()


def _paths(value: Any, where: str) -> tuple[str, ...]:
    return tuple(values.path(one, where) for one in values.listed(value, where))


def _own_parameters(value: Any, where: str) -> tuple[tuple[str, str | float], ...]:
    table = values.mapping(dict(value) if isinstance(value, tuple) else value or {}, where, "{'mass': 500}")
    found = {str(name): weighting.weight(one, f"{where}.{name}") for name, one in table.items()}
    return tuple((name, one) for name, one in found.items() if one is not None)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A physics process and its files.

    Parameters
    ----------
    files : paths, URLs, globs, folders, ``path:tree`` or lists of those; a tuple in it holds replicas of one file
    tree : name of the tree, where a file holds several
    label : class number of every event of the sample
    cut : expression; events where it is false are left out
    weight : number or expression that multiplies the weight of every event
    cross_section : in pb; or ``data`` for recorded events, which have none
    luminosity : in fb^-1; by default that of all samples
    sum_of_weights : where the sum of its generator weights stands; by default as for all samples
    parameters : name of a parameter to its value in the sample, a number or an expression
    friends : files with trees that are read beside those of ``files``, entry by entry; or name to files of such
    """

    name: str
    files: tuple[str | tuple[str, ...], ...] = option(_files, decides=())  # what was found is compared
    tree: str | None = option(values.text, None, is_optional=True)
    label: int | None = option(values.natural, None, is_optional=True)
    cut: str | None = option(_expression, None)
    weight: str | float | None = option(weighting.weight, None)
    cross_section: float | Literal["data"] | None = option(weighting.cross_section, None, is_silent=True)
    luminosity: float | None = option(weighting.positive, None, is_silent=True)
    sum_of_weights: WeightSource | None = option(weighting.weight_source, None, is_silent=True)
    parameters: tuple[tuple[str, str | float], ...] = option(
        _own_parameters, (), takes=Mapping[str, Any] | None, is_silent=True
    )
    friends: tuple[FriendFiles, ...] = option(_friends, (), decides=())  # as of files


def is_normalised(sample: Sample) -> bool:
    """Say whether a sample is weighted to a luminosity."""
    return isinstance(sample.cross_section, float)


def _samples(value: Any, where: str) -> tuple[Sample, ...]:
    table = values.mapping(value, where, "{'ttH': {'files': 'ttH*.root', 'label': 1}, ...}")
    if not table:
        raise ConfigError("no samples: got an empty mapping; name at least one, {'ttH': {'files': 'ttH*.root'}}")
    return tuple(_named(Sample, name, one, where, short="files") for name, one in table.items())


def _named(kind: Any, name: Any, value: Any, where: str, *, short: str) -> Any:
    """Make a named object of its options, of a ready-made one, or of the one option that may stand alone."""
    place = f"{where}.{name}"
    if isinstance(value, kind):  # taken apart, so that it is checked like a plain one
        value = {option: getattr(value, option) for option in typed.names_of(kind)}
    plain = value if isinstance(value, Mapping) else {short: value}
    return typed.parse(kind, plain, where=place, prefix=f"{place}.", name=str(name))


# Features


def _length(value: Any, where: str) -> int | Literal["auto"]:
    return "auto" if value == "auto" else values.positive(value, where, or_else=" or 'auto'")


def _branches(value: Any, where: str) -> tuple[str, ...]:
    branches = values.names(value, where)
    if not branches:
        raise ConfigError(f"{where} is empty: name the jagged branches of the collection")
    return branches


def _sort(value: Any, where: str) -> str | None:
    if value is None:
        return None
    parse_expression(values.typed(value, str, where).removeprefix("-"), where=where)
    return str(value)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Jagged branches that share their counts.

    Parameters
    ----------
    branches : names of branches or derived columns, the features of an object
    length : objects kept per event, or ``"auto"``: the smallest length that keeps 99.9 % of all objects; of the form
        ``jagged`` all of them
    sort : column that orders the objects, descending with a leading ``-``
    cut : expression with one value an object; objects where it is false are left out
    form : ``tokens``, ``wrapped``, ``image``, ``jagged``, or the dotted name of a class of one's own; by default that
        of ``layout``
    image : how it is drawn where its form is ``image``, see :class:`rootdata.options.image.ImageConfig`
    """

    name: str
    branches: tuple[str, ...] = option(_branches)
    length: int | Literal["auto"] = option(_length, "auto", decides=("inputs",))
    sort: str | None = option(_sort, None)
    cut: str | None = option(_expression, None)
    form: str | None = option(FORMS.check, None, is_optional=True, decides=("inputs",))
    image: ImageConfig | None = option(parse_image, None, decides=("inputs",))


def _collections(value: Any, where: str) -> tuple[Collection, ...]:
    table = values.mapping(value or {}, where, "{'jets': {'branches': ['Jet_pt', ...], 'length': 10}}")
    for name in map(str, table):
        if name in TAKEN or name.endswith(("mask", "offsets")) or not name.isidentifier():
            raise ConfigError(
                f"{where}.{name}: a collection's name becomes a key of the batch; {name!r} is taken or no plain word"
            )
    return tuple(_named(Collection, name, one, where, short="branches") for name, one in table.items())


def _derived(value: Any, where: str) -> dict[str, str]:
    table = values.mapping(value or {}, where, "{'ht': 'sum(Jet_pt)'}")
    for name, text in table.items():
        parse_expression(values.typed(text, str, f"{where}.{name}"), where=f"{where}.{name}")
    return {str(name): text for name, text in table.items()}


def _classes(value: Any, where: str) -> tuple[str, ...]:
    classes = tuple(str(c) for c in values.listed(value, where))
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ConfigError(f"{where}: got {list(classes)}; needs at least two different names, class 0 first")
    return classes


# Scaling


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How the values of one column become network inputs: ``(curve(x) - shift) * factor``.

    Parameters
    ----------
    kind : ``standard``, ``minmax``, ``robust``, ``log``, ``uniform``, ``normal``, ``none``, one of somebody's own
        (learnt from training events), or ``given``
    shift, factor : used as they are where ``kind`` is ``given``
    """

    kind: str
    shift: float = 0.0
    factor: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TakenScaling(Scaling):
    """A scaling that was learnt before, in numbers; ``kind`` is ``given``.

    Parameters
    ----------
    log : whether it bends values by ``sign(x) log(1 + |x|)``
    knots, heights : of the straight lines that it bends them by; empty without
    clip : size at which scaled values are cut off
    place : where it was taken from
    is_known : False stands for a feature that was not there
    """

    place: str
    log: bool = False
    knots: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()
    clip: float | None = None
    is_known: bool = True


STANDARD = Scaling(kind="standard")
FROM, FOUND = "from", "taken"  # keys of ``scale``: a bundle, and the numbers that were found there


def _scale(value: Any, where: str) -> dict[str, Scaling]:
    if not isinstance(value, Mapping):
        return {"default": _scaling(value, where)}
    if FROM in value:
        return _scale_from(value, where)
    return {"default": STANDARD, **{str(k): _scaling(v, f"{where}.{k}") for k, v in value.items()}}


def _scale_from(value: Mapping[str, Any], where: str) -> dict[str, Scaling]:
    """Take the numbers of a bundle, and beside them what is said of single features."""
    place = str(value[FROM])
    if FOUND not in value:
        raise ConfigError(f"{where}.{FROM}={place} stands alone; rootdata.scan.taken.with_taken_scale looks it up")
    taken = {str(k): _taken_scaling(v, f"{where}.{FOUND}.{k}", place) for k, v in value[FOUND].items()}
    own = {str(k): _scaling(v, f"{where}.{k}") for k, v in value.items() if k not in {FROM, FOUND}}
    return {"default": TakenScaling(kind="given", place=place, is_known=False), **taken, **own}


def _taken_scaling(value: Any, where: str, place: str) -> TakenScaling:
    plain = values.mapping(value, where, "{'shift': 0.0, 'factor': 1.0}")
    values.reject_unknown(plain, ["shift", "factor", "log", "knots", "heights", "clip"], where=where)
    knots, heights = (
        tuple(values.number(v, f"{where}.{k}") for v in values.listed(plain.get(k), f"{where}.{k}"))
        for k in ("knots", "heights")
    )
    return TakenScaling(
        kind="given", place=place, log=values.flag(plain.get("log", False), f"{where}.log"), knots=knots,
        heights=heights, clip=None if plain.get("clip") is None else _size(plain["clip"], f"{where}.clip"),
        shift=values.number(plain.get("shift", 0.0), f"{where}.shift"),
        factor=values.number(plain.get("factor", 1.0), f"{where}.factor"),
    )  # fmt: skip


def _by_feature(check: Callable[[Any, str], float], value: Any, where: str) -> float | Mapping[str, float]:
    """Check a number for all features, or one for each and a ``default``."""
    if isinstance(value, Mapping):
        return {str(k): check(v, f"{where}.{k}") for k, v in value.items()}
    return check(value, where)


def _pad(value: Any, where: str) -> float | Mapping[str, float]:
    return _by_feature(_pad_value, value, where)


def _pad_value(value: Any, where: str) -> float:
    """Return a finite number, or NaN: the one object of it, so that equal options are equal."""
    if value == "nan" or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    return values.number(value, where)


def _clip(value: Any, where: str) -> float | Mapping[str, float] | None:
    return None if value is None else _by_feature(_size, value, where)


def _size(value: Any, where: str) -> float:
    size = values.number(value, where)
    if not size > 0:
        raise ConfigError(f"{where}: got {size:g}; expected the largest size of a scaled value, above 0")
    return size


def _scaling(value: Any, where: str) -> Scaling:
    if isinstance(value, Scaling):
        value = {"shift": value.shift, "factor": value.factor} if value.kind == "given" else value.kind
    if isinstance(value, Mapping):
        values.reject_unknown(value, ["shift", "factor"], where=where)
        shift, factor = (values.number(value.get(k, d), f"{where}.{k}") for k, d in (("shift", 0.0), ("factor", 1.0)))
        if not factor:
            raise ConfigError(f"{where}.factor is 0, which would make every value the same; give another number")
        return Scaling(kind="given", shift=shift, factor=factor)
    return Scaling(kind=SCALINGS.check(value if value is not None else "none", where))


def _target_scale(value: Any, where: str) -> Scaling:
    """Take a scaling that can be undone in a graph."""
    scaling = _scaling(value, where)
    if scaling.kind != "given":
        values.choice(scaling.kind, TARGET_SCALES, where, or_else=", {'shift': ..., 'factor': ...}")
    return scaling


# Targets and observers


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TargetColumn:
    """A number that a network learns to predict.

    Parameters
    ----------
    value : expression with one number an event
    scale : how it becomes what the network is trained on: a name of :data:`TARGET_SCALES`, or given in numbers
    unit : of the value, for bundles
    """

    name: str
    value: str = option(_required_expression)
    scale: Scaling = option(_target_scale, makes=lambda: STANDARD, shown="standard", takes=str | Mapping[str, float])
    unit: str | None = option(values.text, None, is_optional=True, decides=())


def _targets(value: Any, where: str) -> tuple[TargetColumn, ...]:
    table = values.mapping(value or {}, where, "{'mass': 'GenHiggs_mass'}")
    for name in map(str, table):
        if not name.isidentifier():
            raise ConfigError(f"{where}.{name}: a target's name becomes that of a column; {name!r} is no plain word")
    return tuple(_named(TargetColumn, name, one, where, short="value") for name, one in table.items())


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Observer:
    """A column that goes with the events and is no input.

    Parameters
    ----------
    value : branch, derived column or expression with one number an event
    """

    name: str
    value: str


def _observers(value: Any, where: str) -> tuple[Observer, ...]:
    table = value if isinstance(value, Mapping) else {text: text for text in values.names(value, where)}
    return tuple(
        Observer(name=str(name), value=_required_expression(text, f"{where}.{name}")) for name, text in table.items()
    )


# Parameters


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A hypothesis that is an input: known of some events, drawn for all others.

    Parameters
    ----------
    value : expression with one number an event, of the events that have one; samples may give their own
    classes : names of the classes that have a value; by default all but class 0
    values : numbers to draw from, each as likely; by default the values of training events, as often as they come
    """

    name: str
    value: str | None = option(_expression, None)
    classes: tuple[str, ...] = option(values.names, ())
    values: tuple[float, ...] = option(_numbers, ())

    def labels(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of the classes that have a value.

        Parameters
        ----------
        classes : names by number
        """
        return tuple(i for i, name in enumerate(classes) if (name in self.classes if self.classes else i > 0))


def _parameters(value: Any, where: str) -> tuple[Parameter, ...]:
    table = values.mapping(value or {}, where, "{'mass': 'GenX_mass'}")
    return tuple(_named(Parameter, name, one, where, short="value") for name, one in table.items())


# Split


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """How events are dealt to train, val and test.

    Parameters
    ----------
    by : ``"hash"`` (of file and entry), ``"entries"`` (ranges of every file), ``"files"``, or an integer expression
    train, val, test : a share in [0, 1], or for an expression the values that belong to the part (``None``: all
        others), or for files the patterns of their paths
    folds : how many there are of the hash, where it deals to folds: the parts have their numbers then
    """

    by: str
    train: Any
    val: Any
    test: Any
    folds: int | None = option(values.positive, None, is_silent=True)


def _split(value: Any, where: str) -> Split:
    if isinstance(value, Split):
        value = dataclasses.asdict(value)
    table = dict(values.mapping(value, where, "{'train': 0.64, 'val': 0.16, 'test': 0.2}"))
    values.reject_unknown(table, ["by", "folds", *PARTS], where=where)
    parts = {p: table.get(p) for p in PARTS}
    by = table.get("by")
    if table.get("folds") is not None:  # as a fold of the hash is described
        return dataclasses.replace(
            _dealt("hash", _split_values(parts, where)), folds=_fold_count(table["folds"], f"{where}.folds")
        )
    if by is None:
        by = "files" if any(isinstance(v, (str, list, tuple)) for v in parts.values()) else "hash"
    if by == "files":
        return _dealt("files", {p: values.names(v, f"{where}.{p}") for p, v in parts.items()})
    if values.typed(by, str, f"{where}.by") in {"hash", "entries"}:
        return _dealt(by, _shares(parts, where))
    parse_expression(by, where=f"{where}.by")
    return _dealt(by, _split_values(parts, where))


def _dealt(by: str, parts: Mapping[str, Any]) -> Split:
    return Split(by=by, train=parts["train"], val=parts["val"], test=parts["test"])


def _shares(parts: Mapping[str, Any], where: str) -> dict[str, float]:
    shares = {p: values.number(v if v is not None else 0.0, f"{where}.{p}") for p, v in parts.items()}
    total = math.fsum(shares.values())
    if min(shares.values()) < 0 or abs(total - 1.0) > 1e-6:
        shown = ", ".join(f"{p}={s:g}" for p, s in shares.items())
        raise ConfigError(f"{where}: got {shown}, which add up to {total:g}; shares are positive and add up to 1")
    return shares


def _split_values(parts: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...] | None]:
    given = {p: None if v is None else values.integers(v, f"{where}.{p}") for p, v in parts.items()}
    rest = [p for p, v in given.items() if v is None]
    if given["train"] is not None or len(rest) > 1:
        given = {p: v if v is not None or p == "train" else () for p, v in given.items()}
    listed = [i for v in given.values() if v for i in v]
    twice = sorted({i for i in listed if listed.count(i) > 1})
    if twice:
        raise ConfigError(f"{where}: the value {twice[0]} is in two parts; each value belongs to one part")
    return given


# Folds


def _fold_count(value: Any, where: str) -> int:
    if values.integer(value, where) < FEWEST_FOLDS:
        raise ConfigError(
            f"{where}: got {value}; expected {FEWEST_FOLDS} or more: one tests the network, the next one validates "
            "it, and it is trained on the others"
        )
    return int(value)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """How events are dealt to folds, each of which is tested by a network that is trained without it.

    Parameters
    ----------
    count : of the folds, 3 or more
    by : expression with one whole number an event, of which the remainder by ``count`` is the fold; by default a hash
        of file and entry
    """

    count: int = option(_fold_count)
    by: str | None = option(_expression, None)

    @property
    def expression(self) -> str | None:
        """The number of the fold, 0 to ``count - 1``, as an expression; ``None`` where the hash decides."""
        return None if self.by is None else f"({self.by}) % {self.count}"

    def split(self, fold: int) -> Split:
        """Say which events belong to train, val and test where a fold is tested."""
        is_hashed = self.expression is None
        return Split(
            by=self.expression or "hash",
            train=None,
            val=((fold + 1) % self.count,),
            test=(fold,),
            folds=self.count if is_hashed else None,
        )

    def lack(self, fold: int, part: str, what: str) -> str:
        """Say that a part has no events of some kind where a fold is tested, and what would help.

        Parameters
        ----------
        fold : that is tested
        part : ``train``, ``val`` or ``test``
        what : that it lacks, such as ``events``
        """
        own = {"test": f"fold {fold}", "val": f"fold {(fold + 1) % self.count}"}
        by = "the hash of file and entry" if self.by is None else repr(self.by)
        return (
            f"folds: {own.get(part, f'the training part of fold {fold}')} has no {what}; take fewer than {self.count}, "
            f"or another expression than {by}"
        )


def parse_folds(value: Any, where: str) -> Folds | None:
    """Check how events are dealt to folds; ``None`` stands for no folds."""
    if value is None or isinstance(value, Folds):
        return value
    plain = value if isinstance(value, Mapping) else {"count": value}
    if "count" not in plain:
        raise ConfigError(f"{where}: got {dict(plain)!r}; expected how many, such as 5 or {{count: 5, by: event % 5}}")
    return typed.parse(Folds, plain, where=where, prefix=f"{where}.")


# All of it


def _missing(value: Any, where: str) -> Sentinels:
    """Check numbers for all branches, or those of each and a ``default``."""
    if not isinstance(value, Mapping):
        return tuple(values.number(m, where) for m in values.listed(value, where))
    table = {str(k): tuple(values.number(m, f"{where}.{k}") for m in values.listed(v, f"{where}.{k}"))
             for k, v in sorted(value.items())}  # fmt: skip
    return table if set(table) - {"default"} else table.get("default", ())


def _fraction(value: Any, where: str) -> float:
    fraction = values.number(value, where)
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"{where}: got {fraction:g}; expected a share of the blocks, above 0 and at most 1")
    return fraction


def _balance(value: Any, where: str) -> str | None:
    return None if value is None else values.choice(value, weighting.BALANCES, where)


def _on_bad_file(value: Any, where: str) -> str:
    return values.choice(value, ON_BAD_FILE, where)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What an event is.

    Parameters
    ----------
    samples : name to ``{"files": ..., "tree": ..., "friends": ..., "label": ..., "cut": ..., "weight": ...}``; files
        are paths, URLs, globs, folders, ``path:tree``, lists of those (text or JSON), or several; a list within holds
        places of one file
    flat : branches with one number an event, and fixed-size arrays
    jagged : collection name to ``{"branches": [...], "length": 10 | "auto", "sort": "-Jet_pt", "cut": "Jet_pt > 30"}``,
        with ``"form"`` and ``"image"`` where it is drawn
    derived : new columns as expressions of branches, usable wherever a branch is
    cut : expression; events where it is false are left out
    label : expression that gives the class number of an event; by default the sample's ``label``
    weight : expression or number, multiplied by the sample's
    weights : name of a variation to the weight under it, beside ``nominal``, which stands for ``weight``
    luminosity : in fb^-1, to which samples with a ``cross_section`` are weighted
    sum_of_weights : where the sum of the generator weights of a whole sample stands: a number, ``{"tree": "Runs",
        "branch": "genEventSumw"}``, which is looked for where nothing is given, ``{"histogram": "cutflow", "bin": 0}``
        or ``{"events": "genWeight"}``
    balance : ``classes`` or ``samples`` get the same sum of the sizes of their weights in training events
    reweight : ``{"variables": ["fj_pt", "fj_eta"], "bins": [15, 12], "to": "flat", "cap": 5, "by": "weight"}`` gives
        training events of each class the same distribution: flat, or that of a class or sample
    classes : names of the classes, class 0 first
    targets : numbers to predict, ``{"mass": "GenHiggs_mass"}`` or ``{"mass": {"value": ..., "scale": ..., "unit":
        "GeV"}}``; scaled by ``standard``, ``minmax``, ``robust``, ``log``, ``none``, or as ``{"shift": ..., "factor":
        ...}`` say
    observers : branches, derived columns or expressions that go with the events without being inputs; a list, or name
        to expression
    observe_training : whether training batches hold the observers, too
    parameters : flat inputs that are hypotheses, ``{"mass": "GenX_mass"}`` or ``{"mass": {"value": "GenX_mass",
        "values": [300, 500], "classes": "signal"}}``: of signal its value, for all other events drawn from those
    layout : ``vector``; ``tokens``, ``image`` or ``jagged``, the form of collections that name none; or the dotted name
        of a class of one's own
    scale : ``standard``, ``minmax``, ``robust``, ``log``, ``uniform``, ``normal``, ``none``, the dotted name of a class
        of one's own, or a mapping of columns (and ``default``) to one of these or to ``{"shift": ..., "factor": ...}``;
        ``{"from": bundle}`` takes over that of a trained network
    missing : numbers that stand for "no value", such as -999, in all branches, or a mapping of branches (and
        ``default``) to such numbers; NaN and infinities always do
    quantiles : whether the first pass keeps quantiles of every feature, as encodings of networks need them
    clip : largest size of a scaled value, beyond which it is cut off: a number, or a mapping of columns (and
        ``default``) to one
    pad : what a padded or missing input becomes, after scaling: a number, or a mapping of columns (and ``default``);
        with layout ``vector`` also ``nan``, for trees
    fraction : share of the blocks whose features the first pass reads
    on_bad_file : ``error``, or ``skip``: the first pass leaves files out that can't be read, and says so
    split : shares ``{"train": 0.64, "val": 0.16, "test": 0.2}``, by a hash of file and entry, or with
        ``"by": "entries"`` by ranges of every file; values of an expression,
        ``{"by": "event % 5", "val": [3], "test": [4]}``; or patterns of files, ``{"train": ["*_A.root"], "val": ...}``
    folds : in place of ``split``: how many folds, dealt by a hash of file and entry, or by the remainder of a whole
        number, ``{"count": 5, "by": "event"}``
    fold : number of the one that is tested, from 0; the next one validates, all others train
    """

    samples: tuple[Sample, ...] = option(_samples, takes=Mapping[str, Any], decides=("specs",))
    flat: tuple[str, ...] = option(values.names, (), takes=Sequence[str])
    jagged: tuple[Collection, ...] = option(_collections, (), takes=Mapping[str, Any] | None)
    derived: Mapping[str, str] = option(_derived, makes=dict, takes=Mapping[str, str] | None)
    cut: str | None = option(_expression, None, decides=("specs",))
    label: str | None = option(_expression, None, decides=("specs",))
    weight: str | float | None = option(weighting.weight, None, decides=("specs",))
    weights: Mapping[str, str | float] | None = option(
        weighting.variations, None, takes=Mapping[str, str | float] | None, decides=("specs",), is_optional=True,
        is_silent=True,
    )  # fmt: skip
    luminosity: float | None = option(weighting.positive, None, decides=("specs",), is_silent=True)
    sum_of_weights: WeightSource | None = option(
        weighting.weight_source, None, takes=float | Mapping[str, Any] | None, decides=("specs",), is_silent=True
    )
    balance: str | None = option(_balance, None, decides=("specs",), is_silent=True)
    reweight: Reweight | None = option(
        weighting.reweight, None, takes=Mapping[str, Any] | None, decides=("specs",), is_silent=True
    )
    classes: tuple[str, ...] = option(_classes, ("background", "signal"), takes=Sequence[str] | None, is_optional=True)
    targets: tuple[TargetColumn, ...] = option(
        _targets, (), takes=Mapping[str, Any] | None, decides=("specs",), is_silent=True
    )
    observers: tuple[Observer, ...] = option(
        _observers, (), takes=Sequence[str] | Mapping[str, str] | None, decides=("specs",), is_silent=True
    )
    observe_training: bool = option(values.flag, False, decides=())
    parameters: tuple[Parameter, ...] = option(
        _parameters, (), takes=Mapping[str, Any] | None, decides=("specs",), is_silent=True
    )
    layout: str = option(LAYOUTS.check, "vector", decides=("inputs",))
    scale: Mapping[str, Scaling] = option(
        _scale,
        makes=lambda: {"default": STANDARD},
        shown="standard",
        takes=str | Mapping[str, Any],
        decides=("inputs",),
    )
    missing: Sentinels = option(_missing, (), takes=Sequence[float] | Mapping[str, Any] | None, is_optional=True)
    quantiles: bool = option(values.flag, False, decides=())  # specs with more are as good
    clip: float | Mapping[str, float] | None = option(_clip, None, decides=("inputs",), is_silent=True)
    pad: float | Mapping[str, float] = option(_pad, 0.0, decides=("inputs",))
    fraction: float = option(_fraction, 1.0, decides=("specs",))
    on_bad_file: str = option(_on_bad_file, "error", decides=("files",))
    split: Split = option(
        _split,
        makes=lambda: Split(by="hash", train=0.64, val=0.16, test=0.2),
        takes=Mapping[str, Any] | None,
        is_optional=True,
        decides=("specs",),
    )
    folds: Folds | None = option(
        parse_folds, None, takes=int | Mapping[str, Any] | None, decides=()
    )  # the split decides
    fold: int | None = option(values.natural, None, is_optional=True, decides=())

    def scaling_of(self, column: str) -> Scaling:
        """Return the scaling of a column: its own, that of its fixed-size branch, or the default one."""
        return self._of(column, self.scale, STANDARD)

    @property
    def pads_with_nan(self) -> bool:
        """Whether an input that is missing may be NaN."""
        return _has_nan(self.pad)

    def pad_of(self, column: str) -> float:
        """Return what a padded or missing value of a column becomes, after scaling."""
        return self._of(column, self.pad, 0.0) if isinstance(self.pad, Mapping) else self.pad

    def clip_of(self, column: str) -> float | None:
        """Return the largest size of a scaled value of a column; ``None`` where nothing is cut off."""
        return self._of(column, self.clip, None) if isinstance(self.clip, Mapping) else self.clip

    def missing_of(self, branch: str) -> tuple[float, ...]:
        """Return the numbers that stand for "no value" in a branch, or in an element of one."""
        return sentinels_of(self.missing, branch)

    @property
    def sentinels(self) -> tuple[float, ...]:
        """Every number that stands for "no value" in some branch, once."""
        groups = self.missing.values() if isinstance(self.missing, Mapping) else [self.missing]
        return tuple(dict.fromkeys(sentinel for group in groups for sentinel in group))

    def _of(self, column: str, table: Mapping[str, T], usual: T) -> T:
        if column in table:
            return table[column]
        branch = column.rsplit("[", 1)[0]
        is_element = branch in table and column not in self.features
        return table[branch] if is_element else table.get("default", usual)

    def form_of(self, collection: Collection) -> str:
        """Return the form of a collection: its own, or that of the layout."""
        return collection.form or (self.layout if self.layout in FORMS.names() else "tokens")

    def keeps_all(self, collection: Collection) -> bool:
        """Say whether no object of an event is left out, however many there are."""
        return collection.length == "auto" and self.form_of(collection) == "jagged"

    @property
    def images(self) -> dict[str, ImageConfig]:
        """How collections are drawn, of those that are, by name."""
        drawn = ((c.name, c.image) for c in self.jagged if self.form_of(c) == "image")
        return {name: image for name, image in drawn if image is not None}

    @property
    def coordinates(self) -> frozenset[str]:
        """Columns that are nothing but axes of images, and are not scaled."""
        images = self.images
        values = {r[1] for image in images.values() for text in image.channels if (r := reduction_of(text))}
        values |= {b for c in self.jagged if c.name not in images for b in c.branches}
        axes = {str(axis.column) for image in images.values() for axis in (image.x, image.y)}
        return frozenset(axes - values - set(self.flat))

    @property
    def cuts(self) -> tuple[str, ...]:
        """Every cut on events once, that of all samples first."""
        texts = (self.cut, *(s.cut for s in self.samples))
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature column once, flat ones first."""
        return tuple(dict.fromkeys((*self.flat, *(b for c in self.jagged for b in c.branches))))

    @property
    def carried(self) -> tuple[str, ...]:
        """Keys of a batch that hold what goes with the inputs: targets, observers and weights under variations."""
        beside = (*(f"{OBSERVED}{o.name}" for o in self.observers), *(f"{VARIED}{name}" for name in self.variations))
        return (*([TARGETS] if self.targets else []), *beside)

    @property
    def variations(self) -> Mapping[str, str | float]:
        """Name of a variation to what takes the place of ``weight`` under it."""
        return self.weights or {}

    def source_of(self, sample: Sample) -> WeightSource | None:
        """Return where the sum of a sample's generator weights stands; ``None`` where nobody asks for it."""
        return (sample.sum_of_weights or self.sum_of_weights or weighting.OF_RUNS) if is_normalised(sample) else None

    def luminosity_of(self, sample: Sample) -> float | None:
        """Return the luminosity, in fb^-1, that a sample is weighted to."""
        return self.luminosity if sample.luminosity is None else sample.luminosity

    @property
    def every_fold(self) -> tuple[DataConfig, ...]:
        """The same with each of the folds in turn tested; this one alone where there are none."""
        if self.folds is None:
            return (self,)
        folds = range(self.folds.count)
        return tuple(dataclasses.replace(self, fold=fold, split=self.folds.split(fold)) for fold in folds)

    def without_features(self) -> DataConfig:
        """Return what decides which events there are, without what is known of each."""
        return dataclasses.replace(self, flat=(), jagged=(), targets=(), observers=(), parameters=(), weights=None)

    def parameter_of(self, sample: Sample, parameter: Parameter) -> str | float | None:
        """Return what gives a parameter in the events of a sample; ``None`` where none of them has a value."""
        labels = parameter.labels(self.classes)
        if self.label is None and sample.label is not None and sample.label not in labels:
            return None
        return dict(sample.parameters).get(parameter.name, parameter.value)


def parse_data(plain: Mapping[str, Any], *, where: str = "the data options") -> DataConfig:
    """Check the options that say what an event is, each alone and beside the others.

    Parameters
    ----------
    plain : options of :class:`DataConfig`
    where : what holds them, for an error about an unknown one

    Raises
    ------
    ConfigError, ExpressionError
        As :func:`rootdata.options.typed.parse`.
    """
    config = _with_parameters(typed.parse(DataConfig, plain, where=where))
    if not config.flat and not config.jagged:
        raise ConfigError("no features: got neither flat nor jagged branches; name at least one branch in either")
    named, config = config.features, _with_images(config)
    config = dataclasses.replace(config, scale=_of_features(config.scale, {*named, *config.features}))
    for name, table in (("scale", config.scale), ("clip", config.clip), ("pad", config.pad)):
        if isinstance(table, Mapping):
            elements = [k for k in table if k.rsplit("[", 1)[0] in named and re.search(r"\[\d+\]$", k)]
            values.reject_unknown(table, [*named, *config.features, *elements, "default"], where=name)
    if config.layout != "vector" and _has_nan(config.pad):
        raise ConfigError(
            f"pad: got nan with layout {config.layout!r}; trees take NaN as no value, with 'vector'; give a number"
        )
    if config.label is None:
        _check_labels(config.samples, config.classes)
    weighting.check_reference(config.reweight, classes=config.classes, samples=[s.name for s in config.samples])
    _check_normalisation(config)
    return _with_fold(_with_nominal(config), has_split=plain.get("split") is not None)


def _with_fold(config: DataConfig, *, has_split: bool) -> DataConfig:
    """Let the number of the fold say which events belong to which part."""
    folds, fold = config.folds, config.fold
    if folds is None:
        if fold is not None:
            raise ConfigError(f"fold: got {fold} without `folds`; say how many there are, as folds=5")
        return config
    if has_split:
        raise ConfigError(
            "split: given beside `folds`, which say by themselves what is trained and tested; set it to null"
        )
    last = folds.count - 1
    if fold is None:
        raise ConfigError(
            f"folds: got {folds.count}, and no `fold`; name the one that is tested, fold=0 to fold={last}, or train "
            "all of them: python train.py experiment=kfold"
        )
    if fold > last:
        raise ConfigError(f"fold: got {fold}; of {folds.count} folds there are 0 to {last}")
    loose = next((c.name for c in config.jagged if c.length == "auto" and not config.keeps_all(c)), None)
    if loose is not None:
        raise ConfigError(
            f"jagged.{loose}.length: auto is learnt from training events, and would differ between folds; give a number"
        )
    return dataclasses.replace(config, split=folds.split(fold))


def _with_nominal(config: DataConfig) -> DataConfig:
    """Let ``weights.nominal`` be the weight."""
    if config.weights is None or NOMINAL not in config.weights:
        return config
    if config.weight is not None:
        raise ConfigError(
            f"weights.nominal: got {config.weights[NOMINAL]!r} beside weight={config.weight!r}, which is the same; "
            "leave one of them out"
        )
    others = {name: one for name, one in config.weights.items() if name != NOMINAL}
    return dataclasses.replace(config, weight=config.weights[NOMINAL], weights=others or None)


def _check_normalisation(config: DataConfig) -> None:
    """Refuse a luminosity without cross sections, and the other way round."""
    for sample in config.samples:
        where = f"samples.{sample.name}"
        if not is_normalised(sample):
            alone = next((n for n in ("luminosity", "sum_of_weights") if getattr(sample, n) is not None), None)
            if alone is not None:
                raise ConfigError(f"{where}.{alone} is given, but no cross_section; give {where}.cross_section in pb")
        elif config.luminosity_of(sample) is None:
            raise ConfigError(f"{where}.cross_section is given, but no luminosity; give luminosity in fb^-1")
    without = [s.name for s in config.samples if s.cross_section is None]
    if len(without) == len(config.samples):
        alone = next((n for n in ("luminosity", "sum_of_weights") if getattr(config, n) is not None), None)
        if alone is not None:
            raise ConfigError(f"{alone} is given, but no sample has a cross_section; give each its own, in pb")
    elif without:
        raise ConfigError(
            f"samples.{without[0]}.cross_section is missing while other samples have one; give each its own in pb, or "
            "'data' for recorded events"
        )


def _has_nan(pad: float | Mapping[str, float]) -> bool:
    return any(map(math.isnan, pad.values() if isinstance(pad, Mapping) else [pad]))


def _with_parameters(config: DataConfig) -> DataConfig:
    """Put parameters among the flat features; what they can't be is refused."""
    names = [parameter.name for parameter in config.parameters]
    for sample in config.samples:
        values.reject_unknown(dict(sample.parameters), names, where=f"samples.{sample.name}.parameters")
    used = _expressions_of(config)
    for parameter in config.parameters:
        where = f"parameters.{parameter.name}"
        for name in parameter.classes:
            values.choice(name, config.classes, f"{where}.classes")
        if not parameter.name.isidentifier() or parameter.name in (
            *config.derived,
            *config.features[len(config.flat) :],
            ENTRY,
        ):
            raise ConfigError(f"{where}: its name becomes a flat input; {parameter.name!r} is taken or no plain word")
        user = next((u for u, text in used if parameter.name in parse_expression(text).names), None)
        if user is not None:
            raise ConfigError(f"{where}: {user} uses {parameter.name!r}; a parameter is an input and nothing else")
        if not any(config.parameter_of(sample, parameter) is not None for sample in config.samples):
            raise ConfigError(f"{where} has no value; give it an expression, or samples of signal a number each")
    return dataclasses.replace(config, flat=tuple(dict.fromkeys((*config.flat, *names))))


def _expressions_of(config: DataConfig) -> list[tuple[str, str]]:
    """List every expression but those of parameters, each behind the option that it stands for."""
    found: list[tuple[str, Any]] = [(f"derived column {name!r}", text) for name, text in config.derived.items()]
    for c in config.jagged:
        found += [(f"jagged.{c.name}.cut", c.cut), (f"jagged.{c.name}.sort", c.sort and c.sort.removeprefix("-"))]
    for s in config.samples:
        found += [(f"samples.{s.name}.cut", s.cut), (f"samples.{s.name}.weight", s.weight)]
    found += [("cut", config.cut), ("weight", config.weight), ("label", config.label)]
    found += [*((f"weights.{name}", one) for name, one in config.variations.items())]
    found += [("reweight.variables", text) for text in (config.reweight.variables if config.reweight else ())]
    found += [(f"targets.{t.name}", t.value) for t in config.targets]
    found += [(f"observers.{o.name}", o.value) for o in config.observers]
    found += [("split.by", config.split.by if config.split.by not in SPLIT_KINDS else None)]
    found += [("folds.by", config.folds.by if config.folds else None)]
    return [(where, text) for where, text in found if isinstance(text, str)]


def _of_features(scale: Mapping[str, Scaling], features: set[str]) -> dict[str, Scaling]:
    """Leave out what a bundle says of features that there are none of."""
    return {
        name: one
        for name, one in scale.items()
        if not isinstance(one, TakenScaling) or name == "default" or name.rsplit("[", 1)[0] in features
    }


def _with_images(config: DataConfig) -> DataConfig:
    """Complete the images; a collection that is drawn has the columns of its image, and no others."""
    formed = next((c for c in config.jagged if c.form is not None), None)
    if formed is not None and config.layout not in FORMS.names():
        raise ConfigError(
            f"jagged.{formed.name}.form: got {formed.form!r}, and the layout {config.layout!r} has no forms; leave "
            f"`form` out, or choose a layout that has: {', '.join(n for n in LAYOUTS.names() if n in FORMS.names())}"
        )
    made, derived = [], dict(config.derived)
    for c in config.jagged:
        if config.form_of(c) != "image":
            made.append(c)
            continue
        image = completed(c.image or ImageConfig(), c.branches, f"jagged.{c.name}.image")
        derived |= {text: text for text in expressions_of(image) if text not in derived}
        made.append(dataclasses.replace(c, image=image, branches=image.columns))
    config = dataclasses.replace(config, jagged=tuple(made), derived=derived)
    check_onto(config.images)
    _check_maxima(config)
    return config


def _check_maxima(config: DataConfig) -> None:
    for name, image in config.images.items():
        for text in image.channels:
            how, column = reduction_of(text) or ("", "")
            if how == "max" and config.scaling_of(column).factor < 0:
                raise ConfigError(
                    f"jagged.{name}.image.channels: got {text!r}, and scale.{column}.factor is negative, which makes "
                    "the largest value the smallest; give a positive one"
                )


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
