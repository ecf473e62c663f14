"""Finding the checkpoint that ``resume=auto`` goes on from; ``tests/test_soak.py`` runs the whole of it."""

import copy
import functools
import os
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from pytorch_lightning.demos.boring_classes import BoringModel

from rootdata.app import folders
from rootdata.errors import ConfigError
from rootdata.training import resume

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of Lightning, as a dict, and the bytes of its file."""
    path = tmp_path_factory.mktemp("real") / "real.ckpt"
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=3, limit_val_batches=0, enable_checkpointing=False, **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the model for demonstrations
        trainer.fit(BoringModel())
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


@functools.cache
def compose_once(*words):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        own = ["paths.output_dir=elsewhere", "paths.root_dir=/somewhere", "resume=auto"]
        return compose("train", overrides=[*own, *words], return_hydra_config=True)


@pytest.fixture
def composed():
    """Compose as train.py does."""

    def make(folder, *words):
        config = copy.deepcopy(compose_once(*words))
        config.paths.output_dir = str(folder)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return config

    yield make
    HydraConfig.instance().cfg = None


@pytest.fixture
def run(tmp_path, composed, checkpoint):
    """Make the folder of a training that was started at a time, with checkpoints that got so far."""

    def make(name, *words, started=0, **steps):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(composed(folder, *words), resolve=True))
        os.utime(folder / "config.yaml", (started, started))
        for number, (file, step) in enumerate(steps.items()):
            path = folder / "checkpoints" / f"{file}.ckpt"
            torch.save({**checkpoint, "global_step": step, "epoch": step // 10}, path)
            os.utime(path, (number, number))
        return folder

    return make


@pytest.fixture
def found(tmp_path, composed):
    """Look for the checkpoint of a configuration; return it and what was said."""

    def look(*words):
        said = []
        config = OmegaConf.to_container(composed(tmp_path / "new", *words), resolve=True)
        return resume.find(config, say=said.append), said

    return look


def test_without_a_training_there_is_none(found, run):
    assert found() == (None, [])
    run("a")
    assert found() == (None, [])


def test_the_furthest_of_the_last_training_is_found(found, run):
    run("a", started=1, last=99)
    folder = run("b", started=2, best=20, recent=33, last=30)
    run("c", started=3)  # was killed before its first checkpoint
    got, said = found()
    assert (got.path, got.folder) == (folder / "checkpoints" / "recent.ckpt", folder)
    assert (got.step, got.epoch, got.is_over, said) == (33, 3, False, [])


def test_of_two_as_far_the_later_is_found(found, run):
    run("a", best=20, last=20)
    assert found()[0].path.name == "last.ckpt"


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("seed=7", "seed"),
        ("data.batch_size=7", "data.batch_size"),
        ("data.cut='nJet >= 7'", "data.cut"),
        ("data.shuffle=false", "data.shuffle"),
        ("data.samples.QCD.label=1", "data.samples.QCD.label"),
        ("data.flat=[HT]", "data.flat.1"),
        ("model.hidden=[64,128]", "model.hidden.0"),
        ("model.dropout=0.0", "model.dropout"),
        ("model=deepsets", "model._target_"),
        ("trainer.precision=bf16-mixed", "trainer.precision"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
        ("trainer.gradient_clip_val=1.0", "trainer.gradient_clip_val"),
    ],
)
def test_another_configuration_is_not_gone_on_with(found, run, word, place):
    run("theirs", last=10)
    got, (said,) = found(word)
    assert got is None
    assert said.startswith(f"theirs differs in {place}: ")


@pytest.mark.parametrize(
    "words",
    [
        ["data.num_workers=2", "data.prefetch=4", "data.pin_memory=true"],
        ["trainer.max_epochs=50", "trainer.devices=2", "trainer.log_every_n_steps=1"],
        ["trainer=ddp"],
        ["callbacks=none", "logger=tensorboard"],
        ["export=false", "test=false"],
    ],
)
def test_how_it_is_run_may_change(found, run, words):
    folder = run("theirs", last=10)
    got, said = found(*words)
    assert (got.folder, said) == (folder, [])


def test_with_an_identity_the_events_decide_and_no_option_of_the_data(tmp_path, composed, run, checkpoint):
    """What ``ckpt_path`` goes on from, ``resume=auto`` goes on from as well: the comparison is one."""
    folder = run("theirs", "data.on_bad_file=skip", "data.index=true", "data.folder=/elsewhere")
    identity = {"cut": None, "seed": 1, "files": ["ttH: a.root"]}
    data = {"version": 2, "epoch": 1, "batch": 3, "identity": identity}
    torch.save({**checkpoint, "RootDataModule": data}, folder / "last.ckpt")
    config = OmegaConf.to_container(composed(tmp_path / "new"), resolve=True)
    said = []
    assert resume.find(config, identity=lambda: identity, say=said.append).folder == folder
    for other in ({"seed": 2}, {"files": ["ttH: a.root", "ttH: b.root"]}):
        now = identity | other
        assert resume.find(config, identity=lambda now=now: now, say=said.append) is None
    assert [s.split(" was ")[0].split(" had ")[0] for s in said] == [
        "theirs differs in seed",
        "theirs differs in files",
    ]


def test_a_folder_inside_the_options_does_not_matter(found, run):
    word = "+model.where=${paths.output_dir}/figures"
    run("theirs", word, last=10)
    assert found(word)[0].step == 10


@pytest.mark.parametrize("model", ["dnn", "deepsets"])
@pytest.mark.parametrize("data", sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml") if path.stem != "base"))
def test_what_is_written_is_what_was_composed(found, run, data, model):
    run("theirs", f"data={data}", f"model={model}", last=10)
    assert found(f"data={data}", f"model={model}")[0].step == 10


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_a_half_written_checkpoint_is_passed_over(found, run, share):
    folder = run("a", last=10, recent=15)
    path = folder / "checkpoints" / "recent.ckpt"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    got, (said,) = found()
    assert got.path.name == "last.ckpt"
    assert str(path) in said


def test_a_training_without_a_whole_checkpoint_is_passed_over(found, run):
    before, folder = run("a", started=1, last=10), run("b", started=2, last=15)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    assert found()[0].folder == before


def test_weights_alone_are_passed_over(found, run, checkpoint):
    folder = run("a", last=10)
    weights = {k: v for k, v in checkpoint.items() if k not in {"optimizer_states", "loops"}}
    torch.save({**weights, "global_step": 99}, folder / "checkpoints" / "weights.ckpt")
    got, (said,) = found()
    assert got.path.name == "last.ckpt"
    assert "weights" in said


def test_what_is_no_training_is_left_alone(found, run, tmp_path):
    folder = run("a", started=1, last=10)
    (tmp_path / "latest").symlink_to(folder)
    for name, text in {"b": "{", "c": "- 1", "d": "paths: 3\ndata: {}", "e": "x: ${y}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
        (tmp_path / name / "a.ckpt").touch()
    assert found()[0].folder == folder


def test_it_is_known_whether_early_stopping_ended_it(found, run, checkpoint):
    folder = run("a", last=10)
    for waited, is_over in ((1, False), (2, True)):
        content = copy.deepcopy(checkpoint)
        content["callbacks"]["EarlyStopping{}"] = {"wait_count": waited, "patience": 2}
        torch.save({**content, "global_step": 20 + waited}, folder / "checkpoints" / f"{waited}.ckpt")
        assert found()[0].is_over is is_over


# What launch makes of it


def test_the_configuration_goes_on_in_the_same_folder(run, composed, tmp_path, capsys, recwarn):
    folder = run("a", last=10)
    config = composed(tmp_path / "new")
    folders.resume(config)
    assert config.ckpt_path == str(folder / "checkpoints" / "last.ckpt")
    assert config.callbacks.checkpoint.dirpath == str(folder / "checkpoints")
    assert config.logger.csv.save_dir == str(folder)
    assert capsys.readouterr().out == f"resume=auto: going on from epoch 1, step 10: {config.ckpt_path}\n"


def test_a_training_that_was_ended_trains_no_more(run, composed, tmp_path, checkpoint):
    folder = run("a")
    stopping = {"EarlyStopping{}": {"wait_count": 2, "patience": 2}}
    torch.save({**checkpoint, "callbacks": stopping, "epoch": 4}, folder / "last.ckpt")
    config = composed(tmp_path / "new", "trainer.max_epochs=9")
    folders.resume(config)
    assert config.trainer.max_epochs == 5


@pytest.mark.parametrize(
    ("words", "tested", "told"),
    [
        ([], False, None),
        (["trainer.max_epochs=2"], False, "was finished, it had reached trainer.max_epochs=2; it is tested"),
        (["trainer.max_steps=10"], False, "was finished, it had reached trainer.max_steps=10; it is tested"),
        (["trainer.max_epochs=5", "trainer.max_steps=11"], True, "was finished; it is trained further in its folder"),
        (["trainer.max_epochs=-1"], True, "was finished; it is trained further in its folder"),
    ],
)
def test_whether_it_was_finished_is_said(run, composed, checkpoint, tmp_path, capsys, words, tested, told):
    folder, content = run("a"), copy.deepcopy(checkpoint)
    content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = 2
    torch.save({**content, "epoch": 1, "global_step": 10}, folder / "last.ckpt")
    if tested:
        (folder / "metrics.json").write_text("{}")
    folders.resume(composed(tmp_path / "new", *words))
    _, *more = capsys.readouterr().out.splitlines()
    assert told in more[0] if told else not more


def test_without_a_checkpoint_it_starts_from_the_beginning(composed, tmp_path, capsys):
    config = composed(tmp_path / "new")
    folders.resume(config)
    assert (config.ckpt_path, config.paths.output_dir) == (None, str(tmp_path / "new"))
    printed = capsys.readouterr().out
    assert "from the beginning" in printed
    assert len(printed.splitlines()) == 1


def test_nothing_is_looked_for_without_being_asked(run, composed, tmp_path, capsys):
    run("a", last=10)
    config = composed(tmp_path / "new", "resume=null")
    folders.resume(config)
    assert (config.ckpt_path, capsys.readouterr().out) == (None, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["resume=yes"], "resume: got 'yes'; allowed: null, auto"), (["resume=Auto"], "allowed: null, auto"),
     (["ckpt_path=a.ckpt"], "ckpt_path=a.ckpt names one")],
)  # fmt: skip
def test_a_contradiction_is_an_error(composed, tmp_path, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        folders.resume(composed(tmp_path / "new", *words))


def test_logs_are_kept_in_their_order(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "csv").mkdir(exist_ok=True)
        (tmp_path / "csv" / "metrics.csv").write_text(text)
        resume.keep_logs(tmp_path)
    kept = {path.name: path.read_text() for path in (tmp_path / "csv").iterdir()}
    assert kept == {"metrics.1.csv": "first", "metrics.2.csv": "second"}
    (tmp_path / "csv" / "metrics.1.csv").unlink()
    (tmp_path / "csv" / "metrics.csv").write_text("third")
    resume.keep_logs(tmp_path)
    assert {path.name for path in (tmp_path / "csv").iterdir()} == {"metrics.2.csv", "metrics.3.csv"}


def test_recent_checkpoints_do_not_pile_up(run, tmp_path):
    folder = run("a", recent_10=10, recent_20=20, last=15, epoch_001=15) / "checkpoints"
    resume.tidy(folder / "recent_20.ckpt")
    assert sorted(path.stem for path in folder.iterdir()) == ["epoch_001", "last", "recent_20"]
    resume.tidy(folder / "last.ckpt")
    assert sorted(path.stem for path in folder.iterdir()) == ["epoch_001", "last"]
