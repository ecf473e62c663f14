"""What one file and its blocks tell the first pass: tasks that run in any thread, or on another machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from rootdata.errors import BranchError, ConfigError, DataError, FileError, RootDataError
from rootdata.events.evaluation import Block
from rootdata.events.needs import flat_features, needed_branches
from rootdata.events.quantiles import Quantiles
from rootdata.events.selection import Events, dealt, select
from rootdata.events.statistics import ColumnStats
from rootdata.expressions.objects import Flat
from rootdata.io.branches import Branch, check_same_kinds
from rootdata.io.reader import BlockReader, ChangedError, Described
from rootdata.jagged import digest
from rootdata.layouts.grid import grids
from rootdata.location import KnownFile, Location
from rootdata.missing import values_of
from rootdata.options.columns import TargetColumn
from rootdata.options.data import DataConfig
from rootdata.options.parts import PARTS
from rootdata.options.samples import Sample
from rootdata.scaling.transform import Transform
from rootdata.scan.specs import collected, collects

T_co = TypeVar("T_co", covariant=True)

TRAIN = PARTS.index("train")
BAD = (FileError, BranchError, DataError)  # what is wrong with a file, when it is opened, described and read


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """Why a file can't be used."""

    error: RootDataError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one block told.

    Parameters
    ----------
    counts : (start, stop, train, val, test)
    digest : of the columns that were read
    full : whether those were all that training reads
    before : entries in each part before cuts
    labels : events of each class in each part
    weights : (parts, classes + 1, 2) sum of the weights and of their sizes, of each class in each part; the last class
        is that of the events without a label
    drawn : as in :class:`rootdata.scan.specs.Specs`
    folds : the same where each fold in turn is tested; empty where there are none
    spread : of training events of each class, and of those without a label, quantiles of the variables by which they
        are reweighted in learnt bins; empty where none are
    """

    counts: tuple[int, ...]
    digest: str
    full: bool
    before: tuple[int, ...]
    labels: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    flat: tuple[str, ...]
    columns: Mapping[str, ColumnStats]
    targets: Mapping[str, ColumnStats]
    multiplicity: Mapping[str, tuple[int, ...]]
    drawn: Mapping[str, tuple[int, int, int]]
    folds: tuple[Measured, ...] = ()
    spread: tuple[tuple[Quantiles | None, ...], ...] = ()


class Task(Protocol[T_co]):
    """Something to do with files; it can be sent to another machine."""

    def __call__(self, reader: BlockReader) -> T_co:
        """Do it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DescribeFile:
    """The task to open a file and describe what is needed of it.

    Parameters
    ----------
    config, sample : without the files, which tasks do not need and which may be many
    """

    config: DataConfig
    sample: Sample
    location: Location

    def __call__(self, reader: BlockReader) -> Described | Rejected:
        """Open the file; what is wrong with it is returned."""
        try:
            described = reader.describe(self.location, needed_branches(self.config, self.sample))
            _check_usable(described)
            if self.config.parameters:
                names = reader.use(described.file.location, lambda tree: tree.names())
                _check_parameters(self.config, names, where=described.file.location.path)
        except BAD as error:
            return Rejected(error=error)
        return described


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeasureBlocks:
    """The task to read some blocks of a file.

    Parameters
    ----------
    file : as it was described
    portion : (start, stop, whether features are measured) of each block
    """

    config: DataConfig
    sample: Sample
    file: KnownFile
    portion: tuple[tuple[int, int, bool], ...]

    def __call__(self, reader: BlockReader) -> list[Measured] | Rejected:
        """Read the blocks; what keeps them from being read is returned.

        Raises
        ------
        DataError, ExpressionError, ConfigError
            Where the configuration does not suit what was read.
        """
        found = []
        for start, stop, full in self.portion:
            config = self.config if full else self.config.without_features()
            block = Block(location=self.file.location, start=start, stop=stop, num_entries=self.file.entries)
            try:
                # Part of a block nobody would look for in a store.
                raw = reader.read(self.file, needed_branches(config, self.sample), start, stop, keep=full)
            except ChangedError:
                return Rejected(
                    error=FileError(f"{self.file.location.path} was replaced while it was scanned; start again")
                )
            except BAD as error:
                return Rejected(error=error)
            events = select(config, self.sample, raw, block=block)
            measured = functools.partial(_statistics, block=block, digest=digest(raw), full=full)
            if config.folds is None:
                found.append(measured(config, events))
            else:
                folds = [measured(other, dealt(events, other, raw, block=block)) for other in config.every_fold]
                found.append(dataclasses.replace(folds[config.fold or 0], folds=tuple(folds)))
        return found


def _check_parameters(config: DataConfig, names: Collection[str], *, where: str) -> None:
    """Refuse a parameter with the name of another branch, which would be read in its place once events are scored."""
    for parameter in config.parameters:
        if parameter.name in names and parameter.value != parameter.name:
            raise ConfigError(
                f"parameters.{parameter.name}: {where} has a branch of that name, which is not the parameter; call "
                f"the parameter otherwise, such as {parameter.name}_hypothesis"
            )


def _check_sentinels(config: DataConfig, described: Described) -> None:
    """Refuse numbers that stand for no value and are 0 in the type of a branch: every 0 would be missing, or none."""
    for branch in described.branches.values():
        for number in config.missing_of(branch.name) if branch.dtype.startswith("float") else ():
            if number and np.dtype(branch.dtype).type(number) == 0:
                raise ConfigError(
                    f"missing: got {number:g}, which is 0 in {branch.dtype}, the type of {branch.name!r} in "
                    f"{described.file.location.path}; name the branches that hold it: missing={{BRANCH: [{number:g}]}}"
                )


def _check_usable(described: Described) -> None:
    location = described.file.location
    for branch in described.branches.values():
        if branch.kind == "unusable":
            raise BranchError(
                f"branch {branch.name!r} can't be used: {branch.note} ({location.path}, tree {location.tree!r}); "
                "remove it from features, derived columns and cuts"
            )


def check_suits(config: DataConfig, described: Described, kinds: Mapping[str, tuple[Branch, str]]) -> None:
    """Compare the kinds of a file's branches with those of the files before, and with their use.

    Parameters
    ----------
    config : says which branches are flat features, and which belong to collections
    described : the file, and what its branches hold
    kinds : branch name to what it is, and the path of the file where it was found first

    Raises
    ------
    BranchError, DataError, ConfigError
        Naming the branch, and the file or both files.
    """
    path = described.file.location.path
    _check_sentinels(config, described)
    for name, branch in described.branches.items():
        known, first = kinds.get(name, (branch, path))
        check_same_kinds({name: known}, {name: branch}, first=first, path=path)
    where = f"{path}, tree {described.file.location.tree!r}"
    flat_features(config, described.branches, where=where)
    for collection in config.jagged:
        for name in collection.branches:
            found = described.branches.get(name) if name not in config.derived else None
            if found is not None and found.kind == "flat":
                raise DataError(
                    f"jagged.{collection.name}: {name!r} has one number an event; list it under `flat` ({where})"
                )


def _statistics(config: DataConfig, events: Events, *, block: Block, digest: str, full: bool) -> Measured:
    train = events.part == TRAIN
    rows = None if train.all() else np.flatnonzero(train)
    columns = {name: _column(config, name, values, rows) for name, values in events.flat.items()}
    multiplicity = {}
    for collection in config.jagged:
        objects = events.objects[collection.name]
        counts = np.diff(objects.offsets)
        multiplicity[collection.name] = tuple(np.bincount(counts if rows is None else counts[rows]).tolist())
        owned = None if rows is None else np.flatnonzero(np.repeat(train, counts))
        for name, values in objects.columns.items():
            stats = _column(config, name, values, owned)
            # Two collections may share a branch: central and forward jets. It has one scaling, learnt from both.
            columns[name] = columns[name].merge(stats) if name in columns else stats
    drawn = _drawn(config, events, columns, train)
    by_part = np.bincount(events.part, minlength=len(PARTS))
    labels, weights = by_class(events, len(config.classes))
    return Measured(
        counts=(block.start, block.stop, *by_part.tolist()),
        digest=digest,
        full=full,
        before=tuple(events.before.tolist()),
        labels=labels,
        weights=weights,
        flat=tuple(events.flat),
        columns=columns,
        targets={t.name: _target(t, events.targets[t.name], rows) for t in config.targets},
        multiplicity=multiplicity,
        drawn=drawn,
        spread=_spread(config, events, train),
    )


def _spread(
    config: DataConfig, events: Events, train: np.ndarray[Any, Any]
) -> tuple[tuple[Quantiles | None, ...], ...]:
    """Summarise the variables whose bins are learnt, for each class."""
    if config.reweight is None or not any(isinstance(axis, int) for axis in config.reweight.bins):
        return ()
    label = events.label % (len(config.classes) + 1)
    pairs = list(zip(config.reweight.bins, events.reweighted, strict=True))
    owned = [train & (label == number) for number in range(len(config.classes) + 1)]
    return tuple(
        tuple(Quantiles.of(values[rows]) if isinstance(axis, int) else None for axis, values in pairs) for rows in owned
    )


def _drawn(
    config: DataConfig, events: Events, columns: Mapping[str, ColumnStats], train: np.ndarray[Any, Any]
) -> dict[str, tuple[int, int, int]]:
    """Count for each image the training objects, those outside the grid, and those in a cell that was filled before.

    An axis without a given range is taken from the smallest to the largest value of this block.
    """

    def extent(column: str) -> tuple[float, float]:
        stats = columns[column]
        low, high = (float(stats.low), float(stats.high)) if stats.count else (0.0, 0.0)
        return (low, high) if np.float32(low) < np.float32(high) else (low - 0.5 - abs(low), high + 0.5 + abs(high))

    made = {}
    for name, grid in grids(config.images, extent).items():
        objects = events.objects[name]
        counts = np.diff(objects.offsets)
        owner = np.repeat(np.arange(len(counts)), counts)
        of_training = train[owner]
        where = np.empty((2, len(owner)), np.float32)
        for values, line in zip(where, (grid.x, grid.y), strict=True):
            Transform().apply(objects.columns[line.column], values)
        cells = grid.cells_of(*where[:, of_training])
        inside = cells >= 0
        filled = np.unique(owner[of_training][inside] * grid.num_cells + cells[inside])
        made[name] = (len(cells), int((~inside).sum()), int(inside.sum()) - len(filled))
    return made


def by_class(events: Events, num_classes: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Count the events of each class in each part, and add up their weights; label -1 is the last class."""
    shape = len(PARTS), num_classes + 1
    where = events.part.astype(np.int64) * shape[1] + events.label % shape[1]
    weight = events.weight.astype(np.float64)
    sums = [np.bincount(where, values, minlength=shape[0] * shape[1]) for values in (weight, np.abs(weight))]
    counts = np.bincount(where, minlength=shape[0] * shape[1]).reshape(shape)
    return counts[:, :-1], np.stack(sums, axis=1).reshape(*shape, 2)


def _target(target: TargetColumn, values: np.ndarray[Any, Any], chosen: np.ndarray[Any, Any] | None) -> ColumnStats:
    """Measure a target, or only its values at the positions ``chosen``."""
    return ColumnStats.of(values if chosen is None else values.take(chosen), **collected(target.scale))


def _column(config: DataConfig, name: str, column: Flat, chosen: np.ndarray[Any, Any] | None) -> ColumnStats:
    """Measure a column, or only its values at the positions ``chosen``; a branch is measured as it was read."""
    is_derived = name in config.derived
    values = column if is_derived else values_of(column)
    values = values if chosen is None else values.take(chosen)
    return ColumnStats.of(values, missing=() if is_derived else config.missing_of(name), **collects(config, name))
