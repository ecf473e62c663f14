"""The grid of an image, in numbers: which cell an object falls into, what is added up there, and where a cell lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootdata.errors import DataError
from rootdata.options.image import Axis, ImageConfig, reduction_of
from rootdata.scaling.transform import Transform

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

How = Literal["scaled", "added", "as it is"]
HOWS = ("count", "sum", "max", "mean")
OUTSIDE = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A number of an object.

    Parameters
    ----------
    branch : it comes from; empty for one that is counted
    how : it is scaled; what is ``added`` up is multiplied alone, so that nothing is 0 and sums are sums
    """

    branch: str
    how: How = "scaled"

    def transform(self, transforms: Mapping[str, Transform]) -> Transform:
        """Return what becomes of the branch, of which the scaling is given by name."""
        if self.how == "as it is":
            return Transform()
        scaling = transforms[self.branch]
        return scaling if self.how == "scaled" else Transform(factor=scaling.factor)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """An axis, from the edge of the first cell to that of the last one."""

    column: str
    bins: int
    low: float
    high: float
    wraps: bool

    @property
    def numbers(self) -> Floats:
        """What cells are computed with, in float32: low, high, cells a unit, period, periods a unit."""
        width = self.high - self.low
        return np.array([self.low, self.high, self.bins / width, width, 1.0 / width], np.float32)

    @property
    def centres(self) -> Floats:
        """Middle of every cell, (bins,)."""
        return (self.low + (np.arange(self.bins) + 0.5) * (self.high - self.low) / self.bins).astype(np.float32)

    def bins_of(self, values: Floats) -> Ints:
        """Return the cells of values (n,) along this axis, :data:`OUTSIDE` for those that are in none.

        The upper edge belongs to the last cell. Its twins, number for number, are :func:`rootdata.layouts.image.draw`
        and :func:`rootdata.layouts.image.bins_of`.
        """
        low, high, scale, period, turns = self.numbers
        with np.errstate(invalid="ignore"):
            moved = values - low
            if self.wraps:
                moved = moved - np.floor(moved * turns) * period
                is_inside = ~np.isnan(values)
            else:
                is_inside = (values >= low) & (values <= high)
            found = np.clip(np.floor(moved * scale), 0, self.bins - 1)
        return np.where(is_inside, found, OUTSIDE).astype(np.int64)


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """What is made of the objects of a cell: ``count``, or ``sum``, ``max`` or ``mean`` of a branch."""

    how: str
    branch: str

    @property
    def name(self) -> str:
        """As it is written in the options."""
        return f"{self.how}({self.branch})" if self.branch else self.how

    @property
    def column(self) -> Column:
        """The number of an object that it is made of, and that comes out of it where a cell has one object."""
        hows: Mapping[str, How] = {"count": "as it is", "sum": "added"}
        return Column(self.branch, hows.get(self.how, "scaled"))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a collection is drawn.

    Parameters
    ----------
    x, y : its axes; of one that is drawn onto another's image, edges and cells are those of that one
    channels : in their order
    onto : the collection into whose image they go; ``None`` for an image of its own
    """

    x: Line
    y: Line
    channels: tuple[Channel, ...]
    onto: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is kept of an object: where it is, then what its channels are made of."""
        made = [channel.column for channel in self.channels if channel.branch]
        where = (Column(self.x.column, "as it is"), Column(self.y.column, "as it is"))
        return (*where, *dict.fromkeys(made))

    @property
    def sources(self) -> tuple[int, ...]:
        """For every channel the number of its column; 0 for one that counts."""
        columns = self.columns
        return tuple(columns.index(c.column, 2) if c.branch else 0 for c in self.channels)

    @property
    def num_cells(self) -> int:
        """Cells of a channel."""
        return self.x.bins * self.y.bins

    def cells_of(self, x: Floats, y: Floats) -> Ints:
        """Return the cells of objects, counted row by row: (n,), :data:`OUTSIDE` for those that are in none."""
        columns, rows = self.x.bins_of(x), self.y.bins_of(y)
        return np.where((columns >= 0) & (rows >= 0), rows * self.x.bins + columns, OUTSIDE)

    def described(self) -> dict[str, Any]:
        """Return the options that make this grid, whatever the data."""
        axes = {
            name: {
                "column": line.column,
                **({} if self.onto else {"bins": line.bins, "range": [line.low, line.high]}),
                **({} if self.onto else {"period": line.high - line.low if line.wraps else 0.0}),
            }
            for name, line in (("x", self.x), ("y", self.y))
        }
        return {**axes, "channels": [channel.name for channel in self.channels], "onto": self.onto}


Extent = Callable[[str], tuple[float, float]]
"""Gives the smallest and the largest value of a column."""


def grids(images: Mapping[str, ImageConfig], extent: Extent) -> dict[str, Grid]:
    """Make the grids of collections that are drawn.

    Parameters
    ----------
    images : collection to its image, complete
    extent : tells where an axis begins and ends of which that is not given

    Raises
    ------
    DataError
        For an axis whose column has a single value, or none.
    """
    made = {}
    for name, image in images.items():
        owner = name if image.onto is None else image.onto
        others = [i for n, i in images.items() if owner in (n, i.onto)]
        lines = [_line(a, images[owner], others, owner, extent) for a in ("x", "y")]
        x, y = (
            dataclasses.replace(line, column=str(getattr(image, a).column)) for a, line in zip("xy", lines, strict=True)
        )
        reduced = [r for text in image.channels if (r := reduction_of(text)) is not None]
        channels = tuple(Channel(how, branch) for how, branch in reduced)
        made[name] = Grid(x=x, y=y, channels=channels, onto=image.onto)
    return made


def _line(which: str, image: ImageConfig, drawn: list[ImageConfig], name: str, extent: Extent) -> Line:
    """Make an axis of an image, on which there is room for all that is drawn into it."""
    axis: Axis = getattr(image, which)
    columns = [str(getattr(i, which).column) for i in drawn]
    low, high = axis.range or (0.0, 0.0)
    if axis.range is None:
        lows, highs = zip(*map(extent, columns), strict=True)
        low, high = min(lows), max(highs)
        if not np.float32(low) < np.float32(high):
            raise DataError(
                f"jagged.{name}.image.{which}: {columns[0]!r} goes from {low:g} to {high:g} in the training events, "
                "which makes no axis; give its range, or another column"
            )
    return Line(column=columns[0], bins=axis.bins or 1, low=float(low), high=float(high), wraps=bool(axis.period))
