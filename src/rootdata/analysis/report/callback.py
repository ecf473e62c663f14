"""The report of every training: what the test says, kept in one file, and the page that is made of it."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from rootdata.analysis.report import inputs, make
from rootdata.analysis.report.config import ReportConfig
from rootdata.analysis.report.tested import FILE, ScoredRun, checksum, columns_of, names_for
from rootdata.errors import ConfigError
from rootdata.loading.dataset import RootDataset
from rootdata.loading.part import Part
from rootdata.options.parts import PARTS
from rootdata.training.callbacks import ScoreReport, as_array, is_kept
from rootdata.training.scored import contents_of

Batch = dict[str, NDArray[Any]]

STRETCH = 128  # training events that follow each other; stretches are taken from everywhere
SHOWN = ("roc", "scores", "confusion", "responses")  # pictures that the page has, too


class HtmlReport(ScoreReport):
    """Write what :class:`~rootdata.training.callbacks.ScoreReport` does, ``scored.npz`` and ``report.html``.

    The page needs neither the data nor the network: ``rootdata report RUN`` makes it anew from ``scored.npz``.

    Parameters
    ----------
    folder : of the training, made where absent
    bins : of distributions of the score
    plots : make the report, too; without the libraries for it a warning takes its place
    style, label, energy, luminosity, background_uncertainty, working_points, training_events, importance_events,
    shuffles, gradients : as :class:`~rootdata.analysis.report.config.ReportConfig` explains them
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        bins: int = 40,
        plots: bool = True,
        style: str = "plain",
        label: str = "",
        energy: float | None = None,
        luminosity: float | None = None,
        background_uncertainty: float = 0.1,
        working_points: tuple[float, ...] | list[float] = (0.3, 0.5, 0.7, 0.9),
        training_events: int = 100_000,
        importance_events: int = 10_000,
        shuffles: int = 3,
        gradients: bool = False,
    ) -> None:
        super().__init__(folder, bins=bins, plots=plots)
        self.config = ReportConfig.parse(
            bins=bins, style=style, label=label, energy=energy, luminosity=luminosity,
            background_uncertainty=background_uncertainty, working_points=working_points,
            training_events=training_events, importance_events=importance_events, shuffles=shuffles,
            gradients=gradients,
        )  # fmt: skip
        self._sampled = inputs.Sampled(0)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier test."""
        super().on_test_start(trainer, pl_module)
        is_wanted = self.plots and trainer.is_global_zero
        self._sampled = inputs.Sampled(self.config.importance_events if is_wanted else 0)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the scores of one batch, and the inputs of some of its events.

        Parameters
        ----------
        trainer, pl_module : as of :class:`ScoreReport`
        outputs : what ``test_step`` returned
        batch : whose inputs are looked at
        batch_idx, dataloader_idx : not used
        """
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        expected = sum(trainer.num_test_batches) * len(outputs["label"]) if "label" in outputs else 0
        self._sampled.add(batch, expected=expected, to_array=as_array)

    def _draw(self, figures: Mapping[str, Any]) -> None:
        """Leave to the page what it shows."""
        super()._draw({name: figure for name, figure in figures.items() if name not in SHOWN})

    def report(self, batches: list[Batch], trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write figures, keep the scored events, and make the page.

        Parameters
        ----------
        batches : what was kept of all processes' test events
        trainer : that tested
        pl_module : the network
        """
        super().report(batches, trainer, pl_module)
        if not self.plots:
            for name in (FILE, make.PAGE):  # those of an earlier test would be taken for this one's
                (self.folder / name).unlink(missing_ok=True)
            return
        tested = self._tested(batches, trainer, pl_module)
        tested.save(self.folder / FILE)
        self.paths["scored"] = self.folder / FILE
        make.keep_inputs(self.folder, self._looked_at(trainer, pl_module))
        try:
            self.paths["report"] = make.report(self.folder, self.config)
        except ConfigError as error:  # a library that is absent is no reason to lose a training
            warnings.warn(str(error), stacklevel=2)

    def _tested(self, batches: list[Batch], trainer: pl.Trainer, pl_module: pl.LightningModule) -> ScoredRun:
        data: Any = getattr(trainer, "datamodule", None)
        test = columns_of(batches)
        about = names_for(
            test, classes=getattr(data, "classes", ()), samples=getattr(data, "sample_names", ()),
            targets=getattr(pl_module, "targets", ()),
        )  # fmt: skip
        about |= {
            "events": checksum(test, contents=contents_of(data)),
            "tested": time.strftime("%Y-%m-%d %H:%M"),
            **chosen_by(trainer),
        }
        train = self._training(data, trainer, pl_module) if hasattr(data, "scanned") else {}
        about["scale"] = scales_of(data, test["sample"]) if hasattr(data, "specs") else {}
        test.pop("index", None)
        return ScoredRun(about=about, test=test, train=train)

    def _training(self, data: Any, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Batch:
        """Score training events, each once, from all files alike, about as many as were asked for."""
        if not self.config.training_events or not data.specs.num_events("train"):
            return {}
        events = RootDataset.of(_unbalanced(data, self.config.training_events), index=True)
        chosen = spread(len(events), self.config.training_events / events.num_events)
        columns = columns_of(
            [
                {key: as_array(v) for key, v in answers(trainer, pl_module, batch, number).items() if is_kept(key)}
                for number, batch in enumerate(events.batches(0))
                if chosen[number]
            ]
        )
        kinds = ("score", "label", "weight", "sample", *(("index",) if data.data.fold is not None else ()))
        return {key: columns[key] for key in kinds if key in columns}

    def _looked_at(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the numbers of the inputs' pictures."""
        columns = self._sampled.columns()
        data: Any = getattr(trainer, "datamodule", None)
        self._sampled = inputs.Sampled(0)
        if not columns or not hasattr(data, "scanned") or not set(data.shapes) <= set(columns):
            return {}
        found: dict[str, Any] = {}
        for place, numbers in inputs.distributions(data, columns, classes=data.classes).items():
            found[f"{make.FEATURES}{place}"] = numbers
        groups = inputs.groups_of(data.scanned.layout, columns)

        def ask(batch: Mapping[str, Any]) -> dict[str, Any]:
            tensors = {key: torch.from_numpy(values) for key, values in batch.items()}
            return {key: as_array(v) for key, v in answers(trainer, pl_module, tensors).items() if is_kept(key)}

        if groups and inputs.is_measured(ask({key: values[:1] for key, values in columns.items()})):
            found["importance"] = inputs.importance(columns, groups, ask, shuffles=self.config.shuffles)
            if self.config.gradients:
                try:
                    found["gradients"] = inputs.gradients(columns, groups, partial(answers, trainer, pl_module))
                except ConfigError as error:  # trees have none, and are worth their report
                    warnings.warn(str(error), stacklevel=2)
        return found


def _unbalanced(data: Any, wanted: int) -> Part:
    """Return the training part, weighted as the test, in batches of which those for so many events can be left out."""
    options = data.options
    if wanted < data.specs.num_events("train"):
        size = min(options.order.batch_size, STRETCH, wanted)
        options = dataclasses.replace(options, order=dataclasses.replace(options.order, batch_size=size))
    return Part(data.scanned, options, "train", ordered=True, balanced=False)


def spread(n: int, share: float) -> NDArray[np.bool_]:
    """Choose so many of a row, at least one: one by chance of each so many that follow each other.

    Parameters
    ----------
    n : how many there are
    share : that is chosen; all, where it is 1 or more

    Examples
    --------
    >>> int(spread(1000, 0.25).sum()), int(spread(5, 0.01).sum()), int(spread(3, 2.0).sum())
    (250, 1, 3)
    """
    wanted = min(max(round(n * share), 1), n)
    ends = np.arange(wanted + 1) * n // wanted
    found = np.zeros(n, np.bool_)
    found[np.random.default_rng(0).integers(ends[:-1], ends[1:])] = True
    return found


def answers(trainer: pl.Trainer, network: pl.LightningModule, batch: Any, number: int = 0) -> dict[str, torch.Tensor]:
    """Return what a network predicts of a batch, as in a test; with gradients where these are on.

    Parameters
    ----------
    trainer : whose device and precision are taken
    network : with a ``predict_step`` that returns what its ``test_step`` does
    batch : of the data module
    number : of the batch
    """
    moved = trainer.strategy.batch_to_device(batch)
    was_training = network.training
    network.eval()
    with trainer.precision_plugin.forward_context():
        found = network.predict_step(moved, number)
    network.train(was_training)
    return dict(found) if isinstance(found, Mapping) else {}


def chosen_by(trainer: pl.Trainer) -> dict[str, Any]:
    """Say by which figure the checkpoint was chosen, and its best value."""
    checkpoint: Any = trainer.checkpoint_callback
    best, monitor = getattr(checkpoint, "best_model_score", None), getattr(checkpoint, "monitor", None)
    return {} if best is None else {"monitor": monitor, "mode": checkpoint.mode, "best": float(best)}


def scales_of(data: Any, sample: NDArray[Any]) -> dict[str, float]:
    """Return for each sample how many selected events it has for each tested one.

    Parameters
    ----------
    data : a data module
    sample : (n,) number of the sample of each tested event: not all are tested, where their batches are limited
    """
    tested = np.bincount(sample, minlength=len(data.sample_names))
    events = {part: data.specs.events_of(part) for part in PARTS}
    return {
        name: sum(of[name] for of in events.values()) / int(tested[number]) if tested[number] else 1.0
        for number, name in enumerate(data.sample_names)
    }
