"""Models are loaded beside what is being answered, and whoever waits for one is told what becomes of it."""

from __future__ import annotations

import collections
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from models import graph_of, make_bundle, manifest_of, with_parity
from onnx import helper
from servers import Handle, poll

from rootdata.bundle.manifest import MODEL, save_manifest
from serve.errors import InvalidModel
from serve.models.repository import Repository
from serve.models.session import Loading, Models

EVENT = {"events": [{"HT": 1.0, "MET_pt": 2.0}]}


def slow_graph(size: int) -> Any:
    """Make a graph of a few hundred bytes that takes long to load: the runtime multiplies its constants then."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c0"]),
        helper.make_node("MatMul", ["c0", "c0"], ["c1"]),
        helper.make_node("MatMul", ["c1", "c0"], ["c2"]),
        helper.make_node("ReduceSum", ["c2"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["flat", "axis"], ["x"], keepdims=1),
        helper.make_node("Add", ["x", "sum"], ["scores"]),
    ]
    constants = {"shape": np.array([size, size]), "axis": np.array([1])}
    return graph_of(nodes, {"flat": ("events", 2)}, {"scores": ("events", 1)}, constants)


def large_graph(size: int) -> Any:
    """Make a graph with 4 x size x size bytes of weights."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.random((2, size), "f4"), "b": rng.random((size, size), "f4"), "c": np.zeros((size, 1), "f4")}
    nodes = [
        helper.make_node("MatMul", [first, second], [result])
        for first, second, result in (("flat", "a", "x"), ("x", "b", "y"), ("y", "c", "scores"))
    ]
    return graph_of(nodes, {"flat": ("events", 2)}, {"scores": ("events", 1)}, weights)


def put(repository: Repository, graph: Any, name: str, folder: Path) -> None:
    folder.mkdir()
    onnx.save_model(graph, folder / MODEL)
    save_manifest(manifest_of(folder / MODEL), folder)
    repository.publish(folder, name)


def spoil(path: Path) -> None:
    """Let a graph be of no kind, with as many bytes as its manifest says."""
    path.chmod(0o644)
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repo")
    for name in ("a", "b", "c"):
        made.publish(make_bundle(tmp_path / name), name)
    return made


def models_of(repository: Repository, loads: list[str], *, limit: int = 9) -> Models:
    return Models(
        lambda name, version: (repository.path(name, version), repository.manifest(name, version)),
        limit=limit,
        most_bytes=1 << 30,
        observe_load=lambda name, seconds: loads.append(name),
    )


def until_loaded(models: Models, rung: threading.Semaphore, name: str) -> Any:
    while True:
        models.collect()
        try:
            return models.get(name, 1)
        except Loading:
            assert rung.acquire(timeout=30)


def test_a_model_is_there_after_the_call_that_says_so(repository):
    loads: list[str] = []
    models, rung = models_of(repository, loads), threading.Semaphore(0)
    assert models.get("a", 1) is models.get("a", 1)
    models.load_beside(rung.release)
    with pytest.raises(Loading):
        models.get("b", 1)
    assert models.get("a", 1).name == "a"
    assert until_loaded(models, rung, "b") is models.get("b", 1)
    assert loads == ["a", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_models_than_may_be_are_kept_or_loaded_and_each_has_its_turn(repository, limit):
    loads: list[str] = []
    models, rung = models_of(repository, loads, limit=limit), threading.Semaphore(0)
    models.load_beside(rung.release)
    waiting = collections.deque("abcab")
    while waiting:  # as a worker does: in the order in which they came, and again when one is there
        found = []
        models.collect()
        for name in waiting:
            try:
                found.append(models.get(name, 1).name)
            except Loading:
                assert len(models) + len(models._loads) <= limit
        assert len(models) <= limit
        waiting = collections.deque(name for name in waiting if name not in found)
        if waiting:
            assert rung.acquire(timeout=30)
    assert set(loads) == set("abc")
    assert len(loads) <= 4


def test_a_model_that_can_not_be_loaded_is_told_to_all_and_tried_again_later(repository, monkeypatch):
    spoil(repository.path("a", 1) / MODEL)
    models, rung = models_of(repository, []), threading.Semaphore(0)
    with pytest.raises(InvalidModel, match="can't be loaded"):
        models.get("a", 1)
    models.load_beside(rung.release)
    for _ in range(2):
        with pytest.raises(InvalidModel, match="can't be loaded"):
            until_loaded(models, rung, "a")
    assert not models._loads  # once for both
    monkeypatch.setattr("serve.models.session._AGAIN", 0.0)
    with pytest.raises(Loading):
        models.get("a", 1)


def test_a_graph_that_is_not_the_one_of_the_manifest_is_not_served(repository):
    graph = repository.path("a", 1) / MODEL
    graph.chmod(0o644)
    model = onnx.load(graph)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))  # as many bytes as before
    onnx.save_model(model, graph)
    with pytest.raises(InvalidModel, match=r"model.onnx is not the file that manifest.json was written for"):
        models_of(repository, []).get("a", 1)


def test_the_sample_of_the_manifest_is_run_before_others_are(repository, monkeypatch):
    runs: list[int] = []
    real = Models._made

    def made(self: Models, *arguments: Any) -> Any:
        monkeypatch.setattr("serve.models.session.Model._run", counted)
        return real(self, *arguments)

    def counted(self: Any, tensors: Any) -> Any:
        runs.append(len(tensors["flat"]))
        return [np.zeros((len(tensors["flat"]), 1), "f4")]

    monkeypatch.setattr(Models, "_made", made)
    models_of(repository, []).get("a", 1)
    assert runs == [3]


def test_a_sample_that_can_not_be_run_is_no_reason_not_to_serve(tmp_path):
    made = make_bundle(tmp_path / "jets", jets=True, parity=False)
    manifest = with_parity(manifest_of(made / MODEL, jets=True), made / MODEL)
    manifest.parity.columns.pop("HT")
    save_manifest(manifest, made)
    repository = Repository(tmp_path / "repo")
    repository.publish(made, "a")
    assert models_of(repository, []).get("a", 1).name == "a"


def ask(server: Handle, name: str, *, seconds: float = 60) -> httpx.Response:
    headers = {"X-Timeout-Ms": str(int(seconds * 1000))}
    return httpx.post(f"{server.url}/models/{name}/predict", json=EVENT, headers=headers, timeout=120)


def small_ones_while(server: Handle, work: Any) -> list[float]:
    """Ask the model ``flat`` while some work lasts; return the seconds of each answer."""
    waited = []
    with httpx.Client() as client:
        while not work.done():
            start = time.perf_counter()
            assert client.post(f"{server.url}/models/flat/predict", json=EVENT, timeout=60).status_code == 200
            waited.append(time.perf_counter() - start)
    return waited


def check_loads_beside(start_server: Any, tmp_path: Path, graph: Any) -> None:
    repository = Repository(tmp_path / "repo")
    repository.publish(make_bundle(tmp_path / "flat"), "flat")
    put(repository, graph, "heavy", tmp_path / "heavy")
    put(repository, graph, "broken", tmp_path / "broken")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--timeout", "60"])
    assert ask(server, "flat").status_code == 200
    with ThreadPoolExecutor(4) as pool:
        start = time.perf_counter()
        first = [pool.submit(ask, server, "heavy") for _ in range(3)]
        waited = small_ones_while(server, first[0])
        seconds = time.perf_counter() - start
        assert [one.result().status_code for one in first] == [200, 200, 200]
        assert len(waited) >= 5
        assert max(waited) < max(0.2, seconds / 3), (seconds, sorted(waited)[-5:])
        start = time.perf_counter()
        assert ask(server, "heavy").status_code == 200
        assert time.perf_counter() - start < max(0.2, seconds / 3)
        spoil(repository.path("broken", 1) / MODEL)
        assert {one.result().status_code for one in [pool.submit(ask, server, "broken") for _ in range(4)]} == {422}
    loads = httpx.get(f"{server.url}/metrics").text
    assert 'model_load_duration_seconds_count{model="heavy"} 1.0' in loads
    assert len(server.children()["worker"]) == 1


@pytest.mark.long
def test_a_model_that_loads_slowly_holds_up_no_other_one(start_server, tmp_path):
    check_loads_beside(start_server, tmp_path, slow_graph(1500))


@pytest.mark.long
def test_a_model_of_200_mb_holds_up_no_other_one_while_it_is_loaded(start_server, tmp_path):
    check_loads_beside(start_server, tmp_path, large_graph(7000))


def test_who_can_not_wait_for_a_model_gets_a_504_and_the_model_is_loaded_all_the_same(start_server, tmp_path):
    repository = Repository(tmp_path / "repo")
    put(repository, slow_graph(1500), "heavy", tmp_path / "heavy")
    repository.publish(make_bundle(tmp_path / "flat"), "flat")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0"])
    assert ask(server, "heavy", seconds=0.05).status_code == 504
    assert ask(server, "flat").status_code == 200
    assert poll(lambda: ask(server, "heavy", seconds=2).status_code == 200, seconds=30)
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
