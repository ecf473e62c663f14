"""Files of events: find them, by path, glob, folder, list or URL, and tell one state of a file from another."""

from __future__ import annotations

import dataclasses
import functools
import glob
import os
import re
import stat
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from rootdata.causes import Cause, cause_of, told
from rootdata.errors import FileError, nearest
from rootdata.io import remote
from rootdata.io.lists.entries import Entry, ListError, entries_of, is_list
from rootdata.io.retry import is_absent
from rootdata.io.tables.known import endings, has_trees
from rootdata.location import Location, State, is_remote, together
from rootdata.options.read import ReadConfig

_REDIRECTOR = "root://cms-xrd-global.cern.ch/"
ASKED_AT_ONCE = 16  # remote files whose state is asked for

_WITH_TREE = re.compile(r"^(?P<path>.+\.root(?:\.\d+)?)(?::(?P<tree>[^:]+))?$")


def find(
    patterns: Iterable[str | tuple[str, ...]],
    *,
    tree: str | None = None,
    where: str = "files",
    read: ReadConfig = ReadConfig(),
) -> list[Location]:
    """Turn paths, globs, folders, ``path:tree`` and text files of those into locations.

    Parameters
    ----------
    patterns : in the order in which files are wanted; a glob's matches come sorted
    tree : the tree's name for those that do not name one
    where : what to name in an error
    read : how long servers are waited for that list files

    Raises
    ------
    FileError
        Where a path or a glob matches nothing, or a file is named twice.
    """
    found = [location for pattern in patterns for location in _places(pattern, tree, where, read)]
    seen: set[Location] = set()
    for location in found:
        if identity(location) in seen:
            raise FileError(f"{where}: {location.path} is named twice, its events would count double; name it once")
        seen.add(identity(location))
    return found


def _places(
    pattern: Entry, tree: str | None, where: str, read: ReadConfig, lists: tuple[str, ...] = ()
) -> list[Location]:
    if isinstance(pattern, str):
        found = _expand(pattern, tree, where, read, lists)
        return [place if has_trees(place.path) else dataclasses.replace(place, tree=None) for place in found]
    copies = [_place(place, tree) for place in pattern]
    for copy in copies:
        if copy.tree != copies[0].tree or has_glob(copy.path):
            raise FileError(
                f"{where}: copies {list(pattern)} must be of one tree, each with its own path; name them so"
            )
    if not any(is_remote(c.path) or os.path.exists(c.path) for c in copies):  # noqa: PTH110 - never raises
        raise FileError(f"{where}: none of the copies {list(pattern)} exists; check the paths (seen from {Path.cwd()})")
    return [dataclasses.replace(copies[0], replicas=tuple(c.path for c in copies[1:]))]


def _place(text: str, tree: str | None) -> Location:
    """Split ``path:tree``; a file whose name is the whole text is taken as it is written."""
    if os.path.lexists(text):
        return Location(text, tree)
    text = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 - globs are text, not paths
    match = _WITH_TREE.match(text)
    return Location(match["path"], match["tree"] or tree) if match else Location(text, tree)


def has_glob(path: str) -> bool:
    """Say whether a path is a pattern."""
    if is_remote(path):
        return remote.has_glob(path)
    return glob.has_magic(path) and not os.path.lexists(path)


def identity(location: Location) -> Location:
    """Return the location with its path in the one form that all ways to write it share, and without its friends."""
    path = location.path if is_remote(location.path) else os.path.realpath(location.path)
    return dataclasses.replace(location, path=path, friends=())


def _expand(pattern: str, tree: str | None, where: str, read: ReadConfig, lists: tuple[str, ...]) -> list[Location]:
    place = _place(pattern, tree)
    path, tree = place.path, place.tree
    if is_remote(path):
        return _expand_remote(place, where, read, lists)
    status = None if has_glob(path) else _status(path, where)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return [Location(m, tree) for m in _in_folder(path, where)]
    if has_glob(path):
        return [Location(p, tree) for m in _matches(path, where) for p in ([m] if has_trees(m) else _parts(m, where))]
    if status is None:
        raise FileError(f"{where}: {_absent(path)}; check the path (seen from {Path.cwd()})")
    if is_list(path):
        return _expand_list(place, _text_of(Path(path), where), where, read, lists)
    return [Location(path, tree)]


def _status(path: str, where: str) -> os.stat_result | None:
    """Look at a path; ``None`` where there is nothing."""
    try:
        return os.stat(path)  # noqa: PTH116 - the path may be no text that a Path takes
    except (OSError, ValueError) as error:
        if is_absent(error):
            return None
        raise FileError(told(f"{where}: {path!r} can't be looked at", error)) from error


def _absent(path: str) -> str:
    if os.path.islink(path):  # noqa: PTH114 - never raises
        return f"{path!r} is a link to {os.readlink(path)!r}, which does not exist"  # noqa: PTH115 - as it is written
    if path.startswith("/store/"):
        return f"{path!r} is the name of a file in the catalogue of CMS; write a server before it, {_REDIRECTOR}{path}"
    return f"{path!r} does not exist{_neighbours(path)}"


def _matches(pattern: str, where: str) -> list[str]:
    """Return the files that match a pattern, sorted; say so where folders can't be looked into."""
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    closed = list(_closed_folders(pattern))
    if closed and not matches:
        raise FileError(told(f"{where}: what matches {pattern!r} can't be listed", closed[0]))
    if not matches:
        raise FileError(f"{where}: no file matches {pattern!r} (seen from {Path.cwd()}); check the pattern")
    if closed:
        words = f"{where}: {len(closed)} folders can't be looked into, what matches {pattern!r} there is left out"
        warnings.warn(told(words, closed[0]), stacklevel=2)
    return matches


def _parts(path: str, where: str) -> list[str]:
    """Return a file itself, or the files of the folder that is called as one, as Spark and dask write tables."""
    return _in_folder(path, where) if os.path.isdir(path) else [path]  # noqa: PTH112 - never raises


def _in_folder(folder: str, where: str) -> list[str]:
    """Return the files of a folder: its ROOT files, or, where it has none, those of the next kind that it has."""
    for known in endings():
        found = [
            path
            for ending in known
            for path in glob.glob(str(Path(glob.escape(folder)) / f"*{ending}"))  # noqa: PTH207 - as all matches
        ]
        if found:
            return sorted(found)
    return _matches(str(Path(glob.escape(folder)) / "*.root"), where)  # says what is wrong


def _closed_folders(pattern: str) -> Iterator[OSError]:
    """Find folders on the way of a pattern that can't be listed or entered; one that is not there does not count."""
    parts = Path(pattern).parts
    for depth, part in enumerate(parts):
        above = str(Path(*parts[:depth]))
        is_listed, is_pattern = glob.has_magic(part), glob.has_magic(above)
        for folder in glob.glob(above, recursive=True) if is_pattern else [above] * is_listed:  # noqa: PTH207
            try:
                if is_listed:
                    os.scandir(folder).close()
                else:
                    os.stat(f"{folder}/.")  # noqa: PTH116 - a Path would leave out the point
            except OSError as error:
                if cause_of(error) not in {Cause.ABSENT, Cause.PATH}:
                    yield error


def _expand_remote(place: Location, where: str, read: ReadConfig, lists: tuple[str, ...]) -> list[Location]:
    if is_list(place.path):
        return _expand_list(place, remote.text_of(place.path, read=read), where, read, lists)
    if not remote.has_glob(place.path):
        return [place]
    matches = remote.find(place.path, read=read)
    if not matches:
        raise FileError(f"{where}: no file matches {place.path!r}; check the pattern")
    return [Location(m, place.tree) for m in matches]


def _expand_list(place: Location, text: str, where: str, read: ReadConfig, lists: tuple[str, ...]) -> list[Location]:
    path, inside = place.path, f"{where} ({place.path})"
    if path in lists:
        raise FileError(f"{where}: {path} names itself; take it out of the list")
    try:
        entries = entries_of(text)
    except ListError as error:
        raise FileError(f"{where}: the list {path!r} can't be used: {error}") from error
    found = [location for entry in entries for location in _places(entry, place.tree, inside, read, (*lists, path))]
    if not found:
        raise FileError(f"{where}: {path} names no file; write one path a line")
    return found


def _text_of(path: Path, where: str) -> str:
    """Read a text of paths, whatever bytes those are made of."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise FileError(told(f"{where}: the list {str(path)!r} can't be read", error)) from error


def _neighbours(path: str) -> str:
    """Say which files beside an absent one have names like it."""
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(os.path.dirname(path) or ".")  # noqa: PTH208, PTH120
    name = Path(path).name
    twins = [n for n in names if n != name and _composed(n) == _composed(name)]
    if twins:
        return f"; {twins[0]!a} does: the same letters, in another form of Unicode"
    return f"; {nearest(name, names)}" if names else ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def state_of(
    location: Location,
    *,
    read: ReadConfig = ReadConfig(),
    closed: threading.Event | None = None,
) -> State:
    """Return the state of a file and its friends now: here by a look at the folder, elsewhere by a request.

    Parameters
    ----------
    location : of the file; a remote one is asked for at its copies as well
    read : how long a server that fails is asked again, and an answer waited for; what it does not tell is not known
    closed : makes waiting for a server end at once
    """
    if location.friends:
        files = [dataclasses.replace(location, friends=()), *(Location(friend.path) for friend in location.friends)]
        return together([state_of(file, read=read, closed=closed) for file in files])
    if is_remote(location.path):
        return remote.state_of((location.path, *location.replicas), read=read, closed=closed)
    try:
        return _state(Path(location.path).stat())
    except OSError:  # whoever opens it says what is wrong
        return State()


def state_of_open(handle: int) -> State:
    """Return the state of an open local file."""
    return _state(os.fstat(handle))


def _state(status: os.stat_result) -> State:
    # The time of change is set by every write, rename and replacement, and by nobody's wish, unlike that of writing.
    return State(status.st_size, f"{status.st_mtime_ns}-{status.st_ctime_ns}")


def states_of(locations: Sequence[Location], *, read: ReadConfig = ReadConfig()) -> list[State]:
    """Return the states of files, asking many servers at a time; see :func:`state_of`."""
    if not any(w.needs_network for w in locations):
        return [state_of(w) for w in locations]
    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="rootdata-state") as pool:
        return list(pool.map(functools.partial(state_of, read=read), locations))
