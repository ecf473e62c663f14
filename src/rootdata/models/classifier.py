"""The shell that turns a network into a trainable classifier.

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
from rootdata.training.metrics import ScoreSums

MOST_SCORES = 1 << 22  # different scores of a class that are kept apart: 84 MB a process


class Classifier(pl.LightningModule):
    """Loss, optimizer and steps; a subclass gives the network as ``forward(batch)``.

    ``forward`` returns logits: (B,) for two classes, (B, classes) for more. The loss is the (binary) cross entropy,
    weighted by ``batch["weight"]`` and divided by ``mean_weight``; ``val/loss`` and ``val/auc`` are weighted, too.

    Parameters
    ----------
    classes : how many, at least two
    lr : step size of Adam
    weight_decay : L2 penalty of Adam

    Attributes
    ----------
    mean_weight : mean size of the training events' weights, taken from the trainer's data module where that knows it;
        with loaders of your own set it before ``fit``, or the loss is that of the weights as they are
    """

    def __init__(self, *, classes: int = 2, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
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

    def setup(self, stage: str) -> None:
        """Ask the data module for the mean weight of the training events; check before a fit that every class has some.

        Raises
        ------
        DataError
            As :func:`rootdata.loading.trainable.check_classes`.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and hasattr(data, "specs"):
            check_classes(data)
        self.mean_weight = float(getattr(data, "mean_weight", self.mean_weight)) or 1.0

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the probability of label 1, (B,), or of each class, (B, classes)."""
        return probabilities(self(batch))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of one batch."""
        loss = weighted_loss(self(batch), batch["label"], weight=batch.get("weight"), mean_weight=self.mean_weight)
        n = len(batch["label"])
        self.log("train/loss", loss, batch_size=n, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Add one batch to ``val/loss`` and ``val/auc``."""
        logits, label, weight = self(batch), batch["label"], batch.get("weight")
        size = 1.0 if weight is None else float(weight.abs().mean())
        loss = weighted_loss(logits, label, weight=weight, mean_weight=size or 1.0)
        self.val_loss.update(loss, weight=size * len(label))
        self.log("val/loss", self.val_loss, batch_size=len(label), on_epoch=True, prog_bar=True)
        self.val_auc.update(probabilities(logits), label, weight)
        self.log("val/auc", self.val_auc, batch_size=len(label), on_epoch=True, prog_bar=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return what :meth:`predict_step` does."""
        return self.predict_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the ``score`` of each event with its ``label``, ``weight`` and ``index``, as far as it has them."""
        known = {key: values for key, values in batch.items() if key in {"label", "weight", "index"}}
        return {"score": self.scores(batch), **known}

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
    if min(widths) < 1:
        raise ConfigError(f"model: got a layer of {min(widths)} nodes; every layer needs one or more")
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout: got {dropout}; expected a probability, 0 or more and below 1")
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)


def n_logits(classes: int) -> int:
    """Give the width of the last layer: one logit for two classes, one per class for more."""
    return 1 if classes == 2 else classes


def plain_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Copy shapes into lists of int, which a checkpoint that is loaded with ``weights_only`` may hold."""
    return {str(key): [int(size) for size in shape] for key, shape in shapes.items()}
