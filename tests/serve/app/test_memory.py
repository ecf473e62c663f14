"""Bodies take the memory that there is for them, no more, and give it back."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import graph_of, make_bundle, manifest_of
from onnx import helper
from servers import Handle, poll

from rootdata.bundle.manifest import MODEL, Manifest, OutputSpec, TensorSpec, save_manifest, sha256_of
from serve.app.memory import Hold, Room, memory
from serve.errors import Overloaded, ServeError, TooLarge
from serve.models.repository import Repository

MB = 1_000_000


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans()), max_size=40))
def test_a_room_is_never_over_full_and_empty_in_the_end(steps):
    room = Room(100)
    holds, sizes = [Hold(room) for _ in range(4)], [0] * 4
    for who, size, is_over in steps:
        try:
            holds[who].grow(size)
            sizes[who] += size
        except TooLarge:
            assert sizes[who] + size > 100
        except Overloaded:
            assert sum(sizes) + size > 100
        assert room.used == sum(sizes) <= 100
        if is_over:
            holds[who].__exit__()
            holds[who], sizes[who] = Hold(room), 0
    for hold in holds:
        hold.__exit__()
    assert room.used == 0


def test_a_refusal_says_what_is_full_and_whether_to_come_again():
    room = Room(100)
    room.take(60)
    with pytest.raises(Overloaded, match=r"take 60 of the 100 bytes.*try again later") as caught:
        room.take(50)
    assert caught.value.headers == {"Retry-After": "1"}
    with pytest.raises(TooLarge, match="--max-pending-bytes"):
        room.take(101)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 300)), max_size=40))
def test_answers_take_the_place_of_bodies_and_are_never_refused(steps):
    room, held = Room(100), collections.Counter()
    holds = [Hold(room, who="one").__enter__() for _ in range(4)]
    for who, body, answer in steps:
        with contextlib.suppress(TooLarge, Overloaded):
            holds[who].grow(body)
        holds[who].answer(answer)
        held[who] = answer
        assert room.used == held.total()
        if room.used >= 100:
            with pytest.raises(Overloaded, match="try again later"), Hold(room) as hold:
                hold.grow(1)
    for hold in holds:
        hold.__exit__()
    assert room.used == 0
    with Hold(room, who="one") as hold:  # nothing is left of its share either
        hold.grow(100)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans()), max_size=40))
def test_the_requests_of_one_key_leave_half_of_the_room_to_others(steps):
    room = Room(100)
    holds, sizes = [Hold(room, who="greedy").__enter__() for _ in range(4)], [0] * 4
    for who, size, is_over in steps:
        try:
            holds[who].grow(size)
            sizes[who] += size
        except ServeError:
            is_over = True
        if is_over:
            holds[who].__exit__()
            holds[who], sizes[who] = Hold(room, who="greedy").__enter__(), 0
        assert room.used == sum(sizes)
        # One request alone may have more; whoever comes beside it then waits.
        assert sum(sizes) <= 50 or sum(map(bool, sizes)) == 1
        with Hold(room, who="modest") as hold:
            hold.grow(100 - room.used)
    for hold in holds:
        hold.__exit__()
    assert room.used == 0


def test_a_key_has_its_share_of_requests():
    room = Room(100, most_requests=2)
    two = [Hold(room, who="greedy").__enter__() for _ in range(2)]
    with pytest.raises(Overloaded, match="with the key of 'greedy' wait already"):
        Hold(room, who="greedy").__enter__()
    with Hold(room, who="modest"), Hold(room):
        pass
    two[0].__exit__()
    with Hold(room, who="greedy"):
        pass


MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("membership", "files", "found"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "5000\n", "a/memory.max": "max\n"}, 5000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "3000\n"}, 3000),
        ("0::/\n", {"memory.max": "7000"}, 7000),
        ("4:cpu:/x\n7:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9000"}, 9000),
        ("0::/a\n", {"a/memory.max": "max"}, MACHINE),
        ("7:memory:/\n", {"memory/memory.limit_in_bytes": str(2**63)}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_memory_is_the_machines_or_what_a_cgroup_leaves_of_it(tmp_path, membership, files, found):
    groups = tmp_path / "groups"
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "membership").write_text(membership)
    assert memory(groups=groups, membership=tmp_path / "membership") == found


def test_where_nothing_says_so_it_is_the_machines(tmp_path):
    assert memory(groups=tmp_path, membership=tmp_path / "none") == MACHINE


def resident(pids: list[int]) -> int:
    """Return the largest memory of processes, bytes."""
    return max(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def server(start_server, tmp_path) -> Handle:
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "flat"), "flat")
    words = ["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--max-pending-bytes", str(100 * MB)]
    return start_server(words)


async def send(server: Handle, size: int, *, chunked: bool, go: asyncio.Event) -> int:
    """Send a body, wait before the last byte of it, and return the status; a refusal ends the sending."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    writer.write(b"POST /models/flat/predict HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n\r\n")
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    piece, sent = b" " * MB, 0
    try:
        while sent < size and not answer.done():
            part = piece[: size - sent]
            sent += len(part)
            if sent == size:
                await asyncio.wait([answer, asyncio.create_task(go.wait())], return_when=asyncio.FIRST_COMPLETED)
            writer.write(b"%x\r\n" % len(part) + part + b"\r\n" if chunked else part)
            await writer.drain()
        if chunked and not answer.done():
            writer.write(b"0\r\n\r\n")
    except ConnectionError:
        pass
    try:
        return int((await answer).split()[1])
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0  # the refusal was lost with the connection
    finally:
        writer.close()


@pytest.mark.long
@pytest.mark.parametrize("chunked", [False, True])
def test_40_bodies_of_45_mb_take_what_they_may_and_give_it_back(server, chunked):
    go = asyncio.Event()
    go.set()
    assert asyncio.run(send(server, 10, chunked=chunked, go=go)) == 400  # what is loaded first stays
    before = {kind: resident(pids) for kind, pids in server.children().items() if pids}

    async def scenario() -> tuple[collections.Counter[int], int]:
        go = asyncio.Event()
        sending = [asyncio.create_task(send(server, 45 * MB, chunked=chunked, go=go)) for _ in range(40)]
        while sum(not one.done() for one in sending) > 2:  # two fit
            await asyncio.sleep(0.05)
        during = resident(server.children()["api"])
        go.set()
        return collections.Counter(await asyncio.gather(*sending)), during

    statuses, during = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert statuses[400] <= 2  # spaces are no JSON
    assert statuses[503] >= 1
    assert statuses[503] + statuses[0] >= 38
    assert during - before["api"] < 130 * MB
    for kind, was in before.items():
        end, grown = time.monotonic() + 5, 1 << 60
        while grown > 20 * MB and time.monotonic() < end:
            grown = resident(server.children()[kind]) - was
        assert grown < 20 * MB, kind


@pytest.mark.long
def test_1000_bodies_of_60_mb_take_what_they_may_and_give_it_back(server):
    """As many as 40 are sent at once; each is sent in full unless it is refused."""
    go = asyncio.Event()
    go.set()
    assert asyncio.run(send(server, 10, chunked=False, go=go)) == 400
    [api] = server.children()["api"]
    before = {kind: resident(pids) for kind, pids in server.children().items() if pids}
    most = 0

    async def scenario() -> collections.Counter[int]:
        nonlocal most
        go, places = asyncio.Event(), asyncio.Semaphore(40)
        go.set()
        sent = collections.Counter()

        async def one() -> None:
            nonlocal most
            async with places:
                status = await send(server, 60 * MB, chunked=False, go=go)
                sent[status] += 1
                most = max(most, resident([api]))
                await asyncio.sleep(0 if status == 400 else 1)  # as Retry-After says

        await asyncio.gather(*(one() for _ in range(1000)))
        return sent

    statuses = asyncio.run(asyncio.wait_for(scenario(), 300))
    assert set(statuses) <= {400, 503, 0}  # spaces are no JSON; a refusal may be lost with the connection
    assert statuses[400] >= 5
    assert statuses[503] >= 1
    assert most - before["api"] < 130 * MB, statuses
    for kind, was in before.items():
        end, grown = time.monotonic() + 5, 1 << 60
        while grown > 20 * MB and time.monotonic() < end:
            grown = resident(server.children()[kind]) - was
        assert grown < 20 * MB, kind
    assert server.children()["api"] == [api]


def tiles_bundle(folder: Path) -> Path:
    """Make a bundle whose answers are 4,000 times as large as what it is asked: x (events, 1)."""
    make_bundle(folder, parity=False)
    nodes = [helper.make_node("Tile", ["x", "by"], ["y"])]
    graph = graph_of(nodes, {"x": ("events", 1)}, {"y": ("events", 4000)}, {"by": np.array([1, 4000])})
    onnx.save_model(graph, folder / MODEL)
    manifest = Manifest(
        sha256=sha256_of(folder / MODEL),
        size=(folder / MODEL).stat().st_size,
        inputs=(TensorSpec(name="x", dtype="float32", shape=("events", 1)),),
        outputs=(OutputSpec(name="y", dtype="float32", shape=("events", 4000), columns=()),),
    )
    save_manifest(manifest, folder)
    return folder


def tiles_request(events: int) -> tuple[str, bytes]:
    """Write what asks for 16 kB of answer for each event."""
    spec = {"name": "x", "datatype": "FP32", "shape": [events, 1], "data": [1.5] * events}
    wish = {"inputs": [spec], "parameters": {"binary_data_output": True}}
    return "/v2/models/tiles/infer", json.dumps(wish).encode()


@pytest.mark.long
def test_answers_that_nobody_takes_count_as_bodies_do(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(tiles_bundle(tmp_path / "tiles"), "tiles")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--max-pending-bytes", str(20 * MB)])
    host, port = server.url.removeprefix("http://").split(":")

    def ask() -> int:
        path, body = tiles_request(1)
        answer = httpx.post(server.url + path, content=body)
        assert answer.status_code != 200 or len(answer.content) > 16_000
        return answer.status_code

    assert ask() == 200
    path, body = tiles_request(1000)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            idle = stack.enter_context(socket.create_connection((host, int(port))))
            idle.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )
        assert poll(lambda: ask() == 503, seconds=20)
        assert ask() == 503
    assert poll(lambda: ask() == 200, seconds=20)


def test_a_body_that_never_fits_is_told_so_before_it_is_read(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "flat"), "flat")
    server = start_server(
        ["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--max-pending-bytes", "1000", "--max-body", "5000"]
    )
    assert asyncio.run(send(server, 1001, chunked=False, go=asyncio.Event())) == 413
    go = asyncio.Event()
    go.set()
    assert asyncio.run(send(server, 1000, chunked=True, go=go)) == 400
    assert asyncio.run(send(server, random.Random(3).randint(1001, 4000), chunked=True, go=go)) == 413


def pairs_bundle(folder: Path) -> Path:
    """Make a bundle whose graph compares each object of an event with each: x (events, 4, objects)."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "x"], ["pairs"]),
        helper.make_node("ReduceMax", ["pairs", "axis"], ["most"], keepdims=0),
        helper.make_node("ReduceMax", ["most", "last"], ["y"], keepdims=1),
    ]
    constants = {"axis": np.array([2]), "last": np.array([1])}
    make_bundle(folder, parity=False)
    graph = graph_of(nodes, {"x": ("events", 4, "objects")}, {"y": ("events", 1)}, constants)
    onnx.save_model(graph, folder / MODEL)
    manifest = Manifest(
        sha256=sha256_of(folder / MODEL),
        size=(folder / MODEL).stat().st_size,
        inputs=(TensorSpec(name="x", dtype="float32", shape=("events", 4, "objects")),),
        outputs=(OutputSpec(name="y", dtype="float32", shape=("events", 1), columns=("a",)),),
    )
    save_manifest(manifest, folder)
    return folder


def ask_pairs(server: Handle, events: int, objects: int) -> httpx.Response:
    head = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [events, 4, objects],
                "parameters": {"binary_data_size": 16 * events * objects},
            }
        ]
    }
    text = json.dumps(head).encode()
    body = text + np.ones((events, 4, objects), "f4").tobytes()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return httpx.post(f"{server.url}/v2/models/pairs/infer", content=body, headers=headers, timeout=60)


@pytest.mark.long
def test_large_runs_take_bounded_memory_and_give_it_back(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(pairs_bundle(tmp_path / "pairs"), "pairs")
    options = ["--worker-memory", str(1_000 * MB), "--max-objects", "100000"]
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", *options])
    assert ask_pairs(server, 1, 2).json()["outputs"][0]["data"] == [4.0]
    worker = server.children()["worker"]
    peak, before = highest(worker[0]), resident(worker)
    assert ask_pairs(server, 1024, 300).status_code == 200  # 369 MB, if all went through the graph at once
    assert highest(worker[0]) - peak < 100 * MB
    assert ask_pairs(server, 1, 9000).status_code == 200  # 324 MB, which can't be cut
    end, grown = time.monotonic() + 5, 1 << 60
    while grown > 30 * MB and time.monotonic() < end:
        grown = resident(worker) - before
    assert grown < 30 * MB
    refused = ask_pairs(server, 1, 30_000)  # 3.6 GB
    assert refused.status_code == 503
    assert "memory" in refused.json()["error"]
    assert ask_pairs(server, 2, 3).status_code == 200
    assert server.children()["worker"] == worker


def highest(pid: int) -> int:
    """Return the most memory that a process ever had, bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def heavy_bundle(folder: Path) -> Path:
    """Make a bundle of events whose graph has 40 MB of weights."""
    made = make_bundle(folder, parity=False)
    weights = {"a": np.ones((2, 5000), "f4"), "b": np.ones((5000, 2000), "f4"), "c": np.zeros((2000, 1), "f4")}
    nodes = [
        helper.make_node("MatMul", [first, second], [result])
        for first, second, result in (("flat", "a", "x"), ("x", "b", "y"), ("y", "c", "scores"))
    ]
    graph = graph_of(nodes, {"flat": ("events", 2)}, {"scores": ("events", 1)}, weights)
    onnx.save_model(graph, made / MODEL)
    save_manifest(manifest_of(made / MODEL), made)
    return made


@pytest.mark.long
def test_models_are_kept_by_bytes_and_unloading_gives_memory_back(start_server, tmp_path):
    made = heavy_bundle(tmp_path / "heavy")
    repository = Repository(tmp_path / "repo")
    repository.publish(make_bundle(tmp_path / "flat"), "flat")
    for number in range(4):
        repository.publish(made, f"heavy{number}")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--max-model-bytes", str(100 * MB)])

    def ask(name: str) -> int:
        body = {"events": [{"HT": 1.0, "MET_pt": 2.0}]}
        return httpx.post(f"{server.url}/models/{name}/predict", json=body, timeout=60).status_code

    def settled(most: int) -> int:
        end, grown = time.monotonic() + 8, 1 << 60
        while grown > most and time.monotonic() < end:
            grown = resident(server.children()["worker"]) - before
        return grown

    assert ask("flat") == 200
    before = resident(server.children()["worker"])
    assert [ask(f"heavy{number}") for _ in range(2) for number in range(4)] == [200] * 8
    assert settled(140 * MB) < 140 * MB  # two of four; each is kept packed for the processor
    for number in range(4):
        assert httpx.post(f"{server.url}/v2/repository/models/heavy{number}/unload").status_code == 200
    assert settled(25 * MB) < 25 * MB
