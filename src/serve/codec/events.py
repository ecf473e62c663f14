"""Events as JSON: one object for each, or one list for each branch."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Any

import numpy as np

from rootdata.bundle.assemble import Column, Table
from rootdata.bundle.manifest import Manifest
from rootdata.jagged import Ints, Jagged, offsets_of
from serve.codec import schema
from serve.codec.casting import from_list, in_events, in_lists
from serve.codec.parsing import check_keys, check_known, check_names, given, kind_of, parse_object, shown
from serve.codec.schema import Schema
from serve.errors import BadRequest, InvalidEvents
from serve.settings import Settings


def decode(body: bytes, manifest: Manifest, *, settings: Settings) -> Table:
    """Decode ``{"events": [{...}, ...]}`` or ``{"counts": {...}, "columns": {...}}``.

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming what is wrong, where, in which event.
    """
    return from_document(parse_object(body), manifest, settings=settings)


def from_document(document: Mapping[str, Any], manifest: Manifest, *, settings: Settings) -> Table:
    """Decode what :func:`decode` does, once it is no JSON any more."""
    wanted = schema.schema_of(manifest, sent(document))
    if document.keys() == {"events"}:
        return from_events(document["events"], wanted, settings)
    if "columns" not in document or "events" in document:
        _refuse(document)
    check_keys(document, known=("counts", "columns"))
    return _from_columns(document.get("counts", {}), document["columns"], wanted, settings)


def sent(document: Mapping[str, Any]) -> AbstractSet[str]:
    """Name what is said to be the branches: of all events, or of the first one."""
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


def from_events(events: Any, wanted: Schema, settings: Settings) -> Table:
    """Turn one mapping an event into columns.

    Parameters
    ----------
    events : (n,) branch name to a number, None for a missing one, or to a list of them

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        As :func:`decode`.
    """
    _check_events(events, wanted, settings)
    columns: dict[str, Column] = {}
    for flats in wanted.flats:
        columns.update(flats.columns(events))
    for name in wanted.fixed:
        columns[name] = schema.fixed_column(list(map(itemgetter(name), events)), name, wanted)
    for group, names in wanted.groups.items():
        lists = {name: list(map(itemgetter(name), events)) for name in names}
        columns |= schema.jagged_group(lists, group, wanted, settings)
    return Table(num_events=len(events), columns=columns)


def _check_events(events: Any, wanted: Schema, settings: Settings) -> None:
    if type(events) is not list:
        raise BadRequest(f"events: got {kind_of(events)}; expected a list of objects", field="events")
    schema.check_events(len(events), settings)
    names = wanted.specs.keys()
    for number, event in enumerate(events):
        if type(event) is not dict:
            raise InvalidEvents(
                f"event {number}: got {given(event)}; expected an object with the branches of the model",
                field="events",
                event=number,
            )
        if event.keys() != names:
            check_names(event, names, event=number)


def _from_columns(counts: Any, columns: Any, wanted: Schema, settings: Settings) -> Table:
    for what, value in (("counts", counts), ("columns", columns)):
        if type(value) is not dict:
            raise BadRequest(f"{what}: got {kind_of(value)}; expected an object, {{...}}", field=what)
    check_known(counts, wanted.groups, what="counts")
    check_names(columns, wanted.specs)
    for name, values in columns.items():
        if type(values) is not list:
            raise InvalidEvents(f"{name!r}: got {given(values)}; expected a list", field=name)
    offsets = {group: _offsets(values, group, settings) for group, values in counts.items()}
    num_events = _num_events(columns, offsets, wanted)
    schema.check_events(num_events, settings)
    result: dict[str, Column] = {}
    for flats in wanted.flats:
        for name in flats.names:
            result[name] = from_list(columns[name], flats.dtype, in_events(name))
    for name in wanted.fixed:
        result[name] = schema.fixed_column(columns[name], name, wanted)
    for group, names in wanted.groups.items():
        lists = {name: columns[name] for name in names}
        if group in offsets:
            result |= _with_counts(lists, group, offsets[group], wanted, settings)
        else:
            result |= schema.jagged_group(lists, group, wanted, settings)
    return Table(num_events=num_events, columns=result)


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


def _with_counts(
    lists: Mapping[str, list[Any]], group: str, offsets: Ints, wanted: Schema, settings: Settings
) -> dict[str, Jagged]:
    result: dict[str, Jagged] = {}
    for name, values in lists.items():
        if _is_nested(values):
            nested = schema.jagged_group({name: values}, group, wanted, settings)[name]
            schema.check_alike(np.diff(offsets), f"counts.{group}", nested.counts, name)
            result[name] = Jagged(offsets, nested.content)
            continue
        if len(values) != offsets[-1]:
            message = f"{name!r}: got {len(values)} values; counts.{group} sum up to {offsets[-1]}"
            raise InvalidEvents(message, field=name)
        result[name] = Jagged(offsets, from_list(values, wanted.dtypes[name], in_lists(name, offsets)))
    return result
