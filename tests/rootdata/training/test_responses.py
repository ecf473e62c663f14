"""Figures of predicted numbers: what they say of residuals that are known."""

from __future__ import annotations

import numpy as np
import pytest

from rootdata.training import responses
from rootdata.training.responses import Predicted


def events(true: list[float], predicted: list[float], weight: list[float]) -> Predicted:
    columns = (np.array(values, np.float64)[:, None] for values in (predicted, true))
    predicted_, true_ = columns
    return Predicted(predicted=predicted_, true=true_, weight=np.array(weight), names=("m",))


def test_figures_of_residuals_by_hand() -> None:
    found = responses.summarise(events([10, 10, 0], [12, 10, -4], [1, 2, 1]))
    assert found == {
        "events": 3, "weighted": True, "rmse": pytest.approx(5**0.5), "mae": 1.5, "bias": -0.5,
        "resolution": pytest.approx(4.75**0.5),
    }  # fmt: skip


def test_responses_leave_out_what_has_none_and_slices_hold_every_event() -> None:
    rng = np.random.default_rng(2)
    true = np.concatenate([np.zeros(5), rng.normal(50, 5, 995)])
    made = events(true.tolist(), (true * 1.1).tolist(), np.ones(1000).tolist())
    found = responses.to_dict(made)
    response = found["targets"]["m"]["response"]
    assert sum(response) == 995
    assert found["edges"][int(np.argmax(response))] == pytest.approx(1.1, abs=0.051)
    slices = found["targets"]["m"]["slices"]
    assert sum(one["events"] for one in slices) == 1000
    assert all(one["bias"] == pytest.approx(0.1 * (one["low"] + one["high"]) / 2, rel=0.2, abs=3) for one in slices)


@pytest.mark.parametrize(("true", "weight"), [([3.0], [1.0]), ([3.0, 3.0], [1.0, 1.0]), ([1.0, 2.0], [1.0, -1.0])])
def test_few_events_equal_ones_and_weights_that_cancel_are_described(true: list[float], weight: list[float]) -> None:
    made = events(true, [value + 1 for value in true], weight)
    told = responses.to_dict(made)["targets"]["m"]
    assert told["bias"] == (None if sum(weight) == 0 else 1.0)
    assert responses.draw(made).axes


def test_what_lies_outside_of_the_picture_is_told() -> None:
    made = events([1.0, 1.0, 1.0, 1.0], [0.5, 2.5, 7.0, -1.0], [1.0, 2.0, 3.0, 4.0])
    told = responses.to_dict(made)["targets"]["m"]
    assert (sum(told["response"]), told["beyond"]) == (1.0, (4.0, 5.0))
    assert responses.draw(made).axes[0].get_title(loc="right") == "90.0% of the events lie outside"


@pytest.mark.parametrize(("unit", "shown"), [("GeV", " [GeV]"), ("", "")])
def test_axes_have_the_unit_of_the_target(unit: str, shown: str) -> None:
    batches = [{"predictions": np.array([[1.0], [2.0]]), "targets": np.array([[1.0], [3.0]])}]
    made = responses.collect(batches, names=["m"], units={"m": unit} if unit else {})
    _, right = responses.draw(made).axes
    assert (right.get_xlabel(), right.get_ylabel()) == (f"True m{shown}", f"Predicted - true{shown}")
