"""Small graphs of the kinds that people serve, each with values for its inputs; made with onnx alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Tensors = dict[str, npt.NDArray[Any]]

node = helper.make_node
RNG = np.random.default_rng(3)
WEIGHTS = RNG.normal(size=(4, 2)).astype(np.float32)
VALUES = RNG.normal(size=(3, 4)).astype(np.float32)
NUMBERS = {
    "bool": TensorProto.BOOL, "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16, "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64, "float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A graph and what becomes of it.

    Parameters
    ----------
    feeds : tensors that it takes; three events where it takes events
    batching : that the check settles
    columns : names of its scores
    """

    graph: Any
    feeds: Tensors
    batching: str = "events"
    columns: tuple[str, ...] = ("y_0", "y_1")


def graph_of(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, tuple[int, Sequence[Any] | None]] | Sequence[Any],
    constants: Mapping[str, Any] = {},
    *,
    domains: Sequence[tuple[str, int]] = (("", 17), ("ai.onnx.ml", 1)),
) -> Any:
    """Make a model of nodes; inputs and outputs have an element type and a shape, or are value infos."""
    made = [helper.make_tensor_value_info(n, *t) for n, t in outputs.items()] if isinstance(outputs, dict) else outputs
    return helper.make_model(
        helper.make_graph(
            list(nodes), "test",
            [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()],
            list(made),
            [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid(*domain) for domain in domains], ir_version=8,
    )  # fmt: skip


def linear(dtype: str = "float32", *, rows: Any = "N", domain: str = "") -> Any:
    """Make y = float32(x) @ WEIGHTS."""
    nodes = [
        node("Cast", ["x"], ["f"], to=TensorProto.FLOAT, domain=domain),
        node("MatMul", ["f", "w"], ["y"], domain=domain),
    ]
    inputs, outputs = {"x": (NUMBERS[dtype], [rows, 4])}, {"y": (TensorProto.FLOAT, [rows, 2])}
    return graph_of(nodes, inputs, outputs, {"w": WEIGHTS})


def numbers(dtype: str) -> npt.NDArray[Any]:
    """Make values that show every bit of a type that float32 keeps."""
    if dtype.startswith("float"):
        return VALUES.astype(dtype)
    low, high = (0, 1) if dtype == "bool" else (max(np.iinfo(dtype).min, -(2**20)), min(np.iinfo(dtype).max, 2**20))
    return np.linspace(low, high, 12).reshape(3, 4).astype(np.int64).astype(dtype)


def network_of_nodes(*, per_node: bool) -> Any:
    """Make a graph network: each edge adds what its first node has to its second."""
    nodes = [
        node("Gather", ["edges", "zero"], ["source"], axis=0),
        node("Gather", ["edges", "one"], ["target"], axis=0),
        node("Gather", ["x", "source"], ["messages"], axis=0),
        node("Unsqueeze", ["target", "last"], ["at"]),
        node("Expand", ["at", "width"], ["ats"]),
        node("ScatterElements", ["x", "ats", "messages"], ["h"], axis=0, reduction="add"),
        node("MatMul", ["h", "w"], ["s"]),
        node("Identity", ["s"], ["y"]) if per_node else node("ReduceSum", ["s", "first"], ["y"], keepdims=1),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "last": np.array([1]), "width": np.array([1, 4]),
                 "first": np.array([0]), "w": WEIGHTS}  # fmt: skip
    inputs = {"x": (TensorProto.FLOAT, ["nodes", 4]), "edges": (TensorProto.INT64, [2, "edges"])}
    return graph_of(nodes, inputs, {"y": (TensorProto.FLOAT, ["nodes" if per_node else 1, 2])}, constants)


def quantised() -> Any:
    """Make a product that is quantised by the scale of all events that are run together."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("MatMulInteger", ["q", "w", "zero"], ["product"]),
        node("Cast", ["product"], ["real"], to=TensorProto.FLOAT),
        node("Mul", ["real", "scale"], ["y"]),
    ]
    whole = np.rint(WEIGHTS * 40).astype(np.int8)
    return graph_of(nodes, {"x": (1, ["N", 4])}, {"y": (1, ["N", 2])}, {"w": whole})


def classifier(labels: Sequence[Any], *, has_maps: bool, rows: Any = None) -> Any:
    """Make a classifier as skl2onnx and onnxmltools write it: labels first, then probabilities or a map an event."""
    is_text = isinstance(labels[0], str)
    names = {"classlabels_strings" if is_text else "classlabels_ints": list(labels)}
    nodes = [
        node("LinearClassifier", ["x"], ["label", "p"], domain="ai.onnx.ml", multi_class=1, post_transform="SOFTMAX",
             coefficients=WEIGHTS.T.reshape(-1).tolist(), intercepts=[0.1, -0.1], **names)
    ]  # fmt: skip
    key = TensorProto.STRING if is_text else TensorProto.INT64
    outputs = [helper.make_tensor_value_info("label", key, [1 if has_maps else rows])]
    if has_maps:
        maps = {"classlabels_strings" if is_text else "classlabels_int64s": list(labels)}
        nodes.append(node("ZipMap", ["p"], ["probabilities"], domain="ai.onnx.ml", **maps))
        kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs.append(helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind)))
    else:
        nodes.append(node("Identity", ["p"], ["probabilities"]))
        outputs.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [rows, None]))
    return graph_of(nodes, {"x": (TensorProto.FLOAT, [rows, 4])}, outputs)


def _kinds() -> dict[str, Kind]:
    one, real = {"x": VALUES}, TensorProto.FLOAT
    cube = RNG.normal(size=(3, 1, 3, 3, 3)).astype(np.float32)
    nodes, edges = RNG.normal(size=(5, 4)).astype(np.float32), np.array([[0, 1, 4], [1, 2, 0]])
    words = np.array([["top", "W"], ["", "höch"], ["b", "top"]], object)
    classes = ("probabilities_3", "probabilities_7")
    found = {name: Kind(graph=linear(name), feeds={"x": numbers(name)}) for name in NUMBERS}
    return found | {
        "rank 5": Kind(
            graph=graph_of(
                [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])],
                {"x": (real, ["N", 1, 3, 3, 3])}, {"y": (real, ["N", 2])}, {"w": np.ones((27, 2), np.float32)},
            ),
            feeds={"x": cube},
        ),
        "a scalar beside": Kind(
            graph=graph_of([node("Mul", ["x", "by"], ["y"])], {"x": (real, ["N", 2]), "by": (real, [])},
                           {"y": (real, ["N", 2])}),
            feeds={"x": VALUES[:, :2], "by": np.array(2.5, np.float32)}, batching="none",
        ),
        "network to one": Kind(
            graph=network_of_nodes(per_node=False), feeds={"x": nodes, "edges": edges}, batching="none"
        ),
        "network to nodes": Kind(
            graph=network_of_nodes(per_node=True), feeds={"x": nodes, "edges": edges}, batching="none"
        ),
        "batch of 1": Kind(graph=linear(rows=1), feeds={"x": VALUES[:1]}),
        "batch of 3": Kind(graph=linear(rows=3), feeds=one),
        "a name for ONNX": Kind(graph=linear(domain="ai.onnx"), feeds=one),
        "quantised": Kind(graph=quantised(), feeds=one, batching="none"),
        "acos": Kind(graph=graph_of([node("Acos", ["x"], ["y"])], {"x": (real, ["N", 2])}, {"y": (real, ["N", 2])}),
                     feeds={"x": np.array([[0.3, -0.9]], np.float32)}),
        "acosh": Kind(graph=graph_of([node("Acosh", ["x"], ["y"])], {"x": (real, ["N", 2])}, {"y": (real, ["N", 2])}),
                      feeds={"x": np.array([[3, 90]], np.float32)}),
        "words": Kind(
            graph=graph_of([node("Identity", ["x"], ["y"])], {"x": (TensorProto.STRING, ["N", 2])},
                           {"y": (TensorProto.STRING, ["N", 2])}),
            feeds={"x": words},
        ),
        "an output of unknown rank": Kind(
            graph=graph_of([node("Relu", ["x"], ["y"])], {"x": (real, ["N", 2])}, {"y": (real, None)}),
            feeds={"x": VALUES[:, :2]},
        ),
        "one score without an axis": Kind(
            graph=graph_of([node("ReduceSum", ["x", "last"], ["y"], keepdims=0)], {"x": (real, ["N", 4])},
                           {"y": (real, ["N"])}, {"last": np.array([1])}),
            feeds=one, columns=("y",),
        ),
        "double scores": Kind(
            graph=graph_of([node("MatMul", ["x", "w"], ["y"])], {"x": (TensorProto.DOUBLE, ["N", 4])},
                           {"y": (TensorProto.DOUBLE, ["N", 2])}, {"w": WEIGHTS.astype(np.float64)}),
            feeds={"x": VALUES.astype(np.float64)},
        ),
        "image of any size": Kind(
            graph=graph_of(
                [
                    node("Conv", ["x", "k"], ["c"]),
                    node("GlobalAveragePool", ["c"], ["m"]),
                    node("Flatten", ["m"], ["y"]),
                ],
                {"x": (real, ["N", 1, "h", "w"])}, {"y": (real, ["N", 2])}, {"k": np.ones((2, 1, 5, 5), np.float32)},
            ),
            feeds={"x": RNG.normal(size=(3, 1, 7, 9)).astype(np.float32)},
        ),
        "a batch that is frozen inside": Kind(
            graph=graph_of([node("Reshape", ["x", "shape"], ["y"])], {"x": (real, ["N", 2])}, {"y": (real, ["N", 2])},
                           {"shape": np.array([1, 2])}),
            feeds={"x": VALUES[:1, :2]}, batching="none",
        ),
        "labels": Kind(graph=classifier([3, 7], has_maps=False), feeds=one, columns=classes),
        "labels that are words": Kind(
            graph=classifier(["ttbar", "ttH"], has_maps=False), feeds=one, columns=("ttbar", "ttH")
        ),
        "maps": Kind(graph=classifier([3, 7], has_maps=True), feeds=one, columns=classes),
        "maps of words": Kind(graph=classifier(["ttbar", "ttH"], has_maps=True), feeds=one, columns=("ttbar", "ttH")),
    }  # fmt: skip


KINDS = _kinds()


def expected(graph: Any, feeds: Tensors) -> dict[str, npt.NDArray[Any]]:
    """Run a graph by onnxruntime as it is; a map for each event becomes a row."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, feeds)
    found = dict(zip(names, values, strict=True))
    for name, rows in found.items():
        if isinstance(rows, list):  # of maps, whose order is no one's
            labels = helper.get_node_attr_value(graph.graph.node[-1], graph.graph.node[-1].attribute[0].name)
            keys = [label.decode() if isinstance(label, bytes) else label for label in labels]
            found[name] = np.array([[row[key] for key in keys] for row in rows], np.float32)
    return found


def written(graph: Any, folder: Path) -> Path:
    """Write a graph where an upload has it."""
    folder.mkdir(parents=True)
    onnx.save_model(graph, folder / "model.onnx")
    return folder
