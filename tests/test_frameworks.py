"""The page of other frameworks: its code is run as it is written, and learns."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rootdata.tth import ensure

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "frameworks.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w[^\n]*)\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
DATA = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
CLOSING = SECTIONS.pop("How they do")

# What a section needs, and the AUC that it reaches at least: three epochs on 4,000 events.
CASES = [
    pytest.param("numpy", "numpy", "", 0.75, id="numpy"),
    pytest.param("scikit-learn", "sklearn", "", 0.9, id="scikit-learn"),
    pytest.param("XGBoost and LightGBM", "xgboost", "lightgbm", 0.9, id="xgboost and lightgbm"),
    *(pytest.param("Keras", "keras", b, 0.85, id=f"keras-{b}") for b in ("torch", "jax", "tensorflow")),
    pytest.param("TensorFlow", "tensorflow", "", 0.8, id="tensorflow"),
    pytest.param("JAX", "jax", "", 0.85, id="jax"),
    pytest.param("fastai", "fastai", "", 0.8, id="fastai"),
]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "ttH"
    ensure(folder=folder, n_events=4000, seed=42)
    return folder


def test_every_section_is_run() -> None:
    assert {case.values[0] for case in CASES} == set(SECTIONS)


@pytest.mark.long
@pytest.mark.parametrize(("section", "library", "backend", "at_least"), CASES)
def test_a_section_runs_and_learns(
    section: str, library: str, backend: str, at_least: float, events: Path, tmp_path: Path
) -> None:
    for name in {library, backend or library}:  # with its backend, or its fellow
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name}: this framework is not installed")
    program = tmp_path / "program.py"
    program.write_text("\n".join([DATA, SECTIONS[section], CLOSING]))
    for file in events.glob("*.root"):
        (tmp_path / file.name).symlink_to(file)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "ROOTDATA_CACHE": str(tmp_path / "cache")}
    environment |= {"KERAS_BACKEND": backend if section == "Keras" else "torch", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    area = float(done.stdout.split()[-1])
    assert np.isfinite(area)
    assert area > at_least
    assert (tmp_path / f"{library}_bundle" / "model.onnx").exists() == (section in {"Keras", "fastai"})
