"""A torch ``IterableDataset`` over ROOT files: whole batches, in an order that only seed and epoch decide."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from rootdata import values
from rootdata.ahead import Stop, prefetched
from rootdata.blocks import Store, open_store
from rootdata.cache import directories_path
from rootdata.config import PARTS, DataConfig, OrderConfig, parse_data, parse_order, parse_read
from rootdata.cursor import Cursor, cursor_of, identity_of, state_of
from rootdata.directories import Directories
from rootdata.errors import ConfigError, DataError, ResumeError
from rootdata.lending import shared
from rootdata.scan import specs_for
from rootdata.specs import Specs
from rootdata.stream import Arrays, make_recipe, plan_of, share_of, slabs

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
    prefetch : slabs of batches, of about 8 MB each (16 where batches are large), made ahead by a thread; 0: none
    num_workers : reading processes; 0 reads in threads
    patience : seconds during which a remote file that fails is tried again
    deadline : seconds that one attempt to read a block of a remote file may take
    cache : where decoded blocks are kept: ``"memory"``, ``{"dir": ..., "max_bytes": ...}``, or a store that is shared
    scheduler : address of a dask scheduler, over which a first pass is spread
    pin_memory : put batches into page-locked memory, for asynchronous copies to a GPU
    rank, world_size : take this part of every batch
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
        patience: float = 120.0,
        deadline: float = 60.0,
        cache: str | Mapping[str, Any] | Store | None = None,
        scheduler: str | None = None,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        ordered: bool = False,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if part not in PARTS:
            raise ConfigError(f"part: got {part!r}; allowed: {', '.join(PARTS)}")
        values.reject_unknown(options, [*DATA_OPTIONS, *ORDER_OPTIONS], where="the options of RootDataset")
        self.data = parse_data({k: v for k, v in options.items() if k in DATA_OPTIONS})
        names = [s.name for s in self.data.samples]
        self.order = parse_order({k: v for k, v in options.items() if k in ORDER_OPTIONS}, samples=names)
        read = parse_read(
            {
                "prefetch": prefetch,
                "num_workers": num_workers,
                "patience": patience,
                "deadline": deadline,
                "cache": None if isinstance(cache, Store) else cache,
            }
        )
        self._lender = shared()  # so that it lives from one epoch to the next
        self._store = cache if isinstance(cache, Store) else open_store(read.cache)
        self.specs = specs_for(
            self.data, given=specs, progress=progress, read=read, store=self._store, scheduler=scheduler
        )
        self._directories = Directories.load(directories_path(self.specs.fingerprint))
        self.part = part
        self._is_training = part == "train" and not ordered
        self._index = index
        self._pin = pin_memory and torch.cuda.is_available()
        self._rank, self._world = rank, world_size
        # Where every worker of a DataLoader begins next, and the batch that worker 0 of its epoch began with, in memory
        # that they share: workers live for one epoch only.
        self._begins = torch.zeros((MAX_WORKERS, 3), dtype=torch.int64)
        self._share()
        self._next, self._known, self._first = Cursor(), 0, 0
        self._recipe = make_recipe(self.data, self.specs, part, read=read)
        self._plan = plan_of(self._recipe, self.order, training=self._is_training, world_size=world_size)
        self._check_size()

    def _check_size(self) -> None:
        if self.num_events < self._world:  # said by every rank: one that went on would wait for those that do not
            raise DataError(
                f"{self.part}: got {self.num_events} events for {self._world} ranks, each needs one; take fewer ranks, "
                f"or a larger share for {self.part} in split"
            )
        if not len(self):
            raise DataError(
                f"drop_last: the {self.num_events} events are fewer than a batch of {self.order.batch_size}"
            )

    def _share(self) -> None:
        if not self._begins.is_shared():  # type: ignore[no-untyped-call]
            self._begins.share_memory_()  # type: ignore[no-untyped-call]

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Become a copy with counters of its own; a worker of a ``DataLoader`` keeps those that it shares."""
        self.__dict__.update(state)
        self._share()

    def __repr__(self) -> str:
        return f"RootDataset({self.part}: {self.num_events:,} events, {len(self):,} batches of {self.order.batch_size})"

    @property
    def epoch(self) -> int:
        """Number of the epoch that the next iteration delivers."""
        return int(self._begins[0, 0])

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._go_to(Cursor(number), first=0)

    def _go_to(self, cursor: Cursor, *, first: int) -> None:
        """Begin there next: all workers, or the one that this is."""
        worker = get_worker_info()
        mine = slice(None) if worker is None else slice(worker.id, None, worker.num_workers)
        self._begins[mine] = torch.tensor([cursor.epoch, cursor.batch, first])
        self._next, self._known, self._first = cursor, cursor.epoch, first

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was given out, as primitives.

        The same for every rank, and valid for any number of readers and ranks. In a worker of torchdata's
        ``StatefulDataLoader`` it is the worker's own place, valid for as many workers.

        Raises
        ------
        ResumeError
            Where workers of a ``DataLoader`` took the batches: how far they were used is not known here.
        """
        worker = get_worker_info()
        if worker is not None:
            mine = {"number": worker.id, "of": worker.num_workers, "first": self._first}
            return {**state_of(self._next, self.identity), "worker": mine}
        if self.epoch != self._known:
            raise ResumeError(
                "state_dict: the batches were read by workers of a DataLoader, which run ahead; let the data set read "
                "ahead itself, RootDataset(..., num_workers=...) in a DataLoader(..., num_workers=0), or take the "
                "state of torchdata's StatefulDataLoader"
            )
        return state_of(self._next, self.identity)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration begin at the place of a :meth:`state_dict`.

        Raises
        ------
        ResumeError
            Where the state was made with other files, cuts, features, batches or another seed, or by a worker of a
            ``DataLoader`` that had another number of them.
        """
        cursor, worker, saved = cursor_of(state, self.identity), get_worker_info(), state.get("worker")
        now = None if worker is None else (worker.id, worker.num_workers)
        if saved is not None and now != (saved["number"], saved["of"]):
            raise ResumeError(
                f"the state was made by worker {saved['number']} of {saved['of']} of a DataLoader, and is given to "
                f"{'none' if now is None else f'worker {now[0]} of {now[1]}'}; take num_workers={saved['of']} again (a "
                "state of num_workers=0, where the data set itself reads ahead, is valid for any number of readers)"
            )
        self._go_to(cursor, first=cursor.batch if saved is None else saved["first"])

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which event is the n-th of an epoch, and what of it is seen; as primitives."""
        return identity_of(self.data, self.order, self.specs)

    def read_amplification(self) -> float:
        """Return how often an event is read in an epoch by all ranks together."""
        return self._plan.read_amplification(self._world)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor."""
        return self._recipe.layout.shapes

    @property
    def num_events(self) -> int:
        """Events of an epoch, over all ranks."""
        return self._plan.num_events

    def __len__(self) -> int:
        """Return the batches of an epoch for this rank: in training, of every rank."""
        whole, rest = divmod(self.num_events, self.order.batch_size)
        return whole + (1 if self._gives(rest) else 0)

    def _gives(self, rest: int) -> bool:
        """Say whether the last, smaller batch is given: it is not where that was asked, or a rank can't train on it."""
        if self._is_training:
            return not self.order.drop_last and rest >= self._world
        return share_of(rest, self._rank, self._world) > 0

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch, or what is left of the one that :meth:`load_state_dict` told of.

        Under a ``DataLoader`` with W workers, each delivers every W-th batch: the same batches in the same order as
        without workers. Every worker reads all files, so that reading threads, the default, are the cheaper way.
        """
        worker = get_worker_info()
        # A worker begins its epoch when it starts, whether or not a batch is taken from it, so that all stay in step.
        # Elsewhere the first batch begins it: trainers make iterators that they never use.
        if worker is None:
            return self._deliver(None, number=0, count=1)
        return self._deliver(
            self._begin(number=worker.id, count=worker.num_workers), number=worker.id, count=worker.num_workers
        )

    def _begin(self, *, number: int, count: int) -> Cursor:
        """Return the first batch. Worker w of W moves on counters w, w + W, ...: all of them do all, whatever W is."""
        epoch, batch, self._first = self._begins[number].tolist()
        self._begins[number::count] = torch.tensor([epoch + 1, 0, 0])
        self._known, self._next = self.epoch, Cursor(epoch, batch)
        return self._next

    def _deliver(self, cursor: Cursor | None, *, number: int, count: int) -> Iterator[Batch]:
        cursor = cursor or self._begin(number=number, count=count)
        epoch, first, is_alone = cursor.epoch, self._first, get_worker_info() is None
        for here, batch in enumerate(self.batches(epoch, start=cursor.batch), start=cursor.batch):
            if (here - first) % count == number:
                # A worker that is done waits for the others at the end of the epoch.
                self._next = Cursor(epoch, here).after(len(self)) if is_alone else Cursor(epoch, here + 1)
                yield batch

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of a given epoch, from number ``start`` on."""
        size, left = share_of(self.order.batch_size, self._rank, self._world), len(self) - start
        if left <= 0:
            return
        stop = Stop()
        source = slabs(
            self._recipe, self._plan, epoch=epoch, start=start, rank=self._rank, world_size=self._world,
            store=self._store, directories=self._directories, stop=stop,
        )  # fmt: skip
        ahead = prefetched(self._cut(source, size), depth=self._recipe.read.prefetch, stop=stop)
        try:
            for batches in ahead:
                for batch in batches:
                    if not left:
                        return
                    left -= 1
                    yield batch
        finally:
            ahead.close()  # type: ignore[attr-defined]

    def _cut(self, source: Generator[Arrays, None, None], size: int) -> Iterator[list[Batch]]:
        """Cut slabs into batches, in the thread that makes them: the one that trains only takes them out of a list."""
        with contextlib.closing(source):
            for slab in source:
                starts = range(0, len(slab["label"]), size)
                kept = {n: v for n, v in slab.items() if self._index or n != "index"}
                if self._pin:  # views of a pinned tensor, so that its memory is not used again while a copy reads it
                    pinned = {n: torch.from_numpy(v).pin_memory() for n, v in kept.items()}
                    yield [{n: t[low : low + size] for n, t in pinned.items()} for low in starts]
                else:
                    yield [{n: torch.from_numpy(v[low : low + size]) for n, v in kept.items()} for low in starts]
