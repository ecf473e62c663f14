"""What a model says of some events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import nearest

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scores:
    """The scores of some events, in their order.

    Parameters
    ----------
    model, version : that gave them
    columns : names of the scores of an event: ``("signal",)`` for two classes, every class for more
    scores : (events, columns) float32
    explain : for each event what is outside the training range, cut off or missing, where that was asked for
    """

    model: str
    version: int
    columns: tuple[str, ...]
    scores: Floats
    explain: tuple[Mapping[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, column: str) -> Floats:
        """Return one column, (events,) float32."""
        if column not in self.columns:
            raise KeyError(f"column {column!r} not found; {nearest(column, self.columns)}")
        return self.scores[:, self.columns.index(column)]


def join(parts: Sequence[Scores]) -> Scores:
    """Put the scores of one model's events one after the other."""
    if len(parts) == 1:
        return parts[0]
    told = None if parts[0].explain is None else tuple(event for part in parts for event in part.explain or ())
    return dataclasses.replace(parts[0], scores=np.concatenate([part.scores for part in parts]), explain=told)


def stacked(columns: Mapping[str, Any]) -> tuple[tuple[str, ...], Floats]:
    """Put columns beside each other: names, and (events, columns) float32."""
    return tuple(columns), np.stack([np.asarray(values, np.float32) for values in columns.values()], axis=1)
