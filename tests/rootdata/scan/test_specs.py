import dataclasses
import json
import os

import numpy as np
import pytest
from files_for_tests import files_below, found, make_events, options, scanned, write
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import DataError, SpecsError
from rootdata.io.files import states_of
from rootdata.options.data import parse_data
from rootdata.scan.lookup import check_matches, specs_for
from rootdata.scan.scanned import layout_of, transforms_of
from rootdata.scan.sources import find_files
from rootdata.scan.specs import VERSION, Specs, add_histograms, fingerprint, key_of

COLUMNS = make_events(120, seed=3) | {"cov": np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)}
RICH = {
    "flat": ["met", "cov"],
    "scale": {"met": "robust", "Jet_pt": "log"},
    "missing": [-999.0],
    "label": "is_signal == 1",
    "split": {"train": 0.5, "val": 0.3, "test": 0.2},
}


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "data" / "a.root", COLUMNS, steps=(40, 80))


@pytest.fixture
def specs(path):
    return scanned(options(path, **RICH))


def with_value(specs, path, key, value):
    """Save specs, and put another value into the file."""
    specs.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    return path


# JSON


def test_specs_survive_json(specs, tmp_path):
    specs.save(tmp_path / "specs.json")
    again = Specs.load(tmp_path / "specs.json")
    assert again == specs
    assert list(again.columns) == list(specs.columns) != sorted(specs.columns)
    plain = json.loads(json.dumps(specs.to_dict(), allow_nan=False))
    saved = json.loads((tmp_path / "specs.json").read_text())
    assert {name: saved[name] for name in plain} == plain
    assert files_below(tmp_path) == ["data", "data/a.root", "specs.json"]


def test_specs_of_a_column_without_values_survive_json(tmp_path, path):
    specs = scanned(options(path, jagged={"jets": {"branches": ["Jet_pt"], "cut": "Jet_pt > 1e9"}}))
    assert specs.columns["Jet_pt"].count == 0
    specs.save(tmp_path / "specs.json")
    assert Specs.load(tmp_path / "specs.json") == specs


def test_specs_say_what_they_know(specs):
    assert specs.samples == ("all",)
    assert specs.flat == ("met", "cov[0]", "cov[1]")
    assert set(specs.columns) == {"met", "cov[0]", "cov[1]", "Jet_pt", "Jet_eta"}
    assert [specs.num_events(p) for p in ("train", "val", "test")] == list(specs.files[0].before)
    assert sum(specs.files[0].before) == specs.files[0].entries == 120
    assert np.sum(specs.labels) == 120
    assert specs.columns["met"].quantiles is not None
    assert specs.columns["Jet_pt"].curve_moments is not None


def test_weights_are_added_up_by_sample_part_and_class(tmp_path):
    columns = COLUMNS | {"weight": np.where(np.arange(120) % 3 == 0, -2.5, 1.0)}
    path = write(tmp_path / "a.root", columns, steps=(40, 80))
    specs = scanned(options(path, **RICH, weight="weight"))
    whole = np.array(specs.weights)
    assert whole.shape == (1, 3, 3, 2)
    by_class = [
        [columns["weight"][columns["is_signal"] == c].sum(), abs(columns["weight"][columns["is_signal"] == c]).sum()]
        for c in (0, 1)
    ]
    np.testing.assert_allclose(whole.sum(axis=(0, 1)), [*by_class, [0, 0]])
    sizes = [whole[0, p, :, 1].sum() / specs.num_events(part) for p, part in enumerate(("train", "val", "test"))]
    assert [specs.mean_weight(part) for part in ("train", "val", "test")] == pytest.approx(sizes)


def test_weights_of_events_without_a_label_and_of_skipped_blocks_count(tmp_path):
    path = write(tmp_path / "a.root", COLUMNS, steps=(40, 80))
    plain = options(path, weight="weight", split={"train": 1.0}, fraction=0.5)
    assert "label" not in plain
    assert "label" not in next(iter(plain["samples"].values()))
    specs = scanned(plain)
    assert specs.estimated
    assert specs.mean_weight("train") == pytest.approx(COLUMNS["weight"].astype("f4").astype(float).mean())
    assert specs.mean_weight("val") == 0


def test_without_weights_the_mean_is_one(specs):
    assert specs.mean_weight("train") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read"),
        ("", "can't be read"),
        ("nonsense", "can't be read"),
        (b"\xff\xfe\x00", "can't be read"),
        ("[]", f"are of version None, this is version {VERSION}; scan again"),
        ("{}", f"are of version None, this is version {VERSION}; scan again"),
        ('{"version": 999}', f"are of version 999, this is version {VERSION}; update rootdata, or scan again"),
        (f'{{"version": {VERSION}}}', "are damaged .*; scan again"),
    ],
)
def test_what_is_no_specs_file_is_refused(tmp_path, content, message):
    path = tmp_path / "specs.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SpecsError, match=rf"specs .*specs\.json {message}"):
        Specs.load(path)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_truncated_specs_are_refused(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("specs")
    specs = scanned(options(write(folder / "a.root", make_events(5))))
    text = json.dumps(specs.to_dict())
    (folder / "specs.json").write_text(text[: int(len(text) * cut)])
    with pytest.raises(SpecsError, match=r"specs\.json"):
        Specs.load(folder / "specs.json")


@pytest.mark.parametrize("key", ["samples", "files", "flat", "columns", "multiplicity", "labels"])
def test_specs_with_a_damaged_part_are_refused(specs, path, tmp_path, key):
    config = parse_data(options(path, **RICH))
    for junk in (None, [], {}, 5, "x", [5], [[5]], {"a": 5}, {"met": {}}):
        damaged = with_value(specs, tmp_path / "specs.json", key, junk)
        with pytest.raises(SpecsError):
            check_matches(Specs.load(damaged), config, *found(config), where="the specs")


def test_specs_with_a_changed_digit_are_refused(specs, tmp_path):
    path = tmp_path / "specs.json"
    specs.save(path)
    text, mean = path.read_text(), str(specs.columns["met"].moments.mean)
    assert text.count(mean) == 1
    path.write_text(text.replace(mean, "1" + mean))
    with pytest.raises(SpecsError, match=r"specs\.json are damaged"):
        Specs.load(path)


def test_specs_of_a_newer_version_with_unknown_keys_are_refused(specs, tmp_path):
    with pytest.raises(SpecsError, match="damaged"):
        Specs.load(with_value(specs, tmp_path / "specs.json", "colour", "red"))


# Fingerprint

MATTERS = [
    {"samples": {"other": {"files": "a.root"}}},
    {"samples": {"all": {"files": "a.root", "cut": "met > 1"}}},
    {"samples": {"all": {"files": "a.root", "weight": 2}}},
    {"samples": {"all": {"files": "a.root", "label": 1}}},
    {"flat": ["met", "weight"]},
    {"jagged": {"jets": ["Jet_pt"]}},
    {"jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "cut": "Jet_pt > 30"}}},
    {"jagged": {"muons": ["Jet_pt", "Jet_eta"]}},
    {"derived": {"met": "met / 1000"}},
    {"cut": "met > 1"},
    {"label": "is_signal == 1"},
    {"weight": "weight"},
    {"classes": ["a", "b", "c"]},
    {"missing": [-999.0]},
    {"fraction": 0.5},
    {"split": {"train": 0.9, "val": 0.1}},
    {"split": {"by": "entries", "train": 1.0}},
    {"scale": "robust"},
    {"scale": {"default": "none", "met": "log"}},
]
DOES_NOT_MATTER = [
    {"layout": "tokens"},
    {"pad": -5.0},
    {"scale": "minmax"},
    {"scale": {"met": {"shift": 1.0, "factor": 2.0}}},
    {"jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}}},
]


def key_with(changes):
    return key_of(parse_data(options("a.root", **changes)))


@pytest.mark.parametrize("changes", MATTERS, ids=str)
def test_options_that_change_the_specs_change_the_key(changes):
    assert key_with(changes) != key_with({})


@pytest.mark.parametrize("changes", DOES_NOT_MATTER, ids=str)
def test_options_that_do_not_keep_the_key(changes):
    assert key_with(changes) == key_with({})


@pytest.mark.parametrize("changes", DOES_NOT_MATTER, ids=str)
def test_what_keeps_the_key_keeps_the_specs(path, changes):
    assert scanned(options(path, **changes)) == scanned(options(path))


def test_no_two_changes_share_a_key():
    keys = [key_with(changes) for changes in [{}, *MATTERS]]
    assert len(set(keys)) == len(keys)


def mark_of(plain):
    config = parse_data(plain)
    files = find_files(config)
    return fingerprint(key_of(config), files, states_of([where for _, where in files]))


def test_the_fingerprint_follows_the_files(tmp_path):
    a, b = (write(tmp_path / f"{n}.root", make_events(10)) for n in "ab")
    first = mark_of(options(a))
    assert first == mark_of(options(a))
    others = [mark_of(options(b)), mark_of(options([str(a), str(b)])), mark_of(options(f"{a}:Events"))]
    write(a, make_events(11))
    others.append(mark_of(options(a)))
    content = a.read_bytes()
    a.write_bytes(content)
    os.utime(a, ns=(1, 1))
    others.append(mark_of(options(a)))
    assert len({first, *others}) == 6


# Specs that are given


def test_given_specs_are_used_where_they_match(specs, path, tmp_path, cache_folder):
    plain = options(path, **RICH)
    specs.save(tmp_path / "specs.json")
    config = parse_data(plain)
    assert specs_for(config, given=specs) == specs_for(config, given=tmp_path / "specs.json") == specs
    assert files_below(cache_folder) == []


def test_given_specs_go_along_with_moved_data(specs, path, tmp_path):
    moved = tmp_path / "elsewhere" / "a.root"
    moved.parent.mkdir()
    path.rename(moved)
    found = specs_for(parse_data(options(moved, **RICH)), given=specs)
    assert [f.path for f in found.files] == [str(moved)]
    assert dataclasses.replace(found, files=specs.files) == specs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": {"other": "a.root"}}, r"the specs were made for samples \['all'\], not \['other'\]; scan again"),
        ({"cut": "met > 1"}, "the specs were made with other features, cuts, labels, weights or another split"),
        ({"balance": "samples"}, "the specs were made with other features, cuts, labels, weights or another split"),
        ({"flat": ["met"]}, "the specs were made with other features"),
        ({"split": {"train": 1.0}}, "the specs were made with other features"),
        ({"samples": {"all": ["a.root", "b.root"]}}, "the specs know 1 files, 2 were found; scan again"),
        ({"samples": {"all": "b.root"}}, r"the specs were made for .*a\.root where b\.root was found; scan again"),
    ],
    ids=str,
)
def test_specs_made_for_something_else_are_refused(specs, path, monkeypatch, changes, message):
    monkeypatch.chdir(path.parent)
    write(path.parent / "b.root", COLUMNS)
    config = parse_data(options("a.root", **(RICH | changes)))
    with pytest.raises(SpecsError, match=message):
        specs_for(config, given=specs)


def test_specs_made_for_a_file_of_another_size_are_refused(specs, path):
    write(path, make_events(77) | {"cov": COLUMNS["cov"][:77]})
    with pytest.raises(SpecsError, match=r"the specs know .*a\.root with \d+ bytes, it has \d+; scan again"):
        specs_for(parse_data(options(path, **RICH)), given=specs)


def test_files_that_changed_places_are_refused(tmp_path):
    a, b = (write(tmp_path / f"{n}.root", make_events(10)) for n in "ab")
    specs = scanned(options([str(a), str(b)]))
    with pytest.raises(SpecsError, match=r"were made for .*a\.root where .*b\.root was found"):
        specs_for(parse_data(options([str(b), str(a)])), given=specs)


# What follows from specs


def test_auto_length_keeps_999_of_1000_objects_and_not_one_object_more():
    config = parse_data(options("a.root"))
    for histogram, expected in [((5, 0, 0), 1), ((0, 10), 1), ((0, 0, 0, 4), 3), ((0, 500, 0, 0, 1), 4), ((), 1)]:
        assert length_with(config, histogram) == expected
    assert length_with(config, (0, 0, 5000, 1)) == 2  # one object of 10,003 is dropped
    assert length_with(config, (0, 0, 500, 3)) == 3  # three of 1,009 would be


def length_with(config, histogram):
    specs = Specs(key="", fingerprint="", samples=(), files=(), flat=(), columns={}, multiplicity={"jets": histogram},
                  labels=(), weights=())  # fmt: skip
    return layout_of(config, specs).collections[0].length


def test_a_given_length_is_taken(specs, path):
    changed = RICH | {"jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 2}}}
    assert layout_of(parse_data(options(path, **changed)), specs).collections[0].length == 2


def test_elements_of_a_fixed_size_branch_are_scaled_by_its_name(path):
    plain = options(path, flat=["met", "cov"], scale={"default": "standard", "cov": {"shift": 1.0, "factor": 2.0}})
    found = transforms_of(parse_data(plain), scanned(plain))
    assert [(found[n].shift, found[n].factor) for n in ("cov[0]", "cov[1]")] == [(1.0, 2.0)] * 2
    assert found["met"].factor == pytest.approx(1 / COLUMNS["met"].astype(float).std(), rel=1e-6)


def test_the_remedy_for_a_constant_element_works(tmp_path):
    cov = COLUMNS["cov"].copy()
    cov[:, 1] = 7
    plain = options(write(tmp_path / "a.root", COLUMNS | {"cov": cov}), flat=["cov"], scale="standard")
    config = parse_data(plain)
    with pytest.raises(DataError, match=r"feature 'cov\[1\]' is constant \(7\).*scale=") as caught:
        transforms_of(config, scanned(plain))
    remedy = str(caught.value).split("scale=", 1)[1]
    name = remedy.split("'")[1]
    remedied = plain | {"scale": {name: "none"}}
    assert transforms_of(parse_data(remedied), scanned(remedied))["cov[1]"].factor == 1.0


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_histograms_add_up_bin_by_bin(first, second):
    longest = max(len(first), len(second))
    padded = [[*h, *[0] * (longest - len(h))] for h in (first, second)]
    assert add_histograms(first, second) == tuple(a + b for a, b in zip(*padded, strict=True))
