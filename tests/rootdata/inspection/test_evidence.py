"""A branch that separates the samples by itself, whatever its name, is told; an honest one in few entries is not."""

import re

import numpy as np
import pytest
from files_for_tests import lists_of, make_events, write
from hypothesis import given
from hypothesis import strategies as st

from rootdata.inspection.choice import choose_features, choose_labels
from rootdata.inspection.evidence import (
    ENOUGH,
    FEW_VALUES,
    SEPARATES,
    names_its_sample,
    separation,
    tells_apart,
    tells_label,
)
from rootdata.inspection.files import inspect
from rootdata.inspection.measure import KEPT, measure
from rootdata.io.branches import Branch
from rootdata.jagged import Jagged


def column(values, kind="flat"):
    return measure(Branch("x", kind, str(np.asarray(values).dtype)), np.asarray(values))


def by_pairs(signal, background):
    """Count what the AUC means, pair by pair."""
    wins = [(s > b) + (s == b) / 2 for s in signal for b in background]
    return sum(wins) / len(wins)


@given(
    st.lists(st.floats(-5, 5), min_size=FEW_VALUES + 1, max_size=60, unique=True),
    st.lists(st.floats(-5, 5), min_size=1, max_size=20),
)
def test_the_auc_is_the_share_of_pairs(signal, background):
    expected = by_pairs(signal, background)
    assert separation(np.array(signal), np.array(background)) == pytest.approx(expected)


def test_codes_are_ranked_by_how_often_they_come():
    rng = np.random.default_rng(0)
    signal, background = rng.choice([1, 3, 5], 500), rng.choice([2, 4], 500)
    assert separation(signal.astype(float), background.astype(float)) == 1.0
    same = rng.choice([1, 2, 3], (2, 500)).astype(float)
    assert 0.45 < separation(*same) < 0.6


@given(st.integers(0, 2**32))
def test_chance_separates_nothing(seed):
    rng = np.random.default_rng(seed)
    for values in (rng.normal(size=(2, ENOUGH)), rng.integers(0, FEW_VALUES, (2, ENOUGH)).astype(float)):
        assert 0.2 < separation(*values) < 0.8


@pytest.mark.parametrize("shift", [8.0, -8.0])
def test_what_separates_is_told_with_its_auc(shift):
    rng = np.random.default_rng(0)
    told = tells_apart([column(rng.normal(size=600) + shift), column(rng.normal(size=900))], [1, 0])
    assert told.startswith("it tells signal from background by itself (AUC ")
    assert "in 600 and 900 entries" in told


def test_a_missing_value_is_a_value():
    rng = np.random.default_rng(0)
    known, missing = rng.normal(size=400), np.full(400, np.nan)
    assert "AUC 1.000" in tells_apart([column(known), column(missing)], [1, 0])
    assert "AUC 0.000" in tells_apart([column(missing), column(known)], [1, 0])
    assert not tells_apart([column(missing), column(missing)], [1, 0])


@pytest.mark.parametrize("number", [ENOUGH - 1, ENOUGH])
def test_few_entries_prove_nothing(number):
    far = column(np.arange(number) + 1e6), column(np.arange(5_000.0))
    assert bool(tells_apart(far, [1, 0])) == (number >= ENOUGH)


def test_a_strong_honest_feature_stays():
    rng = np.random.default_rng(0)
    signal, background = column(rng.normal(2.2, 1, 5_000)), column(rng.normal(0, 1, 5_000))
    assert 0.9 < separation(signal.kept, background.kept) < SEPARATES
    assert not tells_apart([signal, background], [1, 0])


def test_a_background_that_differs_from_another_is_no_leak():
    """Bins of pT differ from each other; what counts is signal against all of them."""
    rng = np.random.default_rng(0)
    low, high, signal = (column(rng.normal(mean, 1, 800)) for mean in (0, 20, 10))
    assert not tells_apart([signal, low, high], [1, 0, 0])


def test_kept_values_are_those_of_the_same_entries():
    values = np.arange(3_000.0)
    kept = column(values).kept
    jagged = lists_of(values[::2], np.arange(3_000) % 2)
    assert len(kept) == KEPT
    assert np.array_equal(kept, column(2 * values).kept / 2)
    found = measure(Branch("x", "jagged", "float64"), Jagged.from_awkward(jagged)).kept
    assert np.array_equal(np.isnan(found), kept % 2 == 0)


def test_one_number_in_each_sample_names_it():
    def of(*values):
        return {str(i): column(np.full(50, value)) for i, value in enumerate(values)}

    assert names_its_sample(of(1, 2, 3))
    assert names_its_sample(of(1, 1, 3))
    assert not names_its_sample(of(1, 1))
    assert not names_its_sample(of(1))


# In files


def leaky(num_events, seed, is_signal):
    rng = np.random.default_rng(seed)
    events = make_events(num_events, seed=seed)
    del events["is_signal"]
    counts = np.array([len(jet) for jet in events["Jet"]["pt"]])
    codes = rng.choice([5, 21] if is_signal else [4, 1], counts.sum()).astype(np.int32)
    events["Jet"]["quirk"] = lists_of(codes, counts)
    return events | {
        "innocent": rng.normal(size=num_events) + 9 * is_signal,
        "strong": rng.normal(size=num_events) + 2 * is_signal,
        "code": rng.choice([11, 15] if is_signal else [13, 22], num_events).astype(np.int32),
    }


def offered(found):
    return set(choose_features(found, choose_labels(found)).taken)


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_leaks_without_a_name_are_left_out(tmp_path, kind):
    for name in ("signal", "background"):
        write(tmp_path / f"{name}.root", leaky(3_000, len(name), name == "signal"), kind=kind)
    found = inspect([f"{tmp_path}/signal.root", f"{tmp_path}/background.root"])
    assert offered(found) - {"nJet"} == {"met", "strong", "Jet_pt", "Jet_eta"}
    why = next(why for why, names in choose_features(found).left_out.items() if "innocent" in names)
    assert "AUC 1.000, weighted, in 1,000 and 1,000 entries" in why


def test_few_events_leave_all(tmp_path):
    for name in ("signal", "background"):
        write(tmp_path / f"{name}.root", leaky(ENOUGH - 1, len(name), name == "signal"))
    found = inspect([f"{tmp_path}/signal.root", f"{tmp_path}/background.root"])
    assert offered(found) >= {"innocent", "code", "strong"}


def test_a_label_in_the_file_is_held_against_each_branch(tmp_path):
    parts = [leaky(1_500, i, bool(i)) for i in range(2)]
    names = ("innocent", "code", "strong", "met")
    events = {n: np.concatenate([np.asarray(part[n]) for part in parts]) for n in names}
    events["is_signal"] = np.repeat([0, 1], 1_500).astype(np.int32)
    order = np.random.default_rng(0).permutation(3_000)
    found = inspect([str(write(tmp_path / "all.root", {n: values[order] for n, values in events.items()}))])
    assert offered(found) == {"strong", "met"}


# With weights


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_a_weight_counts_as_that_many_entries(seed, most):
    rng = np.random.default_rng(seed)
    signal, background = rng.normal(0.3, 1, 80), rng.integers(-2, 3, 60).astype(float)
    sizes = rng.integers(1, most + 1, 80), rng.integers(1, most + 1, 60)
    repeated = separation(np.repeat(signal, sizes[0]), np.repeat(background, sizes[1]))
    assert separation(signal, background, sizes=tuple(s.astype(float) for s in sizes)) == pytest.approx(repeated)


def test_what_tells_only_where_weights_are_is_told():
    """Of ten thousand background entries that look like signal hardly any counts."""
    rng = np.random.default_rng(0)
    signal, far, alike = rng.normal(8, 1, 900), rng.normal(0, 1, 500), rng.normal(8, 1, 400)
    background, weights = np.concatenate([far, alike]), np.concatenate([np.full(500, -2.0), np.full(400, 1e-3)])
    found, ones = [column(signal), column(background)], [column(np.ones(900)), column(weights)]
    assert not tells_apart(found, [1, 0])
    told = tells_apart(found, [1, 0], weights=ones)
    assert re.search(r"AUC 0\.99\d, weighted, in 900 and 900 entries|AUC 1\.000, weighted, in 900 and 900", told)
    label = column(np.concatenate([np.ones(900), np.zeros(900)])[:KEPT])
    both, sizes = column(np.concatenate([signal, background])[:KEPT]), column(np.ones(KEPT))
    assert tells_label(both, label, weight=sizes) == tells_label(both, label)


def test_weights_that_tell_nothing_are_left_aside():
    rng = np.random.default_rng(0)
    found = [column(rng.normal(size=600) + 9), column(rng.normal(size=600))]
    plain = tells_apart(found, [1, 0])
    one_large = np.where(np.arange(600) == 5, 1e9, 1.0)
    unknown = np.where(np.arange(600) == 5, np.nan, 2.0)
    for weights in (one_large, unknown, np.zeros(600), np.ones(300)):
        assert tells_apart(found, [1, 0], weights=[column(weights), column(np.ones(600))]) == plain
    assert tells_apart(found, [1, 0], weights=[None, column(np.ones(600))]) == plain


def test_inspect_judges_with_the_nominal_weight(tmp_path):
    rng = np.random.default_rng(0)
    weights = {"a": np.full(800, 0.5), "b": np.where(np.arange(800) < 500, 1.0, 1e-4)}
    values = {"a": rng.normal(9, 1, 800), "b": np.where(np.arange(800) < 500, 0.0, 9.0) + rng.normal(size=800)}
    taken = {}
    for name in ("genWeight", "other"):
        files = [str(write(tmp_path / name / f"{k}.root", {"x": values[k], name: weights[k]})) for k in values]
        features = choose_features(inspect(files))
        taken[name] = "x" in features.taken
    assert taken == {"genWeight": False, "other": True}
