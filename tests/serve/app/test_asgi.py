"""Errors of any kind become answers in JSON, once, and tell nothing of the inside."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.routing import Route, Router

from serve.app.asgi import Shield
from serve.errors import NoRoom, NotFound, Overloaded
from serve.routes.operations import Paths


def ask(app, path="/models", raw_path=None):
    """Return what a shielded app sends."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": (raw_path or path).encode()}
    asyncio.run(Shield(app, lifespan=app, count=lambda *_: None, log=None)(scope, receive, send))
    return sent


def raising(error):
    async def app(scope, receive, send):
        raise error

    return app


async def started(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("half way")


def test_an_unexpected_error_is_logged_and_tells_nothing(caplog):
    with caplog.at_level(logging.ERROR):
        start, body = ask(raising(RuntimeError("secret")))
    assert start["status"] == 500
    assert json.loads(body["body"])["error"]["code"] == "internal"
    assert b"secret" not in body["body"]
    assert "secret" in caplog.text


def test_an_expected_error_says_what_and_how_to_go_on():
    start, body = ask(raising(Overloaded("too many", field="x", event=3)))
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert (b"x-content-type-options", b"nosniff") in start["headers"]
    error = {"code": "overloaded", "message": "too many", "field": "x", "event": 3}
    assert json.loads(body["body"]) == {"error": error}


def test_the_log_says_why_there_is_no_room(caplog):
    for cause, said in (
        (OSError(28, "No space left on device", "/srv/body"), "No space left on device: /srv/body"),
        (Overloaded("no space for the check"), "no space for the check"),
    ):
        error = NoRoom("full")
        error.__cause__ = cause
        caplog.clear()
        assert ask(raising(error))[0]["status"] == 507
        assert caplog.messages == [f"GET /models failed: {said}"]


def test_the_protocol_gets_a_sentence():
    _, body = ask(raising(NotFound("no such model")), path="/v2/models/x")
    assert json.loads(body["body"]) == {"error": "no such model"}


def test_nothing_is_sent_after_an_answer_has_begun():
    with pytest.raises(RuntimeError, match="half way"):
        ask(started)


def test_a_client_that_left_gets_nothing():
    assert ask(raising(ClientDisconnect())) == []


def test_an_encoded_slash_is_no_slash():
    start, _ = ask(started, path="/models/a/b", raw_path="/models/a%2Fb")
    assert start["status"] == 404


PATTERNS = ["/models/{name}/predict", "/models/{name}/versions/{version}/predict", "/models/{name}", "/", "/models"]
SEGMENTS = st.sampled_from(["models", "versions", "predict", "a", "1", "", "x" * 600])


class Told:
    """Says which pattern was found, and what it made of the path."""

    def __init__(self, pattern, told):
        self.pattern, self.told = pattern, told

    async def __call__(self, scope, receive, send):
        parts = scope.setdefault("path_params", {})
        self.told.append((self.pattern, dict(parts)))
        parts["name"] = "changed"  # by one request, for itself


@given(st.lists(st.lists(SEGMENTS, max_size=6).map(lambda parts: "/" + "/".join(parts)), max_size=8))
def test_paths_lead_where_starlette_leads_them_also_the_second_time(asked):
    told: list[tuple[str, dict[str, str]]] = []
    routes = [Route(pattern, Told(pattern, told), methods=None, name=pattern) for pattern in PATTERNS]
    default = Told("none", told)
    ours, theirs = Paths(routes, default=default), Router(routes, redirect_slashes=False, default=default)

    async def answers(app):
        told.clear()
        for path in [*asked, *asked]:
            await app({"type": "http", "method": "POST", "path": path}, None, None)
        return list(told)

    assert asyncio.run(answers(ours)) == asyncio.run(answers(theirs))
