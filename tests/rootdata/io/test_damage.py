"""Damaged files give what they held, or an error that names file and branch: never another value, never twice another.

What is damaged is what files say of themselves: lengths, positions, places, numbers of entries and elements. Numbers
that were changed in an intact file nobody can tell from those that were meant.
"""

import collections
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rootdata.io import trees

CHILD = Path(__file__).parents[1] / "damage_for_tests.py"
MOST_MEMORY = 400_000  # kB more than before, over all files


def told_of(folder, seed, count, **environment):
    """Damage and read files in a process of its own, and return what it tells of each."""
    places = [str(Path(trees.__file__).parents[2]), str(CHILD.parent), str(CHILD.parents[1])]
    done = subprocess.run(
        [sys.executable, str(CHILD), str(folder), str(seed), str(count)],
        capture_output=True, text=True, check=False, timeout=1800,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), **environment},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.stderr[-2000:])
    return [line for line in lines if "what" in line]


def is_good(told):
    """Say whether what was told is one of what may be told."""
    kind, sentence = told["first"]
    if told["first"] != told["second"] or told["grown"] > MOST_MEMORY:
        return False
    if kind == "values":
        return told["is_right"]
    file = told["what"].split(".root")[0]
    name = told["named"]
    branch = repr(name) if stem(name) == name else f"'{stem(name)}"
    return kind == "error" and f"{file}." in sentence and branch in sentence


def stem(column):
    """Return what the names of a column and of the branch that it is a part of begin with."""
    return re.split(r"[.[]", column)[0]


def check(told, count):
    assert [t for t in told if not is_good(t)] == []
    outcomes = collections.Counter(t["first"][0] for t in told)
    assert sum(outcomes.values()) == count
    assert outcomes["error"] > count / 2  # else nothing was damaged
    assert outcomes["values"] > 0


@pytest.mark.long
def test_damaged_files_give_their_values_or_say_that_they_are_damaged(tmp_path):
    check(told_of(tmp_path, 1, 400), 400)


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "count"), [(2, 800), *(pytest.param(seed, 2000, marks=pytest.mark.matrix) for seed in (2, 3, 4, 5))]
)
def test_many_damaged_files(tmp_path, seed, count):
    check(told_of(tmp_path, seed, count), count)


@pytest.mark.long
def test_no_compiled_loop_leaves_its_arrays(tmp_path):
    # With its checks on, numba raises where a loop would read or write outside of an array.
    compiled = tmp_path / "compiled"
    told = told_of(tmp_path, 9, 600, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(compiled))
    assert any(compiled.rglob("*.nbi"))
    check(told, 600)
