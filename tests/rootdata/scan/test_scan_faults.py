"""Bad files: refused with one error, or left out as if nobody had listed them, the same by whoever reads."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import add, epoch_of, files_below, found, make_events, options, scanned, with_wrong_counter, write

from rootdata import cache_folder
from rootdata.cache_folder import forget
from rootdata.errors import BranchError, ConfigError, DataError, FileError, RootDataError, SpecsError
from rootdata.loading.dataset import RootDataset
from rootdata.options.data import parse_data
from rootdata.scan.lookup import check_matches, specs_for
from rootdata.scan.specs import Specs

NAMES = ("a", "b", "c", "d")
SOURCES = str(Path(__file__).parents[3] / "src")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The bytes of four good files."""
    folder = tmp_path_factory.mktemp("good")
    return {n: write(folder / f"{n}.root", make_events(40 + i, seed=i)).read_bytes() for i, n in enumerate(NAMES)}


@pytest.fixture
def folder(tmp_path, contents):
    """A folder of four good files."""
    (tmp_path / "data").mkdir()
    for name, content in contents.items():
        (tmp_path / "data" / f"{name}.root").write_bytes(content)
    return tmp_path / "data"


def asked(folder, *, skip=True, **changes):
    both = {
        "samples": {"all": {"files": str(folder), "tree": "Events"}},
        "split": {"train": 0.5, "val": 0.5},
        "on_bad_file": "skip" if skip else None,
    }
    return options("", **(both | changes))


# What can be wrong with a file: given its path


def truncated(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def empty(path):
    path.write_bytes(b"")


def no_root(path):
    path.write_bytes(b"<html>404</html>" * 99)


def nowhere(path):
    path.unlink()
    path.symlink_to("nowhere.root")


def damaged(path):
    """Overwrite a compressed basket."""
    write(path, make_events(9000), compression=uproot.ZLIB(9))
    with uproot.open(path) as file:
        start = file["Events/met"].basket_key(0).data_cursor.index
    content = bytearray(path.read_bytes())
    content[start + 30 : start + 230] = bytes(200)
    path.write_bytes(content)


def other_tree(path):
    write(path, make_events(10), tree="Other")


def without_branch(path):
    columns = make_events(10)
    write(path, {"event": columns["event"], "Jet": columns["Jet"]})


def text(path):
    with uproot.recreate(path) as file:
        add(file, make_events(3) | {"met": ak.Array(["a", "b", "c"])}, kind="RNTuple")


def jagged(path):
    columns = make_events(10)
    write(path, columns | {"met": columns["Jet"]["pt"]})


def flat(path):
    columns = make_events(10)
    write(path, {"met": columns["met"], "Jet_pt": columns["met"], "Jet_eta": columns["met"]})


def wrong_counter(path):
    with_wrong_counter(path, [2, 5, 3, 4], at=2, says=9)


BAD = {
    "empty": (empty, FileError, "the file is empty"),
    "no ROOT file": (no_root, FileError, "this is not a ROOT file"),
    "nowhere": (nowhere, FileError, "does not exist"),
    **{f"truncated at {s}": (truncated(s), FileError, "truncated") for s in (0.05, 0.5, 0.97)},
    "damaged": (damaged, FileError, "entries 0 to 9000 of tree 'Events' can't be read"),
    "other tree": (other_tree, BranchError, "tree 'Events' not found"),
    "absent branch": (without_branch, BranchError, "branch 'met' not found"),
    "text": (text, BranchError, "branch 'met' can't be used"),
    "jagged": (jagged, BranchError, "'met' is jagged"),
    "flat": (flat, RootDataError, "'Jet_pt'"),
}
CASES = [pytest.param(*case, id=name) for name, case in BAD.items()]


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize(("spoil", "error", "reason"), CASES)
def test_a_bad_file_is_left_out_as_if_it_were_not_listed(folder, tmp_path, spoil, error, reason, at):
    bad = folder / f"{NAMES[at]}.root"
    spoil(bad)
    got = scanned(asked(folder))
    (skipped,) = got.skipped
    assert (skipped.path, skipped.sample, skipped.position) == (str(bad), 0, at)
    assert reason in skipped.reason
    good = [str(folder / f"{n}.root") for n in NAMES if n != NAMES[at]]
    expected = scanned(asked(folder, samples={"all": {"files": good, "tree": "Events"}}))
    assert dataclasses.replace(got, skipped=(), fingerprint=expected.fingerprint) == expected


@pytest.mark.parametrize(("spoil", "error", "reason"), CASES)
def test_a_bad_file_is_refused_where_skipping_was_not_asked_for(folder, spoil, error, reason):
    spoil(folder / "c.root")
    with pytest.raises(error, match=r"c\.root.*, or leave such files out with on_bad_file=skip$") as caught:
        scanned(asked(folder, skip=False))
    assert reason in str(caught.value)


def test_events_come_as_without_the_bad_files(folder):
    truncated(0.5)(folder / "a.root")
    wrong_counter(folder / "c.root")
    jets = {"jagged": {"jets": ["Jet_pt"]}, "scale": "standard"}
    good = {"samples": {"all": {"files": [str(folder / f"{n}.root") for n in "bd"], "tree": "Events"}}}
    with pytest.warns(UserWarning, match=r"^2 of 4 files are skipped \(on_bad_file='skip'\): all: .*a\.root.*c\.root"):
        got = epoch_of(asked(folder, **jets))
    expected = epoch_of(asked(folder, **(jets | good)))
    assert set(got["index"][:, 1]) == {0, 1}  # files are numbered without gaps
    assert {name: values.tolist() for name, values in got.items()} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_of_files_that_disagree_the_first_good_one_is_right(folder):
    jagged(folder / "a.root")
    for name in "bcd":
        flat(folder / f"{name}.root")
    empty(folder / "b.root")
    assert [s.position for s in scanned(asked(folder, flat=["Jet_pt"], jagged=None)).skipped] == [0, 1]
    columns = make_events(10)
    write(folder / "a.root", columns | {"met": np.zeros((10, 2), np.float32)})
    truncated(0.5)(folder / "b.root")
    got = scanned(asked(folder, jagged=None))
    assert [(s.position, "fixed" in s.reason) for s in got.skipped] == [(1, False), (2, True), (3, True)]
    assert got.flat == ("met[0]", "met[1]")


def test_a_file_that_can_not_be_read_decides_no_kinds(folder):
    write(folder / "a.root", {"met": np.arange(9000) % 91, "Jet": make_events(9000)["Jet"]})
    damaged(folder / "a.root")
    with uproot.open(folder / "a.root") as file:
        assert file["Events/met"].typename == "float"
    for name in "bcd":
        write(folder / f"{name}.root", {"met": np.zeros((10, 2), np.float32)})
    assert [s.position for s in scanned(asked(folder, jagged=None)).skipped] == [0]


def test_a_sample_without_a_good_file_is_refused(folder):
    for name in "ab":
        empty(folder / f"{name}.root")
    samples = {"x": {"files": [str(folder / f"{n}.root") for n in "ab"]}, "y": {"files": str(folder / "[cd].root")}}
    with pytest.raises(
        FileError, match=r"^sample 'x': none of its 2 files can be used: .*a\.root: the file is empty; replace"
    ):
        scanned(asked(folder, samples=samples))


def test_mistakes_in_the_configuration_are_no_bad_files(folder):
    for changes, error in (
        ({"flat": ["mett"]}, BranchError),
        ({"flat": ["Jet_pt"]}, BranchError),
        ({"label": "event"}, DataError),
        ({"cut": "Jet_pt > 3"}, DataError),
        ({"weight": "1 / (event % 2)"}, DataError),
        ({"split": {"train": ["a.root"]}}, ConfigError),
    ):
        with pytest.raises(error) as caught:
            scanned(asked(folder, **changes))
        said = str(caught.value)
        with pytest.raises(error) as caught:
            scanned(asked(folder, skip=False, **changes))
        assert str(caught.value) in said
        assert "on_bad_file" not in said


def test_the_remedy_is_not_named_where_it_does_not_help(folder):
    only = {"samples": {"all": {"files": str(folder / "a.root"), "tree": "Events"}}}
    empty(folder / "a.root")
    with pytest.raises(FileError, match=r"replace or remove the file$"):
        scanned(asked(folder, skip=False, **only))
    with pytest.raises(FileError, match=r"on_bad_file=skip$"):
        scanned(asked(folder, skip=False))


def test_many_bad_files_in_one_warning(tmp_path, contents):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02d}.root").write_bytes(contents["a"] if i in (20, 37) else b"")
    with pytest.warns(UserWarning, match=r"38 of 40 files .*00\.root.*01\.root.*02\.root.*; and 35 more$") as caught:
        specs = specs_for(parse_data(asked(folder)), progress=False)
    assert len(caught) == 1
    assert [f.path[-7:] for f in specs.files] == ["20.root", "37.root"]
    assert len(specs.skipped) == 38


# Specs that know of bad files


@pytest.fixture
def known(folder):
    """Specs in the cache, of a folder of which one file is bad."""
    truncated(0.5)(folder / "b.root")
    with pytest.warns(UserWarning, match="1 of 4 files are skipped"):
        return specs_for(parse_data(asked(folder)), progress=False)


def test_cached_specs_warn_again(folder, known):
    with pytest.warns(UserWarning, match=r"1 of 4 files are skipped .*b\.root"):
        assert specs_for(parse_data(asked(folder)), progress=False) == known


def test_another_process_finds_the_same_specs_and_reads_nothing(folder, known, tmp_path):
    code = """
import json, sys, uproot
from rootdata.options.data import parse_data
from rootdata.scan.lookup import specs_for
uproot.open = None  # whoever opens a file fails
print(json.dumps(specs_for(parse_data(json.loads(sys.argv[1])), progress=False).to_dict()))
"""
    environment = os.environ | {"PYTHONPATH": SOURCES, "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, "-c", code, json.dumps(asked(folder))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == json.loads(json.dumps(known.to_dict()))


def test_a_file_that_was_mended_is_used(folder, known, contents):
    (folder / "b.root").write_bytes(contents["b"])
    specs = specs_for(parse_data(asked(folder)), progress=False)
    assert (len(specs.files), specs.skipped) == (4, ())
    with pytest.raises(SpecsError, match=r"know .*b\.root with \d+ bytes, it has \d+; scan again"):
        specs_for(parse_data(asked(folder)), given=known)


def test_given_specs_fit_the_files_that_were_found(folder, known, tmp_path):
    known.save(tmp_path / "specs.json")
    config = parse_data(asked(folder))
    check_matches(known, config, *found(config), where="the specs")
    with pytest.warns(UserWarning, match="1 of 4 files are skipped"):
        assert specs_for(config, given=tmp_path / "specs.json") == known
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert specs_for(config, given=known) == known  # whoever has them was warned
    with pytest.raises(SpecsError, match="other features, cuts, labels"):
        specs_for(parse_data(asked(folder, skip=False)), given=known)
    (folder / "d.root").unlink()
    with pytest.raises(SpecsError, match="know 4 files, 3 were found"):
        specs_for(config, given=known)


def test_given_specs_go_along_with_moved_data_good_and_bad(folder, known):
    moved = folder.rename(folder.parent / "moved")
    found = specs_for(parse_data(asked(moved)), given=known)
    assert [f.path for f in (*found.files, *found.skipped)] == [str(moved / f"{n}.root") for n in "acdb"]


def test_specs_of_another_version_are_made_anew(folder, known):
    path = cache_folder.specs_path(known.fingerprint)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    with pytest.warns(UserWarning, match="1 of 4 files are skipped"):
        assert specs_for(parse_data(asked(folder)), progress=False) == known
    assert Specs.load(path) == known


def test_the_summary_lists_what_was_skipped(folder, known):
    from rich.console import Console

    from rootdata.scan.summary import summarize

    def shown(specs):
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(summarize(parse_data(asked(folder)), specs))
        return console.export_text()

    assert "skipped files" in shown(known)
    assert "b.root: the file is truncated" in " ".join(shown(known).split())
    assert "skipped" not in shown(dataclasses.replace(known, skipped=()))


# Files that go bad, or are other ones, after they were scanned


def restamped(path, change):
    """Change a file so that its size and its time of change do not tell."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def with_met(path, shift):
    """Write the same file with another missing energy, and so another UUID."""
    columns = make_events(40)
    return write(path, columns | {"met": columns["met"] + np.float32(shift)})


def zeroed(path):
    path.write_bytes(path.read_bytes()[:300] + bytes(path.stat().st_size - 300))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("spoil", [empty, no_root, nowhere, truncated(0.5), zeroed, other_tree])
def test_a_file_that_goes_bad_before_it_is_read_is_named(folder, spoil, skip):
    dataset = RootDataset(asked(folder, skip=skip))
    spoil(folder / "b.root")
    with pytest.raises((FileError, BranchError), match=r"b\.root"):
        list(dataset)


def test_starting_again_scans_a_replaced_file_anew(folder, cache_folder):
    path = with_met(folder / "b.root", 0)
    dataset = RootDataset(asked(folder))
    assert len(files_below(cache_folder)) == 5
    restamped(path, lambda p: with_met(p, 1000))
    with pytest.raises(FileError, match=r"b\.root is not the file that the first pass saw; the file has changed: "):
        list(dataset)
    again = RootDataset(asked(folder))
    assert again.specs.columns["met"].high > 1000 > dataset.specs.columns["met"].high
    assert len(list(again)) == len(again)


def test_forgotten_specs_are_made_anew(folder, cache_folder):
    config = parse_data(asked(folder))
    specs = specs_for(config, progress=False)
    forget(specs.fingerprint)
    assert files_below(cache_folder) == ["baskets", "names.jsonl", "specs"]
    forget(specs.fingerprint)  # it is enough that one process does it
    assert specs_for(config, progress=False) == specs
    forget("other")
    assert len(files_below(cache_folder)) == 5
