"""Random numbers that follow from the seed and the place in a training, not from how it got there."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class SeededSteps(pl.Callback):
    """Seed torch, numpy and random before every training step.

    The state of random number generators is in no checkpoint: without this a resumed training would drop out other
    neurons than an unbroken one. Validation and test are not touched.

    Parameters
    ----------
    seed : of the training
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Seed for this batch of this epoch on this rank.

        Parameters
        ----------
        trainer : tells the epoch and the rank
        pl_module, batch : not used
        batch_idx : number of the batch in its epoch
        """
        seed_all(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)


def seed_all(*place: int) -> None:
    """Seed the global generators of torch (on every device), numpy and random.

    Parameters
    ----------
    place : natural numbers; other ones give unrelated seeds
    """
    low, high = map(int, np.random.SeedSequence(place).generate_state(2))
    # Not torch.manual_seed: it writes down a traceback for every kind of device that is not in use, for 0.7 ms.
    torch.default_generator.manual_seed(high << 32 | low)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(high << 32 | low)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(high << 32 | low)
    np.random.seed(low)  # noqa: NPY002 - the generator of others, which they use without asking
    random.seed(low)
