"""A run ends at its request's own deadline, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from models import graph_of, make_bundle
from onnx import TensorProto, helper
from servers import Handle, poll

from rootdata.bundle.manifest import MODEL, Manifest, OutputSpec, TensorSpec, open_bundle, save_manifest, sha256_of
from serve.errors import DeadlineExceeded
from serve.messages import Request
from serve.models.engine import Engine
from serve.models.repository import Repository
from serve.models.session import Model
from serve.processes.deadline import Terminator
from serve.settings import Settings

EVENTS = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}
LONG = 10**12


def loop_graph() -> object:
    """Make a graph that adds 1 to x as many times as the first n says, one node at a time."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Add", ["before", "one"], ["after"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["times"], keepdims=0),
        helper.make_node("Cast", ["times"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
    ]
    inputs = {"x": ("events", 2), "n": ("events", 1)}
    return graph_of(nodes, inputs, {"y": ("events", 2)}, {"one": np.float32(1)})


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("loop") / "loop", parity=False)
    onnx.save_model(loop_graph(), folder / MODEL)
    tensors = (TensorSpec(name=n, dtype="float32", shape=("events", s)) for n, s in (("x", 2), ("n", 1)))
    manifest = Manifest(
        sha256=sha256_of(folder / MODEL),
        size=(folder / MODEL).stat().st_size,
        inputs=tuple(tensors),
        outputs=(OutputSpec(name="y", dtype="float32", shape=("events", 2), columns=("a", "b")),),
    )
    save_manifest(manifest, folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path, loop: Path) -> Path:
    folder = tmp_path / "repo"
    Repository(folder).publish(loop, "loop")
    Repository(folder).publish(make_bundle(tmp_path / "flat"), "flat")
    return folder


def turns(n: float) -> dict[str, object]:
    return {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]},
            {"name": "n", "datatype": "FP32", "shape": [1, 1], "data": [n]},
        ]
    }


def asked(n: float, *, seconds: float) -> Request:
    body = httpx.Request("POST", "http://x", json=turns(n)).content
    return Request(road="v2", model="loop", version=1, body=body, deadline=time.monotonic() + seconds)


def events(*, seconds: float) -> Request:
    body = httpx.Request("POST", "http://x", json=EVENTS).content
    return Request(road="physics", model="flat", version=1, body=body, deadline=time.monotonic() + seconds)


def test_a_run_ends_at_its_own_deadline(repository):
    engine = Engine(Settings(models=repository))
    start = time.monotonic()
    [late, other] = engine.answer([asked(LONG, seconds=0.7), events(seconds=30)])
    assert (late.status, other.status) == (504, 200)
    assert b"ran for too long" in late.body
    assert time.monotonic() - start < 2.5


@pytest.mark.long
def test_who_runs_with_one_that_never_ends_is_answered(repository):
    engine = Engine(Settings(models=repository))
    marks: list[list[int]] = []
    requests = [asked(n, seconds=s) for n, s in ((3, 30), (LONG, 1.5), (4, 30))]
    replies = engine.answer(requests, mark=lambda places: marks.append(list(places)))
    assert [reply.status for reply in replies] == [200, 504, 200]
    assert marks == [[0], [1], [2], [0, 1, 2], [0], [1], [2]]


def test_a_terminator_ends_only_what_still_runs():
    import onnxruntime

    terminator, used = Terminator(), []
    for seconds in (0.2, 0.01, 30):
        terminator.moment = time.monotonic() + seconds
        options = onnxruntime.RunOptions()
        with terminator.ending(options):
            used.append(options)
    time.sleep(0.5)  # past all moments
    assert not any(options.terminate for options in used)
    terminator.moment = time.monotonic() + 0.2
    with terminator.ending(used[0]):
        poll(lambda: used[0].terminate)
    with pytest.raises(DeadlineExceeded), terminator.ending(used[1]):
        pass


def test_a_model_without_a_moment_runs_for_as_long_as_it_takes(loop):
    model = Model("loop", 1, open_bundle(loop), loop / MODEL)
    [found] = model.run({"x": np.ones((1, 2), "f4"), "n": np.full((1, 1), 5, "f4")})
    assert found.tolist() == [[6.0, 6.0]]


@pytest.fixture
def server(start_server, repository: Path) -> Iterator[Handle]:
    return start_server(["-m", "serve", str(repository), "--port", "0", "--workers", "2", "--stalled", "1"])


@pytest.mark.long
def test_a_stuck_model_costs_16_other_clients_no_answer(server):
    async def scenario() -> tuple[list[int], httpx.Response, bool]:
        async with httpx.AsyncClient(base_url=server.url, timeout=30, verify=False) as http:
            stuck = asyncio.create_task(
                http.post("/v2/models/loop/infer", json=turns(LONG), headers={"X-Timeout-Ms": "5000"})
            )
            await asyncio.sleep(0.2)

            async def client() -> list[int]:
                options = {"json": EVENTS, "headers": {"X-Timeout-Ms": "3000"}}
                replies = [await http.post("/models/flat/predict", **options) for _ in range(10)]
                return [reply.status_code for reply in replies]

            statuses = [status for found in await asyncio.gather(*(client() for _ in range(16))) for status in found]
            is_ready = server.is_ready("/health/ready")
            return statuses, await stuck, is_ready

    before = server.children()["worker"]
    statuses, stuck, is_ready = asyncio.run(scenario())
    assert set(statuses) == {200}
    assert len(statuses) == 160
    assert is_ready
    assert stuck.status_code == 504
    # The runtime ended the run: no worker had to.
    assert server.children()["worker"] == before


@pytest.mark.long
def test_without_a_worker_that_makes_progress_the_server_is_not_ready(server):
    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=30, verify=False) as http:
            stuck = [
                asyncio.create_task(
                    http.post("/v2/models/loop/infer", json=turns(LONG), headers={"X-Timeout-Ms": "6000"})
                )
                for _ in range(2)
            ]
            await asyncio.sleep(2.5)
            assert (await http.get("/health/ready")).status_code == 503
            assert (await http.get("/v2/health/ready")).status_code == 503
            reply = await http.post("/models/flat/predict", json=EVENTS)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "stalled")
            assert {(await one).status_code for one in stuck} == {504}

    asyncio.run(scenario())
    poll(lambda: server.is_ready("/health/ready"))  # the runtime looks a moment after the deadline
    assert httpx.post(f"{server.url}/models/flat/predict", json=EVENTS).status_code == 200
