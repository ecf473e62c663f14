"""What is shipped: one version, told once, and packages whose types others may rely on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import rootdata

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_told_once_and_is_the_one_that_the_changelog_ends_with() -> None:
    assert "version" not in PYPROJECT["project"]
    assert "version" in PYPROJECT["project"]["dynamic"]
    source = (ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]).read_text()
    (told,) = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    assert told == rootdata.__version__
    first, *released = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == "Unreleased"
    assert released[0] == told


def test_every_release_has_its_day_and_the_latest_stands_first() -> None:
    releases = re.findall(r"^## (\d\S*) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(releases) == len(re.findall(r"^## (?!Unreleased$)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert [day for _, day in releases] == sorted((day for _, day in releases), reverse=True)


def test_every_package_of_the_wheel_says_that_it_is_typed() -> None:
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(packages) == ["src/rootdata", "src/serve"]
    assert [p for p in packages if not (ROOT / p / "py.typed").is_file()] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_what_contributors_are_told_to_open_or_run_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:src|tests|docs|configs|benchmarks|\.ci)/[\w./]*|[\w./]+\.(?:toml|txt|md))`", text)
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    assert named + linked
    assert [place for place in named + linked if not (ROOT / place).exists()] == []
    for target in re.findall(r"\bmake ([a-z-]+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("src/rootdata/layouts/layout.py", ["class LayoutKind", "def gather", "def tensors", "def unpack"]),
        ("src/rootdata/scaling/kinds.py", ["class ScalingKind"]),
        ("src/rootdata/scaling/curves.py", ["class Curve"]),
        ("src/rootdata/registry.py", ["LAYOUTS =", "SCALINGS =", '"rootdata.layouts"', '"rootdata.scalings"']),
        ("src/serve/formats/known.py", ["FORMATS ="]),
    ],
)
def test_the_seams_are_where_contributors_are_sent(page: str, names: list[str]) -> None:
    source = (ROOT / page).read_text()
    assert page in (ROOT / "CONTRIBUTING.md").read_text()
    assert [name for name in names if name not in source] == []


def test_the_citation_is_of_this_version_and_can_be_read() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (day,) = re.findall(rf"^## {rootdata.__version__} - (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["version"], str(citation["date-released"])) == (rootdata.__version__, day)
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert [r["doi"] for r in citation["references"]] == re.findall(
        r"doi:(10\.[\w./-]+)", (ROOT / "README.md").read_text()
    )


def test_hooks_before_a_commit_run_what_is_here_and_fetch_nothing() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    developers = {re.split(r"\W", r)[0] for r in PYPROJECT["project"]["optional-dependencies"]["dev"]}
    tools = [hook["entry"].split() for hook in repository["hooks"]]
    for command, *options in tools:
        name = Path(command).name
        assert command == f".venv/bin/{name}"  # which `make` makes
        assert name in developers
        beside = Path(sys.executable).with_name(name)
        done = subprocess.run([beside, *options, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    checks = [
        line.split("/", 1)[1] for line in planned("check") if "$(BIN)" not in line and line.startswith(".venv/bin")
    ]
    assert {c.split()[0].removeprefix("bin/") for c in checks} == {Path(command).name for command, *_ in tools}


def planned(target: str) -> list[str]:
    """List the commands that make would run."""
    done = subprocess.run(
        ["make", "-n", "-o", ".venv/.tested", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_tests_that_the_documentation_names_are_there() -> None:
    known = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    for page in (ROOT / "docs").glob("*.md"):
        assert set(re.findall(r"\btest_\w+\.py", page.read_text())) - known == set(), page.name


def test_the_tests_that_are_run_with_other_versions_are_there() -> None:
    names = (ROOT / ".ci" / "tests_of_versions").read_text().split()
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert names == sorted(set(names))
    for script in ("lowest", "newest"):
        assert "$(cat .ci/tests_of_versions)" in (ROOT / ".ci" / script).read_text()
