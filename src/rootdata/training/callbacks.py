"""What happens beside training: a network that cannot be exported is refused before it, the test is reported after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from rootdata import disk
from rootdata.errors import BundleError
from rootdata.options.data import OBSERVED, TARGETS, VARIED
from rootdata.training import responses, scored

KEPT = {"score", "label", "weight", "index", "predictions", TARGETS}  # of what test_step returns


class ScoreReport(pl.Callback):
    """Write how well the test events were classified, and what else was predicted of them.

    Into ``folder``, from what ``test_step`` returns (``score``, ``label``, and if there ``weight`` and ``index``):
    ``metrics.json`` (AUC, accuracy, loss, all weighted, the AUC with the weights of each variation; counts and mean
    score of each sample), ``roc.json`` and ``scores.json`` (the distribution of the score in each sample). With more
    than two classes each is compared with all others, and ``confusion.json`` says which is taken for which. Of
    regressions (``predictions`` beside ``targets``) the metrics are ``rmse``, ``mae``, ``bias`` and ``resolution``, and
    ``responses.json`` says more. The names come from ``classes`` and ``sample_names`` of the data module, and from
    ``targets`` of the network. Pictures are drawn by its child :class:`rootdata.analysis.report.callback.HtmlReport`.

    Parameters
    ----------
    folder : made where absent
    bins : of the score histograms

    Attributes
    ----------
    metrics : what ``metrics.json`` holds, empty before the test
    paths : what was written, by name: ``metrics``, ``roc``, ``scores``, ``confusion``, ``responses``
    """

    def __init__(self, folder: str | Path, *, bins: int = 40) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.bins = bins
        self.metrics: dict[str, Any] = {}
        self.paths: dict[str, Path] = {}
        self._batches: list[dict[str, NDArray[Any]]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Forget an earlier test."""
        self._batches, self.metrics, self.paths = [], {}, {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep the scores of one batch.

        Parameters
        ----------
        trainer, pl_module : not used
        outputs : what ``test_step`` returned: ``score`` and ``label``, and where there are any ``weight``, ``index``,
            ``predictions``, ``targets``, observers and variations of the weight, by name, an event on each row
        batch, batch_idx : not used: all that counts is in ``outputs``
        dataloader_idx : not used: there is one loader
        """
        self._batches.append({key: as_array(value) for key, value in outputs.items() if is_kept(key)})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the scores of all processes and write the report from the first of them."""
        batches = gather(self._batches, world_size=trainer.world_size)
        self._batches = []
        if not batches or not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        classes, samples = getattr(data, "classes", ()), getattr(data, "sample_names", ())
        scores = scored.collect(batches, classes=classes, sample_names=samples) if "score" in batches[0] else None
        predicted = None
        if {"predictions", TARGETS} <= batches[0].keys():
            predicted = responses.collect(batches, names=getattr(pl_module, "targets", ()))
        self.metrics = {} if scores is None else scored.summarise(scores)
        if predicted is not None:
            self.metrics |= responses.summarise(predicted)
        self._write(scores, predicted)
        self.conclude(batches, trainer, pl_module)

    def conclude(
        self, batches: list[dict[str, NDArray[Any]]], trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Do what a child adds, in the first process.

        Parameters
        ----------
        batches : what was kept of all processes' test events
        trainer : that tested
        pl_module : the network
        """

    def _write(self, scores: scored.ScoredEvents | None, predicted: responses.Predicted | None) -> None:
        """Write what there is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        contents: dict[str, Any] = {"metrics": self.metrics}
        if scores is not None:
            contents |= scored.curves_of(scores, bins=self.bins)
            if scores.score.ndim == 2:
                table = scored.count(scores.score, scores.label, weight=scores.weight, classes=scores.classes)
                contents["confusion"] = table.to_dict()
        if predicted is not None:
            contents["responses"] = responses.to_dict(predicted)
        self.paths = {name: write_json(content, self.folder / f"{name}.json") for name, content in contents.items()}


class ExportCheck(pl.Callback):
    """Refuse to train a network that could not be exported afterwards, before its first batch.

    It is exported without writing anything, in the precision and on the device of the training. All ranks refuse.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try the export in the first process, for all of them.

        Raises
        ------
        BundleError
        """
        from rootdata.bundle.export import rehearse

        reason = None
        if trainer.is_global_zero:
            try:
                rehearse(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
            except BundleError as error:
                reason = str(error)
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            raise BundleError(f"{reason}; export=false trains it without a bundle")


def is_kept(key: str) -> bool:
    """Tell whether a report has a use for what ``test_step`` returned by this name."""
    return key in KEPT or key.startswith((OBSERVED, VARIED))


def as_array(values: torch.Tensor) -> NDArray[Any]:
    """Bring a tensor to numpy; half precision, which numpy may not know, becomes float32."""
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


def gather(batches: list[dict[str, NDArray[Any]]], *, world_size: int) -> list[dict[str, NDArray[Any]]]:
    """Join the lists of all processes, in the order of their ranks."""
    if world_size == 1:
        return batches
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, batches)
    return [batch for part in parts for batch in part]


def write_json(content: Any, path: Path) -> Path:
    """Write one file, and return its path."""
    disk.write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path
