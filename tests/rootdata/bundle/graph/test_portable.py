"""Graphs without logic: the same answers, and right ones where another runtime had them wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from rootdata.bundle.graph import portable
from sofie_for_tests import Compiled

shapes = st.sampled_from([((3,), (2, 3)), ((2, 3), (2, 1)), ((2, 4, 3), (2, 4, 1)), ((2, 1, 3), (2, 1, 3)), ((), (2,))])


def graph_of(operation: str, left: tuple[int, ...], right: tuple[int, ...]) -> Any:
    """Make scores = 1 where ``operation(a > 0, b > 0)``, else -1."""
    nodes = [
        helper.make_node("Greater", ["a", "zero"], ["p"]), helper.make_node("Greater", ["b", "zero"], ["q"]),
        helper.make_node(operation, ["p", "q"], ["r"]), helper.make_node("Where", ["r", "one", "minus"], ["scores"]),
    ]  # fmt: skip
    constants = [helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("zero", 0), ("one", 1), ("minus", -1))]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", left), ("b", right))]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, np.broadcast_shapes(left, right))
    graph = helper.make_graph(nodes, "test", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def numbers(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape).astype(np.float32)


@given(st.sampled_from(portable.LOGIC), shapes, st.integers(0, 99))
def test_answers_stay_and_logic_goes(operation: str, sizes: Any, seed: int) -> None:
    model = graph_of(operation, *sizes)
    given_ = {"a": numbers(sizes[0], seed), "b": numbers(sizes[1], seed + 1)}
    (expected,) = ReferenceEvaluator(model).run(None, given_)
    portable.without_logic(model)
    onnx.checker.check_model(model, full_check=True)
    assert not {node.op_type for node in model.graph.node} & set(portable.LOGIC)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, given_)[0], expected)


def test_a_graph_without_logic_stays_as_it_is() -> None:
    model = graph_of("Add", (2,), (2,))
    before = model.SerializeToString()
    portable.without_logic(model)
    assert model.SerializeToString() == before


@pytest.mark.long
@pytest.mark.parametrize("operation", portable.LOGIC)
def test_sofie_answers_as_it_should(operation: str, tmp_path: Path) -> None:
    sizes = (2, 3), (2, 1)
    a = np.array([[1, -1, 1], [1, -1, 1]], np.float32)
    b = np.array([[1], [-1]], np.float32)
    model = graph_of(operation, *sizes)
    (expected,) = ReferenceEvaluator(model).run(None, {"a": a, "b": b})
    found = []
    for name in ("as it was", "portable"):
        if name == "portable":
            portable.without_logic(model)
        onnx.save(model, tmp_path / "model.onnx")
        program = Compiled(tmp_path / "model.onnx", tmp_path / name)
        found.append(program({"a": a, "b": b}, axes=dict(zip("ab", sizes, strict=True))).reshape(expected.shape))
    assert found[1].tolist() == expected.tolist()
    assert found[0].tolist() != expected.tolist(), "SOFIE broadcasts logic now: without_logic is not needed any more"
