"""What docs/serving.md says is run as it is written, but for the address of the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import uproot
from models import flat_graph, make_bundle
from running import columns, end, start
from servers import SOURCE, Handle

from rootdata.bundle import cmssw
from rootdata.bundle.manifest import MODEL, open_bundle
from serve.client.waiting import Client

DOCUMENT = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
START = BASH[0]
EVENT = {"HT": 431.0, "MET_pt": 20.5, "Jet_pt": [120.5, 80.2], "Jet_eta": [0.1, -1.2]}

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="THE DOCUMENTATION IS NOT TESTED: curl is missing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with what the documentation assumes."""
    made = tmp_path_factory.mktemp("docs")
    make_bundle(made / "bundle", jets=True)
    for name in ("tagger", "bdt"):
        onnx.save_model(flat_graph(), made / f"{name}.onnx")
    (made / "events.json").write_text(json.dumps([EVENT]))
    events = columns(50)
    flat = {"HT": events["HT"], "MET_pt": events["MET_pt"], "Jet_pt": events["Jet"].pt, "Jet_eta": events["Jet"].eta}
    with uproot.recreate(made / "events.root") as file:
        file.mktree(
            "Events", {n: c.dtype if isinstance(c, np.ndarray) else ak.type(c).content for n, c in flat.items()}
        )
        file["Events"].extend(flat)
    return made


@pytest.fixture(scope="module")
def own_server(folder: Path) -> Iterator[Handle]:
    """Start a server with the words of the documentation."""
    assert START == "python -m serve models --publish ttH=bundle\n"
    handle = start(folder / "s", folder / "models", "--publish", f"ttH={folder / 'bundle'}")
    with Client(handle.url) as client:
        client.wait_until_ready(60)
    yield handle
    end(handle)


def run(block: str, folder: Path, url: str) -> str:
    """Run commands, which all must work."""
    script = block.replace("localhost:8000", url.removeprefix("http://")).replace("curl ", "curl -sS --fail-with-body ")
    script = script.replace("python -m serve.client", f"python -m serve.client --url {url}")
    script = f'python() {{ "{sys.executable}" "$@"; }}\n{script}'
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_what_is_tested() -> None:
    assert sum("curl " in block for block in BASH) == 4
    assert sum("serve.client" in block for block in BASH) == 2
    assert len(PYTHON) == 3


@pytest.mark.long
@pytest.mark.parametrize("block", BASH[1:])
def test_commands_work(block: str, folder: Path, own_server: Handle) -> None:
    out = run(block, folder, own_server.url)
    if "scores.root" in block:
        with uproot.open(folder / "scores.root") as file:
            assert file["scores"].num_entries == 50
    elif "?explain" in block:
        assert json.loads(out)["explain"][0]["outside"]["HT"]["value"] == 9000.0


def test_the_first_answer_is_the_one_that_is_shown(folder: Path, own_server: Handle) -> None:
    shown = re.search(r'"scores":\{"signal":\[([\d.]+)\.\.\.,([\d.]+)\.\.\.\]', DOCUMENT)
    got = re.search(r'"scores":\{"signal":\[([\d.]+),([\d.]+)\]', run(BASH[1], folder, own_server.url))
    assert shown is not None
    assert got is not None
    assert all(number.startswith(digits) for digits, number in zip(shown.groups(), got.groups(), strict=True))


def test_python_works(folder: Path, own_server: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    for block in PYTHON:
        exec(block.replace("http://127.0.0.1:8000", own_server.url), known)
    known["client"].close()
    np.testing.assert_allclose(known["again"].scores, known["scores"].scores, atol=1e-6)
    assert known["told"]["outside"]["HT"]["value"] == 9000.0


def test_the_inputs_for_cmssw_are_as_told(folder: Path, own_server: Handle) -> None:
    assert "{{1, 2}, {1, 2, 3}, {1, 3}}" in DOCUMENT
    values = {
        "flat": np.array([[431.0, 20.5]], np.float32),
        "jets": np.array([120, 80, 31, 0.1, -1.2, 2.2], np.float32).reshape(1, 2, 3),
        "jets_mask": np.ones((1, 3), np.float32),
    }
    session = ort.InferenceSession(folder / "bundle" / MODEL, providers=["CPUExecutionProvider"])
    [scores] = session.run(["scores"], values)
    with Client(own_server.url) as client:
        event = {"HT": 431.0, "MET_pt": 20.5, "Jet_pt": [120, 80, 31], "Jet_eta": [0.1, -1.2, 2.2]}
        np.testing.assert_allclose(client.predict("ttH", [event]).scores, scores, atol=1e-6)
    described = cmssw.preprocessing(open_bundle(folder / "bundle"))
    assert described["input_names"] == list(values)
    assert described["jets"]["var_names"] == ["Jet_pt", "Jet_eta"]
    assert {(v["median"], v["norm_factor"]) for v in described["jets"]["var_infos"].values()} == {(0.0, 1.0)}
    assert described["input_shapes"]["jets"] == [1, 2, -1]
