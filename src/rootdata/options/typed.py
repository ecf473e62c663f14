"""Frozen dataclasses out of plain mappings: each field says what it takes, so that an object is proof of a check."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rootdata.options.values import reject_unknown

T = TypeVar("T")
Parser = Callable[[Any, str], Any]

_PARSER, _TAKES, _SHOWN, _IS_OPTIONAL = "parser", "takes", "shown", "is_optional"  # keys of a field's metadata
_IS_SILENT = "is_silent"
DECIDES = "decides"
"""Key of a field's metadata: what the option decides. The one declaration of what makes two trainings the same.

``specs``: which events there are and what the first pass learns of them; ``files``: which files are used, which shows
in their list; ``inputs``: what a selected event becomes, so that a bundle takes it along; ``order``: which event is the
n-th of an epoch. A field without it decides what its class says; one that decides nothing says how or where events are
read.
"""


def option(
    parser: Parser,
    default: Any = dataclasses.MISSING,
    *,
    makes: Callable[[], Any] | Any = dataclasses.MISSING,
    shown: Any = None,
    takes: Any = None,
    is_optional: bool = False,
    is_silent: bool = False,
    decides: tuple[str, ...] | None = None,
) -> Any:
    """Declare a field of a dataclass that a user sets.

    Parameters
    ----------
    parser : turns what was given, and the name to put into an error, into the field's value
    default : of the field; where there is none, and ``makes`` is left out, the option must be given
    makes : makes the default
    shown : what stands for one that is made
    takes : annotation of what may be given, where it is not that of the field
    is_optional : whether ``None`` stands for the default
    is_silent : whether nothing is said of it where it stands at its default: what was kept before there was the option
        stays valid
    decides : what follows from the option, see :data:`DECIDES`; by default what its class says
    """
    metadata = {_PARSER: parser, _TAKES: takes, _SHOWN: shown, _IS_OPTIONAL: is_optional, _IS_SILENT: is_silent}
    if decides is not None:
        metadata[DECIDES] = frozenset(decides)
    return dataclasses.field(default=default, default_factory=makes, metadata=metadata)


def names_of(kind: type) -> tuple[str, ...]:
    """Return the names of the options of a class."""
    return tuple(field.name for field in dataclasses.fields(kind) if _PARSER in field.metadata)


def parse(kind: type[T], plain: Mapping[str, Any], *, where: str, prefix: str = "", **fixed: Any) -> T:
    """Make an object of a class whose fields are options.

    Parameters
    ----------
    kind : the class; each field of it that is an option has its parser
    plain : option to value, as Python or YAML give it
    where : what holds the options, for an error about an unknown one
    prefix : put before an option's name in an error
    fixed : values of other fields

    Raises
    ------
    ConfigError
        For an unknown key (with the nearest known ones), a wrong type or a value out of range.
    ExpressionError
        For an expression that does not parse.
    """
    reject_unknown(plain, names_of(kind), where=where)
    found = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if _PARSER not in field.metadata:
            continue
        if field.name not in plain and _has_default(field):
            continue
        value = plain.get(field.name)
        if value is not None or not field.metadata[_IS_OPTIONAL]:
            found[field.name] = field.metadata[_PARSER](value, f"{prefix}{field.name}")
    return kind(**found, **fixed)


def is_told(field: dataclasses.Field[Any], value: Any) -> bool:
    """Say whether a value of a field has to be mentioned where options are described."""
    return not (field.metadata.get(_IS_SILENT) and value == field.default)


def parameters_of(kind: type) -> list[inspect.Parameter]:
    """Describe the options of a class as keyword arguments: with their defaults, and with what they take."""
    hints = typing.get_type_hints(kind)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_shown_default(field),
            annotation=field.metadata[_TAKES] or hints[field.name],
        )
        for field in dataclasses.fields(kind)
        if _PARSER in field.metadata
    ]


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _shown_default(field: dataclasses.Field[Any]) -> Any:
    """Return what stands for a default in a signature: ``None`` where that may be given for it."""
    if not _has_default(field):
        return inspect.Parameter.empty
    takes_none = type(None) in typing.get_args(field.metadata[_TAKES])
    if takes_none or field.default is dataclasses.MISSING:
        return field.metadata[_SHOWN]
    return field.default


def named(kind: Any, name: Any, value: Any, where: str, *, short: str) -> Any:
    """Make a named object of its options, of a ready-made one, or of the one option that may stand alone.

    Parameters
    ----------
    kind : dataclass with a field ``name``
    name : of the object
    value : options, an object, or the value of the option ``short``
    where : option that holds the objects by name, for errors
    short : the option that may stand alone
    """
    place = f"{where}.{name}"
    if isinstance(value, kind):  # taken apart, so that it is checked like a plain one
        value = {option: getattr(value, option) for option in names_of(kind)}
    plain = value if isinstance(value, Mapping) else {short: value}
    return parse(kind, plain, where=place, prefix=f"{place}.", name=str(name))
