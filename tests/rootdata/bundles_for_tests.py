"""Data and networks to export, and the two roads from a file to scores: training's and that of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
import uproot
from torch import Tensor, nn

from rootdata.bundle.assemble import Assembler, Tensors
from rootdata.bundle.manifest import MODEL, open_bundle
from rootdata.jagged import Jagged
from rootdata.loading.datamodule import RootDataModule
from rootdata.options.data import DataConfig, parse_data
from rootdata.options.typed import names_of
from rootdata.scan.first_pass import scan
from rootdata.scan.sources import find_files
from rootdata.table import Table
from strategies import SENTINEL, columns_of

SIZES = (400, 300)
SCALES = {
    "default": "standard", "met": "log", "ht": "minmax", "nlep": "robust", "cov": "none", "Mu_q": "none",
    "id": {"shift": 2.0**60, "factor": 1e-6},
}  # fmt: skip


def write_samples(folder: Path, write_tree: Callable[..., Path]) -> Path:
    """Write two samples with every kind of branch and missing value."""
    for i, size in enumerate(SIZES):
        write_tree(folder / f"{i}.root", columns_of(size, [i]), step=100)
    return folder


def make_data(folder: Path, **changes: Any) -> RootDataModule:
    """Make a data module on the samples of :func:`write_samples`; an option of None is left out."""
    options: dict[str, Any] = {
        "samples": {f"s{i}": {"files": str(folder / f"{i}.root"), "label": i} for i in range(len(SIZES))},
        "flat": ["met", "id", "ht", "nlep", "tagged", "cov", "hardest", "pairs"],
        "jagged": {
            "jets": {
                "branches": ["Jet_eta", "share", "Jet_pt"], "length": 4, "sort": "-Jet_pt", "cut": "Jet_pt > 10",
            },
            "values": {"branches": ["Mu_q"], "length": 2},
        },
        "derived": {"hardest": "max(Jet_pt)", "share": "Jet_pt / sum(Jet_pt)", "pairs": "count(Mu_q) // nlep"},
        "missing": [SENTINEL],
        "layout": "tokens",
        "scale": SCALES,
        "pad": -0.5,
    }  # fmt: skip
    options = {name: value for name, value in (options | changes).items() if value is not None}
    config = parse_data({name: value for name, value in options.items() if name in names_of(DataConfig)})
    return RootDataModule(**options, specs=scan(config, find_files(config))[0])


class Count(nn.Module):
    """Looks at everything: a weighted sum over all real values, and the number of objects."""

    def __init__(self, data: RootDataModule) -> None:
        super().__init__()
        shapes = data.shapes
        self.flat = nn.Linear(shapes["flat"][0], 1)
        self.names = [n for n in shapes if f"{n}_mask" in shapes]
        self.objects = nn.ModuleList(nn.Linear(shapes[n][1], 1) for n in self.names)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        total = self.flat(batch["flat"])[:, 0]
        for name, layer in zip(self.names, self.objects, strict=True):
            total = total + (layer(batch[name])[..., 0] * batch[f"{name}_mask"]).sum(1)
        return total


class Attention(nn.Module):
    """Attention between jets, with a mask and without a guard for events that have none."""

    def __init__(self, data: RootDataModule, width: int = 8) -> None:
        super().__init__()
        self.flat = nn.Sequential(nn.Linear(data.shapes["flat"][0], width), nn.BatchNorm1d(width))
        self.embed = nn.Linear(data.shapes["jets"][1], width)
        self.attend = nn.MultiheadAttention(width, 2, dropout=0.2, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, flat: Tensor, jets: Tensor, jets_mask: Tensor) -> Tensor:
        x = self.embed(jets)
        x, _ = self.attend(x, x, x, key_padding_mask=~jets_mask, need_weights=False)
        mean = (x * jets_mask.unsqueeze(2)).sum(1) / jets_mask.sum(1, keepdim=True)
        logits: Tensor = self.head(mean + self.flat(flat))
        return logits


class PlainMean(nn.Module):
    """A mean over all places, padding included: another answer for every width."""

    def __init__(self, data: RootDataModule) -> None:
        super().__init__()
        self.layer = nn.Linear(data.shapes["jets"][1], 1)

    def forward(self, jets: Tensor) -> Tensor:
        return self.layer(jets).mean(1)


def branches_of(data: RootDataModule, index: npt.NDArray[Any], names: Any) -> Table:
    """Read branches of the events that ``index`` (sample, file, entry) names, with uproot alone."""
    trees = [uproot.open(f"{file.path}:{file.tree}").arrays(list(names)) for file in data.specs.files]
    starts = np.cumsum([0, *map(len, trees)])
    picked = ak.concatenate(trees)[starts[index[:, 1]] + index[:, 2]]
    columns: dict[str, Any] = {}
    for name in names:
        array = picked[name]
        is_plain = array.ndim == 1 or array.type.content.__class__.__name__ == "RegularType"
        columns[name] = ak.to_numpy(array) if is_plain else Jagged.from_awkward(ak.to_packed(array))
    return Table(num_events=len(index), columns=columns)


def batches_of(data: RootDataModule) -> dict[str, Tensor]:
    """Join all test batches."""
    batches = list(data.test_dataloader())
    return {name: torch.cat([b[name] for b in batches]) for name in batches[0]}


def session_of(folder: Path) -> onnxruntime.InferenceSession:
    """Open the graph of a bundle."""
    return onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])


def scores_of(folder: Path, tensors: Tensors) -> npt.NDArray[np.float32]:
    """Run the graph of a bundle."""
    (scores,) = session_of(folder).run(None, tensors)
    found: npt.NDArray[np.float32] = scores
    return found


def scores_of_table(folder: Path, table: Table) -> npt.NDArray[np.float32]:
    """Score events by a bundle alone."""
    return scores_of(folder, Assembler(open_bundle(folder))(table))
