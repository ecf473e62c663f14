"""What is no request, too long or too slow, sent through sockets to a real server; and what dead processes leave."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import logging
import resource
import shutil
import socket
import subprocess
import time

import numpy as np
import pytest
import uproot
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from models import FLAT, make_bundle
from servers import HERE, Handle, announced, cpu_seconds, kill, launch, poll
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from lanes_for_tests import thinned
from serve.app import http
from serve.app.http import MAX_HEAD
from serve.codec import media
from serve.messages import Request
from serve.models.engine import Engine
from serve.models.repository import Repository
from serve.settings import Settings

WHOLE = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    temporary = tmp_path_factory.mktemp("s")
    process = launch([str(HERE / "toy.py"), json.dumps({"timeout": 0.6})], temporary=temporary)
    handle = Handle(process, "", temporary, temporary / "log")
    handle.url = announced(handle, seconds=60)
    yield handle
    pids = handle.all_pids()
    handle.stop()
    for pid in pids:
        kill(pid)
    process.stdout.close()


def connect(server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=15)


def exchange(server, *pieces: bytes) -> bytes:
    """Send pieces and return all that comes until the server closes."""
    with connect(server) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def one_answer(connection: socket.socket) -> bytes:
    """Read one answer with a length."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    assert len(body) == length
    return head + b"\r\n\r\n" + body


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert {b"content-type: application/json", b"connection: close", b"content-length: %d" % len(body)} <= set(lines)
    assert any(line.startswith(b"date:") for line in lines)
    error = json.loads(body)["error"]
    assert error["message"]
    return int(head.split(b" ")[1]), error["code"]


NOT_HTTP = {
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "method": b"EAT / HTTP/1.1\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
    "header": b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n",
    "length": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "both": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk": b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "no host": b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
    "no host's name": b"GET /ready HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "two hosts": b"GET /ready HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "two hosts in one": b"GET /ready HTTP/1.1\r\nHost: x, y\r\n\r\n",
    "two old hosts": b"GET /ready HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "two codings": b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "coding twice": b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\nhi",
    "old coding": b"POST /echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "proxy": b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n",
    "wish and two codings": b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_can_not_be_read_gets_an_error_and_no_line_in_the_log(server, name):
    before = server.log.read_text()
    assert error_of(exchange(server, NOT_HTTP[name])) == (400, "bad_request")
    assert server.log.read_text() == before


def head_of(size: int) -> bytes:
    """Make a good request whose head has some bytes, as the limit counts them."""
    start, end = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\nX: ", b"\r\n\r\n"
    counted = len(start) + len(end) - len(b"POST  HTTP/1.1\r\n") - len(b"\r\n")
    return start + b"a" * (size - counted) + end


def test_a_head_may_have_as_many_bytes_as_allowed_and_not_more(server):
    assert exchange(server, head_of(MAX_HEAD - 20)).startswith(b"HTTP/1.1 200")
    assert error_of(exchange(server, head_of(MAX_HEAD + 1))) == (431, "head_too_large")


def test_a_long_head_in_front_of_a_body_is_refused_too(server):
    body = bytes(100_000)
    start = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n" % len(body)
    assert exchange(server, start + b"\r\n" + body).endswith(body)
    assert error_of(exchange(server, start + b"X: " + b"a" * 40_000 + b"\r\n\r\n")) == (431, "head_too_large")


@pytest.mark.parametrize("piece", [b"X: " + b"a" * 500 + b"\r\n", b"a" * 500])
@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nY: "])
def test_an_endless_head_is_cut_off(server, start, piece):
    if start == b"GET /":
        piece = piece.replace(b"\r\n", b"").replace(b" ", b"")
    assert error_of(endless(server, start, piece)) == (431, "head_too_large")


def test_endless_trailers_and_empty_lines_are_cut_off(server):
    chunked = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    assert error_of(endless(server, chunked, b"X: " + b"a" * 500 + b"\r\n")) == (431, "head_too_large")
    assert error_of(endless(server, chunked + b"X: ", b"a" * 500)) == (431, "head_too_large")
    assert error_of(endless(server, b"\r\n", b"\r\n" * 250)) == (431, "head_too_large")


def endless(server, start: bytes, piece: bytes) -> bytes:
    """Send pieces until the server has had enough; it must not take much more than it allows."""
    with connect(server) as connection:
        connection.sendall(start)
        for number in itertools.count():
            assert number * len(piece) < 2 * MAX_HEAD
            connection.setblocking(False)
            try:
                if found := connection.recv(65536):
                    return found
            except BlockingIOError:
                pass
            connection.settimeout(15)
            connection.sendall(piece)
            time.sleep(0.0005)  # so that no piece arrives after the server has closed
    raise AssertionError


@pytest.mark.parametrize("start", [b"G", b"\r\n", b"GET /ready HTTP/1.1\r\n", b"GET /ready HTTP/1.1\r\nHost: x\r\n"])
@pytest.mark.parametrize("before", thinned([b"", WHOLE]))
def test_a_head_that_does_not_come_to_its_end_in_time_is_given_up(server, start, before):
    with connect(server) as connection:
        if before:
            connection.sendall(before)
            assert one_answer(connection).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        connection.sendall(start)
        connection.settimeout(0.05)
        is_open = True
        while is_open:
            assert time.monotonic() - began < 5
            try:
                is_open = connection.recv(100) != b""
            except TimeoutError:
                connection.sendall(b"" if start == b"G" else b"\r\n" if start == b"\r\n" else b"X: y\r\n")
            except ConnectionResetError:
                is_open = False
        assert time.monotonic() - began > 0.5


@pytest.mark.long
def test_a_head_in_slow_pieces_is_answered_and_idle_connections_stay(server):
    with connect(server) as connection:
        for _ in range(2):
            for byte in WHOLE:
                connection.sendall(bytes([byte]))
            assert one_answer(connection).endswith(b"hi")
            time.sleep(0.8)  # longer than a head may take
        connection.sendall(WHOLE * 3)
        for _ in range(3):
            assert one_answer_of_many(connection).endswith(b"hi")


def one_answer_of_many(connection: socket.socket) -> bytes:
    """Read one answer byte by byte, so that nothing of the next is taken."""
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        found += connection.recv(1)
    return found + connection.recv(2)


def test_a_head_begun_while_an_answer_is_made_does_not_cut_it_off(server):
    slow = b"POST /echo?op=sleep&seconds=1.2&timeout=5 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow"
    with connect(server) as connection:
        connection.sendall(slow + WHOLE[:10])
        assert one_answer(connection).endswith(b"slow")
        connection.sendall(WHOLE[10:])
        assert one_answer(connection).endswith(b"hi")


BROKEN = {
    "method": b"EAT / HTTP/1.1\r\n\r\n",
    "no host": b"GET /ready HTTP/1.1\r\n\r\n",
    "chunk": b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nxyz\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("is_apart", [True, False])
def test_good_requests_in_front_of_a_broken_one_are_answered_first(server, name, is_apart):
    slow = b"POST /echo?op=sleep&seconds=0.3&timeout=5 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow"
    for good, bodies in ((slow, [b"slow"]), (slow + WHOLE, [b"slow", b"hi"]), (WHOLE, [b"hi"])):
        sent = (good, BROKEN[name]) if is_apart else (good + BROKEN[name],)
        rest_of_it = exchange(server, *sent, *([] if is_apart else [WHOLE]))
        for body in bodies:
            head, _, rest_of_it = rest_of_it.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert rest_of_it.startswith(body)
            rest_of_it = rest_of_it.removeprefix(body)
        assert error_of(rest_of_it) == (400, "bad_request")


UPGRADE = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: "
SENT = {
    "none": (b"", b"", b""),
    "empty": (b"Content-Length: 0\r\n", b"", b""),
    "length": (b"Content-Length: 2\r\n", b"hi", b"hi"),
    "large": (b"Content-Length: 300000\r\n", b"x" * 300_000, b"x" * 300_000),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b"2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n", b"hi!"),
    "expected": (b"Expect: 100-continue\r\nContent-Length: 2\r\n", b"hi", b"hi"),
}


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0"])
@pytest.mark.parametrize("name", SENT)
def test_a_wish_for_another_protocol_is_passed_over(server, protocol, name):
    header, body, expected = SENT[name]
    before = server.log.read_text()
    whole = b"POST /echo HTTP/1.1\r\n" + UPGRADE + protocol + b"\r\n" + header + b"\r\n" + body
    with connect(server) as connection:
        for pieces in ([whole], [whole + WHOLE], [whole[i : i + 7] for i in range(0, min(len(whole), 350), 7)]):
            for piece in pieces[:-1] if len(pieces) > 2 else pieces:
                connection.sendall(piece)
            if len(pieces) > 2:
                connection.sendall(whole[len(b"".join(pieces[:-1])) :])
            if name == "expected":
                assert through_head(connection).startswith(b"HTTP/1.1 100")
            assert exact_answer(connection) == expected
            if pieces == [whole + WHOLE]:
                assert exact_answer(connection) == b"hi"
        connection.sendall(whole * 2 + WHOLE)  # in a row, each with the wish
        for text in (expected, expected, b"hi"):
            while (head := through_head(connection)).startswith(b"HTTP/1.1 100"):
                pass
            assert read_body(connection, head) == text
    assert server.log.read_text() == before


def through_head(connection: socket.socket) -> bytes:
    """Read a head and nothing after it."""
    found = b""
    while not found.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, found
        found += piece
    return found


def read_body(connection: socket.socket, head: bytes) -> bytes:
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    found = b""
    while len(found) < length:
        found += connection.recv(length - len(found))
    return found


def exact_answer(connection: socket.socket) -> bytes:
    """Read the body of one answer, and nothing after it."""
    return read_body(connection, through_head(connection))


def test_spaces_behind_the_value_of_a_header_are_no_part_of_it(server):
    with connect(server) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x \t\r\nContent-Length: 2 \r\n\r\nhi")
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("word", [b"keep-alive", b"Keep-Alive"])
def test_an_old_client_may_keep_its_connection(server, word):
    asked = b"POST /echo HTTP/1.0\r\nConnection: " + word + b"\r\nContent-Length: 2\r\n\r\nhi"
    with connect(server) as connection:
        for _ in range(2):
            connection.sendall(asked)
            head = through_head(connection)
            assert b"connection: keep-alive" in head
            assert b"transfer-encoding" not in head
            assert read_body(connection, head) == b"hi"
        connection.sendall(asked.replace(word, b"close"))
        head = through_head(connection)
        assert b"connection: close" in head
        assert rest(connection) == b"hi"
    assert exchange(server, b"GET /ready HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_that_would_like_http2_is_answered(server):
    command = ["curl", "--silent", "--show-error", "--http2", "--data-binary", "@-", f"{server.url}/echo"]
    for body in (b"hi", b"x" * 200_000):
        assert subprocess.run(command, input=body, capture_output=True, check=True, timeout=20).stdout == body


JAVA = """
import java.net.URI;
import java.net.http.*;
public class Ask {
    public static void main(String[] words) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 3; i++) {
            var body = HttpRequest.BodyPublishers.ofString("hi".repeat(1 + 50_000 * i));
            var request = HttpRequest.newBuilder(URI.create(words[0])).POST(body).build();
            var answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body().length());
        }
    }
}
"""


@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a Java compiler")
def test_the_client_of_java_is_answered(server, tmp_path):
    (tmp_path / "Ask.java").write_text(JAVA)
    command = ["java", "-XX:TieredStopAtLevel=1", str(tmp_path / "Ask.java"), f"{server.url}/echo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:3] == ["200 2", "200 100002", "200 200002"], done.stderr


def test_waiting_for_silent_clients_costs_nothing(server):
    connections = [connect(server) for _ in range(50)]
    pids = server.children()["api"]
    before = cpu_seconds(pids)
    for connection in connections:
        connection.sendall(b"GET /")
    for connection in connections:
        assert rest(connection) == b""
        connection.close()
    assert cpu_seconds(pids) - before < 0.5


def test_bodies_of_a_killed_process_are_removed(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "bundle"), "flat")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0"])
    head = b"POST /models/flat/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-root\r\n"
    with connect(server) as connection:
        connection.sendall(head + b"Content-Length: 100\r\n\r\nroot")
        [body] = poll(lambda: list(server.temporary.rglob("body-*")))
        scores, other = body.with_name(f"{body.name}.scores"), body.with_name("body-1-0")
        scores.touch()
        other.touch()
        kill(server.children()["api"][0])
        poll(lambda: list(server.temporary.rglob("body-*")) == [other], seconds=15)


@pytest.mark.parametrize("accept", [media.ROOT, media.ARROW, media.JSON])
def test_scores_that_nobody_waits_for_are_removed(tmp_path, accept):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "bundle"), "flat")
    path = tmp_path / "work" / "body"
    path.parent.mkdir()
    with uproot.recreate(path) as file:
        file["Events"] = {name: np.ones(10, np.float32) for name in FLAT}
    request = Request(road="physics", model="flat", version=1, content_type=media.ROOT, path=str(path), accept=accept)
    engine = Engine(Settings(models=tmp_path / "repo"))
    steps = engine.begin(request)
    assert next(steps) is None
    steps.close()
    assert list(path.parent.iterdir()) == [path]
    *_, reply = engine.begin(request)
    assert path.with_name("body.scores").samefile(reply.path)  # that of a finished job stays


@pytest.mark.long
def test_a_client_that_does_not_read_its_answer_is_cut_off(server):
    body = bytes(64_000_000)
    with connect(server) as connection:
        head = b"POST /bare HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        time.sleep(2.5)  # longer than the server waits; that is what is tried
        found = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                found += len(piece)
    assert found < len(body)


@pytest.mark.long
def test_idle_connections_make_room_for_others(start_toy):
    server = start_toy(max_connections=8)
    idle = [connect(server) for _ in range(60)]
    try:
        for _ in range(3):
            answer = exchange(server, WHOLE.replace(b"Host: x", b"Host: x\r\nConnection: close"))
            assert answer.startswith(b"HTTP/1.1 200")
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.long
def test_the_probe_gets_through_where_few_files_may_be_open(tmp_path_factory):
    temporary = tmp_path_factory.mktemp("s")
    words = [str(HERE / "toy.py"), "{}"]
    process = launch(words, temporary=temporary, first=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    handle = Handle(process, "", temporary, temporary / "log")
    try:
        handle.url = announced(handle, seconds=60)
        idle = [connect(handle) for _ in range(100)]
        assert handle.is_ready()
        for connection in idle:
            connection.close()
    finally:
        handle.stop()
        process.stdout.close()


@pytest.mark.long
def test_a_body_that_trickles_is_given_up(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "flat"), "flat")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--timeout", "1"])
    head = b"POST /models/flat/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    start = time.monotonic()
    with connect(server) as connection:
        connection.sendall(head)
        connection.setblocking(False)
        found = b""
        while not found and time.monotonic() - start < 10:
            connection.sendall(b" ")
            time.sleep(0.2)  # never a pause of a second
            with contextlib.suppress(BlockingIOError):
                found = connection.recv(1000)
    assert b"body_too_slow" in found


def test_a_connection_is_closed_once_it_has_been_idle_for_long_enough():
    idle = 0.2

    async def app(scope, receive, send):
        await asyncio.sleep(idle * 1.5)  # at work, which is not idle
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, lifespan="off", ws="none", timeout_keep_alive=idle, log_config=None)
    config.load()
    counted = []
    made = functools.partial(
        http.ClientConnection, config, ServerState(), {}, patience=5.0, most=9, count=counted.append
    )

    async def scenario():
        loop = asyncio.get_running_loop()
        async with await loop.create_server(made, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            for _ in range(2):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            answered = loop.time()
            assert await asyncio.wait_for(reader.read(), 10) == b""
            took = loop.time() - answered
            writer.close()
            await writer.wait_closed()
            return took

    assert asyncio.run(scenario()) > 0.9 * idle
    assert not counted


class Recorded:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written, self.closed = [], 0

    def write(self, data):
        self.written.append(bytes(data))

    def close(self):
        self.closed += 1


WORDS = st.sampled_from([b"a", b"text/plain", b"close", b"keep-alive", b"chunked", b"7", b"x\ny", b""])
NAMES = st.sampled_from([b"x-a", b"X-B", b"connection", b"transfer-encoding", b"content-type"])


@given(
    status=st.sampled_from([200, 204, 304, 404, 503]),
    headers=st.lists(st.tuples(NAMES, WORDS), max_size=4),
    body=st.binary(max_size=9),
    length=st.none() | st.integers(-1, 1),
    rest=st.lists(st.binary(max_size=5), max_size=2),
    method=st.sampled_from(["GET", "POST", "HEAD"]),
    keep_alive=st.booleans(),
    is_gone=st.booleans(),
    pair=st.sampled_from([tuple, list]),  # ASGI allows both
)
def test_an_answer_written_at_once_is_the_one_that_uvicorn_writes(
    status, headers, body, length, rest, method, keep_alive, is_gone, pair
):
    if length is not None:
        headers = [*headers, (b"content-length", b"%d" % (len(body) + sum(map(len, rest)) + length))]
    pieces = [body, *rest]
    messages = [{"type": "http.response.start", "status": status, "headers": list(map(pair, headers))}] + [
        {"type": "http.response.body", "body": piece, "more_body": i + 1 < len(pieces)}
        for i, piece in enumerate(pieces)
    ]

    async def outcome(kind):
        transport, ended = Recorded(), []
        cycle = kind(
            scope={"type": "http", "method": method, "headers": []},
            transport=transport,
            flow=FlowControl(transport),
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=lambda: ended.append(1),
        )
        cycle.disconnected = is_gone
        error = None
        try:
            for message in messages:
                await cycle.send(dict(message))
        except RuntimeError as caught:
            error = str(caught)
        state = (cycle.response_started, cycle.response_complete, cycle.keep_alive, cycle.message_event.is_set())
        return transport, (b"".join(transport.written), transport.closed, ended, error, state)

    async def both():
        return await outcome(http._Cycle), await outcome(RequestResponseCycle)

    (ours, found), (_, expected) = asyncio.run(both())
    assert found == expected
    is_usual = not headers[:-1] and length == 0 and not rest and method != "HEAD" and not is_gone and pair is tuple
    assert not is_usual or len(ours.written) == 1
