"""Graphs that other runtimes run as onnxruntime does: what is known to go wrong elsewhere is written otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

LOGIC = ("And", "Or", "Xor")
_HALF = "portable_half"
_FLOAT = 1  # TensorProto.FLOAT


def without_logic(model: Any) -> None:
    """Write ``And``, ``Or`` and ``Xor`` as arithmetic on 0 and 1, in place.

    SOFIE, with which ROOT compiles graphs, takes them; but where shapes differ it reads the smaller operand as if it
    were as long as the larger one, and where an axis has one place its code may not compile. Products, sums and
    comparisons of numbers it does as it should, in all shapes.

    Parameters
    ----------
    model : an ``onnx.ModelProto`` without functions
    """
    from onnx import helper

    graph = model.graph
    if not any(node.op_type in LOGIC for node in graph.node):
        return
    nodes = [type(node).FromString(node.SerializeToString()) for old in graph.node for node in _portable(old)]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(helper.make_tensor(_HALF, _FLOAT, [], [0.5]))


def _portable(node: Any) -> Iterator[Any]:
    if node.op_type not in LOGIC:
        yield node
        return
    from onnx import helper

    stem = node.output[0]
    numbers = [f"{stem}_left", f"{stem}_right"]
    for name, number in zip(node.input, numbers, strict=True):
        yield helper.make_node("Cast", [name], [number], to=_FLOAT)
    if node.op_type == "Xor":
        yield helper.make_node("Sub", numbers, [f"{stem}_difference"])
        yield helper.make_node("Abs", [f"{stem}_difference"], [f"{stem}_number"])
    else:
        yield helper.make_node("Mul" if node.op_type == "And" else "Add", numbers, [f"{stem}_number"])
    yield helper.make_node("Greater", [f"{stem}_number", _HALF], [stem])
