"""What the trainings of all folds leave together: one file of out-of-fold scores, their figures, and one bundle."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from rootdata.analysis import folds as scored
from rootdata.analysis.folds import ScoredFold
from rootdata.analysis.report import make
from rootdata.analysis.report.config import ReportConfig
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
    config = _save_config(folder, folds[0].folder)
    report = ScoreReport(folder)
    report.write(
        [{key: values for key, values in arrays.items() if key != "fold"}],
        classes=about["classes"], sample_names=about["samples"], targets=about["targets"],
    )  # fmt: skip
    spread = scored.spread_of([make.metrics_of(fold.folder) for fold in folds])
    flat = {f"{name}_{what}": figure[what] for name, figure in spread.items() for what in ("mean", "spread")}
    write_json({**report.metrics, **flat, "folds": spread}, folder / METRICS)
    if "auc" in spread and "roc_plot" in report.paths:  # else there is no matplotlib, as was said
        draw({"folds": partial(scored.draw_folds, spread["auc"], report.metrics["auc"])}, folder=folder)
    _report(folder, OmegaConf.select(config, "callbacks.score_report"))
    if latest is not None:
        point(Path(latest), at=folder)
    return scored.table_of(spread, report.metrics)


def _report(folder: Path, wanted: DictConfig | None) -> None:
    """Make the page of all out-of-fold events, as the trainings make theirs; none where they make none."""
    if wanted is None or not wanted.get("plots"):
        return
    known = {field.name for field in dataclasses.fields(ReportConfig)}
    plain = cast("dict[str, Any]", OmegaConf.to_container(wanted))
    try:
        make.report(folder, ReportConfig.parse(**{name: plain[name] for name in plain if name in known}))
    except ConfigError as error:  # a library that is absent is no reason to lose the scores
        warnings.warn(str(error), stacklevel=2)


def _save_config(folder: Path, one: Path) -> DictConfig:
    """Write the configuration of all folds beside those of each."""
    config = cast("DictConfig", OmegaConf.load(one / CONFIG))
    config.data.fold = None
    config.paths.output_dir = str(folder.absolute())
    write_atomic(folder / CONFIG, OmegaConf.to_yaml(config))
    return config


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
