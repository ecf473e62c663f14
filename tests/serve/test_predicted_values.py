"""A network of several heads is served: scores and physical values by every road, under their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
import uproot
from servers import Handle

from rootdata.bundle.assemble import Assembler, lists_of
from rootdata.bundle.export import export
from rootdata.bundle.manifest import MODEL, open_bundle
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.autoencoder import Autoencoder
from rootdata.models.dnn import DNN
from rootdata.table import Table
from serve.client import Client
from serve.models.session import Model

NUM_EVENTS = 60
HEADS = {
    "class": {"kind": "classification"},
    "energies": {"kind": "regression", "target": ["mass", "size"], "loss": "huber"},
}  # fmt: skip
COLUMNS = ("signal", "mass", "size")
Made = tuple[Path, Path, npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_tree: Any) -> Made:
    """Export a network; give its bundle, a file of events, and what torch says of them in the order of the file."""
    folder = tmp_path_factory.mktemp("values")
    rng = np.random.default_rng(1)
    columns = {
        "met": rng.exponential(40, NUM_EVENTS).astype("f4"), "ht": rng.normal(300, 80, NUM_EVENTS),
        "label": np.arange(NUM_EVENTS, dtype="i4") % 2, "row": np.arange(NUM_EVENTS, dtype="i4"),
    }  # fmt: skip
    file = write_tree(folder / "events.root", columns)
    data = RootDataModule(
        {"all": str(file)}, flat=["met", "ht"], label="label", observers=["row"], observe_training=True,
        targets={"mass": {"value": "met + ht", "unit": "GeV"}, "size": {"value": "met * met", "scale": "log"}},
    )  # fmt: skip
    torch.manual_seed(2)
    network = DNN(data.shapes, heads=HEADS).eval()
    export(network, data, folder / "bundle")
    found = torch.full((NUM_EVENTS, len(COLUMNS)), torch.nan)
    with torch.no_grad():
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            for batch in loader:
                said = network.predict_step(batch, 0)
                found[said["observers/row"]] = torch.cat([said["score"].unsqueeze(1), said["predictions"]], dim=1)
    assert torch.isfinite(found).all()
    return folder / "bundle", file, found.numpy()


def table_of_file(file: Path) -> Table:
    with uproot.open(file) as opened:
        columns = {name: opened["Events"][name].array(library="np") for name in ("met", "ht")}
    return Table(num_events=NUM_EVENTS, columns=columns)


def test_a_worker_answers_with_all_columns(made: Made) -> None:
    bundle, file, expected = made
    manifest = open_bundle(bundle)
    model = Model("m", 1, manifest, bundle / MODEL)
    answer, *others = model.run_events(Assembler(manifest)(table_of_file(file)))
    np.testing.assert_allclose(answer, expected, rtol=1e-6, atol=1e-6)
    assert model.heading.columns == COLUMNS
    assert model.heading.regressions == ("mass", "size")
    assert [values.shape for values in others] == [(NUM_EVENTS, 2)]
    assert model.run_events(
        Assembler(manifest)(Table(num_events=0, columns={"met": expected[:0, 0], "ht": expected[:0, 0]}))
    )[0].shape == (0, 3)


@pytest.mark.long
def test_every_road_gives_the_values_of_torch_by_name(
    made: Made, start_server: Callable[..., Handle], tmp_path: Path
) -> None:
    bundle, file, expected = made
    server = start_server(["-m", "serve", str(tmp_path / "models"), "--port", "0", "--publish", f"m={bundle}"])
    table, address = table_of_file(file), f"{server.url}/models/m/predict"
    lists = lists_of(table)
    rows = [{name: values[i] for name, values in lists.items()} for i in range(NUM_EVENTS)]
    found: dict[str, Any] = {}
    with httpx.Client(timeout=60) as http:
        for name, body in (("rows", {"events": rows}), ("columns", {"columns": lists})):
            found[name] = http.post(address, json=body).json()["scores"]
        answer = http.post(
            address, json={"events": rows}, headers={"Accept": "application/vnd.apache.arrow.stream"}
        ).content
        found["arrow"] = pa.ipc.open_stream(answer).read_all().to_pydict()
        tensors = Assembler(open_bundle(bundle))(table)
        types = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
        inputs = [
            {"name": n, "datatype": types[v.dtype.name], "shape": list(v.shape), "data": v.ravel().tolist()}
            for n, v in tensors.items()
        ]
        outputs = http.post(f"{server.url}/v2/models/m/infer", json={"inputs": inputs}).json()["outputs"]
        values = {o["name"]: np.reshape(o["data"], o["shape"]) for o in outputs}
        found["v2"] = dict(
            zip(COLUMNS, np.concatenate([values["scores"], values["regression"]], axis=1).T, strict=True)
        )
    with Client(server.url) as client:
        scores = client.predict("m", rows)
        assert scores.columns == COLUMNS
        found["client"] = {name: scores[name] for name in COLUMNS}
        client.predict_file("m", file, tmp_path / "out.root")
    with uproot.open(tmp_path / "out.root") as opened:
        tree = opened["scores"]
        assert tree.keys() == ["score_signal", "predicted_mass", "predicted_size"]
        found["root"] = {
            name: tree[branch].array(library="np") for name, branch in zip(COLUMNS, tree.keys(), strict=True)
        }
    for road, columns in found.items():
        assert list(columns) == list(COLUMNS), road
        for name, values in zip(COLUMNS, expected.T, strict=True):
            np.testing.assert_allclose(
                np.asarray(columns[name], np.float32), values, rtol=1e-6, atol=1e-6, err_msg=road
            )


@pytest.mark.long
@pytest.mark.parametrize("layout", ["vector", "tokens"])
def test_an_anomaly_score_is_served_like_any_number(
    layout: str, start_server: Callable[..., Handle], tmp_path: Path, write_tree: Any
) -> None:
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 5, NUM_EVENTS)
    columns = {
        "met": np.where(rng.uniform(size=NUM_EVENTS) < 0.2, -1, rng.exponential(40, NUM_EVENTS)).astype("f4"),
        "Jet_pt": ak.unflatten(rng.exponential(50, counts.sum()).astype("f4"), counts),
    }
    data = RootDataModule(
        {"all": str(write_tree(tmp_path / "events.root", columns))}, flat=["met"], missing={"met": [-1]},
        jagged={"jets": {"branches": ["Jet_pt"], "length": 3}}, layout=layout, split={"train": 1.0},
    )  # fmt: skip
    torch.manual_seed(3)
    network = Autoencoder(data.shapes, hidden=[8], latent=2)
    export(network, data, tmp_path / "bundle")
    expected = np.empty(NUM_EVENTS)
    for batch in data.predict_dataloader():
        expected[batch["index"][:, 2]] = network.predict_step(batch, 0)["predictions"][:, 0].detach()
    assert expected.std() > 0.01
    server = start_server(["-m", "serve", str(tmp_path / "m"), "--port", "0", "--publish", f"m={tmp_path / 'bundle'}"])
    lists = {name: column.tolist() for name, column in columns.items()}
    rows = [{name: values[i] for name, values in lists.items()} for i in range(NUM_EVENTS)]
    with Client(server.url) as client:
        scores = client.predict("m", rows)
        client.predict_file("m", tmp_path / "events.root", tmp_path / "out.root")
    assert scores.columns == ("loss",)
    np.testing.assert_allclose(scores["loss"], expected, rtol=1e-6, atol=1e-6)
    with uproot.open(tmp_path / "out.root") as opened:
        found = opened["scores"]["predicted_loss"].array(library="np")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_manifest_of_scores_alone_says_nothing_of_kinds(made: Made) -> None:
    plain = json.loads((made[0] / "manifest.json").read_text())
    assert plain["outputs"][1]["kind"] == "regression"
    assert plain["outputs"][1]["units"] == ["GeV", ""]
    assert "kind" not in plain["outputs"][0]
