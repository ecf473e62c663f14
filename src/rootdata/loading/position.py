"""Where a training stands in the order of events, and of which events in which order: what a checkpoint must hold.

Primitives alone, since checkpoints are loaded without code, and nothing that depends on a rank, since one rank's state
is kept for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeGuard

from rootdata.errors import ResumeError, version_remedy
from rootdata.location import name_of
from rootdata.options.data import DataConfig
from rootdata.options.order import OrderConfig
from rootdata.options.parsed import described
from rootdata.scan.specs import Specs

VERSION = 2
_REMEDY = "take the weights alone and start anew"


@dataclasses.dataclass(frozen=True, slots=True)
class Cursor:
    """The next batch: its number in its epoch, over all ranks."""

    epoch: int = 0
    batch: int = 0

    def after(self, length: int) -> Self:
        """Return the place after this batch, in epochs of ``length`` batches."""
        is_last = self.batch + 1 >= length
        return type(self)(self.epoch + 1, 0) if is_last else type(self)(self.epoch, self.batch + 1)


def state_of(cursor: Cursor, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a checkpoint holds: a place, and the order of events that it is a place in."""
    return {"version": VERSION, "epoch": cursor.epoch, "batch": cursor.batch, "identity": dict(identity)}


def place_in(state: Mapping[str, Any]) -> Cursor:
    """Take a place out of a checkpoint, whatever it is a place in.

    Fields beside those of :func:`state_of` are passed over: a data module of somebody's own may add some.

    Raises
    ------
    ResumeError
        Where it is of another version, or not whole.
    """
    got = state.get("version")
    if type(got) is not int or got != VERSION:
        remedy = version_remedy(got, VERSION, anew=_REMEDY)
        words = f"is of version {got!r:.80}, this is version {VERSION}"
        raise ResumeError(f"the checkpoint's place in the data {words}; {remedy}")
    epoch, batch, identity = (state.get(name) for name in ("epoch", "batch", "identity"))
    if not (_is_count(epoch) and _is_count(batch) and isinstance(identity, Mapping)):
        words = f"epoch {epoch!r:.80}, batch {batch!r:.80} of {identity!r:.80}"
        raise ResumeError(f"the checkpoint's place in the data is damaged ({words}); {_REMEDY}")
    return Cursor(epoch, batch)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def cursor_of(state: Mapping[str, Any], identity: Mapping[str, Any]) -> Cursor:
    """Take a place out of a checkpoint, if it is one in the events that are to be read now.

    Parameters
    ----------
    state : as :func:`state_of` made it
    identity : of the events that are to be read now

    Raises
    ------
    ResumeError
        As :func:`place_in`, and where it is a place in other events or in another order: with the first difference.
    """
    cursor = place_in(state)
    other = difference(state["identity"] or identity, identity)
    if other:
        raise ResumeError(
            f"the checkpoint was made with other events or another order of them: {other}; restore that, or take the "
            "checkpoint's weights alone and start anew"
        )
    return cursor


def identity_of(config: DataConfig, order: OrderConfig, specs: Specs) -> dict[str, Any]:
    """Describe everything that decides which event is the n-th of an epoch, and what of it is seen.

    Files count by name and content, not by their folder: data may move.

    Parameters
    ----------
    config : all of its options count that decide numbers or inputs
    order : all of its options count that decide the order
    specs : tell the files and their content
    """
    files = [
        f"{specs.samples[f.sample]}: {name_of(f.path)} {f.uuid} {f.entries} entries, {len(f.blocks)} blocks, "
        f"content {f.content[:16]}"
        for f in specs.files
    ]
    return {**described(config, "specs", "inputs"), **described(order, "order"), "files": files}


def difference(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """Name the first difference between the orders of events that two places belong to; empty where there is none."""
    return _difference(saved, identity, "")


def _difference(saved: Any, now: Any, where: str) -> str:
    """Name the first place at which two descriptions differ; empty where they do not."""
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*saved, *now])
        found = (_difference(saved.get(k), now.get(k), f"{where}.{k}".lstrip(".")) for k in keys)
        return next((difference for difference in found if difference), "")
    if _is_list(saved) and _is_list(now) and len(saved) == len(now):
        pairs = enumerate(zip(saved, now, strict=True))
        found = (_difference(a, b, f"{where}[{i}]") for i, (a, b) in pairs)
        return next((difference for difference in found if difference), "")
    if _is_list(saved) and _is_list(now):
        only = [*([v for v in saved if v not in now] or [v for v in now if v not in saved])][:1]
        return f"{where} had {len(saved)}, now {len(now)}" + "".join(f" (for one: {v})" for v in only)
    return "" if saved == now else f"{where} was {saved!r}, now {now!r}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
