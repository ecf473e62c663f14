"""Events of all folds, each scored by the network that never saw it, in one file, and how good these scores are."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl

from rootdata import disk
from rootdata.errors import ConfigError, DataError
from rootdata.options.data import OBSERVED, TARGETS, VARIED
from rootdata.training.callbacks import TestedEvents
from rootdata.training.pictures import COLOURS, SIGNAL_COLOURS, new_figure
from rootdata.training.scored import contents_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

FOLD_SCORES = "fold_scores.npz"  # in the folder of each fold
OOF_SCORES = "oof_scores.root"
TREE = "scores"
ABOUT = "about"  # key of a file, beside the arrays
CARRIED = (OBSERVED, VARIED)  # what keys of columns that go with the events begin with
CHUNK = 200_000  # events that are written at a time

Arrays = dict[str, npt.NDArray[Any]]


class FoldScores(TestedEvents):
    """Keep the scores of the test events of a fold, with all that goes with them, for the file of all folds.

    Parameters
    ----------
    folder : of the outputs
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.folder = Path(folder)

    def report(self, batches: list[Arrays], trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the events, with the checkpoint that scored them.

        Parameters
        ----------
        batches : of all processes
        trainer : that tested
        pl_module : the network
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        arrays = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        about = {
            "fold": data.data.fold,
            "folds": data.data.folds.count,
            "by": data.data.folds.by,
            "checkpoint": os.path.relpath(trainer.ckpt_path, self.folder) if trainer.ckpt_path else "",
            "classes": data.classes,
            "samples": data.sample_names,
            "files": [file.path for file in data.specs.files],
            "contents": contents_of(data),
            "targets": list(getattr(pl_module, "targets", ())),
            "events": data.specs.num_events("train") + data.specs.num_events("val") + data.specs.num_events("test"),
        }
        kept: Any = {ABOUT: np.array(json.dumps(about)), **arrays}
        with disk.writing(self.folder / FOLD_SCORES) as file:
            np.savez(file, **kept)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScoredFold:
    """The scored events of one fold.

    Parameters
    ----------
    folder : of its training
    about : its number, that of all folds, the checkpoint, and names of classes, samples, files and targets
    arrays : ``index``, ``label``, ``weight``, ``score`` and the like, an event on each row
    """

    folder: Path
    about: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def load(cls, folder: Path) -> ScoredFold:
        """Read what :class:`FoldScores` wrote.

        Raises
        ------
        DataError
            For a file that can't be read.
        """
        path = folder / FOLD_SCORES
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays.pop(ABOUT)))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path} can't be read ({error}); remove it, and let resume=auto test the fold again"
            ) from error
        return cls(folder=folder, about=about, arrays=arrays)

    @property
    def number(self) -> int:
        """Number of the fold, from 0."""
        return int(self.about["fold"])


def scored_folds(folder: Path) -> list[ScoredFold]:
    """Find the folds that were trained and tested below a folder, in the order of their numbers.

    Raises
    ------
    ConfigError
        Where one is missing, there twice, or of other folds than the others.
    """
    found = sorted((ScoredFold.load(path.parent) for path in folder.glob(f"*/{FOLD_SCORES}")), key=lambda f: f.number)
    if not found:
        raise ConfigError(f"{folder} holds no scores of folds; python train.py experiment=kfold trains and tests them")
    count = int(found[0].about["folds"])
    missing = sorted(set(range(count)) - {fold.number for fold in found})
    if missing:
        names = ", ".join(map(str, missing))
        raise ConfigError(f"{folder}: of {count} folds {names} not tested yet; the same command with resume=auto does")
    if len(found) > count:
        twice = next(a for a, b in itertools.pairwise(found) if a.number == b.number)
        raise ConfigError(f"{folder}: fold {twice.number} is there twice; keep one of the folders")
    for name in ("folds", "by", "classes", "samples", "events", "targets"):
        other = next((fold for fold in found if fold.about[name] != found[0].about[name]), None)
        if other is not None:
            raise ConfigError(
                f"{other.folder}: {name} of fold {other.number} is {other.about[name]!r}, of fold 0 "
                f"{found[0].about[name]!r}; train all folds on the same events"
            )
    return found


def joined(folds: Sequence[ScoredFold]) -> Arrays:
    """Put the events of all folds into one order, by sample, file and entry, with the number of the ``fold`` of each.

    Raises
    ------
    DataError
        Where folds share an event, or lack one.
    """
    keys = folds[0].arrays.keys()
    arrays = {key: np.concatenate([fold.arrays[key] for fold in folds]) for key in keys}
    arrays["fold"] = np.repeat([fold.number for fold in folds], [len(fold.arrays["index"]) for fold in folds])
    order = np.lexsort(arrays["index"].T[::-1])
    arrays = {key: values[order] for key, values in arrays.items()}
    same = (arrays["index"][1:] == arrays["index"][:-1]).all(axis=1)
    if same.any():
        at = int(np.flatnonzero(same)[0])
        sample, file, entry = arrays["index"][at].tolist()
        raise DataError(
            f"folds {arrays['fold'][at]} and {arrays['fold'][at + 1]} share entry {entry} of "
            f"{folds[0].about['files'][file]} (sample {folds[0].about['samples'][sample]!r}); train them anew"
        )
    expected = int(folds[0].about["events"])
    if len(order) != expected:
        raise DataError(f"the folds hold {len(order):,} events, {expected:,} are selected; test them without limits")
    return arrays


def columns_of(arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> Arrays:
    """Name the branches of the file of all folds.

    Parameters
    ----------
    arrays : of all folds, as :func:`joined` gives them
    about : of one of them; names of classes and targets
    """
    sample, file, entry = arrays["index"].T
    columns = {"sample": sample.astype(np.int32), "file": file.astype(np.int32), "entry": entry}
    columns |= {"fold": arrays["fold"].astype(np.int32), "label": arrays["label"].astype(np.int32)}
    columns |= {"weight": arrays["weight"]} if "weight" in arrays else {}
    if "score" in arrays:
        score, classes = arrays["score"], about["classes"]
        names = [classes[1]] if score.ndim == 1 else classes
        columns |= _named("score", names, score)
    if "predictions" in arrays:
        columns |= _named("predicted", about["targets"], arrays["predictions"])
    if TARGETS in arrays:
        columns |= _named("target", about["targets"], arrays[TARGETS])
    carried = {key: values for key, values in arrays.items() if key.startswith(CARRIED)}
    return columns | {_word(key): values for key, values in carried.items()}


def _named(stem: str, names: Sequence[str], values: npt.NDArray[Any]) -> Arrays:
    return {
        f"{stem}_{_word(name)}": column for name, column in zip(names, values.reshape(len(values), -1).T, strict=True)
    }


def _word(name: str) -> str:
    """Turn a name into one that ROOT takes for a branch."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def write(columns: Mapping[str, npt.NDArray[Any]], path: Path, *, about: Mapping[str, Any]) -> None:
    """Write columns as a TTree, whole or not at all.

    Parameters
    ----------
    columns : of one length
    path : of the ROOT file; replaced where it is there
    about : names of samples and files, kept as JSON in the object ``about``
    """
    import uproot

    num_events = len(next(iter(columns.values())))
    told = {name: about[name] for name in ("samples", "files", "classes", "folds", "by")}
    with disk.making(path) as partial:
        with uproot.recreate(partial / path.name) as root:
            tree = root.mktree(TREE, {name: values.dtype for name, values in columns.items()})
            for start in range(0, num_events, CHUNK):
                tree.extend({name: values[start : start + CHUNK] for name, values in columns.items()})
            root[ABOUT] = json.dumps(told)
        disk.sync(partial / path.name)
        (partial / path.name).replace(path)


def spread_of(figures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Say how the figures of the folds' tests are spread.

    Returns
    -------
    name of a figure to its ``mean``, ``spread`` (standard deviation between folds) and ``values``, of those that all
    folds have
    """
    names = [n for n, v in figures[0].items() if type(v) is float and all(type(f.get(n)) is float for f in figures)]
    table = {name: [float(fold[name]) for fold in figures] for name in names}
    return {
        name: {"mean": float(np.mean(values)), "spread": float(np.std(values, ddof=1)), "values": values}
        for name, values in table.items()
    }


def draw_folds(figure: Mapping[str, Any], together: float | None) -> Figure:
    """Draw the area under the ROC curve of each fold, their mean and spread, and that of all out-of-fold events.

    Parameters
    ----------
    figure : ``mean``, ``spread`` and ``values``, as :func:`spread_of` gives them
    together : of all out-of-fold events; None where it can't be computed
    """
    made, (axes,) = new_figure()
    mean, spread, values = figure["mean"], figure["spread"], figure["values"]
    axes.axhspan(mean - spread, mean + spread, color="0.9", label=f"mean \u00b1 spread: {mean:.4f} \u00b1 {spread:.4f}")
    axes.axhline(mean, color="0.5", lw=1.2)
    if together is not None:
        axes.axhline(
            together, color=SIGNAL_COLOURS[0], ls="--", lw=1.6, label=f"all out-of-fold events: {together:.4f}"
        )
    axes.plot(range(len(values)), values, "o", color=COLOURS[0], ms=8, label="test events of a fold")
    axes.set_xticks(range(len(values)))
    axes.set(xlim=(-0.5, len(values) - 0.5))
    axes.margins(y=0.25)
    axes.set_xlabel("Fold", fontsize=13, loc="right")
    axes.set_ylabel("Area under the ROC curve", fontsize=13, loc="top")
    axes.xaxis.minorticks_off()
    axes.legend(frameon=False, fontsize=11)
    return made


def table_of(spread: Mapping[str, Mapping[str, Any]], together: Mapping[str, Any]) -> Table:
    """Make a table for people: each figure as mean and spread over folds, and of all out-of-fold events.

    Parameters
    ----------
    spread : of :func:`spread_of`
    together : the figures of all out-of-fold events
    """
    from rich.table import Table

    table = Table("", *spread, title="test events of the folds")
    for number, figures in enumerate(zip(*(figure["values"] for figure in spread.values()), strict=True)):
        table.add_row(f"fold {number}", *(f"{value:.5g}" for value in figures))
    table.add_section()
    told = (f"{figure['mean']:.5g} \u00b1 {figure['spread']:.2g}" for figure in spread.values())
    table.add_row("mean \u00b1 spread", *told)
    known = (together.get(name) for name in spread)
    table.add_row("all out-of-fold events", *(f"{v:.5g}" if isinstance(v, float) else "" for v in known))
    return table
