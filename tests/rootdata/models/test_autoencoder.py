"""An autoencoder neither sees nor asks for what is no value, needs no labels, and gives its loss as a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import make_events, write
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rootdata.bundle.assemble import Assembler
from rootdata.bundle.export import export
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.manifest import MODEL, open_bundle
from rootdata.bundle.parity import real_events
from rootdata.errors import ConfigError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.autoencoder import Autoencoder
from rootdata.training.callbacks import ScoreReport
from rootdata.training.ready import ReadyCheck

VECTOR = {"x": (7,), "mask": (7,)}
TOKENS = {"flat": (3,), "jets": (4, 2), "jets_mask": (4,), "leptons": (2, 1), "leptons_mask": (2,)}
QUIET: dict[str, Any] = {
    "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
    "enable_checkpointing": False,
}  # fmt: skip


def batch_of(shapes: dict[str, Any], *, seed: int = 0, size: int = 12) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(size, *shape, generator=rng) < 0.5 if name.endswith("mask")
        else torch.randn(size, *shape, generator=rng)
        for name, shape in shapes.items()
    }  # fmt: skip


def padded(batch: dict[str, Tensor], padding: float) -> dict[str, Tensor]:
    """Put a number wherever the masks say that there is none."""
    made = dict(batch)
    for name, mask in (("x", "mask"), ("jets", "jets_mask"), ("leptons", "leptons_mask")):
        if name in batch:
            marks = batch[mask] if name == "x" else batch[mask].unsqueeze(-1)
            made[name] = torch.where(marks, batch[name], torch.tensor(padding))
    return made


@pytest.mark.parametrize("shapes", [VECTOR, TOKENS], ids=["vector", "tokens"])
@settings(max_examples=12)
@given(seed=st.integers(0, 2**31), padding=st.sampled_from([0.0, -1.0, 1e9, float("inf"), float("nan")]))
def test_what_is_no_value_changes_neither_loss_nor_gradient(shapes: Any, seed: int, padding: float) -> None:
    torch.manual_seed(seed % 1000)
    network, batch = Autoencoder(shapes, hidden=[5], latent=2), batch_of(shapes, seed=seed)
    weights = list(network.parameters())
    expected = torch.autograd.grad(network(padded(batch, 0.5)).sum(), weights)
    other = padded(batch, padding)
    torch.testing.assert_close(network(other), network(padded(batch, 0.5)))
    for found, gradient in zip(torch.autograd.grad(network(other).sum(), weights), expected, strict=True):
        torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize("shapes", [VECTOR, TOKENS], ids=["vector", "tokens"])
def test_the_loss_of_an_event_is_the_mean_square_over_its_real_values(shapes: Any) -> None:
    network, batch = Autoencoder(shapes, hidden=[5], latent=2), batch_of(shapes)
    with torch.no_grad():
        decoded, losses = network.reconstruct(batch), network(batch)
    assert {name: value.shape for name, value in decoded.items()} == {n: v.shape for n, v in batch.items()}
    for event in range(len(losses)):
        squares: list[float] = []
        for name in (n for n in shapes if not n.endswith("mask")):
            mask = batch.get("mask" if name == "x" else f"{name}_mask", torch.ones(12, 1, dtype=torch.bool))[event]
            difference = decoded[name][event] - batch[name][event]
            squares += difference.square()[mask if name != "flat" else slice(None)].flatten().tolist()
        assert float(losses[event]) == pytest.approx(np.mean(squares or [0.0]), rel=1e-4)


def test_an_event_of_nothing_has_no_loss() -> None:
    network, batch = Autoencoder(VECTOR), batch_of(VECTOR)
    assert network({**batch, "mask": torch.zeros_like(batch["mask"])}).tolist() == [[0.0]] * 12


@pytest.mark.parametrize(
    ("shapes", "options", "words"),
    [
        ({"jets": (2, 8, 8)}, {}, "got 'jets' without a mask; allowed: layouts 'vector' and 'tokens'"),
        ({"x": (7,)}, {}, "got 'x' without a mask"),
        ({"jets": (3,), "jets_mask": (3,), "jets_offsets": ()}, {}, "got 'jets_offsets' without a mask"),
        ({}, {}, "got nothing"),
        (VECTOR, {"latent": 0}, "model.latent: got 0"),
        (VECTOR, {"hidden": [3, 0]}, "model.hidden: got a layer of 0 nodes"),
        (VECTOR, {"lr": 0.0}, "model.lr: got 0.0"),
        (VECTOR, {"weight_decay": -1.0}, "model.weight_decay: got -1.0"),
    ],
)
def test_what_can_t_be_an_autoencoder_is_refused(shapes: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Autoencoder(shapes, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    for k in range(2):
        events = make_events(200, seed=k)
        events["met"][::7] = np.nan
        write(folder / f"{k}.root", events, steps=(100,))
    return folder


def data_of(files: Path, **changes: Any) -> RootDataModule:
    """Read events that have no label."""
    options: dict[str, Any] = {
        "samples": {"a": {"files": str(files / "*.root")}},
        "flat": ["met", "event"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}},
        "scale": {"Jet_pt": "log", "met": "minmax"},
        "weight": "weight",
        "layout": "vector",
        "batch_size": 64,
        **changes,
    }
    return RootDataModule(**options)


Trained = tuple[Autoencoder, RootDataModule, dict[str, Any]]


@pytest.fixture(scope="module", params=["vector", "tokens"])
def trained(request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train without labels, as train.py does; give what metrics.json holds, too."""
    torch.manual_seed(1)
    data = data_of(files, layout=request.param)
    network = Autoencoder(data.shapes, hidden=[16], latent=4, lr=0.01)
    report = ScoreReport(tmp_path_factory.mktemp("report"), plots=False)
    trainer = pl.Trainer(max_epochs=2, callbacks=[ReadyCheck(), report], **QUIET)
    trainer.fit(network, datamodule=data)
    assert float(trainer.callback_metrics["val/loss"]) > 0
    trainer.test(network, datamodule=data, verbose=False)
    return network.eval(), data, json.loads(report.paths["metrics"].read_text())


def test_the_metrics_of_the_test_are_those_of_the_decoded_events(trained: Trained) -> None:
    network, data, metrics = trained
    squares: dict[str, list[float]] = {"met": [], "event": [], "Jet_pt": [], "Jet_eta": []}
    own: dict[str, list[float]] = {name: [] for name in (*squares, "loss")}
    with torch.no_grad():
        for batch in data.test_dataloader():
            original, decoded = data.decode(batch), data.decode(network.reconstruct(batch))
            for event, weight in enumerate(batch["weight"].tolist()):
                for name in squares:
                    records = [(r[event] if name in {"met", "event"} else r[event].jets) for r in (original, decoded)]
                    true, found = (np.atleast_1d(np.asarray(r[name])) for r in records)
                    known = ~np.isnan(true)
                    squares[name] += (weight * (found - true)[known] ** 2).tolist()
                    own[name] += [weight] * int(known.sum())
            own["loss"] += (network(batch)[:, 0] * batch["weight"]).tolist()
    weights = sum(float(b["weight"].sum()) for b in data.test_dataloader())
    assert metrics.pop("events") == data.specs.num_events("test")
    assert metrics.pop("weighted") is True
    expected = {f"{name}/rmse": np.sqrt(sum(v) / sum(own[name])) for name, v in squares.items()}
    assert metrics == pytest.approx({**expected, "loss": sum(own["loss"]) / weights}, rel=1e-4)


@pytest.mark.long
def test_the_graph_gives_the_loss_of_each_event(trained: Trained, tmp_path: Path) -> None:
    network, data, _ = trained
    export(network, data, tmp_path / "bundle")
    manifest = open_bundle(tmp_path / "bundle")
    assert (manifest.columns, manifest.regressions) == (("loss",), ("loss",))
    table = real_events(data.data, data.specs, 50)
    found = run((tmp_path / "bundle" / MODEL).read_bytes(), Assembler(manifest)(table))
    expected: npt.NDArray[Any] = np.concatenate(
        [network.predict_step(batch, 0)["predictions"].detach().numpy() for batch in data.test_dataloader()]
    )
    index = np.concatenate([batch["index"].numpy() for batch in data.test_dataloader()])
    order = np.lexsort(index.T[::-1])[:50]
    np.testing.assert_allclose(found, expected[order], rtol=1e-6, atol=1e-6)


def test_targets_are_refused(files: Path) -> None:
    data = data_of(files, targets={"x": "met + 1"}, cut="met > 0")
    with pytest.raises(ConfigError, match="targets: got 'x'; an autoencoder predicts its own inputs"):
        pl.Trainer(max_epochs=1, **QUIET).fit(Autoencoder(data.shapes), datamodule=data)


def test_a_monitor_of_labels_is_refused(files: Path) -> None:
    data, stopping = data_of(files), pl.callbacks.EarlyStopping("val/auc", mode="max")
    trainer = pl.Trainer(max_epochs=1, callbacks=[ReadyCheck(), stopping], **QUIET)
    with pytest.raises(ConfigError, match=r"'val/auc', which nobody computes; .*'val/loss'"):
        trainer.fit(Autoencoder(data.shapes), datamodule=data)
