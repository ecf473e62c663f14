"""The transformer: the same for tokens and jagged batches, with features of pairs, in torch and in its graph."""

import dataclasses

import awkward as ak
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import uproot
from bundles_for_tests import branches_of, make_data, scores_of_table, write_samples
from files_for_tests import SHARED
from hypothesis import given
from hypothesis import strategies as st

from rootdata.bundle import parity, signature
from rootdata.bundle.assemble import Assembler
from rootdata.bundle.cmssw import preprocessing
from rootdata.bundle.export import export
from rootdata.bundle.manifest import open_bundle
from rootdata.errors import BundleError, ConfigError
from rootdata.layouts.jagged import nested
from rootdata.loading.datamodule import RootDataModule
from rootdata.models import CNN, MLP, DeepSets, EncodedSets, Transformer
from rootdata.models.pairwise import LEAST, pair_features
from rootdata.table import Table
from strategies import jagged_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

EVERY = {"jets": {"branches": ["Jet_eta", "share", "Jet_pt"]}, "values": {"branches": ["Mu_q"]}}
TEN = {name: collection | {"length": 10} for name, collection in EVERY.items()}
PAIRWISE = {"jets": ["Jet_pt", "Jet_eta", "share"]}


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return write_samples(tmp_path_factory.mktemp("samples"), write_tree)


def made(samples, layout, pairwise=PAIRWISE, **changes):
    data = make_data(samples, layout=layout, quantiles=True, **changes)
    torch.manual_seed(3)
    return Transformer(data.shapes, pairwise=pairwise, bins=4, latent=8, layers=1, attention_heads=2, hidden=[8]), data


def fit(network, data, folder, **options):
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    trainer.fit(network, datamodule=data)
    return trainer


def ready(samples, layout, pairwise=PAIRWISE, **changes):
    """Make a network that knows the data, as a fit begins with it."""
    network, data = made(samples, layout, pairwise, **changes)
    network.set_edges(data.edges(4))
    network.bind_momenta(data)
    return network.eval(), data


def scores_in_both(network, data, folder):
    """Score the test events by torch and by the graph of a bundle."""
    manifest = export(network, data, folder)
    batches = list(data.test_dataloader())
    with torch.no_grad():
        expected = torch.cat([network.eval().scores(batch) for batch in batches]).numpy()
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    table = branches_of(data, index, [branch.name for branch in manifest.branches])
    found = scores_of_table(folder, table)
    assert found.std() > 0.0005
    return found, expected.reshape(found.shape)


@pytest.mark.long
@pytest.mark.parametrize("layout", ["tokens", "jagged"])
def test_it_scores_in_a_graph_as_in_torch(layout, samples, tmp_path):
    network, data = made(samples, layout, jagged=EVERY if layout == "jagged" else TEN)
    fit(network, data, tmp_path, max_epochs=1)
    found, expected = scores_in_both(network, data, tmp_path / "bundle")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    jets = open_bundle(tmp_path / "bundle").to_dict()["features"]["jagged"]["jets"]
    assert jets["length"] == ("auto" if layout == "jagged" else 10)


NANO = {
    "jets": ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"],
    "muons": ["Muon_pt", "Muon_eta"],
    "electrons": ["Electron_pt"],
}


def nano(**options):
    """Read two files of CMS as they came, ttbar of Run 3 and ttH of 2017, jagged."""
    files = {"tt": "nano_tt_v12", "ttH": "ttH_M125_2017"}
    paths = {name: f"{SHARED / 'real' / file}.root:Events" for name, file in files.items()}
    return RootDataModule(
        {name: {"files": path, "label": label} for label, (name, path) in enumerate(paths.items())},
        flat=["MET_pt", "PV_npvs"], jagged={n: {"branches": b} for n, b in NANO.items()}, layout="jagged",
        batch_size=32, quantiles=True, index=True, split={"train": 0.6, "val": 0.2, "test": 0.2}, **options,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.skipif(not (SHARED / "real").exists(), reason="the shared data folder is not here")
def test_files_of_an_experiment_train_jagged_and_score_alike_in_torch_and_onnxruntime(tmp_path):
    raw = nano(scale="none")
    files = [uproot.open(file.path)["Events"] for file in raw.specs.files]
    trees = [tree.arrays([b for branches in NANO.values() for b in branches]) for tree in files]
    for batch in raw.train_dataloader():
        truth = ak.concatenate([trees[file][entry : entry + 1] for _, file, entry in batch["index"].tolist()])
        for name, branches in NANO.items():
            assert batch[f"{name}_offsets"].diff().tolist() == ak.num(truth[branches[0]]).to_list()
            assert [len(event) for event in nested(batch, name).unbind()] == ak.num(truth[branches[0]]).to_list()
            expected = np.stack([ak.to_numpy(ak.flatten(truth[b])) for b in branches], axis=1)
            np.testing.assert_array_equal(batch[name].numpy(), expected)
    data = nano()
    torch.manual_seed(3)
    pairwise = {"jets": NANO["jets"]}
    network = Transformer(data.shapes, pairwise=pairwise, bins=4, latent=16, layers=2, attention_heads=2, hidden=[8])
    fit(network, data, tmp_path, max_epochs=3, limit_train_batches=4)
    found, expected = scores_in_both(network, data, tmp_path / "bundle")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_graph_of_jagged_batches_takes_all_objects(samples):
    data = make_data(samples, layout="jagged", jagged=EVERY)
    manifest = signature.draft(
        data.data, data.specs, parity.real_events(data.data, data.specs, 60), columns=["s1"], is_fixed=True
    )
    jets, mask = (next(t for t in manifest.inputs if t.name == name) for name in ("jets", "jets_mask"))
    assert (jets.shape[2], mask.shape[1]) == ("jets", "jets")
    assert {"min_length": 1, "max_length": 1 << 20}.items() <= preprocessing(manifest)["jets"].items()
    single = {b.name: np.ones((1, b.width) if b.kind == "fixed" else 1, b.dtype) for b in manifest.branches}
    lists = {b.name: jagged_of([[50] * 70], b.dtype) for b in manifest.branches if b.kind == "jagged"}
    many = Table(num_events=1, columns=single | lists)
    assert Assembler(manifest)(many)["jets_mask"].sum() == 70
    stiff = tuple(dataclasses.replace(t, shape=(*t.shape[:-1], 4)) if t.collection == "jets" else t
                  for t in manifest.inputs)  # fmt: skip
    with pytest.raises(BundleError, match=r"features\.jagged\.jets: its length must be a number"):
        Assembler(dataclasses.replace(manifest, inputs=stiff))
    with pytest.raises(BundleError, match="reveal_empty: 'jets' is jagged"):
        export(torch.nn.Identity(), data, "nowhere", reveal_empty=True)


@pytest.mark.parametrize("pairwise", [PAIRWISE, None])
def test_tokens_and_jagged_batches_give_the_same(samples, pairwise):
    long = {name: collection | {"length": 30} for name, collection in EVERY.items()}
    network, tokens = ready(samples, "tokens", pairwise, jagged=long)
    other, jagged = ready(samples, "jagged", pairwise, jagged=EVERY)
    other.load_state_dict(network.state_dict())
    for one, two in zip(tokens.val_dataloader(), jagged.val_dataloader(), strict=True):
        assert (two["jets_offsets"].diff() == 0).any()  # events without objects, too
        assert not two["jets_mask"].all()
        with torch.no_grad():
            torch.testing.assert_close(other(two), network(one), rtol=1e-5, atol=1e-5)
        assert network(one).isfinite().all()


def test_padding_and_order_have_no_influence(samples):
    network, data = ready(samples, "tokens")
    batch = next(iter(data.val_dataloader()))
    longer = dict(batch)
    for name in network.collections:
        length = batch[name].shape[1]
        order = torch.randperm(length + 2, generator=torch.Generator().manual_seed(1))
        far = torch.full((len(batch[name]), 2, batch[name].shape[2]), torch.nan)
        longer[name] = torch.cat([batch[name], far], dim=1)[:, order]
        none = torch.zeros(len(batch[name]), 2, dtype=torch.bool)
        longer[f"{name}_mask"] = torch.cat([batch[f"{name}_mask"], none], dim=1)[:, order]
    torch.testing.assert_close(network(longer), network(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["tokens", "jagged"])
def test_events_without_objects_have_finite_scores_and_gradients(samples, layout):
    network, data = ready(samples, layout)
    batch = next(iter(data.train_dataloader()))
    none = {n: torch.zeros_like(v) if n.endswith(("_mask", "_offsets")) else v for n, v in batch.items()}
    if layout == "jagged":
        none |= {n: v[:0] for n, v in none.items() if n in {"jets", "values", "jets_mask", "values_mask"}}
    for one in (batch, none):
        network.train()(one).sum().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_attention_is_what_the_layers_use_and_nothing_goes_to_padding(samples):
    network, tokens = ready(samples, "tokens", jagged=TEN)
    batch = next(iter(tokens.val_dataloader()))
    weights, there = network.attention(batch)
    n_objects = sum(batch[name].shape[1] for name in network.collections)
    assert weights.shape == (1, len(batch["label"]), 2, 1 + n_objects, 1 + n_objects)
    assert torch.equal(there[:, 1:], torch.cat([batch[f"{name}_mask"] for name in network.collections], dim=1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert (weights * ~there[:, None, None, :] == 0).all()
    layer, x = network.layers[0], torch.randn(3, 5, 8)
    bias = torch.randn(3, 2, 5, 5)
    value = layer.inputs(layer.first(x))[..., 16:].unflatten(-1, (2, 4)).transpose(1, 2)
    seen = (layer.weights(x, bias) @ value).transpose(1, 2).flatten(2)
    x_seen = x + layer.outputs(seen)
    torch.testing.assert_close(x_seen + layer.linear(layer.second(x_seen)), layer(x, bias))


momenta = st.lists(
    st.tuples(st.floats(1, 500), st.floats(-4, 4), st.floats(-3.14, 3.14), st.floats(0, 200)), min_size=2, max_size=6
)


@given(momenta)
def test_features_of_pairs_are_those_of_four_momenta(objects):
    pt, eta, phi, mass = np.array(objects, np.float32).astype(np.float64).T
    x, y, z = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(x**2 + y**2 + z**2 + mass**2)
    rapidity = 0.5 * np.log((energy + z) / (energy - z))
    found = pair_features(torch.tensor(objects, dtype=torch.float32).unsqueeze(0))[0].double().exp().numpy()
    for a in range(len(pt)):
        for b in range(len(pt)):
            turn = np.angle(np.exp(1j * (phi[a] - phi[b])))
            distance = max(np.hypot(rapidity[a] - rapidity[b], turn), LEAST)
            least = min(pt[a], pt[b])
            both = [v[a] + v[b] for v in (energy, x, y, z)]
            mass2 = max(both[0] ** 2 - sum(v**2 for v in both[1:]), LEAST**2)
            expected = [distance, max(least * distance, LEAST), least / (pt[a] + pt[b]), mass2]
            blur = [1e-5, 1e-5 * pt.max(), 0, 1e-12 * both[0] ** 2 + 2e-6 * pt[a] * pt[b]]
            assert (np.abs(found[a, b] - expected) <= 1e-4 * np.abs(expected) + blur).all(), (a, b)


def test_momenta_are_found_and_unscaled_and_stay_in_the_state(samples):
    network, data = ready(samples, "jagged")  # of columns that are standard, constant and given
    other, _ = made(samples, "jagged")
    other.load_state_dict(network.state_dict())
    batch = next(iter(data.val_dataloader()))
    decoded = data.decode(batch)
    found = other.momenta["of_jets"](batch["jets"]).numpy()
    real = batch["jets_mask"].numpy()
    for i, name in enumerate(PAIRWISE["jets"]):
        column = ["Jet_eta", "share", "Jet_pt"].index(name)
        expected = ak.to_numpy(ak.flatten(decoded.jets[name]))
        np.testing.assert_allclose(found[real[:, column], i], expected[real[:, column]], rtol=1e-5, atol=1e-5)
    assert (found[:, 3] == 0).all()


SHAPES = {"flat": (3,), "jets": (4, 2), "jets_mask": (4,)}
JAGGED = {"flat": (3,), "jets": (2,), "jets_mask": (2,), "jets_offsets": ()}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Transformer({"x": (3,), "mask": (3,)}), ["Transformer needs", "data.layout=tokens", "model=mlp"]),
        (lambda: Transformer(SHAPES | {"fat": (3, 8, 8)}), ["nothing drawn", "'fat'", "model=cnn"]),
        (lambda: DeepSets(JAGGED), ["DeepSets needs", "'jets' with offsets", "data.layout=tokens", "transformer"]),
        (lambda: EncodedSets(JAGGED), ["EncodedSets needs", "'jets' with offsets"]),
        (lambda: CNN(JAGGED | {"fat": (3, 8, 8)}), ["CNN needs", "'jets' with offsets"]),
        (lambda: MLP(JAGGED), ["MLP needs", "data.layout=vector"]),
        (lambda: Transformer(SHAPES, latent=6), ["model.attention_heads: got 4", "latent=6"]),
        (lambda: Transformer(SHAPES, layers=0), ["model.layers: got 0"]),
        (lambda: Transformer(SHAPES, pairwise={"jet": ["a", "b", "c"]}), ["model.pairwise.jet", "nearest: 'jets'"]),
        (lambda: Transformer(SHAPES, pairwise={"jets": ["a", "b"]}), ["model.pairwise.jets: got", "pt, eta, phi"]),
        (lambda: Transformer(SHAPES, pairwise={}), ["model.pairwise: got {}"]),
    ],
)
def test_what_does_not_fit_is_said(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("pairwise", "changes", "words"),
    [
        ({"jets": ["Jet_pt", "Jet_eta", "Jet_phi"]}, {}, ["'Jet_phi' is no column", "nearest: 'Jet_p"]),
        (PAIRWISE, {"scale": "uniform"}, ["'Jet_pt' is scaled by", "data.scale.Jet_pt=standard"]),
    ],
)
def test_columns_without_momenta_are_refused_before_the_training(samples, tmp_path, pairwise, changes, words):
    network, data = made(samples, "tokens", pairwise, **changes)
    with pytest.raises(ConfigError) as error:
        fit(network, data, tmp_path, max_epochs=1)
    assert all(word in str(error.value) for word in words)
