"""Classifiers of scikit-learn, XGBoost and LightGBM, exported by default options, give what ``predict_proba`` gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bodies
import kinds
import numpy as np
import onnx
import pytest
import tritonclient.http as triton

from serve.client import Client
from serve.codec import tfaas
from serve.models.repository import Repository
from serve.upload import child

DATA = Path(__file__).parents[2] / "data"
EXPECTED = json.loads((DATA / "classifiers" / "expected.json").read_text())
FEATURES = ["a", "b", "c", "d"]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("case", EXPECTED)
def test_probabilities_come_out_by_every_road(site, tmp_path, write_tree, case):
    graph = onnx.load_model(DATA / "classifiers" / f"{case}.onnx")
    publish(site, tmp_path, case, graph)
    check_roads(site, tmp_path, write_tree, case, graph, EXPECTED[case])


@pytest.mark.parametrize("case", ["logistic_2", "forest_3", "xgboost_3", "lightgbm_3_words"])
@pytest.mark.parametrize("told", [{}, {"feature": FEATURES}])
def test_a_graph_is_uploaded_as_it_is(site, case, told):
    body = (DATA / "classifiers" / f"{case}.onnx").read_bytes()
    name = f"uploaded-{case}-{len(told)}"
    answer = site.client.post(f"/models/{name}/versions", content=body, params=told)
    assert answer.status_code == 201, answer.text
    np.testing.assert_allclose(by_triton(site, name, "json", EXPECTED[case]), EXPECTED[case]["probabilities"], **CLOSE)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # what other packages say while they train
def test_fresh_exports(site, tmp_path, write_tree, monkeypatch):
    for package in ("skl2onnx", "onnxmltools", "xgboost", "lightgbm"):
        pytest.importorskip(package, reason=f"NO FRESH EXPORTS: needs {package}; only those in tests/data were tried")
    monkeypatch.syspath_prepend(DATA)
    import make_classifiers

    for case, graph, expected in make_classifiers.made():
        publish(site, tmp_path, f"fresh-{case}", graph)
        check_roads(site, tmp_path, write_tree, f"fresh-{case}", graph, expected)
    del sys.modules["make_classifiers"]


def publish(site, scratch, name, graph):
    """Check a graph as an upload does, in this process, and publish it."""
    folder = kinds.written(graph, scratch / name)
    child.check(str(folder), features=FEATURES, columns=None, batching=None)
    Repository(site.folder).publish(folder, name)


def check_roads(site, scratch, write_tree, name, graph, expected):
    manifest = site.client.get(f"/models/{name}/versions/1").json()["manifest"]
    output, classes = manifest["outputs"][0], expected["classes"]
    wanted = classes if isinstance(classes[0], str) else [f"{output['name']}_{number}" for number in classes]
    assert output["columns"] == wanted
    events = np.array(expected["events"], np.float32)
    for road, found in roads(site, scratch, write_tree, name, events, wanted, expected):
        np.testing.assert_allclose(found, expected["probabilities"], **CLOSE, err_msg=f"{name}: {road}")


def roads(site, scratch, write_tree, name, events, classes, expected):
    rows = [dict(zip(FEATURES, map(float, event), strict=True)) for event in events]
    columns = {feature: events[:, i] for i, feature in enumerate(FEATURES)}
    path = f"/models/{name}/predict"

    def scores(answer):
        assert answer.status_code == 200, answer.text
        return np.transpose([answer.json()["scores"][label] for label in classes])

    yield "json events", scores(site.client.post(path, json={"events": rows}))
    yield "json columns", scores(site.client.post(path, json={"columns": {k: v.tolist() for k, v in columns.items()}}))
    arrow = {"Content-Type": "application/vnd.apache.arrow.stream"}
    yield "arrow", scores(site.client.post(path, content=bodies.arrow(columns), headers=arrow))
    root = write_tree(scratch / f"{name}.root", columns)
    yield (
        "root",
        scores(site.client.post(path, content=root.read_bytes(), headers={"Content-Type": "application/x-root"})),
    )
    with Client(site.handle.url, timeout=20) as client:
        yield "client columns", client.predict(name, columns).scores
        yield "client file", client.predict(name, root).scores
    for kind in ("json", "binary"):
        yield f"triton {kind}", by_triton(site, name, kind, expected)
    singles = [{"keys": FEATURES, "values": [float(value) for value in event], "model": name} for event in events]
    yield "tfaas json", [site.client.post("/json", json=single).json() for single in singles]
    yield "tfaas proto", [by_proto(site, single) for single in singles]


def by_triton(site, name, kind, expected):
    events = np.array(expected["events"], np.float32)
    with triton.InferenceServerClient(site.address) as client:
        described = client.get_model_metadata(name)
        values = triton.InferInput(described["inputs"][0]["name"], list(events.shape), "FP32")
        values.set_data_from_numpy(events, binary_data=kind == "binary")
        wanted = described["outputs"][0]["name"]
        asked = triton.InferRequestedOutput(wanted, binary_data=kind == "binary")
        return client.infer(name, [values], outputs=[asked]).as_numpy(wanted)


def by_proto(site, single):
    message, predictions = (kind() for kind in tfaas._messages())
    message.key.extend(single["keys"])
    message.value.extend(single["values"])
    message.model = single["model"]
    headers = {"Content-Type": "application/octet-stream"}
    predictions.ParseFromString(
        site.client.post("/proto", content=message.SerializeToString(), headers=headers).content
    )
    return [found.probability for found in predictions.prediction]
