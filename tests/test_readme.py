"""The README is the product's face: its code and its commands are run as they are written."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from forks_for_tests import run_script

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    if not block.startswith("curl")
    for line in block.splitlines()
]
CURL = re.findall(r"```bash\n(curl .*?)```", README, re.DOTALL)
CHEAP = ["data.n_events=3000", "trainer.max_epochs=1"]


def write_sample(path: Path, *, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    counts = rng.poisson(5, n)
    jets = ak.unflatten(
        ak.zip(
            {
                "pt": rng.exponential(scale, counts.sum()).astype("f4") + 20,
                "eta": rng.normal(size=counts.sum()).astype("f4"),
            }
        ),
        counts,
    )
    columns = {
        "HT": rng.normal(500 + scale, 50, n).astype("f4"),
        "MET_pt": rng.exponential(30, n).astype("f4"),
        "Jet": jets,
    }
    with uproot.recreate(path) as file:
        types = {k: v.dtype if isinstance(v, np.ndarray) else v.type for k, v in columns.items()}
        file.mktree("Events", types, counter_name=lambda name: "n" + name)
        file["Events"].extend(columns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.py",):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for i, (name, scale) in enumerate({"ttH": 60.0, "QCD": 30.0, "signal": 60.0, "background": 30.0}.items()):
        write_sample(tmp_path / f"{name}.root", seed=i, scale=scale)
    return tmp_path


def run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "ROOTDATA_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_example_trains(folder: Path) -> None:
    assert len(PYTHON_BLOCKS) == 1
    (folder / "example.py").write_text(PYTHON_BLOCKS[0])
    run([sys.executable, "example.py"], folder)
    assert len(list(folder.glob("**/*.ckpt"))) == 1


(SERVE,) = (c for c in COMMANDS if c.startswith("python -m serve models"))
TRAININGS = sorted({c for c in COMMANDS if c.startswith("python train.py") and "data=mine" not in c})


@pytest.mark.long
@pytest.mark.parametrize("command", TRAININGS)
def test_training_commands_run(command: str, folder: Path) -> None:
    is_plain = command.endswith("model=dnn") or "debug=" in command
    cheap = CHEAP if is_plain else [*CHEAP, "callbacks.score_report.plots=false"]  # the report takes most of the time
    words = [*command.split()[1:], *cheap]
    # The first command, and the one that starts others, are processes from their first line on.
    is_whole = command.endswith("model=dnn") or "devices=2" in command
    output = run([sys.executable, *words], folder) if is_whole else run_script(folder, *words[1:])
    assert ("test AUC" in output) or "debug=fdr" in command


@pytest.mark.long
def test_own_files_from_inspect_to_training(folder: Path) -> None:
    steps = [c for c in COMMANDS if c.startswith("python -m rootdata") or "data=mine" in c]
    assert [c.split()[1:4:2] for c in steps][-1] == ["train.py", "model=dnn"]
    assert len(steps) == 4
    for step in steps:
        cheap = ["trainer.max_epochs=1", "callbacks.score_report.plots=false"] if "train.py" in step else []
        output = run([sys.executable, *step.split()[1:], *cheap], folder)
    assert "config.yaml" in output


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the README's command in a folder; give the address that the server says."""
    command = [sys.executable, *SERVE.split()[1:], "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            lines = iter(server.stdout)
            yield next(line.split()[1] for line in lines if line.startswith("serving "))
        finally:
            server.terminate()
            assert server.wait(30) == 0


@pytest.mark.long
def test_what_was_trained_is_served(folder: Path) -> None:
    run_script(folder, "data=ttH", "model=dnn", *CHEAP)
    (curl,) = CURL
    (predict,) = (c for c in COMMANDS if c.startswith("python -m serve.client"))
    with serving(folder) as url:
        answer = json.loads(run(["bash", "-c", curl.replace("localhost:8000", url.removeprefix("http://"))], folder))
        assert (answer["model"], answer["version"]) == ("ttH", 1)
        assert 0 < answer["scores"]["signal"][0] < 1
        words = predict.replace("100000", "3000").split()
        run([sys.executable, *words[1:3], "--url", url, *words[3:]], folder)
    with uproot.open(folder / "scores.root") as file:
        assert file["scores"].num_entries > 0


def test_make_targets_exist() -> None:
    targets = {c.split()[1] for c in COMMANDS if c.startswith("make ")}
    assert targets == {"train", "serve", "test"}
    for target in targets:
        planned = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert ("train.py data=ttH model=dnn" in planned) == (target == "train")
        assert (SERVE in planned) == (target == "serve")


def test_every_option_is_documented_and_configurable() -> None:
    from rootdata.loading.datamodule import RootDataModule

    options = set(inspect.signature(RootDataModule.__init__).parameters) - {"self"}
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "options.md").read_text(), re.MULTILINE))
    base = set(re.findall(r"^(\w+):", (ROOT / "configs" / "data" / "base.yaml").read_text(), re.MULTILINE)) - {
        "_target_"
    }
    assert documented == options
    assert base == options


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
