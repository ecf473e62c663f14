"""Jagged batches, alone and beside other forms: each event is what uproot and awkward read, wherever it comes."""

import awkward as ak
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import uproot
from torch.utils.data import DataLoader

from rootdata import RootDataModule, RootDataset
from rootdata.layouts.jagged import cu_seqlens, nested
from strategies import jagged_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

SIZES = {"many": 230, "none": 90, "few": 150}  # events of a sample; of the second none has any object
FORMS = {
    "jets": {"branches": ["Jet_pt", "Jet_eta"], "form": "jagged"},
    "tracks": {"branches": ["Track_pt"], "form": "jagged", "length": 3},
    "muons": {"branches": ["Mu_pt"], "form": "tokens", "length": 2},
    "drawn": {
        "branches": ["Jet_pt", "Jet_eta", "Jet_phi"], "form": "image",
        "image": {"x": {"column": "Jet_eta", "bins": 4, "range": [-3, 3]}, "y": {"column": "Jet_phi", "bins": 3},
                  "channels": ["count", "sum(Jet_pt)"]},
    },
}  # fmt: skip


def columns(size, seed, most):
    """Make events with at most so many objects, of which some lack a value."""
    rng = np.random.default_rng(seed)
    counts = {name: rng.integers(0, most + 1, size).tolist() for name in ("Jet", "Track", "Mu")}

    def lists(name, low, high):
        values = [rng.uniform(low, high, n).astype(np.float32).tolist() for n in counts[name]]
        return jagged_of(values, np.float32)

    found = {"Jet_pt": lists("Jet", 20, 200), "Jet_eta": lists("Jet", -3, 3), "Jet_phi": lists("Jet", -3.1, 3.1)}
    found |= {"Track_pt": lists("Track", 1, 9), "Mu_pt": lists("Mu", 5, 50)}
    found["Track_pt"].content[rng.uniform(size=len(found["Track_pt"].content)) < 0.2] = np.nan
    return found | {"met": rng.uniform(0, 100, size).astype(np.float32)}


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_tree):
    folder = tmp_path_factory.mktemp("jagged")
    for seed, (name, size) in enumerate(SIZES.items()):
        made = columns(size, seed, {"many": 7, "none": 0, "few": 1}[name])
        written = {n: v.to_awkward() if hasattr(v, "to_awkward") else v for n, v in made.items()}
        write_tree(folder / f"{name}.root", written, step=40)
    return folder


@pytest.fixture(scope="module")
def truth_of(files):
    """Give a function that reads the events of a batch by uproot, in its order."""
    trees = [uproot.open(files / f"{name}.root")["Events"].arrays() for name in SIZES]
    everything, starts = ak.concatenate(trees), np.cumsum([0, *map(len, trees)])

    def read(batch):
        index = batch["index"].numpy()
        return everything[starts[index[:, 0]] + index[:, 2]]

    return read


@pytest.fixture(autouse=True)
def _many_blocks(small_blocks):
    """The files here have several blocks each."""


def options(files, **changes):
    samples = {name: {"files": str(files / f"{name}.root"), "label": i % 2} for i, name in enumerate(SIZES)}
    plain = {"samples": samples, "flat": ["met"], "jagged": FORMS, "layout": "tokens", "scale": "none", "pad": -7.0}
    plain |= {"batch_size": 32, "chunk_size": 128, "split": {"by": "entries", "train": 0.7, "val": 0.3}}
    return plain | changes


def filled(lists):
    """List all numbers, with what is filled in where one is missing."""
    return ak.nan_to_num(ak.flatten(lists, axis=None), nan=-7.0).to_list()


def check(batch, truth):
    """Compare every event of a batch with what awkward makes of the files."""
    assert batch["flat"][:, 0].tolist() == truth.met.to_list()
    for name, branches, most in (("jets", ["Jet_pt", "Jet_eta"], None), ("tracks", ["Track_pt"], 3)):
        offsets, values = batch[f"{name}_offsets"], batch[name]
        assert (offsets.dtype, offsets[0], offsets[-1]) == (torch.int64, 0, len(values))
        assert len(offsets) == len(batch["label"]) + 1
        assert values.shape == batch[f"{name}_mask"].shape == (len(values), len(branches))
        for i, branch in enumerate(branches):
            expected = truth[branch][:, :most]
            assert offsets.diff().tolist() == ak.num(expected).to_list()
            assert values[:, i].tolist() == filled(expected)
            assert batch[f"{name}_mask"][:, i].tolist() == np.isfinite(ak.flatten(expected)).to_list()
        starts, longest = cu_seqlens(batch, name)
        assert (starts.dtype, longest) == (torch.int32, int(ak.max(ak.num(truth[branches[0]][:, :most]))))
        for mine, event in zip(nested(batch, name).unbind(), truth[branches[0]][:, :most], strict=True):
            assert mine[:, 0].tolist() == filled(event)
    counts = np.minimum(ak.to_numpy(ak.num(truth.Mu_pt)), 2)
    assert batch["muons_mask"].sum(1).tolist() == counts.tolist()
    assert batch["muons"][..., 0][batch["muons_mask"]].tolist() == ak.flatten(truth.Mu_pt[:, :2]).to_list()
    assert (batch["muons"][..., 0][~batch["muons_mask"]] == -7).all()
    assert batch["drawn"][:, 0].sum((1, 2)).tolist() == ak.num(truth.Jet_pt).to_list()
    np.testing.assert_allclose(batch["drawn"][:, 1].sum((1, 2)), ak.sum(truth.Jet_pt, axis=1), rtol=1e-5)


@pytest.mark.parametrize("part", ["train", pytest.param("val", marks=pytest.mark.long)])
def test_forms_that_share_a_batch_hold_each_event_as_the_files_do(files, truth_of, part):
    events = RootDataset(options(files), part, index=True)
    batches = list(events)
    for batch in batches:
        check(batch, truth_of(batch))
    sizes = [len(batch["label"]) for batch in batches]
    assert sum(sizes) == events.num_events
    assert sizes[-1] < 32  # a last, smaller one


def same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("done", [4, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 9))])
def test_an_epoch_goes_on_bit_by_bit(files, done):
    whole = RootDataset(options(files), index=True)
    epoch, second = list(whole), list(whole)
    broken = RootDataset(options(files), index=True)
    taken = iter(broken)
    same([next(taken) for _ in range(done)], epoch[:done])
    state = broken.state_dict()
    taken.close()
    other = RootDataset(options(files, num_workers=2, prefetch=3), index=True)
    other.load_state_dict(state)
    same(list(other), epoch[done:])
    same(list(other), second)


@pytest.mark.long
@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_of_a_loader_give_the_same(files, num_workers):
    events = RootDataset(options(files), index=True)
    loader = DataLoader(events, batch_size=None, num_workers=num_workers, prefetch_factor=2)
    same(list(loader), list(RootDataset(options(files), index=True)))


@pytest.mark.long
@pytest.mark.parametrize("part", ["train", "val"])
def test_ranks_hold_each_event_once(files, truth_of, part):
    more = {"batch_size": 36, "partitions": 4}
    alone = RootDataset(options(files, **more), part, index=True)
    ranks = [list(RootDataset(options(files, **more), part, index=True, rank=r, world_size=2)) for r in range(2)]
    for batches in ranks:
        for batch in batches:
            check(batch, truth_of(batch))
    found = [tuple(row) for batches in ranks for batch in batches for row in batch["index"].tolist()]
    assert len(set(found)) == len(found)
    assert sorted(found) == sorted(tuple(row) for batch in alone for row in batch["index"].tolist())


def test_batches_of_nothing_but_empty_events_are_batches(files):
    none = {"none": {"files": str(files / "none.root"), "label": 0}}
    data = RootDataModule(**options(files, samples=none, layout="jagged", jagged={
        "jets": {"branches": ["Jet_pt", "Jet_eta"]}, "muons": {"branches": ["Mu_pt"], "form": "jagged"},
    }))  # fmt: skip
    for batch in data.train_dataloader():
        n = len(batch["label"])
        assert batch["jets"].shape == batch["jets_mask"].shape == (0, 2)
        assert batch["jets_offsets"].tolist() == [0] * (n + 1)
        assert cu_seqlens(batch, "jets")[1] == 0
        assert [len(event) for event in nested(batch, "jets").unbind()] == [0] * n
        assert ak.num(data.decode(batch).jets).to_list() == [0] * n


class Net(pl.LightningModule):
    """Learns from objects, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.layer, self.given = torch.nn.Linear(2, 1, bias=False), []
        torch.nn.init.constant_(self.layer.weight, 0.01)

    def training_step(self, batch, _):
        self.given.append({name: values.clone() for name, values in batch.items()})
        events = torch.arange(len(batch["label"])).repeat_interleave(batch["jets_offsets"].diff())
        sums = torch.zeros(len(batch["label"])).index_add(0, events, self.layer(batch["jets"] / 100)[:, 0])
        return torch.nn.functional.binary_cross_entropy_with_logits(sums, batch["label"].float())

    def validation_step(self, batch, _):
        """Look at nothing."""

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(files, folder, *, ckpt_path=None, **limits):
    network = Net()
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1)],
        **{"max_epochs": 2, "limit_val_batches": 0, **limits},
    )  # fmt: skip
    trainer.fit(network, RootDataModule(**options(files), index=True), ckpt_path=ckpt_path)
    return network


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_a_training_goes_on_within_an_epoch(files, tmp_path):
    whole = fit(files, tmp_path, limit_train_batches=5)
    assert len(whole.given) == 10
    other = fit(files, tmp_path, limit_train_batches=5, ckpt_path=next(tmp_path.glob("*step=3.ckpt")))
    same(other.given, whole.given[3:])
    assert torch.equal(other.layer.weight, whole.layer.weight)


def test_decoded_batches_are_the_events_of_the_files(files, truth_of):
    data = RootDataModule(**options(files, scale="standard"), index=True)
    for batch in data.val_dataloader():
        events, truth = data.decode(batch), truth_of(batch)
        for name, branch, most in (("jets", "Jet_pt", None), ("tracks", "Track_pt", 3), ("muons", "Mu_pt", 2)):
            expected = truth[branch][:, :most]
            assert ak.num(events[name]).to_list() == ak.num(expected).to_list()
            found, wanted = ak.flatten(events[name][branch]), ak.flatten(expected)
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)  # missing ones are NaN in both
