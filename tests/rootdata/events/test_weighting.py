"""Factors of bins: flat, matched, capped, by weight or by leaving events out, with weights of both signs."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import DataError
from rootdata.events.quantiles import Quantiles
from rootdata.events.selection import Events
from rootdata.events.weighting import (
    BinFactors,
    Figures,
    Weighting,
    add,
    bin_factors,
    bins_of,
    count_bins,
    edges_of,
    tally,
)
from rootdata.location import Location

SEEDS = st.integers(0, 2**32 - 1)


def learnt(
    values: list[Any], weight: Any, bins: list[Any], *, wanted: Any = None, is_resampled: bool = False, **how: Any
) -> BinFactors:
    """Learn factors from events, with quantile edges where a number of bins is asked for."""
    known = [Quantiles.of(v) if isinstance(b, int) else None for v, b in zip(values, bins, strict=True)]
    edges = edges_of(bins, known)
    own = tally(bins_of(values, edges), weight, count_bins(edges))
    if wanted is not None:
        wanted = tally(bins_of(wanted[0], edges), wanted[1], count_bins(edges))
    return bin_factors(edges, own, wanted, cap=how.get("cap"), is_resampled=is_resampled, what="signal")


def made(seed: int, n: int, dimensions: int, *, negative: float = 0.0) -> tuple[list[Any], Any]:
    rng = np.random.default_rng(seed)
    kinds = [rng.exponential(50, n), rng.normal(0, 1, n), rng.poisson(3, n).astype(float)]
    sign = np.where(rng.random(n) < negative, -1.0, 1.0)
    return kinds[:dimensions], sign * rng.lognormal(0, 1, n)


@given(SEEDS, st.integers(1, 400), st.integers(1, 3), st.sampled_from([0.0, 0.2]))
def test_training_events_are_flat_in_the_bins_by_construction(
    seed: int, n: int, dimensions: int, negative: float
) -> None:
    values, weight = made(seed, n, dimensions, negative=negative)
    try:
        known = learnt(values, weight, [4, 3, 2][:dimensions])
    except DataError:
        assert weight.sum() <= np.abs(weight).sum() * (1 - 1e-9)  # nowhere do they add up to more than 0
        return
    bins, after = bins_of(values, known.edges), weight * known.at(values)
    assert (bins >= 0).all()
    heights = np.bincount(bins, after, minlength=count_bins(known.edges))
    used = np.array(known.factors) > 0
    np.testing.assert_allclose(heights[used], heights[used].mean(), rtol=1e-9)
    assert not heights[~used].any()
    before = np.bincount(bins, weight, minlength=len(used))
    np.testing.assert_array_equal(used, before > 0)
    # the class counts as much as before, and the figures are those of its events
    assert np.abs(after).sum() == pytest.approx(np.abs(weight).sum())
    figures = known.figures
    assert figures.effective == pytest.approx(after.sum() ** 2 / (after**2).sum())
    assert figures.effective_before == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert figures.largest == pytest.approx(np.abs(after).max() / np.abs(after).mean())
    counts = np.bincount(bins, minlength=len(used))
    assert (figures.empty, figures.events) == ((counts == 0).sum(), n)
    assert figures.unusable == ((counts > 0) & (before <= 0)).sum()
    assert figures.outside == counts[~used].sum()


@given(SEEDS, st.integers(20, 400), st.integers(1, 3), st.floats(1, 20))
def test_no_factor_is_larger_than_the_cap_times_the_mean_one_and_those_below_keep_their_proportions(
    seed: int, n: int, dimensions: int, cap: float
) -> None:
    values, weight = made(seed, n, dimensions)
    bins = [[0.0, 10.0, 20.0, 1e4], 6, 3][:dimensions]
    free, capped = learnt(values, weight, bins), learnt(values, weight, bins, cap=cap)
    factors, inside = capped.at(values), bins_of(values, capped.edges) >= 0
    mean = np.average(factors[inside], weights=np.abs(weight[inside]))
    assert factors.max() <= cap * mean * (1 + 1e-9)
    assert np.abs(weight * factors).sum() == pytest.approx(np.abs(weight).sum())
    ratio = np.array(capped.factors)[np.array(free.factors) > 0] / np.array(free.factors)[np.array(free.factors) > 0]
    below = np.array(capped.factors)[np.array(free.factors) > 0] < factors.max() * (1 - 1e-9)
    assert below.sum() == 0 or ratio[below].max() == pytest.approx(ratio[below].min())
    assert (ratio[~below] <= ratio.max() * (1 + 1e-9)).all()
    if not capped.figures.capped:
        np.testing.assert_allclose(capped.factors, free.factors)


@given(SEEDS, st.sampled_from([0.0, 0.15]))
def test_a_class_gets_the_distribution_of_another(seed: int, negative: float) -> None:
    values, weight = made(seed, 600, 2, negative=negative)
    others, others_weight = made(seed + 1, 300, 2, negative=negative)
    known = learnt(values, weight, [[0, 20, 60, 200], [-2, 0, 2]], wanted=(others, others_weight))
    bins, target = bins_of(values, known.edges), bins_of(others, known.edges)
    heights = np.bincount(bins + 1, weight * known.at(values), minlength=7)[1:]
    asked = np.bincount(target + 1, others_weight, minlength=7)[1:]
    used = np.array(known.factors) > 0
    np.testing.assert_allclose(heights[used] / heights[used].sum(), asked[used] / asked[used].sum())
    assert not heights[~used].any()


def test_bins_are_those_of_a_histogram() -> None:
    values, weight = made(1, 3000, 3)
    edges = ((0.0, 10.0, 50.0, 90.0), (-1.0, 0.0, 2.0), (0.0, 1.0, 3.0, 9.0))
    values[0][:3], values[1][:3], values[2][:3] = [0.0, 50.0, 90.0], [2.0, 0.0, -1.0], [9.0, 0.0, 1.0]
    expected, _ = np.histogramdd(np.array(values).T, bins=[np.array(e) for e in edges], weights=weight)
    found = tally(bins_of(values, edges), weight, count_bins(edges))
    np.testing.assert_allclose(found[:-1, 1], expected.reshape(-1))
    assert found[-1, 1] == pytest.approx(weight.sum() - expected.sum())
    assert found[:, 0].sum() == 3000
    parts = [tally(bins_of([v[s] for v in values], edges), weight[s], 18) for s in (slice(0, 1000), slice(1000, None))]
    np.testing.assert_allclose(add(*parts), found)
    assert np.array_equal(add(*parts)[:, 4], found[:, 4])


@pytest.mark.parametrize("values", [np.arange(1000.0), np.repeat([3.0, 4.0, 5.0], 100), np.full(50, 7.0)])
def test_learnt_bins_hold_as_many_events_each_and_equal_edges_are_one(values: Any) -> None:
    (edges,) = edges_of([10], [Quantiles.of(values)])
    counts = np.bincount(bins_of([values], (edges,)), minlength=len(edges) - 1)
    assert counts.min() > 0
    assert counts.sum() == len(values)
    assert list(edges) == sorted(set(edges))
    different = len(set(values))
    assert len(edges) - 1 == min(10, different)
    if different > 10:
        assert counts.max() - counts.min() <= 2
    assert bins_of([np.array([-1e9, 1e9])], (edges,)).tolist() == [0, len(edges) - 2]


def test_what_can_not_be_brought_to_the_asked_is_refused() -> None:
    values, weight = made(1, 10, 1)
    with pytest.raises(DataError, match=r"none of the 10 training events of signal lies within the bins, or"):
        learnt(values, weight, [[-2, -1]])
    with pytest.raises(DataError, match=r"none of the 10 training events of signal lies within the bins, or"):
        learnt(values, -weight, [2])
    with pytest.raises(DataError, match=r"lies in a bin of those that it shall look like, or"):
        learnt(values, weight, [[0, 1e4, 2e4]], wanted=([np.array([1.5e4])], np.ones(1)))


# What is multiplied


def a_weighting(*, is_resampled: bool = False) -> Weighting:
    figures = Figures(
        events=4, outside=0, bins=2, empty=0, unusable=0, capped=0, effective=3.5, effective_before=4.0, largest=2.0
    )
    known = BinFactors(edges=((-np.inf, 10.0, np.inf),), factors=(0.5, 2.0), figures=figures)
    return Weighting(
        samples=(1.0, 3.0), yields=(1.0, 2.0), balance=((1.0, 1.0, 1.0), (2.0, 4.0, 8.0)), bins=(known, None, known),
        is_resampled=is_resampled,
    )  # fmt: skip


def some_events() -> Events:
    n = 4
    return Events(
        entry=np.arange(n), part=np.zeros(n, np.uint8), label=np.array([0, 0, 1, -1]),
        weight=np.array([1, -2, 3, 4], np.float32), flat={}, objects={}, before=np.array([n, 0, 0]),
        variations={"up": np.array([10, 20, -30, 40], np.float32)}, reweighted=(np.array([5.0, 10.0, 5.0, 50.0]),),
    )  # fmt: skip


def test_factors_of_sample_balance_and_bin_are_multiplied_and_variations_get_the_same() -> None:
    weighting, events = a_weighting(), some_events()
    physical = weighting.apply(events, 1, training=False)
    assert physical.weight.tolist() == [3, -6, 9, 12]
    assert physical.variations["up"].tolist() == [30, 60, -90, 120]
    training = weighting.apply(events, 1, training=True)
    factors = np.array([3 * 2 * 0.5, 3 * 2 * 2.0, 3 * 4, 3 * 8 * 2.0])
    assert training.weight.tolist() == (events.weight * factors).tolist()
    assert training.variations["up"].tolist() == (events.variations["up"] * factors).tolist()
    assert training.weight.dtype == training.variations["up"].dtype == np.float32
    resampled = a_weighting(is_resampled=True).apply(events, 1, training=True)
    assert resampled.weight.tolist() == (events.weight * [6, 6, 12, 24]).tolist()


def test_what_was_learnt_survives_json() -> None:
    known = a_weighting()
    assert Weighting.from_dict(json.loads(json.dumps(known.to_dict(), allow_nan=False))) == known


@given(SEEDS, st.lists(st.integers(0, 2000), max_size=5))
def test_which_events_are_left_follows_from_each_alone(seed: int, cuts: list[int]) -> None:
    thin = a_weighting(is_resampled=True).thinning
    assert thin is not None
    assert a_weighting().thinning is None
    rng = np.random.default_rng(seed)
    entry, label, values = np.arange(2000), rng.integers(-1, 2, 2000), rng.uniform(0, 20, 2000)
    where = Location("/one/a.root", "Events")
    whole = thin(entry, label, [values], where)
    bounds = [0, *sorted(cuts), 2000]
    parts = [
        thin(entry[a:b], label[a:b], [values[a:b]], Location("/other/a.root", "Events"))
        for a, b in itertools.pairwise(bounds)
    ]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert whole[label == 1].all()  # of a class that stays as it is
    assert whole[(label != 1) & (values >= 10)].all()  # of the largest factor
    share = whole[(label != 1) & (values < 10)].mean()
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / ((label != 1) & (values < 10)).sum())
    assert not np.array_equal(whole, thin(entry, label, [values], Location(str(Path("b.root")), "Events")))


def test_a_weight_that_float32_can_not_hold_is_refused() -> None:
    weighting = Weighting(samples=(1e30,), yields=(0.0,))
    events = dataclasses.replace(some_events(), weight=np.zeros(4, np.float32))
    with pytest.raises(DataError, match=r"weights\.up: got 40, which times 1e\+38 float32 can't hold"):
        Weighting(samples=(1e38,), yields=(0.0,)).apply(events, 0, training=False)
    assert np.isfinite(weighting.apply(some_events(), 0, training=False).weight).all()
