"""The first afternoon: the configurations of five formats train as they are, on files with the names of each format."""

import json
from pathlib import Path

import pytest
import yaml

from formats_for_tests import FORMATS, TREES, write
from rootdata.inspection.choice import choose
from rootdata.inspection.files import inspect
from test_train import FEW, QUICK, SHARED, train

CONFIGS = Path(__file__).parents[1] / "configs" / "data"
REAL = SHARED / "real"
# Files of experiments, as they are called where there are any; two are wanted, for the two classes.
FILES = {
    "nanoaod": [*REAL.glob("nanoAOD_2015_CMS_Open_Data_ttbar.root"), *REAL.glob("GJet*.root")],
    "physlite": [*REAL.glob("*PHYSLITE*.root")],
    "delphes": [*REAL.glob("*delphes*.root")],
    "edm4hep": [*REAL.glob("*edm4hep*.root"), *REAL.glob("*FCC*.root")],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A signal and a background file of each format."""
    folder = tmp_path_factory.mktemp("formats")
    return {
        name: [
            write(folder / f"{name}_{kind}.root", name, is_signal=kind == "signal") for kind in ("signal", "background")
        ]
        for name in FORMATS
    }


def named(config):
    """Name the branches that a configuration takes."""
    jagged = [b for c in (config.get("jagged") or {}).values() for b in c["branches"]]
    return {*config.get("flat", []), *jagged} - set(config.get("derived") or {})


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_configured_is_what_inspect_offers(files, name):
    found = inspect([str(path) for path in files[name]])
    offered = set(choose(found).features.taken)
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    heads = {f"${{data.{key}}}": config[key] for key in ("head", "first", "second") if key in config}
    wanted = named(config)
    for reference, value in heads.items():
        wanted = {branch.replace(reference, value) for branch in wanted}
    assert wanted <= offered
    assert config["tree"] == TREES[name]
    assert not [b for b in offered if b.startswith(("Gen", "Truth", "Particle", "MCP")) or "TRUE" in b or "BKGCAT" in b]


def check_bundle(folder):
    """The exported graph gives the scores that torch gave, of which the bundle keeps some."""
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    assert manifest["parity"]["num_events"] > 0
    assert manifest["parity"]["max_difference"] < 1e-5
    assert 0 <= json.loads((folder / "metrics.json").read_text())["auc"] <= 1
    return manifest


@pytest.mark.long
@pytest.mark.parametrize("name", FORMATS)
def test_a_first_training_ends_with_an_auc_and_a_bundle(files, tmp_path, name):
    signal, background = files[name]
    words = [f"data={name}", f"data.signal={signal}", f"data.background={background}", "data.batch_size=64"]
    printed = train(tmp_path, *words, *QUICK, *FEW, "trainer.max_epochs=3", "trainer.limit_train_batches=1.0")
    assert "test AUC" in printed
    check_bundle(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["auc"] > 0.6


@pytest.mark.long
@pytest.mark.parametrize("name", list(FILES))
def test_a_first_training_on_a_real_file(tmp_path, name):
    if len(FILES[name]) < 2:
        pytest.skip(f"two files of the format {name!r} are not beside the repository")
    signal, background, *_ = FILES[name]
    words = [f"data={name}", f"data.signal={signal}", f"data.background={background}", "data.batch_size=32"]
    printed = train(tmp_path, *words, *QUICK, *FEW)
    assert "test AUC" in printed
    check_bundle(tmp_path / "out")
