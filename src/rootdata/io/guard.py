"""A branch or tree that can't be used spoils nothing else: what looking at it raises becomes the reason.

What uproot makes of a class that it does not know may raise anything, in a sound file as well. What would be the same
for everything else that is read stays the error that it is: see :func:`concerns_all`.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from typing import TypeVar

from rootdata.causes import OUTSIDE, Cause, cause_of, causes, origin, reason_of
from rootdata.errors import RootDataError

T = TypeVar("T")

_OF_ALL = OUTSIDE - {Cause.SETUP} | {Cause.RESOURCES}  # a codec that is absent concerns what was compressed with it


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
    if any(not isinstance(one, Exception) for one in causes(error)):
        return True
    last = origin(error)
    if getattr(last, "errno", None) == errno.EINVAL:  # no place that a file can have
        return False
    return cause_of(error) in _OF_ALL or (isinstance(last, RootDataError) and isinstance(last, OSError))
