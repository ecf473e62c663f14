"""Which class is taken for which: the confusion matrix of a classifier with more than two classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.training.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """The weights of events by their label and by the class that is likeliest.

    Attributes
    ----------
    weights : (classes, classes); a row for each label, a column for each class that was guessed
    classes : their names
    """

    weights: Floats
    classes: tuple[str, ...]

    @property
    def shares(self) -> Floats:
        """Share of each label's weight, (classes, classes): rows add up to 1; NaN for a label without weight."""
        totals = self.weights.sum(axis=1, keepdims=True)
        shares: Floats = np.divide(self.weights, totals, out=np.full_like(self.weights, np.nan), where=totals != 0)
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        shares = [[None if np.isnan(share) else float(share) for share in row] for row in self.shares]
        return {"classes": list(self.classes), "weights": self.weights.tolist(), "shares": shares}


def count(score: NDArray[Any], label: NDArray[Any], *, weight: NDArray[Any], classes: Sequence[str]) -> Confusion:
    """Add up the weights of events.

    Parameters
    ----------
    score : (n, classes)
    label : (n,) class numbers
    weight : (n,)
    classes : names

    Examples
    --------
    >>> count(np.eye(3), np.array([0, 1, 1]), weight=np.ones(3), classes="abc").weights.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    n = score.shape[1]
    cells = label.astype(np.int64) * n + score.argmax(axis=1)
    found = np.bincount(cells, weight.astype(np.float64), minlength=n * n).astype(np.float64)
    return Confusion(weights=found.reshape(n, n), classes=tuple(map(str, classes)))


def draw(table: Confusion) -> Figure:
    """Draw the shares, a row for each label, with their numbers."""
    figure, (axes,) = new_figure()
    shares, n = table.shares, len(table.classes)
    axes.imshow(np.nan_to_num(shares), vmin=0, vmax=1, cmap="Blues")
    for row in range(n):
        for column in range(n):
            share = shares[row, column]
            written, colour = (
                ("-", "black") if np.isnan(share) else (f"{share:.3f}", "white" if share > 0.5 else "black")
            )
            axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=11)
    axes.minorticks_off()
    axes.set_xticks(range(n), table.classes)
    axes.set_yticks(range(n), table.classes)
    axes.set_xlabel("Likeliest class", fontsize=13, loc="right")
    axes.set_ylabel("Class", fontsize=13, loc="top")
    return figure
