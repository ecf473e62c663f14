"""A network with its preprocessing inside: raw physics values in, scores out, as one torch module."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rootdata.bundle import TensorSpec
from rootdata.dense import Layout
from rootdata.errors import BundleError
from rootdata.scaling import Transform

Call = Callable[[nn.Module, dict[str, Tensor]], Tensor]
ACTIVATIONS = ("auto", "sigmoid", "softmax", "none")


class Scaler(nn.Module):
    """Scale the features of one input; float32 in float32, all others in float64, as training does.

    Parameters
    ----------
    transforms : of each feature
    missing : sentinels, of the features that are branches
    derived : names of features that are computed: in them a sentinel is a number like others
    """

    shift: Tensor
    factor: Tensor
    log: Tensor
    sentinels: Tensor

    def __init__(
        self, spec: TensorSpec, transforms: Sequence[Transform], missing: Sequence[float], derived: Collection[str] = ()
    ) -> None:
        super().__init__()
        self._dtype = torch.float32 if spec.dtype == "float32" else torch.float64
        is_branch = [f not in derived for f in spec.features]
        held = [_as_held(m, spec.dtype) for m in missing if _can_hold(m, spec.dtype)] if any(is_branch) else []
        self._has_log = any(t.log for t in transforms)
        ones = (1,) * (len(spec.shape) - 2)
        for name, kind, values in (
            ("shift", self._dtype, [t.shift for t in transforms]),
            ("factor", self._dtype, [t.factor for t in transforms]),
            ("log", torch.bool, [t.log for t in transforms]),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=kind).reshape(len(transforms), *ones))
        # NaN equals nothing. Beside branches of whole numbers there is no computed feature: those travel as float64.
        mixed = [] if all(is_branch) else [[m if b else math.nan for b in is_branch] for m in held]
        self._missing = [] if mixed else held
        shape = (len(mixed), len(is_branch), *ones)
        self.register_buffer("sentinels", torch.tensor(mixed, dtype=self._dtype).reshape(shape))

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return scaled values, finite float32, 0 where missing, and which are missing; shaped as ``raw``."""
        wide = raw.to(self._dtype)
        if self._has_log:
            # in double: ONNX has no log1p, and log(1 + x) of small x in float32 is nothing but rounding
            size = wide.to(torch.float64)
            wide = torch.where(self.log, (torch.sign(size) * torch.log(1.0 + size.abs())).to(self._dtype), wide)
        scaled = ((wide - self.shift) * self.factor).to(torch.float32)
        # What was not finite is not, and what is beyond float32 now is as missing: of whole numbers, too.
        missing = torch.isnan(scaled) | torch.isinf(scaled)
        for sentinel in (*self._missing, *self.sentinels):
            missing = missing | (raw == sentinel)
        return torch.where(missing, torch.zeros_like(scaled), scaled), missing


def _can_hold(sentinel: float, dtype: str) -> bool:
    if dtype == "int64":
        return sentinel == int(sentinel) and -(2**63) <= int(sentinel) < 2**63
    return abs(sentinel) <= float(np.finfo(dtype).max)


def _as_held(sentinel: float, dtype: str) -> float | int:
    return int(sentinel) if dtype == "int64" else float(np.dtype(dtype).type(sentinel))


class Deployed(nn.Module):
    """What is exported: scaling, padding, the network and its activation.

    Parameters
    ----------
    network : takes a batch of the layout
    call : how to call it
    specs : of the inputs, in their order
    missing, derived : sentinels, and the features that are computed, in which they are numbers like others
    activation : ``sigmoid``, ``softmax`` or ``none``, for what the network returns
    reveal_empty : show one padded object of an event that has none, for networks that would divide by zero
    """

    def __init__(
        self,
        network: nn.Module,
        call: Call,
        *,
        layout: Layout,
        specs: Sequence[TensorSpec],
        transforms: Mapping[str, Transform],
        missing: tuple[float, ...],
        derived: Collection[str] = (),
        activation: str,
        reveal_empty: bool = False,
    ) -> None:
        super().__init__()
        self.network, self._call, self._layout, self._specs = network, call, layout, tuple(specs)
        self._activation, self._reveals = activation, reveal_empty and layout.kind == "tokens"
        values = {f"of_{s.name}": s for s in specs if not s.is_mask}  # a plain "items" or "keys" is taken
        self.scalers = nn.ModuleDict(
            {k: Scaler(s, [transforms[f] for f in s.features], missing, derived) for k, s in values.items()}
        )

    def forward(self, *raw: Tensor) -> Tensor:
        """Give the scores, (events, columns) float32."""
        return self.scores(self.batch(*raw))

    def scores(self, batch: dict[str, Tensor]) -> Tensor:
        """Give the scores of a batch as training makes it, (events, columns) float32."""
        if self._reveals:
            batch = batch | {f"{c.name}_mask": _revealed(batch[f"{c.name}_mask"]) for c in self._layout.collections}
        outputs = self._call(self.network, batch).to(torch.float32)
        rows = outputs.unsqueeze(1) if outputs.ndim == 1 else outputs
        if self._activation == "sigmoid":
            return rows.sigmoid()
        return rows.softmax(dim=1) if self._activation == "softmax" else rows

    def batch(self, *raw: Tensor) -> dict[str, Tensor]:
        """Make the batch that the network was trained on."""
        given = {spec.name: values for spec, values in zip(self._specs, raw, strict=True)}
        made: dict[str, Tensor] = {}
        if self._layout.flat:
            made["flat"], real = self._values(given, None, self._layout.flat)
            made["flat_mask"] = real
        for c in self._layout.collections:
            objects = given[f"{c.name}_mask"] > 0.5
            values, real = self._values(given, c.name, c.branches)
            values, real = values.transpose(1, 2), real.transpose(1, 2) & objects.unsqueeze(2)
            made[c.name] = torch.where(real, values, torch.full_like(values, self._layout.pad))
            made[f"{c.name}_mask"] = real if self._layout.kind == "vector" else objects
        return self._vector(made) if self._layout.kind == "vector" else self._tokens(made)

    def _values(
        self, given: Mapping[str, Tensor], collection: str | None, features: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Join the inputs of one collection in the order of its features: values, padded, and which are real."""
        specs = [s for s in self._specs if s.collection == collection and not s.is_mask]
        parts = [self.scalers[f"of_{s.name}"](given[s.name]) for s in specs]
        values, missing = (torch.cat([p[i] for p in parts], dim=1) if len(parts) > 1 else parts[0][i] for i in (0, 1))
        names = [f for s in specs for f in s.features]
        if names != list(features):
            order = torch.tensor([names.index(f) for f in features], device=values.device)
            values, missing = values.index_select(1, order), missing.index_select(1, order)
        return torch.where(missing, torch.full_like(values, self._layout.pad), values), ~missing

    def _vector(self, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [*(["flat"] if self._layout.flat else []), *(c.name for c in self._layout.collections)]
        x = torch.cat([made[n].flatten(start_dim=1) for n in names], dim=1)
        mask = torch.cat([made[f"{n}_mask"].flatten(start_dim=1) for n in names], dim=1)
        return {"x": x, "mask": mask}

    def _tokens(self, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: values for name, values in made.items() if name != "flat_mask"}


def _revealed(mask: Tensor) -> Tensor:
    """Show the first, padded object of events that have none."""
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return mask | (first & ~mask.any(dim=1, keepdim=True))


def call_of(network: nn.Module, keys: Sequence[str]) -> Call:
    """Find out how a network takes a batch.

    Parameters
    ----------
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
