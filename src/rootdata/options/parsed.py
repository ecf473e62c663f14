"""Every option of a data set, parsed once into one frozen object.

What is parsed says what an event is (:class:`~rootdata.options.data.DataConfig`), in which order events come
(:class:`~rootdata.options.order.OrderConfig`) and how they are read (:class:`~rootdata.options.read.ReadConfig`). An
option is declared by its field there and nowhere else: what it takes, its default and what it decides.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any, Self

from rootdata.errors import ConfigError
from rootdata.options import typed, values
from rootdata.options.data import DataConfig, parse_data
from rootdata.options.order import OrderConfig, parse_order
from rootdata.options.read import ReadConfig, parse_read
from rootdata.options.typed import DECIDES

KINDS = (DataConfig, OrderConfig, ReadConfig)

_BY_CLASS: dict[type, frozenset[str]] = {
    DataConfig: frozenset({"specs", "inputs"}),
    OrderConfig: frozenset({"order"}),
    ReadConfig: frozenset(),
}
READING = (*typed.names_of(ReadConfig), "pin_memory", "scheduler", "specs")
"""Options that change how events are read, not which; the last ones are the data module's own."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Every option, checked.

    Parameters
    ----------
    data : what an event is
    order : in which order events come
    read : how they are read
    """

    data: DataConfig
    order: OrderConfig = dataclasses.field(default_factory=OrderConfig)
    read: ReadConfig = dataclasses.field(default_factory=ReadConfig)

    @classmethod
    def parse(cls, plain: Mapping[str, Any], *, where: str) -> Self:
        """Check plain options, as Python or a YAML file gives them.

        Parameters
        ----------
        plain : option to value, of data, order and reading together
        where : what holds the options, for an error about an unknown one

        Raises
        ------
        ConfigError, ExpressionError
            As :func:`rootdata.options.typed.parse`, and where options contradict each other.
        """
        own = [typed.names_of(kind) for kind in KINDS]
        values.reject_unknown(plain, [name for names in own for name in names], where=where)
        data, order, read = ({n: v for n, v in plain.items() if n in names} for names in own)
        config = parse_data(data)
        mixing = parse_order(order, samples=[sample.name for sample in config.samples])
        if config.balance is not None and isinstance(mixing.mix, Mapping):
            raise ConfigError(
                f"balance: got {config.balance!r} beside a mix by {', '.join(mixing.mix)}, which decides how often "
                "events come; leave one of them out"
            )
        return cls(data=config, order=mixing, read=parse_read(read))


def parameters() -> list[inspect.Parameter]:
    """Describe every option as a keyword argument."""
    return [parameter for kind in KINDS for parameter in typed.parameters_of(kind)]


def explained() -> str:
    """Return what the options mean, as the ``Parameters`` section of a docstring has it."""
    sections = [inspect.cleandoc(kind.__doc__ or "").partition("----------\n")[2] for kind in KINDS]
    return "\n".join(section.rstrip() for section in sections)


def described(config: DataConfig | OrderConfig, *what: str) -> dict[str, Any]:
    """Return the options that decide something, as primitives.

    Parameters
    ----------
    config : one of the parsed groups of options
    what : any of ``specs``, ``files``, ``inputs`` and ``order``, see :data:`~rootdata.options.typed.DECIDES`
    """
    plain = _described(config, frozenset(what), _BY_CLASS[type(config)])
    return plain if isinstance(plain, dict) else {}


def _described(value: Any, what: frozenset[str], usual: frozenset[str]) -> Any:
    if dataclasses.is_dataclass(value):
        told = [f for f in dataclasses.fields(value) if typed.is_told(f, getattr(value, f.name))]
        found = {f.name: f.metadata.get(DECIDES, usual) for f in told}
        return {n: _described(getattr(value, n), what, usual) for n, decided in found.items() if decided & what}
    if isinstance(value, Mapping):
        return {str(k): _described(v, what, usual) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(v, what, usual) for v in value]
    # JSON has no NaN, and NaN is not equal to itself
    return "nan" if isinstance(value, float) and math.isnan(value) else value
