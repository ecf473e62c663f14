"""How well classes are told apart: curves, rejection, significance, calibration. Numbers first, pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.analysis import statistics
from rootdata.analysis.report.canvas import MUTED, Canvas, Numbers, add_legend, colours
from rootdata.training import metrics, scored
from rootdata.training.pictures import in_legend
from rootdata.training.scored import ScoredEvents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

REPLICAS = 200  # of a curve, for its band
BAND = (0.16, 0.84)
POINTS = 200  # of a curve that is drawn
FINE = 2000  # bins of the score, of equal content
SEED = 20  # of the replicas, so that a report is the same whenever it is made
CALIBRATION_BINS = 15
SCANNED = 100  # cuts on the score
ROUNDING = 1e-9  # relative, of sums of weights
ONE_SIDED = 1.645  # standard deviations, of 95 % of confidence
FEWEST = 10.0  # effective background events above a cut that is called the best


# ROC


def roc(events: ScoredEvents) -> Numbers:
    """Follow the curve of each class against the rest, with the band of one standard deviation and its area's error."""
    found = {}
    for name, score, label in events.per_class():
        curve = metrics.roc(score, label, weight=events.weight)
        if np.isnan(metrics.area(curve)):
            continue
        shown = metrics.thin(curve)
        area = statistics.areas(score, label, weight=events.weight)
        found[name] = {
            "auc": float(area.values[0]), "auc_error": plain(area.errors[0]),
            "signal_efficiency": shown.signal.tolist(), "background_efficiency": shown.background.tolist(),
            "threshold": shown.threshold.tolist(), "band": band(score, label, events.weight),
            "lowest": lowest_of(label, events.weight),
        }  # fmt: skip
    return {"classes": found, "events": len(events.label)}


def lowest_of(label: NDArray[Any], weight: Floats) -> float:
    """Return the background efficiency below which ten events are left: a curve below is noise."""
    return min(0.1, 10 / max(statistics.effective_count(weight[label == 0]), 100.0))


def band(score: Floats, label: NDArray[Any], weight: Floats) -> Numbers:
    """Return between which background efficiencies two in three curves lie, at some signal efficiencies.

    Parameters
    ----------
    score, label, weight : (n,)
    """
    edges = np.unique(np.quantile(score, np.linspace(0, 1, FINE + 1)[1:-1]))
    cells = len(edges) - np.searchsorted(edges, score, side="right")  # the highest scores come first
    rows = []
    for number in (1, 0):
        of_class = label == number
        sums, squares = (
            np.bincount(cells[of_class], weight[of_class] ** power, minlength=len(edges) + 1) for power in (1, 2)
        )
        rows.append(statistics.replicas(sums, squares, count=REPLICAS, seed=[SEED, number]))
    at = np.linspace(0, 1, POINTS // 2 + 1)[1:-1]
    some = np.logical_and(*(drawn.sum(axis=1) > 0 for drawn in rows))  # a replica of few events may have none
    if not some.any():
        return {"signal_efficiency": [], "low": [], "high": []}
    signal, background = (
        np.cumsum(np.pad(drawn, ((0, 0), (1, 0))), axis=1) / drawn.sum(axis=1, keepdims=True)  # from (0, 0)
        for drawn in (r[some] for r in rows)
    )
    curves = np.stack([np.interp(at, np.maximum.accumulate(s), b) for s, b in zip(signal, background, strict=True)])
    low, high = np.quantile(curves, BAND, axis=0)
    return {"signal_efficiency": at.tolist(), "low": low.tolist(), "high": high.tolist()}


def draw_roc(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the background's efficiency over the signal's, one curve per class that can be signal."""
    figure, (axes,) = canvas.figure()
    curves = found["classes"]
    for (name, curve), colour in zip(curves.items(), colours([False] * len(curves)), strict=True):
        words = f"{name}: AUC = {in_words(curve)}"
        add_curve(axes, curve, colour=colour, label=in_legend(words))
    lowest = min((curve["lowest"] for curve in curves.values()), default=0.1)
    finish_curves(axes, lowest)
    return canvas.finish(figure, axes)


def in_words(curve: Numbers) -> str:
    """Write the area with its error, which one event of a class does not have.

    Examples
    --------
    >>> in_words({"auc": 0.9, "auc_error": 0.01}), in_words({"auc": 0.9, "auc_error": None})
    ('0.9000 ± 0.0100', '0.9000')
    """
    error = curve["auc_error"]
    return f"{curve['auc']:.4f}" if error is None else f"{curve['auc']:.4f} ± {error:.4f}"


def add_curve(axes: Any, curve: Numbers, *, colour: str, label: str) -> None:
    """Draw a curve and its band.

    Parameters
    ----------
    axes : of matplotlib
    curve : of :func:`roc`
    colour, label : of the line
    """
    axes.plot(curve["signal_efficiency"], curve["background_efficiency"], color=colour, label=label)
    around = curve["band"]
    axes.fill_between(around["signal_efficiency"], around["low"], around["high"], color=colour, alpha=0.25, lw=0)


def finish_curves(axes: Any, lowest: float) -> None:
    """Set the axes of curves, with the diagonal of a random guess."""
    diagonal = np.geomspace(lowest, 1, POINTS)
    axes.plot(diagonal, diagonal, color=MUTED, ls="--", lw=1.2, label="random guess")
    axes.set(xlim=(0, 1), ylim=(lowest, 1), yscale="log")
    axes.set_xlabel("Signal efficiency")
    axes.set_ylabel("Background efficiency")
    axes.grid(visible=True, which="major", color=MUTED, alpha=0.3, lw=0.8)
    add_legend(axes, loc="lower right")


# Rejection


def rejection(events: ScoredEvents, *, at: Sequence[float]) -> Numbers:
    """Tell how many background events there are for one that passes, where so much of the signal does.

    Parameters
    ----------
    events : of the test
    at : signal efficiencies

    Returns
    -------
    for each class that can be signal and each efficiency the cut on the score, and the rejection of all background and
    of each sample with its error; ``None`` where nothing passes, and ``above`` then says what it exceeds (95 % of
    confidence): of the events that there are, or, where some pass whose weights add up to 0 or less, of the error
    """
    found: dict[str, Any] = {}
    for name, score, label in events.per_class():
        curve = metrics.roc(score, label, weight=events.weight)
        if np.isnan(metrics.area(curve)):
            continue
        groups: dict[str, NDArray[np.bool_]] = {"all background": label == 0}
        groups |= {group: inside for group, _, inside in events.groups() if not label[inside].any()}
        found[name] = []
        for share in at:
            place = int(np.argmax(curve.signal >= share * (1 - ROUNDING)))  # negative weights let it fall, too
            cut = float(curve.threshold[place])
            of = {group: _rejected(score[rows] >= cut, events.weight[rows]) for group, rows in groups.items()}
            found[name].append({"signal_efficiency": share, "cut": cut, "rejection": of})
    return found


def _rejected(passed: NDArray[np.bool_], weight: Floats) -> Numbers:
    share, error = statistics.efficiency(passed, weight)
    if share > 0:
        return {"value": 1 / share, "error": error / share**2, "above": None}
    count = statistics.effective_count(weight)
    limits = [3.0 / count if count else 1.0]
    if passed.any():  # weights that cancel
        limits.append(ONE_SIDED * error)
    return {"value": None, "error": None, "above": max(1 / max(limits), 1.0)}


# Which is taken for which


def matrix(events: ScoredEvents) -> Numbers:
    """Count which class is taken for which; of two classes the cut is at one half."""
    score = events.score
    if score.ndim == 1:
        is_signal = score >= 0.5  # as the accuracy has it
        score = np.stack([~is_signal, is_signal], axis=1)
    return scored.count(score, events.label, weight=events.weight, classes=events.classes[: score.shape[1]]).to_dict()


def draw_matrix(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the shares, a row for each label, with their numbers."""
    figure, (axes,) = canvas.figure()
    shares, n = np.array(found["shares"], np.float64), len(found["classes"])
    axes.imshow(np.nan_to_num(shares), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row in range(n):
        for column in range(n):
            share = shares[row, column]
            written, colour = (
                ("-", MUTED) if np.isnan(share) else (f"{share:.3f}", "#fefefe" if share > 0.5 else "#010101")
            )
            axes.text(column, row, written, ha="center", va="center", color=colour)
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.set_xticks(range(n), found["classes"])
    axes.set_yticks(range(n), found["classes"])
    axes.set_xlabel("Likeliest class")
    axes.set_ylabel("Class")
    return canvas.finish(figure, axes)


# Significance


def significance(score: Floats, is_signal: NDArray[np.bool_], weight: Floats, *, uncertainty: float) -> Numbers:
    """Scan cuts on the score for the largest Asimov significance, with and without an uncertainty of the background.

    Parameters
    ----------
    score : (n,)
    is_signal : (n,)
    weight : (n,) such that their sums are the events that are expected
    uncertainty : of the background, relative

    Returns
    -------
    the cuts, signal and background above each, the significances, and the ``best`` cut among those that leave
    at least ten effective background events; ``None`` where there is none
    """
    cuts = np.unique(np.quantile(score, np.linspace(0, 1, SCANNED, endpoint=False)))
    edges = np.append(cuts, np.inf)
    sums = [np.histogram(score[rows], edges, weights=weight[rows] ** power)[0][::-1].cumsum()[::-1]
            for rows, power in ((is_signal, 1), (~is_signal, 1), (~is_signal, 2))]  # fmt: skip
    signal, background, squares = sums
    counts = np.divide(background**2, squares, out=np.zeros_like(squares), where=squares > 0)
    sure = statistics.asimov(signal, background)
    unsure = statistics.asimov(signal, background, uncertainty=uncertainty * np.maximum(background, 0.0))
    allowed = np.where((counts >= FEWEST) & np.isfinite(unsure), unsure, -np.inf)
    best = int(allowed.argmax())
    return {
        "cut": cuts.tolist(), "signal": signal.tolist(), "background": background.tolist(),
        "significance": plain(sure), "with_uncertainty": plain(unsure), "uncertainty": uncertainty,
        "best": None if not np.isfinite(allowed[best]) else {
            "cut": float(cuts[best]), "signal": float(signal[best]), "background": float(background[best]),
            "significance": float(sure[best]), "with_uncertainty": float(unsure[best]),
        },
    }  # fmt: skip


def draw_significance(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the significance over the cut, a panel for each class that can be signal."""
    figure, panels = canvas.figure(len(found))
    for axes, (name, scan) in zip(panels, found.items(), strict=True):
        share = scan["uncertainty"]
        for key, words, colour in (
            ("significance", "background known", colours([False])[0]),
            ("with_uncertainty", f"background ± {share:.0%}", colours([True])[0]),
        ):
            axes.plot(scan["cut"], np.array(scan[key], np.float64), color=colour, label=words)
        best = scan["best"]
        if best is not None:
            axes.axvline(best["cut"], color=MUTED, ls="--", lw=1.2)
            axes.plot([best["cut"]], [best["with_uncertainty"]], "o", color=colours([True])[0])
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.set_ylim(top=axes.get_ylim()[1] * 1.3)
        axes.set_xlabel(f"Cut on the score of {name}")
        axes.set_ylabel("Asimov significance")
        add_legend(axes, loc="upper left")
    return canvas.finish(figure, panels[0])


# Calibration


def calibration(events: ScoredEvents) -> Numbers:
    """Compare scores with how often they are right, in bins of as many events each.

    Returns
    -------
    for each class that can be signal the mean score of each bin, the share of signal with its error, and the expected
    calibration error: their mean distance
    """
    found = {}
    for name, score, label in events.per_class():
        edges = np.unique(np.quantile(score, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
        cells = np.searchsorted(edges, score, side="right")
        rows = []
        for cell in np.unique(cells):
            inside = cells == cell
            weight = events.weight[inside]
            mean_score = metrics.mean(score[inside], weight=weight)
            rows.append((mean_score, *statistics.efficiency(label[inside] == 1, weight), float(weight.sum())))
        mean, share, error, weights = np.array(rows).T.reshape(4, -1)
        known = np.isfinite(mean + share)
        total = weights[known].sum()
        gap = float((np.abs(mean - share) * weights)[known].sum() / total) if total else float("nan")
        found[name] = {
            "score": plain(mean), "share": plain(share), "error": plain(error), "mean_distance": plain(gap),
        }  # fmt: skip
    return found


def draw_calibration(found: Numbers, canvas: Canvas) -> Figure:
    """Draw how often scores are right over the scores."""
    figure, (axes,) = canvas.figure()
    for (name, curve), colour in zip(found.items(), colours([False] * len(found)), strict=True):
        x, y, error = (np.array(curve[key], np.float64) for key in ("score", "share", "error"))
        gap = curve["mean_distance"]
        words = name if gap is None else f"{name}: mean distance {gap:.4f}"
        axes.errorbar(x, y, error, color=colour, marker="o", ms=4, label=in_legend(words))
    axes.plot([0, 1], [0, 1], color=MUTED, ls="--", lw=1.2, label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("Mean score")
    axes.set_ylabel("Share of signal")
    add_legend(axes, loc="upper left")
    return canvas.finish(figure, axes)


def plain(values: Any) -> Any:
    """Return numbers for JSON, which has no NaN: None in its place."""
    if isinstance(values, np.ndarray):
        return [plain(value) for value in values.tolist()]
    return float(values) if np.isfinite(values) else None
