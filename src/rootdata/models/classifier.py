"""The shell that turns a network into a trainable one: a classifier, or what else its heads say.

It is a ``pytorch_lightning`` module, for a ``pytorch_lightning`` trainer: ``lightning`` and ``pytorch_lightning`` have
classes of their own and do not mix. In a ``lightning`` trainer wrap the network in a ``lightning.LightningModule``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, Metric

from rootdata.errors import ConfigError
from rootdata.loading.trainable import check_classes
from rootdata.models.heads import (
    Regression,
    ResidualSums,
    check_targets,
    parse_heads,
    regression_loss,
)
from rootdata.models.losses.disco import Decorrelator, Ranks, parse_decorrelation
from rootdata.options.data import OBSERVED, VARIED
from rootdata.training.metrics import ScoreSums
from rootdata.training.responses import figure_names

MOST_SCORES = 1 << 22  # different scores of a class that are kept apart: 84 MB a process


class Classifier(pl.LightningModule):
    """Loss, optimizer and steps; a subclass gives the network as ``forward(batch)``.

    ``forward`` returns logits: (B,) for two classes, (B, classes) for more. The loss is the (binary) cross entropy,
    weighted by ``batch["weight"]`` and divided by ``mean_weight``; ``val/loss`` and ``val/auc`` are weighted, too.

    With ``heads`` it returns (B, ``width``): the columns of one head after those of the other. The loss is the sum of
    theirs, each times its weight; regressions have ``val/rmse``, ``val/mae``, ``val/bias`` and ``val/resolution`` in
    physical units, with several targets ``val/<target>/rmse`` and so on.

    With ``decorrelate`` the loss is that and, times its strength, the distance correlation of the scores and some
    observers; ``train/disco`` and ``val/disco`` are the correlation alone, its mean over the batches.

    Parameters
    ----------
    classes : how many, at least two
    heads : what is predicted, ``{"class": {"kind": "classification"}, "mass": {"kind": "regression", "target": "mass",
        "loss": "huber", "weight": 0.5}}``; by default a classification alone
    decorrelate : what the score must not depend on, ``{"columns": ["mbb"], "strength": 10}``, see
        :class:`rootdata.models.losses.disco.Decorrelation`
    lr : step size of Adam
    weight_decay : L2 penalty of Adam

    Attributes
    ----------
    mean_weight : mean size of the training events' weights, taken from the trainer's data module where that knows it;
        with loaders of your own set it before ``fit``, or the loss is that of the weights as they are
    """

    def __init__(
        self,
        *,
        classes: int = 2,
        heads: Mapping[str, Any] | None = None,
        decorrelate: Mapping[str, Any] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(f"model.classes: got {classes}; a classifier needs two or more; check the labels")
        if not 0 < lr < math.inf:
            raise ConfigError(f"model.lr: got {lr}; expected a finite number above 0")
        if not 0 <= weight_decay < math.inf:
            raise ConfigError(f"model.weight_decay: got {weight_decay}; expected a finite number, 0 or more")
        self.classes = classes
        self.lr = lr
        self.weight_decay = weight_decay
        self.val_loss = MeanMetric()  # over all events of all ranks, each with its weight
        self.val_auc = WeightedAUC(classes)
        self.mean_weight = 1.0
        self.heads = parse_heads(heads)
        self.regressions = [head for head in self.heads if head.is_regression]
        self.is_classifier = len(self.regressions) < len(self.heads)
        self.regression = Regression(self.regressions) if self.regressions else None
        self.val_residuals = ResidualSums(len(self.targets)) if self.regressions else None
        options = parse_decorrelation(decorrelate)
        if options is not None and not self.is_classifier:
            raise ConfigError("model.decorrelate: the network has no head of kind 'classification', and so no score")
        self.decorrelation = None if options is None else Decorrelator(options, classes)
        self._shared_batches = 0  # of validation, that all ranks have

    @property
    def width(self) -> int:
        """Columns of the last layer."""
        return (n_logits(self.classes) if self.is_classifier else 0) + len(self.targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets that are predicted, in the order of the heads."""
        return () if self.regression is None else self.regression.targets

    @property
    def logged(self) -> dict[str, str]:
        """Names of what is logged, and the part that it is computed of."""
        found = {"train/loss": "train", "val/loss": "val"} | ({"val/auc": "val"} if self.is_classifier else {})
        found |= {"train/disco": "train", "val/disco": "val"} if self.decorrelation else {}
        return found | {f"val/{name}": "val" for names in figure_names(self.targets) for name in names.values()}

    def setup(self, stage: str) -> None:
        """Ask the data module for the mean weight of the training events, and for its targets.

        Before a fit it is checked that every class has training events, and every target a head, and that there is
        what the score is decorrelated from.

        Raises
        ------
        DataError, ConfigError
            As :func:`rootdata.loading.trainable.check_classes`, :func:`rootdata.models.heads.check_targets` and
            :meth:`rootdata.models.losses.disco.Decorrelator.check`.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and hasattr(data, "specs") and self.is_classifier:
            check_classes(data)
        self.bind(data)
        if self.decorrelation is not None and hasattr(data, "specs"):
            self.decorrelation.bind(data.data)
            if stage == "fit":
                self.decorrelation.check(data)
        self.mean_weight = float(getattr(data, "mean_weight", self.mean_weight)) or 1.0

    def bind(self, data: Any) -> None:
        """Take over the targets of a data module, where it knows any.

        Raises
        ------
        ConfigError
            Where heads and targets do not fit together.
        """
        if not hasattr(data, "targets"):
            return
        check_targets(self.heads, list(data.targets))
        if self.regression is not None:
            self.regression.bind(data.targets)

    def shaped(self, outputs: Tensor) -> Tensor:
        """Bring the outputs of the last layer, (B, ``width``), to what ``forward`` returns."""
        return outputs.squeeze(1) if self.width == 1 and self.regression is None else outputs

    def split(self, outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Take the outputs apart: logits of the classes, and scaled values of the targets, (B, targets)."""
        if self.regression is None:
            return outputs, None
        found = dict(zip(self._names, torch.split(outputs, self._widths, dim=1), strict=True))
        logits = next((found[head.name] for head in self.heads if not head.is_regression), None)
        if logits is not None and self.classes == 2:
            logits = logits.squeeze(1)
        return logits, torch.cat([found[head.name] for head in self.regressions], dim=1)

    @property
    def _names(self) -> list[str]:
        return [head.name for head in self.heads]

    @property
    def _widths(self) -> list[int]:
        return [len(head.target) if head.is_regression else n_logits(self.classes) for head in self.heads]

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor], *, mean_weight: float) -> Tensor:
        """Add up the losses of all heads, each with its weight.

        Parameters
        ----------
        outputs : of ``forward``
        batch : that they are for
        mean_weight : mean size of the events' weights
        """
        weight = batch.get("weight")
        logits, scaled = self.split(outputs)
        if self.regression is None or scaled is None:
            return weighted_loss(outputs, batch["label"], weight=weight, mean_weight=mean_weight)
        widths = [len(head.target) for head in self.regressions]
        columns, truths = (torch.split(v, widths, dim=1) for v in (scaled, self.regression.truth(batch)))
        losses = [
            head.weight * regression_loss(head, found, truth, weight=weight, mean_weight=mean_weight)
            for head, found, truth in zip(self.regressions, columns, truths, strict=True)
        ]
        if logits is not None:
            share = next(head.weight for head in self.heads if not head.is_regression)
            losses.append(share * weighted_loss(logits, batch["label"], weight=weight, mean_weight=mean_weight))
        return torch.stack(losses).sum()

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the probability of label 1, (B,), or of each class, (B, classes).

        Raises
        ------
        ConfigError
            For a network without a classification.
        """
        logits, _ = self.split(self(batch))
        if logits is None:
            raise ConfigError("scores: the network has no head of kind 'classification'; ask predict_step")
        return probabilities(logits)

    def deployed(self, outputs: Tensor) -> dict[str, Tensor]:
        """Turn outputs into what an exported graph gives: ``scores`` and ``regression``, (B, columns) each."""
        logits, scaled = self.split(outputs)
        found = {}
        if logits is not None:
            scores = probabilities(logits)
            found["scores"] = scores.unsqueeze(1) if scores.ndim == 1 else scores
        if self.regression is not None and scaled is not None:
            found["regression"] = self.regression(scaled)
        return found

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of one batch."""
        outputs, n = self(batch), len(batch["label"])
        loss = self.loss(outputs, batch, mean_weight=self.mean_weight) + self._disco(
            outputs, batch, "train", self._ranks()
        )
        self.log("train/loss", loss, batch_size=n, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def _ranks(self) -> Ranks | None:
        """Return the processes that share each batch; None where there is one."""
        trainer: Any = self._trainer
        count = getattr(trainer, "world_size", 1)
        return None if count == 1 else Ranks(number=trainer.global_rank, count=count, gather=self.all_gather)

    def _disco(self, outputs: Tensor, batch: Mapping[str, Tensor], part: str, ranks: Ranks | None) -> Tensor | float:
        """Log the distance correlation of a batch, and return its share of the loss."""
        logits, _ = self.split(outputs)
        if self.decorrelation is None or logits is None:
            return 0.0
        found, n = self.decorrelation.of(probabilities(logits), batch, ranks=ranks)
        self.log(f"{part}/disco", found, batch_size=max(n, 1), on_step=False, on_epoch=True, sync_dist=True)
        return self.decorrelation.options.strength * found

    def on_validation_start(self) -> None:
        """Find out how many batches all ranks have: of the last one a rank may lack its part."""
        ranks = None if self.decorrelation is None else self._ranks()
        if ranks is not None:
            own = min(self.trainer.num_val_batches, default=0)
            known = torch.tensor(own if math.isfinite(own) else 0, device=self.device)
            self._shared_batches = int(ranks.gather(known).min())

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add one batch to ``val/loss``, ``val/auc`` and the figures of regressions."""
        outputs, label, weight = self(batch), batch["label"], batch.get("weight")
        size = 1.0 if weight is None else float(weight.abs().mean())
        ranks = self._ranks() if batch_idx < self._shared_batches else None
        loss = self.loss(outputs, batch, mean_weight=size or 1.0) + self._disco(outputs, batch, "val", ranks)
        self.val_loss.update(loss, weight=size * len(label))
        self.log("val/loss", self.val_loss, batch_size=len(label), on_epoch=True, prog_bar=True)
        logits, scaled = self.split(outputs)
        if logits is not None:
            self.val_auc.update(probabilities(logits), label, weight)
            self.log("val/auc", self.val_auc, batch_size=len(label), on_epoch=True, prog_bar=True)
        if self.regression is not None and self.val_residuals is not None and scaled is not None:
            truth = self.regression(self.regression.truth(batch))
            self.val_residuals.update(self.regression(scaled), truth, weight)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of regressions, of all ranks."""
        if self.val_residuals is None:
            return
        figures = {name: found.reshape(-1) for name, found in self.val_residuals.compute().items()}
        for column, names in enumerate(figure_names(self.targets)):
            for figure, name in names.items():
                value = figures[figure][column].float()
                self.log(f"val/{name}", value, prog_bar=figure == "rmse", sync_dist=True)
        self.val_residuals.reset()

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return what :meth:`predict_step` does."""
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return what is predicted of each event, with its ``label``, ``weight``, ``index`` and what goes with it.

        What goes with it are observers, and weights under variations.

        The ``score`` of the classes; the ``predictions`` of regressions, (B, targets) in physical units, beside the
        ``targets``, also in physical units: all as far as there are any.
        """
        facts = {"label", "weight", "index"}
        known = {key: values for key, values in batch.items() if key in facts or key.startswith((OBSERVED, VARIED))}
        logits, scaled = self.split(self(batch))
        found = {} if logits is None else {"score": probabilities(logits)}
        if self.regression is not None and scaled is not None:
            found["predictions"] = self.regression(scaled)
            if "targets" in batch:
                found["targets"] = self.regression(self.regression.truth(batch))
        return {**found, **known}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


class WeightedAUC(Metric):
    """Area under the ROC curve with event weights, over all batches and ranks; with several classes their mean.

    It is exact while there are no more different scores than :class:`rootdata.training.metrics.ScoreSums` keeps,
    whatever the number of events. NaN where no class has both signal and background.

    Parameters
    ----------
    classes : how many, at least two
    """

    full_state_update = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._n = 1 if classes == 2 else classes
        self._sums = self._nothing()

    def _nothing(self) -> list[ScoreSums]:
        return [ScoreSums(limit=MOST_SCORES // self._n) for _ in range(self._n)]

    def update(self, score: Tensor, label: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Parameters
        ----------
        score : (B,) of label 1, or (B, classes)
        label : (B,) class numbers
        weight : (B,); 1 for each event where none is given
        """
        columns = score.detach().float().reshape(len(score), self._n).cpu().numpy().T
        labels, weights = label.cpu().numpy(), None if weight is None else weight.detach().double().cpu().numpy()
        for number, (sums, column) in enumerate(zip(self._sums, columns, strict=True)):
            sums.add(column, labels == (1 if self._n == 1 else number), weight=weights)

    def compute(self) -> Tensor:
        """Give the area over all ranks."""
        areas = np.array([sums.area() for sums in joined(self._sums)])
        known = areas[~np.isnan(areas)]
        return torch.tensor(known.mean() if len(known) else np.nan, dtype=torch.float32)

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self._sums = self._nothing()


def joined(own: list[ScoreSums]) -> list[ScoreSums]:
    """Add up the sums of all ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return [functools.reduce(ScoreSums.merge, sums) for sums in zip(*parts, strict=True)]


def weighted_loss(logits: Tensor, label: Tensor, *, weight: Tensor | None = None, mean_weight: float = 1.0) -> Tensor:
    """Average the cross entropy of a batch with the events' weights.

    Parameters
    ----------
    logits : (B,) of label 1, or (B, classes)
    label : (B,) int64
    weight : (B,); negative ones, as generators at next-to-leading order give them, are allowed
    mean_weight : mean size of the weights of all training events, as ``RootDataModule.mean_weight``; one number for
        all batches, since dividing each by its own weights would let heavy events count less

    Returns
    -------
    A scalar, the mean of ``weight * cross entropy / mean_weight``.
    """
    if logits.ndim == 1:
        losses = functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none")
    else:
        losses = functional.cross_entropy(logits, label, reduction="none")
    return losses.mean() if weight is None else (losses * weight).mean() / mean_weight


def probabilities(logits: Tensor) -> Tensor:
    """Turn logits (B,) or (B, classes) into float32 probabilities of the same shape."""
    logits = logits.float()  # half precision would tie the scores of many events
    return logits.sigmoid() if logits.ndim == 1 else logits.softmax(dim=1)


def mlp(widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """Chain linear layers of the given widths, each followed by ReLU and dropout.

    Raises
    ------
    ConfigError
        For a layer without nodes, and for a dropout that is no probability or leaves nothing.
    """
    check_layers(widths, dropout, where="model")
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def check_layers(nodes: Sequence[int], dropout: float, *, where: str) -> None:
    """Refuse layers of which nothing can be made.

    Parameters
    ----------
    nodes : of each layer
    dropout : probability to drop one of them in training
    where : option that says how many nodes there are

    Raises
    ------
    ConfigError
        For a layer without nodes, and for a dropout that is no probability or leaves nothing.
    """
    if min(nodes, default=1) < 1:
        raise ConfigError(f"{where}: got a layer of {min(nodes)} nodes; every layer needs one or more")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout: got {dropout}; expected a probability, 0 or more and below 1")


def n_logits(classes: int) -> int:
    """Give the width of the last layer: one logit for two classes, one per class for more."""
    return 1 if classes == 2 else classes


def plain_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Copy shapes into lists of int, which a checkpoint that is loaded with ``weights_only`` may hold."""
    return {str(key): [int(size) for size in shape] for key, shape in shapes.items()}
