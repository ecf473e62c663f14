"""Tables 1 and 2, Figs. 9 and 10, and section 4.4: events a second of the first pass and of chunks, and what follows.

The files have 74 branches, 22 of them flat, as the paper's. The first pass and an epoch of padded, scaled, shuffled
batches are timed for several chunk sizes, of local files and of an XRootD server on loopback behind delays. A chunk
holds no more than all events: larger sizes are left out. CPU seconds are those of this process, which is the client and
the proxy that delays. The model of cost, seconds = a + b events, is fitted on smaller sets and tried on one ten times
as large.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import timed
from benchmarks.scaling_data import Data, make, options

CHUNKS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
DELAYS = (1.0, 20.0)  # ms, there and back
PAPER = {"first pass": (11_000, 13_000), "chunks": (1_100, 1_100)}  # events a second, from its Tables 1 and 2
# MLaaS4HEP, run on such files: events a CPU-second
ANCESTOR = {"first pass": 25_000, "chunks": 2_300}
PAPER_EVENTS, PAPER_HOURS = 28_500_000, {"first pass": 35 / 60, "chunks": 7.0}
LARGER = 10  # times the largest set that the model was fitted on
TRIES = 3

STEPS = ("first pass", "chunks")


def measure(base: str, paths: Sequence[Path], data: Data, *, chunk: int) -> dict[str, dict[str, float]]:
    """Time the first pass and an epoch of files that lie below an address."""
    from rootdata.loading.dataset import RootDataset

    given = options(list(paths), data)
    for sample in given["samples"].values():
        sample["files"] = [f"{base}/{Path(path).name}" for path in sample["files"]]
    made: list[RootDataset] = []

    def scan() -> int:
        made.append(RootDataset({**given, "chunk_size": chunk, "batch_size": 1000}))
        return made[0].num_events

    with tempfile.TemporaryDirectory() as cache:
        os.environ["ROOTDATA_CACHE"] = cache
        found = {"first pass": timed(scan), "chunks": timed(lambda: sum(len(b["label"]) for b in made[0]))}
    rates = ", ".join(f"{step} {row['events'] / row['wall']:,.0f} / s" for step, row in found.items())
    print(f"{base}, {data.events:,} events, chunks of {chunk:,}: {rates}", file=sys.stderr, flush=True)
    return found


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    """Serve a folder by XRootD, at once and behind delays; give the addresses by name."""
    sys.path.append(str(Path(__file__).parents[2] / "tests" / "rootdata"))  # the servers are those of the tests
    from servers_for_tests import Proxy, XRootDServer

    with ExitStack() as stack:
        server = stack.enter_context(XRootDServer(folder))
        found = {"local": str(folder)}
        for delay in DELAYS:
            proxy = stack.enter_context(Proxy(server.port, delay=delay / 2000))
            found[f"root://, {delay:g} ms"] = server.url.replace(str(server.port), str(proxy.port))
        yield found


def by_chunk(folder: Path, *, events: int, chunks: Sequence[int]) -> dict[str, Any]:
    """Measure every place and chunk size that the events fill."""
    chunks = [size for size in chunks if size <= events] or [events]
    data = Data(events=events, branches=74)
    paths = make(folder, data)
    measure(str(paths[0].parent), paths, data, chunk=chunks[0])  # loads what is loaded on first use
    with places(paths[0].parent) as addresses:
        table = {
            place: {str(chunk): measure(address, paths, data, chunk=chunk) for chunk in chunks}
            for place, address in addresses.items()
        }
    return {"events": events, "bytes": sum(path.stat().st_size for path in paths), "table": table}


def projected(folder: Path, *, events: int) -> dict[str, Any]:
    """Fit the model of cost on three sets, and compare what it says of a larger one with what that takes."""
    sizes = (events // 4, events // 2, events)
    _cost(folder, sizes[0])  # loads what is loaded on first use
    found = {n: _cost(folder, n) for n in (*sizes, LARGER * events)}
    result: dict[str, Any] = {"fitted on": list(sizes), "tried on": LARGER * events, "steps": {}}
    for step in STEPS:
        slope, start = np.polyfit(sizes, [found[n][step]["cpu"] for n in sizes], 1)
        said, took = start + slope * LARGER * events, found[LARGER * events][step]["cpu"]
        result["steps"][step] = {
            "seconds to start": float(start), "events a CPU-second": float(1 / slope), "predicted": float(said),
            "measured": took, "hours of the paper's events": float(start + slope * PAPER_EVENTS) / 3600,
        }  # fmt: skip
    return result


def _cost(folder: Path, events: int) -> dict[str, dict[str, float]]:
    """Return the cheapest of some measurements: what is beside it on the machine only adds."""
    data = Data(events=events, branches=74, files=2)
    paths = make(folder, data)
    found = [measure(str(paths[0].parent), paths, data, chunk=100_000) for _ in range(TRIES)]
    return {step: min((one[step] for one in found), key=lambda row: row["cpu"]) for step in STEPS}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Write the tables."""
    found = result["by chunk"]
    size = f"{found['events']:,} events, {found['bytes'] / 1e6:,.0f} MB"
    heads = [f"{step}, events / {unit}" for step in STEPS for unit in ("s", "CPU-s")]
    yield f"| {size} | chunk size | {' | '.join(heads)} |"
    yield f"|---|--:|{'--:|' * len(heads)}"
    for place, rows in found["table"].items():
        for chunk, row in rows.items():
            rates = [f"{row[step]['events'] / row[step][unit]:,.0f}" for step in STEPS for unit in ("wall", "cpu")]
            yield f"| {place} | {int(chunk):,} | {' | '.join(rates)} |"
    paper = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in PAPER.values()]
    yield f"| MLaaS4HEP, as its paper says | | {' | | '.join(paper)} | |"
    yield f"| MLaaS4HEP, run here | | | {' | | '.join(f'{rate:,}' for rate in ANCESTOR.values())} |"
    model = result["projection"]
    yield ""
    yield "| one core | to start, s | events / CPU-s | predicted, s | measured, s | 28.5 M events, h | the paper's, h |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for step, row in model["steps"].items():
        values = [row["seconds to start"], row["events a CPU-second"], row["predicted"], row["measured"]]
        cells = [f"{values[0]:.2f}", f"{values[1]:,.0f}", f"{values[2]:.1f}", f"{values[3]:.1f}"]
        yield _row(step, cells, row)


def _row(step: str, cells: Sequence[str], row: dict[str, float]) -> str:
    hours = row["hours of the paper's events"]
    return f"| {step} | {' | '.join(cells)} | {hours:.2f} | {PAPER_HOURS[step]:.2f} |"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw events a second by chunk size, a panel for each step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(STEPS))
    for axes, step in zip(panels, STEPS, strict=True):
        for place, rows in result["by chunk"]["table"].items():
            rates = [row[step]["events"] / row[step]["wall"] for row in rows.values()]
            axes.plot([int(chunk) for chunk in rows], rates, marker="o", ms=4, label=place)
        axes.axhspan(*PAPER[step], color="0.6", alpha=0.6, label="MLaaS4HEP, as its paper says")
        axes.axhline(ANCESTOR[step], color="0.4", ls="--", lw=1, label="MLaaS4HEP, run here, a CPU-second")
        axes.set(title=step, xlabel="chunk size", xscale="log", yscale="log", ylabel="events a second")
        axes.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9
    )
    figure.savefig(path, dpi=120)
