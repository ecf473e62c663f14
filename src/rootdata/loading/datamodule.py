"""``RootDataModule``: ROOT files for a Lightning trainer."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import inspect
import itertools
import textwrap
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytorch_lightning
import torch
from pytorch_lightning.utilities import rank_zero_info

from rootdata.cache.blocks import open_store
from rootdata.errors import ConfigError
from rootdata.layouts.inverse import to_awkward
from rootdata.loading.dataset import Batch, RootDataset
from rootdata.loading.part import Part
from rootdata.loading.position import identity_of
from rootdata.loading.progress import Progress
from rootdata.loading.stream import shares_of
from rootdata.loading.trainable import check_padding, check_weights
from rootdata.options import values
from rootdata.options.data import DataConfig
from rootdata.options.order import OrderConfig
from rootdata.options.parsed import Options, explained, parameters
from rootdata.options.parts import PARTS
from rootdata.scan.executors import Executor
from rootdata.scan.lookup import scan_for
from rootdata.scan.scanned import Scanned
from rootdata.scan.specs import Specs
from rootdata.scan.summary import summarize
from rootdata.scan.taken import with_taken_scale
from rootdata.shutdown.ranks import end_together

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.console import RenderableType

    from rootdata.scaling.transform import Transform

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
    """The training batches of a fit, from where the data module stands.

    Parameters
    ----------
    events : the training part, for this rank
    trainer : that fits; None where the loader is used without one
    progress : of the data module: says with which batch to begin, and counts those that are given
    """

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
    (batch, length, features) and ``<name>_mask`` (batch, length). Layout ``image``: for every collection ``<name>``
    (batch, channels, rows, columns). Always ``label`` (batch,) int64 (-1 without labels)
    and ``weight`` (batch,) float32; in test, in predict and with ``index=True`` also ``index`` (batch, 3) int64:
    sample, file, entry.

    Plain dicts and lists are accepted everywhere, as a YAML file gives them.

    Parameters
    ----------
    options : {options}
    specs : what a first pass learnt, or its file; by default looked up in the cache folder, or learnt now
    scheduler : address of a dask scheduler, or an executor, over which the first pass is spread
    pin_memory : page-locked batches, for asynchronous copies to a GPU
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
        specs: Specs | str | Path | None = None,
        scheduler: str | Executor | None = None,
        pin_memory: bool = False,
        index: bool = False,
        prepare: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        plain = with_taken_scale({"samples": samples, **options})
        self._options = Options.parse(plain, where="the options of RootDataModule")
        self.batch_size = self._options.order.batch_size  # a tuner may change it
        self._store = open_store(self._options.read.cache)
        self._given = specs
        self._scanned: Scanned | None = None
        self._index, self._pin, self._scheduler = index, pin_memory, scheduler
        self._prepare = prepare
        self._progress = Progress()
        self._loaders: weakref.WeakSet[Loader] = weakref.WeakSet()
        self._trainers: weakref.WeakSet[Any] = weakref.WeakSet()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: options, specs and the place; neither trainers nor what goes on."""
        gone = ("trainer", "_loaders", "_trainers", *(["_prepare", "_scheduler"] if self._scanned is not None else []))
        return {name: value for name, value in self.__dict__.items() if name not in gone}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update({"trainer": None, "_prepare": None, "_scheduler": None, **state})
        self._progress = copy.copy(self._progress)  # a copy goes its own way
        self._loaders, self._trainers = weakref.WeakSet(), weakref.WeakSet()

    def __repr__(self) -> str:
        """Return one line, and look at no file for it."""
        known = "not scanned yet"
        if self._scanned is not None:
            known = ", ".join(f"{self.specs.num_events(part):,} {part}" for part in PARTS) + " events"
        names = ", ".join(self.sample_names)
        return f"{type(self).__name__}({names}: {known}; layout {self.data.layout}, batches of {self.batch_size})"

    __str__ = __repr__

    # What a network needs to know of the data

    @property
    def options(self) -> Options:
        """Every option, parsed and checked."""
        if self.batch_size == self._options.order.batch_size:
            return self._options
        size = values.positive(self.batch_size, "batch_size")
        return dataclasses.replace(self._options, order=dataclasses.replace(self._options.order, batch_size=size))

    @property
    def data(self) -> DataConfig:
        """What an event is."""
        return self._options.data

    @property
    def order(self) -> OrderConfig:
        """In which order events come."""
        return self.options.order

    @property
    def scanned(self) -> Scanned:
        """What is known of the data; the files are made and the first pass runs now if it has not."""
        if self._scanned is None:
            if self._prepare is not None:
                self._prepare()
            self._scanned = scan_for(self._options, given=self._given, store=self._store, scheduler=self._scheduler)
        return self._scanned

    @property
    def specs(self) -> Specs:
        """What the first pass learnt; the files are made and it runs now if it has not."""
        return self.scanned.specs

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which event is the n-th of an epoch, and what of it is seen; as primitives."""
        return identity_of(self.data, self.order, self.specs)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one event in every input tensor of a batch."""
        return self.scanned.layout.shapes

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Name of every column of the vector layout; in the tokens layout objects have the same names."""
        return self.scanned.layout.feature_names

    def edges(self, bins: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return edges of bins that hold as many training values each, in the units of the inputs.

        Parameters
        ----------
        bins : of every feature

        Returns
        -------
        (features, bins + 1) float32, not falling, of ``flat``, of every collection, and of all columns of the vector
        layout as ``x``, where all objects of a collection have the edges of its features

        Raises
        ------
        ConfigError
            Where the first pass kept no quantiles: ``quantiles=True`` asks for them.
        """
        return self.scanned.edges(bins)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, class 0 first."""
        return list(self.data.classes)

    @property
    def targets(self) -> Mapping[str, Transform]:
        """Name of every target to its scaling, in the order of the columns of ``batch["targets"]``."""
        return self.scanned.target_transforms

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

    def decode(self, batch: Mapping[str, Any]) -> Any:
        """Turn a batch, or a network's output of the same tensors, into awkward records in physical units.

        Parameters
        ----------
        batch : the input tensors of a batch by name, as torch tensors or arrays; others are passed over

        Returns
        -------
        one record an event: flat features, and a list of records for every collection, see
        :func:`rootdata.layouts.inverse.to_awkward`; its parameter ``__doc__`` says what could not come back

        Raises
        ------
        ShapeError
            For a tensor that is absent or of another shape, or a layout that can't be taken apart.
        """
        wanted = {name: batch[name] for name in self.shapes if name in batch}
        arrays = {n: _as_array(v) if isinstance(v, torch.Tensor) else v for n, v in wanted.items()}
        return to_awkward(self.scanned.layout, arrays, self.scanned.transforms)

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
        """Load the specs, fit scaling and grids and look at the mixture: what can't be trained on is refused here.

        A trainer of several ranks gets an :class:`~rootdata.shutdown.ranks.EndOnSignal` where it has none: Lightning
        hangs when one of them is stopped.

        Raises
        ------
        DataError
            For a feature that is constant or missing everywhere.
        ConfigError
            For a fit within another trainer's run, of a network that would compute with the NaN that is padded with, or
            where ``mix`` leaves a class without events.
        """
        _ = self.scanned.transforms, self.scanned.target_transforms, self.scanned.layout
        shares_of(self.data, self.specs, self.order)
        if self.trainer is not None:
            self._trainers.add(self.trainer)
            end_together(self.trainer)
        if (trainer := self._fitting()) is not None:
            check_padding(self, trainer.lightning_module)
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
        trainer, events = self._fitting(), self.dataset("train")
        if trainer is None:
            return self._kept(Loader(events))
        check_weights(self)
        if hasattr(trainer.lightning_module, "epoch_of"):  # it reads the events by itself
            events = trainer.lightning_module.epoch_of(events)
        self._progress.check(trainer, events.identity)
        _stand_in_epoch(trainer.fit_loop)
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
        part = "test" if self.specs.num_events("test") else "train"
        return self._loader(part, ordered=True, balanced=False)

    def _loader(self, part: str, *, ordered: bool = False, balanced: bool = True) -> Loader:
        return self._kept(Loader(self.dataset(part, ordered=ordered, balanced=balanced), self._running()))

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
        """Return the trainer in one of whose hooks another trainer uses this data module; None without one."""
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

    def dataset(self, part: str, *, ordered: bool = False, balanced: bool = True) -> RootDataset:
        """Return one part as a torch data set, for loops of one's own: for this rank, where there is a trainer.

        Parameters
        ----------
        part : ``train``, ``val`` or ``test``
        ordered : give training events as others: each once, in file order
        balanced : weight training events as in training: balanced and reweighted

        Raises
        ------
        ConfigError, DataError
            For a part without events, or a batch that can't be divided by the ranks.
        """
        trainer = self.trainer
        world_size, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        if self.batch_size % world_size or self.batch_size < world_size:
            raise ConfigError(
                f"batch_size {self.batch_size} is global and can't be divided by {world_size} ranks; choose a multiple"
            )
        events = Part(
            self.scanned, self.options, part, rank=rank, world_size=world_size, ordered=ordered,
            balanced=balanced, store=self._store,
        )  # fmt: skip
        return RootDataset.of(events, index=self._index or ordered or part == "test", pin_memory=self._pin)


def _with_all_options(own: inspect.Signature) -> inspect.Signature:
    """Put every option into the signature in the place of the collected ones."""
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [p for p in parameters() if p.name not in own.parameters]
    return own.replace(parameters=[*kept[:2], *options, *kept[2:]])


# Help, notebooks and Hydra see every option with its default; each is declared once, by its field.
_own = inspect.signature(RootDataModule.__init__)
RootDataModule.__init__.__signature__ = _with_all_options(_own)  # type: ignore[attr-defined]
if RootDataModule.__doc__:
    RootDataModule.__doc__ = RootDataModule.__doc__.replace(
        "    options : {options}\n", textwrap.indent(explained(), "    ") + "\n"
    )


def _as_array(values: torch.Tensor) -> npt.NDArray[Any]:
    """Bring a tensor to numpy; half precision, which numpy may not know, becomes float32."""
    found: npt.NDArray[Any] = (values.float() if values.is_floating_point() else values).detach().cpu().numpy()
    return found


def _stand_in_epoch(fit_loop: Any) -> None:
    """Let a trainer that goes on from where an epoch was left begin the next one, or end that one if it was not whole.

    With ``max_steps`` Lightning takes a whole epoch for one that is under way, and would end it once more: without a
    validation, whose figures others wait for then, and with its first batch as an epoch of its own. One that a limit of
    steps or of time ended early it takes for a whole one, whose other events would count as the next.

    Parameters
    ----------
    fit_loop : of the trainer, with what it took out of the checkpoint
    """
    progress, batches = fit_loop.epoch_progress, fit_loop.epoch_loop.batch_progress
    epochs = progress.current
    if not epochs.ready == epochs.started == epochs.processed:
        return
    if batches.is_last_batch and fit_loop.restarting:
        fit_loop._restarting = fit_loop.epoch_loop.restarting = False  # noqa: SLF001 - its own setter sets it again
    elif not batches.is_last_batch and batches.current.ready and epochs.completed < epochs.processed:
        epochs.processed -= 1
        progress.total.processed -= 1
        fit_loop.restarting = True


def _is_running(trainer: Any) -> bool:
    return bool(trainer.state.status == "running")


def _reading_of(dataset: RootDataset, order: OrderConfig, world_size: int) -> str:
    """Say how much more than their share ranks read."""
    times = f"rootdata: {world_size} ranks read the training events {dataset.read_amplification():.2f} times in all"
    if not order.shuffle or order.partitions % world_size == 0:
        return times
    return f"{times}; with partitions={world_size} each would read its share alone"
