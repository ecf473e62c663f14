"""What the client that waits and the one for asyncio have in common: how they are made, and how they get methods."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from serve.client.retry import Policy
from serve.client.servers import Servers
from serve.client.transport import Progress, trust

PER_REQUEST = 50_000  # events

F = TypeVar("F", bound=Callable[..., Any])


class Connected:
    """Has the servers that it asks, and connections to them; made as :class:`serve.client.waiting.Client` says."""

    _connect: Callable[..., Any]

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
        self._servers = Servers(url, key=key, policy=policy, draw=draw, max_events=events_per_request)
        self._http = self._connect(headers=self._servers.headers, verify=trust(ca))
        self._progress = progress


def like(operation: Callable[..., Any]) -> Callable[[F], F]:
    """Give a method the name, the words and the signature of its operation, whose first parameter is its own."""
    own = inspect.signature(operation)
    first, *others = own.parameters.values()
    parameters = [first.replace(name="self", annotation=first.empty), *others]
    result = own.return_annotation.removeprefix("Steps[").removesuffix("]")

    def dressed(method: F) -> F:
        method.__name__, method.__doc__ = operation.__name__, operation.__doc__
        vars(method)["__signature__"] = own.replace(parameters=parameters, return_annotation=result)
        return method

    return dressed
