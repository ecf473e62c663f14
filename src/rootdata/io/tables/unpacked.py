"""Rows that can only be decoded from their start, unpacked once into the cache folder, to be read from any place.

Libraries write row groups of a million rows and more. A block in the middle of one costs the decoding of all rows
before it, and the order of an epoch asks for blocks in any order: so a large group is decoded once, a block at a time,
and its columns are kept. What was used last stays, in a bounded number of bytes; what is gone or damaged is decoded
again.

A file is ``FORMAT``, the columns of each block as :mod:`rootdata.columnar` keeps them, and at its end JSON that says
where each block lies, with its checksum, and the length of that JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rootdata import cache_folder, disk
from rootdata.causes import reason_of
from rootdata.columnar import kept, to_keep
from rootdata.errors import ColumnsError
from rootdata.io.local import read_into
from rootdata.options.read import CACHE_ON_DISK
from rootdata.table import Table, cut

FORMAT = b"RDROWS01"
SUFFIX = ".rows"
_END = struct.Struct("<Q")


def place_of(content: Sequence[Any]) -> Path:
    """Return where rows are kept.

    Parameters
    ----------
    content : what decides them: the content of the file, the group, the columns
    """
    name = hashlib.sha256(json.dumps([FORMAT.decode(), *content]).encode()).hexdigest()[:32]
    return cache_folder.folder() / "unpacked" / f"{name}{SUFFIX}"


def rows(path: Path, start: int, stop: int, *, size: float, make: Callable[[], Iterable[Table]]) -> list[Table] | None:
    """Return rows of a group, which is unpacked where that was not done yet.

    Parameters
    ----------
    path : of the kept rows
    start, stop : counted from the start of the group
    size : about how many bytes the whole group takes
    make : decodes the group from its start, some rows at a time

    Returns
    -------
    ``None`` where it can't be kept: decode it again
    """
    found = _read(path, start, stop)
    if found is not None or size > CACHE_ON_DISK:
        return found
    try:
        with disk.alone(path):  # other threads, workers and ranks ask for the same
            found = _read(path, start, stop)
            if found is None:
                _make_room(path.parent, int(size))
                _write(path, make())
                found = _read(path, start, stop)
    except _UndecodedError:  # whoever decodes it again says why
        return None
    except OSError as error:
        words = (
            f"large row groups can't be unpacked into {path.parent} ({reason_of(error)}), so that each block decodes "
        )
        warnings.warn(f"{words}all rows before it; let ROOTDATA_CACHE name a folder that can be written", stacklevel=2)
    return found


class _UndecodedError(Exception):
    """The rows can't be decoded, or don't come."""


def _decoded(tables: Iterable[Table]) -> Iterator[Table]:
    try:
        yield from tables
    except Exception as error:
        raise _UndecodedError from error


def _write(path: Path, tables: Iterable[Table]) -> None:
    index, at = [], len(FORMAT)
    with disk.writing(path) as file:
        file.write(FORMAT)
        for table in _decoded(tables):
            parts = to_keep(dict(table.columns), "", before=0) or []
            hashed = xxhash.xxh3_64()
            for part in parts:
                hashed.update(part)
                file.write(part)
            length = sum(len(part) for part in parts)
            index.append([table.num_events, at, length, hashed.hexdigest()])
            at += length
        text = json.dumps(index).encode()
        file.write(text + _END.pack(len(text)))


def _read(path: Path, start: int, stop: int) -> list[Table] | None:
    """Read kept rows; ``None`` where they are not there, or not as they were written."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = list(_tables(handle, start, stop))
        with contextlib.suppress(OSError):  # another's: it counts as old as it was
            os.utime(handle)
    except (OSError, EOFError, ValueError, TypeError, struct.error, ColumnsError):
        return None
    finally:
        os.close(handle)
    return found if sum(table.num_events for table in found) == stop - start else None


def _tables(handle: int, start: int, stop: int) -> Iterator[Table]:
    end = os.fstat(handle).st_size - _END.size
    (length,) = _END.unpack(_bytes(handle, end, _END.size))
    first = 0
    for number, at, size, checksum in json.loads(bytes(_bytes(handle, end - length, length))):
        low, high = max(start, first), min(stop, first + number)
        if low < high:
            content = _bytes(handle, at, size)
            if xxhash.xxh3_64_hexdigest(content) != checksum:
                raise ColumnsError("kept rows are damaged")
            yield cut(Table(num_events=number, columns=kept(content, before=0)[1]), low - first, high - first)
        first += number


def _bytes(handle: int, at: int, size: int) -> memoryview:
    if at < 0 or not 0 <= size <= os.fstat(handle).st_size:
        raise EOFError
    content = np.empty(size, np.uint8)
    read_into(handle, at, content)
    return content.data


def _make_room(folder: Path, size: int) -> None:
    """Remove what was used longest ago, until so many bytes more are within the bound."""
    known = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                known.append((status.st_mtime_ns, status.st_size, path))
    total = size + sum(used for _, used, _ in known)
    for _, used, path in sorted(known):
        if total <= CACHE_ON_DISK:
            return
        path.unlink(missing_ok=True)
        total -= used
