"""Selected events to rectangular arrays and back: scaled, padded, masked.

Within a block NaN stands for "no value", whatever the reason: :func:`pack` scales and marks, and :func:`gather` copies
rows and turns every NaN and every object that is not there into the padding value and the mask, in one pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.events import Events
from rootdata.jagged import Ints, Jagged, offsets_of
from rootdata.kernels import copy_objects, copy_values
from rootdata.scaling import Floats, Transform


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Padded:
    """A collection in rectangular form: its features, and how many objects are kept of an event."""

    name: str
    branches: tuple[str, ...]
    length: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which number goes where in a batch.

    ``vector``: ``x`` and ``mask`` (events, width): flat columns, then object by object of every collection.
    ``tokens``: ``flat`` (events, features), and for every collection ``<name>`` (events, length, features) and
    ``<name>_mask`` (events, length).
    """

    kind: str
    flat: tuple[str, ...]
    collections: tuple[Padded, ...]
    pad: float = 0.0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor of a batch."""
        if self.kind == "vector":
            width = len(self.flat) + sum(c.length * len(c.branches) for c in self.collections)
            return {"x": (width,), "mask": (width,)}
        shapes: dict[str, tuple[int, ...]] = {"flat": (len(self.flat),)} if self.flat else {}
        for c in self.collections:
            shapes |= {c.name: (c.length, len(c.branches)), f"{c.name}_mask": (c.length,)}
        return shapes

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of every column of the vector layout: ``HT``, ..., ``Jet_pt[0]``, ``Jet_eta[0]``, ``Jet_pt[1]``, ..."""
        objects = (f"{b}[{i}]" for c in self.collections for i in range(c.length) for b in c.branches)
        return (*self.flat, *objects)

    def empty(self, num_events: int) -> dict[str, npt.NDArray[Any]]:
        """Allocate the arrays of ``num_events`` events."""
        return {
            name: np.empty((num_events, *shape), np.bool_ if name.endswith("mask") else np.float32)
            for name, shape in self.shapes.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """The selected events of one block, scaled, with the features of an object side by side.

    Parameters
    ----------
    flat : (n, features) float32, NaN where missing
    objects : collection name to its jagged rows, (n_objects, features) float32, NaN where missing
    label : (n,) int64
    weight : (n,) float32
    index : (n, 3) int64: sample, file, entry
    """

    flat: Floats
    objects: Mapping[str, Jagged]
    label: Ints
    weight: npt.NDArray[np.float32]
    index: Ints

    def __len__(self) -> int:
        return len(self.label)


def pack(
    events: Events,
    layout: Layout,
    transforms: Mapping[str, Transform],
    *,
    sample: int,
    file: int,
    missing: tuple[float, ...] = (),
) -> Packed:
    """Scale the features of a block and lay them out in rows.

    Parameters
    ----------
    transforms : feature name to its scaling
    sample, file : numbers that the index of an event carries
    missing : sentinels
    """
    flat = np.empty((len(events), len(layout.flat)), np.float32)
    for i, name in enumerate(layout.flat):
        transforms[name].apply(events.flat[name], flat[:, i], missing=missing)
    objects = {}
    for collection in layout.collections:
        source = events.objects[collection.name]
        rows = np.empty((int(source.offsets[-1]), len(collection.branches)), np.float32)
        for i, name in enumerate(collection.branches):
            transforms[name].apply(source.columns[name], rows[:, i], missing=missing)
        objects[collection.name] = Jagged(source.offsets, rows)
    index = np.empty((len(events), 3), np.int64)
    index[:, 0], index[:, 1], index[:, 2] = sample, file, events.entry
    return Packed(flat=flat, objects=objects, label=events.label, weight=events.weight, index=index)


def gather(
    layout: Layout, packed: Packed, rows: Ints, *, out: Mapping[str, npt.NDArray[Any]], at: npt.NDArray[np.int64]
) -> None:
    """Copy some events of a block into rectangular arrays: padded and masked in one pass.

    Parameters
    ----------
    rows : (k,) which events of the block
    out : arrays as from :meth:`Layout.empty`
    at : (k,) which rows of ``out`` they become
    """
    if layout.kind == "tokens":
        _gather_tokens(layout, packed, rows, out=out, at=at)
        return
    x, mask, column = out["x"], out["mask"], 0
    for jagged, length in [
        (_as_objects(packed.flat), 1),
        *((packed.objects[c.name], c.length) for c in layout.collections),
    ]:
        width = jagged.content.shape[1]
        copy_values(
            jagged.content.reshape(-1), jagged.offsets, width, rows, at, length, column, layout.pad, x, mask
        )  # fmt: skip
        column += length * width


def _gather_tokens(
    layout: Layout, packed: Packed, rows: Ints, *, out: Mapping[str, npt.NDArray[Any]], at: npt.NDArray[np.int64]
) -> None:
    parts = [(c.name, packed.objects[c.name], c.length, out[f"{c.name}_mask"]) for c in layout.collections]
    if layout.flat:
        parts.append(("flat", _as_objects(packed.flat), 1, np.empty((len(out["flat"]), 1), np.bool_)))
    for name, jagged, length, mask in parts:
        width = jagged.content.shape[1]
        values = out[name].reshape(-1, length * width)
        copy_objects(jagged.content.reshape(-1), jagged.offsets, width, rows, at, length, layout.pad, values, mask)


def _as_objects(flat: Floats) -> Jagged:
    """View flat columns as one object an event."""
    return Jagged(np.arange(len(flat) + 1), flat)


def to_awkward(layout: Layout, arrays: Mapping[str, npt.NDArray[Any]], transforms: Mapping[str, Transform]) -> Any:
    """Turn dense arrays back into one record an event, in physical units.

    Parameters
    ----------
    arrays : the input tensors of a batch as numpy arrays
    transforms : feature name to its scaling

    Returns
    -------
    (n_events,) awkward records: flat features, and a list an event for every branch of a collection. In the vector
    layout missing values are NaN, and objects behind the last one with any real value are gone; the tokens layout masks
    whole objects, so that a missing feature comes back as the padding value, unscaled.

    Raises
    ------
    ShapeError
        If an array does not have the layout's shape.
    """
    import awkward as ak

    for name, shape in layout.shapes.items():
        if name not in arrays or arrays[name].shape[1:] != shape:
            got = arrays[name].shape if name in arrays else "nothing"
            raise ShapeError(f"{name}: got {got}; the {layout.kind} layout has (events, {', '.join(map(str, shape))})")
    flat, objects = _unpacked(layout, arrays)
    columns = {name: transforms[name].invert(flat[:, i]) for i, name in enumerate(layout.flat)}
    record = {name: ak.Array(values) for name, values in columns.items()}
    for c in layout.collections:
        values, real = objects[c.name]
        offsets = offsets_of(real.sum(1))
        for i, branch in enumerate(c.branches):
            record[branch] = Jagged(offsets, transforms[branch].invert(values[..., i][real])).to_awkward()
    return ak.zip(record, depth_limit=1)


def _unpacked(
    layout: Layout, arrays: Mapping[str, npt.NDArray[Any]]
) -> tuple[Floats, dict[str, tuple[Floats, npt.NDArray[np.bool_]]]]:
    if layout.kind == "tokens":
        num_events = len(next(iter(arrays.values())))
        flat = arrays.get("flat", np.empty((num_events, 0), np.float32))
        return flat, {c.name: (arrays[c.name], arrays[f"{c.name}_mask"].astype(bool)) for c in layout.collections}
    x = np.where(arrays["mask"], arrays["x"], np.float32(np.nan))
    objects, column = {}, len(layout.flat)
    for c in layout.collections:
        width = c.length * len(c.branches)
        values = x[:, column : column + width].reshape(len(x), c.length, len(c.branches))
        some = np.any(~np.isnan(values), axis=2)
        # everything up to the last object with a real value
        objects[c.name] = (values, np.logical_or.accumulate(some[:, ::-1], axis=1)[:, ::-1])
        column += width
    return x[:, : len(layout.flat)], objects


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
