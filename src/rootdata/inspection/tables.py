"""What was found in ROOT files, as tables for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rootdata.inspection.files import MEASURED_FILES, Inspection, TreeInfo
from rootdata.inspection.measure import BranchFacts
from rootdata.inspection.roles import finding, role_of
from rootdata.io.branches import Branch

OBJECTS = "objects:\nmean ≤ max"
LEAST = {"branch": 12, "note": 12}  # characters, in a narrow terminal


def tables(found: Inspection, *, limit: int = 40) -> RenderableType:
    """Lay out what was found: a table of trees, one of branches, and one of those that can't be used.

    Parameters
    ----------
    found : what was found in the files
    limit : rows of the table of trees
    """
    unusable = [column.branch for column in found.columns.values() if column.branch.kind == "unusable"]
    rest = [_reasons(unusable)] if unusable else []
    return Group(_tree_table(found.trees, limit), _branch_table(found), *rest)


def _reasons(unusable: Sequence[Branch]) -> Table:
    table = _table("can't be used", ("branch", "why"), right=())
    for branch in unusable:
        table.add_row(Text(branch.name), Text(branch.note))
    return table


def _tree_table(trees: Sequence[TreeInfo], limit: int) -> Table:
    notes = ("note",) if any(tree.note for tree in trees[:limit]) else ()
    headings = ("file", "tree", "kind", "entries", "compression", *notes)
    table = _table("trees", headings, right=("entries",))
    previous = ""
    for tree in trees[:limit]:
        path, previous = tree.path if tree.path != previous else "", tree.path
        style = "red" if tree.note else "bold" if tree.is_chosen else "dim"
        entries = "" if tree.entries is None else f"{tree.entries:,}"
        row = (Text(path, overflow="fold"), Text(tree.name), tree.kind, entries, tree.compression, Text(tree.note))
        table.add_row(*row[: len(headings)], style=style)
    if len(trees) > limit:
        table.caption = f"and {len(trees) - limit} more"
    return table


def _branch_table(found: Inspection) -> Table:
    names = list(dict.fromkeys(p.tree or "" for s in found.sources for p in s.locations))
    headings = ("branch", "kind", "type", OBJECTS, "min", "mean", "max", "missing", "note")
    table = _table(f"branches of {', '.join(names)}", headings, right=(OBJECTS, "min", "mean", "max"))
    grouped = {name for members in found.collections.values() for name in members}
    counters = found.counters
    for name, column in found.columns.items():
        if name not in grouped:
            table.add_row(*_row(column, found, counters))
    for group, members in found.collections.items():
        if len(members) > 1 or group not in members:
            table.add_section()
            table.add_row(Text(group, style="bold"), "", "", _multiplicity(found.columns[members[0]]))
        for name in members:
            table.add_row(*_row(found.columns[name], found, counters, alone=name == group))
    table.caption = "\n".join(_caption(found))
    return table


def _table(title: str, headings: Sequence[str], *, right: Collection[str]) -> Table:
    table = Table(
        title=Text(title), box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left",
        collapse_padding=True, pad_edge=False,
    )  # fmt: skip
    for heading in headings:
        kept = heading in {"tree", "kind", *right}
        side: Literal["left", "right"] = "right" if heading in right else "left"
        table.add_column(heading, justify=side, no_wrap=kept, overflow="fold", min_width=LEAST.get(heading))
    return table


def _row(column: BranchFacts, found: Inspection, counters: Collection[str], *, alone: bool = False) -> list[Text | str]:
    branch, stats = column.branch, column.stats
    kind = f"fixed[{branch.width}]" if branch.kind == "fixed" else str(branch.kind)
    objects = _multiplicity(column) if alone else ""
    numbers = (stats.low, stats.moments.mean, stats.high) if stats.count else ()
    shown = [f"{x:.4g}" for x in numbers] or [""] * 3
    is_unusable = branch.kind == "unusable"  # the reason is a sentence, and has a table of its own
    notes = [role_of(column, counters), "" if is_unusable else finding(column), found.absent.get(branch.name, "")]
    return [
        Text(branch.name), Text(kind, style="red" if is_unusable else ""), branch.dtype, objects, *shown,
        ", ".join(_missing(column)), Text("; ".join(n for n in notes if n and n != "feature")),
    ]  # fmt: skip


def _missing(column: BranchFacts) -> Iterator[str]:
    kinds = {"NaN": column.stats.nans, "inf": column.stats.infinities}
    kinds |= {f"{value:.6g}": n for value, n in column.sentinels.items()}
    yield from (f"{name} {n / column.objects:.2%}" for name, n in kinds.items() if n)


def _multiplicity(column: BranchFacts) -> str:
    return f"{column.objects / max(1, column.entries):.3g} ≤ {column.longest}"


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
