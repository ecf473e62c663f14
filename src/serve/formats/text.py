"""Events and scores as JSONEvents."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import orjson

from rootdata.table import Table
from serve.codec import events, media
from serve.codec.media import Described
from serve.codec.schema import Schemas
from serve.formats.by_column import ByColumn
from serve.formats.format import FEW, Floats, Format, Heading, Rows, Target, Writer
from serve.parsing import parse_object, parse_object_in_pieces
from serve.settings import Settings

_NUMBERS: Described = {"type": "array", "items": {}}

_EVENTS: Described = {
    "oneOf": [
        {
            "type": "object",
            "title": "one object for each event",
            "required": ["events"],
            "additionalProperties": False,
            "properties": {"events": {"type": "array", "items": {"type": "object"}}},
        },
        {
            "type": "object",
            "title": "one list for each branch",
            "required": ["columns"],
            "additionalProperties": False,
            "properties": {
                "columns": {"type": "object", "additionalProperties": _NUMBERS},
                "counts": {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"type": "integer"}},
                },
            },
        },
    ]
}
_SCORES: Described = {
    "type": "object",
    "required": ["model", "version", "num_events", "scores"],
    "properties": {
        "model": {"type": "string"},
        "version": {"type": "integer"},
        "num_events": {"type": "integer"},
        "scores": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "number"}}},
        "explain": {"type": "array", "items": {"type": "object"}},
    },
}


class JSONEvents(Format):
    """One object for each event, or one list for each branch; scores as one list for each column."""

    content_type = media.JSON
    explains = True
    takes = _EVENTS
    gives = _SCORES

    def decode(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the events of a body.

        Parameters
        ----------
        body : JSON in UTF-8
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        return events.decode(body, schemas, settings=settings)

    def read(self, body: bytes, schemas: Schemas, *, settings: Settings, as_table: bool) -> Table | Rows:
        """Read the events of a small body; a few stay as they are, unless the cuts of the training need more.

        Parameters
        ----------
        body : JSON in UTF-8
        schemas : the branches that the model takes
        settings : with the limits of a request
        as_table : whether all events are to be decoded now
        """
        document = parse_object(body)
        rows = document["events"] if document.keys() == {"events"} else None
        has_more = as_table or (schemas.of_cuts and schemas.of_cuts.keys() & events.sent(document))
        if type(rows) is list and 0 < len(rows) <= FEW and not has_more:
            return rows
        return events.from_document(document, schemas, settings=settings)

    def slices(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Iterator[Table]:
        """Read the events of a long body, parsing only what is needed next.

        Parameters
        ----------
        body : JSON in UTF-8
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        return events.slices(body, schemas, settings=settings)

    def slices_again(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Iterator[Table | None]:
        """Read the events of a long body that has to be parsed before the first of them is known.

        Parameters
        ----------
        body : JSON in UTF-8
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        document = yield from parse_object_in_pieces(body)
        yield from events.slices_of(document, schemas, settings=settings)

    def writer(self, target: Target, heading: Heading) -> Writer:
        """Make what writes the scores of many events in constant memory."""
        return _JSONWriter(target, heading)

    def encode(self, heading: Heading, scores: Floats, explain: Sequence[Mapping[str, Any]] | None = None) -> bytes:
        """Write the scores of a few events.

        Parameters
        ----------
        heading : model, version and names of the columns, all of which go into the answer
        scores : (n, columns)
        explain : of each event what was unlike the training events; None where nobody asked
        """
        by_column = np.ascontiguousarray(scores.T, np.float32)
        answer: dict[str, Any] = {
            "model": heading.model,
            "version": heading.version,
            "num_events": len(scores),
            "scores": dict(zip(heading.columns, by_column, strict=True)),
        }
        if explain is not None:
            answer["explain"] = explain
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


class _JSONWriter(ByColumn):
    def as_bytes(self, values: Floats) -> bytes:
        separator = b"," if self.num_events else b""
        return separator + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]

    def join(self, parts: Sequence[IO[bytes]]) -> None:
        start = {"model": self.heading.model, "version": self.heading.version, "num_events": self.num_events}
        self.file.write(orjson.dumps(start)[:-1] + b',"scores":{')
        for number, (name, part) in enumerate(zip(self.heading.columns, parts, strict=True)):
            self.file.write((b"," if number else b"") + orjson.dumps(name) + b":[")
            shutil.copyfileobj(part, self.file)
            self.file.write(b"]")
        self.file.write(b"}}")
