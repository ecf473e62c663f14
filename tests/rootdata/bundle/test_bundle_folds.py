"""Which of several networks in one module scores an event."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rootdata.bundle import cmssw
from rootdata.bundle.folds import DeployedFolds
from rootdata.bundle.manifest import EVENTS, FoldRule, Manifest, OutputSpec, TensorSpec
from rootdata.bundle.signature import fold_rule, with_fold
from rootdata.options.data import parse_data


class Plus(nn.Module):
    """Adds its own number to the events, in two outputs."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.number, torch.cat([x, -x], dim=1) * (1 + self.number)

    def scores(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.cat(self(batch["x"]), dim=1)


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
    assert torch.equal(whole.scores([{"x": x}] * count, fold), torch.cat([one, two], dim=1))


def test_without_an_input_it_is_the_mean() -> None:
    whole = DeployedFolds(members(3), chooses=False)  # type: ignore[arg-type]
    x = torch.ones(2, 1)
    assert whole(x)[0] == pytest.approx(1 + 37.0)
    assert whole.scores([{"x": x}] * 3, None)[:, 0] == pytest.approx(1 + 37.0)


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
