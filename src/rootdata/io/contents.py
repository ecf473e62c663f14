"""The trees that an open file holds, in all its folders: listed, or one of them found, whatever the others are like.

Of histograms the content of one bin is all that is asked for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from rootdata.errors import BranchError, nearest
from rootdata.io.guard import Unusable, guarded
from rootdata.io.retry import PlaceError

_TREES = {"TTree": "TTree", "TNtuple": "TTree", "TNtupleD": "TTree", "TChain": "TChain"}
_HISTOGRAMS = "TH1"  # what the names of their classes begin with
_FOLDERS = {"TDirectory", "TDirectoryFile"}
_OF_A_CHAIN = "it is a TChain, which names trees in other files and holds no data; name those files instead"
_PREVIEW = (
    "it is a preview of RNTuple, from before its format was settled, which nobody reads any more; write it anew with "
    "ROOT 6.34 or later"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """A tree of a file, or a folder in it that can't be looked into.

    Parameters
    ----------
    kind : ``TTree``, ``RNTuple``, ``TChain`` or ``folder``
    entries : none where they can't be told, or were not asked for
    note : why it can't be used
    """

    name: str
    kind: str
    entries: int | None
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Parameters
    ----------
    compression : of the file, such as ``ZLIB(1)``
    """

    compression: str
    trees: tuple[Listed, ...]

    @property
    def usable(self) -> tuple[Listed, ...]:
        """The trees that can be used, as far as is known."""
        return tuple(tree for tree in self.trees if not tree.note)


def kind_of(key: Any) -> str:
    """Say what kind of tree a key of uproot leads to; nothing where it is none."""
    return _kind(key.fClassName)


def _kind(classname: str) -> str:
    return "RNTuple" if "RNTuple" in classname else _TREES.get(classname, "")


def why_not_read(key: Any, tree: Any = None) -> str:
    """Say why a tree can't be read, though it is sound; nothing where it can.

    Parameters
    ----------
    key : of uproot, that leads to it
    tree : what is there, where it was looked at
    """
    if kind_of(key) == "TChain":
        return _OF_A_CHAIN
    epoch = getattr(tree, "_members", {}).get("fVersionEpoch")
    return _PREVIEW if kind_of(key) == "RNTuple" and ("Experimental" in key.fClassName or epoch == 0) else ""


def contents_of(file: Any, *, leave: Callable[[Sequence[str]], str | None]) -> Contents:
    """List the trees of a file of uproot.

    Parameters
    ----------
    file : an open ROOT file of uproot
    leave : takes the names of the trees, and returns that of one whose entries are not asked for, as that takes long
    """
    keys = _keys(file)
    left = leave(list(_trees(keys)))
    compression = guarded(lambda: str(file.file.compression or "none"))
    return Contents(
        "unknown" if isinstance(compression, Unusable) else compression,
        tuple(_listed(name, key, is_left=name == left) for name, key in keys.items()),
    )


def find_only(file: Any, place: str) -> tuple[str, Any]:
    """Return the only tree of a file: its name and key.

    Raises
    ------
    BranchError
        Where there is none, or more than one.
    """
    keys = _keys(file)
    trees = _trees(keys)
    if len(trees) == 1:
        return next(iter(trees.items()))
    held = ", ".join(repr(name) for name in sorted(trees)) or "none"
    others = [_listed(name, key, is_left=True) for name, key in keys.items() if name not in trees]
    notes = "".join(f"; {other.kind} {other.name!r} can't be used: {other.note}" for other in others)
    raise BranchError(f"{place} holds {len(trees)} trees: {held}{notes}; name one with tree=... or path:tree")


def find_named(file: Any, name: str, place: str) -> Any:
    """Return the key of a tree, without a look at the others.

    Parameters
    ----------
    file : an open ROOT file of uproot
    name : of the tree, with the folders that it is in, ``folder/tree``
    place : path of the file, for the error

    Raises
    ------
    BranchError
        Where there is none, or it is one that holds no data.
    PlaceError
        Where the folder that it is in can't be looked into.
    """
    path = name.strip("/")
    key = guarded(lambda: file.key(path))
    if isinstance(key, Unusable) or not kind_of(key):
        raise _not_found(_keys(file), name, place)
    if why := why_not_read(key):
        raise BranchError(f"tree {name!r} of {place} can't be used: {why}")
    return key


def bin_in(file: Any, histogram: str, which: int | str | None, place: str) -> float:
    """Return the content of one bin of a histogram.

    Parameters
    ----------
    file : an open ROOT file of uproot
    histogram : its name, with the folders that it is in
    which : number of the bin, from 0 and without underflow, or its label; ``None`` for the only one
    place : path of the file, for the error

    Raises
    ------
    BranchError
        Where there is no such histogram, or no such bin.
    PlaceError
        Where it can't be read.
    """
    key = guarded(lambda: file.key(histogram.strip("/")))
    if isinstance(key, Unusable) or not key.fClassName.startswith(_HISTOGRAMS):
        known = [n for n, kind in file.classnames(cycle=False).items() if kind.startswith(_HISTOGRAMS)]
        raise BranchError(f"histogram {histogram!r} not found in {place}; {nearest(histogram, known)}")
    found = guarded(key.get)
    if isinstance(found, Unusable):
        raise PlaceError(f"{place}: histogram {histogram!r} can't be read ({found.why}); replace the file")
    contents, labels = found.values(), [str(label) for label in found.axis().labels() or ()]
    if isinstance(which, str) and which in labels:
        return float(contents[labels.index(which)])
    number = 0 if which is None and len(contents) == 1 else which
    if isinstance(number, int) and number < len(contents):
        return float(contents[number])
    named = f", {', '.join(map(repr, labels[:12]))}" if labels else ""
    lacks = "several bins, of which one must be named" if which is None else f"no bin {which!r}"
    raise BranchError(f"histogram {histogram!r} of {place} has {lacks}: 0 to {len(contents) - 1}{named}")


def _not_found(keys: dict[str, Any], name: str, place: str) -> Exception:
    for folder, why in keys.items():
        if isinstance(why, Unusable) and f"{name.strip('/')}/".startswith(f"{folder}/"):
            return PlaceError(f"{place}: {folder!r} in it can't be looked into ({why.why}); replace the file")
    return BranchError(f"tree {name!r} not found in {place}; {nearest(name, _trees(keys))}; check `tree`")


def _trees(keys: dict[str, Any]) -> dict[str, Any]:
    return {name: k for name, k in keys.items() if not isinstance(k, Unusable) and not why_not_read(k)}


def _keys(file: Any) -> dict[str, Any]:
    """Find the keys of all trees by their paths, each in its last cycle, and say what can't be looked into."""
    found: dict[str, Any] = {}
    folders, seen = [("", file)], set()
    while folders:
        above, folder = folders.pop(0)
        for name, classname in folder.classnames(recursive=False, cycle=False).items():
            if not _kind(classname) and classname not in _FOLDERS:
                continue
            key = guarded(functools.partial(folder.key, name))
            if isinstance(key, Unusable) or classname not in _FOLDERS:
                found[above + name] = key
            elif key.fSeekKey not in seen:  # a damaged one may lie in itself
                seen.add(key.fSeekKey)
                inner = guarded(key.get)
                if isinstance(inner, Unusable):
                    found[above + name] = inner
                else:
                    folders.append((f"{above}{name}/", inner))
    return found


def _listed(name: str, key: Any, *, is_left: bool) -> Listed:
    if isinstance(key, Unusable):
        return Listed(name, "folder", None, f"it can't be looked into ({key.why})")
    kind = kind_of(key)
    if is_left or (why := why_not_read(key)):
        return Listed(name, kind, None, why_not_read(key))
    tree = guarded(key.get)
    entries = tree if isinstance(tree, Unusable) else guarded(lambda: int(tree.num_entries))
    why = f"it can't be read ({entries.why})" if isinstance(entries, Unusable) else why_not_read(key, tree)
    return Listed(name, kind, None if why or isinstance(entries, Unusable) else entries, why)
