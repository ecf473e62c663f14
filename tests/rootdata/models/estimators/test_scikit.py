"""scikit-learn's classifiers: batch by batch or at once, kept as graphs, refused where they can't do what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from estimators_for_tests import fit, make_data
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from rootdata.bundle.export import export, rehearse
from rootdata.errors import BundleError, ConfigError, ResumeError
from rootdata.models.estimators.scikit import Sklearn

pytest.importorskip("skl2onnx", reason="needs skl2onnx")

TINY = 2e-6
SCALED: dict[str, Any] = {"scale": "standard", "pad": 0.0}
MISSING = -1e30
CASES: dict[str, tuple[Any, int, dict[str, Any]]] = {
    "network": (lambda: MLPClassifier((8,), learning_rate_init=0.03), 4, SCALED),
    "linear": (lambda: SGDClassifier(loss="log_loss"), 3, SCALED),
    "histogram": (lambda: HistGradientBoostingClassifier(max_iter=20, early_stopping=True), 1, {}),
    "forest": (lambda: RandomForestClassifier(20, max_depth=6), 1, {"pad": MISSING}),
    "logistic": (LogisticRegression, 1, SCALED),
}
SLOW = [pytest.param(name, classes, marks=pytest.mark.long) for name in CASES for classes in (2, 3)
        if (name, classes) != ("network", 2)]  # fmt: skip


def rows_of(data: Any) -> Any:
    return np.concatenate([batch["x"].numpy() for batch in data.test_dataloader()])


@pytest.mark.parametrize(("name", "classes"), [("network", 2), *SLOW])
def test_an_estimator_is_trained_kept_and_exported(name: str, classes: int, events: Path, tmp_path: Path) -> None:
    make, epochs, options = CASES[name]
    data = make_data(events, classes=classes, **options)
    model = Sklearn(data.shapes, estimator=make(), classes=classes, seed=3)
    trainer = fit(model, data, tmp_path, epochs=epochs)
    assert float(trainer.callback_metrics["val/auc"]) > 0.7
    x = rows_of(data)
    # what is kept is a graph, which gives the same scores, and is no code
    kept = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    again = Sklearn(data.shapes, estimator=make(), classes=classes)
    again.load_state_dict(kept["state_dict"])
    np.testing.assert_allclose(again.native(x).reshape(len(x), -1)[:, -1], model.native(x)[:, -1], atol=TINY)
    manifest = export(model, data, tmp_path / "bundle", num_events=200)
    assert manifest.parity.max_difference <= TINY
    assert "scikit-learn" in manifest.software
    with pytest.raises(ResumeError, match=r"holds .* as a graph, which can't be trained further"):
        again.learn(None)


def test_batches_are_those_of_the_stream(events: Path, tmp_path: Path) -> None:
    """The same as partial_fit by hand, on the same epochs."""
    data = make_data(events, **SCALED)
    model = Sklearn(data.shapes, estimator=SGDClassifier(loss="log_loss"), seed=3)
    fit(model, data, tmp_path, epochs=2)
    by_hand = SGDClassifier(loss="log_loss", random_state=3)
    other = make_data(events, **SCALED)
    loader = other.train_dataloader()
    for _ in range(2):
        for batch in loader:
            x, label, weight = (batch[n].numpy() for n in ("x", "label", "weight"))
            by_hand.partial_fit(x, label, classes=[0, 1], sample_weight=weight / np.float32(data.mean_weight))
    np.testing.assert_array_equal(model._estimator.coef_, by_hand.coef_)


def test_our_validation_part_stops_an_estimator_that_takes_one(events: Path, tmp_path: Path) -> None:
    data = make_data(events)
    model = Sklearn(data.shapes, estimator=HistGradientBoostingClassifier(max_iter=500, early_stopping=True), seed=1)
    fit(model, data, tmp_path, epochs=1)
    assert 5 < model._estimator.n_iter_ < 500
    assert len(model._estimator.validation_score_) == model._estimator.n_iter_ + 1


@pytest.mark.parametrize(
    ("estimator", "told"),
    [
        (Perceptron(), "Perceptron gives no probabilities with these options"),
        (SGDClassifier(), r"SGDClassifier gives no probabilities with these options; give others \(loss=log_loss"),
        (MLPClassifier(alpha=-1), "The 'alpha' parameter of MLPClassifier must be"),
        ({"max_depth": 3}, "model.estimator: got dict; expected a classifier of scikit-learn"),
    ],
)
def test_what_can_not_learn_is_refused_as_the_model_is_made(estimator: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Sklearn({"x": (4,)}, estimator=estimator)


def test_what_can_not_be_trained_on_these_events_is_refused(events: Path, tmp_path: Path) -> None:
    data = make_data(events)
    with pytest.raises(ConfigError, match=r"pad: got nan, and Sklearn would compute NaN from it"):
        fit(Sklearn(data.shapes, estimator=MLPClassifier()), data, tmp_path)
    with pytest.raises(
        ConfigError, match=r"max_epochs: got 3, and RandomForestClassifier learns from all events at once"
    ):
        fit(Sklearn(data.shapes, estimator=RandomForestClassifier()), data, tmp_path)
    data = make_data(events, **SCALED)
    with pytest.raises(ConfigError, match="weight: KNeighborsClassifier takes no weights of events"):
        fit(Sklearn(data.shapes, estimator=KNeighborsClassifier()), data, tmp_path, epochs=1)
    assert not list(tmp_path.iterdir())


class OwnClassifier(LogisticRegression):
    """A user's own, which no converter knows."""


def test_one_that_can_not_be_exported_is_refused_before_the_training_or_trained_without(
    events: Path, tmp_path: Path
) -> None:
    data = make_data(events, **SCALED)
    model = Sklearn(data.shapes, estimator=OwnClassifier())
    with pytest.raises(BundleError, match=r"OwnClassifier can't be written as an ONNX graph by skl2onnx"):
        rehearse(model, data)
    fit(model, data, tmp_path, epochs=1)
    assert np.isfinite(model.native(rows_of(data))).all()
    kept = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    model.load_state_dict(kept["state_dict"])  # of the same process: it stays what it is
    assert np.isfinite(model.native(rows_of(data))).all()


def test_a_graph_that_takes_nan_otherwise_is_refused_before_the_training() -> None:
    x = np.full((1, 4), np.nan, np.float32)
    for seed in range(5):  # by chance, some of these trees take NaN as their graphs do
        tree = DecisionTreeClassifier(max_depth=1, max_features=1, random_state=seed)
        made = Sklearn({"x": (4,)}, estimator=tree).rehearsed_model()
        assert np.shape(made.predict({"x": np.zeros_like(x)})) == (1, 2)
        with pytest.raises(
            BundleError, match=r"pad: got nan, and the graph .* of DecisionTreeClassifier takes NaN for"
        ):
            made.predict({"x": x})
    made = Sklearn({"x": (4,)}, estimator=HistGradientBoostingClassifier(max_iter=2)).rehearsed_model()
    assert np.shape(made.predict({"x": x})) == (1, 2)


@pytest.mark.long
def test_trees_that_get_nan_are_refused_by_the_rehearsal(events: Path) -> None:
    data = make_data(events)
    with pytest.raises(BundleError, match="takes NaN for something else; give a number"):
        rehearse(Sklearn(data.shapes, estimator=RandomForestClassifier(5)), data)
    data = make_data(events, pad=-1e30)
    rehearse(Sklearn(data.shapes, estimator=RandomForestClassifier(5)), data)
