"""Progress of what is sent: a callback in Python, a line on a terminal, nothing elsewhere."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import SOURCE
from test_client_transport import Scripted, response

from serve.client.asynchronous import AsyncClient
from serve.client.progress import Shown, shown_on
from serve.client.waiting import Client

SIZE = 3_000_123
PUBLISHED = response(201, b'{"name": "big", "version": 4}', Content_Type="application/json")


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted(PUBLISHED)
    yield made
    made.close()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "big.onnx").write_bytes(np.random.default_rng(1).bytes(SIZE))
    return tmp_path / "big.onnx"


def upload(url: str, graph: Path, progress: Any) -> int:
    with Client(url, progress=progress) as client:
        return client.upload("big", graph)


def upload_async(url: str, graph: Path, progress: Any) -> int:
    async def uploaded() -> int:
        async with AsyncClient(url, progress=progress) as client:
            return await client.upload("big", graph)

    return asyncio.run(uploaded())


@pytest.mark.parametrize("upload", [upload, upload_async])
def test_a_callback_hears_of_every_byte(upload: Callable[..., int], server: Scripted, graph: Path) -> None:
    told: list[tuple[int, int, int]] = []
    version = upload(server.url, graph, lambda sent, total: told.append((sent, total, threading.get_ident())))
    assert version == 4
    assert {total for _, total, _ in told} == {SIZE}
    sent = [count for count, _, _ in told]
    assert sent == sorted(set(sent))
    assert (sent[0] < SIZE, sent[-1]) == (True, SIZE)
    assert {thread for _, _, thread in told} == {threading.get_ident()}


def test_a_callback_that_raises_ends_the_upload(server: Scripted, graph: Path) -> None:
    def refuse(sent: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        upload(server.url, graph, refuse)


def test_what_is_no_file_is_not_told(server: Scripted) -> None:
    told: list[tuple[int, int]] = []
    with Client(server.url, progress=lambda *counts: told.append(counts)) as client:
        client.set_alias("big", "production", 4)
    assert told == []


def command(url: str, graph: Path) -> list[str]:
    return [sys.executable, "-m", "serve.client", "--url", url, "upload", "big", str(graph)]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "dumb"}


def on_terminal(words: list[str]) -> tuple[str, str]:
    """Run a command whose standard error is a terminal; return what it writes there, and its output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        output = process.stdout.read() if process.stdout else ""
    os.close(ours)
    return seen.decode(), output


def screen(seen: str) -> str:
    """Return what a terminal shows in the end."""
    shown: list[str] = []
    for line in seen.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).rstrip())
    return "\n".join(shown)


def test_a_terminal_shows_a_line_that_goes(server: Scripted, graph: Path) -> None:
    seen, output = on_terminal(command(server.url, graph))
    assert "of 3 MB sent" in seen
    assert "3 of 3 MB sent; waiting for the answer" in seen
    assert "\n" not in seen
    assert screen(seen) == ""
    assert output == "big\t4\n"


def test_an_error_stands_on_a_line_of_its_own(graph: Path) -> None:
    refusal = response(422, b'{"error": {"code": "invalid_model", "message": "no"}}', Content_Type="application/json")
    server = Scripted(refusal)
    try:
        seen, output = on_terminal(command(server.url, graph))
    finally:
        server.close()
    assert "waiting for the answer" in seen
    assert screen(seen).startswith("serve.client: ")
    assert "waiting" not in screen(seen)
    assert output == ""


def test_nothing_is_shown_where_there_is_no_terminal(server: Scripted, graph: Path) -> None:
    done = subprocess.run(command(server.url, graph), capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert (done.stdout, done.stderr) == ("big\t4\n", "")


def test_a_closed_stream_shows_nothing() -> None:
    with shown_on(None) as none, shown_on(io.StringIO()) as text:
        assert none is text is None


def test_the_line_is_written_ten_times_a_second_at_most() -> None:
    times, stream = iter(i / 100 for i in range(1000)), io.StringIO()
    shown = Shown(stream, clock=lambda: next(times))
    for megabytes in range(1, 501):
        shown(megabytes * 1_000_000, 500_000_000)
    assert 45 < stream.getvalue().count("\r") < 60
    assert stream.getvalue().endswith("500 of 500 MB sent; waiting for the answer")
    shown.clear()
    assert screen(stream.getvalue()) == ""


def test_what_is_small_shows_nothing() -> None:
    stream = io.StringIO()
    Shown(stream)(1000, 1000)
    assert stream.getvalue() == ""
