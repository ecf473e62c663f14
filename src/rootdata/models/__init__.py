"""Networks that take the batches of :class:`rootdata.loading.datamodule.RootDataModule`.

The names are loaded on first use, since each of them brings torch along.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootdata.models.autoencoder import Autoencoder
    from rootdata.models.classifier import Classifier
    from rootdata.models.cnn import CNN
    from rootdata.models.deepsets import DeepSets
    from rootdata.models.dnn import DNN
    from rootdata.models.encodedsets import EncodedSets
    from rootdata.models.mlp import MLP
    from rootdata.models.transformer import Transformer

__all__ = ["CNN", "DNN", "MLP", "Autoencoder", "Classifier", "DeepSets", "EncodedSets", "Transformer"]


def __getattr__(name: str) -> object:
    """Import a network when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.lower()}"), name)
