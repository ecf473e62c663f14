"""The ways to ask for scores: how a request is written and its answer read."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import struct
from collections.abc import Callable, Mapping

import numpy as np
import orjson

from benchmarks.serve.network import MODEL, NAMES, Floats

COLUMNS = "application/vnd.rootdata.columns"
ARROW = "application/vnd.apache.arrow.stream"
MAGIC = b"RDCOLS1\n"
Body = tuple[bytes, Mapping[str, str]]  # with headers of its own


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Road:
    """A format of one server.

    Parameters
    ----------
    events : in a request
    write : events (n, 27) to a body
    read : an answer to scores (n,)
    """

    name: str
    path: str
    events: int
    write: Callable[[Floats], Body]
    read: Callable[[bytes], Floats]
    content_type: str = "application/json"
    accept: str = "application/json"

    def request(self, events: Floats) -> bytes:
        """Write a whole HTTP request."""
        body, headers = self.write(events)
        lines = {
            "Host": "127.0.0.1",
            "Content-Type": self.content_type,
            "Accept": self.accept,
            "Content-Length": str(len(body)),
            **headers,
        }
        head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
        return f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body


def project() -> tuple[Road, ...]:
    """List the roads of this project's server."""
    predict, infer = f"/models/{MODEL}/predict", f"/v2/models/{MODEL}/infer"
    binary = {"content_type": COLUMNS, "accept": COLUMNS}
    arrow = {"content_type": ARROW, "accept": ARROW}
    return (
        Road(name="physics JSON", path=predict, events=1, write=write_events, read=read_signal),
        Road(name="v2 JSON", path=infer, events=1, write=write_tensor, read=read_tensor),
        Road(name="binary columns", path=predict, events=1000, write=write_columns, read=read_columns, **binary),
        Road(name="Arrow", path=predict, events=1000, write=write_arrow, read=read_arrow, **arrow),
        Road(
            name="v2 binary",
            path=infer,
            events=1000,
            write=write_binary_tensor,
            read=lambda answer: np.frombuffer(answer[-4000:], "<f4"),
            content_type="application/octet-stream",
        ),
        Road(name="JSON, columns", path=predict, events=1000, write=write_columnar, read=read_signal),
        Road(name="JSON, per event", path=predict, events=1000, write=write_events, read=read_signal),
    )


def litserve() -> tuple[Road, ...]:
    """List the roads of stock LitServe."""
    return tuple(
        Road(name="JSON", path="/predict", events=n, write=write_features, read=read_scores) for n in (1, 1000)
    )


def fastapi() -> tuple[Road, ...]:
    """List the roads of FastAPI with onnxruntime in process."""
    return (
        Road(name="JSON", path="/json", events=1, write=write_features, read=read_scores),
        Road(
            name="raw floats",
            path="/raw",
            events=1000,
            write=lambda events: (events.tobytes(), {}),
            read=lambda answer: np.frombuffer(answer, "<f4"),
            content_type="application/octet-stream",
        ),
        Road(name="JSON", path="/json", events=1000, write=write_features, read=read_scores),
    )


def mlserver() -> tuple[Road, ...]:
    """List the roads of MLServer."""
    infer = f"/v2/models/{MODEL}/infer"
    return (
        Road(name="v2 JSON", path=infer, events=1, write=write_tensor, read=read_tensor),
        Road(name="v2 base64", path=infer, events=1000, write=write_packed, read=read_tensor),
        Road(name="v2 JSON", path=infer, events=1000, write=write_tensor, read=read_tensor),
    )


def _numbers(array: Floats) -> bytes:
    """Write numbers in JSON with as many digits as float32 has."""
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


def write_events(events: Floats) -> Body:
    keys = [f'"{name}":'.encode() for name in NAMES]
    rows = [_numbers(row)[1:-1].split(b",") for row in events]
    objects = [b"{" + b",".join(k + v for k, v in zip(keys, row, strict=True)) + b"}" for row in rows]
    return b'{"events":[' + b",".join(objects) + b"]}", {}


def write_columnar(events: Floats) -> Body:
    columns = [f'"{name}":'.encode() + _numbers(events[:, i]) for i, name in enumerate(NAMES)]
    return b'{"columns":{' + b",".join(columns) + b"}}", {}


def write_columns(events: Floats) -> Body:
    header = {"num_events": len(events), "columns": [{"name": name, "dtype": "<f4"} for name in NAMES]}
    plain = json.dumps(header).encode()
    parts = [_pad(MAGIC + struct.pack("<I", len(plain)) + plain), *(_pad(c.tobytes()) for c in events.T)]
    return b"".join(parts), {}


def _pad(part: bytes) -> bytes:
    return part + bytes(-len(part) % 8)


def write_arrow(events: Floats) -> Body:
    import pyarrow as pa

    batch = pa.record_batch({name: events[:, i] for i, name in enumerate(NAMES)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue(), {}


def write_tensor(events: Floats) -> Body:
    shape = f'{{"inputs":[{{"name":"flat","datatype":"FP32","shape":[{len(events)},{len(NAMES)}],"data":'
    return shape.encode() + _numbers(events.ravel()) + b"}]}", {}


def write_binary_tensor(events: Floats) -> Body:
    size = {"binary_data_size": events.nbytes}
    tensor = {"name": "flat", "datatype": "FP32", "shape": list(events.shape), "parameters": size}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return header + events.tobytes(), {"Inference-Header-Content-Length": str(len(header))}


def write_packed(events: Floats) -> Body:
    text = base64.b64encode(events.tobytes()).decode()
    tensor = {"name": "packed", "datatype": "BYTES", "shape": [1], "data": [text]}
    return json.dumps({"inputs": [tensor]}).encode(), {}


def write_features(events: Floats) -> Body:
    return b'{"features":' + _numbers(events) + b"}", {}


def read_signal(answer: bytes) -> Floats:
    return np.array(orjson.loads(answer)["scores"]["signal"], "f4")


def read_scores(answer: bytes) -> Floats:
    return np.array(orjson.loads(answer)["scores"], "f4")


def read_tensor(answer: bytes) -> Floats:
    return np.array(orjson.loads(answer)["outputs"][0]["data"], "f4").ravel()


def read_columns(answer: bytes) -> Floats:
    (length,) = struct.unpack_from("<I", answer, len(MAGIC))
    header = json.loads(answer[12 : 12 + length])
    if [c["name"] for c in header["columns"]] != ["signal"]:
        raise ValueError(f"got the columns {header['columns']}")
    return np.frombuffer(answer, "<f4", header["num_events"], offset=len(_pad(answer[: 12 + length])))


def read_arrow(answer: bytes) -> Floats:
    import pyarrow as pa

    return pa.ipc.open_stream(answer).read_all()["signal"].to_numpy()
