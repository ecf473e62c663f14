"""Processes that are killed, stopped and overloaded, as seen by clients."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import os
import signal
import socket
import time
import zlib
from pathlib import Path

import httpx
import pytest
from servers import HERE, Handle, cpu_seconds, is_alive, kill, launch, poll


async def load(url: str, *, until: asyncio.Event, clients: int = 20) -> collections.Counter[str]:
    """Send requests until told to stop; count the answers, each checked against what was sent."""
    counts: collections.Counter[str] = collections.Counter()

    async def client(number: int) -> None:
        async with httpx.AsyncClient(verify=False, timeout=20) as http:
            for turn in itertools.count():
                if until.is_set():
                    return
                counts[await ask(http, url, f"{number}-{turn}-".encode() * (number + 1))] += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return counts


async def ask(http: httpx.AsyncClient, url: str, body: bytes) -> str:
    try:
        reply = await http.post(f"{url}/echo", content=body)
    except httpx.TimeoutException:
        return "hang"
    except httpx.TransportError:
        await asyncio.sleep(0.01)
        return "connection"
    if reply.status_code == 200:
        return "200" if reply.content == body and reply.headers["crc"] == str(zlib.crc32(body)) else "wrong"
    return str(reply.status_code)


async def under_load(server: Handle, act, *, before: float = 0.5, after: float = 0.5) -> collections.Counter[str]:
    """Run ``act`` in a thread while clients send requests."""
    until = asyncio.Event()
    loading = asyncio.create_task(load(server.url, until=until))
    await asyncio.sleep(before)
    await asyncio.to_thread(act)
    await asyncio.sleep(after)
    until.set()
    return await loading


def replaced(server: Handle, kind: str, old: set[int]) -> bool:
    now = set(server.children()[kind])
    return len(now) == len(old) and not now & old


def kill_and_wait(server: Handle, kind: str) -> None:
    """Kill the processes of a kind one after the other; wait until others answer in their place."""
    old = set(server.children()[kind])
    for pid in old:
        kill(pid)
        poll(lambda pid=pid: pid not in server.children()[kind] and server.is_ready(), seconds=15)
    poll(lambda: replaced(server, kind, old), seconds=15)


@pytest.mark.long
def test_killed_workers_are_replaced_and_every_request_is_answered(start_toy):
    server = start_toy(workers=2)
    old = set(server.children()["worker"])
    counts = asyncio.run(under_load(server, lambda: kill_and_wait(server, "worker")))
    assert replaced(server, "worker", old)
    assert counts["200"] > 100
    assert set(counts) <= {"200", "503"}


@pytest.mark.long
def test_killed_api_processes_are_replaced_and_no_answer_is_wrong(start_toy):
    server = start_toy(api_processes=2)
    old = set(server.children()["api"])
    counts = asyncio.run(under_load(server, lambda: kill_and_wait(server, "api")))
    assert replaced(server, "api", old)
    assert counts["200"] > 100
    assert set(counts) <= {"200", "503", "connection"}


def test_a_dying_worker_is_answered_for_within_a_second(start_toy):
    server = start_toy(workers=2)
    start = time.monotonic()
    reply = httpx.post(f"{server.url}/echo?op=die", timeout=20)
    assert time.monotonic() - start < 1
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["error"]["code"] == "worker_lost"
    # The other one goes on.
    assert httpx.post(f"{server.url}/echo", content=b"x").status_code == 200


@pytest.mark.long
def test_without_a_worker_there_is_a_503_and_then_an_answer(start_toy):
    server = start_toy()
    kill(server.children()["worker"][0])
    reply = poll(lambda: (r := httpx.post(f"{server.url}/echo", content=b"x", timeout=20)).status_code == 503 and r)
    assert reply.headers["retry-after"] == "1"
    assert not server.is_ready()
    poll(lambda: httpx.post(f"{server.url}/echo", content=b"x", timeout=20).status_code == 200, seconds=15)
    assert server.is_ready()


@pytest.mark.long
def test_a_worker_that_dies_again_and_again_is_started_again_and_again(start_toy):
    server = start_toy()
    for _ in range(3):
        poll(lambda: httpx.post(f"{server.url}/echo?op=die", timeout=20).json()["error"]["code"] == "worker_lost")
        poll(server.is_ready, seconds=20)
    assert "SIGKILL" in server.log.read_text()
    text = httpx.get(f"{server.url}/metrics").text
    assert 'process_restarts_total{process="worker 0"} 3.0' in text


def test_nothing_survives_the_parent(start_toy):
    server = start_toy(workers=2, api_processes=2)
    pids = server.all_pids()
    server.process.kill()
    poll(lambda: not any(is_alive(pid) for pid in pids), seconds=2)
    server.process.wait()
    with pytest.raises(httpx.TransportError):
        httpx.get(server.url)
    poll(lambda: not list(server.temporary.glob("serve-*")), seconds=2)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_requests_are_finished_before_the_end(start_toy, number):
    server = start_toy(workers=2, api_processes=2)
    pids = server.all_pids()

    async def scenario() -> httpx.Response:
        async with httpx.AsyncClient(verify=False, timeout=20) as http:
            asking = asyncio.create_task(http.post(f"{server.url}/echo?op=sleep&seconds=1", content=b"late"))
            await asyncio.sleep(0.3)
            server.process.send_signal(number)
            return await asking

    assert asyncio.run(scenario()).content == b"late"
    assert server.process.wait(10) == 0
    poll(lambda: not any(is_alive(pid) for pid in pids), seconds=1)
    assert not list(server.temporary.glob("serve-*"))


@pytest.mark.long
def test_running_requests_are_finished_where_all_processes_are_told_to_stop(start_toy):
    server = start_toy(workers=2)

    async def scenario() -> httpx.Response:
        async with httpx.AsyncClient(verify=False, timeout=20) as http:
            asking = asyncio.create_task(http.post(f"{server.url}/echo?op=sleep&seconds=1", content=b"late"))
            await asyncio.sleep(0.3)
            for pid in server.all_pids():
                os.kill(pid, signal.SIGTERM)
            return await asking

    assert asyncio.run(scenario()).content == b"late"
    assert server.process.wait(10) == 0


@pytest.mark.long
def test_new_connections_are_refused_while_running_requests_are_finished(start_toy):
    server = start_toy()

    async def scenario() -> None:
        async with httpx.AsyncClient(verify=False, timeout=20) as http:
            asking = asyncio.create_task(http.post(f"{server.url}/echo?op=sleep&seconds=3", content=b"late"))
            await asyncio.sleep(0.3)
            server.process.terminate()
            await asyncio.to_thread(poll, lambda: is_refused(server), seconds=2)
            assert (await asking).content == b"late"

    asyncio.run(scenario())
    assert server.process.wait(10) == 0


def is_refused(server: Handle) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) != 0


@pytest.mark.long
def test_ctrl_c_twice_stops_at_once(start_toy):
    server = start_toy()
    pids = server.all_pids()

    async def scenario() -> float:
        async with httpx.AsyncClient(verify=False, timeout=20) as http:
            asking = asyncio.create_task(http.post(f"{server.url}/echo?op=sleep&seconds=8"))
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.3)
            assert server.process.poll() is None
            start = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.TransportError):
                await asking
            return time.monotonic() - start

    assert asyncio.run(scenario()) < 1
    assert server.process.wait(2) == 130
    poll(lambda: not any(is_alive(pid) for pid in pids), seconds=1)


@pytest.mark.long
def test_the_grace_is_short_where_work_is_long(start_toy):
    server = start_toy(grace=1.0)

    async def scenario() -> None:
        async with httpx.AsyncClient(verify=False, timeout=20) as http:
            asking = asyncio.create_task(http.post(f"{server.url}/echo?op=hang"))
            await asyncio.sleep(0.3)
            start = time.monotonic()
            await asyncio.to_thread(server.stop)
            assert time.monotonic() - start < 4
            await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(scenario())
    assert server.process.returncode == 0


def run_toy(folder: Path, **settings) -> tuple[int, str]:
    with launch([str(HERE / "toy.py"), json.dumps(settings)], temporary=folder) as process:
        status = process.wait(30)
    return status, (folder / "log").read_text()


def test_a_port_in_use_is_said_in_one_sentence(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, log = run_toy(tmp_path, port=port)
    assert status == 2
    assert log.count("\n") == 1
    assert f"127.0.0.1:{port} is in use" in log


def test_an_address_that_can_not_be_used_is_said_in_one_sentence(tmp_path):
    status, log = run_toy(tmp_path, host="192.0.2.1")
    assert status == 2
    assert log.count("\n") == 1
    assert "192.0.2.1" in log


def test_a_temporary_folder_with_too_long_a_path_is_said(tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    status, log = run_toy(folder)
    assert status == 1
    assert "TMPDIR" in log
    assert log.count("\n") == 1
    assert not list(folder.glob("serve-*"))


@pytest.mark.long
def test_a_worker_that_can_not_start_ends_the_server(tmp_path):
    status, log = run_toy(tmp_path, fails=True)
    assert status == 1
    assert "no model can be loaded here" in log
    assert "worker 0 ended 3 times before it was ready" in log.splitlines()[-1]
    assert not list(tmp_path.glob("serve-*"))


@pytest.mark.long
def test_nothing_is_done_while_there_is_nothing_to_do(start_toy):
    server = start_toy(workers=2, api_processes=2)
    assert httpx.post(f"{server.url}/echo", content=b"x").status_code == 200
    pids = server.all_pids()
    time.sleep(0.5)
    before, start = cpu_seconds(pids), time.monotonic()
    time.sleep(4)
    assert (cpu_seconds(pids) - before) / (time.monotonic() - start) <= 0.015


@pytest.mark.long
def test_api_processes_share_the_connections(start_toy):
    server = start_toy(api_processes=2)

    async def scenario() -> collections.Counter[str]:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(verify=False, timeout=20, limits=limits) as http:
            replies = await asyncio.gather(
                *(http.post(f"{server.url}/echo?op=sleep&seconds=0.005") for _ in range(200))
            )
        return collections.Counter(reply.headers["api"] for reply in replies)

    assert len(asyncio.run(scenario())) == 2
