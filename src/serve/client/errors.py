"""What can go wrong when a server is asked; every one is a :class:`ClientError`.

::

    ClientError
    ├── InvalidInput  (ValueError)       what was given can't be sent; nothing was
    ├── Unreachable   (ConnectionError)  no answer: no connection, a broken one, or not in time
    └── ServerError   (RuntimeError)     an answer that says no
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of every error that the client raises on purpose."""


class InvalidInput(ClientError, ValueError):  # noqa: N818 - reads as a sentence
    """What was given can't be sent; nothing was."""


class Unreachable(ClientError, ConnectionError):  # noqa: N818
    """There was no answer."""


class ServerError(ClientError, RuntimeError):
    """The server answered that it can't do what was asked.

    Parameters
    ----------
    message : the server's own words
    url : that was asked
    status : of HTTP
    code : the server's word for it, ``unknown_model``
    field : the branch, tensor or option that is wrong, where the server names one
    event : its number, from 0, among all that were given, where the server names one
    hint : what to do about it
    """

    def __init__(
        self,
        message: str,
        *,
        url: str,
        status: int,
        code: str = "error",
        field: str | None = None,
        event: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(f"{message} ({url}: {status} {code}){hint and '; '}{hint}")
        self.message, self.url, self.status, self.code = message, url, status, code
        self.field, self.event = field, event
