import math

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.jagged import Jagged
from rootdata.missing import Masked, as_real, find_missing, mask_sentinels, without_infinities
from strategies import SENTINEL, number_columns

sentinels = st.lists(st.sampled_from([SENTINEL, 0.0, 1.5, 7.0, 1e300, 1e-300, 2.0**53, math.nan, math.inf]), max_size=3)


def plain(values, missing):
    """Say what is missing one by one."""
    return [not math.isfinite(v) or any(v == m for m in missing) for v in values.tolist()]


@given(number_columns(), sentinels)
def test_sentinels_nan_and_infinities_are_missing(values, missing):
    column = mask_sentinels(values, missing)
    gone = find_missing(column)
    # in a narrower real type a sentinel is what it is rounded to: those here are exact in all
    assert (gone.tolist() if gone is not None else [False] * len(values)) == plain(values, missing)
    assert column.dtype == values.dtype
    real = as_real(column)
    assert real.dtype == (values.dtype if values.dtype.kind == "f" else np.float64)
    assert np.isfinite(real).tolist() == [not x for x in plain(values, missing)]


def test_a_column_without_anything_missing_is_handed_on():
    values = np.arange(3.0)
    assert mask_sentinels(values, [-999.0]) is values
    assert as_real(values) is values
    assert without_infinities(values) is values
    assert find_missing(values) is None


def test_infinities_become_nan_in_a_copy():
    values = np.array([1.0, math.inf, -math.inf, math.nan], np.float32)
    assert str(without_infinities(values).tolist()) == "[1.0, nan, nan, nan]"
    assert without_infinities(values).dtype == np.float32
    assert math.isinf(values[1])


def test_a_mask_follows_its_values():
    column = Masked(np.array([1, -999, 3]), np.array([True, False, True]))
    assert column.tolist() == [1, None, 3]
    assert column[np.array([2, 1])].tolist() == [3, None]
    assert column.take(np.array([1, 0])).tolist() == [None, 1]
    assert (len(column), column.ndim, column.shape, column.dtype) == (3, 1, (3,), np.int64)
    wide = Masked(np.arange(4).reshape(2, 2), np.array([[True, False], [True, True]]))
    assert wide[:, 1].tolist() == [None, 3]


def test_jagged_columns_keep_their_mask():
    column = Jagged.of(np.array([0, 2, 2, 3]), Masked(np.array([1, -999, 3]), np.array([True, False, True])))
    assert column.to_awkward().tolist() == [[1, None], [], [3]]
    assert ak.type(column.to_awkward()).content.content.content.primitive == "int64"
    assert column.take_events(np.array([True, False, True])).to_awkward().tolist() == [[1, None], [3]]
    assert column.take_objects(np.array([False, True, True])).to_awkward().tolist() == [[None], [], [3]]
    fixed = Jagged.from_fixed(Masked(np.arange(4).reshape(2, 2), np.array([[True, False], [True, True]])))
    assert fixed.to_awkward().tolist() == [[0, None], [2, 3]]


@pytest.mark.parametrize(("dtype", "expected"), [(np.float32, np.float32), (None, np.float64)])
def test_whole_numbers_turn_real_with_nan(dtype, expected):
    real = as_real(Masked(np.array([2**53, 5]), np.array([True, False])), dtype)
    assert real.dtype == expected
    assert str(real.tolist()) == "[9007199254740992.0, nan]"
