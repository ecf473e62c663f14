"""What a worker does: decode requests, score the events of many at once, encode the answers."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from rootdata.causes import reason_of
from rootdata.errors import MachineError, RootDataError
from rootdata.table import Table, concatenate
from serve.app.memory import limit_of_worker, uncollected
from serve.codec import events
from serve.errors import BadRequest, DeadlineExceeded, InvalidEvents, NotFound, ServeError
from serve.faults import fault_of
from serve.messages import LATER, Reply, Request
from serve.models.repository import Repository
from serve.models.scoring import DecodedRequest, Outputs, Replies, check_finite, check_takes_events, in_slices, scored
from serve.models.session import Loading, Model, Models
from serve.processes.deadline import Terminator
from serve.protocols.protocol import PROTOCOLS, Protocol
from serve.settings import Settings

_log = logging.getLogger("serve")

Mark = Callable[[Sequence[int]], None]

LONG = 1 << 19  # bytes of a body from which decoding it is long work
TOGETHER = 1.0  # s that requests may run together; then each runs alone, and for as long as it may


def _unmarked(places: Sequence[int]) -> None:
    """Tell nobody what is worked on."""


class Engine:
    """Scores events with the models of a repository.

    Parameters
    ----------
    settings : where the models are, how many are kept in memory, the limits of a request
    observe_load : told the name of each model that is loaded, and the seconds that it took
    """

    def __init__(self, settings: Settings, *, observe_load: Callable[[str, float], None] = lambda *_: None) -> None:
        self._settings = settings
        self._repository = repository = Repository(settings.models)
        self._models = Models(
            lambda name, version: (repository.path(name, version), repository.manifest(name, version)),
            limit=settings.sessions,
            most_bytes=settings.max_model_bytes or (settings.worker_memory or limit_of_worker(settings.workers)) // 4,
            observe_load=observe_load,
        )
        self._terminator = Terminator()

    def load_beside(self, done: Callable[[], None]) -> None:
        """Load models in threads of their own from now on, and answer ``LATER`` meanwhile.

        Parameters
        ----------
        done : called, in such a thread, when it is time to ask again
        """
        self._models.load_beside(done)

    def answer(self, requests: Sequence[Request], *, mark: Mark = _unmarked) -> list[Reply | Replies]:
        """Answer requests, each whatever is wrong with others; one that takes long gets the steps to its answer.

        Parameters
        ----------
        requests : that have come together
        mark : told which of them are worked on next
        """
        self._models.collect()
        replies: dict[int, Reply | Replies] = {}
        groups: dict[tuple[Any, ...], list[DecodedRequest]] = {}
        model = functools.cache(self._model)  # looked up once for all of them
        for place, request in enumerate(requests):
            if len(request.body) >= LONG:
                replies[place] = self._within(request.deadline, self._score_body(request))
                continue
            mark([place])
            task = _guarded(
                lambda place=place, request=request: _protocol(request).task(  # type: ignore[misc]
                    place, request, model(request.model, request.version), settings=self._settings
                )
            )
            if isinstance(task, Reply):
                replies[place] = task
            elif task.is_long:
                replies[place] = self._within(request.deadline, in_slices(task))
            else:
                groups.setdefault(task.group, []).append(task)
        for tasks in groups.values():
            replies |= self._finish(tasks, mark)
        return [replies[place] for place in range(len(requests))]

    def rest(self) -> None:
        """Let go of models that were unloaded or deleted, while there is nothing to do."""
        self._models.drop(self._is_served)

    def _is_served(self, name: str, version: int) -> bool:
        try:
            self._repository.served(name, version)
        except NotFound:
            return False
        except ServeError:  # out of reach for a while
            return True
        return True

    def _model(self, name: str, version: int) -> Model:
        model = self._models.get(name, version)
        model.terminator = self._terminator
        return model

    def _finish(self, tasks: Sequence[DecodedRequest], mark: Mark) -> dict[int, Reply]:
        """Run tasks of one group together; where that fails, run the halves, so that one bad task spoils no other.

        Together they get little time: what takes long is run alone, so that one does not take the time of the others.
        """
        mark([task.place for task in tasks])
        started = time.perf_counter()
        self._terminator.moment = _end_of(tasks)
        try:
            outputs = self._run(tasks)
        except DeadlineExceeded as error:
            if len(tasks) == 1:
                return {tasks[0].place: failed(error)}
            return {place: reply for task in tasks for place, reply in self._finish([task], mark).items()}
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            if len(tasks) == 1:
                return {tasks[0].place: failed(error)}
            middle = len(tasks) // 2
            return self._finish(tasks[:middle], mark) | self._finish(tasks[middle:], mark)
        seconds, replies, low = (time.perf_counter() - started) / len(tasks), {}, 0
        for task in tasks:
            own = outputs if len(tasks) == 1 else [values[low : low + len(task)] for values in outputs]
            low += len(task)
            replies[task.place] = _guarded(lambda task=task, own=own: task.encode(own, seconds))  # type: ignore[misc]
        return replies

    def _within(self, deadline: float, steps: Replies) -> Replies:
        """Take steps before a deadline; what goes wrong becomes the answer."""
        try:
            with contextlib.closing(steps):
                self._terminator.moment = deadline
                for reply in steps:
                    yield reply
                    self._terminator.moment = deadline
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            yield failed(error)

    def _score_body(self, request: Request) -> Replies:
        """Decode and score a large body a few events at a time."""
        self._models.collect()
        model = self._model(request.model, request.version)
        with uncollected():  # the lists of a long text would be looked at again and again, all at once
            yield from _protocol(request).steps(request, model, settings=self._settings)

    def _run(self, tasks: Sequence[DecodedRequest]) -> Outputs:
        model, contents = tasks[0].model, [task.content for task in tasks]
        tensors = [c for c in contents if isinstance(c, dict)]
        if len(tensors) == 1:
            return model.run(tensors[0])  # as they are: they may be large, or no events at all
        if tensors:
            return model.run({name: np.concatenate([t[name] for t in tensors]) for name in tensors[0]})
        rows = [row for c in contents if isinstance(c, list) for row in c]
        if rows:
            table = events.from_events(rows, model.schemas.of(), self._settings)
        else:
            table = concatenate([scored(c, model.schemas) for c in contents if isinstance(c, Table)])
        outputs = model.run_events(check_takes_events(model)(table))
        check_finite(outputs[0], first=0)
        return outputs

    def begin(self, request: Request) -> Replies:
        """Score a file: a step for some events of it, and the answer, a file too, at last.

        Parameters
        ----------
        request : with the ``path`` of the file; the answer is written beside it
        """
        place, reply = Path(f"{request.path}.scores"), None
        try:
            with contextlib.closing(self._within(request.deadline, self._score_file(request, place))) as steps:
                for reply in steps:
                    yield reply
        finally:
            if reply is None or reply.path is None:  # it failed, or nobody waits for it any more
                place.unlink(missing_ok=True)

    def _score_file(self, request: Request, place: Path) -> Replies:
        self._models.collect()
        model = self._model(request.model, request.version)
        yield from _protocol(request).file_steps(request, model, place, settings=self._settings)


def _protocol(request: Request) -> Protocol:
    found: Protocol = PROTOCOLS.find(request.road)
    return found


def _end_of(tasks: Sequence[DecodedRequest]) -> float:
    """Return when a run of tasks has to end: at the deadline of one, sooner where there are several."""
    if len(tasks) == 1:
        return tasks[0].deadline
    return min(time.monotonic() + TOGETHER, *(task.deadline for task in tasks))


def _guarded(work: Callable[[], Any]) -> Any:
    """Do some work for one request; what goes wrong becomes its answer."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - every request gets an answer
        return failed(error)


def failed(error: Exception) -> Reply:
    """Make the answer of an error."""
    if isinstance(error, Loading):
        return LATER
    if isinstance(error, RootDataError) and not isinstance(error, MachineError):  # columns that do not fit together
        error = InvalidEvents(str(error))
    if isinstance(error, RecursionError):
        error = BadRequest("body: nested too deep")
    if not isinstance(error, ServeError) and (fault := fault_of(error)):
        _log.error("a request failed: %s", reason_of(error))
        error = fault
    if not isinstance(error, ServeError):
        traceback.print_exception(error)
        error = ServeError(f"internal error ({type(error).__name__}); the server's log has the rest", code="internal")
    return Reply(status=error.status, body=orjson.dumps(error.to_dict()), headers=error.headers)
