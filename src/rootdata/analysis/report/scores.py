"""How the score is distributed: in each sample, in training and test, under varied weights, over observers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.analysis import statistics
from rootdata.analysis.report.canvas import MUTED, Canvas, Numbers, add_legend, colours, fill, normalised, total_of
from rootdata.analysis.report.classification import ROUNDING, plain
from rootdata.training import metrics
from rootdata.training.pictures import in_legend
from rootdata.training.scored import ScoredEvents

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

OVERTRAINED = 0.01  # p-value below which train and test are said to differ
SLICES = 10  # of an observer, with equally many events in each
SCORE_CUTS = (0.0, 0.5, 0.8)  # of the weight of the background that is kept away, where sculpting is looked for
OBSERVER_BINS = 30
KINDS = ("background", "signal")
SHOWN = 10  # groups of a picture; the numbers have all


def edges_of(bins: int) -> list[float]:
    """Return the edges of equal bins of a score."""
    return [float(edge) for edge in np.linspace(0, 1, bins + 1)]


def distributions(events: ScoredEvents, *, bins: int, scale: Floats | None = None) -> Numbers:
    """Fill the score of each class that can be signal, a histogram for each sample.

    Parameters
    ----------
    events : of the test
    bins : of the score
    scale : (n,) by which weights are multiplied, so that they stand for all events
    """
    weight = events.weight if scale is None else events.weight * scale
    found = {}
    for name, score, label in events.per_class():
        found[name] = {
            group: {**fill(score[rows], weight[rows], edges=edges_of(bins)), "is_signal": bool(label[rows].all())}
            for group, _, rows in events.groups()
        }
    return found


def shown_of(groups: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Return the groups that a picture shows: of many the largest of signal and of background, and the sums of others.

    Parameters
    ----------
    groups : histograms by name
    """
    if len(groups) <= SHOWN:
        return dict(groups)
    kinds = {word: [n for n, h in groups.items() if h["is_signal"] == (word == "signal")] for word in KINDS}
    fewest = min(map(len, kinds.values()))
    found: dict[str, Numbers] = {}
    for word, names in kinds.items():
        places = min(len(names), max(SHOWN // 2, SHOWN - fewest))
        ranked = sorted(names, key=lambda name: -total_of(groups[name]))
        kept = set(ranked if len(names) == places else ranked[: places - 1])
        found |= {name: groups[name] for name in names if name in kept}
        others = [groups[name] for name in names if name not in kept]
        if others:
            found[f"{len(others)} others of {word}"] = {**_sum_of(others), "is_signal": word == "signal"}
    return found


def _sum_of(histograms: Sequence[Numbers]) -> Numbers:
    keys = ("values", "variances", "below", "above")
    sums = {key: np.sum([one[key] for one in histograms], axis=0).tolist() for key in keys}
    return {"edges": histograms[0]["edges"], **sums}


def draw_yields(found: Numbers, canvas: Canvas) -> Figure:
    """Stack the samples to what is expected in all, with the statistical error."""
    import mplhep

    figure, panels = canvas.figure(len(found))
    for axes, (name, every) in zip(panels, found.items(), strict=True):
        groups = shown_of(every)
        ranked = sorted(groups, key=lambda group: (groups[group]["is_signal"], sum(groups[group]["values"])))
        edges = np.array(groups[ranked[0]]["edges"])
        values = [np.array(groups[group]["values"]) for group in ranked]
        shades = dict(zip(groups, colours([g["is_signal"] for g in groups.values()]), strict=True))
        mplhep.histplot(
            values,
            edges,
            ax=axes,
            stack=True,
            histtype="fill",
            label=[in_legend(group) for group in ranked],
            color=[shades[group] for group in ranked],
        )
        total, error = np.sum(values, axis=0), np.sqrt(np.sum([groups[g]["variances"] for g in ranked], axis=0))
        low, high = (np.append(total + sign * error, (total + sign * error)[-1]) for sign in (-1, 1))
        hatched: dict[str, Any] = {"facecolor": "none", "edgecolor": MUTED, "hatch": "////", "lw": 0}
        axes.fill_between(edges, low, high, step="post", label="statistical", **hatched)
        finish_scores(axes, name, y=canvas.events, smallest=total[total > 0].min(initial=1.0))
    return canvas.finish(figure, panels[0])


def draw_shapes(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the samples each normalised to one, with errors; signal as an area."""
    import mplhep

    figure, panels = canvas.figure(len(found))
    for axes, (name, every) in zip(panels, found.items(), strict=True):
        groups = shown_of(every)
        smallest = 1.0
        for (group, one), colour in zip(
            groups.items(), colours([g["is_signal"] for g in groups.values()]), strict=True
        ):
            values, errors = normalised(one)
            smallest = min(smallest, values[values > 0].min(initial=1.0))
            if one["is_signal"]:
                mplhep.histplot(values, one["edges"], ax=axes, histtype="fill", color=colour, alpha=0.25)
            mplhep.histplot(values, one["edges"], ax=axes, yerr=errors, color=colour, label=in_legend(group), lw=1.6)
        finish_scores(axes, name, y="Share of the sample", smallest=smallest)
    return canvas.finish(figure, panels[0])


def finish_scores(axes: Axes, name: str, *, y: str, smallest: float) -> None:
    """Set the axes of distributions of a score.

    Parameters
    ----------
    axes : of matplotlib
    name : of the class
    y : what is counted
    smallest : content of a bin that has any
    """
    axes.set(xlim=(0, 1), yscale="log", ylim=(smallest / 2, None))
    low, high = axes.get_ylim()
    axes.set_ylim(top=high * (high / low) ** 0.4)  # room for the legend
    axes.set_xlabel(f"Score of {name}")
    axes.set_ylabel(y)
    add_legend(axes, loc="upper center", columns=2)


# Training and test


def overtraining(test: ScoredEvents, train: ScoredEvents, *, bins: int) -> Numbers:
    """Compare the scores of signal, and of background, in training and test.

    Parameters
    ----------
    test, train : of the same network
    bins : of the histograms; the distance needs none

    Returns
    -------
    for each class that can be signal ``signal`` and ``background``, each with the histograms ``test`` and ``train``,
    the Kolmogorov-Smirnov ``distance`` and ``p_value``, and the areas ``auc`` of both parts with errors
    """
    found = {}
    for (name, score, label), (_, trained, truth) in zip(test.per_class(), train.per_class(), strict=True):
        parts: dict[str, Any] = {}
        for word, number in (("signal", 1), ("background", 0)):
            rows, others = label == number, truth == number
            compared = statistics.kolmogorov_smirnov(
                score[rows], trained[others], weights=(test.weight[rows], train.weight[others])
            )
            parts[word] = {
                "test": fill(score[rows], test.weight[rows], edges=edges_of(bins)),
                "train": fill(trained[others], train.weight[others], edges=edges_of(bins)),
                "distance": plain(compared.distance), "p_value": plain(compared.p_value),
            }  # fmt: skip
        areas = (
            statistics.areas(score, label, weight=test.weight),
            statistics.areas(trained, truth, weight=train.weight),
        )
        for part, area in zip(("test", "train"), areas, strict=True):
            parts[f"{part}_auc"], parts[f"{part}_auc_error"] = plain(area.values[0]), plain(area.errors[0])
        found[name] = {**parts, "verdict": verdict(parts)}
    return found


def verdict(parts: Mapping[str, Any]) -> str:
    """Say in words whether a network knows its training events better than others."""
    gap, error = _gap(parts)
    if gap is None:
        is_absent = any(parts[key] is None for key in ("train_auc", "test_auc"))
        return f"Not known: a class {'is absent' if is_absent else 'has too few events'}."
    values = {word: parts[word]["p_value"] for word in ("signal", "background")}
    told = " and ".join(f"{word} p = {value:.3g}" for word, value in values.items() if value is not None)
    area = f"the area in training is {'smaller' if gap < 0 else 'larger'} by {abs(gap):.4f} ± {error:.4f}"
    lowest = min((value for value in values.values() if value is not None), default=1.0)
    if lowest < OVERTRAINED and gap > 2 * error:
        return f"Overtrained: training and test differ ({told}), and {area}; dropout, fewer epochs, more events help."
    if lowest < OVERTRAINED:
        return f"Not overtrained, but training and test differ ({told}), while {area}: their events may differ."
    if gap > 3 * error:
        return f"Slightly overtrained: {area}, though the distributions agree ({told})."
    return f"No sign of overtraining: training and test agree ({told}); {area}."


def _gap(parts: Mapping[str, Any]) -> tuple[float | None, float]:
    values = [parts[key] for key in ("train_auc", "test_auc", "train_auc_error", "test_auc_error")]
    if any(value is None for value in values):
        return None, 0.0
    return values[0] - values[1], float(np.hypot(values[2], values[3]))


def draw_overtraining(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the test as areas and the training as points with errors."""
    import mplhep

    figure, panels = canvas.figure(len(found))
    for axes, (name, parts) in zip(panels, found.items(), strict=True):
        smallest = 1.0
        for word, colour in zip(("background", "signal"), colours([False, True]), strict=True):
            part = parts[word]
            edges = np.array(part["test"]["edges"])
            values, _ = normalised(part["test"])
            trained, errors = normalised(part["train"])
            smallest = min(smallest, *(v[v > 0].min(initial=1.0) for v in (values, trained)))
            told = "" if part["p_value"] is None else f" (p = {part['p_value']:.2g})"
            mplhep.histplot(values, edges, ax=axes, histtype="fill", color=colour, alpha=0.35, label=f"{word}, test")
            seen = trained > 0
            middle = (edges[1:] + edges[:-1]) / 2
            words = f"{word}, training{told}"
            axes.errorbar(middle[seen], trained[seen], errors[seen], fmt="o", ms=3, color=colour, label=words)
        finish_scores(axes, name, y="Share of the class", smallest=smallest)
    return canvas.finish(figure, panels[0])


# Variations of the weight


def variations(events: ScoredEvents, weights: Mapping[str, Floats], *, bins: int) -> Numbers:
    """Fill the scores of signal, and of background, under each variation of the weight, and the areas under it.

    Parameters
    ----------
    events : of the test
    weights : name of a variation to the weights under it, (n,)
    bins : of the score
    """
    found: Numbers = {}
    for name, score, label in events.per_class():
        table = {"nominal": events.weight, **weights}
        found[name] = {
            "auc": {key: plain(metrics.auc(score, label, weight=weight)) for key, weight in table.items()},
            **{
                word: {key: fill(score[label == n], w[label == n], edges=edges_of(bins)) for key, w in table.items()}
                for word, n in (("signal", 1), ("background", 0))
            },
        }
    return found


def draw_variations(found: Numbers, canvas: Canvas) -> Figure:
    """Draw what each variation of the weight does to the distribution of the score: its ratio to the nominal one."""
    figure, panels = canvas.figure(2 * len(found), columns=2)
    places = [(name, word) for name in found for word in ("background", "signal")]
    for axes, (name, word) in zip(panels, places, strict=True):
        histograms = found[name][word]
        nominal, edges = np.array(histograms["nominal"]["values"]), np.array(histograms["nominal"]["edges"])
        known = nominal != 0
        errors = np.sqrt(histograms["nominal"]["variances"])
        ratios = {
            key: np.divide(h["values"], nominal, out=np.ones_like(nominal), where=known)
            for key, h in histograms.items() if key != "nominal"
        }  # fmt: skip
        everything = np.stack([np.ones_like(nominal), *ratios.values()])
        low, high = (np.append(f(everything, axis=0), f(everything, axis=0)[-1]) for f in (np.min, np.max))
        axes.fill_between(edges, low, high, step="post", color=colours([False])[0], alpha=0.25, lw=0, label="envelope")
        for (key, ratio), colour in zip(ratios.items(), colours([False] * len(ratios)), strict=True):
            axes.stairs(ratio, edges, baseline=None, color=colour, label=in_legend(key) if len(ratios) <= 8 else None)
        share = np.divide(errors, np.abs(nominal), out=np.zeros_like(nominal), where=known)
        low, high = (np.append(1 + sign * share, 1.0) for sign in (-1, 1))
        axes.fill_between(edges, low, high, step="post", color=MUTED, alpha=0.2, lw=0, label="statistical")
        spread = float(np.clip(np.abs(everything - 1).max(initial=0.0), 0.02, 1.0)) * 1.6
        axes.set(xlim=(0, 1), ylim=(1 - spread, 1 + 1.6 * spread))
        axes.set_xlabel(f"Score of {name}")
        axes.set_ylabel(f"Varied / nominal, {word}")
        add_legend(axes, loc="upper center", columns=2)
    return canvas.finish(figure, panels[0])


# Sculpting


def sculpting(events: ScoredEvents, observers: Mapping[str, Floats]) -> Numbers:
    """Look whether background that scores high has another distribution of an observed quantity.

    Parameters
    ----------
    events : of the test
    observers : name to values, (n,); missing ones (NaN) are left out

    Returns
    -------
    for each class that can be signal, and each observer, of the background: the weighted ``correlation`` of score and
    observer, the mean score in ``slices`` of it, and its ``histograms`` where so much of the background is cut away
    """
    found: Numbers = {}
    for name, score, label in events.per_class():
        rows = label == 0
        known = {key: _sculpted(score[rows], column[rows], events.weight[rows]) for key, column in observers.items()}
        found[name] = {key: one for key, one in known.items() if one is not None}
    return {name: columns for name, columns in found.items() if columns}


def _sculpted(score: Floats, column: Floats, weight: Floats) -> Numbers | None:
    known = np.isfinite(column)
    score, column, weight = score[known], column[known], weight[known]
    if len(column) < 2 or column.min() == column.max():
        return None
    edges = np.unique(np.quantile(column, np.linspace(0, 1, SLICES + 1)))
    cells = np.clip(np.searchsorted(edges, column, side="right") - 1, 0, len(edges) - 2)
    slices = []
    for cell in range(len(edges) - 1):
        inside = cells == cell
        count = statistics.effective_count(weight[inside])
        mean = metrics.mean(score[inside], weight=weight[inside])
        spread = metrics.mean((score[inside] - mean) ** 2, weight=weight[inside])
        error = np.sqrt(max(spread, 0.0) / count) if count else np.nan
        place = {"low": float(edges[cell]), "high": float(edges[cell + 1])}
        slices.append({**place, "score": plain(mean), "error": plain(error)})
    low, high = np.quantile(column, (0.005, 0.995))
    bounds = np.linspace(low, high if high > low else low + 1, OBSERVER_BINS + 1).tolist()
    cuts = [_cut_of(score, weight, away=share) for share in SCORE_CUTS]
    histograms = {
        f"{share:.0%}": fill(column[score >= cut], weight[score >= cut], edges=bounds)
        for share, cut in zip(SCORE_CUTS, cuts, strict=True)
    }
    return {"correlation": plain(correlation(score, column, weight)), "slices": slices, "histograms": histograms}


def _cut_of(score: Floats, weight: Floats, *, away: float) -> float:
    """Return the lowest score at which so much of the weight lies below, of the events where weights add up to none."""
    order = np.argsort(score, kind="stable")
    total = float(weight.sum())
    along = np.cumsum(weight[order]) / total if total > 0 else np.arange(1, len(score) + 1) / len(score)
    return float(score[order][np.argmax(along > away + ROUNDING)] if away else score[order][0])


def correlation(first: Floats, second: Floats, weight: Floats) -> float:
    """Return the linear correlation with weights; NaN where one of them is constant.

    Parameters
    ----------
    first, second, weight : (n,)
    """
    a, b = (values - metrics.mean(values, weight=weight) for values in (first, second))
    size = metrics.mean(a**2, weight=weight) * metrics.mean(b**2, weight=weight)
    return metrics.mean(a * b, weight=weight) / size**0.5 if size > 0 else float("nan")


def draw_sculpting(found: Numbers, canvas: Canvas) -> Figure:
    """Draw for each observer the mean score over it, and its distribution after cuts, of background."""
    import mplhep

    places = [(name, key) for name, columns in found.items() for key in columns]
    figure, panels = canvas.figure(2 * len(places), columns=2)
    shades = colours([False] * len(SCORE_CUTS))
    for number, (name, key) in enumerate(places):
        left, right = panels[2 * number : 2 * number + 2]
        one = found[name][key]
        slices = [s for s in one["slices"] if s["score"] is not None]
        middle = [(s["low"] + s["high"]) / 2 for s in slices]
        half = [(s["high"] - s["low"]) / 2 for s in slices]
        errors = np.array([s["error"] for s in slices], np.float64)
        told = "not known" if one["correlation"] is None else f"{one['correlation']:+.3f}"
        means, errors = [s["score"] for s in slices], np.nan_to_num(errors)
        left.errorbar(middle, means, errors, half, fmt="o", ms=4, color=shades[0], label=f"correlation {told}")
        bounds = next(iter(one["histograms"].values()))["edges"]
        left.set_xlim(bounds[0], bounds[-1])
        left.set_xlabel(key)
        left.set_ylabel(f"Mean score of {name}, background")
        add_legend(left, loc="best")
        for (share, histogram), colour in zip(one["histograms"].items(), shades, strict=True):
            values, errors = normalised(histogram)
            words = {"label": f"{share} cut away", "color": colour, "lw": 1.4}
            mplhep.histplot(values, histogram["edges"], ax=right, yerr=errors, **words)
        right.set_xlabel(key)
        right.set_ylabel("Share of the background")
        right.set_ylim(bottom=0)
        add_legend(right, loc="best")
    return canvas.finish(figure, panels[0])
