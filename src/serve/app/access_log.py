"""A line for each answer, for whoever runs the server: who asked for what, what came of it, how long it took."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import orjson
from starlette.types import Scope

from serve.keys import without_keys

WHO = "serve.who"  # where the scope of a request has the name of its key
_log = logging.getLogger("serve")


class AccessLog:
    """Writes JSON lines, each at once; the file is opened for the first, and all processes append to it.

    Keys are never written: neither headers nor queries are, and what looks like a key is left out of paths.

    Parameters
    ----------
    path : of the file; ``-`` is the standard error
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def write(self, scope: Scope, *, status: int | None, seconds: float, size: int) -> None:
        """Write a line; where that can't be done the answer goes out all the same.

        Parameters
        ----------
        scope : of the request, as ASGI gives it
        status : of the answer; None where the client went away before there was one
        seconds : from the head of the request to the end of the answer
        size : bytes of the answer's body
        """
        client = scope.get("client")
        line: dict[str, Any] = {
            "time": time.time(),
            "client": client[0] if client else None,
            "who": scope.get(WHO),
            "method": scope["method"],
            "path": without_keys(scope["path"][:1000]),
            "status": status,
            "bytes": size,
            "seconds": round(seconds, 6),
        }
        try:
            os.write(self._opened(), orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except (OSError, TypeError) as error:  # a full disk, or a path that is no text
            _log.error("a line of the access log can't be written: %s", error)

    def _opened(self) -> int:
        if self._handle is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._handle = 2 if str(self._path) == "-" else os.open(self._path, flags, 0o640)
        return self._handle
