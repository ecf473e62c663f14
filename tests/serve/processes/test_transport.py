"""Requests on their way from an API process to a worker and back."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import time
import zlib

import httpx
import numpy as np
import pytest
from servers import Handle, poll

from serve.app.memory import Room
from serve.errors import DeadlineExceeded
from serve.messages import Request
from serve.processes.metrics import Metrics
from serve.processes.progress import slots
from serve.processes.transport import LeastBusyPool
from serve.settings import Settings


async def post(server: Handle, query: str, bodies: list[bytes], *, connections: int = 100) -> list[httpx.Response]:
    """Send requests over some connections; return the answers in the order of the bodies."""
    replies: dict[int, httpx.Response] = {}
    left = enumerate(bodies)

    async def client() -> None:
        async with httpx.AsyncClient(timeout=60, verify=False) as http:  # certificates take long to load
            for number, body in left:
                replies[number] = await http.post(f"{server.url}/echo?{query}", content=body)

    await asyncio.gather(*(client() for _ in range(min(connections, len(bodies)))))
    return [replies[number] for number in range(len(bodies))]


@pytest.mark.long
def test_big_bodies_come_back_as_they_were(start_toy):
    server = start_toy(workers=2)
    bodies = [np.random.default_rng(n).bytes(1_000_000) * 64 for n in range(2)] + [b"small" * n for n in range(100)]
    replies = asyncio.run(post(server, "", bodies))
    for body, reply in zip(bodies, replies, strict=True):
        assert reply.status_code == 200
        assert reply.headers["crc"] == str(zlib.crc32(body))
        assert reply.content == body


@pytest.mark.long
def test_big_answers_to_small_requests(start_toy):
    server = start_toy()
    bodies = [bytes([n]) * 1000 for n in range(8)]
    replies = asyncio.run(post(server, "op=grow&times=16000", bodies))
    assert all(reply.content == body * 16_000 for body, reply in zip(bodies, replies, strict=True))


@pytest.mark.long
def test_5000_requests_over_100_connections(start_toy):
    server = start_toy(workers=2)
    bodies = [b"%d" % n * (n % 50) for n in range(5000)]
    replies = asyncio.run(post(server, "", bodies))
    assert [reply.content for reply in replies] == bodies
    assert {reply.status_code for reply in replies} == {200}


@pytest.mark.long
def test_requests_that_wait_are_answered_together(start_toy):
    server = start_toy(max_batch=8)

    async def scenario() -> list[httpx.Response]:
        busy = asyncio.create_task(post(server, "op=sleep&seconds=0.5", [b""]))
        await asyncio.sleep(0.2)
        replies = await post(server, "", [b"%d" % n for n in range(32)])
        await busy
        return replies

    sizes = [int(reply.headers["batch"]) for reply in asyncio.run(scenario())]
    assert max(sizes) == 8


def test_a_bug_is_a_500_for_its_request_and_for_no_other(start_toy):
    server = start_toy()

    async def scenario() -> list[list[httpx.Response]]:
        busy = asyncio.create_task(post(server, "op=sleep&seconds=0.5", [b""]))
        await asyncio.sleep(0.2)
        mixed = await asyncio.gather(*(post(server, "op=bug" if n == 3 else "", [b"%d" % n]) for n in range(8)))
        await busy
        return mixed

    worker = server.children()["worker"]
    replies = [reply for [reply] in asyncio.run(scenario())]
    assert [reply.status_code for reply in replies] == [500 if n == 3 else 200 for n in range(8)]
    assert replies[3].json()["error"]["code"] == "error"
    assert server.children()["worker"] == worker
    assert "a bug" in server.log.read_text()


@pytest.mark.long
def test_the_deadline_holds_where_the_worker_hangs_and_the_worker_is_replaced(start_toy):
    server = start_toy(stalled=1.0)
    worker = server.children()["worker"]
    start = time.monotonic()
    [reply] = asyncio.run(post(server, "op=hang&timeout=0.5", [b""]))
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "deadline_exceeded"
    assert 0.4 < time.monotonic() - start < 1.5
    poll(lambda: server.children()["worker"] not in (worker, []), seconds=10)
    poll(lambda: httpx.post(f"{server.url}/echo", content=b"x").status_code == 200, seconds=20)
    poll(lambda: "stuck" in server.log.read_text())


def test_each_request_has_its_own_deadline(tmp_path):
    """A worker that never answers; the deadlines do not come in the order of the requests."""
    given = [60.0, 0.3, 0.1, 0.2]

    async def scenario() -> list[tuple[float, float]]:
        room, metrics = Room(1_000_000), Metrics(tmp_path / "metrics")
        path, settings = tmp_path / "w", Settings(models=tmp_path)
        found = slots(tmp_path / "progress", workers=1, room=settings.max_batch)
        pool = LeastBusyPool([path], slots=found, settings=settings, metrics=metrics, room=room)

        async def outcome(seconds: float) -> tuple[float, float]:
            start = time.monotonic()
            request = Request(road="toy", model="m", version=1, deadline=start + seconds)
            with pytest.raises(DeadlineExceeded):
                await pool.submit(request)
            return seconds, time.monotonic() - start

        silent = await asyncio.get_running_loop().create_unix_server(asyncio.Protocol, path)
        async with silent, pool.running():
            await pool.complete()
            found[0].rest()
            tasks = [asyncio.create_task(outcome(seconds)) for seconds in given]
            done = [await task for task in tasks if task is not tasks[given.index(60.0)]]
            assert pool.pending == len(given)  # the worker still has them all
            assert not tasks[given.index(60.0)].done()
            tasks[given.index(60.0)].cancel()
        metrics.close()
        return done

    for wanted, took in asyncio.run(scenario()):
        assert wanted - 0.01 < took < wanted + 2.0


@pytest.mark.long
def test_a_request_that_waited_too_long_is_not_worked_on(start_toy):
    server = start_toy(workers=1)

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        busy = asyncio.create_task(post(server, "op=sleep&seconds=1", [b""]))
        await asyncio.sleep(0.2)
        # It would kill the worker if it got there.
        [late] = await post(server, "op=die&timeout=0.2", [b""])
        [done] = await busy
        return late, done

    late, done = asyncio.run(scenario())
    assert (late.status_code, done.status_code) == (504, 200)
    assert httpx.post(f"{server.url}/echo", content=b"x").status_code == 200


@pytest.mark.long
def test_a_stopped_worker_takes_nobodys_time_and_is_replaced(start_toy):
    server = start_toy(workers=2, stalled=1.0)
    stopped = server.children()["worker"][0]
    os.kill(stopped, signal.SIGSTOP)
    replies = asyncio.run(post(server, "timeout=5", [b"x"] * 40, connections=16))
    assert collections.Counter(reply.status_code for reply in replies) == {200: 40}
    poll(lambda: stopped not in server.children()["worker"], seconds=10)
    poll(lambda: "took no work" in server.log.read_text())


@pytest.mark.long
def test_while_no_worker_makes_progress_the_server_is_not_ready_and_says_so_at_once(start_toy):
    server = start_toy(stalled=0.5)

    async def scenario() -> tuple[list[httpx.Response], float]:
        busy = asyncio.create_task(post(server, "op=sleep&seconds=3", [b""]))
        await asyncio.sleep(0.2)
        waiting = asyncio.create_task(post(server, "", [b"x"]))
        await asyncio.to_thread(poll, lambda: not server.is_ready())
        start = time.monotonic()
        [refused] = await post(server, "", [b"x"])
        seconds = time.monotonic() - start
        return [refused, *await waiting, *await busy], seconds

    [refused, waiting, done], seconds = asyncio.run(scenario())
    assert [reply.status_code for reply in (refused, waiting, done)] == [503, 503, 200]
    assert refused.json()["error"]["code"] == waiting.json()["error"]["code"] == "stalled"
    assert seconds < 1
    poll(server.is_ready)


@pytest.mark.long
def test_what_waits_behind_a_long_run_is_answered_by_another_worker(start_toy):
    server = start_toy(workers=2, max_batch=1)

    async def scenario() -> tuple[list[httpx.Response], bool]:
        busy = asyncio.create_task(post(server, "op=sleep&seconds=4", [b""]))
        await asyncio.sleep(0.2)
        replies = await post(server, "", [b"%d" % n for n in range(16)])
        was_busy = not busy.done()
        return [*replies, *await busy], was_busy

    replies, was_busy = asyncio.run(scenario())
    assert {reply.status_code for reply in replies} == {200}
    assert was_busy
    assert len({reply.headers["pid"] for reply in replies[:16]}) == 1


@pytest.mark.long
def test_who_waited_for_a_worker_that_dies_is_answered_by_another(start_toy):
    server = start_toy(workers=2, max_batch=1)

    async def scenario() -> tuple[httpx.Response, list[httpx.Response]]:
        dying = asyncio.create_task(post(server, "op=die_late&seconds=0.2", [b""]))
        await asyncio.sleep(0.1)
        others = await post(server, "", [b"%d" % n for n in range(32)], connections=32)
        return (await dying)[0], others

    dead, others = asyncio.run(scenario())
    assert (dead.status_code, dead.json()["error"]["code"]) == (503, "worker_lost")
    assert {reply.status_code for reply in others} == {200}


@pytest.mark.long
def test_more_than_may_wait_get_a_503(start_toy):
    server = start_toy(max_pending=5, max_batch=1)
    replies = asyncio.run(post(server, "op=sleep&seconds=0.2", [b""] * 30))
    statuses = collections.Counter(reply.status_code for reply in replies)
    assert statuses[200] >= 5
    assert statuses[503] >= 20
    refused = next(reply for reply in replies if reply.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "overloaded"
    assert httpx.post(f"{server.url}/echo", content=b"x").status_code == 200


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"events" * 1000)
    return path


@pytest.mark.long
def test_a_long_job_does_not_hold_up_small_requests(start_toy, file):
    server = start_toy()

    async def scenario() -> tuple[httpx.Response, int]:
        job = asyncio.create_task(post(server, f"path={file}&slices=100&seconds=0.02", [b""]))
        await asyncio.sleep(0.1)
        answered = 0
        while not job.done():
            await post(server, "", [b"x"])
            answered += 1
        return (await job)[0], answered

    reply, answered = asyncio.run(scenario())
    assert reply.content == file.read_bytes()
    assert answered >= 10


@pytest.mark.long
def test_jobs_take_turns(start_toy, file):
    server = start_toy()

    async def scenario() -> list[float]:
        start = time.monotonic()

        async def timed(slices: int) -> float:
            await post(server, f"path={file}&slices={slices}&seconds=0.01", [b""])
            return time.monotonic() - start

        return await asyncio.gather(timed(100), timed(5))

    long, short = asyncio.run(scenario())
    assert short < long / 2


@pytest.mark.long
def test_a_job_that_fails_or_takes_too_long_is_answered(start_toy, file):
    server = start_toy()
    bug, late = asyncio.run(
        asyncio.wait_for(both(server, f"op=bug&path={file}&slices=2&seconds=0.01", file), timeout=30)
    )
    assert bug.status_code == 500
    assert late.status_code == 504
    assert httpx.post(f"{server.url}/echo", content=b"x").status_code == 200


async def both(server: Handle, query: str, file) -> list[httpx.Response]:
    late = f"path={file}&slices=1000&seconds=0.01&timeout=0.3"
    replies = await asyncio.gather(post(server, query, [b""]), post(server, late, [b""]))
    return [reply for [reply] in replies]


@pytest.mark.long
def test_requests_are_counted_over_all_processes(start_toy):
    server = start_toy(workers=2, api_processes=2)
    asyncio.run(post(server, "", [b"x"] * 50, connections=10))
    asyncio.run(post(server, "op=bug", [b"x"] * 3))
    for line in (
        'inference_requests_total{model="echo",road="toy",status="200",version="1"} 50.0',
        'inference_requests_total{model="echo",road="toy",status="500",version="1"} 3.0',
        'inference_count_total{model="echo",version="1"} 50.0',
        "inference_pending_request_count 0.0",
    ):  # the other processes write a moment later
        poll(lambda line=line: line in httpx.get(f"{server.url}/metrics").text.splitlines())
