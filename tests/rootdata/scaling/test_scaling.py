import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rootdata.errors import DataError
from rootdata.events.statistics import ColumnStats
from rootdata.expressions.grammar import parse
from rootdata.missing import mask_sentinels
from rootdata.options.columns import Scaling
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.fit import fit
from rootdata.scaling.transform import Transform
from strategies import SENTINEL, awful, number_columns, ordinary, transforms

KINDS = ["standard", "minmax", "robust", "log"]


def apply(transform, values, *, missing=(SENTINEL,)):
    out = np.full(len(values), 7.0, np.float32)
    transform.apply(mask_sentinels(values, missing), out)
    return out


def fitted(kind, values):
    stats = ColumnStats.of(
        values, missing=[SENTINEL], curve=SIGNED_LOG.apply if kind == "log" else None, quantiles=kind == "robust"
    )
    return fit("met", Scaling(kind=kind), stats)


def real(values):
    wide = values.astype(np.float64)
    return wide[np.isfinite(wide) & (wide != SENTINEL)]


@st.composite
def spread_columns(draw):
    """Columns with something to scale, missing values among it."""
    dtype = draw(st.sampled_from(["float32", "float64", "int32"]))
    values = np.array(draw(st.lists(ordinary, min_size=2, max_size=40)), dtype)
    assume(values.std(dtype=np.float64) > 1e-3 * np.abs(values).max() > 1e-6)
    if dtype == "int32":
        return values
    return np.concatenate([values, np.array(draw(st.lists(awful, max_size=5)), dtype)])


@given(transforms, number_columns())
def test_invert_undoes_apply(transform, values):
    back = transform.invert(apply(transform, values))
    wide = values.astype(np.float64)
    missing = ~np.isfinite(wide) | (wide == SENTINEL)
    np.testing.assert_array_equal(np.isnan(back), missing)
    np.testing.assert_allclose(back[~missing], wide[~missing], rtol=1e-4, atol=1e-4)


@given(transforms, number_columns())
def test_apply_writes_into_a_strided_row_and_nothing_else(transform, values):
    table = np.full((len(values), 3), 7.0, np.float32)
    transform.apply(mask_sentinels(values, (SENTINEL,)), table[:, 1])
    np.testing.assert_array_equal(table[:, 1], apply(transform, values))
    assert np.all(table[:, [0, 2]] == 7.0)


@given(spread_columns())
def test_standard_gives_mean_0_and_deviation_1(values):
    transform = fitted("standard", values)
    scaled = real(apply(transform, values))
    # the shift is rounded to float32, half a unit of which is 2^-25 of it
    off = 2.0**-23 * abs(transform.shift * transform.factor) + 1e-4
    assert abs(scaled.mean()) < off
    assert scaled.std() == pytest.approx(1.0, abs=1e-4)


@given(spread_columns())
def test_minmax_gives_0_to_1(values):
    transform = fitted("minmax", values)
    scaled = real(apply(transform, values))
    off = 2.0**-23 * abs(transform.shift * transform.factor) + 1e-4
    assert scaled.min() == pytest.approx(0.0, abs=off)
    assert scaled.max() == pytest.approx(1.0, abs=off)


@given(spread_columns())
def test_log_standardises_the_compressed_values(values):
    x = real(values)
    logs = np.sign(x) * np.log1p(np.abs(x))
    assume(logs.std() > 1e-2)
    transform = fitted("log", values)
    expected = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(real(apply(transform, values)), expected, rtol=1e-3, atol=1e-3)


@given(spread_columns())
def test_robust_puts_the_median_at_0_and_the_quartiles_1_apart(values):
    low, middle, high = np.quantile(real(values), [0.25, 0.5, 0.75], method="inverted_cdf")
    assume(high > low)
    assert fitted("robust", values) == Transform(shift=middle, factor=1 / (high - low))


RNG = np.random.default_rng(3)
WELL_SPREAD = {
    "a top quark's mass": RNG.normal(172.5, 1.0, 20_000),
    "a Z boson's mass": RNG.normal(91.2, 0.1, 20_000),
    "lifetimes in seconds": RNG.exponential(1.5e-13, 20_000),
    "numbers of runs": RNG.integers(355_100, 362_761, 20_000),
    "energies in some unit": RNG.normal(0, 1e30, 20_000),
    "many zeros": np.where(RNG.random(20_000) < 0.4, 0.0, RNG.exponential(1.0, 20_000)),
}


@pytest.mark.parametrize("name", WELL_SPREAD)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_robust_has_the_quartiles_of_narrow_tiny_huge_and_discrete_columns(name, dtype):
    values = WELL_SPREAD[name].astype(dtype)
    transform = fitted("robust", values)
    low, middle, high = np.quantile(values.astype(np.float64), [0.25, 0.5, 0.75], method="inverted_cdf")
    assert 1 / transform.factor == pytest.approx(high - low, rel=0.005)
    assert transform.shift == pytest.approx(middle, abs=0.005 * (high - low))
    assert np.isfinite(apply(transform, values)).all()


BEYOND = [
    # kind, values, what is said
    ("standard", np.float32([5e-40, -5e-40, 1e-40]), r"a factor of up to .* and float32 ends at 3.4e\+38"),
    ("robust", np.float32([5e-40, -5e-40, 1e-40]), "a factor of up to"),
    ("log", np.float32([5e-40, -5e-40, 1e-40]), "a factor of up to"),
    ("minmax", np.float32([3e38, -3e38, 0]), r"differences of up to 6e\+38"),
    ("standard", np.array([1e300, -1e300, 0]), "what 'standard' computes of it is beyond float64"),
    ("minmax", np.array([1.5e308, -1.5e308, 0]), "what 'minmax' computes of it is beyond float64"),
    ("none", np.array([1e300, -1e300, 0]), r"scaled values of up to 1e\+300"),
    ("standard", np.array([1e-300, -1e-300, 0]), "so close that float64 can't hold the squares"),
    ("log", np.array([1e-300, -1e-300, 0]), "so close that float64 can't hold the squares"),
    ("minmax", np.array([1e-300, -1e-300, 0]), "a factor of up to"),
    ("robust", np.array([0, 5e-324, 1e-323]), "scaled by 'robust' it takes"),
    ("robust", np.array([0, 1e-20, 2e-20, 3e-20, 1e30]), "scaled values of up to"),
    ("robust", np.array([0.0, 0, 0, 0, 0, 2]), "has equal quartiles, though it goes from 0 to 2,"),
]


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(("kind", "values", "said"), BEYOND)
def test_what_float32_or_float64_can_not_hold_is_called_that_and_not_constant(kind, values, said):
    with pytest.raises(DataError, match=said) as error:
        fitted(kind, values)
    assert "constant" not in str(error.value)


@pytest.mark.parametrize("values", [np.float32([5e-40, -5e-40, 1e-40]), np.array([1e-300, -1e-300, 2e-300])])
def test_the_units_that_are_proposed_will_do(values):
    with pytest.raises(DataError, match="derive it in other units") as error:
        fitted("minmax" if values.dtype == np.float64 else "standard", values)
    expression = re.search(r"derived=\{'met': '(.*)'\}", str(error.value))[1]
    derived = parse(expression).evaluate({"met": values}, num_events=3)
    assert np.isfinite(apply(fitted("standard", derived), derived)).all()


@given(st.sampled_from(KINDS), number_columns(min_size=2))
def test_what_is_fitted_scales_its_own_events_to_finite_numbers_or_is_refused(kind, values):
    try:
        transform = fitted(kind, values)
    except DataError:
        return
    scaled = apply(transform, values)
    wide = values.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(scaled), ~np.isfinite(wide) | (wide == SENTINEL))
    assert not np.isinf(scaled).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_what_is_beyond_float32_when_it_is_scaled_is_missing(dtype):
    values = np.array([1, 3, 2**60], dtype)
    assert np.isnan(apply(Transform(factor=1e38), values)).tolist() == [False, False, True]
    assert np.isnan(apply(Transform(shift=-1.0, factor=1e25), values)).tolist() == [False, False, True]


@given(number_columns(min_size=1))
def test_none_leaves_values_as_they_are(values):
    assume(len(real(values)))
    kept = apply(fitted("none", values), values)
    wide = values.astype(np.float64)
    missing = ~np.isfinite(wide) | (wide == SENTINEL)
    np.testing.assert_array_equal(kept, np.where(missing, np.nan, wide).astype(np.float32))


@given(number_columns())
def test_given_numbers_are_used_whatever_the_statistics_say(values):
    transform = fit("met", Scaling(kind="given", shift=10.0, factor=0.5), ColumnStats())
    np.testing.assert_allclose(real(apply(transform, values)), (real(values) - 10.0) * 0.5, rtol=1e-6)


@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=30, unique=True),
    st.sampled_from([np.int64, np.uint64]),
)
def test_large_integers_keep_their_differences(steps, dtype):
    # Beyond 2^53 float64 itself has steps of 2^8 at 2^60; float32 alone would have steps of 2^37 and see a constant.
    assume(max(steps) - min(steps) > 20)
    values = (2**60 + np.array(steps, np.int64) * 2**30).astype(dtype)
    scaled = apply(fitted("standard", values), values).astype(np.float64)
    expected = np.diff(np.array(steps)) / np.std(steps)
    np.testing.assert_allclose(np.diff(scaled), expected, atol=1e-3 * np.ptp(expected) + 1e-4)


@given(number_columns(), st.sampled_from(["int64", "uint64", "int32"]))
def test_whole_numbers_do_not_lose_to_float32(values, dtype):
    # 16,777,217 is the first whole number that float32 has not.
    ids = 16_777_216 + np.arange(len(values)).astype(dtype)
    scaled = apply(Transform(shift=16_777_216.0), ids)
    np.testing.assert_array_equal(scaled, np.arange(len(values)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", [[3.0] * 5, [3.0, np.nan, 3.0, SENTINEL], [0.0, -0.0]])
def test_a_constant_column_is_refused_with_its_name_and_the_remedy(kind, values):
    with pytest.raises(DataError, match=r"feature 'met' is constant .*; remove it .*'met': 'none'"):
        fitted(kind, np.array(values, np.float32))


def test_a_column_that_is_constant_but_for_rounding_is_refused():
    with pytest.raises(DataError, match="is nearly constant"):
        fitted("standard", np.array([1e15, 1e15 + 1]))


@pytest.mark.parametrize("kind", [*KINDS, "none"])
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([np.nan, np.nan], "2 NaN"),
        ([np.inf, np.nan, SENTINEL, SENTINEL], "1 NaN, 1 infinite, 2 sentinels"),
        ([], "there are none at all"),
    ],
)
def test_a_column_without_a_value_is_refused_with_the_reason(kind, values, reason):
    if kind == "none" and not values:  # nothing to learn, and nothing that contradicts: files without training events
        assert fitted(kind, np.array(values, np.float32)) == Transform()
        return
    with pytest.raises(DataError, match=rf"feature 'met' has no real value .*\({reason}\); remove it"):
        fitted(kind, np.array(values, np.float32))


def test_a_wide_column_far_from_zero_is_centred_exactly():
    values = 2**60 + np.arange(0, 10**8, 10**5)
    scaled = apply(fitted("standard", values), values)
    assert abs(scaled.mean(dtype=np.float64)) < 1e-4
    assert abs(scaled.std(dtype=np.float64) - 1) < 1e-4
