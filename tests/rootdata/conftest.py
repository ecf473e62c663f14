"""Samples and bundles that several tests look at; a graph takes seconds to make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from bundles_for_tests import make_data, write_samples

from rootdata.bundle.export import export
from rootdata.bundle.manifest import Manifest
from rootdata.loading.datamodule import RootDataModule
from rootdata.models import DNN, DeepSets


@dataclasses.dataclass(frozen=True)
class Exported:
    """A network, its data, and its bundle."""

    network: Any
    data: RootDataModule
    folder: Path
    manifest: Manifest


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[..., Path]) -> Path:
    """A folder of two samples with every kind of branch."""
    return write_samples(tmp_path_factory.mktemp("samples"), write_tree)


@pytest.fixture(scope="session")
def sets(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Deep sets on tokens, with every kind of feature."""
    data, folder = make_data(samples), tmp_path_factory.mktemp("sets") / "bundle"
    torch.manual_seed(1)
    network = DeepSets(data.shapes, phi=[8], rho=[8])
    manifest = export(
        network, data, folder, metrics={"auc": torch.tensor(0.75), "loss": float("nan")},
        roc={"signal": {"signal_efficiency": torch.tensor([0.0, 1.0]), "background_efficiency": [0, 1]}},
        training={"seed": 1}, author="Ada", description="sets", tags=["a", "b"],
    )  # fmt: skip
    return Exported(network, data, folder, manifest)


@pytest.fixture(scope="session")
def dense(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Three classes, vectors with their masks, straight from a trainer."""
    classes = {"classes": ["a", "b", "c"], "label": "minimum(nlep, 2)"}
    data = make_data(samples, layout="vector", batch_size=64, **classes)
    network = DNN(data.shapes, classes=3, hidden=[16], use_mask=True)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, limit_val_batches=0, **quiet)
    trainer.fit(network, datamodule=data)
    network.train()
    folder = tmp_path_factory.mktemp("dense") / "bundle"
    return Exported(network, data, folder, export(network, data, folder))
