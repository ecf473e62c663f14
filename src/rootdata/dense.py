"""Selected events to rectangular arrays and back: scaled, padded, masked.

Within a block NaN stands for "no value", whatever the reason: :func:`pack` scales and marks, and a :class:`Pool` of
blocks copies rows and turns every NaN and every object that is not there into the padding value and the mask, in one
pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.events import Events
from rootdata.jagged import Columns, Ints, Jagged, offsets_of
from rootdata.kernels import gather_facts, gather_objects, gather_values, lay_out
from rootdata.missing import Array, Masked
from rootdata.scaling import Floats, Transform

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

    def empty(self, num_events: int, *, make: Empty = np.empty) -> dict[str, npt.NDArray[Any]]:
        """Allocate the arrays of ``num_events`` events."""
        return {
            name: make((num_events, *shape), np.bool_ if name.endswith("mask") else np.float32)
            for name, shape in self.shapes.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """The selected events of one block, scaled, with the features of an object side by side.

    Parameters
    ----------
    flat : (n, features) float32, NaN where missing
    objects : collection name to its jagged rows, (n_objects, features) float32, NaN where missing
    label, entry : (n,) int64
    weight : (n,) float32
    sample, file : their numbers
    """

    flat: Floats
    objects: Mapping[str, Jagged]
    label: Ints
    weight: Floats
    entry: Ints
    sample: int
    file: int

    def __len__(self) -> int:
        return len(self.label)

    def __post_init__(self) -> None:
        """Compare the arrays with each other: compiled loops trust them.

        Raises
        ------
        ShapeError
            Where a length or type differs, or lists do not lie within their objects.
        """
        n = self.label.size
        facts: list[tuple[npt.NDArray[Any], type, int]] = [(self.label, np.int64, 1), (self.entry, np.int64, 1)]
        facts += [(self.weight, np.float32, 1), (self.flat, np.float32, 2)]
        if any(a.dtype != dtype or a.ndim != ndim or len(a) != n for a, dtype, ndim in facts):
            raise ShapeError(f"got arrays of different events, or of another type, for {n} events")
        for name, jagged in self.objects.items():
            content, offsets = jagged.content, _checked(jagged.offsets, n)
            if content.dtype != np.float32 or content.ndim != 2 or len(content) < offsets[-1]:
                raise ShapeError(f"{name}: got {content.shape} {content.dtype} for lists of {offsets[-1]} objects")

    def is_of(self, layout: Layout) -> bool:
        """Say whether the features are those of a layout, in number."""
        wanted = {c.name: len(c.branches) for c in layout.collections}
        widths = {name: jagged.content.shape[1] for name, jagged in self.objects.items()}
        return self.flat.shape[1] == len(layout.flat) and widths == wanted

    def to_columns(self) -> Columns:
        """Return the arrays by name, for a store."""
        facts: Columns = {"flat": self.flat, "label": self.label, "weight": self.weight, "entry": self.entry}
        return facts | {f"objects/{name}": jagged for name, jagged in self.objects.items()}

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, sample: int, file: int) -> Packed:
        """Put together what :meth:`to_columns` took apart; :class:`ShapeError` where something is not there."""
        objects = {n.removeprefix("objects/"): c for n, c in columns.items() if n.startswith("objects/")}
        facts = {name: columns[name] for name in ("flat", "label", "weight", "entry") if name in columns}
        if len(facts) < 4 or any(isinstance(c, Jagged) for c in facts.values()):
            raise ShapeError(f"got no block, but {', '.join(columns) or 'nothing'}")
        if not all(isinstance(c, Jagged) for c in objects.values()):
            raise ShapeError(f"got numbers where lists must be: {', '.join(objects)}")
        return cls(objects=objects, sample=sample, file=file, **facts)


def pack(
    events: Events,
    layout: Layout,
    transforms: Mapping[str, Transform],
    *,
    sample: int,
    file: int,
    make: Empty = np.empty,
) -> Packed:
    """Scale the features of a block and lay them out in rows.

    Parameters
    ----------
    transforms : feature name to its scaling
    sample, file : numbers that the index of an event carries
    make : allocates the arrays of features
    """
    objects = {}
    for collection in layout.collections:
        source = events.objects[collection.name]
        columns = {name: source.columns[name] for name in collection.branches}
        rows = _side_by_side(columns, transforms, int(source.offsets[-1]), make)
        objects[collection.name] = Jagged(_checked(source.offsets, len(events)), rows)
    return Packed(
        flat=_side_by_side({name: events.flat[name] for name in layout.flat}, transforms, len(events), make),
        objects=objects,
        label=events.label,
        weight=events.weight,
        entry=events.entry,
        sample=sample,
        file=file,
    )


def _side_by_side(
    columns: Mapping[str, Array | Masked],
    transforms: Mapping[str, Transform],
    n: int,
    make: Empty,
) -> Floats:
    """Scale columns (n,) into the columns of one array."""
    out = make((n, len(columns)), np.float32)
    ready, scales = [], []
    for name, values in columns.items():
        if len(values) != n:
            raise ShapeError(f"{name}: got {len(values)} values for {n} places")
        transform = transforms[name]
        if isinstance(values, Masked) or values.dtype != np.float32 or transform.log:
            column = np.empty(n, np.float32)
            transform.apply(values, column)
            transform = Transform()
        else:
            column = np.ascontiguousarray(values)
        ready.append(column)
        scales.append((transform.shift, transform.factor))
    shifts, factors = np.array(scales, np.float32).reshape(-1, 2).T.copy()
    lay_out(np.array([c.ctypes.data for c in ready], np.int64), shifts, factors, out)
    return out


def _checked(offsets: Ints, num_events: int) -> Ints:
    """Return offsets of which all lie within the objects: compiled loops trust them."""
    offsets = np.ascontiguousarray(offsets, np.int64)
    if len(offsets) != num_events + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ShapeError(f"got {len(offsets)} offsets for {num_events} events, not all rising from 0")
    return offsets


class Pool:
    """Packed blocks of which events can be gathered in any order.

    Parameters
    ----------
    packed : the blocks, which are kept
    make : allocates what is gathered

    Raises
    ------
    ShapeError
        For blocks that are not of the layout.
    """

    def __init__(self, layout: Layout, packed: Sequence[Packed], *, make: Empty = np.empty) -> None:
        self._layout, self._make = layout, make
        self._lengths = np.array([len(block) for block in packed], np.int64)
        if not all(block.is_of(layout) for block in packed):
            raise ShapeError("got blocks of other features than the layout has")
        # What the addresses below point to; contiguous, or copied to be.
        self._parts = [_arrays_of(layout, block) for block in packed]
        n = len(packed)
        self._values = np.array([[_address(a) for a in p[3:]] for p in self._parts], np.int64).reshape(
            n, 2 * len(_sizes(layout))
        )
        facts = [[*map(_address, p[:3]), b.sample, b.file] for p, b in zip(self._parts, packed, strict=True)]
        self._facts = np.array(facts, np.int64).reshape(n, 5)

    def gather(self, which: Ints, rows: Ints) -> dict[str, npt.NDArray[Any]]:
        """Copy some events into rectangular arrays: padded and masked in one pass.

        Parameters
        ----------
        which, rows : (n,) block and row in it of every event

        Returns
        -------
        the layout's arrays, with ``label`` (n,) int64, ``weight`` (n,) float32 and ``index`` (n, 3) int64:
        sample, file, entry
        """
        n, layout, values = len(which), self._layout, self._values
        make = self._make
        if n and (which.min() < 0 or which.max() >= len(self._lengths) or rows.min() < 0):
            raise ShapeError(f"got events of blocks that are none of the {len(self._lengths)}")
        if (rows >= self._lengths[which]).any():
            raise ShapeError("got events that are in none of the blocks")
        label, weight, index = make(n, np.int64), make(n, np.float32), make((n, 3), np.int64)
        gather_facts(self._facts, which, rows, label, weight, index)
        arrays = layout.empty(n, make=make)
        widths, lengths = np.array(_sizes(layout), np.int64).T.copy()
        if layout.kind == "vector":
            gather_values(values, which, rows, widths, lengths, layout.pad, arrays["x"], arrays["mask"])
        else:
            if layout.flat:
                some = make((n, 1), np.bool_)
                gather_objects(values, 0, which, rows, widths[0], 1, layout.pad, arrays["flat"], some)
            for i, c in enumerate(layout.collections, start=1):
                out, mask = arrays[c.name].reshape(n, widths[i] * c.length), arrays[f"{c.name}_mask"]
                gather_objects(values, i, which, rows, widths[i], c.length, layout.pad, out, mask)
        return {**arrays, "label": label, "weight": weight, "index": index}


def _sizes(layout: Layout) -> list[tuple[int, int]]:
    """Return features and kept objects of everything that is gathered: flat columns are one object an event."""
    return [(len(layout.flat), 1), *((len(c.branches), c.length) for c in layout.collections)]


def _arrays_of(layout: Layout, packed: Packed) -> list[npt.NDArray[Any] | None]:
    """List the arrays of a block as the compiled loops want them, None where flat columns have no offsets."""
    jagged = [packed.objects[c.name] for c in layout.collections]
    singles = [packed.weight, packed.flat, *(j.content for j in jagged)]
    weight, flat, *contents = [np.ascontiguousarray(a, np.float32) for a in singles]
    label, entry, *offsets = [
        np.ascontiguousarray(a, np.int64) for a in (packed.label, packed.entry, *(j.offsets for j in jagged))
    ]
    pairs = (part for pair in zip(contents, offsets, strict=True) for part in pair)
    return [label, weight, entry, flat, None, *pairs]


def _address(array: npt.NDArray[Any] | None) -> int:
    return 0 if array is None else array.ctypes.data


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
