import copy
import io
import itertools
import json
import pickle
import subprocess
import sys
import threading

import awkward as ak
import numpy as np
import pytest
import pytorch_lightning
import torch
from rich.console import Console

from rootdata.errors import ConfigError, DataError, ExpressionError
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.models import DNN
from strategies import SENTINEL, DataSet, FileShape, columns_of

SMALL = DataSet(((FileShape(300, (60,)), FileShape(100, (30,))), (FileShape(200, (45,), "rntuple"),)))
FEATURES = {
    "flat": ["ht", "nlep"],
    "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3, "sort": "-Jet_pt"}},
}
ORDER = {"batch_size": 50, "chunk_size": 200, "split": {"by": "entries", "train": 0.6, "val": 0.2, "test": 0.2}}

# Lightning's use of torch's own pytree functions is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return SMALL.write(tmp_path_factory.mktemp("data"), write_tree)


@pytest.fixture(autouse=True)
def _many_blocks(small_blocks):
    """The files here have several blocks each."""


@pytest.fixture
def module(samples):
    """Make data modules of the small files."""

    def make(**options):
        given = {"samples": samples, **FEATURES, **ORDER, **options}
        return RootDataModule(given.pop("samples"), **given)

    return make


in_both = pytest.mark.parametrize("pl", ["pytorch_lightning", "lightning.pytorch"], indirect=True)


@pytest.fixture
def pl(request):
    """Give a distribution of Lightning: the first one, but to tests that run ``in_both``."""
    return pytest.importorskip(getattr(request, "param", "pytorch_lightning"))


@pytest.fixture
def trainer(pl, tmp_path):
    """Make trainers that print and keep nothing."""

    def make(**options):
        quiet = {
            "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "default_root_dir": tmp_path,
        }  # fmt: skip
        return pl.Trainer(**{**quiet, **options})

    return make


@pytest.fixture
def recorder(pl):
    """Make modules that note which events they were given, in every epoch of every stage."""

    class Recorder(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.LazyLinear(1)
            self.seen = {"train": [], "val": [], "test": [], "predict": []}

        def note(self, stage, batch):
            self.seen[stage][-1].append(batch["index"].tolist())
            inputs = [v.flatten(1).float() for n, v in batch.items() if n not in {"label", "weight", "index"}]
            return self.layer(torch.cat(inputs, dim=1)).mean()

        def on_train_epoch_start(self):
            self.seen["train"].append([])

        def on_validation_epoch_start(self):
            self.seen["val"].append([])

        def on_test_epoch_start(self):
            self.seen["test"].append([])

        def on_predict_epoch_start(self):
            self.seen["predict"].append([])

        def training_step(self, batch):
            return self.note("train", batch)

        def validation_step(self, batch):
            self.note("val", batch)

        def test_step(self, batch):
            self.note("test", batch)

        def predict_step(self, batch):
            return self.note("predict", batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    return Recorder


def epoch_of(samples, epoch, part="train", **options):
    """Return the batches of an epoch as lists of (sample, file, entry), straight from the data set."""
    events = RootDataset({"samples": samples, **FEATURES, **ORDER, **options}, part, index=True)
    return [batch["index"].tolist() for batch in events.batches(epoch)]


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("rootdata-")]


# In a trainer


@in_both
def test_ten_lines_of_lightning(pl, samples, trainer):
    data = RootDataModule(
        samples,
        flat=["ht", "nlep"],
        jagged={"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 4, "sort": "-Jet_pt", "cut": "Jet_pt > 20"}},
        split={"train": 0.6, "val": 0.2, "test": 0.2},
        batch_size=64,
    )

    class Net(pl.LightningModule):
        def __init__(self, width):
            super().__init__()
            self.layer = torch.nn.Linear(width, 1)

        def training_step(self, batch):
            logits = self.layer(batch["x"]).squeeze(1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["label"].float(), batch["weight"])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch):
            self.log("val_loss", self.training_step(batch), batch_size=len(batch["label"]))

        def test_step(self, batch):
            self.log("accuracy", ((self.layer(batch["x"]).squeeze(1) > 0) == batch["label"]).float().mean())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.01)

    net, run = Net(data.shapes["x"][0]), trainer(max_epochs=2)
    run.fit(net, data)
    assert run.global_step == 2 * len(data.train_dataloader())
    assert torch.isfinite(run.callback_metrics["val_loss"])
    (result,) = run.test(net, data, verbose=False)
    assert 0 <= result["accuracy"] <= 1
    assert threads() == []


def test_the_dnn_of_the_package_trains_on_it(module, trainer):
    data, run = module(), trainer(max_epochs=1)
    model = DNN(data.shapes, hidden=[8])
    run.fit(model, data)
    assert run.global_step == len(data.train_dataloader()) == 8


@in_both
@pytest.mark.parametrize("layout", ["vector", "tokens"])
def test_all_stages_get_the_events_of_their_part(module, trainer, recorder, samples, layout):
    data, net = module(index=True, layout=layout), recorder()
    run = trainer(max_epochs=2, num_sanity_val_steps=0)
    run.fit(net, data)
    run.test(net, data, verbose=False)
    run.predict(net, data)
    assert net.seen["train"] == [epoch_of(samples, 0), epoch_of(samples, 1)]
    assert net.seen["val"] == [epoch_of(samples, 0, "val")] * 2
    assert net.seen["test"] == net.seen["predict"] == [epoch_of(samples, 0, "test")]
    events = {tuple(e) for stage in ("train", "val", "test") for batch in net.seen[stage][0] for e in batch}
    assert len(events) == SMALL.num_events


@in_both
def test_several_fits_go_on_from_epoch_to_epoch(module, trainer, recorder, samples):
    data, net = module(index=True), recorder()
    for _ in range(2):
        trainer(max_epochs=2).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, epoch) for epoch in range(4)]


def test_reloading_the_loaders_goes_on_from_epoch_to_epoch(module, trainer, recorder, samples):
    data, net = module(index=True), recorder()
    trainer(max_epochs=3, reload_dataloaders_every_n_epochs=1).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, epoch) for epoch in range(3)]


@pytest.mark.parametrize(("limit", "count"), [(2, 2), (0.5, 4)])
def test_a_limited_epoch_is_the_beginning_of_a_whole_one(module, trainer, recorder, samples, limit, count):
    data, net = module(index=True), recorder()
    trainer(max_epochs=2, limit_train_batches=limit, limit_val_batches=1).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, epoch)[:count] for epoch in range(2)]
    assert threads() == []


def test_fast_dev_run_takes_one_batch(module, trainer, recorder, samples):
    data, net = module(index=True), recorder()
    trainer(fast_dev_run=True).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, 0)[:1]]
    assert net.seen["val"] == [epoch_of(samples, 0, "val")[:1]]
    assert threads() == []


@in_both
def test_overfitting_sees_the_same_batches_each_epoch(module, trainer, recorder, samples):
    data, net = module(index=True), recorder()
    trainer(max_epochs=3, overfit_batches=2).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, 0)[:2]] * 3


def test_validation_in_the_middle_of_an_epoch_disturbs_nothing(module, trainer, recorder, samples):
    data, net = module(index=True), recorder()
    trainer(max_epochs=1, val_check_interval=0.25, num_sanity_val_steps=0).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, 0)]
    assert net.seen["val"] == [epoch_of(samples, 0, "val")] * 4


def test_an_error_in_a_step_leaves_no_thread(module, trainer, recorder):
    data, net = module(index=True), recorder()
    net.on_train_batch_end = lambda *_: (_ for _ in ()).throw(RuntimeError("loss is nan"))
    with pytest.raises(RuntimeError, match="loss is nan"):
        trainer(max_epochs=1).fit(net, data)
    del net
    assert threads() == []


@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_goes_on_with_the_next_epoch(module, trainer, recorder, samples, tmp_path, again):
    data, net = module(index=True), recorder()
    run = trainer(max_epochs=2)
    run.fit(net, data)
    run.save_checkpoint(tmp_path / "last.ckpt")
    for resumed in (data, data) if again else (module(index=True),):  # one that went further, or a fresh one
        net = recorder()
        trainer(max_epochs=4).fit(net, resumed, ckpt_path=tmp_path / "last.ckpt")
        assert net.seen["train"] == [epoch_of(samples, epoch) for epoch in (2, 3)]


# Hooks of batches belong to those who write them


@in_both
@pytest.mark.filterwarnings("ignore:You have overridden .* in `LightningModule` but have passed in")
def test_hooks_of_the_network_are_called_as_without_a_data_module(module, trainer, recorder, samples):
    def before(self, batch, dataloader_idx):
        return {**batch, "passed": ["before"]}

    def move(self, batch, device, dataloader_idx):
        return {**batch, "passed": [*batch["passed"], "move"]}

    def after(self, batch, dataloader_idx):
        assert batch.pop("passed") == ["before", "move"]
        return batch

    hooks = {"on_before_batch_transfer": before, "transfer_batch_to_device": move, "on_after_batch_transfer": after}
    data, net = module(index=True), type("Net", (recorder,), hooks)()
    trainer(max_epochs=2).fit(net, data)
    assert net.seen["train"] == [epoch_of(samples, 0), epoch_of(samples, 1)]
    trainer().test(net, data, verbose=False)
    assert net.seen["test"] == [epoch_of(samples, 0, "test")]


@in_both
def test_hooks_of_a_child_of_the_data_module_need_not_call_the_parent(samples, trainer, recorder, tmp_path):
    class Mine(RootDataModule):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return {"x": batch["x"] * 0, "index": batch["index"].clone()}

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            return {name: values.to(device) for name, values in batch.items()}

    def save(*_):
        run.save_checkpoint(tmp_path / f"{run.global_step}.ckpt")

    net, resumed, run = recorder(), recorder(), trainer(max_epochs=2)
    net.on_train_batch_end = save
    run.fit(net, Mine(samples, **FEATURES, **ORDER, index=True))
    whole = [epoch_of(samples, 0), epoch_of(samples, 1)]
    assert net.seen["train"] == whole
    resumed.seen["train"].append([])  # the epoch that it goes on within has no beginning
    again = Mine(samples, **FEATURES, **ORDER, index=True)
    trainer(max_epochs=2).fit(resumed, again, ckpt_path=tmp_path / "3.ckpt")
    assert resumed.seen["train"] == [whole[0][3:], whole[1]]


# Copies, and other processes

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "cloudpickle": lambda thing: pickle.loads(pytest.importorskip("cloudpickle").dumps(thing)),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "cache"),
    [("copy", None), ("deepcopy", None), ("pickle", "memory"), ("cloudpickle", None)],
)
def test_a_data_module_can_be_copied_and_sent_at_any_time(module, trainer, recorder, samples, way, cache):
    data, net, copies = module(index=True, cache=cache), recorder(), []

    def keep(*_):
        copies.append(WAYS[way](data))

    keep()
    data.setup()
    keep()
    net.on_train_batch_end = lambda *_: keep() if len(net.seen["train"][0]) == 3 else None
    trainer(max_epochs=1).fit(net, data)
    keep()
    # Each stands where the original stood: its next fit begins with the first epoch that had not begun by then.
    for other, epoch in zip(copies, (0, 0, 1, 1), strict=True):
        assert other.trainer is None
        net = recorder()
        trainer(max_epochs=1).fit(net, other)
        assert net.seen["train"] == [epoch_of(samples, epoch)]
    assert data.trainer is not None
    assert data.state_dict()["epoch"] == 1


@pytest.mark.parametrize("way", WAYS)
def test_loaders_and_specs_can_be_copied_and_sent(module, trainer, recorder, samples, way):
    data, net, copies = module(index=True), recorder(), []
    net.on_train_start = lambda: copies.append(WAYS[way](run.train_dataloader))
    run = trainer(max_epochs=1)
    run.fit(net, data)
    copies.append(WAYS[way](data.val_dataloader()))
    for loader, part in zip(copies, ("train", "val"), strict=True):
        assert [batch["index"].tolist() for batch in loader] == epoch_of(samples, 0, part)
    assert WAYS[way](data.specs) == data.specs
    assert threads() == []


def test_what_is_sent_is_small_and_knows_nothing_of_the_environment(module, trainer, recorder, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "XYZZY")
    data = module(index=True, cache="memory", prepare=lambda: None)
    trainer(max_epochs=1).fit(recorder(), data)
    sent = pickle.dumps(data)  # without `prepare`, which is done
    assert len(sent) < 50_000
    assert b"XYZZY" not in sent


IN_ANOTHER_PROCESS = """
import pickle, sys
data = pickle.load(sys.stdin.buffer)
loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
pickle.dump([[batch["index"].tolist() for batch in loader] for loader in loaders], sys.stdout.buffer)
"""


@pytest.mark.long
def test_another_process_gets_the_same_batches(module, samples):
    data = module(index=True)
    data.setup()
    result = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], input=pickle.dumps(data), capture_output=True, check=True
    )
    assert pickle.loads(result.stdout) == [epoch_of(samples, 0, part) for part in ("train", "val", "test")]


class Writes(pytorch_lightning.LightningModule):
    """Writes down which events it got; spawned processes import it."""

    def __init__(self, folder):
        super().__init__()
        self.layer, self.folder, self.seen = torch.nn.Linear(1, 1), folder, []

    def training_step(self, batch):
        self.seen.append(batch["index"].tolist())
        return self.layer(batch["weight"][:, None]).mean()

    def on_train_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.seen))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


@pytest.mark.long
def test_processes_that_lightning_spawns_share_the_batches(module, trainer, samples, tmp_path):
    trainer(max_epochs=2, strategy="ddp_spawn", devices=2).fit(Writes(tmp_path), module(index=True))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    batches = [sorted(first + second) for first, second in zip(*ranks, strict=True)]
    assert batches == [sorted(batch) for epoch in range(2) for batch in epoch_of(samples, epoch)]


# Prints


def test_it_is_printed_in_a_line_without_looking_at_a_file(tmp_path):
    url = "https://example.org/events.root?X-Amz-Signature=0a1b2c"
    data = RootDataModule({"ttH": url, "QCD": str(tmp_path / "later.root")}, flat=["met"])
    known = "RootDataModule(ttH, QCD: not scanned yet; layout vector, batches of 1024)"
    assert [str(data), repr(data), f"{data}"] == [known] * 3


def test_it_says_how_many_events_it_has(module, trainer, recorder, capsys):
    data, run = module(layout="tokens"), trainer(max_epochs=1)
    data.setup()
    run.print(data)
    known = "RootDataModule(s0, s1: 360 train, 120 val, 120 test events; layout tokens, batches of 50)"
    assert capsys.readouterr().out.strip() == known
    assert repr(data.val_dataloader()) == "Loader(RootDataset(val: 120 events, 3 batches of 50))"


# Parts


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_share_of_0_has_no_loader(module, part):
    shares = {"train": 0.5, "val": 0.5, "test": 0.5, part: 0}
    data = module(split=shares)
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    assert loaders.pop(part) == []
    (other,) = loaders.values()
    assert len(other) > 0


# Lightning remarks on every stage that has no batches; here that is the intention.
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero:UserWarning")
def test_training_alone_needs_nothing_else(module, trainer, recorder):
    data, net = module(split={"train": 1.0}, index=True), recorder()
    trainer(max_epochs=1).fit(net, data)
    assert len(net.seen["train"][0]) == 12
    assert net.seen["val"] == []


def test_predicting_without_a_test_part_gives_every_event_with_its_index_in_file_order(module):
    data = module(split={"train": 1.0})
    events = [tuple(e) for batch in data.predict_dataloader() for e in batch["index"].tolist()]
    assert len(set(events)) == len(events) == SMALL.num_events
    for sample in range(2):
        mine = [e for e in events if e[0] == sample]
        assert mine == sorted(mine)


def test_the_index_comes_with_test_and_on_request(module):
    data = module()
    keys = {p: set(next(iter(getattr(data, f"{p}_dataloader")()))) for p in ("train", "val", "test", "predict")}
    assert keys["train"] == keys["val"] == {"x", "mask", "label", "weight"}
    assert keys["test"] == keys["predict"] == keys["train"] | {"index"}
    assert "index" in next(iter(module(index=True).train_dataloader()))


def test_loaders_have_the_length_of_what_they_give(module):
    for drop_last in (False, True):
        data = module(batch_size=70, drop_last=drop_last)
        for part, events in (("train", 360), ("val", 120), ("test", 120)):
            loader = getattr(data, f"{part}_dataloader")()
            whole, rest = divmod(events, 70)
            assert len(loader) == len(list(loader)) == whole + (rest > 0 and not (drop_last and part == "train"))


def test_a_tuner_may_change_the_batch_size(module):
    data = module()
    data.batch_size = 25
    assert [len(b["label"]) for b in itertools.islice(data.train_dataloader(), 3)] == [25] * 3


# What a network and a person need to know


def test_columns_have_names_in_the_order_of_the_tensor(module):
    objects = [f"{branch}[{i}]" for i in range(3) for branch in ("Jet_pt", "Jet_eta")]
    for layout in ("vector", "tokens"):
        data = module(layout=layout)
        assert data.feature_names == ("ht", "nlep", *objects)
    assert module().shapes == {"x": (8,), "mask": (8,)}
    assert module(layout="tokens").shapes == {"flat": (2,), "jets": (3, 2), "jets_mask": (3,)}


def test_fixed_size_branches_become_columns_each(module):
    data = module(flat=["met", "cov"], jagged=None, missing=[SENTINEL])
    assert data.feature_names == ("met", "cov[0]", "cov[1]")


def test_names_of_classes_and_samples(module):
    data = module(classes=["QCD", "ttH"])
    assert (data.classes, data.sample_names) == (["QCD", "ttH"], ["s0", "s1"])


def test_auto_takes_the_length_that_keeps_nearly_all_objects(tmp_path, write_tree):
    counts = np.array([2] * 999 + [50])
    path = write_tree(tmp_path / "a.root", {"pt": ak.unflatten(np.arange(counts.sum()) * 1.0, counts)})
    jagged = {"jets": {"branches": ["pt"], "length": "auto"}}
    data = RootDataModule({"s": str(path)}, jagged=jagged, split={"train": 1.0})
    # 2048 objects: two may be lost, so 48 stay
    assert data.shapes["x"] == (48,)


def shown(data):
    console = Console(file=io.StringIO(), width=160)
    console.print(data.summary())
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_summary_has_the_right_numbers(tmp_path, write_tree):
    n = 1000
    files = [write_tree(tmp_path / f"{i}.root", columns_of(n, [i]), step=100) for i in range(3)]
    data = RootDataModule(
        {"ttH": {"files": [str(f) for f in files[:2]], "label": 1}, "QCD": {"files": str(files[2]), "label": 0}},
        flat=["met"],
        jagged={"jets": {"branches": ["Jet_pt"], "length": 2}},
        cut="ht > 50",
        missing=[SENTINEL],
        scale={"met": "log"},
        split={"by": "entries", "train": 0.5, "val": 0.3, "test": 0.2},
    )
    columns = [columns_of(n, [i]) for i in range(3)]
    keep = [c["ht"] > 50 for c in columns]
    ranges = (slice(0, 500), slice(500, 800), slice(800, 1000))
    lines = shown(data)
    for name, members, label in (("ttH", (0, 1), "signal"), ("QCD", (2,), "background")):
        numbers = [
            [f"{sum(int(keep[i][r].sum()) for i in members):,}", "/", f"{(r.stop - r.start) * len(members):,}"]
            for r in ranges
        ]
        assert [name, str(len(members)), *itertools.chain(*numbers), label] in lines
    train = [k & (np.arange(n) < 500) for k in keep]
    met = np.concatenate([c["met"][t] for c, t in zip(columns, train, strict=True)])
    real = met[np.isfinite(met) & (met != SENTINEL)].astype(float)
    numbers = [f"{x:.4g}" for x in (real.min(), real.mean(), real.max(), real.std())]
    assert ["met", *numbers, f"{1 - len(real) / len(met):.2%}", "log"] in lines
    jets = np.concatenate([ak.to_numpy(ak.num(c["Jet_pt"]))[t] for c, t in zip(columns, train, strict=True)])
    dropped = 1 - np.minimum(jets, 2).sum() / jets.sum()
    text = " ".join(word for line in lines for word in line)
    assert f"{jets.mean():.2f} objects an event, at most {jets.max()}" in text
    assert f"length 2, truncation drops {dropped:.3%} of the objects" in text


# When things are checked and done


def test_nothing_is_read_before_it_is_needed(tmp_path):
    data = RootDataModule({"s": str(tmp_path / "later.root")}, flat=["met"])
    assert data.sample_names == ["s"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": "standart"}, ConfigError, "nearest: 'standard'"),
        ({"cut": "ht >"}, ExpressionError, "cut"),
        ({"batch_size": 0}, ConfigError, "batch_size: got 0"),
        ({"mix": {"s0": 1}}, ConfigError, "no weight for sample 's1'"),
        ({"split": {"train": 0.9}}, ConfigError, "add up to 0.9"),
        ({"jagged": {"jets": {"branches": ["Jet_pt"], "length": 0}}}, ConfigError, "length: got 0"),
    ],
)
def test_options_are_checked_at_once(module, options, error, message):
    with pytest.raises(error, match=message):
        module(**options)


def test_what_the_files_contradict_is_raised_before_training(module, trainer, recorder):
    data, net = module(label="ht"), recorder()
    with pytest.raises(DataError, match=r"label 'ht' is .* at entry .*s0_0\.root"):
        trainer(max_epochs=1).fit(net, data)
    assert net.seen["train"] == []


def test_prepare_runs_once_before_files_are_looked_for(tmp_path, write_tree):
    calls = []

    def prepare():
        calls.append(write_tree(tmp_path / "made.root", columns_of(60, [1])))

    data = RootDataModule({"s": str(tmp_path / "*.root")}, flat=["ht"], split={"train": 1.0}, prepare=prepare)
    data.prepare_data()
    data.prepare_data()
    data.setup("fit")
    assert len(calls) == 1
    assert data.specs.num_events("train") == 60


def test_specs_may_be_given(module, tmp_path, cache_folder):
    specs = module().specs
    specs.save(tmp_path / "specs.json")
    for cached in cache_folder.rglob("*.json"):
        cached.unlink()
    for given in (specs, tmp_path / "specs.json"):
        data = module(specs=given, batch_size=7)
        assert data.specs == specs
        assert len(list(data.train_dataloader())) == len(data.train_dataloader())
    assert list(cache_folder.rglob("*.json")) == []
