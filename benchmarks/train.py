"""How long a Lightning trainer waits for its events: ``python -m benchmarks.train``.

Each network trains through ``RootDataModule``, one epoch with the files (cold) and one with the blocks that
``cache="memory"`` kept of it (warm), and beside that on the same padded tensors, all of them in memory already: batches
of those are cut with ``index_select``, which is the least that a shuffled batch can cost.

*Waiting* is the time within ``next()`` of the loader that the trainer holds over that of the epoch, its first batch
left out: that one waits for the first blocks, and has a column of its own. *Overhead* is the CPU time that the training
thread itself spends on a batch, in ``next()``. *One reader* is what a core delivers that does nothing but read; where
ours are enough for what the trainer takes from memory, the reader suffices.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks import data
from benchmarks.measure import in_process, timed
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.models.classifier import Classifier, mlp, plain_shapes
from rootdata.models.dnn import DNN

Batch = dict[str, Tensor]

EPOCHS = ("cold", "warm")
PLAIN_BATCHES = (100, 1024, 4096)
MAX_WAITING, MAX_OVERHEAD = 0.02, 60.0  # share of an epoch; µs a batch


class Transformer(Classifier):
    """Self-attention over the objects of one collection and a token of the flat features, which gives the answer."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        sizes = plain_shapes(shapes)
        self.name = next(name.removesuffix("_mask") for name in sizes if name.endswith("_mask"))
        self.flat, self.objects = mlp([sizes["flat"][0], width]), mlp([sizes[self.name][1], width])
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.answer = nn.Linear(width, 1)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch, (B,)."""
        tokens = torch.cat([self.flat(batch["flat"]).unsqueeze(1), self.objects(batch[self.name])], dim=1)
        padded = nn.functional.pad(~batch[f"{self.name}_mask"], (1, 0), value=False)
        answer: Tensor = self.answer(self.encoder(tokens, src_key_padding_mask=padded)[:, 0])
        return answer.squeeze(1)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A network and how it is fed."""

    model: Callable[..., Classifier]
    layout: str
    batch: int
    events: float = 1.0  # of those that are asked for: an epoch of each network should take seconds, not minutes


CASES = {
    "dnn, 100": Case(model=DNN, layout="vector", batch=100, events=0.5),
    "dnn, 4096": Case(model=DNN, layout="vector", batch=4096),
    "transformer, 512": Case(model=Transformer, layout="tokens", batch=512, events=0.2),
}


class Watch(pl.Callback):
    """Counts what each training epoch takes: in all, within ``next()``, and of the CPU of the training thread."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_start(self, *_: object) -> None:
        """Begin an epoch."""
        began = time.perf_counter()
        self.epochs.append({"began": began, "batches": 0, "first": 0.0, "waited": 0.0, "busy": 0.0})

    def on_train_epoch_end(self, *_: object) -> None:
        """End it, when the device is done."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.epochs[-1]["seconds"] = time.perf_counter() - self.epochs[-1]["began"]

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the making of a batch."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
            epoch = self.epochs[-1]
            is_first = not epoch["batches"]
            epoch["batches"] += 1
            epoch["first" if is_first else "waited"] += wall
            epoch["busy"] += 0.0 if is_first else cpu  # it makes the threads, once


class Watched:
    """A loader, timed."""

    def __init__(self, loader: Any, watch: Watch) -> None:
        self.loader, self.watch = loader, watch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        for _ in range(len(self.loader)):
            with self.watch.waiting():
                batch = next(batches)
            yield batch
        next(batches, None)


class WatchedModule(RootDataModule):
    """The data module, its loader timed."""

    watch: Watch

    def train_dataloader(self) -> Any:
        """Return the loader of the data module, timed."""
        return Watched(super().train_dataloader(), self.watch)


class InMemory:
    """Shuffled batches of tensors that are in memory, of the device or of the machine."""

    def __init__(self, tensors: Batch, *, batch: int) -> None:
        self.tensors, self.batch = tensors, batch

    def __len__(self) -> int:
        return math.ceil(len(self.tensors["label"]) / self.batch)

    def __iter__(self) -> Iterator[Batch]:
        label = self.tensors["label"]
        for rows in torch.randperm(len(label), device=label.device).split(self.batch):
            yield {name: values.index_select(0, rows) for name, values in self.tensors.items()}


def tensors_of(events: RootDataset, *, device: str) -> Batch:
    """Read all events into one batch."""
    batches = list(events)
    return {name: torch.cat([b[name] for b in batches]).to(device) for name in batches[0]}


def fit(model: Classifier, watch: Watch, *, device: str, epochs: int, limit: int | None = None, **data: Any) -> None:
    """Train with nothing around it: no logger, no checkpoints, no bar."""
    pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=epochs,
        limit_train_batches=limit,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, **data)


@contextlib.contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """Collect how busy the GPU is, in per cent, ten times a second."""
    found: list[float] = []
    if device != "cuda":
        yield found
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield found
        finally:
            process.terminate()
            found += [float(line) for line in process.communicate()[0].split() if line.isdigit()]


def options_of(case: Case, folder: Path, *, events: int, workers: int, device: str) -> dict[str, Any]:
    """Make the files, and return the options of a data module that reads them."""
    clusters = max(1, round(case.events * events / 4 / data.CLUSTER))
    paths = data.make(folder, files=4, clusters=clusters)
    changes = {"layout": case.layout, "batch_size": case.batch, "num_workers": workers, "pin_memory": device == "cuda"}
    return {**data.options(paths), **changes}


def measure_training(case: Case, options: dict[str, Any], *, device: str) -> dict[str, Any]:
    """Train from memory, then from the files, then from the cache."""
    reading = {name: options[name] for name in ("num_workers", "pin_memory")}
    events = RootDataset({k: v for k, v in options.items() if k not in reading})
    tensors, memory, streamed = tensors_of(events, device=device), Watch(), Watch()
    in_memory = InMemory(tensors, batch=case.batch)
    fit(case.model(events.shapes), Watch(), device=device, epochs=1, limit=3, train_dataloaders=in_memory)
    with utilisation(device) as of_memory:
        fit(case.model(events.shapes), memory, device=device, epochs=1, train_dataloaders=Watched(in_memory, memory))
    with utilisation(device) as of_stream:
        module = WatchedModule(**options, specs=events.specs, cache="memory")
        module.watch = streamed
        fit(case.model(events.shapes), streamed, device=device, epochs=len(EPOCHS), datamodule=module)
    found = {"memory": memory.epochs[0], **dict(zip(EPOCHS, streamed.epochs, strict=True))}
    busy = {"memory": of_memory, "streamed": of_stream}
    return {
        "events": events.num_events,
        **found,
        "utilisation": {name: statistics.mean(v) for name, v in busy.items() if v},
    }


def measure_reading(options: dict[str, Any]) -> dict[str, Any]:
    """Read the same events, cold and warm, and do nothing with them."""
    options = dict(options)
    workers, _ = options.pop("num_workers"), options.pop("pin_memory")
    specs = RootDataset(options).specs
    events = RootDataset(options, specs=specs, cache="memory", num_workers=workers)
    return {name: timed(lambda: sum(len(batch["label"]) for batch in events)) for name in EPOCHS}


def measure_plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return the CPU time that the calling thread takes for a batch of a warm data set, in µs, by batch size."""
    options = dict(options)
    workers, _ = options.pop("num_workers"), options.pop("pin_memory")
    found = {}
    for size in PLAIN_BATCHES:
        events = RootDataset({**options, "batch_size": size}, cache="memory", num_workers=workers)
        for _ in events:
            pass
        batches = iter(events)
        next(batches)  # it makes the threads, once
        began = time.thread_time()
        for _ in batches:
            pass
        found[str(size)] = 1e6 * (time.thread_time() - began) / (len(events) - 1)
    return found


def summary(found: list[dict[str, Any]], *, cores: int) -> dict[str, Any]:
    """Take medians over the rounds of one case."""
    demand = statistics.median(r["training"]["events"] / r["training"]["memory"]["seconds"] for r in found)
    result: dict[str, Any] = {"in memory, events/s": demand}
    for epoch in EPOCHS:
        reader = statistics.median(r["reading"][epoch]["events"] / r["reading"][epoch]["cpu"] for r in found)
        times = [r["training"][epoch] for r in found]
        steady = [t["seconds"] - t["first"] for t in times]
        result[epoch] = {
            "events/s": statistics.median(r["training"]["events"] / r["training"][epoch]["seconds"] for r in found),
            "of in memory": statistics.median(
                r["training"]["memory"]["seconds"] / r["training"][epoch]["seconds"] for r in found
            ),
            "first batch, s": statistics.median(t["first"] for t in times),
            "waiting": statistics.median(t["waited"] / s for t, s in zip(times, steady, strict=True)),
            "waiting, µs a batch": statistics.median(1e6 * t["waited"] / max(1, t["batches"] - 1) for t in times),
            "overhead, µs a batch": statistics.median(1e6 * t["busy"] / t["batches"] for t in times),
            "one reader, events/s": reader,
            "suffices": reader * max(1, cores - 1) >= demand,
        }
    used = [r["training"]["utilisation"] for r in found]
    result["utilisation"] = {name: statistics.median(u[name] for u in used) for name in used[0]}
    return result


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    headings = ["events/s", "of in memory", "waiting", "µs waiting", "µs overhead", "first batch", "one reader"]
    table = Table("network, batch", "epoch", *headings, "reader suffices", title="training from files")
    for name, case in result["cases"].items():
        table.add_row(name, "in memory", f"{case['in memory, events/s']:,.0f}", *[""] * 7)
        for epoch in EPOCHS:
            row = case[epoch]
            table.add_row(
                "", epoch, f"{row['events/s']:,.0f}", f"{row['of in memory']:.2f}",
                _judged(row["waiting"], MAX_WAITING, ".1%"), f"{row['waiting, µs a batch']:.0f}",
                _judged(row["overhead, µs a batch"], MAX_OVERHEAD, ".0f"), f"{row['first batch, s']:.2f} s",
                f"{row['one reader, events/s']:,.0f}", "yes" if row["suffices"] else "no",
            )  # fmt: skip
        for run, share in case["utilisation"].items():
            table.add_row("", f"GPU busy, {run}", f"{share:.0f} %", *[""] * 7)
    plain = Table("batches of", *result["plain"], title="a plain loop over a warm RootDataset")
    plain.add_row("µs overhead", *(_judged(v, MAX_OVERHEAD, ".0f") for v in result["plain"].values()))
    console = Console(width=150)
    console.print(table)
    console.print(plain)


def _judged(value: float, bound: float, form: str) -> str:
    return f"[{'green' if value <= bound else 'red'}]{value:{form}}[/]"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything in turn, several times, each in a process of its own."""
    common = [f"--{name}={getattr(options, name)}" for name in ("folder", "events", "workers", "device")]

    def run(what: str, name: str) -> dict[str, Any]:
        return in_process("benchmarks.train", [*common, "--only", what, "--case", name])

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in options.case}
    plain = []
    for i in range(options.rounds):
        for name in options.case:
            found[name].append({what: run(what, name) for what in ("training", "reading")})
        plain.append(run("plain", options.case[0]))
        print(f"round {i + 1} of {options.rounds} done", file=sys.stderr)
    cores = len(os.sched_getaffinity(0))
    return {
        "device": options.device,
        "cores": cores,
        "cases": {name: summary(rounds, cores=cores) for name, rounds in found.items()},
        "plain": {size: statistics.median(p[size] for p in plain) for size in plain[0]},
    }


def measure_one(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one thing in this process."""
    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    case = CASES[options.case[0]]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ROOTDATA_CACHE"] = cache
        chosen = options_of(case, options.folder, events=options.events, workers=options.workers, device=options.device)
        if options.only == "training":
            return measure_training(case, chosen, device=options.device)
        return measure_reading(chosen) if options.only == "reading" else measure_plain(chosen)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="reading threads; 0: those of the default")
    parser.add_argument("--case", choices=list(CASES), action="append", help="network and batch; all by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--only", choices=["training", "reading", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave it out to measure on the CPU")
    options.case = options.case or list(CASES)
    if options.only:
        print(json.dumps(measure_one(options)))
        return
    result = measure(options)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
