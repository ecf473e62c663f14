"""What is taken: reconstructed objects whatever their names, the nominal weight, the unit; and of no format truth."""

import numpy as np
import pytest
from files_for_tests import lists_of, make_events, suggest, write
from omegaconf import OmegaConf
from test_words import NAMES

from rootdata.errors import ConfigError
from rootdata.inspection.choice import MANY, MOST_COLLECTIONS, choose, choose_features, choose_weight, signals_of
from rootdata.inspection.files import inspect, name_samples

EVENTS = 250


def values_of(rng, number):
    return rng.exponential(40.0, number).astype(np.float32)


def a_file(path, names, *, flat, num_events=EVENTS, seed=0):
    """Write a tree with branches of these names, of values that tell nothing."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, num_events)
    columns = {
        name: values_of(rng, num_events) if flat else lists_of(values_of(rng, counts.sum()), counts) for name in names
    }
    return write(path, columns | {"x_anchor": rng.normal(size=num_events)})


def inspected(tmp_path, names, *, flat=True, **more):
    for i, name in enumerate(("a", "b")):
        a_file(tmp_path / f"{name}.root", names, flat=flat, seed=i, **more)
    return inspect([f"{tmp_path}/a.root", f"{tmp_path}/b.root"])


# No truth, by format


@pytest.mark.parametrize("form", NAMES)
def test_of_a_file_of_each_format_the_features_are_offered_and_nothing_else(tmp_path, form):
    def plain(names):
        return [n for n in names.split() if "/" not in n and n not in {"Particle_size", "Jet_size", "Electron_size"}]

    good = plain(NAMES[form]["feature"])
    bad = [n for role, names in NAMES[form].items() if role not in {"feature", "flag"} for n in plain(names)]
    found = inspected(tmp_path, [*good, *bad], num_events=60)
    offered = {
        name
        for group in [choose_features(found)]
        for name in (*group.taken, *(n for why, ns in group.left_out.items() if "common" in why for n in ns))
    }
    called = {name: name.replace(".", "_", 1) for name in (*good, *bad)}
    assert {n for n in bad if called[n] in offered or n in offered} == set()
    assert {n for n in good if called[n] not in offered and n not in offered} == set()


def test_the_counter_of_a_truth_collection_is_truth(tmp_path):
    path = write(tmp_path / "a.root", make_events(60) | {"mcTrack": make_events(60)["Jet"]})
    features = choose_features(inspect([str(path)]))
    assert not [name for name in features.taken if "mcTrack" in name]
    assert "nJet" in features.taken


# The objects


def many(groups, words, num_events=60, seed=0):
    rng = np.random.default_rng(seed)
    columns = {}
    for group in groups:
        counts = rng.poisson(2, num_events) + (np.arange(num_events) == 0)
        columns |= {f"{group}{word}": lists_of(values_of(rng, counts.sum()), counts) for word in words}
    return columns


@pytest.mark.parametrize(
    ("groups", "others"),
    [
        (
            ["AnalysisJetsAuxDyn.", "AnalysisMuonsAuxDyn.", "AnalysisElectronsAuxDyn.", "AnalysisTauJetsAuxDyn."],
            ["MuonCalo_", "SoftStuff_", "PrimaryVerticesAuxDyn.", "egammaClusters_", "Cells_", "Towers_", "Hits_"],
        ),
        (["jet_", "lep_", "photon_", "tau_", "largeRjet_"], ["hit_", "cell_", "tower_", "digi_", "strip_", "pixel_"]),
        (["Jets_", "JetsAK8_", "Muons_", "Electrons_"], ["Cluster_", "Strip_", "Cell_", "Rechit_", "Tower_", "Seed_"]),
    ],
)
def test_common_objects_are_known_by_words_inside_their_names(tmp_path, groups, others):
    words = ("pt", "eta", "phi", "m", *(f"thing{i}" for i in range(12)))
    path = write(tmp_path / "a.root", many([*others, *groups], words))
    features = choose_features(inspect([str(path)]))
    assert len([n for names in features.left_out.values() for n in names]) > MANY
    taken = {name for name in features.taken if not name.startswith("n")}
    assert {n for n in taken if not any(n.startswith(g) for g in groups)} <= {"x_anchor"}
    assert all(any(n.startswith(f"{g}{w}") for n in taken) for g in groups for w in ("pt", "eta", "phi", "m"))


def test_collections_without_kinematics_take_no_place(tmp_path):
    """Six are taken: those that have something to take, whatever comes before them."""
    empty = many([f"Jet{letter}_" for letter in "ABCDEFG"], [f"thing{i}" for i in range(12)])
    full = many(["Muon_", "Tau_"], ["pt", "eta", "phi", *(f"thing{i}" for i in range(12))], seed=1)
    features = choose_features(inspect([str(write(tmp_path / "a.root", empty | full))]))
    assert set(features.collections) == {"Muon", "Tau"}
    assert len(features.collections) <= MOST_COLLECTIONS


def test_flat_branches_of_a_decay_are_taken_by_what_is_said_of_its_particles(tmp_path):
    rng = np.random.default_rng(0)
    words = ("PT", "ETA", "IPCHI2_OWNPV", "M", "quirk", *(f"thing{i}" for i in range(30)))
    columns = {f"{p}_{w}": values_of(rng, 60) for p in ("B0", "Kplus", "muminus", "muplus") for w in words}
    features = choose_features(inspect([str(write(tmp_path / "a.root", columns))]))
    assert {"B0_PT", "Kplus_PT", "muplus_ETA", "B0_M"} <= set(features.flat)
    assert not [name for name in features.flat if "thing" in name or "quirk" in name]


def test_working_points_and_bits_are_left_out_and_what_they_are_cut_from_stays(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (EVENTS, 6))
    columns = {
        "Muon_tightId": bits[:, 0].astype(bool),
        "Electron_mvaIso_WP80": bits[:, 1].astype(bool),
        "Jet_jetId": bits[:, 2].astype(np.uint8) * 6,
        "lep_isTightID": bits[:, 3].astype(bool),
        "Electron_cutBased": bits[:, 4].astype(np.uint8),
        "Electron_mvaIso": rng.uniform(-1, 1, EVENTS),
        "Jet_charge": bits[:, 5].astype(np.int32),
        "muplus_isMuon": bits[:, 5].astype(bool),
    }
    features = choose_features(inspect([str(write(tmp_path / "a.root", columns))]))
    assert set(features.flat) == {"Electron_mvaIso", "Jet_charge", "muplus_isMuon"}


def test_variations_are_left_out_where_both_directions_are_there(tmp_path):
    names = ["MET_pt", "MET_ptJESUp", "MET_ptJESDown", "track_goingUp"]
    features = choose_features(inspected(tmp_path, names))
    assert {"MET_pt", "track_goingUp", "x_anchor"} == set(features.flat)
    assert any("variations" in why for why in features.left_out)


def test_few_entries_are_called_few(tmp_path):
    features = choose_features(inspect([str(a_file(tmp_path / "a.root", ["MET_pt"], flat=True, num_events=10))]))
    assert features.left_out["only 10 entries"] == ("MET_pt", "x_anchor")


# Weights


@pytest.mark.parametrize(
    ("names", "nominal"),
    [
        (["puWeightDown", "puWeight", "genWeight"], "genWeight"),
        (["L1PreFiringWeight_Dn", "L1PreFiringWeight_Nom", "btagWeight_CSVV2", "genWeight"], "genWeight"),
        (["weight_down", "weight_up", "weight"], "weight"),
        (["weight_down", "weight_up", "weight_nominal"], "weight_nominal"),
        (["scaleFactor_PILEUP", "mcWeight"], "mcWeight"),
        (["LHEWeight_originalXWGTUP", "Generator_weight"], "Generator_weight"),
        (["puSysDown", "puSysUp", "Weight"], "Weight"),
        (["Event.Weight", "Event.CrossSection"], "Event.Weight"),
        (["EventHeader.weight"], "EventHeader.weight"),
        (["puWeightDown", "puWeightUp"], None),
        (["L1PreFiringWeight_Dn"], None),
        (["scaleFactor_ELE", "xsec"], None),
        (["MET_pt"], None),
    ],
)
def test_the_nominal_weight_or_none(tmp_path, names, nominal):
    found = inspected(tmp_path, names, num_events=60)
    weight = choose_weight(found)
    assert (weight and weight.name) == nominal
    text = suggest(found).text
    assert (f"# weight: {nominal} # Σw = " in text) == (nominal is not None)
    if nominal is None and names != ["MET_pt"]:
        assert "no weight is the nominal one for certain" in text


def test_of_a_list_of_weights_the_first_one_is_the_nominal(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(1, 1, 600)
    columns = {"mcEventWeights": lists_of(weights, np.full(200, 3)), "x": rng.normal(size=200)}
    found = inspect([str(write(tmp_path / "a.root", columns))])
    weight = choose_weight(found)
    assert (weight.name, weight.entries) == ("mcEventWeights[0]", 200)
    assert weight.total == pytest.approx(weights[::3].sum())
    assert weight.negative == np.mean(weights[::3] < 0)
    assert "mcEventWeights" not in choose_features(found).taken


def test_the_weight_says_its_sum_and_its_negative_share(tmp_path):
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(400) < 0.25, -2.0, 3.0)
    path = write(tmp_path / "a.root", {"genWeight": weights, "x": rng.normal(size=400)})
    weight = choose_weight(inspect([str(path)]))
    assert (weight.total, weight.entries) == (pytest.approx(weights.sum()), 400)
    assert weight.negative == np.mean(weights < 0)
    assert f"Σw = {weights.sum():.6g} of 400 entries, {np.mean(weights < 0):.1%} of them negative" in str(weight)


# Units and values that stand for none


@pytest.mark.parametrize("unit", [1.0, 1000.0])
@pytest.mark.parametrize(
    "names",
    [
        {"jet_pt": 60, "jet_m": 9, "lep_E": 80, "met_et": 40, "jet_eta": 0.002, "HT": 700},
        {"HT": 1_500, "fj_pt": 700, "MET_pt": 50, "m_jj": 2_500},  # boosted
        {"B0_M": 5.28, "B0_PT": 6, "Kplus_PT": 1.2, "Kplus_P": 21, "muplus_PT": 1.6, "B0_ETA": 0.003},
    ],
)
def test_energies_in_mev_are_noted(tmp_path, unit, names):
    rng = np.random.default_rng(0)
    columns = {name: rng.exponential(mean * unit, 80) for name, mean in names.items()}
    chosen = choose(inspect([str(write(tmp_path / "a.root", columns))]))
    assert chosen.is_in_mev == (unit > 1)
    assert bool([note for note in chosen.notes if "MeV" in note]) == (unit > 1)


def test_a_cut_is_proposed_in_the_unit_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, 60)
    columns = {f"jet_{w}": lists_of(rng.exponential(6e4, counts.sum()), counts) for w in ("pt", "m", "E")}
    assert "# cut: jet_pt > 30000 # in MeV" in suggest(inspect([str(write(tmp_path / "a.root", columns))])).text


def test_values_that_may_stand_for_none_are_proposed_with_counts_and_not_put_in(tmp_path):
    rng = np.random.default_rng(0)
    holes = rng.random(400) < 0.1
    columns = {
        "btag": np.where(holes, -1.0, rng.uniform(0.02, 1, 400)),
        "mass": np.where(holes, -999.0, rng.exponential(80, 400)),
        "angle": rng.uniform(-3, 3, 400),
    }
    text = suggest(inspect([str(write(tmp_path / "a.root", columns))])).text
    number = int(holes.sum())
    assert f"# - -999.0: mass ({number} of 400)" in text
    assert f"# - -1: btag ({number} of 400); but a value of angle" in text
    assert OmegaConf.create(text).missing == [-999.0]
    assert "# missing: [" not in text


def test_a_value_that_no_other_feature_has_stands_ready_as_missing(tmp_path):
    rng = np.random.default_rng(0)
    holes = rng.random(400) < 0.1
    columns = {
        "btag": np.where(holes, -1.0, rng.uniform(0.02, 1, 400)),
        "mass": np.where(holes, -999.0, rng.exponential(80, 400)),
    }
    text = suggest(inspect([str(write(tmp_path / "a.root", columns))])).text
    assert "# missing: [-999.0, -1.0]" in text
    assert OmegaConf.create(text).missing == [-999.0]


# Signals, before any file is read


def test_a_misspelt_signal_is_told_from_the_arguments_alone(tmp_path):
    samples = name_samples([f"{tmp_path}/ttH.root", f"QCD={tmp_path}/absent*.root", f"{tmp_path}/c.root:tree"])
    assert [s.name for s in samples] == ["ttH", "QCD", "c"]
    assert signals_of(["ttH.root", "QCD"], samples) == ["ttH", "QCD"]
    with pytest.raises(ConfigError, match="--signal: 'tth' is not a sample; nearest: 'ttH'"):
        signals_of(["tth"], samples)
    with pytest.raises(ConfigError, match="no sample is left as background"):
        signals_of(["ttH", "QCD", "c"], samples)


# Labels


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["is_signal"], "is_signal == 1"),
        (["label_top", "label"], "label == 1"),
        (["B0_isSignal"], "B0_isSignal == 1"),
        (["label_QCD", "label_Hbb"], "???"),  # of several classes nobody but the user knows which is signal
        (["met"], "???"),
    ],
)
def test_a_branch_is_the_label_where_one_alone_looks_like_it(tmp_path, names, label):
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 2, 60).astype(np.int32) for name in names} | {"x": rng.normal(size=60)}
    chosen = choose(inspect([str(write(tmp_path / "a.root", columns))]))
    assert chosen.labels.expression == label
    assert set(chosen.features.taken) == {"x"} | ({"met"} & set(names))
    assert all(name in chosen.labels.note for name in names if label == "???" and name != "met")


# Of formats with hundreds of branches


def test_of_candidates_their_decay_is_taken_before_their_momenta(tmp_path):
    said = ["M", "PX", "PY", "PZ", "PE", "PT", "ETA", "IPCHI2_OWNPV", "ORIVX_X", "ORIVX_Y", "OWNPV_X", "TRACK_CHI2NDOF"]
    names = [f"{particle}_{word}" for particle in ("B0", "D0", "Kplus", "piminus", "piplus") for word in said]
    names += [f"B0_{word}" for word in ("FDCHI2_OWNPV", "DIRA_OWNPV", "ENDVERTEX_CHI2")]
    names += [f"Kplus_{n}" for n in range(MANY)]
    flat = choose_features(inspected(tmp_path, names, num_events=60)).flat
    assert {"B0_PT", "Kplus_IPCHI2_OWNPV", "B0_FDCHI2_OWNPV", "B0_DIRA_OWNPV", "B0_ENDVERTEX_CHI2"} <= set(flat)
    assert not [name for name in flat if name.endswith(("_M", "_PX", "_PY", "_PZ", "_X", "_Y"))]


def test_a_cosine_close_to_one_is_no_constant_and_a_mass_within_rounding_is(tmp_path):
    rng = np.random.default_rng(0)
    cosine, mass = 1 - rng.exponential(1e-4, EVENTS), 105.66 * (1 + rng.normal(0, 1e-5, EVENTS))
    columns = {"B0_DIRA_OWNPV": np.clip(cosine, 0.9991, 1), "mu_M": mass, "one": np.ones(EVENTS)}
    features = choose_features(inspect([str(write(tmp_path / "a.root", columns))]))
    assert features.flat == ("B0_DIRA_OWNPV",)


def test_upstream_is_no_variation_of_downstream_but_up_is_of_down(tmp_path):
    names = ["NumUpstreamTracks", "NumDownstreamTracks", "MET_ptJESUp", "MET_ptJESDown", "pt_up_1", "pt_down_1"]
    assert choose_features(inspected(tmp_path, names, num_events=60)).flat == (*names[:2], "x_anchor")


def test_members_of_vectors_of_root_are_known_by_what_they_say(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 5, EVENTS)
    said = [f"Jets.fCoordinates.f{word}" for word in ("Pt", "Eta", "Phi", "E")]
    names = [*said, *(f"Jets.detail{n}" for n in range(MANY))]
    write(tmp_path / "a.root", {name: lists_of(values_of(rng, counts.sum()), counts) for name in names})
    (taken,) = choose_features(inspect([str(tmp_path / "a.root")])).collections.values()
    assert list(taken) == said


def test_where_no_name_is_common_the_first_branches_are_taken(tmp_path):
    names = [f"Blob_q{n}x" for n in range(MANY + 5)]
    features = choose_features(inspected(tmp_path, names, flat=False, num_events=60))
    assert 0 < len(features.collections["Blob"]) <= 8


def test_missing_energy_that_is_a_list_is_among_the_common_collections(tmp_path):
    names = ["MissingET.MET", "MissingET.Phi", "Jet.PT", *(f"Tower.detail{n}" for n in range(MANY))]
    features = choose_features(inspected(tmp_path, names, flat=False, num_events=60))
    assert {"MissingET.MET", "MissingET.Phi", "Jet.PT"} <= set(features.taken)
