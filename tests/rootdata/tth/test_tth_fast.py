"""The selected set on disk: contents, shares, physics, reproducibility, atomicity."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from rootdata import tth
from rootdata.errors import ConfigError, DataError
from rootdata.tth.samples import INTEGERS, SHARES, VARIABLES, file_counts
from rootdata.tth.write import NOTE

JET = ("pt", "eta", "phi", "mass", "btag", "qgl")
FAT_JET = ("pt", "eta", "phi", "mass", "msoftdrop", "tau21", "tau32", "btagSub")
N_EVENTS = 24_000
SOURCES = Path(__file__).parents[3] / "src"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tth") / "set"
    tth.generate(folder, N_EVENTS, seed=11, progress=False)
    return folder


def read(folder: Path, name: str) -> ak.Array:
    with uproot.open(folder / f"{name}.root") as file:
        return file["Events"].arrays()


def background(folder: Path) -> ak.Array:
    return ak.concatenate([read(folder, name)[list(VARIABLES)] for name in SHARES if name != "ttH_signal"])


def test_shares_are_exact(folder):
    found = {name: len(read(folder, name)) for name in SHARES}
    assert found == {name: round(share * N_EVENTS) for name, share in SHARES.items()}
    assert found["ttH_signal"] / (N_EVENTS - found["ttH_signal"]) == pytest.approx(0.108, abs=1e-3)


@pytest.mark.parametrize("n_events", [100, 101, 12_345, 350_000])
def test_counts_add_up(n_events):
    counts = file_counts(n_events)
    assert sum(counts.values()) == n_events
    assert all(abs(count - SHARES[name] * n_events) < 1 for name, count in counts.items())
    assert min(counts.values()) > 0


def test_branches_and_types(folder):
    expected = {name: np.dtype("i4" if name in INTEGERS else "f4") for name in VARIABLES}
    expected |= {"event": np.dtype("u8"), "nFatJet": np.dtype("i4")}
    jagged = {f"Jet_{name}" for name in JET} | {f"FatJet_{name}" for name in FAT_JET}
    for name in SHARES:
        with uproot.open(folder / f"{name}.root") as file:
            tree = file["Events"]
            flat = {b: tree[b].interpretation.to_dtype for b in tree.keys() if b not in jagged}  # noqa: SIM118
            assert flat == expected
            assert jagged <= set(tree.keys())
            assert {tree[b].interpretation.content.to_dtype for b in jagged} == {np.dtype("f4")}


@pytest.mark.parametrize("name", SHARES)
def test_objects_agree_with_the_flat_variables(folder, name):
    events = read(folder, name)
    assert ak.all(events.nJet == ak.num(events.Jet_pt))
    assert ak.all(events.nFatJet == ak.num(events.FatJet_pt))
    assert ak.all(events.nBJet == ak.sum(events.Jet_btag > 0.4941, axis=1))
    np.testing.assert_allclose(events.HT, ak.sum(events.Jet_pt, axis=1), rtol=1e-5)
    assert ak.all(events.fj_pt == events.FatJet_pt[:, 0])
    assert ak.all(events.fj_tau21 == events.FatJet_tau21[:, 0])
    assert ak.all(events.fj_btagSub == events.FatJet_btagSub[:, 0])
    assert ak.all(ak.any(events.Jet_pt == events.pt_b1, axis=1))
    assert len(set(events.event.to_list())) == len(events)
    assert all(ak.all(np.isfinite(ak.flatten(events[b], axis=None))) for b in events.fields)


@pytest.mark.parametrize("name", SHARES)
def test_every_event_passes_the_selection(folder, name):
    events = read(folder, name)
    for collection, min_pt in (("Jet", 30), ("FatJet", 200)):
        pt = events[f"{collection}_pt"]
        assert ak.all(pt[:, 1:] <= pt[:, :-1])
        assert ak.all(pt > min_pt)
        assert ak.all(abs(events[f"{collection}_eta"]) < 2.4)
        assert ak.all(abs(events[f"{collection}_phi"]) < 3.15)
    assert ak.all(ak.any((events.FatJet_pt > 300) & (events.FatJet_msoftdrop > 20), axis=1))
    assert ak.all((events.nJet >= 4) & (events.HT > 450) & (events.btag_b1 > 0.1522))


def test_events_of_tth_are_in_the_order_of_generation(folder):
    numbers = [np.asarray(read(folder, name).event) for name in ("ttH_signal", "ttH_unmatched")]
    for found in numbers:
        assert (np.diff(found.astype(np.int64)) > 0).all()
    assert not set(numbers[0]) & set(numbers[1])


# Tolerances on means: four standard errors of the 2,340 signal and 21,660 background events, and a per cent.
@pytest.mark.parametrize(
    ("name", "mean", "spread", "tolerance"),
    [
        ("mbb", 127, 42, 5), ("fj_msoftdrop", 123.5, 51.5, 5.5), ("nBJet", 2.57, 1.0, 0.11), ("nJet", 6.97, 1.3, 0.18),
        ("HT", 966, 237, 30), ("dRbb", 1.087, 0.455, 0.05), ("fj_pt", 437, 122, 15), ("btag_b2", 0.628, 0.225, 0.025),
    ],
)  # fmt: skip
def test_signal_has_the_tuned_distributions(folder, name, mean, spread, tolerance):
    values = np.asarray(read(folder, "ttH_signal")[name])
    assert values.mean() == pytest.approx(mean, abs=tolerance)
    assert values.std() == pytest.approx(spread, rel=0.12)


@pytest.mark.parametrize(
    ("name", "mean", "spread", "tolerance"),
    [
        ("mbb", 220.6, 202, 7), ("fj_msoftdrop", 100.8, 68, 2.8), ("nBJet", 0.96, 1.0, 0.037), ("HT", 1142, 546, 24),
        ("btag_b1", 0.546, 0.289, 0.013), ("sphericity", 0.273, 0.173, 0.007), ("MET_pt", 41.4, 38.6, 1.5),
    ],
)  # fmt: skip
def test_background_has_the_tuned_distributions(folder, name, mean, spread, tolerance):
    values = np.asarray(background(folder)[name])
    assert values.mean() == pytest.approx(mean, abs=tolerance)
    assert values.std() == pytest.approx(spread, rel=0.08)


def test_the_same_seed_gives_the_same_events_and_another_one_others(tmp_path):
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    for folder, seed in ((one, 3), (same, 3), (other, 4)):
        tth.generate(folder, 500, seed=seed, progress=False)
    for name in SHARES:
        assert ak.array_equal(read(one, name), read(same, name))
        assert not ak.array_equal(read(one, name).HT, read(other, name).HT)


@pytest.mark.long
def test_a_larger_set_begins_with_the_smaller_one(folder, tmp_path):
    tth.generate(tmp_path / "small", 1000, seed=11, progress=False)
    for name in SHARES:
        small = read(tmp_path / "small", name)
        assert ak.array_equal(small, read(folder, name)[: len(small)])


@pytest.mark.long
def test_long_files_have_several_clusters(tmp_path):
    """Baskets end every 10,000 events; the tree of a file with 11,250 has two."""
    paths = tth.generate(tmp_path / "set", 37_500, seed=2, progress=False)
    ttbar = next(path for path in paths if path.stem == "TTToHadronic")
    with uproot.open(ttbar) as file:
        assert file["Events"].common_entry_offsets() == [0, 10_000, 11_250]
        assert file.file.compression.name == "ZSTD"


def test_ensure_makes_a_set_once(tmp_path):
    paths = tth.ensure(tmp_path / "set", 300, seed=5, progress=False)
    assert [path.name for path in paths] == [f"{name}.root" for name in SHARES]
    before = {path: path.stat().st_mtime_ns for path in paths}
    assert tth.ensure(tmp_path / "set", 300, seed=5, progress=False) == paths
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    note = json.loads((tmp_path / "set" / NOTE).read_text())
    assert (note["generator"], note["n_events"], note["seed"]) == ("fast", 300, 5)


@pytest.mark.parametrize("change", [{"n_events": 301}, {"seed": 6}])
def test_another_set_is_refused(tmp_path, change):
    tth.ensure(tmp_path / "set", 300, seed=5, progress=False)
    with pytest.raises(DataError, match=r"holds another set.*choose another folder or delete"):
        tth.ensure(tmp_path / "set", **{"n_events": 300, "seed": 5, "progress": False, **change})


def test_a_folder_with_other_things_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for make in (tth.generate, tth.ensure):
        with pytest.raises(DataError, match="isn't a set"):
            make(tmp_path, 300, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_set_with_a_missing_file_or_a_damaged_note_is_refused(tmp_path):
    paths = tth.ensure(tmp_path / "set", 300, progress=False)
    paths[3].unlink()
    with pytest.raises(DataError, match=f"lacks {paths[3].name}"):
        tth.ensure(tmp_path / "set", 300, progress=False)
    (tmp_path / "set" / NOTE).write_text("[]")
    with pytest.raises(DataError, match="damaged"):
        tth.ensure(tmp_path / "set", 300, progress=False)


def test_generate_does_not_overwrite(tmp_path):
    tth.generate(tmp_path / "set", 300, progress=False)
    with pytest.raises(DataError, match="already"):
        tth.generate(tmp_path / "set", 300, progress=False)


def test_too_few_events_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="n_events: 99"):
        tth.generate(tmp_path / "set", 99, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("rootdata.tth.fast.detector.tag_jets", break_down)
    with pytest.raises(RuntimeError, match="broken"):
        tth.generate(tmp_path / "set", 300, progress=False)
    assert not list(tmp_path.iterdir())


def start(folder: Path, n_events: int) -> subprocess.Popen[bytes]:
    code = f"from rootdata import tth; tth.ensure({str(folder)!r}, {n_events}, seed=5, progress=False)"
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCES)})


def test_a_killed_process_leaves_nothing_under_the_final_name(tmp_path):
    folder = tmp_path / "set"
    process = start(folder, 200_000)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.*.partial/*.root")):  # in the middle of writing
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not folder.exists()
    assert list(tmp_path.glob(".set.*"))
    assert len(tth.ensure(folder, 300, seed=5, progress=False)) == 9
    assert len(read(folder, "TTToHadronic")) == 90
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.long
def test_what_a_living_process_writes_is_let_be(tmp_path):
    folder = tmp_path / "set"
    process = start(folder, 20_000)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.*.partial/*.root")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    assert len(tth.ensure(folder, 300, seed=5, progress=False)) == 9
    assert list(tmp_path.glob(".set.*.partial"))
    assert process.wait(timeout=120) == 1  # another set was there before it was ready
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_killed_processes_left_is_swept_when_it_is_old(tmp_path):
    for name, age in (("old", 2 * 86_400), ("young", 60)):
        left = tmp_path / f".set.{name}.partial"
        left.mkdir()
        (left / "TTToHadronic.root").touch()
        for path in (left / "TTToHadronic.root", left):
            os.utime(path, (time.time() - age,) * 2)
    tth.ensure(tmp_path / "set", 300, progress=False)
    assert [path.name for path in tmp_path.glob(".*")] == [".set.young.partial"]


@pytest.mark.long
def test_two_processes_at_once_do_not_hurt_each_other(tmp_path):
    folder = tmp_path / "set"
    processes = [start(folder, 2000) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert sum(len(read(folder, name)) for name in SHARES) == 2000


@pytest.mark.long
def test_the_second_of_two_finds_the_set_of_the_first(tmp_path, monkeypatch):
    """The other process finishes while this one writes: the same set is taken, another one is refused."""
    from rootdata.tth import fast

    block, rival = fast.select_block, {"seed": 5}

    def overtaken(*args: object, **options: object) -> object:
        monkeypatch.setattr(fast, "select_block", block)
        tth.ensure(tmp_path / "set", 300, progress=False, **rival)
        return block(*args, **options)

    monkeypatch.setattr(fast, "select_block", overtaken)
    assert len(tth.ensure(tmp_path / "set", 300, seed=5, progress=False)) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["set"]

    (tmp_path / "set").rename(tmp_path / "first")
    rival["seed"] = 6
    monkeypatch.setattr(fast, "select_block", overtaken)
    with pytest.raises(DataError, match="another set"):
        tth.ensure(tmp_path / "set", 300, seed=5, progress=False)
    assert json.loads((tmp_path / "set" / NOTE).read_text())["seed"] == 6


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, rootdata.tth; print(not {'uproot', 'numpy', 'awkward', 'pythia8mc'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCES)}, capture_output=True
    )
    assert done.stdout.strip() == b"True", done.stderr
    with pytest.raises(AttributeError, match="generate_full"):
        tth.nonsense  # noqa: B018
