"""What a worker does: decode requests, score the events of many at once, encode the answers."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from rootdata.bundle.assemble import Assembler, Tensors
from rootdata.bundle.manifest import Manifest
from rootdata.causes import reason_of
from rootdata.errors import MachineError, RootDataError
from rootdata.jagged import Jagged
from rootdata.table import Table, concatenate
from serve.app.memory import limit_of_worker
from serve.codec import answers, arrow, binary, events, image, inference, media, rootfile, tfaas
from serve.codec.schema import cut_branches, schema_of
from serve.errors import BadRequest, DeadlineExceeded, InvalidEvents, NotFound, ServeError, UnsupportedType
from serve.faults import fault_of
from serve.messages import LATER, Reply, Request
from serve.models.pace import length, run_in_slices
from serve.models.repository import Repository
from serve.models.session import SLICE, Loading, Model, Models
from serve.parsing import parse_object
from serve.processes.deadline import Terminator
from serve.settings import Settings

_log = logging.getLogger("serve")

Outputs = list[npt.NDArray[Any]]
Rows = list[Any]  # events as JSON holds them, not yet checked
Mark = Callable[[Sequence[int]], None]
Steps = Generator[Reply | None, None, None]

DECODERS = {media.COLUMNS: binary.decode, media.ARROW: arrow.decode}
LONG = 1 << 19  # bytes of a body from which decoding it is long work
FEW = 32  # events of a request up to which they are checked together with those of others: it costs next to nothing
TOGETHER = 1.0  # s that requests may run together; then each runs alone, and for as long as it may


def _unmarked(places: Sequence[int]) -> None:
    """Tell nobody what is worked on."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A decoded request.

    Parameters
    ----------
    place : of its answer among those of its batch
    deadline : on the clock of ``time.monotonic``
    group : tasks of the same group may run together
    content : a table of branches, the tensors themselves, or events that are still to be checked
    encode : makes the answer, of the outputs for its events and the seconds that they took
    """

    place: int
    model: Model
    deadline: float
    group: tuple[Any, ...]
    content: Table | Tensors | Rows
    encode: Callable[[Outputs, float], Reply]

    def __len__(self) -> int:
        return len(self.content) if isinstance(self.content, list) else length(self.content, self.model)

    @property
    def is_long(self) -> bool:
        """Whether it is better run in slices: others would wait too long for all of it."""
        return len(self) > (FEW if self.model.runs_alone else SLICE)


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

    def answer(self, requests: Sequence[Request], *, mark: Mark = _unmarked) -> list[Reply | Steps]:
        """Answer requests, each by itself right or wrong; those that take long by steps that lead to the answer.

        Parameters
        ----------
        mark : told which of them are worked on next
        """
        self._models.collect()
        replies: dict[int, Reply | Steps] = {}
        groups: dict[tuple[Any, ...], list[Task]] = {}
        model = functools.cache(self._model)  # looked up once for all of them
        for place, request in enumerate(requests):
            if len(request.body) >= LONG and request.road in ("physics", "v2"):
                replies[place] = self._within(request.deadline, self._score_body(request))
                continue
            mark([place])
            task = _guarded(
                lambda place=place, request=request: self._task(  # type: ignore[misc]
                    place, request, model(request.model, request.version)
                )
            )
            if isinstance(task, Reply):
                replies[place] = task
            elif task.is_long:
                replies[place] = self._within(request.deadline, self._in_slices(task))
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

    def _task(self, place: int, request: Request, model: Model) -> Task:
        if request.road == "v2":
            return self._tensor_task(place, request, model)
        if request.road == "image":
            return self._image_task(place, request, model)
        content, encode = self._content(request, model)
        return Task(
            place=place, model=model, deadline=request.deadline, group=_group(content, model), content=content,
            encode=encode,
        )  # fmt: skip

    def _tensor_task(self, place: int, request: Request, model: Model) -> Task:
        length = request.options.get("header_length")
        asked = inference.decode(
            request.body, None if length is None else int(length), model.manifest, settings=self._settings
        )
        names = [o.name for o in model.manifest.outputs]

        def encode(outputs: Outputs, seconds: float) -> Reply:
            body, headers = inference.encode(
                asked, dict(zip(names, outputs, strict=True)), model=request.model, version=request.version
            )
            return Reply(status=200, body=body, headers=headers, num_events=asked.num_events, seconds=seconds)

        tensors = dict(asked.tensors)
        return Task(
            place=place, model=model, deadline=request.deadline, group=_tensor_group(tensors, model), content=tensors,
            encode=encode,
        )  # fmt: skip

    def _image_task(self, place: int, request: Request, model: Model) -> Task:
        tensors = image.decode(request.body, model.manifest, settings=self._settings)

        def encode(outputs: Outputs, seconds: float) -> Reply:
            if outputs[0].dtype.kind not in "biuf":
                raise InvalidEvents(
                    f"output {model.manifest.outputs[0].name!r} holds no numbers; POST to /v2/.../infer"
                )
            _check_finite(outputs[0], first=0)
            return _reply(request, tfaas.encode_json(outputs[0]), media.JSON, outputs, seconds)

        return Task(
            place=place, model=model, deadline=request.deadline, group=_tensor_group(tensors, model), content=tensors,
            encode=encode,
        )  # fmt: skip

    def _content(self, request: Request, model: Model) -> tuple[Table | Rows, Callable[[Outputs, float], Reply]]:
        check_takes_events(model)
        body, manifest = request.body, model.manifest
        if request.road == "tfaas-json":
            table = tfaas.decode_json(body, manifest, settings=self._settings)
            return table, lambda outputs, seconds: _reply(
                request, tfaas.encode_json(outputs[0]), media.JSON, outputs, seconds
            )
        if request.road == "tfaas-proto":
            table = tfaas.decode_proto(body, manifest, settings=self._settings)
            return table, lambda outputs, seconds: _reply(
                request, tfaas.encode_proto(manifest.columns, outputs[0]), "application/x-protobuf", outputs, seconds
            )
        _check_type(request)
        content = self._events(request, manifest)
        return content, lambda outputs, seconds: self._encode(request, model, content, outputs, seconds)

    def _events(self, request: Request, manifest: Manifest) -> Table | Rows:
        if request.content_type != media.JSON:
            return DECODERS[request.content_type](request.body, manifest, settings=self._settings)
        document = parse_object(request.body)
        rows = document["events"] if document.keys() == {"events"} else None
        has_more = "explain" in request.options or cut_branches(manifest).keys() & events.sent(document)
        if type(rows) is list and 0 < len(rows) <= FEW and not has_more:
            return rows
        return events.from_document(document, manifest, settings=self._settings)

    def _encode(self, request: Request, model: Model, content: Table | Rows, outputs: Outputs, seconds: float) -> Reply:
        explain = _explained(content, model) if "explain" in request.options and isinstance(content, Table) else None
        return _encoded(request, model, outputs, explain, seconds)

    def _finish(self, tasks: Sequence[Task], mark: Mark) -> dict[int, Reply]:
        """Run tasks of one group together; where that fails the halves of it, so that none spoils the others.

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

    def _within(self, deadline: float, steps: Steps) -> Steps:
        """Take steps before a deadline; what goes wrong becomes the answer."""
        try:
            with contextlib.closing(steps):
                self._terminator.moment = deadline
                for reply in steps:
                    yield reply
                    self._terminator.moment = deadline
        except Exception as error:  # noqa: BLE001 - every request gets an answer
            yield failed(error)

    def _in_slices(self, task: Task) -> Steps:
        """Run one task a few events at a time."""
        started, parts = time.perf_counter(), list[Outputs]()
        contents = [task.content] if isinstance(task.content, Table | dict) else []
        for _, outputs in run_in_slices(contents, task.model, functools.partial(_run_alone, task.model)):
            parts.append(outputs)
            yield None
        yield task.encode(_joined(parts), time.perf_counter() - started)

    def _score_body(self, request: Request) -> Steps:
        """Decode and score a large body a few events at a time."""
        self._models.collect()
        model = self._model(request.model, request.version)
        if request.road == "v2":
            task = self._tensor_task(0, request, model)
            yield None
            yield from self._in_slices(task)
            return
        check_takes_events(model)
        _check_type(request)
        try:
            yield from self._score_tables(request, model, self._slices(request, model.manifest))
        except events.Unsliced:
            document = parse_object(request.body)
            yield None
            tables = events.slices_of(document, model.manifest, settings=self._settings)
            yield from self._score_tables(request, model, tables)

    def _slices(self, request: Request, manifest: Manifest) -> Iterator[Table]:
        if request.content_type == media.JSON:
            return events.slices(request.body, manifest, settings=self._settings)
        return iter([DECODERS[request.content_type](request.body, manifest, settings=self._settings)])

    def _score_tables(self, request: Request, model: Model, tables: Iterable[Table]) -> Steps:
        """Score tables one after the other; the answer has the events of all."""
        parts, seconds = list[Outputs](), 0.0
        explain: list[dict[str, Any]] | None = [] if "explain" in request.options else None
        started = time.perf_counter()
        for table, outputs in run_in_slices(tables, model, functools.partial(_run_alone, model)):
            parts.append(outputs[:1])
            if explain is not None:
                explain += _explained(table, model)
            seconds += time.perf_counter() - started
            yield None
            started = time.perf_counter()
        yield _encoded(request, model, _joined(parts), explain, seconds)

    def _run(self, tasks: Sequence[Task]) -> Outputs:
        model, contents = tasks[0].model, [task.content for task in tasks]
        tensors = [c for c in contents if isinstance(c, dict)]
        if len(tensors) == 1:
            return model.run(tensors[0])  # as they are: they may be large, or no events at all
        if tensors:
            return model.run({name: np.concatenate([t[name] for t in tensors]) for name in tensors[0]})
        rows = [row for c in contents if isinstance(c, list) for row in c]
        if rows:
            table = events.from_events(rows, schema_of(model.manifest), self._settings)
        else:
            table = concatenate([_scored(c, model.manifest) for c in contents if isinstance(c, Table)])
        outputs = model.run_events(check_takes_events(model)(table))
        _check_finite(outputs[0], first=0)
        return outputs

    def begin(self, request: Request) -> Steps:
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

    def _score_file(self, request: Request, place: Path) -> Steps:
        self._models.collect()
        model, started, num_events = self._model(request.model, request.version), time.perf_counter(), 0
        check_takes_events(model)
        tables = rootfile.tables(
            str(request.path), model.manifest, tree=request.options.get("tree"), settings=self._settings
        )
        with answers.writer(
            request.accept, place, model.manifest.columns, model=request.model, version=request.version
        ) as writer:
            for table, outputs in run_in_slices(tables, model, functools.partial(_run_alone, model)):
                writer.write(outputs[0])
                num_events += table.num_events
                yield None
        yield Reply(
            status=200,
            content_type=request.accept,
            headers=_headers(request),
            path=str(place),
            num_events=num_events,
            seconds=time.perf_counter() - started,
        )


def _with_names(manifest: Manifest) -> str:
    """Say how a graph is published so that it takes events: a list of names is enough for a row of numbers each."""
    first, *more = manifest.inputs
    if more or len(first.shape) != 2 or first.dtype == "string" or not manifest.outputs[0].dtype.startswith("float"):
        return "with a manifest"
    width = first.shape[1]
    return f"with the names of its {'' if isinstance(width, str) else f'{width} '}features: ?feature=HT&feature=..."


def _end_of(tasks: Sequence[Task]) -> float:
    """Return when a run of tasks has to end: at the deadline of one, sooner where there are several."""
    if len(tasks) == 1:
        return tasks[0].deadline
    return min(time.monotonic() + TOGETHER, *(task.deadline for task in tasks))


def check_takes_events(model: Model) -> Assembler:
    """Return what makes tensors of events, or say that the model takes tensors alone."""
    if model.assembler is None:
        raise InvalidEvents(
            f"model {model.name!r} was published without the names of its branches and takes tensors alone: POST to "
            f"/v2/models/{model.name}/infer, or publish it {_with_names(model.manifest)}"
        )
    return model.assembler


def _check_type(request: Request) -> None:
    """Check that events can be sent as these are."""
    if request.content_type not in (media.JSON, *DECODERS):
        allowed = ", ".join((media.JSON, *DECODERS, media.ROOT))
        raise UnsupportedType(f"body: got {request.content_type!r:.80}; allowed: {allowed}", field="Content-Type")


def _run_alone(model: Model, content: Table | Tensors, first: int) -> Outputs:
    """Run a model on events of one request.

    Parameters
    ----------
    first : number of the first event, for errors
    """
    if not isinstance(content, Table):
        return model.run(content)
    outputs = model.run_events(check_takes_events(model)(_scored(content, model.manifest)))
    _check_finite(outputs[0], first=first)
    return outputs


def _joined(parts: Sequence[Outputs]) -> Outputs:
    """Put the outputs for some events behind those for the events before."""
    return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def _explained(table: Table, model: Model) -> list[dict[str, Any]]:
    """Say of each event what is strange about it."""
    assembler = check_takes_events(model)
    return assembler.explain(assembler.features(table), table)


def _encoded(
    request: Request, model: Model, outputs: Outputs, explain: Sequence[dict[str, Any]] | None, seconds: float
) -> Reply:
    body, content_type = answers.encode(
        request.accept, model=request.model, version=request.version, columns=model.manifest.columns,
        scores=outputs[0], explain=explain,
    )  # fmt: skip
    return _reply(request, body, content_type, outputs, seconds)


def _scored(table: Table, manifest: Manifest) -> Table:
    """Leave out the branches that only cuts need: requests that are joined need the same ones."""
    if not cut_branches(manifest):
        return table
    return Table(num_events=table.num_events, columns={b.name: table.columns[b.name] for b in manifest.branches})


def _group(content: Table | Rows, model: Model) -> tuple[Any, ...]:
    """Tell which events may share tensors: where the graph takes any number of objects, those of about the same."""
    kind = type(content).__name__
    if not model.has_open_axes:
        return (id(model), kind)
    if isinstance(content, Table):
        counts = (int(c.counts.max(initial=0)) for c in content.columns.values() if isinstance(c, Jagged))
    else:
        counts = (len(v) for row in content if type(row) is dict for v in row.values() if type(v) is list)
    return (id(model), kind, max(counts, default=0).bit_length())


def _tensor_group(tensors: Tensors, model: Model) -> tuple[Any, ...]:
    if model.runs_alone:
        return (object(),)
    return (id(model), "tensors", tuple((name, values.shape[1:]) for name, values in tensors.items()))


def _check_finite(scores: npt.NDArray[Any], *, first: int) -> None:
    if not np.isfinite(scores).all():
        event = first + int(np.flatnonzero(~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))[0])
        raise InvalidEvents(
            f"the model gives NaN or infinity for event {event}; its values are beyond what the model can be used for",
            event=event,
        )


def _reply(request: Request, body: bytes, content_type: str, outputs: Outputs, seconds: float) -> Reply:
    return Reply(
        status=200,
        body=body,
        content_type=content_type,
        headers=_headers(request),
        num_events=len(outputs[0]),
        seconds=seconds,
    )


def _headers(request: Request) -> dict[str, str]:
    return {"X-Model": request.model, "X-Model-Version": str(request.version)}


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
