"""Events as bodies of requests, written by others than the server and its client."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pyarrow as pa


def arrow(columns: Mapping[str, Any]) -> bytes:
    """Write columns as an Arrow stream."""
    batch = pa.record_batch([pa.array(values) for values in columns.values()], names=list(columns))
    with pa.ipc.new_stream(sink := io.BytesIO(), batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()
