"""From the arrays of a batch back to events, in physical units."""

from __future__ import annotations

from collections.abc import Mapping
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
    flat, objects = layout.form.unpack(layout, arrays)
    columns = {name: transforms[name].invert(flat[:, i]) for i, name in enumerate(layout.flat)}
    record = {name: ak.Array(values) for name, values in columns.items()}
    for c in layout.collections:
        values, real = objects[c.name]
        offsets = offsets_of(real.sum(1))
        for i, branch in enumerate(c.branches):
            record[branch] = Jagged(offsets, transforms[branch].invert(values[..., i][real])).to_awkward()
    return ak.zip(record, depth_limit=1)
