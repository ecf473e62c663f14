"""What the trainings of all folds leave together: one file of out-of-fold scores, their figures, and one bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from rootdata.analysis import folds as scored
from rootdata.analysis.folds import ScoredFold
from rootdata.app.rebuild import point, rebuild, report_of
from rootdata.bundle.export import export
from rootdata.bundle.manifest import Manifest
from rootdata.disk import write_atomic
from rootdata.errors import ConfigError
from rootdata.training.callbacks import ScoreReport, draw, write_json
from rootdata.training.resume import CONFIG, METRICS

if TYPE_CHECKING:
    from rich.table import Table


def join(folder: Path, *, latest: str | None = None) -> Table:
    """Write the out-of-fold scores of all folds, and what they are worth, into the folder of all folds.

    Parameters
    ----------
    folder : in which each fold has its own
    latest : a link that will point at the folder

    Returns
    -------
    a table to be printed by rich

    Raises
    ------
    ConfigError, DataError
        As :func:`rootdata.analysis.folds.scored_folds` and :func:`rootdata.analysis.folds.joined`.
    """
    folds = scored.scored_folds(folder)
    arrays, about = scored.joined(folds), folds[0].about
    scored.write(scored.columns_of(arrays, about), folder / scored.OOF_SCORES, about=about)
    _save_config(folder, folds[0].folder)
    report = ScoreReport(folder)
    report.write(
        [{key: values for key, values in arrays.items() if key != "fold"}],
        classes=about["classes"], sample_names=about["samples"], targets=about["targets"],
    )  # fmt: skip
    spread = scored.spread_of([_metrics(fold.folder) for fold in folds])
    flat = {f"{name}_{what}": figure[what] for name, figure in spread.items() for what in ("mean", "spread")}
    write_json({**report.metrics, **flat, "folds": spread}, folder / METRICS)
    if "auc" in spread and "roc_plot" in report.paths:  # else there is no matplotlib, as was said
        draw({"folds": partial(scored.draw_folds, spread["auc"], report.metrics["auc"])}, folder=folder)
    if latest is not None:
        point(Path(latest), at=folder)
    return scored.table_of(spread, report.metrics)


def _save_config(folder: Path, one: Path) -> None:
    """Write the configuration of all folds beside those of each."""
    config = cast("DictConfig", OmegaConf.load(one / CONFIG))
    config.data.fold = None
    config.paths.output_dir = str(folder.absolute())
    write_atomic(folder / CONFIG, OmegaConf.to_yaml(config))


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / METRICS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def export_folds(folder: Path, place: Path, **options: Any) -> Manifest:
    """Export the networks of all folds as one bundle.

    Parameters
    ----------
    folder : in which each fold has its own
    place : of the bundle
    options : as :func:`rootdata.bundle.export.export` takes them

    Raises
    ------
    ConfigError
        For a fold of which no checkpoint was written.
    """
    built = [rebuild(fold.folder / fold.about["checkpoint"]) for fold in _kept(scored.scored_folds(folder))]
    networks, modules = [network for network, _, _ in built], [data for _, data, _ in built]
    return export(networks, modules, place, **report_of(folder), **options)


def _kept(folds: Sequence[ScoredFold]) -> Sequence[ScoredFold]:
    for fold in folds:
        if not fold.about["checkpoint"]:
            raise ConfigError(
                f"{fold.folder}: fold {fold.number} has no checkpoint; train it with callbacks.checkpoint"
            )
    return folds
