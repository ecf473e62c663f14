"""What an epoch's speed depends on: ``python -m benchmarks.scaling``.

One thing at a time is changed in a data set of ``--events`` events in 4 files with 18 branches, 8 objects an event in
the mean, zlib, batches of 1024: see :func:`axes`. Each axis is a process of its own, rounds are interleaved, and every
point is a median of an epoch that reads and decompresses all branches, of files that are in the kernel's page cache.

The projection is by bytes: compressed bytes of ROOT files that one core gets through in a CPU-second, for the files
with 74 branches, as those of the MLaaS4HEP paper have. That paper projects 58 hours a TB for reading alone, and 719
hours for the first pass and the chunks that its networks train on, from its own data set on its own machine, as wall
time of one process. What stands beside them here: a first pass, an epoch, and both, as a training takes them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import in_process, timed
from benchmarks.scaling_data import BRANCHES, Data, make, options

PAPER = {"reading": 58.0, "specs and chunks": 719.0}  # hours a TB
BLUE, ORANGE = "#3f90da", "#ffa90e"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One way to read one data set.

    Parameters
    ----------
    cores : that may be used; 0: all
    """

    data: Data
    batch: int = 1024
    chunk: int = 100_000
    workers: int = 0
    cores: int = 0


def axes(events: int, *, tiny: int) -> dict[str, dict[str, Point]]:
    """Return what is compared.

    Parameters
    ----------
    tiny : files of 100 events
    """
    base = Data(events=events)

    def points(name: str, values: tuple[Any, ...]) -> dict[str, Point]:
        return {f"{v:,}" if isinstance(v, int) else v: _changed(base, name, v) for v in values}

    return {
        "files": points("files", (1, 4, 16, 64)),
        "tiny files": {f"{tiny:,} of 100 events": Point(data=Data(events=100 * tiny, files=tiny))},
        "branches": points("branches", tuple(BRANCHES)),
        "objects an event": points("mean", (2, 8, 32)),
        "batch size": points("batch", (100, 1024, 4096)),
        "chunk size": points("chunk", (10_000, 30_000, 100_000)),
        "readers": {
            "threads, 1 core": Point(data=base, cores=1),
            "threads, 2 cores": Point(data=base, cores=2),
            "1 thread": Point(data=base, workers=1, cores=2),
        },
        "format": {
            **points("compression", ("zlib", "zstd", "lz4", "lzma")),
            **{f"RNTuple, {c}": Point(data=dataclasses.replace(base, compression=c, rntuple=True)) for c in _RNTUPLE},
        },
    }


_RNTUPLE = ("zlib", "zstd")


def _changed(base: Data, name: str, value: Any) -> Point:
    if name in Data.__dataclass_fields__:
        return Point(data=dataclasses.replace(base, **{name: value}))
    return dataclasses.replace(Point(data=base), **{name: value})


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let this thread, and those that it starts, use so many cores; 0: all."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[: count or None])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(point: Point, folder: Path) -> dict[str, Any]:
    """Read a data set: the first pass, and an epoch."""
    from rootdata.loading.dataset import RootDataset

    paths = make(folder, point.data)
    chosen = {**options(paths, point.data), "batch_size": point.batch, "chunk_size": point.chunk}
    made: list[RootDataset] = []

    def scan() -> int:
        made.append(RootDataset(chosen, num_workers=point.workers))
        return made[0].num_events

    def epoch() -> int:
        return sum(len(batch["label"]) for batch in made[0])

    with on_cores(point.cores), tempfile.TemporaryDirectory() as cache:
        os.environ["ROOTDATA_CACHE"] = cache
        size = sum(path.stat().st_size for path in paths)
        return {"bytes": size, "scan": timed(scan), "epoch": timed(epoch)}


def measure_axis(points: dict[str, Point], folder: Path) -> dict[str, Any]:
    """Read the data sets of an axis, after something small that loads what is loaded on first use."""
    measure(Point(data=Data(events=1000)), folder)
    return {name: measure(point, folder) for name, point in points.items()}


def report(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Take medians over the rounds."""

    def median(axis: str, point: str, what: str, per: str, clock: str) -> float:
        found = (r[axis][point] for r in rounds)
        return statistics.median((f["bytes"] if per == "bytes" else f[what]["events"]) / f[what][clock] for f in found)

    table: dict[str, Any] = {}
    for axis, points in rounds[0].items():
        table[axis] = {}
        for point, found in points.items():
            rates = {
                f"{what}, {per}/{clock}": median(axis, point, what, per, clock)
                for what in ("scan", "epoch") for per in ("events", "bytes") for clock in ("cpu", "wall")
            }  # fmt: skip
            table[axis][point] = {"events": found["epoch"]["events"], "bytes": found["bytes"], **rates}
    result = {"table": table, "paper, hours a TB": PAPER}
    return {**result, "hours a TB": project(table["branches"]["74"])} if "branches" in table else result


def project(point: dict[str, float]) -> dict[str, float]:
    """Return the hours that one core takes for a TB of compressed files."""
    hours = {step: 1e12 / point[f"{step}, bytes/cpu"] / 3600 for step in ("scan", "epoch")}
    return {"first pass": hours["scan"], "epoch": hours["epoch"], "both": hours["scan"] + hours["epoch"]}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=130)
    headings = ("events", "MB", "first pass, ev/CPU-s", "epoch, ev/CPU-s", "ev/s (wall)", "MB/CPU-s", "MB/s (wall)")
    table = Table("", "", *headings)
    for axis, points in result["table"].items():
        for i, (name, p) in enumerate(points.items()):
            table.add_row(
                axis if i == 0 else "", name, f"{p['events']:,}", f"{p['bytes'] / 1e6:.1f}",
                f"{p['scan, events/cpu']:,.0f}", f"{p['epoch, events/cpu']:,.0f}", f"{p['epoch, events/wall']:,.0f}",
                f"{p['epoch, bytes/cpu'] / 1e6:.1f}", f"{p['epoch, bytes/wall'] / 1e6:.1f}",
            )  # fmt: skip
        table.add_section()
    console.print(table)
    if "hours a TB" not in result:
        return
    hours = Table("one core, 74 branches", "hours a TB", "hours a PB", title="projection, by compressed bytes")
    rows = {**result["hours a TB"], **{f"the paper: {k}": v for k, v in result["paper, hours a TB"].items()}}
    for name, value in rows.items():
        hours.add_row(name, f"{value:,.1f}", f"{1000 * value:,.0f}")
    console.print(hours)


def plot(result: dict[str, Any], folder: Path) -> Path:
    """Draw a panel for each axis; return the picture's path."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    shown = {axis: points for axis, points in result["table"].items() if len(points) > 1}
    figure, grid = plt.subplots(2, -(-len(shown) // 2), figsize=(14, 6.5), layout="constrained", squeeze=False)
    for axes, (axis, points) in zip(grid.flat, shown.items(), strict=False):
        for clock, colour, shift in (("cpu", BLUE, -0.2), ("wall", ORANGE, 0.2)):
            rates = [p[f"epoch, events/{clock}"] / 1000 for p in points.values()]
            axes.bar([i + shift for i in range(len(points))], rates, width=0.4, color=colour, label=_CLOCKS[clock])
        turn = {"rotation": 35, "ha": "right"} if max(map(len, points)) > 7 else {}
        axes.set_xticks(range(len(points)), list(points), **turn)
        axes.set(title=axis, ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel("thousand events")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scaling.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


_CLOCKS = {"cpu": "per CPU-second", "wall": "per second"}


def main() -> None:
    """Measure, print, draw, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--tiny", type=int, default=200, help="files of 100 events")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--axis", action="append", help="measure this one alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="one round of next to nothing")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="where to draw them")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.events, given.tiny, given.rounds = 6_400, 10, 1
    known = axes(given.events, tiny=given.tiny)
    if given.only:
        print(json.dumps(measure_axis(known[given.only], given.folder)))
        return
    if unknown := sorted(set(given.axis or ()) - set(known)):
        parser.error(f"--axis: got {', '.join(unknown)}; allowed: {', '.join(known)}")
    result = report(_rounds(given, known))
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    if given.plots:
        print(plot(result, given.plots))


def _rounds(given: argparse.Namespace, known: dict[str, dict[str, Point]]) -> list[dict[str, Any]]:
    chosen = given.axis or list(known)
    for axis in chosen:
        for point in known[axis].values():
            make(given.folder, point.data)
    common = [f"--{name}={getattr(given, name)}" for name in ("folder", "events", "tiny")]
    found = []
    for i in range(given.rounds):
        found.append({axis: in_process("benchmarks.scaling", [*common, "--only", axis]) for axis in chosen})
        print(f"round {i + 1} of {given.rounds} done", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
