"""The paper's comparison: the same network on the same events, streamed, and read into memory by bare uproot.

``python -m benchmarks.paper`` trains ``experiment=tth_paper`` (350k events, 64/16/20, batch 100, 5 epochs, min-max)
both ways with several seeds, prints the test AUCs and writes a table and a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import torch
import uproot

from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.models.dnn import DNN
from rootdata.options.data import PARTS
from rootdata.training.metrics import auc, roc

EPOCHS, BATCH = 5, 100


def compose(folder: Path, events: int) -> dict[str, Any]:
    """Return the data options of the experiment, with the files made where they are absent."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    configs = Path(__file__).parents[1] / "configs"
    overrides = ["experiment=tth_paper", f"data.n_events={events}", f"paths.data_dir={folder}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(configs)):
        config = hydra_compose("train", overrides=[*overrides, "paths.output_dir=unused"])
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    from rootdata.tth import ensure

    ensure(**{k: v for k, v in data["prepare"].items() if not k.startswith("_")})
    keep = ("samples", "flat", "jagged", "scale", "split", "mix", "batch_size")
    return {k: data[k] for k in keep}


def streamed(options: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train through the data module and a Lightning trainer; return test scores and labels."""
    import pytorch_lightning as pl

    pl.seed_everything(seed, workers=True)
    data = RootDataModule(**options, seed=seed)
    model = DNN(shapes=data.shapes, hidden=(128, 64), dropout=0.5)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=EPOCHS, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(model, datamodule=data)
    return scored(model, ((b["x"], b["label"]) for b in RootDataset(options, "test")))


def in_memory(options: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the same events by bare uproot, pad and scale them with numpy, train in a plain torch loop."""
    x, label, part = read_all(options)
    train, test = part == 0, part == 2
    low, high = ranges(x[train], options)
    x = np.nan_to_num((x - low) / np.where(high > low, high - low, 1), nan=0.0).astype(np.float32)
    inputs, targets = torch.from_numpy(x[train]), torch.from_numpy(label[train])
    torch.manual_seed(seed)
    model = DNN(shapes={"x": (x.shape[1],), "mask": (x.shape[1],)}, hidden=(128, 64), dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(inputs)).split(BATCH):
            logits = model({"x": inputs[rows]})
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.reshape(-1), targets[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    rows = np.flatnonzero(test)
    batches = ((torch.from_numpy(x[r]), torch.from_numpy(label[r])) for r in np.array_split(rows, 50))
    return scored(model, batches)


def read_all(options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return padded features (NaN where absent), labels and parts; the split is asked of the data set itself."""
    split: dict[tuple[int, int], int] = {}
    files: list[str] = []
    for number, part in enumerate(PARTS):
        dataset = RootDataset(options, part, index=True)
        files = [f.path for f in dataset.specs.files]
        for batch in dataset:
            split |= {(int(f), int(e)): number for _, f, e in batch["index"]}
    values, labels, parts = [], [], []
    for i, path in enumerate(files):
        columns = [c for j in options["jagged"].values() for c in j["branches"]]
        events = uproot.open(f"{path}:Events").arrays([*options["flat"], *columns])
        values.append(np.concatenate([padded(events, options)], axis=1))
        labels.append(np.full(len(events), int("ttH_signal" in path)))
        parts.append(np.array([split[i, e] for e in range(len(events))]))
    return np.concatenate(values), np.concatenate(labels), np.concatenate(parts)


def ranges(x: np.ndarray, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest value of every column; the objects of a branch share theirs."""
    names = list(options["flat"])
    for collection in options["jagged"].values():
        names += collection["branches"] * collection["length"]
    low, high = np.nanmin(x, 0), np.nanmax(x, 0)
    for name in set(names):
        same = np.array([other == name for other in names])
        low[same], high[same] = low[same].min(), high[same].max()
    return low, high


def padded(events: ak.Array, options: dict[str, Any]) -> np.ndarray:
    """Pad with awkward: flat columns, then the leading objects of every collection."""
    columns = [np.asarray(events[name], np.float32)[:, None] for name in options["flat"]]
    for collection in options["jagged"].values():
        length = collection["length"]
        lists = [ak.fill_none(ak.pad_none(events[b], length, clip=True), np.nan) for b in collection["branches"]]
        stacked = np.stack([ak.to_numpy(values) for values in lists], axis=2)
        columns.append(stacked.reshape(len(events), -1).astype(np.float32))
    return np.concatenate(columns, axis=1)


def scored(model: Any, batches: Any) -> tuple[np.ndarray, np.ndarray]:
    """Score batches of (inputs, labels) with a trained model."""
    model.eval()
    with torch.no_grad():
        found = [(torch.sigmoid(model({"x": x})).reshape(-1).numpy(), label.numpy()) for x, label in batches]
    return np.concatenate([s for s, _ in found]), np.concatenate([y for _, y in found])


def draw(curves: dict[str, list[tuple[np.ndarray, np.ndarray]]], path: Path) -> None:
    """Draw the ROC curves of both ways, one line a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for (name, found), color in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        for i, (score, label) in enumerate(found):
            curve = roc(score, label)
            axes.plot(curve.signal, curve.background, color=color, lw=1, label=name if not i else None)
    axes.set(xlabel="signal efficiency", ylabel="background efficiency", yscale="log", xlim=(0, 1), ylim=(1e-4, 1))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train both ways, compare, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("--events", type=int, default=350_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = compose(arguments.data.absolute(), arguments.events)
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"streamed by rootdata": [], "read by bare uproot": []}
    aucs: dict[str, list[float]] = {name: [] for name in curves}
    for seed in range(1, arguments.seeds + 1):
        for (name, found), train in zip(curves.items(), (streamed, in_memory), strict=True):
            score, label = train(options, seed)
            found.append((score, label))
            aucs[name].append(float(auc(score, label)))
            print(f"seed {seed}, {name}: test AUC {aucs[name][-1]:.4f} of {len(label)} events", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(curves, arguments.out / "tth_paper_roc.png")
    summary = {name: {"auc": v, "mean": float(np.mean(v)), "std": float(np.std(v))} for name, v in aucs.items()}
    (arguments.out / "tth_paper.json").write_text(json.dumps(summary, indent=2) + "\n")
    for name, row in summary.items():
        print(f"{name}: {row['mean']:.4f} ± {row['std']:.4f}")


if __name__ == "__main__":
    main()
