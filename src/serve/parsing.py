"""JSON text to Python values, with errors that point at the place."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import orjson

from rootdata.errors import nearest
from serve.app.memory import LARGE, uncollected
from serve.errors import BadRequest, InvalidEvents

T = TypeVar("T")

PIECE = 1 << 17  # bytes of a long text that are parsed at a time
_SPACE = re.compile(rb"[ \t\n\r]*")  # as JSON has it
_PLAIN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^ \t\n\r\[\]{},:"]+', re.DOTALL)
_OPENING = re.compile(rb"(?:\[[ \t\n\r]*){1,8}")
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
    return _object(parse_json(body, what=what), what)


def _object(document: Any, what: str) -> dict[str, Any]:
    if type(document) is not dict:
        raise BadRequest(f"{what}: got {kind_of(document)}; expected an object, {{...}}")
    return document


def parse_object_in_pieces(text: bytes, *, what: str = "body") -> Generator[None, None, dict[str, Any]]:
    """Parse JSON as :func:`parse_object`, and give others a turn after each piece of a long text.

    Lists are cut where an element seems to end. A text up to a cut is a list of whole values, or it is no JSON, so
    that a cut in the wrong place, inside a string say, is noticed; then elements are read one by one.

    Raises
    ------
    BadRequest
        As :func:`parse_object`.
    """
    if len(text) > PIECE:
        with contextlib.suppress(ValueError, RecursionError), uncollected():
            value, end = yield from _value(text, _after_space(text, 0))
            if end == len(text):
                return _object(value, what)
        # What is wrong, and where, is said of the whole text.
    return parse_object(text, what=what)


def finished(steps: Generator[Any, None, T]) -> T:
    """Take all steps at once, and return what they lead to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def _after_space(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _value(text: bytes, at: int) -> Generator[None, None, tuple[Any, int]]:
    """Parse the value that begins somewhere; return it, and where what follows begins."""
    value: Any
    if text.startswith(b"{", at):
        value, at = yield from _members(text, _after_space(text, at + 1))
    elif text.startswith(b"[", at):
        value, at = yield from _elements(text, _after_space(text, at + 1))
    else:
        value, at = _plain(text, at)
    return value, _after_space(text, at)


def _plain(text: bytes, at: int) -> tuple[Any, int]:
    found = _PLAIN.match(text, at, at + PIECE)
    if found is None:
        raise ValueError(at)
    return orjson.loads(found[0]), found.end()


def _members(text: bytes, at: int) -> Generator[None, None, tuple[dict[str, Any], int]]:
    """Parse an object from behind its bracket on."""
    members: dict[str, Any] = {}
    is_over = text.startswith(b"}", at)
    while not is_over:
        key, at = _plain(text, at)
        at = _after_space(text, at)
        if type(key) is not str or not text.startswith(b":", at):
            raise ValueError(at)
        members[key], at = yield from _value(text, _after_space(text, at + 1))
        is_over, at = _separated(text, at, b"}")
        yield
    return members, at + (not members)


def _elements(text: bytes, at: int) -> Generator[None, None, tuple[list[Any], int]]:
    """Parse a list from behind its bracket on."""
    elements: list[Any] = []
    is_over = text.startswith(b"]", at)
    while not is_over:
        for cut in _cuts(text, at):
            try:
                elements += orjson.loads(b"[" + text[at:cut] + b"]")
            except orjson.JSONDecodeError:
                continue
            at = _after_space(text, cut)
            break
        else:
            element, at = yield from _value(text, at)
            elements.append(element)
        is_over, at = _separated(text, at, b"]")
        yield
    return elements, at + (not elements)


def _cuts(text: bytes, at: int) -> Iterator[int]:
    """Say where a list may end, or an element of it about a piece further on, if elements are alike."""
    deep = _OPENING.match(text, at)
    if text.startswith(b"{", at):
        end, between = _boundaries(rb"\{", rb"\}")
    else:
        end, between = _boundaries(rb"\[", rb"\]", times=deep[0].count(b"[") if deep else 0)
    for boundary, low, high in ((end, at, at + PIECE), (between, at + PIECE, at + 2 * PIECE)):
        found = boundary.search(text, low, high)
        if found is not None and (cut := found.end("before") if found.re.groups else found.start()) > at:
            yield cut


@functools.cache
def _boundaries(opening: bytes, closing: bytes, *, times: int = 1) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Describe the end of a list, and the place between two elements, that open and close so many times."""
    if times == 0:
        return re.compile(rb"\]"), re.compile(rb",")
    space = _SPACE.pattern
    before = b"(?P<before>" + space.join([closing] * times) + b")" + space
    return re.compile(before + rb"\]"), re.compile(before + b"," + space + space.join([opening] * times))


def _separated(text: bytes, at: int, closing: bytes) -> tuple[bool, int]:
    """Go on behind a comma, or behind the end of a list or an object; tell which it was."""
    is_over = text.startswith(closing, at)
    if not is_over and not text.startswith(b",", at):
        raise ValueError(at)
    return is_over, at + 1 if is_over else _after_space(text, at + 1)


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
