"""What is shipped: one version, told once, and packages whose types others may rely on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
