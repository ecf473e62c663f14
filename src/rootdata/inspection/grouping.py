"""Which branches belong together: the features of one kind of object."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from rootdata.inspection.measure import BranchFacts


def collections_of(columns: Mapping[str, BranchFacts]) -> dict[str, tuple[str, ...]]:
    """Group the jagged branches that share their counts: by the counter that the file names, or by their names.

    Returns
    -------
    name of a collection to its branches, both in file order
    """
    shared = Counter(column.branch.counter for column in columns.values())
    buckets: dict[tuple[str | None, str], list[str]] = {}
    for name, column in columns.items():
        if column.branch.kind == "jagged":
            # A counter for each branch, as uproot writes them, says nothing; then names and counts do.
            counter = column.branch.counter if shared[column.branch.counter] > 1 else None
            buckets.setdefault((counter, "" if counter else _first_word(name)), []).append(name)
    groups: dict[str, tuple[str, ...]] = {}
    for (counter, word), names in buckets.items():
        for members in _with_same_counts(names, columns):
            is_one = counter or word or len(_common_start(members)) > 2
            for together in [members] if is_one else [[name] for name in members]:
                title = _title(together, counter)
                numbered = (f"{title}_{i}" for i in range(2, len(columns) + 2))
                groups[title if title not in groups else next(n for n in numbered if n not in groups)] = tuple(together)
    return groups


def _with_same_counts(names: Sequence[str], columns: Mapping[str, BranchFacts]) -> list[list[str]]:
    """Divide branches into groups that agree in every file; one may be absent from files that another is in."""
    groups: list[tuple[dict[str, int], list[str]]] = []
    for name in sorted(names, key=lambda n: -len(columns[n].marks)):
        marks = columns[name].marks
        fitting = (g for g in groups if all(g[0].get(file, mark) == mark for file, mark in marks.items()))
        known, members = next(fitting, ({}, []))
        if not members:
            groups.append((known, members))
        known.update(marks)
        members.append(name)
    order = {name: i for i, name in enumerate(columns)}
    return sorted((sorted(members, key=order.__getitem__) for _, members in groups), key=lambda m: order[m[0]])


def without_own_counters(
    columns: Mapping[str, BranchFacts], collections: Mapping[str, tuple[str, ...]]
) -> dict[str, BranchFacts]:
    """Leave out ``nJet_eta`` of ``Jet_eta`` where the branch is one of a collection: it tells nothing more."""
    members = (columns[name].branch for names in collections.values() if len(names) > 1 for name in names)
    own = {b.counter for b in members if b.counter == f"n{b.name}"}
    return {name: column for name, column in columns.items() if name not in own}


def _first_word(name: str) -> str:
    """Take what comes before the first separator, or the lower-case head of ``jetPt``; nothing for one plain word."""
    match = re.match(r"([A-Za-z0-9]+)[_.]|([a-z0-9]{2,})(?=[A-Z])", name)
    return (match[1] or match[2]) if match else ""


def _title(names: Sequence[str], counter: str | None) -> str:
    """Name a collection after its counter, or the words or letters that its branches begin with."""
    stem = re.sub(r"^[nN]_?(?=\w)|_(size|count|[nN])$", "", counter) if counter else ""
    stem = stem.rstrip("_.:/")
    if stem and names[0].startswith(stem):
        return stem
    words = [re.split(r"[_.:]", name) for name in names]
    common = _common_start(words)[: min(map(len, words)) - 1]
    return "_".join(common) or stem or _first_word(names[0]) or "".join(_common_start(names))


def _common_start(sequences: Sequence[Sequence[str]]) -> list[str]:
    together = zip(*sequences, strict=False)
    return [items[0] for items in itertools.takewhile(lambda items: len(set(items)) == 1, together)]
