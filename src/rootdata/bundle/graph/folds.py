"""The models of all folds in one graph, in which each event is scored by the one that did not see it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rootdata.bundle.graph.deployed import Deployed


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
        found = tuple(chosen(torch.stack(output), fold) for output in zip(*parts, strict=True))
        return found[0] if len(found) == 1 else found


class FoldChoice(nn.Module):
    """The choice alone, between the scores that other graphs give.

    Parameters
    ----------
    chooses : whether the number of the fold is an input, the last one
    """

    def __init__(self, *, chooses: bool) -> None:
        super().__init__()
        self._chooses = chooses

    def forward(self, *given: Tensor) -> Tensor:
        """Take the scores of all folds, (events, columns) each; give those of each event's fold."""
        scores, fold = (given[:-1], given[-1]) if self._chooses else (given, None)
        return chosen(torch.stack(scores), fold)


def chosen(found: Tensor, fold: Tensor | None) -> Tensor:
    """Take what belongs to the fold of each event.

    Parameters
    ----------
    found : (folds, events, columns)
    fold : (events, 1) number of the fold, NaN, infinite or negative where it is not known; None where it never is

    Returns
    -------
    (events, columns), the mean where the fold is not known
    """
    mean = found.mean(dim=0)
    if fold is None:
        return mean
    unknown = torch.isnan(fold) | torch.isinf(fold) | (fold < 0)
    # as the expression does it, so that whoever sends tensors may send the number before the remainder
    number = torch.where(unknown, torch.zeros_like(fold), fold).to(torch.int64) % found.shape[0]
    index = number.reshape(1, -1, 1).expand(1, -1, found.shape[2])
    return torch.where(unknown, mean, torch.gather(found, 0, index)[0])
