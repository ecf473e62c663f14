import functools
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.events.quantiles import KEPT, RANK_ACCURACY, Quantiles

SHARES = np.linspace(0, 1, 41)


def made(name, n, seed=0):
    rng = np.random.default_rng([n, seed])
    return {
        "narrow": lambda: rng.normal(172.5, 1.0, n),
        "offset": lambda: rng.normal(1e9, 1e-3, n),
        "tiny": lambda: rng.exponential(1.5e-13, n),
        "huge": lambda: rng.normal(0, 1e300, n),
        "both signs and all sizes": lambda: rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-300, 300, n),
        "heavy tails": lambda: rng.standard_cauchy(n) ** 3,
        "few whole numbers": lambda: rng.poisson(3, n),
        "many whole numbers": lambda: rng.integers(0, 5000, n),
        "mostly one value": lambda: np.where(rng.random(n) < 0.9, 0.0, rng.normal(0, 1, n)),
        "single precision": lambda: rng.normal(91.2, 0.1, n).astype(np.float32),
        "rising": lambda: np.sort(rng.normal(0, 1, n)),
        "falling": lambda: -np.sort(rng.normal(0, 1, n)),
        "in turns": lambda: np.arange(n) * 0.6180339887 % 1,
    }[name]()


NAMES = [
    *("narrow", "offset", "tiny", "huge", "both signs and all sizes", "heavy tails", "few whole numbers"),
    *("many whole numbers", "mostly one value", "single precision", "rising", "falling", "in turns"),
]


def parts_of(values, sizes):
    edges = np.minimum(np.cumsum([0, *itertools.islice(itertools.cycle(sizes), len(values))]), len(values))
    edges = [*edges[edges < len(values)].tolist(), len(values)]
    return [Quantiles.of(values[a:b]) for a, b in itertools.pairwise(edges)]


def in_file_order(parts):
    return functools.reduce(Quantiles.merge, parts)


def in_pairs(parts):
    while len(parts) > 1:
        parts = [in_file_order(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


def from_behind(parts):
    return functools.reduce(lambda late, early: early.merge(late), reversed(parts))


def rank_errors(values, summary):
    """How far each quantile's rank is from the one that was asked for, as a share of all values, by numpy."""
    ordered = np.sort(values.astype(np.float64))
    found = [summary.at(q) for q in SHARES]
    asked = np.maximum(1, np.ceil(SHARES * len(values)))
    first, last = np.searchsorted(ordered, found, side="left") + 1, np.searchsorted(ordered, found, side="right")
    assert (first <= last).all()  # it is one of the values
    return np.maximum(np.maximum(first - asked, asked - last), 0) / len(values)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [[97], [3_000, 1, 17_000], [100_000]], ids=["many blocks", "few blocks", "one block"])
@pytest.mark.parametrize("merged", [in_file_order, in_pairs, from_behind])
def test_ranks_are_as_accurate_as_promised_however_blocks_are_merged(name, sizes, merged):
    values = made(name, 100_000)
    summary = merged(parts_of(values, sizes))
    assert rank_errors(values, summary).max() <= summary.error <= RANK_ACCURACY
    assert (summary.count, summary.at(0), summary.at(1)) == (len(values), values.min(), values.max())
    assert len(summary.values) <= (6 if merged is in_pairs else 1) * KEPT  # accuracy is kept, at the price of size


@pytest.mark.parametrize("name", ["narrow", "few whole numbers", "mostly one value"])
def test_parts_of_different_distributions_are_as_accurate(name):
    # Files of samples come one after the other.
    values = np.concatenate([made(name, 40_000, seed) * (1 + seed) for seed in range(5)])
    summary = in_file_order(parts_of(values, [1_000]))
    assert rank_errors(values, summary).max() <= RANK_ACCURACY


@settings(max_examples=60)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=80), st.lists(st.integers(1, 30))
)
def test_few_values_are_exact_in_any_parts(values, sizes):
    column = np.array(values)
    parts = parts_of(column, sizes or [80])
    for summary in (in_file_order(parts), in_pairs(parts), from_behind(parts)):
        assert summary.error == 0
        for q in (0, 0.1, 0.25, 0.5, 0.75, 1):
            rank = max(1, math.ceil(q * len(values)))
            assert summary.at(q) == np.sort(column)[rank - 1]


def test_few_different_values_are_exact_however_often_they_come():
    values = made("few whole numbers", 300_000)
    summary = in_file_order(parts_of(values, [501]))
    assert summary.error == 0
    assert [summary.at(q) for q in SHARES] == np.quantile(values, SHARES, method="inverted_cdf").tolist()


@given(st.sampled_from(NAMES), st.integers(0, 3))
def test_the_same_blocks_in_the_same_order_give_the_same_bits(name, seed):
    values = made(name, 30_000, seed)
    one, two = (in_file_order(parts_of(values, [700])) for _ in range(2))
    assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())


@given(st.sampled_from(NAMES), st.integers(0, 6_000))
def test_json_changes_nothing_and_merging_goes_on(name, n):
    one, two = Quantiles.of(made(name, n)), Quantiles.of(made(name, 500))
    again = Quantiles.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
    assert again == one
    assert again.merge(two) == one.merge(two)


def test_nothing_has_no_quantile_and_adds_nothing():
    nothing, some = Quantiles.of(np.empty(0)), Quantiles.of(np.arange(3))
    assert nothing.merge(some) == some == some.merge(nothing)
    with pytest.raises(ValueError, match="of 0 values"):
        nothing.at(0.5)
    with pytest.raises(ValueError, match=r"quantile 1.5"):
        some.at(1.5)


def test_zeros_of_both_signs_are_one_value():
    assert math.copysign(1, Quantiles.of(np.array([-0.0, 0.0])).at(0)) == 1
    assert Quantiles.of(np.array([0.0, -0.0])) == Quantiles.of(np.array([-0.0, 0.0]))


@pytest.mark.long
def test_a_thousand_million_values_would_be_as_accurate():
    # Blocks that are all alike: ranks of their union are known.
    block = Quantiles.of(np.arange(100_000) * 0.6180339887 % 1)
    summary = in_file_order([block] * 10_000)
    assert summary.count == 10**9
    assert max(abs(summary.at(q) - q) for q in SHARES) <= RANK_ACCURACY + 1e-4
    assert summary.error <= RANK_ACCURACY
    assert len(summary.values) <= KEPT
