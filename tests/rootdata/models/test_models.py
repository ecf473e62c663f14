import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from rootdata.errors import ConfigError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models import CNN, DNN, Classifier, DeepSets
from rootdata.models.classifier import WeightedAUC, weighted_loss
from rootdata.training import metrics

VECTOR = {"x": (9,), "mask": (9,)}
TOKENS = {"flat": (3,), "jets": (5, 4), "jets_mask": (5,), "fatjets": (2, 3), "fatjets_mask": (2,)}
IMAGES = {"flat": (3,), "jets": (2, 8, 5), "tracks": (1, 4, 4), "fatjets": (2, 3), "fatjets_mask": (2,)}
# Lightning's use of torch's own pytree functions, and its advice on data loaders, are not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


def make_batch(shapes, *, size=16, seed=0, classes=2):
    """A batch whose features tell the classes apart; some events have no objects at all."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (size,), generator=rng)
    batch = {"label": label, "weight": torch.rand(size, generator=rng) + 0.5}
    batch["index"] = torch.stack([label, torch.zeros_like(label), torch.arange(size)], dim=1)
    for key, shape in shapes.items():
        shift = label.reshape(-1, *[1] * len(shape))
        batch[key] = torch.randn(size, *shape, generator=rng) + shift
    for key, shape in shapes.items():
        if key.endswith("mask"):
            batch[key] = torch.arange(shape[0]) < torch.randint(shape[0] + 1, (size, 1), generator=rng)
    return batch


def loader(shapes, *, n_batches=8, seed=0, classes=2):
    batches = [make_batch(shapes, size=64, seed=seed + number, classes=classes) for number in range(n_batches)]
    return DataLoader(batches, batch_size=None)


def make_trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", **quiet, **options)


networks = pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (DNN, VECTOR),
        (DeepSets, TOKENS),
        (DeepSets, {k: v for k, v in TOKENS.items() if k != "flat"}),
        (CNN, IMAGES),
        (CNN, {"jets": (2, 8, 5)}),
    ],
    ids=["dnn", "deepsets", "deepsets without flat", "cnn", "cnn of one image"],
)


@networks
@pytest.mark.parametrize(("classes", "shape"), [(2, (16,)), (3, (16, 3))])
def test_one_logit_for_two_classes_and_one_each_for_more(network, shapes, classes, shape):
    model = network(shapes, classes=classes).eval()
    batch = make_batch(shapes, classes=classes)
    assert model(batch).shape == shape
    scores = model.scores(batch)
    assert scores.shape == shape
    assert ((scores >= 0) & (scores <= 1)).all()
    if classes > 2:
        torch.testing.assert_close(scores.sum(dim=1), torch.ones(16))


@networks
def test_an_event_is_scored_alone(network, shapes):
    model, batch = network(shapes).eval(), make_batch(shapes)
    alone = torch.cat([model({key: value[i : i + 1] for key, value in batch.items()}) for i in range(16)])
    torch.testing.assert_close(alone, model(batch))


@given(st.integers(0, 2**31), st.permutations(range(5)))
@settings(deadline=None, max_examples=25)
def test_the_order_of_objects_does_not_matter(seed, order):
    torch.manual_seed(1)
    model, batch = DeepSets(TOKENS).eval(), make_batch(TOKENS, seed=seed)
    shuffled = batch | {"jets": batch["jets"][:, order], "jets_mask": batch["jets_mask"][:, order]}
    torch.testing.assert_close(model(shuffled), model(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [0.0, -999.0, float("inf"), float("nan")])
def test_padding_has_no_influence_on_scores_and_gradients(padding):
    torch.manual_seed(1)
    model, batch = DeepSets(TOKENS, dropout=0), make_batch(TOKENS)
    padded = dict(batch)
    for name in ("jets", "fatjets"):
        padded[name] = torch.where(batch[f"{name}_mask"].unsqueeze(-1), batch[name], torch.tensor(padding))
    expected = torch.autograd.grad(model(batch).sum(), list(model.parameters()))
    torch.testing.assert_close(model(padded), model(batch))
    for gradient, value in zip(
        torch.autograd.grad(model(padded).sum(), list(model.parameters())), expected, strict=True
    ):
        torch.testing.assert_close(gradient, value)


def test_an_event_without_objects_has_a_score():
    model, batch = DeepSets(TOKENS).eval(), make_batch(TOKENS)
    for name in ("jets", "fatjets"):
        batch[f"{name}_mask"] = torch.zeros_like(batch[f"{name}_mask"])
    assert torch.isfinite(model(batch)).all()


@pytest.mark.parametrize("wrap", [[], ["x"], ["y"], ["x", "y"]])
def test_a_convolution_sees_no_end_on_an_axis_that_wraps(wrap):
    model = CNN({"jets": (1, 8, 8)}, channels=[3], wrap=wrap).eval()
    image = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    for name, axis in (("x", 3), ("y", 2)):
        turned = {"jets": image.roll(3, dims=axis)}
        same = torch.allclose(model({"jets": image}), model(turned), atol=1e-6)
        assert same == (name in wrap)


def test_the_mask_reaches_a_dnn_that_asks_for_it():
    batch = make_batch(VECTOR)
    flipped = batch | {"mask": ~batch["mask"]}
    with_mask, without = DNN(VECTOR, use_mask=True).eval(), DNN(VECTOR).eval()
    assert (with_mask(batch) != with_mask(flipped)).any()
    assert (without(batch) == without(flipped)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DNN(TOKENS), ["'jets'", "data.layout=vector", "model=deepsets"]),
        (lambda: DeepSets(VECTOR), ["'x'", "data.layout=tokens", "model=dnn"]),
        (lambda: DeepSets({"flat": (3,)}), ["'flat'", "jagged"]),
        (lambda: DNN({"x": (3,)}, use_mask=True), ["use_mask"]),
        (lambda: DNN(VECTOR, classes=1), ["classes", "got 1"]),
        (lambda: CNN(VECTOR), ["'x'", "data.layout=image", "model=dnn"]),
        (lambda: CNN(TOKENS), ["'jets'", "data.layout=image", "model=deepsets"]),
        (lambda: CNN({"jets": (1, 8, 3)}), ["got 3 blocks", "4 x 4 cells", "'jets' has 3 x 8", "more bins"]),
        (lambda: CNN(IMAGES, channels=[]), ["model.channels: got []"]),
        (lambda: CNN(IMAGES, wrap=["phi"]), ["model.wrap: got ['phi']", "x, y"]),
    ],
)
def test_batches_of_another_layout_are_refused_by_name(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert all(word in str(error.value) for word in words)


@networks
def test_a_checkpoint_is_loaded_without_unpickling(network, shapes, tmp_path):
    options = {"phi": [8]} if network is DeepSets else {"hidden": OmegaConf.create([16, 8])}
    options |= {"channels": OmegaConf.create([4, 8])} if network is CNN else {}
    model = network(OmegaConf.create(shapes), classes=3, lr=0.1, **options)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, loader(shapes, classes=3), loader(shapes, n_batches=2, seed=99, classes=3))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = network.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True).eval()
    batch = make_batch(shapes, classes=3)
    torch.testing.assert_close(loaded(batch), model.eval()(batch))
    assert loaded.lr == 0.1


@networks
def test_training_separates_the_classes_and_logs_the_exact_area(network, shapes, tmp_path):
    pl.seed_everything(1)
    model, val = network(shapes, lr=0.01), loader(shapes, n_batches=4, seed=99)
    trainer = make_trainer(tmp_path, max_epochs=3, enable_checkpointing=False)
    trainer.fit(model, loader(shapes, n_batches=20), val)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    outputs = trainer.predict(model, val)
    score, label, weight = (np.concatenate([part[key] for part in outputs]) for key in ("score", "label", "weight"))
    assert logged["val/auc"] == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-6)
    chosen = np.where(label == 1, score, 1 - score)
    assert logged["val/loss"] == pytest.approx(np.average(-np.log(chosen), weights=weight), rel=1e-4, abs=1e-8)
    assert logged["val/auc"] > 0.85
    assert logged["train/loss"] < 0.69
    assert set(outputs[0]) == {"score", "label", "weight", "index"}


def test_batches_without_weight_and_index_will_do(tmp_path):
    batches = [{key: value for key, value in make_batch(VECTOR).items() if key in {"x", "label"}}] * 3
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    model = DNN(VECTOR)
    trainer.fit(model, DataLoader(batches, batch_size=None), DataLoader(batches, batch_size=None))
    assert set(trainer.predict(model, DataLoader(batches, batch_size=None))[0]) == {"score", "label"}


@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_of_two_counts_as_two_events(classes):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(10, *([classes] if classes > 2 else []), generator=rng)
    label = torch.randint(classes, (10,), generator=rng)
    twice = torch.tensor([2.0] * 3 + [1.0] * 7)
    repeats = twice.long()
    repeated = weighted_loss(logits.repeat_interleave(repeats, dim=0), label.repeat_interleave(repeats))
    torch.testing.assert_close(weighted_loss(logits, label, weight=twice, mean_weight=1.3), repeated)
    torch.testing.assert_close(weighted_loss(logits, label, weight=5 * twice, mean_weight=6.5), repeated)
    assert torch.equal(weighted_loss(logits, label, weight=torch.ones(10)), weighted_loss(logits, label))


@given(st.integers(1, 40), st.integers(0, 1000), st.booleans())
def test_batches_of_any_size_add_up_to_the_weighted_mean_of_all_events(size, seed, has_negative):
    rng = torch.Generator().manual_seed(seed)
    logits, label = torch.randn(40, generator=rng), torch.randint(2, (40,), generator=rng)
    weight = torch.rand(40, generator=rng) ** 4 * 1000 - (50 if has_negative else 0)
    mean = float(weight.abs().mean())
    whole = weighted_loss(logits, label, weight=weight, mean_weight=mean)
    batches = [slice(low, low + size) for low in range(0, 40, size)]
    losses = [weighted_loss(logits[b], label[b], weight=weight[b], mean_weight=mean) * len(label[b]) for b in batches]
    torch.testing.assert_close(torch.stack(losses).sum() / 40, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [[0.0, 0.0], [1.0, -1.0], [-1.0, -2.0]])
def test_weights_that_cancel_or_vanish_keep_the_loss_finite(weight):
    logits = torch.tensor([0.3, -2.0], requires_grad=True)
    loss = weighted_loss(logits, torch.tensor([1, 0]), weight=torch.tensor(weight))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


HEAVY = 1000.0  # of one event in a hundred


@pytest.fixture(scope="module")
def toy(tmp_path_factory, write_tree):
    """A feature that says nothing of the label: what a network learns is the weighted share of signal."""
    rng, n = np.random.default_rng(1), 20_000
    is_heavy = np.arange(n) % 100 == 0
    signal, weight = rng.random(n) < np.where(is_heavy, 0.95, 0.5), np.where(is_heavy, HEAVY, 1.0)
    path = write_tree(
        tmp_path_factory.mktemp("toy") / "toy.root",
        {"x": rng.normal(0, 1, n).astype("f4"), "signal": signal.astype("i4"), "w": weight}, step=5_000,
    )  # fmt: skip
    options = {"flat": ["x"], "label": "signal", "weight": "w", "split": {"train": 1.0}}
    return {"samples": {"s": {"files": str(path)}}, **options}, (signal * weight).sum() / weight.sum()


@pytest.mark.parametrize("batch_size", [100, 1_024, 10_000])
def test_the_batches_of_an_epoch_are_balanced_at_the_weighted_mean(toy, batch_size):
    options, expected = toy
    data = RootDataModule(**options, batch_size=batch_size)
    bias = torch.logit(torch.tensor(expected, dtype=torch.float32)).requires_grad_()
    gradient = 0.0
    for batch in data.train_dataloader():
        n = len(batch["label"])
        loss = weighted_loss(bias.expand(n), batch["label"], weight=batch["weight"], mean_weight=data.mean_weight)
        gradient += float(torch.autograd.grad(loss, bias)[0]) * n / data.specs.num_events("train")
    assert gradient == pytest.approx(0, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(("batch_size", "epochs"), [(100, 8), (1_024, 30), (10_000, 60)])
def test_a_network_learns_the_weighted_mean_whatever_the_batch_size(toy, batch_size, epochs, tmp_path):
    options, expected = toy

    class Decaying(DNN):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=2.0)
            last = float(self.trainer.estimated_stepping_batches)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.005 ** (step / last))
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    data = RootDataModule(**options, batch_size=batch_size)
    torch.manual_seed(1)
    network = Decaying(data.shapes, hidden=[])
    make_trainer(tmp_path, max_epochs=epochs, enable_checkpointing=False, limit_val_batches=0).fit(network, data)
    with torch.no_grad():  # of a fit with a constant term the weighted means of score and label are equal
        sums = [((b["weight"] * network.scores(b)).sum(), b["weight"].sum()) for b in data.train_dataloader()]
    assert float(sum(s for s, _ in sums) / sum(w for _, w in sums)) == pytest.approx(expected, abs=0.01)


def test_the_mean_weight_comes_from_the_data_module_or_is_set_by_hand(toy, tmp_path):
    data, network = RootDataModule(**toy[0], batch_size=10_000), DNN({"x": (1,)})
    make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False, limit_val_batches=0).fit(network, data)
    assert network.mean_weight == data.mean_weight == (99 + HEAVY) / 100
    other = DNN({"x": (1,)})
    other.mean_weight = 3.0
    batches = [dict(batch) for batch in data.train_dataloader()]
    make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(
        other, DataLoader(batches, batch_size=None), DataLoader(batches, batch_size=None)
    )
    assert other.mean_weight == 3.0


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_of_batches_is_that_of_all_events_with_their_weights(classes):
    rng = np.random.default_rng(classes)
    score, label = rng.random((300, classes)).astype("f4").round(2), rng.integers(0, classes, 300)
    weight = rng.normal(1, 1, 300).astype("f4")
    score = score[:, 0] if classes == 2 else score
    area = WeightedAUC(classes)
    for _ in range(2):
        for rows in np.array_split(np.arange(300), 7):
            area.update(*(torch.from_numpy(values[rows]) for values in (score, label, weight)))
        columns = [(score, label)] if classes == 2 else [(score[:, c], label == c) for c in range(classes)]
        expected = np.mean([metrics.auc(column, is_signal, weight=weight) for column, is_signal in columns])
        assert float(area.compute()) == pytest.approx(expected, abs=1e-6)
        area.reset()


AS_RANKS = """
import os, sys, numpy as np, torch
from rootdata.models.classifier import WeightedAUC
place, world, rank = sys.argv[1], int(sys.argv[2]), 0
while rank + 1 < world and os.fork():
    rank += 1
torch.distributed.init_process_group("gloo", init_method=f"file://{place}", world_size=world, rank=rank)
rng = np.random.default_rng(5)
score, label, weight = rng.random(2000).astype("f4").round(3), rng.integers(0, 2, 2000), rng.normal(1, 2, 2000)
area = WeightedAUC(2)
for rows in np.array_split(np.arange(2000)[rank::world], 9):
    area.update(*(torch.from_numpy(values[rows]) for values in (score, label, weight)))
open(f"{place}_{rank}", "w").write(float(area.compute()).hex())
torch.distributed.destroy_process_group()
"""


@pytest.mark.long
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_rank_gets_the_area_of_all_events(world, tmp_path):
    command = [sys.executable, "-c", AS_RANKS, str(tmp_path / "meeting"), str(world)]
    # It ends when the last process has closed its output.
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    found = {(tmp_path / f"meeting_{rank}").read_text() for rank in range(world)}
    rng = np.random.default_rng(5)
    score, label, weight = rng.random(2000).astype("f4").round(3), rng.integers(0, 2, 2000), rng.normal(1, 2, 2000)
    above = np.sign(score[label == 1][:, None] - score[label == 0]) / 2 + 0.5
    pairs = weight[label == 1] @ above @ weight[label == 0] / weight[label == 1].sum() / weight[label == 0].sum()
    assert found == {float(np.float32(pairs)).hex()}


def test_both_networks_are_classifiers():
    assert issubclass(DNN, Classifier)
    assert issubclass(DeepSets, Classifier)


def test_importing_the_package_does_not_load_torch():
    code = "import sys, rootdata.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_network_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Perceptron"):
        __import__("rootdata.models").models.Perceptron  # noqa: B018
