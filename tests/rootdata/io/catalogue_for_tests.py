"""What uproot makes of every column of a file, to compare with; ``python catalogue_for_tests.py FILES`` counts."""

from __future__ import annotations

import collections
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from rootdata.errors import FileError
from rootdata.inspection.files import inspect
from rootdata.io.trees import Tree, look_into, open_tree
from rootdata.jagged import Jagged
from rootdata.location import Location

_STEP = re.compile(r"\[(\d+)\]|\.(\w+)")


def check(path: Path) -> collections.Counter[str]:
    """Inspect every tree of a file, and compare every usable column with uproot; count columns by what they are."""
    counts: collections.Counter[str] = collections.Counter(files=1)
    try:
        contents = look_into(str(path))
    except FileError as error:
        counts[f"no ROOT file that can be read: {str(error).split(':')[-1].strip()[:60]}"] += 1
        return counts
    for listed in contents.trees:
        counts["trees"] += 1
        if listed.note:
            counts["trees that can't be used"] += 1
            continue
        found = inspect([str(path)], tree=listed.name, flags=True, entries=10**9)
        tree = open_tree(Location(str(path), listed.name))
        with uproot.open(path) as file:
            counts += compare(tree, file[listed.name], {n: c.branch.note for n, c in found.columns.items()
                                                        if not c.is_usable})  # fmt: skip
        tree.close()
    return counts


def compare(tree: Tree, source: Any, unusable: Mapping[str, str]) -> collections.Counter[str]:
    """Compare the columns of a tree with uproot's, whole and in ranges, but for those that are told to be unusable."""
    counts: collections.Counter[str] = collections.Counter()
    n = tree.num_entries
    ranges = [(0, n), (n // 3, n), (0, n // 2), (n // 3, n // 2 + 1 if n > 1 else n), (n // 2, n // 2)]
    whole: dict[str, Any] = {}
    for name in tree.names():
        kind = "unusable" if {name, name.replace(".", "_", 1)} & unusable.keys() else tree.describe(name).kind
        counts[kind] += 1
        if kind == "unusable":
            continue
        try:
            wanted = by_uproot(tree, source, name, whole)
        except ValueError as error:  # lists that only their counter delimits
            if "wrong number of entries" not in str(error):
                raise
            counts["columns that uproot can't read"] += 1
            continue
        for start, stop in ranges:
            got = tree.read([name], start, stop)[name]
            assert_same(got, wanted[start:stop], f"{tree.place}: {name} {start} {stop}")
    return counts


def by_uproot(tree: Any, source: Any, name: str, whole: dict[str, Any]) -> Any:
    """Return a column as uproot reads it, and follow what its name says behind that of the branch."""
    key, part = tree._find(name)
    if key not in whole:
        whole.clear()
        branch = tree._branches[key] if hasattr(tree, "_branches") else source[key]
        whole[key] = branch.array(library="ak")
    array = whole[key]
    is_list = tree.describe(name).kind == "jagged"
    for index, member in _STEP.findall(part.suffix if part else ""):
        array = array[member] if member else array[:, :, int(index)] if is_list else array[:, int(index)]
    return array


def assert_same(got: Any, wanted: Any, what: str) -> None:
    """Compare every bit of a column with an awkward array."""
    if isinstance(got, Jagged):
        assert got.counts.tolist() == ak.num(wanted).to_list(), what
        wanted = ak.flatten(wanted)
        got = got.trimmed().content
    numbers = ak.to_numpy(wanted)
    assert got.dtype == numbers.dtype.newbyteorder("="), (what, got.dtype, numbers.dtype)
    assert got.shape == numbers.shape, what
    assert got.tobytes() == np.ascontiguousarray(numbers, got.dtype).tobytes(), what


def check_all(paths: Iterable[Path]) -> Iterator[tuple[Path, collections.Counter[str] | Exception]]:
    """Check files one after the other, whatever the others are like."""
    for path in paths:
        try:
            yield path, check(path)
        except Exception as error:  # noqa: BLE001 - all of them are told
            yield path, error


if __name__ == "__main__":
    total: collections.Counter[str] = collections.Counter()
    for path, found in check_all(sorted(map(Path, sys.argv[1:]))):
        if isinstance(found, Exception):
            print(f"{path}: {type(found).__name__}: {str(found)[:300]}")
        else:
            total += found
    print(*(f"{number:>8} {what}" for what, number in total.most_common()), sep="\n")
