"""The client that waits for every answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from serve.client import operations
from serve.client.operations import Operation, Target
from serve.client.packing import packed
from serve.client.retry import Answer, Failure, Policy, Wait
from serve.client.scores import Scores
from serve.client.servers import Servers, Steps
from serve.client.transport import Progress, send, trust

T = TypeVar("T")
Models = list[dict[str, Any]]
PER_REQUEST = 50_000  # events
POLL = 0.1  # seconds between two looks whether a server is ready


class Client:
    """Asks a prediction server, and waits for the answers; a context manager.

    Parameters
    ----------
    url : address of the server; of several, the others are asked where the first does not answer
    key : of the server; ``python -m serve.client`` takes it from ``ROOTDATA_KEY``
    ca : file or folder of the certificates that are trusted, in place of the system's
    timeout : seconds that a request may take, retries and waits included
    file_timeout : the same for one that moves a ROOT file or a bundle
    retries : how many times to ask again where that is safe, after growing waits
    events_per_request : more are sent in several requests, all to the same version
    progress : is told the bytes that are sent of a bundle or a ROOT file, and all that it has, after each piece
    draw : gives numbers from [0, 1), which spread the waits of many clients
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        key: str | None = None,
        ca: str | Path | None = None,
        timeout: float = 30.0,
        file_timeout: float = 600.0,
        retries: int = 4,
        events_per_request: int = PER_REQUEST,
        progress: Progress | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        policy = Policy(retries=retries, timeout=timeout, file_timeout=file_timeout)
        self._servers = Servers(url, key=key, policy=policy, draw=draw)
        self._max_events = events_per_request
        self._http = httpx.Client(headers=self._servers.headers, verify=trust(ca))
        self._progress = progress

    def _run(self, steps: Steps[T]) -> T:
        outcome: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                outcome = None
            else:
                outcome = send(self._http, step, self._progress)

    def _ask(self, operation: Operation[T]) -> T:
        return self._run(self._servers.steps(operation))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def predict(
        self,
        model: str,
        events: Any,
        *,
        version: int | None = None,
        alias: str | None = None,
        explain: bool = False,
        tree: str | None = None,
    ) -> Scores:
        """Score events.

        Parameters
        ----------
        events : a list of dicts (branch name to a number or a list of numbers, None for a missing value); a dict, a
            DataFrame or anything else of columns by branch name; an awkward array of records; the path of a ROOT file
        version, alias : of the model; the latest version by default
        explain : also say what is unlike the training events; not for files
        tree : of a ROOT file that has several

        Raises
        ------
        InvalidInput, ServerError, Unreachable
            Naming what is wrong, where, and what to do.
        """
        target = Target(name=model, version=version, alias=alias)
        return self._ask(operations.predict(target, events, explain=explain, tree=tree, max_events=self._max_events))

    def predict_file(
        self,
        model: str,
        path: str | Path,
        output: str | Path,
        *,
        version: int | None = None,
        alias: str | None = None,
        tree: str | None = None,
    ) -> Path:
        """Score a ROOT file of any size into a file; neither is ever in memory.

        Parameters
        ----------
        output : ``scores.root`` (tree ``scores``, one branch ``score_<column>`` for each), ``.arrow`` or ``.json``
        """
        target = Target(name=model, version=version, alias=alias)
        return self._ask(operations.predict_file(target, Path(path), Path(output), tree=tree))

    def models(self) -> Models:
        """List all models: of each what :meth:`search` gives."""
        return self._ask(operations.search({}, {}))

    def search(
        self,
        *,
        tag: str | None = None,
        feature: str | None = None,
        author: str | None = None,
        text: str | None = None,
        min_auc: float | None = None,
        bounds: Mapping[str, float] | None = None,
    ) -> Models:
        """Find models by what their latest version says; what is not given does not matter.

        Parameters
        ----------
        feature : a branch or feature that it takes
        author, text : parts of the author, and of name, description, author or tags
        bounds : ``min_<metric>`` or ``max_<metric>`` to a number
        """
        query = {"tag": tag, "feature": feature, "author": author, "text": text, "min_auc": min_auc}
        return self._ask(operations.search(query, bounds or {}))

    def card(self, name: str, version: int | None = None) -> dict[str, Any]:
        """Say what is known of a model, or everything about a version: its manifest."""
        return self._ask(operations.card(Target(name=name, version=version)))

    def upload(
        self,
        name: str,
        source: str | Path,
        *,
        tags: Iterable[str] = (),
        features: Iterable[str] = (),
        columns: Iterable[str] = (),
        batching: str | None = None,
    ) -> int:
        """Publish a bundle as the next version of a model, and return its number.

        Parameters
        ----------
        source : folder of a bundle, an archive of one, or a graph alone (``.onnx``)
        features, columns : of a graph alone: what the features of its input, and its scores, are called
        batching : ``none`` where requests, and the events in them, are to be run one by one
        """
        with packed(Path(source)) as body:
            return self._ask(
                operations.upload(name, body, tags=tags, features=features, columns=columns, batching=batching)
            )

    def download(self, name: str, version: int | None = None, *, into: str | Path) -> Path:
        """Fetch a version, the latest by default, as a bundle into a folder, and check that it is whole."""
        return self._ask(operations.download(name, version, Path(into)))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let an alias, such as ``production``, point at a version."""
        self._ask(operations.set_alias(name, alias, version))

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        self._ask(operations.delete_alias(name, alias))

    def add_tag(self, name: str, tag: str) -> None:
        """Add a tag to a model."""
        self._ask(operations.add_tag(name, tag))

    def remove_tag(self, name: str, tag: str) -> None:
        """Remove a tag from a model."""
        self._ask(operations.remove_tag(name, tag))

    def delete(self, name: str, version: int | None = None) -> None:
        """Move a version, or the whole model, to the trash."""
        self._ask(operations.delete(Target(name=name, version=version)))

    def restore(self, name: str, version: int | None = None) -> None:
        """Take what was deleted last out of the trash."""
        self._ask(operations.restore(Target(name=name, version=version)))

    def purge(self, *, days: float | None = None, max_bytes: int | None = None) -> int:
        """Remove what was deleted for good, and return how many folders that were.

        Parameters
        ----------
        days : only what was deleted longer ago
        max_bytes : only what is more than that, the oldest first
        """
        return self._ask(operations.purge(days=days, max_bytes=max_bytes))

    def is_ready(self) -> bool:
        """Ask, once, whether the server takes requests."""
        return self._run(self._servers.look())

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server takes requests.

        Raises
        ------
        Unreachable
            If it does not within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() >= deadline:
                raise self._servers.not_ready(timeout)
            time.sleep(POLL)
