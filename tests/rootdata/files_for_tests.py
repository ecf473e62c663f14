"""Helpers that write tiny ROOT files, and say what must be read back from them."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

from rootdata.inspection.choice import choose
from rootdata.inspection.files import Inspection
from rootdata.inspection.suggest import Suggestion
from rootdata.inspection.suggest import suggest as suggestion_of
from rootdata.io.files import states_of
from rootdata.jagged import Jagged
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location, State
from rootdata.options.data import DataConfig, parse_data
from rootdata.scan.first_pass import scan
from rootdata.scan.sources import find_files
from rootdata.scan.specs import Specs

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def make_events(num_events: int, seed: int = 0) -> dict[str, Any]:
    """Make the columns of a small NanoAOD-like tree: four flat ones, and two of the jets.

    Returns
    -------
    ``met`` float32, ``event`` uint64, ``is_signal`` int32, ``weight`` float64 of (num_events,), and ``Jet``: ``pt``
    and ``eta`` (num_events, var) float32 that share their counts of 0 to 4
    """
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, num_events)
    return {
        "met": rng.exponential(50, num_events).astype(np.float32),
        "event": np.arange(num_events, dtype=np.uint64) + np.uint64(1000 * seed),
        "is_signal": rng.integers(0, 2, num_events).astype(np.int32),
        "weight": rng.uniform(0.5, 1.5, num_events),
        "Jet": {
            "pt": lists_of(rng.exponential(40, counts.sum()).astype(np.float32), counts),
            "eta": lists_of(rng.normal(0, 2, counts.sum()).astype(np.float32), counts),
        },
    }


def lists_of(content: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Any:
    """Cut a flat array into lists of the given lengths: (n_events, var)."""
    return ak.unflatten(content, counts)


def write(
    path: Path,
    columns: Mapping[str, Any],
    *,
    tree: str = "Events",
    kind: str = "TTree",
    steps: Sequence[int] = (),
    compression: Any = None,
) -> Path:
    """Write one tree into a new file.

    Parameters
    ----------
    columns : name to (n,) or (n, width) numbers, to (n, var) lists, or to a mapping of such lists that share counts
    kind : ``TTree`` (``Jet: pt`` becomes ``Jet_pt``, with a counter ``nJet``) or ``RNTuple`` (it becomes ``Jet.pt``)
    steps : entries at which a new basket or cluster begins
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path, compression=compression) as file:
        add(file, columns, tree=tree, kind=kind, steps=steps)
    return path


def add(
    file: Any, columns: Mapping[str, Any], *, tree: str = "Events", kind: str = "TTree", steps: Sequence[int] = ()
) -> None:
    """Write one tree into an open file; see :func:`write`."""
    whole = {name: ak.zip(dict(c)) if isinstance(c, Mapping) else c for name, c in columns.items()}
    num_events = len(next(iter(whole.values())))
    bounds = [0, *steps, num_events]
    pieces = [{n: c[low:high] for n, c in whole.items()} for low, high in itertools.pairwise(bounds)]
    if kind == "RNTuple":
        ntuple = file.mkrntuple(tree, {n: c[:0] for n, c in whole.items()})
        for piece in pieces:
            ntuple.extend(piece)
        return
    types = {n: _type_of(c) for n, c in whole.items()}
    target = file.mktree(tree, types)
    for piece in pieces:
        target.extend(piece)


def _type_of(column: Any) -> Any:
    if isinstance(column, np.ndarray):
        return column.dtype if column.ndim == 1 else (column.dtype, column.shape[1:])
    return ak.type(column).content


def branches(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Name the columns as the branches of a TTree: ``Jet: pt`` is ``Jet_pt``."""
    flat = {n: c for n, c in columns.items() if not isinstance(c, Mapping)}
    return flat | {f"{n}_{k}": v for n, c in columns.items() if isinstance(c, Mapping) for k, v in c.items()}


def with_wrong_counter(path: Path, counts: Sequence[int], *, at: int, says: int) -> Path:
    """Write ``met`` and the lists ``Jet_pt`` of the given lengths, then falsify one number of the counter ``nJet``."""
    columns = {
        "met": np.arange(len(counts), dtype=np.float32),
        "Jet": {"pt": lists_of(np.arange(sum(counts), dtype=np.float32), np.array(counts))},
    }
    write(path, columns)
    stored = struct.pack(f">{len(counts)}i", *counts)
    content = path.read_bytes()
    assert content.count(stored) == 1
    wrong = [says if i == at else n for i, n in enumerate(counts)]
    path.write_bytes(content.replace(stored, struct.pack(f">{len(counts)}i", *wrong)))
    return path


def options(files: Any, **changes: Any) -> dict[str, Any]:
    """Make the options for one sample of :func:`make_events`; an option of ``None`` is left out."""
    plain: dict[str, Any] = {
        "samples": {"all": {"files": files if isinstance(files, list) else str(files)}},
        "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"]}},
        "scale": "none",
        "split": {"train": 1.0},
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


def found(config: DataConfig) -> tuple[list[tuple[int, Location]], list[State]]:
    """Return the files of a configuration, and their states now."""
    files = find_files(config)
    return files, states_of([location for _, location in files])


def scanned(plain: Mapping[str, Any], **how: Any) -> Specs:
    """Run the first pass, without the cache."""
    config = parse_data(plain)
    return scan(config, find_files(config), **how)[0]


def epoch_of(plain: Mapping[str, Any], part: str = "train", **how: Any) -> dict[str, npt.NDArray[Any]]:
    """Read one epoch and put the events into file order.

    Returns
    -------
    every array of the batches, joined, sorted by sample, file and entry
    """
    batches = list(RootDataset(plain, part, index=True, **how))
    joined = {name: np.concatenate([b[name].numpy() for b in batches]) for name in batches[0]}
    rows = np.lexsort(joined["index"].T[::-1])
    return {name: values[rows] for name, values in joined.items()}


def files_below(folder: Path) -> list[str]:
    """List everything below a folder, hidden files and folders included."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def listed(column: Any) -> list[Any]:
    """Return a column of a block as a list, jagged ones as a list of lists."""
    return (column.to_awkward() if isinstance(column, Jagged) else column).tolist()


def suggest(found: Inspection, *, signal: Sequence[str] = ()) -> Suggestion:
    """Write a configuration of what is chosen without asking."""
    return suggestion_of(found, choose(found, signal=signal))
