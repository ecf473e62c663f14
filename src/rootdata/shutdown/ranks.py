"""All ranks end when one of them is told to."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from rootdata.shutdown.signals import WITHIN, Ending, status_of


class EndOnSignal(pl.Callback):
    """End all ranks of a training, a test or a prediction when one of them gets SIGTERM or Ctrl-C.

    Lightning answers SIGTERM by an exchange between the ranks, in the handler of the signal and so in the midst of
    whatever else they exchange: where one rank gets it, all hang. In the last batch of a test, and in predictions, it
    forgets it. Here the signal goes to every rank of the machine. SIGTERM ends a training after its step, and all else
    at once; a rank that waits for one that is gone is ended. The exit status is never 0.

    What Lightning does on SIGUSR1 under SLURM stays as it is.

    Parameters
    ----------
    within : seconds for a rank to end by itself, half of them for its step
    """

    def __init__(self, *, within: float = WITHIN) -> None:
        super().__init__()
        self.within = within
        self._ending: Ending | None = None
        self._is_ours = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Take over signals, unless that was done already, and learn which other ranks run on this machine.

        Parameters
        ----------
        trainer : tells how many ranks there are, and which of them it has started
        pl_module : not used
        stage : any: signals are taken over for fit, validation, test and prediction alike
        """
        known = Ending.current()
        self._is_ours, self._ending = known is None, known or Ending(within=self.within)
        if self._is_ours:
            self._ending.open()
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            self._ending.expect(trainer.strategy.launcher)
            self._ending.is_child = multiprocessing.parent_process() is not None
            self._ending.meet(ranks_here(trainer.world_size))
            self._replace_handler(trainer)

    def _replace_handler(self, trainer: pl.Trainer) -> None:
        """Let Lightning take note of SIGTERM, and leave out the exchange."""
        connector: Any = trainer._signal_connector  # noqa: SLF001 - Lightning has no other door

        def note(*_: Any) -> None:
            connector.received_sigterm = self._ending is not None and self._ending.is_held

        connector._sigterm_notifier_fn = note  # noqa: SLF001

    def on_train_start(self, *_: Any) -> None:
        """Let a training step finish before a signal ends the process."""
        if self._ending is not None:
            self._ending.has_trained = True
        self._hold(is_held=True)

    def on_validation_start(self, *_: Any) -> None:
        """Let signals end the process at once: no checkpoint would hold what a validation has done."""
        self._hold(is_held=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Let steps finish again, if it was the validation of a training."""
        self._hold(is_held=trainer.state.fn == "fit" and not trainer.sanity_checking)

    def on_train_end(self, *_: Any) -> None:
        """Let signals end the process at once again."""
        self._hold(is_held=False)

    def _hold(self, *, is_held: bool) -> None:
        if self._ending is not None:
            # A child of torch's multiprocessing would end as if it had done its work, and be waited for.
            self._ending.is_held = is_held and not self._ending.is_child

    def on_exception(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        exception: BaseException,
    ) -> None:
        """Let the other ranks end as well, and this one with a status other than 0.

        Parameters
        ----------
        trainer : whose launcher ends the ranks that it started
        pl_module : not used
        exception : is raised again by Lightning; Lightning's own ``SystemExit`` on SIGTERM gets a status
        """
        ending = self._ending or Ending.current()  # the process that starts others by multiprocessing sees no setup
        if ending is not None:
            ending.arrived()
        if isinstance(exception, (KeyboardInterrupt, SystemExit)) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        if isinstance(exception, SystemExit) and exception.code is None:  # Lightning's own on SIGTERM
            exception.code = status_of(signal.SIGTERM)
        self._leave()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leave signals to whatever handled them before.

        Parameters
        ----------
        trainer, pl_module, stage : not used
        """
        self._leave()

    def _leave(self) -> None:
        self._hold(is_held=False)
        if self._is_ours and self._ending is not None:
            self._ending.close()


def end_together(trainer: pl.Trainer) -> None:
    """Give a trainer of several ranks an :class:`EndOnSignal` where it has none, before its callbacks are set up."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.world_size > 1 and not any(isinstance(callback, EndOnSignal) for callback in callbacks):
        callbacks.insert(0, EndOnSignal())


def ranks_here(world_size: int) -> list[int]:
    """Return the process numbers of all ranks on this machine; every rank asks."""
    found: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(found, (where_numbers_hold(), os.getpid()))
    return [process for where, process in found if where == where_numbers_hold()]


def where_numbers_hold() -> tuple[str, ...]:
    """Name the place in which a process number means one process: a machine since its start, a container on it."""
    boot, container = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.is_file():
        return (platform.node(),)
    return boot.read_text(), str(container.readlink())
