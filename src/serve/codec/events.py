"""Events as JSON: one object for each, or one list for each branch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from rootdata.jagged import Column, Ints, Jagged, offsets_of
from rootdata.table import Table
from serve.codec import schema
from serve.codec.casting import from_list, in_events, in_lists
from serve.codec.schema import Schema, Schemas
from serve.errors import BadRequest, InvalidEvents
from serve.parsing import check_keys, check_known, check_names, given, kind_of, parse_object, shown
from serve.settings import Settings

STEP = 1024  # events that are decoded at a time
_PIECE = 1 << 17  # bytes of text that are parsed at a time
_SPACE = rb"[ \t\n\r]*"  # as JSON has it
_START = re.compile(_SPACE + rb"\{" + _SPACE + rb'"events"' + _SPACE + rb":" + _SPACE + rb"\[")
_BETWEEN = re.compile(rb"(?<=\})" + _SPACE + rb"," + _SPACE + rb"(?=\{)")
_END = re.compile(rb"\]" + _SPACE + rb"\}" + _SPACE + rb"\Z")
_LONGEST_END = 64  # bytes


class Unsliced(Exception):  # noqa: N818  # the body may be right
    """A text that is no plain list of events, and has to be parsed as a whole."""


def decode(body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
    """Decode ``{"events": [{...}, ...]}`` or ``{"counts": {...}, "columns": {...}}``.

    Parameters
    ----------
    body : JSON in UTF-8
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming what is wrong, where, in which event.
    """
    return from_document(parse_object(body), schemas, settings=settings)


def from_document(document: Mapping[str, Any], schemas: Schemas, *, settings: Settings) -> Table:
    """Decode what :func:`decode` does, from parsed JSON.

    Parameters
    ----------
    document : what the JSON of a body says
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        As :func:`decode`.
    """
    wanted = schemas.of(sent(document))
    if document.keys() == {"events"}:
        return from_events(document["events"], wanted, settings)
    if "columns" not in document or "events" in document:
        _refuse(document)
    columns = _BranchLists(document, wanted, settings)
    return columns.between(0, columns.num_events)


def slices(body: bytes, schemas: Schemas, *, settings: Settings) -> Iterator[Table]:
    """Decode ``{"events": [{...}, ...]}`` a few events at a time, parsing only what is needed next.

    Parameters
    ----------
    body : JSON in UTF-8
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    Unsliced
        At any time, where that can't be done.
    BadRequest, InvalidEvents, TooLarge
        As :func:`decode`.
    """
    wanted, first = None, 0
    for rows in _rows(body):
        wanted = wanted or schemas.of(sent({"events": rows}))
        yield from_events(rows, wanted, settings, first=first)
        first += len(rows)


def _rows(body: bytes) -> Iterator[list[Any]]:
    """Parse a list of events piece by piece.

    A cut may hit a string or the inside of an event; then what is before it is no list of whole values, and not JSON.
    """
    start, end = _START.match(body), _END.search(body, max(0, len(body) - _LONGEST_END))
    if start is None or end is None:
        raise Unsliced
    low, stop = start.end(), end.start()
    while low < stop:
        cut = _BETWEEN.search(body, min(low + _PIECE, stop), stop)
        high = stop if cut is None else cut.start()
        try:
            rows = orjson.loads(b"[" + body[low:high] + b"]")
        except orjson.JSONDecodeError:
            raise Unsliced from None
        yield rows
        low = stop if cut is None else cut.end()


def slices_of(document: Mapping[str, Any], schemas: Schemas, *, settings: Settings) -> Iterator[Table]:
    """Decode what :func:`from_document` does, a few events at a time.

    Parameters
    ----------
    document : what the JSON of a body says
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        As :func:`decode`.
    """
    events = document.get("events")
    if document.keys() == {"events"} and type(events) is list and events:
        wanted = schemas.of(sent(document))
        schema.check_events(len(events), settings)
        for first in range(0, len(events), STEP):
            yield from_events(events[first : first + STEP], wanted, settings, first=first)
    elif "columns" not in document or "events" in document:
        yield from_document(document, schemas, settings=settings)
    else:
        columns = _BranchLists(document, schemas.of(sent(document)), settings)
        for first in range(0, max(1, columns.num_events), STEP):
            yield columns.between(first, min(first + STEP, columns.num_events))


def sent(document: Mapping[str, Any]) -> AbstractSet[str]:
    """Name the branches that a body has: of all events, or of the first one."""
    found = document.get("columns") or document.get("events")
    first = found[0] if type(found) is list and found else found
    return first.keys() if type(first) is dict else frozenset()


def _refuse(document: Mapping[str, Any]) -> None:
    if "events" in document and "columns" in document:
        raise BadRequest("body: got both 'events' and 'columns'; send one of them", field="events")
    forms = 'expected {"events": [{...}, ...]} or {"counts": {...}, "columns": {...}}'
    odd = next((key for key in document if key not in ("events", "columns", "counts")), None)
    got = "an empty object" if not document else f"an object with the key {shown(odd or next(iter(document)))}"
    raise BadRequest(f"body: got {got}; {forms}", field=odd and odd[:60])


def from_events(events: Any, wanted: Schema, settings: Settings, *, first: int = 0) -> Table:
    """Turn one mapping an event into columns.

    Parameters
    ----------
    events : (n,) branch name to a number, None for a missing one, or to a list of them
    wanted : the branches that these events must have
    settings : with the limits of a request
    first : number of the first event, for errors and for the limit

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        As :func:`decode`.
    """
    _check_events(events, wanted, settings, first)
    columns: dict[str, Column] = {}
    for flats in wanted.flats:
        columns.update(flats.columns(events, first=first))
    for name in wanted.fixed:
        columns[name] = schema.fixed_column(list(map(itemgetter(name), events)), name, wanted, first=first)
    for group, names in wanted.groups.items():
        lists = {name: list(map(itemgetter(name), events)) for name in names}
        columns |= schema.jagged_group(lists, group, wanted, settings, first=first)
    return Table(num_events=len(events), columns=columns)


def _check_events(events: Any, wanted: Schema, settings: Settings, first: int) -> None:
    if type(events) is not list:
        raise BadRequest(f"events: got {kind_of(events)}; expected a list of objects", field="events")
    schema.check_events(first + len(events), settings)
    names = wanted.specs.keys()
    for number, event in enumerate(events, start=first):
        if type(event) is not dict:
            raise InvalidEvents(
                f"event {number}: got {given(event)}; expected an object with the branches of the model",
                field="events",
                event=number,
            )
        if event.keys() != names:
            check_names(event, names, event=number)


class _BranchLists:
    """Lists of values by branch, whose lengths fit together.

    Parameters
    ----------
    document : ``{"counts": {...}, "columns": {...}}``

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Where they do not.
    """

    def __init__(self, document: Mapping[str, Any], wanted: Schema, settings: Settings) -> None:
        check_keys(document, known=("counts", "columns"))
        counts, columns = document.get("counts", {}), document["columns"]
        for what, value in (("counts", counts), ("columns", columns)):
            if type(value) is not dict:
                raise BadRequest(f"{what}: got {kind_of(value)}; expected an object, {{...}}", field=what)
        check_known(counts, wanted.groups, what="counts")
        check_names(columns, wanted.specs)
        for name, values in columns.items():
            if type(values) is not list:
                raise InvalidEvents(f"{name!r}: got {given(values)}; expected a list", field=name)
        self._wanted, self._settings, self._columns = wanted, settings, columns
        self._offsets = {group: _offsets(values, group, settings) for group, values in counts.items()}
        self.num_events = _num_events(columns, self._offsets, wanted)
        schema.check_events(self.num_events, settings)
        self._flattened = {
            name: self._offsets[group]
            for group, names in wanted.groups.items()
            for name in names
            if group in self._offsets and not _is_nested(columns[name])
        }
        for name, offsets in self._flattened.items():
            if len(columns[name]) != offsets[-1]:
                message = f"{name!r}: got {len(columns[name])} values; counts.{wanted.group_of(name)} sum up to "
                raise InvalidEvents(f"{message}{offsets[-1]}", field=name)

    def between(self, start: int, stop: int) -> Table:
        """Turn the values of some events into columns; numbers in errors count from the first event of all.

        Raises
        ------
        InvalidEvents, TooLarge
            For a value that does not fit.
        """
        wanted, result = self._wanted, dict[str, Column]()
        for flats in wanted.flats:
            for name in flats.names:
                result[name] = from_list(self._columns[name][start:stop], flats.dtype, in_events(name, first=start))
        for name in wanted.fixed:
            result[name] = schema.fixed_column(self._columns[name][start:stop], name, wanted, first=start)
        for group, names in wanted.groups.items():
            if group in self._offsets:
                low = int(self._offsets[group][start])
                offsets = self._offsets[group][start : stop + 1] - low
                result |= {name: self._counted(name, offsets, low, start, stop) for name in names}
            else:
                lists = {name: self._columns[name][start:stop] for name in names}
                result |= schema.jagged_group(lists, group, wanted, self._settings, first=start)
        return Table(num_events=stop - start, columns=result)

    def _counted(self, name: str, offsets: Ints, low: int, start: int, stop: int) -> Jagged:
        """Turn the values of a branch with counts into a column; they come in one list, or in a list for each event."""
        wanted, group = self._wanted, self._wanted.group_of(name)
        if name in self._flattened:
            values = self._columns[name][low : low + int(offsets[-1])]
            return Jagged(offsets, from_list(values, wanted.dtypes[name], in_lists(name, offsets, first=start)))
        lists = {name: self._columns[name][start:stop]}
        nested = schema.jagged_group(lists, str(group), wanted, self._settings, first=start)[name]
        schema.check_alike(np.diff(offsets), f"counts.{group}", nested.counts, name, first=start)
        return Jagged(offsets, nested.content)


def _offsets(counts: Any, group: str, settings: Settings) -> Ints:
    if type(counts) is not list:
        raise InvalidEvents(f"counts.{group}: got {given(counts)}; expected a list of integers", field=group)
    schema.check_events(len(counts), settings)
    array = from_list(counts, np.dtype(np.int64), in_events(f"counts.{group}"))
    schema.check_counts(array, group, settings)
    return offsets_of(array)


def _num_events(columns: Mapping[str, list[Any]], offsets: Mapping[str, Ints], wanted: Schema) -> int:
    """Count the events by every column and every list of counts, which must agree."""
    lengths = {f"counts.{group}": len(found) - 1 for group, found in offsets.items()}
    for name, values in columns.items():
        group = wanted.group_of(name)
        if group is None or _is_nested(values):
            lengths[name] = len(values)
        elif group not in offsets:
            if values:
                message = f"counts.{group} is missing; {name!r} needs it, or a list of numbers for each event"
                raise InvalidEvents(message, field=name)
            lengths[name] = 0
    lead, num_events = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != num_events:
            message = f"{name!r} has {length} events; {lead!r} has {num_events}; all need the same number"
            raise InvalidEvents(message, field=name)
    return num_events


def _is_nested(values: list[Any]) -> bool:
    return bool(values) and type(values[0]) is list
