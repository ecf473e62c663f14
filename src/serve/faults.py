"""What is wrong with the server itself, and neither with a request nor with its code: told as what it is.

A client is told what is in the way, without the folders of the server; the log has the whole of it.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator, Mapping

from rootdata.causes import OF_THE_MACHINE, OUTSIDE, Cause, cause_of, reason_of
from serve.errors import Conflict, NoRoom, OutOfOrder, Overloaded, ReadOnly, ServeError

_FOLDERS = re.compile(r"(?<![\w.])/(?:[^/\s:'\"]+/)+")
_TEMPORARY = re.compile(r"(: )?\.?([\w.]*?)\.?\b[0-9a-f]{32}\b")  # names that nobody knows
_OF_SERVER = (OUTSIDE | {Cause.PATH}) - {Cause.NETWORK, Cause.CERTIFICATE}


def fault_of(error: BaseException, what: str = "the server can't do this now") -> ServeError | None:
    """Make the answer for an error that whoever runs the server can mend, or more room would; None for any other error.

    Parameters
    ----------
    error : of anything that the server does
    what : can't be done

    Examples
    --------
    >>> str(fault_of(PermissionError(13, "Permission denied", "/srv/models/ttH")))
    "the server can't do this now (Permission denied: ttH); whoever runs it has to mend that"
    >>> fault_of(TypeError("no"))
    """
    cause = cause_of(error)
    if cause not in _OF_SERVER:
        return None
    reason = public(reason_of(error))
    if cause is Cause.RESOURCES:
        code = "no_room" if re.search("space|quota", reason) else "no_resources"
        return Overloaded(f"{what} ({reason}); try again later, or ask whoever runs it for more", code=code)
    return OutOfOrder(f"{what} ({reason}); whoever runs it has to mend that")


_OF_CHANGES: Mapping[type[ServeError], tuple[int, ...]] = {
    ReadOnly: (errno.EROFS, errno.EACCES, errno.EPERM),
    NoRoom: (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    Conflict: (
        *(errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EBUSY, errno.EXDEV, errno.EMLINK, errno.ESTALE),
    ),
}
_REMEDIES: Mapping[type[ServeError], str] = {
    ReadOnly: "whoever runs the server may let it write there",
    NoRoom: "delete models and purge the trash, or ask whoever runs the server for more",
    Conflict: "something else is in the way there; whoever runs the server has to look",
}


@contextlib.contextmanager
def changes(what: str) -> Iterator[None]:
    """Turn the system's errors while something is changed into those for clients: not allowed, no room, a conflict.

    Parameters
    ----------
    what : can't be changed

    Raises
    ------
    ReadOnly, NoRoom, Conflict
        In place of the system's errors.
    """
    try:
        yield
    except OSError as error:
        kind = next((kind for kind, numbers in _OF_CHANGES.items() if error.errno in numbers), None)
        if kind is None:
            raise
        raise kind(f"{what} ({public(reason_of(error))}); {_REMEDIES[kind]}") from error


def is_lack(error: BaseException) -> bool:
    """Say whether memory, open files, room on a disk or a library is lacking: nothing is wrong with what was sent."""
    return cause_of(error) in OF_THE_MACHINE


def public(text: str) -> str:
    """Leave out the server's folders, and the names of temporary files.

    Examples
    --------
    >>> public("Load model from /srv/models/ttH/1/model.onnx failed")
    'Load model from model.onnx failed'
    """
    return _TEMPORARY.sub(lambda m: f"{m[1] or ''}{m[2]}" if m[2] else "", _FOLDERS.sub("", text))
