"""Batches for scikit-learn: estimators that learn in portions, and tables for those that want all events at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rootdata.errors import ConfigError
from rootdata.frameworks.batches import Batches, rows_of

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
        For an estimator without ``partial_fit``, a layout that has no rows, and as
        :class:`rootdata.frameworks.batches.Batches`.
    """
    if not hasattr(estimator, "partial_fit"):
        raise ConfigError(
            f"{type(estimator).__name__} has no partial_fit, so that it wants all events at once: "
            "estimator.fit(*Batches(data).table())"
        )
    source = Batches(data, truth=truth)
    more: dict[str, Any] = {"classes": np.arange(len(source.classes))} if hasattr(estimator, "predict_proba") else {}
    for _ in range(epochs):
        for inputs, y, weight in source:
            estimator.partial_fit(rows_of(inputs, missing=0.0), y, sample_weight=weight, **more)
    return estimator
