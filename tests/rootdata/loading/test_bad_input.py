"""Bad data and bad options: one error before anything is delivered, naming place and remedy; nothing is left behind."""

import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, files_below, lists_of, make_events, options, scanned, with_wrong_counter, write

from rootdata.errors import (
    BranchError,
    ConfigError,
    DataError,
    ExpressionError,
    FileError,
    RootDataError,
    SpecsError,
)
from rootdata.loading.dataset import RootDataset
from rootdata.scan.specs import VERSION, Specs

NUM_EVENTS = 40


@dataclasses.dataclass(frozen=True)
class Case:
    """Something wrong.

    Parameters
    ----------
    options : what is asked for
    error : what must be raised
    words : what the message must say: the place, the nearest names, the remedy
    prepare : makes the data bad; given the folder with ``a.root`` and ``b.root``
    """

    name: str
    error: type[RootDataError]
    words: tuple[str, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prepare: Callable[[Path], Any] = lambda folder: None


def columns_of(seed):
    """Make the events of a good file, and a branch for everything that can be wrong with one."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 3, NUM_EVENTS)
    broken = np.arange(NUM_EVENTS, dtype=np.float32)
    broken[7] = math.nan
    return make_events(NUM_EVENTS, seed) | {
        "same": np.full(NUM_EVENTS, 5, np.float32),
        "nan": np.full(NUM_EVENTS, math.nan, np.float32),
        "sentinel": np.full(NUM_EVENTS, -999, np.float32),
        "broken": broken,
        "kind": np.arange(NUM_EVENTS, dtype=np.int32) % 3,
        "half": np.full(NUM_EVENTS, 0.5, np.float32),
        "Mu": {"pt": lists_of(rng.normal(size=counts.sum()).astype(np.float32), counts)},
        "Same": {"x": lists_of(np.full(counts.sum(), 3, np.float32), counts)},
        "p4": np.arange(4 * NUM_EVENTS, dtype=np.float32).reshape(-1, 4),
        "None": {"x": lists_of(np.zeros(0, np.float32), 0 * counts)},
    }


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return [write(folder / f"{n}.root", columns_of(i)).read_bytes() for i, n in enumerate("ab")]


@pytest.fixture
def folder(tmp_path, good_files, monkeypatch):
    """A working folder with ``data/a.root`` and ``data/b.root``."""
    (tmp_path / "data").mkdir()
    for name, content in zip("ab", good_files, strict=True):
        (tmp_path / "data" / f"{name}.root").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def asked(**changes):
    return options("data/*.root") | changes


def two_samples(**second):
    return {"samples": {"one": "data/a.root", "two": {"files": "data/b.root", **second}}}


def truncate(share):
    def prepare(folder):
        content = (folder / "b.root").read_bytes()
        (folder / "b.root").write_bytes(content[: int(len(content) * share) if share < 1 else -1])

    return prepare


def overwrite(content):
    return lambda folder: (folder / "b.root").write_bytes(content)


def rewrite(**changes):
    return lambda folder: write(folder / "b.root", columns_of(1) | changes)


def other_tree(folder):
    write(folder / "b.root", columns_of(1), tree="Event")


def two_trees(folder):
    with uproot.update(folder / "b.root") as file:
        file.mktree("Runs", {"x": "int32"})


def damage(folder):
    path = write(folder / "b.root", {"met": np.arange(9000) % 91, "other": np.arange(9000)}, compression=uproot.ZLIB(9))
    with uproot.open(path) as file:
        start = file["Events/met"].basket_key(0).data_cursor.index
    content = bytearray(path.read_bytes())
    content[start + 20 : start + 120] = bytes(100)
    path.write_bytes(content)


def jets(**changes):
    return {"jagged": {"jets": {"branches": ["Jet_pt"], **changes}}}


GRID = {"x": "Jet_eta", "y": "Jet_pt", "channels": ["count"]}

FILES = [
    Case(
        "absent file",
        FileError,
        ("samples.all.files", "'data/c.root' does not exist", "nearest: 'b.root', 'a.root'", "check the path"),
        {"samples": {"all": "data/c.root"}},
    ),
    Case(
        "glob without matches",
        FileError,
        ("samples.all.files", "no file matches 'data/c*.root'", "check the pattern"),
        {"samples": {"all": "data/c*.root"}},
    ),
    Case(
        "folder without ROOT files",
        FileError,
        ("samples.all.files", "no file matches", "empty"),
        {"samples": {"all": "empty"}},
        lambda folder: (folder.parent / "empty").mkdir(),
    ),
    Case(
        "list of nothing",
        FileError,
        ("list.txt", "names no file"),
        {"samples": {"all": "list.txt"}},
        lambda folder: (folder.parent / "list.txt").touch(),
    ),
    Case(
        "not a ROOT file",
        FileError,
        ("data/b.root", "this is not a ROOT file", "replace or remove the file"),
        {},
        overwrite(b"<html>404</html>" * 99),
    ),
    Case(
        "empty file", FileError, ("data/b.root", "the file is empty", "replace or remove the file"), {}, overwrite(b"")
    ),
    *[
        Case(f"truncated at {share}", FileError, ("data/b.root", "truncated", "replace"), {}, truncate(share))
        for share in (0.1, 0.5, 0.9, 1)
    ],
    Case(
        "damaged basket",
        FileError,
        ("data/b.root", "entries 0 to 9000 of tree 'Events'", "truncated or damaged", "replace"),
        {"jagged": None},
        damage,
    ),
    Case(
        "named twice",
        FileError,
        ("data/a.root", "named twice", "name it once"),
        {"samples": {"all": ["data/a.root", "data/*.root"]}},
    ),
    Case(
        "named twice in two ways",
        FileError,
        ("a.root", "named twice", "name it once"),
        {"samples": {"all": ["data/a.root", "./data/a.root"]}},
    ),
    Case(
        "in two samples",
        FileError,
        ("data/a.root", "'one' and 'two'", "a cut or a tree of its own"),
        {"samples": {"one": "data/a.root", "two": "data/*.root"}},
    ),
    Case(
        "absent tree",
        BranchError,
        ("tree 'Evnts'", "data/a.root", "nearest: 'Events'", "check `tree`"),
        {"samples": {"all": {"files": "data", "tree": "Evnts"}}},
    ),
    Case(
        "tree absent from one file",
        BranchError,
        ("tree 'Events'", "data/b.root", "nearest: 'Event'", "check `tree`"),
        {"samples": {"all": {"files": "data", "tree": "Events"}}},
        other_tree,
    ),
    Case("several trees", BranchError, ("data/b.root", "'Events', 'Runs'", "name one with tree="), {}, two_trees),
]

BRANCHES = [
    Case(
        "misspelt flat branch",
        BranchError,
        ("'mett'", "nearest: 'met'", "'Events'", "data/a.root", "check the names"),
        {"flat": ["mett"]},
    ),
    Case(
        "misspelt jagged branch",
        BranchError,
        ("'Jet_ptt'", "nearest: 'Jet_pt'", "'Events'", "data/a.root"),
        {"jagged": {"jets": ["Jet_ptt"]}},
    ),
    Case(
        "misspelt branch in a derived column",
        BranchError,
        ("'Jet_p'", "nearest: 'Jet_pt'", "data/a.root"),
        {"flat": ["ht"], "derived": {"ht": "sum(Jet_p)"}},
    ),
    Case("misspelt branch in the cut", BranchError, ("'mett'", "nearest: 'met'"), {"cut": "mett > 1"}),
    Case(
        "misspelt branch in the cut of a sample",
        BranchError,
        ("'mett'", "nearest: 'met'", "data/b.root"),
        two_samples(cut="mett > 1"),
    ),
    Case("misspelt branch in the weight", BranchError, ("'wieght'", "nearest: 'weight'"), {"weight": "wieght"}),
    Case(
        "misspelt branch in the label", BranchError, ("'isSignal'", "nearest: 'is_signal'"), {"label": "isSignal == 1"}
    ),
    Case(
        "misspelt branch in the split",
        BranchError,
        ("'evnt'", "nearest: 'event'"),
        {"split": {"by": "evnt % 5", "val": [1]}},
    ),
    Case("misspelt branch in sort", BranchError, ("'Jet_ptt'", "nearest: 'Jet_pt'"), jets(sort="-Jet_ptt")),
    Case(
        "misspelt branch in the cut of objects",
        BranchError,
        ("'Jet_ptt'", "nearest: 'Jet_pt'"),
        jets(cut="Jet_ptt > 3"),
    ),
    Case(
        "branch absent from the second file",
        BranchError,
        ("'met'", "data/b.root", "'Events'"),
        {},
        lambda folder: write(folder / "b.root", {"MET": np.zeros(3), **make_events(3)["Jet"]}),
    ),
    Case(
        "flat in one file, jagged in the other",
        BranchError,
        ("'met'", "jagged in data/b.root", "flat in data/a.root", "leave"),
        {},
        rewrite(met=columns_of(1)["Mu"]["pt"]),
    ),
    Case(
        "fixed size in one file, flat in the other",
        BranchError,
        ("'met'", "data/b.root", "data/a.root"),
        {},
        rewrite(met=np.zeros((NUM_EVENTS, 2), np.float32)),
    ),
    Case(
        "jagged among flat features",
        BranchError,
        ("flat", "'Jet_pt' is jagged", "data/a.root", "collection", "max(Jet_pt)"),
        {"flat": ["Jet_pt"]},
    ),
    Case(
        "flat in a collection",
        DataError,
        ("jagged.jets", "'met' has one number an event", "`flat`", "data/a.root"),
        {"jagged": {"jets": ["Jet_pt", "met"]}},
    ),
    Case(
        "jagged event cut",
        DataError,
        ("cut 'Jet_pt > 30'", "a list an event", "any()", "data/a.root"),
        {"cut": "Jet_pt > 30"},
    ),
    Case("flat object cut", DataError, ("jagged.jets", "'met > 30'", "data/a.root"), jets(cut="met > 30")),
    Case(
        "sort by another collection",
        DataError,
        ("jagged.jets.sort", "'Mu_pt'", "each object", "data/a.root"),
        jets(sort="-Mu_pt"),
    ),
    Case("sort by an event variable", DataError, ("jagged.jets", "'met'", "data/a.root"), jets(sort="-met")),
    Case(
        "collections mixed",
        DataError,
        ("jagged.jets", "'Jet_pt' has", "'Mu_pt' has", "entry", "data/a.root", "into two"),
        {"jagged": {"jets": ["Jet_pt", "Mu_pt"]}},
    ),
    Case(
        "counter that disagrees",
        DataError,
        ("counter 'nJet' says 9", "'Jet_pt' has 3", "entry 2", "data/b.root", "make it anew"),
        {"jagged": {"jets": ["Jet_pt"]}},
        lambda folder: with_wrong_counter(folder / "b.root", [2, 5, 3, 4], at=2, says=9),
    ),
]

CONTENTS = [
    Case(
        "cut that selects nothing",
        DataError,
        ("sample 'all'", "none of its 80 entries in 2 files", "'met > 1e6'", "loosen"),
        {"cut": "met > 1e6"},
    ),
    Case(
        "cut that empties one sample",
        DataError,
        ("sample 'two'", "none of its 40 entries", "'met < 0'", "remove the sample"),
        two_samples(cut="met < 0"),
    ),
    Case(
        "files without events",
        DataError,
        ("sample 'two'", "none of its 0 entries"),
        two_samples(),
        lambda folder: write(folder / "b.root", make_events(0)),
    ),
    Case(
        "split with nothing in it",
        DataError,
        ("split", "'val'", "change the split"),
        {"split": {"by": "event % 5", "val": [7], "test": [1]}},
    ),
    Case(
        "training with nothing in it",
        DataError,
        ("split", "'train'"),
        {"split": {"by": "event % 2", "train": [5], "val": [0], "test": [1]}},
    ),
    Case(
        "files that no part wants", ConfigError, ("split", "data/b.root", "no part"), {"split": {"train": ["a.root"]}}
    ),
    Case(
        "files that two parts want",
        ConfigError,
        ("split", "data/a.root", "train and val"),
        {"split": {"train": ["*.root"], "val": ["a.root"]}},
    ),
    Case(
        "constant feature",
        DataError,
        ("feature 'same' is constant (5)", "remove it", "scale={'same': 'none'}"),
        {"flat": ["met", "same"], "scale": "standard"},
    ),
    Case(
        "constant feature of objects",
        DataError,
        ("feature 'Same_x' is constant (3)", "remove it"),
        {"jagged": {"s": ["Same_x"]}, "scale": "minmax"},
    ),
    Case("constant feature, robust", DataError, ("feature 'same' is constant",), {"flat": ["same"], "scale": "robust"}),
    Case("constant feature, log", DataError, ("feature 'same' is constant",), {"flat": ["same"], "scale": "log"}),
    Case(
        "feature of NaN alone",
        DataError,
        ("feature 'nan'", "no real value", "NaN", "remove it"),
        {"flat": ["met", "nan"]},
    ),
    Case(
        "feature of sentinels alone",
        DataError,
        ("feature 'sentinel'", "no real value", "80 sentinels", "`missing`"),
        {"flat": ["sentinel"], "missing": [-999]},
    ),
    Case(
        "collection without an object",
        DataError,
        ("feature 'None_x'", "no real value", "remove it"),
        {"jagged": {"none": ["None_x"]}, "scale": "standard"},
    ),
    Case(
        "cut that leaves no object",
        DataError,
        ("feature 'Jet_pt'", "no real value", "check the cuts"),
        jets(cut="Jet_pt < 0") | {"scale": "minmax"},
    ),
    Case(
        "label that is not 0 or 1",
        DataError,
        ("label 'kind' is 2", "entry 2", "data/a.root", "0 (background), 1 (signal)"),
        {"label": "kind"},
    ),
    Case("label of NaN", DataError, ("label 'broken' is", "data/a.root", "allowed: 0"), {"label": "broken"}),
    Case(
        "label of one half", DataError, ("label 'half' is 0.5", "data/a.root", "write a comparison"), {"label": "half"}
    ),
    Case("negative label", DataError, ("label '-kind' is -1", "data/a.root"), {"label": "-kind"}),
    Case(
        "label beyond three classes",
        DataError,
        ("label 'kind + 1' is 3", "2 (c)"),
        {"label": "kind + 1", "classes": ["a", "b", "c"]},
    ),
    Case("jagged label", DataError, ("label 'Jet_pt > 1'", "a list an event"), {"label": "Jet_pt > 1"}),
    Case("weight of NaN", DataError, ("weight", "entry 7", "data/a.root", "not finite", "cut"), {"weight": "broken"}),
    Case("infinite weight", DataError, ("weight", "entry 0", "data/a.root", "not finite"), {"weight": "1 / broken"}),
    Case("weight of a sample of NaN", DataError, ("weight", "entry 7", "data/b.root"), two_samples(weight="broken")),
]

OPTIONS = [
    Case("misspelt option", ConfigError, ("'jaged'", "nearest: 'jagged'"), {"jaged": {}}),
    Case("misspelt order option", ConfigError, ("'batchsize'", "nearest: 'batch_size'"), {"batchsize": 5}),
    Case(
        "misspelt option of a sample",
        ConfigError,
        ("'fils'", "samples.all", "nearest: 'files'"),
        {"samples": {"all": {"fils": "data"}}},
    ),
    Case(
        "misspelt option of a collection", ConfigError, ("'lenth'", "jagged.jets", "nearest: 'length'"), jets(lenth=3)
    ),
    Case("misspelt sample in mix", ConfigError, ("'al'", "mix", "nearest: 'all'"), {"mix": {"al": 1.0}}),
    Case("sample absent from mix", ConfigError, ("mix", "'two'"), two_samples() | {"mix": {"one": 1.0}}),
    Case("misspelt split part", ConfigError, ("'tain'", "split", "nearest: 'train'"), {"split": {"tain": 1.0}}),
    Case("misspelt layout", ConfigError, ("layout", "'token'", "nearest: 'tokens'"), {"layout": "token"}),
    Case(
        "misspelt form",
        ConfigError,
        ("jagged.jets.form", "'imag'", "nearest: 'image'"),
        jets(form="imag") | {"layout": "tokens"},
    ),
    *[
        Case(f"image: {name}", error, words, jets(form="image", image=image) | {"layout": "tokens"})
        for name, image, error, words in (
            (
                "outside",
                GRID | {"x": {"column": "Jet_eta", "range": [90, 91]}},
                DataError,
                ("jagged.jets.image", "all", "outside the grid", "Jet_eta goes from", "from 90 to 91", "other ranges"),
            ),
            ("no cells", GRID | {"x": {"column": "Jet_eta", "bins": 0}}, ConfigError, ("image.x.bins: got 0",)),
            (
                "half a turn",
                GRID | {"y": {"column": "Jet_pt", "range": [0, 3], "period": 6}},
                ConfigError,
                ("image.y.range", "no full period of 'Jet_pt' (6)", "period=0"),
            ),
            ("unknown axis", GRID | {"x": "Jet_etta"}, BranchError, ("'Jet_etta'", "Jet_eta")),
            ("an axis of one number an event", GRID | {"x": "met"}, DataError, ("jagged.jets", "'met'", "flat")),
        )
    ],
    Case(
        "image: an axis of one value",
        DataError,
        ("jagged.same.image.x", "'Same_x' goes from 3 to 3", "no axis"),
        {
            "layout": "image",
            "jagged": {"same": {"branches": ["Same_x"], "image": {"x": "Same_x", "y": "twice"}}},
            "derived": {"twice": "Same_x * 2"},
        },
    ),
    Case("misspelt scaling", ConfigError, ("scale", "'standrad'", "nearest: 'standard'"), {"scale": "standrad"}),
    Case("scale of an unknown column", ConfigError, ("'mett'", "scale", "nearest: 'met'"), {"scale": {"mett": "log"}}),
    Case(
        "no values of an unknown branch",
        ConfigError,
        ("'mett' in missing", "nearest: 'met'"),
        {"missing": {"mett": [-1], "default": [-999]}},
    ),
    Case(
        "no values of a computed column",
        ConfigError,
        ("missing.ht", "'ht' is computed", "the branches that it is computed of"),
        {"flat": ["ht"], "derived": {"ht": "sum(Jet_pt)"}, "missing": {"ht": [-1]}},
    ),
    *[
        Case(
            f"{option} of an element that there is not",
            ConfigError,
            (f"{option}.p4[7]", "'p4' has 4 numbers an event", "p4[0] to p4[3], or p4 for all of them"),
            {"flat": ["p4"], option: {"p4[7]": value, "p4[3]": value}},
        )
        for option, value in (("scale", "none"), ("pad", -1), ("clip", 3))
    ],
    Case(
        "scale of an element of a list",
        ConfigError,
        ("scale.Jet_pt[0]: 'Jet_pt' has no elements", "allowed: Jet_pt"),
        {"scale": {"Jet_pt[0]": "log"}},
    ),
    Case("shares that do not add to 1", ConfigError, ("split", "add up to 0.9"), {"split": {"train": 0.8, "val": 0.1}}),
    *[
        Case(f"length {n!r}", ConfigError, ("jagged.jets.length", repr(n), "at least 1"), jets(length=n))
        for n in (0, -3, 2.5, True, "3")
    ],
    Case(
        "derived columns in a circle",
        ConfigError,
        ("a -> b -> a", "break the cycle"),
        {"flat": ["a"], "derived": {"a": "b + 1", "b": "a * 2"}},
    ),
    Case("expression that does not parse", ExpressionError, ("cut", "met >"), {"cut": "met >"}),
    Case("unknown function", ExpressionError, ("cut", "summ", "nearest: 'sum'"), {"cut": "summ(Jet_pt) > 3"}),
    Case("no features", ConfigError, ("no features",), {"flat": None, "jagged": None}),
    Case("batch size of text", ConfigError, ("batch_size", "'100'"), {"batch_size": "100"}),
    Case("batch size of yes", ConfigError, ("batch_size", "True"), {"batch_size": True}),
    Case("one label of two", ConfigError, ("samples.one.label is missing",), two_samples(label=1)),
    Case(
        "a label beyond the classes",
        ConfigError,
        ("samples.all.label is 7", "0 (background)"),
        {"samples": {"all": {"files": "data", "label": 7}}},
    ),
]


def through_dataset(plain):
    return RootDataset(plain)


def through_datamodule(plain):
    from rootdata.loading.datamodule import RootDataModule

    module = RootDataModule(**plain)
    module.prepare_data()
    module.setup("fit")
    module.train_dataloader()
    return module


def checked(case, make, folder, cache_folder):
    case.prepare(folder)
    plain = {k: v for k, v in (asked() | dict(case.options)).items() if v is not None}
    before = files_below(folder.parent)
    with pytest.raises(case.error) as caught:
        make(plain)  # not one batch was asked for
    message = str(caught.value)
    assert [w for w in case.words if w not in message] == [], message
    assert files_below(folder.parent) == before
    for name in files_below(cache_folder):
        # what was learnt before the contradiction was seen is whole
        kind, _, file = name.partition("/")
        assert kind in {"baskets", "names.jsonl", "specs"}
        assert kind != "specs" or not file or Specs.load(cache_folder / name).version == VERSION


@pytest.mark.parametrize("case", [*FILES, *BRANCHES, *CONTENTS, *OPTIONS], ids=lambda case: case.name)
def test_one_error_before_training(case, folder, cache_folder):
    checked(case, through_dataset, folder, cache_folder)


@pytest.mark.parametrize(
    "case", [c for i, c in enumerate([*FILES, *BRANCHES, *CONTENTS]) if i % 5 == 0], ids=lambda c: c.name
)
def test_the_data_module_says_the_same(case, folder, cache_folder):
    checked(case, through_datamodule, folder, cache_folder)


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1])
def test_truncated_files_of_either_kind_are_refused(tmp_path, kind, share):
    path = write(tmp_path / "b.root", make_events(5000), kind=kind, steps=(1000, 3000), compression=uproot.ZLIB(1))
    truncate(share)(tmp_path)
    with pytest.raises(FileError, match=r"b\.root.*truncated.*replace"):
        RootDataset(options(path))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")
@pytest.mark.parametrize("name", ["nano_tt_v12", "uproot-HZZ", "rntuple_by_root"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1])
def test_truncated_files_of_root_are_refused(tmp_path, name, share):
    (tmp_path / "b.root").write_bytes((SHARED / "real" / f"{name}.root").read_bytes())
    truncate(share)(tmp_path)
    flat = {"nano_tt_v12": "MET_pt", "uproot-HZZ": "MET_px", "rntuple_by_root": "HT"}[name]
    with pytest.raises(FileError, match=r"b\.root.*truncated.*replace"):
        RootDataset(options(tmp_path / "b.root", flat=[flat], jagged=None))


# Specs that a cut, a sort or a scaling does not change are found in the cache: what is new must be checked all the same


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        (jets(sort="-Jet_ptt"), BranchError, "Jet_ptt"),
        (jets(sort="-Mu_pt"), DataError, "Mu_pt"),
        (jets(sort="-met"), DataError, "met"),
        ({"flat": ["met", "same"], "scale": "minmax"}, DataError, "same"),
    ],
    ids=str,
)
def test_an_error_is_found_although_the_specs_are_known(folder, changes, error, word):
    good = asked(**jets(), flat=changes.get("flat", ["met"]))
    RootDataset(good)
    with pytest.raises(error, match=word):
        RootDataset(good | changes)


def test_a_branch_to_sort_by_that_one_file_lacks_is_found_before_the_first_batch(folder):
    columns = columns_of(1)
    write(folder / "c.root", columns | {"Jet": columns["Jet"] | {"btag": columns["Jet"]["pt"]}})
    (folder / "a.root").unlink()  # c has the branch, b does not
    for name in ("b", "d"):
        write(folder / f"{name}.root", columns_of(ord(name)))
    RootDataset(asked(**jets()))
    with pytest.raises(BranchError, match=r"branch 'Jet_btag' not found; nearest: .*data/[bd]\.root"):
        RootDataset(asked(**jets(sort="-Jet_btag")))


# Specs that are given


def test_specs_of_other_data_are_refused(folder, tmp_path):
    specs = scanned(asked(samples={"all": "data/a.root"}))
    specs.save(tmp_path / "specs.json")
    for given in (specs, tmp_path / "specs.json", str(tmp_path / "specs.json")):
        for changes in (
            {},
            {"samples": {"all": "data/b.root"}},
            {"samples": {"other": "data/a.root"}},
            {"cut": "met > 1"},
        ):
            with pytest.raises(SpecsError, match="scan again"):
                RootDataset(asked(**changes), specs=given)


def test_specs_that_are_absent_damaged_or_of_another_version_are_refused(folder, tmp_path):
    scanned(asked()).save(tmp_path / "specs.json")
    good = (tmp_path / "specs.json").read_text()
    older = json.dumps(json.loads(good) | {"version": 0})
    for content, word in (
        (None, "can't be read"),
        (good[:99], "can't be read"),
        (older, "version 0"),
        ("{}", "version None"),
    ):
        path = tmp_path / "specs.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(SpecsError, match=rf"specs\.json.*{word}.*scan again"):
            RootDataset(asked(), specs=path)


def test_other_data_of_the_same_name_and_size_are_never_read_with_old_specs(folder):
    columns = {"met": np.arange(10, dtype=np.float32)}
    size = write(folder / "c.root", columns).stat().st_size
    plain = options("data/c.root", jagged=None, batch_size=2)
    specs = scanned({k: v for k, v in plain.items() if k != "batch_size"})
    assert write(folder / "c.root", {"met": columns["met"] + 100}).stat().st_size == size
    with pytest.raises((SpecsError, FileError), match=r"c\.root"):
        list(RootDataset(plain, specs=specs))


def test_a_file_that_changes_after_the_scan_is_refused_when_it_is_read(folder):
    dataset = RootDataset(asked())
    write(folder / "b.root", columns_of(5))
    with pytest.raises(FileError, match=r"data/b\.root.*the first pass saw.*start again"):
        list(dataset)


def test_what_length_cuts_off_is_reported(folder):
    from rich.console import Console

    from rootdata.loading.datamodule import RootDataModule

    module = RootDataModule(**asked(jagged={"jets": {"branches": ["Jet_pt"], "length": 1}}))
    module.setup("fit")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(module.summary())
    counts = np.concatenate([np.asarray([len(x) for x in columns_of(i)["Jet"]["pt"]]) for i in (0, 1)])
    dropped = 1 - (counts > 0).sum() / counts.sum()
    assert f"truncation drops {dropped:.3%} of the objects" in " ".join(console.export_text().split())


def test_an_unknown_part_is_refused(folder):
    with pytest.raises(ConfigError, match="part: got 'training'; allowed: train, val, test"):
        RootDataset(asked(), "training")
