import dataclasses
import json
import math
import threading

import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, add, epoch_of, files_below, make_events, options, scanned, with_wrong_counter, write

from rootdata.errors import BranchError, ConfigError, DataError, FileError
from rootdata.io import trees
from rootdata.location import Location
from rootdata.options.data import parse_data
from rootdata.options.parts import PARTS
from rootdata.scan import lookup, specs
from rootdata.scan.first_pass import scan
from rootdata.scan.lookup import specs_for
from rootdata.scan.progress_bar import bar
from rootdata.scan.scanned import layout_of, transforms_of
from rootdata.scan.sources import find_files

SPLIT = {"train": 0.5, "val": 0.3, "test": 0.2}
RICH = {
    "flat": ["met", "ht", "cov"],
    "derived": {"ht": "sum(Jet_pt)"},
    "scale": {"met": "robust", "Jet_pt": "log", "default": "standard"},
    "missing": [-999.0],
    "split": SPLIT,
    "label": "is_signal == 1",
}


def columns_of(num_events, seed):
    """Return the events of :func:`make_events` with missing values of every kind, and a fixed-size branch."""
    columns = make_events(num_events, seed)
    rng = np.random.default_rng([seed, 7])
    columns["met"][rng.random(num_events) < 0.1] = math.nan
    columns["met"][rng.random(num_events) < 0.1] = -999
    columns["met"][rng.random(num_events) < 0.1] = math.inf
    columns["cov"] = rng.normal(seed, 2, (num_events, 2)).astype(np.float32)
    return columns


@pytest.fixture
def several(tmp_path, small_blocks):
    """Options for four files of two samples, one of them empty, one an RNTuple, of several blocks each."""
    write(tmp_path / "a1.root", columns_of(150, 1), steps=(40, 90, 130))
    write(tmp_path / "a2.root", columns_of(0, 2))
    write(tmp_path / "a3.root", columns_of(80, 3), kind="RNTuple", steps=(33,))
    write(tmp_path / "b.root", columns_of(120, 4), steps=(50, 60))
    samples = {"a": {"files": str(tmp_path / "a*.root")}, "b": {"files": str(tmp_path / "b.root"), "cut": "ht > 50"}}
    return options("", samples=samples, **RICH)


def test_specs_do_not_depend_on_the_threads(several):
    texts = {json.dumps(scanned(several, workers=n).to_dict()) for n in (1, 2, 3, 7) for _ in range(3)}
    assert len(texts) == 1
    assert len(json.loads(texts.pop())["files"][0]["blocks"]) == 4


def test_one_pass_learns_of_each_fold_what_a_pass_for_it_alone_would(several, monkeypatch, cache_folder):
    several = {name: value for name, value in several.items() if name != "split"}
    several["jagged"] = {"jets": {"branches": several["jagged"]["jets"]["branches"], "length": 3}}
    alone = [
        scanned({**several, "split": {"by": "(is_signal + event) % 3", "val": [(fold + 1) % 3], "test": [fold]}})
        for fold in range(3)
    ]
    folds = {"count": 3, "by": "is_signal + event"}
    first = specs_for(parse_data({**several, "folds": folds, "fold": 1}))
    monkeypatch.delattr(lookup, "scan_folds")  # all are known
    found = [specs_for(parse_data({**several, "folds": folds, "fold": fold})) for fold in range(3)]
    assert found[1] == first
    for one, other in zip(found, alone, strict=True):
        assert one.columns == other.columns
        assert (one.labels, one.weights, one.multiplicity) == (other.labels, other.weights, other.multiplicity)
        assert [file.blocks for file in one.files] == [file.blocks for file in other.files]
        assert [file.before for file in one.files] == [file.before for file in other.files]
    tested = [specs.events_of("test") for specs in found]
    assert {name: sum(t[name] for t in tested) for name in tested[0]} == {
        name: sum(first.events_of(part)[name] for part in PARTS) for name in tested[0]
    }


def test_blocks_cover_every_file(several):
    for file in scanned(several).files:
        bounds = [b for block in file.blocks for b in block[:2]]
        assert bounds[::2] == [0, *bounds[1:-1:2]][: len(file.blocks)]
        assert max(bounds, default=0) == file.entries


def everything(several):
    """Read all files at once, without any of the package's reading."""
    config = parse_data(several)
    found = {"part": [], "label": [], "met": [], "ht": [], "cov": [], "pt": [], "sample": []}
    for i, location in find_files(config):
        seed = {"a1.root": 1, "a2.root": 2, "a3.root": 3, "b.root": 4}[location.path.rsplit("/", 1)[-1]]
        columns = columns_of({1: 150, 2: 0, 3: 80, 4: 120}[seed], seed)
        n = len(columns["met"])
        part = files_part(config, location, n)
        ht = ak.to_numpy(ak.sum(ak.values_astype(columns["Jet"]["pt"], "float64"), axis=1)) if n else np.zeros(0)
        keep = ht > 50 if i == 1 else np.ones(n, bool)
        for name, values in (
            ("part", part), ("label", columns["is_signal"]), ("met", columns["met"]), ("ht", ht),
            ("cov", columns["cov"]), ("pt", columns["Jet"]["pt"]), ("sample", np.full(n, i)),
        ):  # fmt: skip
            found[name].append(values[keep])
    return {name: ak.concatenate(v) if name == "pt" else np.concatenate(v) for name, v in found.items()}


def files_part(config, location, num_entries):
    from rootdata.events import split

    whole = Location(location.path, "Events")
    return split.assign(config.split, {}, location=whole, start=0, stop=num_entries, num_entries=num_entries)


def test_the_first_pass_learns_what_numpy_finds_in_the_whole(several):
    got, whole = scanned(several), everything(several)
    train = whole["part"] == 0
    assert [got.num_events(p) for p in PARTS] == np.bincount(whole["part"], minlength=3).tolist()
    for i in range(2):
        expected = [
            np.bincount(whole["label"][(whole["part"] == p) & (whole["sample"] == i)], minlength=2) for p in range(3)
        ]
        assert np.array_equal(got.labels[i], expected)
    met = whole["met"][train]
    assert got.columns["met"].nans == np.isnan(met).sum()
    assert got.columns["met"].infinities == np.isinf(met).sum()
    assert got.columns["met"].sentinels == (met == -999).sum()
    columns = {
        "met": met[np.isfinite(met) & (met != -999)],
        "ht": whole["ht"][train],
        "cov[0]": whole["cov"][train, 0],
        "cov[1]": whole["cov"][train, 1],
        "Jet_pt": ak.to_numpy(ak.flatten(whole["pt"][train])),
    }
    for name, values in columns.items():
        stats, real = got.columns[name], values.astype(np.float64)
        assert (stats.count, stats.low, stats.high) == (len(real), real.min(), real.max())
        assert stats.moments.mean == pytest.approx(real.mean(), rel=1e-12)
        assert stats.moments.std == pytest.approx(real.std(), rel=1e-12)
    logs = np.log1p(columns["Jet_pt"].astype(np.float64))
    assert got.columns["Jet_pt"].curve_moments.mean == pytest.approx(logs.mean(), rel=1e-6)
    assert got.columns["Jet_pt"].curve_moments.std == pytest.approx(logs.std(), rel=1e-6)
    for q in (0.25, 0.5, 0.75):
        exact = np.quantile(columns["met"], q, method="inverted_cdf")
        assert got.columns["met"].quantiles.at(q) == exact  # so few values are all kept
    assert got.multiplicity["jets"] == tuple(np.bincount(ak.to_numpy(ak.num(whole["pt"][train]))))


def test_statistics_come_from_training_events_alone(tmp_path):
    columns = make_events(300)
    plain = options(write(tmp_path / "a.root", columns), split={"by": "event % 3", "val": [1], "test": [2]})
    columns["met"][1::3] += 1e6
    columns["Jet"]["pt"] = ak.where(ak.Array(np.arange(300) % 3 == 2), columns["Jet"]["pt"] + 1e6, columns["Jet"]["pt"])
    other = options(write(tmp_path / "b.root", columns), split={"by": "event % 3", "val": [1], "test": [2]})
    first, second = scanned(plain), scanned(other)
    assert (first.columns, first.multiplicity, first.labels) == (second.columns, second.multiplicity, second.labels)
    assert first.columns["met"].high < 1e5


def test_counts_are_taken_after_cuts_and_before(tmp_path):
    columns = make_events(200)
    cut = "met > 40 and count(Jet_pt) >= 2"
    plain = options(write(tmp_path / "a.root", columns, steps=(90,)), cut=cut, split=SPLIT)
    got, uncut = scanned(plain), scanned(plain | {"cut": None})
    passes = (columns["met"] > 40) & (ak.to_numpy(ak.num(columns["Jet"]["pt"])) >= 2)
    assert sum(got.num_events(p) for p in PARTS) == passes.sum()
    assert got.files[0].before == uncut.files[0].before
    assert sum(got.files[0].before) == 200


def test_cuts_on_objects_are_applied_to_statistics_and_multiplicity(tmp_path):
    columns = make_events(200)
    jets = {"branches": ["Jet_eta"], "cut": "Jet_pt > 30"}
    got = scanned(options(write(tmp_path / "a.root", columns), jagged={"jets": jets}))
    kept = columns["Jet"]["eta"][columns["Jet"]["pt"] > 30]
    assert got.multiplicity["jets"] == tuple(np.bincount(ak.to_numpy(ak.num(kept))))
    assert got.columns["Jet_eta"].count == ak.sum(ak.num(kept))


def test_two_collections_of_one_branch_are_both_scaled_into_range(tmp_path):
    columns = make_events(200)
    jagged = {
        "central": {"branches": ["Jet_eta"], "cut": "abs(Jet_eta) < 1", "length": 4},
        "forward": {"branches": ["Jet_eta"], "cut": "abs(Jet_eta) >= 1", "length": 4},
    }
    plain = options(write(tmp_path / "a.root", columns), jagged=jagged, scale="minmax", layout="tokens")
    for order in (jagged, dict(reversed(jagged.items()))):
        got = epoch_of(plain | {"jagged": order})
        for name in jagged:
            values = got[name][got[f"{name}_mask"]]
            assert values.min() >= -1e-6
            assert values.max() <= 1 + 1e-6


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_a_fraction_keeps_counts_exact_and_says_that_statistics_are_estimated(several, fraction):
    whole, part = scanned(several), scanned(several | {"fraction": fraction})
    assert (whole.estimated, part.estimated) == (False, True)
    alike = [dataclasses.replace(f, digests=(), measured=()) for specs in (part, whole) for f in specs.files]
    assert alike[: len(part.files)] == alike[len(part.files) :]
    for some, every in zip(part.files, whole.files, strict=True):
        assert all(some.measured[:1])
        assert all(every.measured)
        pairs = zip(some.digests, every.digests, some.measured, strict=True)
        assert all((one == other) is is_measured for one, other, is_measured in pairs)
    assert not all(m for f in part.files for m in f.measured)
    assert part.labels == whole.labels
    assert part.flat == whole.flat
    assert 0 < part.columns["met"].count < whole.columns["met"].count
    assert 0 < sum(part.multiplicity["jets"]) < sum(whole.multiplicity["jets"])
    config = parse_data(several | {"fraction": fraction})
    assert set(transforms_of(config, part)) == set(part.columns)
    assert layout_of(config, part).flat == whole.flat


def test_a_fraction_reads_that_share_of_the_blocks(tmp_path, small_blocks):
    columns = {"met": np.arange(100, dtype=np.float32)}
    path = write(tmp_path / "a.root", columns, steps=range(1, 100))
    for fraction in (0.1, 0.25, 0.6):
        got = scanned(options(path, jagged=None, fraction=fraction))
        assert len(got.files[0].blocks) == 100
        assert 100 * fraction <= got.columns["met"].count <= 100 * fraction + 1
        assert got.columns["met"].high > 90 - 1 / fraction  # spread over the file


def test_estimated_specs_are_read_like_exact_ones(several):
    got = [epoch_of(several | {"fraction": f, "scale": "none"}) for f in (0.3, 1.0)]
    lengths = [g["x"].shape[1] for g in got]
    if lengths[0] == lengths[1]:
        assert got[0]["x"].tolist() == got[1]["x"].tolist()
    assert got[0]["index"].tolist() == got[1]["index"].tolist()


class Counter:
    def __init__(self):
        self.expected, self.advanced, self.steps, self.threads = 0, 0, 0, set()

    def expect(self, entries):
        self.expected += entries

    def advance(self, entries):
        self.advanced += entries
        self.steps += 1
        self.threads.add(threading.current_thread())


def test_progress_is_told_of_every_entry(several):
    counter = Counter()
    config = parse_data(several)
    scan(config, find_files(config), progress=counter)
    assert counter.expected == counter.advanced == 350
    assert counter.steps == 4
    assert counter.threads == {threading.main_thread()}


def test_a_bar_shows_how_far_it_is():
    with bar("first pass") as shown:
        shown.expect(100)
        shown.advance(60)
        shown.expect(50)
        (task,) = shown._display.tasks
        assert (task.description, task.completed, task.total) == ("first pass", 60, 150)
    with bar("first pass", show=False) as shown:
        assert shown is None


def test_many_files_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    for i in range(40):
        write(tmp_path / f"{i:02d}.root", {"met": np.full(3, i, np.float32)})
    got = scanned(options(tmp_path, jagged=None))
    assert [f.path.rsplit("/", 1)[-1] for f in got.files] == [f"{i:02d}.root" for i in range(40)]
    assert got.num_events("train") == 120
    opened = []
    original = uproot.open
    monkeypatch.setattr(uproot, "open", lambda path, **how: opened.append(str(path)) or original(path, **how))
    assert scanned(options(tmp_path, jagged=None)) == got
    assert len(set(opened)) == 40
    assert len(opened) <= 60  # most files are opened once


# Files and samples


def test_two_samples_may_share_a_file_where_cuts_or_trees_tell_them_apart(tmp_path):
    path = tmp_path / "tmva.root"
    with uproot.recreate(path) as file:
        add(file, make_events(30, 1), tree="TreeS")
        add(file, make_events(50, 2), tree="TreeB")
    samples = {"signal": {"files": str(path), "tree": "TreeS", "label": 1}, "background": f"{path}:TreeB"}
    samples["background"] = {"files": f"{path}:TreeB", "label": 0}
    got = scanned(options("", samples=samples))
    assert [(f.tree, f.entries, f.sample) for f in got.files] == [("TreeS", 30, 0), ("TreeB", 50, 1)]
    split_by_cut = {
        "s": {"files": f"{path}:TreeS", "cut": "is_signal == 1", "label": 1},
        "b": {"files": f"{path}:TreeS", "cut": "is_signal == 0", "label": 0},
    }
    assert scanned(options("", samples=split_by_cut)).num_events("train") == 30


@pytest.mark.parametrize("spelling", ["{0}/a.root", "{0}/./a.root", "{0}/a.root:Events", "{0}/*.root"])
def test_two_samples_with_the_same_events_are_refused(tmp_path, spelling):
    path = write(tmp_path / "a.root", make_events(5))
    samples = {"x": {"files": str(path), "label": 1}, "y": {"files": spelling.format(tmp_path), "label": 0}}
    with pytest.raises(FileError, match=r"a\.root belongs to samples 'x' and 'y'; give each of them a cut or a tree"):
        scanned(options("", samples=samples))


def test_a_file_and_its_only_tree_named_apart_count_once(tmp_path):
    path = write(tmp_path / "a.root", make_events(5))
    with pytest.raises(FileError, match=r"a\.root.* is named twice"):
        scanned(options([str(path), f"{path}:Events"]))


def test_branch_lists_may_differ_as_long_as_what_is_asked_for_is_there(tmp_path):
    a = write(tmp_path / "a.root", make_events(10) | {"only_a": np.arange(10)})
    b = write(tmp_path / "b.root", {"only_b": np.arange(10.0)} | make_events(10, 1))
    assert scanned(options([str(a), str(b)])).num_events("train") == 20
    with pytest.raises(BranchError, match=r"branch 'only_a' not found; nearest: 'only_b' \(tree 'Events', .*b\.root\)"):
        scanned(options([str(a), str(b)], flat=["only_a"]))


def test_what_one_sample_needs_need_not_be_in_another(tmp_path):
    mc = write(tmp_path / "mc.root", make_events(10) | {"gen": np.full(10, 2.0)})
    data = write(tmp_path / "data.root", make_events(10, 1))
    samples = {"mc": {"files": str(mc), "weight": "gen"}, "data": {"files": str(data)}}
    got = epoch_of(options("", samples=samples))
    assert got["weight"].tolist() == [2.0] * 10 + [1.0] * 10


def test_a_counter_that_disagrees_is_named_with_the_entry(tmp_path):
    path = with_wrong_counter(tmp_path / "a.root", [2, 5, 3, 4, 1], at=2, says=7)
    for branches in (["Jet_pt"], ["rel", "Jet_pt"]):
        plain = options(path, jagged={"jets": branches}, derived={"rel": "Jet_pt * 2"})
        with pytest.raises(
            DataError, match=r"counter 'nJet' says 7 but 'Jet_pt' has 3 objects in entry 2 of .*a\.root"
        ):
            scanned(plain)


def test_a_counter_that_is_no_branch_is_let_be(tmp_path):
    # The leaf that counts the objects of a split TClonesArray has a name of its own, `Jet_` for the branch `Jet`.
    columns = make_events(10)
    path = write(tmp_path / "a.root", columns)
    content = path.read_bytes()
    leaf = b"\x04nJet\x04nJet"  # name and title
    assert content.count(leaf) == 1
    path.write_bytes(content.replace(leaf, b"\x04Jet_\x04Jet_"))
    assert trees.open_tree(Location(str(path))).describe("Jet_pt").counter == "Jet_"
    assert epoch_of(options(path))["mask"][:, 1::2].sum() == ak.sum(ak.num(columns["Jet"]["pt"]))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
def test_a_set_of_real_files_is_the_same_however_many_threads_read_it():
    plain = options(
        str(SHARED / "tth_full"),
        flat=["HT", "MET_pt"],
        jagged={"jets": {"branches": ["Jet_pt", "Jet_eta"], "cut": "Jet_pt > 30"}},
        split=SPLIT,
    )
    one, four = (scanned(plain, workers=n) for n in (1, 4))
    assert one == four
    assert sum(sum(f.before) for f in one.files) == 30_000


def own_threads():
    """List the threads but those of fsspec, which uproot reads with: they stay for the next file."""
    return [t for t in threading.enumerate() if not t.name.startswith(("fsspecIO", "asyncio_"))]


def test_a_scan_that_fails_leaves_nothing_behind(tmp_path, cache_folder):
    write(tmp_path / "data" / "a.root", make_events(10))
    write(tmp_path / "data" / "b.root", {"met": np.zeros(3, np.float32)})
    before = files_below(tmp_path)
    threads = own_threads()
    with pytest.raises(BranchError, match="Jet_pt"):
        specs_for(parse_data(options(tmp_path / "data")), progress=False)
    assert files_below(tmp_path) == before
    assert files_below(cache_folder) == ["specs"]  # an empty folder
    assert own_threads() == threads


def test_block_sizes_are_part_of_the_fingerprint(tmp_path, monkeypatch):
    path = write(tmp_path / "a.root", make_events(10))
    first = scanned(options(path)).fingerprint
    monkeypatch.setattr(specs, "BLOCK_ENTRIES", 5)
    assert scanned(options(path)).fingerprint != first


@pytest.mark.parametrize("missing", [[1e-300], {"default": [1e-300]}, {"met": [-1e-300], "double": [1e-300]}])
def test_a_number_that_is_0_in_the_type_of_a_branch_stands_for_no_value_in_others_alone(tmp_path, missing):
    values = np.array([0.0, 1e-300, 1.0, 2.0] * 10)
    write(tmp_path / "a.root", {"met": values.astype(np.float32), "double": values})
    given = {"samples": {"a": {"files": str(tmp_path / "a.root")}}, "flat": ["met", "double"], "split": {"train": 1}}
    with pytest.raises(
        ConfigError, match=r"missing: got -?1e-300, which is 0 in float32, the type of 'met' in .*a\.root"
    ):
        scanned({**given, "missing": missing})
    columns = scanned({**given, "missing": {"double": [1e-300]}}).columns
    assert (columns["met"].sentinels, columns["double"].sentinels) == (0, 10)
