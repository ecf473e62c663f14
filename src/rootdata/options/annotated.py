"""Frozen dataclasses out of stored plain data (JSON), by the annotations of their fields.

A field may be a number, a text, a truth value, ``Any``, a dataclass, ``tuple[X, ...]``, ``Mapping[str, X]``, a literal
or a union of these. What users set by hand has a parser of its own for each field: :mod:`rootdata.options.typed`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from rootdata.errors import RootDataError, nearest

T = TypeVar("T")


def parse(kind: type[T], plain: Any, *, where: str, error: type[RootDataError], remedy: str = "") -> T:
    """Make an object of a dataclass.

    Parameters
    ----------
    kind : the dataclass
    plain : as ``json.loads`` gives it: one entry for every field, without those that have a default
    where : what ``plain`` is, for the sentence of an error
    error : raised with that sentence; it takes nothing else
    remedy : what to do where a field is missing

    Raises
    ------
    RootDataError
        Of the given class, for an unknown or missing field or a value of the wrong type, with the path to it.
    """
    parsed: T = _Parser(error, remedy).parse(kind, plain, where)
    return parsed


@dataclasses.dataclass(frozen=True, slots=True)
class _Parser:
    error: type[RootDataError]
    remedy: str

    def parse(self, kind: Any, value: Any, where: str) -> Any:
        """Make a value of an annotated type."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any or (origin is typing.Literal and value in arguments):
            return value
        if dataclasses.is_dataclass(kind):
            return self._fields(kind, value, where)
        if origin in (typing.Union, types.UnionType):
            return self._one_of(arguments, value, where)
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(self.parse(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if origin is Mapping and isinstance(value, Mapping):
            return {str(k): self.parse(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._finite(value, where)
        if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return value
        raise self.error(f"{where}: got {value!r:.80}; expected {_named(kind)}")

    def _finite(self, value: float, where: str) -> float:
        with contextlib.suppress(OverflowError):  # a whole number of more than 308 digits
            if math.isfinite(number := float(value)):
                return number
        raise self.error(f"{where}: got {value!r:.80}; expected a finite number")

    def _one_of(self, options: tuple[Any, ...], value: Any, where: str) -> Any:
        if value is None and type(None) in options:
            return None
        real = [option for option in options if option is not type(None)]
        for option in real[:-1]:
            if not isinstance(option, type) or isinstance(value, option):
                return self.parse(option, value, where)
        return self.parse(real[-1], value, where)

    def _fields(self, kind: Any, value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise self.error(f"{where}: got {value!r:.80}; expected an object")
        hints = _hints(kind)
        for key in value:
            if key not in hints:
                raise self.error(f"{where}: unknown field {str(key)!r:.80}; {nearest(str(key)[:80], hints)}")
        for field in dataclasses.fields(kind):
            is_optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            if field.name not in value and not is_optional:
                raise self.error(f"{where}: {field.name!r} is missing{self.remedy and '; '}{self.remedy}")
        return kind(**{k: self.parse(hints[k], v, f"{where}.{k}") for k, v in value.items()})


@functools.cache  # of a few classes, asked for with every manifest
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _named(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    name = getattr(origin or kind, "__name__", str(kind)).lower()
    return "list" if name == "tuple" else name
