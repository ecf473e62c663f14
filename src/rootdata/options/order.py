"""In which order events come, and in what portions: policy, which changes no number that is learnt from the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rootdata.errors import ConfigError
from rootdata.options import typed, values
from rootdata.options.typed import option

Mix = Literal["sample", "file"] | Mapping[str, float]


def _mix(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): values.number(weight, f"{where}.{name}") for name, weight in value.items()}
    return values.choice(value, ("sample", "file"), where, or_else=" or a weight for each sample")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OrderConfig:
    """In which order events come, and in what portions.

    Parameters
    ----------
    mix : ``sample`` or ``file`` (proportional), or a weight for each sample
    batch_size : events of a global batch, divided by the number of ranks
    chunk_size : events mixed at a time; rounded up to whole batches
    open_blocks : blocks of a sample open at a time; by default as many as hold two chunks over all samples
    max_memory : bytes that reading and mixing may take: fewer blocks are open then, and mixed
    partitions : parts of the training events that ranks read on their own; set it to the number of GPUs, or a multiple
    shuffle : whether training events are shuffled
    seed : of the order
    drop_last : leave out the last, smaller batch of a training epoch
    """

    mix: Mix = option(_mix, "sample", takes=str | Mapping[str, float], is_optional=True)
    batch_size: int = option(values.positive, 1024, is_optional=True)
    chunk_size: int = option(values.positive, 100_000, is_optional=True)
    open_blocks: int | None = option(values.positive, None, is_optional=True)
    max_memory: int | None = option(values.positive, None, is_optional=True)
    partitions: int = option(values.positive, 4, is_optional=True)
    shuffle: bool = option(values.flag, True, is_optional=True)
    seed: int = option(values.natural, 42, is_optional=True)
    drop_last: bool = option(values.flag, False, is_optional=True)


def parse_order(plain: Mapping[str, Any], *, samples: Sequence[str], where: str = "the order options") -> OrderConfig:
    """Check the options that say in which order events come, each alone and beside the others.

    Parameters
    ----------
    plain : options of :class:`OrderConfig`
    samples : names of the samples, which a mapping ``mix`` must name
    where : what holds the options, for an error about an unknown one

    Raises
    ------
    ConfigError
        As :func:`rootdata.options.typed.parse`.
    """
    order = typed.parse(OrderConfig, plain, where=where)
    if order.open_blocks is not None and order.max_memory is not None:
        raise ConfigError("open_blocks, max_memory: got both; max_memory chooses open_blocks: leave one out")
    if not isinstance(order.mix, Mapping):
        return order
    values.reject_unknown(order.mix, list(samples), where="mix")
    absent = [s for s in samples if s not in order.mix]
    if absent:
        raise ConfigError(f"mix: no weight for sample {absent[0]!r}; give each sample one (0 leaves it out)")
    if min(order.mix.values()) < 0 or not sum(order.mix.values()):
        raise ConfigError(f"mix: got {order.mix}; weights are 0 or more, and at least one is positive")
    return dataclasses.replace(order, mix={s: order.mix[s] for s in samples})
