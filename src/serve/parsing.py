"""JSON text to Python values, with errors that point at the place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from rootdata.errors import nearest
from serve.app.memory import LARGE, uncollected
from serve.errors import BadRequest, InvalidEvents

_SHOWN = 60  # characters of what a client sent that an error repeats
_NOT_JSON = (b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"-inf")


def parse_json(body: bytes | memoryview, *, what: str = "body") -> Any:
    """Parse JSON.

    Raises
    ------
    BadRequest
        Where it is malformed, with the position.
    """
    try:
        if len(body) < LARGE:
            return orjson.loads(body)
        with uncollected():
            return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(_why_not(bytes(body), error, what)) from error


def _why_not(body: bytes, error: orjson.JSONDecodeError, what: str) -> str:
    where = f"{what}: line {error.lineno}, column {error.colno}"
    # The position counts characters; the bytes up to it are as many only in plain ASCII, which numbers are.
    if any(body.startswith(word, error.pos + step) for word in _NOT_JSON for step in (0, -1)):
        return f"{where}: JSON knows neither NaN nor infinities; send null for a missing value"
    return f"{where}: this is not JSON ({error.msg}); check the body"


def parse_object(body: bytes | memoryview, *, what: str = "body") -> dict[str, Any]:
    """Parse JSON that must be an object.

    Raises
    ------
    BadRequest
        Where it is malformed or something else.
    """
    document = parse_json(body, what=what)
    if type(document) is not dict:
        raise BadRequest(f"{what}: got {kind_of(document)}; expected an object, {{...}}")
    return document


def check_keys(found: Iterable[str], *, known: Iterable[str], needed: Iterable[str] = (), what: str = "body") -> None:
    """Check the keys of an object that has nothing to do with branches.

    Parameters
    ----------
    found : keys of the object
    known : keys that it may have
    needed : keys that it must have
    what : name of the object, for the error

    Raises
    ------
    BadRequest
        Naming one that is unknown or missing.
    """
    found, known = set(found), set(known)
    for key in found - known:
        raise BadRequest(f"{what}: unknown key {shown(key)}; {nearest(key[:_SHOWN], known)}", field=key[:_SHOWN])
    for key in set(needed) - found:
        raise BadRequest(f"{what}: {key!r} is missing", field=key)


def check_names(found: Iterable[str], known: Iterable[str], *, what: str = "branch", event: int | None = None) -> None:
    """Check that names are those of the model, each and no other.

    Parameters
    ----------
    found : what a client has sent
    known : what the model takes
    what : word for one of them, for the error
    event : number of the event that has them; None where all share them

    Raises
    ------
    InvalidEvents
        Naming one that is unknown or missing, and the nearest.
    """
    found, known = list(found), list(known)
    where = "" if event is None else f" in event {event}"
    for name in found:
        if name not in known:
            message = f"unknown {what} {shown(name)}{where}; {nearest(name[:_SHOWN], known)}; take it out or correct it"
            raise InvalidEvents(message, field=name[:_SHOWN], event=event)
    for name in known:
        if name not in found:
            others = [n for n in found if n not in known]
            hint = f"; {nearest(name, others)}" if others else ""
            raise InvalidEvents(f"{what} {name!r} is missing{where}{hint}; the model needs it", field=name, event=event)


def check_all_there(found: Iterable[str], known: Iterable[str], *, what: str = "branch") -> None:
    """Check that nothing is missing, whatever else may be there.

    Parameters
    ----------
    found : what a client has sent
    known : what the model takes
    what : word for one of them, for the error

    Raises
    ------
    InvalidEvents
        Naming one that is missing, and the nearest of the others.
    """
    found, known = set(found), list(known)
    for name in known:
        if name not in found:
            hint = f"; {nearest(name, (other[:_SHOWN] for other in found.difference(known)))}"
            raise InvalidEvents(f"{what} {name!r} is missing{hint}; the model needs it", field=name)


def check_known(found: Iterable[str], known: Iterable[str], *, what: str) -> None:
    """Check that names are among those of the model.

    Parameters
    ----------
    found : what a client has sent
    known : what the model has
    what : word for one of them, for the error

    Raises
    ------
    InvalidEvents
        Naming one that is not, and the nearest.
    """
    known = list(known)
    for name in found:
        if name not in known:
            message = f"unknown {what} {shown(name)}; {nearest(name[:_SHOWN], known)}; take it out or correct it"
            raise InvalidEvents(message, field=name[:_SHOWN])


def given(value: Any) -> str:
    """Show a value where it may be of the wrong kind altogether."""
    return kind_of(value) if isinstance(value, list | dict) or value is None else shown(value)


def shown(value: Any) -> str:
    """Show a value of a client, cut short: long ones and deep ones cost nothing."""
    if isinstance(value, list | Mapping):
        return kind_of(value)
    text = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def kind_of(value: Any) -> str:
    """Name the kind of a JSON value.

    Examples
    --------
    >>> kind_of([1, 2]), kind_of(None), kind_of("HT")
    ('a list of 2', 'null', 'a string')
    """
    if isinstance(value, list):
        return f"a list of {len(value)}"
    kinds = {dict: "an object", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
