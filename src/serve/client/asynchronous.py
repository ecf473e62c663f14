"""The client for asyncio: what :mod:`serve.client.waiting` has, to be awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from serve.client import operations
from serve.client.methods import Connected, like
from serve.client.retry import Send
from serve.client.servers import KeepFile, Outcome, Servers, Step, Steps
from serve.client.transport import send_async

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    operation: Callable[Concatenate[Servers, P], Steps[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @like(operation)
    async def method(self: AsyncClient, /, *args: P.args, **options: P.kwargs) -> T:
        return await self._run(operation(self._servers, *args, **options))

    return method


class AsyncClient(Connected):
    """Asks a prediction server from asyncio; otherwise as :class:`serve.client.waiting.Client`, with ``async with``.

    Parameters
    ----------
    url, key, ca, timeout, file_timeout, retries, events_per_request, progress, draw : as of the other client;
        ``progress`` is called between other tasks, and should not take long
    """

    _http: httpx.AsyncClient
    _connect = httpx.AsyncClient

    async def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        with contextlib.ExitStack() as held:
            while True:
                try:
                    step = steps.send(outcome)
                except StopIteration as done:
                    result: T = done.value
                    return result
                outcome = await self._done(step, held)

    async def _done(self, step: Step, held: contextlib.ExitStack) -> Outcome:
        if isinstance(step, Send):
            return await send_async(self._http, step, self._progress)
        if isinstance(step, KeepFile):
            return await asyncio.to_thread(held.enter_context, step.file)
        await asyncio.sleep(step.seconds)
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    predict = _awaited(operations.predict)
    predict_file = _awaited(operations.predict_file)
    models = _awaited(operations.models)
    search = _awaited(operations.search)
    card = _awaited(operations.card)
    upload = _awaited(operations.upload)
    download = _awaited(operations.download)
    set_alias = _awaited(operations.set_alias)
    delete_alias = _awaited(operations.delete_alias)
    add_tag = _awaited(operations.add_tag)
    remove_tag = _awaited(operations.remove_tag)
    delete = _awaited(operations.delete)
    restore = _awaited(operations.restore)
    purge = _awaited(operations.purge)
    is_ready = _awaited(operations.is_ready)
    wait_until_ready = _awaited(operations.wait_until_ready)
