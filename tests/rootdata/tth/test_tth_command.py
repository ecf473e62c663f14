"""The command line of the generators."""

from __future__ import annotations

import argparse

import pytest

from rootdata.errors import ConfigError
from rootdata.tth.command import add_arguments, run


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults():
    found = vars(parse())
    assert str(found.pop("folder")) == "data/tth"
    assert found == {"n_events": 100_000, "seed": 1, "generator": "fast", "set": "selected"}


@pytest.mark.parametrize(("which", "n_files"), [("selected", 9), ("full", 8)])
def test_a_set_is_made_and_reported(tmp_path, capsys, which, n_files):
    arguments = parse(str(tmp_path / "set"), "--n-events", "200", "--seed", "7", "--set", which)
    assert run(arguments) == 0
    assert f"{n_files} files" in capsys.readouterr().out
    assert len(list((tmp_path / "set").glob("*.root"))) == n_files


def test_pythia_makes_no_full_set(tmp_path):
    with pytest.raises(ConfigError, match="--generator fast"):
        run(parse(str(tmp_path / "set"), "--generator", "pythia", "--set", "full"))


@pytest.mark.parametrize("arguments", [["--generator", "herwig"], ["--n-events", "many"]])
def test_nonsense_is_refused(arguments):
    with pytest.raises(SystemExit):
        parse(*arguments)
