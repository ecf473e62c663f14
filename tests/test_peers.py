"""The benchmark beside other libraries: what it makes of measurements, and of libraries that are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import data
from benchmarks.peers import __main__ as peers

ROOT = Path(__file__).parents[1]
LIBRARIES = {"weaver": "weaver", "rdataloader": "ROOT", "f9": "f9columnar"}


def found(cpu: float, **facts: float) -> peers.Found:
    epoch = {"events": 1000, "cpu": cpu, "wall": cpu}
    return {"later epoch": epoch, "first epoch": {**epoch, "cpu": 2 * cpu}, "memory": 10.0, **facts}


def test_ratios_are_taken_within_rounds():
    busy, idle = 10.0, 1.0
    rounds = [
        {peers.BASE: found(load), "peer": found(4 * load, **{"class spread": 1.0})} for load in (busy, idle, busy)
    ]
    table = peers.report(rounds)
    assert table["peer"]["ratio, later epoch"] == pytest.approx(0.25)
    assert table["peer"]["events/CPU-s"] == pytest.approx(1000 / 40)
    assert table["peer"]["class spread"] == 1.0
    assert table[peers.BASE]["class spread"] is None


def test_a_peer_that_failed_is_shown_with_the_reason(capsys):
    rounds = [
        {peers.BASE: found(1.0), "peer": found(1.0)},
        {peers.BASE: found(1.0), "peer": {"error": "no [wheel] here"}},
    ]
    peers.show(peers.report(rounds))
    printed = capsys.readouterr().out
    assert "peer: not measured: no [wheel] here" in printed
    assert "1,000" in printed, "the others keep their figures"


def test_mixing_is_told_by_the_values_of_the_events(tmp_path):
    paths = data.make(tmp_path, files=2, clusters=1)
    find = peers.origins(paths)
    events = np.concatenate([read(path) for path in paths])
    file, stretch = find(events)
    assert np.array_equal(file * 10 + stretch, np.arange(20_000) // 1000)
    in_order = peers.mixing(events.reshape(20, 1000, 2), find, files=2)
    assert in_order == {"class spread": pytest.approx(np.sqrt(1000)), "source blocks": 1.0}
    shuffled = np.random.default_rng(0).permutation(events).reshape(20, 1000, 2)
    mixed = peers.mixing(shuffled, find, files=2)
    assert 0.6 < mixed["class spread"] < 1.4
    assert mixed["source blocks"] == 20
    with pytest.raises(SystemExit, match="not in the files"):
        find(events + 1)


def read(path: Path) -> np.ndarray:
    import uproot

    with uproot.open(f"{path}:Events") as tree:
        return np.stack([tree[name].array(library="np") for name in data.FLAT[:2]], axis=1)


def test_every_setting_has_an_adapter_and_a_name_of_its_own():
    assert {peer.adapter for peer in peers.PEERS} == set(LIBRARIES)
    names = [name for peer in peers.PEERS for name in peer.settings]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("adapter", LIBRARIES)
def test_an_adapter_says_when_its_library_is_missing(adapter):
    """It also starts without this project, which is not in its environment."""
    library = LIBRARIES[adapter]
    code = f"import runpy, sys; sys.modules |= {{{library!r}: None, 'rootdata': None, 'uproot': None}}; "
    code += f"runpy.run_module('benchmarks.peers.{adapter}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "{}"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    error = json.loads(done.stdout)["error"]
    assert library in error
    assert "--install" in error


def test_a_missing_environment_and_a_failing_adapter_are_reported(tmp_path):
    assert "--install" in peers.ask(tmp_path / "weaver" / "bin" / "python", "weaver", {})["error"]
    assert "SyntaxError" in peers.run([sys.executable, "-c", "1 +"])[1]
    assert peers.run([sys.executable, "-c", "import sys; sys.exit(3)"]) == ("", "exit 3")
    assert peers.run([sys.executable, "-c", "print('fine')"]) == ("fine\n", "")
