"""What happens beside training: a network that can't be exported is refused before it, the test is reported after it.

Needs matplotlib (extra ``plot``) for the pictures alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from rootdata import disk
from rootdata.errors import BundleError, ConfigError, DataError
from rootdata.options.data import TARGETS, VARIED
from rootdata.training import confusion, metrics, responses
from rootdata.training.pictures import COLOURS, SIGNAL_COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT = ("score", "label", "weight", "index", "predictions", TARGETS)  # of what test_step returns


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredEvents:
    """The scored test events, in memory.

    Attributes
    ----------
    score : (n,) of label 1, or (n, classes)
    label, weight, sample : (n,); ``sample`` is the position in ``sample_names``
    classes, sample_names : names for labels and samples
    variations : name of a variation to the weights under it, (n,)
    """

    score: NDArray[np.float64]
    label: NDArray[np.int64]
    weight: NDArray[np.float64]
    sample: NDArray[np.int64]
    classes: tuple[str, ...]
    sample_names: tuple[str, ...]
    variations: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def per_class(self) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.int64]]]:
        """Yield each class that can be signal with its score and its label against the rest, both (n,)."""
        if self.score.ndim == 1:
            yield self.classes[1], self.score, self.label
            return
        for number, name in enumerate(self.classes):
            yield name, self.score[:, number], (self.label == number).astype(np.int64)

    def groups(self) -> Iterator[tuple[str, int, NDArray[np.bool_]]]:
        """Yield name, label and rows, (n,) bool, of each sample; of each of its labels where it has several."""
        for number, name in enumerate(self.sample_names):
            rows = self.sample == number
            labels = np.unique(self.label[rows])
            for label in labels:
                shown = name if len(labels) == 1 else f"{name} ({self.classes[label]})"
                yield shown, int(label), rows & (self.label == label)


class ScoreReport(pl.Callback):
    """Write how well the test events were classified, and what else was predicted of them.

    Into ``folder``, from what ``test_step`` returns (``score``, ``label``, and if there ``weight`` and ``index``):
    ``metrics.json`` (AUC, accuracy, loss, all weighted, the AUC with the weights of each variation; counts and mean
    score of each sample), ``roc.json`` and
    ``roc.png``, ``scores.json`` and ``scores.png`` (the distribution of the score in each sample). With more than two
    classes each is compared with all others, and ``confusion.json`` and ``confusion.png`` say which is taken for which.
    Of regressions (``predictions`` beside ``targets``) the metrics are ``rmse``, ``mae``, ``bias`` and ``resolution``,
    and ``responses.json`` and ``responses.png`` say more. The names come from ``classes`` and ``sample_names`` of the
    data module, and from ``targets`` of the network.

    Parameters
    ----------
    folder : made where absent
    bins : of the score histograms
    plots : draw the pictures too; without matplotlib a warning takes their place

    Attributes
    ----------
    metrics : what ``metrics.json`` holds, empty before the test
    paths : what was written, by name: ``metrics``, ``roc``, ``scores``, ``confusion``, ``responses``, and of each but
        the first its picture, ``roc_plot``
    """

    def __init__(self, folder: str | Path, *, bins: int = 40, plots: bool = True) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.bins = bins
        self.plots = plots
        self.metrics: dict[str, Any] = {}
        self.paths: dict[str, Path] = {}
        self._batches: list[dict[str, NDArray[Any]]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Forget an earlier test."""
        self._batches, self.metrics, self.paths = [], {}, {}

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep the scores of one batch.

        Parameters
        ----------
        trainer, pl_module : not used
        outputs : what ``test_step`` returned: ``score`` and ``label``, and where there are any ``weight``, ``index``,
            ``predictions`` and ``targets``, by name, an event on each row
        batch, batch_idx : not used: all that counts is in ``outputs``
        dataloader_idx : not used: there is one loader
        """
        self._batches.append({key: as_array(value) for key, value in outputs.items() if _is_kept(key)})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the scores of all processes and write the report from the first of them."""
        batches = gather(self._batches, world_size=trainer.world_size)
        self._batches = []
        if not batches or not trainer.is_global_zero:
            return
        data = getattr(trainer, "datamodule", None)
        self.write(
            batches,
            classes=getattr(data, "classes", ()),
            sample_names=getattr(data, "sample_names", ()),
            targets=getattr(pl_module, "targets", ()),
        )

    def write(
        self,
        batches: Sequence[Mapping[str, NDArray[Any]]],
        *,
        classes: Sequence[str],
        sample_names: Sequence[str],
        targets: Sequence[str] = (),
    ) -> None:
        """Report scored events, from wherever they come.

        Parameters
        ----------
        batches : at least one, of what ``test_step`` returns
        classes, sample_names, targets : names by number
        """
        scores = collect(batches, classes=classes, sample_names=sample_names) if "score" in batches[0] else None
        predicted = None
        if {"predictions", TARGETS} <= batches[0].keys():
            predicted = responses.collect(batches, names=targets)
        self.metrics = {} if scores is None else summarise(scores)
        if predicted is not None:
            self.metrics |= responses.summarise(predicted)
        self._write(scores, predicted)

    def _write(self, scores: ScoredEvents | None, predicted: responses.Predicted | None) -> None:
        """Write files and pictures of what there is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        contents: dict[str, Any] = {"metrics": self.metrics}
        figures: dict[str, Callable[[], Figure]] = {}
        if scores is not None:
            contents |= curves_of(scores, bins=self.bins)
            figures |= {"roc": partial(draw_roc, scores), "scores": partial(draw_scores, scores, bins=self.bins)}
            if scores.score.ndim == 2:
                table = confusion.count(scores.score, scores.label, weight=scores.weight, classes=scores.classes)
                contents["confusion"], figures["confusion"] = table.to_dict(), partial(confusion.draw, table)
        if predicted is not None:
            contents["responses"] = responses.to_dict(predicted)
            figures["responses"] = partial(responses.draw, predicted)
        self.paths = {name: write_json(content, self.folder / f"{name}.json") for name, content in contents.items()}
        if self.plots:
            self._draw(figures)

    def _draw(self, figures: Mapping[str, Callable[[], Figure]]) -> None:
        try:
            self.paths |= draw(figures, folder=self.folder)
        except ConfigError as error:  # the figures are written: no reason to lose a training
            warnings.warn(str(error), stacklevel=2)


class ExportCheck(pl.Callback):
    """Refuse to train a network that could not be exported afterwards, before its first batch.

    It is exported without writing anything, in the precision and on the device of the training. All ranks refuse.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try the export in the first process, for all of them.

        Raises
        ------
        BundleError
        """
        from rootdata.bundle.export import rehearse

        reason = None
        if trainer.is_global_zero:
            try:
                rehearse(pl_module, trainer.datamodule)  # type: ignore[attr-defined]
            except BundleError as error:
                reason = str(error)
        reason = trainer.strategy.broadcast(reason)
        if reason is not None:
            raise BundleError(f"{reason}; export=false trains it without a bundle")


def _is_kept(key: str) -> bool:
    return key in KEPT or key.startswith(VARIED)


def as_array(values: torch.Tensor) -> NDArray[Any]:
    """Bring a tensor to numpy; half precision, which numpy may not know, becomes float32."""
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


def gather(batches: list[dict[str, NDArray[Any]]], *, world_size: int) -> list[dict[str, NDArray[Any]]]:
    """Join the lists of all processes, in the order of their ranks."""
    if world_size == 1:
        return batches
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, batches)
    return [batch for part in parts for batch in part]


def collect(
    batches: Sequence[Mapping[str, NDArray[Any]]], *, classes: Sequence[str], sample_names: Sequence[str]
) -> ScoredEvents:
    """Join batches; labels and samples without a name are called by their number.

    Parameters
    ----------
    batches : at least one; ``score`` (n,) or (n, classes), ``label`` (n,), and where there are any ``weight`` (n,) and
        ``index`` (n, 3)
    classes : names by class number, as many as are known
    sample_names : names by sample number, as many as are known

    Raises
    ------
    DataError
        For scores that are not finite.
    """
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    score, label = joined["score"].astype(np.float64), joined["label"].astype(np.int64)
    n_bad = int(len(score) - np.isfinite(score.reshape(len(score), -1)).all(axis=1).sum())
    if n_bad:
        raise DataError(
            f"test scores: got {n_bad} of {len(score)} that are not finite; training has probably diverged; "
            "try a smaller model.lr or another data.scale"
        )
    n_classes = score.shape[1] if score.ndim == 2 else 2
    sample = joined["index"][:, 0].astype(np.int64) if "index" in joined else np.zeros(len(score), np.int64)
    n_samples = int(sample.max(initial=0)) + 1
    return ScoredEvents(
        score=score,
        label=label,
        weight=joined["weight"].astype(np.float64) if "weight" in joined else np.ones(len(score)),
        sample=sample,
        classes=named(classes, n_classes, kind="class"),
        sample_names=named(sample_names, n_samples, kind="sample"),
        variations={
            key.removeprefix(VARIED): values.astype(np.float64)
            for key, values in joined.items()
            if key.startswith(VARIED)
        },
    )


def named(names: Sequence[str], n_needed: int, *, kind: str) -> tuple[str, ...]:
    """Complete a list of names: ``kind 3`` for the fourth.

    Parameters
    ----------
    names : those that are known, in order
    n_needed : length of the result, where there are not more names than that
    kind : word for one of them
    """
    return *map(str, names), *(f"{kind} {number}" for number in range(len(names), n_needed))


def summarise(scores: ScoredEvents) -> dict[str, Any]:
    """Compute what ``metrics.json`` holds; a figure that can't be computed is None."""
    areas = areas_of(scores)
    varied = {name: areas_of(replace(scores, weight=weight)) for name, weight in scores.variations.items()}
    return {
        "auc": mean_of(areas),
        "accuracy": or_none(metrics.accuracy(scores.score, scores.label, weight=scores.weight)),
        "loss": or_none(metrics.cross_entropy(scores.score, scores.label, weight=scores.weight)),
        "events": len(scores.score),
        "weighted": bool((scores.weight != 1).any()),
        "auc_per_class": areas,
        **({"variations": {name: {"auc": mean_of(found)} for name, found in varied.items()}} if varied else {}),
        "samples": {name: summarise_group(scores, label, rows) for name, label, rows in scores.groups()},
    }


def areas_of(scores: ScoredEvents) -> dict[str, float | None]:
    """Compute the AUC of each class that can be signal."""
    return {name: or_none(metrics.auc(score, label, weight=scores.weight)) for name, score, label in scores.per_class()}


def mean_of(areas: Mapping[str, float | None]) -> float | None:
    """Average what could be computed."""
    known = [area for area in areas.values() if area is not None]
    return float(np.mean(known)) if known else None


def summarise_group(scores: ScoredEvents, label: int, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Count the events of one sample and average their scores, that of each class where there are several.

    Parameters
    ----------
    scores : of all test events
    label : class number that all events of the group have
    rows : (n,) True for the events of the group
    """
    weight, score = scores.weight[rows], scores.score[rows]
    columns = [metrics.mean(column, weight=weight) for column in score.reshape(len(score), -1).T]
    means: Any = columns[0] if score.ndim == 1 else dict(zip(scores.classes, map(or_none, columns), strict=True))
    return {
        "class": scores.classes[label],
        "events": len(score),
        "sum_of_weights": float(weight.sum()),
        "mean_score": means if isinstance(means, dict) else or_none(means),
    }


def or_none(value: float) -> float | None:
    """Replace NaN, which JSON does not know."""
    return value if np.isfinite(value) else None


def histogram(score: NDArray[np.float64], *, weight: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Fill weights into equal bins of [0, 1]: (bins,).

    Parameters
    ----------
    score : (n,) in [0, 1]; others are left out
    weight : (n,)
    bins : number of bins
    """
    return np.histogram(score, bins=bins, range=(0, 1), weights=weight)[0].astype(np.float64)


def curves_of(scores: ScoredEvents, *, bins: int) -> dict[str, Any]:
    """Return what ``roc.json`` and ``scores.json`` hold.

    Parameters
    ----------
    scores : of all test events
    bins : of the distributions of the scores, over [0, 1]
    """
    curves, histograms = {}, {}
    for name, score, label in scores.per_class():
        curve = metrics.thin(metrics.roc(score, label, weight=scores.weight))
        if not np.isnan(metrics.area(curve)):
            columns = {"signal_efficiency": curve.signal, "background_efficiency": curve.background}
            curves[name] = {key: values.tolist() for key, values in (columns | {"threshold": curve.threshold}).items()}
        histograms[name] = {
            group: histogram(score[rows], weight=scores.weight[rows], bins=bins).tolist()
            for group, _, rows in scores.groups()
        }
    edges = np.linspace(0, 1, bins + 1).tolist()
    return {"roc": {"classes": curves}, "scores": {"edges": edges, "classes": histograms}}


def write_json(content: Any, path: Path) -> Path:
    """Write one file, and return its path."""
    disk.write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def draw(figures: Mapping[str, Callable[[], Figure]], *, folder: Path) -> dict[str, Path]:
    """Draw the pictures and name them.

    Parameters
    ----------
    figures : name to what makes the picture
    folder : made where it is not there; pictures of these names are replaced

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    made = {f"{name}_plot": (folder / f"{name}.png", make()) for name, make in figures.items()}
    for path, figure in made.values():
        with disk.writing(path) as file:
            figure.savefig(file, format="png", dpi=150)
    return {name: path for name, (path, _) in made.items()}


def draw_roc(scores: ScoredEvents) -> Figure:
    """Draw the background's efficiency over the signal's, one curve per class that can be signal."""
    figure, (axes,) = new_figure()
    lowest = 0.1
    for (name, score, label), colour in zip(scores.per_class(), cycle(COLOURS), strict=False):
        curve = metrics.roc(score, label, weight=scores.weight)
        if np.isnan(metrics.area(curve)):
            continue
        shown = metrics.thin(curve)
        axes.plot(shown.signal, shown.background, color=colour, lw=2, label=f"{name} (AUC = {metrics.area(curve):.4f})")
        # Below ten background events a curve is noise: the axis ends there.
        lowest = min(lowest, 10 / max((label == 0).sum(), 100))
    diagonal = np.geomspace(lowest, 1, 200)
    axes.plot(diagonal, diagonal, color="0.6", ls="--", lw=1.2, label="random guess")
    axes.set(xlim=(0, 1), ylim=(lowest, 1), yscale="log")
    axes.set_xlabel("Signal efficiency", fontsize=13, loc="right")
    axes.set_ylabel("Background efficiency", fontsize=13, loc="top")
    axes.grid(visible=True, which="major", color="0.9", lw=0.8)
    title = f"{len(scores.label):,} test events"
    axes.legend(frameon=False, fontsize=11, loc="lower right", title=title, alignment="left", title_fontsize=11)
    return figure


def draw_scores(scores: ScoredEvents, *, bins: int) -> Figure:
    """Draw the distribution of the score in each sample, normalised to one; a panel per class that can be signal."""
    panels = list(scores.per_class())
    figure, all_axes = new_figure(len(panels))
    for axes, (name, score, is_signal) in zip(all_axes, panels, strict=True):
        smallest = 1.0
        for (group, _, rows), colour in zip(scores.groups(), group_colours(scores), strict=False):
            counts = histogram(score[rows], weight=scores.weight[rows], bins=bins)
            density = counts / (abs(counts.sum()) or 1.0) * bins
            smallest = min(smallest, density[density > 0].min(initial=1.0))
            draw_group(axes, density, label=group, colour=colour, is_filled=bool(is_signal[rows].all()))
        axes.set(xlim=(0, 1), yscale="log", ylim=(smallest / 2, None))
        axes.set_ylim(top=axes.get_ylim()[1] * 8)  # room for the legend
        axes.set_xlabel(f"Score of {name}", fontsize=13, loc="right")
        axes.set_ylabel("Events (normalised to unit area)", fontsize=13, loc="top")
        axes.legend(frameon=False, fontsize=10, loc="upper center", ncols=2)
    return figure


def group_colours(scores: ScoredEvents) -> Iterator[str]:
    """Yield a colour for each group: a red for signal where there is one kind of signal."""
    signal, other = cycle(SIGNAL_COLOURS), cycle(COLOURS)
    for _, label, _ in scores.groups():
        yield next(signal if label == 1 and scores.score.ndim == 1 else other)


def draw_group(axes: Axes, density: NDArray[np.float64], *, label: str, colour: str, is_filled: bool) -> None:
    """Draw one histogram over [0, 1]: signal as an area under the lines of the backgrounds.

    Parameters
    ----------
    axes : of matplotlib
    density : (bins,) heights, of equal bins
    label : name in the legend
    colour : as matplotlib takes it; the area is a paler one
    is_filled : whether it is signal
    """
    edges = np.linspace(0, 1, len(density) + 1)
    if is_filled:
        area = (colour, 0.22)
        axes.stairs(density, edges, fill=True, facecolor=area, edgecolor=colour, lw=1.8, label=label, zorder=1.5)
    else:
        axes.stairs(density, edges, color=colour, lw=1.8, label=label, baseline=None, zorder=2)
