"""Errors that looking at a branch or a tree may raise, and ways to let it raise them."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uproot
from uproot.interpretation.identify import UnknownInterpretation
from uproot.interpretation.objects import CannotBeAwkward

from rootdata.errors import FileError
from rootdata.io.retry import LateError


class WordlessError(Exception):
    """It fails when it is asked what it means."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class UnknownKindError(Exception):
    """Of a library that nobody has heard of."""


class AnswerError(Exception):
    """As a client of HTTP raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


AnswerError.__module__ = "aiohttp.client_exceptions"

# Of the branch or tree at hand alone.
OF_ONE = (
    AssertionError(),
    ValueError("invalid C++ type name"),
    KeyError("fLeaves"),
    IndexError("list index out of range"),
    TypeError("'NoneType' object is not iterable"),
    AttributeError("no attribute 'title'"),
    NotImplementedError("memberwise serialization"),
    UnboundLocalError("cannot access local variable 'low'"),
    OverflowError("int too large to convert"),
    ZeroDivisionError("division by zero"),
    RecursionError("maximum recursion depth exceeded"),
    StopIteration(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires a buffer of 8 bytes"),
    EOFError("the file ends"),
    ModuleNotFoundError("install the 'strange' package to read branches of this codec"),
    np.exceptions.AxisError(1, 1),
    uproot.KeyInFileError("Jet", file_path="a.root"),
    UnknownInterpretation("none of the rules matched", "a.root", "t"),
    CannotBeAwkward("a class that holds itself"),
    OSError("expected Chunk of length 60,\nreceived 0 bytes from the file"),
    UnknownKindError("anything"),
    WordlessError(),
)
# Of everything that is read.
OF_ALL = (
    MemoryError(),
    KeyboardInterrupt(),
    SystemExit(3),
    ConnectionResetError("reset"),
    TimeoutError("late"),
    PermissionError("secret"),
    FileNotFoundError("gone"),
    OSError(5, "Input/output error"),
    OSError(24, "Too many open files"),
    AnswerError(403),
    FileError("a.root was replaced by another file while it was read; start again"),
    LateError("a.root: no answer within 5 s"),
)


def chain(*errors: BaseException) -> BaseException:
    """Return the first error, each caused by the next."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def raising(error: BaseException) -> Callable[[], Any]:
    """Make a function that raises an error."""

    def look() -> Any:
        raise error

    return look


def let_fail(
    patch: pytest.MonkeyPatch, kind: type, step: str, error: BaseException, *, where: Callable[[Any], bool]
) -> None:
    """Let a property or method of uproot's raise an error, for those objects alone of which ``where`` is true."""
    real = getattr(kind, step)

    def look(self: Any) -> Any:
        if where(self):
            raise error
        return real.__get__(self)

    def call(self: Any, *args: Any, **options: Any) -> Any:
        if where(self):
            raise error
        return real(self, *args, **options)

    patch.setattr(kind, step, property(look) if isinstance(real, property) else call)
