import json
import logging
import os
import signal
import sys
import typing
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.utilities.exceptions import SIGTERMException

from rootdata.app import building, launch
from rootdata.errors import ConfigError, DataError, FileError

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def start(monkeypatch, capsys, tmp_path):
    """Start a script with words on its command line; return its status, what it printed, and what it got."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    handlers = list(logging.root.handlers)

    def run(*words, task=lambda config: None):
        quiet = [f"hydra.run.dir={tmp_path}", "hydra/job_logging=none", "hydra/hydra_logging=none"]
        monkeypatch.setattr(sys, "argv", ["train.py", *words, *quiet])
        got = []

        def job(config):
            got.append(config)
            return task(config)

        try:
            launch.main(config_path=CONFIGS, config_name="train")(job)()
        except SystemExit as leave:
            return leave.code, capsys.readouterr().err.strip(), got
        finally:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        return 0, capsys.readouterr().err.strip(), got

    yield run
    logging.root.handlers[:] = handlers


def test_a_good_configuration_reaches_the_script(start):
    status, message, (config,) = start("data=ttH", "model=deepsets", "data.batch_size=5")
    assert (status, message) == (0, "")
    assert (config.data.batch_size, config.data.layout) == (5, "tokens")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("data.batchsize=5", "'data.batchsize' is not an option; nearest: 'data.batch_size'"),
        ("+data.batchsize=5", "'data.batchsize' is not an option; nearest: 'data.batch_size'"),
        ("batch_size=5", "'batch_size' is not an option; nearest: 'data.batch_size'"),
        ("data.n_event=5", "'data.n_event' is not an option; nearest: 'data.n_events'"),
        ("data.jagged.jets.lenght=5", "'data.jagged.jets.lenght' is not an option; nearest: 'data.jagged.jets.length'"),
        ("trainer.max_epoch=3", "'trainer.max_epoch' is not an option; nearest: 'trainer.max_epochs'"),
        ("trainer.benchmark=true", "write '+trainer.benchmark=...' to add it"),
        (
            "callbacks.checkpoint.mod=max",
            "'callbacks.checkpoint.mod' is not an option; nearest: 'callbacks.checkpoint.mode'",
        ),
        ("modle=dnn", "'modle' is not an option; nearest: 'model'"),
        ("+trainr.max_epochs=3", "'trainr' is not an option; nearest: 'trainer'"),
        ("model=dn", "model=dn: 'dn' is not an option of 'model'; nearest: 'dnn'"),
        ("data=tth", "data=tth: 'tth' is not an option of 'data'; nearest: 'ttH'"),
        ("experiment=tth_papr", "nearest: 'tth_paper'"),
        ("logger=null", "write '~GROUP' to leave it out"),
        ("data.batch_size=many", "'data.batch_size': got 'many'; takes a whole number"),
        ("data.batch_size=2.5", "'data.batch_size': got 2.5; takes a whole number"),
        ("data.batch_size=null", "'data.batch_size': got None; takes a whole number"),
        ("data.shuffle=3", "'data.shuffle': got 3; takes true or false"),
        ("model.hidden=[64,wide]", "'model.hidden': got [64, 'wide']; takes a list, each a whole number"),
        ("model.hidden=64", "'model.hidden': got 64; takes a list"),
        ("model.dropout=high", "'model.dropout': got 'high'; takes a number"),
        ("trainer.precision=bf-mixed", "nearest: 'bf16-mixed'"),
        ("trainer.max_epochs=[3]", "'trainer.max_epochs': got [3]; takes a whole number or null"),
        ("data.samples=???", "'data.samples' has no value"),
        ("data.seed=${sed}", "'data.seed': Interpolation key 'sed' not found"),
        ("model._target_=rootdata.models.dnn.DNM", "'rootdata.models.dnn.DNM' can't be imported"),
        ("model._target_=rootdata.models.dnnn.DNN", "'rootdata.models.dnnn.DNN' can't be imported"),
        ("data.batch_size=[1", "'data.batch_size=[1' can't be read"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_remedy(start, words, sentence):
    status, message, got = start(words)
    assert sentence in message
    assert (status, got) == (2, [])
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["model=dnn", "data.layout=tokens"],
        ["data.prepare=null", "data.folder=mine"],
        ["+trainer.benchmark=true"],
        ["callbacks=none", "logger=[csv,tensorboard]"],
        ["~logger", "~callbacks"],
        ["data.scale={HT: log, default: standard}", "data.missing=[-999.0]"],
        ["data.mix={QCD: 1, ttbar: 1, ttH_unmatched: 1, ttH_signal: 2}"],
        ["trainer.max_epochs=null", "trainer.limit_val_batches=3", "trainer.devices=[0]"],
    ],
)
def test_what_is_right_is_not_called_wrong(start, words):
    status, message, _ = start(*words)
    assert (status, message) == (0, "")


def fail(error):
    def task(config):
        raise error

    return task


def test_an_error_of_the_package_is_one_sentence(start):
    status, message, _ = start(task=fail(FileError("file 'a.root' not found; nearest: 'b.root'")))
    assert (status, message) == (2, "train.py: file 'a.root' not found; nearest: 'b.root'")


def test_an_error_inside_a_target_is_one_sentence(start):
    def task(config):
        node = {"_target_": "rootdata.app.launch.require", "folder": "nowhere", "remedy": "make it"}
        building.build(OmegaConf.create(node))

    status, message, _ = start(task=task)
    assert status == 2
    assert message.startswith("train.py: no ROOT files in")
    assert message.endswith("nowhere'; make it")


def test_an_option_that_lightning_refuses_is_one_sentence(start):
    def task(config):
        building.build(config.trainer)

    status, message, _ = start("trainer=cpu", "trainer.max_epochs=-5", task=task)
    assert (status, len(message.splitlines())) == (2, 1)
    assert "-5" in message


def test_a_fault_of_the_program_keeps_its_traceback(start):
    status, message, _ = start(task=fail(ZeroDivisionError("a bug")))
    assert status == 1
    assert "Traceback" in message
    assert "a bug" in message


def test_the_traceback_can_be_asked_for(start, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(DataError, match="no events"):
        start(task=fail(DataError("no events")))


def test_ctrl_c_is_no_error(start):
    status, message, _ = start(task=fail(KeyboardInterrupt()))
    assert status == 130
    assert "Ctrl-C" in message
    assert "Traceback" not in message


@pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*does not have many workers", "ignore:.*checkpoint")
def test_ctrl_c_in_a_fit_is_no_error(start, tmp_path):
    def press(*args):
        raise KeyboardInterrupt

    def task(config):
        network = BoringModel()
        network.training_step = press
        pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, max_epochs=1).fit(network)

    handler = signal.getsignal(signal.SIGINT)  # Lightning ignores the signal from then on
    try:
        status, message, _ = start(task=task)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert status == 130
    assert "resume=auto" in message


def test_sigterm_is_a_status_of_its_own(start):
    status, message, _ = start(task=fail(SIGTERMException()))
    assert status == 143
    assert "resume=auto" in message


def test_children_do_not_inherit_what_hydra_is_told(start):
    status, _, _ = start(task=lambda config: sys.exit(3 if "HYDRA_FULL_ERROR" in os.environ else 4))
    assert status == 4


class Thing:
    """A target for the tests."""

    def __init__(self, size: int, *, names: typing.Sequence[str] = (), extra: dict[str, int] | None = None):
        self.size, self.names, self.extra = size, names, extra


def test_build_drops_helpers_and_converts():
    text = {"folder": "a", "names": ["${..folder}/b"], "size": 3, "_target_": f"{__name__}.Thing"}
    marker = object()
    thing = building.build(OmegaConf.create(text), given={"extra": {"it": marker}})
    assert type(thing.names) is list
    assert thing.names == ["a/b"]
    assert thing.extra["it"] is marker


def test_build_all_takes_what_has_a_target():
    group = OmegaConf.create({"one": {"_target_": f"{__name__}.Thing", "size": 1}, "off": None, "plain": {"size": 2}})
    assert [thing.size for thing in building.build_all(group)] == [1]
    assert building.build_all(None) == []


def test_what_saves_a_stopped_training_sees_the_end_of_a_batch_last():
    stopped = {"_target_": "rootdata.training.stopping.SaveWhenStopped", "path": "x"}
    others = {name: {"_target_": "pytorch_lightning.Callback"} for name in ("before", "after")}
    group = OmegaConf.create({"before": others["before"], "stopped": stopped, "after": others["after"]})
    assert [type(c).__name__ for c in building.build_all(group)] == ["Callback", "Callback", "SaveWhenStopped"]


def test_require_wants_root_files(tmp_path):
    with pytest.raises(FileError, match=r"data\.folder"):
        launch.require(tmp_path, remedy="set data.folder=...")
    (tmp_path / "a.root").touch()
    launch.require(tmp_path, remedy="set data.folder=...")


def test_require_wants_no_folder_where_all_files_lie_elsewhere(tmp_path):
    folder = tmp_path / "absent"
    launch.require(folder, files=["/else/a.root", ["root://here//b.root"]], remedy="set data.folder=...")
    with pytest.raises(FileError, match=r"data\.folder"):
        launch.require(folder, files=["/else/a.root", f"{folder}/b*.root"], remedy="set data.folder=...")


# What stands beside the options of a network


class OwnNetwork(torch.nn.Module):
    """A network of somebody's own; of its options only ``width`` is one."""

    def __init__(self, shapes, *, classes, width=2):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(shapes["x"][0], width), torch.nn.Linear(width, classes))


class FreeNetwork(OwnNetwork):
    """One that takes whatever is given."""

    def __init__(self, shapes, **more):
        super().__init__(shapes, classes=more.pop("classes"))
        assert not more


class KnownData:
    """The part of a data module that a network is built of."""

    shapes: typing.ClassVar = {"x": (3,)}
    classes = ("background", "signal")


BESIDE = {"init_from": None, "exclude": [], "freeze": [], "decorrelate": None}


def model_config(**changes):
    node = {"_target_": f"{__name__}.OwnNetwork", "width": 2, **BESIDE, **changes}
    return OmegaConf.create({"train": True, "ckpt_path": None, "model": node})


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": OwnNetwork(KnownData.shapes, classes=2).state_dict()}, path)
    return path


@pytest.mark.parametrize("kind", ["OwnNetwork", "FreeNetwork"])
def test_networks_of_ones_own_begin_with_weights_and_keep_some(checkpoint, kind, capsys):
    config = model_config(_target_=f"{__name__}.{kind}", init_from=str(checkpoint), freeze=["layers.0.*"])
    if kind == "FreeNetwork":
        del config.model.width
    network = building.build_model(config, KnownData)
    there = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(values, there[name]) for name, values in network.state_dict().items())
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"layers.0.weight", "layers.0.bias"}
    assert f"model.init_from: the network begins with {len(there)} tensors of {checkpoint}" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"ckpt_path": "last.ckpt"}, {"train": False}])
def test_who_goes_on_does_not_begin_again(changes, capsys):
    config = OmegaConf.merge(model_config(init_from="gone.ckpt", freeze=["layers.0.*"]), changes)
    network = building.build_model(config, KnownData)
    assert not network.layers[0].weight.requires_grad
    said = "model.init_from: gone.ckpt is not looked at; weights are those of last.ckpt\n"
    assert capsys.readouterr().out == (said if "ckpt_path" in changes else "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_from": "gone.ckpt"}, "checkpoint gone.ckpt does not exist"),
        ({"exclude": ["layers.1.*"]}, "model.exclude: got patterns of weights that are not taken over"),
        ({"freeze": ["layer.0.*"]}, "freeze: no weight matches 'layer.0.*'"),
    ],
)
def test_what_does_not_fit_is_said_before_a_training(changes, words):
    with pytest.raises((ConfigError, FileError), match=words):
        building.build_model(model_config(**changes), KnownData)


def test_weights_of_another_shape_are_said_before_a_training(checkpoint):
    words = r"weight 'layers.0.weight' is of shape \(2, 3\) there, of shape \(5, 3\) in this network"
    with pytest.raises(ConfigError, match=words):
        building.build_model(model_config(width=5, init_from=str(checkpoint)), KnownData)


@pytest.mark.parametrize(
    ("observers", "columns", "expected"),
    [
        ([], ["mbb"], ["mbb"]),
        (None, ["mbb"], ["mbb"]),
        ("ht", "mbb", ["ht", "mbb"]),
        (["ht"], "mbb", ["ht", "mbb"]),
        (["mbb"], ["mbb", "ht"], ["mbb", "ht"]),
        ({"m": "mbb / 2"}, ["m", "ht"], {"m": "mbb / 2", "ht": "ht"}),
    ],
)
def test_data_deliver_what_a_network_is_decorrelated_from(observers, columns, expected):
    config = OmegaConf.create({"data": {"observers": observers, "observe_training": False, "scale": "standard"}})
    OmegaConf.set_struct(config, True)
    building.settle(config)
    assert not config.data.observe_training
    config = OmegaConf.merge({"model": {"decorrelate": {"columns": columns}}}, config)
    OmegaConf.set_struct(config, True)
    building.settle(config)
    assert config.data.observers == expected
    assert config.data.observe_training


def test_a_scaling_is_not_taken_over_for_what_is_derived_in_another_way(tmp_path):
    scaling = {"ratio": {"shift": 1.0, "factor": 2.0}}
    manifest = {"scaling": scaling, "features": {"derived": {"ratio": "met / ht"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    data = {"scale": {"from": str(tmp_path)}, "flat": ["ratio"], "derived": {"ratio": "met / ht"}, "jagged": None}
    config = OmegaConf.create({"data": data})
    building.settle(config)
    assert config.data.scale.taken == scaling
    config = OmegaConf.create({"data": {**data, "derived": {"ratio": "ht / met"}}})
    with pytest.raises(ConfigError, match=r"'ratio' is met / ht there and ht / met here; derive it in the same way"):
        building.settle(config)


def test_options_beside_those_of_a_network_are_typed(start):
    status, said, _ = start("model.freeze=network.0.*")
    assert status == 2
    assert "'model.freeze': got 'network.0.*'; takes a list" in said
    status, said, _ = start("model.decorrelate=mbb")
    assert (status, "'model.decorrelate': got 'mbb'; takes a mapping" in said) == (2, True)
    status, said, _ = start("model.init_form=a.ckpt")
    assert "nearest: 'model.init_from'" in said


def test_who_can_not_decorrelate_says_so():
    from rootdata.app.checking import check

    node = OmegaConf.create({"model": {"_target_": f"{__name__}.OwnNetwork", **BESIDE}})
    check(node, known=["model"], used=[])
    node.model.decorrelate = {"columns": ["mbb"]}
    with pytest.raises(ConfigError, match=r"OwnNetwork does not take it; the networks of rootdata.models do"):
        check(node, known=["model"], used=[])
