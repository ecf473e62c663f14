"""Torch's exporter, which parses the source of its 500 operators anew for each graph: a third of what one takes."""

from __future__ import annotations

import functools
import sys


def keep_operators() -> None:
    """Keep what the exporter has parsed, once it is imported."""
    if exporter := sys.modules.get("torch.onnx._internal.exporter._registration"):
        operators = exporter.onnxscript_apis
        if not hasattr(operators.get_torchlib_ops, "cache_info"):
            operators.get_torchlib_ops = functools.cache(operators.get_torchlib_ops)
