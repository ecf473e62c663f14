"""Types of arrays, float32 draws, and tables of objects: frozen dataclasses whose fields are arrays of one shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields, replace
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

# The stubs of NumPy lose precision and kind in mixed arithmetic: the names tell the reader, tests check types in files.
Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[Any]
Ints: TypeAlias = NDArray[Any]
Bools: TypeAlias = NDArray[Any]
Shape: TypeAlias = int | tuple[int, ...]


class ArrayRecord(Protocol):
    """A dataclass of arrays of one shape: (n_events, n_objects, ...)."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=ArrayRecord)


def uniform(rng: np.random.Generator, shape: Shape) -> Floats:
    """Draw float32 from [0, 1)."""
    return rng.random(shape, dtype=np.float32)


def normal(rng: np.random.Generator, shape: Shape) -> Floats:
    """Draw float32 from a Gaussian of mean 0 and width 1."""
    return rng.standard_normal(shape, dtype=np.float32)


def exponential(rng: np.random.Generator, shape: Shape) -> Floats:
    """Draw float32 from an exponential of mean 1."""
    return rng.standard_exponential(shape, dtype=np.float32)


def choose(condition: Bools, chosen: float | Floats, other: float | Floats) -> Floats:
    """Do as ``np.where``, but stay in float32 when the alternatives are Python numbers.

    Parameters
    ----------
    condition : of any shape
    chosen : where it is true, a number or an array that broadcasts with it
    other : where it is false, likewise
    """
    return np.where(condition, np.asarray(chosen, np.float32), np.asarray(other, np.float32))


def sigmoid(x: Floats) -> Floats:
    """Map the real line to (0, 1)."""
    return 1 / (1 + np.exp(-x))


def map_arrays(table: T, change: Callable[[Array], Array]) -> T:
    """Apply ``change`` to each array of a table."""
    return replace(table, **{field.name: change(getattr(table, field.name)) for field in fields(table)})


def select(table: T, keep: Bools) -> T:
    """Keep the events, rows of every array, where ``keep`` (n_events,) is True."""
    rows = np.flatnonzero(keep)
    return map_arrays(table, lambda values: values.take(rows, axis=0))


def order(table: T, key: Floats) -> T:
    """Order the objects of each event by falling ``key``.

    Parameters
    ----------
    table : arrays of (n_events, n_objects)
    key : (n_events, n_objects)
    """
    n_events, n_objects = key.shape
    # One flat index for all arrays: take_along_axis would build it anew for each of them.
    index = np.argsort(-key, axis=1) + n_objects * np.arange(n_events)[:, None]
    return map_arrays(table, lambda values: values.ravel().take(index))
