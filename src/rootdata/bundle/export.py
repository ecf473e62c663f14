"""From a trained network to a bundle: the graph with its preprocessing inside, compared with torch on real events."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, SupportsFloat, cast

import numpy as np
import torch
from torch import Tensor, nn

from rootdata.bundle import parity, signature
from rootdata.bundle.assemble import Assembler, Tensors
from rootdata.bundle.comparison import parity_of, plain_lists, with_folds
from rootdata.bundle.folder import check_place, software, write
from rootdata.bundle.graph import joined
from rootdata.bundle.graph.conversion import OPSET, Scores, device_of, finished, program_of
from rootdata.bundle.graph.deployed import Call, Deployed, Finish, computing, refuse, unwrapped
from rootdata.bundle.graph.folds import DeployedFolds, FoldChoice, chosen
from rootdata.bundle.graph.joined import Joined
from rootdata.bundle.manifest import EVENTS, FoldRule, Manifest, Parity, TensorSpec
from rootdata.bundle.trial import check_finite, longest_lists, try_network
from rootdata.errors import BundleError
from rootdata.events.needs import feature_branches
from rootdata.options.data import DataConfig
from rootdata.options.parsed import described
from rootdata.scan.scanned import layout_of, transforms_of
from rootdata.table import Table, concatenate

REHEARSED = 50  # real events that a network is tried on before it is trained


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
        :class:`rootdata.bundle.graph.joined.Joined`, a model of any other library that has an ONNX graph of its own; or
        a list of either, one for each fold: the graph holds them all, and scores an event by the one that did not see
        it
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
    check_place(Path(folder))
    networks, modules = _of_folds(network, data) if isinstance(network, Sequence) else ([network], [data])
    graph, draft, parity = _made(
        networks, modules, activation=activation, columns=columns, call=call, reveal_empty=reveal_empty,
        float32=float32, average=average, num_events=num_events,
    )  # fmt: skip
    manifest = dataclasses.replace(
        draft,
        metrics={name: float(v) for name, v in (metrics or {}).items() if math.isfinite(float(v))},
        roc={name: plain_lists(curve) for name, curve in (roc or {}).items()},
        scores={name: plain_lists(samples) for name, samples in (scores or {}).items()},
        training={**_weighing(modules[0].data), **(training or {})},
        software=software(_beside(networks[0])),
        parity=parity,
        tags=tuple(tags),
        author=author,
        description=description,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    return write(graph, manifest, Path(folder))


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
    edges = parity.edge_events(real, served, longest=longest_lists(first))
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
            try_network(network, data, compared, dtype, activation=activation, columns=columns, call=call)
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
            check_finite(scores, edges.num_events)
        whole, expected = (members[0], each[0]) if folds is None else _joined(members, each, draft, compared)
        graph = _convert(whole, draft, Assembler(draft)(edges))
    spreads = [abs(1.0 / first.targets[n].factor) if n in first.targets else 1.0 for n in tried[0].targets]
    found = parity_of(graph, draft, compared, expected, num_real=real.num_events, spreads=spreads)
    return graph, draft, with_folds(found, graph, draft, compared, each, spreads)


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
        check_finite(one.expected, edges.num_events)
    opset = max(OPSET, *(joined.opset_of(one.graph) for one in asked))
    parts = [_fronted(one, of_one, edges, opset=opset) for one, of_one in zip(asked, drafts, strict=True)]
    each = [one.expected for one in asked]
    made, expected = (parts[0], each[0]) if folds is None else _chosen(parts, each, draft, compared, opset=opset)
    graph = finished(made, draft)
    spreads = [abs(1.0 / first.targets[name].factor) for name in asked[0].model.targets]
    found = parity_of(graph, draft, compared, expected, num_real=real.num_events, spreads=spreads)
    return graph, draft, with_folds(found, graph, draft, compared, each, spreads)


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
    made = program_of(
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
    graph = program_of(choice, inputs, example, outputs=[output.name], opset=opset)
    return joined.together(parts, graph, inputs=draft.inputs, output=output), choice(*values).numpy()


def _nothing(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    raise NotImplementedError


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
    ).to(device_of(network))


def _convert(deployed: nn.Module, draft: Manifest, example: Tensors) -> bytes:
    """Make the graph, without what it need not tell: file paths, names of the author's code."""
    return finished(program_of(deployed, draft.inputs, example, outputs=[o.name for o in draft.outputs]), draft)


def _beside(network: nn.Module | Joined) -> Sequence[str]:
    """Name the distributions that a model is of, where it is no network."""
    return network.software if isinstance(network, Joined) else getattr(network, "software", ())
