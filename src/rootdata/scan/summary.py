"""The summary of a data set: tables that a person wants to read before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from rootdata.events.statistics import ColumnStats
from rootdata.events.weighting import Weighting
from rootdata.layouts.layout import Padded, kept_fraction
from rootdata.options.data import DataConfig
from rootdata.options.parts import PARTS
from rootdata.options.weighting import GENERATED, Reweight
from rootdata.scan.scanned import layout_of
from rootdata.scan.specs import Specs
from rootdata.scan.weighing import totals_of

SAME_SUM = 1e-3  # as a share: sums of generator weights that differ by less are said to be the same


def summarize(config: DataConfig, specs: Specs) -> RenderableType:
    """Lay out what the first pass learnt.

    Returns
    -------
    A rich renderable: a table of samples, one of skipped files, those of weights, one of flat features, one for every
    collection, one of targets.
    """
    layout = layout_of(config, specs)
    tables = [_samples(config, specs)]
    if specs.skipped:
        tables.append(_skipped(specs))
    if specs.weighting is not None:
        tables += _weights(config, specs, specs.weighting)
    if specs.flat:
        tables.append(_features("flat", specs.flat, config, specs))
    for collection in layout.collections:
        table = _features(collection.name, collection.branches, config, specs)
        facts = [*_truncation_facts(collection, specs.multiplicity[collection.name])]
        table.caption = ", ".join([*facts, *_image_facts(collection, config, specs)])
        tables.append(table)
    if specs.targets:
        tables.append(_targets(config, specs))
    return Group(*tables)


def _samples(config: DataConfig, specs: Specs) -> Table:
    table = Table(title="samples: events after cuts / before", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("sample", "files", *PARTS, "label"):
        table.add_column(heading, justify="left" if heading in {"sample", "label"} else "right", overflow="fold")
    for i, name in enumerate(specs.samples):
        files = [f for f in specs.files if f.sample == i]
        kept = [sum(f.selected(p) for f in files) for p in range(len(PARTS))]
        before = [sum(f.before[p] for f in files) for p in range(len(PARTS))]
        table.add_row(name, str(len(files)), *map(_of, kept, before), _label(config, specs.labels[i]))
    if specs.estimated:
        table.caption = f"feature statistics are estimated from {config.fraction:.0%} of the blocks"
    return table


def _skipped(specs: Specs) -> Table:
    table = Table(title="skipped files", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("sample", "file", "reason"):
        table.add_column(heading, overflow="fold")
    for file in specs.skipped:
        table.add_row(specs.samples[file.sample], escape(file.path), escape(file.reason))
    return table


def _weights(config: DataConfig, specs: Specs, weighting: Weighting) -> Iterator[Table]:
    """Lay out to what the samples are weighted, and what becomes of the weights of training events."""
    totals = totals_of(config, specs.files)
    if any(totals):
        yield _normalisation(config, totals, weighting)
    events, sums = specs.of_classes("train")
    if weighting.balance or weighting.bins:
        table = _table("weights in training", "class", ("events", "sum", "sum of sizes"))
        for name, n, (total, size) in zip(config.classes, events, sums, strict=True):
            table.add_row(name, f"{n:,}", f"{total:.6g}", f"{size:.6g}")
        yield table
    if config.reweight is not None:
        yield _reweighting(config, config.reweight, weighting)


def _normalisation(
    config: DataConfig, totals: Sequence[tuple[float, float | None] | None], weighting: Weighting
) -> Table:
    table = _table("weights", "sample", ("pb", "1/fb", "sum of weights", "factor", "expected events"))
    notes = []
    for sample, total, factor, events in zip(config.samples, totals, weighting.samples, weighting.yields, strict=True):
        if total is None:
            table.add_row(sample.name, "", "", "", "1", f"{events:.6g}")
            continue
        facts = (f"{sample.cross_section:g}", f"{config.luminosity_of(sample):g}", f"{total[0]:.8g}", f"{factor:.4g}")
        table.add_row(sample.name, *facts, f"{events:.6g}")
        if total[1] is not None and abs(total[1] - total[0]) > SAME_SUM * abs(total[0]):
            notes.append(
                f"{sample.name}: {config.source_of(sample)} adds up to {total[0]:.8g}, {GENERATED} of its events to "
                f"{total[1]:.8g}: they are a skim"
            )
    table.caption = "\n".join(notes) or None
    return table


def _reweighting(config: DataConfig, asked: Reweight, weighting: Weighting) -> Table:
    headings = ("events", "bins", "empty", "no sum", "outside", "capped", "effective", "largest / mean")
    table = _table(f"reweighted by {', '.join(asked.variables)} to {asked.to}", "class", headings)
    for name, known in zip((*config.classes, "no label"), weighting.bins, strict=True):
        if known is None:
            continue
        f = known.figures
        counts = (f"{n:,}" for n in (f.events, f.bins, f.empty, f.unusable, f.outside, f.capped))
        effective = f"{f.effective:,.0f} of {f.effective_before:,.0f}"
        table.add_row(name, *counts, effective, f"{f.largest:.3g}")
    if weighting.is_resampled:
        table.caption = "events are left out; scalings were learnt before"
    return table


def _table(title: str, what: str, headings: Sequence[str]) -> Table:
    """Begin a table of names and numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    table.add_column(what, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _of(kept: int, before: int) -> str:
    return f"{kept:,}" if kept == before else f"{kept:,} / {before:,}"


def _label(config: DataConfig, labels: Sequence[Sequence[int]]) -> str:
    totals = [sum(part[c] for part in labels) for c in range(len(config.classes))]
    shown = [f"{config.classes[c]} {n:,}" for c, n in enumerate(totals) if n]
    return ", ".join(s.rsplit(" ", 1)[0] for s in shown) if len(shown) == 1 else ", ".join(shown) or "none"


def _features(title: str, names: Sequence[str], config: DataConfig, specs: Specs) -> Table:
    return _statistics(title, "feature", [(name, specs.columns[name], _scaling(name, config)) for name in names])


def _scaling(name: str, config: DataConfig) -> str:
    return "axis" if name in config.coordinates else config.scaling_of(name).kind


def _targets(config: DataConfig, specs: Specs) -> Table:
    return _statistics("targets", "target", [(t.name, specs.targets[t.name], t.scale.kind) for t in config.targets])


def _statistics(title: str, what: str, columns: Sequence[tuple[str, ColumnStats, str]]) -> Table:
    """Lay out the statistics of columns, of which name and scaling are given beside them."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for heading in (what, "min", "mean", "max", "std", "missing", "scaling"):
        side: Literal["left", "right"] = "left" if heading in {what, "scaling"} else "right"
        table.add_column(heading, justify=side, overflow="fold", no_wrap=heading not in {what, "missing"})
    for name, stats, scaling in columns:
        share = stats.missing / max(1, stats.missing + stats.count)
        numbers = (stats.low, stats.moments.mean, stats.high, stats.moments.std)
        told = [f"{x:.4g}" for x in numbers] if stats.count else ["none", "", "", ""]
        table.add_row(name, *told, f"{share:.2%}" if share else "", scaling)
    return table


def _truncation_facts(collection: Padded, histogram: Sequence[int]) -> Iterator[str]:
    events = sum(histogram)
    objects = sum(m * n for m, n in enumerate(histogram))
    yield f"{objects / max(1, events):.2f} objects an event, at most {max(len(histogram) - 1, 0)}"
    if collection.keeps_all:
        yield "all are kept"
        return
    yield f"length {collection.length}"
    dropped = 1.0 - kept_fraction(histogram, collection.length)
    yield f"truncation drops {dropped:.3%} of the objects" if dropped else "truncation drops nothing"


def _image_facts(collection: Padded, config: DataConfig, specs: Specs) -> Iterator[str]:
    grid = collection.grid
    if grid is None:
        return
    objects, outside, shared = specs.drawn[collection.name]
    of = max(1, objects)
    # the range of an axis that is learnt is known after the pass alone; blocks are counted with their own
    image = config.images[grid.onto or collection.name]
    about = "" if image.x.range and image.y.range else "about "
    yield f"drawn into {grid.x.bins} x {grid.y.bins} cells of {grid.x.column} and {grid.y.column}"
    yield f"{outside / of:.3%} of the objects outside"
    yield f"{about}{shared / of:.3%} in a cell that another one fills"
