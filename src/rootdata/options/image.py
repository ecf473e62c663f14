"""How a collection is drawn into a grid: its axes and its channels, checked, and guessed by names where they do."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rootdata.errors import ConfigError, nearest
from rootdata.expressions.grammar import parse as parse_expression
from rootdata.options import typed, values
from rootdata.options.typed import option

BINS = 32
MOST_CELLS = 1 << 22  # of a channel: 17 MB an event
COUNT = "count"
REDUCED_BY = ("sum", "max", "mean")
ADDED = ("pt", "et", "e", "p", "energy")  # last words of names whose values add up in a cell
PERIODS = {"phi": 2 * math.pi}  # of columns by the last word of their names
FULL = 1e-3  # how much a range may differ from a period, as 3.14 from pi

_QUOTED = re.compile(r"^`([^`]+)`$")  # a name that expressions write in backticks

EXAMPLE = "{'x': 'Jet_eta', 'y': 'Jet_phi', 'channels': ['count', 'sum(Jet_pt)']}"


def _bins(value: Any, where: str) -> int:
    return values.positive(value, where)


def _range(value: Any, where: str) -> tuple[float, float]:
    found = [values.number(v, where) for v in values.listed(value, where)]
    if len(found) != 2 or not found[0] < found[1]:
        raise ConfigError(f"{where}: got {value!r}; expected two numbers, the lower one first, such as [-2.5, 2.5]")
    return found[0], found[1]


def _period(value: Any, where: str) -> float:
    period = values.number(value, where)
    if period < 0:
        raise ConfigError(
            f"{where}: got {period:g}; expected the length of a turn, or 0 for an axis that does not wrap"
        )
    return period


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis of an image.

    Parameters
    ----------
    column : branch or derived column of the collection, as it is, not scaled; by default found by its name
    bins : cells along the axis
    range : where the first cell begins and the last one ends; by default from the smallest to the largest value of the
        training events, or one period around 0
    period : length after which the axis begins anew; 0: it does not; by default 2 pi for ``..._phi``, else 0
    """

    column: str | None = option(values.text, None, is_optional=True)
    bins: int | None = option(_bins, None, is_optional=True)
    range: tuple[float, float] | None = option(_range, None, is_optional=True)
    period: float | None = option(_period, None, is_optional=True)


def _axis(value: Any, where: str) -> Axis:
    if isinstance(value, Axis):
        value = {name: getattr(value, name) for name in typed.names_of(Axis)}
    plain = value if isinstance(value, Mapping) else {"column": value}
    return typed.parse(Axis, plain, where=where, prefix=f"{where}.")


def _channels(value: Any, where: str) -> tuple[str, ...]:
    found = values.names(value, where)
    for text in found:
        reduced = reduction_of(text)
        if reduced is None:
            raise ConfigError(f"{where}: got {text!r}; allowed: {COUNT}, sum(...), max(...), mean(...) of a column")
        if reduced[1] and f"`{reduced[1]}`" not in text:
            parse_expression(reduced[1], where=where)
    return found


def _onto(value: Any, where: str) -> str:
    return values.text(value, where)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """How the objects of a collection are drawn.

    Parameters
    ----------
    x, y : columns of the grid, ``"Jet_eta"``, or ``{"column": ..., "bins": 32, "range": [-2.5, 2.5], "period": 0}``; by
        default the columns whose names end in ``eta`` and ``phi``
    channels : ``count``, and ``sum(...)``, ``max(...)`` or ``mean(...)`` of a column or an expression; by default
        ``count`` and every branch: sums of ``pt`` and energies, else the largest
    onto : another collection, into whose image these channels go, behind its own
    """

    x: Axis = option(_axis, makes=Axis)
    y: Axis = option(_axis, makes=Axis)
    channels: tuple[str, ...] = option(_channels, ())
    onto: str | None = option(_onto, None, is_optional=True)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it needs, once its axes are known: the axes, then those of its channels."""
        reduced = [reduction_of(text) for text in self.channels]
        names = (str(self.x.column), str(self.y.column), *(r[1] for r in reduced if r is not None and r[1]))
        return tuple(dict.fromkeys(names))


def parse_image(value: Any, where: str) -> ImageConfig | None:
    """Check the options of an image, as far as that is possible without the rest.

    Raises
    ------
    ConfigError, ExpressionError
        For an unknown option or a wrong value.
    """
    if value is None:
        return None
    if isinstance(value, ImageConfig):
        value = {name: getattr(value, name) for name in typed.names_of(ImageConfig)}
    plain = values.mapping(value, where, EXAMPLE)
    return typed.parse(ImageConfig, plain, where=where, prefix=f"{where}.")


def reduction_of(text: str) -> tuple[str, str] | None:
    """Split a channel into how it is made of the objects in a cell, and of which column; None for what is no channel.

    Examples
    --------
    >>> reduction_of("sum(Jet_pt)"), reduction_of("count")
    (('sum', 'Jet_pt'), ('count', ''))
    """
    if text.strip() == COUNT:
        return COUNT, ""
    found = re.fullmatch(rf"\s*({'|'.join(REDUCED_BY)})\s*\((.+)\)\s*", text)
    return (found[1], _QUOTED.sub(r"\1", found[2].strip())) if found else None


def expressions_of(image: ImageConfig) -> tuple[str, ...]:
    """Return what channels are made of that is no column: such expressions become derived columns of that name."""
    inner = [re.sub(r"^\s*\w+\s*\(|\)\s*$", "", text).strip() for text in image.channels if text.strip() != COUNT]
    return tuple(text for text in inner if not _QUOTED.fullmatch(text) and parse_expression(text).names != {text})


def last_word(column: str) -> str:
    """Return the last word of a name, in small letters: ``eta`` of ``Jet_eta``, ``jet.eta`` and ``JetEta``."""
    return re.split(r"[_.]|(?<=[a-z])(?=[A-Z])", column)[-1].lower()


def completed(image: ImageConfig, branches: Sequence[str], where: str) -> ImageConfig:
    """Fill in what the names of branches tell: columns of the axes, their periods, channels.

    Parameters
    ----------
    image : as it was given; one that is complete stays as it is
    branches : of the collection
    where : name of the option, for errors

    Raises
    ------
    ConfigError
        Where names tell too little, for an axis twice, a range that is no full period, or a grid that is too large.
    """
    x = _completed_axis(image.x, branches, "eta", f"{where}.x", is_own=image.onto is None)
    y = _completed_axis(image.y, branches, "phi", f"{where}.y", is_own=image.onto is None)
    if x.column == y.column:
        raise ConfigError(f"{where}: both axes are {x.column!r}; name another column for one")
    if (x.bins or 1) * (y.bins or 1) > MOST_CELLS:
        raise ConfigError(f"{where}: got a grid of {x.bins} x {y.bins} cells; at most {MOST_CELLS:,} are possible")
    axes = {x.column, y.column}
    channels = image.channels or (COUNT, *(_usual_channel(b) for b in branches if b not in axes))
    return dataclasses.replace(image, x=x, y=y, channels=channels)


def _completed_axis(axis: Axis, branches: Sequence[str], word: str, where: str, *, is_own: bool) -> Axis:
    column = axis.column or next((b for b in branches if last_word(b) == word), None)
    if column is None:
        raise ConfigError(
            f"{where}: none of {', '.join(branches)} is called {word!r}; name the column of the axis, "
            f"image={EXAMPLE}, or leave the collection as it is by form='tokens'"
        )
    if not is_own:
        given = next((n for n in ("bins", "range", "period") if getattr(axis, n) is not None), None)
        if given is not None:
            raise ConfigError(f"{where}.{given}: the grid is that of the image it is drawn onto; give it there")
        return dataclasses.replace(axis, column=column)
    period = PERIODS.get(last_word(column), 0.0) if axis.period is None else axis.period
    return Axis(column=column, bins=axis.bins or BINS, range=_full_range(axis, period, column, where), period=period)


def _full_range(axis: Axis, period: float, column: str, where: str) -> tuple[float, float] | None:
    """Return the range of an axis, on a periodic one a whole period."""
    if not period:
        return axis.range
    low, high = axis.range or (-period / 2, period / 2)
    if abs(high - low - period) > FULL * period:
        raise ConfigError(
            f"{where}.range: got [{low:g}, {high:g}], which is no full period of {column!r} ({period:g}); leave it "
            f"out, give one of that length, or period=0 for an axis that does not wrap"
        )
    return low, low + period


def _usual_channel(branch: str) -> str:
    return f"{'sum' if last_word(branch) in ADDED else 'max'}({branch})"


def check_onto(images: Mapping[str, ImageConfig]) -> None:
    """Refuse images that are drawn onto what is no image of its own.

    Parameters
    ----------
    images : collection to its image, of those that are drawn

    Raises
    ------
    ConfigError
        Naming the collection, and the ones that may be drawn onto.
    """
    own = [name for name, image in images.items() if image.onto is None]
    for name, image in images.items():
        if image.onto is not None and image.onto not in own:
            drawn = nearest(image.onto, own) if own else "none is drawn; leave `onto` out"
            raise ConfigError(
                f"jagged.{name}.image.onto: got {image.onto!r}; expected a collection with an image of its own; {drawn}"
            )
