"""onnxruntime alone, in one thread of one process: ``python -m benchmarks.serve.bare GRAPH SECONDS``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks.serve.apps.session import open_session
from benchmarks.serve.network import make_events


def measure(session: Any, events: np.ndarray, *, seconds: float) -> float:
    """Return events per CPU-second."""
    session.run(None, {"flat": events})
    began, done = time.process_time(), 0
    while time.process_time() < began + seconds:
        session.run(None, {"flat": events})
        done += len(events)
    return done / (time.process_time() - began)


if __name__ == "__main__":
    opened = open_session(sys.argv[1])
    print(json.dumps({str(n): measure(opened, make_events(n), seconds=float(sys.argv[2])) for n in (1, 1000)}))
