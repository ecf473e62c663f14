"""Several networks side by side: their figures, their curves over each other, and what differs for certain."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rootdata import disk
from rootdata.analysis import statistics
from rootdata.analysis.report import canvas as drawing
from rootdata.analysis.report import classification, make, page
from rootdata.analysis.report.canvas import Canvas, Numbers, colours
from rootdata.analysis.report.config import ReportConfig
from rootdata.analysis.report.make import Sheet
from rootdata.analysis.report.tested import ScoredRun
from rootdata.errors import ConfigError
from rootdata.training.pictures import in_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BESIDE = ("shapes", "overtraining", "significance", "calibration", "response", "learning", "importance")
FIGURES = ("auc", "accuracy", "loss", "events")


def compare(runs: Sequence[Path], config: ReportConfig, *, out: Path) -> Path:
    """Write a page of several runs.

    Parameters
    ----------
    runs : folders of trainings that were tested
    config : of the report
    out : the page; pictures and numbers lie in a folder of its name

    Raises
    ------
    ConfigError
        For a run that is named twice, and where a library that draws is not installed.
    FileError, DataError
        As :meth:`ScoredRun.load`.
    """
    drawing.check_installed()
    places = [run.resolve() for run in runs]
    twice = next((run for run, place in zip(runs, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice; name each run once")
    tested = dict(zip(runs, _named([ScoredRun.load(run) for run in runs]), strict=True))
    are_weighted = [one.name for one in tested.values() if one.is_weighted]
    is_mixed = 0 < len(are_weighted) < len(tested)
    words = f"weighted events: {', '.join(are_weighted)} alone" if is_mixed else ""
    canvas = Canvas(config, weighted=bool(are_weighted), words=words)
    folder = out.with_suffix("")
    shown = make.draw(list(_together(list(tested.values()))), canvas, folder=folder)
    beside = {one.name: _alone(run, one, config, number, folder) for number, (run, one) in enumerate(tested.items(), 1)}
    disk.write_atomic(out, page.whole("Comparison", _parts(tested, shown, beside, folder.name)))
    return out


def _named(tested: Sequence[ScoredRun]) -> list[ScoredRun]:
    """Give runs of the same name a number."""
    names = [one.name for one in tested]
    return [
        one if names.count(one.name) == 1 else replace(one, name=f"{one.name} ({number})")
        for number, one in enumerate(tested, 1)
    ]


def _alone(run: Path, tested: ScoredRun, config: ReportConfig, number: int, folder: Path) -> list[page.Drawn]:
    """Draw of one run what is shown beside the others."""
    sheets = [sheet for sheet in make.sheets_of(tested, run, config) if sheet.name in BESIDE]
    named = [replace(sheet, name=f"{number}_{sheet.name}") for sheet in sheets]
    return make.draw(named, Canvas(config, weighted=tested.is_weighted), folder=folder)


def _together(tested: Sequence[ScoredRun]) -> Iterator[Sheet]:
    curves = {one.name: classification.roc(one.scores)["classes"] for one in tested if one.scores is not None}
    classes = list(dict.fromkeys(name for of in curves.values() for name in of))
    numbers = {name: {run: of[name] for run, of in curves.items() if name in of} for name in classes}
    if numbers:
        yield Sheet(
            name="rocs", title="ROC curves", text="With bands that hold two in three curves of a Poisson bootstrap.",
            numbers=numbers, draw=draw_rocs,
        )  # fmt: skip
    pairs = list(differences(tested))
    if pairs:
        yield Sheet(
            name="differences", title="Differences of areas",
            text="Second minus first. Where the test events are the same the error is DeLong's of the pair, by weights "
            "where there are any; otherwise both errors are added in squares.",
            numbers={"pairs": pairs},
        )  # fmt: skip


def differences(tested: Sequence[ScoredRun]) -> Iterator[dict[str, Any]]:
    """Compare the areas of each two runs, for each class that both have.

    Parameters
    ----------
    tested : what the tests left
    """
    for first, second in itertools.combinations(tested, 2):
        if first.scores is None or second.scores is None:
            continue
        is_paired = bool(first.about["events"]) and first.about["events"] == second.about["events"]
        others = {name: (score, label) for name, score, label in second.scores.per_class()}
        for name, score, label in first.scores.per_class():
            if name not in others:
                continue
            other, truth = others[name]
            if is_paired:
                pair = statistics.areas(np.stack([score, other]), label, weight=first.scores.weight)
            else:
                alone = [
                    statistics.areas(score, label, weight=first.scores.weight),
                    statistics.areas(other, truth, weight=second.scores.weight),
                ]
                values, variances = (
                    np.concatenate(v) for v in zip(*((a.values, a.errors**2) for a in alone), strict=True)
                )
                pair = statistics.Areas(values, np.diag(variances))
            gap, error = statistics.difference(pair)
            yield {
                "first": first.name, "second": second.name, "class": name, "is_paired": is_paired,
                "difference": classification.plain(gap), "error": classification.plain(error),
            }  # fmt: skip


def draw_rocs(found: Numbers, canvas: Canvas) -> Figure:
    """Draw the curves of all runs over each other, a panel for each class that can be signal."""
    figure, panels = canvas.figure(len(found))
    runs = list(dict.fromkeys(run for curves in found.values() for run in curves))
    shades = dict(zip(runs, colours([False] * len(runs)), strict=True))
    for axes, (name, curves) in zip(panels, found.items(), strict=True):
        for run, curve in curves.items():
            words = f"{run}: {classification.in_words(curve)}"
            classification.add_curve(axes, curve, colour=shades[run], label=in_legend(words))
        classification.finish_curves(axes, min(curve["lowest"] for curve in curves.values()))
        if len(found) > 1:
            axes.set_title(name)
    return canvas.finish(figure, panels[0])


def _parts(
    tested: Mapping[Path, ScoredRun],
    shown: Sequence[page.Drawn],
    beside: Mapping[str, Sequence[page.Drawn]],
    folder: str,
) -> Iterator[str]:
    yield f"<h1>{len(tested)} runs side by side</h1>"
    yield "<section>"
    metrics = {one.name: make.metrics_of(run) for run, one in tested.items()}
    names = list(
        dict.fromkeys(name for of in metrics.values() for name, v in of.items() if isinstance(v, (int, float)))
    )
    names = [*(n for n in FIGURES if n in names), *(n for n in names if n not in FIGURES and n != "weighted")]
    rows = [
        (one.name, *(_figure(metrics[one.name].get(name)) for name in names), page.weighted(one.is_weighted))
        for one in tested.values()
    ]
    yield from page.table(("run", *names, "weights"), rows)
    yield "</section>"
    yield '<div class="cards">'
    for sheet in shown:
        yield from page.card(sheet, folder=folder)
    yield "</div>"
    titles = list(dict.fromkeys((s.name.partition("_")[2], s.title) for of in beside.values() for s in of))
    for name, title in titles:
        yield f"<h2>{page.escape(title)}</h2>"
        yield '<div class="columns">'
        for run, sheets in beside.items():
            for sheet in sheets:
                if sheet.name.partition("_")[2] == name:
                    yield from page.card(replace(sheet, title=run), folder=folder)
        yield "</div>"


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
