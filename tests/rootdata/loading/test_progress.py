"""Which events each fit gets, whatever ran, was loaded, was looked at or failed before it."""

import copy
import dataclasses
import itertools

import pytest
import torch

from rootdata.errors import ConfigError, ResumeError
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.loading.position import Cursor
from strategies import DataSet, FileShape

FILES = DataSet(((FileShape(60, (20,)),), (FileShape(40, (15,), "rntuple"),)))
OPTIONS = {
    "flat": ["ht"],
    "batch_size": 15,
    "chunk_size": 30,
    "split": {"by": "entries", "train": 0.5, "val": 0.25, "test": 0.25},
}
EPOCH = 4  # batches: 50 events
PLACE = Cursor(1, 2)  # in the checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    # Said by Lightning where callbacks that a checkpoint was made with are not there.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
in_both = pytest.mark.parametrize("pl", ["pytorch_lightning", "lightning.pytorch"], indirect=True)


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return FILES.write(tmp_path_factory.mktemp("data"), write_tree)


@pytest.fixture(autouse=True)
def _many_blocks(small_blocks):
    """The files here have several blocks each."""


@pytest.fixture
def make(samples):
    """Make data modules."""

    def make(kind=RootDataModule, **options):
        return kind(samples, **{**OPTIONS, "index": True, **options})

    return make


@pytest.fixture
def epochs(samples):
    """Give the batches of the first epochs as lists of (sample, file, entry), straight from the data set."""
    return [epoch_of(samples, number) for number in range(6)]


def epoch_of(samples, epoch, part="train"):
    events = RootDataset({"samples": samples, **OPTIONS}, part, index=True)
    return [batch["index"].tolist() for batch in events.batches(epoch)]


@pytest.fixture
def pl(request):
    """Give a distribution of Lightning."""
    return pytest.importorskip(getattr(request, "param", "pytorch_lightning"))


@pytest.fixture
def net(pl):
    """Make networks that note which events they got; ``hooks`` are methods of theirs."""

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.lr = 0.01
            self.seen = []

        def training_step(self, batch, batch_idx):
            self.seen.append(batch["index"].tolist())
            return self.layer(batch["x"]).mean()

        def predict_step(self, batch, batch_idx):
            if self.trainer.state.fn != "fit":
                self.seen.append(batch["index"].tolist())
            return batch["label"]

        validation_step = test_step = predict_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    def make(**hooks):
        return type("Net", (Net,), hooks)()

    return make


@pytest.fixture
def trainer(pl, tmp_path):
    """Make trainers that print and keep nothing."""

    def make(**options):
        quiet = {
            "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "default_root_dir": tmp_path, "max_epochs": 1, "num_sanity_val_steps": 1,
        }  # fmt: skip
        return pl.Trainer(**{**quiet, **options})

    return make


@pytest.fixture
def checkpoint(make, net, trainer, tmp_path):
    """Give a checkpoint that was made within the second epoch."""
    path = tmp_path / "within.ckpt"

    def save(self, *_):
        if len(self.seen) == EPOCH * PLACE.epoch + PLACE.batch:
            self.trainer.save_checkpoint(path)

    trainer(max_epochs=2, limit_val_batches=0).fit(net(on_train_batch_end=save), make())
    return path


def place_of(data):
    state = data.state_dict()
    return Cursor(state["epoch"], state["batch"])


# fit, validate, test and predict, one after another

RUNS = [(run, loads) for run in ("fit", "validate", "test", "predict") for loads in (False, True)]
ORDERS = list(itertools.product(RUNS, repeat=3))


@dataclasses.dataclass
class Bench:
    """One data module, and what its next fit must give."""

    make_trainer: object
    net: object
    data: object
    checkpoint: object
    epochs: list
    parts: dict
    is_one_trainer: bool
    next: int = 0

    def __post_init__(self):
        self.trainer = self.make_trainer()

    def run(self, run, *, loads):
        net = self.net()
        if not self.is_one_trainer:
            self.trainer = self.make_trainer()
        if run == "fit":  # one epoch more, or the end of the one that was loaded
            self.trainer.fit_loop.max_epochs = PLACE.epoch + 1 if loads else self.trainer.current_epoch + 1
        quiet = {"verbose": False} if run in {"validate", "test"} else {}
        getattr(self.trainer, run)(net, datamodule=self.data, ckpt_path=self.checkpoint if loads else None, **quiet)
        assert net.seen == self.expected(run, loads=loads)
        assert place_of(self.data) == Cursor(self.next)

    def expected(self, run, *, loads):
        if run != "fit":
            return self.parts["val" if run == "validate" else "test"]
        epoch = PLACE.epoch if loads else self.next
        self.next = epoch + 1
        return self.epochs[epoch][PLACE.batch if loads else 0 :]


@pytest.fixture
def check_order(samples, make, net, trainer, checkpoint, epochs):
    parts = {part: epoch_of(samples, 0, part) for part in ("val", "test")}

    def check(order, *, is_one_trainer):
        bench = Bench(trainer, net, make(), checkpoint, epochs, parts, is_one_trainer)
        for run, loads in order:
            bench.run(run, loads=loads)
        # What each fit gives is seen by the fit after it, too.
        bench.run("fit", loads=False)

    return check


@pytest.mark.long
@in_both
@pytest.mark.parametrize("is_one_trainer", [False, True])
def test_every_fit_gets_its_own_events_in_some_orders(check_order, is_one_trainer):
    for order in ORDERS[5::101]:
        check_order(order, is_one_trainer=is_one_trainer)


@pytest.mark.matrix
@in_both
@pytest.mark.parametrize("is_one_trainer", [False, True])
@pytest.mark.parametrize("part", range(8))
def test_every_fit_gets_its_own_events_in_every_order_of_three(check_order, is_one_trainer, part):
    for order in ORDERS[part::8]:
        check_order(order, is_one_trainer=is_one_trainer)


# Fits that fail


def fail(self, *_, **__):
    raise RuntimeError("no luck")


@in_both
@pytest.mark.parametrize(
    "hook", ["setup", "on_load_checkpoint", "configure_optimizers", "on_fit_start", "on_train_start"]
)
def test_a_fit_that_got_no_batch_leaves_no_trace(make, net, trainer, checkpoint, epochs, hook):
    data, good = make(), net()
    with pytest.raises(RuntimeError, match="no luck"):
        trainer(max_epochs=2).fit(net(**{hook: fail}), data, ckpt_path=checkpoint)
    trainer().fit(good, data)
    assert good.seen == epochs[0]


def test_after_a_fit_that_failed_with_a_batch_in_hand_the_next_epoch_begins(make, net, trainer, checkpoint, epochs):
    data = make()
    with pytest.raises(RuntimeError, match="no luck"):
        trainer(max_epochs=2).fit(net(training_step=fail), data, ckpt_path=checkpoint)
    good = net()
    trainer().fit(good, data)
    assert good.seen == epochs[PLACE.epoch + 1]


# What somebody does with the data module in a hook, in the midst of a fit

HOOKS = (
    *("configure_optimizers", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    *("on_train_batch_end", "on_validation_epoch_end", "on_train_epoch_end"),
)


def ask_for_loaders(network, trainer):
    data = network.trainer.datamodule
    assert [len(data.train_dataloader()), len(data.val_dataloader())] == [EPOCH, 2]


def look_at_batches(network, trainer):
    loader = network.trainer.train_dataloader
    if loader is not None:
        assert len(list(itertools.islice(loader, 2))) == 2


def print_and_copy(network, trainer):
    data = network.trainer.datamodule
    assert "batches of 15" in str(data)
    assert repr(copy.deepcopy(data)) == repr(data)


def validate_elsewhere(network, trainer):
    # Another trainer's network has other hooks, which this one's must not become.
    other = type(network).__mro__[1]()
    trainer().validate(other, network.trainer.datamodule, verbose=False)


LOOKS = (ask_for_loaders, look_at_batches, print_and_copy, validate_elsewhere)


@pytest.fixture
def watched(net, trainer):
    """Make networks that look at something in a hook, and note the place after every batch."""

    def make(hook, look):
        def body(self, *_):
            look(self, trainer)
            return super(type(self), self).configure_optimizers() if hook == "configure_optimizers" else None

        def note(self, *arguments):
            if hook == "on_train_batch_end":
                body(self)
            self.places.append(place_of(self.trainer.datamodule))

        network = net(**{hook: body, "on_train_batch_end": note})
        network.places = []
        return network

    return make


@pytest.fixture
def check_look(make, watched, trainer, checkpoint, epochs):
    def check(hook, look):
        network, resumed = watched(hook, look), watched(hook, look)
        trainer(max_epochs=2, reload_dataloaders_every_n_epochs=1).fit(network, make())
        assert network.seen == epochs[0] + epochs[1]
        places = [Cursor((n + 1) // EPOCH, (n + 1) % EPOCH) for n in range(2 * EPOCH)]
        assert network.places == places
        trainer(max_epochs=2).fit(resumed, make(), ckpt_path=checkpoint)
        assert resumed.seen == epochs[1][PLACE.batch :]
        assert resumed.places == places[EPOCH + PLACE.batch :]

    return check


@pytest.mark.long
@pytest.mark.parametrize(
    ("hook", "look"), [*list(itertools.product(HOOKS, LOOKS))[::3], ("on_train_batch_start", look_at_batches)]
)
def test_a_look_in_a_fit_changes_nothing(check_look, hook, look):
    check_look(hook, look)


@pytest.mark.matrix
@pytest.mark.parametrize("look", LOOKS)
def test_no_look_in_a_fit_changes_anything(check_look, look):
    for hook in HOOKS:
        check_look(hook, look)


def test_a_fit_within_a_fit_needs_a_data_module_of_its_own(make, net, trainer, epochs):
    def refused(self):
        with pytest.raises(ConfigError, match="in the midst of another run"):
            trainer().fit(net(), self.trainer.datamodule)
        trainer().fit(net(), copy.deepcopy(self.trainer.datamodule))

    network = net(on_train_epoch_end=refused)
    trainer(max_epochs=2).fit(network, make())
    assert network.seen == epochs[0] + epochs[1]


def test_after_the_rest_of_an_epoch_was_left_out_the_next_one_begins(make, net, trainer, epochs, tmp_path):
    def leave(self, batch, batch_idx):
        return -1 if batch_idx == 2 else None

    def save(self):
        self.trainer.save_checkpoint(tmp_path / f"{len(self.seen)}.ckpt")

    network, resumed = net(on_train_batch_start=leave, on_train_epoch_end=save), net(on_train_batch_start=leave)
    trainer(max_epochs=3).fit(network, make())
    assert network.seen == epochs[0][:2] + epochs[1][:2] + epochs[2][:2]
    trainer(max_epochs=3).fit(resumed, make(), ckpt_path=tmp_path / "2.ckpt")
    assert resumed.seen == network.seen[2:]


# Tuners try something, and put back what they found


@in_both
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("num_before", [0, 1])
def test_a_search_for_the_learning_rate_leaves_no_trace(pl, make, net, trainer, epochs, num_before):
    from importlib import import_module

    tuner, data = import_module(f"{pl.__name__}.tuner"), make()
    for _ in range(num_before):
        trainer().fit(net(), data)
    tuner.Tuner(trainer()).lr_find(net(), datamodule=data, num_training=6)
    network = net()
    trainer().fit(network, data)
    assert network.seen == epochs[num_before]


@pytest.mark.long
@pytest.mark.parametrize("num_before", [0, 1])
def test_a_search_for_the_size_of_batches_leaves_nothing_but_the_size(make, net, trainer, samples, num_before):
    from pytorch_lightning.tuner import Tuner

    data = make()
    for _ in range(num_before):
        trainer().fit(net(), data)
    found = Tuner(trainer()).scale_batch_size(net(), datamodule=data, init_val=5, max_trials=2)
    assert found == data.batch_size == 10
    network = net()
    trainer().fit(network, data)
    events = RootDataset({"samples": samples, **OPTIONS, "batch_size": 10}, index=True)
    assert network.seen == [batch["index"].tolist() for batch in events.batches(num_before)]


def test_a_search_at_the_start_of_a_resumed_fit_changes_nothing(make, net, trainer, checkpoint, epochs):
    from pytorch_lightning.callbacks import LambdaCallback, LearningRateFinder

    data, network, learnt = make(), net(), []
    note = LambdaCallback(on_train_batch_end=lambda *_: learnt.append(network.seen[-1]))  # not there in the search
    run = trainer(max_epochs=2, callbacks=[LearningRateFinder(num_training_steps=6), note])
    run.fit(network, data, ckpt_path=checkpoint)
    # Lightning itself forgets in the search how many epochs were done, and trains for one more.
    assert learnt == epochs[1][PLACE.batch :] + epochs[2]
    assert len(network.seen) > len(learnt)


# Places that were loaded by hand, or that are not there


def test_a_place_that_was_loaded_by_hand_is_for_the_next_fit_alone(make, net, trainer, checkpoint, epochs):
    data = make()
    data.load_state_dict(torch.load(checkpoint, weights_only=True)["RootDataModule"])
    trainer().test(net(), data, ckpt_path=checkpoint, verbose=False)
    networks = [net() for _ in range(2)]
    for network in networks:
        trainer().fit(network, data)
    assert [network.seen for network in networks] == [epochs[1][PLACE.batch :], epochs[2]]


@in_both
def test_a_data_module_out_of_a_checkpoint_has_its_options_and_not_its_place(samples, net, trainer, epochs, tmp_path):
    class Mine(RootDataModule):
        def __init__(self, batch_size=15):
            super().__init__(samples, **{**OPTIONS, "batch_size": batch_size}, index=True)
            self.save_hyperparameters()

    def save(self, *_):
        self.trainer.save_checkpoint(tmp_path / f"{len(self.seen)}.ckpt")

    trainer().fit(net(on_train_batch_end=save), Mine())
    for options, batches in (({}, epochs[0]), ({"batch_size": 50}, 1)):
        network, data = net(), Mine.load_from_checkpoint(tmp_path / "2.ckpt", weights_only=True, **options)
        trainer().fit(network, data)
        assert (len(network.seen) if options else network.seen) == batches
    network = net()
    trainer().fit(network, Mine.load_from_checkpoint(tmp_path / "2.ckpt"), ckpt_path=tmp_path / "2.ckpt")
    assert network.seen == epochs[0][2:]


def test_a_checkpoint_without_a_place_is_refused_in_a_fit_alone(make, net, trainer, checkpoint):
    class Other(RootDataModule):
        pass

    network = net()
    with pytest.raises(ResumeError, match=r"within\.ckpt has no place in these training events.*another class"):
        trainer(max_epochs=2).fit(network, make(Other), ckpt_path=checkpoint)
    assert network.seen == []
    trainer().validate(network, make(Other), ckpt_path=checkpoint, verbose=False)


def test_a_place_of_another_version_is_refused_in_a_fit_alone(make, net, trainer, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["RootDataModule"]["version"] = 0
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(ResumeError, match="is of version 0"):
        trainer(max_epochs=2).fit(net(), make(), ckpt_path=tmp_path / "old.ckpt")
    trainer().test(net(), make(), ckpt_path=tmp_path / "old.ckpt", verbose=False)


# What stands between the data module and the trainer


def rebuilt(batches):
    for batch in batches:
        yield {"event": batch["index"].clone(), "inputs": {"x": batch["x"].double()}}


def ahead(batches, depth=2):
    batches = iter(batches)
    held = list(itertools.islice(batches, depth))
    while held:
        held.extend(itertools.islice(batches, 1))
        yield held.pop(0)


def in_pairs(batches):
    batches = iter(batches)
    for batch in batches:
        other = next(batches)
        yield {name: torch.cat([batch[name], other[name]]) for name in batch}


class Through:
    """What a person may put around a loader."""

    def __init__(self, loader, change, num_batches):
        self.loader, self.change, self.num_batches = loader, change, num_batches

    def __len__(self):
        return self.num_batches

    def __iter__(self):
        return self.change(self.loader)


@pytest.fixture
def changed(make):
    """Make data modules that change their training batches."""

    def make_changed(change, num_batches=EPOCH):
        class Changed(RootDataModule):
            def train_dataloader(self):
                return Through(super().train_dataloader(), change, num_batches)

        return make(Changed)

    return make_changed


def step_on_anything(self, batch, batch_idx):
    self.seen.append((batch["event"] if "event" in batch else batch["index"]).tolist())
    return self.layer.weight.sum()


def save_each(folder):
    def save(self, *_):
        self.trainer.save_checkpoint(folder / f"{len(self.seen)}.ckpt")

    return save


@pytest.mark.parametrize("change", [rebuilt, ahead])
@pytest.mark.filterwarnings("ignore:.*training batches were given")  # an honest doubt, where batches are taken ahead
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
def test_batches_may_be_rebuilt_and_taken_ahead(changed, net, trainer, epochs, tmp_path, change):
    network = net(training_step=step_on_anything, on_train_batch_end=save_each(tmp_path))
    trainer(max_epochs=2).fit(network, changed(change))
    assert network.seen == epochs[0] + epochs[1]
    for done in range(1, 2 * EPOCH):
        resumed = net(training_step=step_on_anything)
        trainer(max_epochs=2).fit(resumed, changed(change), ckpt_path=tmp_path / f"{done}.ckpt")
        assert resumed.seen == network.seen[done:]


def test_batches_that_are_put_together_are_noticed(changed, net, trainer, tmp_path):
    network = net(on_train_batch_end=save_each(tmp_path))
    with pytest.warns(UserWarning, match="4 training batches were given, 2 learnt from.*one batch for each"):
        trainer().fit(network, changed(in_pairs, EPOCH // 2))


@pytest.mark.filterwarnings("ignore:.*`dataloader_iter`")
def test_a_step_may_take_batches_by_itself(make, net, trainer, epochs, tmp_path):
    def step(self, dataloader_iter):
        batch, _, _ = next(dataloader_iter)
        return step_on_anything(self, batch, 0)

    network = net(training_step=step, on_train_batch_end=save_each(tmp_path))
    trainer(max_epochs=2).fit(network, make())
    assert network.seen == epochs[0] + epochs[1]
    for done in range(1, 2 * EPOCH):
        resumed = net(training_step=step)
        trainer(max_epochs=2).fit(resumed, make(), ckpt_path=tmp_path / f"{done}.ckpt")
        assert resumed.seen == network.seen[done:]


def test_without_the_data_module_nobody_keeps_a_place_and_a_trainer_says_so(make, net, trainer, epochs, tmp_path):
    network, data = net(on_train_batch_end=save_each(tmp_path)), make()
    loaders = data.train_dataloader(), data.val_dataloader()
    trainer(max_epochs=2).fit(network, *loaders)
    assert network.seen == epochs[0] + epochs[1]
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        trainer(max_epochs=2).fit(net(), *loaders, ckpt_path=tmp_path / "2.ckpt")


def test_a_loader_made_by_hand_goes_on_through_runs_and_after_them(make, net, trainer, epochs):
    data = make()
    by_hand = iter(data.train_dataloader())
    given = [next(by_hand)["index"].tolist()]
    trainer().fit(net(), data)
    given += [batch["index"].tolist() for batch in by_hand]
    assert given == epochs[0]
    assert [batch["index"].tolist() for batch in data.train_dataloader()] == epochs[0]
