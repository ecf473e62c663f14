"""A network that learns to give back what it gets, through few numbers: what it can't is unlike the training events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from rootdata.errors import ConfigError
from rootdata.models.classifier import check_layers, plain_shapes
from rootdata.options.data import OBSERVED, VARIED

LOSS = "loss"  # name of the anomaly score


class Autoencoder(pl.LightningModule):
    """Layers down to a few numbers and up again, over all values of an event, for layout ``vector`` or ``tokens``.

    What the masks call padding or missing is neither seen nor asked for: the loss of an event is the mean squared
    difference, in scaled units, over its real values. It is the anomaly score, too. No labels are needed.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    classes : not used: events may have labels, or none
    hidden : nodes of each layer from the inputs down; the way up has the same
    latent : numbers that an event is squeezed through
    lr, weight_decay : of Adam

    Attributes
    ----------
    mean_weight : mean size of the training events' weights, taken from the trainer's data module where that knows it

    Raises
    ------
    ConfigError
        If the shapes are those of another layout, or a number is out of its range.
    """

    logged: Mapping[str, str] = {"train/loss": "train", "val/loss": "val"}
    """Names of what is logged, and the part that it is computed of."""
    targets = (LOSS,)
    """Name of the column that an exported graph gives."""

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,  # noqa: ARG002 - every network of a configuration is told
        hidden: Sequence[int] = (128, 64),
        latent: int = 16,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        shapes, hidden = plain_shapes(shapes), [int(width) for width in hidden]
        self.parts = parts_of(shapes)
        if latent < 1:
            raise ConfigError(f"model.latent: got {latent}; an event is squeezed through one number or more")
        check_layers(hidden, 0.0, where="model.hidden")
        if not 0 < lr < math.inf:
            raise ConfigError(f"model.lr: got {lr}; expected a finite number above 0")
        if not 0 <= weight_decay < math.inf:
            raise ConfigError(f"model.weight_decay: got {weight_decay}; expected a finite number, 0 or more")
        self.save_hyperparameters()
        self.lr, self.weight_decay, self.mean_weight = lr, weight_decay, 1.0
        width = sum(math.prod(shapes[name]) for name in self.parts)
        self.encoder = _layers([2 * width, *hidden, latent])
        self.decoder = _layers([latent, *reversed(hidden), width])
        self.val_loss = MeanMetric()  # over all events of all ranks, each with its weight
        self.test_sums: ResidualsOfColumns | None = None

    def setup(self, stage: str) -> None:  # noqa: ARG002 - every stage needs the same
        """Ask the data module for the mean weight of the training events."""
        data: Any = getattr(self.trainer, "datamodule", None)
        self.bind(data)
        self.mean_weight = float(getattr(data, "mean_weight", self.mean_weight)) or 1.0

    def bind(self, data: Any) -> None:
        """Refuse targets, of which nothing would be learnt.

        Raises
        ------
        ConfigError
        """
        targets = list(getattr(data, "targets", ()))
        if targets:
            raise ConfigError(f"targets: got {targets[0]!r}; an autoencoder predicts its own inputs; leave targets out")

    def row(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Put all values of an event side by side, (B, width), 0 where none is, and mark which are real."""
        values = torch.cat([batch[name].flatten(start_dim=1) for name in self.parts], dim=1)
        real = torch.cat([_real(batch, *part).flatten(start_dim=1) for part in self.parts.items()], dim=1)
        return torch.where(real, values, torch.zeros_like(values)), real

    def decoded(self, values: Tensor, real: Tensor) -> Tensor:
        """Squeeze rows, and give back what comes out, (B, width).

        Parameters
        ----------
        values, real : (B, width), as :meth:`row` makes them
        """
        found: Tensor = self.decoder(self.encoder(torch.cat([values, real.to(values.dtype)], dim=1)))
        return found

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the loss of each event, (B, 1)."""
        values, real = self.row(batch)
        return losses_of(self.decoded(values, real), values, real).unsqueeze(1)

    def reconstruct(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give a batch back as the network sees it: its tensors by name, with the masks of the batch.

        ``RootDataModule.decode`` turns it into events in physical units, with as many objects as the batch has.
        """
        sizes = [math.prod(batch[name].shape[1:]) for name in self.parts]
        parts = torch.split(self.decoded(*self.row(batch)), sizes, dim=1)
        found = {name: part.reshape(batch[name].shape) for name, part in zip(self.parts, parts, strict=True)}
        return {**found, **{mask: batch[mask] for mask in self.parts.values() if mask is not None}}

    def deployed(self, outputs: Tensor) -> dict[str, Tensor]:
        """Turn outputs into what an exported graph gives: the loss of each event as a column of ``regression``."""
        return {"regression": outputs}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of one batch."""
        losses, weight = self(batch).squeeze(1), batch.get("weight")
        loss: Tensor = losses.mean() if weight is None else (losses * weight).mean() / self.mean_weight
        self.log(
            "train/loss", loss, batch_size=len(losses), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Add one batch to ``val/loss``."""
        losses = self(batch).squeeze(1)
        self.val_loss.update(losses, weight=batch.get("weight", torch.ones_like(losses)))
        self.log("val/loss", self.val_loss, batch_size=len(losses), on_epoch=True, prog_bar=True)

    def on_test_start(self) -> None:
        """Begin new sums, for the columns of the data where they are known."""
        data: Any = getattr(self.trainer, "datamodule", None)
        scanned = getattr(data, "scanned", None)
        self.test_sums = ResidualsOfColumns(scanned).to(self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return what :meth:`predict_step` does, and add the batch to the figures of the test."""
        values, real = self.row(batch)
        decoded = self.decoded(values, real)
        losses = losses_of(decoded, values, real)
        if self.test_sums is not None:
            self.test_sums.update(decoded, values, real, losses, batch.get("weight"))
        return _facts(batch, losses)

    def on_test_epoch_end(self) -> None:
        """Log ``test/loss``, and ``test/<feature>/rmse`` in physical units, of all ranks."""
        if self.test_sums is not None:
            for name, value in self.test_sums.compute().items():
                self.log(f"test/{name}", value.float(), sync_dist=True)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the loss of each event as ``predictions``, (B, 1), beside its ``label``, ``index``, ..."""
        return _facts(batch, self(batch).squeeze(1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


def parts_of(shapes: Mapping[str, Sequence[int]]) -> dict[str, str | None]:
    """Name the tensors whose values are to be given back, each with its mask; ``None`` where it has none.

    Raises
    ------
    ConfigError
        For shapes of another layout.
    """
    values = [name for name in shapes if not name.endswith("mask")]
    masks = {name: "mask" if name == "x" else f"{name}_mask" for name in values}
    known = {name: mask if mask in shapes else None for name, mask in masks.items()}
    bare = [name for name, mask in known.items() if mask is None and name != "flat"]
    if bare or not known:
        got = f"{bare[0]!r} without a mask" if bare else "nothing"
        raise ConfigError(
            f"Autoencoder needs a batch whose tensors have masks, which say what is real: got {got}; allowed: layouts "
            "'vector' and 'tokens'; set data.layout=vector or data.layout=tokens, and no other form"
        )
    return known


def losses_of(decoded: Tensor, values: Tensor, real: Tensor) -> Tensor:
    """Average the squared differences over the real values of each event, (B,); 0 for an event without any.

    Parameters
    ----------
    decoded, values : (B, width)
    real : (B, width) bool
    """
    squares = torch.where(real, decoded - values, torch.zeros_like(values)).square()
    return squares.sum(dim=1) / real.sum(dim=1).clamp(min=1)


class ResidualsOfColumns(Metric):
    """Weighted sums of squared residuals over all batches and ranks: of each feature in physical units, and of losses.

    Parameters
    ----------
    scanned : what is known of the data, :class:`rootdata.scan.scanned.Scanned`; without it there are the losses alone
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, scanned: Any = None) -> None:
        super().__init__()
        self._columns: list[str] = []
        self._transforms: Mapping[str, Any] = {}
        if scanned is not None:
            layout, self._transforms = scanned.layout, scanned.transforms
            self._columns += layout.flat
            self._columns += [b for c in layout.collections for _ in range(c.length) for b in c.branches]
        self._features = list(dict.fromkeys(self._columns))
        # weights, and what they multiply; the losses come last
        self.add_state("sums", torch.zeros((2, len(self._features) + 1), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, decoded: Tensor, values: Tensor, real: Tensor, losses: Tensor, weight: Tensor | None = None
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        decoded, values, real : (B, width), scaled
        losses : (B,)
        weight : (B,); 1 for each event where none is given
        """
        weights = torch.ones_like(losses) if weight is None else weight
        sizes = weights.detach().double().cpu().numpy()
        found, true, marks = (t.detach().cpu().numpy() for t in (decoded, values, real))
        made = np.zeros((2, len(self._features) + 1))
        for number, feature in enumerate(self._features):
            columns = [i for i, name in enumerate(self._columns) if name == feature]
            transform, there = self._transforms[feature], marks[:, columns]
            residual = (transform.invert(found[:, columns]) - transform.invert(true[:, columns]))[there]
            own = np.broadcast_to(sizes[:, None], there.shape)[there]
            made[:, number] = own.sum(), (own * residual**2).sum()
        made[:, -1] = sizes.sum(), (sizes * losses.detach().double().cpu().numpy()).sum()
        self.sums += torch.from_numpy(made).to(self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """Give ``loss``, and ``<feature>/rmse`` of every feature that had any value."""
        weights, sums = self.sums
        means = sums / weights
        roots = {f"{name}/rmse": means[i].clamp(min=0).sqrt() for i, name in enumerate(self._features) if weights[i]}
        return {LOSS: means[-1], **roots}


def _layers(widths: Sequence[int]) -> nn.Sequential:
    """Chain linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _real(batch: Mapping[str, Tensor], name: str, mask: str | None) -> Tensor:
    """Mark the real values of a tensor; all of them where it has no mask."""
    values = batch[name]
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    marks = batch[mask]
    return marks if marks.ndim == values.ndim else marks.unsqueeze(-1).expand_as(values)


def _facts(batch: Mapping[str, Tensor], losses: Tensor) -> dict[str, Tensor]:
    known = ("label", "weight", "index")
    found = {key: values for key, values in batch.items() if key in known or key.startswith((OBSERVED, VARIED))}
    return {"predictions": losses.unsqueeze(1), **found}
