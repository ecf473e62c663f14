"""Any ONNX graph behind our preprocessing: a model of another library, in one file, with the scores it gives itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles_for_tests import make_data
from onnx import TensorProto, helper

from rootdata.bundle.assemble import Assembler
from rootdata.bundle.export import export
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.graph.joined import Joined, together
from rootdata.bundle.manifest import EVENTS, MODEL, OutputSpec, TensorSpec, open_bundle
from rootdata.bundle.parity import edge_events, real_events
from rootdata.errors import BundleError
from rootdata.table import concatenate

TINY = 2e-6


def graph(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, list[Any]], *, opset: int, constants: Any = ()
) -> onnx.ModelProto:
    """Write a graph as another library would: with names that ours has, too."""
    taken = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    made = helper.make_graph(nodes, "another", taken, given, initializer=list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def linear(width: int, *, opset: int = 13, columns: int = 2) -> tuple[onnx.ModelProto, Callable[..., Any]]:
    """Write a softmax of a linear map of ``x``, and the same in numpy."""
    matrix = np.random.default_rng(0).normal(size=(width, columns)).astype("f4") / 30
    nodes = [
        helper.make_node("MatMul", ["features", "scores"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["probabilities"], axis=1),
    ]
    made = graph(
        nodes, {"features": (TensorProto.FLOAT, [None, width])}, {"probabilities": [None, columns]}, opset=opset,
        constants=[helper.make_tensor("scores", TensorProto.FLOAT, matrix.shape, matrix.tobytes(), raw=True)],
    )  # fmt: skip

    def predict(batch: Any) -> Any:
        raw = np.exp(batch["x"] @ matrix)
        return raw / raw.sum(1, keepdims=True)

    return made, predict


@pytest.fixture(scope="module")
def rows(samples: Path) -> Any:
    """Rows of numbers, for a graph with one input."""
    return make_data(samples, layout="vector", derived=None, flat=["met", "cov"], scale="standard",
                     jagged={"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}})  # fmt: skip


def scores_of_all(data: Any, folder: Path) -> np.ndarray[Any, Any]:
    """Score real events and those at the edges by the bundle alone."""
    manifest, real = open_bundle(folder), real_events(data.data, data.specs, 200)
    table = concatenate([real, edge_events(real, data.data, longest=4)])
    return run((folder / MODEL).read_bytes(), Assembler(manifest)(table))


def test_a_graph_with_one_input_becomes_a_bundle(rows: Any, tmp_path: Path) -> None:
    made, predict = linear(rows.shapes["x"][0])
    manifest = export(Joined(predict=predict, graph=made), rows, tmp_path / "bundle", num_events=200, author="me")
    assert manifest.parity.max_difference <= TINY
    assert (manifest.outputs[0].columns, manifest.author) == (("signal",), "me")
    assert np.isfinite(scores_of_all(rows, tmp_path / "bundle")).all()
    onnx.checker.check_model(onnx.load_model(tmp_path / "bundle" / MODEL), full_check=True)


@pytest.mark.long
@pytest.mark.parametrize("opset", [9, 18, 21])
@pytest.mark.parametrize("how", ["bytes", "file"])
def test_graphs_of_any_age_are_taken(rows: Any, tmp_path: Path, opset: int, how: str) -> None:
    made, predict = linear(rows.shapes["x"][0], opset=opset)
    onnx.save_model(made, tmp_path / "own.onnx")
    given = made.SerializeToString() if how == "bytes" else tmp_path / "own.onnx"
    model = Joined(predict=predict, graph=given, gives="probabilities", takes={"features": "x"})
    assert export(model, rows, tmp_path / "bundle", num_events=100).parity.max_difference <= TINY


def test_a_graph_takes_several_tensors_and_masks(samples: Path, tmp_path: Path) -> None:
    data = make_data(samples, classes=["a", "b", "c"])
    shapes = data.shapes
    nodes = [
        helper.make_node("Cast", ["jets_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["real", "one"], ["count"], keepdims=1),
        helper.make_node("ReduceMax", ["flat"], ["largest"], axes=[1], keepdims=1),
        helper.make_node("Clip", ["largest", "low", "high"], ["bent"]),
        helper.make_node("Concat", ["count", "bent", "count"], ["raw"], axis=1),
        helper.make_node("Softmax", ["raw"], ["out"], axis=1),
    ]
    inputs = {
        "flat": (TensorProto.FLOAT, [None, *shapes["flat"]]),
        "jets_mask": (TensorProto.BOOL, [None, *shapes["jets_mask"]]),
    }
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("low", TensorProto.FLOAT, [], [-3.0]),
        helper.make_tensor("high", TensorProto.FLOAT, [], [3.0]),
    ]
    made = graph(nodes, inputs, {"out": [None, 3]}, opset=14, constants=constants)

    def predict(batch: Any) -> Any:
        count = batch["jets_mask"].sum(1).astype("f4")
        raw = np.exp(np.stack([count, np.clip(batch["flat"].max(1), -3, 3), count], axis=1))
        return raw / raw.sum(1, keepdims=True)

    manifest = export(Joined(predict=predict, graph=made), data, tmp_path / "bundle", num_events=200)
    assert manifest.parity.max_difference <= TINY
    assert manifest.outputs[0].columns == ("a", "b", "c")
    assert np.isfinite(scores_of_all(data, tmp_path / "bundle")).all()


@pytest.mark.long
def test_a_graph_may_predict_targets(samples: Path, tmp_path: Path) -> None:
    data = make_data(samples, layout="vector", derived=None, flat=["met", "cov"], scale="standard", jagged=None,
                     targets={"energy": {"value": "ht", "unit": "GeV"}})  # fmt: skip
    made, predict = linear(data.shapes["x"][0], columns=1)
    model = Joined(predict=predict, graph=made, targets=("energy",))
    manifest = export(model, data, tmp_path / "bundle", num_events=100)
    (output,) = manifest.outputs
    assert (output.kind, output.columns, output.units) == ("regression", ("energy",), ("GeV",))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"graph": b"no graph"}, "the graph can't be read"),
        ({"takes": {"features": "y"}}, r"the graph takes \['features'\], and batches have \['x', 'mask'\]"),
        ({"takes": {"features": "x", "more": "mask"}}, r"not understood: \['more'\]"),
        ({"gives": "logits"}, r"no output 'logits'; it gives \['probabilities'\]"),
        ({"predict": lambda batch: 0.5}, r"predict returns shape \(\) for \d+ events"),
        ({"predict": lambda batch: batch["x"][:, 0] * np.nan}, "NaN or infinity for every event"),
        pytest.param(
            {"predict": lambda batch: np.full(len(batch["x"]), 0.5)},
            "the graph gives .* where the network gives",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    rows: Any, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    made, predict = linear(rows.shapes["x"][0])
    options: dict[str, Any] = {"predict": predict, "graph": made} | changes
    with pytest.raises(BundleError, match=told):
        export(Joined(**options), rows, tmp_path / "bundle", num_events=50)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_no_tensor_is_refused(rows: Any, tmp_path: Path) -> None:
    """As skl2onnx writes it, unless told otherwise."""
    classifiers = Path(__file__).parents[3] / "data" / "classifiers"
    made = onnx.load_model(classifiers / "logistic_2.onnx")
    model = Joined(predict=lambda batch: batch["x"][:, 0], graph=made, gives=1)
    with pytest.raises(BundleError, match="is no tensor; convert the model with zipmap=False"):
        export(model, rows, tmp_path / "bundle", num_events=50)


def branching(factor: float, *, opset: int = 18) -> onnx.ModelProto:
    """Write a graph with graphs inside a node, which take a constant of the outer one: ``y = factor * x`` or 0."""
    inner = [
        helper.make_graph([helper.make_node("Mul", ["x", name], ["y"])], "inner", [],
                          [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        for name in ("factor", "zero")
    ]  # fmt: skip
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["is_large"]),
        helper.make_node("If", ["is_large"], ["out"], then_branch=inner[0], else_branch=inner[1]),
    ]
    constants = [helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("factor", factor), ("zero", 0.0))]
    return graph(nodes, {"x": (TensorProto.FLOAT, [EVENTS, 1])}, {"out": [EVENTS, 1]}, opset=opset, constants=constants)


def sum_of(names: list[str], *, opset: int = 18) -> onnx.ModelProto:
    inputs = {name: (TensorProto.FLOAT, [EVENTS, 1]) for name in names}
    return graph([helper.make_node("Sum", names, ["out"])], inputs, {"out": [EVENTS, 1]}, opset=opset)


PLACES = {
    "inputs": [TensorSpec(name="x", dtype="float32", shape=(EVENTS, 1), features=("x",))],
    "output": OutputSpec(name="scores", dtype="float32", shape=(EVENTS, 1), columns=("signal",)),
}


def test_graphs_with_the_same_names_and_graphs_inside_them_lie_side_by_side() -> None:
    made = together([branching(2.0), branching(30.0)], sum_of(["a", "b", "x"]), **PLACES)
    onnx.checker.check_model(made, full_check=True)
    for value, expected in ((1.5, 33 * 1.5), (-1.5, -1.5)):
        assert run(made.SerializeToString(), {"x": np.full((4, 1), value, "f4")}) == pytest.approx(expected)


def test_graphs_in_several_versions_of_the_operators_are_refused() -> None:
    with pytest.raises(BundleError, match=r"versions \[18, 19\] of the operators 'ai.onnx'"):
        together([branching(2.0), branching(2.0, opset=19)], sum_of(["a", "b"]), **PLACES)
