"""A torch ``IterableDataset`` over ROOT files: whole batches, in an order that only seed and epoch decide."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import IterableDataset, get_worker_info

from rootdata.cache.blocks import open_store
from rootdata.errors import ConfigError, ResumeError
from rootdata.loading.part import Part
from rootdata.loading.position import Cursor, cursor_of, state_of
from rootdata.loading.readers import Stop, prefetched
from rootdata.loading.stream import Arrays
from rootdata.options.data import OBSERVED, VARIED
from rootdata.options.parsed import Options
from rootdata.scan.executors import Executor
from rootdata.scan.lookup import scan_for
from rootdata.scan.specs import Specs
from rootdata.scan.taken import with_taken_scale

Batch = dict[str, torch.Tensor]

MAX_WORKERS = 1024  # of a DataLoader


class RootDataset(IterableDataset[Batch]):
    """The batches of one part of a data set.

    Iterate over it, or put it into ``DataLoader(dataset, batch_size=None, num_workers=...)``; each iteration is one
    epoch, the number of which is ``epoch`` and goes up by one each time.

    Parameters
    ----------
    options : what to read, in which order and how: the keyword arguments of ``RootDataModule`` as a mapping
    part : ``train`` (shuffled, mixed by weight where asked), ``val`` or ``test`` (every event once, in file order)
    specs : what a first pass learnt, or the path of its file; by default it is looked up, or run
    index : put (sample, file, entry) of every event into the batches
    scheduler : address of a dask scheduler, or an executor, over which a first pass is spread
    pin_memory : put batches into page-locked memory, for asynchronous copies to a GPU
    rank, world_size : take this part of every batch
    ordered : give training events as validation ones: each once, in file order, the last batch included
    progress : show a bar while a first pass runs
    more : further options, as keyword arguments

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
        scheduler: str | Executor | None = None,
        pin_memory: bool = False,
        rank: int = 0,
        world_size: int = 1,
        ordered: bool = False,
        progress: bool = False,
        **more: Any,
    ) -> None:
        parsed = Options.parse(with_taken_scale({**options, **more}), where="the options of RootDataset")
        store = open_store(parsed.read.cache)
        scanned = scan_for(parsed, given=specs, progress=progress, store=store, scheduler=scheduler)
        events = Part(scanned, parsed, part, rank=rank, world_size=world_size, ordered=ordered, store=store)
        self._wrap(events, index=index, pin_memory=pin_memory)

    @classmethod
    def of(cls, events: Part, *, index: bool = False, pin_memory: bool = False) -> Self:
        """Make a data set of what was parsed and scanned already.

        Parameters
        ----------
        events : of one part, for one rank
        index, pin_memory : as the constructor takes them
        """
        dataset = cls.__new__(cls)
        dataset._wrap(events, index=index, pin_memory=pin_memory)  # noqa: SLF001 - one of this class
        return dataset

    def _wrap(self, events: Part, *, index: bool, pin_memory: bool) -> None:
        super().__init__()
        self._events = events
        self.data, self.order, self.specs = events.options.data, events.options.order, events.scanned.specs
        self.part = events.name
        self._index = index
        self._pin = pin_memory and torch.cuda.is_available()
        # Where every worker of a DataLoader begins next, and the batch that worker 0 of its epoch began with, in memory
        # that they share: workers live for one epoch only.
        self._begins = torch.zeros((MAX_WORKERS, 3), dtype=torch.int64)
        self._share()
        self._next, self._known, self._first = Cursor(), 0, 0

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
        """Let the next iteration begin at a place: in all workers, or in this one where it is called in one."""
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

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which event is the n-th of an epoch, and what of it is seen; as primitives."""
        return self._events.identity

    def read_amplification(self) -> float:
        """Return how often an event is read in an epoch by all ranks together."""
        return self._events.read_amplification()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor."""
        return self._events.scanned.layout.shapes

    @property
    def num_events(self) -> int:
        """Events of an epoch, over all ranks."""
        return self._events.num_events

    def __len__(self) -> int:
        """Return the batches of an epoch for this rank: in training, of every rank."""
        return len(self._events)

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
        """Return the first batch. Worker w of W advances counters w, w + W, ...: all of them together, for any W."""
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
        if epoch < 0 or start < 0:
            raise ConfigError(f"batches: got epoch {epoch} from batch {start} on; both are counted from 0")
        left = len(self) - start
        if left <= 0:
            return
        stop = Stop()
        source = self._events.slabs(epoch, start=start, stop=stop)
        ahead = prefetched(
            self._cut(source, self._events.batch_size), depth=self._events.options.read.prefetch, stop=stop
        )
        try:
            for batches in ahead:
                for batch in batches:
                    if not left:
                        return
                    left -= 1
                    yield batch
        finally:
            ahead.close()  # type: ignore[attr-defined]

    def _is_given(self, key: str) -> bool:
        """Say whether batches hold what a slab does."""
        if key.startswith(OBSERVED):
            return self._events.has_observers
        if key.startswith(VARIED):
            return not self._events.is_training
        return self._index or key != "index"

    def _cut(self, source: Generator[Arrays, None, None], size: int) -> Iterator[list[Batch]]:
        """Cut slabs into batches, in the thread that makes them: the one that trains only takes them out of a list."""
        layout = self._events.scanned.layout
        with contextlib.closing(source):
            for slab in source:
                starts = range(0, len(slab["label"]), size)
                kept: dict[str, Any] = {n: v for n, v in slab.items() if self._is_given(n)}
                if self._pin:  # views of a pinned tensor, so that its memory is not used again while a copy reads it
                    kept = {n: torch.from_numpy(v).pin_memory() for n, v in kept.items()}
                cut = [layout.cut(kept, low, low + size) for low in starts]
                yield [{n: self._tensor(v) for n, v in batch.items()} for batch in cut]

    def _tensor(self, values: Any) -> torch.Tensor:
        tensor: torch.Tensor = torch.as_tensor(values)
        return tensor if not self._pin or tensor.is_pinned() else tensor.pin_memory()  # offsets, counted anew
