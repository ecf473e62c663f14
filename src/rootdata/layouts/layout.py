"""Which number goes where in a batch, and what a kind of layout has to say about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rootdata.layouts.grid import Column, Grid
from rootdata.missing import Bools
from rootdata.options.columns import MOST
from rootdata.registry import LAYOUTS

if TYPE_CHECKING:
    from torch import Tensor

    from rootdata.layouts.pool import Rows

Floats = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]


Empty = Callable[[int | tuple[int, ...], Any], npt.NDArray[Any]]
"""Makes an array of a shape and a type, as ``np.empty`` does."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Padded:
    """A collection: its features, how many objects are kept of an event, and what form they are brought into.

    Parameters
    ----------
    length : objects that are kept of an event
    form : name of a :class:`rootdata.layouts.forms.Form`; layouts that have no forms take no notice of it
    grid : of one that is drawn
    keeps_all : whether a form without padding keeps all objects; ``length`` is then what nearly all events stay below
    """

    name: str
    branches: tuple[str, ...]
    length: int
    form: str = "tokens"
    grid: Grid | None = None
    keeps_all: bool = dataclasses.field(
        default=False, repr=False
    )  # of blocks, which are named by this, it says nothing

    @property
    def limit(self) -> int:
        """How many objects of an event are kept at most."""
        return MOST if self.keeps_all else self.length

    @property
    def columns(self) -> tuple[Column, ...]:
        """The numbers that are kept of an object, in their order."""
        return tuple(map(Column, self.branches)) if self.grid is None else self.grid.columns


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The features of an event, and the kind of tensors that they become.

    Parameters
    ----------
    kind : name of a :class:`LayoutKind`
    flat : flat features
    collections : in their order
    pad : what a padded or missing input becomes, after scaling
    pads : the same of single features, where another number is meant
    """

    kind: str
    flat: tuple[str, ...]
    collections: tuple[Padded, ...]
    pad: float = 0.0
    pads: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def form(self) -> LayoutKind:
        """The object that knows the kind."""
        form: LayoutKind = LAYOUTS.find(self.kind)
        return form

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor of a batch; of those in :attr:`by_object` that of one object."""
        return self.form.shapes(self)

    @property
    def by_object(self) -> dict[str, str]:
        """Tensors whose first axis is that of objects, not of events, with the tensor of their offsets."""
        shapes = self.shapes
        owners = [n.removesuffix("_offsets") for n, shape in shapes.items() if shape == () and n.endswith("_offsets")]
        return {tensor: f"{o}_offsets" for o in owners for tensor in (o, f"{o}_mask") if tensor in shapes}

    def num_events(self, arrays: Mapping[str, Any]) -> int:
        """Return how many events there are in the arrays of the layout, or in its tensors."""
        by_object = self.by_object
        name = next(name for name in self.shapes if name not in by_object)
        return max(0, len(arrays[name]) - (name in by_object.values()))

    def cut(self, arrays: Mapping[str, Any], low: int, high: int) -> dict[str, Any]:
        """View some of the events of arrays, or of tensors, as a batch of their own; offsets are counted anew.

        Parameters
        ----------
        arrays : those of the layout, and others with an axis of events
        low, high : the events; there may be fewer than ``high``
        """
        by_object, found = self.by_object, {name: values[low:high] for name, values in arrays.items()}
        for offsets in dict.fromkeys(by_object.values()):
            of = arrays[offsets][low : high + 1]
            found[offsets] = of - of[0]
            found |= {n: arrays[n][int(of[0]) : int(of[-1])] for n, o in by_object.items() if o == offsets}
        return found

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of every column of the vector layout: ``HT``, ..., ``Jet_pt[0]``, ``Jet_eta[0]``, ``Jet_pt[1]``, ..."""
        objects = (f"{b}[{i}]" for c in self.collections for i in range(c.length) for b in c.branches)
        return (*self.flat, *objects)

    def drawn_into(self, collection: Padded) -> tuple[Padded, ...]:
        """Return the collections that are drawn into the image of one: itself, then those that go onto it."""
        others = (c for c in self.collections if c.grid is not None and c.grid.onto == collection.name)
        return (*([collection] if collection.grid and collection.grid.onto is None else []), *others)

    def unpacked(self, collection: Padded) -> dict[str, Column]:
        """Name the numbers of an object that :meth:`LayoutKind.unpack` gives, and say how they were made.

        Of an image an object is a cell: where it is, and its channels; those that another collection has drawn, and
        that are called as one before, have its name in front.
        """
        if collection.grid is None:
            return {column.branch: column for column in collection.columns}
        found = {column.branch: column for column in collection.columns[:2]}
        for part in self.drawn_into(collection):
            for channel in part.grid.channels if part.grid else ():
                found[channel.name if channel.name not in found else f"{part.name}.{channel.name}"] = channel.column
        return found

    def fill(self, features: Sequence[str], length: int = 1) -> Floats:
        """Return what takes the place of what is missing or not there, after scaling: (length, features).

        Training and the exported graph take it from here alone.
        """
        return np.tile(np.array([self.pads.get(f, self.pad) for f in features], np.float32), (length, 1))

    def arranged(self, of: Mapping[str, Floats]) -> dict[str, Floats]:
        """Arrange what is known of every feature, (k,), as input tensors have their features.

        Parameters
        ----------
        of : feature to its numbers

        Returns
        -------
        (features, k) for ``flat``, for every collection, and for all columns of the vector layout as ``x``
        """
        parts = {"flat": self.flat} | {c.name: c.branches for c in self.collections if c.grid is None}
        found = {name: np.stack([of[f] for f in features]) for name, features in parts.items() if features}
        lengths = {c.name: c.length for c in self.collections}
        rows = [np.tile(values, (lengths.get(name, 1), 1)) for name, values in found.items()]
        return {**found, "x": np.concatenate(rows)}

    def empty(self, num_events: int, *, make: Empty = np.empty) -> Arrays:
        """Allocate the arrays of ``num_events`` events; those in :attr:`by_object` still without objects."""
        by_object, made = self.by_object, {}
        for name, shape in self.shapes.items():
            if name in by_object.values():
                made[name] = make((num_events + 1, *shape), np.int64)
            else:
                dtype = np.bool_ if name.endswith("mask") else np.float32
                made[name] = make((0 if name in by_object else num_events, *shape), dtype)
        return made


class LayoutKind(Protocol):
    """A kind of layout: from rows to tensors and back, and the same in an exported graph.

    :meth:`gather`, in training, and :meth:`tensors`, in the graph, are twins: one property test holds both to the same
    arrays, for every kind that is known. Where nothing is, ``rows`` and ``made`` hold what :meth:`Layout.fill` says.

    Attributes
    ----------
    masks_objects : whether each collection has a mask of its objects, ``<name>_mask``, so that a graph may take as many
        as the events have
    """

    masks_objects: bool

    def shapes(self, layout: Layout) -> dict[str, tuple[int, ...]]:
        """Return the shape of one event in every input tensor; those whose name ends in ``mask`` are bool."""

    def gather(self, layout: Layout, rows: Rows, arrays: Arrays) -> None:
        """Fill the arrays of some events.

        Parameters
        ----------
        layout : says which features and collections there are, and how long these are
        rows : gives their features, scaled, see :class:`rootdata.layouts.pool.Rows`
        arrays : by name, of the shapes above with the events in front
        """

    def tensors(self, layout: Layout, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the same arrays as :meth:`gather`, out of tensors and with operations that ONNX has.

        Parameters
        ----------
        layout : as for :meth:`gather`
        made : scaled and padded: ``flat`` (events, features) and ``flat_mask``, for every collection ``<name>``
            (events, length, features), ``<name>_real`` of the same shape, and ``<name>_mask`` (events, length);
            features are :attr:`Padded.columns`
        """

    def unpack(self, layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Floats, dict[str, Unpacked]]:
        """Take arrays apart again.

        Returns
        -------
        flat features (events, features), and of every collection its objects; NaN where a value is known to be missing

        Raises
        ------
        ShapeError
            For a layout that does not keep them: one that counts, or sums. Nothing but a look back needs them.
        """


Unpacked = tuple[Floats, Bools]
"""Values (events, length, features) of objects, and which of them there are, (events, length)."""


def kept_fraction(histogram: Sequence[int], length: int) -> float:
    """Return the fraction of all objects that a length keeps, given the number of events of each multiplicity.

    Examples
    --------
    >>> kept_fraction([0, 2, 1], 1)
    0.75
    """
    counts = np.asarray(histogram, dtype=np.float64)
    sizes = np.arange(len(counts))
    total = float((counts * sizes).sum())
    return float((counts * np.minimum(sizes, length)).sum()) / total if total else 1.0
