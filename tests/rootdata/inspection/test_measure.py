"""What is measured of a branch: values that lie apart from all others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.inspection.measure import SPECIAL, find_apart, measure
from rootdata.io.branches import Branch


def facts(values):
    return measure(Branch("x", "flat", "float32"), np.asarray(values, np.float32))


@pytest.mark.parametrize(
    ("others", "special"),
    [
        (lambda r: r.uniform(0.01, 1, 500), [-1.0]),  # a discriminant
        (lambda r: r.uniform(0.01, 1, 500), [-10.0, -2.0, -1.0]),
        (lambda r: 20 + r.exponential(30, 500), [0.0]),  # a momentum above a threshold
        (lambda r: r.normal(0, 1, 500), [-10.0]),  # a pseudorapidity
        (lambda r: r.uniform(-np.pi, np.pi, 500), [-10.0]),
        (lambda r: r.exponential(60, 500), [-1.0]),  # a mass after grooming
    ],
)
def test_a_value_apart_from_all_others_is_proposed_with_its_count(others, special):
    rng = np.random.default_rng(0)
    numbers = {value: 5 + i for i, value in enumerate(special)}
    values = np.concatenate([others(rng), *(np.full(n, value) for value, n in numbers.items())])
    rng.shuffle(values)
    assert facts(values).apart == numbers


@pytest.mark.parametrize(
    "values",
    [
        lambda r: r.exponential(30, 500),  # from 0 on
        lambda r: np.concatenate([r.exponential(30, 500), np.zeros(9)]),
        lambda r: np.concatenate([r.uniform(-1, 1, 500), np.full(9, -1.0)]),  # a cosine
        lambda r: r.choice([-1.0, 1.0], 500),  # a charge
        lambda r: r.poisson(3, 500).astype(float),  # a number of objects
        lambda r: r.integers(-2, 40, 500).astype(float),
        lambda r: np.concatenate([r.normal(0, 4, 500), np.full(9, -1.0)]),
        lambda r: np.concatenate([r.uniform(20, 90, 500), [0.0]]),  # once is chance
        lambda r: np.full(500, -1.0),
        lambda r: np.zeros(0),
    ],
)
def test_a_value_among_others_is_none(values):
    assert find_apart(values(np.random.default_rng(0)).astype(np.float32)) == {}


@given(st.lists(st.floats(-60, 60, width=32), max_size=60), st.sampled_from(SPECIAL), st.integers(0, 9))
def test_what_is_proposed_is_below_all_other_values(values, special, number):
    array = np.array([*values, *[special] * number], np.float32)
    proposed = find_apart(array)
    rest = array[~np.isin(array, list(proposed))]
    assert not proposed or max(proposed) < rest.min()
    assert all(np.count_nonzero(array == value) == n for value, n in proposed.items())


def test_in_all_files_or_in_none():
    rng = np.random.default_rng(0)
    apart, plain, within = (
        facts(np.concatenate([rng.uniform(0.1, 1, 200), more])) for more in (np.full(9, -1.0), [], [-3.0, -0.5])
    )
    assert apart.merge(apart).apart == {-1.0: 18}
    assert apart.merge(plain).apart == plain.merge(apart).apart == {-1.0: 9}
    assert apart.merge(within).apart == within.merge(apart).apart == {}


def test_negative_values_are_counted():
    column = facts([1.0, -1.0, -2.5, 3.0, -999.0])
    assert (column.negative, column.merge(column).negative) == (2, 4)
