"""A network for tables: every feature is encoded by its quantiles before the first layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rootdata.errors import ConfigError
from rootdata.models.classifier import plain_shapes
from rootdata.models.encoded import EncodedClassifier, head
from rootdata.models.heads import plain_options


class MLP(EncodedClassifier):
    """Piecewise-linear encoding, then layers with batch normalisation, SiLU and dropout, for ``layout="vector"``.

    Every input is seen three ways: as it is; in quantile bins (see :class:`rootdata.models.encodings.PiecewiseLinear`);
    and by its mask.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``: ``{"x": (87,), ...}``
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    bins : quantile bins of every input
    hidden : nodes of each hidden layer
    dropout : probability to drop a node of a hidden layer in training
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
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.4,
        lr: float = 2e-3,
        weight_decay: float = 0.1,
    ) -> None:
        shapes, hidden = plain_shapes(shapes), [int(width) for width in hidden]
        if len(shapes.get("x", ())) != 1 or "mask" not in shapes:
            raise ConfigError(
                f"MLP needs a batch with one row 'x' and its 'mask' per event: got "
                f"{', '.join(map(repr, shapes)) or 'nothing'}; allowed: layout 'vector'; set data.layout=vector, "
                "or model=encodedsets for layout 'tokens'"
            )
        features = shapes["x"][0]
        super().__init__(
            {"x": features},
            classes=classes,
            heads=heads,
            decorrelate=decorrelate,
            bins=bins,
            lr=lr,
            weight_decay=weight_decay,
        )
        heads, decorrelate = plain_options(heads), plain_options(decorrelate)
        self.save_hyperparameters()
        self.network = head(self.width_of("x") + features, hidden, self.width, dropout=dropout)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two; of several heads (B, ``width``)."""
        x, mask = batch["x"], batch["mask"]
        logits: Tensor = self.network(torch.cat([self.encoded("x", x, mask), mask.to(x.dtype)], dim=1))
        return self.shaped(logits)
