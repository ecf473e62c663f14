"""Batches as a ``tf.data.Dataset``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rootdata.errors import LibraryError
from rootdata.frameworks.batches import Batches

try:
    import tensorflow as tf
except ImportError as error:
    raise LibraryError.of("tensorflow", error, install="rootdata[tensorflow]") from error

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule


def dataset(data: RootDataModule, part: str = "train", *, truth: str | None = None, prefetch: int = 2) -> Any:
    """Return the batches of one part as a ``tf.data.Dataset`` whose length is known; every iteration is an epoch.

    An element is the input tensors by name, the truth and the weights. The last batch of an epoch may be smaller, so
    that the first axis is unknown.

    Parameters
    ----------
    data : a data module
    part : ``train``, ``val`` or ``test``
    truth : ``label`` or ``targets``, see :class:`rootdata.frameworks.batches.Batches`
    prefetch : batches that are handed over ahead

    Raises
    ------
    ConfigError, DataError
        As :class:`rootdata.frameworks.batches.Batches`.
    """
    source = Batches(data, part, truth=truth)
    first = next(source.triples(0))
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), np.asarray(array).dtype), first
    )
    made = tf.data.Dataset.from_generator(lambda: iter(source), output_signature=signature)
    return made.apply(tf.data.experimental.assert_cardinality(len(source))).prefetch(prefetch)
