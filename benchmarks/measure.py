"""How the benchmarks measure: CPU of all threads and children, peak memory, one process for each measurement."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def peak_mb() -> float:
    """Return the peak of the resident set, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(run: Callable[[], int]) -> dict[str, float]:
    """Run once: events, CPU seconds of all threads and reaped children, wall seconds."""

    def spent() -> float:
        return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

    cpu, wall = spent(), time.perf_counter()
    events = run()
    return {"events": events, "cpu": spent() - cpu, "wall": time.perf_counter() - wall}


def in_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one measurement in a process of its own; its last line is JSON."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))
