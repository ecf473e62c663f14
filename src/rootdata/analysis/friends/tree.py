"""A file with one tree of numbers, written in constant memory, and what it says of how they were made."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uproot

from rootdata import disk
from rootdata.causes import told
from rootdata.errors import ConfigError, FileError
from rootdata.options import values

TREE = "Friends"
KINDS = ("TTree", "RNTuple")
ORIGIN = "rootdata"  # name of the text in a file that says how it was made
OVERWRITE = "choose another folder, or overwrite it with force=true"
ROWS = 100_000  # that are written at once: a basket, or a cluster

Arrays = Mapping[str, npt.NDArray[Any]]


def plain_name(name: str) -> str:
    """Write a name so that it can be used in ROOT without quotes.

    Examples
    --------
    >>> plain_name("Jet.pt[0] / HT")
    'Jet_pt_0_HT'
    """
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "_"
    return f"_{word}" if word[0].isdigit() else word


class FriendTreeWriter:
    """Appends rows to the tree of an open file.

    Parameters
    ----------
    file : of uproot
    tree : its name
    kind : one of :data:`KINDS`
    types : column name to its number type
    """

    def __init__(self, file: Any, *, tree: str, kind: str, types: Mapping[str, np.dtype[Any]]) -> None:
        make = file.mkrntuple if kind == "RNTuple" else file.mktree
        self._tree = make(tree, dict(types))
        self._waiting: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in types}
        self._types = types
        self._rows = 0

    def write(self, columns: Arrays) -> None:
        """Append rows: every column, (n,) each."""
        for name, parts in self._waiting.items():
            parts.append(columns[name].astype(self._types[name], copy=False))
        self._rows += len(next(iter(columns.values())))
        if self._rows >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait for others to be written with them."""
        if self._rows:
            self._tree.extend({name: np.concatenate(parts) for name, parts in self._waiting.items()})
        self._waiting, self._rows = {name: [] for name in self._waiting}, 0


@contextlib.contextmanager
def writing(
    path: Path, types: Mapping[str, np.dtype[Any]], *, origin: Mapping[str, Any], tree: str = TREE, kind: str = "TTree"
) -> Iterator[FriendTreeWriter]:
    """Give the writer of a file, which takes its name when the block ends well, and disappears when it doesn't.

    Parameters
    ----------
    path : replaced as a whole; folders above it are made
    types : column name to its number type
    origin : how the numbers were made, for :func:`origin_of`
    tree : its name
    kind : one of :data:`KINDS`

    Raises
    ------
    FileError
        Where it can't be written; what was there stays.
    """
    with (
        telling(path),
        disk.writing(path) as file,
        os.fdopen(os.dup(file.fileno()), "r+b") as sink,  # uproot reads what it has written
        uproot.recreate(sink) as target,
    ):
        target[ORIGIN] = json.dumps(origin)
        writer = FriendTreeWriter(target, tree=tree, kind=kind, types=types)
        yield writer
        writer.flush()


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Tell in one sentence that a file, or a folder, can't be written."""
    try:
        yield
    except FileError:  # of what is read meanwhile
        raise
    except OSError as error:
        raise FileError(told(f"{path} can't be written", error)) from error


def origin_of(path: Path) -> dict[str, Any] | None:
    """Return what a file says of how it was made; ``None`` where it says nothing that can be read."""
    try:
        with uproot.open(path) as file:
            found = json.loads(str(file[ORIGIN]))
    except Exception:  # noqa: BLE001 - whatever lies there, it is none of ours
        return None
    return found if isinstance(found, dict) else None


def refuse_another(path: Path, origin: Mapping[str, Any] | None, checksum: str) -> None:
    """Refuse to write over what another model, or somebody else, wrote.

    Parameters
    ----------
    path : of a file that exists
    origin : what it says of how it was made
    checksum : of the model

    Raises
    ------
    FileError
    """
    found = origin or {}
    if found.get("checksum") != checksum:
        other = f"holds scores of another model, {found['model']!r}" if "model" in found else "is no file of scores"
        raise FileError(f"{path} exists and {other}; {OVERWRITE}")


def checked_folder(value: Any, where: str) -> Path:
    """Return a folder by a name that one can have.

    Parameters
    ----------
    value : name or path of a folder, which need not be there
    where : what to name in an error

    Raises
    ------
    ConfigError
    """
    try:
        is_name = b"\0" not in os.fsencode(value)
    except (TypeError, UnicodeEncodeError):
        is_name = False
    if not is_name:
        raise ConfigError(f"{where}: got {value!r}, which can't be the name of a folder")
    return Path(os.fsdecode(value))


def checked_fill(value: Any) -> float:
    """Return a number that a column of scores, float32, can hold.

    Raises
    ------
    ConfigError
    """
    found = values.number(value, "fill")
    if abs(found) > float(np.finfo(np.float32).max):
        raise ConfigError(f"fill: got {found:g}, which is beyond float32, as scores are; give one within, such as -1")
    return found


def checked_name(name: Any) -> str:
    """Return a name that a tree may have in such a file.

    Raises
    ------
    ConfigError
    """
    if not isinstance(name, str) or plain_name(name) != name or name == ORIGIN:
        raise ConfigError(f"name: got {name!r}; expected a plain word for the tree, such as {TREE!r}")
    return name
