"""One branch or tree that can't be used takes nothing else with it: whatever looking at it raises becomes the reason.

What uproot makes of a class that it does not know may raise anything, in a sound file as well. What would be the same
for everything else that is read stays the error that it is: see :func:`concerns_all`.
"""

from __future__ import annotations

import dataclasses
import errno
import traceback
from collections.abc import Callable
from typing import TypeVar

from rootdata.patience import brief, causes

T = TypeVar("T")

_OUTSIDE = {"aiohttp", "botocore", "aiobotocore", "fsspec"}  # libraries that raise what servers and networks do
_IN_FILE = "expected Chunk of length"  # of uproot, which reads where the file says, and finds no bytes there


@dataclasses.dataclass(frozen=True, slots=True)
class Unusable:
    """Something that can't be used, and why."""

    why: str


def guarded(look: Callable[[], T]) -> T | Unusable:
    """Look at one branch or tree; where that fails, say why.

    Parameters
    ----------
    look : asks uproot, and does nothing of our own: its mistakes would pass for those of the file

    Raises
    ------
    Exception
        What concerns all that is read, as it is.
    """
    try:
        return look()
    except Exception as error:
        if concerns_all(error):
            raise
        return Unusable(reason_of(error))


def concerns_all(error: BaseException) -> bool:
    """Say whether an error is not about the branch or tree at hand: memory, Ctrl-C, the system, network and servers.

    Examples
    --------
    >>> concerns_all(AssertionError()), concerns_all(MemoryError()), concerns_all(ConnectionError())
    (False, True, True)
    """
    chain = list(causes(error))
    if any(isinstance(cause, MemoryError) or not isinstance(cause, Exception) for cause in chain):
        return True
    last = chain[-1]
    is_theirs = type(last).__module__.split(".")[0] in _OUTSIDE or "Credentials" in type(last).__name__
    if not (is_theirs or isinstance(last, OSError)):
        return False
    return _IN_FILE not in str(last) and getattr(last, "errno", None) != errno.EINVAL  # no place that a file can have


def reason_of(error: BaseException) -> str:
    r"""Return in a few words what really went wrong; where the error has none, the place where it was raised.

    Examples
    --------
    >>> reason_of(ValueError("a\nb"))
    'ValueError: a'
    """
    last = list(causes(error))[-1]
    try:
        words = str(last).splitlines()[0] if type(last).__module__.startswith("rootdata") else brief(last)
    except Exception:  # noqa: BLE001 - libraries make their messages when they are asked for, and that may fail
        return type(last).__name__
    if words != type(last).__name__ or last.__traceback__ is None:
        return words
    frame, _ = list(traceback.walk_tb(last.__traceback__))[-1]
    return f"{words} in {frame.f_globals.get('__name__', '?')}, {frame.f_code.co_name}"
