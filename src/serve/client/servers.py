"""The servers of a client: which to ask first, with which key, and how patiently."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from serve.client.errors import InvalidInput, Unreachable
from serve.client.retry import Answer, Failure, Policy, Send, ServerCall, Wait, ask


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KeepFile:
    """A step: make a file, which may take long, and keep it until all is done."""

    file: AbstractContextManager[Path]


T = TypeVar("T")
Step = Send | Wait | KeepFile
Outcome = Answer | Failure | Path | None
Steps = Generator[Step, Outcome, T]


class Servers:
    """The servers of a client, and how to ask them.

    Parameters
    ----------
    url : of one server, or of several that are asked in turn
    key : of all of them; None where none is needed
    policy : how often to ask again, and for how long
    draw : gives numbers from [0, 1), which spread the waits of many clients
    max_events : more are sent in several requests
    """

    def __init__(
        self, url: str | Sequence[str], *, key: str | None, policy: Policy, draw: Callable[[], float], max_events: int
    ) -> None:
        self._urls = [_checked_url(u) for u in ([url] if isinstance(url, str) else url)]
        if not self._urls:
            raise InvalidInput("url: got none; give the address of a server, 'http://127.0.0.1:8000'")
        if key is not None and (not key.isascii() or not key.isprintable() or " " in key):
            raise InvalidInput("key: it has characters that no key has; check that it was copied whole, and alone")
        self._policy, self._draw = policy, draw
        self.max_events = max_events
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def ask(self, call: ServerCall, *, policy: Policy | None = None) -> Steps[Answer]:
        """Send a call until one answers; the server that answered last is asked first."""
        urls = list(self._urls)
        answer = yield from ask(call, urls=urls, policy=policy or self._policy, clock=time.monotonic, draw=self._draw)
        self._urls = sorted(urls, key=lambda url: url != answer.server)
        return answer

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
