"""The data set of the benchmarks: 10 flat and 8 jagged float32 branches, written in clusters of 10,000 entries."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import uproot

CLUSTER = 10_000
FLAT = tuple(f"x{i}" for i in range(10))
JAGGED = tuple(f"Jet_v{i}" for i in range(8))
LENGTH = 16
COMPRESSION = {"zlib": uproot.ZLIB(1), "zstd": uproot.ZSTD(1), "lz4": uproot.LZ4(1)}


def make(
    folder: Path, *, files: int = 4, clusters: int = 10, compression: str = "zlib", rntuple: bool = False
) -> list[Path]:
    """Write the files where they are absent.

    Parameters
    ----------
    clusters : of 10,000 entries, in every file

    Returns
    -------
    Their paths; the first half is of class 0, the second of class 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{compression}{'_rntuple' if rntuple else ''}_{clusters}"
    paths = [folder / f"{name}_{i}.root" for i in range(files)]
    for i, path in enumerate(paths):
        if not path.exists():
            _write(path, clusters, COMPRESSION[compression], rntuple=rntuple, seed=i)
    return paths


def _write(path: Path, clusters: int, compression: object, *, rntuple: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    part = path.with_suffix(".part")
    with uproot.recreate(part, compression=compression) as file:
        for cluster in range(clusters):
            columns = _cluster(rng)
            if cluster == 0:
                types = {k: v.dtype if isinstance(v, np.ndarray) else v.type for k, v in columns.items()}
                if rntuple:
                    file.mkrntuple("Events", {k: getattr(t, "content", t) for k, t in types.items()})
                else:
                    file.mktree("Events", types, counter_name=lambda name: "n" + name)
            file["Events"].extend(columns)
    part.replace(path)


def _cluster(rng: np.random.Generator) -> dict[str, np.ndarray | ak.Array]:
    """Make events with 8 objects in the mean, 16 at most, and values of a physicist's kind: falling and bell-shaped."""
    counts = np.minimum(rng.poisson(8, CLUSTER), LENGTH)
    flat = {name: rng.normal(100.0, 25.0, CLUSTER).astype(np.float32) for name in FLAT}
    objects = {name.removeprefix("Jet_"): _single(rng.exponential(40.0, counts.sum())) for name in JAGGED}
    return {**flat, "Jet": ak.unflatten(ak.zip(objects), counts)}


def _single(values: np.ndarray) -> np.ndarray:
    """Keep 12 bits of the mantissa, as experiments do before they write."""
    bits = values.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFFF800)).view(np.float32)


def options(paths: list[Path], *, rntuple: bool = False) -> dict[str, object]:
    """Return the options of ``RootDataset`` for these files."""
    half = len(paths) // 2
    prefix = "Jet.v" if rntuple else "Jet_v"
    return {
        "samples": {
            "background": {"files": [str(p) for p in paths[:half]], "label": 0},
            "signal": {"files": [str(p) for p in paths[half:]], "label": 1},
        },
        "flat": list(FLAT),
        "jagged": {"Jet": {"branches": [f"{prefix}{i}" for i in range(8)], "length": LENGTH}},
        "split": {"train": 1.0},
        "batch_size": 1024,
    }
