"""Blocks to slabs of batches: the plan's order, carried out.

Who reads first changes nothing: blocks are futures, and they are taken in the order of the plan.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata import cache_folder
from rootdata.arena import shared
from rootdata.errors import BranchError, ConfigError, FileError, ShapeError
from rootdata.events.evaluation import Block
from rootdata.events.needs import needed_branches
from rootdata.events.selection import Events, Thinning, select
from rootdata.events.split import place_of
from rootdata.events.weighting import Weighting
from rootdata.io.reader import BlockReader, ChangedError
from rootdata.io.store import Store, key_of, through
from rootdata.io.trees import use_fast_inflate
from rootdata.jagged import Columns, digest
from rootdata.layouts.layout import Layout
from rootdata.layouts.packed import Packed, pack
from rootdata.layouts.pool import Pool
from rootdata.loading.memory_bound import bytes_per_event, fitting, memory_of
from rootdata.loading.parameters import with_parameters
from rootdata.loading.readers import Stop, reading
from rootdata.location import Location, State, is_remote, name_of
from rootdata.options.data import DataConfig
from rootdata.options.order import OrderConfig
from rootdata.options.parsed import described
from rootdata.options.parts import PARTS
from rootdata.options.read import ReadConfig
from rootdata.order.block_order import Order
from rootdata.order.mixing import quotas
from rootdata.order.plan import Plan, Source, make_plan
from rootdata.scaling.transform import Transform
from rootdata.scan.scanned import Scanned
from rootdata.scan.specs import VERSION, FileSpecs, Specs

Arrays = dict[str, npt.NDArray[Any]]

MANY_FILES = 32  # above this, what closed files leave behind is worth a collection at the end of an epoch
SLAB_BYTES = 8_000_000  # dense arrays are made in slabs of about this size, several batches at a time,
SLAB_BATCHES = 5  # and of up to twice that where batches are large: each slab wakes two threads, which takes 0.1 ms


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that turns a block number into packed events; it can be sent to another process.

    Parameters
    ----------
    scanned : what is known of the data set
    part : position of the part whose events are taken
    balanced : whether training events are weighted as in training: balanced and reweighted
    read : how blocks are read
    """

    scanned: Scanned
    part: int
    balanced: bool = True
    read: ReadConfig = dataclasses.field(default_factory=ReadConfig)

    @property
    def config(self) -> DataConfig:
        """What an event is."""
        return self.scanned.config

    @property
    def specs(self) -> Specs:
        """What the first pass learnt."""
        return self.scanned.specs

    @property
    def layout(self) -> Layout:
        """Where every number of an event goes."""
        return self.scanned.layout

    @property
    def transforms(self) -> Mapping[str, Transform]:
        """The fitted scaling of every feature."""
        return self.scanned.transforms

    @property
    def weighting(self) -> Weighting | None:
        """What weights are multiplied by that follows from all events."""
        return self.scanned.specs.weighting

    @property
    def is_training(self) -> bool:
        """Whether it is the part that is trained on."""
        return self.part == PARTS.index("train")

    @property
    def thinning(self) -> Thinning | None:
        """What leaves out events by the name of their file and their entry."""
        return self.weighting.thinning if self.weighting and self.is_training else None

    def weighed(self, events: Events, sample: int) -> Events:
        """Multiply the weights of a sample's events."""
        if self.weighting is None:
            return events
        return self.weighting.apply(events, sample, training=self.is_training and self.balanced)


def plan_of(recipe: Recipe, order: OrderConfig, *, training: bool, world_size: int = 1) -> Plan:
    """Lay out the epoch of a part.

    Parameters
    ----------
    recipe : says which part it is, and which blocks it has
    order : how events are mixed
    training : whether mixing weights and shuffling apply; otherwise every event comes once, in file order, evenly mixed
    world_size : ranks; the order of training does not depend on it, elsewhere each rank gets one stretch of every file
    """
    sources = _sources(recipe, by_file=order.mix == "file")
    if training and isinstance(order.mix, Mapping):
        weighted = shares_of(recipe.config, recipe.specs, order)
        sources = [dataclasses.replace(s, quota=weighted[s.name]) for s in sources]

    def make(open_blocks: int | None) -> Plan:
        return make_plan(
            sources,
            chunk_size=order.chunk_size,
            batch_size=order.batch_size,
            shuffle=order.shuffle and training,
            seed=order.seed,
            open_blocks=open_blocks,
            partitions=world_size if not training else order.partitions if order.shuffle else 1,
        )

    if order.max_memory is None:
        return make(order.open_blocks)
    memory = functools.partial(
        memory_of,
        event=bytes_per_event(recipe.layout, recipe.specs, carried=_carried_numbers(recipe.config)),
        slab=max(SLAB_BYTES, _slab_of(order.batch_size, recipe.layout) * _bytes_per_event(recipe.layout)),
    )
    usual = max(s.window for streams in make(None).streams for s in streams) * order.partitions
    return fitting(make, order.max_memory, memory=memory, most=usual)


def shares_of(config: DataConfig, specs: Specs, order: OrderConfig) -> dict[str, int]:
    """Return how many events of each sample an epoch of training takes.

    Parameters
    ----------
    config : names samples and classes
    specs : count the training events of every sample and class
    order : its ``mix`` decides; only a mapping makes an epoch take other than all events

    Raises
    ------
    ConfigError
        Where mixing weights leave a class without events that has some.
    """
    sizes = specs.events_of("train")
    if not isinstance(order.mix, Mapping):
        return sizes
    shares = quotas(sizes, order.mix)
    train = PARTS.index("train")
    for number, name in enumerate(config.classes):
        owners = [s for s, labels in zip(specs.samples, specs.labels, strict=True) if labels[train][number]]
        if owners and not any(shares[s] for s in owners):
            given = ", ".join(f"{s}: {order.mix[s]:g}" for s in owners)
            raise ConfigError(
                f"mix: got {given}, which leaves class {number} ({name!r}) without training events; give one of its "
                "samples a share, or leave the class out of `samples` and `classes`"
            )
    return shares


def _sources(recipe: Recipe, *, by_file: bool) -> list[Source]:
    grouped: dict[str, list[tuple[int, int]]] = {}
    number = 0
    for file in recipe.specs.files:
        name = recipe.specs.samples[file.sample]
        for block in file.blocks:
            if block[2 + recipe.part]:
                grouped.setdefault(f"{name}:{file.path}" if by_file else name, []).append(
                    (number, block[2 + recipe.part])
                )
            number += 1
    return [
        Source(name=name, blocks=np.array([b for b, _ in found]), counts=np.array([n for _, n in found]))
        for name, found in grouped.items()
    ]


class EventReader:
    """Reads blocks by number, with its own open files.

    Whatever is delivered has the digest that the first pass noted, or was kept under it.

    Parameters
    ----------
    store : where decoded blocks are looked for first, and kept
    """

    def __init__(self, recipe: Recipe, store: Store | None = None) -> None:
        use_fast_inflate()
        self._recipe = recipe
        self._store = store
        self._lender = shared()
        self._files = BlockReader(recipe.read, store=store, index=recipe.scanned.baskets)
        config, bare = recipe.config, recipe.config.without_features()
        self._names = [needed_branches(config, sample) for sample in config.samples]
        self._names_of_cuts = [needed_branches(bare, sample) for sample in config.samples]
        self._made = [_made_of(recipe, number) for number in range(len(config.samples))]
        # Blocks are numbered over all files, and within each.
        self._blocks = [(i, file, k) for i, file in enumerate(recipe.specs.files) for k in range(len(file.blocks))]
        self._states: dict[int, State] = {}  # of files, where they were looked at

    def __call__(self, number: int) -> Packed:
        """Read, select and pack one block, or take it from the store."""
        store = self._store_of(self._blocks[number][0])
        if store is None:
            return self._packed(number)
        columns = through(
            store,
            self._key(number),
            lambda: self._packed(number).to_columns(),
            is_good=lambda kept: self._parsed(kept, number) is not None,
        )
        packed = self._parsed(columns, number)
        return self._packed(number) if packed is None else packed  # one without events is no false one

    def _parsed(self, columns: Columns, number: int) -> Packed | None:
        """Put a block together that a store kept; ``None`` where it is not what must be there."""
        i, file, k = self._blocks[number]
        try:
            packed = Packed.from_columns(columns, sample=file.sample, file=i)
        except ShapeError:
            return None
        is_whole = packed.is_of(self._recipe.layout) and len(packed) == file.blocks[k][2 + self._recipe.part]
        return packed if is_whole and packed.carried.keys() == set(self._recipe.config.carried) else None

    def _packed(self, number: int) -> Packed:
        recipe = self._recipe
        i, file, _ = self._blocks[number]
        events, _ = self.events(number)
        return pack(
            events, recipe.layout, recipe.transforms, sample=file.sample, file=i,
            targets=recipe.scanned.target_transforms, make=self._lender.empty,
        )  # fmt: skip

    def _key(self, number: int) -> str:
        """Name what is made of a block: by its content, and by the file's state where that is not the scanned one."""
        i, file, k = self._blocks[number]
        now = self._state(i)
        content = [file.tree, file.entries, file.digests[k]]
        if not file.measured[k] or now.differs_from(file.state):
            content += [now.size, now.version]
        named = name_of(file.path) if self._recipe.thinning else place_of(self._recipe.config.split, file.path)
        made = self._made[file.sample] + named
        start, stop = file.blocks[k][:2]
        return key_of(content, names=self._names[file.sample], start=start, stop=stop, made=made)

    def _store_of(self, i: int) -> Store | None:
        """Return where blocks of a file are kept; nowhere while it may change without a trace."""
        return self._store if self._store is not None and self._state(i).is_settled else None

    def _state(self, i: int) -> State:
        """Look at a file, once; a server that did not answer once is not asked again, and stands for no change."""
        file = self._recipe.specs.files[i]
        if i not in self._states:
            is_deaf = is_remote(file.path) and State() in self._states.values()
            self._states[i] = State() if is_deaf else self._files.state_of(file.location)
        return self._states[i]

    def events(self, number: int) -> tuple[Events, Columns]:
        """Read one block, and return its selected events and the branches of all its entries.

        Raises
        ------
        FileError
            Where the file is not the one that was scanned; its specs are forgotten then.
        """
        recipe = self._recipe
        _, file, k = self._blocks[number]
        start, stop, *counts = file.blocks[k]
        sample = recipe.config.samples[file.sample]
        raw = self._raw(number)
        block = Block(location=file.location, start=start, stop=stop, num_entries=file.entries)
        events = select(recipe.config, sample, raw, block=block, part=recipe.part, thin=recipe.thinning)
        if len(events) != counts[recipe.part]:
            found, known = len(events), counts[recipe.part]
            raise self._changed(f"{block}: {found} events are selected, the first pass saw {known}")
        return recipe.weighed(events, file.sample), raw

    def _raw(self, number: int) -> Columns:
        """Read the branches of a block, and compare them with what the first pass read."""
        i, file, k = self._blocks[number]
        start, stop = file.blocks[k][:2]
        if not file.measured[k] and self._state(i).differs_from(file.state):
            self._raw(number - k)  # of what was not measured nothing is known: the file's first block always was
        is_as_scanned = functools.partial(self._is_as_scanned, file=file, k=k)
        is_kept = (
            file.location.needs_network
            and self._store_of(i) is not None
            and not self._state(i).differs_from(file.state)
        )
        try:
            return self._files.read(
                file.known, self._names[file.sample], start, stop, is_good=is_as_scanned, last=True, keep=is_kept
            )
        except ChangedError as error:
            raise self._changed(str(error)) from error
        except (FileError, BranchError) as error:
            # What looks like damage may be another file.
            if self._files.state_of(file.location).differs_from(file.state):
                raise self._changed(f"{file.path} is not as the first pass saw it ({error})") from error
            raise

    def _is_as_scanned(self, raw: Columns, *, file: FileSpecs, k: int) -> bool:
        names = (self._names if file.measured[k] else self._names_of_cuts)[file.sample]
        return all(n in raw for n in names) and digest({n: raw[n] for n in names}) == file.digests[k]

    def _changed(self, what: str) -> FileError:
        cache_folder.forget(self._recipe.specs.fingerprint)
        return FileError(f"{what}; the file has changed: start again, and it is scanned anew")

    def start_of(self, number: int) -> int:
        """Return the first entry of a block."""
        _, file, k = self._blocks[number]
        return int(file.blocks[k][0])

    @property
    def scanned(self) -> Scanned:
        """What is known of the data set."""
        return self._recipe.scanned

    def location_of(self, number: int) -> Location:
        """Return the file of a block, as it was scanned."""
        return self._blocks[number][1].location

    def close(self) -> None:
        """Close the files."""
        self._files.close()


def _made_of(recipe: Recipe, number: int) -> str:
    """Name all that decides what becomes of a sample's branches."""
    config = dataclasses.replace(recipe.config, samples=(recipe.config.samples[number],))
    options = described(config, "specs", "inputs")
    scaling = sorted((name, transform.described) for name, transform in recipe.transforms.items())
    learnt = [(name, transform.described) for name, transform in recipe.scanned.target_transforms.items()]
    weighing = [recipe.balanced, recipe.weighting.of_sample(number)] if recipe.weighting else []
    text = repr((VERSION, options, recipe.layout, scaling, recipe.part, *([learnt] if learnt else []), *weighing))
    return hashlib.sha256(text.encode()).hexdigest()


def slabs(
    recipe: Recipe,
    plan: Plan,
    *,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drawn_by: tuple[int, ...] = (),
    store: Store | None = None,
    stop: Stop | None = None,
) -> Generator[Arrays, None, None]:
    """Yield a rank's events of an epoch as dense arrays, several batches at a time.

    Parameters
    ----------
    recipe : what the events of the part are, and how they are read
    plan : of the same part
    epoch : from 0; decides the order where there is shuffling
    start : number of the first batch
    rank, world_size : take this part of every batch
    drawn_by : what parameters of events that have none are drawn by, beside the event
    store : where decoded blocks are kept
    stop : ends the waiting for blocks once it is set

    Yields
    ------
    the layout's arrays with ``label``, ``weight`` and ``index``; all slabs but the last of an epoch are whole batches
    """
    layout = recipe.layout
    batch = share_of(plan.batch_size, rank, world_size)
    size = _slab_of(batch, layout)
    first, skipped = divmod(start, plan.chunk_size // plan.batch_size)
    lender = shared()
    reader = EventReader(recipe, store)
    with reading(
        with_parameters(reader, recipe.scanned, reader.location_of, drawn_by), threads=recipe.read.threads, stop=stop
    ) as submit:
        held: dict[int, Future[Packed]] = {}
        ahead = _with_next(plan.chunks(epoch, start=first, rank=rank, world_size=world_size))
        for chunk, following in ahead:
            # this chunk's blocks and the next one's: read-ahead is bounded by one chunk
            wanted = [*chunk.blocks.tolist(), *(following.blocks.tolist() if following else [])]
            for number in wanted:
                if number not in held:
                    held[number] = submit(number)
            pool = Pool(layout, [held[number].result() for number in chunk.blocks.tolist()], make=lender.empty)
            for low in range(skipped * batch, len(chunk), size):
                yield pool.gather(chunk.which[low : low + size], chunk.rows[low : low + size])
            skipped = 0
            del pool
            needed = {*chunk.still_open.tolist(), *(following.blocks.tolist() if following else [])}
            for number in [n for n in held if n not in needed]:
                del held[number]
    if len(recipe.specs.files) >= MANY_FILES:
        gc.collect()  # uproot's objects of closed files refer to each other, and Python alone takes its time


def share_of(size: int, rank: int, world_size: int) -> int:
    """Return how many of a batch of ``size`` events a rank gets.

    Parameters
    ----------
    size : events of a global batch
    rank : from 0
    world_size : ranks; the shares of all differ by one event at most
    """
    return size * (rank + 1) // world_size - size * rank // world_size


def _slab_of(batch: int, layout: Layout) -> int:
    """Return the number of events in a slab: a multiple of those in a batch."""
    nbytes = batch * _bytes_per_event(layout)
    return batch * max(1, SLAB_BYTES // nbytes, min(SLAB_BATCHES, 2 * SLAB_BYTES // nbytes))


def _with_next(orders: Iterator[Order]) -> Iterator[tuple[Order, Order | None]]:
    current = next(orders, None)
    while current is not None:
        following = next(orders, None)
        yield current, following
        current = following


def _carried_numbers(config: DataConfig) -> int:
    return len(config.targets) + len(config.observers) + len(config.variations)


def _bytes_per_event(layout: Layout) -> int:
    objects = {c.name: c.length for c in layout.collections}
    objects |= {f"{name}_mask": length for name, length in objects.items()}
    by_object = layout.by_object
    return sum(
        int(np.prod(shape)) * (1 if name.endswith("mask") else 4) * (objects[name] if name in by_object else 1)
        for name, shape in layout.shapes.items()
    )
