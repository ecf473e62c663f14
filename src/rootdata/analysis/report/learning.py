"""How the training went: what was logged of each epoch, and the one that was chosen."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootdata.analysis.report.canvas import MUTED, Canvas, Numbers, colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES = "metrics*.csv"
CLOSE = 1e-6  # relative, of a figure that went through a file

PARTS = ("train", "val")


def learning(run: Path, about: Mapping[str, Any]) -> Numbers:
    """Read what was logged of each epoch, those before a resumption included.

    Parameters
    ----------
    run : folder of a training; its tables are found wherever a logger put them
    about : of the test: ``monitor`` and ``best`` say which epoch was chosen

    Returns
    -------
    ``curves``: name to epochs and values; ``chosen``: the epoch, or None where it is not known
    """
    rows: dict[int, dict[str, float]] = {}
    for table in sorted(run.rglob(TABLES), key=_number):
        for row in _read(table):
            epoch = row.pop("epoch", None)
            if epoch is not None:
                rows.setdefault(int(epoch), {}).update(row)
    names = sorted({name for row in rows.values() for name in row if name.startswith(tuple(f"{p}/" for p in PARTS))})
    curves = {}
    for name in names:
        epochs = [epoch for epoch in sorted(rows) if name in rows[epoch]]
        curves[name] = {"epoch": epochs, "value": [rows[epoch][name] for epoch in epochs]}
    return {"curves": curves, "chosen": chosen(curves, about), "monitor": about.get("monitor")}


def _number(table: Path) -> float:
    """Sort the newest table behind those that it continues."""
    middle = table.name.split(".")[1]
    return float(middle) if middle.isdecimal() else math.inf


def _read(table: Path) -> list[dict[str, float]]:
    found = []
    with table.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            numbers = {}
            for key, text in row.items():
                try:
                    value = float(text or "nan")
                except (TypeError, ValueError):  # a line that was cut off
                    continue
                if key and math.isfinite(value):
                    numbers[key] = value
            found.append(numbers)
    return found


def chosen(curves: Mapping[str, Any], about: Mapping[str, Any]) -> int | None:
    """Find the epoch whose monitored figure is the best one, the first of several."""
    curve, best = curves.get(str(about.get("monitor"))), about.get("best")
    if curve is None or best is None:
        return None
    pairs = zip(curve["epoch"], curve["value"], strict=True)
    close = [(abs(value - best), epoch) for epoch, value in pairs if math.isclose(value, best, rel_tol=CLOSE)]
    return min(close)[1] if close else None


def draw_learning(found: Numbers, canvas: Canvas) -> Figure:
    """Draw a panel for each figure, training and validation in one; epochs are counted as checkpoints count them."""
    figures: dict[str, dict[str, Any]] = {}
    for name, curve in found["curves"].items():
        part, _, figure_name = name.partition("/")
        figures.setdefault(figure_name, {})[part] = curve
    figure, panels = canvas.figure(len(figures))
    shades = dict(zip(PARTS, colours([False, True]), strict=True))
    for axes, (name, parts) in zip(panels, figures.items(), strict=True):
        for part, curve in parts.items():
            axes.plot(curve["epoch"], curve["value"], marker="o", ms=4, color=shades[part], label=part)
        if found["chosen"] is not None:
            axes.axvline(found["chosen"], color=MUTED, ls="--", lw=1.2, label=f"chosen: epoch {found['chosen']}")
        axes.set_xlabel("Epoch")
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.tick_params(axis="x", which="minor", bottom=False, top=False)
        axes.set_ylabel(name)
        axes.legend(loc="best", fontsize="small")
    return canvas.finish(figure, panels[0])
