"""From the rounds to medians, ratios within a round, and the promises."""

from __future__ import annotations

import dataclasses
import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Any

PROJECT, STOCK, PLAIN = "rootdata", "stock LitServe", "FastAPI"
SINGLE, BINARY = "physics JSON, 1 event", "binary columns, 1000 events"
COLUMNAR, ROWS = "JSON, columns, 1000 events", "JSON, per event, 1000 events"
Round = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Promise:
    """A figure and what it should be."""

    name: str
    measured: float
    sign: str
    bound: float

    @property
    def is_kept(self) -> bool:
        """Whether the figure is within its bound."""
        return bool({"<=": operator.le, ">=": operator.ge}[self.sign](self.measured, self.bound))


def summarize(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Take medians over the rounds: a row for each road of each server."""
    rows = []
    for server, first in rounds[0]["servers"].items():
        for road, figures in first["roads"].items():
            row = {name: median(rounds, _figure(server, road, name)) for name in figures}
            row["of_bare"] = median(rounds, _of_bare(server, road))
            rows.append({"server": server, "road": road, **row})
    return rows


def bare(rounds: Sequence[Round]) -> dict[str, float]:
    """Return events per CPU-second of bare onnxruntime, by the size of a batch."""
    every = [found["bare"] for r in rounds for found in r["servers"].values()]
    return {size: statistics.median(b[size] for b in every) for size in every[0]}


def promises(rounds: Sequence[Round], files: Sequence[dict[str, Any]]) -> list[Promise]:
    """Compare with what was promised of the roads that were taken."""

    def half(r: Round) -> float:
        figures = r["servers"][PROJECT]["roads"][SINGLE]
        return float(figures["p99_ms"] / figures["p50_ms"])

    def over(server: str, name: str) -> Callable[[Round], float]:
        def ratio(r: Round) -> float:
            other = next(iter(r["servers"][server]["roads"].values()))
            return float(r["servers"][PROJECT]["roads"][SINGLE][name] / other[name])

        return ratio

    taken = rounds[0]["servers"][PROJECT]["roads"]
    roads = [(BINARY, "binary columns", 0.6), (COLUMNAR, "JSON columns", 0.4), (ROWS, "JSON per event", 0.4)]
    found = [
        ("one event as JSON: CPU-ms over FastAPI's", over(PLAIN, "cpu_ms"), "<=", 0.85),
        ("one event as JSON: requests/s over stock LitServe's", over(STOCK, "rate"), ">=", 9.0),
        ("one event at half load: p99 / p50", half, "<=", 5.0),
        *(
            (f"1000 events as {name}: of bare onnxruntime", _of_bare(PROJECT, road), ">=", bound)
            for road, name, bound in roads
            if road in taken
        ),
        ("idle: share of a core", lambda r: float(r["servers"][PROJECT]["idle"]), "<=", 0.01),
    ]
    made = [Promise(name=n, measured=median(rounds, get), sign=s, bound=b) for n, get, s, b in found]
    if files:
        small, large = (sum(f["peaks_mb"]) for f in (files[0], files[-1]))
        name = f"{files[-1]['num_events']:,} events in a file: memory over that of {files[0]['num_events']:,}"
        made.append(Promise(name=name, measured=large / small, sign="<=", bound=1.2))
    return made


def median(rounds: Sequence[Round], get: Callable[[Round], float]) -> float:
    """Return the median over the rounds of what is taken from each."""
    return statistics.median(map(get, rounds))


def _figure(server: str, road: str, name: str) -> Callable[[Round], float]:
    return lambda r: float(r["servers"][server]["roads"][road][name])


def _of_bare(server: str, road: str) -> Callable[[Round], float]:
    def ratio(r: Round) -> float:
        found = r["servers"][server]
        figures = found["roads"][road]
        return float(figures["events_per_cpu"] / found["bare"][str(int(figures["events"]))])

    return ratio


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "", "", "requests/s", "CPU-ms", "events / CPU-s", "of bare", "p50 ms", "p99 ms", "generator ms", title="At peak"
    )
    for size, rate in result["bare"].items():
        table.add_row("bare onnxruntime", f"batch {size}", "", "", f"{rate:,.0f}", "100 %")
    for row in result["table"]:
        latencies = [f"{row[name]:.1f}" if name in row else "" for name in ("p50_ms", "p99_ms")]
        figures = [f"{row['rate']:,.0f}", f"{row['cpu_ms']:.2f}", f"{row['events_per_cpu']:,.0f}"]
        table.add_row(
            row["server"], row["road"], *figures, f"{row['of_bare']:.0%}", *latencies, f"{row['generator_ms']:.2f}"
        )
    console = Console(width=150)
    console.print(table)
    console.print("idle, share of a core: " + ", ".join(f"{k} {v:.1%}" for k, v in result["idle"].items()))
    for file in result["files"]:
        peaks = ", ".join(f"{p:.0f}" for p in file["peaks_mb"])
        console.print(f"a file of {file['num_events']:,} events: {file['rate']:,.0f} events/s; peaks {peaks} MB")
    table = Table("promise", "", "measured", "")
    for promise in result["promises"]:
        verdict = "kept" if promise["is_kept"] else "NOT KEPT"
        table.add_row(promise["name"], f"{promise['sign']} {promise['bound']}", f"{promise['measured']:.3f}", verdict)
    console.print(table)
