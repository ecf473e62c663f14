"""A network with its preprocessing inside: raw physics values in, scores out, as one torch module."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rootdata.bundle.manifest import TensorSpec
from rootdata.errors import BundleError
from rootdata.layouts.grid import Column
from rootdata.layouts.layout import Layout
from rootdata.missing import Sentinels, as_type, sentinels_of
from rootdata.scaling.transform import Transform

Call = Callable[[nn.Module, dict[str, Tensor]], Tensor]
Finish = Callable[[Tensor], dict[str, Tensor]]
"""Turns what a network returns into the outputs of a graph, each (events, columns)."""

LIBRARIES = ("torch.", "lightning_fabric.", "lightning.fabric.")
WRAPPED = ("_orig_mod", "_original_module", "module")  # names of what their wrappers hold
HALF = (torch.float16, torch.bfloat16)
ACTIVATIONS = ("auto", "sigmoid", "softmax", "none")


class Scaler(nn.Module):
    """Scale the features of one input; float32 in float32, all others in float64, as training does.

    The twin of :meth:`rootdata.scaling.transform.Transform.apply` and :func:`rootdata.layouts.kernels.lay_out`.

    Parameters
    ----------
    spec : of the input
    transforms : of each feature
    missing : sentinels of the features that are branches, of all or by branch
    derived : names of features that are computed: in them a sentinel is a number like others
    wide : names of features that training scales in float64, though they may come as float32
    """

    shift: Tensor
    rest: Tensor
    factor: Tensor
    clip: Tensor
    sentinels: Tensor
    has_sentinel: Tensor

    def __init__(
        self,
        spec: TensorSpec,
        transforms: Sequence[Transform],
        missing: Sentinels,
        derived: Collection[str] = (),
        *,
        wide: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._dtype = torch.float32 if spec.dtype == "float32" else torch.float64
        own = [() if f in derived else sentinels_of(missing, f) for f in spec.features]
        held = [[_as_held(m, spec.dtype) for m in one if _can_hold(m, spec.dtype)] for one in own]
        curves = dict.fromkeys(t.curve for t in transforms)
        self._curves = {curve: [i for i, t in enumerate(transforms) if t.curve == curve] for curve in curves}
        ones = (1,) * (len(spec.shape) - 2)
        # what float32 can't say of a shift is taken off after it, where training has all of its digits
        rests = [
            t.shift - float(np.float32(t.shift)) if self._dtype == torch.float32 and f in wide else 0.0
            for f, t in zip(spec.features, transforms, strict=True)
        ]
        self._has_rest, self._clips = any(rests), any(t.clip is not None for t in transforms)
        for name, kind, values in (
            ("shift", self._dtype, [t.shift for t in transforms]),
            ("rest", self._dtype, rests),
            ("factor", self._dtype, [t.factor for t in transforms]),
            ("clip", torch.float32, [math.inf if t.clip is None else t.clip for t in transforms]),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=kind).reshape(len(transforms), *ones))
        are_alike = all(one == held[0] for one in held)
        self._missing = held[0] if are_alike and held else []
        rows = 0 if are_alike else max(map(len, held))
        self._is_whole, shape = spec.dtype == "int64", (rows, len(held), *ones)
        # An infinity is missing anyway; among whole numbers there is nothing that is.
        nothing = 0 if self._is_whole else math.inf
        padded = [[one[k] if k < len(one) else nothing for one in held] for k in range(rows)]
        kind = torch.int64 if self._is_whole else self._dtype
        self.register_buffer("sentinels", torch.tensor(padded, dtype=kind).reshape(shape))
        there = [[k < len(one) for one in held] for k in range(rows)]
        self.register_buffer("has_sentinel", torch.tensor(there, dtype=torch.bool).reshape(shape))

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled values, float32 and 0 where missing, and which are missing, both of the shape of ``raw``."""
        wide = self._bent(raw.to(self._dtype)) - self.shift
        if self._has_rest:
            wide = wide - self.rest
        scaled = (wide * self.factor).to(torch.float32)
        # What was not finite is not, and what is beyond float32 now is as missing: of whole numbers, too.
        missing = torch.isnan(scaled) | torch.isinf(scaled)
        for sentinel in self._missing:
            missing = missing | (raw == sentinel)
        for sentinels, there in zip(self.sentinels, self.has_sentinel, strict=True):
            hits = raw == sentinels
            missing = missing | (hits & there if self._is_whole else hits)
        if self._clips:
            scaled = torch.minimum(torch.maximum(scaled, -self.clip), self.clip)
        return torch.where(missing, torch.zeros_like(scaled), scaled), missing

    def _bent(self, values: Tensor) -> Tensor:
        """Apply each curve to its own features."""
        if len(self._curves) == 1:
            [curve] = self._curves
            return values if curve is None else curve.torch(values)
        taken = {curve: values.index_select(1, _on(values, columns)) for curve, columns in self._curves.items()}
        bent = [part if curve is None else curve.torch(part) for curve, part in taken.items()]
        order = [column for columns in self._curves.values() for column in columns]
        places = [order.index(column) for column in range(len(order))]
        return torch.cat(bent, dim=1).index_select(1, _on(values, places))


def _on(values: Tensor, places: Sequence[int]) -> Tensor:
    return torch.tensor(places, dtype=torch.int64, device=values.device)


def _can_hold(sentinel: float, dtype: str) -> bool:
    if dtype == "int64":
        return sentinel == int(sentinel) and -(2**63) <= int(sentinel) < 2**63
    return as_type(sentinel, np.dtype(dtype)) is not None


def _as_held(sentinel: float, dtype: str) -> float | int:
    return int(sentinel) if dtype == "int64" else float(np.dtype(dtype).type(sentinel))


class Deployed(nn.Module):
    """What is exported: scaling, padding, the network and its activation.

    Parameters
    ----------
    network : takes a batch of the layout
    call : how to call it
    layout : which tensors a batch has
    specs : of the inputs, in their order
    transforms : feature name to its scaling
    missing, derived : sentinels, and the features that are computed, in which they are numbers like others
    wide : features that training scales in float64, though they may come as float32
    activation : ``sigmoid``, ``softmax`` or ``none``, for what the network returns
    dtype : of the numbers that the network takes
    reveal_empty : show one padded object of an event that has none, for networks that would divide by zero
    finish : takes the place of the activation for a network that predicts more than classes
    """

    def __init__(
        self,
        network: nn.Module,
        call: Call,
        *,
        layout: Layout,
        specs: Sequence[TensorSpec],
        transforms: Mapping[str, Transform],
        missing: Sentinels,
        derived: Collection[str] = (),
        wide: Collection[str] = (),
        activation: str,
        dtype: torch.dtype = torch.float32,
        reveal_empty: bool = False,
        finish: Finish | None = None,
    ) -> None:
        super().__init__()
        self._dtype, self._finish = dtype, finish
        self.network, self._call, self._layout, self._specs = network, call, layout, tuple(specs)
        self._activation, self._reveals = activation, reveal_empty and layout.form.masks_objects
        self._columns: dict[str | None, tuple[Column, ...]] = {None: tuple(map(Column, layout.flat))}
        self._columns |= {c.name: c.columns for c in layout.collections}
        self._taken = {s.name: self._places(s) for s in specs if not s.is_mask}
        self.scalers = nn.ModuleDict()
        for spec in (s for s in specs if not s.is_mask):
            columns = [self._columns[spec.collection][i] for i in self._taken[spec.name]]
            scaled = dataclasses.replace(spec, features=tuple(column.branch for column in columns))
            scaling = [column.transform(transforms) for column in columns]
            # a plain "items" or "keys" is taken
            self.scalers[f"of_{spec.name}"] = Scaler(scaled, scaling, missing, derived, wide=wide)
        for name, made in self._columns.items():
            fill = torch.from_numpy(layout.fill([column.branch for column in made]))
            self.register_buffer(f"fill_{name or 'flat'}", fill)

    def _places(self, spec: TensorSpec) -> list[int]:
        """List the columns that are made of an input."""
        return [i for i, column in enumerate(self._columns[spec.collection]) if column.branch in spec.features]

    def forward(self, *raw: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Give the scores, (events, columns) float32; of several outputs each."""
        parts = self._parts(self.batch(*raw))
        return parts[0] if len(parts) == 1 else parts

    def scores(self, batch: dict[str, Tensor]) -> Tensor:
        """Give the scores of a batch as training makes it, (events, columns) float32; several outputs side by side."""
        parts = self._parts(batch)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _parts(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if self._reveals:
            masks = [f"{c.name}_mask" for c in self._layout.collections if c.name not in self._layout.by_object]
            batch = batch | {mask: _revealed(batch[mask]) for mask in masks if mask in batch}
        outputs = self._call(self.network, in_type(batch, self._dtype)).to(torch.float32)
        if self._finish is not None:
            return tuple(self._finish(outputs).values())
        rows = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
        if self._activation == "sigmoid":
            return (rows.sigmoid(),)
        return (rows.softmax(dim=1) if self._activation == "softmax" else rows,)

    def batch(self, *raw: Tensor) -> dict[str, Tensor]:
        """Make the batch that the network was trained on."""
        given = {spec.name: values for spec, values in zip(self._specs, raw, strict=True)}
        made: dict[str, Tensor] = {}
        if self._layout.flat:
            values, real = self._values(given, None)
            made["flat"], made["flat_mask"] = _filled(values, real, self.get_buffer("fill_flat")), real
        for c in self._layout.collections:
            objects = given[f"{c.name}_mask"] > 0.5
            values, real = self._values(given, c.name)
            values, real = values.transpose(1, 2), real.transpose(1, 2) & objects.unsqueeze(2)
            made[c.name] = _filled(values, real, self.get_buffer(f"fill_{c.name}"))
            made[f"{c.name}_real"], made[f"{c.name}_mask"] = real, objects
        return self._layout.form.tensors(self._layout, made)

    def _values(self, given: Mapping[str, Tensor], collection: str | None) -> tuple[Tensor, Tensor]:
        """Join the inputs of one collection in the order of its columns: values, and which are real; others are 0."""
        specs = [s for s in self._specs if s.collection == collection and not s.is_mask]
        parts = [self.scalers[f"of_{s.name}"](self._picked(s, given[s.name])) for s in specs]
        values, missing = (torch.cat([p[i] for p in parts], dim=1) if len(parts) > 1 else parts[0][i] for i in (0, 1))
        places = [i for s in specs for i in self._taken[s.name]]
        if places != sorted(places):
            order = torch.tensor(np.argsort(places), device=values.device)
            values, missing = values.index_select(1, order), missing.index_select(1, order)
        return values, ~missing

    def _picked(self, spec: TensorSpec, raw: Tensor) -> Tensor:
        """Take the features of an input as its columns want them, some of them twice."""
        columns = self._columns[spec.collection]
        wanted = [spec.features.index(columns[i].branch) for i in self._taken[spec.name]]
        if wanted == list(range(len(spec.features))):
            return raw
        return raw.index_select(1, torch.tensor(wanted, device=raw.device))


def _filled(values: Tensor, real: Tensor, fill: Tensor) -> Tensor:
    """Put what the layout fills in where no value is; features lie along the last axis."""
    return torch.where(real, values, fill)


def in_type(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Turn the real numbers of a batch, which are float32, into another type."""
    return {name: values.to(dtype) if values.is_floating_point() else values for name, values in batch.items()}


def _revealed(mask: Tensor) -> Tensor:
    """Show the first, padded object of events that have none."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))


def unwrapped(network: nn.Module) -> nn.Module:
    """Take off what torch and Lightning put around a network: compiled, on several devices, averaged."""
    while type(network).__module__.startswith(LIBRARIES):
        children = dict(network.named_children())
        inner = next((children[name] for name in WRAPPED if name in children), None)
        if inner is None:
            break
        network = inner
    return network


def refuse(network: nn.Module) -> None:
    """Refuse a network that no graph can be made of, whatever it computes.

    Raises
    ------
    BundleError
    """
    kind = type(network).__name__
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise BundleError(f"{kind} was made by torch.jit, of which no graph is made; export what it was made from")
    tensors = [*network.parameters(), *network.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise BundleError(f"{kind} has weights without values (device 'meta'); load them first")
    spread = any(type(module).__name__ == "FullyShardedDataParallel" for module in network.modules())
    if spread or any(device_mesh.size() > 1 for t in tensors if (device_mesh := getattr(t, "device_mesh", None))):
        raise BundleError(
            f"the weights of {kind} are spread over processes; export from its checkpoint, or train with strategy=ddp"
        )


@contextmanager
def computing(network: nn.Module) -> Iterator[torch.dtype]:
    """Put a network into the state in which it is exported, and restore it afterwards.

    Dropout and the like are off. Weights in half precision become float32, the same numbers: hardly any runtime
    computes in half precision. A network in double precision stays in it.

    Yields
    ------
    the type of the numbers that it takes
    """
    tensors = [*network.parameters(), *network.buffers()]
    halves = [(t, t.data) for t in tensors if t.dtype in HALF]
    modes = [(module, module.training) for module in network.modules()]
    default = torch.get_default_dtype()
    real = {t.dtype for t in tensors if t.is_floating_point()}
    dtype = torch.float64 if real == {torch.float64} else torch.float32
    network.eval()
    for tensor, values in halves:
        tensor.data = values.float()
    torch.set_default_dtype(dtype)  # of what a network makes anew, as Lightning sets it in training
    try:
        with torch.no_grad(), parametrize.cached(), _not_compiling():
            yield dtype
    finally:
        torch.set_default_dtype(default)
        for tensor, values in halves:
            tensor.data = values
        for module, is_training in modes:
            module.training = is_training


def _not_compiling() -> AbstractContextManager[Any]:
    """Run a network of ``torch.compile`` uncompiled: compiling it for these events would take longer."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    return nullcontext() if set_stance is None else cast("AbstractContextManager[Any]", set_stance("force_eager"))


def call_of(network: nn.Module, keys: Sequence[str]) -> Call:
    """Find out how a network takes a batch.

    Parameters
    ----------
    network : as it was trained; only the arguments of its ``forward`` count
    keys : of the batch

    Returns
    -------
    a function of network and batch: tensors by name where the arguments of ``forward`` are keys of the batch (optional
    ones too), ``x`` for a chain of layers, otherwise the batch itself
    """
    if isinstance(network, nn.Sequential):
        return lambda network, batch: network(batch[keys[0]])
    taken = [p for p in inspect.signature(network.forward).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    parameters = [p.name for p in taken if p.default is p.empty]
    if set(parameters) <= set(keys) and (named := [p.name for p in taken if p.name in keys]):
        return lambda network, batch: network(**{name: batch[name] for name in named})
    if len(parameters) == 1:
        return lambda network, batch: network(batch)
    raise BundleError(
        f"{type(network).__name__}.forward takes {parameters}; the batches have {list(keys)}: name its arguments after "
        "them, take the batch as one dict, or give `call`, a function of the network and the batch"
    )


def activation_of(asked: str, outputs: Tensor, classes: int) -> str:
    """Decide how outputs, (events,) or (events, columns), become scores.

    Parameters
    ----------
    asked : one of ``ACTIVATIONS``; ``auto`` goes by the shape: one column is a sigmoid, one for each class a softmax
    outputs : (events,) or (events, columns), what the network returns; only the shape counts
    classes : number of classes

    Raises
    ------
    BundleError
        For outputs of another shape, or that can't be told.
    """
    if asked not in ACTIVATIONS:
        raise BundleError(f"activation: got {asked!r}; allowed: {', '.join(ACTIVATIONS)}")
    if outputs.ndim not in (1, 2):
        raise BundleError(f"the network returns shape {tuple(outputs.shape)}; expected (events,) or (events, columns)")
    width = 1 if outputs.ndim == 1 else outputs.shape[1]
    if asked != "auto":
        return asked
    if width == 1:
        return "sigmoid"
    if width == classes:
        return "softmax"
    raise BundleError(
        f"the network returns {width} columns for {classes} classes; say with `activation` what they are: "
        "'sigmoid', 'softmax' or 'none' (and name them with `columns`)"
    )
