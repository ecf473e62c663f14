"""The OpenAPI document, made of the operations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from serve.codec import media
from serve.routes.inference import PREFIX
from serve.routes.operations import Operation, Schema

_WORD = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?$"
_PATH: dict[str, Schema] = {
    "name": {"type": "string", "pattern": _WORD},
    "version": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    "alias": {"type": "string", "pattern": _WORD},
    "tag": {"type": "string", "pattern": _WORD},
}
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": "string"},
                "event": {"type": "integer"},
            },
        }
    },
}
_V2_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def document(operations: Iterable[Operation], *, has_keys: bool, root_path: str = "") -> dict[str, Any]:
    """Describe operations in OpenAPI 3.1.

    Parameters
    ----------
    operations : all that the server can do, in the order of the document
    has_keys : whether the server asks for keys
    root_path : prefix under which a proxy shows the server
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for path in operation.paths:
            paths.setdefault(path, {})[operation.method.lower()] = _described(operation, path, has_keys=has_keys)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "rootdata", "version": "1", "description": "Scores of collision events by trained models"},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, "ProtocolError": _V2_ERROR}},
    }
    if root_path:
        made["servers"] = [{"url": root_path}]
    if has_keys:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return made


def _described(operation: Operation, path: str, *, has_keys: bool) -> dict[str, Any]:
    good: dict[str, Any] = {"description": operation.summary}
    if operation.gives:
        good["content"] = _contents(operation.gives)
    error = "ProtocolError" if path.startswith(PREFIX) else "Error"
    bad = {"description": "An error", "content": _contents({media.JSON: {"$ref": f"#/components/schemas/{error}"}})}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.method.lower()}{re.sub('[^A-Za-z0-9]+', '_', path)}",
        "parameters": [*_path_parameters(path), *_parameters(operation)],
        "responses": {str(operation.status): good, "default": bad},
    }
    if operation.body:
        described["requestBody"] = {"required": operation.needs_body, "content": _contents(operation.body)}
    if has_keys and operation.scope is not None:
        described["security"] = [{"key": []}]
    return described


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": _PATH[name]} for name in found]


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    given = [("query", operation.query), ("header", operation.header)]
    return [{"name": name, "in": place, "schema": schema} for place, known in given for name, schema in known.items()]


def _contents(schemas: Any) -> dict[str, Any]:
    return {content_type: {"schema": schema} for content_type, schema in schemas.items()}
