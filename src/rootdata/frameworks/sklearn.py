"""Batches for scikit-learn: estimators that learn in portions, and tables for those that want all events at once."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rootdata.errors import ConfigError
from rootdata.frameworks.batches import Batches
from rootdata.options import values

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule

T = TypeVar("T")


def partial_fit(estimator: T, data: RootDataModule, *, epochs: int = 1, truth: str | None = None) -> T:
    """Let an estimator learn from the stream, batch by batch, in bounded memory, and return it.

    Padding and missing values are 0, which in scaled inputs is their mean.

    Parameters
    ----------
    estimator : with ``partial_fit``, as ``SGDClassifier``, ``MLPClassifier`` and their regressors have it
    data : a data module of the vector layout
    epochs : how often it sees every training event
    truth : ``label`` or ``targets``, see :class:`rootdata.frameworks.batches.Batches`

    Raises
    ------
    ConfigError, DataError
        For an estimator without ``partial_fit``, one that takes no weights where events have them, a layout that has no
        rows, and as :class:`rootdata.frameworks.batches.Batches`.
    """
    if not hasattr(estimator, "partial_fit"):
        raise ConfigError(
            f"{type(estimator).__name__} has no partial_fit, so that it wants all events at once: "
            "estimator.fit(*Batches(data).table())"
        )
    source, takes = Batches(data, truth=truth), inspect.signature(estimator.partial_fit).parameters
    more: dict[str, Any] = {"classes": np.arange(len(source.classes))} if "classes" in takes else {}
    for epoch in range(values.positive(epochs, "epochs")):
        for x, y, weight in source.rows(epoch, missing=0.0):
            if "sample_weight" in takes:
                more["sample_weight"] = weight
            elif np.ptp(weight) > 0:
                raise ConfigError(
                    f"weight: {type(estimator).__name__}.partial_fit takes no weights of events; take another "
                    "estimator, or data without weights"
                )
            estimator.partial_fit(x, y, **more)
    return estimator
