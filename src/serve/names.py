"""What models, aliases, tags and versions may be called: one place, for folders, URLs and headers alike.

Only ASCII letters, digits and ``. _ -`` are taken, so no name is a path, looks like another one or needs quoting.
"""

from __future__ import annotations

import functools
import re

from serve.errors import BadRequest

LATEST = "latest"
MAX_LENGTH = 100

_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@functools.lru_cache(maxsize=256)  # the same few are asked for again and again
def is_word(text: str) -> bool:
    """Tell whether ``text`` may name a model.

    Examples
    --------
    >>> is_word("ttH-v1.2"), is_word("../ttH"), is_word("ttH."), is_word("tt H")
    (True, False, False, False)
    """
    return _WORD.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Tell whether ``text`` is a version number as folders have it: no sign, no leading zero, at most nine digits.

    Examples
    --------
    >>> is_version("12"), is_version("0"), is_version("012")
    (True, False, False)
    """
    return _VERSION.fullmatch(text) is not None


def model(text: str) -> str:
    """Return the name of a model if it may be one.

    Raises
    ------
    BadRequest
        If it has other characters, starts with one of ``. _ -``, ends with a dot or is too long.
    """
    return _word(text, "model")


def alias(text: str) -> str:
    """Return an alias if it may be one: a name that is neither a number nor ``latest``.

    Raises
    ------
    BadRequest
        If it may not.
    """
    if text == LATEST or text.isdecimal():
        raise BadRequest(
            f"alias: got {text[:MAX_LENGTH]!r}, which already means a version; take a word such as 'production'",
            field="alias",
        )
    return _word(text, "alias")


def tag(text: str) -> str:
    """Return a tag if it may be one; the rules are those of a model's name.

    Raises
    ------
    BadRequest
        If it may not.
    """
    return _word(text, "tag")


def version(value: str | int) -> int:
    """Return a version number.

    Raises
    ------
    BadRequest
        If it is no whole number between 1 and 999999999.
    """
    text = str(value)
    if not is_version(text):
        raise BadRequest(f"version: got {text[:20]!r}; expected a whole number from 1 to 999999999", field="version")
    return int(text)


def _word(text: str, field: str) -> str:
    if not isinstance(text, str) or not is_word(text):
        raise BadRequest(
            f"{field}: got {str(text)[:MAX_LENGTH]!r}; allowed are 1 to {MAX_LENGTH} letters, digits and . _ - "
            "(ASCII), starting with a letter or digit and not ending with a dot",
            field=field,
        )
    return text
