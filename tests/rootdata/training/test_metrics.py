import functools

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from rootdata.errors import ShapeError
from rootdata.training import metrics


@st.composite
def scored_events(draw, *, n_max=60):
    """Scores with ties, labels of both classes, positive weights."""
    n = draw(st.integers(2, n_max))
    score = draw(nps.arrays(np.float64, n, elements=st.integers(0, 20).map(lambda i: i / 20)))
    label = draw(nps.arrays(np.int64, n, elements=st.integers(0, 1)))
    label[:2] = 0, 1
    weight = draw(nps.arrays(np.float64, n, elements=st.floats(0.1, 10)))
    return score, label, weight


@given(scored_events())
def test_auc_agrees_with_scikit_learn(events):
    score, label, weight = events
    assert metrics.auc(score, label) == pytest.approx(reference.roc_auc_score(label, score))
    expected = reference.roc_auc_score(label, score, sample_weight=weight)
    assert metrics.auc(score, label, weight=weight) == pytest.approx(expected)


@given(scored_events())
def test_curve_agrees_with_scikit_learn(events):
    score, label, weight = events
    curve = metrics.roc(score, label, weight=weight)
    background, signal, threshold = reference.roc_curve(label, score, sample_weight=weight, drop_intermediate=False)
    np.testing.assert_allclose(curve.background, background, atol=1e-12)
    np.testing.assert_allclose(curve.signal, signal, atol=1e-12)
    np.testing.assert_array_equal(curve.threshold[1:], threshold[1:])
    assert np.isfinite(curve.threshold).all()


@given(scored_events())
def test_each_threshold_gives_its_efficiencies(events):
    score, label, weight = events
    for background, signal, threshold in zip(*metrics.roc(score, label, weight=weight), strict=True):
        kept = score >= threshold
        assert background == pytest.approx((weight * kept)[label == 0].sum() / weight[label == 0].sum())
        assert signal == pytest.approx((weight * kept)[label == 1].sum() / weight[label == 1].sum())


@given(scored_events())
def test_only_the_order_of_scores_matters(events):
    score, label, weight = events
    value = metrics.auc(score, label, weight=weight)
    assert metrics.auc(np.exp(3 * score), label, weight=weight) == pytest.approx(value)
    assert metrics.auc(-score, label, weight=weight) == pytest.approx(1 - value)


@given(scored_events(n_max=20), st.data())
def test_a_whole_weight_is_a_repetition(events, data):
    score, label, _ = events
    times = data.draw(nps.arrays(np.int64, len(score), elements=st.integers(1, 4)))
    for figure in (metrics.auc, metrics.accuracy, metrics.cross_entropy):
        repeated = figure(np.repeat(score, times), np.repeat(label, times))
        assert figure(score, label, weight=times) == pytest.approx(repeated)


@given(scored_events())
def test_accuracy_and_loss_agree_with_scikit_learn(events):
    score, label, weight = events
    expected = reference.accuracy_score(label, score >= 0.5, sample_weight=weight)
    assert metrics.accuracy(score, label, weight=weight) == pytest.approx(expected)
    inside = np.clip(score, 0.01, 0.99)
    expected = reference.log_loss(label, inside, sample_weight=weight, labels=[0, 1])
    assert metrics.cross_entropy(inside, label, weight=weight) == pytest.approx(expected)


def test_several_classes():
    score = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
    label = np.array([0, 1, 2, 1])
    assert metrics.accuracy(score, label) == 0.75
    assert metrics.cross_entropy(score, label) == pytest.approx(-np.log([0.6, 0.5, 0.7, 0.4]).mean())


def test_two_columns_mean_the_same_as_one():
    rng = np.random.default_rng(1)
    score, label = rng.random(100), rng.integers(0, 2, 100)
    both = np.stack([1 - score, score], axis=1)
    assert metrics.cross_entropy(both, label) == pytest.approx(metrics.cross_entropy(score, label))
    assert metrics.accuracy(both, label) == metrics.accuracy(score, label)


def test_a_missing_class_has_no_area():
    assert np.isnan(metrics.auc(np.array([0.1, 0.2]), np.array([1, 1])))


def test_a_certain_mistake_costs_a_finite_loss():
    assert metrics.cross_entropy(np.array([0.0]), np.array([1])) == pytest.approx(-np.log(1e-7))


def test_a_thinned_curve_keeps_ends_area_and_the_region_of_small_background():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 200_000)
    score = rng.normal(label * 2.0)
    curve = metrics.roc(score, label)
    few = metrics.thin(curve)
    assert len(few.signal) < 500 < len(curve.signal)
    assert (few.signal[0], few.background[0], few.signal[-1], few.background[-1]) == (0, 0, 1, 1)
    assert metrics.area(few) == pytest.approx(metrics.area(curve), abs=1e-3)
    assert ((few.background > 0) & (few.background < 1e-3)).sum() > 20
    assert set(few.threshold) <= set(curve.threshold)


@pytest.mark.parametrize("negative", [0.0, 0.2, 0.4, "where signal is"])
@pytest.mark.parametrize("n", [2_000, 100_000])
def test_a_thinned_curve_keeps_its_area_with_negative_weights(negative, n):
    rng = np.random.default_rng([n, 7])
    label = rng.integers(0, 2, n)
    score = rng.normal(label * 1.0)
    share = 0.6 * (score > 0.5) if negative == "where signal is" else negative
    weight = np.where(rng.random(n) < share, -1, 1) * rng.exponential(1, n) + (score < 0)
    curve = metrics.roc(score, label, weight=weight)
    few = metrics.thin(curve)
    assert metrics.area(few) == pytest.approx(metrics.area(curve), abs=metrics.AREA_KEPT)
    assert len(few.signal) < 1_000
    assert (few.signal[-1], few.background[-1]) == pytest.approx((1, 1))


def in_pairs(score, label, weight):
    """The chance that signal scores above background, by its definition."""
    signal, background = label == 1, label == 0
    above = np.sign(score[signal][:, None] - score[background]) / 2 + 0.5
    return weight[signal] @ above @ weight[background] / (weight[signal].sum() * weight[background].sum())


@st.composite
def events_of_both_signs(draw):
    score, label, weight = draw(scored_events())
    signs = draw(nps.arrays(np.int64, len(score), elements=st.sampled_from([-1, 1])))
    weight = weight * signs
    assume(all(abs(weight[label == c].sum()) > 0.1 for c in (0, 1)))
    return score.astype(np.float32), label, weight


def sums_of(events, *, limit=1000):
    sums = metrics.ScoreSums(limit=limit)
    sums.add(events[0], events[1], weight=events[2])
    return sums


@given(events_of_both_signs(), st.integers(1, 5))
def test_sums_give_the_area_of_the_definition_however_events_are_dealt(events, n_parts):
    expected = in_pairs(*events)
    assert metrics.auc(events[0], events[1], weight=events[2]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    parts = [sums_of([values[i::n_parts] for values in events]) for i in range(n_parts)]
    assert functools.reduce(metrics.ScoreSums.merge, parts).area() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    batch_by_batch = metrics.ScoreSums(limit=1000)
    for i in range(n_parts):
        batch_by_batch.add(events[0][i::n_parts], events[1][i::n_parts], weight=events[2][i::n_parts])
    assert batch_by_batch.area() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n_parts", [1, 2, 4])
def test_memory_is_bounded_and_the_area_then_is_the_same_for_any_parts(n_parts, monkeypatch):
    monkeypatch.setattr(metrics, "AT_ONCE", 500)
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 40_000)
    score = 1 / (1 + np.exp(-rng.normal(label * 1.0)))
    weight = rng.normal(1, 1, 40_000)
    parts = []
    for part in range(n_parts):
        sums = metrics.ScoreSums(limit=3000)
        for rows in np.array_split(np.arange(40_000)[part::n_parts], 30):
            sums.add(score[rows], label[rows], weight=weight[rows])
            assert sums._n_waiting <= 3000
        parts.append(sums)
    found = functools.reduce(metrics.ScoreSums.merge, parts)
    whole = sums_of((score, label, weight), limit=3000)
    assert len(found) == len(whole) <= 3000
    assert found.area() == pytest.approx(whole.area(), rel=1e-12)
    assert found.area() == pytest.approx(metrics.auc(score, label, weight=weight), abs=1e-4)


def test_scores_of_any_sign_and_size_are_in_order():
    score = np.float32([-np.inf, -1e30, -1, -1e-42, 0, 1e-42, 1, 1e30, np.inf])
    for middle in range(1, len(score)):
        label = (np.arange(len(score)) >= middle).astype(int)
        assert sums_of((score, label, np.ones(len(score)))).area() == 1
    assert sums_of((np.array([-0.0, 0.0]), np.array([0, 1]), np.ones(2))).area() == 0.5


@pytest.mark.parametrize(
    ("score", "label", "weight"),
    [([0.1, 0.2], [1, 1], [1, 1]), ([0.1, np.nan], [0, 1], [1, 1]), ([0.1, 0.2], [0, 1], [0, 1]), ([], [], [])],
)
def test_no_area_where_there_is_none(score, label, weight):
    sums = sums_of((np.array(score), np.array(label, int), np.array(weight)))
    assert np.isnan(sums.area())
    assert np.isnan(sums.merge(metrics.ScoreSums(limit=10)).area())


@given(scored_events())
def test_a_small_curve_stays_as_it_is(events):
    curve = metrics.roc(*events[:2])
    assert metrics.thin(curve) is curve


@pytest.mark.parametrize("shapes", [((3,), (2,)), ((2, 2), (2,)), ((2, 1), (2, 1)), ((), ())])
def test_arrays_that_do_not_belong_together_are_refused(shapes):
    with pytest.raises(ShapeError, match=r"allowed: \(n,\)"):
        metrics.roc(np.zeros(shapes[0]), np.zeros(shapes[1]))
