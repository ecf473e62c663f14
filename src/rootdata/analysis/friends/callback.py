"""A Lightning callback: what a test or a prediction gives becomes friend trees of the files it read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch

from rootdata import disk
from rootdata.analysis.friends import tree as friend
from rootdata.analysis.friends.columns import ENTRY, SELECTED, check_names, score_names, weight_name
from rootdata.analysis.friends.names import outputs_of, place_of
from rootdata.analysis.friends.rows import KeptRows
from rootdata.errors import ConfigError
from rootdata.io.files import identity
from rootdata.location import Location
from rootdata.options import values
from rootdata.options.data import OBSERVED, VARIED, DataConfig


class FriendWriter(pl.Callback):
    """Write a file ``NAME_Friend.root`` for each file of events, aligned with it entry by entry, in bounded memory.

    Each rank writes down the rows that it has; the first one puts them into the order of the files at the end. Entries
    that no batch held have ``selected`` false, the fill value as score or prediction, and weight 0; in other columns -1
    where they hold whole numbers, NaN where not.

    Parameters
    ----------
    folder : of the files
    name, kind : of the tree in them, as :func:`rootdata.analysis.friends.predict.predict` takes them
    fill : stands for the scores and predictions of other events
    force : overwrite what other models left in the folder
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str = friend.TREE,
        kind: str = "TTree",
        fill: float = -1.0,
        force: bool = False,
    ) -> None:
        self.folder, self.name = friend.checked_folder(folder, "folder"), friend.checked_name(name)
        self.force = values.flag(force, "force")
        self.kind, self.fill = values.choice(kind, friend.KINDS, "kind"), friend.checked_fill(fill)
        self.paths: tuple[Path, ...] = ()
        self._held = ExitStack()
        self._rows: KeptRows | None = None
        self._files: Sequence[Any] = ()
        self._outputs: Sequence[Path] = ()
        self._origin: dict[str, Any] = {}
        self._data: Any = None
        self._predicted: frozenset[str] = frozenset()  # columns of regressions

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._data = getattr(trainer, "datamodule", None)
        if not hasattr(self._data, "specs"):
            raise ConfigError(
                "FriendWriter: the trainer has no RootDataModule, which knows the files; give it datamodule=..."
            )
        targets = getattr(pl_module, "targets", ())
        self._predicted = frozenset(score_names(targets, targets))
        self._files = self._data.specs.files
        self._outputs = _outputs(self._files, self.folder)
        self._origin = {"model": type(pl_module).__name__, "checksum": _checksum(pl_module)}
        self._origin |= {"options": {"fill": self.fill, "tree": self.name, "kind": self.kind}}
        for path in self._outputs if not self.force else ():
            if os.path.exists(path):  # noqa: PTH110 - never raises: what can't be there is told below
                friend.refuse_another(path, friend.origin_of(path), self._origin["checksum"])
        self._held = ExitStack()
        made = self.folder
        if trainer.is_global_zero:
            with friend.telling(self.folder):
                made = self._held.enter_context(disk.making(self.folder / "rows"))
        spool = trainer.strategy.broadcast(made)
        numbers = [self._outputs.index(output) for output in _outputs_of_files(self._files, self.folder)]
        self._rows = KeptRows(spool, rank=trainer.global_rank, numbers=numbers, samples=self._data.specs.samples)

    def _keep(self, pl_module: pl.LightningModule, outputs: Any, batch: Mapping[str, Any]) -> None:
        if self._rows is None:
            return
        if "index" not in batch:
            raise ConfigError(
                "FriendWriter: the batches hold no index, which says whose scores they are; set index=True"
            )
        found = outputs if isinstance(outputs, Mapping) else {"score": outputs}
        columns = _columns(found, batch, classes=self._data.classes, targets=getattr(pl_module, "targets", ()))
        self._rows.add(_plain(batch["index"]), columns)

    def _end(self, trainer: pl.Trainer) -> None:
        if self._rows is None:
            return
        rows, self._rows = self._rows, None
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            written = []
            for number, output in enumerate(self._outputs):
                file = next(f for f, n in zip(self._files, rows.numbers, strict=True) if n == number)
                self._write(rows, number, file, output)
                written.append(output)
            self.paths = tuple(written)
        trainer.strategy.barrier()
        self._held.close()

    def _write(self, rows: KeptRows, number: int, file: Any, output: Path) -> None:
        types = rows.types()
        fills = {name: self._fill_of(name, dtype) for name, dtype in types.items()}
        told = {"file": place_of(file.location), "tree": file.tree, "uuid": file.uuid, "entries": file.entries}
        origin = {
            **self._origin,
            **told,
            "friends": [],
            "state": {"size": file.state.size, "version": file.state.version},
        }
        all_types = {ENTRY: np.dtype(np.int64), SELECTED: np.dtype(bool), **types}
        with friend.writing(output, all_types, origin=origin, tree=self.name, kind=self.kind) as writer:
            for start, columns in rows.in_order(number, file.entries, fills, place=told["file"]):
                count = len(columns[SELECTED])
                writer.write({ENTRY: np.arange(start, start + count), **columns})

    def _fill_of(self, name: str, dtype: np.dtype[Any]) -> Any:
        """Return what stands in a column for an event that no batch held."""
        if name.startswith("score_") or name in self._predicted:
            return self.fill
        if name == "weight" or name.startswith("weight_"):
            return 0.0
        return {"f": np.nan, "b": False}.get(dtype.kind, -1)

    # Lightning's hooks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Refuse two columns of one name before anything is trained.

        Parameters
        ----------
        trainer, pl_module : as Lightning gives them
        stage : not used: the files of every stage have the same columns
        """
        config = getattr(getattr(trainer, "datamodule", None), "data", None)
        if isinstance(config, DataConfig):
            check_names(_names(config, targets=getattr(pl_module, "targets", ())))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether the files can be written."""
        self._begin(trainer, pl_module)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether the files can be written."""
        self._begin(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Write down what a batch gave.

        Parameters
        ----------
        trainer, pl_module : which know the names of classes and targets
        outputs : what ``test_step`` returned: ``score`` and ``predictions`` by name, or the scores alone
        batch : with ``index``
        batch_idx, dataloader_idx : not used
        """
        self._keep(pl_module, outputs, batch)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Write down what a batch gave; see :meth:`on_test_batch_end`.

        Parameters
        ----------
        trainer, pl_module, outputs, batch, batch_idx, dataloader_idx : as there
        """
        self._keep(pl_module, outputs, batch)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write the files."""
        self._end(trainer)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Write the files."""
        self._end(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Remove what was written down.

        Parameters
        ----------
        trainer, pl_module, exception : not used: whatever ended the run
        """
        self._rows = None
        self._held.close()


def _outputs_of_files(files: Sequence[Any], folder: Path) -> list[Path]:
    """Say where the scores of each file go; one that two samples share has one place."""
    places: dict[Location, None] = dict.fromkeys(identity(file.location) for file in files)
    outputs = dict(zip(places, outputs_of(list(places), folder), strict=True))
    return [outputs[identity(file.location)] for file in files]


def _outputs(files: Sequence[Any], folder: Path) -> list[Path]:
    return list(dict.fromkeys(_outputs_of_files(files, folder)))


def _checksum(network: torch.nn.Module) -> str:
    """Hash the weights of a network."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            found.update(_plain(tensor).tobytes())
    return found.hexdigest()


def _plain(tensor: torch.Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor).numpy()
    return array


def _names(config: DataConfig, *, targets: Sequence[str]) -> list[str]:
    """List the columns that there will be."""
    scored = config.classes if len(config.classes) > 2 else config.classes[1:2]
    names = [ENTRY, SELECTED, *score_names([*scored, *targets], targets), "label", "weight"]
    names += [friend.plain_name(observer.name) for observer in config.observers]
    return names + [weight_name(name) for name in config.variations]


def _columns(
    found: Mapping[str, Any], batch: Mapping[str, Any], *, classes: Sequence[str], targets: Sequence[str]
) -> dict[str, npt.NDArray[Any]]:
    """Name what a batch gave, an array (n,) for each column."""
    made: dict[str, npt.NDArray[Any]] = {}
    if found.get("score") is not None:
        score = _plain(found["score"]).astype(np.float32).reshape(len(batch["index"]), -1)
        names = classes if score.shape[1] == len(classes) else classes[1:2]
        made |= dict(zip(score_names(_numbered(names, score.shape[1]), ()), score.T, strict=True))
    if found.get("predictions") is not None:
        predicted = _plain(found["predictions"]).astype(np.float32).reshape(len(batch["index"]), -1)
        made |= dict(zip(score_names(targets, targets), predicted.T, strict=True))
    for key in ("label", "weight"):
        if key in batch:
            made[key] = _plain(batch[key])
    for key, tensor in batch.items():
        if key.startswith(OBSERVED):
            made[friend.plain_name(key.removeprefix(OBSERVED))] = _plain(tensor)
        elif key.startswith(VARIED):
            made[weight_name(key.removeprefix(VARIED))] = _plain(tensor)
    return made


def _numbered(names: Sequence[str], width: int) -> list[str]:
    """Complete names by numbers."""
    return [*names[:width], *(str(number) for number in range(len(names), width))]
