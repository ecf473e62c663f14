import inspect
import itertools
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from lanes_for_tests import thinned
from rootdata.app import building, checking, sentences
from rootdata.expressions.grammar import parse
from rootdata.jagged import Jagged
from rootdata.loading.datamodule import RootDataModule

CONFIGS = Path(__file__).parents[1] / "configs"


def names(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml") if path.stem != "base")


@pytest.fixture
def composed(tmp_path):
    """Compose as train.py does, and check the result."""

    def make(*overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            folders = [f"paths.output_dir={tmp_path}", f"paths.root_dir={tmp_path}"]
            config = compose("train", overrides=[*folders, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        checking.check(config, known=sentences.known_groups(CONFIGS / "train.yaml"), used=checking.references(config))
        return config

    yield make
    HydraConfig.instance().cfg = None


def test_nothing_is_left_untested():
    tested = {"callbacks", "data", "debug", "experiment", "hydra", "logger", "model", "paths", "trainer"}
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == tested


@pytest.mark.parametrize(("data", "model"), thinned(itertools.product(names("data"), names("model")), every=5))
def test_data_and_model_compose(composed, data, model):
    config = composed(f"data={data}", f"model={model}")
    assert config.data.layout == config.model.layout
    assert OmegaConf.to_container(config.data, resolve=True)["samples"]


@pytest.mark.parametrize("group", ["trainer", "callbacks", "logger", "debug", "experiment", "paths"])
def test_every_other_choice_composes(composed, group):
    for name in names(group):
        assert composed(f"{group}={name}").seed == 42


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_every_callback_and_logger_is_built(composed, group):
    for name in names(group):
        config = composed(f"{group}={name}")
        assert len(building.build_all(config[group])) == len(config[group])


@pytest.mark.parametrize("name", ["default", "cpu"])
def test_trainers_are_built(composed, name):
    trainer = building.build(composed(f"trainer={name}").trainer, given={"logger": False})
    assert trainer.max_epochs == 10


def test_the_base_lists_every_option_of_the_data_module_with_its_default():
    file = OmegaConf.merge(OmegaConf.load(CONFIGS / "data" / "base.yaml"), {"samples": None, "seed": None})
    base = OmegaConf.to_container(file, resolve=True)  # without a model, that is
    parameters = inspect.signature(RootDataModule).parameters
    assert set(parameters) == set(base) - {"_target_"}
    for name in set(base) & set(parameters) - {"samples", "seed"}:
        default = parameters[name].default
        assert (base[name] or None) == ((list(default) if isinstance(default, tuple) else default) or None), name


@pytest.mark.parametrize("name", names("data"))
def test_data_modules_are_built(composed, name):
    data = building.build(composed(f"data={name}", "data.batch_size=7").data)
    assert data.batch_size == 7
    assert data.classes == ["background", "signal"]


def test_samples_are_physics_processes(composed):
    data = building.build(composed("data=ttH", "data.layout=tokens").data)
    assert isinstance(data, RootDataModule)
    assert data.sample_names == ["QCD", "ttbar", "ttH_unmatched", "ttH_signal"]


@pytest.mark.parametrize(
    ("override", "place", "value"),
    thinned(
        [
            ("data.batch_size=64", "data.batch_size", 64),
            ("data.num_workers=2", "data.num_workers", 2),
            ("data.pin_memory=true", "data.pin_memory", True),
            ("data.layout=tokens", "data.layout", "tokens"),
            ("data.n_events=350000", "data.prepare.n_events", 350_000),
            ("data.simulation_seed=3", "data.prepare.seed", 3),
            ("data.folder=elsewhere", "data.samples.ttbar.files", "elsewhere/TTToHadronic.root"),
            ("paths.data_dir=else", "data.folder", "else/ttH_100000_seed42"),
            ("seed=7", "data.seed", 7),
            ("data.split={by: event % 5, train: null, val: [3], test: [4]}", "data.split.by", "event % 5"),
            ("data.derived={met2: MET_pt ** 2}", "data.derived.met2", "MET_pt ** 2"),
            ("data.cut='nJet >= 6'", "data.cut", "nJet >= 6"),
            ("data.jagged.jets.length=auto", "data.jagged.jets.length", "auto"),
            ("data.scale={HT: log, default: minmax}", "data.scale.HT", "log"),
            ("data.prepare=null", "data.prepare", None),
            ("model.hidden=[32]", "model.hidden", [32]),
            ("model=deepsets", "data.layout", "tokens"),
            ("model=cnn", "data.layout", "image"),
            ("model=autoencoder", "callbacks.checkpoint.monitor", "val/loss"),
            ("model=autoencoder", "callbacks.early_stopping.mode", "min"),
            ("model=dnn", "callbacks.early_stopping.monitor", "val/auc"),
            ("data.missing={Jet_btag: [-1], default: [-999]}", "data.missing.Jet_btag", [-1]),
            ("data.missing=[-999]", "data.missing", [-999]),
            ("data.observers={ht: HT}", "data.observers.ht", "HT"),
            ("trainer.limit_train_batches=0.5", "trainer.limit_train_batches", 0.5),
            ("+trainer.benchmark=true", "trainer.benchmark", True),
            ("callbacks.early_stopping.patience=2", "callbacks.early_stopping.patience", 2),
        ]
    ),
)
def test_what_people_type(composed, override, place, value):
    assert OmegaConf.select(composed(override), place) == value


def test_jobs_of_a_sweep_go_to_slurm(composed):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    composed("hydra/launcher=slurm")
    launcher = HydraConfig.get().launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert launcher.max_num_timeout > 0


def test_jets_of_physlite_are_those_above_25_gev(composed):
    jets = Jagged(np.array([0, 2, 5, 5]), np.array([30e3, 20e3, 26e3, 27e3, 1e3], np.float32))
    n_jets = parse(composed("data=physlite").data.derived.n_jets)
    assert n_jets.evaluate({"AnalysisJetsAuxDyn.pt": jets}, num_events=3).tolist() == [1, 2, 0]


def test_the_paper(composed):
    config = composed("experiment=tth_paper")
    assert config.data.prepare.n_events == 350_000
    assert config.data.split == {"by": None, "train": 0.64, "val": 0.16, "test": 0.2}
    assert (config.data.batch_size, config.data.scale, config.trainer.max_epochs) == (100, "minmax", 5)
    assert (config.model.hidden, config.model.dropout) == ([128, 64], 0.5)


def test_regression_beside_classification(composed):
    config = composed("experiment=tth_regression")
    assert {head.kind for head in config.model.heads.values()} == {"classification", "regression"}
    assert config.model.heads.mass.target in config.data.targets
    used = [*config.data.flat, *config.data.jagged.fatjets.branches]
    assert not [name for name in used if "mass" in name or "softdrop" in name]
    assert config.callbacks.checkpoint.monitor == config.callbacks.early_stopping.monitor == "val/loss"


def test_what_is_decorrelated_from_is_delivered(composed):
    config = composed("experiment=tth_decorrelated")
    building.settle(config)
    assert (list(config.data.observers), config.data.observe_training) == (["mbb"], True)


def test_the_paper_with_fewer_events(composed):
    config = composed("experiment=tth_paper", "data.n_events=1000", "debug=limit")
    assert config.data.folder.endswith("ttH_1000_seed42")
    assert not building.build_all(config.callbacks)
