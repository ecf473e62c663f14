import functools
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.events.statistics import ColumnStats, Moments
from rootdata.missing import Masked, find_missing, mask_sentinels
from rootdata.scaling.curves import SIGNED_LOG
from strategies import SENTINEL, number_columns

parted = st.lists(st.integers(0, 40), max_size=5)


def measure(values, *, missing=(SENTINEL,)):
    return ColumnStats.of(values, missing=missing, curve=SIGNED_LOG.apply, quantiles=True)


def pieces_of(values, cuts):
    edges = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    return [measure(values[a:b]) for a, b in itertools.pairwise(edges)]


def merged(parts):
    return functools.reduce(ColumnStats.merge, parts)


def assert_same(first, second):
    """Compare exactly what is counted, and to rounding what is summed."""
    for name in ("nans", "infinities", "sentinels", "low", "high", "quantiles", "count"):
        assert getattr(first, name) == getattr(second, name), name
    for one, other in ((first.moments, second.moments), (first.curve_moments, second.curve_moments)):
        scale = abs(one.mean) + one.std
        assert one.count == other.count
        assert other.mean == pytest.approx(one.mean, abs=1e-12 * scale)
        assert other.std == pytest.approx(one.std, abs=1e-7 * scale)


@given(number_columns())
def test_a_column_is_measured_as_numpy_does(values):
    stats, wide = measure(values), values.astype(np.float64)
    real = wide[np.isfinite(wide) & (wide != SENTINEL)]
    assert stats.nans == np.isnan(wide).sum()
    assert stats.infinities == np.isinf(wide).sum()
    assert stats.sentinels == (wide == SENTINEL).sum()
    assert (stats.count, stats.missing) == (len(real), len(wide) - len(real))
    if len(real):
        assert (stats.low, stats.high) == (real.min(), real.max())
        assert stats.moments.mean == pytest.approx(real.mean(), rel=1e-12, abs=1e-9)
        assert stats.moments.std == pytest.approx(real.std(), rel=1e-9, abs=1e-9)


def in_plain_numpy(values, missing):
    """Measure a column with passes of numpy over copies in float64."""
    marks = find_missing(mask_sentinels(values, missing))
    gone, real = (values[:0], values) if marks is None else (values[marks], values[~marks])
    gone, real = gone.astype(np.float64), real.astype(np.float64)
    nans, infinities = int(np.isnan(gone).sum()), int(np.isinf(gone).sum())
    counts = nans, infinities, len(gone) - nans - infinities, len(real)
    return counts, (real.min(), real.max(), real.mean(), real.std()) if len(real) else None


missing_values = st.lists(st.sampled_from([SENTINEL, 0.0, -1.0, 1e300, 1.5, 2.0**53]), max_size=4)


@given(number_columns(), missing_values, st.integers(1, 30), st.sampled_from(["as it is", "strided", "swapped"]))
def test_the_compiled_way_finds_what_plain_numpy_finds(values, missing, times, form):
    column = np.tile(values, times)
    expected, numbers = in_plain_numpy(column, missing)
    if form == "strided":
        column = np.repeat(column, 2)[::2]
    if form == "swapped":
        column = column.astype(column.dtype.newbyteorder())
    stats = ColumnStats.of(column, missing=missing)
    assert (stats.nans, stats.infinities, stats.sentinels, stats.count) == expected
    if numbers:
        low, high, mean, std = numbers
        scale = max(abs(low), abs(high))
        assert (stats.low, stats.high) == (low, high)
        assert stats.moments.mean == pytest.approx(mean, rel=1e-12, abs=1e-12 * scale)
        assert stats.moments.std == pytest.approx(std, rel=1e-12, abs=1e-12 * scale)


@given(number_columns(), parted)
def test_parts_add_up_to_the_whole(values, cuts):
    assert_same(measure(values), merged(pieces_of(values, cuts)))


@given(number_columns(), parted, st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_the_order(values, cuts, random):
    parts = pieces_of(values, cuts)
    in_order = merged(parts)
    from_behind = functools.reduce(lambda late, early: early.merge(late), reversed(parts))
    random.shuffle(parts)
    assert_same(in_order, from_behind)
    assert_same(in_order, merged(parts))


@given(number_columns())
def test_nothing_added_changes_nothing(values):
    stats, nothing = measure(values), measure(values[:0])
    assert stats.merge(nothing) == stats == nothing.merge(stats)


def test_moments_survive_a_large_offset():
    values = 1e9 + np.arange(1000.0)
    parts = [Moments.of(values[i : i + 7]) for i in range(0, 1000, 7)]
    assert functools.reduce(Moments.merge, parts).std == pytest.approx(np.arange(1000.0).std(), rel=1e-9)


@st.composite
def long_integers(draw):
    dtype = draw(st.sampled_from([np.int64, np.uint64]))
    ends = np.iinfo(dtype)
    near = st.sampled_from([ends.min, ends.max, 2**53, 2**62]).flatmap(lambda end: st.integers(end - 3, end + 3))
    values = draw(st.lists((near | st.integers(-5, 5)).filter(lambda n: ends.min <= n <= ends.max), max_size=40))
    return np.array(values, dtype)


@given(long_integers(), parted, st.sampled_from([(), (0.0,), (-1.0, 2.0**53), (2.0**64, -(2.0**63))]))
def test_extremes_of_whole_numbers_stay_exact_in_parts_and_in_json(values, cuts, missing):
    whole = measure(values, missing=missing)
    kept = [n for n in values.tolist() if n not in {int(m) for m in missing}]
    assert (whole.count, whole.sentinels) == (len(kept), len(values) - len(kept))
    edges = [0, *sorted(min(c, len(values)) for c in cuts), len(values)]
    parts = merged([measure(values[a:b], missing=missing) for a, b in itertools.pairwise(edges)])
    for stats in (whole, parts, ColumnStats.from_dict(json.loads(json.dumps(whole.to_dict(), allow_nan=False)))):
        if kept:
            assert (stats.low, stats.high) == (min(kept), max(kept))
            assert isinstance(stats.low, int)
            assert stats.moments.mean == pytest.approx(sum(kept) / len(kept), rel=1e-12, abs=1e4)
        else:
            assert stats.count == 0


@given(number_columns(), st.booleans(), st.booleans())
def test_statistics_survive_json(values, log, quantiles):
    stats = ColumnStats.of(values, missing=[SENTINEL], curve=SIGNED_LOG.apply if log else None, quantiles=quantiles)
    text = json.dumps(stats.to_dict(), allow_nan=False)
    assert ColumnStats.from_dict(json.loads(text)) == stats


@pytest.mark.parametrize(
    ("dtype", "values", "sentinel", "found"),
    [
        ("int8", [25, 1], -999.0, 0),  # -999 wraps to 25
        ("uint8", [25, 1], -999.0, 0),
        ("uint16", [64537, 1], -999.0, 0),
        ("uint64", [2**64 - 999, 1], -999.0, 0),
        ("uint8", [231, 1], 999.0, 0),  # 999 wraps to 231
        ("uint8", [255, 1], 255.0, 1),
        ("int16", [-999, 1], -999.0, 1),
        ("int64", [-999, 1], -999.0, 1),
        ("int32", [0, 1], 0.5, 0),
        ("int64", [2**53 + 1, 1], 2.0**53, 0),
        ("int32", [7, 1], 1e20, 0),
        ("bool", [True, False], 1.0, 0),
        ("float32", [-999.9, 1.0], -999.9, 1),  # as float32 rounds it
        ("float32", [-999.5, 1.0], -999.0, 0),
        ("float32", [1.0, 2.0], 1e300, 0),
        ("float64", [-999.9, 1.0], -999.9, 1),
    ],
)
def test_sentinels_are_found_in_every_type_and_nowhere_else(dtype, values, sentinel, found):
    stats = ColumnStats.of(np.array(values, dtype), missing=[sentinel])
    assert (stats.sentinels, stats.count) == (found, 2 - found)


def test_an_empty_column_has_no_numbers():
    stats = measure(np.empty(0, np.float32))
    assert (stats.count, stats.missing, stats.low, stats.high) == (0, 0, math.inf, -math.inf)
    assert stats.moments.std == 0.0


def test_what_is_masked_is_missing():
    stats = ColumnStats.of(Masked(np.array([7, 2**60 + 1, 5]), np.array([False, True, True])), missing=[7.0])
    assert (stats.nans, stats.sentinels, stats.count, stats.low, stats.high) == (1, 0, 2, 5, 2**60 + 1)


def test_extremes_of_whole_numbers_are_exact():
    event = ColumnStats.of(np.array([2**63 + 1, 2**60 + 1, 0], np.uint64), missing=[0.0])
    assert (event.low, event.high) == (2**60 + 1, 2**63 + 1)
    again = ColumnStats.from_dict(json.loads(json.dumps(event.to_dict())))
    assert (again.low, again.high) == (2**60 + 1, 2**63 + 1)
    assert event.merge(ColumnStats.of(np.array([1]))).low == 1
