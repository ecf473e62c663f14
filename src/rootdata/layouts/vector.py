"""``vector``: one row of numbers an event, and one of marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootdata.layouts.kernels import (
    AHEAD,
    BOOLS,
    INTS,
    OUT,
    SINGLES,
    TABLE,
    Bools,
    Ints,
    Singles,
    fetch_ahead,
    kernel,
    objects_of,
)
from rootdata.layouts.layout import Arrays, Floats, Layout, Unpacked
from rootdata.layouts.pool import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Vector:
    """``x`` and ``mask`` (events, width): flat columns, then object by object of every collection.

    The mask is True where a value is neither padding nor missing.
    """

    masks_objects = False

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Return the shapes of ``x`` and ``mask``."""
        width = len(layout.flat) + sum(c.length * len(c.branches) for c in layout.collections)
        return {"x": (width,), "mask": (width,)}

    def gather(self, layout: Layout, rows: Rows, arrays: Arrays) -> None:
        """Fill ``x`` and ``mask`` in one pass; the twin of :meth:`tensors`.

        Parameters
        ----------
        layout : says which features and collections there are, and how long these are
        rows : the events, scaled
        arrays : ``x`` and ``mask``, both (n, columns): flat features, then each collection object by object
        """
        parts = [(layout.flat, 1), *((c.branches, c.length) for c in layout.collections)]
        widths = np.array([len(names) for names, _ in parts], np.int64)
        lengths = np.array([length for _, length in parts], np.int64)
        fill = np.concatenate([layout.fill(names, n).reshape(-1) for names, n in parts])
        gather_values(rows.table, rows.which, rows.rows, widths, lengths, fill, arrays["x"], arrays["mask"])

    def tensors(self, layout: Layout, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Join features and masks into ``x`` and ``mask``; the twin of :meth:`gather`."""
        import torch  # here, so that who trains with another framework does not load it

        flat = [("flat", "flat_mask")] if layout.flat else []
        names = [*flat, *((c.name, f"{c.name}_real") for c in layout.collections)]
        x = torch.cat([made[values].flatten(start_dim=1) for values, _ in names], dim=1)
        mask = torch.cat([made[real].flatten(start_dim=1) for _, real in names], dim=1)
        return {"x": x, "mask": mask}

    def unpack(self, layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Floats, dict[str, Unpacked]]:
        """Take the rows apart; objects behind the last one with any real value are gone."""
        mask = np.greater(arrays["mask"], 0.5)
        x = np.where(mask, arrays["x"], np.float32(np.nan))
        objects, column = {}, len(layout.flat)
        for c in layout.collections:
            width = c.length * len(c.branches)
            shape = len(x), c.length, len(c.branches)
            values, real = x[:, column : column + width].reshape(shape), mask[:, column : column + width].reshape(shape)
            some = real.any(axis=2)
            # everything up to the last object with a real value
            objects[c.name] = (values, np.logical_or.accumulate(some[:, ::-1], axis=1)[:, ::-1])
            column += width
        return x[:, : len(layout.flat)], objects


@kernel(TABLE, INTS, INTS, INTS, INTS, SINGLES, OUT, BOOLS)
def gather_values(
    table: Ints, which: Ints, rows: Ints, widths: Ints, lengths: Ints, fill: Singles, out: Singles, mask: Bools
) -> None:
    """Make a row of each event: the leading objects of every collection, padded; and mark what is real.

    Parameters
    ----------
    table, which, rows : as in :func:`rootdata.layouts.kernels.gather_objects`
    widths, lengths : (n_collections,) features of an object, and objects that are kept of an event
    fill : (sum of width * length,) what takes the place of what is not there
    out, mask : (n, sum of width * length); ``mask`` is True where a value is neither padding nor NaN
    """
    for i in range(-2 * AHEAD, len(which)):
        column = 0
        for c in range(len(widths)):
            width, length = widths[c], lengths[c]
            fetch_ahead(table, which, rows, i, c, width, length)
            if i < 0:
                continue
            values = objects_of(table, which[i], rows[i], c, width, length)
            there, end = column + len(values), column + length * width
            kept, marks, other = out[i, column:there], mask[i, column:there], fill[column:there]
            for j in range(len(values)):
                is_real = values[j] == values[j]
                kept[j] = values[j] if is_real else other[j]
                marks[j] = is_real
            rest, tail = out[i, there:end], fill[there:end]
            for j in range(len(rest)):
                rest[j] = tail[j]
            mask[i, there:end] = False
            column = end
