"""The same by a command, and by Hydra: every option, and mistakes in one sentence with status 2."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import uproot
from omegaconf import OmegaConf

from rootdata.__main__ import main
from rootdata.analysis.friends.predict import WrittenFriends, predict

ROOT = Path(__file__).parents[4]


def columns(path):
    return uproot.open(path)["Friends"].keys()


def test_the_command_writes_friends_and_says_where(analysis, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["predict", str(analysis.bundle), str(analysis.events / "[01].root"), "--cut", "none", "--workers", "2"]
    words += ["--observer", "high=met>=50", "--observer", "met", "--weight", "up=weight*2", "--parts"]
    assert main(words) == 0
    assert capsys.readouterr().out.split() == ["friends/0_Friend.root", "friends/1_Friend.root"]
    expected = ["entry", "selected", "part", "score_signal", "high", "met", "weight_up"]
    assert columns("friends/1_Friend.root") == expected
    assert main(words) == 0
    assert capsys.readouterr().out.count("was there already") == 2


@pytest.mark.parametrize("word", ["none", "null"])
def test_no_cut_is_called_as_hydra_and_the_errors_call_it(word, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr(
        "rootdata.analysis.friends.predict.predict",
        lambda **o: asked.update(o) or WrittenFriends(written=(), skipped=()),
    )
    assert main(["predict", "bundle", "events.root", "--cut", word]) == 0
    assert asked["cut"] is None


def test_mistakes_end_the_command_with_status_2(analysis, tmp_path, capsys):
    events = str(analysis.events / "0.root")
    for words in (
        [str(tmp_path), events],
        [str(analysis.bundle), str(tmp_path / "none.root")],
        [str(analysis.bundle), events, "--weight", "up"],
        [str(analysis.bundle), events, "--observer", "nothing"],
    ):
        assert main(["predict", *words, "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert told.startswith("rootdata: ")
        assert told.count("\n") == 1


def test_the_configuration_lists_every_option_with_its_default():
    options = inspect.signature(predict).parameters
    listed = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/predict.yaml"))
    del listed["hydra"]
    assert {*listed} == {*options}
    changed = {"bundle", "files", "progress"}
    assert {n: v for n, v in listed.items() if n not in changed} == {
        n: p.default for n, p in options.items() if n not in changed
    }


@pytest.mark.long
def test_hydra_calls_the_same(analysis, tmp_path):
    def run(*words):
        command = [sys.executable, str(ROOT / "predict.py"), *words]
        own = {"PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.split(), done.stderr.strip()

    files = f"files=[{analysis.events / '0.root'},{analysis.events / '3.root'}]"
    given = (f"bundle={analysis.bundle}", files, "observers={n: 'count(Jet_pt)'}", "weights={nominal: weight}")
    assert run(*given) == (0, ["friends/0_Friend.root", "friends/3_Friend.root"], "")
    assert columns(tmp_path / "friends/3_Friend.root") == ["entry", "selected", "score_signal", "n", "weight"]
    status, _, told = run(f"bundle={analysis.bundle}", files, "observer=[met]")
    assert (status, told) == (2, "predict.py: 'observer' is not an option; nearest: 'observers'")
    status, _, told = run(f"bundle={analysis.bundle}", files, "colour=red")
    assert status == 2
    assert told.startswith("predict.py: 'colour' is not an option; known: 'bundle', 'cut', 'deadline', ")
    assert "'data'" not in told
    kept = set(tmp_path.rglob("*"))
    status, _, told = run(f"bundle={tmp_path}", files)
    assert status == 2
    assert "is no bundle" in told
    assert set(tmp_path.rglob("*")) == kept
