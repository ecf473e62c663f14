"""Long work in slices: the same answers, by steps that are short."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import graph_of, make_bundle, manifest_of
from onnx import helper

from rootdata.bundle.manifest import MODEL, save_manifest
from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table
from serve import parsing
from serve.codec import binary, events, inference, media
from serve.formats import text
from serve.messages import Reply, Request
from serve.models import engine as engines
from serve.models import scoring
from serve.models.engine import Engine
from serve.models.pace import Pace, run_in_slices
from serve.models.repository import Repository
from serve.models.session import SLICE, Model
from serve.settings import Settings

EVENTS = 1500


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, fields in (("together", {}), ("alone", {"batching": "none"})):
        Repository(folder / "repo").publish(make_bundle(folder / name, jets=True, **fields), name)
    return folder / "repo"


@pytest.fixture(scope="module")
def model(repository: Path) -> Model:
    stored = Repository(repository)
    return Model("together", 1, stored.manifest("together", 1), stored.path("together", 1) / "model.onnx")


@given(
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=5),
    took=st.lists(st.floats(0, 1), min_size=40, max_size=40),
)
def test_every_event_is_run_once_in_its_order_and_slow_slices_are_short(model, sizes, took):
    tables, low = [], 0
    for size in sizes:
        tables.append(Table(num_events=size, columns={"x": np.arange(low, low + size)}))
        low += size
    firsts = []

    def run(table: Table, first: int) -> list[Any]:
        firsts.append(first)
        return [table.columns["x"]]

    found = list(run_in_slices(tables, model, run))
    assert np.array_equal(np.concatenate([outputs[0] for _, outputs in found]), np.arange(low))
    assert all(
        part.num_events == 0 or part.columns["x"][0] == first for (part, _), first in zip(found, firsts, strict=True)
    )
    assert len(found) >= len(sizes)
    pace = Pace(model)
    for seconds in took:
        size = pace.size
        pace.learn(size, seconds)
        assert 1 <= pace.size <= SLICE
        assert pace.size <= 2 * size
        if seconds > 0.06:
            assert pace.size <= max(1, size // 2)


def rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        {
            "HT": float(rng.uniform(0, 3000)),
            "MET_pt": float(rng.uniform(0, 900)),
            "Jet_pt": rng.uniform(20, 200, i % 13).tolist(),
            "Jet_eta": rng.uniform(-2, 2, i % 13).tolist(),
        }
        for i in range(EVENTS)
    ]


def as_tensors() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    shapes = {"flat": (EVENTS, 2), "jets": (EVENTS, 2, 4), "jets_mask": (EVENTS, 4)}
    return {
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": shape, "data": rng.integers(0, 2, shape).ravel().tolist()}
            for name, shape in shapes.items()
        ]
    }


def bodies() -> dict[str, dict[str, Any]]:
    events_ = rows()
    columns = {name: [event[name] for event in events_] for name in events_[0]}
    counts = np.array([len(jets) for jets in columns["Jet_pt"]])
    flattened = {name: [v for event in columns[name] for v in event] for name in ("Jet_pt", "Jet_eta")}
    table = {name: np.array(columns[name], "f4") for name in ("HT", "MET_pt")} | {
        name: Jagged(offsets_of(counts), np.array(values, "f4")) for name, values in flattened.items()
    }
    odd = [*events_]
    odd[1234] = {**odd[1234], "HT": "high"}
    json = {"road": "physics", "content_type": media.JSON}
    return {
        "events": {**json, "body": orjson.dumps({"events": events_})},
        "explain": {**json, "body": orjson.dumps({"events": events_}), "options": {"explain": ""}},
        "a string in event 1234": {**json, "body": orjson.dumps({"events": odd})},
        "columns": {**json, "body": orjson.dumps({"columns": columns})},
        "counts": {**json, "body": orjson.dumps({"columns": columns | flattened, "counts": {"jets": counts.tolist()}})},
        "no JSON": {**json, "body": orjson.dumps({"events": events_})[:-9]},
        "binary": {
            "road": "physics", "content_type": media.COLUMNS,
            "body": binary.encode(Table(num_events=EVENTS, columns=table)),
        },
        "tensors": {"road": "v2", "body": orjson.dumps(as_tensors())},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["together", "alone"])
@pytest.mark.parametrize("kind", bodies())
def test_what_is_answered_in_slices_is_what_is_answered_at_once(repository, monkeypatch, name, kind):
    request = Request(model=name, version=1, **bodies()[kind])
    worker = Engine(Settings(models=repository))
    monkeypatch.setattr(engines, "LONG", 1 << 40)
    monkeypatch.setattr(scoring, "SLICE", 1 << 40)
    for module in (scoring, text):
        monkeypatch.setattr(module, "FEW", 1 << 40)
    [expected] = worker.answer([request])
    assert isinstance(expected, Reply)
    monkeypatch.undo()
    monkeypatch.setattr(engines, "LONG", 1)
    for module, name_of_size in ((events, "_PIECE"), (parsing, "PIECE"), (inference, "_STEP")):
        monkeypatch.setattr(module, name_of_size, 4000)
    [steps] = worker.answer([request])
    *waits, found = steps
    assert waits == [None] * len(waits)
    assert len(waits) > 2 or found.status != 200 or (name, kind) == ("alone", "tensors")
    assert (found.status, found.num_events) == (expected.status, expected.num_events)
    ours, theirs = orjson.loads(found.body), orjson.loads(expected.body)
    if kind == "tensors" and found.status == 200:
        [ours], [theirs] = ours.pop("outputs"), theirs.pop("outputs")
        assert np.allclose(ours.pop("data"), theirs.pop("data"), rtol=0, atol=1e-6)
    elif found.status == 200:
        scores = [np.array(answer.pop("scores")["signal"]) for answer in (ours, theirs)]
        assert np.allclose(*scores, rtol=0, atol=1e-6)
    assert ours == theirs


def test_slices_are_whole_where_a_graph_takes_a_fixed_number_of_events(tmp_path):
    folder = make_bundle(tmp_path / "made", parity=False)
    add = helper.make_node("ReduceSum", ["flat", "axis"], ["scores"], keepdims=1)
    graph = graph_of([add], {"flat": (48, 2)}, {"scores": (48, 1)}, {"axis": np.array([1])})
    onnx.save_model(graph, folder / MODEL)
    plain = manifest_of(folder / MODEL)
    inputs = (dataclasses.replace(plain.inputs[0], shape=(48, 2)),)
    outputs = (dataclasses.replace(plain.outputs[0], shape=(48, 1)),)
    save_manifest(dataclasses.replace(plain, inputs=inputs, outputs=outputs), folder)
    Repository(tmp_path / "repo").publish(folder, "fixed")
    worker = Engine(Settings(models=tmp_path / "repo"))
    pace = Pace(worker._model("fixed", 1))
    for seconds in (0.01, 0.001, 0.3, 9.0, 0.2, 0.0, 0.001):
        assert pace.size % 48 == 0
        pace.learn(pace.size, seconds)
    body = orjson.dumps({"events": [{"HT": float(i), "MET_pt": 0.5} for i in range(EVENTS)]})
    [steps] = worker.answer([Request(road="physics", model="fixed", version=1, body=body)])
    *_, found = steps
    assert orjson.loads(found.body)["scores"]["signal"] == [i + 0.5 for i in range(EVENTS)]


def test_a_body_of_many_events_is_long_whatever_its_bytes(repository):
    """Slices are for what takes long: many events, and fewer of a model that takes one at a time."""
    worker = Engine(Settings(models=repository))
    event = {"HT": 1, "MET_pt": 2, "Jet_pt": [], "Jet_eta": []}
    for name, num_events, is_long in (("together", SLICE, False), ("together", SLICE + 1, True), ("alone", 40, True)):
        body = orjson.dumps({"events": [event] * num_events})
        assert len(body) < engines.LONG
        [found] = worker.answer([Request(road="physics", model=name, version=1, body=body)])
        assert isinstance(found, Reply) != is_long


@pytest.mark.parametrize("kind", ["events", "columns", "counts", "tensors"])
def test_no_step_of_a_long_body_is_long(repository, kind):
    """In processor time, as others use the machine, too; the answer of so many is written in one step."""
    body = orjson.loads(bodies()[kind]["body"])
    times, least = 20, 40
    if kind == "tensors":
        for entry in body["inputs"]:
            entry["data"] *= times
            entry["shape"][0] *= times
    else:
        for part in (body.get("columns", {}), body.get("counts", {}), body):
            for name, values in part.items():
                part[name] = values * times if isinstance(values, list) else values
    worker = Engine(Settings(models=repository))
    request = Request(model="together", version=1, **{**bodies()[kind], "body": orjson.dumps(body)})
    for _ in range(2):  # the first one makes what is kept
        [steps] = worker.answer([request])
        took, start = [], time.process_time()
        for reply in steps:
            last, now = reply, time.process_time()
            took.append(now - start)
            start = now
    assert (last.status, last.num_events) == (200, EVENTS * times)
    assert len(took) > least
    assert max(took) < max(0.03, sum(took) / 5), (kind, sorted(took)[-5:])


def beside(url: str, body: bytes, *, path: str) -> tuple[float, list[float]]:
    """Send a body, and small ones until its answer is there; return the seconds of the large one and of each small."""
    took: list[float] = []

    def send() -> None:
        start = time.perf_counter()
        answer = httpx.post(f"{url}{path}", content=body, headers={"content-type": media.JSON}, timeout=120)
        assert answer.status_code == 200, answer.text[:500]
        took.append(time.perf_counter() - start)

    small, waited = {"events": [{"HT": 1.0, "MET_pt": 2.0}]}, []
    with httpx.Client() as client:
        assert client.post(f"{url}/models/flat/predict", json=small).status_code == 200
        large = threading.Thread(target=send)
        large.start()
        while large.is_alive():
            start = time.perf_counter()
            assert client.post(f"{url}/models/flat/predict", json=small, timeout=60).status_code == 200
            waited.append(time.perf_counter() - start)
        large.join()
    return took[0], waited


@pytest.mark.long
def test_70_000_events_do_not_hold_up_others_of_the_same_worker(start_server, tmp_path, repository):
    models = Repository(tmp_path / "repo")
    models.publish(make_bundle(tmp_path / "flat"), "flat")
    models.publish(make_bundle(tmp_path / "jets", jets=True), "jets")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0"])
    few = rows()
    warm = orjson.dumps({"events": few[:2]})
    beside(server.url, warm, path="/models/jets/predict")
    body = orjson.dumps({"events": few * (70_000 // EVENTS + 1)})
    seconds, waited = beside(server.url, body, path="/models/jets/predict")
    assert len(waited) >= 10
    assert max(waited) < max(0.3, seconds / 3), (seconds, sorted(waited)[-5:])
