import math

import awkward as ak
import numpy as np
import pytest
from files_for_tests import branches, lists_of, make_events
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import BranchError, ConfigError, DataError
from rootdata.events.evaluation import Block
from rootdata.events.needs import flat_features, needed_branches
from rootdata.events.selection import select
from rootdata.io.branches import Branch
from rootdata.jagged import Jagged
from rootdata.location import Location
from rootdata.missing import find_missing
from rootdata.options.data import parse_data
from rootdata.options.parts import PARTS

WHERE = Location("dir/some.root", "Events")


def config_of(**changes):
    plain = {"samples": {"all": "some.root"}, "flat": ["met"], "split": {"train": 1.0}}
    return parse_data({k: v for k, v in (plain | changes).items() if v is not None})


def select_from(columns, *, start=0, num_entries=None, part=None, **changes):
    config = config_of(**changes)
    raw = branches(columns)
    n = len(next(iter(raw.values())))
    block = Block(location=WHERE, start=start, stop=start + n, num_entries=num_entries or start + n)
    return select(config, config.samples[0], raw, block=block, part=part)


def listed(objects, name):
    counts = np.diff(objects.offsets)
    return ak.unflatten(objects.columns[name], counts).tolist()


# What is read


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["met"]),
        ({"flat": ["met", "ht"], "derived": {"ht": "sum(Jet_pt)"}}, ["met", "Jet_pt"]),
        ({"flat": ["b"], "derived": {"b": "a + x", "a": "y * 2"}}, ["y", "x"]),
        ({"flat": ["met"], "derived": {"met": "met / 1000"}}, ["met"]),
        ({"flat": ["met"], "derived": {"met": "met / ht", "ht": "sum(Jet_pt)"}}, ["Jet_pt", "met"]),
        ({"cut": "nJet >= 2 and met > 1"}, ["met", "nJet"]),
        ({"label": "is_signal == 1", "weight": "gen * pu"}, ["met", "is_signal", "gen", "pu"]),
        ({"weight": 2.0}, ["met"]),
        ({"split": {"by": "event % 5", "val": [1]}}, ["met", "event"]),
        ({"samples": {"all": {"files": "a", "cut": "run > 3", "weight": "sf"}}}, ["met", "run", "sf"]),
        (
            {"flat": None, "jagged": {"jets": {"branches": ["pt", "eta"], "sort": "-btag", "cut": "id > 0"}}},
            ["pt", "eta", "id", "btag"],
        ),
        ({"derived": {"unused": "other"}}, ["met"]),
    ],
)
def test_only_what_is_needed_is_read(changes, expected):
    config = config_of(**changes)
    assert list(needed_branches(config, config.samples[0])) == expected


def test_what_a_sample_needs_alone_is_read_for_it_alone():
    config = config_of(samples={"mc": {"files": "a", "weight": "gen"}, "data": {"files": "b", "cut": "good"}})
    assert [needed_branches(config, s) for s in config.samples] == [("met", "gen"), ("met", "good")]


@pytest.mark.parametrize(
    ("derived", "cycle"),
    [
        ({"a": "b", "b": "a"}, "a -> b -> a"),
        ({"a": "b + x", "b": "c * 2", "c": "sqrt(a)"}, "a -> b -> c -> a"),
        ({"a": "b", "b": "c", "c": "b"}, "b -> c -> b"),
    ],
)
def test_derived_columns_that_need_each_other_are_refused(derived, cycle):
    config = config_of(flat=["a"], derived=derived)
    with pytest.raises(ConfigError, match=f"derived columns depend on each other: {cycle}; break the cycle"):
        needed_branches(config, config.samples[0])


def test_a_fixed_size_branch_is_one_feature_an_element():
    known = {"cov": Branch("cov", "fixed", "float32", width=3), "met": Branch("met", "flat", "float32")}
    config = config_of(flat=["met", "cov", "new"], derived={"new": "met * 2"})
    assert flat_features(config, known) == ("met", "cov[0]", "cov[1]", "cov[2]", "new")


def test_a_jagged_branch_is_no_flat_feature():
    known = {"Jet_pt": Branch("Jet_pt", "jagged", "float32")}
    with pytest.raises(BranchError, match=r"flat: 'Jet_pt' is jagged.*; put it into a collection.*max\(Jet_pt\)"):
        flat_features(config_of(flat=["Jet_pt"]), known)


# What is selected


@given(st.integers(0, 30), st.integers(0, 50))
def test_events_that_pass_are_those_of_numpy(num_events, start):
    columns = make_events(num_events, seed=1)
    got = select_from(
        columns,
        start=start,
        flat=["met", "ht"],
        derived={"ht": "sum(Jet_pt)", "nJ": "count(Jet_pt)"},
        cut="met > 20 and ht > 30",
        label="is_signal == 1",
        weight="weight",
        samples={"all": {"files": "a", "cut": "nJ < 4", "weight": 2.0}},
        jagged={"jets": ["Jet_pt", "Jet_eta"]},
    )
    pt = columns["Jet"]["pt"]
    ht = ak.to_numpy(ak.sum(ak.values_astype(pt, np.float64), axis=1))
    keep = (columns["met"] > 20) & (ht > 30) & (ak.to_numpy(ak.num(pt)) < 4)
    assert got.entry.tolist() == (np.flatnonzero(keep) + start).tolist()
    assert got.label.tolist() == columns["is_signal"][keep].tolist()
    np.testing.assert_allclose(got.weight, 2 * columns["weight"][keep], rtol=1e-7)
    assert got.flat["met"].tolist() == columns["met"][keep].tolist()
    np.testing.assert_allclose(got.flat["ht"], ht[keep], rtol=1e-6)
    assert listed(got.objects["jets"], "Jet_pt") == pt[keep].tolist()
    assert listed(got.objects["jets"], "Jet_eta") == columns["Jet"]["eta"][keep].tolist()
    assert got.before.tolist() == [num_events, 0, 0]
    assert (got.entry.dtype, got.label.dtype, got.weight.dtype) == (np.int64, np.int64, np.float32)


@pytest.mark.parametrize("by", ["hash", "entries"])
def test_parts_are_disjoint_and_complete_and_cuts_do_not_move_them(by):
    columns = make_events(200)
    split = {"by": by, "train": 0.5, "val": 0.3, "test": 0.2}
    whole = select_from(columns, split=split)
    parts = [select_from(columns, split=split, part=i) for i in range(3)]
    assert sorted(e for p in parts for e in p.entry) == list(range(200))
    for i, part in enumerate(parts):
        assert part.entry.tolist() == whole.entry[whole.part == i].tolist()
        assert set(part.part) == {i}
        after = select_from(columns, split=split, part=i, cut="met > 50")
        assert after.entry.tolist() == [e for e in part.entry if columns["met"][e] > 50]
        assert after.before.tolist() == whole.before.tolist() == np.bincount(whole.part, minlength=3).tolist()


def test_events_that_no_part_wants_are_left_out_everywhere():
    columns = make_events(50)
    split = {"by": "event % 5", "train": [0, 1], "val": [2], "test": [3]}
    whole = select_from(columns, split=split)
    assert whole.entry.tolist() == [e for e in range(50) if e % 5 != 4]
    assert [PARTS[p] for p in whole.part[:4]] == ["train", "train", "val", "test"]
    assert whole.before.tolist() == [20, 10, 10]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_identifiers_stay_exact_in_cuts_splits_and_derived_columns(dtype):
    ids = (np.arange(14, dtype=dtype) + np.array(2**62 + 1, dtype)).astype(dtype)
    columns = {"met": np.arange(14, dtype=np.float32), "event": ids}
    assert select_from(columns, cut=f"event == {int(ids[5])}").entry.tolist() == [5]
    assert select_from(columns, cut=f"event > {int(ids[5])}").entry.tolist() == list(range(6, 14))
    split = {"by": "event % 7", "val": [int(ids[3]) % 7], "test": [int(ids[4]) % 7]}
    assert select_from(columns, split=split).part.tolist() == [{3: 1, 4: 2}.get(i % 7, 0) for i in range(14)]
    got = select_from(columns, flat=["event", "fold"], derived={"fold": "event // 2 % 5"})
    assert got.flat["event"].tolist() == ids.tolist()
    assert got.flat["fold"].tolist() == [int(i) // 2 % 5 for i in ids]


def test_entries_count_from_the_start_of_the_file():
    got = select_from(make_events(10), start=5_000_000_000, cut="met > 20")
    assert got.entry.min() >= 5_000_000_000


def test_a_fixed_size_branch_can_be_cut_on_and_spread():
    cov = np.arange(12, dtype=np.float32).reshape(4, 3)
    columns = {"met": np.zeros(4, np.float32), "cov": cov}
    got = select_from(columns, flat=["cov", "last"], derived={"last": "cov[2]"}, cut="cov[0] > 2 and sum(cov) < 30")
    assert got.entry.tolist() == [1, 2]
    assert {n: v.tolist() for n, v in got.flat.items()} == {
        "cov[0]": [3, 6], "cov[1]": [4, 7], "cov[2]": [5, 8], "last": [5, 8]
    }  # fmt: skip
    objects = select_from(columns, flat=None, jagged={"c": {"branches": ["cov"], "cut": "cov > 4"}}).objects["c"]
    assert listed(objects, "cov") == [[], [5], [6, 7, 8], [9, 10, 11]]


# Objects

object_lists = st.lists(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan]), st.integers(0, 3)), max_size=5), max_size=8
)


def plain_objects(rows, *, cut, sort):
    """Do it one event at a time: keep, then order, ties in file order, missing keys last."""
    kept = []
    for row in rows:
        objects = [(key, i) for i, (key, quality) in enumerate(row) if cut is None or quality >= cut]
        if sort is not None:
            sign = -1.0 if sort.startswith("-") else 1.0
            objects.sort(key=lambda o: (math.isnan(o[0]), 0.0 if math.isnan(o[0]) else sign * o[0]))
        kept.append([i for _, i in objects])
    return kept


@given(rows=object_lists, cut=st.none() | st.integers(0, 4), sort=st.sampled_from([None, "key", "-key", "-(key + 1)"]))
def test_objects_are_cut_then_ordered_with_ties_in_file_order(rows, cut, sort):
    counts = np.array([len(r) for r in rows], np.int64)
    key, quality = (np.array([o[i] for r in rows for o in r], np.float32) for i in (0, 1))
    number = np.concatenate([np.arange(n) for n in [*counts, 0]])
    columns = {
        "met": np.zeros(len(rows), np.float32),
        "key": lists_of(key, counts),
        "quality": lists_of(quality.astype(np.int32), counts),
        "number": lists_of(number.astype(np.int32), counts),
    }
    options = {"branches": ["number", "quality"], "sort": sort, "cut": None if cut is None else f"quality >= {cut}"}
    objects = select_from(columns, jagged={"o": {k: v for k, v in options.items() if v is not None}}).objects["o"]
    expected = plain_objects(rows, cut=cut, sort=sort)
    assert listed(objects, "number") == expected
    assert listed(objects, "quality") == [[r[i][1] for i in e] for r, e in zip(rows, expected, strict=True)]


def test_an_event_without_objects_is_still_an_event():
    columns = make_events(20)
    got = select_from(columns, jagged={"jets": {"branches": ["Jet_pt"], "cut": "Jet_pt > 1e9"}})
    assert len(got) == 20
    assert got.objects["jets"].offsets.tolist() == [0] * 21


def test_cuts_on_objects_leave_derived_event_columns_alone():
    columns = make_events(20)
    got = select_from(
        columns,
        flat=["n"],
        derived={"n": "count(Jet_pt)"},
        jagged={"jets": {"branches": ["Jet_pt"], "cut": "Jet_pt > 40"}},
    )
    assert got.flat["n"].tolist() == ak.num(columns["Jet"]["pt"]).tolist()


def test_derived_columns_can_be_features_of_objects():
    columns = make_events(20)
    derived = {"Jet_px": "Jet_pt * cos(Jet_eta)", "rel": "Jet_pt / max(Jet_pt)"}
    got = select_from(columns, derived=derived, jagged={"jets": ["Jet_px", "rel", "Jet_pt"]}).objects["jets"]
    pt, eta = columns["Jet"]["pt"], columns["Jet"]["eta"]
    np.testing.assert_allclose(got.columns["Jet_px"], ak.flatten(pt * np.cos(eta)), rtol=1e-5)
    np.testing.assert_allclose(got.columns["rel"], ak.flatten(pt / ak.max(pt, axis=1)), rtol=1e-5)


# What is missing


JETS = Jagged(np.array([0, 2, 2, 3]), np.array([40.0, -999.0, 25.0], np.float32))


def with_sentinels(**more):
    """Four kinds of numbers with a sentinel in the second event, and jets."""
    flat = {"met": np.array([1.0, -999.0, -3.0], np.float32), "n": np.array([3, -999, 5])}
    return flat | {"d": np.array([1.0, -999.0, math.inf]), "one": np.ones(3, np.int32), "Jet_pt": JETS} | more


@pytest.mark.parametrize(
    ("cut", "entries"),
    [
        ("met < 0", [2]), ("met != 1", [2]), ("not met < 0", [0]), ("met == -999", []), ("isnan(met)", [1]),
        ("n < 4", [0]), ("n != 3", [2]), ("n % 2 == 1", [0, 2]), ("isnan(n)", [1]), ("isfinite(d)", [0]),
        ("Jet_pt[0] > 30", [0]), ("not Jet_pt[0] > 30", [2]), ("not any(Jet_pt > 30)", [1, 2]),
        ("max(Jet_pt) < 30 or one == 1", [0, 1, 2]), ("max(Jet_pt) < 30 and one == 1", [2]),
        ("(min(Jet_pt) < 0) | (d > 0)", [0]), ("1 / (one - 1) > 0", []), ("deltaphi(met, 0) < 0", [2]),
    ],
)  # fmt: skip
def test_a_cut_selects_what_is_true(cut, entries):
    columns = with_sentinels()
    assert select_from(columns, missing=[-999], cut=cut).entry.tolist() == entries
    assert select_from(columns, missing=[-999], samples={"all": {"files": "a", "cut": cut}}).entry.tolist() == entries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("met * 2", [2.0, None, -6.0]), ("met / 1000", [np.float32(0.001), None, np.float32(-0.003)]),
        ("n + 1", [4, None, 6]), ("n % (n - 3)", [None, None, 1]), ("n ** 2", [9, None, 25]),
        ("-d", [-1.0, None, None]),
        ("min(Jet_pt)", [40.0, None, 25.0]), ("count(Jet_pt)", [1, 0, 1]), ("count(isnan(Jet_pt))", [2, 0, 1]),
        ("sum(Jet_pt)", [40.0, 0.0, 25.0]), ("Jet_pt[1]", [None, None, None]), ("argmin(Jet_pt)", [0, None, 0]),
        ("at(Jet_pt, 1, fill=-1)", [-1.0, -1.0, -1.0]), ("sort(Jet_pt)[0]", [40.0, None, 25.0]),
        ("where(isnan(n), 0, n)", [3, 0, 5]), ("n if met > 0 else -n", [3, None, -5]),
        ("mean(Jet_pt)", [40.0, None, 25.0]),
    ],
)  # fmt: skip
def test_what_is_computed_of_the_missing_is_missing(text, expected):
    got = select_from(with_sentinels(), missing=[-999], flat=["x"], derived={"x": text}).flat["x"]
    gone = find_missing(got)
    marks = [False] * len(expected) if gone is None else gone.tolist()
    assert [None if is_gone else v for v, is_gone in zip(got.tolist(), marks, strict=True)] == expected
    # the same name for the branch and what is made of it
    if "met" in text:
        again = select_from(with_sentinels(), missing=[-999], flat=["met"], derived={"met": text}).flat["met"]
        assert find_missing(again).tolist() == [v is None for v in expected]


def test_a_computed_number_that_equals_a_sentinel_is_a_number():
    got = select_from(with_sentinels(), missing=[-999], flat=["x", "y"], derived={"x": "n - 1002", "y": "met - 1000"})
    assert got.flat["x"].tolist() == [-999, None, -997]
    assert np.isnan(got.flat["y"]).tolist() == [False, True, False]
    assert got.flat["y"][0] == -999


def test_branches_keep_what_was_read_beside_the_mask():
    columns = with_sentinels(cov=np.array([[1, 2], [-999, 4], [5, -999]]))
    got = select_from(columns, missing=[-999], flat=["met", "n", "cov"], jagged={"jets": ["Jet_pt"]})
    assert got.flat["met"].tolist() == [1.0, None, -3.0]
    assert got.flat["met"].values.tolist() == [1.0, -999.0, -3.0]
    assert got.flat["n"].values.tolist() == [3, -999, 5]
    assert [got.flat[f"cov[{i}]"].tolist() for i in (0, 1)] == [[1, None, 5], [2, 4, None]]
    assert got.objects["jets"].columns["Jet_pt"].tolist() == [40.0, None, 25.0]


@pytest.mark.parametrize("sort", ["key", "-key"])
def test_objects_are_sorted_exactly_with_missing_ones_last(sort):
    big = 2**60
    key = Jagged(np.array([0, 5, 6]), np.array([big + 1, -999, big, big + 2, big + 1, -999]))
    columns = {"met": np.zeros(2), "key": key, "number": Jagged(key.offsets, np.arange(6))}
    jagged = {"o": {"branches": ["number"], "sort": sort}}
    got = select_from(columns, missing=[-999], jagged=jagged).objects["o"]
    assert listed(got, "number") == ([[2, 0, 4, 3, 1], [5]] if sort == "key" else [[3, 0, 4, 2, 1], [5]])


def test_an_unknown_cut_on_objects_takes_them_away():
    jagged = {"jets": {"branches": ["Jet_pt"], "cut": "Jet_pt < 30"}}
    jets = select_from(with_sentinels(), missing=[-999], jagged=jagged).objects["jets"]
    assert (jets.offsets.tolist(), jets.columns["Jet_pt"].tolist()) == ([0, 0, 0, 1], [25.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "n > 3"}, "label 'n > 3' is missing .* at entry 101"),
        ({"label": "n - 3", "classes": ["a", "b", "c"]}, "label 'n - 3' is missing .*c.* at entry 101"),
        ({"weight": "n"}, "weight 'n' is missing or not finite at entry 101"),
        ({"weight": "met"}, "weight 'met' is missing or not finite at entry 101"),
        ({"samples": {"all": {"files": "a", "weight": "d"}}}, r"samples\.all\.weight 'd' is missing or not finite at"),
        ({"split": {"by": "n % 2", "val": [1]}}, "split by 'n % 2' is missing at entry 101"),
        ({"split": {"by": "one % (n - 3)", "val": [1]}}, r"split by 'one % \(n - 3\)' is missing at entry 100"),
    ],
)
def test_what_a_selected_event_must_not_lack(changes, message):
    with pytest.raises(DataError, match=message):
        select_from(with_sentinels(), missing=[-999], start=100, **changes)
    kept = select_from(with_sentinels(), missing=[-999], start=100, cut="n == 5 and isfinite(d)", **changes)
    assert kept.entry.tolist() == []


def test_what_is_cut_away_may_lack_anything():
    options = {"label": "n > 3", "weight": "met", "split": {"by": "n % 2", "val": [1]}, "missing": [-999]}
    assert select_from(with_sentinels(), cut="n > 0", **options).label.tolist() == [0, 1]
    for part in range(3):
        with pytest.raises(DataError, match=r"is missing .*at entry 1 of"):
            select_from(with_sentinels(), part=part, **options)


def test_a_number_that_does_not_fit_names_the_entry():
    columns = {"met": np.zeros(3, np.float32), "id": np.array([1, 2**62, 3])}
    with pytest.raises(
        DataError, match=r"the result of event 1 does not fit(.|\n)*\(?event 1 is entry 101 of dir/some"
    ):
        select_from(columns, start=100, cut="id * 4 > 0")


@pytest.mark.parametrize("neighbour", [0, 3])
def test_an_event_is_what_it_is_beside_any_other(neighbour):
    event = 9007199254740993
    columns = {"event": np.array([event, 5]), "nJet": np.array([3, neighbour], np.int32), "met": np.zeros(2)}
    got = select_from(columns, flat=["r", "q"], derived={"r": "event % nJet", "q": "event // nJet"}, cut="event > 0")
    assert (got.flat["r"].tolist()[0], got.flat["q"].tolist()[0]) == (0, event // 3)
    assert got.flat["r"].dtype == got.flat["q"].dtype == np.int64
    assert 0 in select_from(columns, cut="event % nJet == 0").entry


# What is refused, with the place

BAD = [
    ({"cut": "Jet_pt > 30"}, DataError, r"cut 'Jet_pt > 30' gives a list an event; reduce it with any\(\)"),
    ({"cut": "met"}, DataError, "cut 'met' gives numbers, not yes or no"),
    ({"label": "Jet_pt > 30"}, DataError, "label 'Jet_pt > 30' gives a list an event"),
    ({"weight": "Jet_pt"}, DataError, "weight 'Jet_pt' gives a list an event"),
    ({"flat": ["x"], "derived": {"x": "Jet_pt * 2"}}, DataError, "flat: 'x' gives a list an event"),
    ({"jagged": {"jets": ["met"]}}, DataError, r"jagged\.jets: 'met' has one number an event; list it under `flat`"),
    (
        {"jagged": {"jets": {"branches": ["Jet_pt"], "cut": "met > 30"}}},
        DataError,
        r"jagged\.jets: 'met > 30' has one number an event",
    ),
    (
        {"jagged": {"jets": {"branches": ["Jet_pt"], "cut": "Jet_pt"}}},
        DataError,
        "cut 'Jet_pt' gives numbers, not yes or no",
    ),
    (
        {"jagged": {"jets": {"branches": ["Jet_pt"], "sort": "-Mu_pt"}}},
        DataError,
        r"jagged\.jets\.sort: 'Mu_pt' does not have one value for each object",
    ),
    (
        {"jagged": {"jets": {"branches": ["Jet_pt"], "cut": "Mu_pt > 1"}}},
        DataError,
        r"jagged\.jets\.cut: 'Mu_pt > 1' does not have one value for each object",
    ),
    (
        {"jagged": {"jets": ["Jet_pt", "Mu_pt"]}},
        DataError,
        r"jagged\.jets: 'Jet_pt' has 1 objects but 'Mu_pt' has 2 in entry 101 of dir/some\.root",
    ),
    ({"split": {"by": "Jet_pt > 1", "val": [1]}}, DataError, "split by 'Jet_pt > 1': expected one whole number"),
    ({"split": {"by": "met * 0.5", "val": [1]}}, DataError, r"split by 'met \* 0.5': expected one whole number"),
    ({"label": "kind"}, DataError, r"label 'kind' is 2 at entry 101 of dir/some\.root \(sample 'all'\); allowed: 0 \("),
    ({"label": "half"}, DataError, r"label 'half' is 0.5 at entry 102"),
    ({"label": "broken"}, DataError, r"label 'broken' is missing .allowed: 0 .*, 1 .* at entry 101"),
    ({"label": "-kind"}, DataError, r"label '-kind' is -1 at entry 100"),
    ({"weight": "broken"}, DataError, r"weight 'broken' is missing or not finite at entry 101 of dir/some\.root"),
    (
        {"weight": "1 / (kind - 1)"},
        DataError,
        r"weight '1 / .*' is missing or not finite at entry 100 of dir/some\.root",
    ),
    ({"weight": "huge"}, DataError, r"weight of entry 102 of dir/some\.root is not finite"),
    ({"weights": {"up": "huge"}}, DataError, r"weights\.up of entry 102 of dir/some\.root is not finite"),
    ({"weights": {"up": "broken"}}, DataError, r"weights\.up 'broken' is missing or not finite at entry 101"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD, ids=[str(b[0]) for b in BAD])
def test_what_contradicts_the_data_is_refused_with_the_place(changes, error, message):
    columns = {
        "met": np.array([10, 20, 30], np.float32),
        "kind": np.array([1, 2, 0], np.int32),
        "half": np.array([0, 1, 0.5], np.float32),
        "broken": np.array([0, math.nan, 1]),
        "huge": np.array([0, 1, 1e300]),
        "Jet_pt": lists_of(np.arange(3, dtype=np.float32), np.array([2, 1, 0])),
        "Mu_pt": lists_of(np.arange(4, dtype=np.float32), np.array([2, 2, 0])),
    }
    with pytest.raises(error, match=message):
        select_from(columns, start=100, **changes)


def test_bad_values_of_events_that_are_cut_away_do_no_harm():
    columns = {"met": np.array([1, 2, 3], np.float32), "kind": np.array([0.0, 9.0, 1.0])}
    got = select_from(columns, cut="kind < 5", label="kind", weight="1 / (kind - 9)")
    assert got.label.tolist() == [0, 1]


@pytest.mark.parametrize("values", [[True, False], [1, 0], [1.0, 0.0]])
def test_labels_may_be_of_any_number_type(values):
    for dtype in ("bool", "uint8", "int16", "int64", "uint64", "float32", "float64"):
        columns = {"met": np.zeros(2, np.float32), "y": np.array(values, dtype)}
        assert select_from(columns, label="y").label.tolist() == [1, 0]


def test_classes_of_a_sample_number_and_no_label_at_all():
    columns = make_events(3)
    labelled = select_from(columns, samples={"all": {"files": "a", "label": 2}}, classes=["a", "b", "c"])
    assert labelled.label.tolist() == [2, 2, 2]
    assert select_from(columns).label.tolist() == [-1, -1, -1]
