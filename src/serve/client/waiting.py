"""The client that waits for every answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx

from serve.client import operations
from serve.client.methods import Connected, like
from serve.client.retry import Send
from serve.client.servers import KeepFile, Outcome, Servers, Step, Steps
from serve.client.transport import send

P = ParamSpec("P")
T = TypeVar("T")


def _waited(operation: Callable[Concatenate[Servers, P], Steps[T]]) -> Callable[Concatenate[Client, P], T]:
    @like(operation)
    def method(self: Client, /, *args: P.args, **options: P.kwargs) -> T:
        return self._run(operation(self._servers, *args, **options))

    return method


class Client(Connected):
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

    _http: httpx.Client
    _connect = httpx.Client

    def _run(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        with contextlib.ExitStack() as held:
            while True:
                try:
                    step = steps.send(outcome)
                except StopIteration as done:
                    result: T = done.value
                    return result
                outcome = self._done(step, held)

    def _done(self, step: Step, held: contextlib.ExitStack) -> Outcome:
        if isinstance(step, Send):
            return send(self._http, step, self._progress)
        if isinstance(step, KeepFile):
            return held.enter_context(step.file)
        time.sleep(step.seconds)
        return None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    predict = _waited(operations.predict)
    predict_file = _waited(operations.predict_file)
    models = _waited(operations.models)
    search = _waited(operations.search)
    card = _waited(operations.card)
    upload = _waited(operations.upload)
    download = _waited(operations.download)
    set_alias = _waited(operations.set_alias)
    delete_alias = _waited(operations.delete_alias)
    add_tag = _waited(operations.add_tag)
    remove_tag = _waited(operations.remove_tag)
    delete = _waited(operations.delete)
    restore = _waited(operations.restore)
    purge = _waited(operations.purge)
    is_ready = _waited(operations.is_ready)
    wait_until_ready = _waited(operations.wait_until_ready)
