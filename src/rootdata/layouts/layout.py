"""Which number goes where in a batch, and what a kind of layout has to say about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rootdata.missing import Bools
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
    """A collection in rectangular form: its features, and how many objects are kept of an event."""

    name: str
    branches: tuple[str, ...]
    length: int


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
        """Shape of one event in every input tensor of a batch."""
        return self.form.shapes(self)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of every column of the vector layout: ``HT``, ..., ``Jet_pt[0]``, ``Jet_eta[0]``, ``Jet_pt[1]``, ..."""
        objects = (f"{b}[{i}]" for c in self.collections for i in range(c.length) for b in c.branches)
        return (*self.flat, *objects)

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
        parts = {"flat": self.flat} | {c.name: c.branches for c in self.collections}
        found = {name: np.stack([of[f] for f in features]) for name, features in parts.items() if features}
        lengths = {c.name: c.length for c in self.collections}
        rows = [np.tile(values, (lengths.get(name, 1), 1)) for name, values in found.items()]
        return {**found, "x": np.concatenate(rows)}

    def empty(self, num_events: int, *, make: Empty = np.empty) -> Arrays:
        """Allocate the arrays of ``num_events`` events."""
        return {
            name: make((num_events, *shape), np.bool_ if name.endswith("mask") else np.float32)
            for name, shape in self.shapes.items()
        }


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
            (events, length, features), ``<name>_real`` of the same shape, and ``<name>_mask`` (events, length)
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
