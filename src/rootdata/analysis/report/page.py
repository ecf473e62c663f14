"""The page: all in one file, for any browser, offline, light or dark, on paper."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rootdata.analysis.report.canvas import Numbers
from rootdata.analysis.report.classification import in_words
from rootdata.analysis.report.tested import ScoredRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A picture, or the numbers of a table, as a page shows it.

    Attributes
    ----------
    name : of its files
    title, text : for people
    numbers : all that is drawn
    svg : the picture; empty where a table is shown
    """

    name: str
    title: str
    text: str
    numbers: Numbers
    svg: str


def one(tested: ScoredRun, shown: Sequence[Drawn], *, metrics: Mapping[str, Any], folder: str) -> str:
    """Write the page of one run.

    Parameters
    ----------
    tested : what its test left
    shown : pictures and tables
    metrics : what ``metrics.json`` holds
    folder : of the pictures' files, as a link sees it
    """
    by_name = {sheet.name: sheet for sheet in shown}
    parts = [
        f"<h1>{escape(tested.name)}</h1>", f'<p class="sub">{escape(_facts(tested))}</p>',
        *_figures(by_name, metrics), *_contents(shown), '<div class="cards">',
        *(line for sheet in shown for line in card(sheet, folder=folder)), "</div>", *_samples(metrics),
    ]  # fmt: skip
    return whole(tested.name, parts)


def whole(title: str, parts: Iterable[str]) -> str:
    """Put the parts of a page into one file that loads nothing from elsewhere."""
    return _PAGE.replace("{title}", escape(title)).replace("{body}", "\n".join(parts))


def escape(text: str) -> str:
    """Return text as it may stand in HTML."""
    return html.escape(str(text))


def weighted(is_weighted: bool) -> str:
    """Say whether events are weighted."""
    return "weighted events" if is_weighted else "unweighted events"


def _facts(tested: ScoredRun) -> str:
    about, n = tested.about, len(tested.test["label"])
    which = f"out-of-fold events of {about['folds']} folds" if "folds" in about else "test events"
    facts = [f"{n:,} {which}", weighted(tested.is_weighted), f"samples: {', '.join(about['samples'])}"]
    facts += [f"tested {about['tested']}"] if about.get("tested") else []
    return " · ".join(facts)


def _figures(by_name: Mapping[str, Drawn], metrics: Mapping[str, Any]) -> Iterator[str]:
    """Show the figures that are looked for first."""
    tiles = [(f"AUC of {name}", in_words(c)) for name, c in _curves(by_name).items()]
    if len(tiles) == 1:
        tiles = [("AUC", tiles[0][1])]
    tiles += [(key, f"{metrics[key]:.4g}") for key in ("accuracy", "loss") if metrics.get(key) is not None]
    tiles += [
        (key, f"{value:.4g}")
        for key, value in metrics.items()
        if key.rpartition("/")[2] in {"rmse", "mae", "bias", "resolution"} and value is not None
    ]
    yield '<div class="tiles">'
    yield from (f'<div class="tile"><b>{escape(value)}</b><span>{escape(key)}</span></div>' for key, value in tiles)
    yield "</div>"


def _curves(by_name: Mapping[str, Drawn]) -> Mapping[str, Any]:
    found = by_name["roc"].numbers["classes"] if "roc" in by_name else {}
    return dict(found)


def _contents(shown: Sequence[Drawn]) -> Iterator[str]:
    links = (f'<a href="#{sheet.name}">{escape(sheet.title)}</a>' for sheet in shown)
    yield f'<nav aria-label="contents">{" ".join(links)}</nav>'


def card(sheet: Drawn, *, folder: str) -> Iterator[str]:
    """Show one picture, or table, with what it says and links to its files.

    Parameters
    ----------
    sheet : the picture
    folder : of its files, as a link sees it
    """
    table = TABLES.get(sheet.name)
    width = "wide" if table is not None or _is_wide(sheet.svg) else "single"
    yield f'<section id="{escape(sheet.name)}" class="{width}"><h2>{escape(sheet.title)}</h2>'
    if sheet.svg:
        yield f"<figure>{sheet.svg}</figure>"
    if table is not None:
        yield from table(sheet.numbers)
    endings = ("png", "pdf", "json") if sheet.svg else ("json",)
    links = " ".join(f'<a href="{quote(f"{folder}/{sheet.name}.{e}")}">{e.upper()}</a>' for e in endings)
    yield f'<p class="text">{escape(sheet.text)} <span class="files">{links}</span></p></section>'


def _is_wide(svg: str) -> bool:
    """Tell panels beside each other from a single one, by the shape of the picture."""
    size = svg.partition('viewBox="')[2].partition('"')[0].split()
    return bool(size) and float(size[2]) > 1.5 * float(size[3])


def _rejection(numbers: Numbers) -> Iterator[str]:
    for name, rows in numbers.items():
        groups = list(rows[0]["rejection"]) if rows else []
        cells = [
            (f"{row['signal_efficiency']:.0%}", f"{row['cut']:.4f}", *(_rejected(row["rejection"][g]) for g in groups))
            for row in rows
        ]
        if len(numbers) > 1:
            yield f"<h3>{escape(name)}</h3>"
        yield from table(("signal", "cut", *groups), cells)


def _rejected(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return f"> {one['above']:.3g}"
    return with_error(one["value"], one["error"])


def with_error(value: float, error: float) -> str:
    """Write a value with two digits of its error.

    Examples
    --------
    >>> with_error(1219.3, 434.1), with_error(33.234, 1.42), with_error(0.5, 0.0)
    ('1220 ± 430', '33.2 ± 1.4', '0.5 ± 0')
    """
    if not error:
        return f"{value:.4g} ± 0"
    digits = 1 - math.floor(math.log10(error))
    if digits > 0:
        return f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"{round(value, digits):.0f} ± {round(error, digits):.0f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Show a table whose first column names the rows."""
    yield '<div class="scroll"><table><thead><tr>'
    yield "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    yield "</tr></thead><tbody>"
    for first, *others in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _differences(numbers: Numbers) -> Iterator[str]:
    rows = []
    for pair in numbers["pairs"]:
        gap, error = pair["difference"], pair["error"]
        told = "-" if gap is None or error is None else f"{gap:+.5f} ± {error:.5f}"
        sigmas = f"{abs(gap) / error:.1f}" if gap is not None and error else "-"
        how = "same events, paired" if pair["is_paired"] else "different events"
        rows.append((pair["first"], pair["second"], pair["class"], told, sigmas, how))
    yield from table(("first", "second", "class", "difference of areas", "in errors", "events"), rows)


def _folds(numbers: Numbers) -> Iterator[str]:
    together = [(f"fold {i}", *(f"{v:.5g}" for v in of)) for i, of in enumerate(zip(*_values(numbers), strict=True))]
    spread = (with_error(one["mean"], one["spread"]) for one in numbers.values())
    yield from table(("test of", *numbers), [*together, ("mean ± spread", *spread)])


def _values(numbers: Numbers) -> Iterator[Sequence[float]]:
    return (one["values"] for one in numbers.values())


TABLES = {"rejection": _rejection, "differences": _differences, "folds": _folds}


def _samples(metrics: Mapping[str, Any]) -> Iterator[str]:
    samples = metrics.get("samples")
    if not samples:
        return
    yield '<section id="samples"><h2>Samples of the test</h2>'
    rows = [
        (name, one["class"], f"{one['events']:,}", f"{one['sum_of_weights']:,.6g}", _mean(one["mean_score"]))
        for name, one in samples.items()
    ]
    yield from table(("sample", "class", "events", "sum of weights", "mean score"), rows)
    yield "</section>"


def _mean(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_mean(one)}" for name, one in value.items())
    return "-" if value is None else f"{value:.4f}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root { color-scheme: light dark; --line: #d5d8de; --head: #f2f4f8; --ink: #1b1f27; --paper: #ffffff; --muted: #6b7280;
  --link: #1f5fbf; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a404c; --head: #232833; --ink: #e4e7ee; --paper: #161a21; --muted: #9aa3b2; --link: #8ab4f8; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
h3 { font-size: .95rem; margin: .8rem 0 .3rem; }
a { color: var(--link); } .sub, .text { color: var(--muted); margin: .4rem 0 1rem; }
.text { font-size: .9rem; max-width: 60rem; } .files { white-space: nowrap; } .files a { margin-left: .4rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem; }
.tile b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: .6rem 0; border-top: 1px solid var(--line);
  border-bottom: 1px solid var(--line); font-size: .9rem; }
section { margin: 2rem 0; }
figure { margin: 0; } figure svg { display: block; width: 100%; height: auto; fill: currentColor;
  stroke-linejoin: round; stroke-linecap: butt; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 0 2.5rem;
  grid-auto-flow: dense; }
.cards section { margin: 1.4rem 0; min-width: 0; } .cards .wide { grid-column: 1 / -1; }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1rem 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; } thead th { background: var(--head); }
@media print {
  :root { color-scheme: light; --line: #d5d8de; --head: #f2f4f8; --ink: #000000; --paper: #ffffff; --muted: #555555;
    --link: #000000; }
  @page { margin: 14mm; }
  body { margin: 0; max-width: none; font-size: 10.5pt; }
  .cards, .columns { grid-template-columns: 1fr 1fr; gap: 0 7mm; } nav, .files { display: none; }
  .cards section { margin: 0 0 6mm; } .text { font-size: 8.5pt; margin-bottom: 0; }
  .scroll { overflow: visible; } th, td { white-space: normal; }
  section, figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
</style>
</head>
<body>
{body}
</body>
</html>
"""
