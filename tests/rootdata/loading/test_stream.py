import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from files_for_tests import make_events, options, write
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.cache.blocks import open_store
from rootdata.errors import ConfigError, DataError, ShapeError
from rootdata.jagged import Jagged
from rootdata.layouts.pool import Pool
from rootdata.loading import stream
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.loading.part import Part
from rootdata.loading.readers import prefetched
from rootdata.loading.stream import EventReader, Recipe, plan_of, shares_of, slabs
from rootdata.options.data import parse_data
from rootdata.options.order import parse_order
from rootdata.options.parsed import Options
from rootdata.options.parts import PARTS
from rootdata.options.read import CacheConfig
from rootdata.scan.lookup import scan_for, specs_for
from rootdata.scan.scanned import Scanned
from strategies import NO_SHRINKING, DataSet, FileShape, data_sets, orders

SMALL = DataSet(
    (
        (FileShape(220, (50,)), FileShape(35, (10,), "rntuple")),
        (FileShape(90, (20,)), FileShape(0, (20,)), FileShape(40, (15,))),
        (FileShape(30, (8,)),),
    )
)
FEATURES = {
    "flat": ["ht"],
    "jagged": {"jets": {"branches": ["Jet_pt"], "length": 2}},
    "scale": "none",
    "split": {"train": 1.0},
}


def prepared(samples, *, part="train", features=FEATURES, **order):
    """Scan, and lay out the epoch of a part."""
    config = parse_data({"samples": samples, **features})
    parsed = parse_order({"batch_size": 16, "chunk_size": 64, **order}, samples=list(samples))
    recipe = Recipe(scanned=Scanned(config=config, specs=specs_for(config, progress=False)), part=PARTS.index(part))
    return recipe, plan_of(recipe, parsed, training=part == "train")


@pytest.fixture
def samples(tmp_path, write_tree, small_blocks):
    return SMALL.write(tmp_path, write_tree)


def indices(slabs):
    return [tuple(row) for slab in slabs for row in slab["index"].tolist()]


def entries_of(samples_shape):
    """List (sample, file, entry) of a data set, files numbered through."""
    files = [(i, shape.num_events) for i, sample in enumerate(samples_shape.files) for shape in sample]
    return [(sample, number, entry) for number, (sample, n) in enumerate(files) for entry in range(n)]


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("rootdata-")]


# An epoch


@settings(max_examples=12, phases=NO_SHRINKING)
@given(data_sets(), orders, st.integers(0, 3))
def test_each_event_comes_once_whatever_files_chunks_and_batches(write_tree, data_set, order, epoch):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("rootdata.io.trees.BLOCK_ENTRIES", 1)
        recipe, plan = prepared(data_set.write(Path(folder), write_tree), **order)
        found = list(slabs(recipe, plan, epoch=epoch))
    assert sorted(indices(found)) == entries_of(data_set)
    assert all(len(s["label"]) % plan.batch_size == 0 for s in found[:-1])
    for slab in found:
        assert slab["label"].tolist() == [sample % 2 for sample in slab["index"][:, 0].tolist()]


@pytest.mark.parametrize("mix", ["sample", "file"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_chunk_holds_samples_and_files_in_proportion(samples, mix, shuffle):
    recipe, plan = prepared(samples, mix=mix, shuffle=shuffle)
    sources = {s.name: s.share for s in plan.sources}
    totals = [255, 130, 30] if mix == "sample" else [220, 35, 90, 40, 30]
    assert list(sources.values()) == totals
    found = indices(slabs(recipe, plan, epoch=0))
    present = [0, 1, 2] if mix == "sample" else [0, 1, 2, 4, 5]
    column = 0 if mix == "sample" else 1
    for passed in (*range(plan.chunk_size, len(found), plan.chunk_size), len(found)):
        counts = Counter(row[column] for row in found[:passed])
        for source, total in zip(present, totals, strict=True):
            assert abs(counts[source] - total * passed / len(found)) < 1


def test_starting_at_a_batch_gives_the_rest_of_the_epoch(samples):
    recipe, plan = prepared(samples)
    whole = indices(slabs(recipe, plan, epoch=1))
    last = plan.num_events // plan.batch_size
    for start in (1, 3, 4, 5, last, last + 1):
        rest = indices(slabs(recipe, plan, epoch=1, start=start))
        assert rest == whole[start * plan.batch_size :]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_starting_late_reads_the_open_window_and_no_more(samples, monkeypatch, fraction):
    read, reader = [], stream.EventReader.__call__
    monkeypatch.setattr(
        stream.EventReader, "__call__", lambda self, number: read.append(number) or reader(self, number)
    )
    recipe, plan = prepared(samples, open_blocks=1)
    start = int(fraction * plan.num_events / plan.batch_size)
    events = slabs(recipe, plan, epoch=2, start=start)
    next(events)
    events.close()
    # what two chunks, this one and the next one that is read ahead, take or keep open
    two = list(itertools.islice(plan.chunks(2, start=start * plan.batch_size // plan.chunk_size), 2))
    assert set(read) <= {b for chunk in two for b in chunk.blocks.tolist()}


def test_small_slabs_change_nothing(samples, monkeypatch):
    recipe, plan = prepared(samples)
    whole = indices(slabs(recipe, plan, epoch=0))
    monkeypatch.setattr(stream, "SLAB_BYTES", 1)
    found = list(slabs(recipe, plan, epoch=0))
    assert len(found) == -(-plan.num_events // plan.batch_size)
    assert indices(found) == whole


@pytest.mark.parametrize("chunk_size", [16, 64, 1000])
@pytest.mark.parametrize("mix", ["sample", "file"])
def test_each_block_is_read_once_an_epoch(samples, monkeypatch, chunk_size, mix):
    read, lock, reader = Counter(), threading.Lock(), stream.EventReader.__call__

    def spy(self, number):
        with lock:
            read[number] += 1
        return reader(self, number)

    monkeypatch.setattr(stream.EventReader, "__call__", spy)
    recipe, plan = prepared(samples, chunk_size=chunk_size, mix=mix)
    for _ in slabs(recipe, plan, epoch=0):
        pass
    blocks = {int(b) for s in plan.sources for b in s.blocks}
    assert read == dict.fromkeys(blocks, 1)


@pytest.mark.parametrize("threads_of_it", [1, 3])
def test_how_many_read_changes_nothing(samples, threads_of_it):
    recipe, plan = prepared(samples)
    plain = list(slabs(recipe, plan, epoch=0))
    read = dataclasses.replace(recipe.read, num_workers=threads_of_it)
    found = list(slabs(dataclasses.replace(recipe, read=read), plan, epoch=0))
    assert threads() == []
    for one, other in zip(plain, found, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


# Plans of a part


def test_validation_is_in_file_order_and_knows_no_weights(samples):
    features = {**FEATURES, "split": {"by": "entries", "train": 0.5, "val": 0.5}}
    mix = {"s0": 1, "s1": 5, "s2": 1}
    _, train = prepared(samples, features=features, mix=mix)
    recipe, val = prepared(samples, features=features, part="val", mix=mix)
    assert train.shuffle
    assert [s.share for s in train.sources] != [s.size for s in train.sources]
    assert not val.shuffle
    assert [s.share for s in val.sources] == [s.size for s in val.sources]
    found = indices(slabs(recipe, val, epoch=0))
    for sample in range(3):
        mine = [row for row in found if row[0] == sample]
        assert mine == sorted(mine)


def test_a_mixture_leaves_weights_and_scaling_alone_and_the_mean_weight_follows_it(samples):
    weighted = {name: {**options, "weight": 1.0 + i} for i, (name, options) in enumerate(samples.items())}
    features = {**FEATURES, "scale": {"ht": "robust", "default": "standard"}}
    mix = {"s0": 1, "s1": 3, "s2": 1}
    recipe, plan = prepared(weighted, features=features, mix=mix)
    plain, _ = prepared(weighted, features=features)
    assert recipe.transforms == plain.transforms
    found = list(slabs(recipe, plan, epoch=0))
    weight, index = (np.concatenate([slab[name] for slab in found]) for name in ("weight", "index"))
    assert weight.tolist() == (1.0 + index[:, 0]).tolist()
    shares = shares_of(recipe.config, recipe.specs, parse_order({"mix": mix}, samples=list(samples)))
    assert shares == {s.name: s.share for s in plan.sources}
    assert recipe.specs.mean_weight("train", shares) == pytest.approx(weight.mean())
    assert recipe.specs.mean_weight("train") == pytest.approx((255 * 1 + 130 * 2 + 30 * 3) / 415)


@pytest.mark.parametrize("mix", [{"s0": 1, "s1": 0, "s2": 1}, {"s0": 0, "s1": 1, "s2": 0}])
def test_a_mixture_without_one_of_the_classes_is_refused(samples, mix):
    number = 1 if not mix["s1"] else 0
    with pytest.raises(ConfigError, match=rf"mix: got .*: 0.*, which leaves class {number} .* without training events"):
        prepared(samples, mix=mix)
    # A part that is not mixed does without.
    features = {**FEATURES, "split": {"by": "entries", "train": 0.5, "val": 0.5}}
    prepared(samples, features=features, part="val", mix=mix)
    data = RootDataModule(samples, **FEATURES, mix=mix)
    with pytest.raises(ConfigError, match="without training events"):
        data.setup("fit")


def test_weights_decide_the_events_of_an_epoch(samples):
    recipe, plan = prepared(samples, mix={"s0": 1, "s1": 1, "s2": 0})
    found = indices(slabs(recipe, plan, epoch=0))
    counts = Counter(sample for sample, _, _ in found)
    assert sum(counts.values()) == 385
    assert sorted(counts.values()) == [192, 193]
    times = Counter(found)
    assert {times[row] for row in entries_of(SMALL) if row[0] == 1} <= {1, 2}  # 192 of 130
    assert {times[row] for row in entries_of(SMALL) if row[0] == 0} <= {0, 1}  # 192 of 255


def test_a_part_without_events_is_refused(samples):
    with pytest.raises(DataError, match="no event is left to read"):
        prepared(samples, part="val")


# Reading ahead


def numbers(produced, *, fail_at=None):
    """Yield slabs 0, 1, ... for ever; note what was produced, and the end."""
    try:
        i = 0
        while i != fail_at:
            produced.append(i)
            yield {"number": np.array(i)}
            i += 1
        raise DataError("block 7 is damaged")
    finally:
        produced.append("closed")


@given(depth=st.integers(0, 4), take=st.integers(0, 6))
def test_reading_ahead_keeps_the_order_and_stays_within_its_depth(depth, take):
    produced = []
    ahead = prefetched(numbers(produced), depth=depth)
    found = [int(next(ahead)["number"]) for _ in range(take)]
    assert found == list(range(take))
    ahead.close()
    assert threads() == []
    if take:
        assert produced.pop() == "closed"
        # those taken, those queued, and one in hand
        assert take <= len(produced) <= take + depth + 1


@given(depth=st.integers(0, 3), good=st.integers(0, 5))
def test_an_error_comes_after_what_was_good(depth, good):
    ahead, found = prefetched(numbers([], fail_at=good), depth=depth), []
    with pytest.raises(DataError, match="block 7 is damaged"):
        found.extend(int(slab["number"]) for slab in ahead)
    assert found == list(range(good))
    assert threads() == []


def test_the_end_of_the_source_is_the_end():
    source = ({"number": np.array(i)} for i in range(5))
    assert [int(s["number"]) for s in prefetched(source, depth=2)] == [0, 1, 2, 3, 4]
    assert threads() == []


@pytest.fixture
def several(tmp_path):
    """Options for three files of two samples."""
    paths = [write(tmp_path / f"{name}.root", make_events(60, i)) for i, name in enumerate(("a1", "a2", "b"))]
    samples = {"a": {"files": [str(p) for p in paths[:2]], "label": 0}, "b": {"files": str(paths[2]), "label": 1}}
    return options("", samples=samples, split={"train": 0.7, "val": 0.3}, batch_size=16)


def epoch(plain, cache, part="train"):
    chosen = Options.parse(plain, where="a test")
    dataset = RootDataset.of(Part(scan_for(chosen, progress=False), chosen, part, store=cache), index=True)
    return [{name: values.tolist() for name, values in batch.items()} for batch in dataset]


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_the_second_epoch_from_a_cache_needs_no_files(several, tmp_path, where, small_blocks):
    plain = several | {"shuffle": False}
    dataset = RootDataset(plain, cache="memory" if where == "memory" else {"dir": tmp_path / "blocks"})
    first = [batch["x"].tolist() for batch in dataset]
    for path in tmp_path.glob("*.root"):
        path.unlink()
    assert [batch["x"].tolist() for batch in dataset] == first


@pytest.mark.parametrize(
    "other",
    [
        {"cut": "met > 20"},
        {"scale": "minmax"},
        {"split": {"train": 0.4, "val": 0.6}},
        {"split": {"by": "event % 2", "train": [0], "val": [1]}},
        {"layout": "tokens"},
        {"layout": "jagged"},
        {"jagged": {"jets": {"branches": ["Jet_pt"], "sort": "-Jet_pt", "length": 2}}},
        {"jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "cut": "Jet_pt > 30", "length": 4}}},
        {"missing": [-999.0]},
        {"weight": "weight"},
        {"label": "is_signal"},
        {"pad": -5.0},
    ],
    ids=str,
)
def test_other_settings_never_get_the_blocks_of_these(several, other):
    store = open_store(CacheConfig(dir=None, max_bytes=10**8))
    for part in ("train", "val"):
        assert epoch(several, store, part) == epoch(several, None, part)
        assert epoch(several | other, store, part) == epoch(several | other, None, part)


class Spoiled:
    """A store that gives something else than was put into it."""

    def __init__(self, spoil):
        self.kept, self.spoil, self.given = {}, spoil, 0

    def get(self, key, *, last=False):
        columns = self.kept.get(key)
        self.given += columns is not None
        return None if columns is None else self.spoil(dict(columns))

    def put(self, key, columns):
        self.kept[key] = columns


def changed(name, how):
    return lambda columns: columns | {name: how(columns[name])}


JETS = "objects/jets"
SPOILS = {
    "absent": lambda columns: {n: c for n, c in columns.items() if n != "weight"},
    "no list": lambda columns: {n: c for n, c in columns.items() if n != JETS},
    "another list": lambda columns: {n.replace("jets", "muons"): c for n, c in columns.items()},
    "nothing": lambda columns: {},
    "short": changed("flat", lambda a: a[:-1]),
    "long": changed("label", lambda a: np.concatenate([a, a])),
    "narrow": changed("flat", lambda a: a[:, :0]),
    "doubles": changed("flat", lambda a: a.astype(np.float64)),
    "one row": changed("flat", lambda a: a.reshape(-1)),
    "lists of facts": changed("weight", lambda a: Jagged(np.arange(len(a) + 1), a)),
    "no lists": changed(JETS, lambda j: j.content),
    "few objects": changed(JETS, lambda j: Jagged(j.offsets, j.content[:-1])),
    "thin objects": changed(JETS, lambda j: Jagged(j.offsets, j.content[:, :1])),
    "far offsets": changed(JETS, lambda j: Jagged(j.offsets * 2**40, j.content)),
    "falling offsets": changed(JETS, lambda j: Jagged(j.offsets[::-1].copy(), j.content)),
    "negative offsets": changed(JETS, lambda j: Jagged(j.offsets - 5, j.content)),
    "fewer offsets": changed(JETS, lambda j: Jagged(j.offsets[:-1], j.content)),
    "fewer events": lambda columns: {
        n: Jagged(c.offsets[:3], c.content[: c.offsets[2]]) if n == JETS else c[:2] for n, c in columns.items()
    },
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_whatever_a_store_gives_only_what_was_read_is_delivered(several, spoil):
    store = Spoiled(spoil)
    expected = epoch(several, None)
    assert epoch(several, store) == epoch(several, store) == expected
    assert store.given >= 3


@pytest.mark.parametrize(("which", "rows"), [([0], [99]), ([1], [0]), ([-1], [0]), ([0], [-1]), ([0, 0], [0, 60])])
def test_no_events_are_gathered_from_outside_of_blocks(several, which, rows):
    dataset = RootDataset(several)
    recipe = Recipe(scanned=Scanned(config=dataset.data, specs=dataset.specs), part=0)
    pool = Pool(recipe.layout, [EventReader(recipe)(0)])
    with pytest.raises(ShapeError, match="got events"):
        pool.gather(np.array(which), np.array(rows))
    with pytest.raises(ShapeError, match="other features"):
        Pool(dataclasses.replace(recipe.layout, flat=("met", "met")), [EventReader(recipe)(0)])


ANOTHER_RUN = """
import json, sys
from rootdata.cache.blocks import usage
from rootdata.loading.dataset import RootDataset
folder = sys.argv[2]
for _ in RootDataset(json.loads(sys.argv[1]), cache={"dir": folder}):
    pass
print(usage(folder)[0])
"""


@pytest.mark.long
def test_another_run_finds_the_blocks_that_this_one_kept(several, tmp_path):
    plain = several | {"scale": {"met": "log", "Jet_pt": "own_scaling.Asinh"}}
    command = [sys.executable, "-c", ANOTHER_RUN, json.dumps(plain), str(tmp_path / "kept")]
    paths = os.pathsep.join([str(Path(__file__).parents[3] / place) for place in ("src", "examples/extend")])
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": paths})
        for _ in range(2)
    ]
    first, second = (int(run.stdout) for run in runs)
    assert first == second >= 3
