"""Small bundles for the tests of the server, made with onnx alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rootdata.bundle.manifest import (
    MODEL,
    BranchSpec,
    Manifest,
    OutputSpec,
    Parity,
    Range,
    TensorSpec,
    save_manifest,
    sha256_of,
)
from serve.upload.graphs import bundle_of_graph

FLAT = ("HT", "MET_pt")
JETS = ("Jet_pt", "Jet_eta")
OPSET = 20
IMAGE = (6, 4)  # pixels of what image_bundle takes: width, height


def graph_of(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Mapping[str, Sequence[int | str | None]],
    constants: Mapping[str, Any],
) -> Any:
    """Make a model of nodes; inputs and outputs are float32."""
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "test",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
    )


def flat_graph(*, num_features: int = len(FLAT), seed: int = 0) -> Any:
    """Make scores = sigmoid(flat @ weights) of (events, num_features)."""
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=(num_features, 1)) / 300).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["flat", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["scores"]),
    ]
    return graph_of(nodes, {"flat": ("events", num_features)}, {"scores": ("events", 1)}, {"weights": weights})


def jets_graph(*, guarded: bool = True, seed: int = 0) -> Any:
    """Make scores of flat features and the mean over real jets of weighted jet features.

    Parameters
    ----------
    guarded : events without jets give 0 instead of 0/0
    """
    rng = np.random.default_rng(seed)
    constants = {
        "w_flat": (rng.normal(size=(len(FLAT), 1)) / 300).astype(np.float32),
        "w_jets": (rng.normal(size=(len(JETS), 1)) / 100).astype(np.float32),
        "one": np.float32(1 if guarded else 0),
        "axes": np.array([2]),
        "axis1": np.array([1]),
    }
    nodes = [
        helper.make_node("MatMul", ["flat", "w_flat"], ["a"]),
        helper.make_node("Unsqueeze", ["jets_mask", "axis1"], ["mask"]),  # (events, 1, jets)
        helper.make_node("Mul", ["jets", "mask"], ["real"]),
        helper.make_node("ReduceSum", ["real", "axes"], ["sums"], keepdims=0),
        helper.make_node("ReduceSum", ["jets_mask", "axis1"], ["count"], keepdims=1),
        helper.make_node("Max" if guarded else "Add", ["count", "one"], ["number"]),
        helper.make_node("Div", ["sums", "number"], ["means"]),
        helper.make_node("MatMul", ["means", "w_jets"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["scores"]),
    ]
    inputs = {
        "flat": ("events", len(FLAT)),
        "jets": ("events", len(JETS), "jets"),
        "jets_mask": ("events", "jets"),
    }
    return graph_of(nodes, inputs, {"scores": ("events", 1)}, constants)


def make_bundle(folder: Path, *, jets: bool = False, seed: int = 0, parity: bool = True, **fields: Any) -> Path:
    """Write a bundle that takes HT and MET_pt, and with ``jets`` also Jet_pt and Jet_eta (10 at most).

    Parameters
    ----------
    seed : another one gives another graph
    parity : put a sample of three events with their scores into the manifest
    fields : of the manifest, in place of what is made up
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph = jets_graph(seed=seed) if jets else flat_graph(seed=seed)
    onnx.save_model(graph, folder / MODEL)
    manifest = manifest_of(folder / MODEL, jets=jets, **fields)
    if parity:
        manifest = with_parity(manifest, folder / MODEL)
    save_manifest(manifest, folder)
    return folder


def image_bundle(folder: Path, *, factor: float = 1.0) -> Path:
    """Write a bundle whose three scores are the means of red, green and blue of an image of the size of ``IMAGE``.

    Parameters
    ----------
    factor : of the scores
    """
    folder.mkdir()
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "factor"], ["scores"]),
    ]
    width, height = IMAGE
    constants = {"axes": np.array([2, 3]), "factor": np.float32(factor)}
    graph = graph_of(nodes, {"pixels": ("n", 3, height, width)}, {"scores": ("n", 3)}, constants)
    onnx.save_model(graph, folder / MODEL)
    save_manifest(bundle_of_graph(folder / MODEL, columns=["red", "green", "blue"]), folder)
    return folder


def manifest_of(model: Path, *, jets: bool = False, **fields: Any) -> Manifest:
    """Describe what :func:`make_bundle` writes."""
    features: dict[str, Any] = {"flat": list(FLAT)}
    inputs = [TensorSpec(name="flat", dtype="float32", shape=("events", len(FLAT)), features=FLAT)]
    branches = [BranchSpec(name=name, dtype="float32", unit="GeV") for name in FLAT]
    if jets:
        features["jagged"] = {"jets": {"branches": list(JETS), "length": 10}}
        shape = ("events", len(JETS), "jets")
        inputs += [
            TensorSpec(name="jets", dtype="float32", shape=shape, features=JETS, collection="jets"),
            TensorSpec(name="jets_mask", dtype="float32", shape=("events", "jets"), collection="jets"),
        ]
        branches += [BranchSpec(name=name, dtype="float32", kind="jagged", counts="jets") for name in JETS]
    made: dict[str, Any] = {
        "sha256": sha256_of(model),
        "size": model.stat().st_size,
        "inputs": tuple(inputs),
        "outputs": (OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("signal",)),),
        "branches": tuple(branches),
        "features": features,
        "ranges": {
            "HT": Range(low=30.0, high=2000.0, mean=400.0, std=200.0),
            "MET_pt": Range(low=0.0, high=800.0, mean=60.0, std=50.0),
        },
        "metrics": {"auc": 0.9},
        "author": "Marie",
        "description": "a test",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Manifest(**{**made, **fields})


def with_parity(manifest: Manifest, model: Path) -> Manifest:
    """Add three events, the last without jets, and what the graph says of them."""
    import dataclasses

    import onnxruntime as ort

    from rootdata.bundle.assemble import Assembler, table_of

    columns: dict[str, Any] = {"HT": [431.0, 99.5, 820.0], "MET_pt": [20.0, 130.0, 55.5]}
    if len(manifest.inputs) > 1:
        columns |= {"Jet_pt": [[120.0, 80.0, 31.0], [45.0], []], "Jet_eta": [[0.1, -1.2, 2.2], [0.7], []]}
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    [scores] = session.run(None, Assembler(manifest)(table_of(manifest, columns)))
    rows = tuple(tuple(map(float, row)) for row in scores)
    return dataclasses.replace(manifest, parity=Parity(num_events=3, max_difference=0.0, columns=columns, scores=rows))
