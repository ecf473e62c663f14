"""What an epoch is made of for a model that reads the events by itself: so many rounds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from rootdata.loading.dataset import RootDataset


class Rounds:
    """The rounds of an epoch in the place of its batches; a place between two of them is one to go on from.

    Parameters
    ----------
    events : of the training part, which the model reads by itself
    count : rounds of an epoch
    """

    def __init__(self, events: RootDataset, count: int) -> None:
        self.events, self._count = events, count

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which events there are, and what of them is seen; as primitives."""
        return self.events.identity

    def read_amplification(self) -> float:
        """Return how often an event is read in an epoch by all ranks together."""
        return self.events.read_amplification()

    def __len__(self) -> int:
        return self._count

    def batches(self, epoch: int, *, start: int = 0) -> Iterator[torch.Tensor]:
        """Yield the numbers of the rounds of an epoch over all epochs, from number ``start`` of it on."""
        for number in range(start, self._count):
            yield torch.tensor(epoch * self._count + number)
