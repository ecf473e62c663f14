"""Blocks kept in memory or on local disk, as they were read or as they were made ready for batches.

A store may forget and may fail, but it never delivers anything else than what was put under a key, and none of its
failures reaches whoever reads: what can't be had from it is read from the files.

On disk every block is a file of its own: a prefix (format, checksum of all that follows, bytes of the file), and the
columns as :mod:`rootdata.columnar` keeps them. Whoever reads takes no lock: a file appears under its name by a rename,
whole, and its checksum is compared each time. Whoever changes the folder holds ``flock`` on ``.lock``, in which the
number of bytes in the folder is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import os
import re
import struct
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32

from rootdata import disk
from rootdata.arena import Lender, shared
from rootdata.columnar import kept, to_keep
from rootdata.errors import ColumnsError, FileError
from rootdata.io.local import read_into
from rootdata.io.store import Store
from rootdata.jagged import Columns
from rootdata.options.read import CacheConfig

SUFFIX = ".block"
FORMAT = b"RDBLOCK2"
LOCK_SECONDS = 2.0  # more is not waited for: reading anew costs less
KEPT_SHARE = 0.95  # of the bound, when room is made: looking for the oldest takes a look at every entry

_UNCHECKED = struct.Struct("<8sI")  # format, checksum of what follows
_REST = struct.Struct("<Q")  # bytes of the file
_PREFIX = struct.Struct("<8sIQ")
_FOLDER = re.compile("[0-9a-f]{2}")


def open_store(config: CacheConfig | None) -> Store | None:
    """Make the store that a configuration asks for; warn where its folder can't be used."""
    if config is None:
        return None
    if config.dir is None:
        return _MemoryStore(config.max_bytes)
    store = _DiskStore(Path(config.dir), config.max_bytes)
    store.tidy()
    return store


# In memory


class _MemoryStore:
    """Keeps blocks in the form in which they would lie on disk: immutable, and of a known size."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._max_bytes,)

    def get(self, key: str, *, last: bool = False) -> Columns | None:
        with self._mine():
            content = self._kept.get(key)
            if content is not None and not last:
                self._kept.move_to_end(key)
        return None if content is None else _decoded(memoryview(content), key)

    def put(self, key: str, columns: Columns) -> None:
        parts = _encoded(key, columns)
        if parts is None or _size_of(parts) > self._max_bytes:
            return
        content = b"".join(parts)
        with self._mine():
            self._bytes -= len(self._kept.pop(key, b""))
            while self._bytes + len(content) > self._max_bytes:
                self._bytes -= len(self._kept.popitem(last=False)[1])
            self._kept[key] = content
            self._bytes += len(content)

    @contextlib.contextmanager
    def _mine(self) -> Iterator[None]:
        if self._process != os.getpid():  # forked, perhaps while a thread that is not here held the lock
            self._begin()
        with self._lock:
            yield


# On disk


class _DiskStore:
    """Keeps blocks as files, which other processes and later runs find."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._is_writing = True
        self._has_waited = False
        self._lender = shared()

    def get(self, key: str, *, last: bool = False) -> Columns | None:
        try:
            with _path_of(self._folder, key).open("rb", buffering=0) as file:
                content = _checked(file, self._lender)
                if content is not None and not last:
                    _touch(file.fileno())
        except OSError:
            return None
        return None if content is None else _decoded(content, key)

    def put(self, key: str, columns: Columns) -> None:
        parts = _encoded(key, columns) if self._is_writing else None
        if parts is not None and _size_of(parts) <= self._max_bytes:
            self._change(lambda total: self._write(total, _path_of(self._folder, key), parts))

    def tidy(self) -> None:
        """Remove what a killed process left, and count the bytes anew, as that process may not have done so."""
        self._change(self._count_anew)

    def _change(self, action: Callable[[_Total], None]) -> None:
        """Change the folder while nobody else does; after a failure nothing is written any more."""
        # One long wait is enough: while somebody holds on to the lock, a look must do.
        seconds = 0.0 if self._has_waited else LOCK_SECONDS
        try:
            with _locked(self._folder, seconds=seconds) as total:
                self._has_waited = total is None
                if total is not None:
                    action(total)
        except OSError as error:
            self._is_writing = False
            words = f"cache: blocks can't be kept in {self._folder} ({error}); reading goes on from the files"
            warnings.warn(words, stacklevel=2)

    def _count_anew(self, total: _Total) -> None:
        _temporary(self._folder).unlink(missing_ok=True)
        total.set(sum(entry.size for entry in _entries(self._folder)))
        self._make_room(total, 0)

    def _write(self, total: _Total, path: Path, parts: Sequence[Any]) -> None:
        size, temporary = _size_of(parts), _temporary(self._folder)
        temporary.unlink(missing_ok=True)
        self._make_room(total, size)
        before = total.get()
        # Never less than what is there: whoever fails or is killed on the way leaves some room unused, until it is
        # counted anew.
        total.set(before + size)
        path.parent.mkdir(exist_ok=True)
        try:
            # Nothing is synced: what a power failure leaves half-written, the checksum tells.
            with temporary.open("wb") as file:
                file.writelines(parts)
                file.flush()
                _touch(file.fileno())
            replaced = path.stat().st_size if path.exists() else 0
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        total.set(before + size - replaced)

    def _make_room(self, total: _Total, size: int) -> None:
        if total.get() + size <= self._max_bytes:
            return
        entries = sorted(_entries(self._folder), key=lambda entry: entry.used, reverse=True)
        left = sum(entry.size for entry in entries)
        wanted = (self._max_bytes if left + size <= self._max_bytes else KEPT_SHARE * self._max_bytes) - size
        while entries and left > wanted:
            oldest = entries.pop()
            Path(oldest.path).unlink(missing_ok=True)
            left -= oldest.size
        total.set(left)


class _Total:
    """The number of bytes in a folder, written in the file that is its lock."""

    def __init__(self, handle: int, folder: Path) -> None:
        self._handle = handle
        self._folder = folder

    def get(self) -> int:
        text = os.pread(self._handle, 20, 0)
        return int(text) if text.isdigit() else sum(entry.size for entry in _entries(self._folder))

    def set(self, value: int) -> None:
        os.pwrite(self._handle, b"%020d" % value, 0)


@dataclasses.dataclass(frozen=True, slots=True)
class _BlockFile:
    """The file of a block: its size in bytes, and when it was used last, in ns."""

    path: str  # making a Path takes longer than the look at the file
    size: int
    used: int


def usage(folder: str | Path) -> tuple[int, int]:
    """Count what a folder keeps.

    Returns
    -------
    entries, and their bytes

    Raises
    ------
    FileError
        Where there is no such folder, or it can't be read.
    """
    _check_folder(folder)
    try:
        sizes = [entry.size for entry in _entries(Path(folder))]
    except OSError as error:
        raise FileError(f"cache: {folder} can't be read ({error})") from error
    return len(sizes), sum(sizes)


def clear(folder: str | Path) -> None:
    """Remove all blocks from a folder, and nothing else.

    Raises
    ------
    FileError
        Where there is no such folder, it can't be changed, or others do not stop changing it.
    """
    _check_folder(folder)
    try:
        with _locked(Path(folder), seconds=LOCK_SECONDS) as total:
            if total is not None:
                _remove_all(Path(folder), total)
    except OSError as error:
        raise FileError(f"cache: {folder} can't be cleared ({error}); its owner can") from error
    if total is None:
        raise FileError(f"cache: others are writing to {folder} all the time; try again")


def _remove_all(folder: Path, total: _Total) -> None:
    _temporary(folder).unlink(missing_ok=True)
    for entry in list(_entries(folder)):
        Path(entry.path).unlink(missing_ok=True)
    total.set(0)


def _check_folder(folder: str | Path) -> None:
    if not Path(folder).is_dir():
        raise FileError(f"cache: {folder} is no folder; name the one that was given as `cache.dir`")


@contextlib.contextmanager
def _locked(folder: Path, *, seconds: float) -> Iterator[_Total | None]:
    """Hold the lock of a folder while it is changed; gives ``None`` where others hold it all the time."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            disk.lock(handle, until=time.monotonic() + seconds)
        except BlockingIOError:
            yield None
            return
        try:
            yield _Total(handle, folder)
        finally:
            # Closing would not do where a process was forked meanwhile: it has the open file, too.
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def _path_of(folder: Path, key: str) -> Path:
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return folder / name[:2] / f"{name}{SUFFIX}"


def _temporary(folder: Path) -> Path:
    # One name is enough where only one writes at a time, and nothing can pile up.
    return folder / ".new"


def _entries(folder: Path) -> Iterator[_BlockFile]:
    with os.scandir(folder) as found:
        inner = [f.path for f in found if _FOLDER.fullmatch(f.name) and f.is_dir(follow_symlinks=False)]
    for place in inner:
        with os.scandir(place) as files:
            for file in files:
                if file.name.endswith(SUFFIX):
                    # Whoever only counts holds no lock: a file may be gone by now.
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat(follow_symlinks=False)
                        yield _BlockFile(file.path, status.st_size, status.st_mtime_ns)


def _touch(handle: int) -> None:
    """Note that an entry is used now; where that is not allowed, it counts as old as it was."""
    now = time.time_ns()
    with contextlib.suppress(OSError):
        os.utime(handle, ns=(now, now))


def _checked(file: FileIO, lender: Lender) -> memoryview | None:
    """Read a file into memory; ``None`` where it is not what was written.

    Not mapped: a page that can't be read would kill the process, and what is delivered is what was checked.
    """
    size = os.fstat(file.fileno()).st_size
    if size < _PREFIX.size:
        return None
    array = lender.empty(size, np.uint8)
    try:
        read_into(file.fileno(), 0, array)
    except EOFError:
        return None
    content = array.data
    kind, checksum, whole = _PREFIX.unpack_from(content)
    is_whole = kind == FORMAT and whole == size and crc32(content[_UNCHECKED.size :]) == checksum
    return content.toreadonly() if is_whole else None


# Columns to bytes and back


def _encoded(key: str, columns: Columns) -> list[Any] | None:
    """Lay out columns as a list of buffers; ``None`` where they are of a kind that is not kept."""
    parts = to_keep(columns, key, before=_PREFIX.size)
    if parts is None:
        return None
    rest = _REST.pack(_PREFIX.size + _size_of(parts))
    checksum = functools.reduce(lambda value, part: crc32(part, value), parts, crc32(rest))
    return [_UNCHECKED.pack(FORMAT, checksum) + rest, *parts]


def _decoded(content: memoryview, key: str) -> Columns | None:
    """View the columns in the bytes of an entry, unless it is another key's, or of another version."""
    try:
        found, columns = kept(content, before=_PREFIX.size)
    except ColumnsError:
        return None
    return columns if found == key else None


def _size_of(parts: Sequence[Any]) -> int:
    return sum(len(part) for part in parts)
