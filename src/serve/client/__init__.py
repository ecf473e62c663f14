"""The Python client of the prediction server; it needs httpx and numpy, and neither torch nor onnxruntime.

The names below are loaded when they are first used::

    from serve.client import Client

    with Client("http://127.0.0.1:8000") as client:
        scores = client.predict("ttH", {"HT": [431.0], "Jet_pt": [[120.5, 80.2]]})
        print(scores["signal"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serve.client.asynchronous import AsyncClient as AsyncClient
    from serve.client.errors import ClientError as ClientError
    from serve.client.errors import InvalidInput as InvalidInput
    from serve.client.errors import ServerError as ServerError
    from serve.client.errors import Unreachable as Unreachable
    from serve.client.scores import Scores as Scores
    from serve.client.waiting import Client as Client

_HOMES = {
    "AsyncClient": "serve.client.asynchronous",
    "Client": "serve.client.waiting",
    "ClientError": "serve.client.errors",
    "InvalidInput": "serve.client.errors",
    "Scores": "serve.client.scores",
    "ServerError": "serve.client.errors",
    "Unreachable": "serve.client.errors",
}

__all__ = ["AsyncClient", "Client", "ClientError", "InvalidInput", "Scores", "ServerError", "Unreachable"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'serve.client' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
