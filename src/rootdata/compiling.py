"""Functions compiled by numba, kept on disk where there is a place for them."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numba

from rootdata.causes import reason_of

F = TypeVar("F", bound=Callable[..., Any])

_NO_PLACE = "no folder for it can be written"


def compiled(signatures: Sequence[Any]) -> Callable[[F], F]:
    """Decorate a function that is compiled at once, for some types of arguments; it releases the interpreter lock.

    What was compiled is kept beside the module, or below ``NUMBA_CACHE_DIR`` or the user's cache folder. Where none of
    them can be written, or what lies there can't be read, it is compiled anew in every process.
    """

    def decorate(function: F) -> F:
        try:
            _check_home()
            return _made(function, signatures, cache=True)
        except Exception as error:  # noqa: BLE001 - a fault of the function itself comes up again below
            made = _made(function, signatures, cache=False)
            _warn(_NO_PLACE if "no locator available" in str(error) else reason_of(error))
            return made

    return decorate


def _made(function: F, signatures: Sequence[Any], *, cache: bool) -> F:
    return numba.njit(list(signatures), nogil=True, cache=cache)(function)  # type: ignore[no-any-return]


def _check_home() -> None:
    """Refuse what numba would do for a user without a home: make a folder that is called ``~``."""
    if not any(map(os.environ.get, ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"))):
        Path.home()


@functools.cache
def _warn(reason: str) -> None:
    """Say once what was in the way."""
    warnings.warn(
        f"compiled code can't be kept ({reason}); it is compiled anew in every process, which takes some seconds: let "
        "NUMBA_CACHE_DIR name a folder that can be written",
        stacklevel=3,
    )
