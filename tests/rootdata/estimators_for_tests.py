"""Small trainings of estimators: events with missing values of every kind, weights, and objects that are not there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from rootdata.loading.datamodule import RootDataModule
from rootdata.models.estimators.estimator import Estimator

SIZE = 700  # events of each sample


def write_classes(folder: Path, write_tree: Callable[..., Path], *, classes: int = 3) -> Path:
    """Write a sample for each class; two columns tell them apart, and a tenth of their values is missing."""
    for number in range(classes):
        rng = np.random.default_rng(number)
        count = rng.integers(0, 5, SIZE)
        met = rng.exponential(50 + 40 * number, SIZE).astype("f4")
        mass = rng.normal(100 + 15 * number, 12, SIZE).astype("f4")
        met[rng.random(SIZE) < 0.05], mass[rng.random(SIZE) < 0.1] = np.nan, -999
        columns = {
            "met": met,
            "mass": mass,
            "n": count.astype("i4"),
            "w": rng.uniform(0.5, 1.5, SIZE),
            "Jet_pt": ak.unflatten(rng.exponential(40 + 20 * number, count.sum()).astype("f4"), count),
        }
        write_tree(folder / f"{number}.root", columns, step=200)
    return folder


def make_data(folder: Path, *, classes: int = 2, **changes: Any) -> RootDataModule:
    """Make a data module on them, as trees want it."""
    options: dict[str, Any] = {
        "samples": {f"c{i}": {"files": str(folder / f"{i}.root"), "label": i} for i in range(classes)},
        "flat": ["met", "mass", "n"],
        "jagged": {"jets": {"branches": ["Jet_pt"], "length": 3}},
        "classes": [f"c{i}" for i in range(classes)],
        "missing": [-999],
        "weight": "w",
        "scale": "none",
        "pad": "nan",
        "batch_size": 128,
    }
    return RootDataModule(**(options | changes))


def trainer_in(
    folder: Path, *, epochs: int, callbacks: tuple[pl.Callback, ...] = (), limit: int | None = None
) -> pl.Trainer:
    """Make a quiet trainer that keeps the best and the last checkpoint; ``limit`` is that of batches of an epoch."""
    keeping = ModelCheckpoint(dirpath=folder / "kept", filename="best", monitor="val/auc", mode="max")
    last = ModelCheckpoint(dirpath=folder / "kept", filename="last", every_n_epochs=1, save_on_train_epoch_end=True,
                           enable_version_counter=False)  # fmt: skip
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=1, limit_train_batches=limit,
        callbacks=[keeping, last, *callbacks],
    )  # fmt: skip


def fit(model: Estimator, data: RootDataModule, folder: Path, *, epochs: int = 3, **more: Any) -> pl.Trainer:
    """Train a model."""
    trainer = trainer_in(folder, epochs=epochs, callbacks=more.pop("callbacks", ()), limit=more.pop("limit", None))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore",
            message=".*(LeafSpec|exists and is not empty|dirpath has changed|callbacks used to create|num_workers)",
        )
        trainer.fit(model, datamodule=data, **more)
    return trainer
