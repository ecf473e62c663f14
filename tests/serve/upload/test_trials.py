"""What graphs do on made-up values tells whether the first axis is that of events, and whether events may meet."""

from __future__ import annotations

import kinds
import numpy as np
import onnxruntime as ort
import pytest
from kinds import KINDS, graph_of, node
from onnx import TensorProto

from rootdata.bundle.manifest import Range, TensorSpec
from serve.errors import InvalidModel
from serve.upload import graphs, trials
from serve.upload.trials import CanNotBeRunError, Filling, Trial

REAL, WHOLE = TensorProto.FLOAT, TensorProto.INT64


def trial_of(graph, **fields):
    graphs.without_maps(graph)
    inputs, outputs = graphs.ports(graph)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in outputs]

    def run(feeds):
        try:
            return session.run(names, feeds)
        except Exception as error:
            raise CanNotBeRunError(str(error)) from error

    specs = tuple(TensorSpec(name=p.name, dtype=p.dtype, shape=p.shape) for p in inputs)
    return Trial(**{"run": run, "inputs": specs, "outputs": tuple(names), "ranges": {}, **fields})


def settled(graph, **fields):
    return trials.settled(trial_of(graph, **fields), meeting=graphs.meeting(graph))


def sums_along_the_first_axis(*, is_reversed=False):
    nodes = [node("CumSum", ["x", "axis"], ["y"], reverse=int(is_reversed))]
    return graph_of(nodes, {"x": (REAL, ["time", 4])}, {"y": (REAL, ["time", 4])}, {"axis": np.int64(0)})


def two_inputs(first, second, *, operator="Add"):
    inputs = {"a": (REAL, [first, 4]), "b": (REAL, [second, 4])}
    return graph_of([node(operator, ["a", "b"], ["y"])], inputs, {"y": (REAL, [None, 4])})


def gathers(first, second):
    nodes = [node("Gather", ["x", "at"], ["y"], axis=0)]
    return graph_of(nodes, {"x": (REAL, [first, 4]), "at": (WHOLE, [second])}, {"y": (REAL, [second, 4])})


GRAPHS = {
    "each row sees those before it": (sums_along_the_first_axis(), "none", "output 'y' of an event depends"),
    "each row sees those after it": (sums_along_the_first_axis(is_reversed=True), "none", "output 'y' of an event"),
    "axes of two names that are one": (two_inputs("batch", "N"), "events", ""),
    "axes without names that are one": (two_inputs(None, None), "events", ""),
    "axes of two names that are two": (gathers("nodes", "wanted"), "none", "have nothing to do with each other"),
    "rows of a table that is sent": (gathers("N", "N"), "none", "output 'y' of an event depends"),
    "one size and any": (two_inputs(1, "N"), "none", "are not one axis of events"),
    "a square": (
        graph_of([node("MatMul", ["x", "x"], ["y"])], {"x": (REAL, ["N", "N"])}, {"y": (REAL, ["N", "N"])}),
        "none", "of an event",
    ),
    "a sum of everything": (
        graph_of([node("ReduceSum", ["x"], ["y"], keepdims=0)], {"x": (REAL, ["N", 4])}, {"y": (REAL, [])}),
        "none", "its first axis is not theirs",
    ),
    "chance": (
        graph_of([node("RandomNormalLike", ["x"], ["z"]), node("Add", ["x", "z"], ["y"])], {"x": (REAL, ["N", 4])},
                 {"y": (REAL, ["N", 4])}),
        "none", "it draws random numbers",
    ),
    "a fixed number that meets": (
        graph_of([node("Softmax", ["x"], ["y"], axis=0)], {"x": (REAL, [3, 4])}, {"y": (REAL, [3, 4])}),
        "none", "output 'y' of an event depends",
    ),
    "numbers that can be used as places alone": (gathers(7, 7), "none", "output 'y' of an event depends"),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_what_the_first_axis_is(name):
    graph, batching, why = GRAPHS[name]
    found = settled(graph)
    assert found.batching == batching
    assert why in found.why
    assert bool(why) == bool(found.why)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_outputs_follow_from_runs(kind):
    graph = type(KINDS[kind].graph)()
    graph.CopyFrom(KINDS[kind].graph)
    trial = trial_of(graph)
    found = trials.settled(trial, meeting=graphs.meeting(graph))
    assert found.batching == KINDS[kind].batching
    outputs = trials.shapes_of(graphs.ports(graph)[1], found)
    values = trial.run(KINDS[kind].feeds)
    for port, array in zip(outputs, values, strict=True):
        assert len(port.shape) == array.ndim
        assert all(isinstance(size, str) or size == got for size, got in zip(port.shape, array.shape, strict=True))


RANGES = [
    *((dtype, *known) for dtype in ("float32", "float64", "int8", "int64")
      for known in ((-1, 1, 0.99), (3, 3, 3), (-7, -2, -3), (0, 1e30, 5))),
    ("uint16", -1, 1, 0), ("uint16", 3, 3, 3), ("uint16", 7, 1e30, 8), ("bool", 0, 1, 0.5), ("bool", 1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "low", "high", "mean"), RANGES)
def test_values_are_within_their_range(dtype, low, high, mean):
    spec = TensorSpec(name="x", dtype=dtype, shape=("events", 2), features=("a", "b"))
    known = {"a": Range(low=low, high=high, mean=mean, std=1)}
    trial = Trial(run=lambda feeds: [], inputs=(spec,), outputs=(), ranges=known)
    for number in range(3):
        made = Filling(trial=trial, number=number)(events=5, is_wide=False, rows=(0, 1, 2, 3, 4))["x"]
        assert (made.dtype, made.shape) == (np.dtype(dtype), (5, 2))
        assert (made[:, 0].astype(float) >= low).all()
        assert (made[:, 0].astype(float) <= np.float32(high)).all()


def test_a_sample_is_used_as_it_is():
    sample = {"x": np.arange(12, dtype=np.float32).reshape(3, 4) / 12}
    seen = []
    trial = trial_of(kinds.linear(), sample=sample)
    found = trials.settled(Trial(run=lambda feeds: seen.append(feeds["x"]) or trial.run(feeds), inputs=trial.inputs,
                                 outputs=trial.outputs, ranges={}, sample=sample), meeting="")  # fmt: skip
    assert found.batching == "events"
    rows = {tuple(row) for row in sample["x"].tolist()}
    assert all(tuple(row) in rows for feeds in seen for row in feeds.tolist())


def test_what_can_not_be_run_is_told_with_the_runtimes_reason():
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    graph = graph_of(nodes, {"x": (REAL, ["N", 3])}, {"y": (REAL, ["N", 2])}, {"shape": np.array([-1, 999_983])})
    with pytest.raises(InvalidModel, match=r"(?s)can't be run on made-up values .*Reshape.*sample\.json"):
        settled(graph)
