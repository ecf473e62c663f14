"""What an event is: samples, features, cuts, label, weight, split, layout and scaling. It decides the specs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rootdata.errors import ConfigError
from rootdata.expressions.grammar import parse as parse_expression
from rootdata.expressions.vocabulary import ENTRY
from rootdata.missing import Sentinels, sentinels_of
from rootdata.options import typed, values, weighting
from rootdata.options.columns import (
    STANDARD,
    Collection,
    Observer,
    Parameter,
    Scaling,
    TakenScaling,
    TargetColumn,
    parse_clip,
    parse_collections,
    parse_derived,
    parse_observers,
    parse_pad,
    parse_parameters,
    parse_scale,
    parse_targets,
)
from rootdata.options.image import ImageConfig, check_onto, completed, expressions_of, reduction_of
from rootdata.options.parts import SPLIT_KINDS, Folds, Split, parse_folds, parse_split
from rootdata.options.samples import Sample, is_normalised, parse_samples
from rootdata.options.typed import option
from rootdata.options.weighting import Reweight, WeightSource
from rootdata.registry import FORMS, LAYOUTS

T = TypeVar("T")
ON_BAD_FILE = ("error", "skip")
TARGETS = "targets"  # key of a batch
OBSERVED = "observers/"  # what the keys of a batch with observers begin with
VARIED = "variations/"  # the same of weights under variations
NOMINAL = "nominal"


def _classes(value: Any, where: str) -> tuple[str, ...]:
    classes = tuple(str(c) for c in values.listed(value, where))
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ConfigError(f"{where}: got {list(classes)}; needs at least two different names, class 0 first")
    return classes


def _missing(value: Any, where: str) -> Sentinels:
    """Check numbers for all branches, or those of each and a ``default``."""
    if not isinstance(value, Mapping):
        return tuple(_sentinel(m, where) for m in values.listed(value, where))
    table = {str(k): tuple(_sentinel(m, f"{where}.{k}") for m in values.listed(v, f"{where}.{k}"))
             for k, v in sorted(value.items())}  # fmt: skip
    return table if set(table) - {"default"} else table.get("default", ())


def _sentinel(value: Any, where: str) -> float:
    """Check a number; whole ones of up to 64 bits that float64 can't hold stay what they are."""
    found = values.number(value, where)
    return value if isinstance(value, int) and found != value and -(2**63) <= value < 2**64 else found


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

    samples: tuple[Sample, ...] = option(parse_samples, takes=Mapping[str, Any], decides=("specs",))
    flat: tuple[str, ...] = option(values.names, (), takes=Sequence[str])
    jagged: tuple[Collection, ...] = option(parse_collections, (), takes=Mapping[str, Any] | None)
    derived: Mapping[str, str] = option(parse_derived, makes=dict, takes=Mapping[str, str] | None)
    cut: str | None = option(values.optional_expression, None, decides=("specs",))
    label: str | None = option(values.optional_expression, None, decides=("specs",))
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
        parse_targets, (), takes=Mapping[str, Any] | None, decides=("specs",), is_silent=True
    )
    observers: tuple[Observer, ...] = option(
        parse_observers, (), takes=Sequence[str] | Mapping[str, str] | None, decides=("specs",), is_silent=True
    )
    observe_training: bool = option(values.flag, False, decides=())
    parameters: tuple[Parameter, ...] = option(
        parse_parameters, (), takes=Mapping[str, Any] | None, decides=("specs",), is_silent=True
    )
    layout: str = option(LAYOUTS.check, "vector", decides=("inputs",))
    scale: Mapping[str, Scaling] = option(
        parse_scale,
        makes=lambda: {"default": STANDARD},
        shown="standard",
        takes=str | Mapping[str, Any],
        decides=("inputs",),
    )
    missing: Sentinels = option(_missing, (), takes=Sequence[float] | Mapping[str, Any] | None, is_optional=True)
    quantiles: bool = option(values.flag, False, decides=())  # specs with more are as good
    clip: float | Mapping[str, float] | None = option(parse_clip, None, decides=("inputs",), is_silent=True)
    pad: float | Mapping[str, float] = option(parse_pad, 0.0, decides=("inputs",))
    fraction: float = option(_fraction, 1.0, decides=("specs",))
    on_bad_file: str = option(_on_bad_file, "error", decides=("files",))
    split: Split = option(
        parse_split,
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
