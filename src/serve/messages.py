"""What crosses the socket between the processes that speak HTTP and those that run models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Request(NamedTuple):  # made in a third of the time that a frozen dataclass takes, four times for each answer
    """Events to be scored.

    Attributes
    ----------
    road : name of the protocol, one of ``serve.protocols.protocol.PROTOCOLS``
    model, version : name, resolved version
    content_type : of the body, without parameters, lower case
    accept : content type of the answer
    options : ``explain``, ``tree``, ``header_length``, ...
    body : as it came, uncompressed
    path : of a file with the body, for what is too large to be sent; whoever made it removes it
    deadline : on the clock of ``time.monotonic``, which all processes of a machine share
    """

    road: str
    model: str
    version: int
    content_type: str = "application/json"
    accept: str = "application/json"
    options: Mapping[str, str] = {}
    body: bytes = b""
    path: str | None = None
    deadline: float = float("inf")


class Reply(NamedTuple):
    """What goes back to the client.

    Attributes
    ----------
    path : of a file with the body; whoever sends it removes it
    num_events : how many were scored, for the metrics
    seconds : that the model ran
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}
    path: str | None = None
    num_events: int = 0
    seconds: float = 0.0


LATER: Final = Reply(status=0)
"""What an engine says instead of an answer while the model is being loaded: ask again when it is there."""
