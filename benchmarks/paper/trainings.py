"""Fig. 8: one network, three ways from files to scores, and the AUC after every epoch.

*inside*: a Lightning trainer on the data module. *stream*: its batches, in a plain torch loop. *by hand*: bare uproot,
awkward and numpy, with a split of its own and nothing of the stream. Beside them boosted trees on the stream's events,
as the paper's section 4.2 compares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import torch
import uproot

from rootdata.loading.datamodule import RootDataModule
from rootdata.models.dnn import DNN
from rootdata.options.parts import PARTS
from rootdata.training.metrics import auc

EPOCHS, BATCH, HIDDEN, DROPOUT = 5, 100, (128, 64), 0.5
SHARES = (0.64, 0.16, 0.2)
AT_ONCE = 8192  # events that are scored at a time

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Events of one part, in memory, for scoring: inputs (n, columns), labels (n,)."""

    x: torch.Tensor
    label: Ints


Parts = dict[str, Part]


def compose(folder: Path, events: int) -> dict[str, Any]:
    """Return the data options of the experiment, with the files made where they are absent."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    configs = Path(__file__).parents[2] / "configs"
    overrides = ["experiment=tth_paper", f"data.n_events={events}", f"paths.data_dir={folder}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(configs)):
        config = hydra_compose("train", overrides=[*overrides, "paths.output_dir=unused"])
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    from rootdata.tth import ensure

    ensure(**{k: v for k, v in data["prepare"].items() if not k.startswith("_")})
    keep = ("samples", "flat", "jagged", "scale", "split", "mix", "batch_size")
    return {k: data[k] for k in keep}


def in_parts(data: RootDataModule) -> Parts:
    """Read every part of a data set once, for scoring."""
    found = {}
    for name in PARTS:
        batches = list(data.dataset(name, ordered=True).batches(0))
        x, label = (torch.cat([batch[key] for batch in batches]) for key in ("x", "label"))
        found[name] = Part(x=x, label=label.numpy())
    return found


def network(width: int) -> DNN:
    """Make the paper's network."""
    return DNN(shapes={"x": (width,), "mask": (width,)}, hidden=HIDDEN, dropout=DROPOUT)


def areas(model: DNN, parts: Parts) -> dict[str, float]:
    """Return the AUC of every part, with the network as it is now."""
    model.eval()
    found = {}
    with torch.no_grad():
        for name, part in parts.items():
            scores = torch.cat([model({"x": x}).reshape(-1) for x in part.x.split(AT_ONCE)])
            found[name] = float(auc(scores.double().numpy(), part.label))
    model.train()
    return found


def inside(options: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """Train by a Lightning trainer on the data module."""
    import pytorch_lightning as pl

    class Watch(pl.Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            found.append(areas(model, parts))

    pl.seed_everything(seed, workers=True)
    data = RootDataModule(**options, seed=seed)
    parts, found = in_parts(data), list[dict[str, float]]()
    model = network(*data.shapes["x"])
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=EPOCHS, accelerator="cpu", limit_val_batches=0, callbacks=[Watch()], **quiet)
    trainer.fit(model, datamodule=data)
    return found


def stream(options: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """Train in a plain torch loop on the batches of the stream."""
    data = RootDataModule(**options, seed=seed)
    events = data.dataset("train")

    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in events.batches(number):
            yield batch["x"], batch["label"]

    return _loop(seed, epoch, in_parts(data))


def by_hand(options: dict[str, Any], seed: int) -> list[dict[str, float]]:
    """Read by bare uproot, split, pad and scale with numpy, train in a plain torch loop."""
    x, label = read_all(options)
    part = np.random.default_rng(seed).choice(len(PARTS), len(x), p=SHARES)
    low, high = ranges(x[part == 0], options)
    x = np.nan_to_num((x - low) / np.where(high > low, high - low, 1), nan=0.0).astype(np.float32)
    parts = {n: Part(x=torch.from_numpy(x[part == i]), label=label[part == i]) for i, n in enumerate(PARTS)}
    inputs, labels = parts["train"].x, torch.from_numpy(parts["train"].label)

    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(1000 * seed + number)
        for rows in torch.randperm(len(inputs), generator=generator).split(BATCH):
            yield inputs[rows], labels[rows]

    return _loop(seed, epoch, parts)


def _loop(seed: int, epoch: Callable[[int], Iterator[Any]], parts: Parts) -> list[dict[str, float]]:
    torch.manual_seed(seed)
    model = network(parts["train"].x.shape[1])
    optimizer, found = torch.optim.Adam(model.parameters(), lr=1e-3), []
    for number in range(EPOCHS):
        for x, label in epoch(number):
            logits = model({"x": x}).reshape(-1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(areas(model, parts))
    return found


WAYS = {"inside": inside, "stream, trained outside": stream, "by hand": by_hand}


def trees(options: dict[str, Any]) -> float:
    """Return the test AUC of boosted trees on the events of the stream."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from rootdata.frameworks.batches import Batches

    data = RootDataModule(**options | {"scale": "none"})
    x, label, weight = Batches(data, ordered=True).table()
    chosen = HistGradientBoostingClassifier(max_iter=300, early_stopping=True, random_state=1)
    chosen.fit(x, label, sample_weight=weight)
    x, label, _ = Batches(data, "test").table()
    return float(auc(chosen.predict_proba(x)[:, 1], label))


# By hand


def read_all(options: dict[str, Any]) -> tuple[Floats, Ints]:
    """Return padded features (NaN where absent) and labels of all files."""
    values, labels = [], []
    for sample in options["samples"].values():
        for path in sorted(Path(sample["files"]).parent.glob(Path(sample["files"]).name)):
            columns = [c for j in options["jagged"].values() for c in j["branches"]]
            events = uproot.open(f"{path}:Events").arrays([*options["flat"], *columns])
            values.append(padded(events, options))
            labels.append(np.full(len(events), int("ttH_signal" in path.name)))
    return np.concatenate(values), np.concatenate(labels)


def ranges(x: Floats, options: dict[str, Any]) -> tuple[Floats, Floats]:
    """Return the smallest and largest value of every column; the objects of a branch share theirs."""
    names = list(options["flat"])
    for collection in options["jagged"].values():
        names += collection["branches"] * collection["length"]
    low, high = np.nanmin(x, 0), np.nanmax(x, 0)
    for name in set(names):
        same = np.array([other == name for other in names])
        low[same], high[same] = low[same].min(), high[same].max()
    return low, high


def padded(events: ak.Array, options: dict[str, Any]) -> Floats:
    """Pad with awkward: flat columns, then the leading objects of every collection."""
    columns = [np.asarray(events[name], np.float32)[:, None] for name in options["flat"]]
    for collection in options["jagged"].values():
        length = collection["length"]
        lists = [ak.fill_none(ak.pad_none(events[b], length, clip=True), np.nan) for b in collection["branches"]]
        stacked = np.stack([ak.to_numpy(values) for values in lists], axis=2)
        columns.append(stacked.reshape(len(events), -1).astype(np.float32))
    return np.concatenate(columns, axis=1)


# Together


def run(folder: Path, *, events: int, seeds: int) -> dict[str, Any]:
    """Train all ways with several seeds.

    Returns
    -------
    ``ways``: way to (seeds, epochs) of the AUC of every part; ``trees``: their test AUC
    """
    options = compose(folder, events)
    found: dict[str, Any] = {way: {part: [] for part in PARTS} for way in WAYS}
    for seed in range(1, seeds + 1):
        for way, train in WAYS.items():
            for_epochs = train(options, seed)
            for part in PARTS:
                found[way][part].append([areas[part] for areas in for_epochs])
            print(f"seed {seed}, {way}: test AUC {for_epochs[-1]['test']:.4f}", flush=True)
    return {"events": events, "ways": found, "trees": trees(options)}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Write the table: AUC after the last epoch, mean and spread over the seeds."""
    yield f"| {result['events']:,} events, {EPOCHS} epochs | {' | '.join(PARTS)} | test, each seed |"
    yield f"|---|{'--:|' * (len(PARTS) + 1)}"
    for way, parts in result["ways"].items():
        last = {part: np.array(values)[:, -1] for part, values in parts.items()}
        cells = [f"{v.mean():.4f} ± {v.std(ddof=1) if len(v) > 1 else 0:.4f}" for v in last.values()]
        yield f"| {way} | {' | '.join(cells)} | {', '.join(f'{v:.4f}' for v in last['test'])} |"
    yield f"| boosted trees | | | {result['trees']:.4f} | |"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw the AUC by epoch, a panel for each way: the mean of the seeds, and their range as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(WAYS), sharey=True)
    for axes, (way, parts) in zip(panels, result["ways"].items(), strict=True):
        for colour, (part, values) in zip(("#3f90da", "#ffa90e", "#bd1f01"), parts.items(), strict=True):
            each, epochs = np.array(values), np.arange(1, EPOCHS + 1)
            axes.plot(epochs, each.mean(0), color=colour, marker="o", ms=4, label=part)
            axes.fill_between(epochs, each.min(0), each.max(0), color=colour, alpha=0.2, lw=0)
        axes.set(title=way, xlabel="epoch", xticks=epochs)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("AUC")
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=120)
