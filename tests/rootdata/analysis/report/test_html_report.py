"""The report of a training that was run: its file, its inputs, the command that makes it anew."""

import json
import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from bundles_for_tests import make_data

from rootdata.__main__ import main
from rootdata.analysis.report import inputs
from rootdata.analysis.report.callback import HtmlReport
from rootdata.analysis.report.tested import FILE, ScoredRun
from rootdata.models import DNN, DeepSets
from rootdata.models.autoencoder import Autoencoder
from rootdata.training import metrics
from rootdata.training.callbacks import ScoreReport

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
]


def run(data, network, folder, **options):
    """Test a network, with its report."""
    callback = HtmlReport(folder, **options)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", callbacks=[callback], enable_checkpointing=False, **quiet)
    trainer.test(network, datamodule=data, verbose=False)
    return callback


@pytest.fixture(scope="module")
def data(samples):
    return make_data(samples)


@pytest.fixture(scope="module")
def network(data):
    torch.manual_seed(1)
    return DeepSets(data.shapes, phi=[8], rho=[8])


@pytest.fixture(scope="module")
def undrawn(data, network, tmp_path_factory):
    """A test whose pictures are left out: these take most of the time."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rootdata.analysis.report.make.report", lambda run, config: run / "report.html")
        run(data, network, folder, gradients=True, shuffles=2)
    return folder


def test_the_scored_events_are_those_of_the_test(undrawn, data, network):
    tested = ScoredRun.load(undrawn)
    figures = json.loads((undrawn / "metrics.json").read_text())
    events = tested.scores
    assert len(events.label) == data.specs.num_events("test") == figures["events"]
    assert metrics.auc(events.score, events.label, weight=events.weight) == pytest.approx(figures["auc"])
    assert tested.about["samples"] == data.sample_names
    n_all = {
        name: sum(data.specs.events_of(part)[name] for part in ("train", "val", "test")) for name in data.sample_names
    }
    for number, name in enumerate(data.sample_names):
        rows = events.sample == number
        assert rows.sum() == data.specs.events_of("test")[name]
        if rows.any() and not tested.is_weighted:
            assert (tested.scale[rows]).sum() == pytest.approx(n_all[name])


def test_training_events_are_scored_once_and_as_in_a_test(undrawn, data, network):
    training = ScoredRun.load(undrawn).training
    assert len(training.label) == data.specs.num_events("train")
    with torch.no_grad():
        batches = data.train_dataloader()
        scores = torch.cat([network.eval().scores(batch) for batch in batches]).numpy()
    assert np.sort(training.score) == pytest.approx(np.sort(scores), abs=1e-6)


def test_some_training_events_are_taken_from_all_over_the_files(data, network, tmp_path, monkeypatch):
    monkeypatch.setattr("rootdata.analysis.report.make.report", lambda run, config: run / "report.html")
    monkeypatch.setattr("rootdata.analysis.report.callback.STRETCH", 4)
    run(data, network, tmp_path, training_events=60, importance_events=0)
    with torch.no_grad():
        batches = data.dataset("train", ordered=True, balanced=False).batches(0)
        scores = torch.cat([network.eval().scores(batch) for batch in batches]).numpy()
    found = ScoredRun.load(tmp_path).training.score
    places = np.flatnonzero(np.abs(scores[:, None] - found).min(axis=1) < 1e-7)
    assert len(found) == pytest.approx(60, abs=4)
    assert np.diff(places, prepend=0, append=len(scores)).max() < 3 * len(scores) / 15


def test_the_inputs_are_looked_at(undrawn, data):
    place = undrawn / "report"
    found = json.loads((place / "importance.json").read_text())
    layout = data.scanned.layout
    collections = {c.name for c in layout.collections}
    branches = {b for c in layout.collections for b in c.branches}
    assert {row["name"] for row in found["rows"]} == {*layout.flat, *collections, *branches}
    assert {row["name"] for row in found["rows"] if row["is_collection"]} == collections
    features = {path.stem.removeprefix("features_") for path in place.glob("features_*.json")}
    assert features == {"flat", *collections}
    flat = json.loads((place / "features_flat.json").read_text())
    assert set(flat) == set(layout.flat)
    for one in flat.values():
        for when in ("before", "after"):
            counts = {k: sum(h["values"]) + h["below"][0] + h["above"][0] for k, h in one[when].items()}
            assert all(count >= 0 for count in counts.values())


def test_features_of_events_without_labels_are_those_of_all(data):
    batch = next(iter(data.test_dataloader()))
    columns = {key: values.numpy() for key, values in batch.items()}
    columns["label"] = np.full_like(columns["label"], -1)  # as a regression alone has it
    for one in inputs.distributions(data, columns, classes=data.classes)["flat"].values():
        assert {*one["before"]} == {*one["missing"]} == {"events"}
        histogram = one["before"]["events"]
        filled = sum(histogram["values"]) + histogram["below"][0] + histogram["above"][0]
        assert 0 < filled <= columns["weight"].sum() * (1 + 1e-6)


def test_an_autoencoder_has_no_importances_as_its_losses_have_no_true_values(data, tmp_path, monkeypatch):
    monkeypatch.setattr("rootdata.analysis.report.make.report", lambda run, config: run / "report.html")
    run(data, Autoencoder(data.shapes, hidden=[8], latent=2), tmp_path, shuffles=1)
    place = tmp_path / "report"
    assert not (place / "importance.json").exists()
    assert (place / "features_flat.json").exists()


def test_gradients_add_up_to_the_score(undrawn):
    found = json.loads((undrawn / "report" / "gradients.json").read_text())
    assert found["completeness"] < 0.02
    assert all(row["mean"] >= 0 for row in found["rows"])


def test_gradients_are_followed_to_events_from_all_over_the_files(monkeypatch):
    monkeypatch.setattr(inputs, "EXPLAINED", 10)
    columns = {"flat": np.arange(100, dtype=np.float32)[:, None], "label": np.zeros(100), "weight": np.ones(100)}
    groups = [inputs.InputGroup(name="place", places=(("flat", (..., 0)),))]
    found = inputs.gradients(columns, groups, lambda batch: {"score": torch.sigmoid(batch["flat"][:, 0] / 100)})
    assert found["rows"][0]["mean"] == pytest.approx(0.25, abs=1e-4)  # of 0, 10, ..., 90: a mean distance of 25


def test_events_that_are_looked_at_are_bounded_and_spread():
    sampled, batches = (
        inputs.Sampled(70),
        [{"label": np.arange(i, i + 64), "x": np.zeros((64, 3))} for i in range(0, 640, 64)],
    )
    for batch in batches:
        sampled.add(batch, expected=640, to_array=np.asarray)
    kept = sampled.columns()["label"]
    assert 65 <= len(kept) <= 70
    assert np.diff(kept).max() <= 10
    large = inputs.Sampled(1000)
    large.add({"label": np.zeros(9), "x": np.zeros((9, 1 << 20))}, expected=9, to_array=np.asarray)
    assert large.columns()["x"].nbytes <= inputs.MOST_BYTES


@pytest.mark.parametrize("numbers", [(4, 5), (5, 4), (4, 4)])
def test_a_batch_with_as_many_objects_as_events_is_looked_at_like_others(numbers):
    sampled = inputs.Sampled(100)
    for n in numbers:
        jets = {"jets": np.zeros((n, 2)), "jets_mask": np.ones((n, 2), bool), "jets_offsets": np.array([0, 1, 2, 3, n])}
        sampled.add({"label": np.zeros(4), "flat_mask": np.ones((4, 1)), **jets}, expected=8, to_array=np.asarray)
    assert {key: len(values) for key, values in sampled.columns().items()} == {"label": 8, "flat_mask": 8}


def test_only_what_matters_is_important():
    """A known network: of two inputs it looks at one; and at whole objects, whose branch is shuffled among equals."""
    rng = np.random.default_rng(0)
    n = 2000
    label = rng.integers(0, 2, n)
    flat = rng.normal(size=(n, 2)) + np.stack([2 * label, 2 * label], axis=1)
    mask = np.arange(3) < rng.integers(1, 4, n)[:, None]
    jets = (rng.normal(size=(n, 3, 2)) + label[:, None, None]) * mask[..., None]
    columns = {"flat": flat, "jets": jets, "jets_mask": mask, "label": label, "weight": np.ones(n)}
    groups = [
        inputs.InputGroup(name="used", places=(("flat", (..., 0)),)),
        inputs.InputGroup(name="unused", places=(("flat", (..., 1)),)),
        inputs.InputGroup(name="jets", places=(("jets", ...), ("jets_mask", ...)), is_collection=True),
        inputs.InputGroup(name="pt", places=(("jets", (..., 0)),), alike="jets_mask"),
        inputs.InputGroup(name="eta", places=(("jets", (..., 1)),), alike="jets_mask"),
    ]

    def ask(batch):
        assert ((batch["jets"][..., 0] != 0) == batch["jets_mask"]).all()  # padding stays padding
        return {"score": 1 / (1 + np.exp(-batch["flat"][:, 0] - batch["jets"][..., 0].sum(axis=1)))}

    found = {row["name"]: row for row in inputs.importance(columns, groups, ask, shuffles=3)["rows"]}
    assert found["used"]["mean"] > 0.02
    assert found["pt"]["mean"] > 0.02
    assert found["jets"]["mean"] > 0.02
    assert found["unused"]["mean"] == found["eta"]["mean"] == 0


def test_without_pictures_there_is_no_report_not_even_an_earlier_one(data, network, tmp_path):
    for name in (FILE, "report.html"):
        (tmp_path / name).touch()
    callback = run(data, network, tmp_path, plots=False)
    assert isinstance(callback, ScoreReport)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "roc.json", "scores.json"]


def test_without_its_libraries_a_warning_takes_its_place(data, network, tmp_path, monkeypatch):
    from rootdata.analysis.report import canvas

    monkeypatch.setattr(canvas, "NEEDED", ("numpy", "absent_for_tests"))
    with pytest.warns(UserWarning, match=r"the report needs absent_for_tests, which is not installed; run pip install"):
        run(data, network, tmp_path, training_events=0, importance_events=0)
    assert (tmp_path / FILE).is_file()
    assert not (tmp_path / "report.html").exists()
    assert ScoredRun.load(tmp_path).training is None


def test_neither_data_nor_torch_is_needed_to_make_it_anew(undrawn):
    code = (
        "import sys; from pathlib import Path; from rootdata.analysis.report import make, compare, tested;"
        f"tested.ScoredRun.load(Path({str(undrawn)!r})).scores;"
        "print(sorted({'torch', 'pytorch_lightning', 'uproot', 'scipy', 'awkward', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.long
@pytest.mark.parametrize("layout", ["tokens", pytest.param("vector", marks=pytest.mark.matrix)])
def test_the_whole_page_of_a_network(samples, layout, tmp_path, capsys):
    data = make_data(samples, layout=layout)
    torch.manual_seed(1)
    network = DeepSets(data.shapes, phi=[8], rho=[8]) if layout == "tokens" else DNN(data.shapes, hidden=[16])
    callback = run(data, network, tmp_path / "one", gradients=True)
    text = callback.paths["report"].read_text()
    for name in ("importance", "gradients", "features_flat"):
        assert f'id="{name}"' in text
    run(data, network, tmp_path / "other")
    out = tmp_path / "compare.html"
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "other"), "--out", str(out)]) == 0
    pairs = json.loads((tmp_path / "compare" / "differences.json").read_text())["pairs"]
    assert [(pair["is_paired"], pair["difference"]) for pair in pairs] == [(True, pytest.approx(0))]
    assert "same events, paired" in out.read_text()
    assert main(["report", str(tmp_path / "one"), "--out", str(out)]) == 2
    assert "exists; add --force" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "one"), "--out", str(out), "--force", "--style", "ATLAS"]) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["."], "is no folder of a training"),
        ([".", "--style", "LHCB"], "style: got 'LHCB'; allowed: 'plain', 'CMS', 'ATLAS', 'LHCb'; nearest: 'LHCb'"),
        ([".", "."], "is named twice"),
        ([".", "--out", "page.txt"], "--out: got 'page.txt'; expected a name that ends in .html"),
        ([".", "--luminosity", "0"], "luminosity: got 0; expected a number above 0"),
    ],
)
def test_mistakes_are_told_in_a_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert sentence in told
    assert "\n" not in told
