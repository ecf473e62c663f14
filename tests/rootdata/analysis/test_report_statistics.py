"""Formulas against definitions, reference values and other code."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rootdata.analysis.statistics import (
    areas,
    asimov,
    difference,
    effective_count,
    efficiency,
    kolmogorov,
    kolmogorov_smirnov,
    replicas,
)
from rootdata.errors import ConfigError, ShapeError


def make(seed, n=400, *, shift=1.0, weights="one"):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(int)
    score = np.round(rng.normal(label * shift, 1), 1)  # with ties
    weight = {"one": np.ones(n), "positive": rng.exponential(size=n), "signed": rng.choice([1.0, 1.0, 1.0, -1.0], n)}
    return score, label, weight[weights]


# Areas


def delong(scores, label):
    """DeLong, DeLong, Clarke-Pearson 1988, eqs. (1) to (6), pair by pair."""
    signal, background = (np.flatnonzero(label == number) for number in (1, 0))
    m, n = len(signal), len(background)
    psi = np.array([[[(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in background] for i in signal] for s in scores])
    theta = psi.mean(axis=(1, 2))
    v10, v01 = psi.mean(axis=2) - theta[:, None], psi.mean(axis=1) - theta[:, None]
    return theta, v10 @ v10.T / (m - 1) / m + v01 @ v01.T / (n - 1) / n


@pytest.mark.parametrize("seed", range(3))
def test_areas_are_delongs(seed):
    score, label, _ = make(seed, 80)
    scores = np.stack([score, score + np.random.default_rng(seed).normal(size=80), -score])
    found, (theta, covariance) = areas(scores, label), delong(scores, label)
    assert found.values == pytest.approx(theta)
    assert found.covariance == pytest.approx(covariance)
    assert found.errors == pytest.approx(np.sqrt(np.diag(covariance)))


def test_weighted_areas_agree_with_scikit_learn():
    score, label, weight = make(1, weights="positive")
    assert areas(score, label, weight=weight).values[0] == pytest.approx(
        roc_auc_score(label, score, sample_weight=weight)
    )


@pytest.mark.parametrize("weights", ["one", "positive", "signed"])
def test_errors_of_areas_are_those_of_a_poisson_bootstrap(weights):
    score, label, weight = make(2, 2000, weights=weights)
    rng = np.random.default_rng(0)
    drawn = [areas(score, label, weight=weight * rng.poisson(1, len(score))).values[0] for _ in range(400)]
    assert areas(score, label, weight=weight).errors[0] == pytest.approx(np.std(drawn), rel=0.12)


def test_a_common_factor_of_the_weights_changes_nothing():
    score, label, weight = make(3, weights="positive")
    scores = np.stack([score, -score])
    first, second = (areas(scores, label, weight=weight * factor) for factor in (1.0, 7.5))
    assert first.values == pytest.approx(second.values)
    assert first.covariance == pytest.approx(second.covariance)


def test_a_difference_of_the_same_events_is_surer_than_of_others():
    score, label, weight = make(4, 3000, weights="positive")
    close = score + np.random.default_rng(0).normal(0, 0.1, len(score))
    pair = areas(np.stack([score, close]), label, weight=weight)
    gap, error = difference(pair)
    assert gap == pytest.approx(pair.values[1] - pair.values[0])
    assert error < 0.3 * np.hypot(*pair.errors)
    assert difference(areas(np.stack([score, score]), label))[1] == pytest.approx(0, abs=1e-7)


def test_without_a_class_there_is_no_area():
    found = areas(np.arange(4.0), np.ones(4))
    assert np.isnan(found.values).all()
    assert np.isnan(found.errors).all()


def test_shapes_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"got \(1, 3\), \(4,\)"):
        areas(np.arange(3.0), np.ones(4))


# Counts, efficiencies


@given(st.integers(1, 50), st.floats(0.1, 100))
def test_equal_weights_count_as_events(n, weight):
    assert effective_count(np.full(n, weight)) == pytest.approx(n)
    share, error = efficiency(np.arange(n) < n // 2, np.full(n, weight))
    assert share == pytest.approx(n // 2 / n)
    assert error == pytest.approx(np.sqrt(share * (1 - share) / n))


def test_of_nothing_there_is_no_share():
    assert effective_count(np.zeros(3)) == 0
    assert np.isnan(efficiency(np.ones(2, bool), np.array([1.0, -1.0]))).all()


# Kolmogorov and Smirnov


@pytest.mark.parametrize(
    ("x", "expected"),
    [(0, 1), (0.1, 1), (0.19, 1), (0.25, 0.9999999731761899), (0.4, 0.9971923267772983), (0.6, 0.8642827790506042),
     (0.8276, 0.49995841656354456), (1, 0.26999967167735456), (1.3581, 0.0499996304316674),
     (1.6276, 0.010001537333060776), (2.5, 7.453306344157342e-06), (4, 2.532833109818835e-14)],
)  # fmt: skip
def test_the_series_is_that_of_scipy(x, expected):
    """What ``scipy.stats.kstwobign.sf`` gives (version 1.17.1)."""
    assert kolmogorov(x) == pytest.approx(expected, rel=1e-9)


def largest(first, second, w1, w2):
    """The largest distance of two cumulative distributions, at each value."""
    return max(abs(w1[first <= x].sum() / w1.sum() - w2[second <= x].sum() / w2.sum()) for x in [*first, *second])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_the_distance_is_the_largest_one(seed, signed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 8, 30).astype(float), rng.integers(0, 8, 20).astype(float)
    w1, w2 = (rng.choice([1.0, 1.0, -1.0], n) if signed else rng.random(n) + 0.1 for n in (30, 20))
    if abs(w1.sum()) < 1 or abs(w2.sum()) < 1:
        return
    found = kolmogorov_smirnov(first, second, weights=(w1, w2))
    assert found.distance == pytest.approx(largest(first, second, w1, w2))


@pytest.mark.parametrize("weights", ["one", "exponential", "signed"])
def test_p_values_are_uniform_where_nothing_differs(weights):
    rng = np.random.default_rng(5)
    low = []
    for _ in range(400):
        w1, w2 = (
            {"one": np.ones(n), "exponential": rng.exponential(size=n), "signed": rng.choice([1.0] * 9 + [-1.0], n)}[
                weights
            ]
            for n in (300, 200)
        )
        low.append(kolmogorov_smirnov(rng.normal(size=300), rng.normal(size=200), weights=(w1, w2)).p_value < 0.05)
    assert 0.02 < np.mean(low) < 0.09  # 0.05 within three errors, and some conservatism


def test_what_differs_is_seen():
    rng = np.random.default_rng(6)
    assert kolmogorov_smirnov(rng.normal(size=1000), rng.normal(0.3, 1, 1000)).p_value < 1e-4
    assert np.isnan(kolmogorov_smirnov(np.ones(2), np.ones(2), weights=(np.zeros(2), np.ones(2)))).all()


# Significance


@pytest.mark.parametrize(
    ("s", "b", "sigma", "expected"),
    [(10, 100, 0, 0.9840), (10, 100, 0.001, 0.9840), (10, 100, 10, 0.6902), (10, 100, 30, 0.3067), (5, 1, 0, 3.3913),
     (5, 1, 0.5, 2.7637)],
)  # fmt: skip
def test_significances_are_the_references(s, b, sigma, expected):
    assert float(asimov(s, b, uncertainty=sigma)) == pytest.approx(expected, abs=5e-5)


def test_a_small_uncertainty_goes_over_into_none():
    sure = asimov(10.0, 1e4)
    for sigma in (1e-9, 1e-6, 1e-4, 1e-3, 1e-2):
        assert float(asimov(10.0, 1e4, uncertainty=sigma)) == pytest.approx(float(sure), rel=1e-5)


def test_few_signal_events_approach_s_over_root_b():
    assert float(asimov(1.0, 1e6)) == pytest.approx(1e-3, rel=1e-4)
    assert float(asimov(1.0, 1e6, uncertainty=1e4)) == pytest.approx(1 / np.sqrt(1e6 + 1e8), rel=1e-4)


def test_without_background_no_significance_is_claimed():
    found = asimov(np.array([1.0, 1.0, -1.0, 0.0]), np.array([0.0, -2.0, 5.0, 5.0]), uncertainty=0.1)
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert found[3] == 0
    with pytest.raises(ConfigError, match="got -1; expected 0 or more"):
        asimov(1.0, 1.0, uncertainty=-1.0)


def test_significance_falls_with_the_uncertainty_and_rises_with_the_signal():
    grid = [float(asimov(s, 20.0, uncertainty=u)) for s, u in itertools.product((1.0, 5.0), (0.0, 1.0, 4.0))]
    assert grid[0] > grid[1] > grid[2] < grid[5] < grid[4] < grid[3]


# Replicas


@pytest.mark.parametrize("weights", [[1.0] * 8, [0.5, 2.0, 3.0], [1.0, 1.0, -1.0], [-2.0]])
def test_replicas_have_the_mean_and_variance_of_the_weights(weights):
    weights = np.array(weights)
    drawn = replicas([weights.sum()], [(weights**2).sum()], count=20_000, seed=[1])[:, 0]
    spread = np.sqrt((weights**2).sum())
    assert drawn.mean() == pytest.approx(weights.sum(), abs=0.03 * spread)
    assert drawn.std() == pytest.approx(spread, rel=0.03)


def test_nothing_stays_nothing():
    assert (replicas([0.0], [0.0], count=5, seed=[1]) == 0).all()
