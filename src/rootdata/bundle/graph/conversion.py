"""A torch module as an ONNX graph, and a graph run by onnxruntime."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rootdata.bundle.assemble import Tensors
from rootdata.bundle.graph import portable
from rootdata.bundle.manifest import Manifest, TensorSpec
from rootdata.causes import OUTSIDE, cause_of
from rootdata.errors import BundleError

Scores = npt.NDArray[np.float32]

OPSET = 20  # 23 and later have an Attention operator that onnxruntime 1.32 refuses for some masks
EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers of what writes the graph
METADATA = "rootdata.manifest"  # key in the graph's own metadata


def device_of(network: nn.Module) -> torch.device:
    """Return where a network computes."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def first_line(error: BaseException) -> str:
    """Say what was wrong in the first place: the exporter wraps it in its own words, and colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def program_of(
    module: nn.Module, inputs: Sequence[TensorSpec], example: Tensors, *, outputs: Sequence[str], opset: int = OPSET
) -> Any:
    """Write a module as a graph.

    Parameters
    ----------
    module : takes the tensors in their order
    inputs : of the graph; those of variable length are named in their shapes
    example : tensors by name
    outputs : names
    opset : of ONNX
    """
    axes = {a: torch.export.Dim(str(a)) for t in inputs for a in t.shape if isinstance(a, str)}
    shapes = tuple({i: axes[a] for i, a in enumerate(t.shape) if isinstance(a, str)} for t in inputs)
    tensors = tuple(torch.from_numpy(example[t.name]).to(device_of(module)) for t in inputs)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tensors,
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=[t.name for t in inputs],
                output_names=list(outputs),
                dynamic_shapes=(shapes,),
                verbose=False,
            )
    except Exception as error:
        if cause_of(error) in OUTSIDE:
            raise
        raise BundleError(f"the network can't be written as an ONNX graph: {first_line(error)}") from error
    if program is None:
        raise BundleError("the network can't be written as an ONNX graph")
    return program.model_proto


def finished(graph: Any, draft: Manifest) -> bytes:
    """Leave out of a graph what it need not tell, put in what is known of it, and check it."""
    import onnx

    _strip(graph)
    portable.without_logic(graph)
    plain = {k: v for k, v in draft.to_dict().items() if v}
    graph.metadata_props.add(key=METADATA, value=json.dumps(plain, separators=(",", ":"), allow_nan=False))
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush the exporter, which prints its progress and warns of packages that are not there."""
    loggers = [logging.getLogger(name) for name in EXPORTERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _strip(message: Any) -> None:
    """Clear the notes that the exporter left, everywhere in the graph."""
    message.doc_string = ""
    del message.metadata_props[:]
    graph = message.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for function in message.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def run(graph: bytes, tensors: Tensors) -> Scores:
    """Run a graph by onnxruntime, on one thread; several outputs come side by side."""
    return opened(graph)(tensors)


def opened(graph: bytes) -> Callable[[Tensors], Scores]:
    """Open a graph in onnxruntime, and return what :func:`run` does with tensors, as often as it is called."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if cause_of(error) in OUTSIDE:
            raise
        raise BundleError(f"onnxruntime does not take the graph: {first_line(error)}") from error

    def answer(tensors: Tensors) -> Scores:
        try:
            outputs = session.run(None, tensors)
        except Exception as error:
            if cause_of(error) in OUTSIDE:
                raise
            shapes = ", ".join(f"{name} {values.shape}" for name, values in tensors.items())
            raise BundleError(f"the graph does not run with {shapes}: {first_line(error)}") from error
        scores: Scores = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)
        return scores

    return answer
