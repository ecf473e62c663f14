"""Jagged batches as torch wants them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ShapeError
from rootdata.jagged import offsets_of
from rootdata.layouts.inverse import to_awkward
from rootdata.layouts.jagged import cu_seqlens, nested
from rootdata.layouts.layout import Layout, Padded
from rootdata.models.transformer import laid_out, places
from rootdata.scaling.transform import Transform

counts = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def batch_of(counts):
    offsets = offsets_of(np.array(counts))
    values = torch.arange(3.0 * offsets[-1]).reshape(-1, 3)
    return {"jets": values, "jets_offsets": torch.from_numpy(offsets), "jets_mask": torch.ones_like(values) > 0}


@given(counts)
def test_nested_tensors_and_padded_ones_hold_the_objects_of_each_event(counts):
    batch = batch_of(counts)
    found, expected = nested(batch, "jets"), torch.split(batch["jets"], counts)
    assert found.layout == torch.jagged
    assert all(torch.equal(a, b) for a, b in zip(found.unbind(), expected, strict=True))
    starts, longest = cu_seqlens(batch, "jets")
    assert (starts.dtype, starts.diff().tolist(), longest) == (torch.int32, counts, max(counts))
    place, there = places(batch["jets_offsets"])
    padded = laid_out(batch["jets"], place)
    assert all(torch.equal(row[mark], b) for row, mark, b in zip(padded, there, expected, strict=True))
    assert (padded[~there] == 0).all()


@pytest.mark.parametrize("take", [nested, cu_seqlens])
def test_a_collection_of_another_form_is_refused(take):
    with pytest.raises(ShapeError, match=r"jets_offsets: the batch has jets; .*data\.jagged\.jets\.form=jagged"):
        take({"jets": torch.zeros(2, 3, 4)}, "jets")


@pytest.mark.parametrize("offsets", [[0, 5, 2], [1, 1, 2], [0, 1, 1], [0, 1, 3], []])
def test_offsets_that_point_elsewhere_are_not_decoded(offsets):
    jets = Padded(name="jets", branches=("pt",), length=2, form="jagged", keeps_all=True)
    layout = Layout(kind="jagged", flat=(), collections=(jets,))
    arrays = {"jets": np.zeros((2, 1), np.float32), "jets_mask": np.ones((2, 1), bool)}
    with pytest.raises(ShapeError, match="jets_offsets: got offsets that do not rise from 0 to the 2 objects"):
        to_awkward(layout, arrays | {"jets_offsets": np.array(offsets, np.int64)}, {"pt": Transform()})


class Number:
    """A form that says of an event how many objects it has, as a number."""

    def shapes(self, layout, collection):
        return {f"n_{collection.name}": ()}


def test_a_number_of_an_event_is_no_place_where_objects_begin():
    jets = Padded(name="jets", branches=("pt",), length=2, form=f"{__name__}.Number")
    layout = Layout(kind="tokens", flat=(), collections=(jets,))
    assert layout.by_object == {}
    arrays = layout.empty(5)
    assert (arrays["n_jets"].shape, arrays["n_jets"].dtype) == ((5,), np.float32)
    assert layout.num_events(layout.cut(arrays, 0, 3)) == 3
