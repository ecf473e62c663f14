import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ConfigError, DataError, ExpressionError
from rootdata.events.split import NO_PART, assign, branches_of, part_of_file
from rootdata.location import Location
from rootdata.options.data import parse_data
from rootdata.options.parts import PARTS
from strategies import jagged_of

HERE = Location("data/ttH_1.root", "Events")


def split_of(**options):
    return parse_data({"samples": {"ttH": "ttH.root"}, "flat": ["met"], "split": options}).split


def assigned(split, n, *, columns=None, edges=(), location=HERE):
    """Assign the events of a file, block by block."""
    bounds = [0, *sorted(min(e, n) for e in edges), n]
    return np.concatenate(
        [
            assign(
                split, {k: v[a:b] for k, v in (columns or {}).items()},
                location=location, start=a, stop=b, num_entries=n,
            )
            for a, b in itertools.pairwise(bounds)
        ]
    )  # fmt: skip


shares = (
    st.tuples(*[st.integers(0, 100)] * 3)
    .filter(sum)
    .map(lambda n: dict(zip(PARTS, (x / sum(n) for x in n), strict=True)))
)
cuts = st.lists(st.integers(0, 500), max_size=4)


@given(shares, st.sampled_from(["hash", "entries"]), st.integers(0, 500), cuts)
def test_every_event_has_one_part_however_blocks_are_cut(fractions, by, n, edges):
    split = split_of(by=by, **fractions)
    parts = assigned(split, n)
    assert parts.dtype == np.uint8
    assert len(parts) == n
    assert set(parts.tolist()) <= {i for i, p in enumerate(PARTS) if fractions[p]}
    np.testing.assert_array_equal(parts, assigned(split, n, edges=edges))


@given(shares)
def test_a_hash_deals_shares_within_binomial_bounds(fractions):
    n = 20_000
    counts = np.bincount(assigned(split_of(by="hash", **fractions), n), minlength=3)
    for part, share in enumerate(fractions[p] for p in PARTS):
        assert abs(counts[part] - n * share) <= 5 * math.sqrt(n * share * (1 - share)) + 1e-6


@given(shares, st.integers(1, 2000))
def test_entries_deals_contiguous_ranges_to_half_an_event(fractions, n):
    parts = assigned(split_of(by="entries", **fractions), n)
    assert np.all(np.diff(parts.astype(int)) >= 0)
    counts = np.cumsum(np.bincount(parts, minlength=3))
    exact = np.cumsum([n * fractions[p] for p in PARTS])
    assert np.all(np.abs(counts - exact) <= 0.5 + 1e-6)


def test_shares_of_whole_numbers_are_exact():
    counts = np.bincount(assigned(split_of(by="entries", train=0.64, val=0.16, test=0.2), 1000))
    assert counts.tolist() == [640, 160, 200]


def test_a_hash_goes_by_name_and_tree_not_by_folder():
    split = split_of(train=0.5, test=0.5)
    here = assigned(split, 1000)
    moved = assigned(split, 1000, location=Location("/elsewhere/ttH_1.root", "Events"))
    np.testing.assert_array_equal(here, moved)
    for other in (Location("data/ttH_2.root", "Events"), Location("data/ttH_1.root", "Other")):
        agree = (here == assigned(split, 1000, location=other)).mean()
        assert 0.4 < agree < 0.6


def test_a_hash_has_no_pattern_along_the_entries():
    train = assigned(split_of(train=0.5, test=0.5), 100_000) == 0
    for period in (2, 3, 5, 64, 1000):
        shares_by_phase = [train[phase::period].mean() for phase in range(min(period, 8))]
        assert np.allclose(shares_by_phase, 0.5, atol=5 * 0.5 / math.sqrt(100_000 / period))


@given(st.lists(st.integers(-3, 12), max_size=60), cuts)
def test_values_go_where_they_are_listed_and_the_rest_to_training(values, edges):
    split = split_of(by="event % 5", val=[3], test=[4])
    column = np.array(values, np.int64)
    parts = assigned(split, len(column), columns={"event": column}, edges=edges)
    assert parts.tolist() == [{3: 1, 4: 2}.get(v % 5, 0) for v in values]


def test_values_that_no_part_lists_belong_to_none():
    split = split_of(by="fold", train=[0, 1], val=[2], test=[3])
    parts = assigned(split, 6, columns={"fold": np.array([0, 1, 2, 3, 4, 5])})
    assert parts.tolist() == [0, 0, 1, 2, NO_PART, NO_PART]


def test_true_and_false_are_values():
    split = split_of(by="met > 20", val=[1])
    parts = assigned(split, 3, columns={"met": np.array([10.0, 30.0, 20.0])})
    assert parts.tolist() == [0, 1, 0]


@pytest.mark.parametrize("expression", ["met", "event / 2", "Jet_pt"])
def test_an_expression_that_is_no_whole_number_is_refused(expression):
    columns = {"met": np.ones(2), "event": np.ones(2, int), "Jet_pt": jagged_of([[1.0], []])}
    split = split_of(by=expression, val=[3])
    with pytest.raises(DataError, match=r"expected one whole number an event .*data/ttH_1.root"):
        assign(split, columns, location=HERE, start=0, stop=2, num_entries=2)


def test_the_branches_of_a_split_are_those_of_its_expression():
    assert branches_of(split_of(by="(event + run) % 5", val=[1])) == {"event", "run"}
    assert branches_of(split_of(train=0.5, test=0.5)) == frozenset()
    with pytest.raises(ExpressionError):
        split_of(by="event %", val=[1])


@pytest.mark.parametrize(
    ("patterns", "part"),
    [
        ({"train": ["ttH_*.root"], "test": ["other.root"]}, "train"),
        ({"train": "other*", "val": "data/ttH_1.root", "test": []}, "val"),
        ({"train": ["none"], "test": "*_1.root"}, "test"),
        ({"train": ["none"], "test": "data/*"}, "test"),
    ],
)
def test_patterns_claim_files_by_name_or_path(patterns, part):
    split = split_of(**patterns)
    assert PARTS[part_of_file(split, HERE)] == part
    assert set(assigned(split, 9).tolist()) == {PARTS.index(part)}


@pytest.mark.parametrize(
    ("patterns", "parts"),
    [
        ({"train": ["ttbar*"], "test": ["QCD*"]}, "no part"),
        ({"train": ["ttH*"], "test": ["*_1.root"]}, "train and test"),
    ],
)
def test_a_file_must_be_claimed_once(patterns, parts):
    with pytest.raises(ConfigError, match=rf"data/ttH_1.root belongs to {parts}; .* claim every file once"):
        part_of_file(split_of(**patterns), HERE)


def test_large_numbers_are_compared_exactly() -> None:
    columns = {"event": np.array([2**60 + 1, 2**60, 2**64 - 1], np.uint64)}
    split = parse_data(
        {"samples": {"a": "a"}, "flat": ["x"], "split": {"by": "event", "val": [2**60], "test": [-1]}}
    ).split
    location = Location("a.root", "Events")
    assert assign(split, columns, location=location, start=0, stop=3, num_entries=3).tolist() == [0, 1, 0]


# Folds


def parts_of_folds(folds, n, **how):
    """Assign the same events with each fold in turn tested: (folds, events)."""
    plain = {"samples": {"ttH": "ttH.root"}, "flat": ["met"], "folds": folds, "fold": 0}
    return np.array([assigned(config.split, n, **how) for config in parse_data(plain).every_fold])


numbers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40).map(lambda v: np.array(v, np.int64))
unsigned = st.lists(st.integers(0, 2**64 - 1), max_size=40).map(lambda v: np.array(v, np.uint64))
narrow = st.lists(st.integers(-128, 127), max_size=40).map(lambda v: np.array(v, np.int8))


def check_folds(parts):
    """Each event is tested by one fold, validates the one before, and trains all others."""
    count = len(parts)
    assert (np.sort(parts, axis=0) == np.array([0] * (count - 2) + [1, 2])[:, None]).all()
    tested = (parts == 2).argmax(axis=0)
    assert ((parts == 1).argmax(axis=0) == (tested - 1) % count).all()
    return tested


@given(numbers | unsigned | narrow, st.integers(3, 11), cuts)
def test_folds_share_no_event_and_lose_none_whatever_the_numbers(column, count, edges):
    for by, expected in (("event", column.tolist()), ("event // 7", [v // 7 for v in column.tolist()])):
        parts = parts_of_folds({"count": count, "by": by}, len(column), columns={"event": column}, edges=edges)
        assert check_folds(parts).tolist() == [v % count for v in expected]  # as Python does it, exactly


expressions = st.recursive(
    st.sampled_from(["event", "run"]) | st.integers(0, 9).map(str),
    lambda some: st.one_of(
        st.tuples(some, st.sampled_from("+-*"), some).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(some, st.sampled_from(["//", "%"]), st.integers(1, 9)).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        some.map(lambda text: f"abs({text})"),
    ),
    max_leaves=5,
)


@given(
    expressions, st.lists(st.tuples(st.integers(0, 2000), st.integers(-99, 99)), max_size=20), st.integers(3, 7), cuts
)
def test_folds_share_no_event_and_lose_none_whatever_the_expression(text, events, count, edges):
    by = f"({text}) + 0 * event"
    columns = {name: np.array([e[i] for e in events], np.int64) for i, name in enumerate(("event", "run"))}
    parts = parts_of_folds({"count": count, "by": by}, len(events), columns=columns, edges=edges)
    plain = [eval(text, {"event": event, "run": run, "abs": abs}) for event, run in events]
    assert check_folds(parts).tolist() == [v % count for v in plain]


@given(st.integers(0, 300), st.integers(3, 11), cuts)
def test_folds_by_a_hash_share_no_event_and_lose_none(n, count, edges):
    parts = parts_of_folds(count, n, edges=edges)
    check_folds(parts)
    np.testing.assert_array_equal(parts, parts_of_folds(count, n))


def test_folds_by_a_hash_have_about_the_same_size():
    tested = check_folds(parts_of_folds(5, 20_000))
    assert abs(np.bincount(tested) - 4000).max() < 5 * math.sqrt(4000)


@pytest.mark.parametrize("by", ["met", "event / 2", "Jet_pt"])
def test_folds_of_what_is_no_whole_number_are_refused(by):
    columns = {"met": np.ones(2), "event": np.ones(2, int), "Jet_pt": jagged_of([[1.0], []])}
    plain = {"samples": {"ttH": "ttH.root"}, "flat": ["met"], "folds": {"count": 3, "by": by}, "fold": 0}
    with pytest.raises(DataError, match=r"expected one whole number an event .*data/ttH_1.root"):
        assign(parse_data(plain).split, columns, location=HERE, start=0, stop=2, num_entries=2)
