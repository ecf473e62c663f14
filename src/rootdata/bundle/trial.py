"""What a network gives for real events and at the edges of what can be sent, tried before it becomes a graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootdata.bundle import parity, signature
from rootdata.bundle.comparison import TOLERANCE
from rootdata.bundle.graph.conversion import Scores, device_of, first_line
from rootdata.bundle.graph.deployed import Call, Finish, activation_of, call_of, in_type
from rootdata.bundle.manifest import SCORES
from rootdata.causes import OUTSIDE, cause_of
from rootdata.errors import BundleError
from rootdata.layouts.layout import Layout
from rootdata.scan.scanned import layout_of
from rootdata.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
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


def try_network(
    network: nn.Module,
    data: Any,
    compared: Table,
    dtype: torch.dtype,
    *,
    activation: str,
    columns: Sequence[str] | None,
    call: Call | None,
) -> Tried:
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
    return Tried(
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


def longest_lists(data: Any) -> int:
    """Return how many objects the largest collection keeps."""
    return max((c.length for c in layout_of(data.data, data.specs).collections), default=0)


def _as_tensors(arrays: Mapping[str, npt.NDArray[Any]], network: nn.Module) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values).to(device_of(network)) for name, values in arrays.items()}


def _called(network: nn.Module, call: Call, batch: dict[str, Tensor], *, num_events: int) -> Tensor:
    """Call a network, and say what it was called with where it fails."""
    shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in batch.items())
    try:
        outputs: Any = call(network, batch)
    except Exception as error:
        if cause_of(error) in OUTSIDE:
            raise
        raise BundleError(
            f"{type(network).__name__} can't be called with the batches of this data ({shapes}): {first_line(error)}; "
            "was it made for other data, or does it need `call`?"
        ) from error
    if not isinstance(outputs, Tensor):
        raise BundleError(
            f"{type(network).__name__} returns {type(outputs).__name__}; expected one tensor: pick it with `call`"
        )
    if outputs.ndim and len(outputs) != num_events:
        raise BundleError(f"{type(network).__name__} returns shape {tuple(outputs.shape)} for {shapes}")
    return outputs


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


def check_finite(scores: Scores, num_edges: int) -> None:
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
