"""What was found in ROOT files, as tables: first what would be taken, and all branches where they are asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rootdata.errors import ConfigError, nearest
from rootdata.inspection.choice import Choice, some
from rootdata.inspection.files import MEASURED_FILES, Inspection, TreeInfo
from rootdata.inspection.measure import BranchFacts
from rootdata.inspection.roles import finding, role_of
from rootdata.io.branches import Branch

OBJECTS = "objects:\nmean ≤ max"
NARROW = 110  # characters of a line, below which the smallest and the largest value share a column
LEAST = {"branch": 24, "note": 12, "why": 24}  # characters, in a narrow terminal
TREES = 40  # that are listed
MORE = "--all shows every branch; --collection Jet and --match REGEX a part of them; --html and --json write them"
NAMED = 12  # branches of a reason that are named
TOLD = 3  # reasons why branches can't be used: of more the table of all branches tells
# As uproot calls numbers, which are the names of C++.
_TYPES = {"float32": "float", "float64": "double", "bool": "bool", "float16": "std::float16_t"}


def overview(found: Inspection, chosen: Choice, *, width: int) -> RenderableType:
    """Lay out what would be trained on, and why not on the rest.

    Parameters
    ----------
    found : what was found in the files
    chosen : what was decided
    width : characters of a line
    """
    parts: list[RenderableType] = [_tree_table(found.trees), _feature_table(found, chosen, width)]
    if chosen.features.left_out or found.flags:
        parts.append(_left_out(found, chosen))
    parts.append(Text("\n".join((*chosen.notes, chosen.labels.note, next(_caption(found)), MORE))))
    return Group(*parts)


def tables(found: Inspection, *, width: int, wanted: Collection[str] | None = None) -> RenderableType:
    """Lay out every branch: a table of trees, one of branches, and one of those that can't be used.

    Parameters
    ----------
    found : what was found in the files
    width : characters of a line
    wanted : names of the branches that are shown; None for all
    """
    names = found.columns.keys() if wanted is None else wanted
    unusable = [c.branch for n, c in found.columns.items() if n in names and c.branch.kind == "unusable"]
    rest = [_reasons(unusable)] if unusable else []
    return Group(_tree_table(found.trees), _branch_table(found, names, width), *rest, Text("\n".join(_caption(found))))


def select(found: Inspection, *, collections: Sequence[str] = (), match: str | None = None) -> list[str] | None:
    """Name the branches of some collections, or those whose names hold a regular expression; None where all are meant.

    Parameters
    ----------
    found : what was found in the files
    collections : names
    match : regular expression, of any part of a name

    Raises
    ------
    ConfigError
        For a collection that is none, an expression that is none, and one that no name holds.
    """
    if not collections and match is None:
        return None
    names: set[str] = set()
    for collection in collections:
        if collection not in found.collections:
            raise ConfigError(f"--collection: {collection!r} is none; {nearest(collection, list(found.collections))}")
        names.update(found.collections[collection])
    if match is not None:
        try:
            pattern = re.compile(match)
        except re.error as error:
            raise ConfigError(f"--match: {match!r} is no regular expression ({error}); try 'Jet_|MET'") from error
        names.update(name for name in found.columns if pattern.search(name))
    if not names:
        raise ConfigError(f"--match: no branch has {match!r} in its name; {nearest(match or '', list(found.columns))}")
    return [name for name in found.columns if name in names]


def typename_of(branch: Branch) -> str:
    """Name what an entry holds as uproot does: ``float``, ``float[]``, ``int32_t[3]``; nothing where unusable.

    Examples
    --------
    >>> typename_of(Branch("Jet_pt", "jagged", "float32")), typename_of(Branch("nJet", "flat", "uint32"))
    ('float[]', 'uint32_t')
    """
    number = _TYPES.get(branch.dtype, f"{branch.dtype}_t" if branch.dtype else "")
    return number + {"jagged": "[]", "fixed": f"[{branch.width}]"}.get(branch.kind, "")


def numbers_of(column: BranchFacts) -> list[str]:
    """Write the smallest value, the mean and the largest one; nothing of a branch without values."""
    stats = column.stats
    return [f"{x:.4g}" for x in ((stats.low, stats.moments.mean, stats.high) if stats.count else ())] or [""] * 3


def missing_of(column: BranchFacts) -> list[str]:
    """Say which values stand for none, and how often; with a question mark where that is only likely."""
    kinds = {"NaN": column.stats.nans, "inf": column.stats.infinities}
    kinds |= {f"{value:.6g}": n for value, n in column.sentinels.items()}
    shares = [f"{name} {n / column.objects:.2%}" for name, n in kinds.items() if n]
    return shares + [f"{value:g}? {n / column.objects:.2%}" for value, n in column.apart.items()]


def note_of(column: BranchFacts, found: Inspection, *, collection: str = "") -> str:
    """Say what is special about a branch.

    Parameters
    ----------
    column : what was measured of it
    found : what was found in the files
    collection : name of the one that it belongs to
    """
    role = role_of(column, found.counters, collection=collection)
    what = "" if column.branch.kind == "unusable" else finding(column)  # the reason is a sentence, for another table
    friend = column.branch.friend and f"of friend {column.branch.friend!r}"
    return "; ".join(n for n in (role, what, friend, found.absent.get(column.branch.name, "")) if n and n != "feature")


def multiplicity_of(column: BranchFacts) -> str:
    """Say how many objects an event has."""
    return f"{column.objects / max(1, column.entries):.3g} ≤ {column.longest}"


# The tables


def _reasons(unusable: Sequence[Branch]) -> Table:
    table = _table("can't be used", ("branch", "why"), right=())
    for branch in unusable:
        table.add_row(Text(branch.name), Text(branch.note))
    return table


def _tree_table(trees: Sequence[TreeInfo]) -> Table:
    notes = ("note",) if any(tree.note for tree in trees[:TREES]) else ()
    headings = ("file", "tree", "class", "entries", "compression", *notes)
    table = _table("trees", headings, right=("entries",))
    previous = ""
    for tree in trees[:TREES]:
        path, previous = tree.path if tree.path != previous else "", tree.path
        style = "red" if tree.note else "bold" if tree.is_chosen else "dim"
        entries = "" if tree.entries is None else f"{tree.entries:,}"
        row = (Text(path, overflow="fold"), Text(tree.name), tree.kind, entries, tree.compression, Text(tree.note))
        table.add_row(*row[: len(headings)], style=style)
    if len(trees) > TREES:
        table.caption = f"and {len(trees) - TREES} more"
    return table


def _feature_table(found: Inspection, chosen: Choice, width: int) -> RenderableType:
    features = chosen.features
    if not features.taken:
        return Text("no branch is left that could be a feature", style="red")
    table = _columns("features that would be taken", width)
    for name in features.flat:
        table.add_row(*_row(found.columns[name], found, width=width))
    for group, names in features.collections.items():
        _add_group(table, group, names, found, width)
    return table


def _left_out(found: Inspection, chosen: Choice) -> Table:
    table = _table("left out", ("why", "branches", "such as"), right=("branches",))
    reasons: dict[str, list[str]] = {}
    is_unusable = [why for why in chosen.features.left_out if why.startswith("unusable: ")]
    for why, names in chosen.features.left_out.items():
        is_told = len(is_unusable) <= TOLD and why in is_unusable
        reasons.setdefault(why if is_told else _shorter(why), []).extend(names)
    for why, several in reasons.items():
        more = ", ..." * (len(several) > NAMED)
        table.add_row(Text(why), f"{len(several):,}", Text(", ".join(several[:NAMED]) + more))
    if found.flags:
        table.add_row("trigger bits and flags, not looked at", f"{len(found.flags):,}", Text(some(found.flags)))
    return table


def _shorter(why: str) -> str:
    """Put together what differs only in details, which the configuration and the table of all branches say."""
    if why.startswith("unusable: "):
        return "they can't be used: --all says why"
    is_rest = why.endswith("not among the common ones") and not why.startswith("flat")
    return "further branches of these collections" if is_rest else why


def _branch_table(found: Inspection, names: Collection[str], width: int) -> Table:
    trees = list(dict.fromkeys(p.tree or "" for s in found.sources for p in s.locations))
    table = _columns(f"branches of {', '.join(trees)}", width)
    for name, column in found.columns.items():
        if name not in found.owners and name in names:
            table.add_row(*_row(column, found, width=width))
    for group, members in found.collections.items():
        shown = [name for name in members if name in names]
        if shown:
            _add_group(table, group, shown, found, width)
    return table


def _add_group(table: Table, group: str, names: Sequence[str], found: Inspection, width: int) -> None:
    is_alone = list(names) == [group]
    if not is_alone:
        table.add_section()
        first = found.columns[names[0]]
        objects = multiplicity_of(first)
        rest = ("", f"{objects} objects") if width < NARROW else (objects, *[""] * (len(table.columns) - 3))
        table.add_row(Text(group, style="bold"), "", *rest)
    for name in names:
        table.add_row(*_row(found.columns[name], found, width=width, collection=group, is_alone=is_alone))


def _columns(title: str, width: int) -> Table:
    if width < NARROW:
        return _table(title, ("branch", "typename", "min … max", "note"), right=("min … max",))
    numbers = (OBJECTS, "min", "mean", "max")
    return _table(title, ("branch", "typename", *numbers, "missing", "note"), right=numbers)


def _table(title: str, headings: Sequence[str], *, right: Collection[str]) -> Table:
    table = Table(
        title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left",
        collapse_padding=True, pad_edge=False,
    )  # fmt: skip
    for heading in headings:
        kept = heading in {"tree", "class", "typename", *right}
        side: Literal["left", "right"] = "right" if heading in right else "left"
        table.add_column(heading, justify=side, no_wrap=kept, overflow="fold", min_width=LEAST.get(heading))
    return table


def _row(
    column: BranchFacts, found: Inspection, *, width: int, collection: str = "", is_alone: bool = False
) -> list[Text | str]:
    branch = column.branch
    typename = Text("unusable", style="red") if branch.kind == "unusable" else Text(typename_of(branch))
    objects = multiplicity_of(column) if is_alone else ""
    numbers, missing = numbers_of(column), ", ".join(missing_of(column))
    note = note_of(column, found, collection=collection)
    if width < NARROW:
        together = "; ".join(part for part in (objects and f"{objects} objects", missing, note) if part)
        return [Text(branch.name), typename, " … ".join(filter(None, numbers[::2])), Text(together)]
    return [Text(branch.name), typename, objects, *numbers, Text(missing), Text(note)]


def _caption(found: Inspection) -> Iterator[str]:
    files = [place for source in found.sources for place in source.locations]
    measured = sum(min(MEASURED_FILES, len(s.locations)) for s in found.sources)
    which = f"of {measured} of {len(files)} files" if measured < len(files) else _plural(len(files), "file")
    yield f"from the first {found.entries:,} entries {which}"
    if found.flags:
        left_out = f"{len(found.flags)} trigger bits and flags" if len(found.flags) > 1 else "a trigger bit"
        yield f"{left_out} left out, such as {found.flags[0]}; --all shows them all"


def _plural(number: int, noun: str) -> str:
    return f"of the {noun}" if number == 1 else f"of each of {number} {noun}s"
