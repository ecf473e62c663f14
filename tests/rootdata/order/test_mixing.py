from fractions import Fraction

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from rootdata.order import mixing
from rootdata.order.mixing import apportion, quotas

shares = st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(sum)
uneven = st.tuples(st.lists(st.integers(1, 3), min_size=200, max_size=300), st.integers(5_000, 10_000)).map(
    lambda x: [*x[0], x[1]]
)


# Dealing events to chunks


@given(shares | uneven, st.lists(st.floats(0, 1), max_size=60))
def test_apportion_is_never_a_whole_event_off_and_takes_nothing_back(sizes, cuts):
    total = sum(sizes)
    ends = [*sorted(int(cut * total) for cut in cuts), total]
    table = apportion(sizes, ends)
    assert table.sum(axis=1).tolist() == ends
    assert table[-1].tolist() == sizes
    assert np.all(np.diff(table, axis=0) >= 0)
    exact = np.outer(ends, sizes) / total
    assert np.max(np.abs(table - exact)) < 1 + 1e-9


def test_apportion_counts_in_whole_numbers_beyond_int64_squares():
    sizes = [4_000_000_000, 3_000_000_000, 7]
    total = sum(sizes)
    ends = [*range(1_000_000_001, total, 1_000_000_001), total]
    table = apportion(sizes, ends)
    assert table[-1].tolist() == sizes
    for row, end in zip(table.tolist(), ends, strict=True):
        assert sum(row) == end
        assert all(abs(t - Fraction(end * n, total)) < 1 for t, n in zip(row, sizes, strict=True))


# Quotas


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.integers(0, 1000), st.floats(0, 10).map(lambda x: round(x, 3))),
        min_size=1,
    )
)
def test_quotas_add_up_and_follow_the_weights(table):
    sizes, weights = {s: n for s, (n, _) in table.items()}, {s: w for s, (_, w) in table.items()}
    active = [s for s in sizes if sizes[s] and weights[s] > 0]
    assume(active)
    given = quotas(sizes, weights)
    total = sum(sizes[s] for s in active)
    assert sum(given.values()) == total
    assert all(given[s] == 0 for s in sizes if s not in active)
    norm = sum(weights[s] for s in active)
    assert all(abs(given[s] - total * weights[s] / norm) < 1 + 1e-6 for s in active)


def test_quotas_equal_sizes_where_weights_do():
    assert quotas({"a": 30, "b": 70}, {"a": 3, "b": 7}) == {"a": 30, "b": 70}
    assert quotas({"a": 10, "b": 90}, {"a": 1, "b": 1}) == {"a": 50, "b": 50}
    assert quotas({"a": 10, "b": 90}, {"a": 1, "b": 0}) == {"a": 10, "b": 0}


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=6).filter(any), st.lists(st.integers(0, 10**6), max_size=30)
)
def test_the_compiled_dealing_is_the_plain_one(shares, steps):
    ends = sorted({min(s, sum(shares)) for s in steps} | {sum(shares)})
    np.testing.assert_array_equal(apportion(shares, ends), mixing._apportion_plainly(shares, ends))
