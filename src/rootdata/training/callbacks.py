"""What happens beside training: a network that can't be exported is refused before it, the test is reported after it.

Needs matplotlib (extra ``plot``) for the pictures alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from rootdata import disk
from rootdata.errors import BundleError, ConfigError
from rootdata.options.data import OBSERVED, TARGETS, VARIED
from rootdata.training import metrics, responses, scored
from rootdata.training.pictures import COLOURS, SIGNAL_COLOURS, in_legend, new_figure
from rootdata.training.reports import sculpting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEST = "test/"  # what names of figures of the test begin with, where a network logs them
KEPT = {"score", "label", "weight", "index", "predictions", TARGETS}  # of what test_step returns


class TestedEvents(pl.Callback):
    """Keep what ``test_step`` returns, and hand it to :meth:`report` in the first process, joined over all of them."""

    __test__ = False  # no test of pytest's

    def __init__(self) -> None:
        super().__init__()
        self._batches: list[dict[str, NDArray[Any]]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Forget an earlier test."""
        self._batches = []

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
            ``predictions``, ``targets``, observers and variations of the weight, by name, an event on each row
        batch, batch_idx : not used: all that counts is in ``outputs``
        dataloader_idx : not used: there is one loader
        """
        self._batches.append({key: as_array(value) for key, value in outputs.items() if is_kept(key)})

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the scores of all processes and report them from the first."""
        batches = gather(self._batches, world_size=trainer.world_size)
        self._batches = []
        if batches and trainer.is_global_zero:
            self.report(batches, trainer, pl_module)

    def report(
        self, batches: list[dict[str, NDArray[Any]]], trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Do something with the events of a test; a subclass says what.

        Parameters
        ----------
        batches : at least one, of all processes, in the order of their ranks
        trainer : that tested
        pl_module : the network
        """
        raise NotImplementedError


class ScoreReport(TestedEvents):
    """Write how well the test events were classified, and what else was predicted of them.

    Into ``folder``, from what ``test_step`` returns (``score``, ``label``, and if there ``weight`` and ``index``):
    ``metrics.json`` (AUC, accuracy, loss, all weighted, the AUC with the weights of each variation; counts and mean
    score of each sample), ``roc.json`` and
    ``roc.png``, ``scores.json`` and ``scores.png`` (the distribution of the score in each sample). With more than two
    classes each is compared with all others, and ``confusion.json`` and ``confusion.png`` say which is taken for which.
    Of regressions (``predictions`` beside ``targets``) the metrics are ``rmse``, ``mae``, ``bias`` and ``resolution``,
    and ``responses.json`` and ``responses.png`` say more. Of a network with a ``decorrelation`` there is ``sculpting``,
    and ``sculpting.json`` and ``sculpting.png`` show it. What the network logs as ``test/NAME`` is there as ``NAME``.
    The names come from ``classes`` and ``sample_names`` of the
    data module, and from ``targets`` of the network.

    Parameters
    ----------
    folder : made where absent
    bins : of the score histograms
    plots : draw the pictures too; without matplotlib a warning takes their place

    Attributes
    ----------
    metrics : what ``metrics.json`` holds, empty before the test
    paths : what was written, by name: ``metrics``, ``roc``, ``scores``, ``confusion``, ``responses``, ``sculpting``,
        and of each but the first its picture, ``roc_plot``
    """

    def __init__(self, folder: str | Path, *, bins: int = 40, plots: bool = True) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.bins = bins
        self.plots = plots
        self.metrics: dict[str, Any] = {}
        self.paths: dict[str, Path] = {}

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget an earlier test."""
        super().on_test_start(trainer, pl_module)
        self.metrics, self.paths = {}, {}

    def report(
        self, batches: list[dict[str, NDArray[Any]]], trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Write the report.

        Parameters
        ----------
        batches : what was kept of all processes' test events
        trainer : that tested
        pl_module : the network
        """
        data = getattr(trainer, "datamodule", None)
        known = getattr(getattr(data, "data", None), "targets", ())
        figures: dict[str, Any] = dict(logged(trainer))
        sculpted: dict[str, sculpting.Sculpting] = {}
        if "score" in batches[0] and (columns := decorrelated(pl_module)):
            network: Any = pl_module
            sculpted = sculpting.measure_all(batches, columns=columns, labels=network.decorrelation.labels)
            figures["sculpting"] = {n: sculpted[n].divergence if n in sculpted else None for n in columns}
        self.write(
            batches,
            classes=getattr(data, "classes", ()),
            sample_names=getattr(data, "sample_names", ()),
            targets=getattr(pl_module, "targets", ()),
            units={target.name: target.unit for target in known if target.unit},
            figures=figures,
            sculpted=sculpted,
        )

    def write(
        self,
        batches: Sequence[Mapping[str, NDArray[Any]]],
        *,
        classes: Sequence[str],
        sample_names: Sequence[str],
        targets: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
        figures: Mapping[str, Any] | None = None,
        sculpted: Mapping[str, sculpting.Sculpting] | None = None,
    ) -> None:
        """Report scored events, from wherever they come.

        Parameters
        ----------
        batches : at least one, of what ``test_step`` returns
        classes, sample_names, targets : names by number
        units : of targets, by name
        figures : more of them, by name
        sculpted : how a cut changes the shape of a column, by its name
        """
        scores = scored.collect(batches, classes=classes, sample_names=sample_names) if "score" in batches[0] else None
        predicted = None
        if {"predictions", TARGETS} <= batches[0].keys():
            predicted = responses.collect(batches, names=targets, units=units or {})
        self.metrics = {} if scores is None else scored.summarise(scores)
        if predicted is not None:
            self.metrics |= responses.summarise(predicted)
        self.metrics = dict(figures or {}) | (self.metrics or counted(batches))
        self._write(scores, predicted, sculpted or {})

    def _write(
        self,
        scores: scored.ScoredEvents | None,
        predicted: responses.Predicted | None,
        sculpted: Mapping[str, sculpting.Sculpting],
    ) -> None:
        """Write files and pictures of what there is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        contents: dict[str, Any] = {"metrics": self.metrics}
        figures: dict[str, Callable[[], Figure]] = {}
        if scores is not None:
            contents |= scored.curves_of(scores, bins=self.bins)
            figures |= {"roc": partial(draw_roc, scores), "scores": partial(draw_scores, scores, bins=self.bins)}
            if scores.score.ndim == 2:
                table = scored.count(scores.score, scores.label, weight=scores.weight, classes=scores.classes)
                contents["confusion"], figures["confusion"] = table.to_dict(), partial(scored.draw, table)
        if predicted is not None:
            contents["responses"] = responses.to_dict(predicted)
            figures["responses"] = partial(responses.draw, predicted)
        if sculpted:
            contents["sculpting"] = {name: one.to_dict() for name, one in sculpted.items()}
            figures["sculpting"] = partial(sculpting.draw, sculpted)
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


def decorrelated(network: Any) -> tuple[str, ...]:
    """Name the observers that a network is decorrelated from."""
    decorrelation = getattr(network, "decorrelation", None)
    return () if decorrelation is None else tuple(decorrelation.options.columns)


def is_kept(key: str) -> bool:
    """Tell whether a report has a use for what ``test_step`` returned by this name."""
    return key in KEPT or key.startswith((OBSERVED, VARIED))


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


def counted(batches: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """Count the events of batches, and say whether they have weights; nothing where that can't be told."""
    if not all({"label", "weight"} & batch.keys() for batch in batches):
        return {}
    weights = [batch.get("weight", np.ones(len(next(iter(batch.values()))))) for batch in batches]
    return {"events": sum(map(len, weights)), "weighted": bool((np.concatenate(weights) != 1).any())}


def logged(trainer: pl.Trainer) -> dict[str, float | None]:
    """Return what the network logged of the test, by the names behind ``test/``."""
    found = {n.removeprefix(TEST): float(v) for n, v in trainer.callback_metrics.items() if n.startswith(TEST)}
    return {name: scored.or_none(value) for name, value in found.items()}


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


def draw_roc(scores: scored.ScoredEvents) -> Figure:
    """Draw the background's efficiency over the signal's, one curve per class that can be signal."""
    figure, (axes,) = new_figure()
    lowest = 0.1
    for (name, score, label), colour in zip(scores.per_class(), cycle(COLOURS), strict=False):
        curve = metrics.roc(score, label, weight=scores.weight)
        if np.isnan(metrics.area(curve)):
            continue
        shown, words = metrics.thin(curve), in_legend(f"{name} (AUC = {metrics.area(curve):.4f})")
        axes.plot(shown.signal, shown.background, color=colour, lw=2, label=words)
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


def draw_scores(scores: scored.ScoredEvents, *, bins: int) -> Figure:
    """Draw the distribution of the score in each sample, normalised to one; a panel per class that can be signal."""
    panels = list(scores.per_class())
    figure, all_axes = new_figure(len(panels))
    for axes, (name, score, is_signal) in zip(all_axes, panels, strict=True):
        smallest = 1.0
        for (group, _, rows), colour in zip(scores.groups(), group_colours(scores), strict=False):
            counts = scored.histogram(score[rows], weight=scores.weight[rows], bins=bins)
            density = counts / (abs(counts.sum()) or 1.0) * bins
            smallest = min(smallest, density[density > 0].min(initial=1.0))
            draw_group(axes, density, label=in_legend(group), colour=colour, is_filled=bool(is_signal[rows].all()))
        axes.set(xlim=(0, 1), yscale="log", ylim=(smallest / 2, None))
        axes.set_ylim(top=axes.get_ylim()[1] * 8)  # room for the legend
        axes.set_xlabel(f"Score of {name}", fontsize=13, loc="right")
        axes.set_ylabel("Events (normalised to unit area)", fontsize=13, loc="top")
        axes.legend(frameon=False, fontsize=10, loc="upper center", ncols=2)
    return figure


def group_colours(scores: scored.ScoredEvents) -> Iterator[str]:
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
