"""The exceptions of the server; each knows its HTTP status and a word that stays the same.

::

    ServeError
    ├── BadRequest       400  a body that can't be read
    ├── Unauthorized     401  no key, or an unknown one
    ├── Forbidden        403  a key without the scope
    ├── ReadOnly         403  a folder of models that the server may not change
    ├── NotFound         404  an unknown model, version, alias, path
    ├── MethodNotAllowed 405  a path that is known, asked in another way
    ├── NotAcceptable    406  an answer format that is not offered
    ├── Conflict         409  a name or version that is taken
    ├── TooLarge         413  more bytes, events or objects than allowed
    ├── UnsupportedType  415  a body format that is not taken
    ├── InvalidEvents    422  events that can be read but not used
    ├── InvalidModel     422  an upload that does not pass the check
    ├── HeadTooLarge     431  a request line and headers that are too long
    ├── Overloaded       503  too many requests wait; try again
    ├── OutOfOrder       503  something that whoever runs the server has to mend: a folder, a file, a library
    ├── WorkerLost       503  the process that worked on it died; try again
    ├── DeadlineExceeded 504  the time that the client gave has passed
    └── NoRoom           507  a full disk, or a quota that is used up
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class ServeError(Exception):
    """Base of every error that becomes an HTTP answer.

    Parameters
    ----------
    message : one sentence: what, where, what is allowed, what to do
    field : the branch, tensor or option that is wrong
    event : number of the event in the request, from 0
    code : a word for programs; by default that of the class
    """

    status: ClassVar[int] = 500
    code: str = "error"
    retry_after: ClassVar[int | None] = None

    def __init__(
        self, message: str, *, field: str | None = None, event: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.field, self.event = message, field, event
        self.code = code or self.code

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers that belong to it."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def to_dict(self) -> dict[str, Any]:
        """Return what the client gets as JSON."""
        known = {"code": self.code, "message": self.message, "field": self.field, "event": self.event}
        return {"error": {key: value for key, value in known.items() if value is not None}}


class BadRequest(ServeError):
    """The body can't be read."""

    status = 400
    code = "bad_request"


class Unauthorized(ServeError):
    """There is no key, or an unknown one."""

    status = 401
    code = "unauthorized"

    @property
    def headers(self) -> Mapping[str, str]:
        """Say how to authenticate."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ServeError):
    """The key does not have the scope."""

    status = 403
    code = "forbidden"


class ReadOnly(ServeError):
    """The folder of the models may not be changed."""

    status = 403
    code = "read_only"


class NotFound(ServeError):
    """There is no such model, version, alias or path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(ServeError):
    """The path is known, but not with this method.

    Parameters
    ----------
    allowed : methods that it takes
    """

    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = ", ".join(sorted(allowed))
        super().__init__(f"this path takes {self._allowed}")

    @property
    def headers(self) -> Mapping[str, str]:
        """Say what is allowed."""
        return {"Allow": self._allowed}


class NotAcceptable(ServeError):
    """The answer is not offered in this format."""

    status = 406
    code = "not_acceptable"


class Conflict(ServeError):
    """The name or version is taken."""

    status = 409
    code = "conflict"


class TooLarge(ServeError):
    """There are more bytes, events or objects than allowed."""

    status = 413
    code = "too_large"


class UnsupportedType(ServeError):
    """The body has a format that is not taken."""

    status = 415
    code = "unsupported_type"


class InvalidEvents(ServeError):
    """The events can be read but not used."""

    status = 422
    code = "invalid_events"


class InvalidModel(ServeError):
    """The upload does not pass the check."""

    status = 422
    code = "invalid_model"


class HeadTooLarge(ServeError):
    """The request line and headers are too long."""

    status = 431
    code = "head_too_large"


class Overloaded(ServeError):
    """Too many requests wait."""

    status = 503
    code = "overloaded"
    retry_after = 1


class OutOfOrder(ServeError):
    """Something is in the way that whoever runs the server has to mend: a folder, a file, a library."""

    status = 503
    code = "out_of_order"


class WorkerLost(ServeError):
    """The process that worked on the request died."""

    status = 503
    code = "worker_lost"
    retry_after = 1


class DeadlineExceeded(ServeError):
    """The time that the client gave has passed."""

    status = 504
    code = "deadline_exceeded"


class NoRoom(ServeError):
    """There is no room for what is to be kept."""

    status = 507
    code = "no_room"
