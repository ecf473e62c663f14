"""The Open Inference Protocol: NVIDIA's own client, and bad requests by hand."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from serve.models.repository import Repository

VALUES = np.array([[400, 30], [100, 20], [900, 0]], np.float32)
INFER = "/v2/models/flat/infer"


@pytest.fixture(scope="module")
def client(site):
    with triton.InferenceServerClient(site.address) as client:
        yield client


def tensor(values=VALUES, name="flat", *, binary=True):
    made = triton.InferInput(name, list(values.shape), "FP32")
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def test_tritonclient_asks_about_server_and_models(site, client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("flat")
    assert client.is_model_ready("flat", "1")
    assert not client.is_model_ready("flat", "9")
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    about = client.get_model_metadata("jets")
    assert about["name"] == "jets"
    assert "1" in about["versions"]
    assert about["inputs"][1] == {"name": "jets", "datatype": "FP32", "shape": [-1, 2, -1]}
    assert about["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 1]}]
    config = client.get_model_config("flat", "1")
    assert config["input"] == [{"name": "flat", "data_type": "TYPE_FP32", "dims": [-1, 2]}]
    listed = {(entry["name"], entry["version"]): entry["state"] for entry in client.get_model_repository_index()}
    assert listed["flat", "1"] == listed["jets", "1"] == "READY"
    assert site.client.get("/v2/repository/index").json() == client.get_model_repository_index()


def test_tritonclient_gets_the_scores_of_events(site, client):
    events = [{"HT": float(ht), "MET_pt": float(met)} for ht, met in VALUES]
    expected = site.client.post("/models/flat/predict", json={"events": events}).json()["scores"]["signal"]
    for binary in (True, False):
        for outputs in (None, [triton.InferRequestedOutput("scores", binary_data=not binary)]):
            result = client.infer("flat", [tensor(binary=binary)], outputs=outputs, request_id="7")
            assert result.as_numpy("scores").ravel().tolist() == pytest.approx(expected, abs=1e-6)
            assert result.get_response()["id"] == "7"
    assert client.infer("flat", [tensor(VALUES[:0])]).as_numpy("scores").shape == (0, 1)


@pytest.mark.parametrize("name", ["counted", "stats"])
def test_statistics_are_those_of_each_version(site, client, name):
    for _ in range(2):
        Repository(site.folder).publish(site.bundles["flat"], name)
    client.infer(name, [tensor()])
    client.infer(name, [tensor(VALUES[:1])])
    client.infer(name, [tensor(VALUES[:2])], model_version="1")
    with pytest.raises(InferenceServerException):
        client.infer(name, [tensor(VALUES.astype(np.float32)[:, :1])])
    first, second = client.get_inference_statistics(name)["model_stats"]
    assert (first["version"], first["inference_count"], first["execution_count"]) == ("1", 2, 1)
    assert (second["name"], second["version"], second["inference_count"]) == (name, "2", 4)
    took = second["inference_stats"]
    assert (took["success"]["count"], took["fail"]["count"], took["compute_infer"]["count"]) == (2, 1, 2)
    assert took["success"]["ns"] == pytest.approx(took["queue"]["ns"] + took["compute_infer"]["ns"], abs=2)
    assert took["compute_infer"]["ns"] > 0
    assert took["fail"]["ns"] > 0
    assert client.get_inference_statistics(name, "1")["model_stats"] == [first]
    everything = client.get_inference_statistics()["model_stats"]
    assert {("flat", "1"), (name, "1"), (name, "2")} <= {(s["name"], s["version"]) for s in everything}
    with pytest.raises(InferenceServerException, match="no version 9"):
        client.get_inference_statistics(name, "9")


def test_a_model_may_be_called_stats(site, client):
    Repository(site.folder).publish(site.bundles["flat"], "stats")
    about = client.get_model_metadata("stats")
    assert (about["name"], about["inputs"][0]["name"]) == ("stats", "flat")
    assert client.get_model_metadata("stats", "1")["name"] == "stats"
    assert client.is_model_ready("stats")
    assert client.get_model_config("stats")["name"] == "stats"
    assert client.infer("stats", [tensor()]).as_numpy("scores").shape == (3, 1)


@pytest.mark.parametrize("binary", [True, False])
def test_the_timeout_of_triton_is_a_deadline(client, binary):
    for given in (0, 20_000_000, 10**15):
        assert client.infer("flat", [tensor(binary=binary)], timeout=given).as_numpy("scores").shape == (3, 1)
    with pytest.raises(InferenceServerException, match="time given") as caught:
        client.infer("flat", [tensor(binary=binary)], timeout=1)
    assert caught.value.status() == "504"
    with pytest.raises(InferenceServerException, match="time given"):
        client.infer("flat", [tensor()], timeout=1, headers={"X-Timeout-Ms": "20000"})


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, [1]])
def test_a_timeout_that_is_no_number_is_refused(client, value):
    with pytest.raises(InferenceServerException, match="timeout: got") as caught:
        client.infer("flat", [tensor()], timeout=value)
    assert caught.value.status() == "400"


@pytest.mark.parametrize(
    ("wish", "words"),
    [({"priority": 2}, "priority: another order"), ({"sequence_id": 7, "sequence_start": True}, "sequence_id: state")],
)
def test_what_can_not_be_had_of_triton_is_refused(client, wish, words):
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer("flat", [tensor()], **wish)
    assert caught.value.status() == "400"
    assert client.infer("flat", [tensor()], priority=0).as_numpy("scores").shape == (3, 1)


def test_an_unloaded_model_is_refused_until_it_is_loaded_or_published(site, client):
    repository = Repository(site.folder)
    repository.publish(site.bundles["flat"], "unloading")
    client.unload_model("unloading")
    assert not client.is_model_ready("unloading")
    with pytest.raises(InferenceServerException, match="not loaded") as caught:
        client.infer("unloading", [tensor()])
    assert caught.value.status() == "404"
    answer = site.client.post("/models/unloading/predict", json={"events": []})
    assert answer.json()["error"]["code"] == "not_loaded"
    [entry] = [e for e in client.get_model_repository_index() if e["name"] == "unloading"]
    assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
    ready = site.client.post("/v2/repository/index", json={"ready": True}).json()
    assert "unloading" not in {e["name"] for e in ready}
    client.load_model("unloading")
    assert client.is_model_ready("unloading")
    client.unload_model("unloading")
    repository.publish(site.bundles["other"], "unloading")
    assert client.is_model_ready("unloading")
    assert not client.is_model_ready("unloading", "1")


def test_loading_takes_no_other_files(client):
    with pytest.raises(InferenceServerException, match="as they were published"):
        client.load_model("flat", config="{}")
    with pytest.raises(InferenceServerException, match="not found"):
        client.load_model("none")
    with pytest.raises(InferenceServerException, match="not found"):
        client.unload_model("none")


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        (np.zeros((2, 3), np.float32), "flat", "flat"),
        (np.zeros((2,), np.float32), "flat", "flat"),
        (VALUES, "flatt", "flatt"),
        (VALUES.astype(np.float64), "flat", "FP64"),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_is_told_what_is_wrong(client, values, name, words, binary):
    made = triton.InferInput(name, list(values.shape), {"f4": "FP32", "f8": "FP64"}[values.dtype.str[1:]])
    made.set_data_from_numpy(values, binary_data=binary)
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer("flat", [made])
    assert caught.value.status() in ("400", "422")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_may_compress(client, coding, binary):
    expected = client.infer("flat", [tensor()]).as_numpy("scores")
    options = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
    found = client.infer("flat", [tensor(binary=binary)], **options).as_numpy("scores")
    assert found.tolist() == expected.tolist()


def body(**changes):
    given = {"name": "flat", "shape": [1, 2], "datatype": "FP32", "data": [400, 30], **changes}
    return json.dumps({"inputs": [{k: v for k, v in given.items() if v is not ...}]}).encode()


BAD = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no inputs": b"{}",
    "inputs is a number": b'{"inputs": 1}',
    "no name": body(name=...),
    "no shape": body(shape=...),
    "negative shape": body(shape=[-1, 2]),
    "negative shapes whose product fits": body(shape=[-1, -2]),
    "shape of words": body(shape=["1", 2]),
    "huge shape": body(shape=[2**62, 2]),
    "overflowing shape": body(shape=[2**32, 2**32, 2]),
    "shape of another rank": body(shape=[2]),
    "too few values": body(data=[1]),
    "too many values": body(data=[1, 2, 3]),
    "no data": body(data=...),
    "strings": body(data=["a", "b"]),
    "ragged": body(data=[[1], [2, 3]]),
    "unknown type": body(datatype="FP31"),
    "bytes": body(datatype="BYTES"),
    "shared memory": body(parameters={"shared_memory_region": "x"}, data=...),
    "binary without bytes": body(parameters={"binary_data_size": 8}, data=...),
    "negative binary size": body(parameters={"binary_data_size": -8}, data=...),
    "twice": json.dumps({"inputs": json.loads(body())["inputs"] * 2}).encode(),
    "unknown output": json.dumps({**json.loads(body()), "outputs": [{"name": "x"}]}).encode(),
    "too many events": body(shape=[501, 2], data=[1] * 1002),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tensors_are_told_what_is_wrong(site, name):
    answer = site.client.post(INFER, content=BAD[name])
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "99999999999999999999", "5000", "3", ""])
def test_a_wrong_header_length_is_told(site, length):
    head = body(parameters={"binary_data_size": 8}, data=...)
    answer = site.client.post(
        INFER, content=head + struct.pack("<2f", 1, 2), headers={"Inference-Header-Content-Length": length}
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/flat/versions/9/infer", 404),
        ("POST", "/v2/models/flat/versions/x/infer", 400),
        ("POST", "/v2/models/%2e%2e/infer", 400),
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/config", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("GET", "/v2/models/flat/versions/9/ready", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2", 405),
    ],
)
def test_errors_are_sentences_as_the_protocol_has_them(site, method, path, status):
    answer = site.client.request(method, path, content=body() if method == "POST" else None)
    assert answer.status_code == status
    assert len(answer.json()["error"]) > 10


def test_too_large_bodies_are_refused(site):
    answer = site.client.post(INFER, content=b" " * 100_001)
    assert answer.status_code == 413
    assert "100000" in answer.json()["error"]
