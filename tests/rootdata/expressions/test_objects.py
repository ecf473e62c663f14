import math
import statistics

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ExpressionError
from rootdata.expressions import objects
from rootdata.expressions.arithmetic import OperandError
from rootdata.jagged import Jagged, offsets_of

numbers = st.floats(-1e3, 1e3, width=32)
events = st.lists(st.lists(numbers, max_size=5), max_size=6)
events_with_nan = st.lists(st.lists(numbers | st.just(math.nan), max_size=5), max_size=6)


def jagged(lists, dtype=np.float32):
    return Jagged(
        offsets_of(np.array([len(x) for x in lists], np.int64)), np.array([y for x in lists for y in x], dtype)
    )


def lists_of(column):
    return [column.content[a:b].tolist() for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]


REDUCERS = {
    objects.total: sum,
    objects.product: math.prod,
    objects.smallest: lambda x: min(x, default=math.nan),
    objects.largest: lambda x: max(x, default=math.nan),
    objects.count: len,
    objects.mean: lambda x: math.fsum(x) / len(x) if x else math.nan,
    objects.std: lambda x: statistics.pstdev(x) if x else math.nan,
    objects.leading: lambda x: x[0] if x else math.nan,
}


@pytest.mark.parametrize("reducer", REDUCERS)
@given(lists=events)
def test_reducers_agree_with_python(reducer, lists):
    expected = [REDUCERS[reducer](x) for x in lists]
    result = reducer(jagged(lists))
    assert result.shape == (len(lists),)
    np.testing.assert_allclose(result, np.array(expected, float), rtol=1e-9, atol=1e-6)


@given(events)
def test_places_of_extremes_are_whole_numbers(lists):
    column = jagged(lists)
    assert objects.argsmallest(column).tolist() == [x.index(min(x)) if x else None for x in lists]
    assert objects.arglargest(column).tolist() == [x.index(max(x)) if x else None for x in lists]
    assert objects.arglargest(column, fill=-1).tolist() == [x.index(max(x)) if x else -1 for x in lists]
    assert objects.arglargest(column).dtype == np.int64


@given(st.lists(st.lists(st.booleans(), max_size=4), max_size=6))
def test_any_and_all_agree_with_python(lists):
    column = jagged(lists, np.bool_)
    assert objects.any_object(column).tolist() == [any(x) for x in lists]
    assert objects.all_objects(column).tolist() == [all(x) for x in lists]
    assert objects.total(column).tolist() == [sum(x) for x in lists]


@given(st.lists(st.lists(st.integers(-(2**60), 2**60), max_size=4), max_size=6))
def test_integers_stay_exact(lists):
    column = jagged(lists, np.int64)
    assert objects.total(column).tolist() == [sum(x) for x in lists]
    assert objects.largest(column, fill=-1).tolist() == [max(x, default=-1) for x in lists]
    assert objects.pick(column, -1, fill=2**62).tolist() == [x[-1] if x else 2**62 for x in lists]


def test_a_sum_beyond_64_bits_is_refused():
    with pytest.raises(ExpressionError, match="64-bit"):
        objects.total(jagged([[2**62, 2**62]], np.int64))


@given(events, st.integers(0, 4))
def test_an_event_gives_the_same_bits_in_any_company(lists, where):
    alone = [float(objects.total(jagged([x]))[0]) for x in lists]
    assert objects.total(jagged(lists)).tolist() == alone


@given(events_with_nan)
def test_sorting_falls_and_ends_with_nan(lists):
    expected = [sorted(x, key=lambda y: (math.isnan(y), -y if y == y else 0.0)) for x in lists]
    result = objects.descending(jagged(lists))
    np.testing.assert_array_equal(result.content, np.array([y for x in expected for y in x], np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.bool_, np.int64])
def test_sorting_of_integers(dtype):
    assert lists_of(objects.descending(jagged([[0, 1, 1], [], [1]], dtype))) == [[1, 1, 0], [], [1]]


@given(events_with_nan)
def test_the_place_of_the_largest_is_never_that_of_a_nan(lists):
    for x, place in zip(lists, objects.arglargest(jagged(lists)).tolist(), strict=True):
        present = [y for y in x if not math.isnan(y)]
        assert place is None if not present else x[place] == max(present)


@given(events, st.integers(-7, 7))
def test_picking_agrees_with_python(lists, index):
    expected = [x[index] if -len(x) <= index < len(x) else -1.0 for x in lists]
    assert objects.pick(jagged(lists), index, fill=-1.0).tolist() == expected
    per_event = np.full(len(lists), index, np.int16)
    assert objects.pick(jagged(lists), per_event, fill=-1.0).tolist() == expected


@pytest.mark.parametrize("index", [2**64 - 1, 2**63, -(2**62), math.nan, math.inf])
def test_picking_far_away_finds_nothing(index):
    assert objects.pick(jagged([[1.0], []]), index, fill=0).tolist() == [0, 0]


ends = st.none() | st.integers(-7, 7)


@given(events, ends, ends)
def test_slices_agree_with_python(lists, start, stop):
    assert lists_of(objects.cut(jagged(lists), start=start, stop=stop)) == [x[start:stop] for x in lists]


@given(events, numbers)
def test_selection_agrees_with_python(lists, threshold):
    column = jagged(lists)
    mask = Jagged(column.offsets.copy(), column.content > threshold)
    assert lists_of(objects.index(column, mask)) == [[y for y in x if y > threshold] for x in lists]


@pytest.mark.parametrize(
    ("content", "fill", "expected"),
    [
        (np.float32, math.nan, np.float32),
        (np.float32, 3, np.float32),
        (np.int32, math.nan, np.float64),
        (np.uint8, -1, np.int64),
        (np.uint8, 300, np.int64),
        (np.uint64, -1, np.int64),
        (np.uint64, 1, np.uint64),
        (np.uint64, None, np.uint64),
        (np.int32, None, np.int64),
        (np.float32, None, np.float32),
        (np.bool_, None, np.bool_),
        (np.bool_, False, np.bool_),
        (np.bool_, math.nan, np.float64),
    ],
)
@pytest.mark.parametrize("lists", [[[1], []], [[1]], []])
def test_the_type_follows_from_column_and_fill_alone(content, fill, expected, lists):
    assert objects.largest(jagged(lists, content), fill=fill).dtype == expected


def test_missing_booleans_count_as_false_when_filled_so():
    assert objects.leading(jagged([[True], []], np.bool_), fill=False).tolist() == [True, False]


LISTS = [[1.0, 2.0], [], [3.0]]


@pytest.mark.parametrize(
    "column",
    [
        ak.Array(LISTS),
        ak.Array([[0.0], *LISTS, [5.0]])[1:-1],
        ak.Array([[3.0], [], [1.0, 2.0]])[::-1],
        ak.Array([[3.0], [], [1.0, 2.0]])[[2, 1, 0]],
        ak.with_parameter(ak.Array(LISTS), "__doc__", "jets"),
        Jagged(np.array([1, 3, 3, 4]), np.array([9.0, 1.0, 2.0, 3.0, 9.0])),
    ],
    ids=["plain", "slice", "reversed", "gathered", "with a parameter", "part of a longer one"],
)
def test_jagged_columns_load_from_any_layout(column):
    assert lists_of(objects.load(column, 3)) == LISTS


@pytest.mark.parametrize("column", [np.arange(6).reshape(3, 2), ak.from_numpy(np.arange(6).reshape(3, 2))])
def test_fixed_size_columns_load_as_lists(column):
    assert lists_of(objects.load(column, 3)) == [[0, 1], [2, 3], [4, 5]]


def test_flat_columns_load_in_native_order():
    swapped = np.arange(6, dtype=">f4")[::2]
    assert objects.load(swapped, 3).dtype == np.float32
    assert objects.load(swapped, 3).tolist() == [0, 2, 4]
    assert objects.load(ak.Array([1, 2, 3]), 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize("column", [ak.Array([[], [], []]), ak.Array([[1], [], [2]])[:0]])
def test_columns_without_objects_or_events_load(column):
    assert objects.total(objects.load(column, len(column))).tolist() == [0] * len(column)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (ak.Array([[["a"]]]), "type"),
        (ak.Array(["a"]), "string"),
        (ak.Array([["a"]]), "string"),
        (ak.Array([[[1.0]]]), "nested"),
        (ak.Array([[1, None]]), r"\?int64"),
        (ak.Array([None, 1])[:1], r"\?int64"),
        (ak.Array([{"pt": 1}]), "pt: int64"),
        (np.ones((1, 2, 2)), "nested"),
        (np.array(["a"]), "<U1"),
        (np.array([object()]), "object"),
        (np.array([1j]), "complex"),
        (np.ones(2), "2 events where 1 are asked for"),
        ([1.0], "a list; a column is"),
    ],
)
def test_unfit_columns_are_refused(column, message):
    with pytest.raises(OperandError, match=message):
        objects.load(column, 1)


def test_counts_that_differ_are_refused_with_the_event():
    with pytest.raises(
        OperandError, match="operand 1 and operand 3 have different numbers of objects: event 1 has 0 and 1"
    ):
        objects.align(jagged([[1], []]), 2.0, jagged([[1], [2]]))


@given(events)
def test_the_mass_of_all_objects_adds_four_vectors(lists):
    pt = jagged([[abs(y) for y in x] for x in lists])
    back_to_back = objects.invariant_mass(pt, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(back_to_back, 0, atol=1e-3)
    at_rest = objects.invariant_mass(Jagged(pt.offsets, 0 * pt.content), 0, 0, pt)
    np.testing.assert_allclose(at_rest, objects.total(pt), rtol=1e-9)
