"""The bodies of TFaaS (MLaaS4HEP's server), so that its clients can move: one event as keys and values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from rootdata.errors import nearest
from rootdata.table import Table
from serve.codec import events, schema
from serve.codec.schema import Schema, Schemas
from serve.errors import BadRequest, InvalidEvents
from serve.parsing import check_keys, given, parse_object, shown
from serve.settings import Settings

Content = Literal["json", "proto"]
Floats = npt.NDArray[np.float32]

_KEYS = ("keys", "values", "model")
_ELEMENT = re.compile(r"(?P<name>.+)\[(?P<number>0|[1-9][0-9]{0,8})\]", re.DOTALL)


def _messages() -> tuple[Any, Any]:
    """Make the classes of ``Row`` and ``Predictions`` as TFaaS's ``tfaas.proto`` has them, plus the model of a row."""
    field = descriptor_pb2.FieldDescriptorProto
    text, number, nested = field.TYPE_STRING, field.TYPE_FLOAT, field.TYPE_MESSAGE
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    fields = {
        "Row": [("key", text, many), ("value", number, many), ("model", text, one)],
        "Class": [("label", text, one), ("probability", number, one)],
        "Predictions": [("prediction", nested, many)],
    }
    file = descriptor_pb2.FileDescriptorProto(name="tfaas.proto", package="tfaaspb", syntax="proto3")
    for name, members in fields.items():
        described = file.message_type.add(name=name)
        for position, (member, kind, label) in enumerate(members, start=1):
            type_name = ".tfaaspb.Class" if kind == nested else None
            described.field.add(name=member, number=position, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"tfaaspb.{name}") for name in ("Row", "Predictions")]
    return message_factory.GetMessageClass(found[0]), message_factory.GetMessageClass(found[1])


Row, Predictions = _messages()


def decode_json(body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
    """Decode ``{"keys": [...], "values": [...], "model": "..."}``: one event.

    Keys are names of branches, with a position for what an event has several of: ``Jet_pt[0]``, ``Jet_pt[1]``.

    Parameters
    ----------
    body : JSON in UTF-8
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming the key that is wrong.
    """
    document = parse_object(body)
    check_keys(document, known=_KEYS, needed=("keys", "values"))
    for what in ("keys", "values"):
        if type(document[what]) is not list:
            raise BadRequest(f"{what}: got {given(document[what])}; expected a list", field=what)
    odd = next((key for key in document["keys"] if type(key) is not str), "")
    if type(odd) is not str:
        raise BadRequest(f"keys: got {given(odd)}; expected names of branches", field="keys")
    return _table(document["keys"], document["values"], schemas.of(), settings)


def decode_proto(body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
    """Decode a message ``Row``: one event, as :func:`decode_json`; what is not finite means missing.

    Parameters
    ----------
    body : a serialised message ``Row`` of TFaaS
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming the key that is wrong.
    """
    row = _row(body)
    values = [value if np.isfinite(value) else None for value in row.value]
    return _table(list(row.key), values, schemas.of(), settings)


def _row(body: bytes) -> Any:
    row = Row()
    try:
        row.ParseFromString(body)
    except (message.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"body: this is no message Row ({error})") from error
    return row


def model_of(body: bytes, content: Content) -> str | None:
    """Read the name of the model in a body; None where there is none.

    Raises
    ------
    BadRequest
        For a body that can't be read.
    """
    if content == "proto":
        return str(_row(body).model) or None
    name = parse_object(body).get("model")
    if name is not None and type(name) is not str:
        raise BadRequest(f"model: got {given(name)}; expected a string", field="model")
    return name or None


def _table(keys: Sequence[str], values: Sequence[Any], wanted: Schema, settings: Settings) -> Table:
    if len(keys) != len(values):
        raise InvalidEvents(f"values: got {len(values)}; there are {len(keys)} keys; expected as many", field="values")
    event: dict[str, Any] = {}
    elements: dict[str, dict[int, Any]] = {name: {} for name, spec in wanted.specs.items() if spec.kind != "flat"}
    for key, value in zip(keys, values, strict=True):
        name, number = _parsed(key, wanted)
        is_twice = name in event if number is None else number in elements[name]
        if is_twice:
            raise InvalidEvents(f"keys: {shown(key)} is there twice; send it once", field=name, event=0)
        if number is None:
            event[name] = value
        else:
            elements[name][number] = value
    event |= {name: _listed(elements[name], width) for name, width in wanted.fixed.items() if elements[name]}
    for group, names in wanted.groups.items():
        length = 1 + max((number for name in names for number in elements[name]), default=-1)
        schema.check_counts(np.array([length]), group, settings)
        event |= {name: _listed(elements[name], length) for name in names}
    return events.from_events([event], wanted, settings)


def _listed(elements: Mapping[int, Any], length: int) -> list[Any]:
    """Put elements in order; one that was not sent is missing."""
    return [elements.get(number) for number in range(length)]


def _parsed(key: str, wanted: Schema) -> tuple[str, int | None]:
    """Split a key into the branch and, of a branch that has several values in an event, the position."""
    spec = wanted.specs.get(key)
    if spec is not None and spec.kind == "flat":
        return key, None
    if spec is not None:
        message = f"keys: {key!r} has several values in an event; write {key + '[0]'!r}, {key + '[1]'!r}, ..."
        raise InvalidEvents(message, field=key, event=0)
    match = _ELEMENT.fullmatch(key)
    spec = wanted.specs.get(match["name"]) if match else None
    if spec is not None and spec.kind == "flat":
        message = f"keys: got {shown(key)}; {spec.name!r} has one value an event; write {spec.name!r}"
        raise InvalidEvents(message, field=spec.name, event=0)
    if match is None or spec is None:
        known = [name if spec.kind == "flat" else f"{name}[0]" for name, spec in wanted.specs.items()]
        raise InvalidEvents(f"keys: unknown {shown(key)}; {nearest(key[:60], known)}", field=key[:60], event=0)
    number = int(match["number"])
    if spec.kind == "fixed" and number >= spec.width:
        message = f"keys: got {shown(key)}; {spec.name!r} has {spec.width} values, from 0"
        raise InvalidEvents(message, field=spec.name, event=0)
    return spec.name, number


def encode_json(scores: Floats) -> bytes:
    """Write the scores of one event, (1, columns), as a list."""
    return orjson.dumps(np.ascontiguousarray(scores, np.float32).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)


def encode_proto(columns: Sequence[str], scores: Floats) -> bytes:
    """Write the scores of one event, (1, columns), as a message ``Predictions``."""
    answer = Predictions()
    for label, probability in zip(columns, np.reshape(scores, -1).tolist(), strict=True):
        answer.prediction.add(label=label, probability=probability)
    return bytes(answer.SerializeToString())
