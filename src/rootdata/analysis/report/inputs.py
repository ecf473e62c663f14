"""What the inputs are, and how much of the result hangs on each: distributions, permutations, gradients.

Computed at the test, from some of its events; what is drawn later is drawn from the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.analysis.report.canvas import MUTED, Canvas, Numbers, colours, fill, fitting_size, normalised
from rootdata.errors import ConfigError, ShapeError
from rootdata.options.data import TARGETS
from rootdata.training import metrics
from rootdata.training.pictures import in_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from rootdata.layouts.layout import Layout

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
Ask = Callable[[Mapping[str, Any]], Mapping[str, NDArray[Any]]]
"""Gives what the network predicts of a batch of arrays."""

MOST_BYTES = 64 << 20  # of the events that are kept
AT_ONCE = 4096  # events that the network is asked of
SEED = 21  # of the permutations
SHOWN = 30  # rows of a picture, panels of another; the numbers have all
BINS = 40
WHOLE = 1e-3  # by which whole numbers may be off, once they were scaled and back
EXPLAINED = 500  # events whose gradients are followed
STEPS = 200  # of the path; piecewise linear networks have kinks


class Sampled:
    """Some of the test events with their inputs: every so-manyth, so that all samples are among them.

    Parameters
    ----------
    wanted : events at most; fewer where they are large
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self._kept: list[Columns] = []
        self._share = 0.0  # of all events
        self._seen = 0
        self._left = 0

    def add(self, batch: Any, *, expected: float, to_array: Callable[[Any], NDArray[Any]]) -> None:
        """Keep some events of a batch.

        Parameters
        ----------
        batch : of the data module; one that is no mapping of tensors with an event on each row is passed over
        expected : events of all batches
        to_array : brings a tensor to numpy
        """
        if not self.wanted or not isinstance(batch, Mapping) or "label" not in batch:
            return
        n = len(batch["label"])
        # Objects one behind the other can be as many as events by chance.
        is_jagged = {key: f"{key.removesuffix('_mask')}_offsets" in batch for key in batch}
        rows = {key: values for key, values in batch.items() if not is_jagged[key] and _is_by_row(values, n)}
        if not self._share:
            size = sum(values[:1].nbytes for values in rows.values()) or 1
            most = max(min(self.wanted, MOST_BYTES // size), 1)
            self._share = min(most / max(expected, 1.0), 1.0) if np.isfinite(expected) else 1.0
            self._left = most
        counted = np.floor((self._seen + np.arange(n + 1)) * self._share)
        chosen = np.flatnonzero(np.diff(counted))[: self._left]
        self._seen, self._left = self._seen + n, self._left - len(chosen)
        if len(chosen):
            self._kept.append({key: to_array(values)[chosen] for key, values in rows.items()})

    def columns(self) -> Columns:
        """Return the events that were kept."""
        if not self._kept:
            return {}
        return {key: np.concatenate([kept[key] for kept in self._kept]) for key in self._kept[0]}


def _is_by_row(values: Any, n: int) -> bool:
    is_tensor = hasattr(values, "nbytes") and not getattr(values, "is_nested", False)
    return is_tensor and getattr(values, "ndim", 0) > 0 and len(values) == n


# Distributions


def distributions(data: Any, columns: Columns, *, classes: Sequence[str]) -> dict[str, Numbers]:
    """Fill the values of every feature of each class, in physical units and as the network gets them.

    Parameters
    ----------
    data : a data module
    columns : of the events
    classes : their names; where no event is of a class, as of regressions alone, all are ``events``

    Returns
    -------
    for ``flat`` and every collection, feature to ``before`` and ``after`` scaling: histograms by class, and the share
    of ``missing`` values of each; nothing where the layout can't be taken apart
    """
    try:
        events = data.decode(columns)
    except ShapeError:
        return {}
    found: dict[str, Numbers] = {}
    transforms, weight = data.scanned.transforms, columns["weight"].astype(np.float64)
    members = _members(columns["label"], classes)
    for place, feature, values, rows in _features(events):
        if feature not in transforms:  # a channel of an image
            continue
        scaled = np.empty(len(values), np.float32)
        transforms[feature].apply(values.astype(np.float32), scaled)
        known = np.isfinite(values) & np.isfinite(scaled)
        masks = {name: known & inside[rows] for name, inside in members.items()}
        n = {name: int(inside[rows].sum()) for name, inside in members.items()}
        edges = _edges(values[known])
        bounds = np.empty(len(edges), np.float32)
        transforms[feature].apply(np.array(edges), bounds)
        is_rising = bool((np.diff(bounds) > 0).all())
        after = bounds.astype(np.float64).tolist() if is_rising else _edges(scaled[known].astype(np.float64))
        found.setdefault(place, {})[feature] = {
            "before": _by_class(values, edges, weight[rows], masks),
            "after": _by_class(scaled, after, weight[rows], masks),
            "missing": {name: 1 - int(mask.sum()) / n[name] if n[name] else None for name, mask in masks.items()},
        }
    return found


def _members(label: NDArray[Any], classes: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Tell which events are of each class; without labels all are together."""
    found = {name: label == number for number, name in enumerate(classes)}
    return found if any(inside.any() for inside in found.values()) else {"events": np.ones(len(label), np.bool_)}


def _features(events: Any) -> Iterator[tuple[str, str, Floats, NDArray[np.intp]]]:
    """Yield where each feature belongs, its name, its values, and the event of each value."""
    import awkward as ak

    n = len(events)
    for name in ak.fields(events):
        column = events[name]
        if column.ndim == 1:
            yield "flat", name, ak.to_numpy(column).astype(np.float64), np.arange(n)
            continue
        rows = np.repeat(np.arange(n), ak.to_numpy(ak.num(column)))
        for branch in ak.fields(column):
            yield name, branch, ak.to_numpy(ak.flatten(column[branch])).astype(np.float64), rows


def _by_class(
    values: NDArray[Any], edges: Sequence[float], weight: Floats, masks: Mapping[str, NDArray[np.bool_]]
) -> Numbers:
    return {name: fill(values[mask], weight[mask], edges=edges) for name, mask in masks.items()}


def _edges(values: Floats) -> list[float]:
    """Choose bins: one for each whole number where there are few, otherwise equal ones over nearly all values."""
    if not len(values):
        return [0.0, 1.0]
    whole = np.round(values)
    different = np.unique(whole)
    if np.ptp(different) <= BINS and np.abs(values - whole).max() < WHOLE:
        return [float(edge) for edge in np.arange(different[0] - 0.5, different[-1] + 1)]
    low, high = np.quantile(values, (0.005, 0.995))
    if low == high:
        low, high = values.min(), values.max()
    edges = np.linspace(low, high if high > low else low + max(abs(low), 1.0) * 1e-3, BINS + 1)
    return [float(edge) for edge in edges]


def draw_distributions(found: Numbers, canvas: Canvas) -> Figure:
    """Draw each feature before and after scaling, each class normalised to one; the outer bins hold what is beyond."""
    from matplotlib.ticker import MaxNLocator

    names = list(found)[:SHOWN]
    figure, panels = canvas.figure(2 * len(names), columns=6, height=0.62, is_dense=True)
    for number, name in enumerate(names):
        for axes, when in zip(panels[2 * number : 2 * number + 2], ("before", "after"), strict=True):
            histograms = found[name][when]
            shades = colours([klass != next(iter(histograms)) and len(histograms) == 2 for klass in histograms])
            for (klass, histogram), colour in zip(histograms.items(), shades, strict=True):
                axes.stairs(*_with_overflow(histogram), color=colour, lw=1.4, label=in_legend(klass))
            title = name if when == "before" else f"{name}, scaled"
            axes.set_title(title, fontsize=fitting_size([title], axes, size="small"))
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.tick_params(
                axis="both", which="both", top=False, right=False, left=False, labelleft=False, labelsize="x-small"
            )
            axes.minorticks_off()
            if number == 0:
                axes.legend(loc="best", fontsize="x-small")
    return canvas.finish(figure, panels[0], has_label=False)


def _with_overflow(histogram: Numbers) -> tuple[Floats, Floats]:
    values, _ = normalised(histogram)
    total = sum(histogram["values"]) + histogram["below"][0] + histogram["above"][0] or 1.0
    values[0] += histogram["below"][0] / total
    values[-1] += histogram["above"][0] / total
    return values, np.array(histogram["edges"])


# Permutation importance


@dataclass(frozen=True, kw_only=True, slots=True)
class InputGroup:
    """Inputs that are shuffled together.

    Attributes
    ----------
    name : of the feature or the collection
    places : tensor and index behind the events' axis of what moves
    alike : mask of objects that has to agree between events that are exchanged; None where it moves along
    is_collection : whether it is a whole collection
    """

    name: str
    places: tuple[tuple[str, Any], ...]
    alike: str | None = None
    is_collection: bool = False


def groups_of(layout: Layout, columns: Mapping[str, Any]) -> list[InputGroup]:
    """Name what can be shuffled: each flat feature, each collection, and each branch of these.

    Parameters
    ----------
    layout : of the tensors
    columns : the tensors that there are; others are passed over
    """
    if "x" in columns:
        return _in_vector(layout)
    found = [InputGroup(name=f, places=(("flat", (..., i)),)) for i, f in enumerate(layout.flat) if "flat" in columns]
    for c in layout.collections:
        if c.name not in columns:
            continue
        mask = f"{c.name}_mask"
        has_mask = mask in columns
        found.append(
            InputGroup(name=c.name, places=((c.name, ...), *([(mask, ...)] if has_mask else [])), is_collection=True)
        )
        if c.grid is None and has_mask and columns[c.name].ndim == 3:
            found += [InputGroup(name=b, places=((c.name, (..., i)),), alike=mask) for i, b in enumerate(c.branches)]
    return found


def _in_vector(layout: Layout) -> list[InputGroup]:
    keys = ("x", "mask")
    found = [InputGroup(name=f, places=tuple((key, (..., [i])) for key in keys)) for i, f in enumerate(layout.flat)]
    start = len(layout.flat)
    for c in layout.collections:
        width = len(c.branches)
        whole = list(range(start, start + c.length * width))
        found.append(InputGroup(name=c.name, places=tuple((key, (..., whole)) for key in keys), is_collection=True))
        found += [
            InputGroup(name=b, places=tuple((key, (..., whole[i::width])) for key in keys))
            for i, b in enumerate(c.branches)
        ]
        start += c.length * width
    return found


def importance(columns: Columns, groups: Sequence[InputGroup], ask: Ask, *, shuffles: int) -> Numbers:
    """Shuffle each group among events, and see how much worse the result is.

    L. Breiman, Machine Learning 45 (2001) 5. A branch of objects moves with the mask of its values; where there is one
    mask for whole objects, among events that have as many.

    Parameters
    ----------
    columns : of the events
    groups : what is shuffled
    ask : gives what is predicted
    shuffles : of each group

    Returns
    -------
    ``measure``: AUC, of which the loss is given, or RMSE, whose rise is; ``rows``, the most important first, each with
    ``mean`` and ``spread`` over the shuffles
    """
    measure, merit = _merit(columns, _asked(columns, ask))
    rows = []
    for number, group in enumerate(groups):
        losses = []
        for shuffle in range(shuffles):
            changed = _shuffled(columns, group, np.random.default_rng([SEED, number, shuffle]))
            losses.append(merit - _merit(columns, _asked(changed, ask))[1])
        spread = float(np.std(losses, ddof=1)) if shuffles > 1 else None
        if np.isfinite(losses).all():
            rows.append(_row(group, float(np.mean(losses)), spread))
    return {"measure": measure, "events": len(columns["label"]), "shuffles": shuffles, "rows": _ranked(rows)}


def _row(group: InputGroup, mean: float, spread: float | None) -> Numbers:
    return {"name": group.name, "is_collection": group.is_collection, "mean": mean, "spread": spread}


def _ranked(rows: list[Numbers]) -> list[Numbers]:
    return sorted(rows, key=lambda row: -float(row["mean"]))


def _asked(columns: Columns, ask: Ask) -> Columns:
    n = len(columns["label"])
    parts = [ask({key: v[low : low + AT_ONCE] for key, v in columns.items()}) for low in range(0, n, AT_ONCE)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def is_measured(found: Mapping[str, Any]) -> bool:
    """Whether what is predicted has a figure of merit; the losses of an autoencoder have no true values beside them."""
    return "score" in found or ("predictions" in found and TARGETS in found)


def _merit(columns: Columns, found: Columns) -> tuple[str, float]:
    """Give the figure of merit, the higher the better."""
    weight = columns["weight"].astype(np.float64)
    if "score" in found:
        score, label = found["score"], columns["label"]
        if score.ndim == 1:
            return "AUC", metrics.auc(score, label, weight=weight)
        areas = [metrics.auc(column, label == number, weight=weight) for number, column in enumerate(score.T)]
        return "AUC", float(np.mean([area for area in areas if np.isfinite(area)] or [np.nan]))
    residual = found["predictions"].astype(np.float64) - found[TARGETS]
    widths = found[TARGETS].std(axis=0)
    relative = residual / np.where(widths > 0, widths, 1.0)
    return "RMSE", -(metrics.mean((relative**2).mean(axis=1), weight=weight) ** 0.5)


def _shuffled(columns: Columns, group: InputGroup, rng: np.random.Generator) -> Columns:
    found = dict(columns)
    order = _order(columns, group, rng)
    for key, place in group.places:
        if key in columns:
            found[key] = columns[key].copy()
            found[key][place] = columns[key][order][place]
    return found


def _order(columns: Columns, group: InputGroup, rng: np.random.Generator) -> NDArray[np.intp]:
    n = len(columns["label"])
    if group.alike is None:
        return rng.permutation(n)
    counts, order = columns[group.alike].sum(axis=1), np.arange(n)
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        order[rows] = rng.permutation(rows)
    return order


def draw_importance(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the loss of each group, the most important on top."""
    rows = found["rows"][:SHOWN]
    names = [f"{row['name']} (all)" if row["is_collection"] else row["name"] for row in rows]
    figure, (axes,) = canvas.figure(height=max(0.35, 0.2 + 0.045 * len(rows)), names=names)
    places = np.arange(len(rows))[::-1]
    shades = [colours([True])[0] if row["is_collection"] else colours([False])[0] for row in rows]
    axes.barh(places, [row["mean"] for row in rows], color=shades, height=0.7)
    spread = np.array([row["spread"] or 0.0 for row in rows])
    axes.errorbar([row["mean"] for row in rows], places, xerr=spread, fmt="none", ecolor=MUTED, capsize=2)
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0, labelsize="small")
    axes.set_yticks(places, names)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel("Loss of AUC" if found["measure"] == "AUC" else "Rise of RMSE, in widths of the targets")
    return canvas.finish(figure, axes)


# Integrated gradients


def gradients(
    columns: Columns, groups: Sequence[InputGroup], ask: Callable[[Mapping[str, Any]], Mapping[str, Tensor]]
) -> Numbers:
    """Follow the gradient of the score from the mean event to each event, and add it up for each group.

    M. Sundararajan, A. Taly, Q. Yan, arXiv:1703.01365, by the midpoint rule; masks stay as they are.

    Parameters
    ----------
    columns : of the events
    groups : of inputs, whose contributions are added up
    ask : gives what is predicted of a batch of tensors, with gradients

    Returns
    -------
    ``rows`` with the ``mean`` size of the contribution to the logit, the largest first, and ``completeness``: by how
    much all contributions of an event miss the difference of its logit to the mean event's, on average

    Raises
    ------
    ConfigError
        For a network without gradients.
    """
    import torch

    with torch.inference_mode(mode=False), torch.enable_grad():
        n = len(columns["label"])
        rows_of = np.arange(min(n, EXPLAINED)) * n // min(n, EXPLAINED)  # from everywhere: they come in file order
        some = {key: torch.from_numpy(values[rows_of]) for key, values in columns.items()}
        names = {key for group in groups for key, _ in group.places if some[key].is_floating_point()}
        ends = {key: some[key] for key in sorted(names)}
        starts = {key: values.mean(dim=0, keepdim=True).expand_as(values) for key, values in ends.items()}
        sums = {key: torch.zeros_like(values) for key, values in ends.items()}
        for step in range(STEPS):
            way = (step + 0.5) / STEPS
            path = {key: (starts[key] + way * (ends[key] - starts[key])).requires_grad_() for key in ends}
            output = _logits(ask({**some, **path}))
            if not output.requires_grad:
                raise ConfigError("report: gradients: got true; the network has none; set gradients=false")
            found = torch.autograd.grad(output.sum(), list(path.values()), allow_unused=True)
            for key, gradient in zip(path, found, strict=True):
                if gradient is not None:
                    sums[key] += gradient / STEPS
        first, last = (_logits(ask({**some, **where})).detach().cpu().double().numpy() for where in (starts, ends))
    parts = {key: ((ends[key] - starts[key]) * sums[key]).double().numpy() for key in ends}
    rows = []
    for group in groups:
        whole = sum(
            parts[key][place].reshape(len(parts[key]), -1).sum(axis=1) for key, place in group.places if key in parts
        )
        rows.append(_row(group, float(np.abs(whole).mean()), None))
    total = sum(part.reshape(len(part), -1).sum(axis=1) for part in parts.values())
    missed = np.abs(total - (last - first))
    return {"rows": _ranked(rows), "completeness": float(missed.mean()), "events": len(missed), "steps": STEPS}


def _logits(found: Mapping[str, Tensor]) -> Tensor:
    """Give one number of each event: the logit of the signal, or of the likeliest class; the first prediction."""
    import torch

    if "score" not in found:
        return found["predictions"][:, 0]
    score = found["score"]
    return torch.logit(score if score.ndim == 1 else score.max(dim=1).values, eps=1e-6)


def draw_gradients(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the mean contribution of each group, the largest on top."""
    figure = draw_importance({"rows": found["rows"], "measure": "AUC"}, canvas)
    figure.axes[0].set_xlabel("Mean size of the contribution to the logit")
    return figure
