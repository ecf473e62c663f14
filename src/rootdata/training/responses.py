"""How well numbers were predicted: residuals, responses, and both over the true value."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.errors import DataError
from rootdata.training.pictures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

FIGURES = ("rmse", "mae", "bias", "resolution")
BINS = 40  # of the response
SLICES = 12  # of the true value, with equally many events in each
SHOWN = (0.0, 2.0)  # of the response


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """The test events of regressions.

    Attributes
    ----------
    predicted, true : (n, targets), physical values
    weight : (n,)
    names : of the targets
    units : of the targets, empty where one is not known
    """

    predicted: Floats
    true: Floats
    weight: Floats
    names: tuple[str, ...]
    units: tuple[str, ...] = ()

    def in_units(self, text: str, column: int) -> str:
        """Put the unit of a target behind a text, where it is known."""
        unit = self.units[column] if column < len(self.units) else ""
        return f"{text} [{unit}]" if unit else text


def figure_names(targets: Sequence[str]) -> list[dict[str, str]]:
    """Return how the figures of each target are called: ``rmse``, or ``mass/rmse`` where there are several targets.

    Examples
    --------
    >>> figure_names(["mass"])[0]["rmse"], figure_names(["mass", "pt"])[1]["bias"]
    ('rmse', 'pt/bias')
    """
    return [{figure: figure if len(targets) == 1 else f"{name}/{figure}" for figure in FIGURES} for name in targets]


def collect(
    batches: Sequence[Mapping[str, NDArray[Any]]], *, names: Sequence[str], units: Mapping[str, str] = {}
) -> Predicted:
    """Join batches.

    Parameters
    ----------
    batches : at least one, with ``predictions`` and ``targets`` (n, targets), and ``weight`` (n,) where there is one
    names : of the targets; those without one are called by their number
    units : name of a target to its unit, of those that have one

    Raises
    ------
    DataError
        For predictions that are not finite.
    """
    predicted, true = (
        np.concatenate([batch[key] for batch in batches]).astype(np.float64) for key in ("predictions", "targets")
    )
    n_bad = int((~np.isfinite(predicted)).any(axis=1).sum())
    if n_bad:
        raise DataError(
            f"test predictions: got {n_bad} of {len(predicted)} that are not finite; training has probably diverged; "
            "try a smaller model.lr"
        )
    weight = np.concatenate([batch.get("weight", np.ones(len(batch["predictions"]))) for batch in batches])
    named = (*map(str, names), *(f"target {i}" for i in range(len(names), predicted.shape[1])))
    own = tuple(units.get(name, "") for name in named)
    return Predicted(predicted=predicted, true=true, weight=weight.astype(np.float64), names=named, units=own)


def figures_of(residual: Floats, weight: Floats) -> dict[str, float | None]:
    """Give the figures of residuals (n,): their root mean square, mean size, mean and spread; None without weight."""
    total = weight.sum()
    if not total:
        return dict.fromkeys(FIGURES)
    bias, second = (float((weight * part).sum() / total) for part in (residual, residual**2))
    size = float((weight * np.abs(residual)).sum() / total)
    spread = max(second - bias**2, 0.0) ** 0.5
    return {"rmse": max(second, 0.0) ** 0.5, "mae": size, "bias": bias, "resolution": spread}


def summarise(events: Predicted) -> dict[str, Any]:
    """Return what ``metrics.json`` holds of regressions."""
    found: dict[str, Any] = {"events": len(events.weight), "weighted": bool((events.weight != 1).any())}
    for column, names in enumerate(figure_names(events.names)):
        figures = figures_of(events.predicted[:, column] - events.true[:, column], events.weight)
        found |= {names[figure]: value for figure, value in figures.items()}
    return found


def response_of(events: Predicted, column: int) -> tuple[Floats, Floats]:
    """Return predicted over true value of a target, and the weights, of the events whose true value is not 0."""
    true = events.true[:, column]
    rows = true != 0
    return events.predicted[rows, column] / true[rows], events.weight[rows]


def slices_of(events: Predicted, column: int) -> list[dict[str, Any]]:
    """Describe a target in slices of its true value: the edges, the number of events, and the figures."""
    true = events.true[:, column]
    edges = np.unique(np.quantile(true, np.linspace(0, 1, min(SLICES, len(true)) + 1)))
    where = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        rows = where == i
        residual = events.predicted[rows, column] - true[rows]
        sizes = {"low": float(low), "high": float(high), "events": int(rows.sum())}
        found.append({**sizes, **figures_of(residual, events.weight[rows])})
    return found


def to_dict(events: Predicted) -> dict[str, Any]:
    """Return what ``responses.json`` holds: of each target the figures, the response, and the figures in slices."""
    edges = np.linspace(*SHOWN, BINS + 1)
    found = {}
    for column, name in enumerate(events.names):
        response, weight = response_of(events, column)
        residual = events.predicted[:, column] - events.true[:, column]
        found[name] = {
            **figures_of(residual, events.weight),
            "response": np.histogram(response, edges, weights=weight)[0].tolist(),
            "beyond": beyond(response, weight),
            "slices": slices_of(events, column),
        }
    return {"edges": edges.tolist(), "targets": found}


def beyond(response: Floats, weight: Floats) -> tuple[float, float]:
    """Add up the weights below and above the responses that are shown."""
    return float(weight[response < SHOWN[0]].sum()), float(weight[response > SHOWN[1]].sum())


def draw(events: Predicted) -> Figure:
    """Draw for each target the distribution of the response, and bias and resolution over the true value."""
    figure, panels = new_figure(2 * len(events.names))
    for column, name in enumerate(events.names):
        left, right = panels[2 * column : 2 * column + 2]
        response, weight = response_of(events, column)
        counts, edges = np.histogram(response, BINS, SHOWN, weights=weight)
        left.stairs(counts, edges, color=COLOURS[0], lw=1.8)
        left.axvline(1, color="0.6", ls="--", lw=1.2)
        left.set(xlim=SHOWN)
        left.set_xlabel(f"{name}: predicted / true", fontsize=13, loc="right")
        outside = sum(beyond(response, weight))
        if outside:
            share = outside / float(weight.sum() or 1.0)
            left.set_title(f"{share:.1%} of the events lie outside", fontsize=11, loc="right")
        left.set_ylabel("Events", fontsize=13, loc="top")
        slices = [one for one in slices_of(events, column) if one["bias"] is not None]
        middle = [(one["low"] + one["high"]) / 2 for one in slices]
        for key, colour in (("bias", COLOURS[2]), ("resolution", COLOURS[1])):
            right.plot(middle, [one[key] for one in slices], color=colour, marker="o", lw=1.5, label=key)
        right.axhline(0, color="0.6", ls="--", lw=1.2)
        right.set_xlabel(events.in_units(f"True {name}", column), fontsize=13, loc="right")
        right.set_ylabel(events.in_units("Predicted - true", column), fontsize=13, loc="top")
        right.legend(frameon=False, fontsize=11)
    return figure
