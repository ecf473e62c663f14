"""What an ONNX graph says of itself: whether it is harmless to load, what it takes and gives.

Parse graphs of strangers in a process with limits (:mod:`serve.upload.child`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from rootdata.bundle.manifest import (
    BRANCH_DTYPES,
    DTYPES,
    EVENTS,
    BranchSpec,
    Manifest,
    OutputSpec,
    TensorSpec,
    sha256_of,
)
from rootdata.causes import OUTSIDE, cause_of
from serve.errors import InvalidModel

DOMAINS = ("", "ai.onnx", "ai.onnx.ml")  # the second is the first one's full name
_CLASSES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_PASSING = ("Identity", "Cast", "ZipMap", "Normalizer", "Softmax")  # what may stand between a classifier and its output
_CHANCE = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
GraphShape = tuple[int | str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output of a graph.

    Parameters
    ----------
    shape : sizes, or names of axes of any size; ``None`` where the graph does not say
    """

    name: str
    dtype: str
    shape: GraphShape | None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype} {'of any shape' if self.shape is None else list(self.shape)})"


def read(path: Path) -> Any:
    """Parse a graph, without looking at other files.

    Raises
    ------
    InvalidModel
        If it does not parse.
    """
    try:
        return onnx.load_model(path, load_external_data=False)
    except Exception as error:  # protobuf has a dozen exceptions of its own
        if cause_of(error) in OUTSIDE:
            raise
        raise InvalidModel(f"{path.name} is no ONNX graph ({error}); export it again", field=path.name) from error


def refuse_strangers(model: Any) -> None:
    """Refuse what could make the runtime read other files or run other code, wherever it is in the graph.

    Raises
    ------
    InvalidModel
        For external data, local functions, training graphs, and operators outside ``ai.onnx`` and ``ai.onnx.ml``.
    """
    if model.functions:
        shown = f"{model.functions[0].domain}.{model.functions[0].name}"
        raise InvalidModel(f"the graph has functions of its own ({shown!r:.80}); export it with functions inlined")
    if model.training_info:
        raise InvalidModel("the graph comes with a training graph; export it for inference")
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto):
            if message.external_data or message.data_location == onnx.TensorProto.EXTERNAL:
                raise InvalidModel(
                    f"tensor {message.name!r:.80} is in another file; export with external_data=False (below 2 GB)"
                )
        elif isinstance(message, onnx.NodeProto) and message.domain not in DOMAINS:
            raise InvalidModel(
                f"operator {message.op_type!r:.80} is of domain {message.domain!r:.80}; "
                "allowed: ONNX's own and ai.onnx.ml; export without custom operators"
            )


def _messages(message: Any) -> Iterator[Any]:
    """Give every message inside one: nodes, attributes, subgraphs, tensors, whatever ONNX may add."""
    left = [message]
    while left:
        current = left.pop()
        yield current
        if isinstance(current, onnx.TensorProto):
            continue
        for field, value in current.ListFields():
            if field.message_type is not None:
                left.extend([value] if hasattr(value, "ListFields") else value)


def opset(model: Any) -> int:
    """Return the version of ONNX's operators that a graph uses, 0 if it says none."""
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)


def meeting(model: Any) -> str:
    """Say why events that meet in a batch may change each other's scores, by what operators mean; "" if none does."""
    used = {message.op_type for message in _messages(model) if isinstance(message, onnx.NodeProto)}
    if "DynamicQuantizeLinear" in used:
        return "it is quantised dynamically (DynamicQuantizeLinear), by one scale for all that is run together"
    chance = sorted(used & set(_CHANCE))
    return f"it draws random numbers ({', '.join(chance)})" if chance else ""


def without_maps(model: Any) -> list[str]:
    """Turn outputs that are a map for each event (ZipMap) into tensors, (events, classes); return their names."""
    producers = {name: node for node in model.graph.node for name in node.output}
    changed = []
    for value in model.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type == "Identity":
            node = producers.get(node.input[0])
        if value.type.HasField("tensor_type") or node is None or node.op_type != "ZipMap":
            continue
        classes = _attributes(node, _CLASSES)
        shape = [None, len(classes)]
        value.type.CopyFrom(onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape))
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
        changed.append(value.name)
    return changed


def classes_of(model: Any) -> dict[str, tuple[str, ...]]:
    """Name the classes of outputs that a classifier gives, as far as it says: output name to names of its columns."""
    producers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for value in model.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type in _PASSING and not _attributes(node, _CLASSES) and node.input:
            node = producers.get(node.input[0])
        classes = () if node is None else _attributes(node, _CLASSES)
        names = [c.decode(errors="replace") if isinstance(c, bytes) else f"{value.name}_{c}" for c in classes]
        if names and len(set(names)) == len(names) and all(names):
            found[value.name] = tuple(names)
    return found


def _attributes(node: Any, names: Sequence[str]) -> list[Any]:
    """Return the first list among some attributes of a node that is not empty."""
    lists = (list(a.strings) or list(a.ints) for a in node.attribute if a.name in names)
    return next((found for found in lists if found), [])


def with_short_domains(model: Any) -> bool:
    """Write ``ai.onnx`` as "", the only name of it that ONNX's checker knows; say whether there was any."""
    spelled = [
        message
        for message in (*_messages(model), *model.opset_import)
        if isinstance(message, onnx.NodeProto | onnx.OperatorSetIdProto) and message.domain == "ai.onnx"
    ]
    for message in spelled:
        message.domain = ""
    return bool(spelled)


def with_some_shapes(model: Any) -> bool:
    """Give outputs of unknown rank a shape, which ONNX's checker asks for; say whether there were any."""
    tensors = [value.type.tensor_type for value in model.graph.output if value.type.HasField("tensor_type")]
    unknown = [tensor for tensor in tensors if not tensor.HasField("shape")]
    for tensor in unknown:
        tensor.shape.SetInParent()
    return bool(unknown)


def ports(model: Any) -> tuple[list[Port], list[Port]]:
    """Return the inputs and outputs of a graph.

    Raises
    ------
    InvalidModel
        Where there are none; for one that is no tensor, or has elements that can't be exchanged; for an input of
        unknown rank.
    """
    given = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    inputs = [_port(value, "input") for value in model.graph.input if value.name not in given]
    if not inputs or not model.graph.output:
        raise InvalidModel(f"the graph has no {'output' if inputs else 'input'}; a model takes and gives a tensor")
    return inputs, [_port(value, "output") for value in model.graph.output]


def _port(value: Any, what: str) -> Port:
    name = value.name[:80]
    if not value.type.HasField("tensor_type"):
        kind = str(value.type.WhichOneof("value") or "nothing").removesuffix("_type")
        raise InvalidModel(f"{what} {name!r} is no tensor but {kind}; {_NO_TENSOR[what]}", field=name)
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") and what == "input":
        raise InvalidModel(f"input {name!r} has no shape; export it with one, open axes may have names", field=name)
    dtype = _dtype(tensor.elem_type)
    if dtype not in DTYPES:
        raise InvalidModel(
            f"{what} {name!r} is of type {dtype}, which onnxruntime's Python interface can't exchange; allowed: "
            f"{', '.join(DTYPES)}; put a Cast inside the graph",
            field=name,
        )
    shape = tuple(_size(d, name, i) for i, d in enumerate(tensor.shape.dim)) if tensor.HasField("shape") else None
    return Port(name=value.name, dtype=dtype, shape=shape)


_NO_TENSOR = {
    "input": "export the graph with plain tensors for inputs",
    "output": "export plain tensors, or leave the output out; of a graph without a manifest maps (ZipMap) are made one",
}


def _dtype(kind: int) -> str:
    """Name an element type as numpy does."""
    if kind == onnx.TensorProto.STRING:
        return "string"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind).name)
    except KeyError:
        return "unknown"


def _size(dim: Any, name: str, axis: int) -> int | str:
    if dim.HasField("dim_value") and dim.dim_value >= 0:  # some converters write -1
        return int(dim.dim_value)
    return str(dim.dim_param) or f"{name}_axis{axis}"  # axes without a name have nothing to do with each other


def bundle_of_graph(
    path: str | Path,
    *,
    features: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    author: str = "",
    description: str = "",
) -> Manifest:
    """Make the manifest of a graph that comes alone, by what it declares; see :func:`manifest_of`.

    Parameters
    ----------
    path : of the graph's file
    features, columns : as :func:`manifest_of` takes them
    author, description : for those who search models

    Raises
    ------
    InvalidModel
        As :func:`manifest_of`.
    """
    path = Path(path)
    model = read(path)
    inputs, outputs = ports(model)
    made = manifest_of(
        sha256_of(path),
        path.stat().st_size,
        inputs,
        outputs,
        features=features,
        columns=columns,
        classes=classes_of(model),
        software={model.producer_name: model.producer_version} if model.producer_name else {},
    )
    return dataclasses.replace(made, author=author, description=description)


def manifest_of(
    sha256: str,
    size: int,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    batching: str = "events",
    features: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
    software: Mapping[str, str] | None = None,
) -> Manifest:
    """Make the manifest of a graph that comes alone; it takes tensors, or events where ``features`` are named.

    Parameters
    ----------
    sha256, size : of the graph's file
    inputs, outputs : of the graph, as it declares them
    batching : as in :class:`rootdata.bundle.manifest.Manifest`
    features : what lies along the second axis of its only input, (events, features); makes it take events
    columns : what lies along the second axis of its scores
    classes : output name to what its columns are called, where ``columns`` do not say
    software : name to version of what made the graph

    Raises
    ------
    InvalidModel
        For a graph that has other inputs than ``features`` need.
    """
    outputs = sorted(outputs, key=_rank)  # scores first, labels after
    if features is not None:
        _check_features(inputs, outputs, features)
    if columns is not None and len(columns) != _width(outputs[0]):
        raise InvalidModel(
            f"columns: got {len(columns)} names; output {outputs[0]} has another number", field="columns"
        )
    called = dict(classes or {}) | ({outputs[0].name: tuple(columns)} if columns is not None else {})
    return Manifest(
        sha256=sha256,
        size=size,
        inputs=tuple(_tensor(port, tuple(features or ()), batching) for port in inputs),
        outputs=tuple(_output(port, called.get(port.name, ()), batching) for port in outputs),
        branches=tuple(BranchSpec(name=f, dtype=_branch_type(inputs[0].dtype)) for f in features or ()),
        features={"flat": list(features), "scale": "none"} if features else {},
        software=software or {},
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        batching=batching,
    )


def _branch_type(dtype: str) -> str:
    return dtype if dtype in BRANCH_DTYPES else "float32"


def _rank(port: Port) -> int:
    """Order outputs: what looks like scores comes before what looks like labels."""
    rank = None if port.shape is None else len(port.shape)
    return 0 if port.dtype == "float32" and rank == 2 else 1 if _is_scores(port) else 2


def _is_scores(port: Port) -> bool:
    return port.dtype.startswith("float") and port.shape is not None and len(port.shape) in {1, 2}


def _check_features(inputs: Sequence[Port], outputs: Sequence[Port], features: Sequence[str]) -> None:
    if len(set(features)) < len(features) or not features:
        raise InvalidModel(
            f"features: got {list(features)[:20]}; needs different names, at least one", field="features"
        )
    shape = inputs[0].shape or ()
    is_fit = len(inputs) == 1 and len(shape) == 2 and inputs[0].dtype != "string"
    if not is_fit or (isinstance(shape[1], int) and shape[1] != len(features)):
        shown = ", ".join(map(str, inputs))
        raise InvalidModel(
            f"features: {len(features)} names need one input of numbers, (events, {len(features)}); "
            f"the graph takes {shown:.300}",
            field="features",
        )
    scores = outputs[0]
    if not _is_scores(scores) or (len(scores.shape or ()) == 2 and not isinstance((scores.shape or ())[1], int)):
        shown = ", ".join(map(str, outputs))
        raise InvalidModel(
            f"features: scores are real numbers, (events,) or (events, columns); the graph gives {shown:.300}",
            field="features",
        )


def _tensor(port: Port, features: tuple[str, ...], batching: str) -> TensorSpec:
    shape = _batched(port.shape or (), batching)
    return TensorSpec(
        name=port.name, dtype=port.dtype, shape=(*shape[:1], len(features)) if features else shape, features=features
    )


def _width(port: Port) -> int | str:
    """Say how many columns an output has, 0 where it has no axis of columns."""
    shape = port.shape or ()
    return shape[1] if len(shape) == 2 else int(len(shape) == 1)


def _output(port: Port, called: Sequence[str], batching: str) -> OutputSpec:
    width = _width(port)
    numbered = tuple(f"{port.name}_{i}" for i in range(width)) if isinstance(width, int) else ()
    names = tuple(called) if len(called) == width else (port.name,) if width == 1 else numbered
    return OutputSpec(name=port.name, dtype=port.dtype, shape=_batched(port.shape or (), batching), columns=names)


def _batched(shape: GraphShape, batching: str) -> GraphShape:
    """Give the batch axis its name, whatever the author called it."""
    return (EVENTS, *shape[1:]) if batching == EVENTS and shape and isinstance(shape[0], str) else shape
