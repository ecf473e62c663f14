"""The first pass: every file once, blocks in parallel, to specs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from rootdata import cache
from rootdata.branches import Branch
from rootdata.causes import reason_of
from rootdata.config import PARTS, DataConfig, ReadConfig, Sample, Split
from rootdata.directories import Directories
from rootdata.errors import FileError, RootDataError, SpecsError
from rootdata.files import Location, find, identity, state_of, states_of
from rootdata.location import State
from rootdata.opening import OPEN_TREES, Opener
from rootdata.remote import is_remote
from rootdata.renaming import renamed
from rootdata.specs import (
    FileSpecs,
    SkippedFile,
    Specs,
    add_histograms,
    as_tuples,
    check_complete,
    check_matches,
    fingerprint,
    key_of,
)
from rootdata.statistics import ColumnStats
from rootdata.survey import BAD, Bad, Look, Measure, Measured, Survey, Task, check_suits
from rootdata.trees import use_fast_inflate

if TYPE_CHECKING:
    from rootdata.blocks import Store

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SHOWN = 3  # bad files that a warning names
MANY_FILES = 10_000  # looked at together where many machines read
MANY_BLOCKS = 16  # of a file in one task there: about 100 MB, so that opening it anew costs little


class Progress(Protocol):
    """Told how much was read."""

    def expect(self, entries: int) -> None:
        """``entries`` more are to be read."""

    def advance(self, entries: int) -> None:
        """``entries`` more were read."""


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


def specs_for(
    config: DataConfig,
    *,
    given: Specs | str | Path | None = None,
    progress: bool = True,
    read: ReadConfig = ReadConfig(),  # noqa: B008 - frozen
    store: Store | None = None,
    scheduler: str | None = None,
) -> Specs:
    """Return the specs of a configuration: given ones, cached ones, or new ones.

    Parameters
    ----------
    given : specs, or the path of a file of them; refused where they were made for something else
    progress : show a bar while scanning
    read : how files are read, remote ones above all
    store : where decoded blocks are kept, so that training finds them there
    scheduler : address of a ``dask.distributed`` scheduler, over whose workers a new pass is spread

    Raises
    ------
    SpecsError
        Where the given specs do not match.
    """
    files = find_files(config)
    if given is not None:
        return _at_home(_given(given, config, files), files)
    states = _states_of(files)
    path = cache.specs_path(fingerprint(key_of(config), files, states))
    specs = _cached(path)
    if specs is None:
        with cache.alone(path):  # the ranks of a training may ask all at once
            specs = _cached(path)
            if specs is None:
                with bar("first pass", show=progress) as reporter:
                    specs, directories = _scan(
                        config, files, states, progress=reporter, read=read, store=store, scheduler=scheduler
                    )
                _keep(specs, directories, path, config.split)
    _warn_of_skipped(specs)
    return _at_home(specs, files)


def _given(given: Specs | str | Path, config: DataConfig, files: Sequence[tuple[int, Location]]) -> Specs:
    if isinstance(given, Specs):  # whoever has them was warned
        check_matches(given, config, files, where="the specs")
        return given
    specs = Specs.load(given)
    check_matches(specs, config, files, where=f"specs {given}")
    _warn_of_skipped(specs)
    return specs


def _cached(path: Path) -> Specs | None:
    try:
        return Specs.load(path) if path.exists() else None
    except (SpecsError, OSError):  # written by another version, damaged, or not to be read: made anew
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None


def _keep(specs: Specs, directories: Directories, path: Path, split: Split) -> None:
    try:
        _warn_of_renamed(renamed(cache.names_path(), specs.files, split))
        directories.save(cache.directories_path(specs.fingerprint))
        specs.save(path)
    except OSError as error:
        words = f"the specs can't be kept in {path.parent} ({reason_of(error)}); the next run scans again: "
        warnings.warn(f"{words}let ROOTDATA_CACHE name a folder that can be written", stacklevel=3)


def _warn_of_renamed(names: Mapping[str, str]) -> None:
    if names:
        new, old = next(iter(names.items()))
        warnings.warn(
            f"{len(names)} files hold what an earlier first pass read under another name ({new}: {old}): a split by "
            "names deals their events to other parts now, and a network that was trained before has seen some of the "
            "new test part; keep the names, or split by entries or by an expression such as 'event % 5'",
            stacklevel=4,
        )


def forget(specs: Specs) -> None:
    """Remove specs from the cache: a file is not the one that they describe, though nothing outside it tells."""
    with contextlib.suppress(OSError):
        cache.specs_path(specs.fingerprint).unlink(missing_ok=True)
        cache.directories_path(specs.fingerprint).unlink(missing_ok=True)


def _warn_of_skipped(specs: Specs) -> None:
    if not specs.skipped:
        return
    shown = "; ".join(f"{specs.samples[s.sample]}: {s.reason}" for s in specs.skipped[:SHOWN])
    count, of = len(specs.skipped), len(specs.skipped) + len(specs.files)
    more = f"; and {count - SHOWN} more" if count > SHOWN else ""
    warnings.warn(f"{count} of {of} files are skipped (on_bad_file='skip'): {shown}{more}", stacklevel=3)


def _at_home(specs: Specs, files: Sequence[tuple[int, Location]]) -> Specs:
    """Return specs with the paths of this machine."""
    left_out = {s.position: s for s in specs.skipped}
    used = [location for i, (_, location) in enumerate(files) if i not in left_out]
    moved = tuple(
        dataclasses.replace(f, path=where.path, replicas=where.replicas)
        for f, where in zip(specs.files, used, strict=True)
    )
    skipped = tuple(dataclasses.replace(s, path=files[s.position][1].path) for s in specs.skipped)
    return dataclasses.replace(specs, files=moved, skipped=skipped)


def scan(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    read: ReadConfig = ReadConfig(),  # noqa: B008 - frozen
    store: Store | None = None,
    scheduler: str | None = None,
) -> Specs:
    """Read every file once.

    Parameters
    ----------
    files : (position of the sample, location), as from :func:`find_files`
    workers : threads; the specs do not depend on it
    store : is given the decoded blocks, where no scheduler has others read them
    scheduler : address of a ``dask.distributed`` scheduler; the specs do not depend on it

    Raises
    ------
    FileError, BranchError, DataError
        For the first file, in order, that can't be used; where bad files are skipped, for a sample without a good one.
    ConfigError
        Where the scheduler can't be reached.
    """
    return _scan(
        config,
        files,
        _states_of(files),
        progress=progress,
        workers=workers,
        read=read,
        store=store,
        scheduler=scheduler,
    )[0]


def _scan(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    states: Sequence[State],
    *,
    progress: Progress | None,
    read: ReadConfig,
    store: Store | None,
    scheduler: str | None,
    workers: int | None = None,
) -> tuple[Specs, Directories]:
    with _near(read, store, workers) if scheduler is None else _far(read, scheduler) as crew:
        read_files = _read_all(config, files, crew, progress)
    good = [file for file in read_files if isinstance(file, _Good)]
    # A tree that was not named is known by now: it may be one that another path names.
    _check_owners(config, [(file.sample, file.survey.location) for file in good])
    _check_unchanged(files, states, good)
    specs = _merge(config, good)
    skipped = tuple(
        SkippedFile(path=where.path, sample=i, reason=str(file.error), position=position, size=states[position].size)
        for position, ((i, where), file) in enumerate(zip(files, read_files, strict=True))
        if isinstance(file, Bad)
    )
    specs = dataclasses.replace(specs, fingerprint=fingerprint(specs.key, files, states), skipped=skipped)
    check_complete(specs, config)
    directories = Directories()
    for file in good:
        if file.survey.directory is not None:
            directories.add((file.survey.location.path, str(file.survey.location.tree)), file.survey.directory)
    return specs, directories


def _states_of(files: Sequence[tuple[int, Location]]) -> list[State]:
    return states_of([location for _, location in files])


def _check_unchanged(files: Sequence[tuple[int, Location]], states: Sequence[State], good: Sequence[_Good]) -> None:
    """Refuse what was read of files that were replaced or rewritten meanwhile; remote ones are looked at once."""
    for file in good:
        location, before = files[file.position][1], states[file.position]
        now = file.survey.state if is_remote(location.path) else state_of(location)
        if now.differs_from(before):
            raise FileError(f"{location.path} was changed while it was scanned; start again")


# Who reads


class _Result(Protocol[T_co]):
    """Something that will be there."""

    def result(self) -> T_co:
        """Wait for it; an error that was raised on the way is raised here."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Crew:
    """Those who carry out the tasks of the pass.

    Parameters
    ----------
    submit : hands in tasks, each of which is called with an opener and a store
    files : that are looked at together
    blocks : of a file that one task measures
    """

    submit: Callable[[Sequence[Task[Any]]], Sequence[_Result[Any]]]
    files: int
    blocks: int


@contextmanager
def _near(read: ReadConfig, store: Store | None, workers: int | None) -> Iterator[_Crew]:
    """Read in threads, few files at a time, so that each is opened once."""
    use_fast_inflate()
    threads = workers or min(4, os.cpu_count() or 1)
    with Opener(patience=read.patience, deadline=read.deadline) as opener, ThreadPoolExecutor(threads) as pool:
        try:
            yield _Crew(
                submit=lambda tasks: [pool.submit(task, opener, store) for task in tasks], files=OPEN_TREES, blocks=1
            )
        except BaseException:
            opener.close()  # what waits for a remote file gives up
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _far(read: ReadConfig, scheduler: str) -> Iterator[_Crew]:
    """Read on the workers of a scheduler, all files at a time, each in tasks that open it anew."""
    from rootdata.distributed import connected

    with connected(scheduler, patience=read.patience) as submit:
        yield _Crew(
            submit=lambda tasks: submit([functools.partial(_carry_out, task, read) for task in tasks]),
            files=MANY_FILES,
            blocks=MANY_BLOCKS,
        )


def _carry_out(task: Task[T], read: ReadConfig) -> T:
    use_fast_inflate()
    with Opener(patience=read.patience, deadline=read.deadline) as opener:
        return task(opener, None)


# What is read


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Good:
    """A file, and what its blocks told."""

    position: int
    sample: int
    survey: Survey
    measured: tuple[Measured, ...]


def _read_all(
    config: DataConfig, files: Sequence[tuple[int, Location]], crew: _Crew, progress: Progress | None
) -> list[_Good | Bad]:
    """Look at files and measure their blocks.

    Returns
    -------
    What was found of each file: in their order, whoever came first
    """
    found: list[_Good | Bad] = []
    kinds: dict[str, tuple[Branch, str]] = {}
    for low in range(0, len(files), crew.files):
        group = files[low : low + crew.files]
        for looked, measuring in _begin(config, group, crew, progress):
            position = len(found)
            file = _judge(config, files[position][0], position, looked, measuring, kinds)
            if isinstance(file, _Good):
                for name, branch in file.survey.branches.items():
                    kinds.setdefault(name, (branch, file.survey.location.path))
            elif config.on_bad_file == "error":
                raise _refusal(file, position, files, found) from file.error
            if progress is not None and isinstance(looked, Survey):
                progress.advance(looked.entries)
            found.append(file)
    if config.on_bad_file == "skip":
        _check_some_good(config, files, found)
    return found


def _begin(
    config: DataConfig, files: Sequence[tuple[int, Location]], crew: _Crew, progress: Progress | None
) -> list[tuple[Survey | Bad, Sequence[_Result[list[Measured] | Bad]]]]:
    """Look at some files, and let the measuring of their blocks begin."""
    bare = dataclasses.replace(config, samples=())
    samples = [dataclasses.replace(config.samples[i], files=()) for i, _ in files]
    looks = [Look(config=bare, sample=s, location=where) for s, (_, where) in zip(samples, files, strict=True)]
    looked: list[Survey | Bad] = [r.result() for r in crew.submit(looks)]
    if config.on_bad_file == "error":  # what comes after the first bad file is not worth the time
        looked = looked[: next((i + 1 for i, one in enumerate(looked) if isinstance(one, Bad)), len(looked))]
    if progress is not None:
        progress.expect(sum(one.entries for one in looked if isinstance(one, Survey)))
    tasks = [
        [] if isinstance(one, Bad) else _portions(bare, sample, one, crew.blocks)
        for one, sample in zip(looked, samples, strict=False)
    ]
    return list(zip(looked, _submit_in_turns(crew, tasks), strict=True))


def _submit_in_turns(crew: _Crew, tasks: Sequence[Sequence[Task[T]]]) -> list[list[_Result[T]]]:
    """Hand in the first task of every file, then the second of each: two readers in one file would open it twice."""
    turns = sorted((turn, file) for file, own in enumerate(tasks) for turn in range(len(own)))
    results: list[list[_Result[T]]] = [[] for _ in tasks]
    for (_, file), result in zip(turns, crew.submit([tasks[file][turn] for turn, file in turns]), strict=True):
        results[file].append(result)
    return results


def _portions(config: DataConfig, sample: Sample, survey: Survey, size: int) -> list[Measure]:
    chosen = _chosen_blocks(config.fraction, len(survey.blocks))
    blocks = [(*block, full) for block, full in zip(survey.blocks, chosen, strict=True)]
    portions = [tuple(blocks[low : low + size]) for low in range(0, len(blocks), size)]
    return [Measure(config=config, sample=sample, survey=survey, portion=portion) for portion in portions]


def _chosen_blocks(fraction: float, n: int) -> list[bool]:
    """Choose which blocks of a file are read in full: evenly spread, the same for everybody, at least one."""
    return [i == 0 or int((i + 1) * fraction) > int(i * fraction) for i in range(n)]


def _judge(
    config: DataConfig,
    sample: int,
    position: int,
    looked: Survey | Bad,
    measuring: Sequence[_Result[list[Measured] | Bad]],
    kinds: Mapping[str, tuple[Branch, str]],
) -> _Good | Bad:
    """Say whether a file is good, of the kinds of the good ones before it."""
    if isinstance(looked, Bad):
        return looked
    try:
        check_suits(config, looked, kinds)
    except BAD as error:
        return Bad(error=error)
    measured: list[Measured] = []
    for portion in measuring:
        got = portion.result()
        if isinstance(got, Bad):
            return got
        measured += got
    return _Good(position=position, sample=sample, survey=looked, measured=tuple(measured))


def _refusal(
    bad: Bad, position: int, files: Sequence[tuple[int, Location]], found: Sequence[_Good | Bad]
) -> RootDataError:
    """Add to an error that files may be skipped, where that would help: what no file has is no matter of bad files."""
    sample = files[position][0]
    has_good = any(isinstance(file, _Good) and file.sample == sample for file in found)
    has_others = sum(i == sample for i, _ in files) > 1
    if not (has_good or (has_others and isinstance(bad.error, FileError))):
        return bad.error
    return type(bad.error)(f"{bad.error}, or leave such files out with on_bad_file=skip")


def _check_some_good(config: DataConfig, files: Sequence[tuple[int, Location]], found: Sequence[_Good | Bad]) -> None:
    """Refuse a sample of which no file is left, with the error of its first one."""
    for i, sample in enumerate(config.samples):
        own = [file for (owner, _), file in zip(files, found, strict=True) if owner == i]
        bad = [file.error for file in own if isinstance(file, Bad)]
        if bad and len(bad) == len(own):
            raise type(bad[0])(f"sample {sample.name!r}: none of its {len(own)} files can be used: {bad[0]}") from bad[
                0
            ]


def _merge(config: DataConfig, files: Sequence[_Good]) -> Specs:
    labels = np.zeros((len(config.samples), len(PARTS), len(config.classes)), np.int64)
    weights = np.zeros((len(config.samples), len(PARTS), len(config.classes) + 1, 2))
    columns: dict[str, ColumnStats] = {}
    multiplicity: dict[str, tuple[int, ...]] = {c.name: () for c in config.jagged}
    flat: tuple[str, ...] = ()
    for file in files:
        for block in file.measured:
            labels[file.sample] += block.labels
            weights[file.sample] += block.weights
            flat = flat or block.flat
            for name, stats in block.columns.items():
                columns[name] = columns[name].merge(stats) if name in columns else stats
            for name, histogram in block.multiplicity.items():
                multiplicity[name] = add_histograms(multiplicity[name], histogram)
    return Specs(
        key=key_of(config),
        fingerprint="",
        samples=tuple(s.name for s in config.samples),
        files=tuple(_file(file) for file in files),
        flat=flat,
        columns=columns,
        multiplicity=multiplicity,
        labels=as_tuples(labels.tolist()),
        weights=as_tuples(weights.tolist()),
        estimated=config.fraction < 1.0,
    )


def _file(file: _Good) -> FileSpecs:
    survey = file.survey
    before = np.zeros(len(PARTS), np.int64)
    for block in file.measured:
        before += block.before
    return FileSpecs(
        path=survey.location.path,
        tree=str(survey.location.tree),
        sample=file.sample,
        uuid=survey.uuid,
        state=survey.state,
        entries=survey.entries,
        before=tuple(int(n) for n in before),
        blocks=tuple(m.counts for m in file.measured),
        digests=tuple(m.digest for m in file.measured),
        measured=tuple(m.full for m in file.measured),
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
