"""What a graph says of itself: classes, names of domains, axes and types; what can't be exchanged is told."""

from __future__ import annotations

import kinds
import pytest
from kinds import KINDS, graph_of, node
from onnx import TensorProto, helper

from serve.errors import InvalidModel
from serve.upload import graphs


@pytest.mark.parametrize("labels", [[3, 7], ["ttbar", "ttH"]])
@pytest.mark.parametrize("has_maps", [True, False])
def test_classes_are_named_by_the_classifier(labels, has_maps):
    graph = kinds.classifier(labels, has_maps=has_maps)
    expected = ("ttbar", "ttH") if isinstance(labels[0], str) else ("probabilities_3", "probabilities_7")
    assert graphs.classes_of(graph)["probabilities"] == expected
    assert graphs.without_maps(graph) == (["probabilities"] if has_maps else [])
    assert graphs.without_maps(graph) == []
    kind = graph.graph.output[1].type.tensor_type
    assert kind.elem_type == TensorProto.FLOAT


def test_maps_are_told_of_where_they_can_not_be_changed():
    with pytest.raises(InvalidModel, match=r"'probabilities' is no tensor but sequence; export plain .*ZipMap"):
        graphs.ports(kinds.classifier([0, 1], has_maps=True))


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "COMPLEX64"])
@pytest.mark.parametrize("what", ["input", "output"])
def test_types_that_can_not_be_exchanged_are_named(kind, what):
    types = {"input": TensorProto.FLOAT, "output": TensorProto.FLOAT} | {what: getattr(TensorProto, kind)}
    graph = graph_of(
        [node("Cast", ["x"], ["y"], to=types["output"])], {"x": (types["input"], ["N", 2])},
        {"y": (types["output"], ["N", 2])},
    )  # fmt: skip
    with pytest.raises(InvalidModel, match=f"{what} '[xy]' is of type {kind.lower()[:6]}.*can't exchange.*Cast"):
        graphs.ports(graph)


@pytest.mark.parametrize("kind", ["sequence", "optional"])
def test_inputs_that_are_no_tensors_are_named(kind):
    graph = kinds.linear()
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [None, 4])
    make = helper.make_sequence_type_proto if kind == "sequence" else helper.make_optional_type_proto
    graph.graph.input[0].type.CopyFrom(make(tensor))
    with pytest.raises(InvalidModel, match=f"input 'x' is no tensor but {kind}; export the graph with plain tensors"):
        graphs.ports(graph)


def test_axes_without_a_name_are_axes_of_their_own():
    graph = graph_of(
        [node("Identity", ["a"], ["c"]), node("Identity", ["b"], ["d"])],
        {"a": (TensorProto.FLOAT, [None, None]), "b": (TensorProto.FLOAT, [-1, None])},
        {"c": (TensorProto.FLOAT, [None, None]), "d": (TensorProto.FLOAT, [None, None])},
    )  # fmt: skip
    inputs, outputs = graphs.ports(graph)
    names = [size for port in (*inputs, *outputs) for size in port.shape]
    assert len(set(names)) == len(names) == 8
    assert all(isinstance(name, str) for name in names)


def test_a_spelled_out_domain_is_onnx_itself():
    graph = kinds.linear(domain="ai.onnx")
    graphs.refuse_strangers(graph)
    assert graphs.with_short_domains(graph)
    assert {made.domain for made in graph.graph.node} == {""}
    assert not graphs.with_short_domains(graph)


def test_chance_and_dynamic_quantisation_are_seen_in_subgraphs():
    inner = helper.make_graph([node("RandomNormal", [], ["r"], shape=[1])], "inner", [],
                              [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1])])  # fmt: skip
    graph = graph_of([node("If", ["go"], ["y"], then_branch=inner, else_branch=inner)], {"go": (TensorProto.BOOL, [])},
                     {"y": (TensorProto.FLOAT, [1])})  # fmt: skip
    assert "RandomNormal" in graphs.meeting(graph)
    assert "DynamicQuantizeLinear" in graphs.meeting(KINDS["quantised"].graph)
    assert graphs.meeting(kinds.linear()) == ""


@pytest.mark.parametrize("what", ["input", "output"])
def test_a_model_takes_and_gives_something(what):
    graph = kinds.linear()
    graph.graph.ClearField(what)
    with pytest.raises(InvalidModel, match=f"has no {what}"):
        graphs.ports(graph)
