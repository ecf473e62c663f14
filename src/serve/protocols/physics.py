"""Events by branch name, in any of the formats; scores of each event, in any of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rootdata.table import Table
from serve.codec.events import Unsliced
from serve.errors import UnsupportedType
from serve.formats.format import Format
from serve.formats.known import formats_of
from serve.messages import Reply, Request
from serve.models.scoring import (
    DecodedRequest,
    Outputs,
    Replies,
    check_takes_events,
    group_of_events,
    headers,
    joined,
    reply,
    run_tables,
)
from serve.models.session import Model
from serve.protocols.protocol import Protocol
from serve.settings import Settings

_Explained = list[dict[str, Any]]


class Physics(Protocol):
    """The protocol of ``/models/<name>/predict``; ``explain`` tells how an event differs from the training events."""

    def task(self, place: int, request: Request, model: Model, *, settings: Settings) -> DecodedRequest:
        """Decode events; a few in JSON are checked later, together with those of other requests.

        Parameters
        ----------
        place : of its answer among those of its batch
        request : events in any of the formats; its option ``explain`` asks what is unlike the training events
        model : takes events, not just tensors
        settings : with the formats, and the limits of a request
        """
        check_takes_events(model)
        explains = "explain" in request.options
        content = _format(request, settings).read(request.body, model.schemas, settings=settings, as_table=explains)

        def encode(outputs: Outputs, seconds: float) -> Reply:
            told = _explained(content, model) if explains and isinstance(content, Table) else None
            return _encoded(request, model, outputs, told, seconds, settings=settings)

        return DecodedRequest(
            place=place, model=model, deadline=request.deadline, group=group_of_events(content, model), content=content,
            encode=encode,
        )  # fmt: skip

    def steps(self, request: Request, model: Model, *, settings: Settings) -> Replies:
        """Decode and score a long body a few events at a time.

        Parameters
        ----------
        request : events in any of the formats
        model : takes events, not just tensors
        settings : with the formats, and the limits of a request
        """
        check_takes_events(model)
        form = _format(request, settings)
        try:
            tables = form.slices(request.body, model.schemas, settings=settings)
            yield from _score(tables, request, model, settings)
        except Unsliced:
            yield None
            again = form.slices_again(request.body, model.schemas, settings=settings)
            while (first := next(again)) is None:
                yield None
            tables = itertools.chain([first], (table for table in again if table is not None))
            yield from _score(tables, request, model, settings)

    def file_steps(self, request: Request, model: Model, target: Path, *, settings: Settings) -> Replies:
        """Score a file a few events at a time, in constant memory.

        Parameters
        ----------
        request : with the ``path`` of a file of events; its ``accept`` is the content type of the answer
        model : takes events, not just tensors
        target : file for the answer
        settings : with the formats, and the limits of an event
        """
        started, num_events = time.perf_counter(), 0
        check_takes_events(model)
        form = formats_of(settings.formats).of_events(request.content_type)
        tables = form.tables(str(request.path), model.schemas, options=request.options, settings=settings)
        with formats_of(settings.formats).of_scores(request.accept).writer(target, model.heading) as writer:
            for table, outputs in run_tables(tables, model):
                writer.write(outputs[0])
                num_events += table.num_events
                yield None
        yield Reply(
            status=200,
            content_type=request.accept,
            headers=headers(request),
            path=str(target),
            num_events=num_events,
            seconds=time.perf_counter() - started,
        )


def _format(request: Request, settings: Settings) -> Format:
    """Find the format of a body that is in memory."""
    found = formats_of(settings.formats).of_events(request.content_type)
    if found.is_file:
        raise UnsupportedType(f"body: {found.content_type!r} is a file; send it as one", field="Content-Type")
    return found


def _score(tables: Iterator[Table], request: Request, model: Model, settings: Settings) -> Replies:
    """Score tables one after the other; one answer holds the events of all."""
    parts, seconds = list[Outputs](), 0.0
    told: _Explained | None = [] if "explain" in request.options else None
    started = time.perf_counter()
    for table, outputs in run_tables(tables, model):
        parts.append(outputs[:1])
        if told is not None:
            told += _explained(table, model)
        seconds += time.perf_counter() - started
        yield None
        started = time.perf_counter()
    yield _encoded(request, model, joined(parts), told, seconds, settings=settings)


def _explained(table: Table, model: Model) -> _Explained:
    """Say how each event differs from the training events."""
    assembler = check_takes_events(model)
    return assembler.explain(assembler.features(table), table)


def _encoded(
    request: Request,
    model: Model,
    outputs: Outputs,
    told: Sequence[dict[str, Any]] | None,
    seconds: float,
    *,
    settings: Settings,
) -> Reply:
    form = formats_of(settings.formats).of_scores(request.accept)
    body = form.answer(model.heading, outputs[0], told)
    return reply(request, body, form.content_type, outputs, seconds)
