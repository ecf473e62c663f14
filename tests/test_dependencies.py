"""What is imported is declared: what comes along with another library today may stay away tomorrow."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"test", "dev", "docs"}
OURS = {
    "rootdata",
    "serve",
    "benchmarks",
    "train",
    *(path.stem for path in (ROOT / "examples" / "extend").glob("*.py")),
}
# Lightning has two distributions, and a user's own one is met: `lightning` is imported where it is installed.
OPTIONAL = {"lightning"}
# The libraries of whose insides something is used: a minor release may move it.
PRIVATE = ("litserve", "pytorch-lightning", "uproot", "uvicorn")


def names_of(requirements: list[str]) -> set[str]:
    return {canonical(Requirement(r).name) for r in requirements}


PINNED = {
    canonical(name): version
    for name, version in re.findall(r"^([^#=]+)==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
BASE = names_of(PROJECT["dependencies"])
FOR_USERS = BASE.union(*(names_of(needs) for extra, needs in EXTRAS.items() if extra not in FOR_DEVELOPERS))
FOR_TESTS = FOR_USERS | names_of(EXTRAS["test"])


def imports_of(tree: ast.AST, *, at_once: bool) -> Iterator[str]:
    """Give the top-level packages that a module imports.

    Parameters
    ----------
    at_once : leave out what is imported inside functions, under ``try``, and for type checkers alone
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif not (at_once and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try, ast.If))):
            yield from imports_of(node, at_once=at_once)


@functools.cache
def homes() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def undeclared(folder: str, declared: set[str], *, at_once: bool) -> dict[str, str]:
    """Map what no declared distribution brings to a module that imports it."""
    # The scripts below tests/data ran once, in environments of their own.
    paths = [p for p in sorted((ROOT / folder).rglob("*.py")) if ROOT / "tests" / "data" not in p.parents]
    known = set(sys.stdlib_module_names) | OURS | {p.stem for p in paths} | {p.parent.name for p in paths}
    found = {}
    for path in paths:
        for name in set(imports_of(ast.parse(path.read_text()), at_once=at_once)) - known:
            # What is not installed here is called as its distribution is.
            if not {canonical(home) for home in homes().get(name, [name])} & declared:
                found[name] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize(
    ("folder", "declared", "at_once"),
    [
        ("src/rootdata", BASE, True),
        ("src/rootdata", FOR_USERS | OPTIONAL, False),
        ("src/serve", BASE | names_of(EXTRAS["serve"]), False),
        ("tests", FOR_TESTS, True),
    ],
)
def test_what_is_imported_is_declared(folder: str, declared: set[str], at_once: bool) -> None:
    assert undeclared(folder, declared, at_once=at_once) == {}


def test_an_import_that_is_not_declared_is_seen() -> None:
    assert undeclared("src/rootdata", BASE - {"numpy"}, at_once=True).keys() == {"numpy"}
    assert "distributed" in undeclared("src/rootdata", BASE, at_once=False)


@pytest.mark.parametrize("name", PRIVATE)
def test_what_is_used_of_the_insides_of_others_ends_before_their_next_minor_release(name: str) -> None:
    (line,) = re.findall(rf'^ *"({name}[>=].*)",  # (?:.*)$', PYPROJECT, re.MULTILINE)
    specifier = Requirement(line).specifier
    (cap,) = (s.version for s in specifier if s.operator == "<")
    major, minor = map(int, PINNED[name].split(".")[:2])
    assert cap == f"{major}.{minor + 1}"


def test_the_versions_that_the_tests_run_with_are_allowed() -> None:
    asked = [Requirement(r) for needs in [PROJECT["dependencies"], *EXTRAS.values()] for r in needs]
    wrong = [str(r) for r in asked if (v := PINNED.get(canonical(r.name))) and not r.specifier.contains(v)]
    assert wrong == []
