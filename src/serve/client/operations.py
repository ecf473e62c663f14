"""What can be asked of a server: each operation yields steps, is given their outcomes, and returns the result.

Nothing is sent here, so the same operations are the methods of the client that waits and of the one that does not: a
method has the parameters of its operation, but for the first, and its words.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rootdata import columnar
from rootdata.bundle.manifest import MANIFEST, MODEL, sha256_of
from rootdata.table import cut
from serve.client.columns import columns_of, encode_events, is_columnar, pieces
from serve.client.errors import InvalidInput, ServerError, Unreachable
from serve.client.packing import packed
from serve.client.retry import Answer, Policy, ServerCall, Wait
from serve.client.scores import Scores, join, stacked
from serve.client.servers import KeepFile, Servers, Steps
from serve.client.transport import CONNECT
from serve.codec import media

Models = list[dict[str, Any]]
POLL = 0.1  # seconds between two looks whether a server is ready
MAX_BYTES = 16_000_000  # of a request with columns; servers take 64 MB
HINTS = {
    401: "give the key of a user of this server, key=... or ROOTDATA_KEY",
    403: "ask for a key with that scope",
    507: "delete models that nobody needs, or ask whoever runs the server for more room",
    429: "ask less often",
    503: "the server has more to do than it can; try again later",
    504: "give it more time (timeout=...), or send less at once",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The model that is asked: the latest version, unless a version or an alias is given."""

    name: str
    version: int | None = None
    alias: str | None = None

    @property
    def path(self) -> str:
        """Where it lives on the server."""
        if self.version is not None and self.alias is not None:
            raise InvalidInput(f"model {self.name!r}: got version {self.version} and alias {self.alias!r}; give one")
        path = _model(self.name)
        if self.version is not None:
            return f"{path}/versions/{quote(str(self.version), safe='')}"
        return path if self.alias is None else f"{path}/aliases/{quote(self.alias, safe='')}"


def _model(name: str) -> str:
    if not name:
        raise InvalidInput("model: got an empty name; models() lists those that there are")
    return f"/models/{quote(name, safe='')}"


# Scores


def predict(
    servers: Servers,
    model: str,
    events: Any,
    *,
    version: int | None = None,
    alias: str | None = None,
    explain: bool = False,
    tree: str | None = None,
) -> Steps[Scores]:
    """Score events.

    Parameters
    ----------
    servers : those of the client
    model : its name
    events : a list of dicts (branch name to a number or a list of numbers, None for a missing value); a dict, a
        DataFrame or anything else of columns by branch name; an awkward array of records; the path of a ROOT file
    version, alias : of the model, one of the two; the latest version by default
    explain : also say what is unlike the training events; not for files
    tree : of a ROOT file; by default the one that the model was trained on, or its only one

    Raises
    ------
    InvalidInput, ServerError, Unreachable
        Naming what is wrong, where, and what to do.
    """
    target = Target(name=model, version=version, alias=alias)
    if isinstance(events, str | Path):
        if explain:
            raise InvalidInput("explain: files are scored without; read the events, and give their columns")
        return _scores(checked((yield from servers.ask(_file_call(target, Path(events), media.COLUMNS, tree)))))
    parts: list[Scores] = []
    for start, body, kind in _bodies(events, servers.max_events):
        call = _predict_call(target, body, kind, accept=media.JSON if explain else media.COLUMNS)
        call = dataclasses.replace(call, params={"explain": "true"} if explain else {})
        parts.append(_scores(checked((yield from servers.ask(call)), first=start)))
        # What is published meanwhile must not answer the rest.
        target = Target(name=target.name, version=parts[0].version)
    return join(parts)


def _bodies(events: Any, max_events: int) -> Iterator[tuple[int, bytes, str]]:
    """Cut events into requests: the number of the first event, the body, its content type."""
    if max_events < 1:
        raise InvalidInput(f"events_per_request: got {max_events}; expected 1 or more")
    if is_columnar(events):
        table = columns_of(events)
        for start, stop in pieces(table, max_events=max_events, max_bytes=MAX_BYTES):
            yield start, columnar.encode(cut(table, start, stop)), media.COLUMNS
    elif isinstance(events, Sequence) and all(isinstance(event, Mapping) for event in events):
        for start in range(0, max(len(events), 1), max_events):
            yield start, encode_events(events[start : start + max_events]), media.JSON
    else:
        raise InvalidInput(
            f"events: got {type(events).__name__}; expected a list of dicts, a dict of columns, an awkward array of "
            "records, or the path of a ROOT file"
        )


def _predict_call(target: Target, body: bytes | Path, kind: str, *, accept: str) -> ServerCall:
    headers = {"Content-Type": kind, "Accept": accept}
    return ServerCall(method="POST", path=f"{target.path}/predict", headers=headers, body=body, is_repeatable=True)


def _file_call(target: Target, path: Path, accept: str, tree: str | None) -> ServerCall:
    call = _predict_call(target, _existing(path), media.ROOT, accept=accept)
    return dataclasses.replace(call, params={} if tree is None else {"tree": tree})


def predict_file(
    servers: Servers,
    model: str,
    path: str | Path,
    output: str | Path,
    *,
    version: int | None = None,
    alias: str | None = None,
    tree: str | None = None,
) -> Steps[Path]:
    """Score a ROOT file of any size into a file; neither is ever in memory.

    Parameters
    ----------
    servers : those of the client
    model : its name
    path : of a ROOT file on this machine
    output : ``scores.root`` (tree ``scores``, one branch ``score_<column>`` or ``predicted_<column>`` for each),
        ``.arrow`` or ``.json``
    version, alias : of the model, one of the two; the latest version by default
    tree : name of the tree; by default the one that the model was trained on, or the only one

    Raises
    ------
    InvalidInput, ServerError, Unreachable
        Naming what is wrong, where, and what to do.
    """
    target, output = Target(name=model, version=version, alias=alias), Path(output)
    kinds = {".root": media.ROOT, ".arrow": media.ARROW, ".arrows": media.ARROW, ".json": media.JSON}
    if output.suffix not in kinds:
        raise InvalidInput(f"output: got {str(output)!r}; expected a name that ends in {', '.join(kinds)}")
    if not output.parent.is_dir():
        raise InvalidInput(f"output: the folder {str(output.parent)!r} does not exist; make it first")
    call = _file_call(target, Path(path), kinds[output.suffix], tree)
    checked((yield from servers.ask(dataclasses.replace(call, into=output))))
    return output


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InvalidInput(f"{path} is no file; check the path")
    return path


def _scores(answer: Answer) -> Scores:
    try:
        if answer.headers.get("content-type", "").startswith(media.JSON):
            plain = json.loads(answer.body)
            names, scores = stacked(plain["scores"])
            explain = tuple(plain["explain"]) if "explain" in plain else None
        else:
            names, scores = stacked(columnar.decode(answer.body).columns)
            explain = None
        model, version = answer.headers["x-model"], int(answer.headers["x-model-version"])
    except (ValueError, KeyError, TypeError) as error:
        raise _strange(answer, error) from error
    return Scores(model=model, version=version, columns=names, scores=scores, explain=explain)


# Answers


def checked(answer: Answer, *, first: int = 0) -> Answer:
    """Return an answer that says yes.

    Parameters
    ----------
    answer : of a server, of any status
    first : number of the first event of the request among all that were given

    Raises
    ------
    ServerError
        For one that says no.
    """
    if answer.status < 300:
        return answer
    told = _told(answer)
    event = told.get("event")
    message = str(told["message"])
    if first and isinstance(event, int):
        message += f" [the events of this request are counted from {first}: it is event {first + event}]"
    code = str(told.get("code", "error"))
    raise ServerError(
        message,
        url=answer.url,
        status=answer.status,
        code=code,
        field=told.get("field"),
        event=first + event if isinstance(event, int) else None,
        hint="" if code == "read_only" else HINTS.get(answer.status, ""),  # which no key changes
    )


def _told(answer: Answer) -> dict[str, Any]:
    """Take the server's error, or what some proxy says in its own way."""
    try:
        told = json.loads(answer.body)["error"]
        if isinstance(told["message"], str):
            return dict(told)
    except (ValueError, KeyError, TypeError):
        pass
    text = " ".join(answer.body[:500].decode(errors="replace").split())
    return {"message": text[:200] or "an error without words"}


def _strange(answer: Answer, error: Exception) -> ServerError:
    return ServerError(
        f"the answer can't be read ({type(error).__name__}: {error})",
        url=answer.url,
        status=answer.status,
        code="strange_answer",
        hint="check that the address is that of a prediction server of the same version",
    )


def _json(answer: Answer) -> Any:
    try:
        return json.loads(checked(answer).body or b"null")
    except ValueError as error:
        raise _strange(answer, error) from error


# Models


def models(servers: Servers) -> Steps[Models]:
    """List all models: of each what :meth:`search` gives."""
    return search(servers)


def search(
    servers: Servers,
    *,
    tag: str | None = None,
    feature: str | None = None,
    author: str | None = None,
    text: str | None = None,
    min_auc: float | None = None,
    bounds: Mapping[str, float] | None = None,
) -> Steps[Models]:
    """Find models by what their latest version says; what is not given does not matter.

    Parameters
    ----------
    servers : those of the client
    tag : that the model has, in full
    feature : a branch or feature that it takes
    author, text : parts of the author, and of name, description, author or tags
    min_auc : the smallest ``auc`` among the metrics of its manifest
    bounds : ``min_<metric>`` or ``max_<metric>`` to a number
    """
    asked = {"tag": tag, "feature": feature, "author": author, "text": text, "min_auc": min_auc, **(bounds or {})}
    params = _given(asked)
    return list(
        _json((yield from servers.ask(ServerCall(method="GET", path="/models", params=params, is_repeatable=True))))
    )


def _given(asked: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in asked.items() if value is not None}


def card(servers: Servers, name: str, version: int | None = None) -> Steps[dict[str, Any]]:
    """Say what is known of a model, or everything about a version: its manifest.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    version : by default the model as a whole
    """
    path = Target(name=name, version=version).path
    return dict(_json((yield from servers.ask(ServerCall(method="GET", path=path, is_repeatable=True)))))


def upload(
    servers: Servers,
    name: str,
    source: str | Path,
    *,
    tags: Iterable[str] = (),
    features: Iterable[str] = (),
    columns: Iterable[str] = (),
    batching: str | None = None,
) -> Steps[int]:
    """Publish a bundle as the next version of a model, and return its number.

    Parameters
    ----------
    servers : those of the client
    name : of the model, which need not be there yet
    source : folder of a bundle, an archive of one, or a graph alone (``.onnx``)
    tags : added to those of the model
    features, columns : of a graph alone: what the features of its input, and its scores, are called
    batching : ``none`` where requests, and the events in them, are to be run one by one
    """
    archive = yield KeepFile(file=packed(Path(source)))
    params = {"tag": list(tags), "feature": list(features), "column": list(columns)}
    params |= {} if batching is None else {"batching": [batching]}
    headers = {"Content-Type": "application/octet-stream"}
    path, body = f"{_model(name)}/versions", archive if isinstance(archive, Path) else None
    # Not repeatable: asked again once it may have arrived, it would be published twice.
    call = ServerCall(method="POST", path=path, params=params, headers=headers, body=body)
    return int(_json((yield from servers.ask(call)))["version"])


def download(servers: Servers, name: str, version: int | None = None, *, into: str | Path) -> Steps[Path]:
    """Fetch a version as a bundle into a folder, and check that it is whole.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    version : by default the latest
    into : folder, made where it is not there; files of a bundle in it are replaced

    Raises
    ------
    InvalidInput, ServerError, Unreachable
        Where it can't be written, does not come, or is not whole.
    """
    into = Path(into)
    if version is None:
        version = int((yield from card(servers, name))["latest"])
    path = Target(name=name, version=version).path
    into.mkdir(parents=True, exist_ok=True)
    for file in (MANIFEST, MODEL):
        call = ServerCall(method="GET", path=f"{path}/{file}", into=into / file, is_repeatable=True)
        answer = checked((yield from servers.ask(call)))
    if sha256_of(into / MODEL) != answer.headers.get("x-model-sha256"):
        raise _strange(answer, ValueError(f"the checksum of {MODEL} is another one than it says"))
    return into


def set_alias(servers: Servers, name: str, alias: str, version: int) -> Steps[None]:
    """Let an alias, such as ``production``, point at a version.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    alias : moved where it points at another version
    version : that is there
    """
    body, headers = json.dumps({"version": version}).encode(), {"Content-Type": media.JSON}
    path = Target(name=name, alias=alias).path
    call = ServerCall(method="PUT", path=path, headers=headers, body=body, is_repeatable=True)
    checked((yield from servers.ask(call)))


def delete_alias(servers: Servers, name: str, alias: str) -> Steps[None]:
    """Remove an alias.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    alias : that is there; the version stays
    """
    checked((yield from servers.ask(ServerCall(method="DELETE", path=Target(name=name, alias=alias).path))))


def add_tag(servers: Servers, name: str, tag: str) -> Steps[None]:
    """Add a tag to a model.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    tag : a word by the rules for names of models; one that is there stays
    """
    checked((yield from servers.ask(ServerCall(method="PUT", path=_tag(name, tag), is_repeatable=True))))


def remove_tag(servers: Servers, name: str, tag: str) -> Steps[None]:
    """Remove a tag from a model.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    tag : in full
    """
    checked((yield from servers.ask(ServerCall(method="DELETE", path=_tag(name, tag)))))


def _tag(name: str, tag: str) -> str:
    return f"{_model(name)}/tags/{quote(tag, safe='')}"


def delete(servers: Servers, name: str, version: int | None = None) -> Steps[None]:
    """Move a version, or the whole model, to the trash.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    version : by default the whole model
    """
    # Not repeatable: it could then be somebody else's that goes.
    checked((yield from servers.ask(ServerCall(method="DELETE", path=Target(name=name, version=version).path))))


def restore(servers: Servers, name: str, version: int | None = None) -> Steps[None]:
    """Take what was deleted last out of the trash.

    Parameters
    ----------
    servers : those of the client
    name : of the model
    version : by default the whole model
    """
    path = Target(name=name, version=version).path
    checked((yield from servers.ask(ServerCall(method="POST", path=f"{path}/restore"))))


def purge(servers: Servers, *, days: float | None = None, max_bytes: int | None = None) -> Steps[int]:
    """Remove what was deleted for good, and return how many folders that were.

    Parameters
    ----------
    servers : those of the client
    days : only what was deleted longer ago
    max_bytes : only what is more than that, the oldest first
    """
    params = _given({"days": days, "max_bytes": max_bytes})
    call = ServerCall(method="DELETE", path="/trash", params=params, is_repeatable=True)
    return int(_json((yield from servers.ask(call)))["removed"])


def is_ready(servers: Servers) -> Steps[bool]:
    """Ask, once, whether the server takes requests."""
    call = ServerCall(method="GET", path="/health/ready", is_repeatable=True)
    try:
        return (yield from servers.ask(call, policy=Policy(retries=0, timeout=CONNECT))).status == 200
    except Unreachable:
        return False


def wait_until_ready(servers: Servers, timeout: float = 60.0) -> Steps[None]:
    """Wait until the server takes requests.

    Raises
    ------
    Unreachable
        If it does not within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (yield from is_ready(servers)):
        if time.monotonic() >= deadline:
            raise servers.not_ready(timeout)
        yield Wait(seconds=POLL)
