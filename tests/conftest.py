"""What every test shares: a cache folder of its own, Hypothesis settings, a writer of tiny ROOT files, small disks."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import HealthCheck, settings

import exporter_for_tests
from rootdata.io import trees

# The same examples each run; `HYPOTHESIS_PROFILE=many pytest` looks harder and elsewhere. No deadline: the first
# example pays for imports and compilers.
settings.register_profile(
    "few", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("many", settings.get_profile("few"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))

pytest_plugins = ["skips_for_tests"]

_NUMBERS = itertools.count()
Writer = Callable[..., Path]


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every test of a whole matrix be a long one."""
    for item in items:
        if item.get_closest_marker("matrix"):
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let the garbage collector forget what was imported: going through it each time is a tenth of the fast tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the specs of a test out of the user's cache and of other tests."""
    folder = tmp_path_factory.getbasetemp() / f"cache_of_test_{next(_NUMBERS)}"
    folder.mkdir()
    monkeypatch.setenv("ROOTDATA_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def operators_parsed_once() -> None:
    """Let each graph cost less."""
    exporter_for_tests.keep_operators()


@pytest.fixture(scope="session")
def write_tree() -> Writer:
    """Give :func:`write_root` to a test; it has no state, so that Hypothesis tests may use it."""
    return write_root


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let blocks end at every basket edge, so that files of a few hundred events have several."""
    monkeypatch.setattr(trees, "BLOCK_ENTRIES", 1)
    return 1


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function that makes a file system of a size, such as ``1m``, and returns where it is."""
    places: list[Path] = []

    def make(size: str) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if os.geteuid() or not shutil.which("mount") or subprocess.run(command).returncode:
            pytest.skip("only root may mount a small file system")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", place], check=True)


def write_root(
    path: Path,
    columns: Mapping[str, Any],
    *,
    tree: str = "Events",
    step: int | Sequence[int] = 1000,
    kind: str = "ttree",
    compression: uproot.compression.Compression | None = None,
    update: bool = False,
) -> Path:
    """Write a tree of numpy and awkward columns.

    Parameters
    ----------
    columns : branch name to (n_events,), (n_events, k) or jagged column
    step : entries of a basket (a cluster of an RNTuple); a sequence gives each one its own, the last one for the rest
    kind : ``ttree`` or ``rntuple``
    compression : ``uproot.ZLIB(1)`` by default
    update : add the tree to a file that exists
    """
    opened = uproot.update(path) if update else uproot.recreate(path, compression=compression or uproot.ZLIB(1))
    edges = basket_edges(len(next(iter(columns.values()))), step)
    pieces = [{name: values[a:b] for name, values in columns.items()} for a, b in itertools.pairwise(edges)]
    with opened as file:
        if kind == "rntuple":
            first, *others = pieces or [dict(columns)]
            writer = file.mkrntuple(tree, first)
        else:
            writer, others = file.mktree(tree, {name: _type_of(values) for name, values in columns.items()}), pieces
        for piece in others:
            writer.extend(piece)
    return path


def basket_edges(num_events: int, step: int | Sequence[int]) -> list[int]:
    """Return where baskets start, and the end."""
    steps = [step] if isinstance(step, int) else list(step)
    edges = [0]
    while edges[-1] < num_events:
        size = steps[min(len(edges), len(steps)) - 1]
        edges.append(min(num_events, edges[-1] + size))
    return edges


def _type_of(values: Any) -> Any:
    if isinstance(values, ak.Array):
        return ak.type(values).content
    return np.dtype((values.dtype, values.shape[1:])) if values.ndim > 1 else values.dtype
