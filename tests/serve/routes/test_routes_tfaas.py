"""The paths of TFaaS, asked as its curl examples and clients ask them."""

from __future__ import annotations

import base64
import binascii
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_routes_image import image_bundle, picture

from lanes_for_tests import thinned
from serve.codec import tfaas
from serve.models.repository import Repository
from serve.routes import forms

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


# As TFaaS's own Python client sends it: files of just bytes in base64, one line each, and a header that says so.

OLD = {"Content-Encoding": "base64"}
BOUNDARY = "127.0.0.1.0.1.2.3"


def old_form(files, **texts):
    """Write a form; ``files`` maps fields to name, type and content."""
    parts = [f'form-data; name="{name}"\r\n\r\n{text}'.encode() for name, text in texts.items()]
    for field, (name, kind, content) in files.items():
        written = binascii.b2a_base64(content) if kind == "application/octet-stream" else content
        head = f'form-data; name="{field}"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
        parts.append(head.encode() + written)
    line = f"--{BOUNDARY}".encode()
    body = b"".join(line + b"\r\nContent-Disposition: " + part + b"\r\n" for part in parts) + line + b"--\r\n"
    return {"content": body, "headers": {**OLD, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}}


def old_upload(site, name, *, labels=b"higgs\n", params=None, **texts):
    files = {
        "model": ("m.onnx", "application/octet-stream", (site.bundles["flat"] / "model.onnx").read_bytes()),
        "labels": ("labels.txt", "text/plain", labels),
        "params": ("params.json", "application/json", json.dumps({"name": name, **(params or {})}).encode()),
    }
    sent = old_form({field: file for field, file in files.items() if file[2]}, name=name, **texts)
    return site.client.post("/upload", **sent)


def ask(site, name, keys=("HT", "MET_pt")):
    sent = {"keys": list(keys), "values": [400.0, 30.0][: len(keys)], "model": name}
    return site.client.post("/json", content=json.dumps(sent), headers={"Content-Type": "text/plain"})


def test_the_old_client_uploads_in_base64(site):
    answer = old_upload(site, "old")
    assert answer.status_code == 201, answer.text
    got = site.client.get("/models/old/versions/1/model.onnx").content
    assert got == (site.bundles["flat"] / "model.onnx").read_bytes()
    assert site.client.get("/params/old").json()["labels"] == "higgs"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("named1", {"labels": b"HT\nMET_pt\n"}),
        ("named2", {"labels": b"HT,MET_pt"}),
        ("named3", {"params": {"features": ["HT", "MET_pt"]}}),
        ("named4", {"params": {"features": "HT, MET_pt", "labels": "labels.txt"}, "labels": b""}),
        ("named5", {"params": {"labels": ["HT", "MET_pt"]}, "labels": b""}),
    ],
)
def test_features_have_the_names_of_labels_or_parameters(site, name, sent):
    """A graph alone takes tensors; who names its features may ask by keys."""
    answer = old_upload(site, name, **sent)
    assert answer.status_code == 201, answer.text
    expected = ask(site, "flat").json()
    assert ask(site, name).json() == pytest.approx(expected, abs=1e-6)
    assert ask(site, name, keys=("HT", "MET")).status_code == 422


def test_labels_that_fit_nothing_are_refused(site):
    wrong = ({"labels": b"a\nb\nc"}, {"params": {"features": ["HT"]}}, {"params": {"features": 7, "labels": "a,b,c"}})
    for sent in wrong:
        answer = old_upload(site, "formed3", **{"labels": b"", **sent})
        assert answer.status_code == 422, answer.text
    assert not (site.folder / "formed3").exists()


@pytest.mark.parametrize("body", [b"====", b"AAA", b"A" * 7, b"AAA=AAAA", b"\xff\xff\xff\xff", b"AA-_"])
def test_what_is_no_base64_is_refused(site, body):
    sent = old_form({"model": ("m.onnx", "application/octet-stream", b"")}, name="formed4")
    mark = b"\r\n\r\n\n"  # before the content, an empty line
    whole = sent["content"].replace(mark, mark[:-1] + body)
    assert whole != sent["content"]
    answer = site.client.post("/upload", content=whole, headers=sent["headers"])
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "body"), answer.text


@given(data=st.binary(max_size=300), size=st.integers(1, 50), every=st.integers(1, 80))
def test_base64_comes_back_in_any_pieces(data, size, every):
    text = base64.b64encode(data)
    lines = b"\r\n".join(text[i : i + every] for i in range(0, len(text), every))
    pieces = [lines[i : i + size] for i in range(0, len(lines), size)]
    assert b"".join(forms.from_base64(pieces)) == data


def test_the_old_client_sends_images(site, tmp_path):
    Repository(site.folder).publish(image_bundle(tmp_path / "b"), "old-colours")
    for kind in ("image/png", "application/octet-stream"):
        sent = old_form({"image": ("a.png", kind, picture())}, model="old-colours")
        answer = site.client.post("/image", **sent)
        assert answer.status_code == 200, answer.text
        assert answer.json() == pytest.approx([1, 0.2, 0], abs=1e-6)


def packed(site, names, *, folder="", form="w:gz"):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=form) as tar:
        for name in names:
            tar.add(site.bundles["flat"] / name, arcname=f"{folder}{name}")
    return target.getvalue()


@pytest.mark.parametrize("folder", thinned(["boxed/", "./boxed/"]))
@pytest.mark.parametrize("names", thinned([["model.onnx", "manifest.json"], ["model.onnx"]]))
@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {}])
def test_a_bundle_without_parameters_is_called_like_its_folder(site, names, folder, headers):
    kind = {"Content-Type": "application/octet-stream"}
    answer = site.client.post("/upload", content=packed(site, names, folder=folder), headers={**headers, **kind})
    assert (answer.status_code, answer.json().get("name")) == (201, "boxed"), answer.text


def test_a_bundle_that_nothing_names_takes_the_name_of_the_query(site):
    body = packed(site, ["model.onnx", "manifest.json"])
    refused = site.client.post("/upload", content=body)
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "params.json")
    assert "/upload?name=" in refused.json()["error"]["message"]
    assert site.client.post("/upload?name=unnamed", content=body).json()["name"] == "unnamed"
    text = base64.b64encode(body)
    assert site.client.post("/upload?name=unnamed", content=text, headers=OLD).json()["version"] == 2
    assert site.client.post("/upload?name=../x", content=body).status_code == 400


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
        lambda site, pack: site.client.post("/upload", content=pack(), headers={"Content-Encoding": "br"}),
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
