"""What the server's benchmark measures with: honest load, CPU of whole trees, answers that are checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from benchmarks.serve import load, network, report, roads, rounds, trees

from rootdata.bundle.manifest import MANIFEST, Manifest, open_bundle

ROOT = Path(__file__).parents[1]
Start = Callable[[Callable[[bytes], tuple[int, bytes]]], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server that answers as a function says; give its port."""
    servers: list[ThreadingHTTPServer] = []

    def begin(answer: Callable[[bytes], tuple[int, bytes]]) -> int:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one write for an answer

            def do_POST(self) -> None:
                status, body = answer(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # clients may leave when they like
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return int(server.server_address[1])

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def job(port: int, **changes: object) -> load.Job:
    requests = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(b) + b for b in (b"one", b"three")]
    known = {"port": port, "server": os.getpid(), "requests": requests, "clients": 4, "seconds": 0.5}
    return load.Job(**(known | changes))


def test_each_request_has_its_own_answer(start: Start) -> None:
    done = load.run(job(start(lambda body: (200, body[::-1]))))
    assert done.answered > 20
    assert done.answered == len(done.latencies)
    assert {(number, answer) for number, answer in done.samples} == {(0, b"eno"), (1, b"eerht")}


def test_large_bodies_get_through_both_ways(start: Start) -> None:
    body = np.random.default_rng(1).bytes(3_000_000)
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    done = load.run(job(start(lambda b: (200, b)), requests=[request], clients=2))
    assert all(answer == body for _, answer in done.samples)


def test_an_error_is_not_counted_as_an_answer(start: Start) -> None:
    with pytest.raises(ConnectionError, match="503"):
        load.run(job(start(lambda _: (503, b"busy"))))


@pytest.mark.long
def test_a_stall_is_charged_to_all_that_were_due_meanwhile(start: Start) -> None:
    stalled = threading.Lock()
    seen: list[float] = []

    def answer(_: bytes) -> tuple[int, bytes]:
        with stalled:
            seen.append(time.perf_counter())
            if len(seen) == 20:
                time.sleep(0.5)
        return 200, b"ok"

    done = load.run(job(start(answer), rate=100.0, seconds=1.5))
    # About 50 requests were due in the half second. A generator that waits with them would see a few slow ones alone.
    slow = [latency for latency in done.latencies if latency > 0.1]
    assert len(slow) > 20


@pytest.mark.long
def test_open_load_keeps_to_its_rate(start: Start) -> None:
    done = load.run(job(start(lambda _: (200, b"ok")), rate=100.0, seconds=2.0))
    assert 120 < done.answered < 280  # 200 ± 14, Poisson
    assert done.quantile(0.0) <= done.quantile(0.5) <= done.quantile(0.99) <= done.quantile(1.0)


def test_a_connection_that_the_server_closed_while_it_was_idle_is_made_again(start: Start) -> None:
    generator = load.Generator(job(start(lambda body: (200, body))))
    try:
        first = next(iter(generator.clients.values()))
        first.socket.shutdown(2)
        generator.wait(5.0)
        assert first not in generator.clients.values()
        assert len(generator.free) == len(generator.clients) == 4
    finally:
        generator.close()


BURN = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"


def test_children_are_charged_dead_or_alive() -> None:
    burn_in_child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
    grandchild = f"{burn_in_child}\nprint(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=-1, stdout=-1) as process:
        process.stdout.readline()
        assert trees.cpu_of(process.pid) > 0.29
        assert len(trees.tree(process.pid)) == 2
        assert all(peak > 1 for peak in trees.peaks_of(process.pid).values())
        process.stdin.close()


def test_the_bundle_is_one_that_can_be_loaded(tmp_path: Path) -> None:
    graph = network.make(tmp_path)
    manifest = Manifest.from_dict(json.loads((graph.parent / MANIFEST).read_text()))
    assert open_bundle(graph.parent).columns == manifest.columns == ("signal",)
    scores = network.scores_of(graph, network.make_events(2000))
    assert scores.shape == (2000,)
    assert 0.05 < scores.std() < 0.4  # neither constant nor saturated


def test_wrong_answers_are_noticed() -> None:
    (road, *_) = roads.fastapi()
    expected = np.array([0.25, 0.5], "f4")
    rounds.check(road, [(1, b'{"scores":[0.5]}')], expected)
    for answer in (b'{"scores":[0.50001]}', b'{"scores":[NaN]}', b'{"scores":[0.25]}', b'{"scores":[]}'):
        with pytest.raises(ValueError, match=r"onnxruntime says|JSON|unexpected"):
            rounds.check(road, [(1, answer)], expected)
    with pytest.raises(ValueError, match="no answer"):
        rounds.check(road, [], expected)


def test_binary_columns_are_written_as_they_are_read() -> None:
    events = network.make_events(5)
    body, _ = roads.write_columns(events[:, :1])
    header = re.sub(rb'\{"name": "x0[1-9]".*\]', b"]", body)  # of the first column alone
    assert body.startswith(roads.MAGIC)
    assert header.count(b"x00") == 1
    assert body.endswith(events[:, 0].tobytes() + bytes(4))


def test_promises_are_compared_the_right_way() -> None:
    kept = report.Promise(name="", measured=0.4, sign="<=", bound=0.45)
    broken = report.Promise(name="", measured=0.4, sign=">=", bound=0.45)
    assert (kept.is_kept, broken.is_kept) == (True, False)


@pytest.mark.long
def test_the_whole_benchmark_runs(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.serve", "--quick", "--file", "--json", str(figures)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MLServer is left out" in done.stderr
    result = json.loads(figures.read_text())
    assert {(row["server"]) for row in result["table"]} == {"rootdata", "stock LitServe", "FastAPI"}
    assert [row["road"] for row in result["table"] if row["server"] == "rootdata"] == [
        rounds.name_of(road) for road in roads.project()
    ]
    for row in result["table"]:
        assert row["checked"] > 0
        assert row["rate"] > 0
        assert ("p99_ms" in row) == (row["events"] == 1)
    assert [file["num_events"] for file in result["files"]] == [1_000, 10_000]
    assert len(result["promises"]) == 8
    assert set(result["bare"]) == {"1", "1000"}


COMMANDS = {
    path.stem if path.name != "__main__.py" else path.parent.name: path.read_text()
    for path in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "benchmarks").glob("*/__main__.py")]
    if "ArgumentParser(" in path.read_text()
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_benchmark_says_what_is_typed(name: str) -> None:
    assert f'ArgumentParser(prog="python -m benchmarks.{name}", ' in " ".join(COMMANDS[name].split())


def test_the_benchmarks_that_the_documentation_names_are_there() -> None:
    pages = [page.read_text() for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]]
    named = {name for page in pages for name in re.findall(r"python -m benchmarks\.(\w+)", page)}
    assert named <= set(COMMANDS)
    assert "stream" in named
