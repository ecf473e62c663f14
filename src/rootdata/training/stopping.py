"""What a training that is stopped leaves behind: a checkpoint that keeps what was done."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


def count_as_done(trainer: pl.Trainer) -> None:
    """Let a trainer that was stopped count the batches that were learnt from, but not the one that was about to begin.

    Its next trainer would otherwise take an epoch's last batch, which is to come again, for one that is done, or number
    batches otherwise after it was stopped a second time.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    fetcher = trainer.fit_loop._data_fetcher  # noqa: SLF001 - Lightning has no other door
    if fetcher is not None and fetcher.fetched > progress.current.processed:
        progress.is_last_batch = False
    unfinished = progress.current.ready - progress.current.processed
    for counts in (progress.total, progress.current):
        counts.ready -= unfinished
        counts.started = counts.ready


class SaveWhenStopped(pl.Callback):
    """Save a checkpoint on Ctrl-C, SIGTERM and errors, if an exact resume from there is possible.

    While the optimizer changes the weights it is not, nor inside the step of a network with buffers (the means of a
    batch norm change in its forward pass). Processes of one training stop at different places and can't save together.
    In these cases the regular checkpoints remain. The file is removed when a training ends well.

    Lightning's ``OnExceptionCheckpoint`` saves in the middle of all that, and where it is present Lightning resumes
    without being asked to.

    Put it behind all other callbacks: a batch counts as done once this one has seen its end.

    Parameters
    ----------
    path : of the checkpoint
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._is_exact = False

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Note that a step begins.

        Parameters
        ----------
        trainer : not used
        pl_module : where it has buffers, as of batch normalisation, nothing is saved during a step
        batch, batch_idx : not used
        """
        self._is_exact = next(pl_module.buffers(), None) is None

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Note that weights change from here on."""
        self._is_exact = False

    def on_train_batch_end(self, *_: Any) -> None:
        """Note that a step is done."""
        self._is_exact = True

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save, if what is in memory is a state that an unbroken training passes through."""
        is_for_real = not getattr(trainer, "fast_dev_run", False)
        if self._is_exact and trainer.training and trainer.world_size == 1 and is_for_real:
            count_as_done(trainer)
            try:
                trainer.save_checkpoint(self.path)
            except OSError as error:  # what stopped the training is the news
                warnings.warn(str(error), stacklevel=2)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Remove the file after a training; a test must leave it.

        Parameters
        ----------
        trainer : only the first rank removes the file
        pl_module : not used
        stage : ``fit``, ``validate``, ``test`` or ``predict``
        """
        if stage == "fit" and trainer.is_global_zero:
            self.path.unlink(missing_ok=True)
