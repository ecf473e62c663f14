"""The selected events of one block, scaled, in rows: what batches are gathered from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.events.selection import Events
from rootdata.jagged import Columns, Ints, Jagged
from rootdata.layouts.kernels import lay_out
from rootdata.layouts.layout import Arrays, Empty, Floats, Layout
from rootdata.missing import Array, Masked
from rootdata.options.data import OBSERVED, TARGETS, VARIED
from rootdata.scaling.transform import Transform


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
    carried : what goes with the inputs, by its key in a batch: ``targets`` (n, k) float32, scaled, observers (n,),
        and weights under variations (n,) float32
    """

    flat: Floats
    objects: Mapping[str, Jagged]
    label: Ints
    weight: Floats
    entry: Ints
    sample: int
    file: int
    carried: Arrays = dataclasses.field(default_factory=dict)

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
        for name, values in self.carried.items():
            if len(values) != n or not isinstance(values, np.ndarray):
                raise ShapeError(f"{name}: got {len(values)} values for {n} events")
        for name, jagged in self.objects.items():
            content, offsets = jagged.content, _checked(jagged.offsets, n)
            if content.dtype != np.float32 or content.ndim != 2 or len(content) < offsets[-1]:
                raise ShapeError(f"{name}: got {content.shape} {content.dtype} for lists of {offsets[-1]} objects")

    def is_of(self, layout: Layout) -> bool:
        """Say whether there are as many features as a layout has."""
        wanted = {c.name: len(c.columns) for c in layout.collections}
        widths = {name: jagged.content.shape[1] for name, jagged in self.objects.items()}
        return self.flat.shape[1] == len(layout.flat) and widths == wanted

    def to_columns(self) -> Columns:
        """Return the arrays by name, for a store."""
        facts: Columns = {"flat": self.flat, "label": self.label, "weight": self.weight, "entry": self.entry}
        return facts | {f"objects/{name}": jagged for name, jagged in self.objects.items()} | self.carried

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any], *, sample: int, file: int) -> Packed:
        """Put together what :meth:`to_columns` took apart.

        Parameters
        ----------
        columns : those of :meth:`to_columns`, features named ``flat`` and ``objects/<collection>``, and what is carried
        sample, file : numbers that the index of an event carries

        Raises
        ------
        ShapeError
            Where columns are missing, or lists are where numbers must be, or numbers where lists must be.
        """
        objects = {n.removeprefix("objects/"): c for n, c in columns.items() if n.startswith("objects/")}
        facts = {name: columns[name] for name in ("flat", "label", "weight", "entry") if name in columns}
        if len(facts) < 4 or any(isinstance(c, Jagged) for c in facts.values()):
            raise ShapeError(f"got no block, but {', '.join(columns) or 'nothing'}")
        if not all(isinstance(c, Jagged) for c in objects.values()):
            raise ShapeError(f"got numbers where lists must be: {', '.join(objects)}")
        carried = {n: c for n, c in columns.items() if n not in facts and not n.startswith("objects/")}
        return cls(objects=objects, sample=sample, file=file, carried=carried, **facts)


def pack(
    events: Events,
    layout: Layout,
    transforms: Mapping[str, Transform],
    *,
    sample: int,
    file: int,
    targets: Mapping[str, Transform] = {},
    make: Empty = np.empty,
) -> Packed:
    """Scale the features of a block and lay them out in rows.

    Parameters
    ----------
    events : selected, unscaled
    layout : says which features are wanted, in which order
    transforms : feature name to its scaling
    sample, file : numbers that the index of an event carries
    targets : name of a target to its scaling
    make : allocates the arrays of features
    """
    objects = {}
    for collection in layout.collections:
        source = events.objects[collection.name]
        columns = [(c.branch, source.columns[c.branch], c.transform(transforms)) for c in collection.columns]
        rows = _side_by_side(columns, int(source.offsets[-1]), make)
        objects[collection.name] = Jagged(_checked(source.offsets, len(events)), rows)
    return Packed(
        flat=_side_by_side([(n, events.flat[n], transforms[n]) for n in layout.flat], len(events), make),
        objects=objects,
        label=events.label,
        weight=events.weight,
        entry=events.entry,
        sample=sample,
        file=file,
        carried=_carried(events, targets, make),
    )


def _carried(events: Events, targets: Mapping[str, Transform], make: Empty) -> Arrays:
    """Return targets, scaled, and observers and weights, as they are, by their keys in a batch."""
    carried: Arrays = {f"{OBSERVED}{name}": values for name, values in events.observers.items()}
    carried |= {f"{VARIED}{name}": values for name, values in events.variations.items()}
    if targets:
        exact = [(name, values.astype(np.float64), targets[name]) for name, values in events.targets.items()]
        carried[TARGETS] = _side_by_side(exact, len(events), make)
    return carried


def _side_by_side(columns: Sequence[tuple[str, Array | Masked, Transform]], n: int, make: Empty) -> Floats:
    """Scale columns (n,), each with its name and its scaling, into the columns of one array."""
    out = make((n, len(columns)), np.float32)
    ready, scales = [], []
    for name, values, transform in columns:
        if len(values) != n:
            raise ShapeError(f"{name}: got {len(values)} values for {n} places")
        scale = (transform.shift, transform.factor, np.inf if transform.clip is None else transform.clip)
        if isinstance(values, Masked) or values.dtype != np.float32 or transform.curve is not None:
            column = np.empty(n, np.float32)
            transform.apply(values, column)
            scale = (0.0, 1.0, np.inf)
        else:
            column = np.ascontiguousarray(values)
        ready.append(column)
        scales.append(scale)
    shifts, factors, clips = np.array(scales, np.float32).reshape(-1, 3).T.copy()
    lay_out(np.array([c.ctypes.data for c in ready], np.int64), shifts, factors, clips, out)
    return out


def _checked(offsets: Ints, num_events: int) -> Ints:
    """Check that all offsets lie within the objects, as compiled loops trust them."""
    offsets = np.ascontiguousarray(offsets, np.int64)
    if len(offsets) != num_events + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ShapeError(f"got {len(offsets)} offsets for {num_events} events, not all rising from 0")
    return offsets
