"""From what a test left to a report: numbers, pictures of them, a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootdata import disk
from rootdata.analysis.report import canvas as drawing
from rootdata.analysis.report import classification, inputs, learning, page, regression, scores
from rootdata.analysis.report.canvas import Canvas, Numbers
from rootdata.analysis.report.config import ReportConfig
from rootdata.analysis.report.tested import ScoredRun
from rootdata.errors import DataError
from rootdata.training.scored import ScoredEvents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
FEATURES = "features_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """One picture, or table, with its numbers.

    Attributes
    ----------
    name : of its files
    title : for people
    text : what is seen, and how it was computed
    numbers : all that is drawn
    draw : makes the picture; None where the page shows a table instead
    """

    name: str
    title: str
    text: str
    numbers: Numbers
    draw: Callable[[Numbers, Canvas], Figure] | None = None


def report(run: Path, config: ReportConfig, *, out: Path | None = None) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    run : folder of a training that was tested
    config : of the report
    out : the page, ``report.html`` of the run by default; pictures and numbers lie in a folder of its name

    Returns
    -------
    the page

    Raises
    ------
    ConfigError
        Where a library that draws is not installed.
    FileError, ConfigError, DataError
        As :meth:`ScoredRun.load`.
    """
    drawing.check_installed()
    tested = ScoredRun.load(run)
    place = out or run / PAGE
    canvas = Canvas(config, weighted=tested.is_weighted)
    shown = draw(sheets_of(tested, run, config), canvas, folder=place.with_suffix(""))
    text = page.one(tested, shown, metrics=metrics_of(run), folder=place.stem)
    disk.write_atomic(place, text)
    return place


def draw(sheets: Sequence[Sheet], canvas: Canvas, *, folder: Path) -> list[page.Drawn]:
    """Write the numbers and the picture of each sheet, and return what a page shows.

    Parameters
    ----------
    sheets : in their order
    canvas : to draw on
    folder : of the files, made where it is not there
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with canvas.styled():
        for sheet in sheets:
            write_numbers(sheet.numbers, folder / f"{sheet.name}.json")
            svg = "" if sheet.draw is None else drawing.save(sheet.draw(sheet.numbers, canvas), folder, sheet.name)
            found.append(
                page.Drawn(name=sheet.name, title=sheet.title, text=sheet.text, numbers=sheet.numbers, svg=svg)
            )
    return found


def write_numbers(numbers: Numbers, path: Path) -> None:
    """Write the numbers of a picture as JSON."""
    disk.write_atomic(path, json.dumps(numbers, allow_nan=False) + "\n")


def metrics_of(run: Path) -> dict[str, Any]:
    """Read what the test wrote down; nothing where it wrote nothing."""
    path = run / "metrics.json"
    return read_numbers(path) if path.is_file() else {}


def read_numbers(path: Path) -> Numbers:
    """Read what a test wrote down.

    Raises
    ------
    DataError
        For a file that is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} can't be read ({error}); remove it, or test the network again") from error


def sheets_of(tested: ScoredRun, run: Path, config: ReportConfig) -> list[Sheet]:
    """Compute the numbers of all that the test gives.

    Parameters
    ----------
    tested : what it left
    run : folder of the training
    config : of the report
    """
    found: list[Sheet] = []
    if spread := metrics_of(run).get("folds"):
        found.append(
            Sheet(
                name="folds", title="Folds",
                text="Test events of each fold, and mean and spread (standard deviation) over them. All else on this "
                "page is of all events together, each scored by the network that never saw it; a report of each fold "
                "lies in its folder.",
                numbers=spread,
            )
        )  # fmt: skip
    if (events := tested.scores) is not None:
        found += _classes(events, tested, config)
    if (predicted := tested.predicted) is not None and len(predicted.weight):
        found.append(
            Sheet(
                name="response", title="Response and resolution",
                text="Predicted over true value, and bias and resolution in slices of the true value with as many "
                "events each.",
                numbers=regression.response(predicted), draw=regression.draw_response,
            )
        )  # fmt: skip
    logged = {"curves": {}} if "folds" in tested.about else learning.learning(run, tested.about)
    if logged["curves"]:
        found.append(
            Sheet(
                name="learning", title="Learning curves",
                text="What was logged of each epoch, counted from 0 as in the names of checkpoints; the dashed line is "
                "the epoch whose weights were tested.",
                numbers=logged, draw=learning.draw_learning,
            )
        )  # fmt: skip
    return [*found, *_inputs(run / Path(PAGE).stem)]


def _classes(events: ScoredEvents, tested: ScoredRun, config: ReportConfig) -> Iterator[Sheet]:
    curves = classification.roc(events)
    if curves["classes"]:
        yield Sheet(
            name="roc", title="ROC curve",
            text="Background efficiency over signal efficiency of the test events. The band holds two in three curves "
            "of a Poisson bootstrap; the error of the area is DeLong's, by weights where there are any.",
            numbers=curves, draw=classification.draw_roc,
        )  # fmt: skip
        yield Sheet(
            name="rejection", title="Background rejection",
            text="Background events for each one that passes the cut, at some signal efficiencies; errors are "
            "binomial, at a fixed cut; where nothing passes, the limit at 95 % of confidence.",
            numbers=classification.rejection(events, at=config.working_points),
        )  # fmt: skip
    yield from _distributions(events, tested, config)
    if len(set(events.label.tolist())) > 1:
        yield _significance(events, tested, config)
    yield Sheet(
        name="calibration", title="Calibration",
        text="How often events of a score are signal, in bins of as many events each. A network that was trained on a "
        "mixture, or on reweighted events, is calibrated for those.",
        numbers=classification.calibration(events), draw=classification.draw_calibration,
    )  # fmt: skip
    yield Sheet(
        name="matrix", title="Which class is taken for which",
        text="Share of the weight of each class, in a row, by the likeliest class" +
        ("." if events.score.ndim == 2 else ": the cut is at one half."),
        numbers=classification.matrix(events), draw=classification.draw_matrix,
    )  # fmt: skip


def _distributions(events: ScoredEvents, tested: ScoredRun, config: ReportConfig) -> Iterator[Sheet]:
    yield Sheet(
        name="yields", title="Scores, stacked to yields",
        text="Sums of weights of each sample, scaled from the test part to all of its selected events"
        + (f"; the weights have to mean {config.luminosity:g} fb⁻¹." if config.luminosity else "."),
        numbers=scores.distributions(events, bins=config.bins, scale=tested.scale), draw=scores.draw_yields,
    )  # fmt: skip
    yield Sheet(
        name="shapes", title="Scores, each sample normalised to one",
        text="Signal is filled; error bars are statistical, of the weights.",
        numbers=scores.distributions(events, bins=config.bins), draw=scores.draw_shapes,
    )  # fmt: skip
    if (training := tested.training) is not None and (others := tested.beside_training) is not None:
        numbers = scores.overtraining(others, training, bins=config.bins)
        verdicts = [
            one["verdict"] if len(numbers) == 1 else f"{name}: {one['verdict']}" for name, one in numbers.items()
        ]
        yield Sheet(
            name="overtraining", title="Training against test",
            text=" ".join(verdicts) + " The p-values are of a Kolmogorov-Smirnov test with effective counts, on "
            f"{len(training.label):,} training events"
            + ("." if tested.apart is None else f" and {len(others.label):,} other test events. Each event counts "
               "once, as a training event of one of the networks that trained on it, or as a test event."),
            numbers=numbers, draw=scores.draw_overtraining,
        )  # fmt: skip
    if varied := tested.variations:
        yield Sheet(
            name="variations", title="Variations of the weight",
            text="Ratio of the varied to the nominal distribution of the score.",
            numbers=scores.variations(events, varied, bins=config.bins), draw=scores.draw_variations,
        )  # fmt: skip
    observed = scores.sculpting(events, tested.observers)
    if observed:
        yield Sheet(
            name="sculpting", title="Score and observers",
            text="Of the background: the mean score over an observer, and the observer's distribution after cuts on "
            "the score that take away some of the background. A cut that does not sculpt leaves its shape.",
            numbers=observed, draw=scores.draw_sculpting,
        )  # fmt: skip


def _significance(events: ScoredEvents, tested: ScoredRun, config: ReportConfig) -> Sheet:
    weight = events.weight * tested.scale
    numbers = {
        name: classification.significance(score, label == 1, weight, uncertainty=config.background_uncertainty)
        for name, score, label in events.per_class()
    }
    best = [
        f"{name}: cut at {scan['best']['cut']:.4f}, {scan['best']['signal']:.4g} signal over "
        f"{scan['best']['background']:.4g} background, Z = {scan['best']['with_uncertainty']:.3g}"
        for name, scan in numbers.items()
        if scan["best"] is not None
    ]
    return Sheet(
        name="significance", title="Significance",
        text=("Best cut: " + "; ".join(best) + ". " if best else "No cut leaves enough background. ")
        + "Median significance of a counting experiment, Asimov formula of Cowan, Cranmer, Gross and Vitells "
        "(arXiv:1007.1727), with Cowan's extension for an uncertain background; yields as above. Cuts that leave fewer "
        f"than {classification.FEWEST:g} effective background events are not called the best.",
        numbers=numbers, draw=classification.draw_significance,
    )  # fmt: skip


def keep_inputs(run: Path, found: Mapping[str, Numbers]) -> None:
    """Write what was learnt of the inputs, and remove what an earlier test wrote of them.

    Parameters
    ----------
    run : folder of the training
    found : by the name of the picture
    """
    folder = run / Path(PAGE).stem
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        if path.stem in _INPUTS or path.stem.startswith(FEATURES):
            path.unlink()
    for name, numbers in found.items():
        write_numbers(numbers, folder / f"{name}.json")


def _inputs(folder: Path) -> Iterator[Sheet]:
    """Yield what the test wrote down of the inputs, which are not kept."""
    for name, (title, text, picture) in _INPUTS.items():
        if (path := folder / f"{name}.json").is_file():
            numbers = read_numbers(path)
            counts = f"{numbers['events']:,} test events"
            if name == "gradients":
                counts += f", {numbers['steps']} steps; contributions miss the logit by {numbers['completeness']:.2g}"
            else:
                counts += f", {numbers['shuffles']} shuffles each, whose spread the bars show"
            yield Sheet(name=name, title=title, text=f"{text} {counts}.", numbers=numbers, draw=picture)
    for path in sorted(folder.glob(f"{FEATURES}*.json"), key=lambda path: (path.stem != f"{FEATURES}flat", path.stem)):
        place = path.stem.removeprefix(FEATURES)
        yield Sheet(
            name=path.stem, title="Features" if place == "flat" else f"Features of {place}",
            text="Before and after scaling, each class normalised to one; the outer bins hold the rest. Of some "
            "of the test events.",
            numbers=read_numbers(path), draw=inputs.draw_distributions,
        )  # fmt: skip


_INPUTS: dict[str, tuple[str, str, Callable[[Numbers, Canvas], Figure]]] = {
    "importance": (
        "Permutation importance",
        "How much worse the result is where an input, or a whole collection (red), is shuffled among events:",
        inputs.draw_importance,
    ),
    "gradients": (
        "Integrated gradients",
        "How much each input contributes to the logit, on the way from the mean event to each event:",
        inputs.draw_gradients,
    ),
}
