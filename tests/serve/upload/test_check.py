"""The check lets good bundles pass and answers every bad one with a sentence; the server's process is never at risk."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time

import kinds
import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lanes_for_tests import thinned
from rootdata.bundle.manifest import OutputSpec, Range, TensorSpec, load_manifest, open_bundle, save_manifest, sha256_of
from serve.errors import InvalidModel, ServeError, TooLarge
from serve.models.repository import Repository
from serve.upload import check, child
from serve.upload.check import Limits
from serve.upload.graphs import bundle_of_graph


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return models.make_bundle(tmp_path_factory.mktemp("made") / "b", jets=True)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


def write_graph(folder, graph, **fields):
    """Put another graph into a bundle, with the checksum in its manifest."""
    path = folder / "model.onnx"
    path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
    about = {"sha256": sha256_of(path), "size": path.stat().st_size}
    save_manifest(dataclasses.replace(load_manifest(folder), **about, **fields), folder)


def change_manifest(folder, **fields):
    plain = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**plain, **fields}))


def small_graph(nodes, constants=(), *, inputs=None, outputs=None):
    """Make a graph from x (events, 2) to y (events, 2)."""
    return models.graph_of(
        nodes, inputs or {"x": ("events", 2)}, outputs or {"y": ("events", 2)}, dict(constants)
    )  # fmt: skip


def write_small(folder, graph):
    """Write a graph that takes tensors alone, with the manifest that it deserves."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return folder


node = helper.make_node


@pytest.mark.parametrize("jets", [False, True])
def test_a_good_bundle_passes_and_can_be_published(tmp_path, jets):
    folder = models.make_bundle(tmp_path / "b", jets=jets)
    (folder / "preprocess.json").write_text('{"output_names": ["signal"]}')
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    report = check.check(folder)
    assert (report.opset, report.takes_no_events) == (models.OPSET, True)
    assert report.parity is not None
    assert report.parity <= 1e-6
    assert report.memory > 10_000_000
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert Repository(tmp_path / "repo").publish(folder, "ttH") == 1


# Files


FILES = {
    "symlink": (lambda f: swap(f, os.symlink), "no plain file; links"),
    "hardlink": (lambda f: swap(f, os.link), "no plain file; links"),
    "pipe": (lambda f: os.mkfifo(f / "preprocess.json"), "no plain file"),
    "folder": (lambda f: (f / "preprocess.json").mkdir(), "no plain file"),
    "another file": (lambda f: (f / "weights.bin").write_text("x"), "'weights.bin' does not belong"),
    "no model": (lambda f: (f / "model.onnx").unlink(), "there is no model.onnx"),
    "preprocess": (lambda f: (f / "preprocess.json").write_text("[1]"), "preprocess.json: expected an object"),
}


def swap(folder, link):
    away = folder.parent / "away"
    (folder / "model.onnx").rename(away)
    link(away, folder / "model.onnx")


@pytest.mark.parametrize("kind", FILES)
def test_only_plain_files_are_taken(folder, kind):
    change, message = FILES[kind]
    change(folder)
    with pytest.raises(InvalidModel, match=message):
        check.check(folder)


def test_too_many_bytes(folder):
    with pytest.raises(TooLarge, match=r"model\.onnx has \d+ bytes; allowed are 100"):
        check.check(folder, limits=Limits(size=100))


# Graphs that must not be loaded


def external(tensor):
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def external_in_subgraph(graph):
    inner = helper.make_graph(
        [node("Constant", [], ["c"], value=external(numpy_helper.from_array(np.float32([1]), "w")))],
        "inner", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    graph.graph.node.append(node("If", ["cond"], ["unused"], then_branch=inner, else_branch=inner))


def external_in_sparse(graph):
    sparse = graph.graph.sparse_initializer.add()
    sparse.values.CopyFrom(external(numpy_helper.from_array(np.float32([1]), "v")))


def external_without_location(graph):
    entry = graph.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "x"


def external_in_list(graph):
    tensor = external(numpy_helper.from_array(np.float32([1]), "v"))
    graph.graph.node[0].attribute.append(helper.make_attribute("all", [tensor]))


def local_function(graph):
    graph.functions.append(
        helper.make_function("local", "f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 20)])
    )


def other_domain(graph):
    graph.graph.node[0].domain = "com.microsoft"


STRANGERS = {
    "external": (lambda g: external(g.graph.initializer[0]), "is in another file"),
    "external in a subgraph": (external_in_subgraph, "is in another file"),
    "external and sparse": (external_in_sparse, "is in another file"),
    "external data alone": (external_without_location, "is in another file"),
    "external in a list": (external_in_list, "is in another file"),
    "function": (local_function, "functions of its own"),
    "domain": (other_domain, "'MatMul' is of domain 'com.microsoft'"),
    "training": (lambda g: g.training_info.add(), "training graph"),
    "no operator": (lambda g: setattr(g.graph.node[0], "op_type", "Nothing"), "breaks the rules"),
    "no opset": (lambda g: g.ClearField("opset_import"), "breaks the rules"),
    "opset of the future": (lambda g: setattr(g.opset_import[0], "version", 99), "opset 99 is newer than"),
    "wrong shape": (lambda g: g.graph.initializer[0].dims.__setitem__(0, 7), "breaks the rules"),
    "loop": (lambda g: g.graph.node[0].input.__setitem__(0, "scores"), "breaks the rules"),
}


@pytest.mark.parametrize("kind", thinned(STRANGERS))
def test_graphs_that_are_not_loaded(folder, kind):
    graph = models.jets_graph()
    change, message = STRANGERS[kind]
    change(graph)
    write_graph(folder, graph)
    with pytest.raises(InvalidModel, match=message) as caught:
        check.check(folder)
    assert str(folder) not in caught.value.message


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x08\x08\x12\xff", np.random.default_rng(1).bytes(1000), b"\x0a" * 5000]
)
def test_what_is_no_graph(folder, content):
    write_graph(folder, content)
    with pytest.raises(InvalidModel):
        check.check(folder)


# Manifests


MANIFESTS = {
    "checksum": (lambda f: change_manifest(f, sha256="0" * 64), "its checksum differs"),
    "size": (lambda f: change_manifest(f, size=1), "size is 1"),
    "nan": (lambda f: change_manifest(f, metrics={"auc": float("nan")}), "NaN is no JSON"),
    "schema": (lambda f: change_manifest(f, schema=3), "schema is 3"),
    "unknown field": (lambda f: change_manifest(f, colour="red"), "unknown field 'colour'"),
    "deep": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "recursion|can't be read"),
    "branch type": (lambda f: edit(f, "branches", lambda b: b.update(dtype="float33")), "float33"),
    "branch missing": (lambda f: edit(f, "branches", None), "do not fit together"),
    "input name": (lambda f: edit(f, "inputs", lambda t: t.update(name="else")), "inputs are 'else', 'jets'"),
    "input type": (lambda f: edit(f, "inputs", lambda t: t.update(dtype="int64")), "input 'flat' is int64"),
    "input size": (lambda f: edit(f, "inputs", lambda t: t.update(shape=["events", 3])), r"\['events', 3\]; the graph"),
    "input rank": (lambda f: edit(f, "inputs", lambda t: t.update(shape=["events"])), "export again"),
    "features": (lambda f: edit(f, "inputs", lambda t: t.update(features=["HT", "none"])), "do not fit together"),
    "output name": (lambda f: edit(f, "outputs", lambda t: t.update(name="else")), "outputs are 'else'; the graph"),
    "columns": (lambda f: edit(f, "outputs", lambda t: t.update(columns=["a", "b"])), "with 2 columns"),
    "parity": (lambda f: edit_parity(f, scores=[[0.1], [0.2], [0.3]]), "differ by 0"),
    "parity shape": (lambda f: edit_parity(f, scores=[[0.1], [0.2]]), "parity has scores of shape"),
    "parity branch": (lambda f: edit_parity(f, columns={}), "events of parity"),
    "parity lengths": (lambda f: edit_parity(f, columns=uneven()), "events of parity"),
}


def edit(folder, field, change):
    entries = json.loads((folder / "manifest.json").read_text())[field]
    entries = entries[1:] if change is None else entries
    if change is not None:
        change(entries[0])
    change_manifest(folder, **{field: entries})


def edit_parity(folder, **fields):
    known = json.loads((folder / "manifest.json").read_text())["parity"]
    change_manifest(folder, parity={**known, **fields})


def uneven():
    return {"HT": [1.0, 2.0], "MET_pt": [1.0], "Jet_pt": [[1.0], []], "Jet_eta": [[1.0, 2.0], []]}


@pytest.mark.parametrize("kind", thinned(MANIFESTS))
def test_manifests_that_do_not_belong_to_the_graph(folder, kind):
    change, message = MANIFESTS[kind]
    change(folder)
    with pytest.raises(InvalidModel, match=message) as caught:
        check.check(folder)
    assert str(folder) not in caught.value.message


# Graphs that misbehave when they run


def test_events_without_objects_must_give_numbers(folder):
    write_graph(folder, models.jets_graph(guarded=False))
    with pytest.raises(InvalidModel, match="is not finite; events without objects"):
        check.check(folder)


def meeting():
    """Make a graph in which every event changes what becomes of the others."""
    nodes = [node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), node("Sub", ["x", "m"], ["y"])]
    return small_graph(nodes, {"axes": np.array([0])})


def test_events_that_change_each_other_are_told_and_kept_apart(tmp_path):
    folder = write_small(tmp_path / "b", meeting())
    report = check.check(folder)
    assert (report.batching, open_bundle(folder).batching) == ("none", "none")
    assert "output 'y' of an event depends on the other events of its batch" in report.notes[0]


def test_a_bundle_says_whether_its_events_may_change_each_other(tmp_path):
    folder = write_small(tmp_path / "b", meeting())
    save_manifest(bundle_of_graph(folder / "model.onnx"), folder)
    with pytest.raises(InvalidModel, match=r"depends on the other events of its batch; export .* or, .* batching=none"):
        check.check(folder)
    with pytest.raises(InvalidModel, match="batching: got 'some'; allowed: events, none"):
        check.check(folder, batching="some")
    report = check.check(folder, batching="none")
    assert (report.batching, open_bundle(folder).batching) == ("none", "none")
    assert check.check(folder).batching == "none"
    with pytest.raises(InvalidModel, match=r"batching: got 'events'; manifest\.json says 'none'"):
        check.check(folder, batching="events")


def test_a_fixed_number_of_events_is_kept(tmp_path):
    graph = small_graph([node("Relu", ["x"], ["y"])], inputs={"x": (4, 2)}, outputs={"y": (4, 2)})
    folder = write_small(tmp_path / "b", graph)
    assert check.check(folder, features=["a", "b"]).batching == "events"
    assert open_bundle(folder).fixed_batch == 4


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_what_the_check_made_passes_it_again(tmp_path, kind):
    # As a bundle that was downloaded and is published elsewhere. In this process, which is faster.
    folder = kinds.written(kinds.KINDS[kind].graph, tmp_path / "b")
    told = {"features": None, "columns": None, "batching": None}
    first = child.check(str(folder), **told)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = child.check(str(folder), **told)
    assert (again["batching"], again["notes"]) == (first["batching"], [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_sample_says_what_a_graph_is_for(tmp_path):
    nodes = [node("Sub", ["x", "far"], ["d"]), node("Acos", ["d"], ["y"])]
    folder = write_small(tmp_path / "b", small_graph(nodes, {"far": np.float32(1e4)}))
    with pytest.raises(InvalidModel, match=r"'y' is not finite for any of the values .* sample\.json"):
        check.check(folder)
    entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [10_000.0, 10_000.5]}
    (folder / "sample.json").write_text(json.dumps({"inputs": [entry]}))
    assert check.check(folder).batching == "events"
    (folder / "manifest.json").unlink()
    (folder / "sample.json").write_text(json.dumps({"inputs": [{**entry, "data": [1.0, 2.0]}]}))
    with pytest.raises(InvalidModel, match="output 'y' of the sample is not finite"):
        check.check(folder)
    (folder / "sample.json").write_text(json.dumps({"inputs": [{**entry, "shape": [1, 3]}]}))
    with pytest.raises(InvalidModel, match=r"sample\.json: input 'x': shape: got \[1, 3\]"):
        check.check(folder)


def test_values_are_made_up_within_declared_ranges(tmp_path):
    folder = write_small(tmp_path / "b", models.graph_of([node("Acos", ["x"], ["y"])], {"x": ("events", 1)},
                                                         {"y": ("events", 1)}, {}))  # fmt: skip
    made = bundle_of_graph(folder / "model.onnx", features=["cos"])
    for low, high, mean in ((-1.0, 1.0, 0.95), (0.99, 1.0, 1.0), (-1.0, -1.0, -1.0)):
        ranges = {"cos": Range(low=low, high=high, mean=mean, std=0.1)}
        save_manifest(dataclasses.replace(made, ranges=ranges), folder)
        check.check(folder)


def bomb(elements):
    """Make a graph of some hundred bytes that fills an array of so many float32 and adds their mean."""
    nodes = [
        node("ConstantOfShape", ["size"], ["huge"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])),
        node("ReduceMean", ["huge"], ["mean"], keepdims=0),
        node("Add", ["x", "mean"], ["y"]),
    ]
    return small_graph(nodes, {"size": np.array([elements], np.int64)})


@pytest.mark.parametrize("elements", [600_000_000, 10**12])
def test_a_small_graph_that_takes_gigabytes_is_refused(tmp_path, elements):
    graph = bomb(elements)
    assert graph.ByteSize() < 300
    with pytest.raises(InvalidModel, match="needs more memory than a graph of its size"):
        check.check(write_small(tmp_path / "b", graph))


@pytest.mark.long
def test_a_declared_size_that_is_far_too_large_is_refused(tmp_path):
    huge = {"x": ("events", 10**10)}
    graph = small_graph([node("Relu", ["x"], ["y"])], inputs=huge, outputs={"y": ("events", 10**10)})
    with pytest.raises(InvalidModel, match="needs more memory"):
        check.check(write_small(tmp_path / "b", graph))


def endless():
    """Make a graph that loops 2^62 times."""
    inner = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["s", "s"], ["s_out"])], "body",
        [helper.make_tensor_value_info(n, t, []) for n, t in
         (("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("s", TensorProto.FLOAT))],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s_out", TensorProto.FLOAT, [])],
    )  # fmt: skip
    nodes = [node("Loop", ["count", "yes", "zero"], ["s_end"], body=inner), node("Add", ["x", "s_end"], ["y"])]
    return small_graph(nodes, {"count": np.int64(2**62), "yes": np.bool_(True), "zero": np.float32(0)})


@pytest.mark.long
def test_a_graph_that_never_ends_is_ended(tmp_path):
    begin = time.monotonic()
    with pytest.raises(InvalidModel, match="more than 3 s; the graph is too slow"):
        check.check(write_small(tmp_path / "b", endless()), limits=Limits(seconds=3))
    assert time.monotonic() - begin < 30


@pytest.mark.long
def test_the_child_ends_by_itself_when_nobody_waits_for_it(tmp_path, monkeypatch):
    # The server was killed in the middle of a check: its child has limits of its own.
    started = []
    start = check._start
    monkeypatch.setattr(check, "_start", lambda *a: started.append(start(*a)) or started[0])
    monkeypatch.setattr(check, "_wait", lambda process, seconds: 0)
    with pytest.raises(ValueError, match="Expecting value"):
        check.check(write_small(tmp_path / "b", endless()), limits=Limits(seconds=2))
    assert started[0].wait(30) < 0


def test_a_check_that_can_not_be_run_is_not_the_models_fault(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ServeError, match="could not be run") as caught:
        check.check(folder)
    assert caught.value.status == 503


# Graphs without a manifest


def test_a_graph_alone_takes_tensors(tmp_path):
    folder = write_small(tmp_path / "b", small_graph([node("Relu", ["x"], ["y"])]))
    check.check(folder)
    manifest = open_bundle(folder)
    assert not manifest.takes_events
    assert manifest.inputs == (TensorSpec(name="x", dtype="float32", shape=("events", 2)),)
    assert manifest.outputs == (
        OutputSpec(name="y", dtype="float32", shape=("events", 2), columns=("y_0", "y_1")),
    )  # fmt: skip
    assert Repository(tmp_path / "repo").publish(folder, "plain") == 1


def test_a_graph_with_named_features_takes_events(tmp_path):
    folder = write_small(tmp_path / "b", models.flat_graph(num_features=3))
    names = ["HT", "Jet_pt[0]", "a weird name"]
    check.check(folder, features=names, columns=["signal"])
    manifest = open_bundle(folder)
    assert manifest.takes_events
    assert [b.name for b in manifest.branches] == list(manifest.inputs[0].features) == names
    assert manifest.columns == ("signal",)


def test_labels_name_the_columns(tmp_path):
    folder = write_small(tmp_path / "b", small_graph([node("Relu", ["x"], ["y"])]))
    (folder / "labels.txt").write_text("background\nsignal\n")
    check.check(folder)
    assert open_bundle(folder).columns == ("background", "signal")


@pytest.mark.parametrize(
    ("features", "columns", "message"),
    [
        (["a"], None, "1 names need one input"),
        (["a", "a"], None, "needs different names"),
        ([], None, "needs different names"),
        (["a", "b"], ["s"], "got 1 names"),
    ],
)
def test_features_and_columns_must_fit(tmp_path, features, columns, message):
    folder = write_small(tmp_path / "b", small_graph([node("Relu", ["x"], ["y"])]))
    with pytest.raises(InvalidModel, match=message):
        bundle_of_graph(folder / "model.onnx", features=features, columns=columns)


def test_outputs_that_are_no_tensors_are_refused(tmp_path):
    graph = small_graph([node("Relu", ["x"], ["y"])])
    graph.graph.output.append(
        onnx.ValueInfoProto(
            name="maps",
            type=helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1])),
        )
    )
    with pytest.raises(InvalidModel, match="output 'maps' is no tensor but sequence; export plain"):
        bundle_of_graph(write_small(tmp_path / "b", graph) / "model.onnx")
