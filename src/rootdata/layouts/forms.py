"""Layouts in which every collection has a form of its own, beside flat features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rootdata.layouts.layout import Arrays, Floats, Layout, Padded, Unpacked
from rootdata.layouts.pool import Rows
from rootdata.registry import FORMS

if TYPE_CHECKING:
    from torch import Tensor


class Form(Protocol):
    """What becomes of one collection: what a :class:`~rootdata.layouts.layout.LayoutKind` says of all, said of one.

    :meth:`gather`, in training, and :meth:`tensors`, in the graph, are twins.
    """

    def shapes(self, layout: Layout, collection: Padded) -> dict[str, tuple[int, ...]]:
        """Return the shape of one event in every tensor of the collection; names that end in ``mask`` are bool.

        With a tensor ``<name>_offsets`` of shape ``()``, which says where the objects of each event begin, the axis in
        front of ``<name>`` and ``<name>_mask`` is that of objects.
        """

    def gather(self, layout: Layout, collection: Padded, rows: Rows, arrays: Arrays) -> None:
        """Fill these tensors for some events.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        rows : the events, scaled
        arrays : the tensors of the collection, with the events in front
        """

    def tensors(self, layout: Layout, collection: Padded, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the same of what is scaled and padded.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        made : as for :meth:`rootdata.layouts.layout.LayoutKind.tensors`
        """

    def unpack(self, layout: Layout, collection: Padded, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Unpacked]:
        """Take the tensors apart.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        arrays : the tensors of the collection, at least

        Returns
        -------
        the collection's name to its objects, or nothing where it has no tensor of its own; the numbers of an object are
        those of :meth:`rootdata.layouts.layout.Layout.unpacked`

        Raises
        ------
        ShapeError
            For a form that does not keep them.
        """


def form_of(collection: Padded) -> Form:
    """Return the object that knows a collection's form."""
    form: Form = FORMS.find(collection.form)
    return form


class ByForm:
    """``flat`` (events, features), and the tensors of every collection's form."""

    masks_objects = True

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Return the shapes of ``flat``, if there is any, and of the collections."""
        shapes: dict[str, tuple[int, ...]] = {"flat": (len(layout.flat),)} if layout.flat else {}
        for c in layout.collections:
            shapes |= form_of(c).shapes(layout, c)
        return shapes

    def gather(self, layout: Layout, rows: Rows, arrays: Arrays) -> None:
        """Fill the tensors; the twin of :meth:`tensors`.

        Parameters
        ----------
        layout : says which features and collections there are, and of which form these are
        rows : the events, scaled
        arrays : ``flat`` (n, features), where there are flat features, and the tensors of every form
        """
        if layout.flat:
            rows.flat(arrays["flat"])
        for c in layout.collections:
            form_of(c).gather(layout, c, rows, arrays)

    def tensors(self, layout: Layout, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the tensors of every form; the twin of :meth:`gather`."""
        tensors = {"flat": made["flat"]} if layout.flat else {}
        for c in layout.collections:
            tensors |= form_of(c).tensors(layout, c, made)
        return tensors

    def unpack(self, layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Floats, dict[str, Unpacked]]:
        """Take the tensors of every form apart; which flat features were missing is not known any more."""
        flat = arrays.get("flat", np.empty((layout.num_events(arrays), 0), np.float32))
        objects: dict[str, Unpacked] = {}
        for c in layout.collections:
            objects |= form_of(c).unpack(layout, c, arrays)
        return flat, objects
