"""Events as a network gives them back, beside the original ones, as branches of a ROOT file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import awkward as ak
import numpy as np
import pytorch_lightning as pl
import torch
import uproot

from rootdata import disk
from rootdata.analysis.friends.tree import plain_name
from rootdata.errors import ConfigError, FileError, ShapeError
from rootdata.layouts.layout import Layout, kept_fraction
from rootdata.loading.datamodule import RootDataModule

DECODED = "_decoded"  # what the names of decoded branches end in
INDEX = ("sample", "file", "entry")  # of an event: what it was, in which file, at which entry
INPUTS = "inputs"  # text in the file: names of the samples and paths of the files, by number
AT_ONCE = 10_000  # events that are held in memory until they are written
COMPRESSION_LEVEL = 1


class DecodedFile:
    """A ROOT file of events and of what a network makes of them; it takes its name once it is whole.

    Its tree has a branch for every feature, ``Jet_pt``, beside it ``Jet_pt_decoded`` with as many objects in every
    event, the numbers of these, ``n_<collection>``, and ``sample``, ``file`` and ``entry``, by which an event is found
    again; the text ``inputs`` says which samples and files they are. The title of the tree says what was left out.

    Parameters
    ----------
    path : of the file; replaced as a whole
    data : that the batches come from
    tree : name of the tree

    Raises
    ------
    ConfigError
        For a layout of which objects don't come back one by one, or features whose branches would have one name.
    """

    def __init__(self, path: str | Path, data: RootDataModule, *, tree: str = "Events") -> None:
        self.path, self.num_events = Path(path), 0
        self._data, self._tree = data, tree
        self._layout = data.scanned.layout
        _check(self._layout)
        self._names = branch_names(self._layout)
        self._title = " ".join(truncation(data))
        self._waiting: list[dict[str, Any]] = []
        self._n_waiting = 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Begin the file, beside its place."""
        try:
            with ExitStack() as held:
                draft = held.enter_context(disk.writing(self.path))
                # uproot closes what it is given
                own = os.fdopen(os.dup(draft.fileno()), "r+b")
                self._file: Any = held.enter_context(uproot.recreate(own, compression=uproot.ZLIB(COMPRESSION_LEVEL)))
                self._file.mktree(
                    self._tree, self._types(), title=self._title, counter_name=_counter, field_name=_field_name
                )
                self._file[INPUTS] = json.dumps(
                    {
                        "samples": self._data.sample_names,
                        "files": [f"{file.path}:{file.tree}" for file in self._data.specs.files],
                    }
                )
                self._open = held.pop_all()
        except OSError as error:
            raise FileError(f"{self.path} can't be written ({error}); choose another place") from error
        return self

    def __exit__(self, *error: object) -> None:
        """Write what is left, and put the file into its place; after an error there is none."""
        try:
            if error[0] is None:
                self._flush()
        except BaseException as failure:
            self._open.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._open.__exit__(*error)  # type: ignore[arg-type]

    def add(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> None:
        """Add the events of a batch, and what a network made of them.

        Parameters
        ----------
        batch : with its ``index``
        output : tensors of the same names and shapes; masks and offsets are those of the batch, whatever there is here

        Raises
        ------
        ConfigError
            For a batch without ``index``.
        ShapeError
            Where a tensor is absent or has another shape.
        """
        if "index" not in batch:
            raise ConfigError("decoded events: the batches have no 'index'; read them with index=True, or in test")
        places = {name: values for name, values in batch.items() if name.endswith(("mask", "_offsets"))}
        original, decoded = self._data.decode(batch), self._data.decode({**output, **places})
        if len(original) != len(decoded):
            raise ShapeError(f"decoded events: got {len(decoded)} events for a batch of {len(original)}")
        index = np.asarray(batch["index"].cpu()) if isinstance(batch["index"], torch.Tensor) else batch["index"]
        made: dict[str, Any] = {name: index[:, i] for i, name in enumerate(INDEX)}
        for name in self._layout.flat:
            made |= {self._names[name]: original[name], self._names[name] + DECODED: decoded[name]}
        for c in self._layout.collections:
            fields = {self._names[b]: original[c.name][b] for b in c.branches}
            fields |= {self._names[b] + DECODED: decoded[c.name][b] for b in c.branches}
            made[c.name] = ak.zip(fields)
        self._waiting.append(made)
        self._n_waiting += len(index)
        if self._n_waiting >= AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = {name: ak.concatenate([part[name] for part in self._waiting]) for name in self._waiting[0]}
        self._file[self._tree].extend(columns)
        self.num_events += self._n_waiting
        self._waiting, self._n_waiting = [], 0

    def _types(self) -> dict[str, Any]:
        """Say what each branch holds, which is known before there is any event."""
        types: dict[str, Any] = dict.fromkeys(INDEX, np.dtype(np.int64))
        for name in self._layout.flat:
            types |= {self._names[name] + end: np.dtype(np.float64) for end in ("", DECODED)}
        for c in self._layout.collections:
            fields = [f'"{self._names[b]}{end}": float64' for end in ("", DECODED) for b in c.branches]
            types[c.name] = f"var * {{{', '.join(fields)}}}"
        return types

    @property
    def told(self) -> str:
        """One line on what is in the file, and what was left out."""
        return f"{self.path}: {self.num_events:,} events, each beside what it was decoded to. {self._title}".rstrip()


def write_decoded(
    path: str | Path, data: RootDataModule, pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> Path:
    """Write events beside what a network makes of them; see :class:`DecodedFile`.

    Parameters
    ----------
    path : of the file; replaced as a whole
    data : that the batches come from
    pairs : batches, with their ``index``, each with what was made of it: tensors of the same names and shapes

    Returns
    -------
    the path

    Examples
    --------
    >>> def pairs(network, data):
    ...     for batch in data.predict_dataloader():
    ...         yield batch, network.reconstruct(batch)
    """
    with DecodedFile(path, data) as file:
        for batch, output in pairs:
            file.add(batch, output)
    print(file.told)
    return file.path


class DecodedWriter(pl.Callback):
    """Write the events of a test, or of a prediction, beside what the network's ``reconstruct`` makes of them.

    With several ranks each writes a file of its own, ``decoded_rank0.root`` and so on.

    Parameters
    ----------
    path : of the file, see :class:`DecodedFile`
    tree : name of the tree
    """

    def __init__(self, path: str | Path, *, tree: str = "Events") -> None:
        super().__init__()
        self.path, self.tree = Path(path), tree
        self._file: DecodedFile | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Refuse a network that gives no events back, and a layout that can't be decoded, before anything is run.

        Raises
        ------
        ConfigError
        """
        if not hasattr(pl_module, "reconstruct"):
            raise ConfigError(
                f"DecodedWriter: {type(pl_module).__name__} has no method reconstruct(batch), which gives it back; "
                "take model=autoencoder, or leave the callback out"
            )
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, RootDataModule):
            raise ConfigError(
                "DecodedWriter: the trainer has no RootDataModule, which knows how to decode; give it one"
            )
        _check(data.scanned.layout)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Begin the file."""
        self._begin(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Begin the file."""
        self._begin(trainer)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:  # fmt: skip
        """Add a batch.

        Parameters
        ----------
        trainer, outputs, batch_idx, dataloader_idx : not used
        pl_module : gives the batch back
        batch : as the data module made it
        """
        del trainer, outputs, batch_idx, dataloader_idx
        if self._file is not None:
            with torch.no_grad():
                self._file.add(batch, pl_module.reconstruct(batch))

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Put the file into its place, and say so."""
        self._end()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Put the file into its place, and say so."""
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Leave nothing behind of a run that is broken off."""
        file, self._file = self._file, None
        if file is not None:
            file.__exit__(type(exception), exception, exception.__traceback__)

    def _begin(self, trainer: Any) -> None:
        path = self.path
        if trainer.world_size > 1:
            path = path.with_stem(f"{path.stem}_rank{trainer.global_rank}")
        self._file = DecodedFile(path, trainer.datamodule, tree=self.tree).__enter__()

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.__exit__(None, None, None)
            print(file.told)


def truncation(data: RootDataModule) -> Iterator[str]:
    """Say of every collection which objects are left out, and how many of those of the training events that are."""
    for c in data.scanned.layout.collections:
        if c.keeps_all:
            continue
        dropped = 1.0 - kept_fraction(data.specs.multiplicity[c.name], c.length)
        yield (
            f"{c.name}: objects after the first {c.length} of an event are left out ({dropped:.3%} of those of the "
            "training events)."
        )


def branch_names(layout: Layout) -> dict[str, str]:
    """Name the branch of every feature: ``cov[0]`` becomes ``cov_0``, and what is no letter or digit ``_``.

    Raises
    ------
    ConfigError
        Where two of them would have one name.
    """
    features = (*layout.flat, *(b for c in layout.collections for b in c.branches))
    names = {feature: plain_name(feature) for feature in features}
    owners = {
        name: f"{name!r} of the file itself" for name in (*INDEX, *(_counter(c.name) for c in layout.collections))
    }
    for feature in features:
        for name in (names[feature], names[feature] + DECODED):
            if name in owners:
                raise ConfigError(
                    f"decoded events: the branch of feature {feature!r} would be called {name!r}, as that of "
                    f"{owners[name]}; give the feature another name under `derived`"
                )
            owners[name] = repr(feature)
    return names


def _check(layout: Layout) -> None:
    """Refuse what does not come back object by object."""
    drawn = next((c.name for c in layout.collections if c.grid is not None), None)
    if drawn is not None:
        raise ConfigError(
            f"decoded events: collection {drawn!r} is drawn into an image, of which a filled cell comes back and no "
            "object; take layout 'vector' or 'tokens'"
        )


def _counter(collection: str) -> str:
    return f"n_{collection}"


def _field_name(outer: str, inner: str) -> str:
    return inner or outer
