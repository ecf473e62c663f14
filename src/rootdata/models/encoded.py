"""What networks share that encode their inputs by quantiles: where the edges come from, and how they are trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from rootdata.errors import ConfigError
from rootdata.models.classifier import Classifier, check_layers
from rootdata.models.encodings import Edges, PiecewiseLinear, edges_from

FAR = 4.0  # beyond which a scaled value is cut off
WARM_UP = 0.1  # of all steps
FIRST, LAST = 1 / 25, 1e-5  # of the highest step size


class EncodedClassifier(Classifier):
    """A classifier whose inputs are encoded; a subclass gives ``forward``, and makes its layers.

    It is trained by AdamW with one cycle of the step size: up to ``lr`` in the first tenth of all steps, down to
    nothing at the end.

    Parameters
    ----------
    features : input tensor to the length of its last axis, of all that are encoded
    classes : how many; two of them give one logit
    heads : what is predicted, as :class:`rootdata.models.classifier.Classifier` takes it; a classification by default
    decorrelate : what the score must not depend on, as that takes it
    bins : quantile bins of every input
    lr : highest step size of AdamW
    weight_decay : of AdamW

    Raises
    ------
    ConfigError
        For a number out of its range.
    """

    def __init__(
        self,
        features: Mapping[str, int],
        *,
        classes: int,
        heads: Mapping[str, Any] | None,
        decorrelate: Mapping[str, Any] | None,
        bins: int,
        lr: float,
        weight_decay: float,
    ) -> None:
        super().__init__(classes=classes, heads=heads, decorrelate=decorrelate, lr=lr, weight_decay=weight_decay)
        if bins < 1:
            raise ConfigError(f"model.bins: got {bins}; expected the number of quantile bins of a feature, 1 or more")
        self.bins, self.features = bins, tuple(features)
        # a plain "items" or "keys" is taken
        self.encodings = nn.ModuleDict({f"of_{name}": PiecewiseLinear(n, bins) for name, n in features.items()})

    def setup(self, stage: str) -> None:
        """Take the edges of the bins from the data module before a fit; see :meth:`Classifier.setup`."""
        super().setup(stage)
        if stage == "fit" and not any(self._encoding(name).is_set for name in self.features):
            self.set_edges(edges_from(getattr(self.trainer, "datamodule", None), self.bins))

    def set_edges(self, edges: Mapping[str, Edges]) -> None:
        """Give the edges of the bins, for a fit without a data module.

        Parameters
        ----------
        edges : input tensor to (features, bins + 1), in the units of the batches
        """
        for name in self.features:
            self._encoding(name).set_edges(edges[name])

    def encoded(self, name: str, values: Tensor, mask: Tensor) -> Tensor:
        """See an input in two ways: in its bins, and as it is, cut off at +-4.

        Parameters
        ----------
        name : of the input tensor
        values : (..., features)
        mask : of the same shape, True where a value is real

        Returns
        -------
        (..., features * (bins + 1))
        """
        return torch.cat([self._encoding(name)(values, mask), values.clamp(-FAR, FAR)], dim=-1)

    def width_of(self, name: str) -> int:
        """Return how many numbers an input becomes."""
        return len(self._encoding(name).low) * (self.bins + 1)

    def _encoding(self, name: str) -> PiecewiseLinear:
        return cast("PiecewiseLinear", self.encodings[f"of_{name}"])

    def configure_optimizers(self) -> Any:
        """Make AdamW, and the cycle of its step size where it is known how many steps there will be."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            return optimizer
        cycle = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, int(steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def head(inputs: int, hidden: Sequence[int], outputs: int, *, dropout: float) -> nn.Sequential:
    """Chain linear layers with batch normalisation, SiLU and dropout, and one that gives the outputs.

    Parameters
    ----------
    inputs : of the first layer
    hidden : nodes of each hidden layer
    outputs : of the last layer
    dropout : probability to drop a node of a hidden layer in training

    Raises
    ------
    ConfigError
        As :func:`rootdata.models.classifier.check_layers`.
    """
    check_layers(hidden, dropout, where="model.hidden")
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden]):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear([inputs, *hidden][-1], outputs))


def one_cycle(step: int, steps: int) -> float:
    """Say which part of the highest step size a step takes: up by half a cosine, and down by the other half.

    Smith and Topin, "Super-Convergence", arXiv:1708.07120.

    Parameters
    ----------
    step : from 0
    steps : of the whole training

    Examples
    --------
    >>> [round(one_cycle(step, 100), 3) for step in (0, 5, 10, 55, 100)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    turn = max(1.0, WARM_UP * steps)
    if step < turn:
        return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * step / turn)) / 2
    done = min(1.0, (step - turn) / max(1.0, steps - turn))
    return LAST + (1 - LAST) * (1 + math.cos(math.pi * done)) / 2
