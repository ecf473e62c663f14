"""Which events belong to train, val and test: decided by the event alone, however it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ConfigError, DataError
from rootdata.expressions.grammar import parse
from rootdata.location import Location, name_of, without_query
from rootdata.missing import Bools, Masked, values_of
from rootdata.options.parts import PARTS, Split

Parts = npt.NDArray[np.uint8]
NO_PART = len(PARTS)
UNKNOWN = NO_PART + 1


def branches_of(split: Split) -> frozenset[str]:
    """Return the branches that the split reads."""
    return frozenset() if split.by in {"hash", "entries", "files"} else frozenset(parse(split.by).names)


def assign(
    split: Split, columns: Mapping[str, Any], *, location: Location, start: int, stop: int, num_entries: int
) -> Parts:
    """Deal a block's events to the parts.

    Parameters
    ----------
    split : how events are told apart
    columns : what the split's expression needs
    location : of the file; its name is part of an event's identity, and decides where the split is by files
    start, stop : the block's entries
    num_entries : of the whole tree

    Returns
    -------
    (stop - start,) uint8, position in ``PARTS``, ``NO_PART`` for events that belong to none, or ``UNKNOWN`` where what
    the split goes by is missing

    Raises
    ------
    DataError
        Where the expression is not a whole number.
    """
    entries = np.arange(start, stop, dtype=np.int64)
    if split.by == "files":
        return np.full(len(entries), part_of_file(split, location), np.uint8)
    if split.by == "entries":
        # (entry + 1/2) / n lies between the bounds for just round(share * n) entries
        return _by_share(split, (entries + 0.5) / max(1, num_entries))
    if split.by == "hash":
        position = uniform(entries, location)
        return _by_share(split, position) if split.folds is None else _by_value(split, _folds(position, split.folds))
    return _by_value(split, _numbers(split, columns, len(entries), location))


def place_of(split: Split, path: str) -> str:
    """Return the part of a file's path that decides the parts of its events; empty where none does."""
    return {"hash": name_of(path), "files": without_query(path)}.get(split.by, "")


def part_of_file(split: Split, location: Location) -> int:
    """Return the part whose patterns match a file.

    Raises
    ------
    ConfigError
        Where no part or more than one claims the file.
    """
    path, name = without_query(location.path), name_of(location.path)
    shares: dict[str, Sequence[str]] = {p: getattr(split, p) for p in PARTS}

    def claimed(pattern: str) -> bool:
        return fnmatch(name, pattern) or fnmatch(path, pattern) or path.endswith("/" + pattern)

    claims = [i for i, p in enumerate(PARTS) if any(claimed(pattern) for pattern in shares[p])]
    if len(claims) != 1:
        parts = " and ".join(PARTS[c] for c in claims) or "no part"
        raise ConfigError(f"split: {path} belongs to {parts}; the patterns of the parts must claim every file once")
    return claims[0]


def _by_share(split: Split, position: npt.NDArray[np.float64]) -> Parts:
    bounds = np.cumsum([split.train, split.val])
    if not split.test:  # whatever the rounding of the sum, a share of 0 gets nothing
        bounds[1 if split.val else 0 :] = 1.0
    return np.searchsorted(bounds, position, side="right").astype(np.uint8)


def _folds(position: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    return (position * count).astype(np.int64)


def _numbers(
    split: Split, columns: Mapping[str, Any], num_events: int, location: Location
) -> npt.NDArray[Any] | Masked:
    values = parse(split.by, where="split.by").evaluate(columns, num_events=num_events)
    if not isinstance(values, np.ndarray | Masked) or values.ndim != 1 or values.dtype.kind not in "iub":
        raise DataError(
            f"split by {split.by!r}: expected one whole number an event ({location.path}); use `//` and `%`"
        )
    return values


def _by_value(split: Split, values: npt.NDArray[Any] | Masked) -> Parts:
    parts = np.full(len(values), NO_PART, np.uint8)
    claimed = np.zeros(len(values), bool)
    rest = NO_PART
    for i, part in enumerate(PARTS):
        wanted = getattr(split, part)
        if wanted is None:
            rest = i
            continue
        hits = _is_one_of(values_of(values), wanted)
        parts[hits] = i
        claimed |= hits
    parts[~claimed] = rest
    if isinstance(values, Masked):
        parts[~values.valid] = UNKNOWN
    return parts


def _is_one_of(values: npt.NDArray[Any], wanted: Sequence[int]) -> Bools:
    """Compare in the type of the values: with others, numpy would go through float64."""
    limits = np.iinfo(np.int64 if values.dtype.kind == "b" else values.dtype)
    held = np.array([w for w in wanted if limits.min <= w <= limits.max], limits.dtype)
    return np.isin(values.astype(limits.dtype, copy=False), held)


def uniform(entries: npt.NDArray[np.int64], location: Location, *, what: str = "") -> npt.NDArray[np.float64]:
    """Draw a number of [0, 1) for each entry of a file, the same whenever it is asked for.

    Parameters
    ----------
    entries : (n,) of the tree
    location : of the file
    what : is drawn for; other numbers for another word
    """
    return _uniform(entries, _file_key(location, what))


def _file_key(location: Location, what: str) -> int:
    # The file's name and tree, not its path: a set that is copied or made again keeps its split.
    text = f"{name_of(location.path)}:{location.tree}{what and f':{what}'}"
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:8], "little")


def _uniform(entries: npt.NDArray[np.int64], key: int) -> npt.NDArray[np.float64]:
    """Hash (key, entry) to [0, 1), with the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        z = entries.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
