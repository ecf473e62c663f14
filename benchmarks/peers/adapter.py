"""What every adapter does: import its library, run two epochs, print one line of JSON. Needs nothing but NumPy."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.measure import peak_mb, timed

Request = dict[str, Any]
Epoch = Callable[[], Iterator[Any]]


def answer(module: str, build: Callable[[Request], Epoch]) -> None:
    """Measure what the command line asks for.

    Parameters
    ----------
    module : of the library, imported before the measurement
    build : makes the loader of a request; what it returns runs through an epoch and gives, for every batch,
        the (n_events, 2) values of the first two flat branches, which tell the events apart

    Notes
    -----
    A request has ``background`` and ``signal`` (paths), ``flat`` and ``jagged`` (branches), ``length``,
    ``batch_size``, ``setting`` (the adapter's own) and ``seen`` (where to write those values).
    """
    request = json.loads(sys.argv[1])
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(json.dumps({"error": f"{module} cannot be imported: {error}; python -m benchmarks.peers --install"}))
        return
    print(json.dumps(measure(request, build)))


def measure(request: Request, build: Callable[[Request], Epoch]) -> dict[str, Any]:
    """Time a start with a first epoch, and a later epoch."""
    import numpy as np

    before = peak_mb()
    made: list[Epoch] = []
    seen: list[Any] = []

    def epoch() -> int:
        seen[:] = [np.array(values, np.float32) for values in made[0]()]
        return sum(len(values) for values in seen)

    def start() -> int:
        made.append(build(request))
        return epoch()

    result: dict[str, Any] = {"first epoch": timed(start), "later epoch": timed(epoch), "memory": peak_mb() - before}
    full = [values for values in seen if len(values) == request["batch_size"]]
    np.save(request["seen"], np.stack(full))
    return result
