"""What a training needs, looked at before its first batch: what can't mean anything is refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from rootdata.errors import ConfigError, DataError, nearest
from rootdata.loading.trainable import ROUNDING, counted

LOGGED = {"train/loss": "train", "val/loss": "val", "val/auc": "val"}
"""What :class:`rootdata.models.Classifier` logs, and in which part."""

_LEAVE_OUT = "or monitor nothing: '~callbacks.early_stopping' callbacks.checkpoint.monitor=null"


class ReadyCheck(pl.Callback):
    """Refuse, as a fit begins, to train nothing, or to wait for a figure that nobody will compute."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the limits of the trainer, and at what its callbacks and schedulers monitor.

        Raises
        ------
        ConfigError
            Naming the option.
        """
        check_steps(trainer)
        logged = getattr(pl_module, "logged", LOGGED)
        unknown = () if _may_log_more(trainer, pl_module) else tuple(logged)
        reason = why_not_validated(trainer)
        for owner, name in monitored(trainer):
            if unknown and name not in unknown:
                raise ConfigError(f"{owner} monitors {name!r}, which nobody computes; {nearest(name, unknown)}")
            if reason and logged.get(name) == "val":
                raise ConfigError(f"{owner} monitors {name!r}, which is never computed: {reason}, {_LEAVE_OUT}")
            if logged.get(name) == "val":
                _check_val_weights(owner, name, trainer.datamodule)  # type: ignore[attr-defined]
            if name == "val/auc":
                _check_val_classes(owner, trainer.datamodule)  # type: ignore[attr-defined]

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Say where figures of the test will have no value, since its events weigh nothing."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "specs") and data.specs.num_events("test") and not data.specs.mean_weight("test"):
            rank_zero_warn(
                "all events of the test part weigh 0: its figures have no value; check `weight` and the split"
            )


def check_steps(trainer: pl.Trainer) -> None:
    """Refuse limits with which not one step is made."""
    for name in ("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches"):
        if getattr(trainer, name) == 0:
            raise ConfigError(f"trainer.{name}: got 0, with which nothing is trained; train=false only tests")


def monitored(trainer: pl.Trainer) -> Iterator[tuple[str, str]]:
    """Yield who waits for which figure."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = getattr(callback, "monitor", None)
        if isinstance(name, str):
            yield type(callback).__name__, name
    for scheduler in trainer.lr_scheduler_configs:
        if scheduler.reduce_on_plateau and isinstance(scheduler.monitor, str):
            yield type(scheduler.scheduler).__name__, scheduler.monitor


def why_not_validated(trainer: pl.Trainer) -> str | None:
    """Say why a fit never validates, and what would help; None where it does."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not trainer.limit_val_batches:
        return "trainer.limit_val_batches is 0; raise it"
    if hasattr(data, "specs") and not data.specs.num_events("val"):
        return "the val part has no events; give it a share of the split"
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs is not None and every is not None and 0 < epochs < every:
        return f"trainer.check_val_every_n_epoch is {every}, and max_epochs {epochs}; lower it"
    return None


def _may_log_more(trainer: pl.Trainer, module: pl.LightningModule) -> bool:
    """Tell whether there is code that may log what is not listed here."""
    hooks = ("training_step", "validation_step", "on_train_epoch_end", "on_validation_epoch_end")
    code = [getattr(type(module), hook) for hook in hooks] + [type(c) for c in trainer.callbacks]  # type: ignore[attr-defined]
    return any(c.__module__.partition(".")[0] not in {"rootdata", "pytorch_lightning"} for c in code)


def _check_val_classes(owner: str, data: Any) -> None:
    if not hasattr(data, "specs"):
        return
    events, weights = data.specs.of_classes("val")
    if sum(n > 0 for n in events) < 2:
        raise DataError(
            f"{owner} monitors 'val/auc', which needs events of two classes in the val part ({counted(data, events)}); "
            "check the split, or monitor 'val/loss' with mode=min"
        )
    nothing = next((k for k, (total, size) in enumerate(weights) if events[k] and abs(total) <= ROUNDING * size), None)
    if nothing is not None:
        raise DataError(
            f"{owner} monitors 'val/auc', and the weights of all {events[nothing]:,} events of class {nothing} "
            f"({data.classes[nothing]!r}) in the val part add up to 0; check `weight` and the split"
        )


def _check_val_weights(owner: str, name: str, data: Any) -> None:
    """Refuse to wait for the mean of events that all weigh nothing."""
    if hasattr(data, "specs") and data.specs.num_events("val") and not data.specs.mean_weight("val"):
        raise DataError(
            f"{owner} monitors {name!r}, and all events of the val part weigh 0; check `weight`, its own and those of "
            "the samples, and the split"
        )
