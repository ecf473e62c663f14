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
from rootdata.models import DNN, Classifier, DeepSets
from rootdata.models.classifier import weighted_loss

VECTOR = {"x": (9,), "mask": (9,)}
TOKENS = {"flat": (3,), "jets": (5, 4), "jets_mask": (5,), "fatjets": (2, 3), "fatjets_mask": (2,)}
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
    [(DNN, VECTOR), (DeepSets, TOKENS), (DeepSets, {k: v for k, v in TOKENS.items() if k != "flat"})],
    ids=["dnn", "deepsets", "deepsets without flat"],
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
    ],
)
def test_batches_of_another_layout_are_refused_by_name(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    assert all(word in str(error.value) for word in words)


@networks
def test_a_checkpoint_is_loaded_without_unpickling(network, shapes, tmp_path):
    options = {"phi": [8]} if network is DeepSets else {"hidden": OmegaConf.create([16, 8])}
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
    score, label = (np.concatenate([part[key] for part in outputs]) for key in ("score", "label"))
    assert logged["val/auc"] == pytest.approx(roc_auc_score(label, score), abs=1e-5)
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
    torch.testing.assert_close(weighted_loss(logits, label, weight=twice), repeated)
    torch.testing.assert_close(weighted_loss(logits, label, weight=5 * twice), repeated)


@pytest.mark.parametrize("weight", [[0.0, 0.0], [1.0, -1.0], [-1.0, -2.0]])
def test_weights_that_cancel_or_vanish_keep_the_loss_finite(weight):
    logits = torch.tensor([0.3, -2.0], requires_grad=True)
    loss = weighted_loss(logits, torch.tensor([1, 0]), weight=torch.tensor(weight))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_both_networks_are_classifiers():
    assert issubclass(DNN, Classifier)
    assert issubclass(DeepSets, Classifier)


def test_importing_the_package_does_not_load_torch():
    code = "import sys, rootdata.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_network_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Transformer"):
        __import__("rootdata.models").models.Transformer  # noqa: B018
