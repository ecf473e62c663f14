"""A ROOT file scored over HTTP: events per second, and the memory that it takes."""

from __future__ import annotations

import http.client
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve import network, servers, trees
from benchmarks.serve.rounds import TOLERANCE

ROOT_TYPE = "application/x-root"
STEP = 100_000  # events of a cluster


def measure(models: Path, num_events: int) -> dict[str, Any]:
    """Send a file to a new server, and compare the scores of all events."""
    with tempfile.TemporaryDirectory() as folder:
        sent, answer = Path(folder, "events.root"), Path(folder, "scores.root")
        _write(sent, num_events)
        with servers.running(servers.PROJECT, models) as server, ThreadPoolExecutor(1) as thread:
            cpu, began = trees.cpu_of(server.pid), time.perf_counter()
            peaks = _watch(thread.submit(_post, server.port, sent, answer), server.pid)
            seconds, cpu = time.perf_counter() - began, trees.cpu_of(server.pid) - cpu
        _check(answer, servers.graph_of(models), num_events)
        size = sent.stat().st_size
    return {
        "num_events": num_events,
        "bytes": size,
        "seconds": seconds,
        "rate": num_events / seconds,
        "events_per_cpu": num_events / cpu,
        "peaks_mb": sorted(peaks.values(), reverse=True),
    }


def _chunks(num_events: int) -> Iterator[np.ndarray]:
    for i, start in enumerate(range(0, num_events, STEP)):
        yield network.make_events(min(STEP, num_events - start), seed=i)


def _write(path: Path, num_events: int) -> None:
    import uproot

    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        file.mktree("Events", dict.fromkeys(network.NAMES, np.dtype("f4")))
        for events in _chunks(num_events):
            file["Events"].extend({name: events[:, i] for i, name in enumerate(network.NAMES)})


def _post(port: int, sent: Path, answer: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    headers = {"Content-Type": ROOT_TYPE, "Accept": ROOT_TYPE, "Content-Length": str(sent.stat().st_size)}
    headers["X-Timeout-Ms"] = "600000"
    with sent.open("rb") as body, answer.open("wb") as out:
        connection.request("POST", f"/models/{network.MODEL}/predict?tree=Events", body, headers)
        reply = connection.getresponse()
        if reply.status != http.client.OK:
            raise ConnectionError(f"the server answered {reply.status}: {reply.read(500)!r}")
        while part := reply.read(1 << 20):
            out.write(part)
    connection.close()


def _watch(answer: Future[None], server: int) -> dict[int, float]:
    """Note the peak of every process, also of those that do not live to the end."""
    peaks: dict[int, float] = {}
    while not answer.done():
        peaks |= trees.peaks_of(server)
        time.sleep(0.1)
    answer.result()
    return peaks | trees.peaks_of(server)


def _check(answer: Path, graph: Path, num_events: int) -> None:
    import uproot

    scores = uproot.open(f"{answer}:scores")["score_signal"].array(library="np")
    expected = np.concatenate([network.scores_of(graph, events) for events in _chunks(num_events)])
    if scores.shape != expected.shape or not np.all(np.abs(scores - expected) <= TOLERANCE):
        raise ValueError(f"{answer.name}: the {len(scores)} scores are not those of onnxruntime")
