"""Protocols: each road that a path takes leads to one, and each says what is wrong in its own words."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from models import make_bundle

from serve import routes
from serve.errors import ServeError
from serve.messages import Reply, Request
from serve.models.engine import LONG, Engine
from serve.models.repository import Repository
from serve.protocols.protocol import PROTOCOLS, Protocol
from serve.settings import Settings

NAMES = PROTOCOLS.names()


def test_each_road_of_a_path_leads_to_a_protocol() -> None:
    sources = "".join(path.read_text() for path in Path(routes.__file__).parent.glob("*.py"))
    roads = set(re.findall(r'road="([a-z0-9-]+)"', sources))
    assert roads == {"physics", "v2", "image"}  # and those of TFaaS, by the kind of the body
    assert roads | {"tfaas-json", "tfaas-proto"} <= set(NAMES)
    assert all(isinstance(PROTOCOLS.find(name), Protocol) for name in NAMES)


@pytest.mark.parametrize("size", [1, LONG + 1])
@pytest.mark.parametrize("name", NAMES)
def test_what_can_not_be_read_is_an_answer_of_its_own(tmp_path: Path, name: str, size: int) -> None:
    """However long it is, and beside a good request, which is answered."""
    Repository(tmp_path / "models").publish(make_bundle(tmp_path / "flat"), "flat")
    good = Request(road="physics", model="flat", version=1, body=b'{"events": [{"HT": 1.0, "MET_pt": 2.0}]}')
    bad = Request(road=name, model="flat", version=1, body=b"\xff" * size)
    found = [
        answer if isinstance(answer, Reply) else [reply for reply in answer if reply is not None][-1]
        for answer in Engine(Settings(models=tmp_path / "models")).answer([bad, good])
    ]
    assert [400 <= found[0].status < 500, found[1].status] == [True, 200]
    assert orjson.loads(found[0].body)["error"]["code"] != ServeError("").code
