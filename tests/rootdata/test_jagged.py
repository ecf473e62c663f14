import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ShapeError
from rootdata.jagged import Jagged, offsets_of
from strategies import jagged_of, lists

whole = lists(st.integers(-1000, 1000))


def as_lists(column):
    return [column.content[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


@given(st.lists(st.integers(0, 9)))
def test_offsets_are_running_sums(counts):
    offsets = offsets_of(np.array(counts, np.int64))
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(counts[:i]) for i in range(len(counts) + 1)]


@given(whole)
def test_a_column_knows_its_events_and_counts(content):
    column = jagged_of(content, np.int32)
    assert len(column) == len(content)
    assert column.counts.tolist() == [len(x) for x in content]
    assert as_lists(column) == content


@given(whole, st.data())
def test_awkward_arrays_go_in_and_out_whatever_their_layout(content, data):
    array = ak.values_astype(ak.Array([*content, [7]])[:-1], np.int32)  # a slice: its buffers are longer than needed
    picked = data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=5 if content else 0))
    for source, expected in ((array, content), (array[picked], [content[i] for i in picked])):
        column = Jagged.from_awkward(source)
        assert (as_lists(column), column.content.dtype) == (expected, np.dtype(np.int32))
        assert column.to_awkward().to_list() == expected


def test_awkward_shares_the_buffers_of_a_column():
    column = jagged_of([[1.0], [], [2.0, 3.0]])
    array = column.to_awkward()
    column.content[0] = 5.0
    assert array.to_list() == [[5.0], [], [2.0, 3.0]]


@given(num_events=st.integers(0, 5), width=st.integers(0, 4))
def test_fixed_size_lists_are_jagged_columns_of_equal_counts(num_events, width):
    fixed = np.arange(num_events * width, dtype=np.float32).reshape(num_events, width)
    for source in (fixed, ak.from_numpy(fixed, regulararray=True)):
        column = Jagged.from_awkward(source)
        assert column.counts.tolist() == [width] * num_events
        assert as_lists(column) == fixed.tolist()


@pytest.mark.parametrize("array", [ak.Array([1.0, 2.0]), ak.Array([[[1.0]], []])])
def test_other_depths_are_refused_with_their_type(array):
    with pytest.raises(ShapeError, match=r"list of numbers an event.*float64"):
        Jagged.from_awkward(array)


@given(whole, st.data())
def test_taking_events_equals_list_selection(content, data):
    keep = data.draw(st.lists(st.booleans(), min_size=len(content), max_size=len(content)))
    taken = jagged_of(content, np.int32).take_events(np.array(keep, bool))
    assert as_lists(taken) == [x for x, k in zip(content, keep, strict=True) if k]


@given(whole, st.integers(-1000, 1000))
def test_taking_objects_loses_no_event(content, threshold):
    column = jagged_of(content, np.int32)
    taken = column.take_objects(column.content > threshold)
    assert as_lists(taken) == [[y for y in x if y > threshold] for x in content]
