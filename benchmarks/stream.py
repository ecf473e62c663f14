"""Streaming into batches beside reading alone, in one run: ``python -m benchmarks.stream``.

Every measurement is a process of its own, so that memory and imports are each one's own; rounds are interleaved, and
what counts is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.measure import in_process, peak_mb, timed

BASELINES = ("concatenate", "concatenate, same inflate", "iterate")
WARM = ("memory", "disk")


def measure_baseline(name: str, paths: list[Path], *, rntuple: bool) -> dict[str, Any]:
    """Read the same branches with uproot alone."""
    import awkward  # noqa: F401 - its import does not belong to the measurement
    import uproot

    files = [f"{p}:Events" for p in paths]
    branches = list(data.FLAT) + (["Jet"] if rntuple else list(data.JAGGED))
    before = peak_mb()

    def concatenate() -> int:
        return len(uproot.concatenate(files, branches))

    def iterate() -> int:
        return sum(len(chunk) for chunk in uproot.iterate(files, branches, step_size=100_000))

    if name == "concatenate, same inflate":
        from rootdata.io.trees import use_fast_inflate

        use_fast_inflate()
    run = iterate if name == "iterate" else concatenate
    uproot.concatenate(files[:1], branches[:1])  # what is loaded on first use
    return {"epoch": timed(run), "memory": peak_mb() - before}


def measure_rootdata(paths: list[Path], *, rntuple: bool, workers: int) -> dict[str, Any]:
    """First pass, a first and a second epoch, and how well they are shuffled."""
    import numpy as np

    started = time.perf_counter()
    from rootdata.loading.dataset import RootDataset

    imported, before = time.perf_counter(), peak_mb()
    result: dict[str, Any] = {"import": imported - started}
    made: list[RootDataset] = []

    def scan() -> int:
        made.append(RootDataset(data.options(paths, rntuple=rntuple), index=True, num_workers=workers))
        return made[0].num_events

    result["scan"] = timed(scan)
    signal: list[float] = []
    sources: list[int] = []
    first: list[float] = []
    size = 1024

    def epoch() -> int:
        begun, total = time.perf_counter(), 0
        for batch in made[0]:
            if not total:
                first.append(time.perf_counter() - begun)
            total += len(batch["label"])
            if len(batch["label"]) == size:
                signal.append(float(batch["label"].float().mean()))
                where = batch["index"][:, 1] * 1_000_000 + batch["index"][:, 2] // 1000
                sources.append(len(np.unique(where.numpy())))
        return total

    for name in ("first epoch", "later epoch"):
        result[name] = timed(epoch)
    result["first batch"] = first[0]
    result["class spread"] = float(np.std(signal) / np.sqrt(0.25 / size))
    result["source blocks"] = float(np.mean(sources))
    result["memory"] = peak_mb() - before
    result["threads left"] = threading.active_count() - 1
    return result


def measure_warm(kind: str, paths: list[Path], *, rntuple: bool, workers: int, folder: str) -> dict[str, Any]:
    """Measure an epoch from a cache, after one that filled it, at which everything was loaded, too."""
    from rootdata.loading.dataset import RootDataset

    cache: Any = "memory" if kind == "memory" else {"dir": folder}
    events = RootDataset(data.options(paths, rntuple=rntuple), cache=cache, num_workers=workers)

    def epoch() -> int:
        return sum(len(batch["label"]) for batch in events)

    epoch()
    return {"epoch": timed(epoch)}


def measure_memmap(paths: list[Path], *, rntuple: bool, folder: str) -> dict[str, Any]:
    """Take batches from padded arrays that lie on disk ready-made: in a row, and shuffled over all."""
    import numpy as np
    import torch

    from rootdata.loading.dataset import RootDataset

    events = RootDataset(data.options(paths, rntuple=rntuple) | {"shuffle": False})
    shapes = {"x": np.float32, "mask": np.bool_}
    width, n, size = events.shapes["x"][0], events.num_events, 1024
    arrays = {
        name: np.lib.format.open_memmap(f"{folder}/{name}.npy", "w+", dtype, (n, width))
        for name, dtype in shapes.items()
    }
    at = 0
    for batch in events:
        for name, array in arrays.items():
            array[at : at + len(batch["label"])] = batch[name].numpy()
        at += len(batch["label"])
    order = np.random.default_rng(0).permutation(n)

    def in_a_row() -> int:
        total = 0
        for low in range(0, n, size):
            batch = {name: torch.from_numpy(np.array(array[low : low + size])) for name, array in arrays.items()}
            total += len(batch["x"])
        return total

    def shuffled() -> int:
        total = 0
        for low in range(0, n, size):
            rows = order[low : low + size]
            batch = {name: torch.from_numpy(array[rows]) for name, array in arrays.items()}
            total += len(batch["x"])
        return total

    in_a_row()
    return {"in a row": timed(in_a_row), "shuffled": timed(shuffled)}


def rounds(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure everything in turn, several times."""
    common = [
        "--folder",
        str(options.folder),
        "--compression",
        options.compression,
        "--clusters",
        str(options.clusters),
    ]
    common += ["--workers", str(options.workers), *(["--rntuple"] if options.rntuple else [])]
    found = []
    names = (*BASELINES, "rootdata", *WARM, "memmap")
    for i in range(options.rounds):
        found.append({name: in_process("benchmarks.stream", [*common, "--only", name]) for name in names})
        print(f"round {i + 1} of {options.rounds} done", file=sys.stderr)
    return found


def report(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Take medians over the rounds, and ratios within them."""

    def rate(entry: dict[str, float], clock: str) -> float:
        return entry["events"] / entry[clock]

    steps = {name: (name, "epoch") for name in BASELINES}
    steps |= {name: ("rootdata", name) for name in ("scan", "first epoch", "later epoch")}
    steps |= {f"epoch from {name}": (name, "epoch") for name in WARM}
    steps |= {f"memmap, {name}": ("memmap", name) for name in ("in a row", "shuffled")}
    table: dict[str, Any] = {}
    for name, (who, what) in steps.items():
        row = {f"{c} events/s": statistics.median(rate(r[who][what], c) for r in found) for c in ("cpu", "wall")}
        for base, clocks in (("concatenate", ("cpu", "wall")), ("concatenate, same inflate", ("cpu",))):
            for clock in clocks:
                ratios = [rate(r[who][what], clock) / rate(r[base]["epoch"], clock) for r in found]
                row[f"{clock} / {base}"] = statistics.median(ratios)
        table[name] = row
    alone = ("import", "first batch", "class spread", "source blocks", "memory")
    facts = {name: statistics.median(r["rootdata"][name] for r in found) for name in alone}
    facts |= {f"memory of {name}": statistics.median(r[name]["memory"] for r in found) for name in BASELINES}
    return {"table": table, "facts": facts}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", *next(iter(result["table"].values())))
    for name, row in result["table"].items():
        table.add_row(name, *(f"{v:,.0f}" if "events" in k else f"{v:.2f}" for k, v in row.items()))
    facts = Table("figure", "median")
    units = {"memory": " MB above imports", "import": " s", "first batch": " s", "class spread": " of binomial"}
    for name, value in result["facts"].items():
        facts.add_row(name, f"{value:.2f}{units.get(name.split(' of ')[0], '')}")
    console = Console(width=160)
    console.print(table)
    console.print(facts)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--compression", choices=sorted(data.COMPRESSION), default="zlib")
    parser.add_argument("--rntuple", action="store_true", help="RNTuples instead of TTrees")
    parser.add_argument("--clusters", type=int, default=10, help="of 10,000 events in each of the four files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="reading threads; 0: those of the default")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    make = {"clusters": options.clusters, "compression": options.compression, "rntuple": options.rntuple}
    paths = data.make(options.folder, **make)
    if options.only == "rootdata":
        with tempfile.TemporaryDirectory() as cache:
            import os

            os.environ["ROOTDATA_CACHE"] = cache
            print(json.dumps(measure_rootdata(paths, rntuple=options.rntuple, workers=options.workers)))
    elif options.only in (*WARM, "memmap"):
        common = {"paths": paths, "rntuple": options.rntuple}
        with tempfile.TemporaryDirectory() as folder:
            if options.only == "memmap":
                print(json.dumps(measure_memmap(**common, folder=folder)))
            else:
                print(json.dumps(measure_warm(options.only, **common, workers=options.workers, folder=folder)))
    elif options.only:
        print(json.dumps(measure_baseline(options.only, paths, rntuple=options.rntuple)))
    else:
        result = report(rounds(options))
        show(result)
        if options.json:
            options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
