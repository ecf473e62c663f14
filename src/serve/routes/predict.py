"""Scores of events: JSON, binary columns, Arrow or a ROOT file, by version or alias."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serve.app import bodies
from serve.codec import media
from serve.errors import BadRequest, UnsupportedType
from serve.messages import Request
from serve.routes.operations import BINARY, Operation, Schema, answer_of
from serve.routes.site import Site, target

_TAKEN = (media.JSON, media.COLUMNS, media.ARROW, media.ROOT)
_WORDS = {"": True, "1": True, "true": True, "0": False, "false": False}


async def predict(site: Site, request: HttpRequest) -> Response:
    """Score the events of a body."""
    name, reference = target(request)
    version = site.repository.served(name, reference)
    content_type = _content_type(request)
    accept = media.choose(bodies.header(request, b"accept"))
    options = _options(request)
    is_file = content_type == media.ROOT
    seconds = site.seconds(request, site.settings.max_timeout if is_file else site.settings.timeout)
    scoring = functools.partial(
        Request, road="physics", model=name, version=version, content_type=content_type, accept=accept, options=options
    )
    if is_file:
        if "explain" in options:
            raise BadRequest("explain: not offered for ROOT files; send some events as JSON", field="explain")
        return await _predict_file(site, request, scoring, seconds)
    body = await bodies.read(request, site.settings.max_body, pause=site.settings.timeout)
    return answer_of(await site.pool.submit(scoring(body=body, deadline=time.monotonic() + seconds)))


async def _predict_file(site: Site, request: HttpRequest, scoring: Callable[..., Request], seconds: float) -> Response:
    """Score a file that comes as the body; it and the answer lie on disk meanwhile."""
    path = site.new_file()
    try:
        await bodies.save(request, path, site.settings.max_file, pause=site.settings.timeout)
        reply = await site.pool.submit(scoring(path=str(path), deadline=time.monotonic() + seconds))
    except BaseException:
        Path(f"{path}.scores").unlink(missing_ok=True)  # of a worker that did not live to send it
        raise
    finally:
        path.unlink(missing_ok=True)
    return answer_of(reply)


def _content_type(request: HttpRequest) -> str:
    given = (bodies.header(request, b"content-type") or media.JSON).partition(";")[0].strip().lower()
    if given not in _TAKEN:
        raise UnsupportedType(
            f"Content-Type: got {given[:80]!r}; allowed: {', '.join(_TAKEN)} (curl: -H 'Content-Type: {media.JSON}')",
            field="Content-Type",
        )
    return given


def _options(request: HttpRequest) -> dict[str, str]:
    """Read what the query says."""
    if not request.scope["query_string"]:
        return {}
    query, options = request.query_params, {}
    if "explain" in query:
        word = query["explain"].lower()
        if word not in _WORDS:
            raise BadRequest(f"explain: got {word[:40]!r}; expected nothing, true or false", field="explain")
        if _WORDS[word]:
            options["explain"] = ""
    if "tree" in query:
        options["tree"] = query["tree"]
    return options


_NUMBERS: Schema = {"type": "array", "items": {}}
_EVENTS: Schema = {
    "oneOf": [
        {
            "type": "object",
            "title": "one object for each event",
            "required": ["events"],
            "additionalProperties": False,
            "properties": {"events": {"type": "array", "items": {"type": "object"}}},
        },
        {
            "type": "object",
            "title": "one list for each branch",
            "required": ["columns"],
            "additionalProperties": False,
            "properties": {
                "columns": {"type": "object", "additionalProperties": _NUMBERS},
                "counts": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
            },
        },
    ]
}
_SCORES: Schema = {
    "type": "object",
    "required": ["model", "version", "num_events", "scores"],
    "properties": {
        "model": {"type": "string"},
        "version": {"type": "integer"},
        "num_events": {"type": "integer"},
        "scores": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}},
        "explain": {"type": "array", "items": {"type": "object"}},
    },
}

OPERATIONS = (
    Operation(
        method="POST",
        paths=(
            "/models/{name}/predict",
            "/models/{name}/versions/{version}/predict",
            "/models/{name}/aliases/{alias}/predict",
        ),
        answer=predict,
        summary="Score events by branch name",
        query={
            "explain": {"type": "boolean", "description": "say what is unlike the training events; JSON answers only"},
            "tree": {"type": "string", "description": "of a ROOT file; by default its only one"},
        },
        header={"X-Timeout-Ms": {"type": "integer", "minimum": 1}},
        body={media.JSON: _EVENTS, media.COLUMNS: BINARY, media.ARROW: BINARY, media.ROOT: BINARY},
        gives={media.JSON: _SCORES, media.COLUMNS: BINARY, media.ARROW: BINARY, media.ROOT: BINARY},
    ),
)
