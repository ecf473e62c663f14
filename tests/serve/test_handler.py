"""The handler behind a front that is no HTTP: calls in one process, answered by an engine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
import uproot
from models import FLAT, make_bundle

from serve.app.memory import Room
from serve.codec import media
from serve.errors import BadRequest, Forbidden, NotAcceptable, NotFound, Unauthorized, UnsupportedType
from serve.handler import Call, Handler
from serve.keys import Keys
from serve.messages import Reply, Request
from serve.models.engine import Engine
from serve.models.repository import Repository
from serve.processes.metrics import Metrics
from serve.settings import Settings

EVENTS = orjson.dumps({"events": [{"HT": 431.0, "MET_pt": 20.5}, {"HT": 99.5, "MET_pt": 130.0}]})
TENSORS = orjson.dumps({
    "inputs": [{"name": "flat", "datatype": "FP32", "shape": [2, 2], "data": [431.0, 20.5, 99.5, 130.0]}]
})  # fmt: skip
ROW = orjson.dumps({"keys": ["HT", "MET_pt"], "values": [431.0, 20.5], "model": "flat"})


class Here:
    """A pool without processes."""

    pending, is_able = 0, True

    def __init__(self, settings: Settings) -> None:
        self._engine = Engine(settings)

    def show_counts_soon(self) -> None:
        pass

    async def submit(self, request: Request) -> Reply:
        if request.path is not None:
            *_, reply = self._engine.begin(request)
            return reply
        [reply] = self._engine.answer([request])
        return reply if isinstance(reply, Reply) else list(reply)[-1]


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[Handler]:
    Repository(tmp_path / "models").publish(make_bundle(tmp_path / "flat"), "flat")
    settings = Settings(models=tmp_path / "models")
    metrics = Metrics(tmp_path / "metrics")
    yield Handler.of(settings, pool=Here(settings), metrics=metrics, folder=tmp_path, room=Room(1 << 20))
    metrics.close()


def asked(handler: Handler, call: Call, body: bytes) -> Reply:
    return asyncio.run(handler.answer(handler.prepare(call), body))


def test_all_protocols_give_the_same_scores(handler: Handler) -> None:
    reply = asked(handler, Call(road="physics", model="flat"), EVENTS)
    expected = orjson.loads(reply.body)["scores"]["signal"]
    assert (reply.status, reply.num_events, reply.headers["X-Model"]) == (200, 2, "flat")
    tensors = asked(handler, Call(road="v2", model="flat", reference=1), TENSORS)
    assert orjson.loads(tensors.body)["outputs"][0]["data"] == expected
    assert orjson.loads(asked(handler, Call(road="tfaas-json", model="flat"), ROW).body) == expected[:1]


def test_what_is_wrong_is_told_before_the_body(handler: Handler) -> None:
    good = Call(road="physics", model="flat")
    for changes, error in (
        ({"model": "none"}, NotFound),
        ({"reference": 2}, NotFound),
        ({"content_type": "text/x-nobody"}, UnsupportedType),
        ({"accept": "text/x-nobody"}, NotAcceptable),
        ({"timeout": "soon"}, BadRequest),
        ({"content_type": media.ROOT, "options": {"explain": ""}}, BadRequest),
    ):
        with pytest.raises(error):
            handler.prepare(good._replace(**changes))
    assert handler.prepare(good._replace(timeout="1500")).seconds == 1.5


def test_a_file_is_answered_by_a_file(handler: Handler, tmp_path: Path) -> None:
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file["Events"] = {name: np.linspace(1, 90, 10, dtype=np.float32) for name in FLAT}
    prepared = handler.prepare(Call(road="physics", model="flat", content_type=media.ROOT, accept=media.ROOT))
    assert prepared.is_file
    reply = asyncio.run(handler.answer_file(prepared, path))
    with uproot.open(str(reply.path)) as scores:
        assert scores["scores"].num_entries == reply.num_events == 10
    other = handler.prepare(Call(road="v2", model="flat"))
    failed = asyncio.run(handler.answer_file(other, path))
    assert (failed.status, failed.path) == (415, None)


def test_who_asks_is_known_by_what_any_front_can_give(handler: Handler, tmp_path: Path) -> None:
    assert handler.authorize({b"host": "localhost:8000"}.get, "predict") is None
    with pytest.raises(Forbidden, match="Host: got 'evil"):
        handler.authorize({b"host": "evil.org"}.get, "predict")
    keys = Keys(tmp_path / "keys")
    secret = keys.create("Lise", scope="predict", expires=None)
    locked = dataclasses.replace(handler, keys=keys)
    assert locked.authorize({b"authorization": f"Bearer {secret}"}.get, "predict") == "Lise"
    with pytest.raises(Unauthorized):
        locked.authorize({}.get, "predict")
    with pytest.raises(Forbidden):
        locked.authorize({b"x-api-key": secret}.get, "admin")
