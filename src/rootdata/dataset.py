"""A torch ``IterableDataset`` over ROOT files: whole batches, in an order that only seed and epoch decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from rootdata.ahead import prefetched
from rootdata.config import PARTS, DataConfig, OrderConfig, parse_data, parse_order, reject_unknown
from rootdata.errors import ConfigError, DataError
from rootdata.scan import specs_for
from rootdata.specs import Specs
from rootdata.stream import Arrays, make_recipe, plan_of, slabs

Batch = dict[str, torch.Tensor]

MAX_WORKERS = 1024  # of a DataLoader

DATA_OPTIONS = tuple(f.name for f in dataclasses.fields(DataConfig) if f.name != "default_scale")
ORDER_OPTIONS = tuple(f.name for f in dataclasses.fields(OrderConfig))


class RootDataset(IterableDataset[Batch]):
    """The batches of one part of a data set.

    Iterate over it, or put it into ``DataLoader(dataset, batch_size=None, num_workers=...)``; each iteration is one
    epoch, the number of which is ``epoch`` and goes up by one each time.

    Parameters
    ----------
    options : what to read and in which order: the keyword arguments of ``RootDataModule`` as a mapping
    part : ``train`` (shuffled, mixed by weight where asked), ``val`` or ``test`` (every event once, in file order)
    specs : what a first pass learnt, or the path of its file; by default it is looked up, or run
    index : put (sample, file, entry) of every event into the batches
    prefetch : slabs of batches, of about 8 MB each, made ahead of time in a background thread; 0: none
    num_workers : reading processes; 0 reads in threads
    pin_memory : put batches into page-locked memory, for asynchronous copies to a GPU
    rank, world_size : take this slice of every batch
    ordered : give training events as validation ones: each once, in file order, the last batch included

    Raises
    ------
    ConfigError, FileError, BranchError, DataError
        Before anything is delivered; see :mod:`rootdata.errors`.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        part: str = "train",
        *,
        specs: Specs | str | Path | None = None,
        index: bool = False,
        prefetch: int = 2,
        num_workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        ordered: bool = False,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if part not in PARTS:
            raise ConfigError(f"part: got {part!r}; allowed: {', '.join(PARTS)}")
        reject_unknown(options, [*DATA_OPTIONS, *ORDER_OPTIONS], where="the options of RootDataset")
        self.data = parse_data({k: v for k, v in options.items() if k in DATA_OPTIONS})
        names = [s.name for s in self.data.samples]
        self.order = parse_order({k: v for k, v in options.items() if k in ORDER_OPTIONS}, samples=names)
        self.specs = specs_for(self.data, given=specs, progress=progress)
        self.part = part
        self._is_training = part == "train" and not ordered
        # One counter for each worker of a DataLoader, in memory that they share: workers live for one epoch only.
        self._epochs = torch.zeros(MAX_WORKERS, dtype=torch.int64)
        self._epochs.share_memory_()  # type: ignore[no-untyped-call]
        self._index = index
        self._prefetch = prefetch
        self._processes = num_workers
        self._pin = pin_memory and torch.cuda.is_available()
        self._rank, self._world = rank, world_size
        self._recipe = make_recipe(self.data, self.specs, part)
        self._plan = plan_of(self._recipe, self.order, training=self._is_training)

        if not len(self):
            raise DataError(
                f"drop_last: the {self.num_events} events are fewer than a batch of {self.order.batch_size}"
            )

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration delivers."""
        return int(self._epochs[0])

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epochs.fill_(number)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor."""
        return self._recipe.layout.shapes

    @property
    def num_events(self) -> int:
        """Events of an epoch, over all ranks."""
        return self._plan.num_events

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        whole, rest = divmod(self.num_events, self.order.batch_size)
        return whole + (1 if rest and not self._drops(rest) else 0)

    def _drops(self, rest: int) -> bool:
        """Say whether the last, smaller batch is left out: asked for, or too small for every rank to train on."""
        return self._is_training and (self.order.drop_last or rest < self._world)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch.

        Under a ``DataLoader`` with W workers, each delivers every W-th batch: the same batches in the same order as
        without workers. Every worker reads all files, so that reading threads, the default, are the cheaper way.
        """
        worker = get_worker_info()
        # A worker begins its epoch when it starts, whether or not a batch is taken from it, so that all stay in step.
        # Elsewhere the first batch begins it: trainers make iterators that they never use.
        if worker is None:
            return self._deliver(None, number=0, count=1)
        epoch = self._begin(number=worker.id, count=worker.num_workers)
        return self._deliver(epoch, number=worker.id, count=worker.num_workers)

    def _begin(self, *, number: int, count: int) -> int:
        """Return the next epoch. Worker w of W moves on counters w, w + W, ...: all of them do all, whatever W is."""
        epoch = int(self._epochs[number])
        self._epochs[number::count] += 1
        return epoch

    def _deliver(self, epoch: int | None, *, number: int, count: int) -> Iterator[Batch]:
        if epoch is None:
            epoch = self._begin(number=number, count=count)
        for i, batch in enumerate(self._batches(epoch)):
            if i % count == number:
                yield self._tensors(batch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of a given epoch."""
        return (self._tensors(batch) for batch in self._batches(epoch))

    def _batches(self, epoch: int) -> Iterator[Arrays]:
        size, left = self.order.batch_size, len(self)
        source = slabs(self._recipe, self._plan, epoch=epoch, batch_size=size, processes=self._processes)
        ahead = prefetched(source, depth=self._prefetch)
        try:
            for slab in ahead:
                total = len(slab["label"])
                for low in range(0, total, size):
                    if not left:
                        return
                    left -= 1
                    yield self._slice(slab, low, min(low + size, total))
        finally:
            ahead.close()  # type: ignore[attr-defined]

    def _slice(self, slab: Arrays, low: int, high: int) -> Arrays:
        """Cut this rank's part of a batch."""
        n = high - low
        low, high = low + n * self._rank // self._world, low + n * (self._rank + 1) // self._world
        return {name: values[low:high] for name, values in slab.items() if self._index or name != "index"}

    def _tensors(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Batch:
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        return {n: t.pin_memory() for n, t in tensors.items()} if self._pin else tensors
