"""A decoded request, and how the events of one are scored: at once, or a few at a time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.bundle.assemble import Assembler, Tensors
from rootdata.bundle.manifest import Manifest
from rootdata.jagged import Jagged
from rootdata.table import Table
from serve.codec.schema import Schemas
from serve.errors import InvalidEvents
from serve.formats.format import FEW, Rows
from serve.messages import Reply, Request
from serve.models.pace import length, run_in_slices
from serve.models.session import SLICE, Model

Outputs = list[npt.NDArray[Any]]
Replies = Generator[Reply | None, None, None]
"""A long job: None after each slice of the work, the answer at last."""


@dataclasses.dataclass(kw_only=True, slots=True, eq=False)
class DecodedRequest:
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
    _length: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self._length = len(self.content) if isinstance(self.content, list) else length(self.content, self.model)

    def __len__(self) -> int:
        return self._length

    @property
    def is_long(self) -> bool:
        """Whether it is better run in slices: others would wait too long for all of it."""
        return self._length > (FEW if self.model.runs_alone else SLICE)


def check_takes_events(model: Model) -> Assembler:
    """Return what makes tensors of events, or say that the model takes tensors alone."""
    if model.assembler is None:
        raise InvalidEvents(
            f"model {model.name!r} was published without the names of its branches and takes tensors alone: POST to "
            f"/v2/models/{model.name}/infer, or publish it {_with_names(model.manifest)}"
        )
    return model.assembler


def _with_names(manifest: Manifest) -> str:
    """Say how a graph is published so that it takes events: a list of names is enough for a row of numbers each."""
    first, *more = manifest.inputs
    if more or len(first.shape) != 2 or first.dtype == "string" or not manifest.outputs[0].dtype.startswith("float"):
        return "with a manifest"
    width = first.shape[1]
    return f"with the names of its {'' if isinstance(width, str) else f'{width} '}features: ?feature=HT&feature=..."


def in_slices(task: DecodedRequest) -> Replies:
    """Run one task a few events at a time."""
    started, parts = time.perf_counter(), list[Outputs]()
    contents = [task.content] if isinstance(task.content, Table | dict) else []
    for _, outputs in run_in_slices(contents, task.model, functools.partial(run_alone, task.model)):
        parts.append(outputs)
        yield None
    yield task.encode(joined(parts), time.perf_counter() - started)


def run_tables(tables: Iterator[Table], model: Model) -> Iterator[tuple[Table, Outputs]]:
    """Run a model on tables one after the other, a few events at a time."""
    return run_in_slices(tables, model, functools.partial(run_alone, model))


def run_alone(model: Model, content: Table | Tensors, first: int) -> Outputs:
    """Run a model on events of one request.

    Parameters
    ----------
    model : that takes these events, or tensors
    content : some events of the request, or its tensors
    first : number of the first event, for errors

    Raises
    ------
    InvalidEvents
        For scores that are not finite.
    """
    if not isinstance(content, Table):
        return model.run(content)
    outputs = model.run_events(check_takes_events(model)(scored(content, model.schemas)))
    check_finite(outputs[0], first=first)
    return outputs


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Put the outputs for some events behind those for the events before."""
    return parts[0] if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def scored(table: Table, schemas: Schemas) -> Table:
    """Leave out the branches that only cuts need: requests can be joined only where they have the same branches."""
    if not schemas.of_cuts:
        return table
    return Table(num_events=table.num_events, columns={name: table.columns[name] for name in schemas.of().specs})


def group_of_events(content: Table | Rows, model: Model) -> tuple[Any, ...]:
    """Tell which events may share tensors: for a graph with open axes, those with about the same number of objects."""
    kind = type(content).__name__
    if not model.has_open_axes:
        return (id(model), kind)
    if isinstance(content, Table):
        counts = (int(c.counts.max(initial=0)) for c in content.columns.values() if isinstance(c, Jagged))
    else:
        counts = (len(v) for row in content if type(row) is dict for v in row.values() if type(v) is list)
    return (id(model), kind, max(counts, default=0).bit_length())


def group_of_tensors(tensors: Tensors, model: Model) -> tuple[Any, ...]:
    """Tell which tensors may be joined; without an axis of events none may."""
    if model.runs_alone:
        return (object(),)
    return (id(model), "tensors", tuple((name, values.shape[1:]) for name, values in tensors.items()))


def check_finite(scores: npt.NDArray[Any], *, first: int) -> None:
    """Check that scores are numbers.

    Parameters
    ----------
    scores : (n,) or (n, columns)
    first : number of the first event, for errors
    """
    if not np.isfinite(scores).all():
        event = first + int(np.flatnonzero(~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1))[0])
        raise InvalidEvents(
            f"the model gives NaN or infinity for event {event}; its values are beyond what the model can be used for",
            event=event,
        )


def reply(request: Request, body: bytes, content_type: str, outputs: Outputs, seconds: float) -> Reply:
    """Make the reply with the scores of some events.

    Parameters
    ----------
    request : whose model and version go into headers
    body : the answer, encoded
    content_type : of the body
    outputs : of the model; the first axis of the first is that of events
    seconds : that the model ran
    """
    return Reply(
        status=200,
        body=body,
        content_type=content_type,
        headers=headers(request),
        num_events=len(outputs[0]),
        seconds=seconds,
    )


def headers(request: Request) -> dict[str, str]:
    """Say in headers which version of which model gave the scores."""
    return {"X-Model": request.model, "X-Model-Version": str(request.version)}
