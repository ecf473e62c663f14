"""Files that an earlier first pass read under another name: a split by name deals their events anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rootdata.events.split import place_of
from rootdata.options.parts import Split
from rootdata.scan.specs import FileSpecs

Content = tuple[str, int, int, str]
"""UUID, size, entries and tree: what a file holds, whatever it is called."""


def renamed(path: Path, files: Sequence[FileSpecs], split: Split) -> dict[str, str]:
    """Find the files that had other names in an earlier pass, and events in other parts; note the new names.

    Parameters
    ----------
    path : of the notes, a line for each content; a damaged line is passed over
    files : that were scanned just now
    split : decides whether parts go by names at all, and by which part of them

    Returns
    -------
    new name to the one before; empty where the split does not go by names

    Raises
    ------
    OSError
        Where the notes can't be read or written.
    """
    now = {_content(file): place_of(split, file.path) for file in files if place_of(split, file.path)}
    if not now:
        return {}
    known = _read(path)
    new = {content: name for content, name in now.items() if known.get(content) != name}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as notes:  # in one write, beside which others may write
        notes.write("".join(json.dumps([*content, name]) + "\n" for content, name in new.items()))
    return {name: known[content] for content, name in new.items() if content in known}


def _content(file: FileSpecs) -> Content:
    return file.uuid, file.state.size, file.entries, file.tree


def _read(path: Path) -> Mapping[Content, str]:
    known: dict[Content, str] = {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            uuid, size, entries, tree, name = json.loads(line)
            known[uuid, size, entries, tree] = str(name)
        except (ValueError, TypeError):
            continue
    return known
