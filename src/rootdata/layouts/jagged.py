"""``jagged``: the objects of all events one behind the other, and where each event's begin; nothing is padded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.layouts.forms import ByForm
from rootdata.layouts.kernels import (
    AHEAD,
    BOOLS,
    INTS,
    OUT,
    OUT_INTS,
    SINGLES,
    TABLE,
    Bools,
    Ints,
    Singles,
    count_of,
    fetch_ahead,
    kernel,
    objects_of,
)
from rootdata.layouts.layout import Arrays, Layout, Padded, Unpacked
from rootdata.layouts.pool import Rows

if TYPE_CHECKING:
    from torch import Tensor


class JaggedEvents(ByForm):
    """``flat`` (events, features), and for every collection ``<name>`` and its offsets, if it has no other form."""


class JaggedForm:
    """``<name>`` (objects, features), ``<name>_offsets`` (events + 1,) int64 and ``<name>_mask`` of the values' shape.

    Event i has the objects from ``offsets[i]`` to ``offsets[i + 1]``. The mask is True where a value is real; where it
    is not, the layout fills one in.
    """

    def shapes(self, layout: Layout, collection: Padded) -> dict[str, tuple[int, ...]]:  # noqa: ARG002
        """Return what of the shapes is behind the axis of objects, and of the offsets nothing."""
        name, features = collection.name, (len(collection.branches),)
        return {name: features, f"{name}_mask": features, f"{name}_offsets": ()}

    def gather(self, layout: Layout, collection: Padded, rows: Rows, arrays: Arrays) -> None:
        """Put values and their mask, which are as long as there are objects, among the arrays; fill the offsets.

        The twin of :meth:`tensors`.

        Parameters
        ----------
        layout : says which collections there are, and what is filled in
        collection : one of them
        rows : the events, scaled
        arrays : ``<name>_offsets`` (n + 1,); ``<name>`` and ``<name>_mask`` are made here
        """
        name, number = collection.name, 1 + layout.collections.index(collection)
        table, width, offsets = rows.table, len(collection.branches), arrays[f"{collection.name}_offsets"]
        count_objects(table, number, rows.which, rows.rows, collection.limit, offsets)
        size = (int(offsets[-1]), width)
        arrays[name], arrays[f"{name}_mask"] = rows.make(size, np.float32), rows.make(size, np.bool_)
        fill = layout.fill(collection.branches)[0]
        join_objects(
            table, number, rows.which, rows.rows, collection.limit, offsets, fill, arrays[name], arrays[f"{name}_mask"]
        )

    def tensors(self, layout: Layout, collection: Padded, made: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Leave out what is no object, and count the others; the twin of :meth:`gather`.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        made : as for :meth:`rootdata.layouts.layout.LayoutKind.tensors`
        """
        import torch  # here, so that who trains with another framework does not load it

        name, there = collection.name, made[f"{collection.name}_mask"]
        ends = there.sum(dim=1).cumsum(dim=0)
        offsets = torch.cat([ends.new_zeros(1), ends])
        return {name: made[name][there], f"{name}_mask": made[f"{name}_real"][there], f"{name}_offsets": offsets}

    def unpack(self, layout: Layout, collection: Padded, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Unpacked]:  # noqa: ARG002
        """Give each event its objects again, as many as the longest has; NaN where a value was missing.

        Parameters
        ----------
        layout : says which collections there are
        collection : the one that is meant
        arrays : the tensors of the collection, at least

        Raises
        ------
        ShapeError
            For offsets that do not rise from 0 to the number of objects.
        """
        name = collection.name
        values, offsets = arrays[name], arrays[f"{name}_offsets"]
        counts = np.diff(offsets)
        if offsets[:1].tolist() != [0] or (counts < 0).any() or offsets[-1] != len(values):
            raise ShapeError(f"{name}_offsets: got offsets that do not rise from 0 to the {len(values)} objects")
        there = np.arange(counts.max(initial=0)) < counts[:, None]
        padded = np.full((*there.shape, values.shape[1]), np.nan, np.float32)
        padded[there] = np.where(arrays[f"{name}_mask"] > 0.5, values, np.float32(np.nan))
        return {name: (padded, there)}


@kernel(TABLE, numba.int64, INTS, INTS, numba.int64, OUT_INTS)
def count_objects(table: Ints, collection: int, which: Ints, rows: Ints, limit: int, offsets: Ints) -> None:
    """Say where the objects of scattered events lie when they are put one behind the other.

    Parameters
    ----------
    table, collection, which, rows : as in :func:`rootdata.layouts.kernels.gather_objects`
    limit : objects that are kept of an event
    offsets : (n + 1,)
    """
    offsets[0] = 0
    for i in range(len(which)):
        offsets[i + 1] = offsets[i] + min(count_of(table, which[i], rows[i], collection), limit)


@kernel(TABLE, numba.int64, INTS, INTS, numba.int64, INTS, SINGLES, OUT, BOOLS)
def join_objects(
    table: Ints,
    collection: int,
    which: Ints,
    rows: Ints,
    limit: int,
    offsets: Ints,
    fill: Singles,
    out: Singles,
    mask: Bools,
) -> None:
    """Put the objects of scattered events one behind the other, and mark what is real.

    Parameters
    ----------
    table, collection, which, rows : as in :func:`rootdata.layouts.kernels.gather_objects`
    limit : objects that are kept of an event
    offsets : (n + 1,) of :func:`count_objects`
    fill : (width,) what takes the place of what is missing
    out, mask : (objects, width)
    """
    width = len(fill)
    for i in range(-2 * AHEAD, len(which)):
        fetch_ahead(table, which, rows, i, collection, width, limit)
        if i < 0:
            continue
        values = objects_of(table, which[i], rows[i], collection, width, limit)
        first = offsets[i]
        for j in range(len(values) // width):
            for k in range(width):
                value = values[j * width + k]
                is_real = value == value
                out[first + j, k] = value if is_real else fill[k]
                mask[first + j, k] = is_real


def nested(batch: Mapping[str, Tensor], name: str) -> Tensor:
    """Make the nested tensor of a collection, (events, objects of each, features), of ``torch.jagged`` layout.

    It shares its memory with the batch.

    Parameters
    ----------
    batch : with ``<name>`` and ``<name>_offsets``, as the ``jagged`` layout and form make it
    name : of the collection

    Raises
    ------
    ShapeError
        For a collection of another form.
    """
    import torch

    return torch.nested.nested_tensor_from_jagged(batch[name], _offsets(batch, name))


def cu_seqlens(batch: Mapping[str, Tensor], name: str) -> tuple[Tensor, int]:
    """Return what attention of variable length asks for beside the values: offsets as int32, and the most objects.

    Parameters
    ----------
    batch : with ``<name>_offsets``, as the ``jagged`` layout and form make it
    name : of the collection

    Returns
    -------
    ``cu_seqlens`` (events + 1,) int32, ``max_seqlen``

    Raises
    ------
    ShapeError
        For a collection of another form.
    """
    import torch

    offsets = _offsets(batch, name)
    return offsets.to(torch.int32), int(offsets.diff().max()) if len(offsets) > 1 else 0


def _offsets(batch: Mapping[str, Tensor], name: str) -> Tensor:
    if f"{name}_offsets" not in batch:
        raise ShapeError(
            f"{name}_offsets: the batch has {', '.join(batch)}; set data.layout=jagged, or "
            f"data.jagged.{name}.form=jagged"
        )
    return batch[f"{name}_offsets"]
