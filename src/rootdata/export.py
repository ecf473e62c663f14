"""From a trained network to a bundle: the graph with its preprocessing inside, compared with torch on real events."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootdata import bundle, contract, probe, weaver
from rootdata.bundle import Manifest, Parity
from rootdata.errors import BundleError
from rootdata.graph import Call, Deployed, activation_of, call_of
from rootdata.inputs import Assembler, Table, Tensors, concatenate, lists_of
from rootdata.specs import layout_of, transforms_of

Scores = npt.NDArray[np.float32]

OPSET = 20  # 23 and later have an Attention operator that onnxruntime 1.32 refuses for some masks
TOLERANCE = 1e-5  # between scores; more is a fault, not rounding
SAMPLE = 8  # real events that travel with the manifest
METADATA = "rootdata.manifest"  # key in the graph's own metadata
PREPROCESS = "preprocess.json"


def export(
    network: nn.Module,
    data: Any,
    folder: str | Path,
    *,
    activation: str = "auto",
    columns: Sequence[str] | None = None,
    call: Call | None = None,
    reveal_empty: bool = False,
    num_events: int = 1000,
    metrics: Mapping[str, float] | None = None,
    roc: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    author: str = "",
    description: str = "",
    tags: Sequence[str] = (),
) -> Manifest:
    """Export a network as a bundle: ``model.onnx``, ``manifest.json`` and, for CMSSW, ``preprocess.json``.

    The graph takes raw physics values and does scaling, padding and activation inside. It is compared with the network
    on real events and at the edges (no objects, too many, NaN) before anything is written.

    Parameters
    ----------
    network : any torch module, ours or not, that was trained on the batches of ``data``
    data : a :class:`rootdata.datamodule.RootDataModule`
    folder : of the bundle; replaced if it is one already
    activation : what turns outputs into scores: ``sigmoid``, ``softmax``, ``none``, or ``auto``: sigmoid for one
        column, softmax for one of every class
    columns : names of the outputs; by default the classes, or the class with label 1 alone
    call : how to call the network, ``lambda network, batch: network(batch["x"])``; by default found out by its
        arguments
    reveal_empty : show one padded object of an event that has none, for networks that would divide by zero
    num_events : real events to compare
    metrics, roc, training, author, description, tags : for the manifest

    Raises
    ------
    BundleError
        For a network that can't be exported, gives NaN, or of which the graph gives other scores.
    """
    real = probe.real_events(data.data, data.specs, num_events)
    layout = layout_of(data.data, data.specs)
    edges = probe.edge_events(real, data.data, longest=max((c.length for c in layout.collections), default=0))
    compared = concatenate([real, edges])
    with _evaluating(network):
        batch = _as_tensors(probe.training_batch(data.data, data.specs, compared), network)
        call = call or call_of(network, list(batch))
        outputs = call(network, batch)
        chosen = activation_of(activation, outputs, len(data.classes))
        names = contract.score_columns(columns, 1 if outputs.ndim == 1 else outputs.shape[1], data.classes)
        draft = contract.draft(data.data, data.specs, real, columns=names)
        deployed = Deployed(
            network,
            call,
            layout=layout,
            specs=draft.inputs,
            transforms=transforms_of(data.data, data.specs),
            missing=data.data.missing,
            activation=chosen,
            reveal_empty=reveal_empty,
        ).to(_device_of(network))
        expected = deployed.scores(batch).detach().cpu().numpy()
        _check_finite(expected, edges.num_events)
        graph = _convert(deployed, draft, Assembler(draft)(edges))
    difference = _compare(expected, run(graph, Assembler(draft)(compared)))
    manifest = dataclasses.replace(
        draft,
        metrics=dict(metrics or {}),
        roc=dict(roc or {}),
        training=dict(training or {}),
        software=_software(),
        parity=_parity(graph, draft, _sample(real, edges), num_events=real.num_events, difference=difference),
        tags=tuple(tags),
        author=author,
        description=description,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return _write(graph, manifest, Path(folder))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off, and back to what they were."""
    was = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in was:
            module.training = is_training


def _device_of(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _as_tensors(arrays: Mapping[str, npt.NDArray[Any]], network: nn.Module) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values).to(_device_of(network)) for name, values in arrays.items()}


def _check_finite(scores: Scores, num_edges: int) -> None:
    """Refuse a network that gives NaN; the edge events come last, those without objects first among them."""
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if not len(bad):
        return
    if bad[0] < len(scores) - num_edges:
        raise BundleError(f"the network gives NaN or infinity for {len(bad)} of {len(scores)} events; train it again")
    raise BundleError(
        "the network gives NaN or infinity at the edges of what can be sent (events without objects, or without "
        "values); guard its means and attention against an empty mask, or export with reveal_empty=True, which shows "
        "one padded object of such events"
    )


def _convert(deployed: Deployed, draft: Manifest, example: Tensors) -> bytes:
    """Make the graph, without what it need not tell: file paths, names of the author's code."""
    import onnx

    axes = {a: torch.export.Dim(str(a)) for t in draft.inputs for a in t.shape if isinstance(a, str)}
    shapes = tuple({i: axes[a] for i, a in enumerate(t.shape) if isinstance(a, str)} for t in draft.inputs)
    tensors = tuple(torch.from_numpy(example[t.name]).to(_device_of(deployed)) for t in draft.inputs)
    try:
        with _quiet():
            program = torch.onnx.export(
                deployed,
                tensors,
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[t.name for t in draft.inputs],
                output_names=[o.name for o in draft.outputs],
                dynamic_shapes=(shapes,),
                verbose=False,
            )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BundleError(f"the network can't be written as an ONNX graph: {reason[0]}") from error
    if program is None:
        raise BundleError("the network can't be written as an ONNX graph")
    graph = program.model_proto
    _strip(graph)
    described = {k: v for k, v in draft.to_dict().items() if v}
    graph.metadata_props.add(key=METADATA, value=json.dumps(described, separators=(",", ":")))
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush the exporter, which prints its progress and warns of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
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
    """Run a graph by onnxruntime, on one thread."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    scores: Scores = session.run(None, tensors)[0]
    return scores


def _compare(expected: Scores, found: Scores) -> float:
    """Return the largest difference.

    Raises
    ------
    BundleError
        If it is more than rounding.
    """
    differences = np.abs(expected - found).max(axis=1)
    if not float(differences.max()) <= TOLERANCE:
        event = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
        raise BundleError(
            f"the graph gives {found[event].tolist()} where the network gives {expected[event].tolist()} (event "
            f"{event} of {len(expected)} that were compared); does the network depend on the batch, or on chance?"
        )
    return float(differences.max())


def _sample(real: Table, edges: Table) -> Table:
    """Pick some real events, spread over all of them, and one of each kind of edge."""
    rows = np.unique(np.linspace(0, real.num_events - 1, SAMPLE).astype(np.int64))
    step = max(1, min(8, real.num_events))
    return concatenate([probe.take(real, rows), probe.take(edges, np.arange(0, edges.num_events, step))])


def _parity(graph: bytes, draft: Manifest, sample: Table, *, num_events: int, difference: float) -> Parity:
    scores = run(graph, Assembler(draft)(sample))
    return Parity(
        num_events=num_events,
        max_difference=difference,
        columns=lists_of(sample),
        scores=tuple(tuple(float(s) for s in row) for row in scores),
    )


def _software() -> dict[str, str]:
    names = ("rootdata", "torch", "pytorch-lightning", "onnx", "onnxscript", "onnxruntime", "numpy")
    found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: found[name] for name in names if name in found}


def _write(graph: bytes, manifest: Manifest, folder: Path) -> Manifest:
    """Write the bundle beside its place and move it there at once."""
    if folder.exists() and any(folder.iterdir()) and not (folder / bundle.MANIFEST).exists():
        raise BundleError(f"{folder} is there and no bundle; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        (made / bundle.MODEL).write_bytes(graph)
        manifest = dataclasses.replace(manifest, sha256=bundle.sha256_of(made / bundle.MODEL), size=len(graph))
        (made / PREPROCESS).write_text(json.dumps(weaver.preprocessing(manifest), indent=1) + "\n", encoding="utf-8")
        bundle.save(manifest, made)
        made.chmod(0o755)
        _exchange(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return manifest


def _exchange(made: Path, folder: Path) -> None:
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    try:
        if folder.exists():
            folder.rename(old / "bundle")
        made.rename(folder)
    finally:
        shutil.rmtree(old, ignore_errors=True)
