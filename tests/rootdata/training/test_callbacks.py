import json
import os
import sys
from itertools import pairwise

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.image import imread
from sklearn.metrics import accuracy_score, confusion_matrix, mean_absolute_error, mean_squared_error, roc_auc_score
from torch.utils.data import DataLoader

from rootdata.errors import ConfigError, DataError
from rootdata.models import DNN
from rootdata.training import callbacks, metrics
from rootdata.training.callbacks import ScoreReport

SHAPES = {"x": (4,), "mask": (4,)}
SAMPLES = ["QCD", "ttbar", "ttH"]
FILES = ["metrics.json", "roc.json", "roc.png", "scores.json", "scores.png"]
# Lightning's use of torch's own pytree functions, and its advice on data loaders, are not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Events(pl.LightningDataModule):
    """The part of a data module that the report needs: names, and batches with an index."""

    def __init__(self, batches, *, classes=("background", "signal"), sample_names=SAMPLES):
        super().__init__()
        self.batches, self.classes, self.sample_names = batches, classes, sample_names

    def test_dataloader(self):
        return DataLoader(self.batches, batch_size=None)


def make_batch(seed, *, size=200, classes=2, weighted=True, **replaced):
    """Three samples; the last is signal, or each is a class of its own."""
    rng = np.random.default_rng(seed)
    sample = rng.integers(0, 3, size)
    label = sample if classes == 3 else (sample == 2).astype(int)
    x = rng.normal(label[:, None], 1, (size, 4))
    weight = rng.random(size) + 0.5 if weighted else np.ones(size)
    index = np.stack([sample, np.zeros(size, int), np.arange(size)], axis=1)
    arrays = {"x": x.astype("f4"), "label": label, "weight": weight.astype("f4"), "index": index} | replaced
    return {key: torch.as_tensor(value) for key, value in arrays.items() if value is not None}


def run(folder, batches, *, model=None, report=None, **names):
    """Test a network on the batches and return the report and what the network says."""
    torch.manual_seed(0)
    model, report = model or DNN(SHAPES, dropout=0), report or ScoreReport(folder)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = pl.Trainer(accelerator="cpu", callbacks=[report], **quiet)
    trainer.test(model, datamodule=Events(batches, **names), verbose=False)
    with torch.no_grad():
        scores = torch.cat([model.eval().scores(batch) for batch in batches]).numpy()
    return report, scores


def joined(batches, key):
    return torch.cat([batch[key] for batch in batches]).numpy()


def read(folder, name):
    return json.loads((folder / name).read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_the_figures_agree_with_scikit_learn(tmp_path):
    batches = [make_batch(seed) for seed in range(3)]
    report, scores = run(tmp_path / "new" / "folder", batches)
    label, weight = joined(batches, "label"), joined(batches, "weight")
    figures = read(tmp_path / "new" / "folder", "metrics.json")
    assert figures == report.metrics
    assert figures["auc"] == pytest.approx(roc_auc_score(label, scores, sample_weight=weight))
    assert figures["accuracy"] == pytest.approx(accuracy_score(label, scores > 0.5, sample_weight=weight))
    assert figures["weighted"]
    assert figures["events"] == len(label)


def test_the_auc_is_told_for_the_weights_of_every_variation(tmp_path):
    rng = np.random.default_rng(5)
    varied = {"variations/up": rng.lognormal(0, 2, 200), "variations/down": rng.normal(1, 2, 200)}
    batches = [make_batch(seed, **varied) for seed in range(2)]
    report, scores = run(tmp_path, batches)
    label = joined(batches, "label")
    assert list(report.metrics["variations"]) == ["up", "down"]
    for name, found in report.metrics["variations"].items():
        area = metrics.auc(scores.astype(float), label, weight=joined(batches, f"variations/{name}").astype(float))
        assert found["auc"] == pytest.approx(area)
    up = roc_auc_score(label, scores, sample_weight=joined(batches, "variations/up"))
    assert report.metrics["variations"]["up"]["auc"] == pytest.approx(up)
    assert report.metrics["auc"] != report.metrics["variations"]["up"]["auc"]
    assert "variations" not in run(tmp_path, [make_batch(0)])[0].metrics


def test_samples_are_counted_and_averaged(tmp_path):
    batches = [make_batch(seed) for seed in range(3)]
    report, scores = run(tmp_path, batches)
    sample, weight = joined(batches, "index")[:, 0], joined(batches, "weight")
    assert list(report.metrics["samples"]) == SAMPLES
    for number, name in enumerate(SAMPLES):
        rows = sample == number
        found = report.metrics["samples"][name]
        assert found["events"] == rows.sum()
        assert found["sum_of_weights"] == pytest.approx(weight[rows].sum(), rel=1e-6)
        assert found["mean_score"] == pytest.approx(np.average(scores[rows], weights=weight[rows]), rel=1e-5)
        assert found["class"] == ("signal" if name == "ttH" else "background")


def test_histograms_hold_every_event(tmp_path):
    batches = [make_batch(seed) for seed in range(3)]
    report, _ = run(tmp_path, batches, report=ScoreReport(tmp_path, bins=7))
    found = read(tmp_path, "scores.json")
    assert found["edges"] == pytest.approx(np.linspace(0, 1, 8))
    for name, counts in found["classes"]["signal"].items():
        assert len(counts) == 7
        assert sum(counts) == pytest.approx(report.metrics["samples"][name]["sum_of_weights"])


def test_the_curve_rises_and_has_the_area(tmp_path):
    report, _ = run(tmp_path, [make_batch(seed) for seed in range(3)])
    curve = read(tmp_path, "roc.json")["classes"]["signal"]
    assert all(a <= b for key in ("signal_efficiency", "background_efficiency") for a, b in pairwise(curve[key]))
    area = np.trapezoid(curve["signal_efficiency"], curve["background_efficiency"])
    assert area == pytest.approx(report.metrics["auc"], abs=2e-3)


def test_the_pictures_show_something(tmp_path):
    report, _ = run(tmp_path, [make_batch(0)])
    assert sorted(path.name for path in report.paths.values()) == FILES
    for name in ("roc_plot", "scores_plot"):
        pixels = imread(report.paths[name])[..., :3]
        assert pixels.shape[0] > 400
        assert (pixels.max(axis=2) - pixels.min(axis=2) > 0.3).sum() > 1000  # coloured


def test_each_of_several_classes_against_the_rest(tmp_path):
    batches = [make_batch(seed, classes=3) for seed in range(3)]
    model = DNN(SHAPES, classes=3, dropout=0)
    report, scores = run(tmp_path, batches, model=model, classes=("QCD", "ttbar", "ttH"))
    label, weight = joined(batches, "label"), joined(batches, "weight")
    areas = {
        name: pytest.approx(roc_auc_score(label == number, scores[:, number], sample_weight=weight))
        for number, name in enumerate(SAMPLES)
    }
    assert report.metrics["auc_per_class"] == areas
    assert report.metrics["auc"] == pytest.approx(np.mean(list(report.metrics["auc_per_class"].values())))
    assert set(read(tmp_path, "roc.json")["classes"]) == set(SAMPLES)
    assert set(report.metrics["samples"]["ttH"]["mean_score"]) == set(SAMPLES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "confusion.json", "confusion.png"])
    table, guess = read(tmp_path, "confusion.json"), scores.argmax(1)
    assert table["classes"] == SAMPLES
    assert np.array(table["weights"]) == pytest.approx(confusion_matrix(label, guess, sample_weight=weight))
    assert np.array(table["shares"]).sum(1) == pytest.approx([1, 1, 1])
    assert imread(report.paths["confusion_plot"]).shape[0] > 400


HEADS = {"m": {"kind": "regression", "loss": "mse", "target": ["mass", "pt"]}, "c": {"kind": "classification"}}


@pytest.mark.parametrize("heads", [HEADS, {"m": HEADS["m"]}], ids=["both", "regression"])
def test_what_was_predicted_is_held_against_the_truth(tmp_path, heads):
    rng = np.random.default_rng(7)
    batches = [make_batch(seed, targets=rng.normal(5, 2, (200, 2)).astype("f4")) for seed in range(3)]
    model = DNN(SHAPES, heads=heads, dropout=0)
    report = ScoreReport(tmp_path)
    trainer = pl.Trainer(accelerator="cpu", callbacks=[report], logger=False, enable_checkpointing=False)
    trainer.test(model, datamodule=Events(batches), verbose=False)
    with torch.no_grad():
        found = torch.cat([model.eval().predict_step(batch, 0)["predictions"] for batch in batches]).numpy()
    figures, true, weight = read(tmp_path, "metrics.json"), joined(batches, "targets"), joined(batches, "weight")
    for column, name in enumerate(("mass", "pt")):
        given = {"y_true": true[:, column], "y_pred": found[:, column], "sample_weight": weight}
        assert figures[f"{name}/rmse"] == pytest.approx(mean_squared_error(**given) ** 0.5, rel=1e-5)
        assert figures[f"{name}/mae"] == pytest.approx(mean_absolute_error(**given), rel=1e-5)
        spread = figures[f"{name}/bias"] ** 2 + figures[f"{name}/resolution"] ** 2
        assert spread == pytest.approx(figures[f"{name}/rmse"] ** 2)
        told = read(tmp_path, "responses.json")["targets"][name]
        assert told["rmse"] == figures[f"{name}/rmse"]
        assert sum(one["events"] for one in told["slices"]) == len(true)
    assert ("auc" in figures) == (len(heads) == 2)
    assert (tmp_path / "roc.json").exists() == (len(heads) == 2)
    pixels = imread(report.paths["responses_plot"])[..., :3]
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 0.3).sum() > 1000  # coloured


def test_predictions_that_are_not_finite_name_the_cause(tmp_path):
    batch = make_batch(0, targets=np.ones((200, 2), "f4"))
    batch["x"][:5] = torch.nan
    with pytest.raises(DataError, match=r"5 of 200 .* diverged"):
        run(tmp_path, [batch], model=DNN(SHAPES, heads={"m": HEADS["m"]}))


def test_a_sample_with_both_labels_is_shown_as_two(tmp_path):
    batch = make_batch(0, index=None)
    report, _ = run(tmp_path, [batch], sample_names=["mixed"])
    assert list(report.metrics["samples"]) == ["mixed (background)", "mixed (signal)"]
    assert sum(found["events"] for found in report.metrics["samples"].values()) == len(batch["label"])


def test_events_without_weights_and_names_will_do(tmp_path):
    report, _ = run(tmp_path, [make_batch(0, weight=None)], classes=(), sample_names=())
    assert not report.metrics["weighted"]
    assert list(report.metrics["samples"]) == ["sample 0", "sample 1", "sample 2"]
    assert report.metrics["samples"]["sample 2"]["class"] == "class 1"


def test_without_signal_there_is_no_area_but_the_rest(tmp_path):
    batch = make_batch(0, label=np.zeros(200, int))
    report, _ = run(tmp_path, [batch])
    assert report.metrics["auc"] is None
    assert report.metrics["accuracy"] is not None
    assert read(tmp_path, "roc.json") == {"classes": {}}
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_a_second_test_starts_anew(tmp_path):
    report = ScoreReport(tmp_path)
    run(tmp_path, [make_batch(0), make_batch(1)], report=report)
    run(tmp_path, [make_batch(2)], report=report)
    assert report.metrics["events"] == 200


def test_scores_that_are_not_finite_name_the_cause(tmp_path):
    batch = make_batch(0)
    batch["x"][:5] = torch.nan
    with pytest.raises(DataError, match=r"5 of 200 .* diverged"):
        run(tmp_path, [batch])
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_figures_are_written_and_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(UserWarning, match=r"rootdata\[plot\]"):
        report, _ = run(tmp_path, [make_batch(0)])
    assert sorted(path.name for path in report.paths.values()) == ["metrics.json", "roc.json", "scores.json"]
    with pytest.raises(ConfigError, match="matplotlib"):
        callbacks.new_figure()


def test_plots_can_be_left_out(tmp_path):
    report, _ = run(tmp_path, [make_batch(0)], report=ScoreReport(tmp_path, plots=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "roc.json", "scores.json"]
    assert len(report.paths) == 3


def test_on_a_full_disk_the_report_before_stays_whole(mount):
    place = mount("300k")
    run(place, [make_batch(1)])
    before = {name: (place / name).read_bytes() for name in FILES}
    (place / "filler").write_bytes(bytes(os.statvfs(place).f_bavail * os.statvfs(place).f_bsize))
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.json'"):
        run(place, [make_batch(2)])
    assert {name: (place / name).read_bytes() for name in FILES} == before
    assert sorted(path.name for path in place.iterdir()) == ["filler", *FILES]
