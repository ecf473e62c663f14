"""Batches for fastai: ``Learner(dataloaders(data), model, loss_func=...)``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from rootdata.errors import LibraryError
from rootdata.frameworks.batches import Batches

try:
    from fastai.data.core import DataLoaders
    from fastai.torch_core import default_device, to_device
except ImportError as error:
    raise LibraryError.of("fastai", error, install="rootdata[fastai]") from error

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule


class FastaiBatches:
    """The batches of one part as fastai's learner takes them: inputs in the order of ``shapes``, truth, weights.

    The network is called with the inputs, the loss with what it returns, the truth and the weights.

    Parameters
    ----------
    data : a data module
    part : ``train``, ``val`` or ``test``
    ordered : give training events as others: each once, in file order, without shuffling
    truth : ``label`` or ``targets``, see :class:`rootdata.frameworks.batches.Batches`
    """

    def __init__(
        self, data: RootDataModule, part: str = "train", *, ordered: bool = False, truth: str | None = None
    ) -> None:
        self._source = Batches(data, part, ordered=ordered, truth=truth)
        self._made_of = (data, part, ordered, truth)
        self.bs, self.n_inp, self.device = self._source.batch_size, len(self._source.inputs), default_device()

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        for inputs, truth, weight in self._source:
            yield to_device(tuple(map(torch.from_numpy, (*inputs.values(), truth, weight))), self.device)

    @property
    def dataset(self) -> FastaiBatches:
        """These batches: there is nothing behind them that could be indexed."""
        return self

    def new_empty(self) -> FastaiBatches:
        """Return what an exported learner keeps in place of its events: how they are read."""
        return self

    @property
    def n(self) -> int:
        """Events of an epoch."""
        return self._source.num_events

    def one_batch(self) -> Any:
        """Return the first batch of the first epoch; the epoch that comes next stays what it is."""
        inputs, truth, weight = next(self._source.triples(0))
        return to_device(tuple(map(torch.from_numpy, (*inputs.values(), truth, weight))), self.device)

    def new(self, *events: Any, shuffle: bool | None = None, **others: Any) -> FastaiBatches:  # noqa: ARG002 - fastai's
        """Return the same part anew, as a learner asks for it before it predicts, or is exported.

        Parameters
        ----------
        events : what fastai hands on of data in memory, of which there is none
        shuffle : False gives training events in file order
        others : as ``events``
        """
        data, part, ordered, truth = self._made_of
        made = FastaiBatches(data, part, ordered=ordered or shuffle is False, truth=truth)
        return made.to(self.device)

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
