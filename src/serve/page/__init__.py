"""The web page at ``/``: models, their cards and graphs, and a form to try an event.

The files in ``static`` are plain HTML, CSS and JavaScript; nothing is loaded from elsewhere, and all data come from the
server's JSON paths. The graph is drawn by netron's own files, where netron is installed.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serve.errors import NotFound
from serve.routes.operations import FileAnswer, Operation, as_json, routes
from serve.routes.site import Site

_STATIC = Path(__file__).parent / "static"
_STAND_IN = _STATIC / "graph.js"  # in place of netron's index.js, which asks other hosts for its news
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
_ALL_PAGES = "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'"
_OWN_POLICY = f"{_ALL_PAGES}; style-src 'self'; img-src 'self'; frame-src 'self'; frame-ancestors 'none'"
_NETRON_POLICY = (
    f"{_ALL_PAGES}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self'; "
    "frame-ancestors 'self'"
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """Files of one folder that may be read, by name, and what their pages may do."""

    known: Mapping[str, Path]
    policy: str

    async def answer(self, site: Site, request: HttpRequest) -> Response:  # noqa: ARG002
        """Send the file that a path names; ``/`` names none and means the page."""
        name = request.path_params.get("file", "index.html")
        if name not in self.known:
            raise NotFound(f"the page has no file {name[:100]!r}")
        path = self.known[name]
        kind = path.stat()
        tag = f'"{kind.st_mtime_ns:x}-{kind.st_size:x}"'
        headers = {
            "Cache-Control": "no-cache",  # ask each time: another version of the server may have other files
            "Content-Security-Policy": self.policy,
            "ETag": tag,
            "Referrer-Policy": "no-referrer",
        }
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return FileAnswer(path, media_type=_TYPES[path.suffix], headers=headers)


def install(app: Any, context: Any) -> None:
    """Put the page on an app.

    Parameters
    ----------
    app : FastAPI's
    context : of :func:`serve.processes.launch.serve_forever`
    """
    netron = _netron()
    own = _Files(_files(_STATIC), _OWN_POLICY)
    others = _Files(netron, _NETRON_POLICY)
    settings = {"graph": bool(netron), "keys": context.settings.keys is not None}
    operations = (
        _get("/", own.answer, "The web page"),
        _get("/page/settings.json", functools.partial(_settings, settings), "What the page can offer"),
        _get("/page/netron/{file}", others.answer, "A file of netron"),
        _get("/page/{file}", own.answer, "A file of the page"),
    )
    app.router.routes.extend(routes(Site.of(context), operations))


def _get(path: str, answer: Any, summary: str) -> Operation:
    # Nobody is asked for a key: the page is the same for everybody, and the models are read with the visitor's key.
    return Operation(method="GET", paths=(path,), answer=answer, scope=None, summary=summary)


async def _settings(settings: dict[str, Any], site: Site, request: HttpRequest) -> Response:  # noqa: ARG001
    return as_json(settings)


def _netron() -> dict[str, Path]:
    """Map the names of netron's files to their paths, without importing it; empty where it is not installed."""
    found = importlib.util.find_spec("netron")
    folders = [] if found is None else [Path(folder) for folder in found.submodule_search_locations or ()]
    known = _files(folders[0]) if folders else {}
    return {**known, "index.js": _STAND_IN} if {"index.html", "browser.js", "view.js"} <= known.keys() else {}


def _files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.suffix in _TYPES}
