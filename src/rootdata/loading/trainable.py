"""Whether the events of a training part can teach anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rootdata.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule

ROUNDING = 1e-12  # of a sum of numbers of both signs, as a share of that of their sizes


def check_classes(data: RootDataModule) -> None:
    """Refuse to train a classifier on events that can't teach it to tell its classes.

    Raises
    ------
    DataError
        Where events have no labels, a class has no training events, or their weights add up to nothing.
    """
    events, weights = data.specs.of_classes("train")
    if not any(events):
        raise DataError(
            "samples: none of the training events has a label, and a classifier learns from labels; give every sample "
            "its class number, as samples.ttH.label=1, or `label` an expression"
        )
    listed = counted(data, events)
    for number, (name, n, (total, size)) in enumerate(zip(data.classes, events, weights, strict=True)):
        if not n:
            raise DataError(
                f"class {number} ({name!r}) has no training events ({listed}); check labels, cuts and the split, or "
                "leave the class out of `classes`"
            )
        if total <= ROUNDING * size:
            what = f"add up to {total:g}" if total < -ROUNDING * size else "add up to 0" if size else "are 0"
            raise DataError(
                f"class {number} ({name!r}): the weights of all its {n:,} training events {what}; check `weight`, its "
                "own and those of the samples"
            )


def counted(data: RootDataModule, events: Sequence[int]) -> str:
    """Write the number of events of each class."""
    return ", ".join(f"{name}: {n:,}" for name, n in zip(data.classes, events, strict=True))


def check_weights(data: RootDataModule) -> None:
    """Refuse to train on events whose weights are all 0.

    Raises
    ------
    DataError
    """
    if data.specs.num_events("train") and not data.mean_weight:
        raise DataError("weight: those of all training events are 0; check `weight`, its own and those of the samples")


def check_padding(data: RootDataModule, module: object) -> None:
    """Refuse to train what computes with NaN on events that are padded with it.

    Parameters
    ----------
    data : whose events they are
    module : to be trained; one that takes NaN as no value has ``takes_nan``

    Raises
    ------
    ConfigError
    """
    if data.data.pads_with_nan and not getattr(module, "takes_nan", False):
        raise ConfigError(
            f"pad: got nan, and {type(module).__name__} would compute NaN from it; trees take it as no value; give a "
            "number, data.pad=0, and let the mask tell what is missing"
        )
