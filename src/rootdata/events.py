"""From the raw columns of a block to its selected events: derived columns, cuts, label, weight, split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata import split
from rootdata.branches import Branch
from rootdata.config import PARTS, Collection, DataConfig, Sample
from rootdata.errors import BranchError, ConfigError, DataError, ShapeError
from rootdata.expressions import parse
from rootdata.files import Location
from rootdata.jagged import Bools, Ints, Jagged


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """The objects of a collection in the selected events.

    Parameters
    ----------
    offsets : (n_events + 1,) int64
    columns : branch name to (n_objects,)
    """

    offsets: Ints
    columns: Mapping[str, npt.NDArray[Any]]


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
    """

    entry: Ints
    part: split.Parts
    label: Ints
    weight: npt.NDArray[np.float32]
    flat: Mapping[str, npt.NDArray[Any]]
    objects: Mapping[str, Objects]
    before: Ints

    def __len__(self) -> int:
        return len(self.entry)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A contiguous entry range of one tree."""

    location: Location
    start: int
    stop: int
    num_entries: int

    def __str__(self) -> str:
        return f"{self.location.path}, tree {self.location.tree!r}, entries {self.start} to {self.stop}"


def needed_branches(config: DataConfig, sample: Sample) -> tuple[str, ...]:
    """Return the branches that a sample's blocks must read, derived columns resolved, in a stable order."""
    texts = [config.cut, config.label, config.weight, sample.cut, sample.weight]
    names = [*feature_branches(config), *(n for t in texts if isinstance(t, str) for n in sorted(parse(t).names))]
    return _resolved([*names, *sorted(split.branches_of(config.split))], config)


def feature_branches(config: DataConfig) -> tuple[str, ...]:
    """Return the branches that the features of an event are made of, in a stable order."""
    texts = [c.cut for c in config.jagged if c.cut] + [c.sort.removeprefix("-") for c in config.jagged if c.sort]
    return _resolved([*config.features, *(n for t in texts for n in sorted(parse(t).names))], config)


def _resolved(names: Iterable[str], config: DataConfig) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        _resolve(name, config, found, seen=())
    return tuple(found)


def _resolve(name: str, config: DataConfig, found: dict[str, None], seen: tuple[str, ...]) -> None:
    if name in seen:
        cycle = " -> ".join((*seen[seen.index(name) :], name))
        raise ConfigError(f"derived columns depend on each other: {cycle}; break the cycle")
    if name not in config.derived:
        found[name] = None
        return
    for needed in sorted(parse(config.derived[name]).names):
        if needed == name:
            found[name] = None  # `MET: MET / 1000` means the branch of that name
        else:
            _resolve(needed, config, found, (*seen, name))


def flat_features(config: DataConfig, branches: Mapping[str, Branch], *, where: str = "") -> tuple[str, ...]:
    """Name the flat features, with ``cov[0]``, ``cov[1]``, ... for a fixed-size branch ``cov``.

    Raises
    ------
    BranchError
        For a branch that is jagged or unusable.
    """
    names: list[str] = []
    for name in config.flat:
        branch = branches.get(name) if name not in config.derived else None
        if branch is not None and branch.kind == "jagged":
            raise BranchError(
                f"flat: {name!r} is jagged, a list an event; put it into a collection under `jagged`, "
                f"or derive one number from it, such as max({name}) or {name}[0]{where and f' ({where})'}"
            )
        names += [f"{name}[{i}]" for i in range(branch.width)] if branch and branch.kind == "fixed" else [name]
    return tuple(names)


def select(
    config: DataConfig, sample: Sample, raw: Mapping[str, Any], *, block: Block, part: int | None = None
) -> Events:
    """Apply derived columns, split and cuts to a block.

    Parameters
    ----------
    raw : branch name to column, axis 0 = the block's entries
    block : where the columns come from
    part : keep this part only; ``None`` keeps all three

    Raises
    ------
    DataError
        For labels that are no class number, counts that disagree, an event or object cut of the wrong shape.
    """
    n = block.stop - block.start
    columns = _Columns(config, raw, n)
    parts = split.assign(
        config.split, columns, location=block.location, start=block.start, stop=block.stop,
        num_entries=block.num_entries,
    )  # fmt: skip
    keep = parts < split.NO_PART if part is None else parts == part
    for text in (config.cut, sample.cut):
        if text is not None:
            keep &= _decision(text, _per_event(text, columns, n, block, what="cut"), block)
    return Events(
        entry=np.flatnonzero(keep) + block.start,
        part=parts[keep],
        label=_labels(config, sample, columns, keep, block),
        weight=_weights(config, sample, columns, keep, block),
        flat=_flat(config, columns, keep, block),
        objects={c.name: _objects(c, columns, keep, block) for c in config.jagged},
        before=np.bincount(parts, minlength=len(PARTS) + 1)[: len(PARTS)],
    )


def features(
    config: DataConfig, raw: Mapping[str, Any], *, num_events: int, where: str
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Objects]]:
    """Make the features of events that are all wanted, whatever the cuts on events say.

    Parameters
    ----------
    raw : branch name to column of ``num_events`` events
    where : what the events come from, for messages

    Returns
    -------
    flat feature name to (num_events,), and collection name to its objects
    """
    columns = _Columns(config, raw, num_events)
    keep = np.ones(num_events, bool)
    block = Block(location=Location(where), start=0, stop=num_events, num_entries=num_events)
    return _flat(config, columns, keep, block), {c.name: _objects(c, columns, keep, block) for c in config.jagged}


class _Columns(Mapping[str, Any]):
    """Branches and derived columns of a block under one roof, derived ones computed on first use."""

    def __init__(self, config: DataConfig, raw: Mapping[str, Any], num_events: int) -> None:
        self._derived = config.derived
        self._raw = raw
        self._num_events = num_events
        self._done: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._derived:
            return self._raw[name]
        if name not in self._done:
            expression = parse(self._derived[name], where=f"derived column {name!r}")
            inputs = {n: self._raw[n] if n == name else self[n] for n in expression.names}
            self._done[name] = expression.evaluate(inputs, num_events=self._num_events)
        return self._done[name]

    def __iter__(self) -> Any:
        return iter({**self._raw, **self._derived})

    def __len__(self) -> int:
        return len({**self._raw, **self._derived})


def _evaluate(text: str, columns: Mapping[str, Any], num_events: int, what: str) -> Any:
    expression = parse(text, where=what)
    return expression.evaluate({n: columns[n] for n in expression.names}, num_events=num_events)


def _per_event(text: str, columns: Mapping[str, Any], num_events: int, block: Block, *, what: str) -> npt.NDArray[Any]:
    values = _evaluate(text, columns, num_events, what)
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise DataError(
            f"{what} {text!r} gives a list an event; reduce it with any(), all(), sum(), max(), ... ({block})"
        )
    return values


def _decision(text: str, values: npt.NDArray[Any], block: Block) -> Bools:
    if values.dtype.kind == "f":  # NaN, which means missing, would count as true
        raise DataError(f"cut {text!r} gives numbers, not yes or no; write a comparison such as '{text} > 0' ({block})")
    return values.astype(bool)


def _labels(config: DataConfig, sample: Sample, columns: Mapping[str, Any], keep: Bools, block: Block) -> Ints:
    kept = int(keep.sum())
    if config.label is None:
        return np.full(kept, -1 if sample.label is None else sample.label, np.int64)
    values = _per_event(config.label, columns, len(keep), block, what="label")[keep]
    labels: Ints = np.nan_to_num(values, nan=-1.0, posinf=-1.0, neginf=-1.0).astype(np.int64)
    bad = np.flatnonzero((labels != values) | (labels < 0) | (labels >= len(config.classes)))
    if len(bad):
        allowed = ", ".join(f"{i} ({c})" for i, c in enumerate(config.classes))
        entry = block.start + int(np.flatnonzero(keep)[bad[0]])
        raise DataError(
            f"label {config.label!r} is {values[bad[0]]} at entry {entry} of {block.location.path} (sample "
            f"{sample.name!r}); allowed: {allowed}; write a comparison such as 'is_signal == 1', or declare `classes`"
        )
    return labels


def _weights(
    config: DataConfig, sample: Sample, columns: Mapping[str, Any], keep: Bools, block: Block
) -> npt.NDArray[np.float32]:
    weights = np.ones(int(keep.sum()), np.float64)
    for weight in (config.weight, sample.weight):
        if isinstance(weight, str):
            weights *= _per_event(weight, columns, len(keep), block, what="weight")[keep]
        elif weight is not None:
            weights *= weight
    with np.errstate(over="ignore"):
        single = weights.astype(np.float32)
    if not np.isfinite(single).all():
        entry = block.start + int(np.flatnonzero(keep)[~np.isfinite(single)][0])
        raise DataError(f"the weight of entry {entry} of {block.location.path} is not finite; cut such events away")
    return single


def _flat(config: DataConfig, columns: Mapping[str, Any], keep: Bools, block: Block) -> dict[str, npt.NDArray[Any]]:
    flat: dict[str, npt.NDArray[Any]] = {}
    for name in config.flat:
        values = columns[name]
        if not isinstance(values, np.ndarray):
            raise DataError(f"flat: {name!r} gives a list an event; reduce it, or move it to a collection ({block})")
        kept = values if keep.all() else values[keep]
        if kept.ndim == 1:
            flat[name] = kept
        else:
            flat |= {f"{name}[{i}]": kept[:, i] for i in range(kept.shape[1])}
    return flat


def _objects(collection: Collection, columns: Mapping[str, Any], keep: Bools, block: Block) -> Objects:
    lists = {b: _jagged(columns[b], b, collection, block) for b in collection.branches}
    _check_counts(lists, collection, block)
    picked = {b: jagged.take_events(keep) for b, jagged in lists.items()}
    first = next(iter(picked.values()))
    if collection.cut is not None:
        passes = _per_object(collection.cut, collection, columns, lists, block, what="cut").take_events(keep)
        chosen = _decision(collection.cut, passes.content, block)
        if not chosen.all():
            picked = {b: jagged.take_objects(chosen) for b, jagged in picked.items()}
            first = next(iter(picked.values()))
    else:
        chosen = None
    contents = {b: jagged.content for b, jagged in picked.items()}
    if collection.sort is not None:
        key = _per_object(collection.sort.removeprefix("-"), collection, columns, lists, block, what="sort")
        key = key.take_events(keep)
        values = key.content if chosen is None or chosen.all() else key.content[chosen]
        order = _sorted_order(values, first.counts, descending=collection.sort.startswith("-"))
        if order is not None:
            contents = {b: content[order] for b, content in contents.items()}
    return Objects(offsets=first.offsets, columns=contents)


def _jagged(values: Any, name: str, collection: Collection, block: Block) -> Jagged:
    if isinstance(values, np.ndarray) and values.ndim == 1:
        raise DataError(f"jagged.{collection.name}: {name!r} has one number an event; list it under `flat` ({block})")
    try:
        return values if isinstance(values, Jagged) else Jagged.from_awkward(values)
    except ShapeError as error:
        raise DataError(
            f"jagged.{collection.name}: {name!r} is nested deeper than a list an event ({block})"
        ) from error


def _check_counts(lists: Mapping[str, Jagged], collection: Collection, block: Block) -> None:
    first, *others = lists
    for other in others:
        if lists[other].offsets is lists[first].offsets or np.array_equal(lists[other].offsets, lists[first].offsets):
            continue
        at = int(np.flatnonzero(lists[other].counts != lists[first].counts)[0])
        raise DataError(
            f"jagged.{collection.name}: {first!r} has {lists[first].counts[at]} objects but {other!r} has "
            f"{lists[other].counts[at]} in entry {block.start + at} of {block.location.path}; "
            "branches of one collection share their counts: put them into two"
        )


def _per_object(
    text: str,
    collection: Collection,
    columns: Mapping[str, Any],
    lists: Mapping[str, Jagged],
    block: Block,
    *,
    what: str,
) -> Jagged:
    values = _evaluate(text, columns, block.stop - block.start, f"jagged.{collection.name}.{what}")
    first = next(iter(lists.values()))
    jagged = _jagged(values, text, collection, block)
    if not np.array_equal(jagged.offsets, first.offsets):
        raise DataError(
            f"jagged.{collection.name}.{what}: {text!r} does not have one value for each "
            f"object of the collection ({block})"
        )
    return jagged


def _sorted_order(values: npt.NDArray[Any], counts: Ints, *, descending: bool) -> Ints | None:
    """Order the objects within their events, ties and missing ones last in file order; None if they are sorted."""
    event = np.repeat(np.arange(len(counts)), counts)
    key = -values.astype(np.float64) if descending else values.astype(np.float64)
    if len(key) < 2 or not np.any((key[1:] < key[:-1]) & (event[1:] == event[:-1]) | np.isnan(key[:-1])):
        return None
    return np.lexsort((key, event))
