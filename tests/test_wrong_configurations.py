"""Trainings that can't mean anything: each ends in its sentence before the first batch, and leaves nothing behind."""

import re
import shlex

import pytest

from forks_for_tests import forking, make_home

QUICK = [
    "data=mine", "model=dnn", "trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false",
    "~callbacks.progress", "data.batch_size=256", "callbacks.score_report.plots=false",
]  # fmt: skip
BY_FILES = "data.split=\"{by: files, train: [%s], val: ['*other_0*'], test: ['*other_1*']}\""
WRONG = {
    # labels, classes and weights
    "data.samples.signal.label=null data.samples.other.label=null": r"none of the training events has a label",
    "data.samples.signal.label=null": r"samples\.signal\.label is missing while other samples have one",
    "data.samples.signal.label=0": r"class 1 \('signal'\) has no training events \(background: 1,521, signal: 0\)",
    "data.samples.signal.label=5": r"samples\.signal\.label is 5; allowed: 0 \(background\), 1 \(signal\)",
    "data.label=x0": r"label 'x0' is \S+ at entry 0 of .*other_0\.root",
    "data.label=\"'x0 > 1000'\"": r"class 1 \('signal'\) has no training events",
    "data.classes=[a,b,c]": r"class 2 \('c'\) has no training events \(a: 764, b: 757, c: 0\)",
    BY_FILES % "'*signal*'": r"class 0 \('background'\) has no training events",
    BY_FILES.replace("other_1", "signal_1")
    % "'*signal_0*','*other_1*'": r"needs events of two classes in the val part",
    'data.mix="{signal: 0, other: 1}"': r"mix: got signal: 0, which leaves class 1 \('signal'\) without",
    "data.weight=0": r"the weights of all its 764 training events are 0",
    "data.weight=x0*0": r"the weights of all its 764 training events are 0",
    "+data.samples.signal.weight=0": r"class 1 \('signal'\): the weights of all its 757 training events are 0",
    "data.cut=\"'x0 > 1000'\"": r"sample 'other': none of its 1200 entries in 2 files is selected",
    "data.luminosity=3": r"luminosity is given, but no sample has a cross_section",
    "data.luminosity=3 +data.samples.other.cross_section=1 +data.samples.signal.cross_section=1": (
        r"samples\.other\.sum_of_weights: the sum of generator weights of .*other_0\.root is not known"
    ),
    "data.balance=samples data.weight=x0*0": r"balance: got 'samples', and the weights .* of 'other' add up to 0",
    'data.reweight="{variables: [x0], bins: [4], to: sgnal}"': r"reweight\.to: got 'sgnal'.*; nearest: 'signal'",
    'data.reweight="{variables: [x0], bins: [4], cap: 0.5}"': r"reweight\.cap: got 0\.5; expected the largest factor",
    'data.reweight="{variables: [x00], bins: [4]}"': r"branch 'x00' not found; nearest: 'x0'",
    # what is not trained, or not validated
    "train=false": r"train=false: there is no trained network",
    "train=false test=false": r"train=false: there is no trained network",
    "data.batch_size=100000 data.drop_last=true": r"drop_last: the 1521 events are fewer than a batch of 100000",
    "trainer.max_epochs=0": r"trainer\.max_epochs: got 0, with which nothing is trained",
    "trainer.max_steps=0": r"trainer\.max_steps: got 0",
    "trainer.limit_train_batches=0": r"trainer\.limit_train_batches: got 0",
    "trainer.accumulate_grad_batches=0": r"trainer\.accumulate_grad_batches: got 0",
    'data.split="{val: 0.5, test: 0.5}"': r"no real value in the training events \(there are none at all\)",
    'data.split="{train: 0.8, test: 0.2}"': r"monitors 'val/auc', which is never computed: the val part has no events",
    "trainer.limit_val_batches=0": r"never computed: trainer\.limit_val_batches is 0",
    "trainer.check_val_every_n_epoch=20": r"never computed: trainer\.check_val_every_n_epoch is 20, and max_epochs 1",
    "trainer.val_check_interval=1000": r"val_check_interval.* \(1000\) must be less than or equal to",
    "callbacks.checkpoint.monitor=val/aucc": r"ModelCheckpoint monitors 'val/aucc'.*; nearest: 'val/auc'",
    "callbacks.early_stopping.monitor=val/accuracy": r"EarlyStopping monitors 'val/accuracy', which nobody computes",
    "callbacks.checkpoint.mode=maximum": r"`mode` can be min, max but got maximum",
    # options of the trainer, the network and the reading
    "trainer.accelerator=gpuu": r"invalid accelerator name: `accelerator='gpuu'`. Available names are: auto",
    "trainer.devices=-3": r"Trainer can't be made: `devices` selected with `CPUAccelerator` should be an int > 0",
    "+trainer.strategy=nope": r"invalid strategy name: `strategy='nope'`",
    "trainer.precision=17": r"'trainer\.precision': got 17; takes 64 or 32",
    "model.dropout=1.5": r"model\.dropout: got 1\.5; expected a probability",
    "model.hidden=[-3]": r"model: got a layer of -3 nodes",
    "model.lr=0": r"model\.lr: got 0; expected a finite number above 0",
    "model.lr=nan": r"model\.lr: got nan",
    "model.weight_decay=-1": r"model\.weight_decay: got -1",
    "model=deepsets": r"DeepSets needs a batch with collections",
    "model=cnn": r"CNN needs a batch with images",
    "ckpt_path=nope.ckpt": r"ckpt_path=nope\.ckpt: there is no such file",
    "ckpt_path=other_0.root": r"ckpt_path=other_0\.root is no checkpoint",
    "train=false ckpt_path=nope.ckpt": r"ckpt_path=nope\.ckpt: there is no such file",
    "logger=wandb": r"'wandb' is not an option of 'logger'",
    "+logger.w._target_=pytorch_lightning.loggers.WandbLogger": r"WandbLogger can't be made: Requirement 'wandb",
    "data.num_workers=1000": r"num_workers: got 1000; expected 0 to \d+",
    "data.prefetch=1000000": r"prefetch: got 1000000; expected 0 to 256",
    "seed=-1": r"seed: got -1; expected a whole number from 0 to 4294967295",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, write_tree):
    return make_home(tmp_path_factory.mktemp("wrong"), write_tree)


@pytest.fixture(scope="module")
def fork(home):
    with forking(home, QUICK, printed=home / "printed.txt") as start:
        yield start


def run(fork, home, *words):
    """Train in a folder of its own; return the status, what was printed, and that folder."""
    printed, folder = home / "printed.txt", home / f"out_{len(list(home.glob('out_*')))}"
    printed.unlink(missing_ok=True)
    _, status = fork(*words, f"hydra.run.dir={folder}")
    return status(), printed.read_text(), folder


@pytest.mark.long
@pytest.mark.parametrize("words", WRONG)
def test_a_training_in_vain_is_refused_before_its_first_batch(fork, home, words):
    status, printed, folder = run(fork, home, *shlex.split(words))
    assert status == 2, printed
    assert "Traceback" not in printed
    (sentence,) = [line for line in printed.splitlines() if line.startswith("train.py: ")]
    assert re.search(WRONG[words], sentence), sentence
    assert not (folder / "checkpoints").exists()  # a training that began would have saved where it stopped
    assert not (folder / "bundle").exists()


@pytest.mark.long
def test_what_the_sentences_advise_works(fork, home):
    nothing_monitored = ["~callbacks.early_stopping", "callbacks.checkpoint.monitor=null"]
    status, printed, folder = run(fork, home, "data.split={train: 0.8, test: 0.2}", *nothing_monitored)
    assert status == 0, printed
    checkpoint = folder / "checkpoints" / "last.ckpt"
    status, printed, folder = run(fork, home, "train=false", f"ckpt_path={checkpoint}")
    assert status == 0, printed
    assert (folder / "bundle" / "manifest.json").exists()
    status, printed, folder = run(fork, home, "train=false", f"ckpt_path={checkpoint}", "model.hidden=[16]")
    assert status == 2, printed
    assert "the checkpoint holds another network" in printed
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    status, printed, folder = run(fork, home, f"ckpt_path={checkpoint}")
    assert (status, "is no checkpoint, or not a whole one" in printed) == (2, True), printed
