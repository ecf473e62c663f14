"""One round: every server in turn, every road of it, and bare onnxruntime."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve import load, network, servers, trees
from benchmarks.serve.network import Floats
from benchmarks.serve.roads import Road

TOLERANCE = 1e-6
BODIES = {1: 64, 1000: 4}  # different requests, by the number of their events


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How long and how hard.

    Parameters
    ----------
    seconds : of sending, for each measurement
    idle : seconds of watching a server that nobody asks
    """

    models: Path
    clients: int
    seconds: float
    idle: float


def bare(plan: Plan) -> dict[str, float]:
    """Return events per CPU-second of onnxruntime alone, by the number of events in a batch."""
    graph = servers.graph_of(plan.models)
    command = [sys.executable, "-m", "benchmarks.serve.bare", str(graph), str(plan.seconds / 2)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=servers.ROOT)
    return dict(json.loads(done.stdout))


def contest(contestant: servers.Contestant, plan: Plan, pool: Executor) -> dict[str, Any]:
    """Measure a server: each road, then what it spends on nothing; and bare onnxruntime before and after."""
    events = network.make_events(max(n * bodies for n, bodies in BODIES.items()))
    expected = network.scores_of(servers.graph_of(plan.models), events)
    first = bare(plan)
    with servers.running(contestant, plan.models) as server:
        found = {
            name_of(road): measure(road, server, plan, pool=pool, events=events, expected=expected)
            for road in contestant.roads
        }
        before = trees.cpu_of(server.pid)
        time.sleep(plan.idle)
        idle = (trees.cpu_of(server.pid) - before) / plan.idle
    last = bare(plan)
    return {"roads": found, "idle": idle, "bare": {size: (first[size] + last[size]) / 2 for size in first}}


def name_of(road: Road) -> str:
    """Return a name that is the road's own among those of its server."""
    return f"{road.name}, {road.events} event{'s' * (road.events > 1)}"


def measure(
    road: Road, server: servers.Server, plan: Plan, *, pool: Executor, events: Floats, expected: Floats
) -> dict[str, float]:
    """Find the peak of a road, and for single events the latencies at half of it."""
    size = road.events
    requests = [road.request(events[i * size : (i + 1) * size]) for i in range(BODIES[size])]
    job = load.Job(
        port=server.port, server=server.pid, requests=requests, clients=plan.clients, seconds=plan.seconds / 4
    )
    pool.submit(load.run, job).result()  # warms up
    peak = pool.submit(load.run, dataclasses.replace(job, seconds=plan.seconds)).result()
    check(road, peak.samples, expected)
    rate = peak.answered / peak.seconds
    figures = {
        "events": float(size),
        "rate": rate,
        "cpu_ms": 1e3 * peak.cpu / peak.answered,
        "events_per_cpu": peak.answered * size / peak.cpu,
        "generator_ms": 1e3 * peak.own_cpu / peak.answered,
        "checked": float(len(peak.samples)),
    }
    if size == 1:
        half = pool.submit(load.run, dataclasses.replace(job, seconds=plan.seconds, rate=rate / 2)).result()
        check(road, half.samples, expected)
        figures |= {"half_rate": rate / 2, "p50_ms": 1e3 * half.quantile(0.5), "p99_ms": 1e3 * half.quantile(0.99)}
    return figures


def check(road: Road, samples: Sequence[tuple[int, bytes]], expected: Floats) -> None:
    """Compare answers with what onnxruntime says.

    Raises
    ------
    ValueError
        If there are none, or one is off.
    """
    if not samples:
        raise ValueError(f"{road.name}: there is no answer to check")
    for number, answer in samples:
        wanted, got = expected[number * road.events : (number + 1) * road.events], road.read(answer)
        if got.shape != wanted.shape or not np.all(np.abs(got - wanted) <= TOLERANCE):
            raise ValueError(f"{road.name}: request {number} got {got[:3]}; onnxruntime says {wanted[:3]}")
