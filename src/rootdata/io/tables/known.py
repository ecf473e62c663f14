"""Which kinds of files there are besides ROOT's, and of which kind a file is."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from rootdata.io import remote
from rootdata.location import Location, is_remote, name_of
from rootdata.registry import FILE_FORMATS

if TYPE_CHECKING:
    from rootdata.io.contents import Contents
    from rootdata.io.trees import Tree

ROOT_ENDINGS = (".root",)
HEAD = 16  # bytes by which a file is known whose name says nothing
_NUMBER = re.compile(r"\.\d+$")  # ATLAS counts the attempts to make a file, ``x.root.1``


class FileFormat(Protocol):
    """A kind of files that hold events.

    ``endings`` are those of their names, in lower case; ``start`` is what such a file begins with, empty where it may
    be anything.
    """

    endings: tuple[str, ...]
    start: bytes

    def open(self, location: Location, place: str) -> Tree:
        """Open the events of a file; see :func:`rootdata.io.trees.open_tree`."""

    def look_into(self, place: str, *, leave: Callable[[Sequence[str]], str | None]) -> Contents:
        """Say what is in a file; see :func:`rootdata.io.trees.look_into`."""


@functools.cache
def file_formats() -> tuple[FileFormat, ...]:
    """Return all that are known but ROOT's."""
    return tuple(FILE_FORMATS.find(name) for name in FILE_FORMATS.names())


def endings() -> tuple[tuple[str, ...], ...]:
    """Return the endings of the names of each kind of files, ROOT's first."""
    return (ROOT_ENDINGS, *(one.endings for one in file_formats()))


def has_ending(path: str, known: tuple[str, ...]) -> bool:
    """Say whether the name of a file ends so, in whatever letters.

    Examples
    --------
    >>> has_ending("https://host/A.ROOT?token=1", (".root",)), has_ending("DAOD.1_000001.pool.root.1", (".root",))
    (True, True)
    """
    return _NUMBER.sub("", name_of(path).lower()).endswith(known)


def format_of(place: str) -> FileFormat | None:
    """Say of which kind a file is, by its name, or by its first bytes where that says nothing.

    Returns
    -------
    ``None`` for a ROOT file, and for what is none of those that are known
    """
    if has_ending(place, ROOT_ENDINGS):
        return None
    found = next((one for one in file_formats() if has_ending(place, one.endings)), None)
    if found is not None:
        return found
    head = _head(place)
    return next((one for one in file_formats() if one.start and head.startswith(one.start)), None)


def _head(place: str) -> bytes:
    with suppress(Exception):  # whoever opens it says what is wrong
        if is_remote(place):
            return remote.first_bytes(place, HEAD)
        handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK)  # what is no file might never open
        try:
            return os.pread(handle, HEAD, 0) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
        finally:
            os.close(handle)
    return b""


def has_trees(path: str) -> bool:
    """Say whether a file of this name may hold several trees, each with a name."""
    return not any(has_ending(path, one.endings) for one in file_formats())
