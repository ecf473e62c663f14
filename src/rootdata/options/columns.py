"""What becomes of branches: inputs and how they are scaled, padded and clipped; targets, observers, parameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rootdata.errors import ConfigError
from rootdata.expressions.grammar import parse as parse_expression
from rootdata.options import typed, values
from rootdata.options.image import ImageConfig, parse_image
from rootdata.options.typed import option
from rootdata.registry import FORMS, SCALINGS

TAKEN = ("x", "flat", "label", "weight", "index", "events", "scores", "targets")  # in batches, and in exported graphs

MOST = 1 << 40  # objects of an event; none has so many
TARGET_SCALES = ("standard", "minmax", "robust", "log", "none")


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
    cut: str | None = option(values.optional_expression, None)
    form: str | None = option(FORMS.check, None, is_optional=True, decides=("inputs",))
    image: ImageConfig | None = option(parse_image, None, decides=("inputs",))


def parse_collections(value: Any, where: str) -> tuple[Collection, ...]:
    """Check collections by name."""
    table = values.mapping(value or {}, where, "{'jets': {'branches': ['Jet_pt', ...], 'length': 10}}")
    for name in map(str, table):
        if name in TAKEN or name.endswith(("mask", "offsets")) or not name.isidentifier():
            raise ConfigError(
                f"{where}.{name}: a collection's name becomes a key of the batch; {name!r} is taken or no plain word"
            )
    return tuple(typed.named(Collection, name, one, where, short="branches") for name, one in table.items())


def parse_derived(value: Any, where: str) -> dict[str, str]:
    """Check new columns by name."""
    table = values.mapping(value or {}, where, "{'ht': 'sum(Jet_pt)'}")
    for name, text in table.items():
        values.expression(text, f"{where}.{name}")
    return {str(name): text for name, text in table.items()}


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


def parse_scale(value: Any, where: str) -> dict[str, Scaling]:
    """Check how features are scaled, all in one way or each by its name."""
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


def parse_pad(value: Any, where: str) -> float | Mapping[str, float]:
    """Check what fills empty places, one value or one for each feature."""
    return _by_feature(_pad_value, value, where)


def _pad_value(value: Any, where: str) -> float:
    """Return a finite number, or NaN: the one object of it, so that equal options are equal."""
    if value == "nan" or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    return values.number(value, where)


def parse_clip(value: Any, where: str) -> float | Mapping[str, float] | None:
    """Check where scaled values end, one size or one for each feature; None where they do not."""
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
    value: str = option(values.expression)
    scale: Scaling = option(_target_scale, makes=lambda: STANDARD, shown="standard", takes=str | Mapping[str, float])
    unit: str | None = option(values.text, None, is_optional=True, decides=())


def parse_targets(value: Any, where: str) -> tuple[TargetColumn, ...]:
    """Check the columns of regressions by name."""
    table = values.mapping(value or {}, where, "{'mass': 'GenHiggs_mass'}")
    for name in map(str, table):
        if not name.isidentifier():
            raise ConfigError(f"{where}.{name}: a target's name becomes that of a column; {name!r} is no plain word")
    return tuple(typed.named(TargetColumn, name, one, where, short="value") for name, one in table.items())


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Observer:
    """A column that goes with the events and is no input.

    Parameters
    ----------
    value : branch, derived column or expression with one number an event
    """

    name: str
    value: str


def parse_observers(value: Any, where: str) -> tuple[Observer, ...]:
    """Check columns that are carried along, in a list or by name."""
    table = value if isinstance(value, Mapping) else {text: text for text in values.names(value, where)}
    return tuple(
        Observer(name=str(name), value=values.expression(text, f"{where}.{name}")) for name, text in table.items()
    )


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
    value: str | None = option(values.optional_expression, None)
    classes: tuple[str, ...] = option(values.names, ())
    values: tuple[float, ...] = option(values.numbers, ())

    def labels(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of the classes that have a value.

        Parameters
        ----------
        classes : names by number
        """
        return tuple(i for i, name in enumerate(classes) if (name in self.classes if self.classes else i > 0))


def parse_parameters(value: Any, where: str) -> tuple[Parameter, ...]:
    """Check the parameters of a network by name."""
    table = values.mapping(value or {}, where, "{'mass': 'GenX_mass'}")
    return tuple(typed.named(Parameter, name, one, where, short="value") for name, one in table.items())
