"""The Open Inference Protocol, version 2, in JSON and with binary tensors: what tritonclient speaks."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from rootdata.bundle.manifest import Manifest, TensorSpec
from serve.codec import media, schema
from serve.codec.casting import Array, Locate, array_type, flattened, from_list, strings
from serve.errors import BadRequest, InvalidEvents, InvalidModel, TooLarge
from serve.parsing import check_all_there, check_known, finished, given, parse_object_in_pieces
from serve.settings import Settings

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    "BOOL": "|b1", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "<u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_NOT_OFFERED = {
    "shared_memory_region": "shared memory",
    "classification": "classification",
    "priority": "another order than that in which requests come",
    "sequence_id": "state that is kept from request to request",
}
STRINGS = "BYTES"  # each with its length in front, 4 bytes, where they are binary
_NAMES = {np.dtype(dtype): name for name, dtype in DATATYPES.items()} | {array_type("string"): STRINGS}
_LENGTH = struct.Struct("<I")
_STEP = 1 << 16  # values of a list that are turned into numbers at a time


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RequestedOutput:
    """An output that the client wants.

    Parameters
    ----------
    is_binary : behind the JSON instead of in it
    """

    name: str
    is_binary: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InferenceRequest:
    """Tensors to run a graph on, and what is wanted back.

    Parameters
    ----------
    id : that the client gave, to be repeated in the answer
    tensors : input name to its values; all inputs of the model, of its types and shapes
    num_events : size of the first axis, or 1 where that is not the axis of events
    """

    id: str | None
    tensors: Mapping[str, Array]
    outputs: tuple[RequestedOutput, ...]
    num_events: int = 1


def datatype_of(dtype: str) -> str:
    """Return the protocol's word for the type of a tensor."""
    return _NAMES[array_type(dtype)]


def decode(body: bytes, header_length: int | None, manifest: Manifest, *, settings: Settings) -> InferenceRequest:
    """Decode a request at once, as :func:`decode_in_pieces`.

    Parameters
    ----------
    body : JSON, and behind it the tensors that are sent as bytes
    header_length : bytes of JSON at the start of the body; None where there is nothing else
    manifest : names the tensors that the model takes and gives
    settings : with the limits of a request
    """
    return finished(decode_in_pieces(body, header_length, manifest, settings=settings))


def decode_in_pieces(
    body: bytes, header_length: int | None, manifest: Manifest, *, settings: Settings
) -> Generator[None, None, InferenceRequest]:
    """Decode a request, and give others a turn after each piece of a long one.

    Parameters
    ----------
    body : JSON, and behind it the tensors that are sent as bytes
    header_length : bytes of JSON at the start of the body; None where there is nothing else
    manifest : names the tensors that the model takes and gives
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming the tensor that is wrong.
    """
    length = len(body) if header_length is None else header_length
    if not 0 <= length <= len(body):
        raise BadRequest(f"{HEADER_LENGTH}: got {length}; the body has {len(body)} bytes", field=HEADER_LENGTH)
    document = yield from parse_object_in_pieces(body if length == len(body) else body[:length])
    inputs = _entries(document, "inputs", known=[t.name for t in manifest.inputs])
    check_all_there(inputs, [t.name for t in manifest.inputs], what="input")
    specs = {t.name: t for t in manifest.inputs}
    shapes = {name: _shape(entry, specs[name]) for name, entry in inputs.items()}
    _check_axes(shapes, manifest, settings)
    buffers = _buffers(inputs, memoryview(body)[length:])
    tensors: dict[str, Array] = {}
    for t in manifest.inputs:
        tensors[t.name] = yield from _tensor(inputs[t.name], t, shapes[t.name], buffers.get(t.name))
    num_events = len(next(iter(tensors.values()))) if manifest.batching == "events" else 1
    return InferenceRequest(
        id=_id(document), tensors=tensors, outputs=_outputs(document, manifest), num_events=num_events
    )


def _id(document: Mapping[str, Any]) -> str | None:
    value = document.get("id")
    if value is not None and type(value) is not str:
        raise BadRequest(f"id: got {given(value)}; expected a string", field="id")
    return value


def _entries(document: Mapping[str, Any], what: str, *, known: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Take the list of inputs or outputs apart, by name and in the order of the list."""
    entries = document.get(what)
    if type(entries) is not list or any(type(entry) is not dict for entry in entries):
        raise BadRequest(f"{what}: got {given(entries)}; expected a list of objects", field=what)
    names = [entry.get("name") for entry in entries]
    odd = next((name for name in names if type(name) is not str), "")
    if type(odd) is not str:
        raise BadRequest(f"{what}: name: got {given(odd)}; expected a string", field=what)
    check_known(names, known, what=what.removesuffix("s"))
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise BadRequest(f"{what}: {twice!r} is there twice; send it once", field=twice)
    return {entry["name"]: entry for entry in entries}


def _parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if type(parameters) is not dict:
        raise BadRequest(f"{what}: parameters: got {given(parameters)}; expected an object", field="parameters")
    for key, wish in _NOT_OFFERED.items():
        if parameters.get(key):
            raise BadRequest(f"{what}: {key}: {wish} is not offered; take the parameter out", field=key)
    return parameters


def _flag(parameters: Mapping[str, Any], key: str, what: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise BadRequest(f"{what}: {key}: got {given(value)}; expected true or false", field=key)
    return value


def _outputs(document: Mapping[str, Any], manifest: Manifest) -> tuple[RequestedOutput, ...]:
    known = [output.name for output in manifest.outputs]
    default = _flag(_parameters(document, "body"), "binary_data_output", "body", default=False)
    if not document.get("outputs"):
        return tuple(RequestedOutput(name=name, is_binary=default) for name in known)
    wanted = _entries(document, "outputs", known=known)
    flags = {n: _flag(_parameters(entry, n), "binary_data", n, default=default) for n, entry in wanted.items()}
    return tuple(RequestedOutput(name=name, is_binary=flag) for name, flag in flags.items())


def _shape(entry: Mapping[str, Any], spec: TensorSpec) -> tuple[int, ...]:
    shape = entry.get("shape")
    if type(shape) is not list or any(type(size) is not int or size < 0 for size in shape):
        message = f"input {spec.name!r}: shape: got {_listed(shape)}; expected a list of sizes, 0 or more"
        raise InvalidEvents(message, field=spec.name)
    fits = len(shape) == len(spec.shape) and all(
        type(size) is str or size == got for size, got in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        message = f"input {spec.name!r}: shape: got {_listed(shape)}; expected {_listed(spec.shape)}"
        raise InvalidEvents(message, field=spec.name)
    return tuple(shape)


def _listed(shape: Any) -> str:
    if not isinstance(shape, list | tuple):
        return given(shape)
    return "[" + ", ".join(str(s) if isinstance(s, str | int) else given(s) for s in shape[:6])[:80] + "]"


def _check_axes(shapes: Mapping[str, tuple[int, ...]], manifest: Manifest, settings: Settings) -> None:
    """Check that axes of one name are of one size in all tensors, and not too large."""
    known: dict[str, tuple[int, str]] = {}
    has_events = manifest.batching == "events"
    # Where no axis is that of events, any may be the long one: the nodes and the edges of a graph.
    most = settings.max_objects if has_events else settings.max_events
    for spec in manifest.inputs:
        name, shape = spec.name, shapes[spec.name]
        if has_events:
            schema.check_events(shape[0], settings)
        for number, (axis, size) in enumerate(zip(spec.shape, shape, strict=True)):
            if type(axis) is not str:
                continue
            first, other = known.setdefault(axis, (size, name))
            if size != first:
                message = f"input {name!r}: axis {axis!r}: got {size}; input {other!r} has {first}; both need the same"
                raise InvalidEvents(message, field=name)
            if (number or not has_events) and size > most:
                message = f"input {name!r}: axis {axis!r}: got {size}; at most {most} are allowed"
                raise TooLarge(message, field=name)


def _buffers(inputs: Mapping[str, Mapping[str, Any]], rest: memoryview) -> dict[str, memoryview]:
    """Cut what stands behind the JSON into the values of the inputs, in their order."""
    buffers: dict[str, memoryview] = {}
    start = 0
    for name, entry in inputs.items():
        size = _parameters(entry, f"input {name!r}").get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(rest) - start:
            got = f"got {given(size)}; {len(rest) - start} bytes are left in the body"
            raise BadRequest(f"input {name!r}: binary_data_size: {got}", field=name)
        buffers[name] = rest[start : start + size]
        start += size
    if start != len(rest):
        raise BadRequest(f"body: {len(rest) - start} bytes are left after the last input; check binary_data_size")
    return buffers


def _tensor(
    entry: Mapping[str, Any], spec: TensorSpec, shape: tuple[int, ...], buffer: memoryview | None
) -> Generator[None, None, Array]:
    datatype = _datatype(entry, spec)
    if buffer is not None and "data" in entry:
        raise BadRequest(f"input {spec.name!r}: got both data and binary_data_size; send one", field=spec.name)
    if buffer is None:
        values = yield from _listed_values(entry.get("data"), datatype, shape, spec)
    elif datatype == STRINGS:
        values = strings(_unpacked(buffer, math.prod(shape), spec), _located(spec, shape))
    else:
        values = _from_bytes(buffer, np.dtype(DATATYPES[datatype]), shape, spec)
    return values.astype(array_type(spec.dtype), copy=False).reshape(shape)


def _listed_values(data: Any, datatype: str, shape: tuple[int, ...], spec: TensorSpec) -> Generator[None, None, Array]:
    """Turn a list into values, (n,), a few at a time."""
    parts: list[Array] = []
    first = 0
    for values in _flat(data, shape, spec):
        if parts:
            yield
        locate = _located(spec, shape, first=first)
        if datatype == STRINGS:
            parts.append(strings(values, locate))
        else:
            parts.append(from_list(values, np.dtype(DATATYPES[datatype]), locate))
        first += len(values)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _datatype(entry: Mapping[str, Any], spec: TensorSpec) -> str:
    """Check the type: that of the input, or for a mask truth values too."""
    datatype = entry.get("datatype")
    own = datatype_of(spec.dtype)
    allowed = [own, "BOOL"] if spec.is_mask else [own]
    if type(datatype) is not str or datatype not in allowed:
        message = f"input {spec.name!r}: datatype: got {given(datatype)}; expected {' or '.join(map(str, allowed))}"
        raise InvalidEvents(message, field=spec.name)
    return datatype


def _unpacked(buffer: memoryview, number: int, spec: TensorSpec) -> list[str]:
    """Take strings apart that have their lengths in front of them."""
    found: list[str] = []
    at = 0
    while at < len(buffer) and len(found) < number:
        start = at + _LENGTH.size
        at = start + (_LENGTH.unpack_from(buffer, at)[0] if start <= len(buffer) else 1)
        if at > len(buffer):
            break
        found.append(_text(buffer[start:at], len(found), spec))
    if at != len(buffer) or len(found) != number:
        raise BadRequest(
            f"input {spec.name!r}: expected {number} strings, each behind its length (4 bytes, little endian), "
            f"and nothing else; the {len(buffer)} bytes that were sent are something else",
            field=spec.name,
        )
    return found


def _text(piece: memoryview, number: int, spec: TensorSpec) -> str:
    try:
        return str(piece, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvents(f"input {spec.name!r}: string {number} is no UTF-8", field=spec.name) from error


def _from_bytes(buffer: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], spec: TensorSpec) -> Array:
    expected = math.prod(shape) * dtype.itemsize
    if len(buffer) != expected:
        message = f"input {spec.name!r}: binary_data_size: got {len(buffer)}; its shape and datatype need {expected}"
        raise BadRequest(message, field=spec.name)
    if dtype.kind == "b" and np.count_nonzero(np.frombuffer(buffer, np.uint8) > 1):
        raise BadRequest(f"input {spec.name!r}: a truth value is one byte, 0 or 1; got another", field=spec.name)
    # The JSON in front may be of any length: what follows lies anywhere, and is brought into line.
    return np.require(np.frombuffer(buffer, dtype), requirements="A")


def _flat(data: Any, shape: tuple[int, ...], spec: TensorSpec) -> Iterator[list[Any]]:
    """Take values out of a list, row by row, or out of lists nested like the shape; a few at a time."""
    if type(data) is not list:
        message = f"input {spec.name!r}: data: got {given(data)}; expected a list, or binary_data_size"
        raise InvalidEvents(message, field=spec.name)
    if data and type(data[0]) is list:
        step = max(1, _STEP // max(1, math.prod(shape[1:])))
        for low in range(0, len(data), step):
            yield _rows(data[low : low + step], shape, spec)
        _check_length(len(data) * math.prod(shape[1:]), shape, spec, has_rows=len(data) == shape[0])
    else:
        _check_length(len(data), shape, spec)
        for low in range(0, max(1, len(data)), _STEP):
            yield data[low : low + _STEP]


def _rows(values: list[Any], shape: tuple[int, ...], spec: TensorSpec) -> list[Any]:
    """Take values out of nested lists, the first axis of any length."""
    for axis, size in enumerate(shape[1:], start=1):
        odd = next((v for v in values if type(v) is not list or len(v) != size), None)
        if odd is not None:
            message = f"input {spec.name!r}: data: axis {axis}: got {given(odd)}; expected a list of {size}"
            raise InvalidEvents(message, field=spec.name)
        values = flattened(values)
    return values


def _check_length(found: int, shape: tuple[int, ...], spec: TensorSpec, *, has_rows: bool = True) -> None:
    if found != math.prod(shape) or not has_rows:
        message = f"input {spec.name!r}: data: got {found} values; its shape {_listed(shape)} needs {math.prod(shape)}"
        raise InvalidEvents(message, field=spec.name)


def _located(spec: TensorSpec, shape: tuple[int, ...], *, first: int = 0) -> Locate:
    size = max(1, math.prod(shape[1:]))

    def locate(at: int) -> tuple[str, str, int]:
        at += first
        return spec.name, f"input {spec.name!r}: value {at % size}", at // size

    return locate


def encode(
    request: InferenceRequest, outputs: Mapping[str, Array], *, model: str, version: int
) -> tuple[bytes, dict[str, str]]:
    """Write the answer.

    Parameters
    ----------
    request : says which outputs are wanted, and how
    outputs : output name to its values; at least those that the request asks for
    model : its name
    version : that has answered

    Returns
    -------
    body, headers

    Raises
    ------
    InvalidModel
        For an output of a type that the protocol has no word for.
    """
    described, buffers = [], []
    for wanted in request.outputs:
        values = np.asarray(outputs[wanted.name], order="C")
        if values.dtype not in _NAMES:
            raise InvalidModel(f"output {wanted.name!r} is of type {values.dtype}, which the protocol has no word for")
        entry: dict[str, Any] = {"name": wanted.name, "datatype": _NAMES[values.dtype], "shape": list(values.shape)}
        if wanted.is_binary:
            buffers.append(_bytes_of(values))
            entry["parameters"] = {"binary_data_size": len(buffers[-1])}
        else:
            entry["data"] = values.reshape(-1) if values.dtype.kind != "O" else values.reshape(-1).tolist()
        described.append(entry)
    answer = {"model_name": model, "model_version": str(version), "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(wanted.is_binary for wanted in request.outputs):
        return text, {"Content-Type": media.JSON}
    return b"".join([text, *buffers]), {"Content-Type": media.BYTES, HEADER_LENGTH: str(len(text))}


def _bytes_of(values: Array) -> bytes:
    if values.dtype.kind != "O":
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [text.encode() for text in values.reshape(-1).tolist()]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
