"""``tokens``: a tensor of objects for every collection, and one of flat features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootdata.layouts.forms import ByForm
from rootdata.layouts.layout import Arrays, Layout, Padded, Unpacked
from rootdata.layouts.pool import Rows

if TYPE_CHECKING:
    from torch import Tensor


class Tokens(ByForm):
    """``flat`` (events, features), and for every collection ``<name>`` and ``<name>_mask``, if it has no other form."""


class TokenForm:
    """``<name>`` (events, length, features) and ``<name>_mask`` (events, length).

    The mask is True where there is an object, whatever its features.
    """

    def shapes(self, layout: Layout, collection: Padded) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """Return the shapes of the collection and its mask."""
        name, length = collection.name, collection.length
        return {name: (length, len(collection.branches)), f"{name}_mask": (length,)}

    def gather(self, layout: Layout, collection: Padded, rows: Rows, arrays: Arrays) -> None:
        """Fill the tensor and its mask; the twin of :meth:`tensors`.

        Parameters
        ----------
        layout : says which collections there are
        collection : one of them
        rows : the events, scaled
        arrays : ``<name>`` (n, length, features) and ``<name>_mask`` (n, length), True where there is an object
        """
        name, number = collection.name, layout.collections.index(collection)
        rows.objects(number, arrays[name], arrays[f"{name}_mask"])

    def tensors(self, layout: Layout, collection: Padded, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the collection, unchanged; the twin of :meth:`gather`.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        made : as for :meth:`rootdata.layouts.layout.LayoutKind.tensors`
        """
        return {name: made[name] for name in self.shapes(layout, collection)}

    def unpack(
        self,
        layout: Layout,  # noqa: ARG002
        collection: Padded,
        arrays: Mapping[str, npt.NDArray[Any]],
    ) -> dict[str, Unpacked]:
        """Return the tensors; which features of an object were missing is not known any more.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        arrays : the tensors of the collection, at least
        """
        name = collection.name
        return {name: (arrays[name], arrays[f"{name}_mask"] > 0.5)}


class WrappedForm(TokenForm):
    """As :class:`TokenForm`, but behind the last object of an event its objects come again, from the first one on.

    The mask is the same: True where there is an object. An event without objects is filled as in tokens.
    """

    def gather(self, layout: Layout, collection: Padded, rows: Rows, arrays: Arrays) -> None:
        """Fill the tensor and its mask; the twin of :meth:`tensors`.

        Parameters
        ----------
        layout, collection, rows, arrays : as for :meth:`TokenForm.gather`
        """
        super().gather(layout, collection, rows, arrays)
        values, there = arrays[collection.name], arrays[f"{collection.name}_mask"]
        which = np.arange(collection.length) % np.maximum(there.sum(axis=1, keepdims=True), 1)
        values[...] = np.take_along_axis(values, which[..., None], axis=1)

    def tensors(self, layout: Layout, collection: Padded, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Repeat the objects in the graph, too; the twin of :meth:`gather`.

        Parameters
        ----------
        layout, collection, made : as for :meth:`TokenForm.tensors`
        """
        import torch  # here, so that who trains with another framework does not load it

        found, name = super().tensors(layout, collection, made), collection.name
        values, count = found[name], found[f"{name}_mask"].sum(dim=1, keepdim=True).clamp(min=1)
        which = torch.arange(values.shape[1], device=values.device).unsqueeze(0) % count
        return found | {name: values.gather(1, which.unsqueeze(2).expand_as(values))}
