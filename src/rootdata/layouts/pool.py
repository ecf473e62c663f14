"""Blocks of which events are gathered in any order, into rectangular arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.jagged import Ints
from rootdata.layouts.kernels import gather_facts, gather_objects
from rootdata.layouts.layout import Arrays, Empty, Floats, Layout
from rootdata.layouts.packed import Packed
from rootdata.missing import Bools


class Pool:
    """Packed blocks of which events can be gathered in any order.

    Parameters
    ----------
    layout : which features and collections the blocks have, and how long events are made
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
        self._carried = _joined([block.carried for block in packed])
        self._starts = np.cumsum(self._lengths) - self._lengths
        # What the addresses below point to; contiguous, or copied to be.
        self._parts = [_arrays_of(layout, block) for block in packed]
        n = len(packed)
        self._values = np.array([[_address(a) for a in p[3:]] for p in self._parts], np.int64).reshape(
            n, 2 * len(_sizes(layout))
        )
        facts = [[*map(_address, p[:3]), b.sample, b.file] for p, b in zip(self._parts, packed, strict=True)]
        self._facts = np.array(facts, np.int64).reshape(n, 5)

    def gather(self, which: Ints, rows: Ints) -> Arrays:
        """Copy some events into rectangular arrays: padded and masked in one pass.

        Parameters
        ----------
        which, rows : (n,) block and row in it of every event

        Returns
        -------
        the layout's arrays, with ``label`` (n,) int64, ``weight`` (n,) float32, ``index`` (n, 3) int64: sample, file,
        entry, and what goes with the inputs
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
        layout.form.gather(layout, Rows(layout, values, which, rows, make), arrays)
        places = self._starts[which] + rows if self._carried else which
        carried = {name: values[places] for name, values in self._carried.items()}
        return {**arrays, **carried, "label": label, "weight": weight, "index": index}


class Rows:
    """The features of some events, wherever they lie in the blocks of a pool.

    Within a block NaN stands for "no value", whatever the reason.

    Parameters
    ----------
    layout : which features and collections there are, and how long these are
    table : (n_blocks, 2 * n_collections) addresses, as :mod:`rootdata.layouts.kernels` takes them; flat features come
        first, as one object an event
    which, rows : (n,) block and row in it of every event
    make : allocates what is needed on the way
    """

    def __init__(self, layout: Layout, table: Ints, which: Ints, rows: Ints, make: Empty) -> None:
        self.layout = layout
        self.table, self.which, self.rows = table, which, rows
        self.make = make

    def flat(self, out: Floats, *, pad: float | None = None) -> None:
        """Copy the flat features.

        Parameters
        ----------
        out : (n, features)
        pad : takes the place of what is missing; by default what the layout fills in
        """
        there = self.make((len(self.which), 1), np.bool_)
        features = self.layout.flat
        gather_objects(self.table, 0, self.which, self.rows, len(features), 1, self._fill(features, 1, pad), out, there)

    def objects(self, number: int, out: Floats, there: Bools, *, pad: float | None = None) -> None:
        """Copy the leading objects of a collection.

        Parameters
        ----------
        number : of the collection in the layout
        out : (n, length, features)
        there : (n, length) becomes True where there is an object, whatever its features
        pad : takes the place of what is missing, and of objects that are not there; by default what the layout fills in
        """
        collection = self.layout.collections[number]
        features, length = collection.branches, collection.length
        fill, flattened = self._fill(features, length, pad), out.reshape(len(out), out[0].size if len(out) else 0)
        gather_objects(self.table, 1 + number, self.which, self.rows, len(features), length, fill, flattened, there)

    def _fill(self, features: Sequence[str], length: int, pad: float | None) -> Floats:
        if pad is not None:
            return np.full(length * len(features), pad, np.float32)
        return self.layout.fill(features, length).reshape(-1)


def _joined(blocks: Sequence[Arrays]) -> Arrays:
    """Put what goes with the inputs of all blocks one behind the other: a few numbers an event, at most."""
    names = blocks[0] if blocks else {}
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}


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
