"""From a trained network to a bundle: the graph with its preprocessing inside, compared with torch on real events."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import io
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, SupportsFloat, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootdata import disk
from rootdata.bundle import cmssw, joined, parity, portable, signature
from rootdata.bundle.assemble import Assembler, Tensors, lists_of, table_of
from rootdata.bundle.deployed import (
    Call,
    Deployed,
    Finish,
    activation_of,
    call_of,
    computing,
    in_type,
    refuse,
    unwrapped,
)
from rootdata.bundle.folds import DeployedFolds, FoldChoice, chosen
from rootdata.bundle.joined import Joined
from rootdata.bundle.manifest import (
    EVENTS,
    MANIFEST,
    MODEL,
    PREPROCESS,
    SCORES,
    FoldRule,
    Manifest,
    Parity,
    TensorSpec,
    save_manifest,
    sha256_of,
)
from rootdata.causes import OUTSIDE, cause_of
from rootdata.errors import BundleError, FileError
from rootdata.events.selection import feature_branches
from rootdata.jagged import Ints
from rootdata.layouts.layout import Layout
from rootdata.options.data import DataConfig
from rootdata.options.parsed import described
from rootdata.scan.scanned import layout_of, transforms_of
from rootdata.table import Table, concatenate, take

Scores = npt.NDArray[np.float32]

OPSET = 20  # 23 and later have an Attention operator that onnxruntime 1.32 refuses for some masks
TOLERANCE = 1e-5  # between scores; more is a fault, not rounding
REHEARSED = 50  # real events that a network is tried on before it is trained
SAMPLE = 8  # real events that travel with the manifest
EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")  # loggers of what writes the graph
METADATA = "rootdata.manifest"  # key in the graph's own metadata


def export(
    network: nn.Module | Joined | Sequence[nn.Module | Joined],
    data: Any,
    folder: str | Path,
    *,
    activation: str = "auto",
    columns: Sequence[str] | None = None,
    call: Call | None = None,
    reveal_empty: bool = False,
    float32: bool = False,
    average: bool = False,
    num_events: int = 1000,
    metrics: Mapping[str, SupportsFloat] | None = None,
    roc: Mapping[str, Any] | None = None,
    scores: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    author: str = "",
    description: str = "",
    tags: Sequence[str] = (),
) -> Manifest:
    """Export a network as a bundle: ``model.onnx``, ``manifest.json`` and, for CMSSW, ``preprocess.json``.

    The graph takes raw physics values and does scaling, padding and activation inside. It is compared with the network
    on real events and at the edges (no objects, too many, NaN) before anything is written.

    What torch puts around a network is left out: ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``,
    ``AveragedModel``. A network in half precision is exported, and compared, in float32, with the same weights.

    Parameters
    ----------
    network : any torch module, ours or not, that was trained on the batches of ``data``; or a
        :class:`rootdata.bundle.joined.Joined`, a model of any other library that has an ONNX graph of its own; or a
        list of either, one for each fold: the graph holds them all, and scores an event by the one that did not see it
    data : a :class:`rootdata.loading.datamodule.RootDataModule`; or a list of them, one for each fold
    folder : of the bundle; replaced if it is one already
    activation : what turns outputs into scores: ``sigmoid``, ``softmax``, ``none``, or ``auto``: sigmoid for one
        column, softmax for one of every class
    columns : names of the outputs; by default the classes, or the class with label 1 alone
    call : how to call the network, ``lambda network, batch: network(batch["x"])``; by default found out by its
        arguments
    reveal_empty : show one padded object of an event that has none, for networks that would divide by zero
    float32 : let every input be float32, as CMSSW and SOFIE want it, integers too; refused where it would lose digits
        that count
    average : of the networks of folds give the mean for every event, whatever its fold
    num_events : real events to compare
    metrics, roc, scores, training, author, description, tags : for the manifest

    Raises
    ------
    BundleError
        For a network that can't be exported, gives NaN, or of which the graph gives other scores.
    FileError
        Where the bundle can't be written.
    """
    _check_place(Path(folder))
    networks, modules = _of_folds(network, data) if isinstance(network, Sequence) else ([network], [data])
    graph, draft, parity = _made(
        networks, modules, activation=activation, columns=columns, call=call, reveal_empty=reveal_empty,
        float32=float32, average=average, num_events=num_events,
    )  # fmt: skip
    manifest = dataclasses.replace(
        draft,
        metrics={name: float(v) for name, v in (metrics or {}).items() if math.isfinite(float(v))},
        roc={name: _lists(curve) for name, curve in (roc or {}).items()},
        scores={name: _lists(samples) for name, samples in (scores or {}).items()},
        training={**_weighing(modules[0].data), **(training or {})},
        software=_software(_beside(networks[0])),
        parity=parity,
        tags=tuple(tags),
        author=author,
        description=description,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return _write(graph, manifest, Path(folder))


def _weighing(config: DataConfig) -> dict[str, Any]:
    """Describe how training events were weighted, as a configuration of training does; nothing where they were not."""
    told = described(config, "specs")
    names = ("luminosity", "sum_of_weights", "balance", "reweight", "weights")
    found = {name: told[name] for name in names if name in told}
    own = {s["name"]: {n: s[n] for n in ("cross_section", *names) if n in s} for s in told["samples"]}
    found |= {"samples": {name: of_sample for name, of_sample in own.items() if of_sample}} if any(own.values()) else {}
    return {"data": found} if found else {}


def rehearse(network: nn.Module, data: Any) -> None:
    """Try the export of a network before it is trained; nothing is written, random numbers are left as they were.

    Raises
    ------
    BundleError
        If it could not be exported after the training either.
    """
    with torch.random.fork_rng():
        rehearsed: Any = getattr(network, "rehearsed_model", lambda: network)
        _made([rehearsed()], [data], num_events=REHEARSED)


def _of_folds(
    networks: Sequence[nn.Module | Joined], modules: Sequence[Any]
) -> tuple[list[nn.Module | Joined], list[Any]]:
    """Put networks and data of all folds into their order.

    Raises
    ------
    BundleError
        Where one is missing, or they have other folds.
    """
    pairs = sorted(zip(networks, modules, strict=True), key=lambda pair: pair[1].data.fold or 0)
    kinds, numbers = {data.data.folds for _, data in pairs}, [data.data.fold for _, data in pairs]
    count = next((folds.count for folds in kinds if folds is not None), 0)
    if len(kinds) != 1 or numbers != list(range(count)):
        raise BundleError(f"folds: got networks of folds {numbers}; give one of each, of the same `folds`")
    return [network for network, _ in pairs], [data for _, data in pairs]


def _made(
    networks: Sequence[nn.Module | Joined],
    modules: Sequence[Any],
    *,
    activation: str = "auto",
    columns: Sequence[str] | None = None,
    call: Call | None = None,
    reveal_empty: bool = False,
    float32: bool = False,
    average: bool = False,
    num_events: int,
) -> tuple[bytes, Manifest, Parity]:
    """Make the graph, and what is known of it."""
    first = modules[0]
    lists = next(iter(layout_of(first.data, first.specs).by_object), None)
    if reveal_empty and lists is not None:
        raise BundleError(f"reveal_empty: {lists!r} is jagged, without a padded object to show; export without it")
    folds = signature.fold_rule(first.data, average=average) if len(networks) > 1 else None
    served = signature.with_fold(first.data, folds)
    real = _real_events(modules, served, num_events)
    edges = parity.edge_events(real, served, longest=_longest(first))
    models = [_known_as(network) for network in networks]
    own = [model for model in models if isinstance(model, Joined)]
    if own and len(own) < len(models):
        raise BundleError("folds: got networks, and models with graphs of their own; give the same kind for all folds")
    if own:
        return _made_of(own, modules, real, edges, columns=columns, float32=float32, folds=folds)
    trained = [unwrapped(cast("nn.Module", network)) for network in networks]
    for network in trained:
        refuse(network)
    return _made_of_networks(
        trained, modules, real, edges, activation=activation, columns=columns, call=call, reveal_empty=reveal_empty,
        float32=float32, folds=folds,
    )  # fmt: skip


def _made_of_networks(
    networks: Sequence[nn.Module],
    modules: Sequence[Any],
    real: Table,
    edges: Table,
    *,
    activation: str,
    columns: Sequence[str] | None,
    call: Call | None,
    reveal_empty: bool,
    float32: bool,
    folds: FoldRule | None,
) -> tuple[bytes, Manifest, Parity]:
    """Make the graph of networks, of which torch writes it, and what is known of it."""
    first, compared = modules[0], concatenate([real, edges])
    with ExitStack() as held:
        dtypes = [held.enter_context(computing(network)) for network in networks]
        tried = [
            _tried(network, data, compared, dtype, activation=activation, columns=columns, call=call)
            for network, data, dtype in zip(networks, modules, dtypes, strict=True)
        ]
        drafts = [
            signature.draft(
                one.data.data, one.data.specs, real, columns=one.columns, targets=one.targets,
                is_fixed=not all(other.is_elastic for other in tried), float32=float32,
                cut_columns=parity.cut_columns(first.data, first.specs), folds=folds,
            )
            for one in tried
        ]  # fmt: skip
        members = [
            _deployed(
                one.network, one.call, one.data, draft, activation=one.activation, dtype=one.dtype,
                reveal_empty=reveal_empty, finish=one.finish,
            )
            for one, draft in zip(tried, drafts, strict=True)
        ]  # fmt: skip
        draft = drafts[0] if folds is None else signature.of_folds(drafts)
        given = [member.scores(one.batch) for member, one in zip(members, tried, strict=True)]
        each = [scores.detach().cpu().numpy() for scores in given]
        for scores in each:
            _check_finite(scores, edges.num_events)
        whole, expected = (members[0], each[0]) if folds is None else _joined(members, each, draft, compared)
        graph = _convert(whole, draft, Assembler(draft)(edges))
    spreads = [abs(1.0 / first.targets[n].factor) if n in first.targets else 1.0 for n in tried[0].targets]
    found = _parity(graph, draft, compared, expected, num_real=real.num_events, spreads=spreads)
    return graph, draft, _with_folds(found, graph, draft, compared, each, spreads)


def _known_as(network: nn.Module | Joined) -> nn.Module | Joined:
    """Return the model that stands for a network in a graph: itself, unless it says otherwise."""
    known_as: Any = getattr(network, "joined_model", lambda: network)
    return cast("nn.Module | Joined", known_as())


def _real_events(modules: Sequence[Any], served: DataConfig, num_events: int) -> Table:
    """Read some events of the test part of each module."""
    names, share = feature_branches(served), -(-num_events // len(modules))
    return concatenate([parity.real_events(data.data, data.specs, share, names) for data in modules])


def _joined(
    members: Sequence[Deployed], each: Sequence[Scores], draft: Manifest, compared: Table
) -> tuple[DeployedFolds, Scores]:
    """Put the networks of all folds into one module; give it with what it has to say of the compared events.

    Parameters
    ----------
    members : the networks
    each : what every one of them says of the events
    draft : says how a network is chosen
    compared : the events
    """
    fold = _fold_of(draft, compared)
    expected = chosen(torch.from_numpy(np.stack(each)), fold)
    return DeployedFolds(members, chooses=fold is not None), expected.numpy()


def _fold_of(draft: Manifest, events: Table) -> Tensor | None:
    """Compute the number of each event's fold as a server does, (events, 1); None where the graph does not take it."""
    feature = draft.folds.feature if draft.folds is not None else ""
    return torch.from_numpy(Assembler(draft)(events)[feature]) if feature else None


def _shared(draft: Manifest) -> list[TensorSpec]:
    """List the inputs that the network of each fold takes: all but the number of the fold."""
    return [spec for spec in draft.inputs if draft.folds is None or spec.name != draft.folds.feature]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """A network that was tried on events, and what was found out about it.

    Parameters
    ----------
    batch : the events as training makes them
    call : how it takes them
    dtype : of the numbers that it takes
    activation, finish : what makes scores of its outputs
    columns, targets : names of what it gives
    is_elastic : whether its outputs stay the same when places without an object are cut off
    """

    network: nn.Module
    data: Any
    batch: dict[str, Tensor]
    call: Call
    dtype: torch.dtype
    activation: str
    finish: Finish | None
    columns: tuple[str, ...]
    targets: tuple[str, ...]
    is_elastic: bool


def _tried(
    network: nn.Module,
    data: Any,
    compared: Table,
    dtype: torch.dtype,
    *,
    activation: str,
    columns: Sequence[str] | None,
    call: Call | None,
) -> _Tried:
    """Try a network on events.

    Parameters
    ----------
    network, data : as :func:`export` takes them
    compared : the events
    dtype : of the numbers that it takes
    activation, columns, call : as :func:`export` takes them
    """
    batch = in_type(_as_tensors(parity.training_batch(data.data, data.specs, compared), network), dtype)
    call = call or call_of(network, list(batch))
    outputs = _called(network, call, batch, num_events=compared.num_events)
    finish, targets = _predicting(network, data)
    return _Tried(
        network=network,
        data=data,
        batch=batch,
        call=call,
        dtype=dtype,
        activation="none" if finish else activation_of(activation, outputs, len(data.classes)),
        finish=finish,
        columns=_columns(columns, outputs if finish is None else finish(outputs).get(SCORES), data.classes),
        targets=targets,
        is_elastic=_is_elastic(network, call, batch, layout_of(data.data, data.specs)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A model that has a graph of its own, and what it says of events.

    Parameters
    ----------
    model, data : as :func:`export` takes them
    graph : its own
    kept : the output of it that is kept
    takes : input of the graph to tensor of a batch
    expected : scores of the events, or values of targets, that the model gives itself
    columns : names of the scores
    """

    model: Joined
    data: Any
    graph: Any
    kept: str
    takes: dict[str, str]
    expected: Scores
    columns: tuple[str, ...]


def _asked(model: Joined, data: Any, compared: Table, *, columns: Sequence[str] | None) -> _Asked:
    """Ask a model that has a graph of its own about events."""
    own = joined.loaded(model)
    kept = joined.output_of(own, model.gives)
    batch = parity.training_batch(data.data, data.specs, compared)
    takes = joined.wiring(model, own, list(batch))
    expected = joined.expected(model, batch, classes=len(data.classes), num_events=compared.num_events)
    names = () if model.targets else signature.score_columns(columns, expected.shape[1], data.classes)
    return _Asked(model=model, data=data, graph=own, kept=kept, takes=takes, expected=expected, columns=names)


def _made_of(
    models: Sequence[Joined],
    modules: Sequence[Any],
    real: Table,
    edges: Table,
    *,
    columns: Sequence[str] | None,
    float32: bool,
    folds: FoldRule | None,
) -> tuple[bytes, Manifest, Parity]:
    """Make the graph of a model that has one of its own, or of those of all folds, and what is known of it."""
    first, compared = modules[0], concatenate([real, edges])
    asked = [_asked(model, data, compared, columns=columns) for model, data in zip(models, modules, strict=True)]
    cut_columns = parity.cut_columns(first.data, first.specs)
    drafts = [
        signature.draft(
            one.data.data, one.data.specs, real, columns=one.columns, targets=tuple(one.model.targets), is_fixed=True,
            float32=float32, cut_columns=cut_columns, folds=folds,
        )
        for one in asked
    ]  # fmt: skip
    draft = drafts[0] if folds is None else signature.of_folds(drafts)
    for one in asked:
        _check_finite(one.expected, edges.num_events)
    opset = max(OPSET, *(joined.opset_of(one.graph) for one in asked))
    parts = [_fronted(one, of_one, edges, opset=opset) for one, of_one in zip(asked, drafts, strict=True)]
    each = [one.expected for one in asked]
    made, expected = (parts[0], each[0]) if folds is None else _chosen(parts, each, draft, compared, opset=opset)
    graph = _finished(made, draft)
    spreads = [abs(1.0 / first.targets[name].factor) for name in asked[0].model.targets]
    found = _parity(graph, draft, compared, expected, num_real=real.num_events, spreads=spreads)
    return graph, draft, _with_folds(found, graph, draft, compared, each, spreads)


def _fronted(one: _Asked, draft: Manifest, edges: Table, *, opset: int) -> Any:
    """Put our preprocessing in front of the graph of a model.

    Parameters
    ----------
    one : the model
    draft : of it alone
    edges : events that the preprocessing is tried on
    opset : version of the operators
    """
    front = _deployed(
        nn.Identity(), _nothing, one.data, draft, activation="none", dtype=torch.float32, reveal_empty=False,
        finish=None,
    )  # fmt: skip
    wanted = list(zip(one.takes.values(), joined.types_of(one.graph, list(one.takes)), strict=True))
    links = [(f"front_{name}", name) for name in one.takes]
    made = _program(
        joined.Preprocessing(front, wanted),
        _shared(draft),
        Assembler(draft)(edges),
        outputs=[name for name, _ in links],
        opset=opset,
    )
    return joined.behind(made, one.graph, links=links, kept=one.kept, output=draft.outputs[0])


def _chosen(
    parts: Sequence[Any], each: Sequence[Scores], draft: Manifest, compared: Table, *, opset: int
) -> tuple[Any, Scores]:
    """Put the graphs of all folds into one, in which each event gets that of its fold; give it with what is expected.

    Parameters
    ----------
    parts : the graphs
    each : what the model of each fold says of the compared events
    draft : of all together
    compared : the events
    opset : version of the operators
    """
    fold, (output,) = _fold_of(draft, compared), draft.outputs
    shape = (EVENTS, len(output.columns))
    given = [TensorSpec(name=f"scores_{number}", dtype=output.dtype, shape=shape) for number in range(len(parts))]
    inputs = [*given, *(spec for spec in draft.inputs if spec not in _shared(draft))]
    values = [*map(torch.from_numpy, each), *([] if fold is None else [fold])]
    example = {spec.name: value.numpy() for spec, value in zip(inputs, values, strict=True)}
    choice = FoldChoice(chooses=fold is not None)
    graph = _program(choice, inputs, example, outputs=[output.name], opset=opset)
    return joined.together(parts, graph, inputs=draft.inputs, output=output), choice(*values).numpy()


def _with_folds(
    found: Parity, graph: bytes, draft: Manifest, compared: Table, each: Sequence[Scores], spreads: Sequence[float]
) -> Parity:
    """Compare the graph with the model of each fold on all events, as if they were of this fold.

    The compared events alone would not do: those at the edges are mostly of one fold.

    Parameters
    ----------
    found : of the comparison of each event by its own fold
    graph : of all folds
    draft : says how a model is chosen
    compared : the events
    each : what every model says of them
    spreads : of the targets
    """
    feature = draft.folds.feature if draft.folds is not None else ""
    if not feature:
        return found
    tensors = {name: np.concatenate([values] * len(each)) for name, values in Assembler(draft)(compared).items()}
    numbers = np.repeat(np.arange(len(each)), compared.num_events).reshape(-1, 1)
    tensors[feature] = numbers.astype(tensors[feature].dtype)
    apart = _compare(np.concatenate(each), run(graph, tensors), spreads)
    return dataclasses.replace(found, max_difference=max(found.max_difference, apart))


def _nothing(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    raise NotImplementedError


def _predicting(network: nn.Module, data: Any) -> tuple[Finish | None, tuple[str, ...]]:
    """Find out whether a network predicts numbers, targets of the data or others, and how its outputs become them.

    Such a network names its ``targets``; its method ``bind`` takes the data, and ``deployed`` its outputs.
    """
    targets = tuple(getattr(network, "targets", ()))
    if not targets or not hasattr(network, "deployed"):
        return None, ()
    bind: Any = network.bind
    bind(data)
    return cast("Finish", network.deployed), targets


def _columns(asked: Sequence[str] | None, outputs: Tensor | None, classes: Sequence[str]) -> tuple[str, ...]:
    """Name the columns of the scores; none of a network that predicts no classes."""
    if outputs is None:
        return ()
    return signature.score_columns(asked, 1 if outputs.ndim == 1 else outputs.shape[1], classes)


def _longest(data: Any) -> int:
    """Return how many objects the largest collection keeps."""
    return max((c.length for c in layout_of(data.data, data.specs).collections), default=0)


def _deployed(
    network: nn.Module,
    call: Call,
    data: Any,
    draft: Manifest,
    *,
    activation: str,
    dtype: torch.dtype,
    reveal_empty: bool,
    finish: Finish | None,
) -> Deployed:
    return Deployed(
        network,
        call,
        layout=layout_of(data.data, data.specs),
        specs=_shared(draft),
        transforms=transforms_of(data.data, data.specs),
        missing=data.data.missing,
        derived=data.data.derived,
        wide={name for name, scaled in (draft.scaling or {}).items() if scaled.dtype == "float64"},
        activation=activation,
        dtype=dtype,
        reveal_empty=reveal_empty,
        finish=finish,
    ).to(_device_of(network))


def _parity(
    graph: bytes, draft: Manifest, compared: Table, expected: Scores, *, num_real: int, spreads: Sequence[float] = ()
) -> Parity:
    """Compare the graph with torch: on all events at once, and one by one on the sample that the manifest holds."""
    rows = _sample(num_real, compared.num_events - num_real)
    # in JSON an infinity becomes NaN, and a derived column may tell them apart
    rows = rows[~parity.has_infinity(take(compared, rows))]
    columns = lists_of(take(compared, rows))
    difference = max(
        _compare(expected, run(graph, Assembler(draft)(compared)), spreads),
        _compare(expected[rows], _one_by_one(graph, draft, table_of(draft, columns)), spreads),
    )
    scores = tuple(map(tuple, expected[rows].tolist()))
    return Parity(num_events=num_real, max_difference=difference, columns=columns, scores=scores)


def _device_of(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _as_tensors(arrays: Mapping[str, npt.NDArray[Any]], network: nn.Module) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values).to(_device_of(network)) for name, values in arrays.items()}


def _called(network: nn.Module, call: Call, batch: dict[str, Tensor], *, num_events: int) -> Tensor:
    """Call a network, and say what it was called with where it fails."""
    shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in batch.items())
    try:
        outputs: Any = call(network, batch)
    except Exception as error:
        if cause_of(error) in OUTSIDE:
            raise
        raise BundleError(
            f"{type(network).__name__} can't be called with the batches of this data ({shapes}): {_first_line(error)}; "
            "was it made for other data, or does it need `call`?"
        ) from error
    if not isinstance(outputs, Tensor):
        raise BundleError(
            f"{type(network).__name__} returns {type(outputs).__name__}; expected one tensor: pick it with `call`"
        )
    if outputs.ndim and len(outputs) != num_events:
        raise BundleError(f"{type(network).__name__} returns shape {tuple(outputs.shape)} for {shapes}")
    return outputs


def _first_line(error: BaseException) -> str:
    """Say what was wrong in the first place: the exporter wraps it in its own words, and colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _is_elastic(network: nn.Module, call: Call, batch: dict[str, Tensor], layout: Layout) -> bool:
    """Say whether the outputs stay the same when places without an object are cut off."""
    full, narrow = dict(batch), dict(batch)
    for c in layout.collections if layout.form.masks_objects else ():
        if f"{c.name}_mask" not in batch or c.name in layout.by_object:  # the same for any number of places
            continue
        kept, mask = max(1, c.length // 2), f"{c.name}_mask"
        place = torch.arange(c.length, device=batch[mask].device) < kept
        full[mask] = batch[mask] & place
        fill = torch.from_numpy(layout.fill(c.branches)).to(batch[c.name])
        full[c.name] = torch.where(place.unsqueeze(1), batch[c.name], fill)
        narrow[c.name], narrow[mask] = batch[c.name][:, :kept], full[mask][:, :kept]
    try:
        return torch.allclose(call(network, full), call(network, narrow), rtol=1e-4, atol=TOLERANCE, equal_nan=True)
    except Exception:  # noqa: BLE001 - a network may fail in any way on a shape that it was not made for
        return False


def _check_finite(scores: Scores, num_edges: int) -> None:
    """Refuse a network that gives NaN; the edge events come last."""
    is_bad = np.logical_not(np.isfinite(scores).all(axis=1)).reshape(-1)
    if is_bad.all():
        raise BundleError("the network gives NaN or infinity for every event; its weights are spoilt: train it again")
    if is_bad.any():
        raise BundleError(
            f"the network gives NaN or infinity for {is_bad[:-num_edges].sum()} of {len(scores) - num_edges} real "
            f"events and {is_bad[-num_edges:].sum()} of {num_edges} at the edges of what can be sent (without objects, "
            "or without values); guard its means and attention against an empty mask, or export with "
            "reveal_empty=True, which shows one padded object of events that have none"
        )


def _convert(deployed: nn.Module, draft: Manifest, example: Tensors) -> bytes:
    """Make the graph, without what it need not tell: file paths, names of the author's code."""
    return _finished(_program(deployed, draft.inputs, example, outputs=[o.name for o in draft.outputs]), draft)


def _program(
    module: nn.Module, inputs: Sequence[TensorSpec], example: Tensors, *, outputs: Sequence[str], opset: int = OPSET
) -> Any:
    """Write a module that takes these inputs as a graph."""
    axes = {a: torch.export.Dim(str(a)) for t in inputs for a in t.shape if isinstance(a, str)}
    shapes = tuple({i: axes[a] for i, a in enumerate(t.shape) if isinstance(a, str)} for t in inputs)
    tensors = tuple(torch.from_numpy(example[t.name]).to(_device_of(module)) for t in inputs)
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
        raise BundleError(f"the network can't be written as an ONNX graph: {_first_line(error)}") from error
    if program is None:
        raise BundleError("the network can't be written as an ONNX graph")
    return program.model_proto


def _finished(graph: Any, draft: Manifest) -> bytes:
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
        raise BundleError(f"onnxruntime does not take the graph: {_first_line(error)}") from error

    def answer(tensors: Tensors) -> Scores:
        try:
            outputs = session.run(None, tensors)
        except Exception as error:
            if cause_of(error) in OUTSIDE:
                raise
            shapes = ", ".join(f"{name} {values.shape}" for name, values in tensors.items())
            raise BundleError(f"the graph does not run with {shapes}: {_first_line(error)}") from error
        scores: Scores = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)
        return scores

    return answer


def _one_by_one(graph: bytes, draft: Manifest, table: Table) -> Scores:
    """Run a graph on every event alone, with no more places for objects than it needs."""
    assemble, answer = Assembler(draft), opened(graph)
    events = (take(table, np.array([i])) for i in range(table.num_events))
    return np.concatenate([answer(assemble(event)) for event in events])


def _compare(expected: Scores, found: Scores, spreads: Sequence[float] = ()) -> float:
    """Return the largest difference.

    Parameters
    ----------
    expected, found : (events, columns)
    spreads : of the targets in the last columns, which are compared in units of it, or of their value

    Raises
    ------
    BundleError
        If it is more than rounding.
    """
    unit = np.ones(expected.shape)
    if spreads:
        unit[:, -len(spreads) :] = np.maximum(np.abs(expected[:, -len(spreads) :]), spreads)
    sizes = np.abs(expected / unit).max(axis=1)
    differences = (np.abs(expected - found) / unit).max(axis=1)
    excess = differences / np.maximum(1.0, sizes)
    if not float(excess.max()) <= TOLERANCE:
        event = int(np.argmax(np.nan_to_num(excess, nan=np.inf)))
        raise BundleError(
            f"the graph gives {found[event].tolist()} where the network gives {expected[event].tolist()} (event "
            f"{event} of {len(expected)} that were compared); does the network depend on the batch, or on chance?"
        )
    return float(differences.max())


def _sample(num_real: int, num_edges: int) -> Ints:
    """Pick some real events, spread over all of them, and one of each kind of edge, which come behind them."""
    rows = np.unique(np.linspace(0, num_real - 1, SAMPLE).astype(np.int64))
    return np.concatenate([rows, np.arange(num_real, num_real + num_edges, parity.bent_events(num_real))])


def _lists(lists: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(float(v) for v in values) for name, values in lists.items()}


def _beside(network: nn.Module | Joined) -> Sequence[str]:
    """Name the distributions that a model is of, where it is no network."""
    return network.software if isinstance(network, Joined) else getattr(network, "software", ())


def _software(more: Sequence[str] = ()) -> dict[str, str]:
    found = {}
    for name in ("rootdata", "torch", "pytorch-lightning", "onnx", "onnxscript", "onnxruntime", "numpy", *more):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _check_place(folder: Path) -> None:
    """Refuse a place that is not for a bundle, before any work is done."""
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / MANIFEST).exists()):
        return
    if folder.exists():
        raise BundleError(f"{folder} is there and no bundle; choose another folder")


def _write(graph: bytes, manifest: Manifest, folder: Path) -> Manifest:
    """Write the bundle beside its place and move it there at once.

    Raises
    ------
    FileError
        Where it can't be written; what was there stays.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _written(graph, manifest, folder)
    except OSError as error:
        raise FileError(f"the bundle {folder} can't be written ({error}); choose another place") from error


def _written(graph: bytes, manifest: Manifest, folder: Path) -> Manifest:
    with disk.making(folder) as made:
        (made / MODEL).write_bytes(graph)
        manifest = dataclasses.replace(manifest, sha256=sha256_of(made / MODEL), size=len(graph))
        (made / PREPROCESS).write_text(json.dumps(cmssw.preprocessing(manifest), indent=1) + "\n", encoding="utf-8")
        save_manifest(manifest, made)
        disk.exchange(made, folder)
    return manifest
