"""The import table: each heavy library has its home, nothing imports upwards, in circles or through the front door."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import rootdata

SOURCES = Path(__file__).parents[1] / "src"

# Library to the modules, or packages, of rootdata that may import it; what is not listed may be imported anywhere.
HOMES = {
    "torch": (
        *(
            "dataset",
            "datamodule",
            "callbacks",
            "models",
            "graph",
            "export",
            "rebuild",
            "resume",
            "seeding",
            "stopping",
        ),
        "checkpoints",
    ),
    "torchmetrics": ("models",),
    "pytorch_lightning": (
        *("datamodule", "callbacks", "models", "launch", "ready", "seeding", "stopping", "checkpoints", "loggers"),
    ),
    "lightning": ("datamodule", "callbacks", "models", "launch", "checkpoints"),
    "uproot": ("trees", "remote", "tth", "inspection", "callbacks"),
    "fsspec": ("remote",),
    "distributed": ("distributed",),
    "isal": ("inflate", "blocks"),
    "cramjam": ("inflate",),
    "xxhash": ("envelopes", "inflate", "jagged", "pages"),
    "numba": ("kernels", "decoding", "tally", "compiling"),
    "llvmlite": ("kernels",),  # comes with numba
    "hydra": ("launch", "checking", "composing"),
    "omegaconf": ("launch", "checking", "composing", "rebuild", "resume"),
    "yaml": ("composing",),  # comes with omegaconf; its errors pass through there
    "matplotlib": ("callbacks", "plots"),
    "sklearn": (),
    "scipy": (),
    "pandas": (),
    "pythia8mc": ("tth.pythia",),
    "fastjet": ("tth.pythia",),
    "onnx": ("export", "portable"),
    "onnxruntime": ("export",),
    "litserve": (),
    "fastapi": (),
    "httpx": (),
}
# What rootdata may need at most; a new one is added here, in pyproject.toml, and with a word why.
ALLOWED = {
    *("awkward", "numpy", "rich", "rootdata"),
    *(library for library, homes in HOMES.items() if homes),
}


def modules() -> dict[str, Path]:
    """Map the dotted name of every module below ``src`` to its file."""
    found = {}
    for path in sorted(SOURCES.rglob("*.py")):
        parts = path.relative_to(SOURCES).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@functools.cache
def imports_of(name: str, *, for_types: bool = True, local: bool = True) -> list[tuple[str, int]]:
    """List what a module imports, with the line.

    Parameters
    ----------
    for_types : include what only a type checker imports
    local : include what is imported inside functions
    """
    tree = ast.parse(MODULES[name].read_text())
    found: list[tuple[str, int]] = []
    _collect(tree, found, for_types=for_types, local=local)
    return found


def _collect(node: ast.AST, found: list[tuple[str, int]], *, for_types: bool, local: bool) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [(alias.name, child.lineno) for alias in child.names]
        elif isinstance(child, ast.ImportFrom) and not child.level:
            module = child.module or ""
            inner = [f"{module}.{alias.name}" for alias in child.names]
            found += [(n if n in MODULES else module, child.lineno) for n in inner]
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for branch in child.body if for_types and "not" not in ast.unparse(child.test) else []:
                _collect(ast.Module([branch], []), found, for_types=for_types, local=local)
            for branch in child.orelse:
                _collect(ast.Module([branch], []), found, for_types=for_types, local=local)
        elif local or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            _collect(child, found, for_types=for_types, local=local)


def is_within(name: str, homes: tuple[str, ...]) -> bool:
    return any(name == f"rootdata.{home}" or name.startswith(f"rootdata.{home}.") for home in homes)


def test_the_modules_are_found() -> None:
    assert {"rootdata", "rootdata.plan", "rootdata.tth", "rootdata.models.dnn", "serve"} <= set(MODULES)
    assert {"rootdata.errors", "uproot"} <= dict(imports_of("rootdata.trees")).keys()


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_stay_at_home(library: str) -> None:
    strangers = [
        f"{MODULES[name]}:{line} imports {imported}"
        for name in MODULES
        if name.startswith("rootdata") and not is_within(name, HOMES[library])
        for imported, line in imports_of(name, for_types=False)
        if imported.split(".")[0] == library
    ]
    assert strangers == []


def test_every_home_exists_and_is_lived_in() -> None:
    # A table that allows what nobody does hides the day when somebody does.
    for library in ("torch", "uproot", "numba", "hydra", "matplotlib", "pythia8mc", "fastjet"):
        users = [n for n in MODULES if any(i.split(".")[0] == library for i, _ in imports_of(n))]
        assert users, library


def test_nothing_else_is_imported() -> None:
    strangers = [
        f"{MODULES[name]}:{line} imports {imported}"
        for name in MODULES
        if name.startswith("rootdata")
        for imported, line in imports_of(name)
        if imported.split(".")[0] not in ALLOWED | set(sys.stdlib_module_names)
    ]
    assert strangers == []


def test_rootdata_does_not_know_the_server() -> None:
    assert [
        n for n in MODULES if n.startswith("rootdata") for i, _ in imports_of(n) if i.split(".")[0] == "serve"
    ] == []


def test_the_server_takes_the_modules_without_torch() -> None:
    torch_homes = {"rootdata." + home for home in HOMES["torch"]}
    taken = {i for n in MODULES if n.split(".")[0] == "serve" for i, _ in imports_of(n)}
    assert not [i for i in taken if any(i == home or i.startswith(home + ".") for home in torch_homes)]


def test_imports_are_absolute() -> None:
    relative = [
        f"{path}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_nobody_inside_imports_the_facade() -> None:
    packages = {n for n, path in MODULES.items() if path.name == "__init__.py"}
    offenders = [
        f"{MODULES[name]}:{line} imports {imported}"
        for name in MODULES
        for imported, line in imports_of(name)
        if imported in packages and name != imported
    ]
    assert offenders == []


def test_imports_run_one_way() -> None:
    graph = {n: {i for i, _ in imports_of(n, for_types=False) if i in MODULES and i != n} for n in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a new interpreter and return the top-level modules that it loaded."""
    code = f"{statement}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCES)}
    )
    return set(result.stdout.split())


HEAVY = {
    "torch",
    "uproot",
    "awkward",
    "numpy",
    "pytorch_lightning",
    "lightning",
    "hydra",
    "matplotlib",
    "numba",
    "rich",
}


@pytest.mark.parametrize("statement", ["import rootdata, rootdata.errors; dir(rootdata)", "import serve"])
def test_the_front_door_costs_nothing(statement: str) -> None:
    assert loaded_by(statement) & HEAVY == set()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("plan", HEAVY - {"numpy"}),
        ("scaling", HEAVY - {"numpy", "awkward"}),
        ("cache", HEAVY),
        ("stream", {"torch", "pytorch_lightning", "lightning", "hydra", "matplotlib"}),
        ("dataset", {"pytorch_lightning", "lightning", "hydra", "matplotlib"}),
        ("tth", {"torch", "uproot", "pytorch_lightning", "pythia8mc", "fastjet"}),
    ],
)
def test_modules_load_no_more_than_they_need(module: str, absent: set[str]) -> None:
    assert loaded_by(f"import rootdata.{module}") & absent == set()


def test_the_facade_offers_what_it_says() -> None:
    names = {n: getattr(rootdata, n).__name__ for n in rootdata.__all__}
    assert list(names) == dir(rootdata) == ["RootDataError", "RootDataModule", "RootDataset", "Specs"]
    assert all(n == kind for n, kind in names.items())
    with pytest.raises(AttributeError, match="module 'rootdata' has no attribute 'nothing'"):
        rootdata.nothing  # noqa: B018
