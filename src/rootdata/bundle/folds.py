"""The networks of all folds in one graph, in which each event is scored by the one that did not see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rootdata.bundle.deployed import Deployed


class DeployedFolds(nn.Module):
    """What is exported of all folds: their networks, each with its own scaling, and the choice between them.

    Where the last input, the number of the fold, has no value, or a negative one, the mean of all networks is given; so
    it is for every event where there is no such input.

    Parameters
    ----------
    members : the networks with their preprocessing, in the order of the folds
    chooses : whether the number of the fold is an input
    """

    def __init__(self, members: Sequence[Deployed], *, chooses: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._chooses = chooses

    def forward(self, *raw: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Give the scores, (events, columns) float32; of several outputs each."""
        shared, fold = (raw[:-1], raw[-1]) if self._chooses else (raw, None)
        given = [member(*shared) for member in self.members]
        parts = [one if isinstance(one, tuple) else (one,) for one in given]
        chosen = tuple(self._chosen(torch.stack(output), fold) for output in zip(*parts, strict=True))
        return chosen[0] if len(chosen) == 1 else chosen

    def scores(self, batches: Sequence[dict[str, Tensor]], fold: Tensor | None) -> Tensor:
        """Give the scores of events, (events, columns) float32, as training makes the batches of each fold.

        Parameters
        ----------
        batches : the same events as each fold's network takes them
        fold : (events, 1) number of the fold, NaN where it is not known
        """
        found = [member.scores(batch) for member, batch in zip(self.members, batches, strict=True)]  # type: ignore[operator]
        return self._chosen(torch.stack(found), fold if self._chooses else None)

    def _chosen(self, found: Tensor, fold: Tensor | None) -> Tensor:
        """Take of (folds, events, columns) what belongs to the fold of each event."""
        mean = found.mean(dim=0)
        if fold is None:
            return mean
        unknown = torch.isnan(fold) | torch.isinf(fold) | (fold < 0)
        # as the expression does it, so that whoever sends tensors may send the number before the remainder
        number = torch.where(unknown, torch.zeros_like(fold), fold).to(torch.int64) % len(self.members)
        index = number.reshape(1, -1, 1).expand(1, -1, found.shape[2])
        return torch.where(unknown, mean, torch.gather(found, 0, index)[0])
