"""Which of several models in one graph scores an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundles_for_tests import make_data
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rootdata.bundle import cmssw
from rootdata.bundle.assemble import Assembler
from rootdata.bundle.export import export
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.graph.folds import DeployedFolds
from rootdata.bundle.manifest import EVENTS, MODEL, FoldRule, Manifest, OutputSpec, TensorSpec, open_bundle
from rootdata.bundle.parity import edge_events, real_events, training_batch
from rootdata.bundle.signature import fold_rule, with_fold
from rootdata.errors import BundleError
from rootdata.events.needs import feature_branches
from rootdata.models.estimators.lgbm import LightGBM
from rootdata.models.estimators.scikit import Sklearn
from rootdata.models.estimators.xgb import XGBoost
from rootdata.options.data import parse_data
from rootdata.table import Table, concatenate

COUNT, TINY = 3, 2e-6


class Plus(nn.Module):
    """Adds its own number to the events, in two outputs."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.number, torch.cat([x, -x], dim=1) * (1 + self.number)


def members(count: int) -> list[Plus]:
    return [Plus(10.0**n) for n in range(count)]


folds = st.one_of(st.integers(0, 2**53).map(float), st.sampled_from([np.nan, np.inf, -np.inf, -1.0, -1e9]))


@given(st.integers(3, 7), st.lists(folds, min_size=1, max_size=20))
def test_an_event_gets_the_network_of_its_fold_or_the_mean(count: int, numbers: list[float]) -> None:
    whole = DeployedFolds(members(count), chooses=True)  # type: ignore[arg-type]
    x, fold = (
        torch.arange(len(numbers), dtype=torch.float32).reshape(-1, 1),
        torch.tensor(numbers, dtype=torch.float64).reshape(-1, 1),
    )
    one, two = whole(x, fold)
    each = torch.stack([torch.cat(member(x), dim=1) for member in members(count)])
    for row, number in enumerate(numbers):
        is_known = np.isfinite(number) and number >= 0
        expected = each[int(number) % count, row] if is_known else each[:, row].mean(dim=0)
        assert torch.equal(torch.cat([one, two], dim=1)[row], expected), number


def test_without_an_input_it_is_the_mean() -> None:
    whole = DeployedFolds(members(3), chooses=False)  # type: ignore[arg-type]
    x = torch.ones(2, 1)
    assert whole(x)[0] == pytest.approx(1 + 37.0)


def config_of(by: str | None, **changes: object) -> object:
    plain = {"samples": {"a": "a.root"}, "flat": ["met"], "folds": {"count": 3, "by": by}, "fold": 0, **changes}
    return parse_data(plain)


def test_the_number_of_the_fold_is_a_feature_with_a_name_of_its_own() -> None:
    config = config_of("event")
    rule = fold_rule(config)
    assert rule == FoldRule(count=3, by="event", rule="expression", feature="fold")
    assert with_fold(config, rule).flat == ("met", "fold")
    assert with_fold(config, rule).derived == {"fold": "(event) % 3"}
    taken = config_of("fold", flat=["met", "fold_"])
    assert fold_rule(taken).feature == "fold__"
    assert fold_rule(config_of(None)) == fold_rule(config_of(None), average=True) == FoldRule(count=3)
    assert fold_rule(config, average=True) == FoldRule(count=3, by="event")
    assert with_fold(config, fold_rule(config, average=True)) is config
    assert fold_rule(parse_data({"samples": {"a": "a.root"}, "flat": ["met"]})) is None


def manifest_of(rule: FoldRule | None) -> Manifest:
    inputs = [TensorSpec(name=name, dtype="float32", shape=(EVENTS, 1), features=(name,)) for name in ("flat", "fold")]
    outputs = (OutputSpec(name="scores", dtype="float32", shape=(EVENTS, 1), columns=("signal",)),)
    return Manifest(
        sha256="", size=0, inputs=tuple(inputs), outputs=outputs, features={"flat": ["flat", "fold"]}, folds=rule
    )


def test_a_manifest_says_it_and_one_without_folds_says_nothing() -> None:
    rule = FoldRule(count=3, by="event", rule="expression", feature="fold")
    assert Manifest.from_dict(manifest_of(rule).to_dict()) == manifest_of(rule)
    assert "folds" not in manifest_of(None).to_dict()


def test_cmssw_puts_in_a_number_of_no_fold_where_there_is_none() -> None:
    told = cmssw.preprocessing(manifest_of(FoldRule(count=3, by="event", rule="expression", feature="fold")))
    replaced = {name: told[name]["var_infos"][name]["replace_inf_value"] for name in ("flat", "fold")}
    assert replaced == {"flat": 0.0, "fold": -1.0}


# Events at the edges: the first ones that are bent are mostly of one fold


class PerValue(nn.Module):
    """Gives nothing for an event without the first feature, 0 or, where it is not guarded, 0 / 0."""

    def __init__(self, width: int, *, is_guarded: bool) -> None:
        super().__init__()
        self.linear, self.is_guarded = nn.Linear(width, 1), is_guarded

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        count = mask[:, :1].float()
        return self.linear(x) * count / (count.clamp(min=1) if self.is_guarded else count)


@pytest.mark.parametrize("spoilt", range(3))
def test_each_network_is_tried_at_the_edges(samples: Path, tmp_path: Path, spoilt: int) -> None:
    modules = data_of_folds(samples)
    networks = [PerValue(data.shapes["x"][0], is_guarded=fold != spoilt) for fold, data in enumerate(modules)]
    with pytest.raises(BundleError, match=r"NaN or infinity for 12 of 90 real events and 24 of 56 at the edges"):
        export(networks, modules, tmp_path / "bundle", num_events=90)


# Models that have graphs of their own


JETS = {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}}


def data_of_folds(samples: Path, by: str | None = "id", jagged: Any = None) -> list[Any]:
    return [
        make_data(samples, layout="vector", derived=None, flat=["met", "cov"], scale="standard", split=None,
                  jagged=jagged, folds={"count": COUNT, "by": by}, fold=fold)
        for fold in range(COUNT)
    ]  # fmt: skip


def histogram(shapes: Any) -> Sklearn:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="needs scikit-learn")
    return Sklearn(shapes, estimator=ensemble.HistGradientBoostingClassifier(max_iter=3))


KINDS = {
    "xgboost": lambda shapes: XGBoost(shapes, threads=1),
    "lightgbm": lambda shapes: LightGBM(shapes, threads=1),
    "sklearn": histogram,
}


def learnt(kind: str, data: Any) -> Any:
    """Let a model learn from some training events of its fold."""
    pytest.importorskip(kind, reason=f"needs {kind}")
    model, batch = KINDS[kind](data.shapes), next(iter(data.train_dataloader()))
    model.try_on(batch["x"].numpy(), batch["label"].numpy())
    model.rounds.add_(1)
    return model


def events_to_score(modules: list[Any], rule: FoldRule) -> Table:
    """Read test events of each fold, and bend some of each."""
    served = with_fold(modules[0].data, rule)
    real = [real_events(data.data, data.specs, 60, feature_branches(served)) for data in modules]
    return concatenate([*real, *(edge_events(one, served, longest=3) for one in real)])


def given_by_each(models: list[Any], modules: list[Any], table: Table) -> Any:
    """Ask the models themselves, (folds, events) for label 1."""
    batches = [training_batch(data.data, data.specs, table) for data in modules]
    found = [model.native_of(batch) for model, batch in zip(models, batches, strict=True)]
    return np.stack([one if one.ndim == 1 else one[:, 1] for one in found])


@pytest.mark.parametrize(
    ("kind", "jagged"),
    [("xgboost", None), *(pytest.param(kind, JETS, marks=pytest.mark.long) for kind in ("lightgbm", "sklearn"))],
)
def test_trees_of_all_folds_are_one_graph(samples: Path, tmp_path: Path, kind: str, jagged: Any) -> None:
    modules = data_of_folds(samples, jagged=jagged)
    models = [learnt(kind, data) for data in modules]
    manifest = export(models, modules, tmp_path / "bundle", num_events=90)
    assert manifest.parity.max_difference <= TINY
    assert manifest.folds.feature == "fold"
    assert len({scaling["met"].shift for scaling in manifest.folds.scaling}) == COUNT
    graph = (tmp_path / "bundle" / MODEL).read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(graph), full_check=True)
    table = events_to_score(modules, manifest.folds)
    each, n = given_by_each(models, modules, table), table.num_events
    assert np.abs(each[0] - each[1]).max() > 100 * TINY  # it is seen whose score it is
    tensors = Assembler(open_bundle(tmp_path / "bundle"))(table)
    fold = tensors["fold"][:, 0]
    assert {*fold[np.isfinite(fold)]} == {*range(COUNT)}
    assert np.isnan(fold).any()
    of_events = np.where(np.isnan(fold), each.mean(0), each[np.nan_to_num(fold).astype(int), np.arange(n)])
    np.testing.assert_allclose(run(graph, tensors)[:, 0], of_events, rtol=0, atol=TINY)
    forced = [(number, each[number % COUNT]) for number in range(COUNT + 2)]
    forced += [(number, each.mean(0)) for number in (np.nan, np.inf, -np.inf, -1)]
    for number, expected in forced:
        found = run(graph, {**tensors, "fold": np.full((n, 1), number, fold.dtype)})
        np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=TINY, err_msg=str(number))


@pytest.mark.long
@pytest.mark.parametrize(("by", "average"), [(None, False), ("id", True)])
def test_trees_of_folds_that_no_graph_can_know_give_the_mean(
    samples: Path, tmp_path: Path, by: str | None, average: bool
) -> None:
    modules = data_of_folds(samples, by)
    models = [learnt("xgboost", data) for data in modules]
    manifest = export(models, modules, tmp_path / "bundle", num_events=90, average=average)
    assert (manifest.folds.rule, manifest.folds.feature) == ("average", "")
    table = events_to_score(modules, manifest.folds)
    tensors = Assembler(open_bundle(tmp_path / "bundle"))(table)
    found = run((tmp_path / "bundle" / MODEL).read_bytes(), tensors)[:, 0]
    np.testing.assert_allclose(found, given_by_each(models, modules, table).mean(0), rtol=0, atol=TINY)


def test_networks_and_trees_are_no_bundle_together(samples: Path, tmp_path: Path) -> None:
    modules = data_of_folds(samples)
    models = [*(learnt("xgboost", data) for data in modules[:2]), nn.Linear(modules[2].shapes["x"][0], 1)]
    with pytest.raises(BundleError, match="give the same kind for all folds"):
        export(models, modules, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
