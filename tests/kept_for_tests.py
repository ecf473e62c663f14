"""The files that a version leaves: the data that they are about, and a training that stops within an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

KEPT = Path(__file__).parent / "data" / "kept"
STOP_AFTER = 5  # batches, of which an epoch has 8
STATE = {"epoch": 0, "batch": STOP_AFTER}
KEY = "a block of events.root"  # of the block that is kept


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the options of the data, whose file lies in a folder."""
    plain: dict[str, Any] = json.loads((KEPT / "options.json").read_text())
    plain["samples"]["all"]["files"] = str(folder / "events.root")
    return plain | changes


class Noting(pl.LightningModule):
    """Notes the events of every batch that it learns from."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 1)
        self.batches: list[list[int]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        self.batches.append(batch["index"][:, 2].tolist())
        return self.layer(batch["x"])[:, 0].square().mean()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Look at nothing."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make one with a state of its own."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trainer(**options: Any) -> pl.Trainer:
    """Make a trainer that writes nothing."""
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", enable_checkpointing=False, limit_val_batches=0, **quiet, **options)
