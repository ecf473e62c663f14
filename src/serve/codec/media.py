"""Content types that several modules name, and how OpenAPI describes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

JSON = "application/json"
COLUMNS = "application/vnd.rootdata.columns"
ARROW = "application/vnd.apache.arrow.stream"
ROOT = "application/x-root"
PROTO = "application/x-protobuf"
BYTES = "application/octet-stream"

Described = Mapping[str, Any]
"""A schema of OpenAPI."""

BINARY: Final[Described] = {"type": "string", "format": "binary"}
