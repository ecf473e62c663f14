"""A model of another library in a bundle: our preprocessing in front of its own ONNX graph, in one file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootdata.bundle.graph.deployed import Deployed
from rootdata.bundle.manifest import EVENTS, OutputSpec, TensorSpec
from rootdata.errors import BundleError

Arrays = Mapping[str, npt.NDArray[Any]]

BEHIND = "behind_"  # in front of every name of the other graph
CHOICE = "choice/"  # in front of every name of the graph that chooses between folds; no collection is called so
PICKED = "picked_"  # of what picks its scores
TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}  # of TensorProto
OLDEST = 18  # version of ONNX operators that our own part may be written in
PROBABILITIES = ("probabilities", "output_probability")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joined:
    """A model that has an ONNX graph of its own; :func:`rootdata.bundle.export.export` takes it like a network.

    Parameters
    ----------
    predict : takes the tensors of a batch by name, as arrays, and gives what the graph has to give, (events,) or
        (events, columns)
    graph : an ``onnx.ModelProto``, its bytes or its file; takes tensors of a batch, gives probabilities of the classes
        or of that with label 1, or values of targets
    takes : input of the graph to tensor of a batch; by default inputs are called like tensors, or the only one takes
        the first tensor, ``x``
    gives : name of the output, or its number
    targets : names of the targets that are predicted, in physical units; without any they are classes
    software : names of distributions whose versions the manifest tells, beside the usual ones
    """

    predict: Callable[[Arrays], npt.ArrayLike]
    graph: Any
    takes: Mapping[str, str] | None = None
    gives: str | int = 0
    targets: Sequence[str] = ()
    software: Sequence[str] = ()


def expected(model: Joined, batch: Arrays, *, classes: int, num_events: int) -> npt.NDArray[np.float32]:
    """Ask the model itself: (events, columns) float32, of two classes the second alone.

    Parameters
    ----------
    model : that is asked
    batch : as training makes it
    classes, num_events : how many there are
    """
    found, n = np.asarray(model.predict(batch), np.float32), num_events
    if found.ndim not in {1, 2} or len(found) != n:
        raise BundleError(
            f"predict returns shape {found.shape} for {n} events; expected (events,) or (events, columns)"
        )
    rows = found.reshape(n, -1)
    return rows[:, 1:] if not model.targets and classes == 2 and rows.shape[1] == 2 else rows


def loaded(model: Joined) -> Any:
    """Read the graph."""
    import onnx

    try:
        if isinstance(model.graph, (str, Path)):
            return onnx.load_model(model.graph)
        if isinstance(model.graph, bytes):
            return onnx.load_model_from_string(model.graph)
    except Exception as error:  # the reader of damaged files fails in any way
        raise BundleError(f"the graph can't be read: {error}") from error
    return onnx.ModelProto.FromString(model.graph.SerializeToString())


def wiring(model: Joined, graph: Any, tensors: Sequence[str]) -> dict[str, str]:
    """Say which tensor of a batch each input of the graph takes.

    Parameters
    ----------
    model : says so itself, or leaves it to the names
    graph : its own, loaded
    tensors : of a batch

    Raises
    ------
    BundleError
        For an input without one.
    """
    held = {initializer.name for initializer in graph.graph.initializer}
    inputs = [value.name for value in graph.graph.input if value.name not in held]
    found = dict(model.takes or {})
    if not found:
        found = {inputs[0]: tensors[0]} if len(inputs) == 1 and inputs[0] not in tensors else {n: n for n in inputs}
    wrong = [f"{name!r} <- {found.get(name)!r}" for name in inputs if found.get(name) not in tensors]
    if wrong or set(found) - set(inputs):
        raise BundleError(
            f"the graph takes {inputs}, and batches have {list(tensors)}; not understood: "
            f"{', '.join(wrong) or sorted(set(found) - set(inputs))}; say with `takes` which input takes which tensor"
        )
    return found


class Preprocessing(nn.Module):
    """Our preprocessing alone: raw physics values in, the tensors of a batch out.

    Parameters
    ----------
    deployed : makes the batch
    wanted : names of tensors, each with its type
    """

    def __init__(self, deployed: Deployed, wanted: Sequence[tuple[str, torch.dtype]]) -> None:
        super().__init__()
        self.deployed, self._wanted = deployed, tuple(wanted)

    def forward(self, *raw: Tensor) -> tuple[Tensor, ...]:
        """Make the tensors."""
        batch = self.deployed.batch(*raw)
        # one that is passed through unchanged would be an input and an output at once
        return tuple(batch[name].to(dtype).clone() for name, dtype in self._wanted)


def types_of(graph: Any, inputs: Sequence[str]) -> list[torch.dtype]:
    """Give the types of inputs.

    Raises
    ------
    BundleError
        For one that no tensor of a batch can have.
    """
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.graph.input}
    for name in inputs:
        if kinds[name] not in TYPES:
            raise BundleError(
                f"the graph's input {name!r} has type {kinds[name]} of ONNX; batches hold numbers and bool"
            )
    return [TYPES[kinds[name]] for name in inputs]


def opset_of(graph: Any) -> int:
    """Return the version of the operators of a graph."""
    return max((o.version for o in graph.opset_import if o.domain in {"", "ai.onnx"}), default=1)


def behind(front: Any, graph: Any, *, links: Sequence[tuple[str, str]], kept: str, output: OutputSpec) -> Any:
    """Put a graph behind another, both in one.

    Parameters
    ----------
    front : gives tensors
    graph : takes them
    links : output of the front and input of the graph
    kept : output of the graph that is kept
    output : what becomes of it: its name and its columns, the last ones where the graph gives more
    """
    from onnx import TensorProto, compose, helper

    graph = _raised(graph, opset_of(front))
    _set_apart(graph.graph, BEHIND)
    front.ir_version = graph.ir_version = max(front.ir_version, graph.ir_version)
    made = compose.merge_models(front, graph, io_map=[(a, BEHIND + b) for a, b in links], outputs=[BEHIND + kept])
    width = len(output.columns)
    numbers = {"shape": [0, -1], "first": [-width], "end": [2**31], "axis": [1]}
    made.graph.initializer.extend(
        helper.make_tensor(f"{PICKED}{name}", TensorProto.INT64, [len(values)], values)
        for name, values in numbers.items()
    )
    slicing = [f"{PICKED}{name}" for name in ("rows", "first", "end", "axis")]
    made.graph.node.extend([
        helper.make_node("Cast", [BEHIND + kept], [f"{PICKED}float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", [f"{PICKED}float", f"{PICKED}shape"], [f"{PICKED}rows"]),
        helper.make_node("Slice", slicing, [output.name]),
    ])  # fmt: skip
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [EVENTS, width]))
    return made


def together(parts: Sequence[Any], choice: Any, *, inputs: Sequence[TensorSpec], output: OutputSpec) -> Any:
    """Put the graphs of all folds into one, and behind them one that chooses.

    Parameters
    ----------
    parts : of each fold; they take inputs of the whole, by their names, and give one output each
    choice : takes the outputs of the parts first, in their order, then inputs of the whole; gives one output
    inputs, output : of the whole

    Raises
    ------
    BundleError
        For graphs that are written in several versions of the same operators.
    """
    from onnx import ModelProto, helper, inliner

    names = [spec.name for spec in inputs]
    given: list[str] = []
    made = ModelProto(ir_version=max(part.ir_version for part in (*parts, choice)))
    made.opset_import.extend(_operators([*parts, choice]))
    prefixes = [*(f"fold_{number}/" for number in range(len(parts))), CHOICE]
    for prefix, model in zip(prefixes, (*parts, choice), strict=True):
        part = inliner.inline_local_functions(model).graph
        taken = [value.name for value in part.input if value.name in names]
        links = [*zip(taken, taken, strict=True)]
        if prefix == CHOICE:
            links += zip(given, (value.name for value in part.input), strict=False)
        _set_apart(part, prefix)
        made.graph.node.extend(helper.make_node("Identity", [source], [prefix + name]) for source, name in links)
        for field in ("node", "initializer", "sparse_initializer", "value_info"):
            getattr(made.graph, field).extend(getattr(part, field))
        given.append(part.output[0].name)
    made.graph.node.append(helper.make_node("Identity", [given[-1]], [output.name]))
    made.graph.name = "folds"
    made.graph.input.extend(_described(spec) for spec in inputs)
    made.graph.output.append(_described(output))
    return made


def _described(spec: TensorSpec | OutputSpec) -> Any:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, kind, list(spec.shape))


def _operators(graphs: Sequence[Any]) -> list[Any]:
    """Give the versions of operators that graphs have in common."""
    from onnx import helper

    found: dict[str, set[int]] = {}
    for entry in (entry for graph in graphs for entry in graph.opset_import):
        found.setdefault("" if entry.domain == "ai.onnx" else entry.domain, set()).add(entry.version)
    for domain, versions in found.items():
        if len(versions) > 1:
            raise BundleError(
                f"folds: the graphs have versions {sorted(versions)} of the operators {domain or 'ai.onnx'!r}; write "
                "those of all folds by the same converter"
            )
    return [helper.make_opsetid(domain, versions.pop()) for domain, versions in found.items()]


def _set_apart(graph: Any, prefix: str) -> None:
    """Put a prefix in front of every name of a graph, and of the graphs in its nodes, in place."""
    sparse = [tensor for one in graph.sparse_initializer for tensor in (one.values, one.indices)]
    for named in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse, *graph.node):
        named.name = named.name and prefix + named.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and prefix + name for name in names]  # an empty one is left out
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _set_apart(inner, prefix)


def output_of(graph: Any, gives: str | int) -> str:
    """Find the output that is kept.

    Raises
    ------
    BundleError
        Where there is none, or it is no tensor.
    """
    outputs = list(graph.graph.output)
    names = [value.name for value in outputs]
    found = outputs[gives] if isinstance(gives, int) and -len(names) <= gives < len(names) else None
    found = next((value for value in outputs if value.name == gives), found)
    if found is None:
        raise BundleError(
            f"the graph has no output {gives!r}; it gives {names}; say with `gives` which one holds scores"
        )
    if not found.type.HasField("tensor_type"):
        raise BundleError(f"the graph's output {found.name!r} is no tensor; convert the model with zipmap=False")
    name: str = found.name
    return name


def _raised(graph: Any, opset: int) -> Any:
    """Write a graph in a newer version of the operators of ONNX; those of trees are others, and stay."""
    from onnx import version_converter

    if opset_of(graph) < opset:
        domains = {o.domain: o.version for o in graph.opset_import}
        plain = all(node.domain in {"", "ai.onnx"} for node in graph.graph.node)
        if plain:
            return version_converter.convert_version(graph, opset)
        for entry in graph.opset_import:
            if entry.domain in {"", "ai.onnx"}:
                entry.version = opset
        if "" not in domains and "ai.onnx" not in domains:
            graph.opset_import.add(domain="", version=opset)
    return graph
