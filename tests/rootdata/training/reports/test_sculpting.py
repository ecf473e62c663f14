"""How much a cut on the score bends a column: against distributions of which it is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.training.callbacks import write_json
from rootdata.training.reports import sculpting
from rootdata.training.reports.sculpting import BINS, Sculpting, divergence, draw, measure, measure_all

scipy_distance = pytest.importorskip("scipy.spatial.distance")


def events(n: int, *, slope: float, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    column = rng.gamma(4, 25, n)
    return rng.normal(0, 1, n) + slope * column / 50, column, np.ones(n)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_divergence_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    one, other = (np.array(v) + 1e-9 for v in zip(*pairs, strict=True))
    one, other = one / one.sum(), other / other.sum()
    expected = scipy_distance.jensenshannon(one, other, base=2) ** 2
    assert divergence(one, other) == pytest.approx(expected, abs=1e-9)


def test_bins_hold_as_much_each_and_the_cut_keeps_a_tenth() -> None:
    score, column, weight = events(20_000, slope=1)
    found = measure(score, column, weight=weight)
    assert found is not None
    assert found.before == pytest.approx(np.full(BINS, 1 / BINS), abs=1e-3)
    assert found.events == (20_000, 2_000)
    assert found.after.sum() == pytest.approx(1)
    assert (score >= found.threshold).sum() == 2_000


def test_the_more_a_score_follows_the_column_the_more_it_sculpts() -> None:
    found = [measure(*events(20_000, slope=slope)[:2], weight=np.ones(20_000)) for slope in (0, 0.3, 1, 10)]
    values = [one.divergence for one in found if one is not None]
    assert values == sorted(values)
    assert values[0] < 0.01
    assert values[-1] > 0.5


def test_what_does_not_matter_changes_nothing() -> None:
    score, column, _ = events(3_000, slope=1)
    weight = np.random.default_rng(1).integers(1, 4, 3_000)
    found = measure(score, column, weight=weight.astype(float))
    repeated = measure(np.repeat(score, weight), np.repeat(column, weight), weight=np.ones(weight.sum()))
    bent = measure(np.exp(score), np.log(column), weight=weight.astype(float))
    assert found is not None
    assert repeated is not None
    assert bent is not None
    assert found.divergence == pytest.approx(repeated.divergence, abs=2e-3) == pytest.approx(bent.divergence)
    order = np.random.default_rng(2).permutation(3_000)
    shuffled = measure(score[order], column[order], weight=weight[order].astype(float))
    assert shuffled is not None
    assert shuffled.divergence == pytest.approx(found.divergence)


def test_negative_weights_and_missing_values() -> None:
    score, column, weight = events(20_000, slope=1)
    plain = measure(score, column, weight=weight)
    # pairs of opposite weight cancel
    more = [np.concatenate([v, v[:4000], v[:4000]]) for v in (score, column)]
    signed = measure(*more, weight=np.concatenate([weight, weight[:4000], -weight[:4000]]))
    column = np.concatenate([column, np.full(500, np.nan)])
    missing = measure(np.concatenate([score, np.full(500, 99.0)]), column, weight=np.ones(20_500))
    assert plain is not None
    assert signed is not None
    assert missing is not None
    assert signed.divergence == pytest.approx(plain.divergence, abs=0.01)
    assert missing.divergence == plain.divergence


@pytest.mark.parametrize(
    ("score", "column", "weight"),
    [
        (np.zeros(0), np.zeros(0), np.zeros(0)),
        (np.arange(9.0), np.ones(9), np.ones(9)),
        (np.arange(9.0), np.full(9, np.nan), np.ones(9)),
        (np.arange(9.0), np.arange(9.0), np.zeros(9)),
        (np.arange(9.0), np.arange(9.0), -np.ones(9)),
    ],
)
def test_where_nothing_can_be_said_nothing_is(score: Any, column: Any, weight: Any) -> None:
    assert measure(score, column, weight=weight) is None


def test_background_is_chosen_and_what_is_none_is_the_score(tmp_path: Path) -> None:
    score, column, weight = events(4_000, slope=1)
    label = np.arange(4_000) % 3
    shares = np.exp(np.stack([-score, np.zeros(4_000), score], axis=1))
    shares /= shares.sum(axis=1, keepdims=True)
    batch = {"score": shares, "label": label, "weight": weight, "observers/m": column}
    halves = [{key: values[rows] for key, values in batch.items()} for rows in (slice(2_000), slice(2_000, None))]
    found = measure_all(halves, columns=["m"], labels=[0, 1])["m"]
    rows = label < 2
    expected = measure(shares[rows, 2], column[rows], weight=weight[rows])
    assert expected is not None
    assert found.divergence == pytest.approx(expected.divergence)
    again = Sculpting.from_dict(json.loads(write_json(found.to_dict(), tmp_path / "s.json").read_text()))
    assert again.divergence == found.divergence
    assert np.array_equal(again.after, found.after)
    figure = draw({"m": found, "other": again})
    assert [axes.get_xlabel() for axes in figure.axes] == ["m", "other"]
    assert sculpting.KEPT == 0.1
