"""The repository over HTTP: uploads good and evil, search, downloads, aliases, tags, trash, and a switch under load."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import threading
import time
import zipfile

import onnx
import pytest
from onnx import TensorProto, helper
from servers import poll

from rootdata.bundle.manifest import sha256_of
from serve.models.repository import Repository

EVENTS = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}


@pytest.fixture(scope="module")
def numbers():
    return itertools.count()


@pytest.fixture
def name(site, numbers):
    """A model of the test's own, with two versions."""
    name = f"own{next(numbers)}"
    Repository(site.folder).publish(site.bundles["flat"], name)
    Repository(site.folder).publish(site.bundles["other"], name)
    return name


def zipped(folder, **others):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
        for file, content in others.items():
            archive.writestr(file, content)
    return target.getvalue()


@pytest.mark.long
@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_uploaded_bundle_is_served(site, archive, numbers, method, kind):
    name = f"up{next(numbers)}"
    body = archive("flat") if kind == "tar.gz" else zipped(site.bundles["flat"])
    answer = site.client.request(method, f"/models/{name}/versions?tag=new&tag=good", content=iter([body]))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/models/{name}/versions/1"
    assert (answer.json()["name"], answer.json()["version"]) == (name, 1)
    assert answer.json()["check"]["parity"] < 1e-5
    expected = site.client.post("/models/flat/predict", json=EVENTS).json()["scores"]
    assert site.client.post(f"/models/{name}/predict", json=EVENTS).json()["scores"] == expected
    card = site.client.get(f"/models/{name}").json()
    assert (card["versions"], card["tags"], card["author"]) == ([1], ["good", "new"], "Marie")
    again = site.client.request(method, f"/models/{name}/versions", content=body)
    assert again.json()["version"] == 2


def test_a_bare_graph_takes_events_where_its_features_are_named(site):
    graph = (site.bundles["flat"] / "model.onnx").read_bytes()
    query = "feature=HT&feature=MET_pt&column=higgs"
    answer = site.client.put(f"/models/bare/versions?{query}", content=graph)
    assert answer.status_code == 201, answer.text
    scores = site.client.post("/models/bare/predict", json=EVENTS).json()["scores"]
    assert scores == {"higgs": site.client.post("/models/flat/predict", json=EVENTS).json()["scores"]["signal"]}
    assert site.client.put("/models/bare/versions", content=graph).json()["version"] == 2
    answer = site.client.post("/models/bare/predict", json=EVENTS)
    assert (answer.status_code, "/v2/models/bare/infer" in answer.text) == (422, True)


def tarred(*members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def member(name, kind=tarfile.REGTYPE, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def external_graph():
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value="../../../../etc/passwd")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("y", TensorProto.FLOAT, ["n", 1])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


def foreign_graph():
    model = onnx.load_model_from_string(external_graph())
    model.graph.node[0].domain = "evil"
    del model.graph.initializer[:]
    return model.SerializeToString()


EVIL = {
    "empty": lambda flat: b"",
    "garbage": lambda flat: b"\x00\x01\x02" * 1000,
    "broken gzip": lambda flat: b"\x1f\x8b" + b"x" * 1000,
    "cut zip": lambda flat: zipped(flat)[:-30],
    "no graph": lambda flat: tarred((member("manifest.json"), (flat / "manifest.json").read_bytes())),
    "path upwards": lambda flat: tarred((member("../../model.onnx"), b"x")),
    "absolute path": lambda flat: tarred((member("/tmp/model.onnx"), b"x")),
    "link": lambda flat: tarred((member("model.onnx", tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "hard link": lambda flat: tarred((member("model.onnx", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "device": lambda flat: tarred((member("model.onnx", tarfile.CHRTYPE), b"")),
    "stranger": lambda flat: zipped(flat, **{"run.py": b"import os"}),
    "pickle": lambda flat: b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "bomb": lambda flat: tarred((member("model.onnx"), bytes(30_000_000))),
    "other graph": lambda flat: zipped(flat).replace((flat / "model.onnx").read_bytes()[:40], bytes(40)),
    "external data": lambda flat: external_graph(),
    "foreign operator": lambda flat: foreign_graph(),
    "broken manifest": lambda flat: tarred(
        (member("model.onnx"), (flat / "model.onnx").read_bytes()), (member("manifest.json"), b"{")
    ),
    "manifest of another schema": lambda flat: tarred(
        (member("model.onnx"), (flat / "model.onnx").read_bytes()), (member("manifest.json"), b'{"schema": 99}')
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", EVIL)
def test_evil_uploads_are_refused_and_leave_nothing(site, kind):
    answer = site.client.put("/models/evil/versions", content=EVIL[kind](site.bundles["flat"]))
    assert answer.status_code in (413, 422), answer.text
    assert len(answer.json()["error"]["message"]) > 10
    assert str(site.folder) not in answer.text
    assert not (site.folder / "evil").exists()
    assert list((site.folder / ".staging").iterdir()) == []
    assert site.client.get("/models/evil").status_code == 404


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_upload_that_is_too_large_is_refused(site, is_chunked):
    body = b"x" * 400_001
    answer = site.client.put("/models/evil/versions", content=iter([body[:200_000], body]) if is_chunked else body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert list((site.folder / ".staging").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".staging", "a b", "-x", "x.", "%00", "\u00e9", "x" * 101, "con fig", "a%2fb"])
def test_models_have_plain_names(site, archive, name):
    answer = site.client.put(f"/models/{name}/versions", content=archive())
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


def test_search_finds_by_what_is_known(site, name):
    def found(**query):
        answer = site.client.get("/models", params=query)
        assert answer.status_code == 200, answer.text
        return {model["name"] for model in answer.json()}

    assert found() >= {"flat", "jets", name}
    assert found(feature="Jet_pt") == {"jets"}
    assert name in found(tag="fast", author="lise")
    assert "flat" not in found(tag="fast")
    assert "flat" in found(min_auc="0.85", max_auc="0.95", text="TEST")
    assert found(min_auc="0.95") == set()


@pytest.mark.parametrize("query", ["tagg=x", "min_auc=much", "min_auc=nan", "max_=1", "min_auc=", "%00=1"])
def test_searches_that_make_no_sense_are_refused(site, query):
    answer = site.client.get(f"/models?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["field"]


def test_versions_can_be_looked_at_and_downloaded(site, name, tmp_path):
    about = site.client.get(f"/models/{name}/versions/2").json()
    assert (about["name"], about["version"], about["manifest"]["author"]) == (name, 2, "Lise")
    graph = site.client.get(f"/models/{name}/versions/2/model.onnx")
    assert graph.headers["content-type"] == "application/octet-stream"
    (tmp_path / "model.onnx").write_bytes(graph.content)
    assert sha256_of(tmp_path / "model.onnx") == about["manifest"]["sha256"] == graph.headers["x-model-sha256"]
    manifest = site.client.get(f"/models/{name}/versions/2/manifest.json")
    assert manifest.content == (site.bundles["other"] / "manifest.json").read_bytes()
    head = site.client.head(f"/models/{name}/versions/2/model.onnx")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(graph.content)), b"")
    assert site.client.get(f"/models/{name}/versions/9/model.onnx").status_code == 404
    assert site.client.get(f"/models/{name}/versions/2/preprocess.json").status_code == 404
    assert site.client.get(f"/models/{name}/config.json").status_code == 404


def test_aliases_move(site, name):
    predict = f"/models/{name}/aliases/production/predict"
    assert site.client.post(predict, json=EVENTS).status_code == 404
    for version in (1, 2, 1):
        answer = site.client.put(f"/models/{name}/aliases/production", json={"version": version})
        assert answer.json()["aliases"] == {"production": version}
        assert site.client.post(predict, json=EVENTS).json()["version"] == version
    assert site.client.delete(f"/models/{name}/versions/1").status_code == 409
    assert site.client.delete(f"/models/{name}/aliases/production").status_code == 204
    assert site.client.delete(f"/models/{name}/aliases/production").status_code == 404


@pytest.mark.parametrize(
    ("alias", "body", "status"),
    [
        ("production", b'{"version": 9}', 404),
        ("production", b'{"version": "1"}', 400),
        ("production", b'{"version": true}', 400),
        ("production", b'{"version": -1}', 400),
        ("production", b'{"version": 1.5}', 400),
        ("production", b'{"version": 1, "more": 2}', None),
        ("production", b"{}", None),
        ("production", b"[]", 400),
        ("production", b"", None),
        ("production", b" " * 70_000, 413),
        ("latest", b'{"version": 1}', 400),
        ("3", b'{"version": 1}', 400),
        ("a%20b", b'{"version": 1}', 400),
    ],
)
def test_bad_aliases_are_refused(site, alias, body, status):
    answer = site.client.put(f"/models/flat/aliases/{alias}", content=body)
    assert 400 <= answer.status_code < 500
    assert status in (None, answer.status_code), answer.text
    assert answer.json()["error"]["message"]


def test_tags_come_and_go(site, name):
    assert site.client.put(f"/models/{name}/tags/run3").json()["tags"] == ["fast", "run3"]
    assert site.client.delete(f"/models/{name}/tags/run3").status_code == 204
    assert site.client.delete(f"/models/{name}/tags/run3").status_code == 404
    assert site.client.delete(f"/models/{name}/tags/fast").status_code == 409  # the manifest has it
    assert site.client.put(f"/models/{name}/tags/a%20b").status_code == 400


def test_what_is_deleted_can_be_restored_and_numbers_are_not_used_again(site, name, archive):
    predict = f"/models/{name}/predict"
    assert site.client.delete(f"/models/{name}/versions/2").status_code == 204
    assert site.client.post(predict, json=EVENTS).json()["version"] == 1
    assert site.client.put(f"/models/{name}/versions", content=archive()).json()["version"] == 3
    assert site.client.post(f"/models/{name}/versions/2/restore").json()["versions"] == [1, 2, 3]
    assert site.client.delete(f"/models/{name}").status_code == 204
    assert site.client.post(predict, json=EVENTS).status_code == 404
    assert site.client.post(f"/models/{name}/restore").json()["versions"] == [1, 2, 3]
    assert site.client.post(predict, json=EVENTS).json()["version"] == 3
    assert site.client.post(f"/models/{name}/restore").status_code == 404
    assert site.client.delete("/models/none").status_code == 404
    assert site.client.delete(f"/models/{name}/versions/9").status_code == 404


def test_a_model_that_somebody_broke_says_so_and_hides_nothing(site, name):
    (site.folder / name / "3").mkdir()
    (site.folder / name / "3" / "model.onnx").write_bytes(b"x")
    (site.folder / name / "3" / "manifest.json").write_bytes(b"{")
    answer = site.client.get(f"/models/{name}/versions/3")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_model")
    assert site.client.get(f"/models/{name}").json()["latest"] == 2
    assert site.client.post(f"/models/{name}/predict", json=EVENTS).json()["version"] == 2
    assert name in {m["name"] for m in site.client.get("/models").json()}


def test_publishing_under_load_fails_no_request(site, name, archive):
    answers, is_over = [], threading.Event()

    def ask():
        while not is_over.is_set():
            sent = time.monotonic()
            answer = site.client.post(f"/models/{name}/predict", json=EVENTS)
            answers.append((sent, answer.status_code, json.loads(answer.content).get("version")))

    def versions():
        return {version for _, _, version in list(answers)}

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        poll(lambda: 2 in versions())
        assert site.client.put(f"/models/{name}/versions", content=archive()).json()["version"] == 3
        published = time.monotonic()
        poll(lambda: sum(sent > published for sent, _, _ in list(answers)) > 100, seconds=30)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert {status for _, status, _ in answers} == {200}
    assert versions() == {2, 3}
    # Those that were under way may still have the version before, and be overtaken by any number of others.
    assert {version for sent, _, version in answers if sent > published} == {3}


def test_a_list_may_be_cut_into_pages(site):
    repository = Repository(site.folder)
    for name in ("page1", "page2", "page3"):
        repository.publish(site.bundles["other"], name)
    whole = site.client.get("/models?tag=fast").json()
    path, found = "/models?tag=fast&limit=2", []
    while path:
        answer = site.client.get(path)
        assert answer.headers["x-total-count"] == str(len(whole))
        assert 1 <= len(answer.json()) <= 2
        found += answer.json()
        path = f"/models{answer.links['next']['url']}" if "next" in answer.links else ""
    assert found == whole
    assert len(whole) >= 3
    assert site.client.get("/models?offset=9999").json() == []
    assert site.client.get("/models?tag=fast&offset=1").json() == whole[1:]


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=1.5", "offset=-1", "offset=\xb2", "limit="])
def test_a_page_that_can_not_be_meant_is_refused(site, query):
    answer = site.client.get(f"/models?{query}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, query.partition("=")[0])


def test_the_trash_is_emptied(site):
    repository = Repository(site.folder)
    for name in ("trash1", "trash2"):
        repository.publish(site.bundles["flat"], name)
        repository.delete(name)
    assert site.client.delete("/trash?days=1").json() == {"removed": 0}
    assert site.client.delete("/trash?max_bytes=100000000").json() == {"removed": 0}
    size = sum(p.stat().st_size for p in (site.bundles["flat"]).iterdir())
    assert site.client.delete(f"/trash?max_bytes={size + 100}").json()["removed"] >= 1  # all but the last
    assert site.client.post("/models/trash2/restore").status_code == 200
    assert site.client.post("/models/trash1/restore").status_code == 404
    site.client.delete("/models/trash2")
    assert site.client.delete("/trash").json()["removed"] >= 1
    assert list((site.folder / ".trash").iterdir()) == []


@pytest.mark.parametrize("query", ["days=-1", "days=x", "days=nan", "max_bytes=-5", "max_bytes=inf", "day=1"])
def test_what_is_to_be_emptied_must_be_meant(site, query):
    answer = site.client.delete(f"/trash?{query}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, query.partition("=")[0])
