"""Typed values out of plain ones, each wrong one refused by a sentence that names the option.

Every function takes the value and ``where`` it was given, and raises :class:`ConfigError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rootdata.errors import ConfigError, nearest

T = TypeVar("T")


def reject_unknown(options: Mapping[str, Any], known: Sequence[str], *, where: str) -> None:
    """Refuse options that nobody knows.

    Parameters
    ----------
    options : what was given, by name
    known : names that may be given
    where : what holds the options, for the error

    Raises
    ------
    ConfigError
        For the first key that is not known, with its nearest neighbours.
    """
    for key in options:
        if key not in known:
            raise ConfigError(f"unknown option {key!r} in {where}; {nearest(str(key), known)}")


def typed(value: Any, kind: type[T], where: str) -> T:
    """Return a value of the right type.

    Parameters
    ----------
    value : as Python or YAML gives it
    kind : its type; a truth value is no whole number
    where : name of the option, for the error

    Raises
    ------
    ConfigError
        For a value of another type.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where}: got {value!r} of type {type(value).__name__}; expected {kind.__name__}")
    return value


def text(value: Any, where: str) -> str:
    """Return text."""
    return typed(value, str, where)


def expression(value: Any, where: str) -> str:
    """Return a text that is an expression."""
    from rootdata.expressions.grammar import parse  # with numpy, which a command line is read without

    parse(typed(value, str, where), where=where)
    return str(value)


def optional_expression(value: Any, where: str) -> str | None:
    """Return a text that is an expression, or None."""
    return None if value is None else expression(value, where)


def flag(value: Any, where: str) -> bool:
    """Return yes or no."""
    return typed(value, bool, where)


def mapping(value: Any, where: str, example: str) -> Mapping[Any, Any]:
    """Return a mapping.

    Parameters
    ----------
    value : as Python or YAML gives it
    where : name of the option, for the error
    example : of what may be given, for the error

    Raises
    ------
    ConfigError
        For anything else.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: got {value!r}; expected a mapping such as {example}")
    return value


def path(value: Any, where: str) -> str:
    """Return a path as text."""
    if not isinstance(value, str) and not hasattr(value, "__fspath__"):
        raise ConfigError(f"{where}: got {value!r} of type {type(value).__name__}; expected a path or a list of them")
    return str(value)


def listed(value: Any, where: str) -> list[Any]:
    """Return a list of values; one that stands alone is put into a list."""
    if value is None:
        return []
    if isinstance(value, (str, int, float)) or hasattr(value, "__fspath__"):
        return [value]
    if isinstance(value, Sequence):
        return list(value)
    raise ConfigError(f"{where}: got {value!r} of type {type(value).__name__}; expected a value or a list of them")


def names(value: Any, where: str) -> tuple[str, ...]:
    """Return texts of which no two are the same."""
    found = tuple(typed(n, str, where) for n in listed(value, where))
    twice = sorted({n for n in found if found.count(n) > 1})
    if twice:
        raise ConfigError(f"{where}: {twice[0]!r} is listed twice; remove one")
    return found


def number(value: Any, where: str) -> float:
    """Return a finite number."""
    try:
        found = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of more than 308 digits
        found = math.nan
    if not math.isfinite(found):
        raise ConfigError(f"{where}: got {value!r:.80}; expected a finite number")
    return found


def seconds(value: Any, where: str) -> float:
    """Return a time above 0."""
    found = number(value, where)
    if found <= 0:
        raise ConfigError(f"{where}: got {found:g}; expected a number of seconds above 0")
    return found


def numbers(value: Any, where: str) -> tuple[float, ...]:
    """Return the numbers of a list, or of one alone."""
    return tuple(number(one, where) for one in listed(value, where))


def integer(value: Any, where: str) -> int:
    """Return a whole number."""
    return typed(value, int, where)


def integers(value: Any, where: str) -> tuple[int, ...]:
    """Return whole numbers."""
    return tuple(integer(i, where) for i in listed(value, where))


def natural(value: Any, where: str, *, most: int | None = None) -> int:
    """Return a whole number of at least 0.

    Parameters
    ----------
    value : as Python or YAML gives it
    where : name of the option, for the error
    most : the largest that is allowed; without it there is no limit

    Raises
    ------
    ConfigError
        For another type, a negative number, or one above ``most``.
    """
    if integer(value, where) < 0 or (most is not None and value > most):
        allowed = "0 or more" if most is None else f"0 to {most}"
        raise ConfigError(f"{where}: got {value}; expected {allowed}")
    return int(value)


def positive(value: Any, where: str, *, or_else: str = "") -> int:
    """Return a whole number of at least 1.

    Parameters
    ----------
    value : as Python or YAML gives it
    where : name of the option, for the error
    or_else : what else the option takes, to be added to the error, such as ``" or 'auto'"``

    Raises
    ------
    ConfigError
        For another type, or a number below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}: got {value!r}; expected a whole number of at least 1{or_else}")
    return value


def choice(value: Any, allowed: Sequence[str], where: str, *, or_else: str = "") -> str:
    """Return one of the allowed texts.

    Parameters
    ----------
    value : as Python or YAML gives it
    allowed : the texts, of which the error names the nearest
    where : name of the option, for the error
    or_else : what else the option takes, to be added to the error

    Raises
    ------
    ConfigError
        For any other value.
    """
    if not isinstance(value, str) or value not in allowed:
        shown = ", ".join(repr(a) for a in allowed)
        raise ConfigError(f"{where}: got {value!r}; allowed: {shown}{or_else}; {nearest(str(value), allowed)}")
    return value
