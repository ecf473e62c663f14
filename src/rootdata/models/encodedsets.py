"""A network that sees objects as objects, and each of their features by its quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rootdata.models.classifier import plain_shapes
from rootdata.models.deepsets import find_collections
from rootdata.models.encoded import EncodedClassifier, head
from rootdata.models.heads import plain_options


class EncodedSets(EncodedClassifier):
    """Encoded features, one network per collection over its objects, their sum and maximum, then one over the event.

    For ``layout="tokens"``. It is to :class:`rootdata.models.deepsets.DeepSets` as :class:`rootdata.models.mlp.MLP` to
    a plain multilayer perceptron. Padded objects have no influence; an empty collection pools to zero.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``; ``flat`` may be absent
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    bins : quantile bins of every feature
    latent : numbers that an object becomes
    hidden : nodes of each hidden layer of the network over the event
    dropout : probability to drop a node of those in training; a quarter of it in the networks over objects
    lr : highest step size of AdamW
    weight_decay : of AdamW

    Raises
    ------
    ConfigError
        If the shapes are those of another layout, or a number is out of its range.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        heads: Mapping[str, Any] | None = None,
        decorrelate: Mapping[str, Any] | None = None,
        bins: int = 32,
        latent: int = 64,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.4,
        lr: float = 2e-3,
        weight_decay: float = 0.1,
    ) -> None:
        shapes, hidden = plain_shapes(shapes), [int(width) for width in hidden]
        collections = find_collections(shapes, who="EncodedSets")
        names = [*(["flat"] if "flat" in shapes else []), *collections]
        features = {name: shapes[name][-1] for name in names}
        super().__init__(
            features, classes=classes, heads=heads, decorrelate=decorrelate, bins=bins, lr=lr, weight_decay=weight_decay
        )
        heads, decorrelate = plain_options(heads), plain_options(decorrelate)
        self.save_hyperparameters()
        self.collections, self.has_flat = collections, "flat" in shapes
        self.lengths = {name: shapes[name][0] for name in collections}
        self.objects = nn.ModuleList(
            nn.Sequential(
                nn.Linear(self.width_of(name), 2 * latent),
                nn.SiLU(),
                nn.Dropout(dropout / 4),
                nn.Linear(2 * latent, latent),
                nn.SiLU(),
            )
            for name in collections
        )
        inputs = 2 * latent * len(collections) + (self.width_of("flat") if self.has_flat else 0)
        self.network = head(inputs, hidden, self.width, dropout=dropout)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two; of several heads (B, ``width``)."""
        parts = []
        if self.has_flat:
            flat = batch["flat"]
            parts.append(self.encoded("flat", flat, torch.ones_like(flat)))
        for name, network in zip(self.collections, self.objects, strict=True):
            there = batch[f"{name}_mask"].unsqueeze(-1)
            values = torch.where(there, batch[name], torch.zeros_like(batch[name]))
            parts += sum_and_maximum(
                network(self.encoded(name, values, there.expand_as(values))), there, self.lengths[name]
            )
        logits: Tensor = self.network(torch.cat(parts, dim=1))
        return self.shaped(logits)


def sum_and_maximum(latent: Tensor, there: Tensor, length: int) -> list[Tensor]:
    """Take sum and maximum over the objects that are there.

    Parameters
    ----------
    latent : (B, objects, width)
    there : (B, objects, 1) bool
    length : what the sum is divided by, so that it is about 1; the same for every event

    Returns
    -------
    two of (B, width); zeros for an event without objects
    """
    total = torch.where(there, latent, torch.zeros_like(latent)).sum(dim=1) / length
    highest = torch.where(there, latent, torch.full_like(latent, -torch.inf)).amax(dim=1)
    return [total, torch.where(there.any(dim=1), highest, torch.zeros_like(highest))]
