"""Hypothesis strategies: what can come out of ROOT files, in one place.

Columns and events for the arithmetic, sources for the order, and whole small data sets, which are described here and
written by the ``write_tree`` fixture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from hypothesis import Phase
from hypothesis import strategies as st

from rootdata.bundle.manifest import TensorSpec
from rootdata.events.selection import Events, Objects
from rootdata.jagged import Jagged, offsets_of
from rootdata.layouts.grid import HOWS, Channel, Grid, Line
from rootdata.layouts.layout import Layout, Padded
from rootdata.missing import mask_sentinels, values_of
from rootdata.order.plan import Plan, Source, make_plan
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.transform import Transform
from rootdata.table import Table

SENTINEL = -999.0

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""For tests that write files: a smaller failing example would take minutes to find."""

# Columns

ordinary = st.floats(-1e6, 1e6, width=32).filter(lambda x: x != SENTINEL)
"""Finite numbers of a size that float32 arithmetic keeps, none of them missing."""

awful = st.sampled_from([math.nan, math.inf, -math.inf, SENTINEL, 0.0, -0.0])
"""What else is found in branches."""

values = ordinary | awful


def lists(elements: st.SearchStrategy[Any] = values, *, max_events: int = 12) -> st.SearchStrategy[list[list[Any]]]:
    """Jagged columns as lists, empty events and none at all included."""
    return st.lists(st.lists(elements, max_size=6), max_size=max_events)


def jagged_of(content: Sequence[Sequence[Any]], dtype: npt.DTypeLike = np.float32) -> Jagged:
    """Turn lists into a jagged column."""
    counts = np.array([len(x) for x in content], np.int64)
    return Jagged(offsets_of(counts), np.array([y for x in content for y in x], dtype))


number_types = st.sampled_from(["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64"])


@st.composite
def number_columns(draw: st.DrawFn, *, min_size: int = 0) -> npt.NDArray[Any]:
    """Flat columns of any number type, NaN, infinities and sentinels among them where the type has them."""
    dtype = np.dtype(draw(number_types))
    if dtype.kind == "f":
        elements: st.SearchStrategy[Any] = values
    else:
        info = np.iinfo(dtype)
        near = st.integers(max(-2000, info.min), min(2000, info.max))
        elements = near if info.min > SENTINEL else near | st.just(int(SENTINEL))
    return np.array(draw(st.lists(elements, min_size=min_size, max_size=40)), dtype)


@st.composite
def tables(draw: st.DrawFn, *, max_events: int = 8) -> Table:
    """Flat, fixed-size and jagged columns, with any bits; jagged ones that share their offsets, have equal or others.

    Some are views of longer columns: offsets do not begin at 0, and there are values that no list holds.
    """
    n = draw(st.integers(0, max_events))
    lists = [offsets_of(np.array(draw(_row(st.integers(0, 3), n)), np.int64)) + draw(st.integers(0, 2)) for _ in "ab"]
    made: dict[str, Any] = {}
    for name in draw(st.lists(st.text(max_size=4), unique=True, max_size=5)):
        kind = draw(st.sampled_from(["flat", "fixed", "shared", "equal", "other"]))
        if kind in ("flat", "fixed"):
            values = draw(_bits(n if kind == "flat" else 2 * n))
            made[name] = values if kind == "flat" else values.reshape(n, 2)
        else:
            offsets = lists[1] if kind == "other" else lists[0]
            content = draw(_bits(int(offsets[-1]) + draw(st.integers(0, 1))))
            made[name] = Jagged(offsets if kind == "shared" else offsets.copy(), content)
    return Table(num_events=n, columns=made)


def _bits(size: int) -> st.SearchStrategy[npt.NDArray[Any]]:
    """Numbers of any type that columns are of, of any bits: NaNs with a payload among them."""
    dtypes = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]).map(np.dtype)
    return dtypes.flatmap(
        lambda dtype: st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize).map(
            lambda raw: np.frombuffer(raw, np.uint8) % 2 == 1 if dtype.kind == "b" else np.frombuffer(raw, dtype)
        )
    )


# Events of a block, selected

transforms = st.builds(
    Transform,
    shift=st.sampled_from([0.0, 1.5, -40.0]),
    factor=st.sampled_from([1.0, 0.25, -2.0]),
    curve=st.sampled_from([None, SIGNED_LOG]),
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Selected events with the layout and the scaling that go with them."""

    events: Events
    layout: Layout
    transforms: dict[str, Transform]


@st.composite
def blocks(draw: st.DrawFn, *, kind: str | None = None, elements: st.SearchStrategy[Any] = values) -> Block:
    """A block of selected events: none to two flat features, none to two collections, at least one feature."""
    n = draw(st.integers(0, 10))
    num_flat = draw(st.integers(0, 2))
    flat = {f"f{i}": np.array(draw(_row(elements, n)), draw(st.sampled_from(["float32", "float64"])))
            for i in range(num_flat)}  # fmt: skip
    objects, padded = {}, []
    for name in ("jets", "muons")[: draw(st.integers(0 if num_flat else 1, 2))]:
        counts = np.array(draw(_row(st.integers(0, 5), n)), np.int64)
        branches = tuple(f"{name}_{i}" for i in range(draw(st.integers(1, 3))))
        columns = {b: np.array(draw(_row(elements, int(counts.sum()))), np.float32) for b in branches}
        objects[name] = Objects(offsets=offsets_of(counts), columns=columns)
        padded.append(Padded(name=name, branches=branches, length=draw(st.integers(1, 6))))
    layout = Layout(
        kind=kind or draw(st.sampled_from(["vector", "tokens"])),
        flat=tuple(flat),
        collections=tuple(padded),
        pad=draw(st.sampled_from([0.0, -5.0, 1.5])),
    )
    names = [*flat, *(b for c in padded for b in c.branches)]
    scaling = {name: draw(transforms) for name in names}
    return Block(_events(n, flat, objects), layout, scaling)


axes = st.builds(
    lambda column, bins, low, width, wraps: Line(column=column, bins=bins, low=low, high=low + width, wraps=wraps),
    column=st.none(), bins=st.integers(1, 5), low=st.sampled_from([-2.5, 0.0, -3.0, -1e5]),
    width=st.sampled_from([5.0, 2 * math.pi, 2e5]), wraps=st.booleans(),
)  # fmt: skip
"""Axes of images, of no column yet."""


@st.composite
def drawn(draw: st.DrawFn, layout: Layout) -> Layout:
    """The same layout with images of some of its collections, one of which may go onto the other's."""
    made: list[Padded] = []
    for c in layout.collections:
        is_image, of = draw(st.booleans()), st.sampled_from(c.branches)
        reduced = st.builds(Channel, st.sampled_from(HOWS[1:]), of) | st.just(Channel("count", ""))
        channels = tuple(draw(st.lists(reduced, min_size=1, max_size=4, unique=True)))
        lines = {a: dataclasses.replace(draw(axes), column=draw(of)) for a in ("x", "y")}
        grid = Grid(x=lines["x"], y=lines["y"], channels=channels)
        below = made[0].grid if made else None
        if below is not None and draw(st.booleans()):
            x, y = (dataclasses.replace(getattr(below, a), column=lines[a].column) for a in ("x", "y"))
            grid = Grid(x=x, y=y, channels=channels, onto=made[0].name)
        made.append(dataclasses.replace(c, form="image", grid=grid) if is_image else c)
    return dataclasses.replace(layout, kind="image", collections=tuple(made))


def _row(elements: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(elements, min_size=size, max_size=size)


def _events(n: int, flat: dict[str, npt.NDArray[Any]], objects: dict[str, Objects]) -> Events:
    return Events(
        entry=np.arange(n, dtype=np.int64) * 3,
        part=np.zeros(n, np.uint8),
        label=np.arange(n, dtype=np.int64) % 2,
        weight=np.linspace(0.5, 2.0, n, dtype=np.float32),
        flat=flat,
        objects=objects,
        before=np.array([n, 0, 0]),
    )


def raw_of(block: Block, specs: Sequence[TensorSpec]) -> list[npt.NDArray[Any]]:
    """Lay the objects of a block out as a graph takes them, one by one, with garbage where there is none."""
    n = len(block.events)
    made: list[npt.NDArray[Any]] = []
    lengths = {c.name: None if c.keeps_all else c.length for c in block.layout.collections}
    for spec in specs:
        if spec.collection is None:
            flat: list[Any] = [block.events.flat[f] for f in spec.features]
            made.append(np.stack(flat, 1).astype(spec.dtype))
            continue
        objects, length = block.events.objects[spec.collection], lengths[spec.collection]
        if length is None:
            length = int(np.diff(objects.offsets).max(initial=1))
        shape = (n, length) if spec.is_mask else (n, len(spec.features), length)
        values = np.full(shape, 0.0 if spec.is_mask else np.nan, np.float32)
        for event, start in enumerate(objects.offsets[:-1]):
            for i in range(min(length, objects.offsets[event + 1] - start)):
                row: Any = 1.0 if spec.is_mask else [objects.columns[f][start + i] for f in spec.features]
                values[event, ..., i] = row
        made.append(values)
    return made


def masked(events: Events, sentinels: Sequence[float] = (SENTINEL,)) -> Events:
    """Mask the sentinels in all columns of events, as is done where branches are loaded."""
    return dataclasses.replace(
        events,
        flat={n: mask_sentinels(values_of(c), sentinels) for n, c in events.flat.items()},
        objects={
            name: dataclasses.replace(
                o, columns={b: mask_sentinels(values_of(c), sentinels) for b, c in o.columns.items()}
            )
            for name, o in events.objects.items()
        },
    )


# Sources of a plan


@st.composite
def sources(draw: st.DrawFn, *, max_sources: int = 5) -> list[Source]:
    """Sources of unlike sizes; the blocks of all are numbered through."""
    found, first = [], 0
    for i in range(draw(st.integers(1, max_sources))):
        counts = draw(st.lists(st.integers(1, draw(st.sampled_from([1, 5, 60]))), min_size=1, max_size=9))
        found.append(Source(name=f"s{i}", blocks=np.arange(first, first + len(counts)), counts=np.array(counts)))
        first += len(counts)
    return found


@st.composite
def plans(draw: st.DrawFn, *, quotas: bool = False, shuffle: bool | None = None) -> Plan:
    """Plans of any sources, chunks, batches, windows; with quotas some sources are over- or undersampled."""
    mixed = draw(sources())
    if quotas:
        mixed = [dataclasses.replace(s, quota=draw(st.integers(0, 3 * s.size))) for s in mixed]
        mixed[0] = dataclasses.replace(mixed[0], quota=draw(st.integers(1, 3 * mixed[0].size)))
    return make_plan(
        mixed,
        chunk_size=draw(st.integers(1, 80)),
        batch_size=draw(st.integers(1, 20)),
        shuffle=draw(st.booleans()) if shuffle is None else shuffle,
        seed=draw(st.integers(0, 2**40)),
        open_blocks=draw(st.none() | st.integers(1, 12)),
        partitions=draw(st.integers(1, 6)),
    )


# Whole data sets


@dataclasses.dataclass(frozen=True)
class FileShape:
    """A file to be written: its events, the sizes of its baskets, TTree or RNTuple."""

    num_events: int
    steps: tuple[int, ...]
    kind: str = "ttree"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Samples of files, and what :func:`columns_of` puts into them."""

    files: tuple[tuple[FileShape, ...], ...]

    @property
    def num_events(self) -> int:
        """Entries of all files."""
        return sum(f.num_events for sample in self.files for f in sample)

    def write(self, folder: Path, write_tree: Callable[..., Path]) -> dict[str, dict[str, Any]]:
        """Write the files; return ``samples`` as ``RootDataset`` takes them, with labels 0 and 1 in turn."""
        return {
            f"s{i}": {
                "files": [
                    str(write_tree(folder / f"s{i}_{j}.root", columns_of(shape.num_events, [i, j]), step=shape.steps,
                                   kind=shape.kind))
                    for j, shape in enumerate(sample)
                ],
                "label": i % 2,
            }
            for i, sample in enumerate(self.files)
        }  # fmt: skip


def columns_of(num_events: int, seed: Sequence[int]) -> dict[str, Any]:
    """Make up events: every kind of branch, missing values of every kind, identifiers beyond float64.

    Returns
    -------
    ``id`` int64, ``met`` float32 with NaN and -999, ``ht`` float64, ``nlep`` uint8, ``tagged`` bool, ``cov`` (2,)
    float32, ``gen`` float32 weights, ``Jet_pt`` and ``Jet_eta`` (var,) float32, ``Mu_q`` (var,) int32
    """
    rng = np.random.default_rng([*seed, num_events])
    met = rng.exponential(40.0, num_events).astype(np.float32)
    met[rng.random(num_events) < 0.05] = np.nan
    met[rng.random(num_events) < 0.05] = SENTINEL
    jets, muons = rng.poisson(2.5, num_events), rng.poisson(0.6, num_events)
    eta = rng.normal(0.0, 1.5, jets.sum()).astype(np.float32)
    eta[rng.random(len(eta)) < 0.05] = np.nan
    return {
        "id": 2**60 + 1_000_000 * sum(seed) + np.arange(num_events),
        "met": met,
        "ht": rng.exponential(200.0, num_events),
        "nlep": rng.poisson(1.0, num_events).astype(np.uint8),
        "tagged": rng.random(num_events) < 0.3,
        "cov": rng.normal(size=(num_events, 2)).astype(np.float32),
        "gen": rng.uniform(0.5, 1.5, num_events).astype(np.float32),
        "Jet_pt": ak.unflatten(rng.exponential(40.0, jets.sum()).astype(np.float32), jets),
        "Jet_eta": ak.unflatten(eta, jets),
        "Mu_q": ak.unflatten(rng.choice([-1, 1], muons.sum()).astype(np.int32), muons),
    }


file_shapes = st.builds(
    FileShape,
    num_events=st.sampled_from([0, 1, 2, 7]) | st.integers(8, 150),
    steps=st.lists(st.integers(5, 60), min_size=1, max_size=3).map(tuple),
    kind=st.sampled_from(["ttree", "rntuple"]),
)


@st.composite
def data_sets(draw: st.DrawFn) -> DataSet:
    """One to three samples of one to three files; every sample has events."""
    files = st.lists(file_shapes, min_size=1, max_size=3).filter(lambda found: any(f.num_events >= 30 for f in found))
    return DataSet(tuple(tuple(sample) for sample in draw(st.lists(files, min_size=1, max_size=3))))


orders = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 64),
        "chunk_size": st.integers(1, 200),
        "shuffle": st.booleans(),
        "seed": st.integers(0, 1000),
        "mix": st.sampled_from(["sample", "file"]),
        "open_blocks": st.none() | st.integers(1, 5),
    }
)
"""Options that say in which order events come."""
