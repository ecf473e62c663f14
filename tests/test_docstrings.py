"""Docstrings: each parameter of a public function with three or more is described, and examples give what they say."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"
PACKAGES = ("rootdata", "serve")
MANY = 3  # parameters, from which on they are described

SHOWN = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for path in sorted(SOURCES.rglob("*.py"))
    if ">>> " in path.read_text()
]

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(node: ast.AST, *outer: str) -> Iterator[tuple[str, Function, bool]]:
    """Yield name, function and whether it is a method, but for what is private or local to a function."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | Function):
            yield from public(child, *outer)
        elif child.name.startswith("_"):
            continue
        elif isinstance(child, ast.ClassDef):
            yield from public(child, *outer, child.name)
        else:
            yield ".".join((*outer, child.name)), child, bool(outer)


def parameters(function: Function, *, is_method: bool) -> list[str]:
    """Name the parameters as the signature does, without ``self`` or ``cls``."""
    of = function.args
    is_static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
    positional = [*of.posonlyargs, *of.args][1 if is_method and not is_static else 0 :]
    named = [*positional, *filter(None, [of.vararg]), *of.kwonlyargs, *filter(None, [of.kwarg])]
    return [parameter.arg for parameter in named]


def described(docstring: str) -> list[tuple[list[str], str]] | None:
    """Read the entries of the section: names, and what is said of them; None where there is no section."""
    found = re.search(r"^Parameters\n-{10}\n(.+?)(?=\n\n\S.*\n---|\Z)", docstring, re.DOTALL | re.MULTILINE)
    if found is None:
        return None
    entries = re.split(r"\n(?! )", found[1])
    parts = (entry.partition(" : ") for entry in entries)
    return [(names.replace("*", "").split(", "), " ".join(said.split())) for names, _, said in parts]


def faults(source: str) -> list[str]:
    """Name the public functions of a module whose parameters are not said, and how."""
    wrong = []
    for name, function, is_method in public(ast.parse(source)):
        taken = parameters(function, is_method=is_method)
        section = described(ast.get_docstring(function) or "")
        if section is None:
            wrong += [f"{name} (line {function.lineno}): takes {taken}"] if len(taken) >= MANY else []
            continue
        told = [n for names, _ in section for n in names]
        if told != taken:
            wrong.append(f"{name} (line {function.lineno}): takes {taken}; described are {told}")
        wrong += [f"{name} (line {function.lineno}): says nothing of {names}" for names, said in section if not said]
    return wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_every_parameter_of_a_public_function_is_described(package: str) -> None:
    wrong = [
        f"{path.relative_to(SOURCES)}: {fault}"
        for path in sorted((SOURCES / package).rglob("*.py"))
        for fault in faults(path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


def written(signature: str, section: str) -> str:
    body = "\n".join(f"    {line}" for line in section.splitlines())
    return f'def shift({signature}):\n    """Shift.\n\n{body}\n    """\n'


GOOD = """Parameters
----------
x, y : (n,) GeV
z : (n,), which may be
    long : to say

Returns
-------
u : the sum"""


@pytest.mark.parametrize("signature", ["x, y, z", "x, /, y, *, z", "x, *y, z", "x, y, **z", "x: int, y=0, *, z=1"])
def test_a_section_that_names_all_in_their_order_is_right(signature: str) -> None:
    assert faults(written(signature, GOOD)) == []


@pytest.mark.parametrize(
    ("signature", "section"),
    [
        ("x, y, z", ""),
        ("x, y, z", "Returns\n-------\nx, y, z : the sum"),
        ("x, y, z, u", GOOD),
        ("x, y", GOOD),
        ("y, x, z", GOOD),
        ("x, *, z, y", GOOD),
        ("x, y, z", GOOD.replace(" : (n,) GeV", "")),
        ("x, y", "Parameters\n----------\nx : (n,)"),
        ("x, y, z", GOOD.replace("z : (n,), which may be\n    long : to say", "z :")),
    ],
)
def test_what_is_missing_too_much_misplaced_or_empty_is_found(signature: str, section: str) -> None:
    (fault, *_) = faults(written(signature, section))
    assert fault.startswith("shift (line 1)")


def test_methods_are_looked_at_wherever_they_stand_and_what_is_private_is_not() -> None:
    source = """
if True:
    class Block:
        def read(self, a, b, c): ...
        async def seek(self, a, b, c): ...
        @classmethod
        def of(cls, a, b): ...
        @staticmethod
        def join(a, b, c): ...
        def _read(self, a, b, c): ...
        def __init__(self, a, b, c): ...
        class Span:
            def cut(self, a, b, c): ...
class _Hidden:
    def read(self, a, b, c): ...
def outer(a, b):
    def inner(a, b, c): ...
"""
    found = [fault.partition(" ")[0] for fault in faults(source)]
    assert found == ["Block.read", "Block.seek", "Block.join", "Block.Span.cut"]


@pytest.mark.parametrize("name", SHOWN)
def test_examples_give_what_they_say(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed
