"""A run with everything installed fails where a test is skipped for a reason that is not listed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PASSES = "def test_that_passes():\n    pass\n"
SKIPS = 'import pytest\n@pytest.mark.skipif(True, reason="needs a moon")\ndef test_that_skips():\n    pass\n'
MODULE = 'import pytest\npytest.importorskip("moon_and_stars", reason="needs stars")\n'
FAILS_AS_EXPECTED = "import pytest\n@pytest.mark.xfail(reason='not yet')\ndef test_x():\n    raise ValueError\n"


def run(folder: Path, tests: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    for number, text in enumerate(tests):
        (folder / f"test_{number}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "allowed").write_text("# why\n\nneeds a moon\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "skips_for_tests", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "workers"])
def test_a_skip_that_is_not_listed_fails_the_run_and_is_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    unlisted = SKIPS.replace("moon", "sun")
    done = run(tmp_path, [PASSES, SKIPS, unlisted, MODULE], "--allowed-skips", "allowed", *options)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    told = done.stdout.split("skipped, and not allowed to be")[1]
    assert "test_2.py::test_that_skips: needs a sun\n" in told
    assert "test_3.py: needs stars\n" in told
    assert "moon" not in told


@pytest.mark.long
@pytest.mark.parametrize("tests", [[PASSES], [PASSES, SKIPS], [PASSES, FAILS_AS_EXPECTED]])
def test_what_is_listed_or_expected_to_fail_passes(tmp_path: Path, tests: list[str]) -> None:
    done = run(tmp_path, tests, "--allowed-skips", "allowed")
    assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_without_the_option_skips_are_free(tmp_path: Path) -> None:
    assert run(tmp_path, [PASSES, SKIPS, MODULE]).returncode == 0


def test_the_run_before_a_merge_watches_both_lanes() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    lanes = [line for line in lines if line.startswith("make test")]
    assert [line.split()[1] for line in lanes] == ["test", "test-long"]
    assert all("--allowed-skips=.ci/allowed_skips" in line for line in lanes)
