"""The data sets of ``benchmarks.scaling``: like those of :mod:`benchmarks.data`, with one thing at a time changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

COMPRESSION = {"zlib": uproot.ZLIB(1), "zstd": uproot.ZSTD(1), "lz4": uproot.LZ4(1), "lzma": uproot.LZMA(1)}
BRANCHES = {4: (2, 2), 18: (10, 8), 74: (22, 52)}  # how many are flat, how many jagged


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What is written.

    Parameters
    ----------
    events : in all files together
    branches : a key of ``BRANCHES``
    mean : objects of an event; there are at most twice as many
    cluster : events that are written at a time, at most
    """

    events: int
    files: int = 4
    branches: int = 18
    mean: int = 8
    compression: str = "zlib"
    rntuple: bool = False
    cluster: int = 10_000

    @property
    def name(self) -> str:
        """A folder's name that tells all of it."""
        return "_".join(str(value) for value in dataclasses.astuple(self))

    @property
    def flat(self) -> list[str]:
        """Names of the flat branches."""
        return [f"x{i}" for i in range(BRANCHES[self.branches][0])]

    @property
    def jagged(self) -> list[str]:
        """Names of the jagged branches, without that of their collection."""
        return [f"v{i}" for i in range(BRANCHES[self.branches][1])]


def make(folder: Path, data: Data) -> list[Path]:
    """Write the files where they are absent."""
    folder = folder / f"scaling_{data.name}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}.root" for i in range(data.files)]
    for seed, path in enumerate(paths):
        if not path.exists():
            _write(path, data, seed)
    return paths


def options(paths: list[Path], data: Data) -> dict[str, Any]:
    """Return the options of ``RootDataset``: every branch of every event; every second file is signal."""
    prefix = "Jet." if data.rntuple else "Jet_"
    halves = {"background": paths[::2], "signal": paths[1::2]}
    return {
        "samples": {
            name: {"files": [str(p) for p in files], "label": label}
            for label, (name, files) in enumerate(halves.items())
            if files
        },
        "flat": data.flat,
        "jagged": {"Jet": {"branches": [prefix + name for name in data.jagged], "length": 2 * data.mean}},
        "split": {"train": 1.0},
    }


def _write(path: Path, data: Data, seed: int) -> None:
    rng, part = np.random.default_rng(seed), path.with_suffix(".part")
    left = data.events // data.files
    with uproot.recreate(part, compression=COMPRESSION[data.compression]) as file:
        while left:
            columns = _cluster(rng, data, min(left, data.cluster))
            left -= len(columns["Jet"])
            if "Events" not in file:
                _declare(file, columns, rntuple=data.rntuple)
            file["Events"].extend(columns)
    part.replace(path)


def _declare(file: Any, columns: dict[str, Any], *, rntuple: bool) -> None:
    types = {name: c.dtype if isinstance(c, np.ndarray) else c.type for name, c in columns.items()}
    if rntuple:
        file.mkrntuple("Events", {name: getattr(t, "content", t) for name, t in types.items()})
    else:
        file.mktree("Events", types, counter_name=lambda name: "n" + name)


def _cluster(rng: np.random.Generator, data: Data, size: int) -> dict[str, Any]:
    counts = np.minimum(rng.poisson(data.mean, size), 2 * data.mean)
    flat = {name: rng.normal(100.0, 25.0, size).astype(np.float32) for name in data.flat}
    objects = {name: _short(rng.exponential(40.0, counts.sum())) for name in data.jagged}
    return {**flat, "Jet": ak.unflatten(ak.zip(objects), counts)}


def _short(values: np.ndarray) -> np.ndarray:
    """Keep 12 bits of the mantissa, as experiments do before they write."""
    bits = values.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFFF800)).view(np.float32)
