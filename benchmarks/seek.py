"""Time to the first batch of an epoch that begins anywhere: ``python -m benchmarks.seek``."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import data
from rootdata.loading.dataset import RootDataset

SHARES = (0.0, 0.25, 0.5, 0.75, 0.99)


def seconds_to(events: RootDataset, start: int) -> float:
    """Return the time to the first batch of an epoch from batch ``start`` on."""
    began = time.perf_counter()
    batches = events.batches(1, start=start)
    next(batches)
    took = time.perf_counter() - began
    batches.close()  # type: ignore[attr-defined]
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seek", description=__doc__)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events = RootDataset(data.options(data.make(Path(folder), files=arguments.files, clusters=1)))
        next(iter(events))  # what is loaded on first use
        rounds = [[seconds_to(events, int(s * len(events))) for s in SHARES] for _ in range(arguments.rounds)]
    print("| begins at | " + " | ".join(f"{s:.0%}" for s in SHARES) + " |")
    print("|---|" + "--:|" * len(SHARES))
    print(
        "| s to the first batch | "
        + " | ".join(f"{statistics.median(c):.2f}" for c in zip(*rounds, strict=True))
        + " |"
    )


if __name__ == "__main__":
    main()
