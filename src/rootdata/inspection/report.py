"""What was found in ROOT files, for programs (JSON) and for browsers: one page that loads nothing from elsewhere."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rootdata.inspection.choice import Choice
from rootdata.inspection.files import Inspection
from rootdata.inspection.measure import BranchFacts
from rootdata.inspection.roles import finding, role_of
from rootdata.inspection.tables import missing_of, multiplicity_of, note_of, numbers_of, typename_of

SCHEMA = 1  # of the JSON


def as_json(found: Inspection, chosen: Choice) -> str:
    """Write all that was found and decided as JSON; what has no value is null.

    Returns
    -------
    An object with ``schema``, ``entries``, ``trees``, ``samples``, ``collections``, ``branches`` by name, ``flags`` and
    ``choice``.
    """
    features, weight = chosen.features, chosen.weight
    return json.dumps(
        {
            "schema": SCHEMA,
            "entries": found.entries,
            "trees": [
                {
                    "file": t.path, "tree": t.name, "class": t.kind, "entries": t.entries, "compression": t.compression,
                    "chosen": t.is_chosen, "note": t.note,
                }
                for t in found.trees
            ],
            "samples": {
                s.name: {
                    "files": [location.path for location in s.locations], "label": chosen.labels.numbers.get(s.name)
                }
                for s in found.sources
            },
            "collections": {group: list(names) for group, names in found.collections.items()},
            "branches": {name: _facts(c, found, found.owners.get(name, "")) for name, c in found.columns.items()},
            "flags": list(found.flags),
            "choice": {
                "label": chosen.labels.expression,
                "flat": list(features.flat),
                "collections": {group: list(names) for group, names in features.collections.items()},
                "left_out": {why: list(names) for why, names in features.left_out.items()},
                "weight": None if weight is None else {
                    "branch": weight.name, "sum": _finite(weight.total), "entries": weight.entries,
                    "negative": weight.negative,
                },
                "energies": "MeV" if chosen.is_in_mev else "GeV",
                "notes": [*chosen.notes, chosen.labels.note],
            },
        },
        indent=1,
    )  # fmt: skip


def _facts(column: BranchFacts, found: Inspection, collection: str) -> dict[str, Any]:
    branch, stats = column.branch, column.stats
    known = stats.count > 0
    return {
        "typename": typename_of(branch), "kind": branch.kind, "collection": collection or None,
        "role": role_of(column, found.counters, collection=collection),
        "entries": column.entries, "objects": column.objects, "longest": column.longest,
        "min": _finite(stats.low) if known else None, "mean": _finite(stats.moments.mean) if known else None,
        "max": _finite(stats.high) if known else None, "std": _finite(stats.moments.std) if known else None,
        "nan": stats.nans, "inf": stats.infinities,
        "sentinels": [[value, n] for value, n in column.sentinels.items()],
        "perhaps_missing": [[value, n] for value, n in column.apart.items()],
        "note": finding(column) or found.absent.get(branch.name, ""),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# The page


def as_page(found: Inspection, chosen: Choice) -> str:
    """Write a page for a browser, in light or dark as the reader's system has it; nothing is loaded from elsewhere."""
    title = ", ".join(source.name for source in found.sources)
    parts = (
        f"<h1>{_text(title)}</h1>", *_list((*chosen.notes, chosen.labels.note)), *_trees(found),
        *_features(found, chosen), *_left_out(found, chosen), *_branches(found),
    )  # fmt: skip
    return _PAGE.replace("{title}", _text(title)).replace("{body}", "\n".join(parts))


def _trees(found: Inspection) -> Iterator[str]:
    yield "<h2>Trees</h2>"
    rows = [
        (t.path, t.name, t.kind, "" if t.entries is None else f"{t.entries:,}", t.compression, t.note)
        for t in found.trees
    ]
    yield from _table(("file", "tree", "class", "entries", "compression", "note"), rows, numbers={3})


def _features(found: Inspection, chosen: Choice) -> Iterator[str]:
    features = chosen.features
    yield f"<h2>Features that would be taken: {len(features.taken)}</h2>"
    yield from _table(
        _HEADINGS, [_row(found.columns[n], found, found.owners.get(n, "")) for n in features.taken], numbers=_NUMBERS
    )


def _left_out(found: Inspection, chosen: Choice) -> Iterator[str]:
    yield "<h2>Left out</h2>"
    rows = [(why, f"{len(names):,}", ", ".join(names)) for why, names in chosen.features.left_out.items()]
    if found.flags:
        rows.append(("trigger bits and flags, not looked at", f"{len(found.flags):,}", ", ".join(found.flags)))
    yield from _table(("why", "branches", "names"), rows, numbers={1})


def _branches(found: Inspection) -> Iterator[str]:
    yield f"<h2>All branches: {len(found.columns):,}</h2>"
    yield '<label>show names with <input id="filter" type="search" placeholder="Jet_"></label>'
    rows = [_row(column, found, found.owners.get(name, "")) for name, column in found.columns.items()]
    yield from _table(_HEADINGS, rows, numbers=_NUMBERS, name="branches")


_HEADINGS = ("branch", "typename", "collection", "objects: mean ≤ max", "min", "mean", "max", "missing", "note")
_NUMBERS = {3, 4, 5, 6}
_RIGHT = ' class="n"'


def _row(column: BranchFacts, found: Inspection, collection: str) -> tuple[str, ...]:
    branch = column.branch
    is_unusable = branch.kind == "unusable"
    objects = multiplicity_of(column) if branch.kind == "jagged" else ""
    note = branch.note if is_unusable else note_of(column, found, collection=collection)
    typename = "unusable" if is_unusable else typename_of(branch)
    return branch.name, typename, collection, objects, *numbers_of(column), ", ".join(missing_of(column)), note


def _table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int], name: str = ""
) -> Iterator[str]:
    yield f'<div class="wide"><table id="{name}">' if name else '<div class="wide"><table>'
    heads = (f'<th scope="col"{_RIGHT * (i in numbers)}>{_text(heading)}</th>' for i, heading in enumerate(headings))
    yield "<thead><tr>" + "".join(heads) + "</tr></thead>"
    yield "<tbody>"
    for row in rows:
        cells = (f"<td{_RIGHT * (i in numbers)}>{_text(cell)}</td>" for i, cell in enumerate(row))
        yield "<tr>" + "".join(cells) + "</tr>"
    yield "</tbody></table></div>"


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _text(text: str) -> str:
    return html.escape(text)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --line: #d5d8de; --head: #f2f4f8; --ink: #1b1f27; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a404c; --head: #232833; --ink: #e4e7ee; --paper: #161a21; }
}
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { background: var(--head); position: sticky; top: 0; white-space: nowrap; }
td { overflow-wrap: anywhere; min-width: 3rem; } td:first-child { min-width: 14rem; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
input { font: inherit; padding: .2rem .5rem; margin: .3rem 0 .6rem; }
</style>
</head>
<body>
{body}
<script>
const rows = [...document.querySelectorAll("#branches tbody tr")];
document.getElementById("filter").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
});
</script>
</body>
</html>
"""
