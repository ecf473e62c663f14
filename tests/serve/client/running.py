"""Real servers and events for the tests of the clients."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from servers import Handle, announced, kill, launch


def end(handle: Handle) -> None:
    """End a server and what it started."""
    for pid in handle.all_pids() if handle.process.poll() is None else []:
        kill(pid)
    handle.process.wait(10)
    if handle.process.stdout:
        handle.process.stdout.close()


def start(folder: Path, models: Path, *arguments: str, port: int = 0) -> Handle:
    """Start a server; its address is known when this returns."""
    folder.mkdir(exist_ok=True)
    words = ["-m", "serve", str(models), "--port", str(port), *arguments]
    handle = Handle(launch(words, temporary=folder), "", folder, folder / "log")
    try:
        handle.url = announced(handle, seconds=60)
    except BaseException:
        end(handle)
        raise
    return handle


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def columns(num_events: int, *, seed: int = 0) -> dict[str, Any]:
    """Make the columns of some events of ``ttH``, jets as an awkward array of records."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(4, num_events)
    pt, eta = rng.exponential(50, counts.sum()), rng.normal(size=counts.sum())
    jets = ak.unflatten(ak.zip({"pt": pt.astype("f4"), "eta": eta.astype("f4")}), counts)
    ht, met = rng.normal(400, 100, num_events), rng.exponential(50, num_events)
    return {"HT": ht.astype("f4"), "MET_pt": met.astype("f4"), "Jet": jets}
