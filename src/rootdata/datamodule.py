"""``RootDataModule``: ROOT files for a Lightning trainer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytorch_lightning
from pytorch_lightning.utilities import rank_zero_info

from rootdata.blocks import open_store
from rootdata.config import PARTS, OrderConfig, parse_data, parse_order, parse_read
from rootdata.cursor import identity_of
from rootdata.dataset import Batch, RootDataset
from rootdata.errors import ConfigError
from rootdata.progress import Progress
from rootdata.ready import check_weights
from rootdata.scan import specs_for
from rootdata.specs import Specs, layout_of, transforms_of
from rootdata.stopping import end_together
from rootdata.stream import shares_of
from rootdata.summary import summarize

if TYPE_CHECKING:
    from rich.console import RenderableType

_Base: Any = pytorch_lightning.LightningDataModule
if importlib.util.find_spec("lightning") is not None and not TYPE_CHECKING:
    # The two distributions of Lightning do not know each other's classes; a child of both works in both trainers.
    import lightning

    _Base = type("_Base", (pytorch_lightning.LightningDataModule, lightning.LightningDataModule), {})


class Loader:
    """The batches of one part for one rank: an iterable with a length, which a trainer takes as it is.

    Parameters
    ----------
    trainer : the one for whose run it is made; None where somebody iterates over it by hand
    """

    def __init__(self, events: RootDataset, trainer: Any = None) -> None:
        self.events = events
        self.stage = "" if trainer is None else str(trainer.state.fn.value)
        self._trainer = weakref.ref(trainer) if trainer is not None else None
        self._open: weakref.WeakSet[Iterator[Batch]] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Batch]:
        batches = self._deliver()
        self._open.add(batches)
        return batches

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.events!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a copy that belongs to no trainer."""
        return Loader, (self.events,)

    def _deliver(self) -> Iterator[Batch]:
        yield from self.events

    def is_over(self) -> bool:
        """Say whether the run that it was made for has ended."""
        if self._trainer is None:
            return False
        trainer = self._trainer()
        return trainer is None or not _is_running(trainer)

    def close(self) -> None:
        """End the iterations that go on: their threads, processes and files."""
        for batches in list(self._open):
            with contextlib.suppress(ValueError):  # it runs now, and is being left by an exception
                batches.close()  # type: ignore[attr-defined]


class TrainLoader(Loader):
    """The training batches of a fit, from where the data module stands."""

    def __init__(self, events: RootDataset, trainer: Any, progress: Progress) -> None:
        super().__init__(events, trainer)
        self._progress = progress

    def _deliver(self) -> Iterator[Batch]:
        trainer = None if self._trainer is None else self._trainer()
        if trainer is None:
            yield from self.events
            return
        # Asked for at the first batch: a trainer makes iterators before it knows that it goes on within an epoch.
        limit = trainer.limit_train_batches
        length = min(len(self), limit) if isinstance(limit, int) else int(len(self) * limit)
        cursor, fit = self._progress.begin(trainer, self.events.identity, length=length)
        epoch, last = 0 if trainer.overfit_batches else cursor.epoch, length - cursor.batch
        batches = self.events.batches(epoch, start=cursor.batch)
        with contextlib.closing(batches):  # type: ignore[type-var]
            for number, batch in enumerate(itertools.islice(batches, last), start=1):
                if number == last:
                    batches.close()  # type: ignore[attr-defined]
                fit.given += 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the data module keeps the place. Without this a trainer warns that nobody does."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing."""


class RootDataModule(_Base):  # type: ignore[misc]
    """Stream ROOT files into any Lightning trainer.

    Batches are dicts of packed tensors. Layout ``vector``: ``x`` (batch, width) float32 and ``mask`` of the same shape,
    True where the value is real. Layout ``tokens``: ``flat`` (batch, features), and for every collection ``<name>``
    (batch, length, features) and ``<name>_mask`` (batch, length). Always ``label`` (batch,) int64 (-1 without labels)
    and ``weight`` (batch,) float32; in test, in predict and with ``index=True`` also ``index`` (batch, 3) int64:
    sample, file, entry.

    Plain dicts and lists are accepted everywhere, as a YAML file gives them.

    Parameters
    ----------
    samples : name to ``{"files": ..., "tree": ..., "label": ..., "cut": ..., "weight": ...}``; files are paths, URLs,
        globs, folders, ``path:tree``, text files of those, or a list of them; a list within it holds places of one file
    flat : branches with one number an event, and fixed-size arrays
    jagged : collection name to ``{"branches": [...], "length": 10 | "auto", "sort": "-Jet_pt", "cut": "Jet_pt > 30"}``
    derived : new columns as expressions of branches, usable wherever a branch is
    cut : expression; events where it is false are left out
    label : expression that gives the class number of an event; by default the sample's ``label``
    weight : expression or number, multiplied by the sample's
    classes : names of the classes, class 0 first
    layout : ``vector`` or ``tokens``
    scale : ``standard``, ``minmax``, ``robust``, ``log``, ``none``, or a mapping of columns (and ``default``) to one of
        these or to ``{"shift": ..., "factor": ...}``
    missing : numbers that stand for "no value", such as -999; NaN and infinities always do
    pad : what a padded or missing input becomes, after scaling
    fraction : share of the blocks whose features the first pass reads
    on_bad_file : ``error``, or ``skip``: the first pass leaves files out that can't be read, and says so
    split : shares ``{"train": 0.64, "val": 0.16, "test": 0.2}``, by a hash of file and entry, or with
        ``"by": "entries"`` by ranges of every file; values of an expression,
        ``{"by": "event % 5", "val": [3], "test": [4]}``; or patterns of files, ``{"train": ["*_A.root"], "val": ...}``
    mix : ``sample`` or ``file`` (proportional), or a weight for each sample
    batch_size : global, divided by the number of ranks
    chunk_size : events mixed at a time
    open_blocks : blocks of a sample open at a time; by default as many as hold two chunks over all samples
    max_memory : bytes that reading and mixing may take: fewer blocks are open then, and mixed
    partitions : parts of the training events that ranks read on their own; set it to the number of GPUs, or a multiple
    shuffle : whether training events are shuffled
    seed : of the order
    specs : what a first pass learnt, or its file; by default looked up in the cache folder, or learnt now
    num_workers : reading processes; 0 reads in threads of this process, which is faster where decoding is cheap
    prefetch : slabs of batches (about 8 MB each, 16 where batches are large) made ahead of time
    patience : seconds during which a remote file that fails is tried again
    deadline : seconds that one attempt to read a block of a remote file may take
    cache : where decoded blocks are kept: ``"memory"``, or ``{"dir": "/scratch/blocks", "max_bytes": 50_000_000_000}``
    scheduler : address of a dask scheduler, over which the first pass is spread
    pin_memory : page-locked batches, for asynchronous copies to a GPU
    drop_last : leave out the last, smaller batch of a training epoch
    index : put (sample, file, entry) into training and validation batches, too
    prepare : called once, before files are looked for: it may make or fetch them

    Raises
    ------
    ConfigError, ExpressionError
        At once, for options that contradict themselves. What depends on the files is raised by ``setup``.
    """

    def __init__(
        self,
        samples: Mapping[str, Any],
        *,
        flat: Sequence[str] = (),
        jagged: Mapping[str, Any] | None = None,
        derived: Mapping[str, str] | None = None,
        cut: str | None = None,
        label: str | None = None,
        weight: str | float | None = None,
        classes: Sequence[str] | None = None,
        layout: str = "vector",
        scale: str | Mapping[str, Any] = "standard",
        missing: Sequence[float] = (),
        pad: float = 0.0,
        fraction: float = 1.0,
        on_bad_file: str = "error",
        split: Mapping[str, Any] | None = None,
        mix: str | Mapping[str, float] = "sample",
        batch_size: int = 1024,
        chunk_size: int = 100_000,
        open_blocks: int | None = None,
        max_memory: int | None = None,
        partitions: int = 4,
        shuffle: bool = True,
        seed: int = 42,
        specs: Specs | str | Path | None = None,
        num_workers: int = 0,
        prefetch: int = 2,
        patience: float = 120.0,
        deadline: float = 60.0,
        cache: str | Mapping[str, Any] | None = None,
        scheduler: str | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        index: bool = False,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        data = {
            "samples": samples, "flat": flat, "jagged": jagged, "derived": derived, "cut": cut, "label": label,
            "weight": weight, "classes": classes, "layout": layout, "scale": scale, "missing": missing, "pad": pad,
            "fraction": fraction, "on_bad_file": on_bad_file,
            "split": split or {"train": 0.64, "val": 0.16, "test": 0.2},
        }  # fmt: skip
        order = {
            "mix": mix, "batch_size": batch_size, "chunk_size": chunk_size, "open_blocks": open_blocks,
            "shuffle": shuffle, "seed": seed, "drop_last": drop_last, "partitions": partitions,
            "max_memory": max_memory,
        }  # fmt: skip
        self.data = parse_data(data)
        self.order = parse_order(order, samples=[s.name for s in self.data.samples])
        self.batch_size = batch_size  # a tuner may change it
        self.read = parse_read(
            {
                "num_workers": num_workers,
                "prefetch": prefetch,
                "patience": patience,
                "deadline": deadline,
                "cache": cache,
            }
        )
        self._options = {**data, **order}
        self._store = open_store(self.read.cache)
        self._given = specs
        self._specs: Specs | None = None
        self._index, self._pin, self._scheduler = index, pin_memory, scheduler
        self._prepare = prepare
        self._progress = Progress()
        self._loaders: weakref.WeakSet[Loader] = weakref.WeakSet()
        self._trainers: weakref.WeakSet[Any] = weakref.WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: options, specs and the place; neither trainers nor what goes on."""
        gone = ("trainer", "_loaders", "_trainers", *(["_prepare"] if self._specs is not None else []))
        return {name: value for name, value in self.__dict__.items() if name not in gone}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update({"trainer": None, "_prepare": None, **state})
        self._progress = copy.copy(self._progress)  # a copy goes its own way
        self._loaders, self._trainers = weakref.WeakSet(), weakref.WeakSet()

    def __repr__(self) -> str:
        """Return one line, and look at no file for it."""
        known = "not scanned yet"
        if self._specs is not None:
            known = ", ".join(f"{self._specs.num_events(part):,} {part}" for part in PARTS) + " events"
        names = ", ".join(self.sample_names)
        return f"{type(self).__name__}({names}: {known}; layout {self.data.layout}, batches of {self.batch_size})"

    __str__ = __repr__

    # What a network needs to know of the data

    @property
    def specs(self) -> Specs:
        """What the first pass learnt; the files are made and it runs now if it has not."""
        if self._specs is None:
            if self._prepare is not None:
                self._prepare()
            self._specs = specs_for(
                self.data, given=self._given, read=self.read, store=self._store, scheduler=self._scheduler
            )
        return self._specs

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which event is the n-th of an epoch, and what of it is seen; as primitives."""
        return identity_of(self.data, dataclasses.replace(self.order, batch_size=self.batch_size), self.specs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor of a batch."""
        return layout_of(self.data, self.specs).shapes

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of every column of the vector layout; in the tokens layout objects have the same names."""
        return layout_of(self.data, self.specs).feature_names

    @property
    def classes(self) -> list[str]:
        """Names of the classes, class 0 first."""
        return list(self.data.classes)

    @property
    def mean_weight(self) -> float:
        """Mean size of the weights of the training events, as often as ``mix`` takes each: what a loss is divided by.

        Examples
        --------
        A batch's loss is ``(weight * loss).mean() / data.mean_weight``: its mean over an epoch is the weighted mean,
        whatever the batch size. A batch's own weights in its place would let heavy events count less.
        """
        return self.specs.mean_weight("train", shares_of(self.data, self.specs, self.order))

    @property
    def sample_names(self) -> list[str]:
        """Names of the samples, in the order of their numbers in ``index``."""
        return [s.name for s in self.data.samples]

    def summary(self) -> RenderableType:
        """Return a table for people: samples, files, events before and after cuts, features, lengths, truncation."""
        return summarize(self.data, self.specs)

    # What Lightning calls

    def prepare_data(self) -> None:
        """Make the files where that was asked for, and run the first pass, on one process of a node."""
        _ = self.specs

    @classmethod
    def load_from_checkpoint(cls, *arguments: Any, **options: Any) -> Self:
        """Make a data module with the options in a checkpoint; its place is for ``fit(ckpt_path=...)`` alone."""
        module: Self = super().load_from_checkpoint(*arguments, **options)
        module._progress = Progress()
        return module

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - every stage needs the same
        """Load the specs, fit the scaling and look at the mixture: what can't be trained on is refused here.

        A trainer of several ranks gets an :class:`~rootdata.stopping.EndOnSignal` where it has none: Lightning hangs
        when one of them is stopped.

        Raises
        ------
        DataError
            For a feature that is constant or missing everywhere.
        ConfigError
            For a fit within another trainer's run, or where ``mix`` leaves a class without events.
        """
        transforms_of(self.data, self.specs)
        shares_of(self.data, self.specs, self.order)
        if self.trainer is not None:
            self._trainers.add(self.trainer)
            end_together(self.trainer)
        if self._fitting() is not None:
            if self._around() is not None:
                raise ConfigError(
                    "fit: got a data module in the midst of another run; give each trainer its own, or a copy.deepcopy"
                )
            self._progress.end()

    def train_dataloader(self) -> Loader:
        """Return the training batches: in a fit those that are left, otherwise epoch after epoch from the first one.

        Raises
        ------
        ResumeError
            Where the checkpoint that the fit goes on from was made with other events, or another order of them.
        DataError
            For a fit, where all events weigh nothing.
        """
        trainer, events = self._fitting(), self._dataset("train")
        if trainer is None:
            return self._kept(Loader(events))
        check_weights(self)
        self._progress.check(trainer, events.identity)
        if trainer.world_size > 1:
            rank_zero_info(_reading_of(events, self.order, trainer.world_size))
        return self._kept(TrainLoader(events, trainer, self._progress))

    def val_dataloader(self) -> Loader | list[Any]:
        """Return the validation batches; an empty list where the split has none."""
        return self._loader("val") if self.specs.num_events("val") else []

    def test_dataloader(self) -> Loader | list[Any]:
        """Return the test batches."""
        return self._loader("test") if self.specs.num_events("test") else []

    def predict_dataloader(self) -> Loader:
        """Return the batches of the test part, or of all events where there is none, in file order, evenly mixed."""
        return self._loader("test" if self.specs.num_events("test") else "train", ordered=True)

    def _loader(self, part: str, *, ordered: bool = False) -> Loader:
        return self._kept(Loader(self._dataset(part, ordered=ordered), self._running()))

    def _kept(self, loader: Loader) -> Loader:
        self._loaders.add(loader)
        return loader

    # Where the training stands

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the training events, and which events they are, for the checkpoint."""
        return self._progress.state(self.trainer)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let a training go on where the checkpoint was made: the fit that loads it, or, loaded by hand, the next one.

        A trainer that validates, tests or predicts with a checkpoint wants its weights alone, and changes nothing here.

        Raises
        ------
        ResumeError
            For a place of another version; of other events, when the training begins.
        """
        if self._running() is None or self._fitting() is not None:
            self._progress.load(state_dict, self._fitting())

    def _running(self) -> Any:
        """Return the trainer, if it is at work."""
        return self.trainer if self.trainer is not None and _is_running(self.trainer) else None

    def _fitting(self) -> Any:
        trainer = self._running()
        return trainer if trainer is not None and trainer.state.fn == "fit" else None

    def _around(self) -> Any:
        """Return the trainer in a hook of which another one took this data module, if there is one."""
        return next((t for t in self._trainers if t is not self.trainer and _is_running(t)), None)

    # Where it ends

    def on_exception(self, exception: BaseException) -> None:  # noqa: ARG002
        """End what reads ahead, when a run is broken off."""
        self._close(lambda loader: loader.is_over())

    def teardown(self, stage: str | None = None) -> None:
        """End what reads ahead for the run that ends; all of it, without a stage."""
        self._close(lambda loader: stage is None or loader.stage == stage or loader.is_over())

    def _close(self, is_done: Callable[[Loader], bool]) -> None:
        for loader in filter(is_done, list(self._loaders)):
            loader.close()
        around = self._around()
        if around is not None:  # which goes on, and asks for more
            self.trainer = around

    def _dataset(self, part: str, *, ordered: bool = False) -> RootDataset:
        trainer = self.trainer
        world_size, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        if self.batch_size % world_size or self.batch_size < world_size:
            raise ConfigError(
                f"batch_size {self.batch_size} is global and can't be divided by {world_size} ranks; choose a multiple"
            )
        return RootDataset(
            {**self._options, "batch_size": self.batch_size},
            part,
            specs=self.specs,
            index=self._index or ordered or part == "test",
            prefetch=self.read.prefetch,
            num_workers=self.read.num_workers,
            patience=self.read.patience,
            deadline=self.read.deadline,
            cache=self._store,
            pin_memory=self._pin,
            rank=rank,
            world_size=world_size,
            ordered=ordered,
            progress=True,
        )


def _is_running(trainer: Any) -> bool:
    return bool(trainer.state.status == "running")


def _reading_of(dataset: RootDataset, order: OrderConfig, world_size: int) -> str:
    """Say how much more than their share ranks read."""
    times = f"rootdata: {world_size} ranks read the training events {dataset.read_amplification():.2f} times in all"
    if not order.shuffle or order.partitions % world_size == 0:
        return times
    return f"{times}; with partitions={world_size} each would read its share alone"
