"""Any honest graph is served, and gives what onnxruntime gives, by every road that fits it."""

from __future__ import annotations

import json
from pathlib import Path

import bodies
import kinds
import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from kinds import KINDS
from tritonclient.utils import np_to_triton_dtype

from rootdata import columnar
from rootdata.table import Table
from serve.client import Client
from serve.codec import media
from serve.errors import InvalidModel
from serve.models.repository import Repository
from serve.upload import child

CASES = Path(__file__).parents[4] / "shared" / "cases" / "models"
FEATURES = ["a", "b", "c", "d"]
SHARED = {
    "acos": {"x": kinds.VALUES.clip(-1, 1)},
    "domain_ai_onnx": {"x": kinds.VALUES},
    "fixed_batch1": {"x": kinds.VALUES[:1]},
    "gnn_edge_index": {"x": kinds.VALUES, "edge_index": np.array([[0, 1, 2, 0], [1, 2, 0, 2]])},
    "in_bool": {"x": kinds.numbers("bool")},
    "in_float16": {"x": kinds.numbers("float16")},
    "in_int32": {"x": kinds.numbers("int32")},
    "lgb_clf": {"x": kinds.VALUES},
    "loop_data": {"x": kinds.VALUES, "n": np.array([[1], [2], [1]])},
    "multi_out": {"x": kinds.VALUES},
    "quant_dynamic": {"x": kinds.VALUES},
    "rank5_conv3d": {"x": kinds.RNG.normal(size=(3, 1, 6, 6, 6)).astype(np.float32)},
    "skl_lr_strlabels": {"X": kinds.VALUES},
}


@pytest.fixture(scope="module")
def client(site):
    with triton.InferenceServerClient(site.address) as client:
        yield client


@pytest.fixture
def publish(site, tmp_path):
    """Check graphs as an upload does, in this process, which takes less time than one for each."""

    def publish(name, graph, **told):
        folder = kinds.written(graph, tmp_path / name)
        found = child.check(str(folder), **{"features": None, "columns": None, "batching": None, **told})
        Repository(site.folder).publish(folder, name)
        return found

    return publish


def uploaded(site, name, graph, **query):
    return site.client.post(f"/models/{name}/versions", content=graph.SerializeToString(), params=query)


def asked(client, name, feeds, *, binary):
    inputs = []
    for key, values in feeds.items():
        made = triton.InferInput(key, list(values.shape), np_to_triton_dtype(values.dtype))
        made.set_data_from_numpy(values, binary_data=binary or values.dtype == np.float16)
        inputs.append(made)
    names = [output["name"] for output in client.get_model_metadata(name)["outputs"]]
    wanted = [triton.InferRequestedOutput(output, binary_data=binary) for output in names]
    return names, client.infer(name, inputs, outputs=wanted)


def compare(client, name, graph, feeds):
    expected = kinds.expected(graph, feeds)
    for binary in (True, False):
        names, result = asked(client, name, feeds, binary=binary)
        assert set(names) == set(expected)
        for output, values in expected.items():
            got = result.as_numpy(output)
            assert got.shape == values.shape
            if values.dtype == object:
                assert [t.decode() if isinstance(t, bytes) else t for t in got.ravel()] == values.ravel().tolist()
            else:
                assert got.dtype == values.dtype
                np.testing.assert_allclose(got, values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_give_what_onnxruntime_gives(site, client, publish, kind):
    made, name = KINDS[kind], f"tensors-{kind.replace(' ', '-')}"
    assert publish(name, made.graph)["batching"] == made.batching
    compare(client, name, made.graph, made.feeds)
    card = site.client.get(f"/models/{name}/versions/1").json()["manifest"]
    assert tuple(card["outputs"][0]["columns"]) == made.columns


def test_no_events_have_the_shape_that_onnxruntime_gives(site, client, publish):
    shape = ["N", "tracks", 3]
    graph = kinds.graph_of([kinds.node("Abs", ["x"], ["y"])], {"x": (1, shape)}, {"y": (1, shape)})
    assert publish("tracks", graph)["batching"] == "events"
    compare(client, "tracks", graph, {"x": np.empty((0, 5, 3), np.float32)})


def takes_rows(made):
    return list(made.feeds) == ["x"] and made.feeds["x"].ndim == 2 and made.feeds["x"].dtype != object


@pytest.mark.parametrize("kind", [kind for kind, made in KINDS.items() if takes_rows(made)])
def test_events_give_what_onnxruntime_gives(site, publish, kind, tmp_path, write_tree):
    made, name = KINDS[kind], f"events-{kind.replace(' ', '-')}"
    values = made.feeds["x"]
    features = FEATURES[: values.shape[1]]
    publish(name, made.graph, features=features)
    expected = np.concatenate([of_event(made.graph, row) for row in values])
    with Client(site.handle.url, timeout=20) as client:  # binary columns
        columns = {feature: values[:, i].astype(np.float32 if values.dtype == np.float16 else values.dtype)
                   for i, feature in enumerate(features)}  # fmt: skip
        scores = client.predict(name, columns)
    assert tuple(scores.columns) == made.columns
    np.testing.assert_allclose(scores.scores, expected, rtol=2e-6, atol=1e-6)
    rows = [dict(zip(features, row, strict=True)) for row in values.tolist()]
    answer = site.client.post(f"/models/{name}/predict", json={"events": rows}).json()
    np.testing.assert_allclose(
        np.transpose([answer["scores"][c] for c in made.columns]), expected, rtol=2e-6, atol=1e-6
    )
    none = site.client.post(f"/models/{name}/predict", json={"events": []}).json()
    assert (none["num_events"], none["scores"]) == (0, {c: [] for c in made.columns})
    root = write_tree(tmp_path / "events.root", columns)
    for body, content_type in ((bodies.arrow(columns), media.ARROW), (root.read_bytes(), media.ROOT)):
        answer = site.client.post(f"/models/{name}/predict", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 200, answer.text
        found = np.transpose([answer.json()["scores"][c] for c in made.columns])
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6, err_msg=content_type)
    single = {"keys": features, "values": values[0].tolist(), "model": name}
    np.testing.assert_allclose(site.client.post("/json", json=single).json(), expected[0], rtol=2e-6, atol=1e-6)


def of_event(graph, row):
    """Return the scores of an event alone; a graph that takes three gets it three times."""
    rows = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    found = kinds.expected(graph, {"x": np.repeat(row[None], rows, axis=0)})
    scores = found.get("probabilities", next(iter(found.values())))
    return scores[:1].reshape(1, -1).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_events_for_a_graph_of_tensors_are_refused_alike_by_every_road(site, publish, kind, tmp_path, write_tree):
    made, name = KINDS[kind], f"refusing-{kind.replace(' ', '-')}"
    publish(name, made.graph)
    columns = {"a": np.ones(2, np.float32)}
    sent = {
        media.JSON: json.dumps({"events": [{"a": 1.0}, {"a": 1.0}]}).encode(),
        media.COLUMNS: columnar.encode(Table(num_events=2, columns=columns)),
        media.ARROW: bodies.arrow(columns),
        media.ROOT: write_tree(tmp_path / "events.root", columns).read_bytes(),
    }
    told = set()
    for content_type, body in sent.items():
        answer = site.client.post(f"/models/{name}/predict", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 422, answer.text
        told.add(answer.json()["error"]["message"])
    (sentence,) = told
    assert f"/v2/models/{name}/infer" in sentence
    assert ("?feature=" in sentence) == takes_features(made)


def takes_features(made):
    """Say whether the remedy that the refusal names, to publish the graph with names of features, is one."""
    values = list(made.feeds.values())
    return len(values) == 1 and values[0].ndim == 2 and values[0].dtype != object


@pytest.mark.parametrize("kind", KINDS)
def test_the_remedy_of_the_refusal_is_true(publish, kind):
    made = KINDS[kind]
    features = FEATURES[: next(iter(made.feeds.values())).shape[-1:][0]] if takes_features(made) else FEATURES[:1]
    if takes_features(made):
        publish(f"remedy-{kind.replace(' ', '-')}", made.graph, features=features)
    else:
        with pytest.raises(InvalidModel, match="features"):
            publish(f"remedy-{kind.replace(' ', '-')}", made.graph, features=features)


@pytest.mark.parametrize("name", SHARED)
def test_graphs_that_were_seen_elsewhere(client, publish, name):
    if not CASES.is_dir():
        pytest.skip(f"needs the graphs in {CASES}")
    graph = onnx.load_model(CASES / f"{name}.onnx")
    publish(name, graph)
    compare(client, name, graph, SHARED[name])


def test_requests_to_a_graph_that_mixes_events_do_not_meet(site, publish):
    made = KINDS["quantised"]
    publish("alone", made.graph)
    pieces = [{"x": made.feeds["x"][i : i + 1] * 10.0**i} for i in range(3)]
    inputs = []
    for piece in pieces:
        entry = triton.InferInput("x", [1, 4], "FP32")
        entry.set_data_from_numpy(piece["x"])
        inputs.append(entry)
    with triton.InferenceServerClient(site.address, concurrency=8) as several:
        waiting = [several.async_infer("alone", [entry]) for entry in inputs * 10]
        answers = [one.get_result().as_numpy("y") for one in waiting]
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer, kinds.expected(made.graph, pieces[i % 3])["y"], rtol=1e-6)


def test_batching_can_be_set_by_the_upload(site):
    graph = kinds.linear()
    assert uploaded(site, "asked", graph, batching="none").json()["check"]["batching"] == "none"
    assert site.client.get("/models/asked/versions/1").json()["manifest"]["batching"] == "none"
    refused = uploaded(site, "asked", KINDS["quantised"].graph, batching="events")
    assert refused.status_code == 422
    assert "DynamicQuantizeLinear" in refused.json()["error"]["message"]
    wrong = uploaded(site, "asked", graph, batching="all")
    assert wrong.status_code == 422
    assert "allowed: events, none" in wrong.json()["error"]["message"]
