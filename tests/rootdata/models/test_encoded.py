"""The step size's cycle, and the two networks that encode their inputs: trained, resumed, exported."""

import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from bundles_for_tests import batches_of, branches_of, make_data, scores_of_table, write_samples
from hypothesis import given
from hypothesis import strategies as st

from rootdata.bundle.export import export
from rootdata.errors import ConfigError
from rootdata.models import MLP, EncodedSets
from rootdata.models.encoded import one_cycle

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

NETWORKS = {"vector": MLP, "tokens": EncodedSets}
kinds = pytest.mark.parametrize("layout", NETWORKS)


@given(st.integers(1, 5000))
def test_a_cycle_goes_up_once_and_down_once(steps):
    sizes = np.array([one_cycle(step, steps) for step in range(steps + 1)])
    top = int(sizes.argmax())
    assert (sizes > 0).all()
    assert (np.diff(sizes[: top + 1]) >= 0).all()
    assert (np.diff(sizes[top:]) <= 0).all()
    assert math.isclose(one_cycle(steps + 7, steps), sizes[-1]) or steps == 1
    assert steps < 20 or abs(top - 0.1 * steps) <= 1


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return write_samples(tmp_path_factory.mktemp("samples"), write_tree)


def fit(network, data, folder, **options):
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(network, datamodule=data)
    return trainer


def made(layout, samples, **changes):
    data = make_data(samples, layout=layout, quantiles=True, **changes)
    torch.manual_seed(3)
    return NETWORKS[layout](data.shapes, classes=len(data.classes), bins=4, hidden=[8]), data


@kinds
def test_the_edges_come_from_the_data_and_stay_in_the_checkpoint(layout, samples, tmp_path):
    network, data = made(layout, samples)
    trainer = fit(network, data, tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = NETWORKS[layout].load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    for name, edges in data.edges(4).items():
        if name in network.features:
            assert np.array_equal(loaded._encoding(name).low.numpy(), edges[:, :-1])


SCALES = [
    {"scale": {"default": "normal", "id": "uniform"}, "clip": 2},
    {"pad": {"default": -3, "Jet_pt": -1}, "clip": {"met": 1, "id": 0.5}},
]


@pytest.mark.parametrize(
    ("layout", "scale"),
    [
        ("tokens", SCALES[0]),
        *(pytest.param(*case, marks=pytest.mark.long) for case in [("vector", SCALES[0]), ("tokens", SCALES[1])]),
    ],
)
def test_they_score_in_a_graph_as_in_torch(layout, scale, samples, tmp_path):
    network, data = made(layout, samples, **scale)
    fit(network, data, tmp_path, max_epochs=1, enable_checkpointing=False)
    manifest = export(network, data, tmp_path / "bundle")
    batch = batches_of(data)
    with torch.no_grad():
        expected = network.eval().scores(batch).numpy()
    table = branches_of(data, batch["index"].numpy(), [branch.name for branch in manifest.branches])
    found = scores_of_table(tmp_path / "bundle", table)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-6)
    assert found.std() > 0.001


def test_padding_and_order_have_no_influence(samples):
    network, data = made("tokens", samples)
    network.set_edges(data.edges(4))
    network.eval()
    batch = next(iter(data.val_dataloader()))
    longer = dict(batch)
    for name in network.collections:
        length = batch[name].shape[1]
        order = torch.randperm(length + 2, generator=torch.Generator().manual_seed(1))
        far = torch.full((len(batch[name]), 2, batch[name].shape[2]), torch.nan)
        longer[name] = torch.cat([batch[name], far], dim=1)[:, order]
        none = torch.zeros(len(batch[name]), 2, dtype=torch.bool)
        longer[f"{name}_mask"] = torch.cat([batch[f"{name}_mask"], none], dim=1)[:, order]
    torch.testing.assert_close(network(longer), network(batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLP({"flat": (3,)}), ["MLP needs", "'flat'", "data.layout=vector", "model=encodedsets"]),
        (lambda: EncodedSets({"x": (3,), "mask": (3,)}), ["EncodedSets needs", "data.layout=tokens"]),
        (lambda: MLP({"x": (3,), "mask": (3,)}, bins=0), ["model.bins: got 0"]),
        (lambda: MLP({"x": (3,), "mask": (3,)}, hidden=[0]), ["model.hidden", "0 nodes"]),
        (lambda: MLP({"x": (3,), "mask": (3,)}, dropout=1), ["model.dropout: got 1"]),
    ],
)
def test_what_does_not_fit_is_said(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert all(word in str(error.value) for word in words)
