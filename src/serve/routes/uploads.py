"""Models that come over HTTP: streamed to disk, checked in a process with limits, published."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rootdata.bundle.manifest import BATCHING, MODEL
from serve import names
from serve.app import bodies
from serve.codec.media import BINARY
from serve.errors import NoRoom, Overloaded
from serve.handler import Handler, in_thread
from serve.routes.operations import Operation, as_json
from serve.upload import check
from serve.upload.check import Limits, Report

Unpack = Callable[[Path, Path], str]

_ARCHIVES = (b"PK", b"\x1f\x8b")  # zip, gzip; a tar says so later
_WORDS = {"type": "array", "items": {"type": "string"}}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelLabels:
    """What an upload is told about the model.

    Parameters
    ----------
    features, columns : for a graph without a manifest
    batching : ``events`` or ``none``, in place of what the manifest says or the check would settle
    """

    tags: Sequence[str] = ()
    features: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    batching: str | None = None


async def upload(handler: Handler, request: HttpRequest) -> Response:
    """Publish the bundle, or the graph, that is the body."""
    name, query = names.model(request.path_params["name"]), request.query_params
    labels = ModelLabels(
        tags=[names.tag(t) for t in query.getlist("tag")],
        features=query.getlist("feature") or None,
        columns=query.getlist("column") or None,
        batching=query.get("batching"),
    )

    def unpack(body: Path, folder: Path) -> str:
        unpacked(body, folder, limits=handler.check_limits)
        return name

    async with received(handler, request) as body:
        return await published(handler, body, unpack, labels=labels)


@contextlib.asynccontextmanager
async def received(handler: Handler, request: HttpRequest) -> AsyncIterator[Path]:
    """Give the body as a file in a staging area of the repository, which goes away afterwards."""
    area = handler.repository.staging()
    folder = await in_thread(area.__enter__)
    try:
        body = folder / "body"
        await bodies.save(request, body, handler.settings.max_upload, pause=handler.settings.timeout)
        yield body
    except Overloaded as error:
        if error.code == "no_room":  # a client that tries again meets the same disk
            raise NoRoom(error.message) from error.__cause__ or error
        raise
    finally:
        await in_thread(area.__exit__, None, None, None)


async def published(handler: Handler, body: Path, unpack: Unpack, *, labels: ModelLabels | None = None) -> Response:
    """Unpack, check and publish.

    Parameters
    ----------
    handler : of the server
    body : in a staging area
    unpack : puts the files of the body into a folder and tells the name of the model
    labels : tags, and names of features and columns, that the request gives
    """
    async with handler.checks:
        name, version, report = await in_thread(_publish, handler, body, unpack, labels or ModelLabels())
    location = f"/models/{name}/versions/{version}"
    answer = {"name": name, "version": version, "check": dataclasses.asdict(report)}
    return as_json(answer, status=201, headers={"Location": location})


def _publish(handler: Handler, body: Path, unpack: Unpack, labels: ModelLabels) -> tuple[str, int, Report]:
    folder = body.with_name("files")
    folder.mkdir()
    name = names.model(unpack(body, folder))
    report = check.check(
        folder, limits=handler.check_limits, features=labels.features, columns=labels.columns, batching=labels.batching
    )
    return name, handler.repository.publish(folder, name, tags=labels.tags), report


def unpacked(body: Path, folder: Path, *, limits: Limits, is_named: bool = True) -> None:
    """Unpack an archive, as :func:`serve.upload.archives.unpack`; anything else is taken for a graph.

    Parameters
    ----------
    body : in a staging area; a graph is moved, an archive stays
    folder : empty
    limits : of what an upload may take
    is_named : whether the request names the model; else the archive has to
    """
    with body.open("rb") as file:
        start = file.read(512)
    if start.startswith(_ARCHIVES) or start[257:262] == b"ustar":
        check.unpack(body, folder, limits=limits, is_named=is_named)
    else:
        body.rename(folder / MODEL)


OPERATIONS = tuple(
    Operation(
        method=method,
        paths=("/models/{name}/versions",),
        answer=upload,
        scope="publish",
        summary="Publish a bundle (tar, tar.gz, zip) or a graph (.onnx) as the next version",
        query={
            "tag": _WORDS,
            "feature": {**_WORDS, "description": "for a graph without a manifest: what its input takes"},
            "column": {**_WORDS, "description": "for a graph without a manifest: names of its scores"},
            "batching": {"enum": list(BATCHING), "description": "none: requests are run one by one, and events alone"},
        },
        body={"application/octet-stream": BINARY},
        status=201,
        gives={
            "application/json": {
                "type": "object",
                "required": ["name", "version"],
                "properties": {"name": {"type": "string"}, "version": {"type": "integer"}},
            }
        },
    )
    for method in ("POST", "PUT")
)
