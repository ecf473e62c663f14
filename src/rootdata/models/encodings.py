"""Numbers written as many, so that a network sees where in its distribution each of them lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootdata.errors import ConfigError

Edges = Tensor | npt.NDArray[np.float64]
"""(features, bins + 1), not falling, in the units of what is encoded."""


class PiecewiseLinear(nn.Module):
    """Write each feature as how far it has got through each bin: 1 in the bins below it, 0 in those above.

    The i-th of its numbers is ``clip((x - e[i]) / (e[i+1] - e[i]), 0, 1)``, with the edges ``e`` at quantiles of the
    training events: Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning",
    arXiv:2203.05556. Edges are part of a checkpoint, and of the exported graph.

    Parameters
    ----------
    features : length of the last axis of what is encoded
    bins : of every feature; one with fewer different values has numbers that are always 0
    """

    low: Tensor
    inverse: Tensor

    def __init__(self, features: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(features, bins))
        self.register_buffer("inverse", torch.zeros(features, bins))

    @property
    def is_set(self) -> bool:
        """Whether edges were given."""
        return bool((self.inverse != 0).any())

    def set_edges(self, edges: Edges) -> None:
        """Give the edges.

        Parameters
        ----------
        edges : a tensor or an array (features, bins + 1), not falling, in the units of what is encoded

        Raises
        ------
        ConfigError
            For edges of another shape.
        """
        wanted = (self.low.shape[0], self.low.shape[1] + 1)
        if tuple(edges.shape) != wanted:
            raise ConfigError(f"edges of an encoding: got shape {tuple(edges.shape)}; expected {wanted}")
        wide = torch.as_tensor(edges).double()
        widths = wide.diff(dim=1)
        inverse = torch.where(widths > 0, 1.0 / widths, torch.zeros_like(widths)).float()
        self.low.copy_(wide[:, :-1])
        self.inverse.copy_(torch.where(inverse.isfinite(), inverse, torch.zeros_like(inverse)))  # of a bin too narrow

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode (..., features), of which ``mask`` says what is real: (..., features * bins), 0 where nothing is."""
        parts = ((x.unsqueeze(-1) - self.low) * self.inverse).clamp(0.0, 1.0) * mask.unsqueeze(-1).to(x.dtype)
        return parts.flatten(start_dim=-2)


def edges_from(datamodule: Any, bins: int) -> Mapping[str, Edges]:
    """Ask a data module for the edges of its inputs, see :meth:`rootdata.RootDataModule.edges`.

    Raises
    ------
    ConfigError
        Where there is no :class:`rootdata.RootDataModule`.
    """
    if not hasattr(datamodule, "edges"):
        raise ConfigError(
            "the network needs quantiles of the training events, which a RootDataModule knows: give that to the "
            "trainer, or call the network's set_edges before the fit"
        )
    found: Mapping[str, Edges] = datamodule.edges(bins)
    return found
