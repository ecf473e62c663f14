"""What a list of files names: a path a line, the table that Rucio prints, or JSON as open data publish it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rootdata.location import without_query

ENDINGS = (".txt", ".list", ".json")

Entry = str | tuple[str, ...]
"""A path, an address or a pattern; or the places of copies of one file."""

_COPIES = ("pfns", "replicas", "rses")
_PLACES = ("uri", "url", "pfn", "path", "lfn")
_INSIDE = ("_file_indices", "files", "file", "metadata")  # an index of files before what else belongs to a record
_OBJECT_PATH = "object_path"  # with which uproot and coffea name a tree
_OF_STORAGE = ("srm://", "gsiftp://", "davs://", "dav://")  # for copying whole files
_JSON = re.compile(r'\s*(\{|\[\s*(["{\]]|-?\d+\s*[,\]]))')  # ``[ab].root`` is a pattern
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://[^\s|]+")


class ListError(ValueError):
    """A list of files that can't be understood."""


def is_list(path: str) -> bool:
    """Say whether a path or an address is that of a list, by its name."""
    return without_query(path).endswith(ENDINGS)


def entries_of(text: str) -> list[Entry]:
    r"""Return what a list names, in its order.

    Parameters
    ----------
    text : of the list: JSON, where it begins so, or lines; ``#`` begins a comment

    Raises
    ------
    ListError
        For JSON that is none, or that names no files in a way that is known.

    Examples
    --------
    >>> entries_of("# good runs\n\nroot://host//a.root\n")
    ['root://host//a.root']
    >>> entries_of('[{"uri": "root://host//a.root", "size": 12}]')
    ['root://host//a.root']
    """
    if _JSON.match(text):
        return list(_of_json(text))
    lines = [line.strip() for line in text.splitlines()]
    rows = [line for line in lines if line.startswith("|")]
    return _of_rows(rows) if rows else [line for line in lines if line and not line.startswith("#")]


def _of_rows(rows: list[str]) -> list[Entry]:
    """Read the table of ``rucio list-file-replicas``: a row for each copy, of which those of one file are together."""
    copies: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        found = _ADDRESS.search(row)
        if found:
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            copies.setdefault(tuple(cells[:2]) if len(cells) > 2 else (found[0],), []).append(found[0])
    if not copies:
        raise ListError("its table has no addresses; let `rucio list-file-replicas` write it")
    return [_copies(places) for places in copies.values()]


def _copies(places: list[str]) -> Entry:
    places = [place for place in places if not place.startswith(_OF_STORAGE)] or places
    return places[0] if len(places) == 1 else tuple(dict.fromkeys(places))


def _of_json(text: str) -> Iterator[Entry]:
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ListError(f"it begins as JSON, and is none ({error})") from error
    yield from _within(plain)


def _within(plain: Any) -> Iterator[Entry]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, list):
        for one in plain:
            yield from _within(one)
    elif isinstance(plain, Mapping):
        yield from _of_object(plain)
    else:
        raise ListError(f"{plain!r:.60} names no file; expected a path, or an object with its `uri`")


def _of_object(plain: Mapping[str, Any]) -> Iterator[Entry]:
    places = [place for key in _COPIES if plain.get(key) for place in _flat(plain[key])]
    if places:
        yield _copies(places)
        return
    own = next((plain[key] for key in _PLACES if isinstance(plain.get(key), str)), None)
    if own is not None:
        yield own
        return
    inside = next((plain[key] for key in _INSIDE if plain.get(key)), None)
    if inside is not None:
        yield from _within(inside)
        return
    name = plain.get("name")
    if isinstance(name, str):
        yield name
        return
    samples = [key for key, value in plain.items() if not _is_tree(value)]
    if len(samples) > 1:
        raise ListError(f"it names {len(samples)} samples, {', '.join(map(repr, samples[:3]))}; write a list for each")
    for key, value in plain.items():
        yield from [_with_tree(key, value)] if _is_tree(value) else _within(value)


def _flat(places: Any) -> Iterator[str]:
    """Find the addresses in a list of them, in the keys of a mapping, or in its values."""
    if isinstance(places, str):
        yield places
    elif isinstance(places, list):
        for one in places:
            yield from _flat(one.get("pfn", one.get("url", [])) if isinstance(one, Mapping) else one)
    elif isinstance(places, Mapping):
        addresses = [key for key in places if "://" in key]
        yield from addresses or (place for value in places.values() for place in _flat(value))


def _is_tree(value: Any) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, Mapping) and _OBJECT_PATH in value)


def _with_tree(path: str, value: Any) -> Entry:
    """Read ``{path: tree}``."""
    if "/" not in path and "." not in path:
        raise ListError(f"{path!r} names no file; expected a path, or an object with its `uri`")
    tree = value[_OBJECT_PATH] if isinstance(value, Mapping) else value
    return f"{path}:{tree}" if tree else path
