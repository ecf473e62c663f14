"""What a learner asks its batches for, beside an epoch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles_for_tests import make_data

from rootdata.errors import LibraryError
from rootdata.frameworks.batches import Batches
from rootdata.loading.datamodule import RootDataModule

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, which fastai takes
        from rootdata.frameworks.fastai import FastaiBatches, dataloaders
except LibraryError:
    pytest.skip("fastai: this framework is not installed", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.layer(x * mask)[:, 0]


def loss(logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> Any:
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float(), reduction="none")
    return (weight * each).mean()


@pytest.fixture(scope="module")
def data(samples: Path) -> RootDataModule:
    return make_data(samples, layout="vector", batch_size=64, flat=["ht", "nlep"], scale="standard")


def test_a_learner_predicts_is_exported_and_loaded(data: RootDataModule, tmp_path: Path) -> None:
    from fastai.learner import Learner, load_learner

    learner = Learner(dataloaders(data), Net(*data.shapes["x"]), loss_func=loss, path=tmp_path)
    learner.remove_cbs(learner.cbs[2:])  # its progress bar
    for part, batches in (
        ("val", None),
        ("test", FastaiBatches(data, "test")),
        ("train", learner.dls[0].new(shuffle=False)),
    ):
        scores, _ = learner.get_preds(dl=batches)
        expected = [learner.model(*map(torch.from_numpy, i.values())) for i, _, _ in Batches(data, part, ordered=True)]
        np.testing.assert_allclose(scores, torch.cat(expected).detach(), rtol=1e-5)
    learner.export("learner.pkl")
    with pytest.warns(UserWarning, match="pickle"):
        again = load_learner(tmp_path / "learner.pkl")
    np.testing.assert_array_equal(again.model.layer.weight.detach(), learner.model.layer.weight.detach())


def test_a_look_at_a_batch_changes_no_epoch(data: RootDataModule) -> None:
    batches = dataloaders(data).train
    first = batches.one_batch()
    assert batches.n == Batches(data).num_events
    for seen, taken in zip(first, next(iter(batches)), strict=True):
        assert torch.equal(seen, taken)
