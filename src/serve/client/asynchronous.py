"""The client for asyncio: what :mod:`serve.client.waiting` has, to be awaited."""

from __future__ import annotations

import asyncio
import contextlib
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
from serve.client.transport import Progress, send_async, trust
from serve.client.waiting import PER_REQUEST, POLL, Models

T = TypeVar("T")


class AsyncClient:
    """Asks a prediction server from asyncio; otherwise as :class:`serve.client.waiting.Client`, with ``async with``.

    Parameters
    ----------
    url, key, ca, timeout, file_timeout, retries, events_per_request, progress, draw : as of the other client;
        ``progress`` is called between other tasks, and should not take long
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
        self._http = httpx.AsyncClient(headers=self._servers.headers, verify=trust(ca))
        self._progress = progress

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await send_async(self._http, step, self._progress)

    async def _ask(self, operation: Operation[T]) -> T:
        return await self._run(self._servers.steps(operation))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def predict(
        self,
        model: str,
        events: Any,
        *,
        version: int | None = None,
        alias: str | None = None,
        explain: bool = False,
        tree: str | None = None,
    ) -> Scores:
        """Score events."""
        target = Target(name=model, version=version, alias=alias)
        return await self._ask(
            operations.predict(target, events, explain=explain, tree=tree, max_events=self._max_events)
        )

    async def predict_file(
        self,
        model: str,
        path: str | Path,
        output: str | Path,
        *,
        version: int | None = None,
        alias: str | None = None,
        tree: str | None = None,
    ) -> Path:
        """Score a ROOT file of any size into a file; neither is ever in memory."""
        target = Target(name=model, version=version, alias=alias)
        return await self._ask(operations.predict_file(target, Path(path), Path(output), tree=tree))

    async def models(self) -> Models:
        """List all models: of each what :meth:`search` gives."""
        return await self._ask(operations.search({}, {}))

    async def search(
        self,
        *,
        tag: str | None = None,
        feature: str | None = None,
        author: str | None = None,
        text: str | None = None,
        min_auc: float | None = None,
        bounds: Mapping[str, float] | None = None,
    ) -> Models:
        """Find models by what their latest version says; what is not given does not matter."""
        query = {"tag": tag, "feature": feature, "author": author, "text": text, "min_auc": min_auc}
        return await self._ask(operations.search(query, bounds or {}))

    async def card(self, name: str, version: int | None = None) -> dict[str, Any]:
        """Say what is known of a model, or everything about a version: its manifest."""
        return await self._ask(operations.card(Target(name=name, version=version)))

    async def upload(
        self,
        name: str,
        source: str | Path,
        *,
        tags: Iterable[str] = (),
        features: Iterable[str] = (),
        columns: Iterable[str] = (),
        batching: str | None = None,
    ) -> int:
        """Publish a bundle as the next version of a model, and return its number."""
        with contextlib.ExitStack() as stack:
            body = await asyncio.to_thread(stack.enter_context, packed(Path(source)))
            return await self._ask(
                operations.upload(name, body, tags=tags, features=features, columns=columns, batching=batching)
            )

    async def download(self, name: str, version: int | None = None, *, into: str | Path) -> Path:
        """Fetch a version, the latest by default, as a bundle into a folder, and check that it is whole."""
        return await self._ask(operations.download(name, version, Path(into)))

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let an alias, such as ``production``, point at a version."""
        await self._ask(operations.set_alias(name, alias, version))

    async def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias."""
        await self._ask(operations.delete_alias(name, alias))

    async def add_tag(self, name: str, tag: str) -> None:
        """Add a tag to a model."""
        await self._ask(operations.add_tag(name, tag))

    async def remove_tag(self, name: str, tag: str) -> None:
        """Remove a tag from a model."""
        await self._ask(operations.remove_tag(name, tag))

    async def delete(self, name: str, version: int | None = None) -> None:
        """Move a version, or the whole model, to the trash."""
        await self._ask(operations.delete(Target(name=name, version=version)))

    async def restore(self, name: str, version: int | None = None) -> None:
        """Take what was deleted last out of the trash."""
        await self._ask(operations.restore(Target(name=name, version=version)))

    async def purge(self, *, days: float | None = None, max_bytes: int | None = None) -> int:
        """Remove what was deleted for good, and return how many folders that were.

        Parameters
        ----------
        days : only what was deleted longer ago
        max_bytes : only what is more than that, the oldest first
        """
        return await self._ask(operations.purge(days=days, max_bytes=max_bytes))

    async def is_ready(self) -> bool:
        """Ask, once, whether the server takes requests."""
        return await self._run(self._servers.look())

    async def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server takes requests."""
        deadline = time.monotonic() + timeout
        while not await self.is_ready():
            if time.monotonic() >= deadline:
                raise self._servers.not_ready(timeout)
            await asyncio.sleep(POLL)
