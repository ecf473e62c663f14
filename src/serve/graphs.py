"""What an ONNX graph says of itself: whether it is harmless to load, what it takes and gives.

Parse graphs of strangers in a process with limits (:mod:`serve.checking_child`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from rootdata.bundle import DTYPES, EVENTS, BranchSpec, Manifest, OutputSpec, TensorSpec, sha256_of
from rootdata.causes import OUTSIDE, cause_of
from serve.errors import InvalidModel

DOMAINS = ("", "ai.onnx.ml")
Shape = tuple[int | str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output of a graph.

    Parameters
    ----------
    shape : sizes, or names of axes of any size
    """

    name: str
    dtype: str
    shape: Shape

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype} {list(self.shape)})"


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


def ports(model: Any) -> tuple[list[Port], list[Port]]:
    """Return the inputs and outputs of a graph.

    Raises
    ------
    InvalidModel
        For one that is no tensor, or of unknown rank.
    """
    given = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    inputs = [_port(value, "input") for value in model.graph.input if value.name not in given]
    return inputs, [_port(value, "output") for value in model.graph.output]


def _port(value: Any, what: str) -> Port:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value")
        remedy = "export plain tensors (skl2onnx: options={'zipmap': False})"
        raise InvalidModel(f"{what} {value.name!r:.80} is no tensor but {kind}; {remedy}", field=value.name[:80])
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise InvalidModel(f"{what} {value.name!r:.80} has no shape; export it with one", field=value.name[:80])
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError as error:
        raise InvalidModel(f"{what} {value.name!r:.80} has no number type", field=value.name[:80]) from error
    return Port(name=value.name, dtype=dtype, shape=tuple(_size(d, i) for i, d in enumerate(tensor.shape.dim)))


def _size(dim: Any, axis: int) -> int | str:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or f"axis{axis}"


def bundle_of_graph(
    path: str | Path,
    *,
    features: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    author: str = "",
    description: str = "",
) -> Manifest:
    """Make the manifest of a graph that comes alone; it takes tensors, or events where ``features`` are named.

    Parameters
    ----------
    path : of the graph
    features : what lies along the second axis of its only input, float32 (events, features); makes it take events
    columns : what lies along the second axis of its scores

    Raises
    ------
    InvalidModel
        For a graph that does not parse, has other inputs than ``features`` need, or types that are not served.
    """
    path = Path(path)
    model = read(path)
    inputs, outputs = ports(model)
    outputs = sorted(outputs, key=lambda port: not _is_scores(port))  # scores first, labels after
    if features is not None:
        _check_features(inputs, outputs, features)
    return Manifest(
        sha256=sha256_of(path),
        size=path.stat().st_size,
        inputs=tuple(_tensor(port, tuple(features or ())) for port in inputs),
        outputs=tuple(_output(port, columns if i == 0 else None) for i, port in enumerate(outputs)),
        branches=tuple(BranchSpec(name=f, dtype="float32") for f in features or ()),
        features={"flat": list(features), "scale": "none"} if features else {},
        software={model.producer_name: model.producer_version} if model.producer_name else {},
        author=author,
        description=description,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def _is_scores(port: Port) -> bool:
    return port.dtype == "float32" and len(port.shape) == 2


def _check_features(inputs: list[Port], outputs: list[Port], features: Sequence[str]) -> None:
    if len(set(features)) < len(features) or not features:
        raise InvalidModel(
            f"features: got {list(features)[:20]}; needs different names, at least one", field="features"
        )
    if len(inputs) != 1 or not _is_scores(inputs[0]) or inputs[0].shape[1] not in (len(features), "axis1"):
        shown = ", ".join(map(str, inputs))
        raise InvalidModel(
            f"features: {len(features)} names need one input, float32 (events, {len(features)}); "
            f"the graph takes {shown}",
            field="features",
        )
    if not outputs or not _is_scores(outputs[0]) or not isinstance(outputs[0].shape[1], int):
        shown = ", ".join(map(str, outputs))
        raise InvalidModel(f"features: scores are float32 (events, columns); the graph gives {shown}", field="features")


def _tensor(port: Port, features: tuple[str, ...]) -> TensorSpec:
    if port.dtype not in DTYPES:
        raise InvalidModel(f"input {port} has a type that is not served; allowed: {', '.join(DTYPES)}", field=port.name)
    shape = (*_batched(port.shape)[:1], len(features)) if features else _batched(port.shape)
    return TensorSpec(name=port.name, dtype=port.dtype, shape=shape, features=features)


def _output(port: Port, columns: Sequence[str] | None) -> OutputSpec:
    width = port.shape[1] if len(port.shape) == 2 else 0
    if columns is not None and len(columns) != width:
        raise InvalidModel(f"columns: got {len(columns)} names; output {port} has another number", field="columns")
    numbered = tuple(f"{port.name}_{i}" for i in range(width)) if isinstance(width, int) else ()
    names = tuple(columns) if columns is not None else (port.name,) if width == 1 else numbered
    return OutputSpec(name=port.name, dtype=port.dtype, shape=_batched(port.shape), columns=names)


def _batched(shape: Shape) -> Shape:
    """Give the batch axis its name, whatever the author called it."""
    return (EVENTS, *shape[1:]) if shape and isinstance(shape[0], str) else shape
