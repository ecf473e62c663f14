"""Which friend belongs to which file: by the names of the files, or by their order."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import re
from collections.abc import Sequence

from rootdata.errors import FileError
from rootdata.location import Friend, Location, is_remote, name_of


def befriended(locations: Sequence[Location], found: Sequence[Location], *, alias: str, where: str) -> list[Location]:
    """Add friends to the files that they belong to.

    A friend belongs to the file whose name it has, with more before or behind it: ``ttH_1_Friend.root`` and
    ``scores_ttH_1.root`` to ``ttH_1.root``. Where no name says so, friends belong to files in their order.

    Parameters
    ----------
    locations : of a sample
    found : files of friends, in the order in which they were named
    alias : what their branches are called by; empty for the names of their trees
    where : what to name in an error

    Raises
    ------
    FileError
        Where some friend belongs to no file, or some file has more or fewer friends than others.
    """
    owners = _by_name(locations, found, where) or _by_order(locations, found, where)
    friends: list[list[Friend]] = [[] for _ in locations]
    for owner, friend in zip(owners, found, strict=True):
        friends[owner].append(Friend(friend.path, friend.tree, alias))
    wanted = 1 if alias else max(len(own) for own in friends)
    for location, own in zip(locations, friends, strict=True):
        if len(own) != wanted:
            raise FileError(
                f"{where}: {location.path} has {len(own)} friends where {wanted} would be right; name as many files of "
                "friends for each file"
            )
    return [dataclasses.replace(w, friends=(*w.friends, *own)) for w, own in zip(locations, friends, strict=True)]


def path_of(written: str, place: str) -> str:
    """Find the file of a friend that a file names: beside that file, or, as ROOT does, from the working folder.

    Parameters
    ----------
    written : the friend's file as it stands there; empty for the file itself
    place : of the file that names it
    """
    path = os.path.expandvars(written)
    if not path:
        return place
    if is_remote(path) or os.path.isabs(path):  # noqa: PTH117 - it may be a URL
        return path
    if is_remote(place):
        return posixpath.join(posixpath.dirname(place), path)
    beside = os.path.join(os.path.dirname(place), path)  # noqa: PTH118, PTH120
    return beside if os.path.exists(beside) or not os.path.exists(path) else path  # noqa: PTH110


def _by_name(locations: Sequence[Location], found: Sequence[Location], where: str) -> list[int] | None:
    """Find the file that each friend is called after; none where their names say nothing."""
    stems = {_stem(location.path): i for i, location in enumerate(locations)}
    if len(stems) < len(locations):
        return None
    owners = [_owner(_stem(friend.path), stems) for friend in found]
    named = [owner for owner in owners if owner is not None]
    if named and len(named) < len(owners) and len(locations) > 1:
        lost = found[owners.index(None)].path
        raise FileError(
            f"{where}: {lost} is called after none of the {len(locations)} files, as other friends are; call it after "
            "the file that it belongs to"
        )
    return named if len(named) == len(owners) else None


def _owner(stem: str, stems: dict[str, int]) -> int | None:
    """Return the number of the longest name that is a friend's, or a part of it from its start or to its end."""
    words = [m.start() for m in re.finditer(r"[^A-Za-z0-9]", stem)]
    parts = [stem, *(stem[:at] for at in words), *(stem[at + 1 :] for at in words)]
    return next((stems[part] for part in sorted(parts, key=len, reverse=True) if part in stems), None)


def _by_order(locations: Sequence[Location], found: Sequence[Location], where: str) -> list[int]:
    if not found or len(found) % len(locations):
        raise FileError(
            f"{where}: {len(found)} friends for {len(locations)} files; name one for each, or call each after the file "
            "that it belongs to, as ttH_1_Friend.root after ttH_1.root"
        )
    return [i % len(locations) for i in range(len(found))]


def _stem(path: str) -> str:
    return re.sub(r"\.root(\.\d+)?$|\.[A-Za-z]\w*$", "", posixpath.basename(name_of(path).replace(os.sep, "/")))
