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
        "frameworks.fastai",
        "loading.dataset",
        "loading.datamodule",
        "training.callbacks",
        "analysis.report.callback",
        "analysis.report.inputs",
        "models",
        "bundle.graph",
        "layouts",
        "scaling.curves",
        "bundle.export",
        "bundle.trial",
        "bundle.comparison",
        "bundle.weights",
        "app.rebuild",
        "training.resume",
        "training.seeding",
        "training.stopping",
        "training.checkpoints",
        "shutdown.ranks",
        "analysis.decoded",
        "analysis.friends.callback",
    ),
    "torchmetrics": ("models",),
    "pytorch_lightning": (
        "loading.datamodule",
        "training.callbacks",
        "analysis.report.callback",
        "models",
        "app.building",
        "app.sentences",
        "training.ready",
        "training.seeding",
        "training.stopping",
        "training.checkpoints",
        "training.loggers",
        "shutdown.ranks",
        "analysis.folds",
        "analysis.decoded",
        "analysis.friends.callback",
    ),
    "lightning": ("loading.datamodule", "training.callbacks", "models", "app.sentences", "training.checkpoints"),
    "uproot": (
        *("io.trees", "io.remote", "tth", "inspection.files", "training.callbacks"),
        *("analysis.friends.tree", "analysis.decoded", "analysis.folds"),
    ),
    "fsspec": ("io.remote",),
    "distributed": ("scan.executors",),
    "isal": ("io.formats.inflate", "cache.blocks"),
    "cramjam": ("io.formats.inflate",),
    "xxhash": ("io.formats.page_lists", "io.formats.inflate", "jagged", "io.formats.rntuple", "io.tables.unpacked"),
    "numba": (
        "layouts.kernels",
        "layouts.image",
        "layouts.jagged",
        "order.kernels",
        "io.formats.decode",
        "events.moments",
        "compiling",
    ),
    "llvmlite": ("layouts.kernels",),  # comes with numba
    "hydra": (
        *("app.launch", "app.sentences", "app.building", "app.folders"),
        *("app.checking", "app.composing", "app.folds"),
    ),
    "omegaconf": (
        "app.launch",
        "app.sentences",
        "app.building",
        "app.folders",
        "app.checking",
        "app.composing",
        "app.rebuild",
        "app.folds",
        "app.joining",
        "training.resume",
    ),
    "yaml": ("app.composing",),  # comes with omegaconf; its errors pass through there
    "matplotlib": ("training.pictures", "analysis.report.canvas", "analysis.report.inputs", "plots"),
    "hist": ("analysis.report.canvas",),
    "mplhep": ("analysis.report",),
    "keras": ("frameworks.keras",),
    "tensorflow": ("frameworks.tensorflow",),
    "jax": ("frameworks.jax",),
    "fastai": ("frameworks.fastai",),
    "sklearn": ("models.estimators",),
    "xgboost": ("models.estimators", "frameworks.xgboost"),
    "lightgbm": ("models.estimators", "frameworks.lightgbm"),
    "onnxmltools": ("models.estimators",),
    "skl2onnx": ("models.estimators",),
    "scipy": (),
    "pandas": (),
    "pythia8mc": ("tth.physics.pythia",),
    "fastjet": ("tth.physics.pythia",),
    "pyarrow": ("io.tables",),
    "onnx": ("bundle.export", "bundle.graph", "bundle.weights", "models.estimators"),
    "onnxruntime": ("bundle.graph.conversion", "analysis.friends.scorer"),
    "litserve": (),
    "fastapi": (),
    "httpx": (),
}
# The same for serve. Who looks for what a new version of a library breaks finds it there.
SERVE_HOMES = {
    "litserve": ("processes.litserve_api",),
    "uvicorn": ("processes.launch", "app.http"),
    "starlette": ("app", "routes", "page", "processes.litserve_api"),
    "fastapi": (),
    "onnx": ("upload.child", "upload.graphs"),
    "onnxruntime": ("models.session", "upload.child"),
    "pyarrow": ("codec.arrow",),
    "google": ("codec.tfaas",),  # protobuf
    "uproot": ("codec.rootfile",),
    "PIL": ("codec.image",),
    "prometheus_client": ("routes.inference",),  # and by its name in processes.metrics, once the folder is known
    "httpx": ("client",),
    "netron": (),  # its files are sent, it is never imported
    "torch": (),
    "awkward": ("client.columns",),
}

# What rootdata may need at most; a new one is added here, in pyproject.toml, and with a word why.
ALLOWED = {
    *("awkward", "numpy", "rich", "rootdata"),
    *(library for library, homes in HOMES.items() if homes),
}


# The rooms of rootdata: what is in one imports from it and from those before it.
ROOMS = (
    *(
        "core",
        "expressions",
        "options",
        "io",
        "cache",
        "events",
        "scaling",
        "layouts",
        "order",
        "scan",
        "shutdown",
        "loading",
    ),
    *("bundle", "training", "frameworks", "models", "analysis", "inspection", "tth", "app", "__main__"),
)
BIGGEST = 12  # modules in a room; in a room of rooms, its own

# What importing a module loads in the end, through all that it imports: nothing of these but what is said here, for a
# module or for the whole of a room.
HEAVY = {
    *("torch", "pytorch_lightning", "lightning", "torchmetrics", "uproot", "fsspec", "numba", "hydra", "omegaconf"),
    *("matplotlib", "hist", "mplhep", "rich", "onnx", "onnxruntime", "distributed", "pythia8mc", "fastjet", "pyarrow"),
}
READS = {"uproot", "fsspec"}
LOADS = {
    "compiling": {"numba"},
    "io.files": READS, "io.remote": READS, "io.trees": READS, "io.tree_pool": READS, "io.reader": READS,
    "io.formats.basket_index": READS, "io.friends.friended": READS,
    "io.tables.known": READS, "io.tables.content": READS, "io.tables.tree": READS, "io.tables.parquet": READS,
    "io.tables.arrow": READS, "io.tables.text": READS,
    "io.formats.decode": {"numba"},
    "events.moments": {"numba"},
    "layouts.kernels": {"numba"}, "layouts.packed": {"numba"}, "layouts.pool": {"numba"},
    "layouts.vector": {"numba"}, "layouts.tokens": {"numba"}, "layouts.forms": {"numba"},
    "layouts.image": {"numba"}, "layouts.jagged": {"numba"}, "order.kernels": {"numba"},
    "scan.sources": READS, "scan.tasks": READS, "scan.weighing": READS, "scan.first_pass": READS,
    "scan.scanned": READS | {"numba"}, "scan.lookup": READS | {"numba"}, "scan.summary": READS | {"numba", "rich"},
    "shutdown.ranks": {"torch", "pytorch_lightning"},
    "loading.memory_bound": {"numba"}, "loading.parameters": READS | {"numba"},
    "loading.stream": READS | {"numba"}, "loading.part": READS | {"numba"},
    "loading.dataset": READS | {"numba", "torch"},
    "loading.datamodule": READS | {"numba", "torch", "pytorch_lightning", "rich"},
    "bundle.signature": READS | {"numba"}, "bundle.parity": READS | {"numba"},
    "bundle.graph.deployed": {"numba", "torch"}, "bundle.graph.folds": {"numba", "torch"},
    "bundle.graph.joined": {"numba", "torch"}, "bundle.graph.conversion": {"torch"},
    "bundle.export": READS | {"numba", "torch"}, "bundle.trial": READS | {"numba", "torch"},
    "bundle.comparison": READS | {"numba", "torch"}, "bundle.weights": READS | {"numba", "torch"},
    "training.callbacks": {"torch", "pytorch_lightning"},
    "training.checkpoints": {"torch", "pytorch_lightning", "lightning"},
    "training.loggers": {"pytorch_lightning"}, "training.ready": {"pytorch_lightning"},
    "training.seeding": {"torch", "pytorch_lightning"}, "training.stopping": {"pytorch_lightning"},
    "training.resume": {"omegaconf"}, "training.runs": {"omegaconf"},
    "models": {"torch", "pytorch_lightning", "torchmetrics"},
    "analysis.report.callback": READS | {"numba", "torch", "pytorch_lightning"},
    "analysis.decoded": READS | {"numba", "torch", "pytorch_lightning", "rich"},
    "frameworks": READS | {"numba", "torch", "onnx", "onnxruntime"},
    **{f"models.estimators.{name}": READS | {"numba", "torch", "pytorch_lightning", "torchmetrics"}
       for name in ("boosted", "estimator", "lgbm", "rounds", "scikit", "xgb", "histogram")},
    "analysis.friends.tree": {"uproot"}, "analysis.friends.names": READS, "analysis.friends.conform": READS,
    "analysis.friends.columns": READS, "analysis.friends.rows": READS, "analysis.friends.predict": READS,
    "analysis.friends.callback": READS | {"torch", "pytorch_lightning"},
    "analysis.folds": {"torch", "pytorch_lightning"},
    "inspection": READS | {"rich"},
    "tth": READS | {"rich"},
    "app.checking": {"hydra", "omegaconf"}, "app.composing": {"hydra", "omegaconf"},
    "app.launch": {"hydra", "omegaconf"}, "app.sentences": {"hydra", "omegaconf"},
    "app.building": {"hydra", "omegaconf"}, "app.folders": {"hydra", "omegaconf"},
    "app.rebuild": READS | {"numba", "torch", "hydra", "omegaconf"}, "app.folds": {"hydra", "omegaconf"},
    "app.joining": READS | {"numba", "torch", "pytorch_lightning", "hydra", "omegaconf"},
    "__main__": READS | {"rich"},
}  # fmt: skip


def room_of(name: str) -> str:
    """Return the room of a module of rootdata."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


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


def is_within(name: str, homes: tuple[str, ...], package: str = "rootdata") -> bool:
    return any(name == f"{package}.{home}" or name.startswith(f"{package}.{home}.") for home in homes)


def test_the_modules_are_found() -> None:
    assert {"rootdata", "rootdata.order.plan", "rootdata.tth", "rootdata.models.dnn", "serve"} <= set(MODULES)
    assert {"rootdata.errors", "uproot"} <= dict(imports_of("rootdata.io.trees")).keys()


@pytest.mark.parametrize(
    ("package", "library", "homes"),
    [(package, *pair) for package, table in (("rootdata", HOMES), ("serve", SERVE_HOMES)) for pair in table.items()],
)
def test_heavy_libraries_stay_at_home(package: str, library: str, homes: tuple[str, ...]) -> None:
    strangers = [
        f"{MODULES[name]}:{line} imports {imported}"
        for name in MODULES
        if name.startswith(package) and not is_within(name, homes, package)
        for imported, line in imports_of(name, for_types=package == "serve")
        if imported.split(".")[0] == library
    ]
    assert strangers == []


def test_every_home_of_the_server_is_lived_in() -> None:
    for library, homes in SERVE_HOMES.items():
        for home in homes:
            users = [n for n in MODULES if is_within(n, (home,), "serve")]
            assert any(i.split(".")[0] == library for n in users for i, _ in imports_of(n)), (library, home)


def test_the_handler_knows_no_transport() -> None:
    """What answers requests can stand behind another front than HTTP; formats cost a process that only asks little."""
    for module in ("serve.handler", "serve.formats.known", "serve.protocols.protocol", "serve.models.engine"):
        assert not {i.split(".")[0] for i, _ in imports_of(module)} & {"starlette", "uvicorn", "litserve", "fastapi"}
    loaded = loaded_by("from serve.formats.known import Formats; Formats(); import serve.handler")
    assert not loaded & {"pyarrow", "uproot", "onnxruntime", "awkward", "starlette", "litserve", "torch"}


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


@functools.cache
def loaded_through(name: str) -> frozenset[str]:
    """Return the heavy libraries that importing a module loads, by its imports and by those of what it imports."""
    found: set[str] = set()
    seen, left = {name}, [name]
    while left:
        for imported, _ in imports_of(left.pop(), for_types=False, local=False):
            found |= {imported.split(".")[0]} & HEAVY
            if imported in MODULES and imported not in seen:
                seen.add(imported)
                left.append(imported)
    return frozenset(found)


def test_importing_a_module_loads_what_is_listed_and_no_more() -> None:
    wrong = {}
    for name in MODULES:
        own = name.removeprefix("rootdata.")
        if own != name and MODULES[name].name != "__init__.py":
            allowed = LOADS.get(own, LOADS.get(room_of(name), set()))
            if loaded_through(name) - allowed:
                wrong[own] = loaded_through(name) - allowed
    assert wrong == {}
    assert [own for own in LOADS if f"rootdata.{own}" not in MODULES] == []


def test_rooms_take_from_those_before_them() -> None:
    upwards = [
        f"{MODULES[name]}:{line} imports {imported}"
        for name in MODULES
        if name.startswith("rootdata.")
        for imported, line in imports_of(name, for_types=False)
        if imported.startswith("rootdata.") and ROOMS.index(room_of(imported)) > ROOMS.index(room_of(name))
    ]
    assert upwards == []


def test_no_room_is_crowded() -> None:
    crowded = {}
    for folder in {path.parent for path in MODULES.values()}:
        own = [path for path in folder.glob("*.py") if path.name not in {"__init__.py", "__main__.py"}]
        if len(own) > BIGGEST:
            crowded[str(folder.relative_to(SOURCES))] = len(own)
    assert crowded == {}


def test_each_class_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), []).append(str(path.relative_to(SOURCES)))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


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


AT_ALL = HEAVY | {"awkward", "numpy"}


@pytest.mark.parametrize("statement", ["import rootdata, rootdata.errors; dir(rootdata)", "import serve"])
def test_the_front_door_costs_nothing(statement: str) -> None:
    assert loaded_by(statement) & AT_ALL == set()


LIGHT = (
    *("table", "columnar", "scan.specs", "loading.position", "bundle.assemble", "order.plan", "options.parsed"),
    "expressions.grammar",
)


def test_what_is_light_loads_nothing_heavy() -> None:
    """Hold the table against an interpreter: a library may load another."""
    statement = "import " + ", ".join(f"rootdata.{module}" for module in LIGHT)
    assert loaded_by(statement) & (HEAVY | {"awkward", "scipy"}) == set()


PUBLIC = ["Manifest", "RootDataError", "RootDataModule", "RootDataset", "Specs", "export", "inspect", "open_bundle"]


def test_the_facade_offers_what_it_says() -> None:
    names = {n: getattr(rootdata, n).__name__ for n in rootdata.__all__}
    assert list(names) == dir(rootdata) == PUBLIC
    assert all(n == kind for n, kind in names.items())
    with pytest.raises(AttributeError, match="module 'rootdata' has no attribute 'nothing'"):
        rootdata.nothing  # noqa: B018


def test_no_room_hides_a_public_name() -> None:
    # Importing a package sets it as an attribute of its parent, in the place of a function of the same name.
    assert not {name for name in PUBLIC if (SOURCES / "rootdata" / name).exists()}
