"""``RootDataModule``: ROOT files for a Lightning trainer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning

from rootdata.config import parse_data, parse_order
from rootdata.dataset import Batch, RootDataset
from rootdata.errors import ConfigError
from rootdata.scan import specs_for
from rootdata.specs import Specs, layout_of, transforms_of
from rootdata.summary import summarize

if TYPE_CHECKING:
    from rich.console import RenderableType

_Base: Any = pytorch_lightning.LightningDataModule
if importlib.util.find_spec("lightning") is not None and not TYPE_CHECKING:
    # The two distributions of Lightning do not know each other's classes; a child of both works in both trainers.
    import lightning

    _Base = type("_Base", (pytorch_lightning.LightningDataModule, lightning.LightningDataModule), {})


class Loader:
    """The batches of one part for one rank: an iterable with a length, which a trainer takes as it is."""

    def __init__(self, events: RootDataset, *, frozen: bool = False) -> None:
        self.events = events
        self._frozen = frozen

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Batch]:
        if self._frozen:
            return self.events.batches(0)
        return iter(self.events)


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
    samples : name to ``{"files": ..., "tree": ..., "label": ..., "cut": ..., "weight": ...}``; files are paths, globs,
        folders, ``path:tree``, text files of those, or a list of them
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
    split : shares ``{"train": 0.64, "val": 0.16, "test": 0.2}``, by a hash of file and entry, or with
        ``"by": "entries"`` by ranges of every file; values of an expression,
        ``{"by": "event % 5", "val": [3], "test": [4]}``; or patterns of files, ``{"train": ["*_A.root"], "val": ...}``
    mix : ``sample`` or ``file`` (proportional), or a weight for each sample
    batch_size : global, divided by the number of ranks
    chunk_size : events mixed at a time
    open_blocks : blocks of a sample open at a time; by default as many as hold two chunks over all samples
    shuffle : whether training events are shuffled
    seed : of the order
    specs : what a first pass learnt, or its file; by default looked up in the cache folder, or learnt now
    num_workers : reading processes; 0 reads in threads of this process, which is faster where decoding is cheap
    prefetch : slabs of batches (about 8 MB each) made ahead of time
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
        split: Mapping[str, Any] | None = None,
        mix: str | Mapping[str, float] = "sample",
        batch_size: int = 1024,
        chunk_size: int = 100_000,
        open_blocks: int | None = None,
        shuffle: bool = True,
        seed: int = 42,
        specs: Specs | str | Path | None = None,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        drop_last: bool = False,
        index: bool = False,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        data = {
            "samples": samples, "flat": flat, "jagged": jagged, "derived": derived, "cut": cut, "label": label,
            "weight": weight, "classes": classes, "layout": layout, "scale": scale, "missing": missing, "pad": pad,
            "fraction": fraction, "split": split or {"train": 0.64, "val": 0.16, "test": 0.2},
        }  # fmt: skip
        order = {
            "mix": mix, "batch_size": batch_size, "chunk_size": chunk_size, "open_blocks": open_blocks,
            "shuffle": shuffle, "seed": seed, "drop_last": drop_last,
        }  # fmt: skip
        self.data = parse_data(data)
        self.order = parse_order(order, samples=[s.name for s in self.data.samples])
        self.batch_size = batch_size  # a tuner may change it
        self._options = {**data, **order}
        self._given = specs
        self._specs: Specs | None = None
        self._index, self._prefetch = index, prefetch
        self._processes, self._pin = num_workers, pin_memory
        self._prepare = prepare
        self._loaders: dict[str, Loader] = {}
        self._resumed = 0

    # What a network needs to know of the data

    @property
    def specs(self) -> Specs:
        """What the first pass learnt; the files are made and it runs now if it has not."""
        if self._specs is None:
            if self._prepare is not None:
                self._prepare()
            self._specs = specs_for(self.data, given=self._given)
        return self._specs

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

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - every stage needs the same
        """Load the specs and fit the scaling, so that what can't be trained on is refused here.

        Raises
        ------
        DataError
            For a feature that is constant or missing everywhere.
        """
        transforms_of(self.data, self.specs)

    def train_dataloader(self) -> Loader:
        """Return the training batches."""
        return self._loader("train")

    def val_dataloader(self) -> Loader | list[Any]:
        """Return the validation batches; an empty list where the split has none."""
        return self._loader("val") if self.specs.num_events("val") else []

    def test_dataloader(self) -> Loader | list[Any]:
        """Return the test batches."""
        return self._loader("test") if self.specs.num_events("test") else []

    def predict_dataloader(self) -> Loader:
        """Return the batches of the test part, or of all events where there is none, in file order, evenly mixed."""
        if self.specs.num_events("test"):
            return self._loader("test")
        return Loader(self._dataset("train", ordered=True))

    def _loader(self, part: str) -> Loader:
        trainer = self.trainer
        overfits = trainer is not None and bool(trainer.overfit_batches)
        dataset = self._dataset(part)
        dataset.epoch = self._epoch_of(part)
        self._loaders[part] = Loader(dataset, frozen=overfits and part == "train")
        return self._loaders[part]

    def _epoch_of(self, part: str) -> int:
        known = self._loaders.get(part)
        return known.events.epoch if known else self._resumed if part == "train" else 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of training epochs that were begun, for the checkpoint."""
        return {"epoch": self._epoch_of("train")}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Let the next training epoch be shuffled as the one after the checkpoint's."""
        self._resumed = int(state_dict["epoch"])
        self._loaders.pop("train", None)

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
            prefetch=self._prefetch,
            num_workers=self._processes,
            pin_memory=self._pin,
            rank=rank,
            world_size=world_size,
            ordered=ordered,
            progress=True,
        )
