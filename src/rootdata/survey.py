"""What one file and its blocks tell the first pass: tasks that run in any thread, or on another machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from rootdata import blocks
from rootdata.branches import Branch, check_same_kinds
from rootdata.columns import Flat
from rootdata.config import PARTS, DataConfig, Sample
from rootdata.directories import Directory
from rootdata.errors import BranchError, DataError, FileError, RootDataError
from rootdata.events import Block, Events, flat_features, needed_branches, select
from rootdata.files import Location
from rootdata.jagged import digest
from rootdata.location import State
from rootdata.missing import values_of
from rootdata.opening import Opener
from rootdata.remote import is_remote
from rootdata.specs import collects
from rootdata.statistics import ColumnStats
from rootdata.trees import Tree, blocks_of

if TYPE_CHECKING:
    from rootdata.blocks import Store

T_co = TypeVar("T_co", covariant=True)

TRAIN = PARTS.index("train")
BAD = (FileError, BranchError, DataError)  # what is wrong with a file, when it is opened, described and read


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bad:
    """Why a file can't be used."""

    error: RootDataError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What opening a file told.

    Parameters
    ----------
    state : of the file that was opened
    blocks : (start, stop) of each
    directory : of a file of one block, which takes longer to open than to read
    """

    location: Location
    uuid: str
    state: State
    entries: int
    branches: Mapping[str, Branch]
    blocks: tuple[tuple[int, int], ...]
    directory: Directory | None


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
    """

    counts: tuple[int, ...]
    digest: str
    full: bool
    before: tuple[int, ...]
    labels: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any]
    flat: tuple[str, ...]
    columns: Mapping[str, ColumnStats]
    multiplicity: Mapping[str, tuple[int, ...]]


class Task(Protocol[T_co]):
    """Something to do with files; it can be sent to another machine."""

    def __call__(self, opener: Opener, store: Store | None) -> T_co:
        """Do it."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The task to open a file and describe what is needed of it.

    Parameters
    ----------
    config, sample : without the files, which tasks do not need and which may be many
    """

    config: DataConfig
    sample: Sample
    location: Location

    def __call__(self, opener: Opener, store: Store | None) -> Survey | Bad:  # noqa: ARG002 - tasks are called alike
        """Open the file; what is wrong with it is returned."""
        names = needed_branches(self.config, self.sample)
        try:
            survey = opener.use(self.location, functools.partial(_describe, names))
            _check_usable(survey)
        except BAD as error:
            return Bad(error=error)
        return survey


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The task to read some blocks of a file.

    Parameters
    ----------
    portion : (start, stop, whether features are measured) of each block
    """

    config: DataConfig
    sample: Sample
    survey: Survey
    portion: tuple[tuple[int, int, bool], ...]

    def __call__(self, opener: Opener, store: Store | None) -> list[Measured] | Bad:
        """Read the blocks; what keeps them from being read is returned.

        Raises
        ------
        DataError, ExpressionError, ConfigError
            Where the configuration does not suit what was read.
        """
        found = []
        for start, stop, full in self.portion:
            config = self.config if full else dataclasses.replace(self.config, flat=(), jagged=())
            block = Block(location=self.survey.location, start=start, stop=stop, num_entries=self.survey.entries)
            try:
                raw = self._read(needed_branches(config, self.sample), block, opener, store, full=full)
            except BAD as error:
                return Bad(error=error)
            events = select(config, self.sample, raw, block=block)
            found.append(_statistics(config, events, block, digest=digest(raw), full=full))
        return found

    def _read(
        self, names: Sequence[str], block: Block, opener: Opener, store: Store | None, *, full: bool
    ) -> dict[str, Any]:
        survey = self.survey

        def read(tree: Tree) -> dict[str, Any]:
            if (tree.uuid, tree.num_entries) != (survey.uuid, survey.entries) or tree.state.differs_from(survey.state):
                raise FileError(f"{survey.location.path} was replaced while it was scanned; start again")
            return tree.read(names, block.start, block.stop)

        # Part of a block nobody would look for, and files of this machine are read again as quickly.
        if not full or store is None or not is_remote(survey.location.path):
            return opener.use(survey.location, read)
        key = key_of_raw(survey.uuid, survey.entries, survey.state, tree=str(survey.location.tree), names=names,
                         start=block.start, stop=block.stop)  # fmt: skip
        # Servers tell times in seconds: what was kept may be of a file that was replaced within one.
        is_certain = bool(survey.state.is_settled and survey.state.version)
        return blocks.through(store, key, lambda: opener.use(survey.location, read), is_good=lambda _: is_certain)


def key_of_raw(uuid: str, entries: int, state: State, *, tree: str, names: Sequence[str], start: int, stop: int) -> str:
    """Name what is in a block of a remote file in a store: what the first pass puts there, training finds."""
    return blocks.key_of([uuid, entries, state.size, state.version, tree], names=names, start=start, stop=stop)


def _describe(names: Sequence[str], tree: Tree) -> Survey:
    branches = {name: tree.describe(name) for name in names}
    bounds = tuple(blocks_of(tree, names))
    return Survey(
        location=tree.location,
        uuid=tree.uuid,
        state=State(tree.state.size) if tree.location.replicas else tree.state,  # copies have times of their own
        entries=tree.num_entries,
        branches=branches,
        blocks=bounds,
        directory=tree.directory(names) if len(bounds) == 1 else None,
    )


def _check_usable(survey: Survey) -> None:
    for branch in survey.branches.values():
        if branch.kind == "unusable":
            raise BranchError(
                f"branch {branch.name!r} can't be used: {branch.note} ({survey.location.path}, tree "
                f"{survey.location.tree!r}); remove it from features, derived columns and cuts"
            )


def check_suits(config: DataConfig, survey: Survey, kinds: Mapping[str, tuple[Branch, str]]) -> None:
    """Compare the kinds of a file's branches with those of the files before, and with their use.

    Parameters
    ----------
    kinds : branch name to what it is, and the path of the file where it was found first

    Raises
    ------
    BranchError, DataError
        Naming the branch, and the file or both files.
    """
    path = survey.location.path
    for name, branch in survey.branches.items():
        known, first = kinds.get(name, (branch, path))
        check_same_kinds({name: known}, {name: branch}, first=first, path=path)
    where = f"{path}, tree {survey.location.tree!r}"
    flat_features(config, survey.branches, where=where)
    for collection in config.jagged:
        for name in collection.branches:
            found = survey.branches.get(name) if name not in config.derived else None
            if found is not None and found.kind == "flat":
                raise DataError(
                    f"jagged.{collection.name}: {name!r} has one number an event; list it under `flat` ({where})"
                )


def _statistics(config: DataConfig, events: Events, block: Block, *, digest: str, full: bool) -> Measured:
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
    by_part = np.bincount(events.part, minlength=len(PARTS))
    labels, weights = _by_class(events, len(config.classes))
    return Measured(
        counts=(block.start, block.stop, *by_part.tolist()),
        digest=digest,
        full=full,
        before=tuple(events.before.tolist()),
        labels=labels,
        weights=weights,
        flat=tuple(events.flat),
        columns=columns,
        multiplicity=multiplicity,
    )


def _by_class(events: Events, num_classes: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Count the events of each class in each part, and add up their weights; label -1 is the last class."""
    shape = len(PARTS), num_classes + 1
    where = events.part.astype(np.int64) * shape[1] + events.label % shape[1]
    weight = events.weight.astype(np.float64)
    sums = [np.bincount(where, values, minlength=shape[0] * shape[1]) for values in (weight, np.abs(weight))]
    counts = np.bincount(where, minlength=shape[0] * shape[1]).reshape(shape)
    return counts[:, :-1], np.stack(sums, axis=1).reshape(*shape, 2)


def _column(config: DataConfig, name: str, column: Flat, chosen: np.ndarray[Any, Any] | None) -> ColumnStats:
    """Measure a column, or the values of it at the positions ``chosen``; of a branch, what was read."""
    is_derived = name in config.derived
    values = column if is_derived else values_of(column)
    values = values if chosen is None else values.take(chosen)
    return ColumnStats.of(values, missing=() if is_derived else config.missing, **collects(config, name))
