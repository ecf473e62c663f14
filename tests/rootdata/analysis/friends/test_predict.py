"""Scores beside the events: the same as in training, entry by entry, whatever was there before."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uproot
from files_for_tests import add, branches, files_below, make_events, write
from servers_for_tests import HTTPServer, XRootDServer, xrootd

from rootdata.analysis.friends import predict as module
from rootdata.analysis.friends.predict import predict
from rootdata.analysis.friends.scorer import BundleScorer
from rootdata.errors import BranchError, BundleError, ConfigError, DataError, ExpressionError, FileError
from rootdata.loading.dataset import RootDataset
from rootdata.training import metrics

TEST = 2  # the number of the part


def arrays(path: Path, tree: str = "Friends") -> dict[str, Any]:
    """Read a tree with uproot alone."""
    return dict(uproot.open(path)[tree].arrays(library="np"))


@pytest.fixture(scope="module")
def friends(analysis, tmp_path_factory) -> Path:
    """The scores of all files, with the part that each event is in."""
    folder = tmp_path_factory.mktemp("friends")
    predict(analysis.bundle, str(analysis.events), out=folder, parts=True, workers=2)
    return folder


def test_each_entry_has_its_row(analysis, friends):
    for number in range(4):
        events, found = arrays(analysis.events / f"{number}.root", "Events"), arrays(friends / f"{number}_Friend.root")
        assert found["entry"].tolist() == list(range(len(events["met"])))
        assert found["event"].tolist() == events["event"].tolist()
        assert found["selected"].tolist() == (events["met"] > 10).tolist()
        assert (found["score_signal"][~found["selected"]] == -1).all()
        assert ((found["score_signal"] > 0) == found["selected"]).all()


def test_scores_and_parts_are_those_of_training(analysis, friends):
    found = [arrays(friends / f"{number}_Friend.root") for number in range(4)]
    seen = 0
    for batch in analysis.data.test_dataloader():
        with torch.no_grad():
            scores = analysis.network.scores(batch).numpy()
        for (_, file, entry), score in zip(batch["index"].tolist(), scores.tolist(), strict=True):
            assert found[file]["score_signal"][entry] == pytest.approx(score, abs=2e-6)
            assert found[file]["part"][entry] == TEST
            seen += 1
    assert seen == sum(int(((f["part"] == TEST) & f["selected"]).sum()) for f in found)


def test_the_area_under_the_curve_is_that_of_the_report(analysis, friends):
    told = json.loads((analysis.run / "metrics.json").read_text())
    columns: dict[str, list[Any]] = {"score": [], "label": [], "weight": []}
    for number in range(4):
        events, found = arrays(analysis.events / f"{number}.root", "Events"), arrays(friends / f"{number}_Friend.root")
        rows = found["selected"] & (found["part"] == TEST)
        columns["score"].append(found["score_signal"][rows])
        columns["label"].append(events["is_signal"][rows])
        columns["weight"].append(events["weight"][rows])
    score, label, weight = (np.concatenate(parts) for parts in columns.values())
    assert told["events"] == len(score)
    assert metrics.auc(score, label, weight=weight) == pytest.approx(told["auc"], abs=1e-6)


def test_what_is_there_is_left_and_what_changed_is_made_again(analysis, tmp_path):
    write(tmp_path / "in/x.root", make_events(50, 7))
    write(tmp_path / "in/y.root", make_events(60, 8))
    first = predict(analysis.bundle, f"{tmp_path}/in/*.root", out=tmp_path)
    assert [len(first.written), len(first.skipped)] == [2, 0]
    before = {path: path.stat().st_mtime_ns for path in first.written}
    write(tmp_path / "in/y.root", make_events(61, 9))
    again = predict(analysis.bundle, f"{tmp_path}/in/*.root", out=tmp_path)
    assert [path.name for path in again.skipped] == ["x_Friend.root"]
    assert again.skipped[0].stat().st_mtime_ns == before[again.skipped[0]]
    assert arrays(tmp_path / "y_Friend.root")["event"].tolist() == list(range(9000, 9061))
    assert files_below(tmp_path) == ["in", "in/x.root", "in/y.root", "x_Friend.root", "y_Friend.root"]
    others = predict(analysis.bundle, f"{tmp_path}/in/*.root", out=tmp_path, observers=["met"])
    assert len(others.written) == 2
    assert set(arrays(tmp_path / "x_Friend.root")) == {"entry", "selected", "score_signal", "met"}


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("events", [0, 1, 40])
def test_empty_and_unselected_files_are_aligned_too(analysis, tmp_path, kind, events):
    none = {**make_events(events, 1), "met": np.zeros(events, np.float32)}
    write(tmp_path / "none.root", none, kind=kind)
    predict(analysis.bundle, str(tmp_path / "none.root"), out=tmp_path / "out", kind=kind, parts=True)
    found = arrays(tmp_path / "out/none_Friend.root")
    assert found["entry"].tolist() == list(range(events))
    assert found["score_signal"].tolist() == [-1.0] * events
    assert (found["event"].dtype, found["part"].dtype) == (np.int64, np.int8)


def test_of_several_trees_that_of_the_training_is_read(analysis, tmp_path):
    path = tmp_path / "in/x.root"
    write(path, make_events(40, 3))
    with uproot.update(path) as file:
        add(file, make_events(30, 4), tree="Others")
    predict(analysis.bundle, str(path), out=tmp_path / "own")
    assert arrays(tmp_path / "own/x_Friend.root")["event"].tolist() == list(range(3000, 3040))
    predict(analysis.bundle, [f"{path}:Others", f"{path}:Events"], out=tmp_path / "both")
    assert arrays(tmp_path / "both/x_Others_Friend.root")["event"].tolist() == list(range(4000, 4030))
    assert arrays(tmp_path / "both/x_Events_Friend.root")["event"].tolist() == list(range(3000, 3040))
    predict(analysis.bundle, f"{path}:Others", out=tmp_path / "asked")
    with pytest.raises(FileError, match=r"asked/x_Friend\.root exists and holds the scores of .*/x\.root:Others; "):
        predict(analysis.bundle, str(path), out=tmp_path / "asked")
    assert not predict(analysis.bundle, f"{path}:Events", out=tmp_path / "own").written
    mixed = predict(analysis.bundle, [f"{path}:Others", str(path)], out=tmp_path / "mixed")
    assert [written.name for written in mixed.written] == ["x_Others_Friend.root", "x_Friend.root"]


def test_what_stands_beside_the_scores_is_chosen(analysis, tmp_path):
    write(tmp_path / "x.root", {**make_events(60, 3), "Jet.id": np.arange(60, dtype="i2")})
    options = {
        "observers": {"n.jets": "count(Jet_pt)", "Jet.id": "Jet.id", "high": "met > 50"},
        "weights": {"nominal": "weight", "up": "weight * 2", "flat": 3},
    }
    found = arrays(only(predict(analysis.bundle, str(tmp_path / "x.root"), out=tmp_path, cut=None, **options)))
    weight = make_events(60, 3)["weight"].astype("f4")
    assert list(found) == [
        "entry", "selected", "score_signal", "n_jets", "Jet_id", "high", "weight", "weight_up", "weight_flat",
    ]  # fmt: skip
    assert found["selected"].all()
    assert (found["weight"] == weight).all()
    assert (found["weight_up"] == 2 * weight).all()
    assert (found["weight_flat"] == 3).all()
    assert found["Jet_id"].tolist() == list(range(60))
    assert found["high"].dtype == bool
    fewer = arrays(only(predict(analysis.bundle, str(tmp_path / "x.root"), out=tmp_path, cut="met > 50", fill=-9)))
    assert (fewer["score_signal"] == np.where(found["high"], found["score_signal"], np.float32(-9))).all()


def only(found):
    (path,) = found.written
    return path


def test_observers_need_a_value_in_selected_events_alone(analysis, tmp_path):
    write(tmp_path / "x.root", make_events(60, 3))
    observers = {"high": "Jet_pt[0] > 30", "one": "count(Jet_pt) // count(Jet_pt)"}
    has_jets = np.array([len(jets) > 0 for jets in arrays(tmp_path / "x.root", "Events")["Jet_pt"]])
    assert 0 < has_jets.sum() < 60
    options = {"observers": observers, "out": tmp_path / "o"}
    found = arrays(only(predict(analysis.bundle, str(tmp_path / "x.root"), cut="count(Jet_pt) > 0", **options)))
    assert found["selected"].tolist() == has_jets.tolist()
    assert found["one"].tolist() == np.where(has_jets, 1, -1).tolist()
    assert not found["high"][~has_jets].any()
    with pytest.raises(DataError, match=r"'high'.* is missing"):
        predict(analysis.bundle, str(tmp_path / "x.root"), cut=None, **options)


def test_an_error_within_a_cut_names_the_entry_in_the_file(analysis, tmp_path):
    write(tmp_path / "x.root", make_events(40, 3), steps=(30,))
    options = {"cut": "event * where(event == 3035, 9223372036854775807, 1) > 0"}
    with pytest.raises(DataError, match=r"is entry 35 of \S*x.root$"):
        predict(analysis.bundle, str(tmp_path / "x.root"), out=tmp_path / "o", **options)


def test_numbers_of_other_types_are_taken_and_never_changed_silently(analysis, tmp_path):
    columns = make_events(30, 3)
    write(tmp_path / "same.root", columns)
    write(tmp_path / "wide.root", {**columns, "met": columns["met"].astype("f8")})
    predict(analysis.bundle, str(tmp_path / "*.root"), out=tmp_path / "o")
    same, wide = (arrays(tmp_path / f"o/{name}_Friend.root") for name in ("same", "wide"))
    assert same["score_signal"].tolist() == wide["score_signal"].tolist()
    columns["met"] = columns["met"].astype("f8")
    columns["met"][7] = 1e300
    write(tmp_path / "huge.root", columns)
    with pytest.raises(DataError, match=r"'met' is 1e\+300 at entry 7 of .*huge.root .*float32, which can't hold that"):
        predict(analysis.bundle, str(tmp_path / "huge.root"), out=tmp_path / "o")
    assert not (tmp_path / "o/huge_Friend.root").exists()
    predict(analysis.bundle, str(tmp_path / "huge.root"), out=tmp_path / "o", cut="10 < met < 1e30")
    huge, is_left = arrays(tmp_path / "o/huge_Friend.root"), np.arange(30) == 7
    assert huge["score_signal"].tolist() == np.where(is_left, -1, same["score_signal"]).tolist()


def bad(analysis, folder):
    """Make what is wrong: a name to options, and words of the sentence that is told."""
    write(folder / "x.root", {"mett": np.zeros(3, "f4"), "Jet": make_events(3)["Jet"]})
    write(folder / "flat.root", {**branches(make_events(3)), "Jet_pt": np.zeros(3, "f4")})
    write(folder / "good.root", make_events(3))
    (folder / "other").mkdir()
    (folder / "other/good_Friend.root").write_bytes(b"mine")
    (folder / "none").mkdir()
    bundle, good = str(analysis.bundle), f"{folder}/good.root"
    return {
        "inputs": ((bundle, f"{folder}/x.root"), {}, BranchError, "'met' not found; nearest: 'mett' .*'Events'"),
        "kind": ((bundle, f"{folder}/flat.root"), {}, BranchError, "'Jet_pt': got one number .* takes a list an event"),
        "observer": ((bundle, good), {"observers": ["evnt"]}, BranchError, "'evnt' not found; nearest: 'event'"),
        "files": ((bundle, f"{folder}/z*.root"), {}, FileError, "no file matches"),
        "none": ((bundle, []), {}, ConfigError, "files: got none"),
        "bundle": ((str(folder / "none"), good), {}, BundleError, "is no bundle, it has no manifest.json"),
        "long": ((bundle, good), {"out": folder / ("o" * 300)}, FileError, "can't be written .File name too long"),
        "nul": ((bundle, good), {"out": "a\0b"}, ConfigError, "out: got 'a.x00b', which can't be the name of a folder"),
        "above": ((str(analysis.bundle.parent), good), {}, BundleError, "did you mean .*bundle"),
        "absent": ((str(folder / "nothing"), good), {}, BundleError, "is no folder"),
        "scheme": (("htp://host/models/x", good), {}, ConfigError, "begins with http:// or https://; nearest: 'http'"),
        "exists": ((bundle, good), {"out": folder / "other"}, FileError, "is no file of scores; .* force=true"),
        "names": ((bundle, good), {"observers": {"Entry": "met"}}, ConfigError, "would be called 'entry'"),
        "cut": ((bundle, good), {"cut": "met >"}, ExpressionError, "cut"),
        "fill": ((bundle, good), {"fill": 1e39}, ConfigError, "fill: got 1e\\+39, which is beyond float32"),
        "own": ((bundle, good), {"cut": "mett > 1"}, BranchError, "nearest: 'met', .*; cut='...' needs it"),
        "lists": ((bundle, good), {"cut": "Jet_pt > 30"}, DataError, r"\(\S*root, tree 'Events', entries 0 to 0\)$"),
        "number": ((bundle, good), {"kind": "ttree"}, ConfigError, "kind: got 'ttree'"),
        "name": ((bundle, good), {"name": "a.b"}, ConfigError, "expected a plain word for the tree"),
        "weights": ((bundle, good), {"weights": {"up": "where(met > 1e9, 1, log(-1))"}}, DataError, "'weight_up' is"),
    }  # fmt: skip


def test_mistakes_are_told_in_one_sentence_before_anything_is_written(analysis, tmp_path):
    for name, (words, options, kind, told) in bad(analysis, tmp_path).items():
        before = files_below(tmp_path)
        with pytest.raises(kind, match=told) as error:
            predict(*words, **{"out": tmp_path / "out", "cut": None if name == "weights" else "bundle"} | options)
        assert "\n" not in str(error.value) or kind is ExpressionError, name  # which points at the place
        assert [f for f in files_below(tmp_path) if f != "out"] == before, name


def changed(bundle: Path, folder: Path, **selection: Any) -> Path:
    """Copy a bundle, and change which events its network was trained on."""
    shutil.copytree(bundle, folder)
    plain = json.loads((folder / "manifest.json").read_text())
    plain["selection"] |= selection
    (folder / "manifest.json").write_text(json.dumps(plain))
    return folder


def test_parts_follow_the_split_of_the_training(analysis, tmp_path):
    split = {"by": "event % 5", "train": [2, 3], "val": [0], "test": [1]}
    bundle = changed(analysis.bundle, tmp_path / "bundle", split=split)
    found = arrays(only(predict(bundle, str(analysis.events / "1.root"), out=tmp_path, parts=True)))
    assert found["part"].tolist() == [[1, 2, 0, 0, -1][event % 5] for event in found["event"].tolist()]


def test_other_observers_or_parts_of_the_same_model_are_made_again(analysis, tmp_path):
    path, out = str(analysis.events / "1.root"), tmp_path / "out"
    predict(analysis.bundle, path, out=out, parts=True)
    other = changed(
        analysis.bundle, tmp_path / "split", split={"by": "event % 2", "train": [0], "val": [], "test": [1]}
    )
    found = arrays(only(predict(other, path, out=out, parts=True)))
    assert found["part"].tolist() == [[0, 2][event % 2] for event in found["event"].tolist()]
    assert not predict(other, path, out=out, parts=True).written
    plain = json.loads((other / "manifest.json").read_text())
    plain["training"]["data"]["observers"] = {"event": "event + 1"}
    (other / "manifest.json").write_text(json.dumps(plain))
    assert arrays(only(predict(other, path, out=out, parts=True)))["event"].tolist() == (found["event"] + 1).tolist()
    assert not predict(other, path, out=out, parts=True).written


def test_of_cuts_of_samples_those_count_of_which_the_file_has_the_branches(analysis, tmp_path):
    cuts = {"a": "event % 2 == 0", "b": "generated > 0", "c": "met > 80"}
    bundle = changed(analysis.bundle, tmp_path / "x", cut="met > 20", samples={n: {"cut": c} for n, c in cuts.items()})
    path, out = str(analysis.events / "1.root"), tmp_path / "out"
    events, found = arrays(Path(path), "Events"), arrays(only(predict(bundle, path, out=out)))
    expected = (events["met"] > 20) & ((events["event"] % 2 == 0) | (events["met"] > 80))
    assert found["selected"].tolist() == expected.tolist()
    none = changed(analysis.bundle, tmp_path / "y", samples={"b": {"cut": "generated > 0"}})
    with pytest.raises(BranchError, match=r"'generated' not found.*cut=null scores all events"):
        predict(none, path, out=out, force=True)


def test_another_models_scores_are_left_unless_forced(analysis, tmp_path):
    write(tmp_path / "x.root", make_events(20, 3))
    path = only(predict(analysis.bundle, str(tmp_path / "x.root"), out=tmp_path))
    other = changed(analysis.bundle, tmp_path / "other", cut=None)
    content = path.read_bytes()
    with pytest.raises(FileError, match=r"holds scores of another model, '.*/bundle'; .* force=true"):
        predict(other, str(tmp_path / "x.root"), out=tmp_path)
    assert path.read_bytes() == content
    assert only(predict(other, str(tmp_path / "x.root"), out=tmp_path, force=True)) == path
    assert arrays(path)["selected"].all()
    write(tmp_path / "in/x.root", make_events(20, 4))
    with pytest.raises(FileError, match=r"holds the scores of .*/x\.root:Events; "):
        predict(other, str(tmp_path / "in/x.root"), out=tmp_path)


def test_what_another_model_wrote_meanwhile_is_left(analysis, tmp_path, monkeypatch):
    other, event_file = changed(analysis.bundle, tmp_path / "other", cut=None), tmp_path / "x.root"
    write(event_file, make_events(20, 3))

    class Slow(BundleScorer):
        def scores(self, table, *, where):
            with monkeypatch.context() as quick:
                quick.setattr(module, "open_scorer", BundleScorer)
                predict(other, str(event_file), out=tmp_path / "out")
            return super().scores(table, where=where)

    monkeypatch.setattr(module, "open_scorer", Slow)
    with pytest.raises(FileError, match=r"holds scores of another model, '.*/other'; .* force=true"):
        predict(analysis.bundle, str(event_file), out=tmp_path / "out")
    assert arrays(tmp_path / "out/x_Friend.root")["selected"].all()
    assert files_below(tmp_path / "out") == ["x_Friend.root"]


@pytest.mark.long
@xrootd
def test_a_server_of_xrootd_is_read_and_gone_on_with(analysis, tmp_path):
    shutil.copytree(analysis.events, tmp_path / "events")
    names = ["0", "1", "3"]
    with XRootDServer(tmp_path / "events") as server:
        urls = [f"{server.url}/{name}.root" for name in names]
        first = predict(analysis.bundle, urls[0], out=tmp_path / "out")
        found = predict(analysis.bundle, urls, out=tmp_path / "out", workers=2)
        assert found.skipped == first.written
        assert predict(analysis.bundle, urls, out=tmp_path / "out").written == ()
        assert len(predict(analysis.bundle, f"{server.url}/*.root", out=tmp_path / "all").written) == 4
        write(tmp_path / "events/1.root", make_events(30, 9))  # the server's file has changed
        assert [p.name for p in predict(analysis.bundle, urls, out=tmp_path / "out").written] == ["1_Friend.root"]
        with pytest.raises(FileError, match=r"root://.*/9\.root"):
            predict(analysis.bundle, f"{server.url}/9.root", out=tmp_path / "out")
        server.stop()
        with pytest.raises(FileError, match=r"root://"):
            predict(analysis.bundle, urls[0], out=tmp_path / "late", patience=1, deadline=2)
    here = predict(analysis.bundle, [str(tmp_path / f"events/{name}.root") for name in names], out=tmp_path / "here")
    for path in here.written:
        one, other = arrays(path), arrays(tmp_path / "out" / path.name)
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_files_elsewhere_are_read_as_those_here(analysis, tmp_path):
    with HTTPServer(analysis.events) as server:
        first = predict(
            analysis.bundle, [f"{server.url}/{n}.root?token=secret" for n in (0, 3)], out=tmp_path, workers=2
        )
        again = predict(analysis.bundle, [f"{server.url}/{n}.root?token=other" for n in (0, 3)], out=tmp_path)
    assert [path.name for path in first.written] == ["0_Friend.root", "3_Friend.root"]
    assert again.skipped == first.written
    here = predict(analysis.bundle, [str(analysis.events / f"{n}.root") for n in (0, 3)], out=tmp_path / "here")
    for one, other in zip(first.written, here.written, strict=True):
        assert arrays(one)["score_signal"].tolist() == arrays(other)["score_signal"].tolist()
        assert b"secret" not in one.read_bytes()


def test_what_an_earlier_call_wrote_below_the_events_is_no_input(analysis, tmp_path):
    for folder in ("a", "b"):
        write(tmp_path / folder / "x.root", make_events(20, 3))
    first = predict(analysis.bundle, f"{tmp_path}/**/*.root", out=tmp_path / "a/friends")
    assert files_below(tmp_path / "a/friends") == ["a", "a/x_Friend.root", "b", "b/x_Friend.root"]
    assert predict(analysis.bundle, f"{tmp_path}/**/*.root", out=tmp_path / "a/friends").skipped == first.written
    with pytest.raises(FileError, match=r"x_Friend\.root holds scores, as all that was named"):
        predict(analysis.bundle, f"{tmp_path}/**/*_Friend.root", out=tmp_path / "a")


def test_they_are_friends_of_another_training(analysis, friends):
    sample = {"files": str(analysis.events / "[0-2].root"), "friends": {"nn": str(friends / "[0-2]*.root")}}
    options = {
        "samples": {"a": sample},
        "flat": ["met", "score_signal"], "cut": "nn.selected", "observers": ["event", "nn.event"],
    }  # fmt: skip
    batches = list(RootDataset(options, "test"))
    assert batches
    assert all((batch["observers/event"] == batch["observers/nn.event"]).all() for batch in batches)


PEAK = """
import sys
from rootdata.analysis.friends.predict import predict
predict(sys.argv[1], sys.argv[2], out=sys.argv[3], workers=1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(analysis, tmp_path):
    peaks = []
    for size in (100_000, 800_000):
        write(tmp_path / f"{size}.root", make_events(size), steps=range(20_000, size, 20_000))
        words = [sys.executable, "-c", PEAK, str(analysis.bundle), str(tmp_path / f"{size}.root"), str(tmp_path)]
        peaks.append(int(subprocess.run(words, capture_output=True, check=True).stdout))
        assert uproot.open(tmp_path / f"{size}_Friend.root")["Friends"].num_entries == size
    assert peaks[1] - peaks[0] < 30_000, peaks  # kB


KILLED = """
import sys
from rootdata.analysis.friends.predict import predict
print("ready", flush=True)
predict(sys.argv[1], sys.argv[2], out=sys.argv[3], workers=2)
"""


def killed_after(files: int, analysis, events: Path, out: Path) -> int:
    """Kill -9 a process once so many files are finished and another is begun; return how many are."""
    words = [sys.executable, "-c", KILLED, str(analysis.bundle), str(events), str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        while process.poll() is None:
            if len(list(out.glob("*_Friend.root"))) >= files and list(out.glob(".*.partial")):
                process.kill()
        assert process.stdout is not None
    assert process.returncode == -signal.SIGKILL
    return len(list(out.glob("*_Friend.root")))


@pytest.mark.long
def test_killed_in_the_middle_it_goes_on_with_the_files_that_are_left(analysis, tmp_path):
    for number in range(5):
        write(tmp_path / f"in/{number}.root", make_events(60_000, number), steps=range(2000, 60_000, 2000))
    whole = predict(analysis.bundle, str(tmp_path / "in"), out=tmp_path / "whole")
    for files in (0, 2):
        out = tmp_path / f"killed{files}"
        out.mkdir()
        finished = killed_after(files, analysis, tmp_path / "in", out)
        found = predict(analysis.bundle, str(tmp_path / "in"), out=out)
        assert len(found.skipped) == finished
        assert finished < 5
        for path in whole.written:
            one, other = arrays(path), arrays(out / path.name)
            assert list(one) == list(other)
            assert all((one[name] == other[name]).all() for name in one)
        assert files_below(out) == [path.name for path in whole.written]
