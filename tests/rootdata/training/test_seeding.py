import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.callbacks import ModelCheckpoint
from trainings_for_tests import STEPS, bits, train, write_numbers

from rootdata.training.seeding import SeededSteps, seed_all

places = st.tuples(*[st.integers(0, 2**32)] * 4)


def drawn(place):
    seed_all(*place)
    return torch.rand(3, dtype=torch.float64).tolist(), np.random.random(), random.random()  # noqa: NPY002


@given(places)
def test_a_place_has_its_numbers(place):
    first = drawn(place)
    torch.rand(7)
    assert drawn(place) == first


@given(places, st.integers(0, 3), st.integers(1, 2**31))
def test_every_part_of_a_place_counts(place, part, more):
    other = [value + more * (number == part) for number, value in enumerate(place)]
    assert not set(map(str, drawn(place))) & set(map(str, drawn(other)))


@pytest.fixture(scope="module")
def file(tmp_path_factory, write_tree):
    return write_numbers(tmp_path_factory.mktemp("numbers"), write_tree)


@pytest.mark.parametrize("step", [3, STEPS - 1, STEPS, STEPS + 7])
@pytest.mark.parametrize("is_seeded", [True, False])
def test_a_resumed_training_drops_out_what_an_unbroken_one_does(file, tmp_path, step, is_seeded):
    def callbacks():
        saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1)
        return [saving, *([SeededSteps(7)] if is_seeded else [])]

    unbroken = bits(train(file, callbacks()))
    resumed = bits(train(file, callbacks(), ckpt_path=tmp_path / f"step={step}.ckpt"))
    assert (resumed == unbroken) is is_seeded


def test_seeds_differ(file):
    one, same, other = (bits(train(file, [SeededSteps(seed)])) for seed in (1, 1, 2))
    assert one == same != other
