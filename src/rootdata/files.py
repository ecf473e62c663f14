"""ROOT files: find them, by path, glob, folder, list or URL, and tell one state of a file from another."""

from __future__ import annotations

import dataclasses
import glob
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rootdata import remote
from rootdata.errors import FileError, nearest
from rootdata.location import State

ASKED_AT_ONCE = 16  # remote files whose state is asked for

_WITH_TREE = re.compile(r"^(?P<path>.+\.root)(?::(?P<tree>[^:]+))?$")


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """A file and, where it was given, the name of the tree in it.

    Parameters
    ----------
    replicas : other places at which copies of the file lie
    """

    path: str
    tree: str | None = None
    replicas: tuple[str, ...] = ()


def find(patterns: Iterable[str | tuple[str, ...]], *, tree: str | None = None, where: str = "files") -> list[Location]:
    """Turn paths, globs, folders, ``path:tree`` and text files of those into locations.

    Parameters
    ----------
    patterns : in the order in which files are wanted; a glob's matches come sorted
    tree : the tree's name for those that do not name one
    where : what to name in an error

    Raises
    ------
    FileError
        Where a path or a glob matches nothing, or a file is named twice.
    """
    found = [location for pattern in patterns for location in _places(pattern, tree, where)]
    seen: set[Location] = set()
    for location in found:
        if identity(location) in seen:
            raise FileError(f"{where}: {location.path} is named twice, its events would count double; name it once")
        seen.add(identity(location))
    return found


def _places(pattern: str | tuple[str, ...], tree: str | None, where: str) -> list[Location]:
    if isinstance(pattern, str):
        return _expand(pattern, tree, where)
    copies = [_place(place, tree) for place in pattern]
    for copy in copies:
        if copy.tree != copies[0].tree or has_glob(copy.path):
            raise FileError(
                f"{where}: copies {list(pattern)} must be of one tree, each with its own path; name them so"
            )
    if not any(remote.is_remote(c.path) or Path(c.path).exists() for c in copies):
        raise FileError(f"{where}: none of the copies {list(pattern)} exists; check the paths (seen from {Path.cwd()})")
    return [dataclasses.replace(copies[0], replicas=tuple(c.path for c in copies[1:]))]


def _place(text: str, tree: str | None) -> Location:
    """Take a path and a tree's name apart."""
    text = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 - globs are text, not paths
    match = _WITH_TREE.match(text)
    return Location(match["path"], match["tree"] or tree) if match else Location(text, tree)


def has_glob(path: str) -> bool:
    """Say whether a path is a pattern."""
    return remote.has_glob(path) if remote.is_remote(path) else glob.has_magic(path) and not Path(path).exists()


def identity(location: Location) -> Location:
    """Return the location with its path in the one form that all ways to write it share."""
    if remote.is_remote(location.path):
        return location
    return dataclasses.replace(location, path=os.path.realpath(location.path))


def _expand(pattern: str, tree: str | None, where: str, lists: tuple[str, ...] = ()) -> list[Location]:
    place = _place(pattern, tree)
    path, tree = place.path, place.tree
    if remote.is_remote(path):
        return _expand_remote(place, where)
    if Path(path).is_dir():
        path = str(Path(glob.escape(path)) / "*.root")
    if has_glob(path):
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise FileError(f"{where}: no file matches {path!r} (seen from {Path.cwd()}); check the pattern")
        return [Location(m, tree) for m in matches]
    if not Path(path).exists():
        raise FileError(f"{where}: {path!r} does not exist{_neighbours(path)}; check the path (seen from {Path.cwd()})")
    if path.endswith((".txt", ".list")):
        return _expand_list(Path(path), tree, where, lists)
    return [Location(path, tree)]


def _expand_remote(place: Location, where: str) -> list[Location]:
    if not remote.has_glob(place.path):
        return [place]
    matches = remote.find(place.path)
    if not matches:
        raise FileError(f"{where}: no file matches {place.path!r}; check the pattern")
    return [Location(m, place.tree) for m in matches]


def _expand_list(path: Path, tree: str | None, where: str, lists: tuple[str, ...]) -> list[Location]:
    if str(path) in lists:
        raise FileError(f"{where}: {path} names itself; take it out of the list")
    lines = (line.split("#", 1)[0].strip() if line.lstrip().startswith("#") else line.strip()
             for line in path.read_text().splitlines())  # fmt: skip
    inside, lists = f"{where} ({path})", (*lists, str(path))
    found = [location for line in lines if line for location in _expand(line, tree, inside, lists)]
    if not found:
        raise FileError(f"{where}: {path} names no file; write one path a line")
    return found


def name_of(path: str) -> str:
    """Return the name of a file without its folder, its host, and what a URL says behind it (``?token=...``).

    Examples
    --------
    >>> name_of("https://host/data/ttH.root?X-Amz-Date=20260101"), name_of("data/what?.root")
    ('ttH.root', 'what?.root')
    """
    return posixpath.basename(without_query(path))


def without_query(path: str) -> str:
    """Return an address without query and fragment, which say who asks and for how long; other paths as they are."""
    return re.split("[?#]", path, maxsplit=1)[0] if remote.is_remote(path) else path


def _neighbours(path: str) -> str:
    folder = Path(path).parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return f"; {nearest(Path(path).name, names)}" if names else ""


def state_of(location: Location, *, patience: float = remote.LOOK_SECONDS) -> State:
    """Return the state of a file now: of a local one by a look at its folder, of a remote one by a request.

    Parameters
    ----------
    patience : seconds during which a server that fails is asked again; what it does not tell is not known
    """
    if remote.is_remote(location.path):
        return remote.state_of((location.path, *location.replicas), patience=patience)
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


def states_of(locations: Sequence[Location]) -> list[State]:
    """Return the states of files, asking many servers at a time."""
    if not any(remote.is_remote(w.path) for w in locations):
        return [state_of(w) for w in locations]
    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="rootdata-state") as pool:
        return list(pool.map(state_of, locations))
