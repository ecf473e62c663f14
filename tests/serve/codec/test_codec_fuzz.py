"""Valid bodies, spoilt at random: nothing but a ServeError or whole events comes out, in bounded time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from codec_strategies import (
    EVENT,
    PHYSICS,
    SETTINGS,
    TENSORS,
    arrow_stream,
    as_arrow,
    as_binary,
    as_columns,
    as_events,
    as_keys_and_values,
    as_tfaas_proto,
    check_whole,
    events_of,
    rows_of,
    tensor_body,
    tensors_of,
)  # fmt: skip
from spoiling import spoil

from rootdata.table import Table
from serve.codec import arrow, binary, events, inference, tfaas
from serve.codec.schema import Schemas
from serve.errors import ServeError

EXAMPLES = 2500
SECONDS = 2.0  # that a single body may take on a busy machine; they take milliseconds


def good_table(num_events: int = 3) -> Table:
    return events.decode(orjson.dumps({"events": events_of(num_events)}), Schemas(PHYSICS), settings=SETTINGS)


def tensors_whole(request: inference.InferenceRequest) -> None:
    for spec in TENSORS.inputs:
        values = request.tensors[spec.name]
        assert values.dtype == spec.dtype
        assert values.ndim == len(spec.shape)
        assert len(values) == request.num_events


HEADER = tensor_body(tensors_of())[1]
CASES: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "binary": (as_binary(good_table(), PHYSICS), lambda b: binary.decode(b, Schemas(PHYSICS), settings=SETTINGS)),
    "arrow": (as_arrow(good_table(), PHYSICS), lambda b: arrow.decode(b, Schemas(PHYSICS), settings=SETTINGS)),
    "events": (as_events(good_table(), PHYSICS), lambda b: events.decode(b, Schemas(PHYSICS), settings=SETTINGS)),
    "columns": (as_columns(good_table(), PHYSICS), lambda b: events.decode(b, Schemas(PHYSICS), settings=SETTINGS)),
    "proto": (
        as_tfaas_proto(*as_keys_and_values(good_table(1))),
        lambda b: tfaas.decode_proto(b, Schemas(PHYSICS), settings=SETTINGS),
    ),
    "v2": (tensor_body(tensors_of())[0], lambda b: inference.decode(b, HEADER, TENSORS, settings=SETTINGS)),
}


def attempt(decode: Callable[[bytes], Any], body: bytes) -> tuple[Any, str]:
    """Decode a body: what came out, or why it was refused."""
    try:
        return decode(body), ""
    except ServeError as error:
        return None, str(error)


@pytest.mark.parametrize("case", CASES)
def test_spoilt_bodies(case: str) -> None:
    body, decode = CASES[case]
    rng, refused, slowest = np.random.default_rng(7), 0, 0.0
    for _ in range(EXAMPLES):
        bad, started = spoil(body, rng), time.process_time()
        found, message = attempt(decode, bad)
        if found is None:
            refused += 1
            assert 0 < len(message) < 1000
        elif case == "v2":
            tensors_whole(found)
        else:
            check_whole(found, PHYSICS)
        slowest = max(slowest, time.process_time() - started)
    assert refused > EXAMPLES / 10
    assert slowest < SECONDS


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_spoilt_compressed_streams(compression: str) -> None:
    plain = pa.ipc.open_stream(as_arrow(good_table(), PHYSICS)).read_all()
    body, rng, refused = arrow_stream(plain, compression=compression), np.random.default_rng(3), 0
    for _ in range(EXAMPLES // 2):
        try:
            check_whole(arrow.decode(spoil(body, rng), Schemas(PHYSICS), settings=SETTINGS), PHYSICS)
        except ServeError:
            refused += 1
    assert refused > EXAMPLES / 20


def test_random_bytes() -> None:
    rng = np.random.default_rng(11)
    for _ in range(500):
        bad = rng.bytes(rng.integers(0, 200))
        for _, decode in CASES.values():
            with contextlib.suppress(ServeError):
                decode(bad)


def test_good_bodies_are_good() -> None:
    for body, decode in CASES.values():
        decode(body)
    assert rows_of(good_table().columns["cov"]) == [EVENT["cov"]] * 3
