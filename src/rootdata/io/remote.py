"""What paths with ``://`` need beside uproot: settings, listing, states, few large requests."""

from __future__ import annotations

import atexit
import bisect
import collections
import contextlib
import errno
import fnmatch
import functools
import hashlib
import itertools
import math
import os
import queue
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import fsspec
from uproot.source.chunk import Chunk
from uproot.source.fsspec import FSSpecSource
from uproot.source.futures import TrivialFuture

from rootdata.errors import FileError
from rootdata.io.formats import signatures
from rootdata.io.local import Span, joined
from rootdata.io.retry import PlaceError, blamed, failed, persist, within
from rootdata.location import State
from rootdata.options.read import ReadConfig

T = TypeVar("T")

# The defaults of the XRootD client wait for minutes, and some failures it never reports. These make it say soon that
# something is wrong; how long to go on trying is decided by `persist`. Seconds, except for the number of retries.
CLIENT_SETTINGS = {
    "XRD_CONNECTIONWINDOW": "3",
    "XRD_CONNECTIONRETRY": "2",
    "XRD_STREAMERRORWINDOW": "3",
    "XRD_STREAMTIMEOUT": "20",
    "XRD_REQUESTTIMEOUT": "30",
    "XRD_TIMEOUTRESOLUTION": "1",
    "XRD_RUNFORKHANDLER": "1",
}
CLIENTS = {"root": "xrootd", "s3": "s3fs", "http": "aiohttp", "https": "aiohttp"}

HEAD = 512  # bytes at the start of a ROOT file: among them its UUID, its length and when it was written
NEAR = 256 * 1024  # bytes read around what describes the trees
GAP = 32 * 1024  # bytes between two ranges that are read along: cheaper than a request
REQUEST_BYTES = 16_000_000  # at most in one request

VERSION_TAGS = ("ETag", "etag", "mtime", "LastModified", "Last-Modified")  # the first that a server gives

UNSETTLED_SECONDS = 2.0  # after a change that a server dates to the second; two clocks may differ a little

LOOK_SECONDS = 20.0  # at most, for the state of a file: whoever opens it then waits longer, and says what is wrong
CLOSE_SECONDS = 1.0

_handles = itertools.count(1)


class _Settling:
    """Keeps forks away from the moments in which the XRootD client ends what it was asked: children may hang then.

    Its own handler of forks is not enough: right after a request 13 of 30 children hung, a tenth of a second later none
    of 50.
    """

    SECONDS = 0.25

    def __init__(self) -> None:
        self._last = -math.inf
        os.register_at_fork(before=self._wait)

    def was_asked(self, url: str) -> None:
        """Take note of the end of a request."""
        if url.startswith("root://"):
            self._last = time.monotonic()

    def _wait(self) -> None:
        time.sleep(max(0.0, self._last + self.SECONDS - time.monotonic()))


_client = _Settling()


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in it.

    Raises
    ------
    FileError
        Where the library that knows the protocol is absent.
    """
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)  # read once, when the client library loads
    try:
        found = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise _no_client(url, error) from error
    _end_quietly()
    return found[0], found[1]


def _end_quietly() -> None:
    """Keep the XRootD client from raising other libraries' warnings as errors when it visits all objects at exit."""
    client = sys.modules.get("XRootD.client.finalize")
    if client is not None:
        atexit.unregister(client.finalize)
        atexit.unregister(_finalize)
        atexit.register(_finalize, client.finalize)


def _finalize(finalize: Callable[[], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finalize()


def _no_client(url: str, error: Exception) -> FileError:
    protocol = url.split("://", 1)[0].rsplit("::", maxsplit=1)[-1]
    if protocol not in CLIENTS:
        known = ", ".join(f"{p}://" for p in CLIENTS)
        return PlaceError(f"{url}: {protocol}:// can't be read ({error}); known: {known} and what fsspec knows")
    if not isinstance(error, ImportError):
        return PlaceError(f"{url} can't be asked for ({error}); check the address, and the settings of {protocol}://")
    return PlaceError(
        f"{url}: reading {protocol}:// needs {CLIENTS[protocol]}, which can't be imported ({error}); "
        "pip install 'rootdata[remote]'"
    )


def has_glob(url: str) -> bool:
    """Say whether the path of an address is a pattern; a ``?`` begins a query there."""
    path = url.split("://", 1)[1].partition("/")[2]
    return "*" in path or "[" in path


def find(pattern: str, *, read: ReadConfig) -> list[str]:
    """Return the addresses that match a pattern, sorted.

    Parameters
    ----------
    pattern : URL with ``*`` or ``[...]``; a ``?`` begins a query
    read : how long a server that fails is asked again, and an answer waited for

    Raises
    ------
    FileError
        Where the server can't be asked or can't list.
    """

    def ask(_: str) -> list[str]:
        files, path = filesystem(pattern)
        _forget_listings(files)
        start = path.rindex("/", 0, min(path.index(sign) for sign in "*[" if sign in path)) + 1
        found = set(_matching(files, path[:start], path[start:].split("/")))
        return sorted(str(files.unstrip_protocol(one)) for one in found)

    try:
        return persist([pattern], _asking(ask, deadline=read.deadline), patience=read.patience)
    except FileError as error:
        raise FileError(f"{error}; where the server can't list, name every file") from error


def _matching(files: Any, folder: str, parts: Sequence[str]) -> Iterator[str]:
    """List what matches, folder by folder: one that can't be listed is an error, where fsspec's ``glob`` leaves it out.

    Parameters
    ----------
    files : file system
    folder : that is looked into; nothing matches in one that is absent
    parts : patterns of what is in it and below, of one level each; ``**`` is any number of levels
    """
    wanted, *below = parts
    pattern = wanted.replace("?", "[?]")  # in an address it begins a query
    for path, is_folder in _entries(files, folder):
        is_match = fnmatch.fnmatchcase(path.rstrip("/").rpartition("/")[2], pattern)
        if wanted == "**" and is_folder:
            yield from _matching(files, path, parts)
        elif is_match and is_folder and below:
            yield from _matching(files, path, below)
        elif is_match and not is_folder and not below:
            yield path
    if wanted == "**" and below:
        yield from _matching(files, folder, below)


def _entries(files: Any, folder: str) -> Iterator[tuple[str, bool]]:
    """List what is in a folder, and whether it is one itself; nothing of one that is absent."""
    with contextlib.suppress(FileNotFoundError):
        for entry in files.ls(files._strip_protocol(folder), detail=True):  # noqa: SLF001 - as fsspec's own walk
            is_folder, is_itself = entry["type"] == "directory", entry["name"].rstrip("/") == folder.rstrip("/")
            if is_itself and is_folder and "root" in files.protocol:  # what that client says of a folder it can't open
                raise PermissionError(errno.EACCES, "the folder can't be listed", folder)
            if not is_itself:
                yield entry["name"], is_folder


def text_of(address: str, *, read: ReadConfig) -> str:
    """Return the text of a remote file, whatever bytes it is made of.

    Parameters
    ----------
    address : of a list of files
    read : how long a server that fails is asked again, and an answer waited for

    Raises
    ------
    FileError
        Where the server can't be asked, or has no such file.
    """

    def ask(_: str) -> str:
        files, path = filesystem(address)
        _forget_listings(files)
        return bytes(files.cat_file(path)).decode("utf-8-sig", errors="surrogateescape")

    return persist([address], _asking(ask, deadline=read.deadline), patience=read.patience)


def state_of(places: Sequence[str], *, read: ReadConfig, closed: threading.Event | None = None) -> State:
    """Return the state of a remote file.

    Parameters
    ----------
    places : addresses of the file and of its copies. Copies carry different times: where there are any, none is told
    read : how long servers that fail are asked again, and answers waited for
    closed : makes waiting end at once
    """
    ask = _asking(_about, deadline=min(read.deadline, LOOK_SECONDS / 2), closed=closed)
    try:
        about = persist(places, ask, patience=min(read.patience, LOOK_SECONDS), closed=closed)
    except FileError:  # whoever opens it says what is wrong
        return State()
    return State(_size_in(about)) if len(places) > 1 else _state_in(about)


def _about(place: str) -> Mapping[str, Any]:
    files, path = filesystem(place)
    _forget_listings(files)
    return files.info(path)  # type: ignore[no-any-return]


def first_bytes(place: str, size: int) -> bytes:
    """Return what a remote file begins with."""
    files, path = filesystem(place)
    _forget_listings(files)
    return bytes(files.cat_file(path, start=0, end=size))


def _state_in(about: Mapping[str, Any]) -> State:
    tag = next((k for k in VERSION_TAGS if about.get(k)), None)
    if tag is None:
        return State(_size_in(about), is_settled=False)
    version = hashlib.sha256(str(about[tag]).encode()).hexdigest()[:16]
    return State(_size_in(about), version, is_settled=tag.lower() == "etag" or _age(about[tag]) > UNSETTLED_SECONDS)


def _age(changed: Any) -> float:
    """Return the seconds since a time that a server gave, as a number, a date or the text of one."""
    if isinstance(changed, str):
        changed = parsedate_to_datetime(changed)
    return time.time() - (changed.timestamp() if hasattr(changed, "timestamp") else float(changed))


def _size_in(about: Mapping[str, Any]) -> int:
    return int(about.get("size") or 0)


def _forget_listings(files: Any) -> None:
    listings = getattr(files, "dircache", None)
    if listings is not None:
        listings.clear()


def _asking(ask: Callable[[str], T], *, deadline: float, closed: threading.Event | None = None) -> Callable[[str], T]:
    """Turn the error of a question to a server into that of an attempt, so that it is asked again."""

    def attempt(place: str) -> T:
        try:
            return within(deadline, functools.partial(ask, place), place=place, closed=closed)
        except Exception as error:
            raise _unanswered(error, place) from error
        finally:
            _client.was_asked(place)

    return attempt


def _unanswered(error: Exception, place: str) -> Exception:
    shown = blamed(error, f"{place} can't be looked at", is_remote=True)
    if shown is not error:
        shown.__cause__ = error
    return failed(shown, place) if isinstance(shown, FileError) else shown


class Pieces:
    """Parts of a file by where they lie in it.

    Parameters
    ----------
    parts : (start, bytes), sorted, not overlapping
    """

    def __init__(self, parts: Sequence[tuple[int, bytes]] = ()) -> None:
        self._starts = [start for start, _ in parts]
        self._parts = [memoryview(data) for _, data in parts]

    def get(self, start: int, stop: int) -> memoryview | None:
        """Return the bytes of a range that lies in one part."""
        i = bisect.bisect_right(self._starts, start) - 1
        if i < 0 or stop > self._starts[i] + len(self._parts[i]):
            return None
        return self._parts[i][start - self._starts[i] : stop - self._starts[i]]


def in_requests(ranges: Iterable[Span], *, limit: int) -> Iterator[list[Span]]:
    """Deal ranges to requests of at most ``limit`` bytes; a range that is longer has one of its own."""
    group: list[Span] = []
    total = 0
    for start, stop in ranges:
        if group and total + stop - start > limit:
            yield group
            group, total = [], 0
        group.append((start, stop))
        total += stop - start
    if group:
        yield group


class RemoteSource(FSSpecSource):  # type: ignore[misc]
    """The bytes of a remote file, for uproot, in few large requests.

    Small pieces that describe trees come out of larger ones that are read around them. Pages of an RNTuple, for each of
    which uproot makes a request, are read beforehand: see :meth:`ahead`. Every request brings the head of the file
    along: where it is not the one that was read first, another file lies there under the same name.

    Parameters
    ----------
    file_path : URL of the file
    coalesce_config : uproot's: how it joins requests
    options : of fsspec and of uproot's source
    """

    def __init__(self, file_path: str, coalesce_config: Any = None, **options: Any) -> None:
        files, path = filesystem(file_path)
        _forget_listings(files)
        super().__init__(file_path, coalesce_config, **options)
        self.place = file_path
        about = files.info(path)
        self.state = _state_in(about)
        self._size = self.state.size
        if about.get("size") == 0:
            raise PlaceError(f"{file_path}: {signatures.why_not_root(b'')}")
        if "root" in self._fs.protocol:
            # The client keeps handles by address, and goes on reading a file that was replaced: this is our own one.
            self._file_path += f"{'&' if '?' in self._file_path else '?'}rootdata.handle={next(_handles)}"
        self._ahead = Pieces()
        self._near: collections.deque[Pieces] = collections.deque(maxlen=4)
        self._head = b""
        self._near.append(self._read_first())
        _client.was_asked(self.place)

    def __exit__(self, *error: object) -> None:
        """Close the file; where its server does not answer, or Python ends, that is left to the client library."""
        is_open = "root" in self._fs.protocol and not self.closed
        if is_open and not sys.is_finalizing():  # a thread that is started then never runs
            with contextlib.suppress(Exception):
                within(CLOSE_SECONDS, lambda: self._fs.invalidate_cache(self._file_path), place=self.place)
        super().__exit__(*error)
        _client.was_asked(self.place)

    def _read_first(self) -> Pieces:
        stop = min(NEAR, self._size or NEAR)
        data = bytes(self._fs.cat_file(self._file_path, start=0, end=stop))
        why_not = self.why_not(data[: signatures.LENGTH])
        if why_not:
            raise PlaceError(f"{self.place}: {why_not}")
        self._check_parts(data, stop)
        self._head = data[:HEAD]
        return Pieces([(0, data)])

    def why_not(self, head: bytes) -> str:
        """Say why this is no file of the kind that is read; empty if it begins as one."""
        return signatures.why_not_root(head)

    def _check_parts(self, data: bytes, length: int) -> None:
        if len(data) > length:
            raise PlaceError(
                f"{self.place}: the server sends the whole file when it is asked for a part of it (HTTP Range); "
                f"copy the file, or write simplecache::{self.place}"
            )

    @property
    def num_bytes(self) -> int:
        """Size of the file; 0 where the server does not say."""
        return self._size

    def chunk(self, start: int, stop: int) -> Chunk:
        """Return the bytes of a range, fewer at the end of the file."""
        end = min(stop, self._size) if self._size else stop
        data = next((d for p in (self._ahead, *self._near) if (d := p.get(start, end)) is not None), None)
        if data is None:
            data = self._read_near(start, end)
        return Chunk(self, start, stop, TrivialFuture(data))

    def _read_near(self, start: int, stop: int) -> memoryview:
        low = start // NEAR * NEAR
        high = max(stop, low + NEAR)
        self._near.append(self._read([(low, min(high, self._size) if self._size else high)]))
        return self._near[-1].get(start, stop) or memoryview(b"")

    def chunks(self, ranges: list[Span], notifications: queue.Queue[Any]) -> list[Chunk]:
        """Return the bytes of some ranges, and announce them."""
        pieces = self._read(ranges)
        found = [Chunk(self, a, b, TrivialFuture(pieces.get(a, b) or memoryview(b""))) for a, b in ranges]
        for chunk in found:
            notifications.put(chunk)
        return found

    def fetch(self, at: int, size: int) -> memoryview:
        """Return bytes from some place on; see :class:`rootdata.io.local.ByteSource`."""
        if at < 0 or (self._size and at + size > self._size):
            raise EOFError(f"{max(0, self._size - at):,} of {size:,} bytes at {at:,}")
        return memoryview(self.chunk(at, at + size).raw_data)

    @contextmanager
    def ahead(self, ranges: Sequence[Span]) -> Iterator[None]:
        """Read ranges that will be asked for, and keep them meanwhile."""
        self._ahead = self._read(ranges)
        try:
            yield
        finally:
            self._ahead = Pieces()

    def _read(self, ranges: Sequence[Span]) -> Pieces:
        if self.closed:
            raise OSError(f"{self.place} is closed")
        parts: list[tuple[int, bytes]] = []
        for group in in_requests(joined(ranges, gap=GAP), limit=REQUEST_BYTES):
            asked = [(0, len(self._head)), *group]
            self._num_requests += 1
            head, *got = self._fs.cat_ranges(
                [self._file_path] * len(asked), [a for a, _ in asked], [b for _, b in asked], on_error="raise"
            )
            self._check_parts(head, len(self._head))
            if bytes(head) != self._head:
                raise FileError(f"{self.place} was replaced by another file while it was read; start again")
            parts += [
                (start, self._whole(bytes(data), start, stop)) for (start, stop), data in zip(group, got, strict=True)
            ]
        _client.was_asked(self.place)
        return Pieces(parts)

    def _whole(self, data: bytes, start: int, stop: int) -> bytes:
        if len(data) < min(stop, self._size) - start:
            raise OSError(f"{len(data)} of {stop - start} bytes came")
        return data
