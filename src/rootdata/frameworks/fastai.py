"""Batches for fastai: ``Learner(dataloaders(data), model, loss_func=...)``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from fastai.data.core import DataLoaders
from fastai.torch_core import default_device, to_device

from rootdata.frameworks.batches import Batches

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule


class FastaiBatches:
    """The batches of one part as fastai's learner takes them: inputs in the order of ``shapes``, truth, weights.

    The network is called with the inputs, the loss with what it returns, the truth and the weights.

    Parameters
    ----------
    data : a data module
    part : ``train``, ``val`` or ``test``
    truth : ``label`` or ``targets``, see :class:`rootdata.frameworks.batches.Batches`
    """

    def __init__(self, data: RootDataModule, part: str = "train", *, truth: str | None = None) -> None:
        self.dataset = self._source = Batches(data, part, truth=truth)
        self.bs, self.n_inp, self.device = self._source.batch_size, len(self._source.inputs), default_device()

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        for inputs, truth, weight in self._source:
            yield to_device(tuple(map(torch.from_numpy, (*inputs.values(), truth, weight))), self.device)

    def to(self, device: Any) -> FastaiBatches:
        """Let the batches come to a device."""
        self.device = device
        return self


def dataloaders(data: RootDataModule, *, truth: str | None = None) -> DataLoaders:
    """Return training and validation batches for a learner.

    Raises
    ------
    ConfigError, DataError
        As :class:`rootdata.frameworks.batches.Batches`.
    """
    return DataLoaders(FastaiBatches(data, truth=truth), FastaiBatches(data, "val", truth=truth))
