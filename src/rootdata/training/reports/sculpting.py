"""How a cut on the score bends the distribution of a column in background: what a decorrelated network does not do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.options.data import OBSERVED
from rootdata.training.pictures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

KEPT = 0.1  # of the background, by the cut
BINS = 20  # of the column, with as much background in each


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sculpting:
    """A column of background events before and after a cut on the score.

    Attributes
    ----------
    edges : (bins + 1,) with as much background in each bin before the cut
    before, after : (bins,) shares of the background, adding up to 1; nothing where a bin adds up to less than 0
    divergence : Jensen and Shannon's, of ``before`` and ``after``, in bits: 0 where they are the same, 1 at most
    threshold : of the cut ``score >= threshold``, which keeps :data:`KEPT` of the background
    events : before and after the cut
    """

    edges: Floats
    before: Floats
    after: Floats
    divergence: float
    threshold: float
    events: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = dataclasses.asdict(self)
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Sculpting:
        """Rebuild what :meth:`to_dict` gave."""
        arrays = {name: np.asarray(plain[name], np.float64) for name in ("edges", "before", "after")}
        return cls(**{**plain, **arrays, "events": tuple(plain["events"])})


def divergence(one: Floats, other: Floats) -> float:
    """Compute the Jensen-Shannon divergence of two distributions over the same bins, in bits.

    Lin, IEEE Transactions on Information Theory 37 (1991) 145.

    Examples
    --------
    >>> divergence(np.array([0.5, 0.5]), np.array([0.5, 0.5])), divergence(np.array([1.0, 0]), np.array([0, 1.0]))
    (0.0, 1.0)
    """
    middle = (one + other) / 2
    return float((_relative(one, middle) + _relative(other, middle)) / 2)


def _relative(one: Floats, other: Floats) -> float:
    some = one > 0
    return float((one[some] * np.log2(one[some] / other[some])).sum())


def measure(score: Floats, column: Floats, *, weight: Floats) -> Sculpting | None:
    """Compare a column before and after the cut that keeps a tenth of the events.

    Parameters
    ----------
    score : (n,) higher is more like signal
    column : (n,); events where it is not finite are left out
    weight : (n,) of any sign

    Returns
    -------
    ``None`` where there are too few events, or their weights have no positive sum
    """
    known = np.isfinite(column)
    score, column, weight = score[known], column[known].astype(np.float64), weight[known]
    if not weight.sum() > 0:
        return None
    threshold = _threshold(score, weight)
    edges = _edges(column, np.abs(weight))
    passes = score >= threshold
    before, after = (_shares(column[rows], weight[rows], edges) for rows in (np.ones(len(score), bool), passes))
    if len(edges) < 3 or before is None or after is None:
        return None
    return Sculpting(
        edges=edges, before=before, after=after, divergence=divergence(before, after), threshold=threshold,
        events=(len(score), int(passes.sum())),
    )  # fmt: skip


def _threshold(score: Floats, weight: Floats) -> float:
    order = np.argsort(-score, kind="stable")
    reached = np.cumsum(weight[order]) >= KEPT * weight.sum()
    return float(score[order][int(np.argmax(reached))])


def _edges(column: Floats, size: Floats) -> Floats:
    """Return edges with as much of the sizes in each bin; fewer where values are equal."""
    order = np.argsort(column, kind="stable")
    along = np.cumsum(size[order]) / size.sum()
    places = np.searchsorted(along, np.linspace(0, 1, BINS + 1)[1:-1])
    inner = column[order][np.minimum(places, len(column) - 1)]
    return np.unique(np.concatenate([[column.min()], inner, [column.max()]]))


def _shares(column: Floats, weight: Floats, edges: Floats) -> Floats | None:
    counts = np.clip(np.histogram(column, edges, weights=weight)[0], 0.0, None)
    return counts / counts.sum() if counts.sum() > 0 else None


def measure_all(
    batches: Sequence[Mapping[str, NDArray[Any]]], *, columns: Sequence[str], labels: Sequence[int]
) -> dict[str, Sculpting]:
    """Measure every column of the tested events of some classes, where that can be.

    Parameters
    ----------
    batches : with ``score`` (n,) or (n, classes), ``label``, observers, and ``weight`` where there is one
    columns : names of observers
    labels : class numbers of the events that are background
    """
    keys = ["score", "label", *(f"{OBSERVED}{name}" for name in columns)]
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in keys}
    rows = np.isin(joined["label"], list(labels))
    weight = np.concatenate([batch.get("weight", np.ones(len(batch["label"]))) for batch in batches])[rows]
    score = joined["score"][rows].astype(np.float64)
    if score.ndim == 2:  # what is no background
        score = 1.0 - score[:, list(labels)].sum(axis=1)
    columns_of = {name: joined[f"{OBSERVED}{name}"][rows].astype(np.float64) for name in columns}
    found = {n: measure(score, column, weight=weight.astype(np.float64)) for n, column in columns_of.items()}
    return {name: one for name, one in found.items() if one is not None}


def draw(found: Mapping[str, Sculpting]) -> Figure:
    """Draw each column of background before and after the cut, a panel each."""
    figure, panels = new_figure(len(found))
    for axes, (name, one) in zip(panels, found.items(), strict=True):
        draw_one(axes, one, name=name)
    return figure


def draw_one(axes: Axes, one: Sculpting, *, name: str, title: str = "") -> None:
    """Draw a column before and after the cut, as densities.

    Parameters
    ----------
    axes : of matplotlib
    one : the column
    name : its own
    title : over the panel
    """
    widths = np.diff(one.edges)
    axes.stairs(one.before / widths, one.edges, fill=True, color=(COLOURS[0], 0.3), label="all background")
    axes.stairs(one.after / widths, one.edges, color=COLOURS[2], lw=1.8, label=f"the {KEPT:.0%} most like signal")
    low, high = one.edges[[0, -1]]
    axes.set(xlim=(low, min(high, one.edges[-2] + 4 * np.median(widths))), ylim=(0, None))
    axes.set_ylim(top=axes.get_ylim()[1] * 1.15)
    axes.set_xlabel(name, fontsize=13, loc="right")
    axes.set_ylabel("Density of background", fontsize=13, loc="top")
    axes.legend(frameon=False, fontsize=11, title=f"divergence {one.divergence:.4f} bits", title_fontsize=11)
    axes.set_title(title, fontsize=12, loc="left")
