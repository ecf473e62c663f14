"""The paths of TFaaS (TensorFlow as a Service), so that its clients can move.

``/data``, which sends any file that is asked for, is not offered.
"""

from __future__ import annotations

import time
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rootdata.bundle.manifest import MODEL
from serve import names
from serve.app import bodies
from serve.codec import media, tfaas
from serve.codec.media import BINARY
from serve.errors import BadRequest, NotFound, UnsupportedType
from serve.handler import Call, Handler, in_thread
from serve.parsing import check_keys, given, parse_object
from serve.routes import forms, uploads
from serve.routes.operations import Operation, Schema, answer_of, as_json, nothing
from serve.upload.archives import LABELS, PARAMS

_MAX_BODY = 1_000_000  # bytes; a body holds one event, and is read here for the name of its model
_MAX_PARAMS = 1_000_000
_PIECE = 1 << 20
_MAX_IMAGE = 20_000_000  # bytes; the form is taken apart here
_FORM = "multipart/form-data"
_IMAGE = ("image", "model")  # fields of a form, which may have a version, too


async def predict_json(handler: Handler, request: HttpRequest) -> Response:
    """Score one event that comes as keys and values."""
    return await _predict(handler, request, "json")


async def predict_proto(handler: Handler, request: HttpRequest) -> Response:
    """Score one event that comes as a message ``Row``."""
    return await _predict(handler, request, "proto")


async def _predict(handler: Handler, request: HttpRequest, content: tfaas.Content) -> Response:
    timeout = bodies.header(request, b"x-timeout-ms")
    handler.seconds(timeout, 0.0)  # before the body, which is read here for the name of its model
    body = await bodies.read(request, min(_MAX_BODY, handler.settings.max_body), pause=handler.settings.timeout)
    name = tfaas.model_of(body, content)
    if name is None:
        raise BadRequest("model: it is missing; write the name of a model", field="model")
    call = Call(road=f"tfaas-{content}", model=names.model(name), timeout=timeout)
    return answer_of(await handler.answer(handler.prepare(call), body))


async def image(handler: Handler, request: HttpRequest) -> Response:
    """Classify an image that comes in a form with the name of the model."""
    content_type = bodies.header(request, b"content-type") or ""
    if not content_type.lower().startswith(_FORM):
        raise UnsupportedType(
            f"Content-Type: got {content_type[:80]!r}; expected {_FORM} (curl: -F image=@<file> -F model=<name>)",
            field="Content-Type",
        )
    timeout = bodies.header(request, b"x-timeout-ms")
    handler.seconds(timeout, 0.0)
    is_base64 = _is_base64(request)
    body = await bodies.read(request, min(_MAX_IMAGE, handler.settings.max_body), pause=handler.settings.timeout)
    fields = forms.fields(body, content_type, is_base64=is_base64)
    check_keys(fields, known=(*_IMAGE, "version"), needed=_IMAGE, what="form")
    name = names.model(str(fields["model"], "utf-8", "replace"))
    version = names.version(str(fields["version"], "utf-8", "replace")) if "version" in fields else None
    prepared = handler.prepare(Call(road="image", model=name, reference=version, timeout=timeout))
    return answer_of(await handler.answer(prepared, fields["image"]))


async def params(handler: Handler, request: HttpRequest) -> Response:
    """Describe a model as TFaaS does."""
    name = names.model(request.path_params["name"])
    made = await in_thread(lambda: handler.repository.manifest(name, handler.repository.resolve(name)))
    return as_json({
        "name": name,
        "model": MODEL,
        "labels": ",".join(made.columns),
        "options": None,
        "inputNode": made.inputs[0].name,
        "outputNode": made.outputs[0].name,
        "description": made.description,
        "timestamp": made.created,
    })  # fmt: skip


async def upload(handler: Handler, request: HttpRequest) -> Response:
    """Publish a model that comes as a form, as an archive, or, where the query has its name, as a graph."""
    content_type = request.headers.get("content-type", "")
    is_base64 = _is_base64(request)
    is_form = content_type.lower().startswith(_FORM)
    name = request.query_params.get("name")

    def unpack(body: Path, folder: Path) -> str:
        if is_form:
            return _unpacked_form(body, folder, content_type, is_base64=is_base64)
        if is_base64:
            body = _decoded(body)
        uploads.unpacked(body, folder, limits=handler.check_limits, is_named=name is not None)
        return _name_of(folder) if name is None else names.model(name)

    async with uploads.received(handler, request) as body:
        return await uploads.published(handler, body, unpack)


def _is_base64(request: HttpRequest) -> bool:
    """Say whether TFaaS's Python client wrote a body, and take its header away.

    ``Content-Encoding: base64`` is no coding of HTTP: of a form it means that its files of just bytes are so written.
    """
    headers = request.scope["headers"]
    others = [pair for pair in headers if pair[0] != b"content-encoding" or pair[1].lower() != b"base64"]
    request.scope["headers"] = others
    return len(others) < len(headers)


def _decoded(body: Path) -> Path:
    target = body.with_name("decoded")
    with body.open("rb") as file, target.open("xb") as decoded:
        decoded.writelines(forms.from_base64(iter(lambda: file.read(_PIECE), b"")))
    return target


def _unpacked_form(body: Path, folder: Path, content_type: str, *, is_base64: bool) -> str:
    """Write the files of a form into a folder; return the name of the model."""
    files = {"model": folder / MODEL, "params": folder / PARAMS, "labels": folder / LABELS}
    texts = forms.unpack(body, content_type, files=files, is_base64=is_base64)
    for needed in ("name", "model"):
        if needed not in texts:
            raise BadRequest(f"form: {needed!r} is missing", field=needed)
    name = texts["name"]
    if "params" in texts and _name_of(folder) != name:
        raise BadRequest(f"name: the form says {name[:60]!r}, {PARAMS} {_name_of(folder)!r}", field="name")
    return name


def _name_of(folder: Path) -> str:
    """Read the name of a model from its ``params.json``."""
    path = folder / PARAMS
    if not path.exists() or path.stat().st_size > _MAX_PARAMS:
        raise BadRequest(
            f"{PARAMS} is missing, or too large, and so is one folder around the files; one of them says the name. "
            "Pack the folder (tar czf ttH.tar.gz ttH), or POST to /upload?name=<name>",
            field=PARAMS,
        )
    name = parse_object(path.read_bytes(), what=PARAMS).get("name")
    if type(name) is not str:
        raise BadRequest(f"{PARAMS}: name: got {given(name)}; expected a string", field="name")
    return names.model(name)


async def delete(handler: Handler, request: HttpRequest) -> Response:
    """Move a model to the trash."""
    name = request.path_params.get("name") or request.query_params.get("model") or await _name_in_form(handler, request)
    if name is None:
        raise BadRequest("model: it is missing; write DELETE /delete/<model>", field="model")
    await in_thread(handler.repository.delete, names.model(name))
    return nothing()


async def _name_in_form(handler: Handler, request: HttpRequest) -> str | None:
    """Return the model that TFaaS's own client names in a form."""
    content_type = bodies.header(request, b"content-type") or ""
    if not content_type.startswith(_FORM):
        return None
    body = await bodies.read(request, _MAX_PARAMS, pause=handler.settings.timeout)
    return str(forms.fields(body, content_type).get("model", b""), "utf-8", "replace") or None


async def status(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say how the server does."""
    found = await in_thread(handler.repository.cards)
    return as_json({
        "Uptime": time.monotonic() - handler.started,
        "ready": handler.is_ready(),
        "pending": handler.pool.pending,
        "models": len(found),
    })  # fmt: skip


async def nearest_help(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say which path takes the place of this one."""
    raise NotFound("parameters belong to a model here; GET /params/<model>")


_ROW: Schema = {
    "type": "object",
    "required": ["keys", "values", "model"],
    "additionalProperties": False,
    "properties": {
        "keys": {"type": "array", "items": {"type": "string"}},
        "values": {"type": "array", "items": {"type": ["number", "null"]}},
        "model": {"type": "string"},
    },
}
_SCORES: Schema = {"type": "array", "items": {"type": "number"}}
_PUBLISHED = {media.JSON: {"type": "object", "required": ["name", "version"]}}

OPERATIONS = (
    Operation(
        method="POST", paths=("/json", "/predict/json"), answer=predict_json, summary="Score one event (TFaaS)",
        body={media.JSON: _ROW}, gives={media.JSON: _SCORES},
    ),
    Operation(
        method="POST", paths=("/proto", "/predict/proto"), answer=predict_proto, summary="Score one event (TFaaS)",
        body={media.PROTO: BINARY}, gives={media.PROTO: BINARY},
    ),
    Operation(
        method="POST", paths=("/image", "/predict/image"), answer=image, summary="Classify an image (TFaaS)",
        body={
            _FORM: {
                "type": "object",
                "required": list(_IMAGE),
                "additionalProperties": False,
                "properties": {
                    "image": BINARY,
                    "model": {"type": "string"},
                    "version": {"type": "string", "description": "a number; by default the latest one"},
                },
            }
        },
        gives={media.JSON: _SCORES},
    ),
    Operation(method="GET", paths=("/params",), answer=nearest_help, summary="Not offered (TFaaS)"),
    Operation(
        method="GET", paths=("/params/{name}",), answer=params, summary="Describe a model (TFaaS)",
        gives={media.JSON: {"type": "object", "required": ["name", "inputNode", "outputNode"]}},
    ),
    Operation(
        method="POST", paths=("/upload", "/bundle"), answer=upload, scope="publish", summary="Publish a model (TFaaS)",
        query={"name": {"type": "string", "description": "of an archive or a graph that does not tell it"}},
        body={
            _FORM: {
                "type": "object",
                "required": ["name", "model"],
                "properties": {"name": {"type": "string"}, "model": BINARY, "params": BINARY, "labels": BINARY},
            },
            media.BYTES: BINARY,
        },
        status=201, gives=_PUBLISHED,
    ),
    Operation(
        method="DELETE", paths=("/delete/{name}",), answer=delete, scope="admin", summary="Move to the trash (TFaaS)",
        status=204, gives={},
    ),
    Operation(
        method="DELETE", paths=("/delete",), answer=delete, scope="admin", summary="Move to the trash (TFaaS)",
        query={"model": {"type": "string"}}, status=204, gives={},
    ),
    Operation(
        method="GET", paths=("/status",), answer=status, summary="Say how the server does (TFaaS)",
        gives={media.JSON: {"type": "object"}},
    ),
)  # fmt: skip
