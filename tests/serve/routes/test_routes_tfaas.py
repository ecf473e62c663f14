"""The paths of TFaaS, asked as its curl examples and clients ask them."""

from __future__ import annotations

import json

import pytest

from serve.codec import tfaas
from serve.repository import Repository

KEYS = ["HT", "MET_pt", "Jet_pt[0]", "Jet_pt[1]", "Jet_eta[0]", "Jet_eta[1]"]
VALUES = [400.0, 30.0, 50.0, 40.5, 0.5, -1.0]
NAMED = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n'  # the start of a form
EVENT = {"HT": 400.0, "MET_pt": 30.0, "Jet_pt": [50.0, 40.5], "Jet_eta": [0.5, -1.0]}


@pytest.fixture(scope="module")
def expected(site):
    return site.client.post("/models/jets/predict", json={"events": [EVENT]}).json()["scores"]["signal"]


def row(keys=KEYS, values=VALUES, model="jets"):
    return tfaas.Row(key=keys, value=values, model=model).SerializeToString()


@pytest.mark.parametrize("path", ["/json", "/predict/json"])
def test_json_gives_probabilities(site, expected, path):
    content = json.dumps({"keys": KEYS, "values": VALUES, "model": "jets"})
    answer = site.client.post(path, content=content, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("path", ["/proto", "/predict/proto"])
def test_proto_gives_predictions(site, expected, path):
    answer = site.client.post(path, content=row())
    assert answer.headers["content-type"] == "application/x-protobuf"
    found = tfaas.Predictions.FromString(answer.content).prediction
    assert [p.probability for p in found] == pytest.approx(expected, abs=1e-6)
    assert [p.label for p in found] == ["signal"]


def event(**changes):
    made = {"keys": KEYS, "values": VALUES, "model": "jets", **changes}
    return json.dumps({k: v for k, v in made.items() if v is not ...}).encode()


BAD = {
    "empty": (b"", None),
    "no JSON": (b"{", None),
    "no keys": (event(keys=...), None),
    "no model": (event(model=...), "model"),
    "no name": (event(model=""), "model"),
    "model is a number": (event(model=1), "model"),
    "unknown model": (event(model="none"), None),
    "model is a path": (event(model="../jets"), "model"),
    "unequal lengths": (event(values=[1.0]), "values"),
    "keys is a word": (event(keys="HT"), "keys"),
    "key is a number": (event(keys=[1], values=[1.0]), "keys"),
    "twice": (event(keys=[*KEYS, "HT"], values=[*VALUES, 1.0]), "HT"),
    "unknown key": (event(keys=[*KEYS, "HTT"], values=[*VALUES, 1.0]), "HTT"),
    "absent key": (event(keys=KEYS[1:], values=VALUES[1:]), "HT"),
    "string": (event(values=["many", *VALUES[1:]]), "HT"),
    "far object": (event(keys=[*KEYS, "Jet_pt[999999999]"], values=[*VALUES, 1.0]), None),
    "negative object": (event(keys=[*KEYS, "Jet_pt[-1]"], values=[*VALUES, 1.0]), None),
    "too large": (b" " * 1_000_001, None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_json_is_told_what_is_wrong(site, name):
    body, field = BAD[name]
    answer = site.client.post("/json", content=body)
    assert 400 <= answer.status_code < 500, answer.text
    error = answer.json()["error"]
    assert field in (None, error.get("field")), error


@pytest.mark.parametrize(
    "body", [b"", b"\xff" * 20, row(model=""), row(model="none"), row(values=[1.0]), row(keys=KEYS[1:]), row()[:-3]]
)
def test_bad_proto_is_told_what_is_wrong(site, body):
    answer = site.client.post("/proto", content=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]


def test_models_and_parameters(site):
    listed = {m["name"]: m for m in site.client.get("/models").json()}
    assert listed["flat"]["description"] == "a test"
    assert site.client.get("/params/flat").json() == {
        "name": "flat", "model": "model.onnx", "labels": "signal", "options": None, "inputNode": "flat",
        "outputNode": "scores", "description": "a test", "timestamp": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    assert site.client.get("/params/none").status_code == 404
    assert site.client.get("/params").status_code == 404
    found = site.client.get("/status").json()
    assert found["ready"] is True
    assert found["models"] >= 2


def form(site, name, **others):
    graph = (site.bundles["flat"] / "model.onnx").read_bytes()
    files = {
        "model": ("m.onnx", graph),
        "params": ("p", json.dumps({"name": name}).encode()),
        "labels": ("l", b"higgs\n"),
    }
    made = {k: v for k, v in {**files, **others}.items() if v is not ...}
    return site.client.post("/upload", data={"name": name}, files=made)


def test_a_form_publishes_a_graph(site):
    answer = form(site, "formed")
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/models/formed/versions/1"
    assert site.client.get("/params/formed").json()["labels"] == "higgs"


def test_a_form_may_hold_a_boundary_like_graph(site):
    """Bytes that look like the end of a field, but for the boundary, stay in the file."""
    answer = form(site, "odd", labels=("l", b"a\r\n--b\r\n\r\n--"))
    assert answer.json()["error"]["field"] == "columns"  # read whole, and more names than columns


def test_an_archive_publishes_the_model_that_its_parameters_name(site, archive):
    body = archive("flat", params_json=b'{"name": "packed"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
    answer = site.client.post("/upload", content=body, headers=headers)
    assert (answer.status_code, answer.json()["name"]) == (201, "packed"), answer.text
    assert site.client.get("/models/packed").json()["latest"] == 1


@pytest.mark.parametrize(
    "send",
    [
        lambda site, pack: form(site, "formed2", model=...),
        lambda site, pack: form(site, "../formed2"),
        lambda site, pack: form(site, "formed2", params=("p", b'{"name": "another"}')),
        lambda site, pack: form(site, "formed2", params=("p", b"{")),
        lambda site, pack: form(site, "formed2", model=("m", b"no graph")),
        lambda site, pack: form(site, "formed2", model=("m", b"")),
        lambda site, pack: form(site, "formed2", virus=("v", b"")),
        lambda site, pack: form(site, "formed2", labels=("l", b"a,b,c")),
        lambda site, pack: site.client.post("/upload", data={"name": "formed2"}),
        lambda site, pack: site.client.post("/upload", content=pack()),
        lambda site, pack: site.client.post("/upload", content=pack("flat", params_json=b'{"name": "../x"}')),
        lambda site, pack: site.client.post("/upload", content=b""),
        lambda site, pack: site.client.post("/upload", content=pack(), headers={"Content-Encoding": "base64"}),
        *(
            lambda site, pack, body=body, kind=kind: site.client.post(
                "/upload", content=body, headers={"Content-Type": f"multipart/form-data{kind}"}
            )
            for body, kind in [
                (b"", "; boundary=x"),
                (b"--x", "; boundary=x"),
                (b"--x\r\n", "; boundary=x"),
                (b"--x--", "; boundary=x"),
                (b"--x\r\n\r\n\r\n--x--", "; boundary=x"),
                (NAMED + b"mm", "; boundary=x"),
                ((NAMED + b"\r\n") * 40, "; boundary=x"),
                (NAMED + b"a" * 2000 + b"\r\n--x--", "; boundary=x"),
                (b"--y--", "; boundary=x"),
                (b"--x--", ""),
                (b"--x--", "; boundary="),
                (b"--x--", "; boundary=" + "x" * 100),
            ]
        ),
    ],
)  # fmt: skip
def test_bad_uploads_are_refused_and_leave_nothing(site, archive, send):
    answer = send(site, archive)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]
    assert not (site.folder / "formed2").exists()
    assert list((site.folder / ".staging").iterdir()) == []


def test_delete_knows_what_is_there(site):
    for name, path in (("doomed", "/delete/doomed"), ("doomed2", "/delete?model=doomed2")):
        Repository(site.folder).publish(site.bundles["flat"], name)
        assert site.client.delete(path).status_code == 204
        assert site.client.get(f"/models/{name}").status_code == 404
        assert site.client.delete(path).status_code == 404
    Repository(site.folder).publish(site.bundles["flat"], "doomed3")
    form = {"files": {"model": (None, "doomed3")}}  # as TFaaS's Python client does it
    assert site.client.request("DELETE", "/delete", **form).status_code == 204
    assert site.client.request("DELETE", "/delete", **form).status_code == 404
    assert site.client.delete("/delete").status_code == 400
    assert site.client.delete("/delete?model=../flat").status_code == 400
