"""Streaming into padded batches beside other libraries, on the same files, in one run: ``python -m benchmarks.peers``.

Every peer has a virtual environment of its own, since their requirements conflict; ``--install`` makes them. Every
measurement is a process of its own; rounds are interleaved, and what counts is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data
from benchmarks.measure import in_process

HOME = Path(__file__).parents[2]
BATCH_SIZE = 1024
BASE = "uproot.concatenate"
Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """One library: its adapter (and environment), what pip installs, and the settings that are measured."""

    adapter: str
    requirement: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


PEERS = (
    Peer(
        adapter="weaver",
        requirement="weaver-core==0.5.3",
        settings={
            "weaver-core, fetch step 0.1": {"fetch": 0.1},
            "weaver-core, fetch step 0.01 (default)": {"fetch": 0.01},
            "weaver-core, in memory": {"memory": True},
        },
    ),
    Peer(
        adapter="rdataloader",
        requirement="root==0.1a12",
        settings={
            "ROOT 6.40 RDataLoader, 40 batches in memory": {"batches": 40},
            "ROOT 6.40 RDataLoader, eager": {"eager": True},
        },
    ),
    Peer(
        adapter="f9",
        requirement="f9columnar==0.9.0",
        settings={
            "f9columnar, padded": {"layout": "padding"},
            "f9columnar, packed (no padding)": {"layout": "varlen"},
        },
    ),
)


def run(command: list[str]) -> tuple[str, str]:
    """Run a command in the repository; give its output and why it failed, which is empty where it did not."""
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    said = (done.stderr.strip() or f"exit {done.returncode}").splitlines()
    errors = [line for line in said if "Error" in line or "ERROR" in line]
    return done.stdout, (errors or said)[-1] if done.returncode else ""


def install(peer: Peer, folder: Path) -> str:
    """Make the environment of a peer; give the reason where that fails.

    torch comes first and alone, in the version of this project: a later, looser requirement is then met by it.
    """
    constraints = HOME / "constraints.txt"
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    pip = [str(python_of(peer, folder)), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", str(folder / peer.adapter)],
        [*pip, "--constraint", str(constraints), torch],
        [*pip, torch, peer.requirement],
    ):
        _, failure = run(command)
        if failure:
            return failure
    return ""


def python_of(peer: Peer, folder: Path) -> Path:
    """Return the interpreter of a peer's environment."""
    return folder / peer.adapter / "bin" / "python"


def ask(python: Path, adapter: str, request: dict[str, Any]) -> Found:
    """Let an adapter measure; a failure comes back as ``error``."""
    if not python.exists():
        return {"error": f"no environment at {python.parents[1]}; python -m benchmarks.peers --install"}
    output, failure = run([str(python), "-m", f"benchmarks.peers.{adapter}", json.dumps(request)])
    if failure or not output:
        return {"error": failure or "it printed nothing"}
    return dict(json.loads(output.splitlines()[-1]))


def origins(paths: list[Path]) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Make a lookup from the values of the first two flat branches, which no two events share, to where they come from.

    Returns
    -------
    A function of (n, 2) float32 to the file and the stretch of 1000 events, (n,) int64 each.
    """
    import uproot

    keys, files, entries = [], [], []
    for i, path in enumerate(paths):
        columns = uproot.open(f"{path}:Events").arrays(data.FLAT[:2], library="np")
        keys.append(_joined(np.stack([columns[name] for name in data.FLAT[:2]], axis=1)))
        files.append(np.full(len(keys[-1]), i))
        entries.append(np.arange(len(keys[-1])))
    order = np.argsort(np.concatenate(keys))
    known, file, entry = (np.concatenate(parts)[order] for parts in (keys, files, entries))
    if (known[1:] == known[:-1]).any():
        raise SystemExit("two events share the values of the first two flat branches: what a peer mixed cannot be told")

    def find(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = np.searchsorted(known, wanted := _joined(values)).clip(max=len(known) - 1)
        if (known[at] != wanted).any():
            raise SystemExit("a peer gave values that are not in the files")
        return file[at], entry[at] // 1000

    return find


def _joined(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint64)[:, 0]


def mixing(batches: np.ndarray, find: Callable[[np.ndarray], Any], *, files: int) -> dict[str, float]:
    """Tell how well batches are mixed.

    Parameters
    ----------
    batches : (n_batches, batch size, 2) float32, of the first two flat branches
    files : how many there are; the second half is signal

    Returns
    -------
    Spread of the class fraction over that of a fair draw; mean of distinct stretches of 1000 events in a batch.
    """
    file, stretch = (part.reshape(batches.shape[:2]) for part in find(batches.reshape(-1, 2)))
    spread = (file >= files // 2).mean(axis=1).std() / np.sqrt(0.25 / batches.shape[1])
    sources = [len(np.unique(row)) for row in file * 1_000_000 + stretch]
    return {"class spread": float(spread), "source blocks": float(np.mean(sources))}


def measure_here(name: str, options: argparse.Namespace) -> Found:
    """Measure this project, or reading alone, as ``benchmarks.stream`` does."""
    arguments = [
        "--folder",
        str(options.data),
        "--compression",
        options.compression,
        "--clusters",
        str(options.clusters),
    ]
    found = in_process("benchmarks.stream", [*arguments, "--only", name])
    if name == "concatenate":
        return {"later epoch": found["epoch"], "first epoch": found["epoch"], "memory": found["memory"]}
    first = {k: found["scan"][k] + found["first epoch"][k] for k in ("cpu", "wall")}
    return {**found, "first epoch": {**first, "events": found["first epoch"]["events"]}}


def measure_peer(peer: Peer, setting: dict[str, Any], paths: list[Path], options: argparse.Namespace) -> Found:
    """Measure a peer; ``seen`` of the result is what it yielded, for ``mixing``."""
    half = len(paths) // 2
    request = {
        "background": [str(p) for p in paths[:half]],
        "signal": [str(p) for p in paths[half:]],
        "flat": data.FLAT,
        "jagged": data.JAGGED,
        "length": data.LENGTH,
        "batch_size": BATCH_SIZE,
        "cluster": data.CLUSTER,
        "events": data.CLUSTER * options.clusters * len(paths),
        "setting": setting,
    }
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder) / "seen.npy"
        found = ask(python_of(peer, options.folder), peer.adapter, {**request, "seen": str(seen)})
        if "error" not in found:
            found["seen"] = np.load(seen)
    return found


def measure_all(options: argparse.Namespace) -> list[dict[str, Found]]:
    """Measure everything in turn, several times."""
    paths = data.make(options.data, clusters=options.clusters, compression=options.compression)
    rounds: list[dict[str, Found]] = []
    find = origins(paths)
    for i in range(options.rounds):
        rounds.append({BASE: measure_here("concatenate", options), "rootdata": measure_here("rootdata", options)})
        for peer in PEERS:
            for name, setting in peer.settings.items():
                rounds[-1][name] = found = measure_peer(peer, setting, paths, options)
                if "seen" in found:
                    found |= mixing(found.pop("seen"), find, files=len(paths))
                print(f"round {i + 1} of {options.rounds}: {name} done", file=sys.stderr)
    return rounds


def report(rounds: list[dict[str, Found]]) -> dict[str, dict[str, Any]]:
    """Take medians over the rounds, and ratios within them; a peer that failed in one keeps the reason."""

    def rate(found: Found, epoch: str) -> float:
        return found[epoch]["events"] / found[epoch]["cpu"]

    table: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        every = [r[name] for r in rounds]
        failed = [found["error"] for found in every if "error" in found]
        if failed:
            table[name] = {"error": failed[0]}
            continue
        row: dict[str, Any] = {"events/CPU-s": statistics.median(rate(found, "later epoch") for found in every)}
        for epoch in ("later epoch", "first epoch"):
            ratios = [rate(r[name], epoch) / rate(r[BASE], epoch) for r in rounds]
            row[f"ratio, {epoch}"] = statistics.median(ratios)
        for fact in ("memory", "class spread", "source blocks"):
            row[fact] = statistics.median(found[fact] for found in every) if fact in every[0] else None
        table[name] = row
    return table


COLUMNS = {
    "events/CPU-s": ("{:,.0f}", "events / CPU-s"),
    "ratio, later epoch": ("{:.2f}", f"/ {BASE}"),
    "ratio, first epoch": ("{:.2f}", "start and\nfirst epoch"),
    "memory": ("{:,.0f}", "MB above\nimports"),
    "class spread": ("{:.2f}", "class spread\nof binomial"),
    "source blocks": ("{:.0f}", "stretches\nin a batch"),
}


def cells(row: dict[str, Any]) -> list[str]:
    """Write a row's figures; a dash where there is none."""
    return [form.format(row[name]) if row.get(name) is not None else "-" for name, (form, _) in COLUMNS.items()]


def show(table: dict[str, dict[str, Any]]) -> None:
    """Print the table, and below it why a peer has no figures."""
    from rich.console import Console
    from rich.table import Table

    printed = Table("", *(title for _, title in COLUMNS.values()))
    for name, row in table.items():
        printed.add_row(name, *cells(row))
    console = Console(width=140)
    console.print(printed)
    for name, row in table.items():
        if "error" in row:
            console.print(f"{name}: not measured: {row['error']}", markup=False)


def main() -> None:
    """Install, or measure, print and write JSON."""
    cache = Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--install", action="store_true", help="make the environments of the peers, then stop")
    parser.add_argument("--folder", type=Path, default=cache / "rootdata-peers", help="of the environments")
    parser.add_argument("--data", type=Path, default=cache / "rootdata-benchmarks", help="folder of the ROOT files")
    parser.add_argument("--compression", choices=sorted(data.COMPRESSION), default="zlib")
    parser.add_argument("--clusters", type=int, default=10, help="of 10,000 events in each of the four files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    options.folder, options.data = options.folder.resolve(), options.data.resolve()
    if options.install:
        for peer in PEERS:
            print(f"{peer.requirement}: {install(peer, options.folder) or 'installed'}")
        return
    table = report(measure_all(options))
    show(table)
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
