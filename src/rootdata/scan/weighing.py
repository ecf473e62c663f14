"""What the weights of events are multiplied by: sums of generator weights, and what balances and reweights classes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rootdata.errors import BranchError, DataError, FileError
from rootdata.events.evaluation import Block
from rootdata.events.needs import branches_of, needed_branches
from rootdata.events.quantiles import Quantiles
from rootdata.events.selection import Doubles, select, sum_over_entries
from rootdata.events.weighting import (
    TALLIED,
    BinFactors,
    Edges,
    Weighting,
    add,
    bin_factors,
    bins_of,
    count_bins,
    edges_of,
    tally,
)
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.reader import BlockReader
from rootdata.io.trees import Tree, bin_of, blocks_of
from rootdata.jagged import Jagged
from rootdata.location import KnownFile
from rootdata.missing import values_of
from rootdata.options.data import DataConfig
from rootdata.options.samples import Sample, is_normalised
from rootdata.options.weighting import FLAT, GENERATED, RUNS, SOURCES, SUM, Reweight, WeightSource
from rootdata.scan.specs import FileSpecs, Specs, as_tuples
from rootdata.scan.tasks import BAD, TRAIN, Rejected, Task, by_class

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LARGEST = float(np.finfo(np.float32).max)


# The sum of generator weights of a file


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """Sum of the generator weights that a file stands for, and that of the events in it where it is known."""

    total: float
    of_events: float | None

    @property
    def sums(self) -> tuple[float, float | None]:
        """Both of them."""
        return self.total, self.of_events


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AddUpWeights:
    """The task to add up the generator weights that a file stands for.

    Parameters
    ----------
    config, sample : without the files
    file : as it was described
    source : where the sum stands
    """

    config: DataConfig
    sample: Sample
    file: KnownFile
    source: WeightSource

    def __call__(self, reader: BlockReader) -> Generated | Rejected:
        """Add them up; what is wrong with the file is returned."""
        try:
            return Generated(total=self._total(reader), of_events=self._of_events(reader))
        except BAD as error:
            return Rejected(error=error)

    def _total(self, reader: BlockReader) -> float:
        source = self.source
        if source.events is not None:
            return self._of_entries(reader, source.events)
        bare = dataclasses.replace(self.file.location, friends=())
        if source.histogram is not None:
            question = functools.partial(bin_of, histogram=source.histogram, which=source.bin)
            return self._found(lambda: reader.ask(bare, question))
        location = dataclasses.replace(bare, tree=source.tree)
        return self._found(lambda: reader.use(location, functools.partial(_sum_of_branch, str(source.branch))))

    def _found(self, look: Callable[[], float]) -> float:
        """Look for the sum; where it is not there, say what may be given for it."""
        try:
            total = look()
        except BranchError as error:
            where = f"samples.{self.sample.name}.sum_of_weights"
            raise BranchError(
                f"{where}: the sum of generator weights of {self.file.location.path} is not known ({error}); give "
                f"{SOURCES}"
            ) from error
        if not math.isfinite(total):
            raise DataError(
                f"samples.{self.sample.name}.sum_of_weights: {self.source} of {self.file.location.path} is {total}; "
                f"give {SOURCES}"
            )
        return total

    def _of_events(self, reader: BlockReader) -> float | None:
        """Add up NanoAOD's weights of the events, to be compared with what its tree of runs says."""
        if (self.source.tree, self.source.branch) != (RUNS, SUM):
            return None
        names = reader.use(self.file.location, lambda tree: tree.names())
        try:
            return self._of_entries(reader, GENERATED) if GENERATED in names else None
        except (BranchError, DataError):  # nobody asked for it
            return None

    def _of_entries(self, reader: BlockReader, text: str) -> float:
        names, file = branches_of(text, self.config), self.file
        if names:
            bounds = reader.use(file.location, lambda tree: blocks_of(tree, names))
        else:
            bounds = [(low, min(low + BLOCK_ENTRIES, file.entries)) for low in range(0, file.entries, BLOCK_ENTRIES)]
        sums = []
        for start, stop in bounds:
            block = Block(location=file.location, start=start, stop=stop, num_entries=file.entries)
            raw = reader.read(file, names, start, stop, keep=False)
            sums.append(sum_over_entries(text, self.config, raw, block=block))
        return math.fsum(sums)


def _sum_of_branch(name: str, tree: Tree) -> float:
    """Add up a branch over all entries; in older files its name has an underscore behind it."""
    name = next((n for n in (name, f"{name}_") if n in tree.names()), name)
    branch = tree.describe(name)
    if branch.kind != "flat":
        what = branch.note or f"it is {branch.kind}"
        raise BranchError(f"branch {name!r} of tree {tree.location.tree!r} has no single number an entry: {what}")
    if not tree.num_entries:
        raise BranchError(f"tree {tree.location.tree!r} has no entries")
    read = (tree.read([name], *bounds)[name] for bounds in blocks_of(tree, [name]))
    sums = [float(values_of(column).sum(dtype=np.float64)) for column in read if not isinstance(column, Jagged)]
    return math.fsum(sums)


def sum_up_task(config: DataConfig, sample: Sample, file: KnownFile) -> AddUpWeights | None:
    """Return the task to add up a file's generator weights; ``None`` where nobody asks for them.

    Parameters
    ----------
    config, sample : without the files
    file : as it was described
    """
    source = config.source_of(sample)
    if source is None or source.number is not None:
        return None
    return AddUpWeights(config=config, sample=sample, file=file, source=source)


def totals_of(config: DataConfig, files: Sequence[FileSpecs]) -> list[tuple[float, float | None] | None]:
    """Return the sum of generator weights of every sample, and that of its events where it is known.

    A sum that stands in a file counts once, whatever trees of that file belong to the sample.
    """
    found: list[tuple[float, float | None] | None] = []
    for number, sample in enumerate(config.samples):
        source = config.source_of(sample)
        if source is None:
            found.append(None)
        elif source.number is not None:
            found.append((source.number, None))
        else:
            own = [(f.path, f.generated) for f in files if f.sample == number and f.generated is not None]
            once = own if source.events is not None else list(dict(own).items())
            of_events = [known[1] for _, known in own if known[1] is not None]
            total = math.fsum(known[0] for _, known in once)
            found.append((total, math.fsum(of_events) if of_events else None))
    return found


# What follows for all events


class Awaited(Protocol[T_co]):
    """Something that will be there."""

    def result(self) -> T_co:
        """Wait for it; an error that was raised on the way is raised here."""


Submit = Callable[[Sequence[Task[Any]]], Sequence[Awaited[Any]]]
Sums = npt.NDArray[np.float64]


def weighed(
    config: DataConfig,
    specs: Specs,
    spread: Sequence[Sequence[Sequence[Quantiles | None]]],
    *,
    submit: Submit,
    together: int,
    portion: int,
) -> Specs:
    """Learn what weights are multiplied by, and put it, with the sums that follow, into the specs.

    Parameters
    ----------
    config : what an event is
    specs : with the sums of weights as the events have them
    spread : of every sample and class, quantiles of each variable by which events are reweighted, in training events
    submit : hands in tasks, for another look at the training events
    together : how many of them
    portion : blocks of a file that one of them looks at

    Raises
    ------
    DataError
        Where sums vanish, or there is nothing to weigh.
    """
    if not (config.balance or config.reweight or any(map(is_normalised, config.samples))):
        return specs
    samples = tuple(
        _factor(config, sample, total)
        for sample, total in zip(config.samples, totals_of(config, specs.files), strict=True)
    )
    sums = np.array(specs.weights) * np.array(samples)[:, None, None, None]
    _check_size(config, sums)
    weighting = Weighting(samples=samples, yields=tuple(sums[..., 0].sum(axis=(1, 2)).tolist()))
    specs = dataclasses.replace(specs, weights=as_tuples(sums.tolist()))
    if config.reweight is not None:
        sweep = _Sweep(config, specs, submit, together, portion)
        specs, weighting = _reweighted(config, config.reweight, specs, weighting, spread, sweep)
    if config.balance is not None:
        specs, weighting = _balanced(config, specs, weighting)
    return dataclasses.replace(specs, weighting=weighting)


def _factor(config: DataConfig, sample: Sample, total: tuple[float, float | None] | None) -> float:
    """Return what brings a sample to the luminosity: 1000 events are 1 pb times 1 fb^-1."""
    luminosity = config.luminosity_of(sample)
    if total is None or luminosity is None or not isinstance(sample.cross_section, float):
        return 1.0
    if total[0] <= 0:
        raise DataError(
            f"samples.{sample.name}.sum_of_weights: {config.source_of(sample)} adds up to {total[0]:g}; a sample can't "
            f"be weighted to a luminosity by that: give {SOURCES}"
        )
    return sample.cross_section * 1000.0 * luminosity / total[0]


def _check_size(config: DataConfig, sums: Sums) -> None:
    for sample, of_sample in zip(config.samples, sums, strict=True):
        if of_sample[..., 1].max(initial=0.0) > LARGEST:
            raise DataError(
                f"samples.{sample.name}: its weights add up to {of_sample[..., 1].max():g}, which float32 can't hold; "
                "check cross_section, luminosity and sum_of_weights"
            )


# Balance


def _balanced(config: DataConfig, specs: Specs, weighting: Weighting) -> tuple[Specs, Weighting]:
    """Give each class, or sample, the same sum of the sizes of its weights in training events."""
    sums = np.array(specs.weights)
    sizes = sums[:, TRAIN, :, 1]
    if config.balance == "classes":
        own, names = sizes[:, :-1].sum(axis=0), list(config.classes)
        if not sizes[:, :-1].any():
            raise DataError("balance: got 'classes', and no training event has a label; give labels, or leave it out")
    else:
        own, names = sizes.sum(axis=1), list(specs.samples)
    for name, size in zip(names, own, strict=True):
        if not size:
            raise DataError(
                f"balance: got {config.balance!r}, and the weights of the training events of {name!r} add up to 0; "
                "check `weight`, the cuts and the split"
            )
    share = own.sum() / len(own) / own
    table = np.ones(sizes.shape)
    if config.balance == "classes":
        table[:, :-1] = share
    else:
        table[:] = share[:, None]
    sums[:, TRAIN] *= table[..., None]
    specs = dataclasses.replace(specs, weights=as_tuples(sums.tolist()))
    return specs, dataclasses.replace(weighting, balance=as_tuples(table.tolist()))


# Reweighting


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """What another look at the training events of a block told.

    Parameters
    ----------
    kept : events that are left
    labels, weights : of them, as :class:`rootdata.scan.tasks.Measured` has them of all parts
    tallies : of each class that is there, the weights in each bin; behind the last class events without a label
    """

    kept: int
    labels: npt.NDArray[Any]
    weights: Sums
    tallies: Mapping[int, Doubles]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LookAgain:
    """The task to read the training events of some blocks again: their variables and weights alone.

    Parameters
    ----------
    config, sample : without the files
    file : as it was described
    number : of the sample
    blocks : (start, stop, training events) of each
    weighting : that is known so far
    edges : of the bins of each class; empty where none are counted
    """

    config: DataConfig
    sample: Sample
    file: KnownFile
    number: int
    blocks: tuple[tuple[int, int, int], ...]
    weighting: Weighting
    edges: tuple[Edges, ...]

    def __call__(self, reader: BlockReader) -> list[Counted] | Rejected:
        """Read the blocks; what keeps them from being read is returned."""
        try:
            return [self._seen(reader, *block) for block in self.blocks]
        except BAD as error:
            return Rejected(error=error)

    def _seen(self, reader: BlockReader, start: int, stop: int, known: int) -> Counted:
        config, where = self.config.without_features(), self.file.location
        raw = reader.read(self.file, needed_branches(config, self.sample), start, stop, keep=False)
        block = Block(location=where, start=start, stop=stop, num_entries=self.file.entries)
        thin = self.weighting.thinning
        events = select(config, self.sample, raw, block=block, part=TRAIN, thin=thin)
        if thin is None and len(events) != known:
            raise FileError(f"{where.path} was changed while it was scanned; start again")
        events = self.weighting.apply(events, self.number, training=True)
        labels, weights = by_class(events, len(config.classes))
        tallies, weight = {}, events.weight.astype(np.float64)
        for number, edges in enumerate(self.edges):
            rows = np.flatnonzero(events.label % len(self.edges) == number)
            if len(rows):
                bins = bins_of([values[rows] for values in events.reweighted], edges)
                tallies[number] = tally(bins, weight[rows], count_bins(edges))
        return Counted(kept=len(events), labels=labels[TRAIN], weights=weights[TRAIN], tallies=tallies)


@dataclasses.dataclass(frozen=True, slots=True)
class _Sweep:
    """Reads all training events again."""

    config: DataConfig
    specs: Specs
    submit: Submit
    together: int
    portion: int

    def __call__(self, weighting: Weighting, edges: Sequence[Edges] = ()) -> Iterator[tuple[int, Counted]]:
        """Yield what was seen in every block, in the order of files and blocks, with the number of the file."""
        tasks = list(self._tasks(weighting, tuple(edges)))
        for low in range(0, len(tasks), self.together):
            group = tasks[low : low + self.together]
            for (number, _), awaited in zip(group, self.submit([task for _, task in group]), strict=True):
                seen = awaited.result()
                if isinstance(seen, Rejected):
                    raise seen.error
                yield from ((number, one) for one in seen)

    def _tasks(self, weighting: Weighting, edges: tuple[Edges, ...]) -> Iterator[tuple[int, LookAgain]]:
        bare = dataclasses.replace(self.config, samples=())
        for number, file in enumerate(self.specs.files):
            sample = dataclasses.replace(self.config.samples[file.sample], files=())
            blocks = tuple((b[0], b[1], b[2 + TRAIN]) for b in file.blocks)
            for low in range(0, len(blocks), self.portion):
                portion = blocks[low : low + self.portion]
                yield (
                    number,
                    LookAgain(
                        config=bare, sample=sample, file=file.known, number=file.sample, blocks=portion,
                        weighting=weighting, edges=edges,
                    ),
                )  # fmt: skip


def _reweighted(
    config: DataConfig,
    asked: Reweight,
    specs: Specs,
    weighting: Weighting,
    spread: Sequence[Sequence[Sequence[Quantiles | None]]],
    sweep: _Sweep,
) -> tuple[Specs, Weighting]:
    """Learn the bins and their factors from all training events, and what they make of the sums."""
    edges = _edges(config, asked, spread)
    tallies = _tallies(specs, sweep(weighting, edges), edges)
    names = [*map(repr, config.classes), "no label"]
    wanted = _reference(config, asked, specs, tallies)
    found: list[BinFactors | None] = []
    for number, of_class in enumerate(edges):
        own = functools.reduce(add, (of_sample[number] for of_sample in tallies))
        is_asked = own[:, 0].any() and asked.to != (config.classes[number] if number < len(config.classes) else None)
        found.append(
            bin_factors(of_class, own, wanted, cap=asked.cap, is_resampled=asked.by == "resample", what=names[number])
            if is_asked
            else None
        )
    weighting = dataclasses.replace(weighting, bins=tuple(found), is_resampled=asked.by == "resample")
    if weighting.is_resampled:
        return _thinned(specs, sweep(weighting)), weighting
    sums = np.array(specs.weights)
    for number, of_sample in enumerate(tallies):
        for label, known in enumerate(found):
            if known is not None:
                sums[number, TRAIN, label] = np.array(known.factors) @ of_sample[label][:-1, 1:3]
    return dataclasses.replace(specs, weights=as_tuples(sums.tolist())), weighting


def _edges(config: DataConfig, asked: Reweight, spread: Sequence[Sequence[Sequence[Quantiles | None]]]) -> list[Edges]:
    """Decide the bins of each class: its own, or those of whatever it shall look like."""
    numbers = range(len(config.classes) + 1)
    if asked.to == FLAT:
        return [edges_of(asked.bins, _joined(asked, [of_sample[k] for of_sample in spread])) for k in numbers]
    if asked.to in config.classes:
        label = config.classes.index(asked.to)
        known = [of_sample[label] for of_sample in spread]
    else:
        known = list(next(s for sample, s in zip(config.samples, spread, strict=True) if sample.name == asked.to))
    return [edges_of(asked.bins, _joined(asked, known))] * len(numbers)


def _joined(asked: Reweight, known: Sequence[Sequence[Quantiles | None]]) -> list[Quantiles | None]:
    """Merge quantiles of each variable."""
    found: list[Quantiles | None] = []
    for variable in range(len(asked.variables)):
        own = [q for one in known for q in one[variable : variable + 1] if q is not None]
        found.append(functools.reduce(Quantiles.merge, own) if own else None)
    return found


def _tallies(specs: Specs, seen: Iterable[tuple[int, Counted]], edges: Sequence[Edges]) -> list[list[Doubles]]:
    """Add up the weights in the bins of every sample and class, in the order of the files."""
    found = [[np.zeros((count_bins(e) + 1, len(TALLIED))) for e in edges] for _ in specs.samples]
    for number, block in seen:
        own = found[specs.files[number].sample]
        for label, one in block.tallies.items():
            own[label] = add(own[label], one)
    return found


def _reference(
    config: DataConfig, asked: Reweight, specs: Specs, tallies: Sequence[Sequence[Doubles]]
) -> Doubles | None:
    """Return the tally of those whose distribution all classes shall have; ``None`` where it shall be flat."""
    if asked.to == FLAT:
        return None
    if asked.to in config.classes:
        return functools.reduce(add, (of_sample[config.classes.index(asked.to)] for of_sample in tallies))
    return functools.reduce(add, tallies[specs.samples.index(asked.to)])


def _thinned(specs: Specs, seen: Iterable[tuple[int, Counted]]) -> Specs:
    """Count the training events that are left."""
    labels, sums = np.array(specs.labels), np.array(specs.weights)
    labels[:, TRAIN], sums[:, TRAIN] = 0, 0.0
    kept: list[list[int]] = [[] for _ in specs.files]
    for number, block in seen:
        sample = specs.files[number].sample
        kept[number].append(block.kept)
        labels[sample, TRAIN] += block.labels
        sums[sample, TRAIN] += block.weights
    files = tuple(
        dataclasses.replace(file, blocks=tuple((*b[: 2 + TRAIN], n, *b[3 + TRAIN :]) for b, n in pairs))
        for file, pairs in ((f, zip(f.blocks, own, strict=True)) for f, own in zip(specs.files, kept, strict=True))
    )
    return dataclasses.replace(specs, files=files, labels=as_tuples(labels.tolist()), weights=as_tuples(sums.tolist()))
