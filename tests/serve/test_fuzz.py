"""Requests that were right and were spoilt on the way: each has an answer, none is a fault of the server.

Every road into a decoder is tried, with bodies that come whole or in chunks, as they are or compressed, and spoilt
before that, after it, or not at all; many requests follow one another on a connection without waiting for answers.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import gzip
import io
import itertools
import json
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
import uproot
from models import make_bundle
from servers import Handle
from spoiling import spoil

from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table
from serve.codec import binary, media, tfaas
from serve.models.repository import Repository

CONNECTIONS = 6
PIPELINED = 16  # requests that are sent before the first answer is read
HONEST = (503, 504)  # no room, no time
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: close\r\n", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A request that is right."""

    path: str
    method: str = "POST"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def calls() -> dict[str, Call]:
    """Make a right request for each road."""
    events = [{"HT": 400.5, "MET_pt": 30.25, "Jet_pt": [50.0, 40.0], "Jet_eta": [0.5, -1.0]}] * 3
    columns = {name: [event[name] for event in events] for name in events[0]}
    table = pa.table(columns)
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    flat = {name: np.array(columns[name], "f4") for name in ("HT", "MET_pt")}
    content = {name: np.array(columns[name], "f4") for name in ("Jet_pt", "Jet_eta")}
    jets = {name: Jagged(offsets_of(np.array([2, 2, 2])), values.ravel()) for name, values in content.items()}
    keys = ["HT", "MET_pt", "Jet_pt[0]", "Jet_eta[0]"]
    row = tfaas.Row(key=keys, value=[400.5, 30.25, 50.0, 0.5], model="jets")
    with tempfile.TemporaryDirectory() as folder:
        with uproot.recreate(f"{folder}/events.root") as written:
            written["Events"] = flat
        file = Path(folder, "events.root").read_bytes()
    tensors = {"flat": np.ones((2, 2), "f4"), "jets": np.ones((2, 2, 4), "f4"), "jets_mask": np.ones((2, 4), "f4")}
    described = [{"name": n, "datatype": "FP32", "shape": list(t.shape)} for n, t in tensors.items()]
    listed = [{**d, "data": t.ravel().tolist()} for d, t in zip(described, tensors.values(), strict=True)]
    sized = [
        {**d, "parameters": {"binary_data_size": t.nbytes}} for d, t in zip(described, tensors.values(), strict=True)
    ]
    head = json.dumps({"id": "1", "inputs": sized, "parameters": {"binary_data_output": True}}).encode()
    scored = "/models/jets/predict"
    return {
        "events": Call(path=scored, body=json.dumps({"events": events}).encode()),
        "explain": Call(path=f"{scored}?explain", body=json.dumps({"events": events}).encode()),
        "columns": Call(path=scored, body=json.dumps({"columns": columns}).encode()),
        "binary": Call(
            path=scored,
            body=binary.encode(Table(num_events=3, columns={**flat, **jets})),
            headers=(("Content-Type", media.COLUMNS), ("Accept", media.COLUMNS)),
        ),
        "arrow": Call(
            path=scored, body=stream.getvalue(), headers=(("Content-Type", media.ARROW), ("Accept", media.ARROW))
        ),
        "file": Call(path="/models/flat/predict?tree=Events", body=file, headers=(("Content-Type", media.ROOT),)),
        "tensors": Call(path="/v2/models/jets/infer", body=json.dumps({"inputs": listed}).encode()),
        "binary tensors": Call(
            path="/v2/models/jets/infer",
            body=head + b"".join(t.tobytes() for t in tensors.values()),
            headers=(("Inference-Header-Content-Length", str(len(head))),),
        ),
        "a time in the body": Call(
            path="/v2/models/jets/infer",
            body=json.dumps({"inputs": listed, "parameters": {"timeout": 5_000_000}}).encode(),
        ),
        "TFaaS in JSON": Call(
            path="/json", body=json.dumps({"keys": keys, "values": [1, 2, 3, 4], "model": "jets"}).encode()
        ),
        "TFaaS in protobuf": Call(
            path="/predict/proto", body=row.SerializeToString(), headers=(("Content-Type", "application/x-protobuf"),)
        ),
        "statistics": Call(method="GET", path="/v2/models/jets/versions/1/stats"),
        "statistics of all": Call(method="GET", path="/v2/models/stats"),
        "by an alias": Call(path="/models/jets/aliases/best/predict", body=json.dumps({"events": events}).encode()),
        "an alias": Call(method="PUT", path="/models/jets/aliases/best", body=b'{"version": 1}'),
        "no alias": Call(method="DELETE", path="/models/jets/aliases/worst"),
    }  # fmt: skip


CALLS = calls()
# A file takes some 30 times as long as another body, and statistics go through all that was counted.
OFTEN = {"file": 0.1, "statistics": 0.1, "statistics of all": 0.1, "an alias": 0.2, "no alias": 0.2}
KINDS = list(CALLS)
CHANCES = np.array([OFTEN.get(kind, 1.0) for kind in KINDS])
CHANCES /= CHANCES.sum()


def request(number: int, *, seed: int) -> tuple[str, bytes]:
    """Make a request, of a kind, with something wrong about it more often than not."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[rng.choice(len(KINDS), p=CHANCES)]
    call = CALLS[kind]
    path, body, headers = call.path, call.body, dict(call.headers)
    coding = rng.choice(["", "", "gzip", "deflate", "raw"]) if body else ""
    place = rng.integers(5)  # of what is wrong: 0 is nothing
    if place == 1 and body:
        body = (
            spoilt_json(body, rng) if body[:1] == b"{" and body[-1:] == b"}" and rng.integers(2) else spoil(body, rng)
        )
    if coding:
        body = (
            gzip.compress(body, 1)
            if coding == "gzip"
            else zlib.compress(body)[2:-4]
            if coding == "raw"
            else zlib.compress(body)
        )
        headers["Content-Encoding"] = "gzip" if coding == "gzip" else "deflate"
    if place == 2 and body:
        body = spoil(body, rng)
    elif place == 3:
        name = rng.choice([*headers, "Content-Type", "Accept", "X-Timeout-Ms", "Content-Encoding"])
        headers[str(name)] = spoilt_text(headers.get(name, "application/json"), rng)
    elif place == 4:
        start, segment = path.rsplit("/", 1)
        segment, mark, query = segment.partition("?")
        path = f"{start}/{quote(spoil(segment.encode(), rng), safe='')}{mark}{query}"
    return kind, framed(call.method, path, headers, body, rng)


ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1e300, 2**63, 2**70, "", "x" * 300, "NaN", [], {}, [[]], [1, "a"], {"a": 1}, [None] * 200,
]  # fmt: skip


def spoilt_json(body: bytes, rng: np.random.Generator) -> bytes:
    """Put something odd in the place of a value, take a value out, or give it another name."""
    document = json.loads(body)
    at: Any = document
    while True:
        places = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not places:
            return body
        place = places[rng.integers(len(places))]
        if not isinstance(at[place], dict | list) or not rng.integers(4):
            break
        at = at[place]
    value = at.pop(place)
    kind = rng.integers(4)
    if kind < 2:
        value = ODD[rng.integers(len(ODD))]
    if isinstance(at, list):
        at[place:place] = [value] * int(kind)
    elif kind < 3:
        at["other" if kind == 2 else place] = value
    return json.dumps(document).encode()


def spoilt_text(text: str, rng: np.random.Generator) -> str:
    """Spoil the value of a header so that HTTP still allows it."""
    return "".join(chr(byte) for byte in spoil(text.encode(), rng) if 32 < byte < 127 or byte > 160)


def framed(method: str, path: str, headers: dict[str, str], body: bytes, rng: np.random.Generator) -> bytes:
    """Write a request with its body as a whole, or in chunks of any size."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in headers.items())]
    if body and rng.integers(2):
        cuts = sorted({0, len(body), *rng.integers(0, len(body), rng.integers(6)).tolist()})
        pieces = [body[low:high] for low, high in itertools.pairwise(cuts)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Read one answer: its status, its body, and whether it is the last of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return int(head[9:12]), body, bool(_CLOSES.search(head))


async def talk(server: Handle, numbers: Iterator[int], *, seed: int, tell: Callable[[str, int, bytes], None]) -> None:
    """Send requests one behind the other; what follows the end of a connection goes through a new one."""
    host, port = server.url.removeprefix("http://").split(":")
    left: collections.deque[tuple[str, bytes]] = collections.deque()
    lost = 0
    while True:
        while len(left) < PIPELINED and (number := next(numbers, None)) is not None:
            left.append(request(number, seed=seed))
        if not left:
            return
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            is_last = False
            while left and not is_last:
                batch = list(left)
                writer.write(b"".join(text for _, text in batch))
                for _ in batch:
                    status, body, is_last = await asyncio.wait_for(answer(reader), 60)
                    kind, _ = left.popleft()
                    tell(kind, status, body)
                    if is_last:
                        break
                lost = 0
                while not is_last and len(left) < PIPELINED and (number := next(numbers, None)) is not None:
                    left.append(request(number, seed=seed))
        except (asyncio.IncompleteReadError, ConnectionError):
            # An end of the connection may overtake the answer to what came before it; the next has to come through.
            lost += 1
            assert lost < 3, left[0]
        finally:
            writer.close()


def check(start_server: Any, tmp_path: Any, *, number: int, seed: int) -> None:
    repository = Repository(tmp_path / "repo")
    for name in ("flat", "jets"):
        repository.publish(make_bundle(tmp_path / name, jets=name == "jets"), name)
    repository.set_alias("jets", "best", 1)
    words = ["--port", "0", "--timeout", "20", "--max-objects", "100", "--max-body", "1000000"]
    server = start_server(["-m", "serve", str(tmp_path / "repo"), *words])
    processes = server.children()
    answers: dict[str, collections.Counter[int]] = {kind: collections.Counter() for kind in KINDS}
    faults: list[tuple[str, int, bytes]] = []

    def tell(kind: str, status: int, body: bytes) -> None:
        answers[kind][status] += 1
        if status >= 500 and status not in HONEST:
            faults.append((kind, status, body[:300]))

    async def scenario() -> None:
        numbers = iter(range(number))
        await asyncio.gather(*(talk(server, numbers, seed=seed, tell=tell) for _ in range(CONNECTIONS)))

    asyncio.run(scenario())
    assert not faults, faults[:5]
    assert sum(count.total() for count in answers.values()) == number
    for kind, statuses in answers.items():
        assert statuses.total() > 0, kind
        assert statuses[200] + statuses[204] + statuses[404] > statuses.total() / 20, (kind, statuses)
        assert kind.startswith("statistics") or sum(n for s, n in statuses.items() if 400 <= s < 500), (kind, statuses)
    honest = sum(statuses[status] for statuses in answers.values() for status in HONEST)
    assert honest <= number / 100, answers
    assert server.children() == processes
    assert "Traceback" not in server.log.read_text()
    assert server.is_ready("/health/ready")


@pytest.mark.long
def test_1000_spoilt_requests(start_server, tmp_path):
    check(start_server, tmp_path, number=1000, seed=1)


@pytest.mark.long
def test_10_000_spoilt_requests(start_server, tmp_path):
    check(start_server, tmp_path, number=10_000, seed=2)


@pytest.mark.matrix
def test_100_000_spoilt_requests(start_server, tmp_path):
    check(start_server, tmp_path, number=100_000, seed=3)
