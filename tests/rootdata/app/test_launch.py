import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lanes_for_tests import thinned
from rootdata.app import building, launch
from rootdata.errors import DataError, FileError

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
    thinned(
        [
            ("data.batchsize=5", "'data.batchsize' is not an option; nearest: 'data.batch_size'"),
            ("+data.batchsize=5", "'data.batchsize' is not an option; nearest: 'data.batch_size'"),
            ("batch_size=5", "'batch_size' is not an option; nearest: 'data.batch_size'"),
            ("data.n_event=5", "'data.n_event' is not an option; nearest: 'data.n_events'"),
            (
                "data.jagged.jets.lenght=5",
                "'data.jagged.jets.lenght' is not an option; nearest: 'data.jagged.jets.length'",
            ),
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
            ("export=no", "'export': got 'no'; takes true or false"),
            ("seed=-1", "seed: got -1; expected a whole number from 0 to 4294967295"),
            ("ckpt_path=3", "ckpt_path=3: there is no such file"),
            ("model.hidden=[64,wide]", "'model.hidden': got [64, 'wide']; takes a list, each a whole number"),
            ("model.hidden=64", "'model.hidden': got 64; takes a list"),
            ("model.dropout=high", "'model.dropout': got 'high'; takes a number"),
            ("trainer.precision=bf-mixed", "nearest: 'bf16-mixed'"),
            ("trainer.max_epochs=[3]", "'trainer.max_epochs': got [3]; takes a whole number or null"),
            ("data.samples=???", "'data.samples' has no value"),
            ("data.seed=${sed}", "'data.seed': Interpolation key 'sed' not found"),
            ("model._target_=rootdata.models.dnn.DNM", "'rootdata.models.dnn.DNM' can't be imported"),
            ("model._target_=rootdata.models.dnnn.DNN", "'rootdata.models.dnnn.DNN' can't be imported"),
            ("data.batch_size=[1", "'data.batch_size=[1' can't be read; close its brackets"),
            ("data.cut=nJet >= 2", """quote its value, and all of it for the shell: "data.cut='nJet >= 2'\""""),
            ("data.cut='nJet >= 2", "close its quotes"),
            ("resume", "'resume' can't be read; options are written as data.batch_size=512"),
        ]
    ),
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


def test_options_beside_those_of_a_network_are_typed(start):
    status, said, _ = start("model.freeze=network.0.*")
    assert status == 2
    assert "'model.freeze': got 'network.0.*'; takes a list" in said
    status, said, _ = start("model.decorrelate=mbb")
    assert (status, "'model.decorrelate': got 'mbb'; takes a mapping" in said) == (2, True)
    status, said, _ = start("model.init_form=a.ckpt")
    assert "nearest: 'model.init_from'" in said
