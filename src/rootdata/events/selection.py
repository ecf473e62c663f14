"""From the raw columns of a block to its selected events: derived columns, cuts, label, weight, split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rootdata import missing
from rootdata.errors import ConfigError, DataError
from rootdata.events import split
from rootdata.events.evaluation import (
    Block,
    ColumnsOnUse,
    check_counts,
    check_known,
    decision,
    jagged_lists,
    known_values,
    per_event,
    per_object,
)
from rootdata.expressions.grammar import parse
from rootdata.expressions.objects import Flat, order_of
from rootdata.jagged import Ints
from rootdata.location import Location
from rootdata.missing import Bools, Masked
from rootdata.options.columns import Collection, Observer, Parameter, TargetColumn
from rootdata.options.data import DataConfig
from rootdata.options.parts import PARTS
from rootdata.options.samples import Sample

Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """The objects of a collection in the selected events.

    Parameters
    ----------
    offsets : (n_events + 1,) int64
    columns : branch name to (n_objects,)
    """

    offsets: Ints
    columns: Mapping[str, Flat]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """The selected events of a block.

    Parameters
    ----------
    entry : (n,) int64
    part : (n,) uint8, position in ``PARTS``
    label : (n,) int64, -1 where there is none
    weight : (n,) float32
    flat : feature name to (n,)
    objects : collection name to its objects
    before : (3,) int64, entries of the block that fall to each part, before cuts
    targets : target name to (n,), a value for each event
    observers : name of an observer to (n,) int64, bool, or real
    variations : name of a variation to the weights under it, (n,) float32
    reweighted : of every variable by which training events are reweighted (n,) float64
    """

    entry: Ints
    part: split.Parts
    label: Ints
    weight: npt.NDArray[np.float32]
    flat: Mapping[str, Flat]
    objects: Mapping[str, Objects]
    before: Ints
    targets: Mapping[str, npt.NDArray[Any]] = dataclasses.field(default_factory=dict)
    observers: Mapping[str, npt.NDArray[Any]] = dataclasses.field(default_factory=dict)
    variations: Mapping[str, npt.NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    reweighted: tuple[Doubles, ...] = ()

    def __len__(self) -> int:
        return len(self.entry)


class Thinning(Protocol):
    """Says which training events are kept."""

    def __call__(self, entry: Ints, label: Ints, reweighted: Sequence[Doubles], location: Location) -> Bools:
        """Mark the events that are kept, (n,).

        Parameters
        ----------
        entry, label : (n,)
        reweighted : values of every variable, (n,) each
        location : of the file
        """


def select(
    config: DataConfig,
    sample: Sample,
    raw: Mapping[str, Any],
    *,
    block: Block,
    part: int | None = None,
    thin: Thinning | None = None,
) -> Events:
    """Apply derived columns, split and cuts to a block; sentinels are missing before anything else looks at them.

    Parameters
    ----------
    config : says what is derived, cut and labelled, and how events are split
    sample : that the block belongs to; its own cut, label and weight apply as well
    raw : branch name to column, axis 0 = the block's entries
    block : where the columns come from
    part : position in ``PARTS`` of the only part to keep; ``None`` keeps all three
    thin : says which of those that pass the cuts are kept

    Raises
    ------
    DataError
        For labels that are no class number, counts that disagree, an event or object cut of the wrong shape; for a
        label, a weight, a target or what the split goes by that is missing in an event that passes the cuts.
    """
    n = block.stop - block.start
    columns = ColumnsOnUse(config, raw, block)
    parts = _parts(config, columns, block)
    passes = np.ones(n, np.bool_)
    for text in (config.cut, sample.cut):
        if text is not None:
            passes &= decision(text, per_event(text, columns, block, what="cut"), block)
    check_known(parts != split.UNKNOWN, passes, block, what=f"split by {config.split.by!r} is missing")
    keep = passes & (parts < split.NO_PART if part is None else parts == part)
    labels = _labels(config, sample, columns, keep, block)
    reweighted = _reweighted(config, columns, keep, block)
    if thin is not None:
        kept = thin(np.flatnonzero(keep) + block.start, labels, reweighted, block.location)
        keep[keep] = kept
        labels, reweighted = labels[kept], tuple(values[kept] for values in reweighted)
    given = {p.name: _parameter(p, config, sample, columns, keep, labels, block) for p in config.parameters}
    return Events(
        entry=np.flatnonzero(keep) + block.start,
        part=parts[keep],
        label=labels,
        weight=_weights(config.weight, sample, columns, keep, block),
        flat=_flat(config, columns, keep, block, given=given),
        objects={c.name: _objects(c, columns, keep, block) for c in config.jagged},
        before=_before(parts),
        targets={t.name: _target(t, columns, keep, block) for t in config.targets},
        observers={o.name: _observer(o, columns, keep, block) for o in config.observers},
        variations={
            name: _weights(w, sample, columns, keep, block, what=f"weights.{name}")
            for name, w in config.variations.items()
        },
        reweighted=reweighted,
    )


def dealt(events: Events, config: DataConfig, raw: Mapping[str, Any], *, block: Block) -> Events:
    """Deal the selected events of a block to the parts of another split, each of which has a part for every event.

    Parameters
    ----------
    events : of all parts
    config : with the other split, and otherwise the same
    raw, block : as :func:`select` took them
    """
    parts = _parts(config, ColumnsOnUse(config, raw, block), block)
    return dataclasses.replace(events, part=parts[events.entry - block.start], before=_before(parts))


def _parts(config: DataConfig, columns: Mapping[str, Any], block: Block) -> split.Parts:
    return split.assign(
        config.split, columns, location=block.location, start=block.start, stop=block.stop,
        num_entries=block.num_entries,
    )  # fmt: skip


def _before(parts: split.Parts) -> Ints:
    return np.bincount(parts, minlength=split.UNKNOWN + 1)[: len(PARTS)]


def sum_over_entries(text: str, config: DataConfig, raw: Mapping[str, Any], *, block: Block) -> float:
    """Add up an expression over all entries of a block, whatever the cuts say.

    Parameters
    ----------
    text : with one number an event
    config : says which columns are derived and which numbers are missing values
    raw : branch name to column, with all that :func:`branches_of` names
    block : where the columns come from

    Raises
    ------
    DataError, ExpressionError
        For a list an event, and for an entry without a value.
    """
    keep = np.ones(block.stop - block.start, bool)
    columns = ColumnsOnUse(config, raw, block)
    values = known_values(text, columns, keep, block, what="sum_of_weights", wrong="is missing or not finite")
    return float(values.sum(dtype=np.float64))


def features(
    config: DataConfig, raw: Mapping[str, Any], *, num_events: int, where: str
) -> tuple[dict[str, Flat], dict[str, Objects]]:
    """Make the features of events that are all wanted, whatever the cuts on events say.

    Parameters
    ----------
    config : says which features there are, and how they are derived, cut and sorted
    raw : branch name to column of ``num_events`` events
    num_events : length of axis 0, which can't be told where there are no columns
    where : what the events come from, for messages

    Returns
    -------
    flat feature name to (num_events,), and collection name to its objects
    """
    block = Block(location=Location(where), start=0, stop=num_events, num_entries=num_events)
    columns = ColumnsOnUse(config, raw, block)
    keep = np.ones(num_events, bool)
    return _flat(config, columns, keep, block), {c.name: _objects(c, columns, keep, block) for c in config.jagged}


def passes(text: str, config: DataConfig, raw: Mapping[str, Any], *, block: Block) -> Bools:
    """Say which events pass a cut: where it is true, neither false nor unknown.

    Parameters
    ----------
    text : the cut, an expression with one value an event
    config : says which columns are derived and which numbers are missing values
    raw : branch name to column of the events of a block, with all that :func:`branches_of` names
    block : they are of, which messages name

    Raises
    ------
    DataError, ExpressionError
        For a cut that is no answer an event.
    """
    return decision(text, per_event(text, ColumnsOnUse(config, raw, block), block, what="cut"), block)


def observed(
    config: DataConfig, raw: Mapping[str, Any], *, block: Block, selected: Bools
) -> dict[str, npt.NDArray[Any]]:
    """Compute the observers of all events of a block, whatever the cuts say.

    Events that are not selected have -1 or false for what is missing and can't say so.

    Parameters
    ----------
    config : names the observers, and says what is derived
    raw : branch name to column, axis 0 = the block's entries
    block : where the columns come from
    selected : of which events, (n,)

    Raises
    ------
    DataError, ExpressionError
        For one that is no number an event, or that is missing in a selected event and can't say so.
    """
    columns, keep = ColumnsOnUse(config, raw, block), np.ones(block.stop - block.start, bool)
    return {o.name: _observer(o, columns, keep, block, needed=selected) for o in config.observers}


def parts_of(config: DataConfig, raw: Mapping[str, Any], *, block: Block) -> split.Parts:
    """Say which part every event of a block belongs to; see :func:`rootdata.events.split.assign`.

    Parameters
    ----------
    config : with the split, and what is derived
    raw : branch name to column, with all that the split needs
    block : where the columns come from
    """
    return _parts(config, ColumnsOnUse(config, raw, block), block)


def steps(config: DataConfig, raw: Mapping[str, Any], *, where: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Evaluate every part of the expressions of features on no events, which tells the type of each.

    Parameters
    ----------
    config : says which features there are, and how they are derived, cut and sorted
    raw : branch name to a column of no events
    where : what the columns come from, for messages

    Returns
    -------
    ``("derived", column)``, ``("cut", collection)`` or ``("sort", collection)`` to the parts of the expression; each
    after those that it needs
    """
    columns = ColumnsOnUse(config, raw, Block(location=Location(where), start=0, stop=0, num_entries=0))
    texts: dict[tuple[str, str], str] = {}
    for c in config.jagged:
        wanted = {"cut": c.cut, "sort": c.sort and c.sort.removeprefix("-")}
        texts |= {(use, c.name): text for use, text in wanted.items() if text}
    derived: dict[tuple[str, str], str] = {}
    for name in (*config.features, *(n for text in texts.values() for n in sorted(parse(text).names))):
        _add_derived(name, config, derived)
    return {key: columns.steps(text, key) for key, text in (derived | texts).items()}


def _add_derived(name: str, config: DataConfig, found: dict[tuple[str, str], str]) -> None:
    """Add a derived column, behind those that it is made of."""
    if name not in config.derived or ("derived", name) in found:
        return
    for needed in sorted(parse(config.derived[name]).names - {name}):
        _add_derived(needed, config, found)
    found["derived", name] = config.derived[name]


def _labels(config: DataConfig, sample: Sample, columns: ColumnsOnUse, keep: Bools, block: Block) -> Ints:
    if config.label is None:
        return np.full(int(keep.sum()), -1 if sample.label is None else sample.label, np.int64)
    allowed = ", ".join(f"{i} ({c})" for i, c in enumerate(config.classes))
    values = known_values(config.label, columns, keep, block, what="label", wrong=f"is missing (allowed: {allowed})")
    labels: Ints = values.astype(np.int64)
    bad = np.flatnonzero((labels != values) | (labels < 0) | (labels >= len(config.classes)))
    if len(bad):
        entry = block.start + int(np.flatnonzero(keep)[bad[0]])
        raise DataError(
            f"label {config.label!r} is {values[bad[0]]} at entry {entry} of {block.location.path} (sample "
            f"{sample.name!r}); allowed: {allowed}; write a comparison such as 'is_signal == 1', or declare `classes`"
        )
    return labels


def _reweighted(config: DataConfig, columns: ColumnsOnUse, keep: Bools, block: Block) -> tuple[Doubles, ...]:
    """Evaluate the variables by which events are reweighted."""
    if config.reweight is None:
        return ()
    how = {"what": "reweight.variables", "wrong": "is missing or not finite"}
    found = (known_values(text, columns, keep, block, **how) for text in config.reweight.variables)
    return tuple(values.astype(np.float64) for values in found)


def _weights(
    weight: str | float | None,
    sample: Sample,
    columns: ColumnsOnUse,
    keep: Bools,
    block: Block,
    *,
    what: str = "weight",
) -> npt.NDArray[np.float32]:
    """Evaluate a weight and multiply it by that of the sample."""
    weights = np.ones(int(keep.sum()), np.float64)
    for factor, name in ((weight, what), (sample.weight, f"samples.{sample.name}.weight")):
        if isinstance(factor, str):
            weights *= known_values(factor, columns, keep, block, what=name, wrong="is missing or not finite")
        elif factor is not None:
            weights *= factor
    with np.errstate(over="ignore"):
        single = weights.astype(np.float32)
    if not np.isfinite(single).all():
        entry = block.start + int(np.flatnonzero(keep)[~np.isfinite(single)][0])
        raise DataError(
            f"{what} of entry {entry} of {block.location.path} is not finite in float32; cut such events away"
        )
    return single


def _target(target: TargetColumn, columns: ColumnsOnUse, keep: Bools, block: Block) -> npt.NDArray[Any]:
    what = f"target {target.name!r},"
    return known_values(target.value, columns, keep, block, what=what, wrong="is missing or not finite")


def _parameter(
    parameter: Parameter,
    config: DataConfig,
    sample: Sample,
    columns: ColumnsOnUse,
    keep: Bools,
    labels: Ints,
    block: Block,
) -> npt.NDArray[np.float32]:
    """Return a parameter of the selected events, NaN for those that have none."""
    found = np.full(len(labels), np.nan, np.float32)
    has_one, value = np.isin(labels, parameter.labels(config.classes)), config.parameter_of(sample, parameter)
    if not has_one.any():
        return found
    what = f"parameter {parameter.name!r},"
    if value is None:
        raise ConfigError(
            f"{what} has no value in sample {sample.name!r}; give it parameters.{parameter.name}.value, an expression, "
            f"or samples.{sample.name}.parameters.{parameter.name}, a number"
        )
    if isinstance(value, str):
        rows = keep.copy()
        rows[np.flatnonzero(keep)[~has_one]] = False
        found[has_one] = known_values(value, columns, rows, block, what=what, wrong="is missing or not finite")
    else:
        found[has_one] = value
    return found


def _observer(
    observer: Observer, columns: ColumnsOnUse, keep: Bools, block: Block, *, needed: Bools | None = None
) -> npt.NDArray[Any]:
    """Return a column as it was read: a sentinel as itself, and of what is computed NaN where it is missing.

    Parameters
    ----------
    observer : which one
    columns, block : what it is computed of
    keep : the events whose values are returned
    needed : those of which a value is refused that can't be told; others have -1 or false; by default all that are kept
    """
    needed, known = keep if needed is None else needed, np.ones(len(keep), bool)
    text, what = observer.value, f"observer {observer.name!r}, {observer.value!r}"
    column = per_event(text, columns, block, what="observer")
    values = columns.as_read(text) if columns.is_branch(text) else missing.values_of(column)
    if isinstance(column, Masked) and not columns.is_branch(text):
        if values.dtype.kind == "f":
            values = missing.as_real(column)
        else:
            known = column.valid
            check_known(known, needed, block, what=f"{what} is missing, which whole numbers can't say,")
    if values.dtype == np.uint64:
        fits = values < 2**63
        check_known(fits, needed, block, what=f"{what} is 2**63 or more")
        known = known & fits
    kept = values[keep]
    kept = kept.astype(np.int64) if kept.dtype.kind in "iu" else kept
    told = known[keep]
    return kept if told.all() else np.where(told, kept, kept.dtype.type(False if kept.dtype.kind == "b" else -1))


def _flat(
    config: DataConfig, columns: Mapping[str, Any], keep: Bools, block: Block, *, given: Mapping[str, Flat] = {}
) -> dict[str, Flat]:
    flat: dict[str, Flat] = {}
    for name in config.flat:
        if name in given:
            flat[name] = given[name]
            continue
        values = columns[name]
        if not isinstance(values, np.ndarray | Masked):
            raise DataError(f"flat: {name!r} gives a list an event; reduce it, or move it to a collection ({block})")
        kept = values if keep.all() else values[keep]
        if kept.ndim == 1:
            flat[name] = kept
        else:
            flat |= {f"{name}[{i}]": kept[:, i] for i in range(kept.shape[1])}
    return flat


def _objects(collection: Collection, columns: ColumnsOnUse, keep: Bools, block: Block) -> Objects:
    lists = {b: jagged_lists(columns[b], b, collection, block) for b in collection.branches}
    check_counts(lists, collection, block)
    picked = {b: jagged.take_events(keep) for b, jagged in lists.items()}
    first = next(iter(picked.values()))
    if collection.cut is not None:
        passes = per_object(collection.cut, collection, columns, lists, block, what="cut").take_events(keep)
        chosen = decision(collection.cut, passes.values, block)
        if not chosen.all():
            picked = {b: jagged.take_objects(chosen) for b, jagged in picked.items()}
            first = next(iter(picked.values()))
    else:
        chosen = None
    contents = {b: jagged.values for b, jagged in picked.items()}
    if collection.sort is not None:
        key = per_object(collection.sort.removeprefix("-"), collection, columns, lists, block, what="sort")
        key = key.take_events(keep)
        key = key if chosen is None or chosen.all() else key.take_objects(chosen)
        order = order_of(key, descending=collection.sort.startswith("-"))
        if order is not None:
            contents = {b: content[order] for b, content in contents.items()}
    return Objects(offsets=first.offsets, columns=contents)
