"""``tokens``: a tensor of objects for every collection, and one of flat features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootdata.layouts.layout import Arrays, Floats, Layout, Unpacked
from rootdata.layouts.pool import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Tokens:
    """``flat`` (events, features), and for every collection ``<name>`` and ``<name>_mask``.

    Objects are (events, length, features); the mask (events, length) is True where there is one, whatever its features.
    """

    masks_objects = True

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Return the shapes of ``flat``, if there is any, of the collections and their masks."""
        shapes: dict[str, tuple[int, ...]] = {"flat": (len(layout.flat),)} if layout.flat else {}
        for c in layout.collections:
            shapes |= {c.name: (c.length, len(c.branches)), f"{c.name}_mask": (c.length,)}
        return shapes

    def gather(self, layout: Layout, rows: Rows, arrays: Arrays) -> None:
        """Fill the tensors and their masks; the twin of :meth:`tensors`.

        Parameters
        ----------
        layout : says which features and collections there are, and how long these are
        rows : the events, scaled
        arrays : ``flat`` (n, features), where there are flat features; for every collection ``<name>`` (n, length,
            features) and ``<name>_mask`` (n, length), True where there is an object
        """
        if layout.flat:
            rows.flat(arrays["flat"])
        for i, c in enumerate(layout.collections):
            rows.objects(i, arrays[c.name], arrays[f"{c.name}_mask"])

    def tensors(self, layout: Layout, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors that the layout has, unchanged; the twin of :meth:`gather`."""
        return {name: made[name] for name in self.shapes(layout)}

    def unpack(self, layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Floats, dict[str, Unpacked]]:
        """Return the tensors; which features of an object were missing is not known any more."""
        num_events = len(next(iter(arrays.values())))
        flat = arrays.get("flat", np.empty((num_events, 0), np.float32))
        return flat, {c.name: (arrays[c.name], arrays[f"{c.name}_mask"].astype(bool)) for c in layout.collections}
