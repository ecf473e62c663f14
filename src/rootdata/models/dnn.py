"""A multilayer perceptron over one row of features per event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rootdata.errors import ConfigError
from rootdata.models.classifier import Classifier, mlp, plain_shapes
from rootdata.models.heads import plain_options


class DNN(Classifier):
    """Fully connected layers with ReLU and dropout, for ``layout="vector"``.

    The defaults are the network of the ttH(bb) analysis in the MLaaS4HEP paper: 128 and 64 nodes, dropout 0.5.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``: ``{"x": (87,), ...}``
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    hidden : nodes of each hidden layer
    dropout : probability to drop a node of a hidden layer in training
    use_mask : append the mask to the features, so that padding and a real value at ``pad`` differ
    lr, weight_decay : of Adam

    Raises
    ------
    ConfigError
        If the shapes are those of another layout, or a mask is asked for that the batches don't have.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        heads: Mapping[str, Any] | None = None,
        decorrelate: Mapping[str, Any] | None = None,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.5,
        use_mask: bool = False,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(classes=classes, heads=heads, decorrelate=decorrelate, lr=lr, weight_decay=weight_decay)
        shapes, hidden = plain_shapes(shapes), [int(width) for width in hidden]
        heads, decorrelate = plain_options(heads), plain_options(decorrelate)
        self.save_hyperparameters()
        self.use_mask = use_mask
        widths = [n_inputs(shapes, use_mask=use_mask), *hidden]
        self.network = nn.Sequential(*mlp(widths, dropout=dropout), nn.Linear(widths[-1], self.width))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two; of several heads (B, ``width``)."""
        x = batch["x"]
        if self.use_mask:
            x = torch.cat([x, batch["mask"].to(x.dtype)], dim=1)
        logits: Tensor = self.network(x)
        return self.shaped(logits)


def n_inputs(shapes: Mapping[str, Sequence[int]], *, use_mask: bool) -> int:
    """Count the inputs of the first layer."""
    if len(shapes.get("x", ())) != 1:
        raise ConfigError(
            f"DNN needs a batch with one row 'x' per event: got {', '.join(map(repr, shapes)) or 'nothing'}; "
            "allowed: layout 'vector'; set data.layout=vector, or model=deepsets for layout 'tokens'"
        )
    if use_mask and "mask" not in shapes:
        raise ConfigError("model.use_mask: got true; the batches have no 'mask'; set model.use_mask=false")
    return int(shapes["x"][0]) * (2 if use_mask else 1)
