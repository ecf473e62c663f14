"""What the files with scores are called: after the files of events, those of one name kept apart by their folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rootdata.errors import FileError
from rootdata.io.files import identity
from rootdata.location import Location, is_remote, name_of, without_query

SUFFIX = "_Friend"


def place_of(location: Location) -> str:
    """Return the path of a file as it is written down: absolute, without what a URL says of who asks."""
    return without_query(identity(location).path)


def outputs_of(locations: Sequence[Location], folder: Path) -> list[Path]:
    """Say where the scores of each file go: ``folder/NAME_Friend.root``.

    Files of one name go into folders that are called as theirs, as many levels as it takes; two trees of one file are
    told apart by the name of the tree.

    Raises
    ------
    FileError
        Where two files can't be told apart, or one would be written over.
    """
    stems = _stems(locations)
    folders = [_folders(location) for location in locations]
    depths = [0] * len(locations)
    made = [(*f[len(f) - d :], s) for f, d, s in zip(folders, depths, stems, strict=True)]
    while twins := {name for name, times in Counter(made).items() if times > 1}:
        grown = [d + (m in twins and d < len(f)) for d, m, f in zip(depths, made, folders, strict=True)]
        if grown == depths:
            first, second, *_ = [w.path for w, m in zip(locations, made, strict=True) if m in twins]
            raise FileError(f"{first} and {second} would have their scores in one file; predict them one by one")
        depths = grown
        made = [(*f[len(f) - d :], s) for f, d, s in zip(folders, depths, stems, strict=True)]
    found = [folder.joinpath(*parts[:-1], f"{parts[-1]}{SUFFIX}.root") for parts in made]
    inputs = {os.path.realpath(w.path): w for w in locations if not is_remote(w.path)}
    for path in found:
        if os.path.realpath(path) in inputs:
            raise FileError(
                f"{path} is a file of events, scores would be written over it; choose another folder, out=..."
            )
    return found


def _stems(locations: Sequence[Location]) -> list[str]:
    """Name files without their endings, where that tells them apart, and their trees where it takes that."""
    files = Counter(place_of(location) for location in locations)
    names = [name_of(location.path) for location in locations]
    short = [re.sub(r"\.(root|parquet|arrow|feather|csv)(?=(\.\d+)?$)", "", name) for name in names]
    known = {(stem, place_of(w).rpartition("/")[0]): set[str]() for stem, w in zip(short, locations, strict=True)}
    for name, stem, w in zip(names, short, locations, strict=True):
        known[stem, place_of(w).rpartition("/")[0]].add(name)
    return [
        (stem if len(known[stem, place_of(w).rpartition("/")[0]]) == 1 else name)
        + (f"_{w.tree.replace('/', '_')}" if w.tree is not None and files[place_of(w)] > 1 else "")
        for name, stem, w in zip(names, short, locations, strict=True)
    ]


def _folders(location: Location) -> list[str]:
    """List the folders above a file, from the outermost."""
    above = re.sub(r"^\w+://", "", place_of(location)).rpartition("/")[0]
    return [re.sub(r"[^\w.+-]", "_", part) for part in above.split("/") if part not in {"", ".", ".."}]
