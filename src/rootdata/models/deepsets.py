"""Deep sets: a network that does not care in which order the objects of a collection come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rootdata.errors import ConfigError
from rootdata.models.classifier import Classifier, mlp, plain_shapes
from rootdata.models.heads import plain_options


class DeepSets(Classifier):
    """One network per collection over its objects, their masked sum and mean, then one over the event.

    For ``layout="tokens"``. Padded objects have no influence, whatever they hold; an empty collection pools to zero.
    The idea: Zaheer et al., "Deep Sets", arXiv:1703.06114; in particle physics Komiske et al., arXiv:1810.05165.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``:
        ``{"flat": (13,), "jets": (10, 6), "jets_mask": (10,), ...}``; ``flat`` may be absent
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    phi : nodes of each layer of the networks over objects; the last is what gets pooled
    rho : nodes of each hidden layer of the network over the event
    dropout : probability to drop a node of ``rho`` in training
    lr, weight_decay : of Adam

    Raises
    ------
    ConfigError
        If the shapes are those of another layout.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        heads: Mapping[str, Any] | None = None,
        decorrelate: Mapping[str, Any] | None = None,
        phi: Sequence[int] = (64, 64),
        rho: Sequence[int] = (128, 64),
        dropout: float = 0.1,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(classes=classes, heads=heads, decorrelate=decorrelate, lr=lr, weight_decay=weight_decay)
        shapes, phi, rho = plain_shapes(shapes), [int(width) for width in phi], [int(width) for width in rho]
        heads, decorrelate = plain_options(heads), plain_options(decorrelate)
        self.save_hyperparameters()
        self.collections = find_collections(shapes)
        self.has_flat = "flat" in shapes
        self.phi = nn.ModuleList(mlp([shapes[name][1], *phi]) for name in self.collections)
        n_pooled = sum(2 * (phi or [shapes[name][1]])[-1] for name in self.collections)
        widths = [n_pooled + (shapes["flat"][0] if self.has_flat else 0), *rho]
        self.rho = nn.Sequential(*mlp(widths, dropout=dropout), nn.Linear(widths[-1], self.width))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two; of several heads (B, ``width``)."""
        parts = [batch["flat"]] if self.has_flat else []
        for name, phi in zip(self.collections, self.phi, strict=True):
            parts.append(pool(phi, batch[name], mask=batch[f"{name}_mask"]))
        logits: Tensor = self.rho(torch.cat(parts, dim=1))
        return self.shaped(logits)


def find_collections(shapes: Mapping[str, Sequence[int]], *, who: str = "DeepSets") -> list[str]:
    """Name the collections among the shapes, those that have a mask, for a network of some name."""
    check_padded(shapes, who=who)
    found = [key for key, shape in shapes.items() if f"{key}_mask" in shapes and len(shape) == 2]
    if not found:
        raise ConfigError(
            f"{who} needs a batch with collections and masks: got {', '.join(map(repr, shapes)) or 'nothing'}; "
            "allowed: layout 'tokens' with jagged branches; set data.layout=tokens, or model=dnn for layout 'vector'"
        )
    return found


def check_padded(shapes: Mapping[str, Sequence[int]], *, who: str) -> None:
    """Refuse collections without padding, for a network of some name that needs masks."""
    jagged = next((key for key in shapes if f"{key}_offsets" in shapes), None)
    if jagged is not None:
        raise ConfigError(
            f"{who} needs collections with masks of their objects: got {jagged!r} with offsets, form 'jagged'; set "
            f"data.layout=tokens, or data.jagged.{jagged}.form=tokens, or model=transformer, which takes both"
        )


def pool(phi: nn.Module, objects: Tensor, *, mask: Tensor) -> Tensor:
    """Sum and average what ``phi`` makes of the real objects.

    Parameters
    ----------
    phi : a network over the last axis
    objects : (B, length, features)
    mask : (B, length) bool, True where real

    Returns
    -------
    (B, twice the width of phi); zeros for an event without objects
    """
    real = mask.unsqueeze(-1)
    # Padding is blanked before phi as well: a NaN there would come back through the gradient.
    latent = phi(torch.where(real, objects, torch.zeros_like(objects)))
    total = torch.where(real, latent, torch.zeros_like(latent)).sum(dim=1)
    return torch.cat([total, total / real.sum(dim=1).clamp(min=1)], dim=1)
