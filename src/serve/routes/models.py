"""The repository: list, search, cards, downloads, aliases, tags, trash."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rootdata.bundle.manifest import MANIFEST, MODEL
from serve import names
from serve.app import bodies
from serve.codec import media
from serve.errors import BadRequest
from serve.parsing import check_keys, given
from serve.routes.operations import BINARY, FileAnswer, Operation, Schema, as_json, nothing, parsed
from serve.routes.site import Site, in_thread, target

_SMALL = 65_536  # bytes of a body that says which version
_PAGE = {"limit": 1, "offset": 0}  # to the least that is meant
_LIMITS = ("days", "max_bytes")
_WORDS = ("tag", "feature", "author", "text")


async def search(site: Site, request: HttpRequest) -> Response:
    """List the models that fit the query; without one, all."""
    words: dict[str, Any] = {}
    bounds: dict[str, float] = {}
    page: dict[str, int] = {}
    for key, value in request.query_params.items():
        if key in _WORDS:
            words[key] = value
        elif key in _PAGE:
            page[key] = _whole(key, value)
        elif key.startswith(("min_", "max_")):
            bounds[key] = _number(key, value)
        else:
            raise BadRequest(
                f"{key[:60]!r} is not known; search by {', '.join(_WORDS)}, min_<metric> or max_<metric>; "
                f"cut by {' and '.join(_PAGE)}",
                field=key[:60],
            )
    found = await in_thread(lambda: site.repository.search(**words, bounds=bounds))
    start = page.get("offset", 0)
    stop = start + page.get("limit", len(found))
    headers = {"X-Total-Count": str(len(found))}
    if "limit" in page and stop < len(found):
        query = urlencode([*((k, v) for k, v in request.query_params.multi_items() if k != "offset"), ("offset", stop)])
        headers["Link"] = f'<?{query}>; rel="next"'
    return as_json([card.to_dict() for card in found[start:stop]], headers=headers)


async def card(site: Site, request: HttpRequest) -> Response:
    """Say what is known of a model."""
    return await _card_of(site, target(request)[0])


async def version(site: Site, request: HttpRequest) -> Response:
    """Say everything about a version."""
    name, number = _version(request)
    manifest = await in_thread(site.repository.manifest, name, number)
    return as_json({"name": name, "version": number, "manifest": manifest.to_dict()})


async def graph(site: Site, request: HttpRequest) -> Response:
    """Send the graph of a version."""
    return await _file(site, request, MODEL, media.BYTES)


async def manifest(site: Site, request: HttpRequest) -> Response:
    """Send the manifest of a version as it was published."""
    return await _file(site, request, MANIFEST, media.JSON)


async def set_alias(site: Site, request: HttpRequest) -> Response:
    """Let an alias point at a version."""
    name, alias = _name_and(request, "alias")
    body = parsed(await bodies.read(request, _SMALL, pause=site.settings.timeout))
    check_keys(body, known=("version",), needed=("version",))
    if type(body["version"]) is not int:
        raise BadRequest(f"version: got {given(body['version'])}; expected a whole number", field="version")
    await in_thread(site.repository.set_alias, name, alias, body["version"])
    return await _card_of(site, name)


async def delete_alias(site: Site, request: HttpRequest) -> Response:
    """Remove an alias."""
    await in_thread(site.repository.delete_alias, *_name_and(request, "alias"))
    return nothing()


async def add_tag(site: Site, request: HttpRequest) -> Response:
    """Add a tag to a model."""
    name, tag = _name_and(request, "tag")
    await in_thread(site.repository.add_tags, name, [tag])
    return await _card_of(site, name)


async def remove_tag(site: Site, request: HttpRequest) -> Response:
    """Remove a tag."""
    await in_thread(site.repository.remove_tag, *_name_and(request, "tag"))
    return nothing()


async def delete(site: Site, request: HttpRequest) -> Response:
    """Move a version, or a whole model, to the trash."""
    await in_thread(site.repository.delete, *target(request))
    return nothing()


async def restore(site: Site, request: HttpRequest) -> Response:
    """Take what was deleted last out of the trash."""
    name, reference = target(request)
    await in_thread(site.repository.restore, name, reference)
    return await _card_of(site, name)


async def purge(site: Site, request: HttpRequest) -> Response:
    """Remove what is in the trash, or has been for some time, for good."""
    query = request.query_params
    for key in query:
        if key not in _LIMITS:
            raise BadRequest(f"{key[:60]!r} is not known; {' and '.join(_LIMITS)} are", field=key[:60])
    words = {key: _number(key, query[key]) for key in _LIMITS if key in query}
    for key, value in words.items():
        if not 0 <= value < 1e15:
            raise BadRequest(f"{key}: got {query[key][:40]!r}; expected a number, 0 or more", field=key)
    most = int(words["max_bytes"]) if "max_bytes" in words else None
    days = words.get("days", 0.0 if most is None else math.inf)
    removed = await in_thread(lambda: site.repository.purge(days=days, max_bytes=most))
    return as_json({"removed": removed})


def _whole(key: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value) >= _PAGE[key]):
        raise BadRequest(f"{key}: got {value[:40]!r}; expected a whole number, {_PAGE[key]} or more", field=key)
    return int(value)


def _number(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise BadRequest(f"{key[:60]}: got {value[:40]!r}; expected a number", field=key[:60]) from error


async def _card_of(site: Site, name: str) -> Response:
    return as_json((await in_thread(site.repository.card, name)).to_dict())


async def _file(site: Site, request: HttpRequest, file: str, content_type: str) -> Response:
    name, number = _version(request)
    made = await in_thread(site.repository.manifest, name, number)  # which checks the files
    headers = {"X-Model": name, "X-Model-Version": str(number), "X-Model-Sha256": made.sha256}
    return FileAnswer(site.repository.path(name, number) / file, media_type=content_type, headers=headers)


def _version(request: HttpRequest) -> tuple[str, int]:
    return names.model(request.path_params["name"]), names.version(request.path_params["version"])


def _name_and(request: HttpRequest, what: str) -> tuple[str, str]:
    check = names.alias if what == "alias" else names.tag
    return names.model(request.path_params["name"]), check(request.path_params[what])


_CARD: Schema = {
    "type": "object",
    "required": ["name", "versions"],
    "properties": {
        "name": {"type": "string"},
        "latest": {"type": ["integer", "null"]},
        "versions": {"type": "array", "items": {"type": "integer"}},
        "aliases": {"type": "object", "additionalProperties": {"type": "integer"}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "unloaded": {"type": "array", "items": {"type": "integer"}},
    },
}
_ALIAS: Schema = {
    "type": "object",
    "required": ["version"],
    "additionalProperties": False,
    "properties": {"version": {"type": "integer", "minimum": 1}},
}
_ONE, _ONE_VERSION = "/models/{name}", "/models/{name}/versions/{version}"
_IS_CARD = {media.JSON: _CARD}
_JSON = {media.JSON: {"type": "object"}}

OPERATIONS = (
    Operation(
        method="GET", paths=("/models",), answer=search, summary="List models, or search them",
        query={
            **{word: {"type": "string"} for word in _WORDS},
            **{word: {"type": "integer", "minimum": least} for word, least in _PAGE.items()},
        },
        gives={media.JSON: {"type": "array", "items": _CARD}},
    ),
    Operation(method="GET", paths=(_ONE,), answer=card, summary="Say what is known of a model", gives=_IS_CARD),
    Operation(method="GET", paths=(_ONE_VERSION,), answer=version, summary="Say all about a version", gives=_JSON),
    Operation(
        method="GET", paths=(f"{_ONE_VERSION}/{MODEL}",), answer=graph, summary="Download the graph",
        gives={media.BYTES: BINARY},
    ),
    Operation(
        method="GET", paths=(f"{_ONE_VERSION}/{MANIFEST}",), answer=manifest, summary="Download the manifest",
        gives=_JSON,
    ),
    Operation(
        method="PUT", paths=(f"{_ONE}/aliases/{{alias}}",), answer=set_alias, scope="publish",
        summary="Let an alias point at a version", body={media.JSON: _ALIAS}, gives=_IS_CARD,
    ),
    Operation(
        method="DELETE", paths=(f"{_ONE}/aliases/{{alias}}",), answer=delete_alias, scope="publish",
        summary="Remove an alias", status=204, gives={},
    ),
    Operation(
        method="PUT", paths=(f"{_ONE}/tags/{{tag}}",), answer=add_tag, scope="publish", summary="Add a tag",
        gives=_IS_CARD,
    ),
    Operation(
        method="DELETE", paths=(f"{_ONE}/tags/{{tag}}",), answer=remove_tag, scope="publish", summary="Remove a tag",
        status=204, gives={},
    ),
    Operation(
        method="DELETE", paths=(_ONE, _ONE_VERSION), answer=delete, scope="admin", summary="Move to the trash",
        status=204, gives={},
    ),
    Operation(
        method="POST", paths=(f"{_ONE}/restore", f"{_ONE_VERSION}/restore"), answer=restore, scope="admin",
        summary="Take out of the trash what was deleted last", gives=_IS_CARD,
    ),
    Operation(
        method="DELETE", paths=("/trash",), answer=purge, scope="admin", summary="Empty the trash for good",
        query={
            "days": {"type": "number", "minimum": 0, "description": "only what has been there for longer"},
            "max_bytes": {"type": "number", "minimum": 0, "description": "only what is more, the oldest first"},
        },
        gives={
            media.JSON: {"type": "object", "required": ["removed"], "properties": {"removed": {"type": "integer"}}}
        },
    ),
)  # fmt: skip
