"""The first pass: every file once, blocks in parallel, to specs."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rootdata.errors import FileError, RootDataError
from rootdata.events.quantiles import Quantiles
from rootdata.events.statistics import ColumnStats
from rootdata.io.branches import Branch
from rootdata.io.files import state_of, states_of
from rootdata.io.formats.basket_index import BasketIndex
from rootdata.io.reader import BlockReader, Described
from rootdata.io.tree_pool import OPEN_TREES
from rootdata.io.trees import use_fast_inflate
from rootdata.location import Location, State
from rootdata.options.data import DataConfig
from rootdata.options.parts import PARTS
from rootdata.options.read import ReadConfig
from rootdata.options.samples import Sample
from rootdata.scan.executors import Executor, submitting
from rootdata.scan.progress_bar import ProgressReport
from rootdata.scan.sources import check_owners
from rootdata.scan.specs import (
    FileSpecs,
    SkippedFile,
    Specs,
    add_histograms,
    as_tuples,
    check_complete,
    fingerprint,
    key_of,
)
from rootdata.scan.tasks import BAD, DescribeFile, MeasureBlocks, Measured, Rejected, Task, check_suits
from rootdata.scan.weighing import Awaited, Generated, Submit, sum_up_task, weighed

if TYPE_CHECKING:
    from rootdata.io.store import Store

T = TypeVar("T")

SHOWN = 3  # bad files that a warning names
MANY_FILES = 10_000  # looked at together where many machines read
MANY_BLOCKS = 16  # of a file in one task there: about 100 MB, so that opening it anew costs little


def scan(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    states: Sequence[State] | None = None,
    *,
    progress: ProgressReport | None = None,
    workers: int | None = None,
    read: ReadConfig = ReadConfig(),
    store: Store | None = None,
    scheduler: str | Executor | None = None,
) -> tuple[Specs, BasketIndex]:
    """Read every file once, and return the specs of a configuration, where a fold is tested those of that one.

    Parameters
    ----------
    config, files, states, progress, workers, read, store, scheduler : as :func:`scan_folds` takes them
    """
    every, index = scan_folds(
        config, files, states, progress=progress, workers=workers, read=read, store=store, scheduler=scheduler
    )
    return every[config.fold or 0], index


def scan_folds(
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    states: Sequence[State] | None = None,
    *,
    progress: ProgressReport | None = None,
    workers: int | None = None,
    read: ReadConfig = ReadConfig(),
    store: Store | None = None,
    scheduler: str | Executor | None = None,
) -> tuple[list[Specs], BasketIndex]:
    """Read every file once, for all folds where there are any.

    Parameters
    ----------
    config : names branches, cuts, labels and the split
    files : (position of the sample, location), as from :func:`rootdata.scan.sources.find_files`
    states : of the files, where somebody looked just now
    progress : told how much was read
    workers : threads; the specs do not depend on it
    read : how files are read, remote ones above all
    store : is given the decoded blocks, where no scheduler has others read them
    scheduler : address of a ``dask.distributed`` scheduler, or an executor; the specs do not depend on it

    Returns
    -------
    the specs where each fold in turn is tested, or the only ones; and where the baskets of small files lie

    Raises
    ------
    FileError, BranchError, DataError
        For the first file, in order, that can't be used; where bad files are skipped, for a sample without a good one.
    ConfigError
        Where the scheduler can't be reached.
    """
    states = states_of([location for _, location in files], read=read) if states is None else states
    with _near(read, store, workers) if scheduler is None else _far(read, scheduler) as runner:
        read_files = _read_all(config, files, runner, progress)
        good = [file for file in read_files if isinstance(file, _Good)]
        # A tree that was not named is known by now: it may be one that another path names.
        check_owners(config, [(file.sample, file.described.file.location) for file in good])
        every = [_of_all(one, [_of_fold(file, n) for file in good], runner) for n, one in enumerate(config.every_fold)]
    _check_unchanged(files, states, good)
    skipped = tuple(
        SkippedFile(path=where.path, sample=i, reason=str(file.error), position=position, size=states[position].size)
        for position, ((i, where), file) in enumerate(zip(files, read_files, strict=True))
        if isinstance(file, Rejected)
    )
    every = [
        dataclasses.replace(specs, fingerprint=fingerprint(specs.key, files, states), skipped=skipped)
        for specs in every
    ]
    index = BasketIndex()
    for file in good:
        if file.described.baskets is not None:
            index.add(
                (file.described.file.location.path, str(file.described.file.location.tree)), file.described.baskets
            )
    return every, index


def _of_all(config: DataConfig, files: Sequence[_Good], runner: _TaskRunner) -> Specs:
    """Put together what all files told, and weigh it."""
    specs = _merge(config, files)
    check_complete(specs, config)
    return weighed(
        config, specs, _spread(config, files), submit=runner.submit, together=runner.files, portion=runner.blocks
    )


def _of_fold(file: _Good, number: int) -> _Good:
    """Take what a file's blocks told of a fold; all of it where there are none."""
    measured = tuple(block.folds[number] if block.folds else block for block in file.measured)
    return dataclasses.replace(file, measured=measured)


def _check_unchanged(files: Sequence[tuple[int, Location]], states: Sequence[State], good: Sequence[_Good]) -> None:
    """Refuse files that were replaced or rewritten while they were read; remote ones are looked at once."""
    for file in good:
        found, opened = files[file.position][1], file.described.file
        location, before = opened.location, states[file.position]
        if len(location.friends) > len(found.friends):  # of those that the file names nobody knew before
            before = opened.state
        now = opened.state if location.needs_network else state_of(location)
        if now.differs_from(before):
            raise FileError(f"{location.path} was changed while it was scanned; start again")


# Who reads


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _TaskRunner:
    """Those who carry out the tasks of the pass.

    Parameters
    ----------
    submit : hands in tasks, each of which is called with a reader
    files : that are looked at together
    blocks : of a file that one task measures
    """

    submit: Submit
    files: int
    blocks: int


@contextmanager
def _near(read: ReadConfig, store: Store | None, workers: int | None) -> Iterator[_TaskRunner]:
    """Read in threads, few files at a time, so that each is opened once."""
    use_fast_inflate()
    threads = workers or min(4, os.cpu_count() or 1)
    with BlockReader(read, store=store) as reader, ThreadPoolExecutor(threads) as pool:
        try:
            yield _TaskRunner(
                submit=lambda tasks: [pool.submit(task, reader) for task in tasks], files=OPEN_TREES, blocks=1
            )
        except BaseException:
            reader.close()  # what waits for a remote file gives up
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _far(read: ReadConfig, scheduler: str | Executor) -> Iterator[_TaskRunner]:
    """Read on the workers of others, all files at a time, each in tasks that open it anew."""
    with submitting(scheduler, patience=read.patience) as submit:
        yield _TaskRunner(
            submit=lambda tasks: submit([functools.partial(_carry_out, task, read) for task in tasks]),
            files=MANY_FILES,
            blocks=MANY_BLOCKS,
        )


def _carry_out(task: Task[T], read: ReadConfig) -> T:
    use_fast_inflate()
    with BlockReader(read) as reader:
        return task(reader)


# What is read


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Good:
    """A file, and what its blocks told."""

    position: int
    sample: int
    described: Described
    measured: tuple[Measured, ...]
    generated: Generated | None


def _read_all(
    config: DataConfig, files: Sequence[tuple[int, Location]], runner: _TaskRunner, progress: ProgressReport | None
) -> list[_Good | Rejected]:
    """Look at files and measure their blocks.

    Returns
    -------
    What was found of each file: in their order, whoever came first
    """
    found: list[_Good | Rejected] = []
    kinds: dict[str, tuple[Branch, str]] = {}
    for low in range(0, len(files), runner.files):
        group = files[low : low + runner.files]
        for looked, measuring in _begin(config, group, runner, progress):
            position = len(found)
            file = _judge(config, files[position][0], position, looked, measuring, kinds)
            if isinstance(file, _Good):
                for name, branch in file.described.branches.items():
                    kinds.setdefault(name, (branch, file.described.file.location.path))
            elif config.on_bad_file == "error":
                raise _refusal(file, position, files, found) from file.error
            if progress is not None and isinstance(looked, Described):
                progress.advance(looked.file.entries)
            found.append(file)
    if config.on_bad_file == "skip":
        _check_some_good(config, files, found)
    return found


def _begin(
    config: DataConfig, files: Sequence[tuple[int, Location]], runner: _TaskRunner, progress: ProgressReport | None
) -> list[tuple[Described | Rejected, Sequence[Awaited[list[Measured] | Generated | Rejected]]]]:
    """Look at some files, and let the measuring of their blocks begin."""
    bare = dataclasses.replace(config, samples=())
    samples = [dataclasses.replace(config.samples[i], files=()) for i, _ in files]
    looks = [DescribeFile(config=bare, sample=s, location=where) for s, (_, where) in zip(samples, files, strict=True)]
    looked: list[Described | Rejected] = [r.result() for r in runner.submit(looks)]
    if config.on_bad_file == "error":  # what comes after the first bad file is not worth the time
        looked = looked[: next((i + 1 for i, one in enumerate(looked) if isinstance(one, Rejected)), len(looked))]
    if progress is not None:
        progress.expect(sum(one.file.entries for one in looked if isinstance(one, Described)))
    tasks = [
        [] if isinstance(one, Rejected) else _tasks(bare, sample, one, runner.blocks)
        for one, sample in zip(looked, samples, strict=False)
    ]
    return list(zip(looked, _submit_in_turns(runner, tasks), strict=True))


def _submit_in_turns(runner: _TaskRunner, tasks: Sequence[Sequence[Task[T]]]) -> list[list[Awaited[T]]]:
    """Submit the first task of every file, then the second of each: two readers in one file would open it twice."""
    turns = sorted((turn, file) for file, own in enumerate(tasks) for turn in range(len(own)))
    results: list[list[Awaited[T]]] = [[] for _ in tasks]
    for (_, file), result in zip(turns, runner.submit([tasks[file][turn] for turn, file in turns]), strict=True):
        results[file].append(result)
    return results


def _tasks(config: DataConfig, sample: Sample, described: Described, size: int) -> list[Task[Any]]:
    """List what is to be done with a file: its blocks are measured, and its generator weights added up."""
    adding = sum_up_task(config, sample, described.file)
    return [*_portions(config, sample, described, size), *([] if adding is None else [adding])]


def _portions(config: DataConfig, sample: Sample, described: Described, size: int) -> list[MeasureBlocks]:
    chosen = _chosen_blocks(config.fraction, len(described.blocks))
    blocks = [(*block, full) for block, full in zip(described.blocks, chosen, strict=True)]
    portions = [tuple(blocks[low : low + size]) for low in range(0, len(blocks), size)]
    return [MeasureBlocks(config=config, sample=sample, file=described.file, portion=portion) for portion in portions]


def _chosen_blocks(fraction: float, n: int) -> list[bool]:
    """Choose which blocks of a file are read in full: evenly spread, the same for everybody, at least one."""
    return [i == 0 or int((i + 1) * fraction) > int(i * fraction) for i in range(n)]


def _judge(
    config: DataConfig,
    sample: int,
    position: int,
    looked: Described | Rejected,
    measuring: Sequence[Awaited[list[Measured] | Generated | Rejected]],
    kinds: Mapping[str, tuple[Branch, str]],
) -> _Good | Rejected:
    """Say whether a file is good: whether its branches are of the same kinds as those of the good files before it."""
    if isinstance(looked, Rejected):
        return looked
    try:
        check_suits(config, looked, kinds)
    except BAD as error:
        return Rejected(error=error)
    measured: list[Measured] = []
    generated = None
    for portion in measuring:
        got = portion.result()
        if isinstance(got, Rejected):
            return got
        if isinstance(got, Generated):
            generated = got
        else:
            measured += got
    return _Good(position=position, sample=sample, described=looked, measured=tuple(measured), generated=generated)


def _refusal(
    bad: Rejected, position: int, files: Sequence[tuple[int, Location]], found: Sequence[_Good | Rejected]
) -> RootDataError:
    """Add to an error that bad files may be skipped, where that would help: not where all files lack the same."""
    sample = files[position][0]
    has_good = any(isinstance(file, _Good) and file.sample == sample for file in found)
    has_others = sum(i == sample for i, _ in files) > 1
    if not (has_good or (has_others and isinstance(bad.error, FileError))):
        return bad.error
    return type(bad.error)(f"{bad.error}, or leave such files out with on_bad_file=skip")


def _check_some_good(
    config: DataConfig, files: Sequence[tuple[int, Location]], found: Sequence[_Good | Rejected]
) -> None:
    """Refuse a sample of which no file is left, with the error of its first one."""
    for i, sample in enumerate(config.samples):
        own = [file for (owner, _), file in zip(files, found, strict=True) if owner == i]
        bad = [file.error for file in own if isinstance(file, Rejected)]
        if bad and len(bad) == len(own):
            raise type(bad[0])(f"sample {sample.name!r}: none of its {len(own)} files can be used: {bad[0]}") from bad[
                0
            ]


def _spread(config: DataConfig, files: Sequence[_Good]) -> list[list[list[Quantiles | None]]]:
    """Merge the quantiles of the variables by which events are reweighted, of every sample and class."""
    variables = len(config.reweight.variables) if config.reweight else 0
    found: list[list[list[Quantiles | None]]] = [
        [[None] * variables for _ in range(len(config.classes) + 1)] for _ in config.samples
    ]
    for file in files:
        for block in file.measured:
            for own, known in zip(found[file.sample], block.spread, strict=False):
                own[:] = [a.merge(b) if a and b else a or b for a, b in zip(own, known, strict=True)]
    return found


def _merge(config: DataConfig, files: Sequence[_Good]) -> Specs:
    labels = np.zeros((len(config.samples), len(PARTS), len(config.classes)), np.int64)
    weights = np.zeros((len(config.samples), len(PARTS), len(config.classes) + 1, 2))
    columns: dict[str, ColumnStats] = {}
    targets: dict[str, ColumnStats] = {}
    multiplicity: dict[str, tuple[int, ...]] = {c.name: () for c in config.jagged}
    drawn: dict[str, tuple[int, int, int]] = dict.fromkeys(config.images, (0, 0, 0))
    flat: tuple[str, ...] = ()
    for file in files:
        for block in file.measured:
            labels[file.sample] += block.labels
            weights[file.sample] += block.weights
            flat = flat or block.flat
            for merged, found in ((columns, block.columns), (targets, block.targets)):
                for name, stats in found.items():
                    merged[name] = merged[name].merge(stats) if name in merged else stats
            for name, histogram in block.multiplicity.items():
                multiplicity[name] = add_histograms(multiplicity[name], histogram)
            for name, (objects, outside, shared) in block.drawn.items():
                drawn[name] = (drawn[name][0] + objects, drawn[name][1] + outside, drawn[name][2] + shared)
    return Specs(
        key=key_of(config),
        fingerprint="",
        samples=tuple(s.name for s in config.samples),
        files=tuple(_file(file) for file in files),
        flat=flat,
        columns=columns,
        targets=targets,
        multiplicity=multiplicity,
        labels=as_tuples(labels.tolist()),
        weights=as_tuples(weights.tolist()),
        estimated=config.fraction < 1.0,
        drawn=drawn,
    )


def _file(file: _Good) -> FileSpecs:
    known = file.described.file
    before = np.zeros(len(PARTS), np.int64)
    for block in file.measured:
        before += block.before
    return FileSpecs(
        path=known.location.path,
        tree=str(known.location.tree),
        sample=file.sample,
        uuid=known.uuid,
        state=known.state,
        entries=known.entries,
        before=tuple(int(n) for n in before),
        blocks=tuple(m.counts for m in file.measured),
        digests=tuple(m.digest for m in file.measured),
        measured=tuple(m.full for m in file.measured),
        replicas=known.location.replicas,
        friends=known.location.friends,
        generated=None if file.generated is None else file.generated.sums,
    )
