"""Histogram gradient boosting of scikit-learn as an ONNX graph.

skl2onnx writes it, too, but with thresholds rounded to the nearest float32, which sends some events the other way, and
not with every version of protobuf.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from rootdata.errors import BundleError
from rootdata.models.estimators.lgbm import below


def is_histogram(estimator: Any) -> bool:
    """Say whether an estimator is one, and fitted."""
    return type(estimator).__name__ == "HistGradientBoostingClassifier" and hasattr(estimator, "_predictors")


def graph_of(estimator: Any, *, n_inputs: int) -> Any:
    """Write it as a graph from ``x`` to the probabilities of all classes.

    Parameters
    ----------
    estimator : fitted
    n_inputs : numbers of an event

    Raises
    ------
    BundleError
        For one with categories.
    """
    from onnx import TensorProto, helper

    iterations = estimator._predictors  # noqa: SLF001 - it has no other way to its trees
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)  # noqa: SLF001
    trees = [(target, tree.nodes) for trees in iterations for target, tree in enumerate(trees)]
    if any(nodes["is_categorical"].any() for _, nodes in trees):
        raise BundleError("HistGradientBoostingClassifier with categorical features is not written as an ONNX graph")
    parts = [_attributes(number, target, nodes) for number, (target, nodes) in enumerate(trees)]
    joined = {name: list(itertools.chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
    ensemble = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["raw"], domain="ai.onnx.ml", n_targets=len(base),
        base_values=base.tolist(), aggregate_function="SUM", post_transform="NONE", **joined,
    )  # fmt: skip
    if len(base) == 1:
        finish = [
            helper.make_node("Sigmoid", ["raw"], ["probabilities"]),
        ]
    else:
        finish = [helper.make_node("Softmax", ["raw"], ["probabilities"], axis=1)]
    graph = helper.make_graph(
        [ensemble, *finish],
        "histogram",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, n_inputs])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(base)])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _attributes(number: int, target: int, nodes: Any) -> dict[str, list[Any]]:
    """Give the attributes of one tree.

    Parameters
    ----------
    number : of the tree
    target : column that its leaves add to
    nodes : (n,) of scikit-learn
    """
    is_leaf = nodes["is_leaf"].astype(bool)
    places, leaves = np.arange(len(nodes)), np.flatnonzero(is_leaf)

    def at_branches(values: Any) -> list[Any]:
        found: list[Any] = np.where(is_leaf, 0, values).tolist()
        return found

    return {
        "nodes_treeids": [number] * len(nodes),
        "nodes_nodeids": places.tolist(),
        "nodes_featureids": at_branches(nodes["feature_idx"].astype(np.int64)),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": at_branches(below(nodes["num_threshold"])),
        "nodes_truenodeids": at_branches(nodes["left"].astype(np.int64)),
        "nodes_falsenodeids": at_branches(nodes["right"].astype(np.int64)),
        "nodes_missing_value_tracks_true": at_branches(nodes["missing_go_to_left"].astype(np.int64)),
        "target_treeids": [number] * len(leaves),
        "target_nodeids": leaves.tolist(),
        "target_ids": [target] * len(leaves),
        "target_weights": nodes["value"][leaves].astype(np.float64).tolist(),
    }
