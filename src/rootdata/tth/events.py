"""Events on their way to a file: flat columns and padded collections, joined and cut without loops over events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import awkward as ak
import numpy as np

from rootdata.tth.physics.arrays import Array, Bools


@dataclass(frozen=True, slots=True)
class SimulatedObjects:
    """Columns of objects and the mask of the real ones, all (n_events, n_objects)."""

    columns: Mapping[str, Array]
    is_real: Bools


@dataclass(frozen=True, slots=True)
class SimulatedEvents:
    """Flat columns (n_events,) and collections by name."""

    flat: Mapping[str, Array]
    collections: Mapping[str, SimulatedObjects]

    def __len__(self) -> int:
        return len(next(iter(self.flat.values())))

    def __getitem__(self, rows: slice | Bools) -> SimulatedEvents:
        """Take some of the events."""
        return _combine([self], lambda arrays: arrays[0][rows])


def join(parts: Sequence[SimulatedEvents]) -> SimulatedEvents:
    """Put events with the same columns one after the other."""
    return _combine(parts, np.concatenate)


def to_awkward(events: SimulatedEvents) -> dict[str, ak.Array]:
    """Drop the padding: flat columns, and an (n_events, var) array of records for each collection."""
    flat = {name: ak.Array(np.ascontiguousarray(values)) for name, values in events.flat.items()}
    return flat | {name: _unpad(collection) for name, collection in events.collections.items()}


def _unpad(collection: SimulatedObjects) -> ak.Array:
    is_real = collection.is_real
    objects = ak.zip({name: values[is_real] for name, values in collection.columns.items()})
    return ak.unflatten(objects, is_real.sum(axis=1))


def _combine(parts: Sequence[SimulatedEvents], how: Callable[[list[Array]], Array]) -> SimulatedEvents:
    first = parts[0]
    flat = {name: how([part.flat[name] for part in parts]) for name in first.flat}
    collections = {
        name: SimulatedObjects(
            {column: how([part.collections[name].columns[column] for part in parts]) for column in collection.columns},
            how([part.collections[name].is_real for part in parts]),
        )
        for name, collection in first.collections.items()
    }
    return SimulatedEvents(flat, collections)
