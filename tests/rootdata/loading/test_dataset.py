import copy
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections import Counter
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from rootdata.errors import BranchError, ConfigError, DataError, FileError, ResumeError, SpecsError
from rootdata.loading.dataset import RootDataset
from rootdata.options.parts import PARTS
from rootdata.scan import lookup
from strategies import NO_SHRINKING, SENTINEL, DataSet, FileShape, columns_of

SMALL = DataSet(
    (
        (FileShape(330, (50, 80, 30)), FileShape(75, (40,), "rntuple")),
        (FileShape(150, (45,), "rntuple"), FileShape(0, (45,)), FileShape(90, (25, 60))),
    )
)
FEATURES = {"flat": ["ht"], "jagged": {"jets": {"branches": ["Jet_pt"], "length": 2}}, "scale": "none"}
AS_IS = {"default": {"shift": 0, "factor": 1}}
ORDER = {"batch_size": 32, "chunk_size": 128, "seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def samples(folder, write_tree):
    return SMALL.write(folder, write_tree)


@pytest.fixture(autouse=True)
def _many_blocks(small_blocks):
    """Every data set here has several blocks a file."""


@pytest.fixture
def dataset(samples):
    """Make data sets of the small files."""

    def make(part="train", *, specs=None, prefetch=2, num_workers=0, rank=0, world_size=1, index=True, **options):
        given = {"samples": samples, "split": {"train": 1.0}, **FEATURES, **ORDER, **options}
        return RootDataset(
            given, part, specs=specs, index=index, prefetch=prefetch, num_workers=num_workers, rank=rank,
            world_size=world_size,
        )  # fmt: skip

    return make


def indices(batches):
    return [tuple(row) for batch in batches for row in batch["index"].tolist()]


def everything():
    """List (sample, file, entry) of all events of the small files."""
    shapes = [(i, shape.num_events) for i, files in enumerate(SMALL.files) for shape in files]
    return [(sample, file, entry) for file, (sample, n) in enumerate(shapes) for entry in range(n)]


def assert_same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), name


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("rootdata-")]


# Against a reading of the same files by uproot and awkward alone

ANALYSIS = {
    "flat": ["met", "nlep", "tagged", "cov", "lead", "sum_pt", "ht"],
    "jagged": {
        "jets": {"branches": ["Jet_pt", "Jet_eta", "share"], "length": 3, "sort": "-Jet_pt", "cut": "Jet_pt > 15"},
        "muons": {"branches": ["Mu_q"], "length": 2},
    },
    "derived": {"lead": "Jet_pt[0] / ht", "sum_pt": "sum(Jet_pt)", "share": "Jet_pt / sum_pt"},
    "cut": "ht > 40 and count(Jet_pt) >= 1",
    "weight": "gen * 2",
    "missing": [SENTINEL],
    "pad": -7.0,
    "split": {"by": "id % 5", "val": [3], "test": [4]},
    "scale": {"default": "standard", "nlep": "none", "ht": "log", "Jet_pt": "minmax", "cov": {"shift": 1, "factor": 2}},
}


def analysis_samples(samples):
    return {"s0": {**samples["s0"], "weight": 0.5}, "s1": {**samples["s1"], "cut": "nlep < 3"}}


class Reference:
    """The same selection and features, written with awkward on whole files."""

    longest = 20  # beyond every list: what is scaled must not depend on what is kept

    def __init__(self, samples, lengths=(3, 2)):
        self.index, parts, self.label, weights, flat, objects = [], [], [], [], [], []
        paths = [(i, path) for i, sample in enumerate(samples.values()) for path in sample["files"]]
        for number, (sample, path) in enumerate(paths):
            with uproot.open(path) as file:
                events = file["Events"].arrays()
            keep = (events.ht > 40) & (ak.num(events.Jet_pt) >= 1)
            entries = np.flatnonzero(ak.to_numpy(keep & (events.nlep < 3) if sample == 1 else keep))
            events = events[entries]
            self.index += [(sample, number, int(e)) for e in entries]
            parts += [{3: 1, 4: 2}.get(x % 5, 0) for x in events.id.to_list()]
            self.label += [sample] * len(entries)
            weights.append(ak.to_numpy(events.gen) * 2 * (0.5 if sample == 0 else 1))
            flat.append(self.flat_of(events))
            objects.append(self.objects_of(events))
        self.part, self.weight = np.array(parts), np.concatenate(weights)
        self.flat = self.scaled_flat(np.concatenate(flat))
        pt, eta, share, muon = (np.concatenate(x) for x in zip(*objects, strict=True))
        low, high = np.nanmin(pt[self.part == 0]), np.nanmax(pt[self.part == 0])
        jets = np.stack([(pt - low) / (high - low), self.standard(eta), self.standard(share)], axis=-1)
        num_jets, num_muons = lengths
        self.objects = {"jets": jets[:, :num_jets], "muons": self.standard(muon)[:, :num_muons, None]}
        self.there = {"jets": ~np.isnan(pt[:, :num_jets]), "muons": ~np.isnan(muon[:, :num_muons])}

    def flat_of(self, events):
        met = ak.to_numpy(events.met).astype(float)
        met[met == SENTINEL] = np.nan
        pt, cov = ak.values_astype(events.Jet_pt, np.float64), ak.to_numpy(events.cov)
        columns = [met, events.nlep, events.tagged, *cov.T, pt[:, 0] / events.ht, ak.sum(pt, axis=1), events.ht]
        return np.stack([np.asarray(c, float) for c in columns], axis=1)

    def objects_of(self, events):
        pt = ak.values_astype(events.Jet_pt, np.float64)
        share, keep = pt / ak.sum(pt, axis=1), pt > 15
        order = ak.argsort(pt[keep], ascending=False, stable=True)
        lists = [*(x[keep][order] for x in (pt, events.Jet_eta, share)), events.Mu_q]
        return [ak.to_numpy(ak.fill_none(self.padded(x), np.nan)) for x in lists]

    def padded(self, lists):
        return ak.pad_none(ak.values_astype(lists, np.float64), self.longest, clip=True)

    def scaled_flat(self, flat):
        out = np.stack([self.standard(column) for column in flat.T], axis=1)
        out[:, 1] = flat[:, 1]
        out[:, 3:5] = (flat[:, 3:5] - 1) * 2
        out[:, 7] = self.standard(np.log1p(flat[:, 7]))
        return out

    def standard(self, values):
        train = values[self.part == 0]
        return (values - np.nanmean(train)) / np.nanstd(train)

    def arrays(self, layout, where):
        """Lay out the events at positions ``where``."""
        objects = {name: values[where] for name, values in self.objects.items()}
        if layout == "vector":
            x = np.concatenate([self.flat[where], *(v.reshape(len(where), -1) for v in objects.values())], axis=1)
            arrays = {"x": x, "mask": ~np.isnan(x)}
        elif layout == "jagged":  # offsets as counts
            arrays = {"flat": self.flat[where]}
            for name, there in self.there.items():
                values = objects[name][there[where]]
                counts = there[where].sum(axis=1)
                arrays |= {name: values, f"{name}_mask": ~np.isnan(values), f"{name}_offsets": counts}
        else:
            masks = {f"{name}_mask": there[where] for name, there in self.there.items()}
            arrays = {"flat": self.flat[where], **objects, **masks}
        arrays = {n: np.where(np.isnan(v), -7.0, v) if v.dtype != bool else v for n, v in arrays.items()}
        return arrays | {"label": np.array(self.label)[where], "weight": self.weight[where]}


@pytest.mark.parametrize("layout", ["vector", "tokens", "jagged"])
@pytest.mark.parametrize("part", PARTS)
def test_batches_equal_a_reading_by_uproot_and_awkward(samples, dataset, layout, part):
    chosen, analysis = analysis_samples(samples), dict(ANALYSIS)
    reference = Reference(chosen)
    if layout == "jagged":  # of jets the leading ones, of muons all
        analysis["jagged"] = ANALYSIS["jagged"] | {"muons": {"branches": ["Mu_q"]}}
        reference = Reference(chosen, lengths=(3, Reference.longest))
    batches = list(dataset(part, samples=chosen, layout=layout, **analysis))
    position = {index: i for i, index in enumerate(reference.index)}
    found = indices(batches)
    assert sorted(found) == [x for x, p in zip(reference.index, reference.part, strict=True) if PARTS[p] == part]
    expected = reference.arrays(layout, np.array([position[index] for index in found]))
    assert batches[0].keys() == {*expected, "index"}
    for name, values in expected.items():
        pieces = [batch[name].diff() if name.endswith("_offsets") else batch[name] for batch in batches]
        together = torch.cat(pieces).numpy()
        np.testing.assert_allclose(together, values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_identifiers_keep_every_digit(samples, dataset):
    # In float64 2^60 has steps of 256: a shift that is done first keeps the differences of neighbours.
    batches = list(dataset(flat=["id"], jagged=None, scale={"id": {"shift": 2.0**60}}))
    for x, (sample, file, entry) in zip(
        torch.cat([b["x"] for b in batches])[:, 0].tolist(), indices(batches), strict=True
    ):
        seed = sample + (file if sample == 0 else file - 2)
        assert abs(x - (1_000_000 * seed + entry)) <= 128


# What an epoch holds


def test_events_come_once_an_epoch_and_each_epoch_in_another_order(dataset):
    events = dataset()
    epochs = [indices(events) for _ in range(3)]
    assert all(sorted(epoch) == everything() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert epochs == [indices(dataset().batches(epoch)) for epoch in range(3)]


@settings(max_examples=12, phases=NO_SHRINKING)
@given(
    batch=st.integers(1, 700), chunk=st.integers(1, 700), parts=st.sampled_from([(1, 0, 0), (0.5, 0.25, 0.25)]),
    drop=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_parts_share_the_events_whatever_batch_and_chunk(samples, batch, chunk, parts, drop, seed):
    found = []
    batch = min(batch, 100) if drop else batch  # a whole batch is there in any case
    for part, share in zip(PARTS, parts, strict=True):
        if not share:
            continue
        options = {"samples": samples, **FEATURES, "split": dict(zip(PARTS, parts, strict=True)), "seed": seed}
        events = RootDataset({**options, "batch_size": batch, "chunk_size": chunk, "drop_last": drop}, part, index=True)
        batches = list(events)
        sizes = [len(b["label"]) for b in batches]
        whole, rest = divmod(events.num_events, batch)
        assert sizes == [batch] * whole + ([rest] if rest and not (drop and part == "train") else [])
        assert len(events) == len(sizes)
        found += indices(batches)
        if drop and part == "train":
            continue
        assert len(set(indices(batches))) == events.num_events
    assert len(set(found)) == len(found)
    if not drop:
        assert sorted(found) == everything()


def test_dropping_the_only_batch_is_refused(dataset):
    with pytest.raises(DataError, match=r"drop_last: the .* events are fewer than a batch of 100000"):
        dataset(drop_last=True, batch_size=100_000)


def test_weights_mix_training_alone(dataset):
    options = {"mix": {"s0": 1, "s1": 3}, "split": {"by": "entries", "train": 0.6, "val": 0.4}}
    train, val = dataset(**options), dataset("val", **options)
    counts = Counter(sample for sample, _, _ in indices(train))
    assert sum(counts.values()) == train.num_events
    assert counts[0] == pytest.approx(train.num_events / 4, abs=1)
    assert counts[1] == pytest.approx(train.num_events * 3 / 4, abs=1)
    assert set(Counter(indices(val)).values()) == {1}
    assert indices(val) == indices(val)  # the same order each time


def test_mixing_by_file_gives_every_file_its_part_of_a_chunk(dataset):
    found = indices(dataset(mix="file", chunk_size=128))
    shares = Counter(file for _, file, _ in found)
    for chunk in (found[i : i + 128] for i in range(0, len(found) - 128, 128)):
        counts = Counter(file for _, file, _ in chunk)
        assert all(abs(counts[f] - n * 128 / len(found)) < 2 for f, n in shares.items())


def test_labels_come_from_samples_from_an_expression_or_not_at_all(samples, dataset):
    bare = {name: {"files": sample["files"]} for name, sample in samples.items()}
    assert {int(x) for b in dataset(samples=bare) for x in b["label"]} == {-1}
    by_expression = dataset(samples=bare, label="tagged == 1", flat=["tagged"])
    for batch in by_expression:
        assert torch.equal(batch["label"], batch["x"][:, 0].long())


def test_the_index_is_left_out_unless_asked_for(dataset):
    assert "index" not in next(iter(dataset(index=False)))
    assert next(iter(dataset()))["index"].dtype == torch.int64


def test_shapes_are_those_of_the_batches(dataset):
    for layout in ("vector", "tokens", "jagged"):
        events = dataset(layout=layout)
        batch = next(iter(events))
        assert {name: tuple(batch[name].shape[1:]) for name in events.shapes} == events.shapes


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_files_without_events_add_nothing(tmp_path, write_tree, dataset, kind):
    data = DataSet(((FileShape(0, (10,), kind), FileShape(40, (10,), kind)),))
    events = dataset(samples=data.write(tmp_path, write_tree))
    assert sorted(indices(events)) == [(0, 1, entry) for entry in range(40)]


# Who reads changes nothing


@pytest.mark.parametrize(
    ("layout", "prefetch", "num_workers"),
    [*(("vector", prefetch, workers) for prefetch in (0, 1, 4) for workers in (0, 2)), ("jagged", 4, 2)],
)
def test_the_order_does_not_depend_on_readers(dataset, layout, prefetch, num_workers):
    plain = dataset(prefetch=0, layout=layout)
    other = dataset(prefetch=prefetch, num_workers=num_workers, layout=layout)
    assert_same(plain, other)
    assert threads() == []
    assert active_children() == []


# torch advises against more workers than cores; here the number only has to be an odd one.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_a_plain_loader_gives_the_same_batches(dataset, num_workers):
    events = dataset()
    loader = DataLoader(events, batch_size=None, num_workers=num_workers)
    assert len(loader) == len(events)
    assert_same(loader, dataset())


@pytest.mark.long
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_plain_loader_goes_on_to_the_next_epoch(dataset, num_workers, persistent):
    loader = DataLoader(
        dataset(), batch_size=None, num_workers=num_workers, persistent_workers=persistent and num_workers > 0
    )
    epochs = [indices(loader) for _ in range(2)]
    assert epochs == [indices(dataset().batches(epoch)) for epoch in range(2)]


# As above.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_epochs_of_a_data_set_go_on_whatever_iterates_over_it(dataset):
    events, expected = dataset(), [indices(dataset().batches(epoch)) for epoch in range(6)]
    assert indices(events) == expected[0]
    for epoch, num_workers in enumerate([2, 3, 0, 2], start=1):
        assert indices(DataLoader(events, batch_size=None, num_workers=num_workers)) == expected[epoch]
    assert indices(events) == expected[5]


@pytest.mark.long
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_after_one_that_was_left_early_is_whole(dataset, num_workers):
    loader = DataLoader(dataset(), batch_size=None, num_workers=num_workers)
    for _ in range(3):
        assert len(next(iter(loader))["label"]) == 32
    assert indices(loader) == indices(dataset().batches(3))


def joined(ranks):
    """Put the ranks' parts of every batch together."""
    return [{name: joined_values(parts, name) for name in parts[0]} for parts in zip(*ranks, strict=True)]


def joined_values(parts, name):
    if not name.endswith("_offsets"):
        return torch.cat([part[name] for part in parts])
    counts = torch.cat([part[name].diff() for part in parts])
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@pytest.mark.parametrize(
    ("layout", "size", "partitions"),
    [("vector", 36, 4), ("vector", 36, 1), ("vector", 36, 3), ("jagged", 36, 4)],
)
def test_ranks_share_every_training_batch(dataset, layout, size, partitions):
    options = {"batch_size": size, "partitions": partitions, "layout": layout}
    whole = list(dataset(**options))
    for world in (1, 2, 4):
        ranks = [list(dataset(rank=r, world_size=world, **options)) for r in range(world)]
        assert_same(whole, joined(ranks))


@pytest.mark.parametrize("world", [1, 2, 4, 5])
def test_ranks_share_validation_in_stretches_of_file_order(dataset, world):
    options = {"split": {"by": "entries", "train": 0.55, "val": 0.45}, "batch_size": 20}
    whole = sorted(indices(dataset("val", **options)))
    ranks = [list(dataset("val", rank=r, world_size=world, **options)) for r in range(world)]
    assert sorted(event for rank in ranks for event in indices(rank)) == whole
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
    for rank in ranks:
        assert all(len(batch["label"]) for batch in rank)
        for sample in range(2):
            mine = [event for event in indices(rank) if event[0] == sample]
            assert mine == sorted(mine)


def test_a_training_batch_too_small_for_all_ranks_is_left_out_on_all(dataset):
    # 645 events in batches of 4 * 161 leave one: too few for four ranks to train on, but validated by one of them.
    train = [dataset(rank=rank, world_size=4, batch_size=644) for rank in range(4)]
    assert [len(events) for events in train] == [1] * 4
    assert [len(list(events)) for events in train] == [1] * 4
    val = [dataset("val", rank=r, world_size=4, batch_size=644, split={"val": 1.0}, scale=AS_IS) for r in range(4)]
    assert sum(len(batch["label"]) for events in val for batch in events) == 645


# Stopping and failing


@pytest.mark.parametrize("prefetch", [0, 2])
def test_stopping_in_the_middle_leaves_nothing_running(dataset, prefetch):
    events = dataset(prefetch=prefetch)
    epoch = iter(events)
    assert len(list(islice(epoch, 3))) == 3
    epoch.close()
    assert threads() == []
    assert_same(events, dataset().batches(1))  # and the next epoch is whole


def test_a_file_replaced_after_the_first_pass_is_an_error(tmp_path, write_tree, dataset):
    files = [write_tree(tmp_path / f"{i}.root", columns_of(200, [i]), step=50) for i in range(2)]
    events = dataset(samples={"s0": {"files": [str(f) for f in files]}})
    write_tree(files[1], columns_of(200, [5]), step=50)
    with pytest.raises(FileError, match=r"1\.root is .* the first pass saw"):
        list(events)
    assert threads() == []


def test_a_file_damaged_after_the_first_pass_is_an_error(tmp_path, write_tree, dataset):
    path = write_tree(tmp_path / "a.root", columns_of(3000, [1]), step=500)
    events = dataset(samples={"s0": {"files": str(path)}})
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3 : len(damaged) // 2] = bytes(len(damaged) // 2 - len(damaged) // 3)
    path.write_bytes(damaged)
    with pytest.raises(FileError, match=r"a\.root: entries \d+ to \d+ of tree 'Events' can't be read"):
        list(events)
    assert threads() == []


# Specs


def junk(path):
    """Replace a file by one of the same size and time that nobody can read."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_the_first_pass_is_not_repeated(tmp_path, write_tree, dataset, cache_folder, monkeypatch):
    path = write_tree(tmp_path / "a.root", columns_of(100, [1]), step=20)
    first = dataset(samples={"s0": {"files": str(path)}})
    assert len(list(cache_folder.rglob("*.json"))) == 1
    monkeypatch.delattr(lookup, "scan_folds")
    again = dataset(samples={"s0": {"files": str(path)}}, layout="tokens", batch_size=10)
    assert again.specs == first.specs
    assert sum(len(batch["label"]) for batch in again) == again.num_events


@pytest.mark.parametrize("change", [{"cut": "ht > 100"}, {"flat": ["met"]}, {"split": {"train": 0.5, "test": 0.5}}])
def test_another_configuration_is_scanned_anew(tmp_path, write_tree, dataset, change):
    path = write_tree(tmp_path / "a.root", columns_of(100, [1]), step=20)
    dataset(samples={"s0": {"files": str(path)}})
    junk(path)
    with pytest.raises(FileError, match=r"a\.root"):
        dataset(samples={"s0": {"files": str(path)}}, **change)


def test_a_changed_file_is_scanned_anew(tmp_path, write_tree, dataset):
    path = write_tree(tmp_path / "a.root", columns_of(100, [1]), step=20)
    first = dataset(samples={"s0": {"files": str(path)}})
    write_tree(path, columns_of(120, [1]), step=20)
    again = dataset(samples={"s0": {"files": str(path)}})
    assert (first.num_events, again.num_events) == (100, 120)
    assert len(indices(again)) == 120


def test_damaged_cached_specs_are_made_anew(dataset, cache_folder):
    first = dataset()
    (cached,) = cache_folder.rglob("*.json")
    cached.write_text(cached.read_text()[:-100])
    assert dataset().specs == first.specs


def test_specs_may_be_given_and_follow_moved_files(tmp_path, samples, folder, dataset, cache_folder):
    first = dataset()
    first.specs.save(tmp_path / "specs.json")
    shutil.rmtree(cache_folder)
    shutil.copytree(folder, tmp_path / "moved")
    moved = {
        name: {**sample, "files": [path.replace(str(folder), str(tmp_path / "moved")) for path in sample["files"]]}
        for name, sample in samples.items()
    }
    for specs in (tmp_path / "specs.json", first.specs):
        assert_same(dataset().batches(0), dataset(samples=moved, specs=specs).batches(0))


def test_specs_of_other_data_are_refused(samples, dataset):
    specs = dataset().specs
    fewer = {**samples, "s0": {**samples["s0"], "files": samples["s0"]["files"][:1]}}
    for options, reason in [
        ({"cut": "ht > 10"}, "other features, cuts"),
        ({"samples": fewer}, "know 5 files, 4 were found"),
        ({"samples": {"s0": samples["s0"]}}, r"made for samples \['s0', 's1'\]"),
    ]:
        with pytest.raises(SpecsError, match=reason):
            dataset(specs=specs, **options)


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batchsize": 3}, ConfigError, "unknown option 'batchsize'.*'batch_size'"),
        ({"flat": ["mett"]}, BranchError, "'mett' not found; nearest: 'met'"),
        ({"cut": "ht < 0"}, DataError, "sample 's0': none of its 405 entries"),
        ({"flat": ["Jet_pt"]}, BranchError, "'Jet_pt' is jagged"),
        ({"split": {"by": "id", "train": [1], "val": [2]}}, DataError, "'s0'"),
        ({"split": {"by": "id % 5", "test": [7]}}, DataError, "no selected event falls to 'test'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_delivered(dataset, cache_folder, options, error, message):
    with pytest.raises(error, match=message):
        dataset(**options)
    assert list(cache_folder.rglob("*.json")) == []


def test_a_part_has_one_of_three_names(dataset):
    with pytest.raises(ConfigError, match="part: got 'training'; allowed: train, val, test"):
        dataset("training")


# Going on


def test_a_state_goes_on_exactly_there_in_any_place(dataset):
    whole = [indices([batch]) for epoch in range(3) for batch in dataset().batches(epoch)]
    events, states, seen = dataset(), [], []
    for _ in range(3):
        for batch in events:
            seen.append(indices([batch]))
            states.append(events.state_dict())
    assert seen == whole
    for number in range(0, len(states), 5):
        again = dataset(num_workers=(number // 5) % 3, prefetch=number % 3)
        again.load_state_dict(states[number])
        rest = [indices([batch]) for _ in range(3) for batch in again][: len(whole) - number - 1]
        assert rest == whole[number + 1 :]


def test_a_state_goes_on_with_other_ranks(dataset):
    one = dataset(batch_size=36)
    first = list(islice(iter(one), 5))
    ranks = [dataset(batch_size=36, rank=r, world_size=4) for r in range(4)]
    for rank in ranks:
        rank.load_state_dict(one.state_dict())
    assert_same([*first, *joined([list(r) for r in ranks])], dataset(batch_size=36).batches(0))


def test_a_state_is_made_of_primitives(dataset):
    def kinds(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return {type(value)} | {kind for v in inner for kind in kinds(v)}

    assert kinds(dataset().state_dict()) <= {dict, list, str, int, float, bool, type(None)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 8}, r"seed was 7, now 8"),
        ({"batch_size": 16}, r"batch_size was 32, now 16"),
        ({"cut": "ht > 10"}, r"cut was None, now 'ht > 10'"),
        ({"flat": ["ht", "nlep"]}, r"flat had 1, now 2 \(for one: nlep\)"),
        ({"scale": "standard"}, r"scale.default.kind was 'none', now 'standard'"),
        ({"partitions": 2}, r"partitions was 4, now 2"),
        ({"mix": "file"}, r"mix was 'sample', now 'file'"),
    ],
)
def test_a_state_of_other_events_is_refused_with_the_difference(dataset, change, named):
    with pytest.raises(ResumeError, match=named):
        dataset(**change).load_state_dict(dataset().state_dict())


def test_a_state_of_moved_files_is_taken_and_of_replaced_ones_is_not(tmp_path, write_tree, dataset, samples):
    state = dataset().state_dict()
    files = {name: [Path(shutil.copy(f, tmp_path)) for f in sample["files"]] for name, sample in samples.items()}
    moved = {name: {**samples[name], "files": list(map(str, paths))} for name, paths in files.items()}
    dataset(samples=moved).load_state_dict(state)
    write_tree(files["s0"][0], columns_of(330, [9]), step=50)
    with pytest.raises(ResumeError, match=r"files\[0\] was 's0: .* 330 entries"):
        dataset(samples=moved).load_state_dict(state)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_state_behind_a_loader_with_workers_is_not_known(dataset):
    events = dataset()
    next(iter(DataLoader(events, batch_size=None, num_workers=2)))
    with pytest.raises(ResumeError, match="workers of a DataLoader"):
        events.state_dict()


# In a loader with workers, which each have a place of their own

# torch advises against more workers than cores; here their number is what is tested.
many_workers = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
of_torchdata = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


@pytest.mark.long
@many_workers
@pytest.mark.parametrize("num_workers", [0, 2, 3])
def test_a_loader_gives_what_is_left_in_order_whatever_its_workers(dataset, num_workers):
    events = dataset()
    events.load_state_dict({**events.state_dict(), "epoch": 2, "batch": 5})
    loader = DataLoader(events, batch_size=None, num_workers=num_workers)
    assert indices(loader) == indices(dataset().batches(2, start=5))
    assert indices(loader) == indices(dataset().batches(3))


def test_workers_that_stay_follow_the_data_set(dataset):
    events = dataset()
    loader = DataLoader(events, batch_size=None, num_workers=2, persistent_workers=True)
    next(iter(loader))
    events.epoch = 0  # again, though the workers were within it
    assert indices(loader) == indices(dataset().batches(0))
    events.load_state_dict({**dataset().state_dict(), "epoch": 4, "batch": 3})
    assert indices(loader) == indices(dataset().batches(4, start=3))
    assert indices(loader) == indices(dataset().batches(5))


@pytest.fixture
def stateful(dataset):
    """Make torchdata's loaders, which keep the states of their workers."""
    data = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def make(num_workers, **options):
        return data.StatefulDataLoader(dataset(), batch_size=None, num_workers=num_workers, **options)

    return make


def check_states(stateful, dataset, num_workers, *, every, **options):
    """Go on from states of three epochs, those between epochs included: what is left is what was left."""
    whole = [indices([batch]) for epoch in range(4) for batch in dataset().batches(epoch)]
    loader, seen, states = stateful(num_workers, **options), [], []
    for _ in range(3):
        for batch in loader:
            seen.append(indices([batch]))
            states.append((len(seen), copy.deepcopy(loader.state_dict())))
        states.append((len(seen), copy.deepcopy(loader.state_dict())))
    assert seen == whole[: len(seen)]
    for done, state in states[::every]:
        again = stateful(num_workers, **options)
        again.load_state_dict(state)
        rest = [indices([batch]) for _ in range(3) for batch in again][: len(whole) - done]
        assert rest == whole[done : done + len(rest)]
        assert len(rest) >= len(seen) / 3


@pytest.mark.long
@many_workers
@of_torchdata
@pytest.mark.parametrize(
    ("num_workers", "options"),
    [
        (0, {}),
        (2, {}),
        (3, {"persistent_workers": True, "snapshot_every_n_steps": 4}),
    ],
)
def test_a_stateful_loader_goes_on_with_every_worker_in_its_own_place(stateful, dataset, num_workers, options):
    check_states(stateful, dataset, num_workers, every=17, **options)


@many_workers
@of_torchdata
@pytest.mark.matrix
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("snapshots", [0, 1, 4])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_stateful_loader_goes_on_from_any_batch(stateful, dataset, num_workers, snapshots, persistent):
    options = {"snapshot_every_n_steps": snapshots, "persistent_workers": persistent and num_workers > 0}
    check_states(stateful, dataset, num_workers, every=5, **options)


@pytest.mark.long
@many_workers
@of_torchdata
@pytest.mark.parametrize(("before", "now"), [(2, 3), (3, 1)])
def test_states_of_other_workers_are_refused(stateful, before, now):
    loader, other = stateful(before), stateful(now)
    next(iter(loader))
    other.load_state_dict(loader.state_dict())
    # Each worker refuses its own; which of them is heard first is chance.
    words = rf"made by worker (\d) of {before} .* given to worker \1 of {now}; take num_wor"
    with pytest.raises(ResumeError, match=words):
        iter(other)


# Elsewhere


@pytest.mark.parametrize("cache", [None, "memory"])
def test_a_copy_stands_where_the_original_does_and_goes_its_own_way(samples, dataset, cache):
    events = RootDataset({"samples": samples, "split": {"train": 1.0}, **FEATURES, **ORDER}, index=True, cache=cache)
    rest = iter(events)
    first = list(islice(rest, 5))
    copies = [copy.deepcopy(events), pickle.loads(pickle.dumps(events))]
    assert_same([*first, *rest], dataset().batches(0))
    for other in copies:
        assert other.state_dict() == {**events.state_dict(), "epoch": 0, "batch": 5}
        assert other.epoch == 1  # of the next iteration, as of the original's
        loader = DataLoader(other, batch_size=None, num_workers=2)
        assert [indices(loader), indices(loader)] == [indices(dataset().batches(epoch)) for epoch in (1, 2)]
    assert events.epoch == 1


IN_ANOTHER_PROCESS = """
import pickle, sys
events = pickle.load(sys.stdin.buffer)
pickle.dump([batch["index"].tolist() for batch in events], sys.stdout.buffer)
"""


@pytest.mark.matrix
def test_another_process_reads_what_this_one_would(dataset):
    events = dataset()
    sent = pickle.dumps(events)
    result = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], input=sent, capture_output=True, check=True)
    assert pickle.loads(result.stdout) == [batch["index"].tolist() for batch in events]


@pytest.mark.matrix
def test_workers_that_are_spawned_share_the_counters(dataset):
    loader = DataLoader(dataset(), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert [indices(loader) for _ in range(3)] == [indices(dataset().batches(epoch)) for epoch in range(3)]


def test_it_says_what_it_is(dataset):
    assert repr(dataset()) == "RootDataset(train: 645 events, 21 batches of 32)"
