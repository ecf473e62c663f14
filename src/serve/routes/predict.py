"""Scores of events: JSON, binary columns, Arrow, a ROOT file or a format of one's own, by version or alias."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serve.app import bodies
from serve.errors import BadRequest
from serve.formats.known import Formats
from serve.handler import Call, Handler
from serve.routes.operations import Operation, answer_of, target

_WORDS = {"": True, "1": True, "true": True, "0": False, "false": False}


async def predict(handler: Handler, request: HttpRequest) -> Response:
    """Score the events of a body."""
    name, reference = target(request)
    prepared = handler.prepare(
        Call(
            road="physics",
            model=name,
            reference=reference,
            content_type=bodies.header(request, b"content-type") or None,
            accept=bodies.header(request, b"accept"),
            options=_options(request),
            timeout=bodies.header(request, b"x-timeout-ms"),
        )
    )
    pause = handler.settings.timeout
    if not prepared.is_file:
        body = await bodies.read(request, handler.settings.max_body, pause=pause)
        return answer_of(await handler.answer(prepared, body))
    path = handler.new_file()  # it and the answer lie on disk meanwhile
    try:
        await bodies.save(request, path, handler.settings.max_file, pause=pause)
        return answer_of(await handler.answer_file(prepared, path))
    finally:
        path.unlink(missing_ok=True)


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


def operations(formats: Formats) -> tuple[Operation, ...]:
    """Say what can be asked of a server that has these formats."""
    return (
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
                "explain": {
                    "type": "boolean",
                    "description": "say what is unlike the training events; JSON answers only",
                },
                "tree": {
                    "type": "string",
                    "description": "of a ROOT file; by default its only one, or that which the model was trained on",
                },
            },
            header={"X-Timeout-Ms": {"type": "integer", "minimum": 1}},
            body=formats.takes,
            gives=formats.gives,
        ),
    )
