"""Scores over HTTP: every format, every way to write them wrong, and no wrong request spoils another."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib

import httpx
import numpy as np
import pyarrow as pa
import pytest
import uproot
from servers import poll

from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table
from serve.codec import binary, media
from serve.formats.known import Formats

EVENT = {"HT": 400.0, "MET_pt": 30.0, "Jet_pt": [50.0, 40.5], "Jet_eta": [0.5, -1.0]}
EVENTS = [EVENT, {**EVENT, "Jet_pt": [], "Jet_eta": []}, {**EVENT, "HT": 5000.0}]
JETS = "/models/jets/predict"


def post(site, body, content_type=media.JSON, path=JETS, **headers):
    headers = {"Content-Type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return site.client.post(path, content=body, headers=headers)


def scores(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media.JSON
    assert (answer.headers["x-model"], answer.headers["x-model-version"]) == ("jets", "1")
    return answer.json()["scores"]["signal"]


def as_table():
    counts = np.array([len(e["Jet_pt"]) for e in EVENTS])
    flat = {n: np.array([e[n] for e in EVENTS], "f4") for n in ("HT", "MET_pt")}
    jets = {
        n: Jagged(offsets_of(counts), np.array([v for e in EVENTS for v in e[n]], "f4")) for n in ("Jet_pt", "Jet_eta")
    }
    return Table(num_events=len(EVENTS), columns={**flat, **jets})


def as_arrow():
    values = {n: [e[n] for e in EVENTS] for n in EVENT}
    types = {n: pa.list_(pa.float32()) if n.startswith("Jet") else pa.float32() for n in EVENT}
    batch = pa.record_batch({n: pa.array(v, types[n]) for n, v in values.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def as_columns():
    flat = {n: [e[n] for e in EVENTS] for n in ("HT", "MET_pt")}
    jets = {n: [v for e in EVENTS for v in e[n]] for n in ("Jet_pt", "Jet_eta")}
    return json.dumps({"counts": {"jets": [len(e["Jet_pt"]) for e in EVENTS]}, "columns": {**flat, **jets}})


@pytest.fixture(scope="module")
def root_file(write_tree, tmp_path_factory):
    import awkward as ak

    branches = {n: np.array([e[n] for e in EVENTS], "f4") for n in ("HT", "MET_pt")}
    jets = {n: ak.values_astype(ak.Array([e[n] for e in EVENTS]), "float32") for n in ("Jet_pt", "Jet_eta")}
    return write_tree(tmp_path_factory.mktemp("root") / "e.root", {**branches, **jets}).read_bytes()


@pytest.fixture(scope="module")
def expected(site):
    return scores(post(site, json.dumps({"events": EVENTS})))


def test_every_format_gives_the_same_scores(site, expected, root_file):
    assert len(set(expected)) == 3
    for body, content_type in [
        (as_columns(), media.JSON),
        (binary.encode(as_table()), media.COLUMNS),
        (as_arrow(), media.ARROW),
        (root_file, media.ROOT),
    ]:
        assert scores(post(site, body, content_type)) == pytest.approx(expected, abs=1e-6), content_type


@pytest.mark.parametrize("is_file", [False, True])
def test_every_answer_holds_the_same_scores(site, expected, root_file, is_file, tmp_path):
    body, given = (root_file, media.ROOT) if is_file else (as_columns(), media.JSON)
    answers = {kind: post(site, body, given, Accept=kind) for kind in Formats().gives}
    for kind, answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind), answer.text
        assert answer.headers["x-model-version"] == "1"
    with pa.ipc.open_stream(answers[media.ARROW].content) as stream:
        assert stream.read_all()["signal"].to_pylist() == pytest.approx(expected, abs=1e-6)
    content = answers[media.COLUMNS].content
    assert np.frombuffer(content[-16:], "<f4")[:3].tolist() == pytest.approx(expected, abs=1e-6)
    (tmp_path / "s.root").write_bytes(answers[media.ROOT].content)
    with uproot.open(tmp_path / "s.root") as file:
        assert file["scores"]["score_signal"].array().tolist() == pytest.approx(expected, abs=1e-6)
    assert site.left_files() == []


def test_explain_tells_what_is_unlike_training(site):
    answer = post(site, json.dumps({"events": EVENTS}), path=f"{JETS}?explain").json()["explain"]
    assert answer[2]["outside"]["HT"] == {"value": 5000.0, "low": 30.0, "high": 2000.0}
    assert answer[0]["outside"] == {}
    assert "explain" not in post(site, json.dumps({"events": EVENTS}), path=f"{JETS}?explain=false").json()


@pytest.mark.parametrize("path", ["/models/jets/versions/1/predict", "/models/jets/aliases/best/predict"])
def test_versions_and_aliases_lead_to_the_same_scores(site, expected, path):
    site.client.put("/models/jets/aliases/best", json={"version": 1})
    assert scores(post(site, as_columns(), path=path)) == expected


def wrong(event=None, **changes):
    made = {**EVENT, **changes}
    return json.dumps({"events": [EVENT, {k: v for k, v in made.items() if v is not ...}]})


FIELD, AT = "field", "event"
REST = '"columns": {"HT": [1], "MET_pt": [1], "Jet_pt": [], "Jet_eta": []}}'
BAD = {
    "no JSON": ("{", 400, {}),
    "empty": ("", 400, {}),
    "a list": ("[]", 400, {}),
    "a number": ("1", 400, {}),
    "NaN": ('{"events": [{"HT": NaN}]}', 400, {}),
    "no UTF-8": (b'{"events": [{"\xff": 1}]}', 400, {}),
    "deep": ("[" * 50_000, 400, {}),
    "no events": ("{}", None, {}),
    "events is a number": ('{"events": 1}', None, {FIELD: "events"}),
    "event is a number": ('{"events": [1]}', None, {AT: 0}),
    "unknown key": (wrong(Jet_ptt=[1.0]), 422, {FIELD: "Jet_ptt", AT: 1}),
    "absent key": (wrong(HT=...), 422, {FIELD: "HT", AT: 1}),
    "string": (wrong(HT="many"), 422, {FIELD: "HT", AT: 1}),
    "bool": (wrong(HT=True), 422, {FIELD: "HT", AT: 1}),
    "list for a number": (wrong(HT=[1.0]), 422, {FIELD: "HT", AT: 1}),
    "number for a list": (wrong(Jet_pt=1.0), 422, {FIELD: "Jet_pt", AT: 1}),
    "unequal lengths": (wrong(Jet_pt=[1.0]), 422, {AT: 1}),
    "too large for float32": (wrong(HT=1e39), 422, {FIELD: "HT", AT: 1}),
    "too many objects": (wrong(Jet_pt=[1.0] * 21, Jet_eta=[1.0] * 21), 413, {AT: 1}),
    "too many events": (json.dumps({"columns": {"HT": [1.0] * 501}}), None, {}),
    "negative count": ('{"counts": {"jets": [-1]}, ' + REST, 422, {}),
    "count that is no number": ('{"counts": {"jets": ["1"]}, "columns": {"HT":[1]}}', None, {}),
    "huge count": ('{"counts": {"jets": [99999999999]}, ' + REST, None, {}),
    "missing, for a model without padding": (wrong(MET_pt=None), 422, {AT: 1}),
    "unequal columns": ('{"counts": {"jets": [0]}, ' + REST.replace("[1]", "[1, 2]", 1), 422, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_events_are_told_what_is_wrong(site, name):
    body, status, facts = BAD[name]
    answer = post(site, body)
    assert 400 <= answer.status_code < 500, answer.text
    assert status in (None, answer.status_code), answer.text
    error = answer.json()["error"]
    assert error["code"]
    assert len(error["message"]) > 10
    assert {key: error.get(key) for key in facts} == facts, error


def test_bad_requests_spoil_no_neighbour(site, expected):
    """Good and bad requests at once, so that they share batches of a worker."""
    good = json.dumps({"events": EVENTS}).encode()
    bodies = [good, *(b.encode() if isinstance(b, str) else b for b, _, _ in BAD.values())] * 4

    async def send_all():
        async with httpx.AsyncClient(base_url=site.handle.url, timeout=60) as client:
            headers = {"Content-Type": media.JSON}
            return await asyncio.gather(*(client.post(JETS, content=body, headers=headers) for body in bodies))

    for body, answer in zip(bodies, asyncio.run(send_all()), strict=True):
        if body == good:
            assert scores(answer) == pytest.approx(expected, abs=1e-6)
        else:
            assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("content_type", [media.COLUMNS, media.ARROW, media.ROOT])
@pytest.mark.parametrize("change", ["empty", "garbage", "cut", "flipped"])
def test_broken_binary_bodies_are_refused(site, root_file, content_type, change):
    whole = {media.COLUMNS: binary.encode(as_table()), media.ARROW: as_arrow(), media.ROOT: root_file}[content_type]
    flipped = bytearray(whole)
    flipped[8:60] = bytes(255 - b for b in flipped[8:60])
    bodies = {"empty": b"", "garbage": b"\x00\xff" * 50, "cut": whole[: len(whole) // 2], "flipped": bytes(flipped)}
    answer = post(site, bodies[change], content_type)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]
    assert site.left_files() == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/models/none/predict", 404, "unknown_model"),
        ("/models/jets/versions/9/predict", 404, "unknown_version"),
        ("/models/jets/versions/0/predict", 400, "bad_request"),
        ("/models/jets/versions/-1/predict", 400, "bad_request"),
        ("/models/jets/versions/one/predict", 400, "bad_request"),
        ("/models/jets/versions/99999999999999999999/predict", 400, "bad_request"),
        ("/models/jets/aliases/nope/predict", 404, "unknown_alias"),
        ("/models/jets/aliases/1/predict", 400, "bad_request"),
        (f"{JETS}?explain=perhaps", 400, "bad_request"),
    ],
)
def test_what_is_not_there_is_told(site, path, status, code):
    answer = post(site, as_columns(), path=path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("headers", "status", "field"),
    [
        ({"Content-Type": "text/html"}, 415, "Content-Type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "Content-Type"),
        ({"Content-Encoding": "br"}, 415, "Content-Encoding"),
        ({"Accept": "text/html"}, 406, "Accept"),
        ({"X-Timeout-Ms": "0"}, 400, "X-Timeout-Ms"),
        ({"X-Timeout-Ms": "-5"}, 400, "X-Timeout-Ms"),
        ({"X-Timeout-Ms": "25001"}, 400, "X-Timeout-Ms"),
        ({"X-Timeout-Ms": "soon"}, 400, "X-Timeout-Ms"),
        ({"X-Timeout-Ms": "\xb2"}, 400, "X-Timeout-Ms"),
    ],
)
def test_wrong_headers_are_told(site, headers, status, field):
    raw = {k: v.encode("latin-1") for k, v in {"Content-Type": media.JSON, **headers}.items()}
    answer = site.client.post(JETS, content=as_columns(), headers=raw)
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_bodies_are_scored(site, root_file, coding):
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[coding]
    plain, headers = as_columns().encode(), {"Content-Encoding": coding}
    assert post(site, compress(plain), **headers).json() == post(site, plain).json()
    file = {**headers, "Content-Type": media.ROOT}
    answer = site.client.post(JETS, content=compress(root_file), headers=file)
    assert answer.status_code == 200, answer.text
    assert answer.json() == site.client.post(JETS, content=root_file, headers={"Content-Type": media.ROOT}).json()


def test_a_compressed_body_is_as_large_as_what_it_inflates_to(site):
    for kind, least in ((media.JSON, 100_000), (media.ROOT, 300_000)):  # limits of the server
        body = gzip.compress(b" " * (least + 1))
        headers = {"Content-Type": kind, "Content-Encoding": "gzip"}
        answer = site.client.post(JETS, content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    answer = site.client.post(JETS, content=b"noise", headers={"Content-Type": media.JSON, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "body")
    assert site.left_files() == []


def test_explain_is_for_json_alone(site, root_file):
    assert post(site, as_columns(), path=f"{JETS}?explain", Accept=media.ARROW).status_code == 406
    assert post(site, root_file, media.ROOT, path=f"{JETS}?explain").json()["error"]["field"] == "explain"


def test_content_types_may_carry_parameters(site, expected):
    assert scores(post(site, as_columns(), "Application/JSON; charset=utf-8")) == expected


def test_a_deadline_is_kept(site):
    assert post(site, as_columns(), X_Timeout_Ms="20000").status_code == 200


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(("content_type", "size"), [(media.JSON, 100_001), (media.ROOT, 300_001)])
def test_bodies_that_are_too_large_are_refused(site, is_chunked, content_type, size):
    body = iter([b"x" * 1000] * (size // 1000 + 1)) if is_chunked else b"x" * size
    answer = post(site, body, content_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert site.left_files() == []


def test_too_many_events_are_refused(site):
    flat = {"columns": {"HT": [1.0] * 501, "MET_pt": [1.0] * 501}}
    answer = post(site, json.dumps(flat), path="/models/flat/predict")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_root_file_says_which_tree(site, root_file):
    answer = post(site, root_file, media.ROOT, path=f"{JETS}?tree=Evets")
    assert answer.status_code == 422
    assert "Evets" in answer.json()["error"]["message"]
    assert str(site.handle.temporary) not in answer.text


def test_a_file_of_a_client_that_left_is_removed(site, root_file):
    host, port = site.address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        lines = [
            f"POST {JETS} HTTP/1.1",
            f"Host: {site.address}",
            f"Content-Type: {media.ROOT}",
            "Content-Length: 200000",
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + root_file[:100])
        assert poll(site.left_files)
    assert poll(lambda: site.left_files() == [])


@pytest.mark.parametrize(
    "path",
    [
        "/models/..%2f..%2fetc/predict",
        "/models/%2e%2e/predict",
        "/models/%2e%2e%2fjets/predict",
        "/models/..%5cjets/predict",
        "/models/jets%00/predict",
        "/models/jets%252f/predict",
        "/models/j%C3%A9ts/predict",
        "/models/%ff/predict",
        "/models//predict",
        "/models/jets%2fversions%2f1/predict",
        "/models/.staging/predict",
        "/models/" + "a" * 5000 + "/predict",
        "/models/jets/versions/1%00/predict",
        "/models/../models/jets/predict",
    ],
)
def test_no_path_leads_elsewhere(site, path):
    host, port = site.address.split(":")
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as stream:
        body = json.dumps({"events": EVENTS})
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {site.address}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall((head + body).encode())
        status = stream.readline().split()[1]
        assert status in (b"400", b"404")
        answer = stream.read()
        assert b'{"error":{"code":' in answer
        assert str(site.folder).encode() not in answer
