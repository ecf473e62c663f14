"""What can be asked of a server: each operation yields calls, is given their answers, and returns the result.

Nothing is sent here, so the same operations serve the client that waits and the one that does not.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from rootdata import columnar
from rootdata.bundle.manifest import MANIFEST, MODEL, sha256_of
from rootdata.table import cut
from serve.client import wire
from serve.client.columns import columns_of, is_columnar, pieces
from serve.client.errors import InvalidInput, ServerError
from serve.client.retry import Answer, Call
from serve.client.scores import Scores, join
from serve.codec import media

T = TypeVar("T")
Operation = Generator[Call, Answer, T]

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
    target: Target, events: Any, *, explain: bool = False, tree: str | None = None, max_events: int = 50_000
) -> Operation[Scores]:
    """Score events of any kind that :class:`serve.client.waiting.Client` takes."""
    if isinstance(events, str | Path):
        return (yield from _predict_file(target, Path(events), explain=explain, tree=tree))
    parts: list[Scores] = []
    for start, body, kind in _bodies(events, max_events):
        answer = yield _predict_call(target, body, kind, explain=explain)
        parts.append(_scores(checked(answer, first=start)))
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
            yield start, wire.encode_events(events[start : start + max_events]), media.JSON
    else:
        raise InvalidInput(
            f"events: got {type(events).__name__}; expected a list of dicts, a dict of columns, an awkward array of "
            "records, or the path of a ROOT file"
        )


def _predict_call(target: Target, body: bytes | Path, kind: str, *, explain: bool) -> Call:
    accept = media.JSON if explain else media.COLUMNS
    return Call(
        method="POST",
        path=f"{target.path}/predict",
        params={"explain": "true"} if explain else {},
        headers={"Content-Type": kind, "Accept": accept},
        body=body,
        is_repeatable=True,
    )


def _predict_file(target: Target, path: Path, *, explain: bool, tree: str | None) -> Operation[Scores]:
    if explain:
        raise InvalidInput("explain: files are scored without; read the events, and give their columns")
    call = _predict_call(target, _existing(path), media.ROOT, explain=False)
    answer = yield dataclasses.replace(call, params={} if tree is None else {"tree": tree})
    return _scores(checked(answer, first=0))


def predict_file(target: Target, path: Path, output: Path, *, tree: str | None = None) -> Operation[Path]:
    """Score a ROOT file into a file; neither is ever in memory."""
    kinds = {".root": media.ROOT, ".arrow": media.ARROW, ".arrows": media.ARROW, ".json": media.JSON}
    if output.suffix not in kinds:
        raise InvalidInput(f"output: got {str(output)!r}; expected a name that ends in {', '.join(kinds)}")
    if not output.parent.is_dir():
        raise InvalidInput(f"output: the folder {str(output.parent)!r} does not exist; make it first")
    call = _predict_call(target, _existing(path), media.ROOT, explain=False)
    headers = {**call.headers, "Accept": kinds[output.suffix]}
    checked(
        (yield dataclasses.replace(call, headers=headers, params={} if tree is None else {"tree": tree}, into=output))
    )
    return output


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InvalidInput(f"{path} is no file; check the path")
    return path


def _scores(answer: Answer) -> Scores:
    try:
        if answer.headers.get("content-type", "").startswith(media.JSON):
            plain = json.loads(answer.body)
            names, scores = wire.stacked(plain["scores"])
            explain = tuple(plain["explain"]) if "explain" in plain else None
        else:
            names, scores = wire.stacked(columnar.decode(answer.body).columns)
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


def search(query: Mapping[str, str | float | None], bounds: Mapping[str, float]) -> Operation[list[dict[str, Any]]]:
    """Find models by what is known of them; all, where nothing is asked."""
    asked = {**query, **bounds}
    params = {name: str(value) for name, value in asked.items() if value is not None}
    return list(_json((yield Call(method="GET", path="/models", params=params, is_repeatable=True))))


def card(target: Target) -> Operation[dict[str, Any]]:
    """Ask what is known of a model, or everything about a version."""
    return dict(_json((yield Call(method="GET", path=target.path, is_repeatable=True))))


def upload(
    name: str,
    body: Path,
    *,
    tags: Iterable[str],
    features: Iterable[str],
    columns: Iterable[str],
    batching: str | None,
) -> Operation[int]:
    """Publish a model; not asked again once it may have arrived, as that would publish it twice."""
    params = {"tag": list(tags), "feature": list(features), "column": list(columns)}
    params |= {} if batching is None else {"batching": [batching]}
    headers = {"Content-Type": "application/octet-stream"}
    call = Call(method="POST", path=f"{_model(name)}/versions", params=params, headers=headers, body=_existing(body))
    return int(_json((yield call))["version"])


def download(name: str, version: int | None, into: Path) -> Operation[Path]:
    """Fetch graph and manifest of a version, and compare checksums."""
    if version is None:
        version = int((yield from card(Target(name=name)))["latest"])
    path = Target(name=name, version=version).path
    into.mkdir(parents=True, exist_ok=True)
    for file in (MANIFEST, MODEL):
        call = Call(method="GET", path=f"{path}/{file}", into=into / file, is_repeatable=True)
        answer = checked((yield call))
    if sha256_of(into / MODEL) != answer.headers.get("x-model-sha256"):
        raise _strange(answer, ValueError(f"the checksum of {MODEL} is another one than it says"))
    return into


def set_alias(name: str, alias: str, version: int) -> Operation[None]:
    """Let an alias point at a version."""
    body, headers = json.dumps({"version": version}).encode(), {"Content-Type": media.JSON}
    path = Target(name=name, alias=alias).path
    checked((yield Call(method="PUT", path=path, headers=headers, body=body, is_repeatable=True)))


def delete_alias(name: str, alias: str) -> Operation[None]:
    """Remove an alias."""
    checked((yield Call(method="DELETE", path=Target(name=name, alias=alias).path)))


def add_tag(name: str, tag: str) -> Operation[None]:
    """Add a tag."""
    checked((yield Call(method="PUT", path=f"{_model(name)}/tags/{quote(tag, safe='')}", is_repeatable=True)))


def remove_tag(name: str, tag: str) -> Operation[None]:
    """Remove a tag."""
    checked((yield Call(method="DELETE", path=f"{_model(name)}/tags/{quote(tag, safe='')}")))


def delete(target: Target) -> Operation[None]:
    """Move to the trash; not asked again, as it could then be somebody else's that goes."""
    checked((yield Call(method="DELETE", path=target.path)))


def restore(target: Target) -> Operation[None]:
    """Take out of the trash."""
    checked((yield Call(method="POST", path=f"{target.path}/restore")))


def purge(*, days: float | None, max_bytes: int | None) -> Operation[int]:
    """Empty the trash."""
    limits = {"days": days, "max_bytes": max_bytes}
    params = {name: str(value) for name, value in limits.items() if value is not None}
    return int(_json((yield Call(method="DELETE", path="/trash", params=params, is_repeatable=True)))["removed"])


def is_ready() -> Operation[bool]:
    """Ask whether the server takes requests."""
    return (yield Call(method="GET", path="/health/ready")).status == 200
