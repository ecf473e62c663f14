"""From the tensors of a batch, or of a network's output, back to events in physical units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.jagged import Jagged, offsets_of
from rootdata.layouts.layout import Layout
from rootdata.scaling.transform import Transform


def to_awkward(layout: Layout, arrays: Mapping[str, npt.NDArray[Any]], transforms: Mapping[str, Transform]) -> Any:
    """Turn dense arrays back into one record an event, in physical units.

    Parameters
    ----------
    layout : that the arrays were made with
    arrays : the input tensors of a batch as numpy arrays; in masks what is above 0.5 counts as real
    transforms : feature name to its scaling

    Returns
    -------
    (n_events,) awkward records: flat features, and for every collection a list of records, its objects, with a field
    for each branch. In the vector layout missing values are NaN, and objects behind the last one with any real value
    are gone, in the jagged one all objects come back; tokens mask whole objects, so that a missing feature comes back
    as the padding value, unscaled; of an image an object is a filled cell. What can't come back is said in the
    parameter ``__doc__``.

    Raises
    ------
    ShapeError
        If an array does not have the layout's shape.
    """
    import awkward as ak

    for name, shape in layout.shapes.items():
        if name not in arrays or arrays[name].shape[1:] != shape:
            got = arrays[name].shape if name in arrays else "nothing"
            first = "events + 1" if shape == () else "objects" if name in layout.by_object else "events"
            raise ShapeError(
                f"{name}: got {got}; the {layout.kind} layout has ({', '.join(map(str, (first, *shape)))})"
            )
    flat, objects = layout.form.unpack(layout, {name: arrays[name] for name in layout.shapes})
    record: dict[str, Any] = {n: ak.Array(transforms[n].invert(flat[:, i])) for i, n in enumerate(layout.flat)}
    for c in layout.collections:
        if c.name not in objects:  # drawn onto another's image
            continue
        values, real = objects[c.name]
        offsets = offsets_of(real.sum(1))
        inverted = {
            name: column.transform(transforms).invert(values[..., i][real])
            for i, (name, column) in enumerate(layout.unpacked(c).items())
        }
        record[c.name] = ak.zip({name: Jagged(offsets, content).to_awkward() for name, content in inverted.items()})
    return ak.with_parameter(ak.zip(record, depth_limit=1), "__doc__", " ".join(_lost(layout)))


def _lost(layout: Layout) -> Iterator[str]:
    """Say what of every collection does not come back."""
    for c in layout.collections:
        if not c.keeps_all:
            yield f"{c.name}: objects after the first {c.length} of an event were left out."
        if c.grid is None:
            continue
        cells = f"{c.grid.x.bins} x {c.grid.y.bins} cells"
        yield (
            f"{c.name}: an object stands for a filled one of {cells}, in its middle: those that shared a cell, their "
            "order, what lay outside and what was not drawn can't be told; a maximum or mean of nothing is padding."
        )
