"""The first pass: every file once, blocks in parallel, to specs."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rootdata import cache
from rootdata.config import PARTS, DataConfig, Sample
from rootdata.errors import BranchError, DataError, FileError, SpecsError
from rootdata.events import Block, Events, flat_features, needed_branches, select
from rootdata.files import (
    OPEN_TREES,
    Branch,
    Location,
    Opener,
    Tree,
    blocks_of,
    check_same_kinds,
    find,
    identity,
    use_fast_inflate,
)
from rootdata.specs import (
    FileSpecs,
    Specs,
    add_histograms,
    check_complete,
    check_matches,
    collects,
    fingerprint,
    key_of,
    stamp,
)
from rootdata.statistics import ColumnStats

TRAIN = PARTS.index("train")


class Progress(Protocol):
    """Told how much was read."""

    def expect(self, entries: int) -> None:
        """``entries`` more are to be read."""

    def advance(self, entries: int) -> None:
        """``entries`` more were read."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one block told.

    Parameters
    ----------
    counts : (start, stop, train, val, test)
    before : entries in each part before cuts
    labels : events of each class in each part
    """

    counts: tuple[int, ...]
    before: tuple[int, ...]
    labels: np.ndarray[Any, Any]
    flat: tuple[str, ...]
    columns: Mapping[str, ColumnStats]
    multiplicity: Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Surveyed:
    """What opening a file told."""

    location: Location
    uuid: str
    entries: int
    branches: Mapping[str, Branch]
    blocks: tuple[tuple[int, int], ...]


def find_files(config: DataConfig) -> list[tuple[int, Location]]:
    """Find the files of all samples.

    Returns
    -------
    (position of the sample, location) of every file, sample by sample

    Raises
    ------
    FileError
        Where a path matches nothing, or two samples share a file and tree.
    """
    found: list[tuple[int, Location]] = []
    for i, sample in enumerate(config.samples):
        found += [
            (i, location) for location in find(sample.files, tree=sample.tree, where=f"samples.{sample.name}.files")
        ]
    _check_owners(config, found)
    return found


def _check_owners(config: DataConfig, found: Sequence[tuple[int, Location]]) -> None:
    """Refuse events that would count for two samples, or twice for one."""
    owners: dict[Location, list[int]] = {}
    for i, location in found:
        before = owners.setdefault(identity(location), [])
        sample = config.samples[i]
        if i in before:
            raise FileError(
                f"samples.{sample.name}.files: {location.path}, tree {location.tree!r}, is named twice, its events "
                "would count double; name it once"
            )
        others = [config.samples[b] for b in before if sample.cut is None or config.samples[b].cut is None]
        if others:
            raise FileError(
                f"{location.path} belongs to samples {others[0].name!r} and {sample.name!r}; give each of them a cut "
                "or a tree of its own, or list the file once"
            )
        before.append(i)


def specs_for(config: DataConfig, *, given: Specs | str | Path | None = None, progress: bool = True) -> Specs:
    """Return the specs of a configuration: given ones, cached ones, or new ones.

    Parameters
    ----------
    given : specs, or the path of a file of them; refused where they were made for something else
    progress : show a bar while scanning

    Raises
    ------
    SpecsError
        Where the given specs do not match.
    """
    files = find_files(config)
    if given is not None:
        specs = given if isinstance(given, Specs) else Specs.load(given)
        check_matches(specs, config, files, where="the specs" if isinstance(given, Specs) else f"specs {given}")
        return _at_home(specs, files)
    mark = fingerprint(key_of(config), files)
    path = cache.specs_path(mark)
    if path.exists():
        try:
            return Specs.load(path)
        except SpecsError:
            path.unlink(missing_ok=True)  # written by another version or damaged: made anew below
    with bar("first pass", show=progress) as reporter:
        specs = scan(config, files, progress=reporter)
    try:
        specs.save(path)
    except OSError as error:
        warnings.warn(f"the specs can't be kept in {path.parent} ({error}); the next run scans again", stacklevel=2)
    return specs


def _at_home(specs: Specs, files: Sequence[tuple[int, Location]]) -> Specs:
    """Return specs with the paths of this machine."""
    moved = tuple(
        dataclasses.replace(f, path=where.path, replicas=where.replicas)
        for f, (_, where) in zip(specs.files, files, strict=True)
    )
    return dataclasses.replace(specs, files=moved)


def scan(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Specs:
    """Read every file once.

    Parameters
    ----------
    files : (position of the sample, location), as from :func:`find_files`
    workers : threads; the specs do not depend on it

    Raises
    ------
    FileError, BranchError, DataError
        For the first file, in order, that can't be used.
    """
    use_fast_inflate()
    with Opener() as opener, ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        try:
            surveys, measured = _read_all(config, files, opener, pool, progress)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    specs = _merge(config, files, surveys, measured)
    check_complete(specs, config)
    return specs


def _read_all(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    opener: Opener,
    pool: Executor,
    progress: Progress | None,
) -> tuple[list[Surveyed], list[list[Measured]]]:
    """Survey files and measure their blocks, some files at a time, so that a file is opened once.

    Returns
    -------
    What was found of each file, and of each of its blocks: in file order, whoever came first
    """
    surveys: list[Surveyed] = []
    measured: list[list[Measured]] = []
    kinds: dict[str, tuple[Branch, str]] = {}
    for low in range(0, len(files), OPEN_TREES):
        group = files[low : low + OPEN_TREES]
        found = [f.result() for f in [pool.submit(_survey, config, config.samples[i], w, opener) for i, w in group]]
        surveys += found
        _check_kinds(found, kinds)
        for survey in found:
            flat_features(config, survey.branches, where=f"{survey.location.path}, tree {survey.location.tree!r}")
        if progress is not None:
            progress.expect(sum(s.entries for s in found))
        pending = [_submit(config, config.samples[i], s, opener, pool) for (i, _), s in zip(group, found, strict=True)]
        for futures in pending:
            measured.append([f.result() for f in futures])
            if progress is not None:
                progress.advance(sum(m.counts[1] - m.counts[0] for m in measured[-1]))
    # A tree that was not named is known by now: it may be one that another path names.
    _check_owners(config, [(i, s.location) for (i, _), s in zip(files, surveys, strict=True)])
    return surveys, measured


def _submit(
    config: DataConfig, sample: Sample, survey: Surveyed, opener: Opener, pool: Executor
) -> list[Future[Measured]]:
    measure = functools.partial(_measure, config, sample, survey, opener)
    chosen = _chosen_blocks(config.fraction, len(survey.blocks))
    return [pool.submit(measure, *block, full=full) for block, full in zip(survey.blocks, chosen, strict=True)]


def _survey(config: DataConfig, sample: Sample, location: Location, opener: Opener) -> Surveyed:
    names = needed_branches(config, sample)
    surveyed = opener.use(location, functools.partial(_look, names))
    for branch in surveyed.branches.values():
        if branch.kind == "unusable":
            raise BranchError(
                f"branch {branch.name!r} can't be used: {branch.note} ({location.path}, tree "
                f"{surveyed.location.tree!r}); remove it from features, derived columns and cuts"
            )
    return surveyed


def _look(names: Sequence[str], tree: Tree) -> Surveyed:
    return Surveyed(
        location=tree.location,
        uuid=tree.uuid,
        entries=tree.num_entries,
        branches={name: tree.describe(name) for name in names},
        blocks=tuple(blocks_of(tree, names)),
    )


def _check_kinds(surveys: Sequence[Surveyed], kinds: dict[str, tuple[Branch, str]]) -> None:
    """Compare with the kinds of the files before, and add new branches to them."""
    for survey in surveys:
        for name, branch in survey.branches.items():
            known, path = kinds.setdefault(name, (branch, survey.location.path))
            check_same_kinds({name: known}, {name: branch}, first=path, path=survey.location.path)


def _chosen_blocks(fraction: float, n: int) -> list[bool]:
    """Choose which blocks of a file are read in full: evenly spread, the same for everybody, at least one."""
    return [i == 0 or int((i + 1) * fraction) > int(i * fraction) for i in range(n)]


def _measure(
    config: DataConfig, sample: Sample, survey: Surveyed, opener: Opener, start: int, stop: int, *, full: bool
) -> Measured:
    wanted = config if full else dataclasses.replace(config, flat=(), jagged=())
    block = Block(location=survey.location, start=start, stop=stop, num_entries=survey.entries)
    names = needed_branches(wanted, sample)

    def read(tree: Tree) -> dict[str, Any]:
        raw = tree.read(names, start, stop)
        if full:
            _check_counters(survey, tree, raw, block)
        return raw

    raw = opener.use(survey.location, read)
    events = select(wanted, sample, raw, block=block)
    return _statistics(wanted, events, block)


def _check_counters(survey: Surveyed, tree: Tree, raw: Mapping[str, Any], block: Block) -> None:
    import awkward as ak

    counted = {branch.counter: branch for branch in survey.branches.values() if branch.counter and branch.name in raw}
    for branch in counted.values():
        name = str(branch.counter)
        declared = raw[name] if name in raw else _counter(tree, name, block)
        found = np.asarray(ak.num(raw[branch.name]))
        if isinstance(declared, np.ndarray) and not np.array_equal(declared, found):
            at = int(np.flatnonzero(declared != found)[0])
            raise DataError(
                f"counter {branch.counter!r} says {declared[at]} but {branch.name!r} has {found[at]} objects in entry "
                f"{block.start + at} of {block.location.path}; the file is damaged: make it anew"
            )


def _counter(tree: Tree, name: str, block: Block) -> Any:
    """Read the counter of a branch; None where it is no branch of numbers itself, as in a split TClonesArray."""
    try:
        is_flat = tree.describe(name).kind == "flat"
    except BranchError:
        return None
    return tree.read([name], block.start, block.stop)[name] if is_flat else None


def _statistics(config: DataConfig, events: Events, block: Block) -> Measured:
    parts = range(len(PARTS))
    train = events.part == TRAIN
    labels = np.array(
        [
            np.bincount(events.label[(events.part == p) & (events.label >= 0)], minlength=len(config.classes))
            for p in parts
        ]
    )
    columns = {name: _column(config, name, values[train]) for name, values in events.flat.items()}
    multiplicity = {}
    for collection in config.jagged:
        objects = events.objects[collection.name]
        counts = np.diff(objects.offsets)
        multiplicity[collection.name] = tuple(int(n) for n in np.bincount(counts[train]))
        owner = np.repeat(train, counts)
        for name, values in objects.columns.items():
            stats = _column(config, name, values if owner.all() else values[owner])
            # Two collections may share a branch: central and forward jets. It has one scaling, learnt from both.
            columns[name] = columns[name].merge(stats) if name in columns else stats
    counts_by_part = np.bincount(events.part, minlength=len(PARTS))
    return Measured(
        counts=(block.start, block.stop, *(int(n) for n in counts_by_part)),
        before=tuple(int(n) for n in events.before),
        labels=labels,
        flat=tuple(events.flat),
        columns=columns,
        multiplicity=multiplicity,
    )


def _column(config: DataConfig, name: str, values: np.ndarray[Any, Any]) -> ColumnStats:
    return ColumnStats.of(values, missing=config.missing, **collects(config, name))


def _merge(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    surveys: Sequence[Surveyed],
    measured: Sequence[Sequence[Measured]],
) -> Specs:
    key = key_of(config)
    labels = np.zeros((len(config.samples), len(PARTS), len(config.classes)), np.int64)
    columns: dict[str, ColumnStats] = {}
    multiplicity: dict[str, tuple[int, ...]] = {c.name: () for c in config.jagged}
    flat: tuple[str, ...] = ()
    for (i, _), blocks in zip(files, measured, strict=True):
        for block in blocks:
            labels[i] += block.labels
            flat = flat or block.flat
            for name, stats in block.columns.items():
                columns[name] = columns[name].merge(stats) if name in columns else stats
            for name, histogram in block.multiplicity.items():
                multiplicity[name] = add_histograms(multiplicity[name], histogram)
    return Specs(
        key=key,
        fingerprint=fingerprint(key, files),
        samples=tuple(s.name for s in config.samples),
        files=tuple(_file(i, s, m) for (i, _), s, m in zip(files, surveys, measured, strict=True)),
        flat=flat,
        columns=columns,
        multiplicity=multiplicity,
        labels=tuple(tuple(tuple(int(n) for n in part) for part in sample) for sample in labels),
        estimated=config.fraction < 1.0,
    )


def _file(sample: int, survey: Surveyed, measured: Sequence[Measured]) -> FileSpecs:
    size, modified = stamp(survey.location)
    before = np.zeros(len(PARTS), np.int64)
    for block in measured:
        before += block.before
    return FileSpecs(
        path=survey.location.path,
        tree=str(survey.location.tree),
        sample=sample,
        uuid=survey.uuid,
        size=size,
        modified=modified,
        entries=survey.entries,
        before=tuple(int(n) for n in before),
        blocks=tuple(m.counts for m in measured),
        replicas=survey.location.replicas,
    )


@contextmanager
def bar(title: str, *, show: bool = True) -> Iterator[Progress | None]:
    """Show a progress bar with events a second while a pass runs."""
    if not show:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Display(*columns, TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), transient=True) as display:
        yield _Bar(display, title)


class _Bar:
    """A task of a rich progress display."""

    def __init__(self, display: Any, title: str) -> None:
        self._display = display
        self._task = display.add_task(title, total=0, rate="")
        self._total = 0

    def expect(self, entries: int) -> None:
        self._total += entries
        self._display.update(self._task, total=self._total)

    def advance(self, entries: int) -> None:
        self._display.advance(self._task, entries)
        speed = self._display.tasks[self._task].speed
        self._display.update(self._task, rate=f"{speed / 1e3:,.0f}k/s" if speed else "")
