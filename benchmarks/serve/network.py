"""The network that everybody serves, 27 -> 1024 -> 1024 -> 1, its bundle, and events with their scores."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.serve.apps.session import open_session, run
from rootdata.bundle.manifest import MODEL as GRAPH
from rootdata.bundle.manifest import BranchSpec, Manifest, OutputSpec, TensorSpec, save_manifest

Floats = npt.NDArray[np.float32]
NAMES = tuple(f"x{i:02}" for i in range(27))
WIDTH = 1024
MODEL = "network"


def make(folder: Path) -> Path:
    """Write a repository with one version of the network.

    Returns
    -------
    The path of the graph, below ``folder``.
    """
    home = folder / MODEL / "1"
    home.mkdir(parents=True, exist_ok=True)
    graph = home / GRAPH
    graph.write_bytes(_graph(np.random.default_rng(27)))
    save_manifest(_manifest(graph), home)
    return graph


def make_events(number: int, *, seed: int = 1) -> Floats:
    """Draw events, (number, 27)."""
    return np.random.default_rng(seed).normal(size=(number, len(NAMES))).astype(np.float32)


def scores_of(graph: Path, events: Floats) -> Floats:
    """Ask onnxruntime itself, (n,)."""
    scores: Floats = run(open_session(str(graph)), events)[:, 0]
    return scores


def _graph(rng: np.random.Generator) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    sizes = (len(NAMES), WIDTH, WIDTH, 1)
    nodes, weights, last = [], [], "flat"
    for i in range(3):
        matrix = rng.normal(scale=np.sqrt(2 / sizes[i]), size=(sizes[i], sizes[i + 1])).astype(np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"w{i}"),
            numpy_helper.from_array(np.zeros(sizes[i + 1], "f4"), f"b{i}"),
        ]
        out = "scores" if i == 2 else f"h{i}"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [f"z{i}"]))
        nodes.append(helper.make_node("Sigmoid" if i == 2 else "Relu", [f"z{i}"], [out]))
        last = out
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["events", len(NAMES)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["events", 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def _manifest(graph: Path) -> Manifest:
    return Manifest(
        sha256=hashlib.sha256(graph.read_bytes()).hexdigest(),
        size=graph.stat().st_size,
        branches=tuple(BranchSpec(name=name, dtype="float32") for name in NAMES),
        inputs=(TensorSpec(name="flat", dtype="float32", shape=("events", len(NAMES)), features=NAMES),),
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("signal",)),),
        features={"flat": list(NAMES)},
        created="2026-01-01T00:00:00Z",
    )
