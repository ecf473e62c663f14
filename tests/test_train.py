"""``train.py`` as a user starts it, on small ROOT files."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
import yaml

from forks_for_tests import run_script
from rootdata.models import DNN
from rootdata.scan.specs import Specs

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
WRITTEN = ["checkpoints/last.ckpt", "config.yaml", "metrics.json", "roc.json", "scores.json"]
REPORT = "callbacks.score_report.plots"  # seconds of pictures
QUICK = ["trainer=cpu", "trainer.enable_progress_bar=false", "~callbacks.progress", "trainer.num_sanity_val_steps=0"]
QUICK.append(f"{REPORT}=false")
FEW = [
    "trainer.max_epochs=1",
    "+trainer.limit_predict_batches=1",
    *(f"trainer.limit_{s}_batches=3" for s in ("train", "val")),
]


def train(folder, *words, status=0):
    """Run the script in a folder, with its outputs below, and return what it printed."""
    return run_script(folder, *words, f"hydra.run.dir={folder / 'out'}", status=status)


def write_events(path, *, is_signal, n_events, seed):
    """Write events with two flat branches and jets; those of signal are harder."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 6, n_events)
    jet_pt = rng.exponential(60 if is_signal else 40, counts.sum()).astype("f4") + 20
    jet_eta = rng.normal(0, 1.5, counts.sum()).astype("f4")
    branches = {
        "met": rng.exponential(80 if is_signal else 40, n_events).astype("f4"),
        "mass": rng.normal(125 if is_signal else 100, 12, n_events).astype("f4"),
        "Jet": ak.zip({"pt": ak.unflatten(jet_pt, counts), "eta": ak.unflatten(jet_eta, counts)}),
    }
    with uproot.recreate(path) as file:
        file.mktree(
            "Events", {name: column.dtype if name != "Jet" else column.type for name, column in branches.items()}
        )
        file["Events"].extend(branches)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with somebody's files and data config."""
    folder = tmp_path_factory.mktemp("own")
    for number in range(2):
        write_events(folder / f"bkg_{number}.root", is_signal=False, n_events=1500, seed=number)
    write_events(folder / "sig.root", is_signal=True, n_events=1000, seed=9)
    config = {
        "samples": {
            "background": {"files": str(folder / "bkg_*.root"), "label": 0},
            "signal": {"files": str(folder / "sig.root"), "label": 1},
        },
        "flat": ["met", "mass"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 4}},
    }
    (folder / "configs" / "data").mkdir(parents=True)
    (folder / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory):
    """The outputs of a whole training on these."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["data=mine", "data.batch_size=100", "trainer.max_epochs=3", "model.lr=0.01"]
    printed = train(folder, "--config-dir", str(own / "configs"), *QUICK, *words)
    return folder / "out", printed


def test_everything_is_written(trained):
    folder, _ = trained
    for name in [*WRITTEN, "specs.json", "csv/metrics.csv", "train.log", ".hydra/overrides.yaml"]:
        assert (folder / name).stat().st_size > 0, name
    assert Specs.load(folder / "specs.json")
    assert "${" not in (folder / "config.yaml").read_text()


def test_the_network_has_learnt(trained):
    folder, _ = trained
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["auc"] > 0.9
    assert list(figures["samples"]) == ["background", "signal"]
    assert 700 < figures["events"] < 900


def test_the_table_names_what_is_there(trained):
    folder, printed = trained
    figures = json.loads((folder / "metrics.json").read_text())
    assert f"{figures['auc']:.4f}" in printed
    named = [word for word in printed.split() if word.startswith("out/")]
    assert {"out/roc.json", "out/metrics.json", "out/specs.json"} < set(named)
    assert all((folder.parent / name).exists() for name in named)


def test_the_checkpoint_is_one_of_the_network(trained):
    folder, printed = trained
    (best,) = [word for word in printed.split() if word.startswith("out/checkpoints")]
    model = DNN.load_from_checkpoint(folder.parent / best, weights_only=True)
    assert model.hparams["hidden"] == [128, 64]
    assert torch.isfinite(model({"x": torch.zeros(1, 10)})).all()


@pytest.mark.long
def test_a_training_ends_with_its_report(own, tmp_path):
    words = ["data=mine", "data.batch_size=100", "trainer.max_epochs=2", f"{REPORT}=true"]
    words += ["callbacks.score_report.style=CMS", "callbacks.score_report.energy=13"]
    printed = train(tmp_path, "--config-dir", str(own / "configs"), *QUICK, *words)
    out = tmp_path / "out"
    assert "out/report.html" in printed.split()
    pictures = {path.stem for path in (out / "report").glob("*.png")}
    assert {"roc", "overtraining", "learning", "importance", "features_flat", "features_jets"} <= pictures
    numbers = json.loads((out / "report" / "roc.json").read_text())["classes"]["signal"]
    assert numbers["auc"] == pytest.approx(json.loads((out / "metrics.json").read_text())["auc"])
    learning = json.loads((out / "report" / "learning.json").read_text())
    values = learning["curves"]["val/auc"]["value"]
    assert learning["curves"]["val/auc"]["epoch"][values.index(max(values))] == learning["chosen"]
    page = (out / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in pictures)


@pytest.mark.long
def test_a_checkpoint_can_be_tested_alone(trained, own, tmp_path):
    folder, printed = trained
    (best,) = [word for word in printed.split() if word.startswith("out/checkpoints")]
    words = ["data=mine", "data.batch_size=50", "train=false", f"ckpt_path={folder.parent / best}"]
    train(tmp_path, "--config-dir", str(own / "configs"), *QUICK, *words)
    again = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert again["auc"] == pytest.approx(json.loads((folder / "metrics.json").read_text())["auc"])
    assert not (tmp_path / "out" / "checkpoints").exists()


@pytest.mark.long
def test_deep_sets_train_on_the_same_files(own, tmp_path):
    words = [
        "data=mine",
        "model=deepsets",
        "model.phi=[16]",
        "data.batch_size=100",
        "trainer.max_epochs=2",
        "logger=tensorboard",
    ]
    train(tmp_path, "--config-dir", str(own / "configs"), *QUICK, *words)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["auc"] > 0.8
    assert list((tmp_path / "out" / "tensorboard").glob("events*"))


@pytest.mark.long
def test_images_of_the_simulated_samples_train(tmp_path):
    words = ["data=ttH", "model=cnn", "data.n_events=4000", "model.channels=[8, 8]", "data.batch_size=100"]
    train(tmp_path, *words, *QUICK, "trainer.max_epochs=1")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["auc"] > 0.8
    features = json.loads((tmp_path / "out" / "bundle" / "manifest.json").read_text())["features"]
    assert features["jagged"]["jets"]["image"]["channels"] == ["count", "sum(Jet_pt)", "max(Jet_btag)"]


@pytest.mark.long
def test_two_processes_share_the_events(own, trained, tmp_path):
    words = [
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "data.batch_size=100",
        "trainer.max_epochs=1",
    ]
    train(tmp_path, "--config-dir", str(own / "configs"), "data=mine", *QUICK[1:], *words)
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["events"] == json.loads((trained[0] / "metrics.json").read_text())["events"]


@pytest.mark.long
def test_the_paper_s_experiment_takes_a_step(tmp_path):
    train(tmp_path, "experiment=tth_paper", "data.n_events=1500", "debug=fdr", *QUICK[1:2])
    assert len(list((tmp_path / "data").rglob("*.root"))) == 9


@pytest.mark.long
def test_the_autoencoder_s_experiment_trains_goes_on_and_decodes(tmp_path):
    words = ["experiment=autoencoder", "data.n_events=1500", "data.layout=tokens", "paths.latest=null", *QUICK]
    train(tmp_path, *words, "trainer.max_epochs=1")
    said = train(tmp_path, *words, "trainer.max_epochs=2", "resume=auto")
    assert "resume=auto: going on from epoch 0, step 1" in said
    assert "decoded.root: " in said
    assert "jets: objects after the first 10 of an event are left out" in said
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"loss", "HT/rmse", "Jet_pt/rmse"} <= figures.keys()
    manifest = json.loads((tmp_path / "out" / "bundle" / "manifest.json").read_text())
    assert [output["columns"] for output in manifest["outputs"]] == [["loss"]]
    assert manifest["metrics"]["loss"] == figures["loss"]
    with uproot.open(tmp_path / "out" / "decoded.root") as file:
        events = file["Events"].arrays()
    assert len(events) == figures["events"]
    for branch in ("Jet_pt", "FatJet_mass"):
        assert ak.num(events[branch]).to_list() == ak.num(events[f"{branch}_decoded"]).to_list()


@pytest.mark.long
def test_a_misspelt_branch_is_one_sentence(own, tmp_path):
    words = ["data=mine", "data.flat=[met,mas]"]
    message = train(tmp_path, "--config-dir", str(own / "configs"), *QUICK, *words, status=2)
    assert "'mas'" in message
    assert "'mass'" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out" / "config.yaml").exists()


@pytest.mark.long
def test_a_misspelt_option_is_one_sentence(tmp_path):
    message = train(tmp_path, "data.batchsize=5", status=2)
    assert message == "train.py: 'data.batchsize' is not an option; nearest: 'data.batch_size'"
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("data", ["ttH_pythia", "nanoaod", "lhcb"])
def test_absent_files_are_one_sentence_with_the_remedy(tmp_path, data):
    message = train(tmp_path, f"data={data}", status=2)
    assert "no ROOT files" in message
    assert "data.folder=" in message
    assert "Traceback" not in message


@pytest.mark.long
@pytest.mark.skipif(
    not (SHARED / "tth_pythia").is_dir(), reason="the data set 'tth_pythia' is not beside the repository"
)
def test_real_files(tmp_path):
    words = ["data=ttH_pythia", f"data.folder={SHARED / 'tth_pythia'}", "model=dnn", "data.batch_size=64"]
    train(tmp_path, *words, *QUICK, *FEW)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["events"] > 30


@pytest.mark.long
def test_a_training_begins_with_the_weights_and_the_scaling_of_another_and_goes_on(own, trained, tmp_path):
    before, _ = trained
    words = ["data=mine", "data.batch_size=100", "model.lr=0.01", f"model.init_from={before / 'bundle'}"]
    words += ["model.freeze=[network.0.*]", f"data.scale={{from: {before / 'bundle'}}}", "data.observers=[met]"]
    words += ["model.decorrelate={columns: [mass], strength: 0.1}", "resume=auto"]
    words = ["--config-dir", str(own / "configs"), *QUICK, *words]
    train(tmp_path, *words, "trainer.max_epochs=1")
    folder = tmp_path / "out"
    first = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    known = torch.load(next((before / "checkpoints").glob("epoch_*.ckpt")), weights_only=True)["state_dict"]
    assert torch.equal(first["state_dict"]["network.0.weight"], known["network.0.weight"])
    assert not torch.equal(first["state_dict"]["network.3.weight"], known["network.3.weight"])
    assert set(json.loads((folder / "metrics.json").read_text())["sculpting"]) == {"mass"}
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    assert manifest["rules"]["scaling"].startswith(f"taken over from {before / 'bundle'}")
    assert manifest["scaling"] == json.loads((before / "bundle" / "manifest.json").read_text())["scaling"]
    printed = train(tmp_path, *words, "trainer.max_epochs=2")
    assert "going on from epoch 0" in printed
    second = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert second["global_step"] == 2 * first["global_step"]
    assert torch.equal(second["state_dict"]["network.0.weight"], known["network.0.weight"])
