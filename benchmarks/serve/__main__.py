"""The prediction server beside bare onnxruntime, stock LitServe, FastAPI and MLServer: ``python -m benchmarks.serve``.

All serve one network, 27 -> 1024 -> 1024 -> 1, with one worker of one thread. Each server is started anew in every
round, and is alone with the load generator; CPU counts all processes of a server and not the generator. What counts is
the median over the rounds, and for ratios that of the ratios within a round. Answers are compared with onnxruntime's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import tempfile
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.serve import files, network, report, rounds, servers


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=100, help="keep-alive connections")
    parser.add_argument("--seconds", type=float, default=4.0, help="of sending, for each measurement")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of watching each server do nothing")
    parser.add_argument("--file", action="store_true", help="score ROOT files of 100,000 and 1,000,000 events too")
    parser.add_argument("--mlserver-python", type=Path, help="interpreter of an environment with MLServer")
    parser.add_argument("--only", nargs="+", help="names of servers; this project's is 'rootdata'")
    parser.add_argument("--first", action="store_true", help="the first road of each server alone, one event as JSON")
    parser.add_argument("--quick", action="store_true", help="look whether everything runs; the figures mean nothing")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.clients, options.seconds, options.idle = 1, 10, 0.4, 0.5
    return options


def run(options: argparse.Namespace, models: Path, pool: Executor) -> list[dict[str, Any]]:
    """Measure everything in turn, several times."""
    plan = rounds.Plan(models=models, clients=options.clients, seconds=options.seconds, idle=options.idle)
    chosen = [c for c in servers.contestants(options.mlserver_python) if not options.only or c.name in options.only]
    if options.first:
        chosen = [dataclasses.replace(c, roads=c.roads[:1]) for c in chosen]
    found = []
    for i in range(options.rounds):
        found.append({"servers": {c.name: rounds.contest(c, plan, pool) for c in chosen}})
        print(f"round {i + 1} of {options.rounds} done", file=sys.stderr)
    return found


def result_of(found: list[dict[str, Any]], scored: list[dict[str, Any]]) -> dict[str, Any]:
    """Put everything together, the rounds as they were included."""
    names = found[0]["servers"]
    kept = report.promises(found, scored) if {report.PROJECT, report.STOCK, report.PLAIN} <= set(names) else []
    return {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()},
        "bare": report.bare(found),
        "table": report.summarize(found),
        "idle": {name: statistics.median(r["servers"][name]["idle"] for r in found) for name in names},
        "files": scored,
        "promises": [{**dataclasses.asdict(p), "is_kept": p.is_kept} for p in kept],
        "rounds": found,
    }


def finish(options: argparse.Namespace, found: list[dict[str, Any]], scored: list[dict[str, Any]]) -> None:
    """Print and write what there is."""
    result = result_of(found, scored)
    report.show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    """Measure, print, write JSON."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the server that runs
    if options.mlserver_python is None:
        print("MLServer is left out: it needs an environment of its own, see --mlserver-python", file=sys.stderr)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=spawn) as pool:
        models = Path(folder, "models")
        network.make(models)
        found = run(options, models, pool)
        finish(options, found, [])  # files take long
        sizes = (1_000, 10_000) if options.quick else (100_000, 1_000_000)
        if options.file:
            finish(options, found, [files.measure(models, size) for size in sizes])


if __name__ == "__main__":
    main()
