"""Events on which network and graph are compared: real ones, and those at the edges of what can be sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import BundleError
from rootdata.events import needs, selection
from rootdata.events.selection import Events, Objects
from rootdata.jagged import Column, Ints, Jagged, offsets_of
from rootdata.layouts.packed import pack
from rootdata.layouts.pool import Pool
from rootdata.loading.parameters import drawn_columns
from rootdata.loading.stream import EventReader, Recipe
from rootdata.missing import Bools, sentinels_of, with_sentinels
from rootdata.options.data import DataConfig
from rootdata.options.parts import PARTS
from rootdata.scan.scanned import Scanned
from rootdata.scan.specs import Specs
from rootdata.table import Table, concatenate, take

OVERFULL = 3  # objects more than there is room for
BENT = 8  # real events that are bent in each way


def real_events(config: DataConfig, specs: Specs, num_events: int, names: Sequence[str] | None = None) -> Table:
    """Read some events of every sample, of the test part where there is one, else of validation or training.

    Parameters
    ----------
    config : of the data that the network was trained on
    specs : of the same data; say in which blocks events pass the cuts
    num_events : at most, over all samples
    names : of branches; by default those that features are made of

    Returns
    -------
    these branches of at most ``num_events`` events
    """
    part = next((p for p in reversed(PARTS) if specs.num_events(p)), "train")
    recipe = Recipe(scanned=Scanned(config=config, specs=specs), part=PARTS.index(part))
    names = needs.feature_branches(config) if names is None else names
    reader, share = EventReader(recipe), -(-num_events // len(config.samples))
    try:
        tables = [_read(reader, numbers, names, share) for numbers in _blocks(recipe).values()]
    finally:
        reader.close()
    found = [t for t in tables if t.num_events]
    if not found:
        raise BundleError("no event is selected in any sample; the network can't be compared with its graph")
    table = _joined(found, config)
    return take(table, np.arange(min(num_events, table.num_events)))


def _joined(tables: Sequence[Table], config: DataConfig) -> Table:
    """Join tables; a branch that is float32 in one file and float64 in another gets the wider type, sentinels too."""
    made = [dict(table.columns) for table in tables]
    for name in made[0]:
        wide = np.result_type(*(_numbers(columns[name]).dtype for columns in made))
        for columns in made:
            columns[name] = _as_type(columns[name], wide, sentinels_of(config.missing, name))
    pairs = zip(tables, made, strict=True)
    return concatenate([Table(num_events=table.num_events, columns=columns) for table, columns in pairs])


def _numbers(column: Column) -> npt.NDArray[Any]:
    return column.content if isinstance(column, Jagged) else column


def _as_type(column: Column, dtype: np.dtype[Any], sentinels: Sequence[float]) -> Column:
    read = _numbers(column)
    made = with_sentinels(read.astype(dtype, copy=False), read, sentinels)
    return Jagged(column.offsets, made, column.valid) if isinstance(column, Jagged) else made


def cut_columns(config: DataConfig, specs: Specs) -> dict[str, Any]:
    """Read the branches that cuts on events need and features do not, of one block that has selected events.

    Returns
    -------
    branch name to its column; a branch that only some samples are cut by is that of the first of them
    """
    wanted = [name for name in needs.cut_branches(config) if name not in needs.feature_branches(config)]
    found: dict[str, Any] = {}
    part = next((p for p in reversed(PARTS) if specs.num_events(p)), "train")
    recipe = Recipe(scanned=Scanned(config=config, specs=specs), part=PARTS.index(part))
    reader = EventReader(recipe)
    try:
        for numbers in _blocks(recipe).values() if wanted else ():
            _, raw = reader.events(numbers[0])
            found = {name: raw[name] for name in wanted if name in raw} | found
    finally:
        reader.close()
    return found


def _blocks(recipe: Recipe) -> dict[int, list[int]]:
    """List the blocks of each sample that hold selected events."""
    found: dict[int, list[int]] = {}
    blocks = ((f.sample, b) for f in recipe.specs.files for b in f.blocks)
    for number, (sample, block) in enumerate(blocks):
        if block[2 + recipe.part]:
            found.setdefault(sample, []).append(number)
    return found


def _read(reader: EventReader, numbers: Sequence[int], names: Sequence[str], wanted: int) -> Table:
    tables: list[Table] = []
    for number in numbers:
        selected, raw = reader.events(number)
        start = reader.start_of(number)
        given = drawn_columns(selected, reader.location_of(number), reader.scanned)
        n = len(next(iter(raw.values())))
        columns = {
            name: _spread(given[name], selected.entry - start, n) if name in given else raw[name] for name in names
        }
        table = Table(num_events=n, columns=columns)
        tables.append(take(table, (selected.entry - start)[:wanted]))
        wanted -= tables[-1].num_events
        if wanted <= 0:
            break
    return _joined(tables, reader.scanned.config)


def _spread(values: npt.NDArray[np.float32], rows: Ints, n: int) -> npt.NDArray[np.float32]:
    """Put what is drawn for the selected events of a block among all of them, as a client sends it like a branch."""
    column = np.zeros(n, np.float32)
    column[rows] = values
    return column


def has_infinity(table: Table) -> Bools:
    """Mark events with an infinite value in any branch, (events,) bool."""
    marks = np.zeros(table.num_events, bool)
    for column in table.columns.values():
        if isinstance(column, Jagged):
            owner = np.repeat(np.arange(table.num_events), column.counts)
            marks[owner[np.isinf(column.content)]] = True
        else:
            marks |= np.isinf(column).reshape(table.num_events, -1).any(axis=1)
    return marks


def edge_events(table: Table, config: DataConfig, *, longest: int) -> Table:
    """Bend a few real events: without objects, with more objects than there is room for, with missing values.

    Each way of bending gives :func:`bent_events` events.

    Parameters
    ----------
    table : real events, of which the first few are bent
    config : says which numbers stand for a missing value
    longest : objects that the largest collection keeps
    """
    few = take(table, np.arange(bent_events(table.num_events)))
    empty = {n: _take_objects(c, np.zeros(few.num_events, np.int64)) for n, c in few.columns.items()}
    full = np.full(few.num_events, longest + OVERFULL)
    sentinels = [np.nan, np.inf, -np.inf, *config.sentinels]
    bent = [empty, {n: _take_objects(c, full) for n, c in few.columns.items()}]
    bent += [{n: _blank(c, value, every=k + 2) for n, c in few.columns.items()} for k, value in enumerate(sentinels)]
    bent.append({n: _blank(c, np.nan, every=1) for n, c in few.columns.items()})
    return concatenate([Table(num_events=few.num_events, columns=columns) for columns in bent])


def bent_events(num_events: int) -> int:
    """Return how many of some events are bent in each way."""
    return min(BENT, num_events)


def _take_objects(column: Any, counts: Ints) -> Any:
    """Give each event the wanted number of objects: those of the column, used several times."""
    if not isinstance(column, Jagged):
        return column
    content = column.content if len(column.content) else np.ones(1, column.content.dtype)
    return Jagged(offsets_of(counts), np.resize(content, int(counts.sum())))


def _blank(column: Any, value: float, *, every: int) -> Any:
    """Put a value into every k-th place, where the type can hold it."""
    content = (column.content if isinstance(column, Jagged) else column).copy()
    if content.dtype.kind == "f" or (np.isfinite(value) and np.can_cast(np.min_scalar_type(int(value)), content.dtype)):
        content.reshape(-1)[::every] = value
    return Jagged(column.offsets, content) if isinstance(column, Jagged) else content


def training_batch(config: DataConfig, specs: Specs, table: Table) -> dict[str, np.ndarray[Any, Any]]:
    """Make of events the arrays that training would have made of them.

    Parameters
    ----------
    config : of the data that the network was trained on
    specs : of the same data; give the scaling and the lengths of collections
    table : branch columns of some events, unscaled
    """
    recipe, n = Recipe(scanned=Scanned(config=config, specs=specs), part=PARTS.index("train")), table.num_events
    flat, objects = selection.features(config, table.columns, num_events=n, where="the compared events")
    selected = _as_selected(flat, objects, n)
    packed = pack(selected, recipe.layout, recipe.transforms, sample=0, file=0)
    arrays = Pool(recipe.layout, [packed]).gather(np.zeros(n, np.int64), np.arange(n))
    return {name: arrays[name] for name in recipe.layout.shapes}


def _as_selected(flat: Any, objects: dict[str, Objects], n: int) -> Events:
    zeros = np.zeros(n, np.int64)
    return Events(
        entry=zeros, part=zeros.astype(np.uint8), label=zeros, weight=np.ones(n, np.float32), flat=flat,
        objects=objects, before=np.zeros(3, np.int64),
    )  # fmt: skip
