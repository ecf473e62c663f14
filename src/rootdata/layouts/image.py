"""``image``: the objects of a collection, or of several, drawn into a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from rootdata.layouts.forms import ByForm
from rootdata.layouts.grid import HOWS, Grid, Line
from rootdata.layouts.kernels import (
    AHEAD,
    INTS,
    OUT,
    SINGLES,
    TABLE,
    Ints,
    Singles,
    fetch_ahead,
    kernel,
    objects_of,
)
from rootdata.layouts.layout import Arrays, Layout, Padded, Unpacked
from rootdata.layouts.pool import Rows

if TYPE_CHECKING:
    from torch import Tensor

COUNT, SUM, MAX, MEAN = map(HOWS.index, ("count", "sum", "max", "mean"))


class Images(ByForm):
    """``flat`` (events, features), and for every collection an image ``<name>``, if it has no other form."""


class ImageForm:
    """``<name>`` (events, channels, rows, columns), channels of all collections that are drawn into it.

    A cell in which nothing is holds 0 in sums and counts, and what the layout fills in in maxima and means. An object
    without one of its coordinates is nowhere, one without a channel's value adds nothing to that channel.
    """

    def shapes(self, layout: Layout, collection: Padded) -> dict[str, tuple[int, ...]]:
        """Return the shape of the image; nothing for a collection that is drawn onto another's."""
        parts = layout.drawn_into(collection)
        grid = collection.grid
        if grid is None or grid.onto is not None:
            return {}
        channels = sum(len(part.grid.channels) for part in parts if part.grid is not None)
        return {collection.name: (channels, grid.y.bins, grid.x.bins)}

    def gather(self, layout: Layout, collection: Padded, rows: Rows, arrays: Arrays) -> None:
        """Draw what belongs into the image of a collection; the twin of :meth:`tensors`.

        Parameters
        ----------
        layout : says which collections there are, and how long these are
        collection : one of them
        rows : the events, scaled
        arrays : ``<name>`` (n, channels, rows, columns)
        """
        first = 0
        for part in layout.drawn_into(collection):
            if part.grid is None:
                continue
            image = arrays[collection.name]
            number, grid = 1 + layout.collections.index(part), part.grid
            draw(
                rows.table, number, rows.which, rows.rows, len(part.columns), part.length,
                np.concatenate([grid.x.numbers, grid.y.numbers]),
                np.array([grid.x.bins, grid.y.bins, grid.x.wraps, grid.y.wraps, first], np.int64),
                np.array([HOWS.index(channel.how) for channel in grid.channels], np.int64),
                np.array(grid.sources, np.int64),
                _empty(layout, grid),
                image.reshape(len(image), image[0].size if len(image) else 0),
            )  # fmt: skip
            first += len(grid.channels)

    def tensors(self, layout: Layout, collection: Padded, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw the same in the graph; the twin of :meth:`gather`.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        made : as for :meth:`rootdata.layouts.layout.LayoutKind.tensors`
        """
        import torch  # here, so that who trains with another framework does not load it

        drawn = [_drawn(layout, part, made) for part in layout.drawn_into(collection)]
        return {collection.name: torch.cat(drawn, dim=1)} if drawn else {}

    def unpack(self, layout: Layout, collection: Padded, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Unpacked]:
        """Return an object for every cell in which something is: its middle, and its channels.

        What an image does not keep: where in a cell an object was, which objects shared one, their order, what was not
        drawn, and cells in which all channels are as in an empty one.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        arrays : the tensors of the collection, at least
        """
        grid = collection.grid
        if grid is None or grid.onto is not None:
            return {}
        image = arrays[collection.name]
        cells = image.reshape(len(image), image.shape[1], grid.num_cells)
        empty = np.concatenate([_empty(layout, part.grid) for part in layout.drawn_into(collection) if part.grid])
        middle = np.stack([np.tile(grid.x.centres, grid.y.bins), np.repeat(grid.y.centres, grid.x.bins)])
        middles = np.broadcast_to(middle, (len(image), *middle.shape))
        values = np.concatenate([middles, cells], axis=1).transpose(0, 2, 1)
        return {collection.name: (values, (cells != empty[:, None]).any(axis=1))}


def _empty(layout: Layout, grid: Grid) -> Singles:
    """Return what every channel holds where nothing is."""
    fill = layout.fill([channel.branch for channel in grid.channels if channel.branch])[0]
    found = iter(fill.tolist())
    filled = [next(found) if channel.branch else 0.0 for channel in grid.channels]
    values = [v if c.how in ("max", "mean") else 0.0 for v, c in zip(filled, grid.channels, strict=True)]
    return np.array(values, np.float32)


def bins_of(line: Line, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells of values along an axis, and which are in any; the twin of :meth:`Line.bins_of`."""
    import torch

    low, high, scale, period, turns = line.numbers.tolist()
    moved = values - low
    if line.wraps:
        moved = moved - torch.floor(moved * turns) * period
    found = torch.floor(moved * scale).clamp(0, line.bins - 1)
    return found, torch.ones_like(values, dtype=torch.bool) if line.wraps else (values >= low) & (values <= high)


def _drawn(layout: Layout, part: Padded, made: Mapping[str, Tensor]) -> Tensor:
    """Draw one collection: (events, channels, rows, columns)."""
    import torch

    grid = part.grid
    if grid is None:
        return made[part.name][:, :0]
    values, real = made[part.name], made[f"{part.name}_real"]
    columns, in_columns = bins_of(grid.x, values[..., 0])
    rows, in_rows = bins_of(grid.y, values[..., 1])
    is_inside = made[f"{part.name}_mask"] & real[..., 0] & real[..., 1] & in_columns & in_rows
    # one cell more, for what is in none
    cells = torch.where(is_inside, rows * grid.x.bins + columns, float(grid.num_cells)).to(torch.int64).unsqueeze(1)
    empty = _empty(layout, grid).tolist()
    channels = []
    for channel, source, nothing in zip(grid.channels, grid.sources, empty, strict=True):
        there = real[..., source].to(values.dtype).unsqueeze(1)
        value = torch.where(real[..., source], values[..., source], 0.0).unsqueeze(1)
        image = values.new_zeros((values.shape[0], 1, grid.num_cells + 1))
        if channel.how == "count":
            made_of = image.scatter_add(2, cells, torch.ones_like(there))
        elif channel.how == "sum":
            made_of = image.scatter_add(2, cells, value)
        elif channel.how == "mean":
            number = image.scatter_add(2, cells, there)
            mean = image.scatter_add(2, cells, value) / number.clamp(min=1.0)
            made_of = torch.where(number > 0, mean, nothing)
        else:
            number = image.scatter_add(2, cells, there)
            lowest = torch.finfo(torch.float32).min
            least = torch.where(there > 0, value, lowest)
            made_of = torch.where(number > 0, (image + lowest).scatter_reduce(2, cells, least, "amax"), nothing)
        channels.append(made_of[:, :, : grid.num_cells])
    return torch.cat(channels, dim=1).reshape(values.shape[0], len(channels), grid.y.bins, grid.x.bins)


@numba.njit(nogil=True, inline="always")
def _bin(value: float, numbers: Singles, first: int, bins: int, wraps: int) -> int:
    """Return the cell of a value along an axis, -1 where it is in none."""
    moved = value - numbers[first]
    if wraps:
        if value != value:
            return -1
        moved = moved - np.floor(moved * numbers[first + 4]) * numbers[first + 3]
    elif not (value >= numbers[first] and value <= numbers[first + 1]):
        return -1
    found = int(np.floor(moved * numbers[first + 2]))
    return max(0, min(found, bins - 1))


@numba.njit(nogil=True, inline="always")
def _add(image: Singles, at: int, value: float, how: int, seen: Ints) -> None:
    """Add a value to a cell; a mean is divided when all are there."""
    is_first = how != SUM and seen[at] == 0
    if is_first:
        image[at] = value
    elif how == MAX:
        image[at] = max(image[at], value)
    else:
        image[at] += value
    seen[at] += 1


@kernel(TABLE, numba.int64, INTS, INTS, numba.int64, numba.int64, SINGLES, INTS, INTS, INTS, SINGLES, OUT)
def draw(
    table: Ints,
    collection: int,
    which: Ints,
    rows: Ints,
    width: int,
    length: int,
    numbers: Singles,
    sizes: Ints,
    hows: Ints,
    sources: Ints,
    empty: Singles,
    out: Singles,
) -> None:
    """Draw the leading objects of one collection of scattered events.

    Parameters
    ----------
    table, collection, which, rows, width, length : as in :func:`rootdata.layouts.kernels.gather_objects`; the first two
        numbers of an object say where it is
    numbers : (10,) those of :attr:`rootdata.layouts.grid.Line.numbers`, of x, then of y
    sizes : cells along x and y, whether x and y wrap, and the number of the first channel
    hows, sources, empty : (channels,) number in ``HOWS``, which number of an object, and what an empty cell holds
    out : (n, all channels * cells)
    """
    num_x, num_y, wraps_x, wraps_y, first = sizes
    num_cells, num_channels = num_x * num_y, len(hows)
    seen = np.zeros(num_channels * num_cells, np.int64)  # values in a cell; all 0 again after each event
    cells = np.empty(length, np.int64)
    for i in range(-2 * AHEAD, len(which)):
        fetch_ahead(table, which, rows, i, collection, width, length)
        if i < 0:
            continue
        values = objects_of(table, which[i], rows[i], collection, width, length)
        image = out[i, first * num_cells : (first + num_channels) * num_cells]
        for c in range(num_channels):
            image[c * num_cells : (c + 1) * num_cells] = empty[c]
        count = len(values) // width
        for j in range(count):
            x = _bin(values[j * width], numbers, 0, num_x, wraps_x)
            y = _bin(values[j * width + 1], numbers, 5, num_y, wraps_y)
            cells[j] = y * num_x + x if x >= 0 and y >= 0 else -1
            for c in range(num_channels if cells[j] >= 0 else 0):
                at, value = c * num_cells + cells[j], values[j * width + sources[c]]
                if hows[c] == COUNT:
                    image[at] += np.float32(1)
                elif value == value:
                    _add(image, at, value, hows[c], seen)
        for j in range(count):
            for c in range(num_channels if cells[j] >= 0 else 0):
                at = c * num_cells + cells[j]
                if hows[c] == MEAN and seen[at] > 1:
                    image[at] /= np.float32(seen[at])
                seen[at] = 0
