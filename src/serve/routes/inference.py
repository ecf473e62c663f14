"""The Open Inference Protocol, version 2, as Triton's HTTP clients speak it, and its model repository extension.

Tensors go to the graph as they are; see :mod:`serve.routes.predict` for events by branch name. Errors are
``{"error": "..."}`` on these paths, because the protocol has it so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, cast

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rootdata.bundle.manifest import OutputSpec, TensorSpec
from serve import names
from serve.app import bodies
from serve.codec import media
from serve.codec.inference import DATATYPES, HEADER_LENGTH, STRINGS, datatype_of
from serve.codec.media import BINARY
from serve.errors import BadRequest, NotFound
from serve.handler import Call, Handler, in_thread
from serve.messages import Reply
from serve.models.cards import Card
from serve.parsing import given, parse_object, parse_object_in_pieces
from serve.routes.health import check_ready
from serve.routes.operations import Operation, Schema, answer_of, as_json, parsed, target

PREFIX = "/v2"
VERSION = "2"
_SMALL = 65_536
_PLATFORM = "onnxruntime_onnx"
_EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


async def infer(handler: Handler, request: HttpRequest) -> Response:
    """Run a graph on tensors."""
    name, reference = target(request)
    timeout = bodies.header(request, b"x-timeout-ms")
    call = Call(road="v2", model=name, reference=reference, options=_options(request), timeout=timeout)
    prepared = handler.prepare(call)
    body = await bodies.read(request, handler.settings.max_body, pause=handler.settings.timeout)
    seconds, wished = prepared.seconds, await _timeout(body, call.options)
    if wished is not None:
        seconds = min(wished, handler.settings.max_timeout if timeout is None else seconds)
    reply = await handler.answer(prepared, body, seconds=seconds)
    return answer_of(reply) if reply.status < 400 else _failed(reply)


def _options(request: HttpRequest) -> dict[str, str]:
    length = bodies.header(request, HEADER_LENGTH.lower().encode())
    if length is None:
        return {}
    if not (length.isascii() and length.isdecimal() and len(length) < 19):
        raise BadRequest(f"{HEADER_LENGTH}: got {length[:40]!r}; expected a number of bytes", field=HEADER_LENGTH)
    return {"header_length": length}


async def _timeout(body: bytes, options: Mapping[str, str]) -> float | None:
    """Return the time that the client gives in the body, as Triton has it (us; 0 means any), in s.

    Raises
    ------
    BadRequest
        For what is no whole number.
    """
    head = body[: int(options.get("header_length", len(body)))]
    if b'"timeout"' not in head:  # most say nothing, and are read by a worker alone
        return None
    parameters = (await _parsed(head)).get("parameters")
    value = parameters.get("timeout") if isinstance(parameters, dict) else None
    if value is None or value == 0:
        return None
    if type(value) is not int or value < 0:
        raise BadRequest(f"timeout: got {given(value)}; expected microseconds, 0 or more", field="timeout")
    return value / 1e6


async def _parsed(text: bytes) -> dict[str, Any]:
    """Parse an object, and let others work after each piece of a long text."""
    steps = parse_object_in_pieces(text)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("dict[str, Any]", end.value)
        await asyncio.sleep(0)


def _failed(reply: Reply) -> Response:
    message = parse_object(reply.body)["error"]["message"]
    return as_json({"error": message}, status=reply.status, headers=reply.headers)


async def about_server(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say what this server is."""
    return as_json({"name": "rootdata", "version": VERSION, "extensions": _EXTENSIONS})


async def live(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say that this process answers."""
    return as_json({"live": True})


async def ready(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say whether models can be run."""
    check_ready(handler)
    return as_json({"ready": True})


async def about_model(handler: Handler, request: HttpRequest) -> Response:
    """Say what a model takes and gives."""
    name, version = _found(handler, request)
    manifest = await in_thread(handler.repository.manifest, name, version)
    return as_json({
        "name": name,
        "versions": [str(v) for v in handler.repository.versions(name)],
        "platform": _PLATFORM,
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs],
    })  # fmt: skip


async def model_ready(handler: Handler, request: HttpRequest) -> Response:
    """Say that a model can be run."""
    name, _ = _found(handler, request)
    return as_json({"name": name, "ready": True})


async def config(handler: Handler, request: HttpRequest) -> Response:
    """Describe a model in the words of Triton's configuration."""
    name, version = _found(handler, request)
    manifest = await in_thread(handler.repository.manifest, name, version)
    return as_json({
        "name": name,
        "platform": _PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": 0,  # the first axis is among dims
        "input": [_port(spec) for spec in manifest.inputs],
        "output": [_port(spec) for spec in manifest.outputs],
    })  # fmt: skip


async def statistics(handler: Handler, request: HttpRequest) -> Response:
    """Give what was counted of the versions of a model, or of all."""
    if "name" not in request.path_params:
        asked = {card.name: card.versions for card in await in_thread(handler.repository.cards)}
    else:
        name, version = _found(handler, request)
        asked = {name: (version,) if "version" in request.path_params else handler.repository.versions(name)}
    counted = _counted((await handler.counts()).decode())
    found = [
        _statistics(name, version, counted.get((name, str(version)), []))
        for name, versions in asked.items()
        for version in versions
    ]
    return as_json({"model_stats": found})


async def about_stats(handler: Handler, request: HttpRequest) -> Response:
    """Give what was counted of all models; and, where a model is called ``stats``, what it takes and gives."""
    answer = await statistics(handler, request)
    request.path_params["name"] = "stats"
    try:
        about = await about_model(handler, request)
    except NotFound:
        return answer
    return as_json({**parse_object(bytes(about.body)), **parse_object(bytes(answer.body))})


async def index(handler: Handler, request: HttpRequest) -> Response:
    """List all versions of all models."""
    wish = (
        parsed(await bodies.read(request, _SMALL, pause=handler.settings.timeout)) if request.method == "POST" else {}
    )
    cards = await in_thread(handler.repository.cards)
    found = [entry for card in cards for entry in _entries(card)]
    return as_json([e for e in found if e["state"] == "READY" or not wish.get("ready")])


async def load(handler: Handler, request: HttpRequest) -> Response:
    """Take a model back into service."""
    name = names.model(request.path_params["name"])
    wishes = parsed(await bodies.read(request, _SMALL, pause=handler.settings.timeout)).get("parameters")
    for key in wishes if isinstance(wishes, dict) else ():
        if key == "config" or key.startswith("file:"):
            raise BadRequest(
                f"{key[:60]}: models are loaded as they were published; publish another one", field=key[:60]
            )
    handler.repository.resolve(name)
    await in_thread(handler.repository.load, name)
    return as_json({})


async def unload(handler: Handler, request: HttpRequest) -> Response:
    """Take a model out of service until it is loaded again, or a new version is published."""
    name = names.model(request.path_params["name"])
    await in_thread(handler.repository.unload, name)
    return as_json({})


def _found(handler: Handler, request: HttpRequest) -> tuple[str, int]:
    name, reference = target(request)
    return name, handler.repository.served(name, reference)


def _tensor(spec: TensorSpec | OutputSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": _shape(spec)}


def _port(spec: TensorSpec | OutputSpec) -> dict[str, Any]:
    word = datatype_of(spec.dtype)
    return {
        "name": spec.name,
        "data_type": "TYPE_STRING" if word == STRINGS else f"TYPE_{word}",
        "dims": _shape(spec),
    }


def _shape(spec: TensorSpec | OutputSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def _entries(card: Card) -> list[dict[str, str]]:
    entries = []
    for version in card.versions:
        reason = card.broken.get(version, "unloaded" if version in card.unloaded else "")
        state = "UNAVAILABLE" if reason else "READY"
        entries.append({"name": card.name, "version": str(version), "state": state, "reason": reason})
    return entries


def _counted(text: str) -> dict[tuple[str, str], list[Any]]:
    """Read Prometheus' text; return the samples of each version of each model."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[tuple[str, str], list[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault((sample.labels.get("model", ""), sample.labels.get("version", "")), []).append(sample)
    return found


def _statistics(name: str, version: int, samples: list[Any]) -> dict[str, Any]:
    """Say what was counted as Triton does; requests that ran together count as one execution each."""

    def total(metric: str, *, good: bool | None = None) -> float:
        chosen = [s for s in samples if s.name == metric and good in (None, s.labels.get("status") == "200")]
        return math.fsum(s.value for s in chosen)

    good, bad = (int(total("inference_requests_total", good=is_good)) for is_good in (True, False))
    took, failed = (total("inference_requests_seconds_total", good=is_good) for is_good in (True, False))
    computed = total("inference_compute_infer_duration_seconds_total")
    return {
        "name": name,
        "version": str(version),
        "inference_count": int(total("inference_count_total")),
        "execution_count": good,
        "inference_stats": {
            "success": _duration(good, took),
            "fail": _duration(bad, failed),
            "queue": _duration(good, max(0.0, took - computed)),
            "compute_input": _duration(good, 0.0),
            "compute_infer": _duration(good, computed),
            "compute_output": _duration(good, 0.0),
        },
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": int(seconds * 1e9)}


_INPUT: Schema = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": [*DATATYPES, STRINGS]},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_INFER: Schema = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": _INPUT},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
    },
}
_ONE = f"{PREFIX}/models/{{name}}"
_ANY_VERSION = (_ONE, f"{_ONE}/versions/{{version}}")
_REPOSITORY = f"{PREFIX}/repository"
_JSON = {media.JSON: {"type": "object"}}
_WISHES = {media.JSON: {"type": "object"}}
_LIST = {media.JSON: {"type": "array", "items": {"type": "object", "required": ["name", "state"]}}}


def _below(*ends: str) -> tuple[str, ...]:
    return tuple(f"{start}/{end}" for start in _ANY_VERSION for end in ends)


OPERATIONS = (
    Operation(
        method="POST", paths=_below("infer"), answer=infer, summary="Run a graph on tensors",
        header={HEADER_LENGTH: {"type": "integer", "minimum": 0}, "X-Timeout-Ms": {"type": "integer", "minimum": 1}},
        body={media.JSON: _INFER, media.BYTES: BINARY}, gives={**_JSON, media.BYTES: BINARY},
    ),
    Operation(method="GET", paths=(PREFIX,), answer=about_server, summary="Say what this server is", gives=_JSON),
    Operation(
        method="GET", paths=(f"{PREFIX}/health/live",), answer=live, scope=None, summary="Say that the server lives",
        gives=_JSON,
    ),
    Operation(
        method="GET", paths=(f"{PREFIX}/health/ready",), answer=ready, scope=None,
        summary="Say whether models can be run", gives=_JSON,
    ),
    Operation(
        method="GET", paths=(f"{PREFIX}/models/stats",), answer=about_stats, summary="Say what was counted of all",
        gives=_JSON,
    ),
    Operation(method="GET", paths=_below("stats"), answer=statistics, summary="Say what was counted", gives=_JSON),
    Operation(
        method="GET", paths=_ANY_VERSION, answer=about_model, summary="Say what a model takes and gives", gives=_JSON
    ),
    Operation(
        method="GET", paths=_below("ready"), answer=model_ready, summary="Say whether a model can be run", gives=_JSON
    ),
    Operation(
        method="GET", paths=_below("config"), answer=config, summary="Describe a model as Triton does", gives=_JSON
    ),
    Operation(
        method="POST", paths=(f"{_REPOSITORY}/index",), answer=index, summary="List models and their versions",
        body=_WISHES, needs_body=False, gives=_LIST,
    ),
    Operation(
        method="GET", paths=(f"{_REPOSITORY}/index",), answer=index, summary="List models and their versions",
        gives=_LIST,
    ),
    Operation(
        method="POST", paths=(f"{_REPOSITORY}/models/{{name}}/load",), answer=load, scope="publish",
        summary="Take a model back into service", body=_WISHES, needs_body=False, gives=_JSON,
    ),
    Operation(
        method="POST", paths=(f"{_REPOSITORY}/models/{{name}}/unload",), answer=unload, scope="publish",
        summary="Take a model out of service", body=_WISHES, needs_body=False, gives=_JSON,
    ),
)  # fmt: skip
