"""Boosted trees: as good as the library alone on the same events, resumed where they were, one file in the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from estimators_for_tests import fit, make_data
from pytorch_lightning.callbacks import ModelCheckpoint

from rootdata.bundle.assemble import Assembler
from rootdata.bundle.export import export, rehearse
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.manifest import MODEL, open_bundle
from rootdata.bundle.parity import edge_events, real_events
from rootdata.errors import BundleError, ConfigError, DataError
from rootdata.models.estimators import xgb
from rootdata.models.estimators.lgbm import LightGBM
from rootdata.models.estimators.xgb import XGBoost
from rootdata.table import concatenate

xgboost = pytest.importorskip("xgboost", reason="needs xgboost")
lightgbm = pytest.importorskip("lightgbm", reason="needs lightgbm")

TINY = 2e-6
SMALL: dict[str, Any] = {"trees": 4, "threads": 1}
KINDS = {
    "xgboost": lambda shapes, **more: XGBoost(shapes, **SMALL, **more),
    "in memory": lambda shapes, **more: XGBoost(shapes, **SMALL, external_memory=False, **more),
    "lightgbm": lambda shapes, **more: LightGBM(shapes, **SMALL, **more),
}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Any:
    """Make a model of each kind."""
    return KINDS[request.param]


def arrays(data: Any, part: str) -> dict[str, Any]:
    """Read a part at once."""
    batches = list(getattr(data, f"{part}_dataloader")())
    return {name: np.concatenate([b[name].numpy() for b in batches]) for name in ("x", "label", "weight")}


def auc(score: Any, label: Any, weight: Any) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label, score, sample_weight=weight))


@pytest.fixture(scope="module")
def trained(events: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Train each kind on two and on three classes, once."""
    found = {}
    for name, make in KINDS.items():
        for classes in (2, 3) if name != "in memory" else (2,):
            folder, data = tmp_path_factory.mktemp("trained"), make_data(events, classes=classes)
            model = make(data.shapes, classes=classes)
            found[f"{name} {classes}"] = (model, data, fit(model, data, folder), folder)
    return found


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_trees_are_as_good_as_those_of_the_library_on_the_same_events(trained: dict[str, Any], kind: str) -> None:
    model, data, *_ = trained[f"{kind} 2"]
    train, test = arrays(data, "train"), arrays(data, "test")
    assert np.isnan(train["x"]).mean() > 0.1
    weight = train["weight"] / data.mean_weight
    if kind == "xgboost":
        matrix = xgboost.QuantileDMatrix(train["x"], train["label"], weight=weight)
        expected = xgboost.train(model._options, matrix, 12).inplace_predict(test["x"])
    else:
        options = {**model._options, "verbosity": -1}
        expected = lightgbm.train(options, lightgbm.Dataset(train["x"], train["label"], weight=weight), 12).predict(
            test["x"]
        )
    ours, alone = (auc(score, test["label"], test["weight"]) for score in (model.native(test["x"]), expected))
    assert abs(ours - alone) < 0.005


def test_on_disk_and_in_memory_give_the_same_trees(trained: dict[str, Any]) -> None:
    x = arrays(trained["xgboost 2"][1], "test")["x"]
    np.testing.assert_allclose(trained["xgboost 2"][0].native(x), trained["in memory 2"][0].native(x), atol=1e-5)


def test_edges_of_bins_are_those_of_events_that_are_drawn(
    trained: dict[str, Any], events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xgb, "EDGES_OF", 100)
    data = make_data(events)
    model = KINDS["xgboost"](data.shapes)
    fit(model, data, tmp_path)
    test = arrays(data, "test")
    drawn, of_all = (auc(m.native(test["x"]), test["label"], test["weight"]) for m in (model, trained["xgboost 2"][0]))
    assert drawn > of_all - 0.02


def test_events_above_all_that_are_drawn_go_the_way_they_went_in_training(
    write_tree: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for number, share in enumerate((0.9, 0.1)):  # what tells the classes apart is whether there is a value
        met = np.exp(rng.normal(0, 3, 1000))
        met[rng.random(1000) < share] = np.nan
        write_tree(tmp_path / f"{number}.root", {"met": met.astype("f4"), "w": np.ones(1000)})
    monkeypatch.setattr(xgb, "EDGES_OF", 50)
    data = make_data(tmp_path, flat=["met"], jagged={})
    model, binned = KINDS["xgboost"](data.shapes), []
    monkeypatch.setattr(model, "on_fit_end", lambda: binned.append(model.fitted.predict(model._train)))
    fit(model, data, tmp_path / "training")
    asked = np.concatenate([model.native(x) for x, *_ in model.read()])
    np.testing.assert_allclose(asked, binned[0], atol=1e-6)
    assert asked.min() < 0.3 < 0.7 < asked.max()


def test_nothing_is_left_on_disk_beside_the_checkpoints(trained: dict[str, Any]) -> None:
    for *_, folder in trained.values():
        assert [path.name for path in folder.iterdir()] == ["kept"]


def test_what_is_validated_is_what_is_predicted(trained: dict[str, Any]) -> None:
    for name, (model, data, trainer, _) in trained.items():
        val = arrays(data, "val")
        score = model.native(val["x"])
        if name.endswith("2"):
            assert float(trainer.callback_metrics["val/auc"]) == pytest.approx(
                auc(score, val["label"], val["weight"]), abs=1e-5
            )
        assert float(trainer.callback_metrics["val/auc"]) > 0.7


@pytest.mark.parametrize(
    "kind", ["xgboost 2", "lightgbm 3", *(pytest.param(k, marks=pytest.mark.long) for k in ("xgboost 3", "lightgbm 2"))]
)
def test_a_bundle_gives_the_scores_of_the_library(trained: dict[str, Any], kind: str, tmp_path: Path) -> None:
    model, data, *_ = trained[kind]
    manifest = export(model, data, tmp_path / "bundle", num_events=400)
    assert manifest.parity.max_difference <= TINY
    assert [o.columns for o in manifest.outputs] == [("c1",) if kind.endswith("2") else ("c0", "c1", "c2")]
    assert manifest.features["pad"] == "nan"
    assert {model.library, "onnxmltools"} <= {name.removesuffix("-cpu") for name in manifest.software}
    # a colleague with the manifest alone: all events, those at the edges, too
    again, graph = open_bundle(tmp_path / "bundle"), (tmp_path / "bundle" / MODEL).read_bytes()
    real = real_events(data.data, data.specs, 400)
    table = concatenate([real, edge_events(real, data.data, longest=3)])
    scores = run(graph, Assembler(again)(table))
    assert np.isfinite(scores).all()
    assert again.parity.max_difference == manifest.parity.max_difference


@pytest.mark.parametrize("model", [XGBoost, LightGBM])
def test_a_graph_takes_the_branches_of_the_library_at_the_edges_of_numbers(model: Any) -> None:
    rng, largest, near = np.random.default_rng(1), np.finfo("f4").max, np.float32(0.1)
    single = np.array([near, np.nextafter(near, 1), np.nextafter(np.nextafter(near, 1), 1)], "f4")
    kinds = [
        rng.normal(size=400).astype("f4") * np.float32(1e-35),
        np.float32([1, largest]),
        np.float32([-largest, 1]),
        single,
    ]
    x = np.stack([rng.choice(values, 2000) for values in kinds], 1)
    x[rng.random(x.shape) < 0.3] = np.nan
    label = (np.isnan(x) ^ (x > [0, 1, 0, near])).sum(1) % 2
    trees = model({"x": (4,)}, threads=1)
    if model is XGBoost:
        trees._booster = xgboost.train(trees._options, xgboost.QuantileDMatrix(x, label), 20)
        assert b"Infinity" in trees.to_bytes()  # beyond the largest there is no other edge
    else:
        trees._booster = lightgbm.train({**trees._options, "min_data_in_bin": 1}, lightgbm.Dataset(x, label), 20)
    zero = np.float32([0.0, 1e-35, 1e-45, 1e-38])
    edges = [*single, *zero, largest, np.nextafter(largest, np.float32(0)), 1, np.nan]
    edges += [np.nextafter(v, np.float32(d)) for v in (*edges[:-3], 1) for d in (-1, 1)]
    events = rng.choice(np.float32([*edges, *(-np.array(edges))]), (20_000, 4))
    graph = trees.graph()
    del graph.graph.output[:-1]  # the labels
    found = run(graph.SerializeToString(), {"x": events})
    expected = trees.native(events)
    np.testing.assert_allclose(
        found.reshape(len(events), -1)[:, -1], expected.reshape(len(events), -1)[:, -1], atol=TINY
    )


def test_a_checkpoint_holds_the_trees_and_no_code(trained: dict[str, Any]) -> None:
    for model, data, trainer, folder in trained.values():
        kept = torch.load(folder / "kept" / "last.ckpt", weights_only=True)
        fresh = type(model)(data.shapes, classes=model.classes, **SMALL)
        fresh.load_state_dict(kept["state_dict"])
        x = arrays(data, "test")["x"]
        np.testing.assert_array_equal(fresh.native(x), model.native(x))
        assert int(fresh.rounds) == trainer.global_step == 12


@pytest.mark.parametrize(
    ("kind", "step", "share"),
    [
        ("xgboost", 7, 1.0),
        ("lightgbm", 7, 0.7),
        *(pytest.param(*case, marks=pytest.mark.long) for case in [("xgboost", 4, 0.7), ("in memory", 8, 1.0)]),
    ],
)
def test_a_training_that_goes_on_ends_with_the_trees_of_an_unbroken_one(
    kind: str, step: int, share: float, events: Path, tmp_path: Path
) -> None:
    """Between two epochs, and within one."""
    params = {"subsample": share, **({"bagging_freq": 1} if kind == "lightgbm" else {})}
    data = make_data(events)
    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1,
                           save_on_train_epoch_end=False)  # fmt: skip
    whole, resumed = (KINDS[kind](data.shapes, params=params) for _ in range(2))
    fit(whole, data, tmp_path / "whole", callbacks=(keep,))
    trainer = fit(resumed, make_data(events), tmp_path / "resumed", ckpt_path=tmp_path / f"step={step}.ckpt")
    x = arrays(data, "test")["x"]
    assert (trainer.global_step, int(resumed.rounds), trainer.current_epoch) == (12, 12, 3)
    np.testing.assert_array_equal(resumed.native(x), whole.native(x))


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_one_of_shorter_epochs_goes_on_likewise(kind: str, events: Path, tmp_path: Path) -> None:
    data = make_data(events)
    whole, stopped, resumed = (KINDS[kind](data.shapes) for _ in range(3))
    fit(whole, data, tmp_path / "whole", limit=2)
    fit(stopped, make_data(events), tmp_path / "stopped", limit=2, epochs=2)
    last = tmp_path / "stopped" / "kept" / "last.ckpt"
    trainer = fit(resumed, make_data(events), tmp_path / "resumed", limit=2, ckpt_path=last)
    x = arrays(data, "test")["x"]
    assert trainer.global_step == int(resumed.rounds) == 6
    np.testing.assert_array_equal(resumed.native(x), whole.native(x))


def test_seeds_decide(make: Any, events: Path, tmp_path: Path) -> None:
    data = make_data(events)
    x, found = arrays(data, "test")["x"], []
    for number, seed in enumerate((1, 1, 2)):
        model = make(
            data.shapes,
            seed=seed,
            params={"subsample": 0.5, **({"bagging_freq": 1} if make is KINDS["lightgbm"] else {})},
        )
        fit(model, make_data(events), tmp_path / str(number), epochs=1)
        found.append(model.native(x))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


# What is refused


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("xgboost", {"params": {"dept": 3}}, r"xgboost refuses its options: Parameters: \{ \"dept\" \} are not used"),
        ("xgboost", {"params": {"tree_method": "no"}}, "Invalid|tree_method"),
        ("xgboost", {"depth": -3}, "depth"),
        ("lightgbm", {"params": {"leafs": 3}}, "lightgbm refuses its options: Unknown parameter: leafs"),
        ("lightgbm", {"leaves": 1}, "num_leaves"),
        ("lightgbm", {"params": {"objective": "regression"}}, "lightgbm gives no probabilities of classes with these"),
        ("lightgbm", {"params": {"sigmoid": 2.0}}, "lightgbm gives no probabilities of classes with these"),
        ("lightgbm", {"classes": 3, "params": {"objective": "multiclassova"}}, "gives no probabilities of classes"),
        ("xgboost", {"params": {"objective": "binary:logitraw"}}, "xgboost gives no probabilities of classes with"),
        ("xgboost", {"params": {"objective": "reg:squarederror"}}, "xgboost gives no probabilities of classes with"),
        ("lightgbm", {"trees": 0}, "model.trees: got 0"),
    ],
)
def test_wrong_options_are_refused_as_the_model_is_made(
    kind: str, options: dict[str, Any], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=told):
        (XGBoost if kind == "xgboost" else LightGBM)({"x": (4,), "mask": (4,)}, **{"threads": 1, **options})


def test_a_strategy_of_several_processes_is_refused_also_for_one(make: Any, events: Path, tmp_path: Path) -> None:
    model, quiet = make(make_data(events).shapes), {"logger": False, "enable_progress_bar": False}
    model.trainer = pl.Trainer(
        accelerator="cpu", strategy="ddp", devices=1, max_epochs=1, default_root_dir=tmp_path, **quiet
    )
    with pytest.raises(ConfigError, match=r"trainer\.strategy: got DDPStrategy, 1 processes; .* set trainer=cpu"):
        model.setup("fit")


def test_targets_are_for_networks(events: Path, tmp_path: Path) -> None:
    data = make_data(events, flat=["met", "n"], targets={"mass": "where(isnan(mass), 0, mass)"})
    with pytest.raises(ConfigError, match=r"targets: got mass; XGBoost learns classes, no numbers; .* model=dnn"):
        fit(XGBoost(data.shapes, **SMALL), data, tmp_path, epochs=1)


def test_another_layout_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="needs a batch with one row 'x' per event: got 'flat', 'jets'"):
        make({"flat": (4,), "jets": (3, 2)})


def test_a_library_that_is_not_installed_is_named(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    known = importlib.util.find_spec
    absent = {"xgboost", "lightgbm"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else known(name))
    with pytest.raises(ConfigError, match=r"not installed; pip install 'rootdata\[trees\]' brings it"):
        make({"x": (4,)})


@pytest.mark.long
def test_the_export_is_rehearsed(make: Any, events: Path) -> None:
    data = make_data(events)
    model = make(data.shapes)
    rehearse(model, data)
    assert not int(model.rounds)
    assert model.raw(np.zeros((1, model.n_inputs), np.float32)) is None


def test_what_can_not_be_exported_is_refused_before_the_training(
    make: Any, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(events)
    model = make(data.shapes)
    with pytest.raises(BundleError, match="has not been trained"):
        export(model, data, "nowhere")
    monkeypatch.setitem(sys.modules, "onnxmltools", None)
    with pytest.raises(BundleError, match="onnxmltools, which writes the ONNX graph, is not installed"):
        rehearse(model, data)


@pytest.mark.parametrize(
    ("kind", "params", "told"),
    [
        (XGBoost, {"booster": "dart"}, "XGBoost with booster=dart is not written"),
        (XGBoost, {"num_parallel_tree": 2}, "XGBoost with num_parallel_tree is not written"),
        (XGBoost, {"multi_strategy": "multi_output_tree"}, "XGBoost can't be written as an ONNX graph by onnxmltools"),
        (LightGBM, {"cat_feature": "0"}, "LightGBM with categorical_feature is not written"),
        (LightGBM, {"linear_tree": True}, "LightGBM with linear_tree is not written"),
        (LightGBM, {"zero_as_missing": True}, "LightGBM with zero_as_missing is not written"),
        (
            LightGBM,
            {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
            "LightGBM with boosting=rf is not written",
        ),
    ],
)
def test_trees_that_the_converter_writes_wrongly_or_not_at_all_are_refused_as_it_is_rehearsed(
    kind: Any, params: dict[str, Any], told: str
) -> None:
    with pytest.raises(BundleError, match=told):
        kind({"x": (4,)}, classes=3, threads=1, params=params).rehearsed_model()


def test_another_number_of_bins_is_an_option_of_the_library(make: Any) -> None:
    assert make({"x": (4,)}, params={"max_bin": 16}).rehearsed_model()


def test_negative_weights_are_for_lightgbm(events: Path, tmp_path: Path) -> None:
    data = make_data(events, weight="w - 0.7")
    with pytest.raises(DataError, match=r"class 'c0' has training events of negative weight, and XGBoost takes none"):
        fit(XGBoost(data.shapes, **SMALL), data, tmp_path)
    fit(LightGBM(data.shapes, **SMALL), make_data(events, weight="w - 0.7"), tmp_path, epochs=1)


def test_what_a_network_would_compute_with_nan_is_refused(events: Path, tmp_path: Path) -> None:
    from rootdata.models import DNN

    data = make_data(events)
    with pytest.raises(ConfigError, match=r"pad: got nan, and DNN would compute NaN from it; .* data\.pad=0"):
        fit(DNN(data.shapes), data, tmp_path)  # type: ignore[arg-type]
