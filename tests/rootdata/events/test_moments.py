import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.events import moments
from strategies import ordinary, values

floats = st.sampled_from(["float32", "float64"])
sentinels = st.lists(st.sampled_from([-999.0, 0.0, 1.5]), max_size=3, unique=True)


@given(st.lists(values, max_size=300), sentinels, floats)
def test_missing_values_are_counted_as_numpy_does(listed, sentinels, dtype):
    column, none = np.array(listed, dtype), np.array(sentinels, dtype)
    counts = moments.count_missing(column, none)
    assert counts == (np.isnan(column).sum(), np.isinf(column).sum(), np.isin(column, none).sum())


@given(st.lists(ordinary, min_size=1, max_size=300), floats, st.integers(1, 40))
def test_moments_are_those_of_exact_sums(listed, dtype, times):
    column = np.tile(np.array(listed, dtype), times)
    low, high, mean, m2 = moments.moments_of(column)
    exact = math.fsum(column.tolist()) / len(column)
    deviations = math.fsum((x - exact) ** 2 for x in column.tolist())
    assert (low, high) == (column.min(), column.max())
    # Relative to the size of what is summed: the sum itself may cancel to nothing.
    assert mean == pytest.approx(exact, rel=0, abs=1e-12 * np.abs(column, dtype=np.float64).mean())
    assert math.sqrt(m2 / len(column)) == pytest.approx(
        math.sqrt(deviations / len(column)), rel=1e-12, abs=1e-12 * np.abs(column, dtype=np.float64).mean()
    )


@pytest.mark.parametrize("n", [1, moments.LANES - 1, moments.LANES, moments.LANES + 1, 5 * moments.LANES + 3])
def test_the_order_of_additions_is_fixed(n):
    # To the last bit: value i goes to accumulator i % LANES, in order, whatever vector instructions there are.
    column = np.random.default_rng(n).normal(1e3, 1.0, n).astype(np.float32)

    def add(terms):
        lanes = [0.0] * moments.LANES
        for lane, term in zip(itertools.cycle(range(moments.LANES)), terms, strict=False):
            lanes[lane] += term
        return list(itertools.accumulate(lanes, initial=0.0))[-1]

    mean = add(map(float, column)) / n
    assert moments.moments_of(column)[2:] == (mean, add((float(x) - mean) * (float(x) - mean) for x in column))


def test_a_column_that_can_not_be_written_to_is_measured():
    column = np.arange(3.0)
    column.flags.writeable = False
    assert moments.count_missing(column, np.array([1.0])) == (0, 0, 1)
    assert moments.moments_of(column) == (0.0, 2.0, 1.0, 2.0)
