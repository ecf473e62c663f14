"""The same events by every road: torch, onnxruntime, and each format that the server takes, give the same scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import httpx
import numpy as np
import pyarrow as pa
import pytest
import torch
import tritonclient.http as triton
import uproot
from servers import Handle

from rootdata.bundle.assemble import Assembler, lists_of
from rootdata.bundle.export import export
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.manifest import Manifest, open_bundle
from rootdata.jagged import Jagged
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.cnn import CNN
from rootdata.models.deepsets import DeepSets
from rootdata.models.dnn import DNN
from rootdata.models.transformer import Transformer
from rootdata.table import Table
from serve.client import Client
from serve.codec import binary, tfaas

pytestmark = pytest.mark.long

NUM_EVENTS = 1000
CLOSE = 1e-6
LAYOUTS = {"vector": DNN, "tokens": DeepSets, "image": CNN, "jagged": Transformer}


IMAGE = {
    "x": {"column": "Jet_eta", "bins": 8}, "y": {"column": "Jet_pt", "bins": 4, "range": [20, 120]},
    "channels": ["count", "sum(Jet_pt)", "sum(Jet_pt * Jet_eta)", "mean(Jet_btag)", "max(Jet_btag)"],
}  # fmt: skip


def collisions(seed: int) -> dict[str, Any]:
    """Make events of a few jets, some with none and some with more than are kept, some values missing."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, NUM_EVENTS)
    total = int(counts.sum())
    met = rng.exponential(40, NUM_EVENTS).astype("f4")
    met[::17] = np.nan
    btag = rng.uniform(size=total).astype("f4")
    btag[::11] = -999
    jets = {"Jet_pt": rng.exponential(50, total).astype("f4") + 20, "Jet_eta": rng.normal(size=total), "Jet_btag": btag}
    return {
        "MET_pt": met,
        "event": 2**30 + 128 * rng.integers(0, 1000, NUM_EVENTS),  # a float32, which TFaaS sends, holds it
        "nPV": rng.integers(1, 60, NUM_EVENTS).astype("i4"),
        **{name: ak.unflatten(values, counts) for name, values in jets.items()},
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, write_tree: Any) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("events")
    return {name: write_tree(folder / f"{name}.root", collisions(seed)) for seed, name in enumerate(("learn", "score"))}


def data_of(files: dict[str, Path], layout: str) -> RootDataModule:
    return RootDataModule(
        {"all": {"files": [str(path) for path in files.values()], "label": 1}},
        flat=["MET_pt", "event", "nPV", "lead"],
        derived={"lead": "max(Jet_pt, fill=0.0)"},
        jagged={
            "jets": {"branches": ["Jet_pt", "Jet_eta", "Jet_btag"], "length": 6, "sort": "-Jet_pt", "image": IMAGE}
        },
        scale={"Jet_pt": "log", "MET_pt": "robust"},
        missing={"Jet_btag": [-999], "nPV": [7, 30], "event": [2**30 + 128 * 5], "MET_pt": [-999]},
        layout=layout,
        split={"train": ["*learn*"], "val": [], "test": ["*score*"]},
    )


@pytest.fixture(
    scope="module",
    params=["tokens", "jagged", *(pytest.param(layout, marks=pytest.mark.matrix) for layout in ("vector", "image"))],
)
def road(
    request: pytest.FixtureRequest, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray, str]:
    """Export a network; give its bundle, its scores of the events in the order of the file, and the layout."""
    data = data_of(files, request.param)
    torch.manual_seed(3)
    network = LAYOUTS[request.param](data.shapes).eval()
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export(network, data, folder)
    scores = np.full(NUM_EVENTS, np.nan, np.float32)
    with torch.no_grad():
        for batch in data.test_dataloader():
            scores[batch["index"][:, 2].numpy()] = network.scores(batch).numpy()
    assert np.isfinite(scores).all()
    assert scores.std() > 0.001
    return folder, scores, request.param


@pytest.fixture
def server(road: tuple[Path, np.ndarray, str], start_server: Callable[..., Handle], tmp_path: Path) -> Handle:
    return start_server(["-m", "serve", str(tmp_path / "models"), "--port", "0", "--publish", f"ttH={road[0]}"])


def table_of_file(path: Path, manifest: Manifest) -> Table:
    with uproot.open(path) as file:
        columns = {b.name: file["Events"][b.name].array() for b in manifest.branches}
    return Table(
        num_events=NUM_EVENTS,
        columns={n: Jagged.from_awkward(c) if c.ndim == 2 else np.asarray(c) for n, c in columns.items()},
    )


def events_of(table: Table) -> list[dict[str, Any]]:
    lists = lists_of(table)
    return [{name: values[i] for name, values in lists.items()} for i in range(table.num_events)]


def test_every_road_gives_the_scores_of_torch(
    road: tuple[Path, np.ndarray, str], files: dict[str, Path], server: Handle, tmp_path: Path
) -> None:
    folder, expected, _ = road
    manifest = open_bundle(folder)
    table = table_of_file(files["score"], manifest)
    found = dict(roads(folder, manifest, table, files["score"], server.url, tmp_path))
    assert len(found) == 14
    for name, scores in found.items():
        assert scores.shape == (NUM_EVENTS,), name
        np.testing.assert_allclose(scores, expected, rtol=0, atol=CLOSE, err_msg=name)


def roads(
    folder: Path, manifest: Manifest, table: Table, file: Path, url: str, scratch: Path
) -> Iterator[tuple[str, np.ndarray]]:
    tensors = Assembler(manifest)(table)
    yield "onnxruntime", run((folder / "model.onnx").read_bytes(), tensors)[:, 0]
    address, events = f"{url}/models/ttH/predict", events_of(table)
    with httpx.Client(timeout=60) as http:

        def post(body: bytes, kind: str, accept: str = "application/json") -> httpx.Response:
            answer = http.post(address, content=body, headers={"Content-Type": kind, "Accept": accept})
            assert answer.status_code == 200, answer.text
            return answer

        def signal(answer: httpx.Response) -> np.ndarray:
            return np.asarray(answer.json()["scores"]["signal"], np.float32)

        yield "json events", signal(post(json.dumps({"events": events}).encode(), "application/json"))
        yield "json columns", signal(post(columnar(manifest, table), "application/json"))
        columns = "application/vnd.rootdata.columns"
        yield "binary", signal(post(binary.encode(table), columns))
        answer = post(binary.encode(table), columns, accept="application/vnd.apache.arrow.stream").content
        yield "arrow answer", pa.ipc.open_stream(answer).read_all()["signal"].to_numpy()
        yield "arrow", signal(post(arrow_of(table), "application/vnd.apache.arrow.stream"))
        (scratch / "scores.root").write_bytes(
            post(file.read_bytes(), "application/x-root", "application/x-root").content
        )
        with uproot.open(scratch / "scores.root") as answer_file:
            yield "root", answer_file["scores"]["score_signal"].array(library="np")
        answers = [http.post(f"{url}/json", json=row(e, "ttH")) for e in events]
        assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers if a.status_code != 200]
        yield "tfaas json", np.array([answer.json()[0] for answer in answers])
        yield "tfaas proto", np.array([proto(http, url, e) for e in events])
    yield "triton json", by_triton(url, manifest, tensors, is_binary=False)
    yield "triton binary", by_triton(url, manifest, tensors, is_binary=True)
    with Client(url) as client:
        yield "client dicts", client.predict("ttH", events)["signal"]
        yield "client arrays", client.predict("ttH", {n: as_array(c) for n, c in table.columns.items()})["signal"]
        yield "client file", client.predict("ttH", file)["signal"]


def columnar(manifest: Manifest, table: Table) -> bytes:
    lists, counts, columns = lists_of(table), {}, {}
    for branch in manifest.branches:
        column = table.columns[branch.name]
        if isinstance(column, Jagged):
            counts[branch.counts] = column.counts.tolist()
            columns[branch.name] = [v for event in lists[branch.name] for v in event]
        else:
            columns[branch.name] = lists[branch.name]
    return json.dumps({"counts": counts, "columns": columns}).encode()


def as_array(column: Any) -> Any:
    return column.to_awkward() if isinstance(column, Jagged) else column


def arrow_of(table: Table) -> bytes:
    arrays = {n: ak.to_arrow(as_array(c), extensionarray=False) for n, c in table.columns.items()}
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def row(event: dict[str, Any], model: str) -> dict[str, Any]:
    """Write an event as TFaaS does: keys and values side by side."""
    keys, values = [], []
    for name, value in event.items():
        for key, number in (
            [(f"{name}[{i}]", v) for i, v in enumerate(value)] if isinstance(value, list) else [(name, value)]
        ):
            keys.append(key)
            values.append(number)
    return {"keys": keys, "values": values, "model": model}


def proto(http: httpx.Client, url: str, event: dict[str, Any]) -> float:
    """Send an event as TFaaS's protobuf message, in which every number is a float32."""
    message, predictions = (kind() for kind in tfaas._messages())
    plain = row(event, "ttH")
    message.key.extend(plain["keys"])
    message.value.extend(float("nan") if v is None else v for v in plain["values"])
    message.model = "ttH"
    answer = http.post(
        f"{url}/proto", content=message.SerializeToString(), headers={"Content-Type": "application/octet-stream"}
    )
    assert answer.status_code == 200, answer.text
    predictions.ParseFromString(answer.content)
    return predictions.prediction[0].probability


def by_triton(url: str, manifest: Manifest, tensors: Any, *, is_binary: bool) -> np.ndarray:
    types = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    inputs = []
    for spec in manifest.inputs:
        values = triton.InferInput(spec.name, list(tensors[spec.name].shape), types[spec.dtype])
        # JSON has no NaN: a missing value goes as the sentinel that the model knows
        sent = tensors[spec.name] if is_binary else np.nan_to_num(tensors[spec.name], nan=-999)
        values.set_data_from_numpy(sent, binary_data=is_binary)
        inputs.append(values)
    outputs = [triton.InferRequestedOutput("scores", binary_data=is_binary)]
    try:
        return client.infer("ttH", inputs, outputs=outputs).as_numpy("scores")[:, 0]
    finally:
        client.close()
