"""The shell that turns a network into a trainable classifier.

It is a ``pytorch_lightning`` module, for a ``pytorch_lightning`` trainer: ``lightning`` and ``pytorch_lightning`` have
classes of their own and do not mix. In a ``lightning`` trainer wrap the network in a ``lightning.LightningModule``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC, MulticlassAUROC

from rootdata.errors import ConfigError


class Classifier(pl.LightningModule):
    """Loss, optimizer and steps; a subclass gives the network as ``forward(batch)``.

    ``forward`` returns logits: (B,) for two classes, (B, classes) for more. The loss is the (binary) cross entropy,
    weighted by ``batch["weight"]``. ``val/auc`` is unweighted, since torchmetrics' exact curve takes no weights;
    :class:`rootdata.callbacks.ScoreReport` gives the weighted one of the test events.

    Parameters
    ----------
    classes : how many, at least two
    lr : step size of Adam
    weight_decay : L2 penalty of Adam
    """

    def __init__(self, *, classes: int = 2, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(f"model.classes: got {classes}; a classifier needs two or more; check the labels")
        self.classes = classes
        self.lr = lr
        self.weight_decay = weight_decay
        self.val_loss = MeanMetric()  # over all events of all ranks, each with its weight
        self.val_auc = BinaryAUROC() if classes == 2 else MulticlassAUROC(num_classes=classes)

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the probability of label 1, (B,), or of each class, (B, classes)."""
        return probabilities(self(batch))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of one batch."""
        loss = weighted_loss(self(batch), batch["label"], weight=batch.get("weight"))
        n = len(batch["label"])
        self.log("train/loss", loss, batch_size=n, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Add one batch to ``val/loss`` and ``val/auc``."""
        logits, label, weight = self(batch), batch["label"], batch.get("weight")
        loss = weighted_loss(logits, label, weight=weight)
        self.val_loss.update(loss, weight=len(label) if weight is None else weight.abs().sum())
        self.log("val/loss", self.val_loss, batch_size=len(label), on_epoch=True, prog_bar=True)
        self.val_auc.update(probabilities(logits), label)
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


def weighted_loss(logits: Tensor, label: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Average the cross entropy of a batch with the events' weights.

    Parameters
    ----------
    logits : (B,) of label 1, or (B, classes)
    label : (B,) int64
    weight : (B,); negative ones, as generators at next-to-leading order give them, are allowed

    Returns
    -------
    A scalar, divided by the sum of the weights' magnitudes: with weights of both signs their plain sum can vanish.
    """
    if logits.ndim == 1:
        losses = functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none")
    else:
        losses = functional.cross_entropy(logits, label, reduction="none")
    if weight is None:
        return losses.mean()
    total = weight.abs().sum().clamp(min=torch.finfo(weight.dtype).tiny)
    return (losses * weight).sum() / total


def probabilities(logits: Tensor) -> Tensor:
    """Turn logits (B,) or (B, classes) into float32 probabilities of the same shape."""
    logits = logits.float()  # half precision would tie the scores of many events
    return logits.sigmoid() if logits.ndim == 1 else logits.softmax(dim=1)


def mlp(widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """Chain linear layers of the given widths, each followed by ReLU and dropout."""
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
