import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rootdata.order.block_order import numbered


@given(st.lists(st.integers(0, 30), max_size=40))
def test_values_are_numbered_as_by_unique(values):
    values = np.array(values, np.int64)
    for found, expected in zip(numbered(values), np.unique(values, return_inverse=True), strict=True):
        np.testing.assert_array_equal(found, expected)
