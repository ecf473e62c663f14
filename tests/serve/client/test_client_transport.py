"""What goes wrong between client and server: real sockets that answer late, wrongly, in part or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import free_port

from rootdata import columnar
from rootdata.table import Table
from serve.client.asynchronous import AsyncClient
from serve.client.errors import ClientError, InvalidInput, ServerError, Unreachable
from serve.client.scores import Scores
from serve.client.waiting import Client
from serve.codec import media

SCORES = columnar.encode(Table(num_events=1, columns={"signal": np.array([0.5], np.float32)}))
Say = Callable[[socket.socket], None]


def response(status: int, body: bytes = b"", *, length: int | None = None, **headers: str) -> bytes:
    known = {"Content-Length": str(len(body) if length is None else length), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in known.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


GOOD = response(200, SCORES, Content_Type=media.COLUMNS, X_Model="ttH", X_Model_Version="3")


class Scripted:
    """A server that says, to one connection after the other, what it was told to; the last thing for ever."""

    def __init__(self, *says: bytes | Say) -> None:
        self.says, self.requests = list(says), []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.requests.append(read(connection))
                say = self.says[min(len(self.requests), len(self.says)) - 1]
                connection.sendall(say) if isinstance(say, bytes) else say(connection)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def broken() -> bytes:
    raise ConnectionError("the client has left")


def read(connection: socket.socket) -> bytes:
    """Read a request, its body as long as it says."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536) or broken()
    return head + b"\r\n\r\n" + body


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def start(*says: bytes | Say) -> Scripted:
        made.append(Scripted(*says))
        return made[-1]

    yield start
    for server in made:
        server.close()


def ask_async(url: Any, **options: Any) -> Scores:
    async def asked() -> Scores:
        async with AsyncClient(url, **options) as client:
            return await client.predict("ttH", {"HT": [1.0]})

    return asyncio.run(asked())


def ask(url: Any, **options: Any) -> Scores:
    with Client(url, **options) as client:
        return client.predict("ttH", {"HT": [1.0]})


both = pytest.mark.parametrize("ask", [ask, ask_async])


def test_a_stale_connection_is_replaced(scripted: Any) -> None:
    alive = GOOD.replace(b"close", b"keep-alive")  # which is a lie: the server closes it after each answer
    server = scripted(alive)
    with Client(server.url) as client:
        assert [client.predict("ttH", {"HT": [1.0]})["signal"][0] for _ in range(3)] == [0.5] * 3


@pytest.mark.long
@both
def test_overload_is_ridden_out(ask: Any, scripted: Any) -> None:
    busy = response(503, b'{"error":{"code":"overloaded","message":"busy"}}', Retry_After="1")
    server, start = scripted(busy, GOOD), time.monotonic()
    scores = ask(server.url)
    assert (scores.version, scores["signal"].tolist()) == (3, [0.5])
    assert time.monotonic() - start >= 1
    assert len(server.requests) == 2


@both
def test_overload_without_end_is_told(ask: Any, scripted: Any) -> None:
    busy = response(503, b'{"error":{"code":"overloaded","message":"1024 requests wait"}}')
    server = scripted(busy)
    with pytest.raises(ServerError, match=r"1024 requests wait .*503 overloaded.*try again later") as caught:
        ask(server.url, retries=2)
    assert caught.value.status == 503
    assert len(server.requests) == 3


@both
@pytest.mark.parametrize("broken", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"nonsense\r\n\r\n"])
def test_a_broken_answer_is_asked_for_again(ask: Any, broken: bytes, scripted: Any) -> None:
    server = scripted(broken, GOOD)
    assert ask(server.url)["signal"].tolist() == [0.5]


@both
def test_the_next_server_is_asked_where_one_is_away(ask: Any, scripted: Any) -> None:
    server = scripted(GOOD)
    assert ask([f"http://127.0.0.1:{free_port()}", server.url])["signal"].tolist() == [0.5]


def test_the_server_that_answered_is_asked_first_from_then_on(scripted: Any) -> None:
    first, second = scripted(response(502)), scripted(GOOD)
    with Client([first.url, second.url]) as client:
        for _ in range(3):
            client.predict("ttH", {"HT": [1.0]})
    assert (len(first.requests), len(second.requests)) == (1, 3)


@both
def test_nobody_there_names_the_address(ask: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=f"{url}: no answer .*refused; asked 2 times.*python -m serve"):
        ask(url, retries=1)


@pytest.mark.long
@both
@pytest.mark.parametrize("head", [b"", GOOD[: GOOD.index(b"RDCOLS")]])
def test_the_timeout_bounds_the_whole(ask: Any, head: bytes, scripted: Any) -> None:
    def drip(connection: socket.socket) -> None:
        connection.settimeout(0.05)
        connection.sendall(head)
        for byte in GOOD[len(head) :]:
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return
            if head:
                connection.sendall(bytes([byte]))

    server, start = scripted(drip), time.monotonic()
    with pytest.raises(Unreachable, match="in time"):
        ask(server.url, timeout=1.0)
    assert time.monotonic() - start < 3


def test_a_key_travels_as_the_server_wants_it(scripted: Any) -> None:
    server = scripted(GOOD)
    ask(server.url, key="rk_1_x")
    assert b"authorization: bearer rk_1_x" in server.requests[0].lower()
    assert b"x-timeout-ms: " in server.requests[0].lower()


def test_uploads_are_not_repeated_once_they_were_sent(scripted: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x" * 1000)
    server = scripted(b"")
    with Client(server.url) as client, pytest.raises(Unreachable, match="may have been done: look before you repeat"):
        client.upload("ttH", tmp_path)
    assert len(server.requests) == 1


def test_uploads_find_a_server_that_is_there(scripted: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x" * 1000)
    server = scripted(response(201, b'{"name": "ttH", "version": 7}', Content_Type="application/json"))
    with Client([f"http://127.0.0.1:{free_port()}", server.url]) as client:
        assert client.upload("ttH", tmp_path, tags=["a", "b"]) == 7
    assert server.requests[0].startswith(b"POST /models/ttH/versions?tag=a&tag=b HTTP")


def test_half_an_answer_leaves_no_file(scripted: Any, tmp_path: Path) -> None:
    server = scripted(response(200, b"root...", length=100))
    (tmp_path / "in.root").write_bytes(b"root")
    with Client(server.url, retries=1) as client, pytest.raises(Unreachable):
        client.predict_file("ttH", tmp_path / "in.root", tmp_path / "out.root")
    assert [p.name for p in tmp_path.iterdir()] == ["in.root"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (response(404, b"<html><h1>nginx</h1>\n not here</html>"), "<html><h1>nginx</h1> not here</html> .*404 error"),
        (response(500), "an error without words"),
        (response(400, b'{"error": "no object"}'), "no object"),
        (response(200, b"hello"), "can't be read.*prediction server"),
        (response(200, b"{}", Content_Type="application/json"), "can't be read"),
        (response(200, SCORES, Content_Type=media.COLUMNS), "can't be read.*x-model"),
        (response(301, b"", Location="http://elsewhere"), "301"),
    ],
)
def test_answers_of_somebody_else_are_errors(said: bytes, words: str, scripted: Any) -> None:
    with pytest.raises(ServerError, match=words):
        ask(scripted(said).url)


def test_events_are_counted_over_all_requests(scripted: Any) -> None:
    bad = response(422, b'{"error":{"code":"invalid_events","message":"HT of event 1: bad","field":"HT","event":1}}')
    server = scripted(GOOD, bad)
    with (
        Client(server.url, events_per_request=2) as client,
        pytest.raises(ServerError, match="it is event 3") as caught,
    ):
        client.predict("ttH", {"HT": [1.0, 2.0, 3.0, 4.0]})
    assert (caught.value.event, caught.value.field, caught.value.code) == (3, "HT", "invalid_events")
    assert b"POST /models/ttH/versions/3/predict" in server.requests[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "127.0.0.1:8000"}, "url: got '127.0.0.1:8000'"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://[x"}, "url"),
        ({"url": []}, "url: got none"),
        ({"url": "http://x", "key": "two words"}, "key"),
        ({"url": "http://x", "key": "line\nbreak"}, "key"),
        ({"url": "http://x", "key": "schlüssel"}, "key"),
    ],
)
def test_a_client_checks_what_it_is_given(given: dict[str, Any], words: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidInput, match=words):
            kind(**given)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.predict("", []), "empty name"),
        (lambda c: c.predict("a", 7), "events: got int"),
        (lambda c: c.predict("a", [1]), "events: got list"),
        (lambda c: c.predict("a", [], version=1, alias="b"), "give one"),
        (lambda c: c.predict("a", "nothing.root"), "nothing.root is no file"),
        (lambda c: c.predict("a", __file__, explain=True), "explain"),
        (lambda c: c.predict_file("a", __file__, "scores.csv"), "ends in .root"),
        (lambda c: c.predict_file("a", __file__, "/nowhere/scores.root"), "folder '/nowhere' does not exist"),
        (lambda c: c.upload("a", "/nowhere"), "expected the folder of a bundle"),
    ],
)
def test_what_can_not_be_sent_is_not(call: Any, words: str, scripted: Any) -> None:
    server = scripted(GOOD)
    with Client(server.url) as client, pytest.raises(InvalidInput, match=words):
        call(client)
    assert server.requests == []


def test_every_error_is_a_client_error() -> None:
    assert issubclass(InvalidInput, ClientError)
    assert issubclass(Unreachable, ClientError)
    assert issubclass(ServerError, ClientError)
