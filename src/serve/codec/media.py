"""The content types that the server takes and gives."""

from __future__ import annotations

import functools

from serve.errors import NotAcceptable

JSON = "application/json"
COLUMNS = "application/vnd.rootdata.columns"
ARROW = "application/vnd.apache.arrow.stream"
ROOT = "application/x-root"
BYTES = "application/octet-stream"
ANSWERS = (JSON, COLUMNS, ARROW, ROOT)


@functools.lru_cache(maxsize=256)  # clients say the same few things again and again
def choose(accept: str | None) -> str:
    """Pick the format of an answer from the header ``Accept``, JSON where all are as welcome.

    Raises
    ------
    NotAcceptable
        Where none of the named formats is offered.

    Examples
    --------
    >>> choose("text/html, */*;q=0.1")
    'application/json'
    """
    wanted = [_weighed(part) for part in (accept or "*/*").lower().split(",") if part.strip()]
    for weight, name in sorted(wanted, key=lambda pair: -pair[0]):
        if weight > 0 and name in ("*/*", "application/*"):
            return JSON
        if weight > 0 and name in ANSWERS:
            return name
    raise not_offered(accept)


def not_offered(accept: str | None) -> NotAcceptable:
    """Make the error for a format that no answer is given in."""
    return NotAcceptable(f"Accept: got {(accept or '')[:80]!r}; answers come as {', '.join(ANSWERS)}", field="Accept")


def _weighed(part: str) -> tuple[float, str]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:]), name
            except ValueError:
                return 0.0, name
    return 1.0, name
