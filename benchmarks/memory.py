"""Memory over many epochs of many files: ``python -m benchmarks.memory --files 200 --epochs 20``.

The resident set, without what the kernel can take back (pages of files), ten times an epoch; ``--plot`` draws it, and
``--max-memory`` sets the bound in bytes beside which it is to be seen.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import data
from rootdata.loading.dataset import RootDataset


def resident_mb() -> float:
    """Return the anonymous memory of this process, in MB."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def measure(paths: list[Path], *, epochs: int, max_memory: int | None) -> list[tuple[float, float]]:
    """Read a set again and again: (epochs done, MB above the start) ten times an epoch."""
    events = RootDataset(data.options(paths, rntuple=False) | {"max_memory": max_memory})
    gc.collect()
    start, points = resident_mb(), []
    for epoch in range(epochs):
        for number, _ in enumerate(events, start=1):
            if number % max(1, len(events) // 10) == 0:
                points.append((epoch + number / len(events), resident_mb() - start))
    return points


def slope_of(points: list[tuple[float, float]]) -> float:
    """Return the growth in MB an epoch of the second half, by a straight line."""
    half = np.array(points[len(points) // 2 :])
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0])


def plot(points: list[tuple[float, float]], path: Path, *, title: str) -> None:
    """Draw memory over epochs."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(*np.array(points).T, color="#3f90da")
    axes.set(xlabel="epoch", ylabel="MB above the start", title=title, ylim=(0, None))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--clusters", type=int, default=1, help="of 10,000 events in each file")
    parser.add_argument("--max-memory", type=int, help="bytes, as the option of that name")
    parser.add_argument("--plot", type=Path, help="picture to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = data.make(Path(folder), files=arguments.files, clusters=arguments.clusters)
        points = measure(paths, epochs=arguments.epochs, max_memory=arguments.max_memory)
    by_epoch = [max(mb for at, mb in points if epoch < at <= epoch + 1) for epoch in range(arguments.epochs)]
    shown = [0, *range(4, arguments.epochs, 5)]
    print("| " + " | ".join(["peak in epoch", *(str(e + 1) for e in shown), "growth an epoch"]) + " |")
    print("|---|" + "--:|" * (len(shown) + 1))
    print("| MB | " + " | ".join(f"{by_epoch[e]:.0f}" for e in shown) + f" | {slope_of(points):+.2f} |")
    print(json.dumps({"files": arguments.files, "peaks_mb": by_epoch, "growth_mb_an_epoch": slope_of(points)}))
    if arguments.plot:
        plot(points, arguments.plot, title=f"{arguments.files} files of {data.CLUSTER:,} events")


if __name__ == "__main__":
    main()
