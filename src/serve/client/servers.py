"""The servers of a client: which to ask first, with which key, and how patiently."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from serve.client import operations
from serve.client.errors import InvalidInput, Unreachable
from serve.client.operations import Operation
from serve.client.retry import Answer, Failure, Policy, Send, Wait, ask
from serve.client.transport import CONNECT

T = TypeVar("T")
Steps = Generator[Send | Wait, Answer | Failure | None, T]


class Servers:
    """The servers of a client, and how to ask them."""

    def __init__(self, url: str | Sequence[str], *, key: str | None, policy: Policy, draw: Callable[[], float]) -> None:
        self._urls = [_checked_url(u) for u in ([url] if isinstance(url, str) else url)]
        if not self._urls:
            raise InvalidInput("url: got none; give the address of a server, 'http://127.0.0.1:8000'")
        if key is not None and (not key.isascii() or not key.isprintable() or " " in key):
            raise InvalidInput("key: it has characters that no key has; check that it was copied whole, and alone")
        self._policy, self._draw = policy, draw
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def steps(self, operation: Operation[T], *, policy: Policy | None = None) -> Steps[T]:
        """Break an operation down to what is sent; the server that answered last is asked first."""
        answer: Answer | None = None
        while True:
            try:
                call = next(operation) if answer is None else operation.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result
            urls = list(self._urls)
            answer = yield from ask(
                call, urls=urls, policy=policy or self._policy, clock=time.monotonic, draw=self._draw
            )
            self._urls = sorted(urls, key=lambda u, server=answer.server: u != server)  # type: ignore[misc]

    def look(self) -> Steps[bool]:
        """Ask once whether a server is ready."""
        try:
            return (yield from self.steps(operations.is_ready(), policy=Policy(retries=0, timeout=CONNECT)))
        except Unreachable:
            return False

    def not_ready(self, timeout: float) -> Unreachable:
        """Make the error for a server that does not become ready."""
        urls = " and ".join(self._urls)
        return Unreachable(f"{urls}: not ready within {timeout:g} s; check the address, and the server's log")


def _checked_url(url: str) -> str:
    try:
        is_one = url.startswith(("http://", "https://")) and bool(urlsplit(url).hostname)
    except ValueError:
        is_one = False
    if not is_one:
        raise InvalidInput(f"url: got {url!r}; expected one like 'http://127.0.0.1:8000'")
    return url.rstrip("/")
