"""Events to the body of a request, and scores out of an answer; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serve.client.columns import is_awkward
from serve.client.errors import InvalidInput
from serve.client.scores import Floats


def stacked(columns: Mapping[str, Any]) -> tuple[tuple[str, ...], Floats]:
    """Put columns beside each other: names, and (events, columns) float32."""
    return tuple(columns), np.stack([np.asarray(values, np.float32) for values in columns.values()], axis=1)


def encode_events(events: Sequence[Mapping[str, Any]]) -> bytes:
    """Write events as JSON, a dict each; NaN and infinities become null.

    Raises
    ------
    InvalidInput
        For what JSON has no word for.
    """
    plain = [{str(name): _plain(value) for name, value in event.items()} for event in events]
    return json.dumps({"events": plain}, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic) or is_awkward(value):
        return _plain(value.tolist())
    raise InvalidInput(f"events: got a value of type {type(value).__name__}; expected numbers and lists of numbers")
