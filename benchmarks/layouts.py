"""What a layout costs: gathering events into tensors, and a whole epoch: ``python -m benchmarks.layouts``."""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import data
from benchmarks.measure import timed
from rootdata.layouts.pool import Pool
from rootdata.loading.dataset import RootDataset
from rootdata.loading.stream import EventReader, Recipe
from rootdata.options.parsed import Options
from rootdata.scan.lookup import scan_for

IMAGE = {
    "x": {"column": "Jet_v0", "bins": 32, "range": [0, 200]}, "y": {"column": "Jet_v1", "bins": 32, "range": [0, 200]},
    "channels": ["count", "sum(Jet_v2)", "max(Jet_v3)"],
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "tokens": {"layout": "tokens"},
    "vector": {"layout": "vector"},
    "jagged": {"layout": "jagged"},
    "image, 32 x 32 x 3": {"layout": "image"},
    **{f"tokens, {scale}": {"scale": scale} for scale in ("none", "minmax", "robust", "log", "uniform", "normal")},
    "tokens, clip: 5": {"clip": 5},
}
"""What is measured; where nothing else is said, tokens that are scaled by ``standard``."""


def options(paths: list[Path], kind: str) -> dict[str, Any]:
    """Return the options of a kind of batches, of the same columns."""
    plain = data.options(paths)
    jets = {"branches": [f"Jet_v{i}" for i in range(4)], "length": data.LENGTH, "image": IMAGE}
    return plain | {"jagged": {"Jet": jets}, "layout": "tokens", "scale": "standard"} | KINDS[kind]


class Gathering:
    """Gathers slabs of scattered events of one block, from memory."""

    def __init__(self, paths: list[Path], kind: str) -> None:
        parsed = Options.parse(options(paths, kind), where="the benchmark")
        recipe = Recipe(scanned=scan_for(parsed, progress=False), part=0)
        reader = EventReader(recipe)
        self._pool = Pool(recipe.layout, [reader(0)])
        reader.close()
        self._rows = np.random.default_rng(0).integers(0, data.CLUSTER, 2048)

    def __call__(self) -> float:
        """Measure the CPU time of an event, in µs."""
        rows = self._rows
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        for _ in range(10):
            self._pool.gather(np.zeros(len(rows), np.int64), rows)
        return (resource.getrusage(resource.RUSAGE_SELF).ru_utime - before) / 10 / len(rows) * 1e6


class Epoch:
    """Streams epochs from the files."""

    def __init__(self, paths: list[Path], kind: str) -> None:
        self._events = RootDataset(options(paths, kind))

    def __call__(self) -> float:
        """Measure the CPU time of an event, in µs."""
        one = timed(lambda: sum(len(batch["label"]) for batch in self._events))
        return 1e6 * one["cpu"] / one["events"]


def medians(measures: dict[str, Callable[[], float]], *, rounds: int) -> dict[str, float]:
    """Measure all of them in every round, so that other work on the machine meets all alike; the first is left out."""
    found = [{name: measure() for name, measure in measures.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(one[name] for one in found) for name in measures}


def main() -> None:
    """Print medians, and their ratios to tokens."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--clusters", type=int, default=5, help="of 10,000 entries in each of two files")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    paths = data.make(arguments.folder, files=2, clusters=arguments.clusters)
    table = Table("CPU, µs an event", "gathering", "of tokens", "epoch", "of tokens")
    found = [medians({kind: how(paths, kind) for kind in KINDS}, rounds=arguments.rounds) for how in (Gathering, Epoch)]
    for kind in KINDS:
        shown = [(times[kind], times[kind] / times["tokens"]) for times in found]
        table.add_row(kind, *(words for time, ratio in shown for words in (f"{time:.2f}", f"{ratio:.2f}")))
    Console().print(table)


if __name__ == "__main__":
    main()
