import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, add, lists_of, make_events, suggest, write
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rootdata.app import building
from rootdata.errors import ConfigError, DataError
from rootdata.inspection.choice import MANY, MOST_BRANCHES, MOST_COLLECTIONS, MOST_FLAT
from rootdata.inspection.files import inspect

REAL, FULL = SHARED / "real", SHARED / "tth_full"


def leaky_events(num_events=200, seed=0, process=0):
    """Make events with everything that must not become a feature."""
    rng = np.random.default_rng(seed)
    events = make_events(num_events, seed=seed)
    del events["is_signal"]
    jets = events["Jet"]
    counts = np.asarray([len(jet) for jet in jets["pt"]])
    jets["hadronFlavour"] = lists_of(rng.integers(0, 6, counts.sum()).astype(np.int32), counts)
    jets["muonIdx"] = lists_of(rng.integers(-1, 3, counts.sum()).astype(np.int32), counts)
    return events | {
        "run": np.full(num_events, 1 + process, np.uint32),
        "luminosityBlock": rng.integers(1, 40, num_events).astype(np.uint32),
        "genWeight": rng.uniform(0.5, 1.5, num_events),
        "gen_isHiggsMatched": rng.random(num_events) < 0.5,
        "GenJet": {"pt": jets["pt"] * 1.1},
        "triggerMu": rng.random(num_events) < 0.5,
        "year": np.full(num_events, 2018, np.int32),
        "setting": np.full(num_events, process, np.int32),
        "defaulted": np.where(rng.random(num_events) < 0.5, -999.0, rng.exponential(30, num_events)),
        "cov": rng.normal(size=(num_events, 3)),
    }


@pytest.fixture
def two(tmp_path):
    write(tmp_path / "ttH.root", leaky_events())
    write(tmp_path / "QCD_470.root", leaky_events(seed=1, process=1))
    return [str(tmp_path / "ttH.root"), str(tmp_path / "QCD_470.root")]


def read(suggestion):
    return OmegaConf.create({"data": OmegaConf.create(suggestion.text)})


def train_batch(suggestion, **changes):
    """Build the data module as train.py does, and take a batch."""
    config = OmegaConf.merge(read(suggestion), {"data": changes | {"batch_size": 64}})
    config.data["_target_"] = "rootdata.RootDataModule"
    data = building.build(config.data)
    data.prepare_data()
    data.setup("fit")
    return data, next(iter(data.train_dataloader()))


# Features


def test_what_would_leak_is_left_out_with_a_word_why(two):
    suggestion = suggest(inspect(two))
    data = read(suggestion).data
    assert data.flat == ["met", "nJet", "defaulted", "cov"]
    assert data.jagged == {"Jet": {"branches": ["Jet_pt", "Jet_eta"], "length": "auto"}}
    assert data.missing == [-999.0]
    left_out = " ".join(suggestion.text.split("# Left out.")[1].replace("#", " ").split())
    reasons = dict(part.rsplit(": ", 1) for part in left_out.split(" - ")[1:])
    for name, why in (
        ("gen_isHiggsMatched", "truth"),
        ("GenJet_pt", "truth"),
        ("Jet_hadronFlavour", "truth"),
        ("luminosityBlock", "identifiers"),
        ("event", "identifiers"),
        ("genWeight", "weights"),
        ("triggerMu", "trigger bits"),
        ("Jet_muonIdx", "places in other collections"),
        ("year", "constant in the entries"),
        ("setting", "it names the sample"),
    ):
        assert [why in reason for reason, names in reasons.items() if name in names.split(", ")] == [True], name
    assert "# weight: genWeight" in suggestion.text


def test_two_samples_train(two):
    data, batch = train_batch(suggest(inspect(two)))
    assert set(batch["label"].tolist()) == {0, 1}
    assert batch["x"].shape == (64, *data.shapes["x"])
    assert data.sample_names == ["ttH", "QCD_470"]
    assert bool(batch["x"].isfinite().all())


@pytest.mark.parametrize("kinds", [("RNTuple", "RNTuple"), ("TTree", "RNTuple"), ("RNTuple", "TTree")])
def test_rntuples_train_too_and_beside_trees(tmp_path, kinds):
    for i, kind in enumerate(kinds):
        write(tmp_path / f"s{i}.root", leaky_events(seed=i), kind=kind)
    suggestion = suggest(inspect([f"{tmp_path}/s0.root", f"{tmp_path}/s1.root"]))
    assert read(suggestion).data.jagged.Jet.branches == ["Jet_pt", "Jet_eta"]
    data, batch = train_batch(suggestion, cut="count(Jet_pt) >= 1")
    assert batch["x"].shape == (64, *data.shapes["x"])


def test_branches_that_are_not_everywhere_are_left_out(tmp_path):
    write(tmp_path / "a.root", make_events(60) | {"extra": np.arange(60.0) ** 2, "cov": np.ones(60)})
    write(tmp_path / "b.root", make_events(60, seed=1) | {"cov": np.ones((60, 2))})
    suggestion = suggest(inspect([f"{tmp_path}/a.root", f"{tmp_path}/b.root"]))
    assert read(suggestion).data.flat == ["met", "nJet"]
    assert "# - in 1 of 2 files only: extra" in suggestion.text
    assert "# - flat in a.root, fixed in b.root: cov" in suggestion.text
    train_batch(suggestion)


def test_nothing_to_train_on(tmp_path):
    path = write(tmp_path / "a.root", {"event": np.arange(50), "genWeight": np.arange(50.0)})
    with pytest.raises(DataError, match=r"no branch is left that could be a feature \(event: identifiers"):
        suggest(inspect([str(path)]))


def test_a_file_without_entries(tmp_path):
    path = write(tmp_path / "a.root", make_events(0))
    with pytest.raises(DataError, match="no entries"):
        suggest(inspect([str(path)]))


def many_branches(num_events, seed):
    rng = np.random.default_rng(seed)

    def collection(names, mean):
        counts = rng.poisson(mean, num_events)
        return {n: lists_of(rng.normal(size=counts.sum()), counts) for n in names}

    words = ["area", "pt", "eta", "phi", "mass", "btagDeepFlavB", *(f"thing{i}" for i in range(30))]
    objects = {g: collection(words, m) for g, m in (("Stuff", 9), ("Jet", 4), ("Muon", 2), ("Tau", 1))}
    return {f"number{i}": rng.normal(size=num_events) for i in range(30)} | {
        "MET_pt": rng.normal(size=num_events),
        **objects,
    }


def test_of_very_many_branches_the_common_ones_are_taken(tmp_path):
    for i in range(2):
        write(tmp_path / f"s{i}.root", many_branches(80, i))
    found = inspect([f"{tmp_path}/s0.root", f"{tmp_path}/s1.root"])
    assert len(found.columns) > MANY
    suggestion = suggest(found)
    data = read(suggestion).data
    assert data.flat == ["MET_pt", "nJet", "nMuon", "nTau"]
    assert list(data.jagged) == ["Jet", "Muon", "Tau"]
    assert data.jagged.Jet.branches == [f"Jet_{w}" for w in ("pt", "eta", "phi", "mass", "btagDeepFlavB")]
    assert "# - Jet, not among the common ones: Jet_area, Jet_thing0," in suggestion.text
    assert "# - further collections: Stuff_area" in suggestion.text
    train_batch(suggestion)


# Labels


def test_the_first_sample_is_signal_unless_another_is_named(two):
    first, other = suggest(inspect(two)), suggest(inspect(two), signal=["QCD_470"])
    assert [s.label for s in read(first).data.samples.values()] == [1, 0]
    assert [s.label for s in read(other).data.samples.values()] == [0, 1]
    assert "'ttH' was taken as it came first: --signal NAME" in first.notes[-1]
    assert "came first" not in other.notes[-1]
    assert first.is_complete


def test_a_signal_by_its_file(two):
    assert suggest(inspect(two), signal=["QCD_470.root"]).text == suggest(inspect(two), signal=["QCD_470"]).text


def test_a_signal_that_is_none(two):
    with pytest.raises(ConfigError, match="--signal: 'tth' is not a sample; nearest: 'ttH'"):
        suggest(inspect(two), signal=["tth"])
    with pytest.raises(ConfigError, match="no sample is left as background"):
        suggest(inspect(two), signal=["ttH", "QCD_470"])


@pytest.mark.parametrize("name", ["is_signal", "label", "y", "target", "isSignal"])
def test_one_sample_with_a_branch_that_tells(tmp_path, name):
    events = make_events(200)
    events[name] = events.pop("is_signal")
    suggestion = suggest(inspect([str(write(tmp_path / "all.root", events))]))
    data = read(suggestion).data
    assert data.label == f"{name} == 1"
    assert name not in data.flat
    _, batch = train_batch(suggestion)
    assert set(batch["label"].tolist()) == {0, 1}


def test_one_sample_without_a_label_has_to_be_completed(tmp_path):
    events = make_events(200)
    del events["is_signal"]
    suggestion = suggest(inspect([str(write(tmp_path / "all.root", events))]))
    assert not suggestion.is_complete
    assert "fill in `label`" in suggestion.notes[-1]
    assert OmegaConf.is_missing(read(suggestion).data, "label")
    _, batch = train_batch(suggestion, label="met > 40")
    assert set(batch["label"].tolist()) == {0, 1}


# Samples


def test_classes_that_are_trees_of_one_file(tmp_path):
    with uproot.recreate(tmp_path / "tmva.root") as file:
        add(file, make_events(100), tree="TreeS")
        add(file, make_events(100, seed=1), tree="TreeB")
    path = f"{tmp_path}/tmva.root"
    suggestion = suggest(inspect([f"{path}:TreeS", f"{path}:TreeB"]), signal=["TreeS"])
    samples = read(suggestion).data.samples
    assert {n: (s.tree, s.label) for n, s in samples.items()} == {"TreeS": ("TreeS", 1), "TreeB": ("TreeB", 0)}
    train_batch(suggestion)


def test_globs_folders_and_names_are_kept_below_one_folder(tmp_path):
    for name in ("in/ttH/1.root", "in/ttH/2.root", "in/bkg/q_1.root", "in/bkg/q_2.root"):
        write(tmp_path / name, make_events(50, seed=len(name)))
    suggestion = suggest(inspect([f"{tmp_path}/in/ttH", f"QCD={tmp_path}/in/bkg/q_*.root"]))
    data = read(suggestion).data
    assert data.folder == f"{tmp_path}/in"
    plain = OmegaConf.to_container(read(suggestion), resolve=False)["data"]["samples"]
    assert {n: s["files"] for n, s in plain.items()} == {
        "ttH": "${data.folder}/ttH",
        "QCD": "${data.folder}/bkg/q_*.root",
    }
    module, _ = train_batch(suggestion)
    assert len(module.specs.files) == 4
    moved = tmp_path / "moved"
    (tmp_path / "in").rename(moved)
    train_batch(suggestion, folder=str(moved))


def test_trees_of_different_names_in_one_sample(tmp_path):
    write(tmp_path / "a1.root", make_events(60), tree="Events")
    write(tmp_path / "a2.root", make_events(60, seed=1), tree="tree")
    suggestion = suggest(inspect([f"{tmp_path}/a*.root"]))
    assert len(train_batch(suggestion)[0].specs.files) == 2


def test_paths_are_found_from_any_folder(two, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    suggestion = suggest(inspect(["ttH.root", "QCD_470.root"]))
    monkeypatch.chdir("/")
    train_batch(suggestion)


@given(st.lists(st.text("ab _-.:#{}[]'\"%&*!|>yesno0,?", min_size=1), min_size=1, unique=True))
def test_any_name_survives_being_written(names):
    from rootdata.inspection.suggest import _list

    text = "\n".join(_list("flat", names, indent=2))
    assert OmegaConf.to_container(OmegaConf.create(text), resolve=False) == {"flat": names}
    assert all(len(line) < 140 for line in text.splitlines() if len(max(names, key=len)) < 20)


def test_an_awkward_name_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"yes": rng.normal(size=80), "pt#1": rng.normal(size=80), "null": rng.normal(size=80)}
    suggestion = suggest(
        inspect([f"no={write(tmp_path / 'a.root', columns)}", f"b={write(tmp_path / 'b.root', columns)}"])
    )
    data = read(suggestion).data
    assert data.flat == list(columns)
    assert list(data.samples) == ["no", "b"]


# Real files


@pytest.mark.long
@pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real files, shared/data/real, is absent")
@pytest.mark.parametrize(
    "names",
    [("ttH_M125_2017", "GJet_v11_Skim"), ("nano_tt_v12", "nano_dy"), ("nanoAOD_2015_CMS_Open_Data_ttbar", "nano_dy")],
)
def test_nanoaod_trains(names):
    suggestion = suggest(inspect([str(REAL / f"{name}.root") for name in names]))
    data = read(suggestion).data
    assert len(data.flat) <= MOST_FLAT
    assert len(data.jagged) <= MOST_COLLECTIONS
    assert all(len(c.branches) <= MOST_BRANCHES for c in data.jagged.values())
    assert {"Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"} <= set(data.jagged.Jet.branches)
    taken = [*data.flat, *(b for c in data.jagged.values() for b in c.branches)]
    assert not [
        n for n in taken if "gen" in n.lower() or "Flavour" in n or n.startswith(("HLT", "LHE", "event", "run"))
    ]
    module, batch = train_batch(suggestion)
    assert set(batch["label"].tolist()) == {0, 1}
    assert len(batch["x"]) == min(64, module.specs.num_events("train"))


@pytest.mark.skipif(not FULL.is_dir(), reason="the generated events, shared/data/tth_full, are absent")
def test_the_generated_events_keep_all_but_what_leaks():
    suggestion = suggest(inspect([str(p) for p in sorted(FULL.glob("*.root"))]), signal=["ttH"])
    data = read(suggestion).data
    left_out = {"run", "luminosityBlock", "event", "genWeight", "gen_isHiggsMatched", "HLT_PFHT_6j_2b"}
    left_out |= {"Jet_hadronFlavour", "FatJet_nBHadrons", "SubJet_fatJetIdx"}
    assert len(data.flat) + sum(len(c.branches) for c in data.jagged.values()) == 74 - len(left_out)
    assert all(name in suggestion.text for name in left_out)
