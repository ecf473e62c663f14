"""The batches that other frameworks are fed: those of a trainer, as arrays, epoch after epoch."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import make_data
from sklearn.decomposition import IncrementalPCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import SGDClassifier, SGDRegressor

from rootdata.errors import ConfigError, DataError
from rootdata.frameworks.batches import Batches, rows_of
from rootdata.frameworks.sklearn import partial_fit
from rootdata.loading.datamodule import RootDataModule


@pytest.fixture(scope="module")
def data(samples: Path) -> RootDataModule:
    return make_data(samples, layout="vector", batch_size=64, weight="1 + nlep")


def joined(parts: Any) -> list[np.ndarray]:
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def test_batches_are_those_of_a_torch_loop(data: RootDataModule) -> None:
    expected = list(data.dataset("train").batches(1))
    found = list(Batches(data).batches(1))
    assert len(found) == len(expected) == len(Batches(data))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name].numpy())


def test_every_iteration_is_an_epoch_of_the_same_events_in_another_order(data: RootDataModule) -> None:
    source = Batches(data)
    (first, *_), (second, *_) = (joined((i["x"], y, w) for i, y, w in source) for _ in range(2))
    assert len(first) == len(second) == source.num_events
    assert (first != second).any()
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
    assert source.epoch == 2


def test_weights_average_to_one_over_training_events(data: RootDataModule) -> None:
    _, _, weights = Batches(data).table()
    assert weights.mean() == pytest.approx(1, rel=1e-5)


def test_weights_of_ordered_events_average_to_one_beside_a_mixture(samples: Path) -> None:
    mix = {"s0": 1.0, "s1": 20.0}
    mixed = make_data(samples, layout="vector", batch_size=64, weight="1 + 9 * tagged", mix=mix, missing=None)
    _, _, weights = Batches(mixed, ordered=True).table()
    assert weights.mean() == pytest.approx(1, rel=1e-5)


def test_a_table_has_nan_where_the_mask_says_so(data: RootDataModule) -> None:
    x, label, weight = Batches(data, "val").table()
    inputs, labels, weights = joined((rows_of(i, missing=-7), y, w) for i, y, w in Batches(data, "val"))
    assert np.isnan(x).any()
    np.testing.assert_array_equal(np.where(np.isnan(x), np.float32(-7), x), inputs)
    np.testing.assert_array_equal(label, labels)
    np.testing.assert_array_equal(weight, weights)


def test_estimators_learn_from_the_stream_and_from_a_table(data: RootDataModule) -> None:
    x, label, _ = Batches(data, "test").table()
    streamed = partial_fit(SGDClassifier(loss="log_loss", random_state=1), data, epochs=3)
    at_once = HistGradientBoostingClassifier(max_iter=5).fit(*Batches(data, ordered=True).table())
    for estimator, rows in ((streamed, np.nan_to_num(x)), (at_once, x)):
        assert set(estimator.classes_) == {0, 1}
        assert estimator.predict_proba(rows).shape == (len(label), 2)


@pytest.mark.parametrize(
    ("changes", "arguments", "sentence"),
    [
        ({}, {"truth": "y"}, "truth: got 'y'; allowed: label, targets"),
        ({}, {"truth": "targets"}, "truth: got 'targets', and the data have none"),
        ({"samples": None}, {}, "neither labels nor targets"),
    ],
)
def test_a_truth_that_is_not_there_is_refused(
    changes: dict[str, Any], arguments: dict[str, str], sentence: str, samples: Path
) -> None:
    if "samples" in changes:
        changes = {"samples": {"a": {"files": str(samples / "*.root")}}}
    with pytest.raises((ConfigError, DataError), match=sentence):
        Batches(make_data(samples, **changes), **arguments)


def test_tokens_are_no_rows(samples: Path) -> None:
    with pytest.raises(ConfigError, match="an event is one row in layout=vector"):
        Batches(make_data(samples)).table()


def test_an_estimator_that_wants_all_events_is_told_so(data: RootDataModule) -> None:
    with pytest.raises(ConfigError, match=r"HistGradientBoostingClassifier has no partial_fit"):
        partial_fit(HistGradientBoostingClassifier(), data)


def test_estimators_without_probabilities_and_those_without_weights_learn_too(samples: Path) -> None:
    plain = make_data(samples, layout="vector", batch_size=64)
    assert set(partial_fit(SGDClassifier(loss="hinge"), plain).classes_) == {0, 1}
    assert partial_fit(IncrementalPCA(2), plain).components_.shape[0] == 2


def test_weights_are_not_dropped_in_silence(data: RootDataModule) -> None:
    with pytest.raises(ConfigError, match=r"IncrementalPCA\.partial_fit takes no weights of events"):
        partial_fit(IncrementalPCA(2), data)


def test_a_single_target_is_one_number_an_event(samples: Path) -> None:
    one = make_data(samples, layout="vector", batch_size=64, targets={"m": "where(isnan(met), 0, met)"})
    _, targets, _ = Batches(one, truth="targets").table()
    assert targets.shape == (Batches(one).num_events,)
    assert partial_fit(SGDRegressor(), one, truth="targets").coef_.ndim == 1  # a column would be warned of


@pytest.mark.parametrize("epochs", [0, -1, 1.5])
def test_epochs_are_at_least_one(epochs: float, data: RootDataModule) -> None:
    with pytest.raises(ConfigError, match="epochs: got"):
        partial_fit(SGDClassifier(), data, epochs=epochs)  # type: ignore[arg-type]


def test_events_are_those_that_are_given(samples: Path) -> None:
    source = Batches(make_data(samples, layout="vector", batch_size=64, drop_last=True))
    assert sum(len(label) for _, label, _ in source) == source.num_events == 64 * len(source)


def test_an_epoch_that_is_left_leaves_no_thread(data: RootDataModule) -> None:
    source = Batches(data)
    for _ in source:
        break
    first, second = iter(source), iter(source)
    next(first), next(second)
    assert source.epoch == 3
    del first, second
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rootdata")]
    copy = pickle.loads(pickle.dumps(source))
    for ours, theirs in zip(copy.triples(3), source.triples(3), strict=True):
        np.testing.assert_array_equal(ours[0]["x"], theirs[0]["x"])


@pytest.mark.parametrize("wrong", [{"samples": {}}, "events.root", None])
def test_what_is_no_data_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="allowed: a RootDataModule"):
        Batches(wrong)


@pytest.mark.parametrize("where", [{"epoch": -1}, {"start": -1}])
def test_epochs_and_batches_count_from_zero(where: dict[str, int], data: RootDataModule) -> None:
    with pytest.raises(ConfigError, match="both are counted from 0"):
        next(Batches(data).batches(**where))
