"""The first pass and an epoch over 74 branches (22 flat, 52 jagged) beside a bare read: ``python -m benchmarks.scan``.

The events are those of ``rootdata simulate --set full``. Truth and identifiers are read by the bare read alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import in_process, peak_mb, timed

NOT_FEATURES = ("run", "luminosityBlock", "event", "genWeight", "gen_isHiggsMatched")


def options(paths: list[Path]) -> dict[str, Any]:
    """Return the options that take every branch but truth and identifiers."""
    from rootdata.io.trees import open_tree
    from rootdata.location import Location

    tree = open_tree(Location(str(paths[0])))
    branches = [tree.describe(name) for name in tree.names() if name not in NOT_FEATURES]
    collections: dict[str, list[str]] = {}
    for branch in branches:
        if branch.kind == "jagged":
            collections.setdefault(str(branch.counter), []).append(branch.name)
    tree.close()
    return {
        "samples": {path.stem: {"files": str(path), "label": int("ttH" in path.stem)} for path in paths},
        "flat": [b.name for b in branches if b.kind == "flat"],
        "jagged": {name.removeprefix("n"): {"branches": found} for name, found in collections.items()},
        "split": {"train": 1.0},
        "scale": {"default": "none"},
    }


def bare(paths: list[Path]) -> dict[str, Any]:
    """Read all branches with uproot alone, file by file."""
    import awkward  # noqa: F401 - its import does not belong to the measurement
    import uproot

    before = peak_mb()

    def read() -> int:
        total = 0
        for path in paths:
            with uproot.open(f"{path}:Events") as tree:
                tree.arrays(how=dict)
                total += tree.num_entries
        return total

    return {"read": timed(read), "memory": peak_mb() - before}


def streamed(paths: list[Path]) -> dict[str, Any]:
    """Scan, then run through an epoch."""
    from rootdata.loading.dataset import RootDataset

    chosen, before, made = options(paths), peak_mb(), []

    def scan() -> int:
        made.append(RootDataset(chosen))
        return made[0].num_events

    def epoch() -> int:
        return sum(len(batch["label"]) for batch in made[0])

    found: dict[str, Any] = {"scan": timed(scan)}
    found["start with specs"] = timed(scan)
    found["epoch"] = timed(epoch)
    found["memory"] = peak_mb() - before
    return found


def main() -> None:
    """Make the files, measure in turn, print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--events", type=int, default=480_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=["bare", "rootdata"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from rootdata.tth import generate_full

    paths = generate_full(arguments.folder / f"full_{arguments.events}", arguments.events)
    if arguments.only:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["ROOTDATA_CACHE"] = cache
            print(json.dumps(bare(paths) if arguments.only == "bare" else streamed(paths)))
        return
    common = ["--folder", str(arguments.folder), "--events", str(arguments.events)]
    rounds = []
    for i in range(arguments.rounds):
        rounds.append({who: in_process("benchmarks.scan", [*common, "--only", who]) for who in ("bare", "rootdata")})
        print(f"round {i + 1} of {arguments.rounds} done", file=sys.stderr)
    show(rounds, arguments.json)


def show(rounds: list[dict[str, Any]], path: Path | None) -> None:
    """Print and keep the medians over rounds."""
    from rich.console import Console
    from rich.table import Table

    def rate(entry: dict[str, float]) -> float:
        return entry["events"] / entry["cpu"]

    steps = {"bare read": ("bare", "read"), "first pass": ("rootdata", "scan"), "epoch": ("rootdata", "epoch")}
    table = Table("", "events / CPU-s", "ratio to bare read")
    result: dict[str, Any] = {}
    for name, (who, what) in steps.items():
        ratio = statistics.median(rate(r[who][what]) / rate(r["bare"]["read"]) for r in rounds)
        result[name] = {"rate": statistics.median(rate(r[who][what]) for r in rounds), "ratio": ratio}
        table.add_row(name, f"{result[name]['rate']:,.0f}", f"{ratio:.2f}")
    facts = {"start with specs (s)": statistics.median(r["rootdata"]["start with specs"]["wall"] for r in rounds)}
    facts |= {
        f"memory of {who} (MB)": statistics.median(r[who]["memory"] for r in rounds) for who in ("bare", "rootdata")
    }
    Console().print(table, facts)
    if path:
        path.write_text(json.dumps({**result, **facts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
