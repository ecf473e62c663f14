import json
import os

import pytest
import uproot
from files_for_tests import epoch_of, files_below, make_events, options, write

from rootdata import cache_folder
from rootdata.options.data import parse_data
from rootdata.scan import lookup
from rootdata.scan.lookup import specs_for
from rootdata.scan.specs import Specs


@pytest.fixture
def config(tmp_path):
    return parse_data(options(write(tmp_path / "a.root", make_events(50))))


def cached_file(folder):
    (found,) = (folder / "specs").iterdir()
    return found


@pytest.fixture
def no_reading(monkeypatch):
    """Let every attempt to open a ROOT file or to read a tree fail the test."""

    def refuse(*arguments, **options):
        raise AssertionError("a file was opened")

    monkeypatch.setattr(uproot, "open", refuse)
    monkeypatch.setattr(lookup, "scan_folds", refuse)


def test_the_folder_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("ROOTDATA_CACHE", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder.folder() == tmp_path / "mine"
    monkeypatch.delenv("ROOTDATA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder.folder() == tmp_path / "xdg" / "rootdata"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder.folder() == tmp_path / ".cache" / "rootdata"
    assert cache_folder.specs_path("abc") == cache_folder.folder() / "specs" / "abc.json"


def test_the_second_time_nothing_is_read(config, cache_folder, request):
    first = specs_for(config, progress=False)
    assert files_below(cache_folder / "specs") == [f"{first.fingerprint}.json"]
    request.getfixturevalue("no_reading")
    assert specs_for(config, progress=False) == first


def test_another_configuration_has_specs_of_its_own(config, tmp_path, cache_folder):
    specs_for(config, progress=False)
    other = parse_data(options(tmp_path / "a.root", cut="met > 50"))
    assert specs_for(other, progress=False) != specs_for(config, progress=False)
    assert len(files_below(cache_folder / "specs")) == 2


def test_changed_data_are_never_read_with_old_specs(config, tmp_path):
    old = specs_for(config, progress=False)
    write(tmp_path / "a.root", make_events(50, seed=1))
    new = specs_for(config, progress=False)
    assert new.columns["met"] != old.columns["met"]
    assert new.columns["met"].high == float(make_events(50, seed=1)["met"].max())


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"version": 1}', '{"version": 999}', "\0" * 100])
def test_a_damaged_file_is_made_anew(config, cache_folder, content):
    specs = specs_for(config, progress=False)
    path = cached_file(cache_folder)
    whole = path.read_text()
    path.write_text(content)
    assert specs_for(config, progress=False) == specs
    assert path.read_text() == whole


def test_a_file_of_another_version_is_made_anew(config, cache_folder):
    specs = specs_for(config, progress=False)
    path = cached_file(cache_folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))
    assert specs_for(config, progress=False) == specs
    assert Specs.load(path) == specs


@pytest.mark.parametrize("key", ["samples", "files", "flat", "columns", "multiplicity", "labels", "fingerprint"])
def test_a_file_with_a_damaged_part_is_made_anew(config, cache_folder, key):
    specs = specs_for(config, progress=False)
    path = cached_file(cache_folder)
    whole = json.loads(path.read_text())
    for junk in (5, [], "x"):
        path.write_text(json.dumps(whole | {key: junk}))
        assert specs_for(config, progress=False) == specs


def test_a_folder_that_can_not_be_written_is_named_and_reading_goes_on(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file, not a folder")
    monkeypatch.setenv("ROOTDATA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"the specs can't be kept in .*file/specs .*the next run scans again"):
        specs = specs_for(config, progress=False)
    assert specs.num_events("train") == 50
    assert (tmp_path / "file").read_text() == "a file, not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_and_reading_goes_on(config, tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    monkeypatch.setenv("ROOTDATA_CACHE", str(folder))
    with pytest.warns(UserWarning, match=r"the specs can't be kept in .*locked/specs"):
        assert specs_for(config, progress=False).num_events("train") == 50


def test_a_data_set_reads_with_cached_specs_as_with_new_ones(config, tmp_path):
    plain = options(tmp_path / "a.root")
    first, second = epoch_of(plain), epoch_of(plain)
    assert {n: v.tolist() for n, v in first.items()} == {n: v.tolist() for n, v in second.items()}
