"""Several heads: losses with weights, figures in physical units, graphs that give what the network gives."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import make_events, write
from torch.nn import functional

from rootdata.bundle.assemble import Assembler
from rootdata.bundle.export import export
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.manifest import MODEL, open_bundle
from rootdata.bundle.parity import real_events
from rootdata.errors import BundleError, ConfigError, RootDataError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.classifier import Classifier, weighted_loss
from rootdata.models.deepsets import DeepSets
from rootdata.models.dnn import DNN
from rootdata.models.encodedsets import EncodedSets
from rootdata.models.heads import ResidualSums, parse_heads
from rootdata.models.mlp import MLP

TARGETS = {"mass": {"value": "2 * met + sum(Jet_pt)", "unit": "GeV"}, "size": {"value": "met + 1", "scale": "log"}}
HEADS = {
    "numbers": {"kind": "regression", "target": ["size", "mass"], "loss": "huber", "weight": 0.5},
    "class": {"kind": "classification", "weight": 2.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    for k in range(2):
        write(folder / f"{k}.root", make_events(400, seed=k), steps=(100, 200))
    return folder


def make_data(files: Path, **changes: Any) -> RootDataModule:
    options: dict[str, Any] = {
        "samples": {"a": {"files": str(files / "*.root")}},
        "label": "is_signal",
        "weight": "weight",
        "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 4}},
        "layout": "tokens",
        "batch_size": 64,
        "chunk_size": 128,
        "targets": TARGETS,
        "observers": ["event"],
        **changes,
    }
    return RootDataModule(**options)


def fit(network: pl.LightningModule, data: RootDataModule, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(**{**quiet, "max_epochs": 2, "enable_checkpointing": False, **options})
    trainer.fit(network, data)
    return trainer


@pytest.fixture(scope="module")
def trained(files: Path) -> tuple[DeepSets, RootDataModule, pl.Trainer]:
    torch.manual_seed(1)
    data = make_data(files)
    network = DeepSets(data.shapes, heads=HEADS, lr=0.01)
    return network, data, fit(network, data, max_epochs=12)


Arrays = dict[str, npt.NDArray[Any]]


def predicted(trainer: pl.Trainer, network: pl.LightningModule, data: RootDataModule) -> Arrays:
    batches = trainer.predict(network, data)
    assert batches is not None
    return {name: torch.cat([b[name] for b in batches]).numpy() for name in batches[0]}  # type: ignore[index, call-overload]


def test_predictions_are_physical_and_beside_what_they_belong_to(trained: Any) -> None:
    network, data, trainer = trained
    got = predicted(trainer, network, data)
    assert got.keys() == {"score", "predictions", "targets", "label", "weight", "index", "observers/event"}
    made = {int(e): (m, j) for k in range(2) for e, m, j in _columns(k)}
    truth = np.array([(met + 1, 2 * met + jets) for met, jets in (made[e] for e in got["observers/event"].tolist())])
    assert got["targets"] == pytest.approx(truth, rel=1e-5)
    assert got["predictions"].shape == truth.shape
    # it has learnt something: far better than the mean
    residual = got["predictions"] - truth
    assert np.abs(residual).mean(0)[0] < 0.5 * np.abs(truth - truth.mean(0)).mean(0)[0]
    assert ((got["score"] >= 0) & (got["score"] <= 1)).all()


def _columns(k: int) -> list[tuple[int, float, float]]:
    made = make_events(400, seed=k)
    jets = [float(np.sum(pt.to_numpy().astype(np.float64))) for pt in made["Jet"]["pt"]]
    return list(zip(made["event"].tolist(), made["met"].astype(np.float64).tolist(), jets, strict=True))


def test_figures_are_those_of_the_residuals(trained: Any) -> None:
    network, data, _ = trained
    trainer = fit(network, data, limit_train_batches=1, max_epochs=1)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    network.eval()
    with torch.no_grad():
        parts = [(network.predict_step(batch, 0)) for batch in data.val_dataloader()]
    found = {name: torch.cat([p[name] for p in parts]).double().numpy() for name in parts[0]}
    weight = found["weight"] / found["weight"].sum()
    for column, name in enumerate(("size", "mass")):
        residual = found["predictions"][:, column] - found["targets"][:, column]
        bias, second = (weight * residual).sum(), (weight * residual**2).sum()
        assert logged[f"val/{name}/rmse"] == pytest.approx(math.sqrt(second), rel=1e-4)
        assert logged[f"val/{name}/mae"] == pytest.approx((weight * abs(residual)).sum(), rel=1e-4)
        assert logged[f"val/{name}/bias"] == pytest.approx(bias, rel=1e-3, abs=1e-3)
        assert logged[f"val/{name}/resolution"] == pytest.approx(math.sqrt(second - bias**2), rel=1e-3)
    assert {"val/loss", "val/auc", "train/loss"} <= logged.keys() == network.logged.keys()


def test_the_loss_is_the_weighted_sum_of_those_of_the_heads(files: Path) -> None:
    data = make_data(files)
    network = DeepSets(data.shapes, heads=HEADS)
    network.bind(data)
    batch = next(iter(data.train_dataloader()))
    outputs = network(batch).detach()
    assert outputs.shape == (64, network.width) == (64, 3)
    size, mass = batch["targets"][:, 1], batch["targets"][:, 0]
    losses = functional.huber_loss(outputs[:, :2], torch.stack([size, mass], 1), reduction="none").mean(1)
    regression = (losses * batch["weight"]).mean() / 1.7
    classes = weighted_loss(outputs[:, 2], batch["label"], weight=batch["weight"], mean_weight=1.7)
    assert float(network.loss(outputs, batch, mean_weight=1.7)) == pytest.approx(
        float((0.5 * regression + 2 * classes).detach()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("layout", "loss"),
    [
        ("tokens", "huber"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in [("vector", "huber"), ("tokens", "mse"), ("vector", "mae")]
        ),
    ],
)
def test_graph_and_network_give_the_same(files: Path, tmp_path: Path, layout: str, loss: str) -> None:
    changes = {"targets": {"mass": TARGETS["mass"]}} if loss == "mae" else {}
    names = ["mass"] if loss == "mae" else ["size", "mass"]
    data = make_data(files, layout=layout, **changes)
    heads = {"r": {"kind": "regression", "target": names, "loss": loss}} | (
        {} if loss == "mse" else {"c": {"kind": "classification"}}
    )
    network = (DeepSets if layout == "tokens" else DNN)(data.shapes, heads=heads)
    trainer = fit(network, data, max_epochs=1, limit_train_batches=2)
    manifest = export(network, data, tmp_path / "bundle")
    outputs = {o.name: (o.kind, o.columns, o.units) for o in open_bundle(tmp_path / "bundle").outputs}
    units = ("", "GeV") if len(names) == 2 else ("GeV",)
    scores = {} if loss == "mse" else {"scores": ("scores", ("signal",), ())}
    assert outputs == {**scores, "regression": ("regression", tuple(names), units)}
    assert manifest.columns == (*([] if loss == "mse" else ["signal"]), *names)
    assert manifest.parity is not None
    assert manifest.parity.max_difference < 1e-5
    table = real_events(data.data, data.specs, 50)
    found = run((tmp_path / "bundle" / MODEL).read_bytes(), Assembler(manifest)(table))
    expected = predicted(trainer, network, data)
    columns = [*([] if loss == "mse" else [expected["score"][:, None]]), expected["predictions"]]
    assert found == pytest.approx(np.concatenate(columns, axis=1)[: len(found)], rel=1e-5, abs=1e-5)


def test_a_checkpoint_knows_the_scaling(trained: Any, tmp_path: Path) -> None:
    network, data, trainer = trained
    trainer.strategy.connect(network)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = DeepSets.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    batch = next(iter(data.val_dataloader()))
    network.eval(), again.eval()
    for name, values in again.predict_step(batch, 0).items():
        assert torch.equal(values, network.predict_step(batch, 0)[name]), name


def test_without_heads_nothing_is_new() -> None:
    torch.manual_seed(2)
    network = DNN({"x": (3,), "mask": (3,)})
    assert network.width == 1
    assert [name for name in network.state_dict() if not name.startswith("network.")] == []
    assert network.logged == {"train/loss": "train", "val/loss": "val", "val/auc": "val"}
    assert network({"x": torch.zeros(5, 3)}).shape == (5,)
    torch.manual_seed(2)
    alone = DNN({"x": (3,), "mask": (3,)}, heads={"c": {"kind": "classification"}})
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alone.parameters(), strict=True))


def test_three_classes_beside_a_regression_split_where_they_lie() -> None:
    heads = {"c": {"kind": "classification"}, "m": {"kind": "regression", "loss": "mse"}}
    network = DNN({"x": (3,)}, classes=3, heads=heads)
    outputs = torch.arange(8.0).reshape(2, 4)
    logits, scaled = network.split(outputs)
    assert torch.equal(logits, outputs[:, :3])  # type: ignore[arg-type]
    assert torch.equal(scaled, outputs[:, 3:])  # type: ignore[arg-type]
    assert network.deployed(outputs)["scores"].sum(1) == pytest.approx([1, 1])


@pytest.mark.parametrize("kind", [MLP, EncodedSets])
def test_networks_that_encode_their_inputs_have_heads_too(files: Path, kind: type[Classifier]) -> None:
    data = make_data(files, layout="vector" if kind is MLP else "tokens", quantiles=True)
    network = kind(data.shapes, heads=HEADS, hidden=[8])  # type: ignore[call-arg, arg-type]
    trainer = fit(network, data, max_epochs=1)
    assert "val/mass/rmse" in trainer.callback_metrics
    assert predicted(trainer, network, data)["predictions"].shape[1] == 2


def test_residuals_add_up_over_ranks() -> None:
    rng = torch.Generator().manual_seed(1)
    found, truth = torch.randn((2, 90, 2), generator=rng).double()
    weight = torch.rand(90, generator=rng)
    whole, first, second = ResidualSums(2), ResidualSums(2), ResidualSums(2)
    whole.update(found, truth, weight)
    for part, rows in ((first, slice(0, 30)), (second, slice(30, 90))):
        part.update(found[rows], truth[rows], weight[rows])
    first.sums += second.sums
    for name, values in whole.compute().items():
        assert torch.allclose(values, first.compute()[name])


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        ({"mass": {"kind": "regression"}}, r"model\.heads\.mass has no loss; allowed: 'huber', 'mse', 'mae'"),
        ({"mass": {"kind": "regression", "loss": "hubber"}}, r"got 'hubber'; allowed.*nearest: 'huber'"),
        ({"mass": {"kind": "regression", "loss": "mse", "weight": 0}}, "got 0, with which the head has no loss"),
        ({"mass": {"kind": "regression", "loss": "mse", "weight": -1}}, "got -1"),
        ({"mass": {"kind": "regresion", "loss": "mse"}}, "nearest: 'regression'"),
        ({"mass": {"loss": "mse"}}, r"model\.heads\.mass\.kind"),
        ({"mass": {"kind": "regression", "los": "mse"}}, "unknown option 'los'"),
        ({}, "empty mapping"),
        ({"a": {"kind": "classification"}, "b": {"kind": "classification"}}, "one label"),
        ({"a": {"kind": "classification", "loss": "mse"}}, "cross entropy"),
        (
            {"a": {"kind": "regression", "loss": "mse", "target": "m"}, "m": {"kind": "regression", "loss": "mse"}},
            "two heads",
        ),
        ("mass", "expected a mapping"),
    ],
)
def test_wrong_heads_are_refused_at_once(heads: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_heads(heads)


REGRESSING = {"mass": {"kind": "regression", "loss": "mse"}}


@pytest.mark.parametrize(
    ("heads", "targets", "sentence"),
    [
        (REGRESSING, None, "predicts target 'mass'; the data have none"),
        (REGRESSING, {"mas": "met"}, "predicts target 'mass'; nearest: 'mas'"),
        (REGRESSING, {"mass": "met", "pt": "count(Jet_pt)"}, "targets: 'pt' is used by no head"),
        (None, {"mass": "met"}, "targets: 'mass' is used by no head"),
        (REGRESSING, {"mass": "met * 0"}, "targets.mass: .* is constant"),
    ],
)
def test_heads_and_targets_that_do_not_fit_are_refused_before_the_first_batch(
    files: Path, monkeypatch: pytest.MonkeyPatch, heads: Any, targets: Any, sentence: str
) -> None:
    data = make_data(files, targets=targets)
    network = DeepSets({"flat": (1,), "jets": (4, 2), "jets_mask": (4,)}, heads=heads)
    monkeypatch.setattr(DeepSets, "training_step", lambda *_: pytest.fail("a batch was trained on"))
    with pytest.raises(RootDataError, match=sentence):
        fit(network, data)


def test_a_target_that_is_called_as_a_class_is_no_bundle(files: Path, tmp_path: Path) -> None:
    data = make_data(files, targets={"signal": "met"})
    heads = {"signal": {"kind": "regression", "loss": "mse"}, "c": {"kind": "classification"}}
    with pytest.raises(BundleError, match="'signal' is the name of a class"):
        export(DeepSets(data.shapes, heads=heads), data, tmp_path / "bundle")


def test_regressions_need_neither_labels_nor_classes(files: Path) -> None:
    data = make_data(files, label=None, targets={"mass": "met"})
    network = DeepSets(data.shapes, heads=REGRESSING)
    trainer = fit(network, data, max_epochs=1)
    assert {"val/loss", "val/rmse", "val/mae", "val/bias", "val/resolution"} <= trainer.callback_metrics.keys()
    assert "val/auc" not in trainer.callback_metrics
    assert isinstance(network, Classifier)


def test_a_resumed_training_ends_as_an_unbroken_one(files: Path, tmp_path: Path) -> None:
    def trained(folder: Path, epochs: int, ckpt_path: Path | None = None) -> tuple[dict[str, Any], pl.Trainer]:
        torch.manual_seed(5)
        data = make_data(files, observe_training=True)
        network = DeepSets(data.shapes, heads=HEADS, dropout=0.0)
        options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, **options)
        trainer.fit(network, data, ckpt_path=ckpt_path)
        trainer.save_checkpoint(folder / "end.ckpt")
        return network.state_dict(), trainer

    unbroken, _ = trained(tmp_path / "a", 3)
    trained(tmp_path / "b", 2)
    resumed, _ = trained(tmp_path / "c", 3, tmp_path / "b" / "end.ckpt")
    for name, values in unbroken.items():
        same = torch.equal(values, resumed[name]) if isinstance(values, torch.Tensor) else values == resumed[name]
        assert same, name


IN_RANKS = """
import json, os, sys
import pytorch_lightning as pl
import torch
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.deepsets import DeepSets
from rootdata.training.callbacks import ScoreReport

options, heads, folder, world = json.loads(sys.argv[1])
torch.manual_seed(4)
data = RootDataModule(**options)
network = DeepSets(data.shapes, heads=heads, dropout=0.0)
report = ScoreReport(folder, plots=False)
trainer = pl.Trainer(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", max_epochs=1,
                     logger=False, enable_progress_bar=False, enable_checkpointing=False, callbacks=[report])
trainer.fit(network, data)
figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
trainer.test(network, data, verbose=False)
if trainer.is_global_zero:
    open(os.path.join(folder, "figures.json"), "w").write(json.dumps([figures, report.metrics]))
"""


@pytest.mark.long
def test_two_ranks_train_and_report_as_one(files: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(IN_RANKS)
    options = {
        "samples": {"a": {"files": str(files / "*.root")}}, "label": "is_signal", "weight": "weight", "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 4}}, "layout": "tokens", "batch_size": 64,
        "chunk_size": 128, "targets": TARGETS, "observers": ["event"],
    }  # fmt: skip
    found = []
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        asked = json.dumps([options, HEADS, str(folder), world])
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(tmp_path / "script.py"), asked], env=environment, capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(json.loads((folder / "figures.json").read_text()))
    (alone, tested), (together, also_tested) = found
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    for name in ("mass/rmse", "size/mae", "mass/bias", "auc"):
        assert also_tested[name] == pytest.approx(tested[name], rel=1e-3, abs=1e-3), name
