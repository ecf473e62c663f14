"""What a layout costs: gathering events into tensors, and a whole epoch: ``python -m benchmarks.layouts``."""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import tempfile
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
}


def options(paths: list[Path], kind: str) -> dict[str, Any]:
    """Return the options of a kind of batches, of the same columns."""
    plain = data.options(paths)
    jets = {"branches": [f"Jet_v{i}" for i in range(4)], "length": data.LENGTH, "image": IMAGE}
    return plain | {"jagged": {"Jet": jets}} | KINDS[kind]


def gathering(paths: list[Path], kind: str, *, rounds: int) -> list[float]:
    """Measure the CPU time of gathering a slab of scattered events of one block, in µs an event."""
    parsed = Options.parse(options(paths, kind), where="the benchmark")
    recipe = Recipe(scanned=scan_for(parsed, progress=False), part=0)
    reader = EventReader(recipe)
    pool = Pool(recipe.layout, [reader(0)])
    reader.close()
    rng, spent = np.random.default_rng(0), []
    for _ in range(rounds + 1):
        rows = rng.integers(0, data.CLUSTER, 2048)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        for _ in range(10):
            pool.gather(np.zeros(len(rows), np.int64), rows)
        spent.append((resource.getrusage(resource.RUSAGE_SELF).ru_utime - before) / 10 / len(rows) * 1e6)
    return spent[1:]


def epochs(paths: list[Path], kind: str, *, rounds: int) -> list[float]:
    """Measure the CPU time of later epochs from the files, in µs an event."""
    events = RootDataset(options(paths, kind))
    spent = [timed(lambda: sum(len(batch["label"]) for batch in events)) for _ in range(rounds + 1)]
    return [1e6 * one["cpu"] / one["events"] for one in itertools.islice(spent, 1, None)]


def main() -> None:
    """Print medians, and their ratios to tokens."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--clusters", type=int, default=5, help="of 10,000 events in each of two files")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    paths = data.make(arguments.folder, files=2, clusters=arguments.clusters)
    table = Table("CPU, µs an event", "gathering", "of tokens", "epoch", "of tokens")
    found = {
        kind: [statistics.median(how(paths, kind, rounds=arguments.rounds)) for how in (gathering, epochs)]
        for kind in KINDS
    }
    for kind, times in found.items():
        ratios = [time / base for time, base in zip(times, found["tokens"], strict=True)]
        pairs = zip(times, ratios, strict=True)
        table.add_row(kind, *(shown for time, ratio in pairs for shown in (f"{time:.2f}", f"{ratio:.1f}")))
    Console().print(table)


if __name__ == "__main__":
    main()
