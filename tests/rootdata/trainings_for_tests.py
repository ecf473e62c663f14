"""Small trainings that end as bits, to be compared with others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from rootdata.loading.datamodule import RootDataModule

EPOCHS, STEPS = 2, 12  # steps of an epoch


def write_numbers(folder: Path, write_tree: Callable[..., Path]) -> Path:
    """Write a sample of 600 events with four numbers each."""
    rng = np.random.default_rng(3)
    write_tree(folder / "a.root", {f"x{i}": rng.normal(size=600).astype("f4") for i in range(4)}, step=100)
    return folder / "a.root"


class Dropping(pl.LightningModule):
    """Drops out half of its neurons; the loss wants the sum of the inputs."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        norms = [nn.BatchNorm1d(8)] if norm else []
        self.network = nn.Sequential(nn.Linear(4, 8), *norms, nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        return (self.network(batch["x"])[:, 0] - batch["x"].sum(1)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam, which has a state of its own."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train(
    file: Path,
    callbacks: Sequence[pl.Callback],
    *,
    network: Dropping | None = None,
    ckpt_path: Path | None = None,
    plugins: Any = None,
) -> pl.Trainer:
    """Train the network, from a checkpoint if there is one."""
    torch.manual_seed(1)
    network = network or Dropping()
    data = RootDataModule(
        {"a": str(file)}, flat=[f"x{i}" for i in range(4)], batch_size=50, chunk_size=100,
        label="0", split={"train": 1.0, "val": 0.0, "test": 0.0},
    )  # fmt: skip
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checkpointing = any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks)
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", callbacks=[*callbacks], enable_checkpointing=checkpointing,
        plugins=plugins, **quiet,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(LeafSpec|exists and is not empty|not resumable|val_dataloader)")
        trainer.fit(network, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def bits(trainer: pl.Trainer) -> list[Any]:
    """Return the weights, and what the optimizer knows of them, exactly."""
    (optimizer,) = trainer.optimizers
    states = [values for state in optimizer.state.values() for values in state.values()]
    return [values.tolist() for values in (*trainer.lightning_module.state_dict().values(), *states)]
