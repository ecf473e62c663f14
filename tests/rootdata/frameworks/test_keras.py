"""Epochs that Keras takes: which of ours they are, whatever it looks at before and wherever it ends them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import make_data

from rootdata.errors import LibraryError
from rootdata.frameworks.batches import Batches
from rootdata.loading.datamodule import RootDataModule

try:
    from rootdata.frameworks import keras as adapter
except LibraryError:
    pytest.skip("keras: this framework is not installed", allow_module_level=True)


class Seen(adapter.KerasBatches):
    """Notes the batches that it gives."""

    def __init__(self, data: RootDataModule) -> None:
        super().__init__(data)
        self.sums: list[float] = []

    def __getitem__(self, number: int) -> Any:
        batch = super().__getitem__(number)
        self.sums.append(float(batch[0]["x"].sum()))
        return batch


@pytest.fixture(scope="module")
def data(samples: Path) -> RootDataModule:
    return make_data(samples, layout="vector", batch_size=64, flat=["ht", "nlep"], scale="standard")


def sums_of(data: RootDataModule, epochs: int) -> list[float]:
    source = Batches(data)
    return [float(inputs["x"].sum()) for epoch in range(epochs) for inputs, _, _ in source.triples(epoch)]


def network(data: RootDataModule) -> Any:
    keras = adapter.keras
    x, mask = (keras.Input(shape, name=name) for name, shape in data.shapes.items())
    model = keras.Model({"x": x, "mask": mask}, keras.layers.Dense(1, activation="sigmoid")(x))
    model.compile("sgd", "binary_crossentropy")
    return model


def test_epochs_are_those_of_a_trainer_in_turn(data: RootDataModule) -> None:
    seen, model = Seen(data), network(data)
    model.fit(seen, epochs=2, shuffle=False, verbose=0)
    model.fit(seen, epochs=1, shuffle=False, verbose=0)
    expected = sums_of(data, 3)
    np.testing.assert_array_equal(seen.sums[-len(expected) // 3 :], expected[-len(expected) // 3 :])
    assert set(seen.sums) == set(expected)


def test_an_epoch_of_keras_may_end_within_one_of_ours(data: RootDataModule) -> None:
    seen = Seen(data)
    network(data).fit(seen, steps_per_epoch=2, epochs=2, shuffle=False, verbose=0)
    expected = sums_of(data, 1)
    assert set(expected[:4]) <= set(seen.sums) <= set(expected)


def test_a_plain_loop_gives_epoch_after_epoch(data: RootDataModule) -> None:
    batches = Seen(data)
    for _ in range(2):
        assert sum(len(label) for _, label, _ in batches) == Batches(data).num_events
    assert batches.sums == sums_of(data, 2)


def test_a_copy_begins_anew_in_the_midst_of_an_epoch(data: RootDataModule) -> None:
    batches = adapter.KerasBatches(data)
    batches[0], batches[1]
    copy = pickle.loads(pickle.dumps(batches))
    np.testing.assert_array_equal(copy[0][0]["x"], batches[0][0]["x"])


@pytest.mark.parametrize("number", [-1, 10_000])
def test_there_are_no_more_batches_than_its_length(number: int, data: RootDataModule) -> None:
    with pytest.raises(IndexError, match=f"batch {number} of"):
        adapter.KerasBatches(data)[number]
