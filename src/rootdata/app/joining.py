"""What the trainings of all folds leave together: one file of out-of-fold scores, their figures, and one bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rootdata.analysis import folds as scored
from rootdata.app.folds import save_config
from rootdata.app.launch import BUNDLE
from rootdata.app.rebuild import METRICS, point, rebuild, report_of
from rootdata.bundle.export import export
from rootdata.bundle.manifest import Manifest
from rootdata.errors import ConfigError
from rootdata.training.callbacks import ScoreReport, write_json


def join(folder: Path, *, latest: str | None = None, has_bundle: bool = True) -> Any:
    """Write the out-of-fold scores, their metrics and the bundle of all folds into their folder.

    Parameters
    ----------
    folder : in which each fold has its own
    latest : a link that will point at the folder
    has_bundle : whether the networks are exported

    Returns
    -------
    a table to be printed by rich
    """
    folds = scored.scored_folds(folder)
    arrays = scored.joined(folds)
    scored.write(scored.columns_of(arrays, folds[0].about), folder / scored.OOF_SCORES, about=folds[0].about)
    save_config(folder, folds[0].folder)
    report = ScoreReport(folder)
    report.write(
        [{key: values for key, values in arrays.items() if key != "fold"}],
        classes=folds[0].about["classes"],
        sample_names=folds[0].about["samples"],
        targets=folds[0].about["targets"],
    )
    spread = scored.spread_of([_metrics(fold.folder) for fold in folds])
    flat = {f"{name}_mean": figure["mean"] for name, figure in spread.items()}
    flat |= {f"{name}_spread": figure["spread"] for name, figure in spread.items()}
    write_json({**report.metrics, **flat, "folds": spread}, folder / METRICS)
    if has_bundle:
        export_folds(folder)
    if latest is not None:
        point(Path(latest), at=folder)
    return scored.table_of(spread, report.metrics)


def _metrics(folder: Path) -> dict[str, Any]:
    path = folder / METRICS
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return dict(found)


def export_folds(folder: Path, **options: Any) -> Manifest:
    """Export the networks of all folds as one bundle.

    Parameters
    ----------
    folder : in which each fold has its own
    options : as :func:`rootdata.bundle.export.export` takes them

    Raises
    ------
    ConfigError
        For a fold of which no checkpoint was written.
    """
    built = []
    for fold in scored.scored_folds(folder):
        if not fold.about["checkpoint"]:
            raise ConfigError(f"{fold.folder}: fold {fold.number} has no checkpoint; train with callbacks.checkpoint")
        built.append(rebuild(fold.folder / fold.about["checkpoint"]))
    networks, modules = [network for network, _, _ in built], [data for _, data, _ in built]
    return export(networks, modules, options.pop("place", folder / BUNDLE), **report_of(folder), **options)
