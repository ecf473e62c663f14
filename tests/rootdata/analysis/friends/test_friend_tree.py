"""Friend trees as others read them: aligned in uproot and in ROOT; whole, or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import files_below, make_events, write
from hypothesis import given
from hypothesis import strategies as st

from rootdata.analysis.friends import tree
from rootdata.analysis.friends.predict import predict
from rootdata.errors import FileError

TYPES = {"entry": np.dtype(np.int64), "selected": np.dtype(bool), "score": np.dtype(np.float32), "part": np.dtype("i1")}


@given(st.text(max_size=20))
def test_names_are_plain_words(name):
    plain = tree.plain_name(name)
    assert plain.isascii()
    assert plain.isidentifier()
    assert tree.plain_name(plain) == plain


@pytest.mark.parametrize("kind", tree.KINDS)
@pytest.mark.parametrize("pieces", [[], [0], [1], [3, 0, tree.ROWS, 7], [2 * tree.ROWS + 1]])
def test_what_is_written_is_read_back(tmp_path, kind, pieces):
    path, start, origin = tmp_path / "deep/x.root", 0, {"model": "m", "checksum": "1"}
    with tree.writing(path, TYPES, origin=origin, kind=kind) as writer:
        for size in pieces:
            entry = np.arange(start, start + size)
            columns = {"entry": entry, "selected": entry % 3 == 0, "score": entry / 7, "part": entry % 4 - 1}
            writer.write(columns)
            start += size
    with uproot.open(path) as file:
        found = file["Friends"].arrays(library="np")
    assert found["entry"].tolist() == list(range(start))
    assert {name: column.dtype for name, column in found.items()} == TYPES
    assert (found["score"] == (found["entry"] / 7).astype(np.float32)).all()
    assert (found["selected"] == (found["entry"] % 3 == 0)).all()
    assert tree.origin_of(path) == origin
    assert files_below(tmp_path) == ["deep", "deep/x.root"]


def test_a_file_that_is_not_finished_is_not_there(tmp_path):
    with pytest.raises(KeyError, match="score"), tree.writing(tmp_path / "x.root", TYPES, origin={}) as writer:
        writer.write({name: np.zeros(5, TYPES[name]) for name in ("entry", "selected")})
    assert files_below(tmp_path) == []


def test_a_place_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/x\.root can't be written"), tree.writing(
        tmp_path / "file/x.root", TYPES, origin={}
    ):  # fmt: skip
        pass


def root_python() -> str:
    """Return a Python that has ROOT: this one, or the one that ``ROOT_PYTHON`` names."""
    python = os.environ.get("ROOT_PYTHON", sys.executable)
    if subprocess.run([python, "-W", "ignore", "-c", "import ROOT"], capture_output=True, check=False).returncode:
        pytest.skip("NO ROOT: friend trees were read by uproot alone; let ROOT_PYTHON name a Python that has it")
    return python


@pytest.mark.long
def test_root_attaches_them_entry_by_entry(analysis, tmp_path):
    python = root_python()
    none = {**make_events(30, 5), "met": np.zeros(30, np.float32)}
    write(tmp_path / "in/none.root", none)
    write(tmp_path / "in/empty.root", make_events(0))
    with uproot.recreate(tmp_path / "in/ntuple.root") as file:  # in one cluster: ROOT refuses one that is empty
        file.mkrntuple("Events", {n: ak.zip(c) if isinstance(c, dict) else c for n, c in make_events(70, 3).items()})
    trees, joined = tmp_path / "trees", tmp_path / "ntuples"
    files = [str(analysis.events), str(tmp_path / "in")]
    predict(analysis.bundle, files, out=trees)
    predict(analysis.bundle, files, out=joined, kind="RNTuple")
    pairs = {
        name: (str(folder / f"{name}.root"), str(trees / f"{name}_Friend.root"))
        for name, folder in {"0": analysis.events, "none": tmp_path / "in", "empty": tmp_path / "in"}.items()
    }
    chain = [(str(analysis.events / f"{n}.root"), str(trees / f"{n}_Friend.root")) for n in range(3)]
    cases = {"trees": pairs, "chain": [chain[0], pairs["empty"], *chain[1:]]}
    ntuples = [str(tmp_path / "in/ntuple.root"), str(joined / "ntuple_Friend.root")]
    (tmp_path / "cases.json").write_text(json.dumps({**cases, "joined": ntuples}))
    script = Path(__file__).with_name("with_root.py")
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "ignore", str(script), str(tmp_path / "cases.json")], capture_output=True, text=True, env=plain,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    sums = {name: [len(score), 0, score.sum(dtype=np.float64)] for name, score in _scores(pairs, joined).items()}
    sums["chain"] = sums["spec"] = np.sum([_sums(pair[1]) for pair in cases["chain"]], axis=0).tolist()
    assert found.keys() == sums.keys()
    for name, expected in sums.items():
        assert found[name] == pytest.approx(expected), name


def _scores(pairs, joined):
    paths = {name: path for name, (_, path) in pairs.items()} | {"joined": str(joined / "ntuple_Friend.root")}
    return {name: uproot.open(path)["Friends"]["score_signal"].array(library="np") for name, path in paths.items()}


def _sums(path):
    score = uproot.open(path)["Friends"]["score_signal"].array(library="np")
    return [len(score), 0, score.sum(dtype=np.float64)]
