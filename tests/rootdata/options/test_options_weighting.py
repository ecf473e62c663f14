"""Options of weights: each arrives as it was given, and what can't be meant is refused by a sentence that names it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rootdata.errors import ConfigError, RootDataError
from rootdata.options.data import parse_data
from rootdata.options.parsed import Options, described
from rootdata.options.typed import names_of
from rootdata.options.weighting import OF_RUNS, Reweight, WeightSource, reweight, weight_source

SAMPLE = {"files": "a.root", "cross_section": 2}
PLAIN: dict[str, Any] = {"samples": {"a": SAMPLE, "b": {"files": "b.root", "cross_section": 3.5}}, "flat": ["met"]}


def parsed(**changes: Any) -> Any:
    return parse_data({**PLAIN, "luminosity": 10, **changes})


def test_each_arrives_where_it_belongs() -> None:
    own = {"files": "a.root", "cross_section": 2, "luminosity": 3, "sum_of_weights": 100}
    config = parsed(
        samples={"a": own, "b": {"files": "b", "cross_section": 4.0}, "c": {"files": "c", "cross_section": "data"}},
        sum_of_weights={"histogram": "cuts", "bin": "all"}, weights={"nominal": "w", "up": 2, "down": "w / 2"},
        balance="samples",
    )  # fmt: skip
    a, b, c = config.samples
    assert [config.luminosity_of(s) for s in (a, b)] == [3.0, 10.0]
    assert config.source_of(a) == WeightSource(number=100.0)
    assert config.source_of(b) == WeightSource(histogram="cuts", bin="all")
    assert config.source_of(c) is None
    assert (config.weight, dict(config.variations), config.balance) == ("w", {"up": 2.0, "down": "w / 2"}, "samples")
    assert config.carried == ("variations/up", "variations/down")
    assert parsed().source_of(parsed().samples[0]) == OF_RUNS
    assert parsed(weights={"nominal": 3}).variations == {}
    assert parsed(weights={"up": 3}, weight="w").weight == "w"


@pytest.mark.parametrize(
    "given",
    [
        {"variables": ["met"], "bins": [4]},
        {"variables": "met", "bins": 4},
        {"variables": ["met", "ht"], "bins": [[0, 1, 5.5], 3], "to": "signal", "cap": 1, "by": "resample"},
        {"variables": ["a", "b", "c"], "bins": [2, 3, [1, 2]], "to": "b", "cap": None},
    ],
)
def test_what_was_parsed_is_parsed_to_the_same(given: dict[str, Any]) -> None:
    config = parsed(reweight=given)
    found = config.reweight
    assert isinstance(found, Reweight)
    assert reweight(found, "reweight") == found
    assert len(found.bins) == len(found.variables)
    again = {name: getattr(config, name) for name in names_of(type(config))}
    again["samples"] = {s.name: s for s in config.samples}
    again |= {kind: {one.name: one for one in again[kind]} for kind in ("jagged", "targets", "observers")}
    assert parse_data({name: value for name, value in again.items() if value is not None}) == config
    assert described(config, "specs")["reweight"] == described(dataclasses.replace(config), "specs")["reweight"]
    assert not {"reweight", "luminosity", "weight", "balance"} & described(config, "inputs").keys()


@pytest.mark.parametrize(
    "given",
    [
        5,
        {"tree": "Runs", "branch": "sumw"},
        {"histogram": "cuts"},
        {"histogram": "cuts", "bin": 3},
        {"events": "w * 2"},
    ],
)
def test_a_source_is_parsed_to_the_same_and_says_what_it_is(given: Any) -> None:
    found = weight_source(given, "sum_of_weights")
    assert found is not None
    assert weight_source(found, "sum_of_weights") == found
    words = [given] if isinstance(given, int) else [v for v in given.values() if v != "w * 2"]
    assert all(str(word) in str(found) for word in words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"luminosity": 0}, "luminosity: got 0; expected a number above 0"),
        ({"luminosity": None}, "samples.a.cross_section is given, but no luminosity; give luminosity in fb^-1"),
        ({"samples": {"a": "a.root"}}, "luminosity is given, but no sample has a cross_section; give each its own, in"),
        (
            {"samples": {"a": {"files": "a", "sum_of_weights": 3}}, "luminosity": None},
            "samples.a.sum_of_weights is given, but no cross_section; give samples.a.cross_section in pb",
        ),
        ({"samples": {"a": SAMPLE, "b": "b.root"}}, "samples.b.cross_section is missing while other samples have one;"),
        ({"samples": {"a": {**SAMPLE, "cross_section": -1}}}, "samples.a.cross_section: got -1; expected a number"),
        ({"samples": {"a": {**SAMPLE, "cross_section": "2 pb"}}}, "got '2 pb'; expected a number of pb, or 'data' for"),
        ({"sum_of_weights": "Runs"}, "sum_of_weights: got 'Runs'; expected a number, {tree: Runs, branch:"),
        ({"sum_of_weights": {"tree": "Runs"}}, "sum_of_weights: got {'tree': 'Runs'}; expected a number, {tree: Runs"),
        ({"sum_of_weights": {"events": "w +"}}, "sum_of_weights.events: not an expression"),
        ({"sum_of_weights": {"histogram": "a", "bin": -1}}, "sum_of_weights.bin: got -1; expected 0 or more"),
        ({"sum_of_weights": {"trees": "Runs"}}, "unknown option 'trees' in sum_of_weights; nearest: 'tree'"),
        ({"balance": "class"}, "balance: got 'class'; allowed: 'classes', 'samples'; nearest: 'classes'"),
        ({"balance": "samples", "mix": {"a": 1, "b": 2}}, "balance: got 'samples' beside a mix by a, b, which decides"),
        ({"weights": {"nominal": "w"}, "weight": 2}, "weights.nominal: got 'w' beside weight=2.0, which is the same;"),
        ({"weights": {"up": None}}, "weights.up: got nothing; expected a name, and an expression or a number"),
        ({"weights": ["up"]}, "weights: got ['up']; expected a mapping such as"),
        ({"reweight": "met"}, "reweight: got 'met'; expected a mapping such as"),
        ({"reweight": {"variables": ["met"]}}, "reweight.bins is missing; give the variables, and the bins of each"),
        ({"reweight": {"variables": list("abcd"), "bins": [1] * 4}}, "reweight.variables: got 4; expected one to 3"),
        ({"reweight": {"variables": ["a"], "bins": [1, 2]}}, "reweight.bins: got 2 for 1 variables; give one entry"),
        ({"reweight": {"variables": ["a"], "bins": [[2, 2]]}}, "reweight.bins[0]: got [2.0, 2.0]; expected two or"),
        ({"reweight": {"variables": ["a"], "bins": [0]}}, "reweight.bins[0]: got 0; expected a whole number of at"),
        ({"reweight": {"variables": ["a", "b"], "bins": [999, 999]}}, "reweight.bins: got 998,001 in all; expected"),
        ({"reweight": {"variables": ["a"], "bins": [1], "cap": 0.9}}, "reweight.cap: got 0.9; expected the largest"),
        ({"reweight": {"variables": ["a"], "bins": [1], "to": "c"}}, "reweight.to: got 'c'; expected 'flat', or the"),
        ({"reweight": {"variables": ["a"], "bins": [1], "by": "sample"}}, "reweight.by: got 'sample'; allowed:"),
        ({"reweight": {"variables": ["a"], "bins": [1], "caps": 1}}, "unknown option 'caps' in reweight; nearest:"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused(changes: dict[str, Any], words: str) -> None:
    plain = {name: value for name, value in {**PLAIN, "luminosity": 10, **changes}.items() if value is not None}
    with pytest.raises(RootDataError) as caught:
        Options.parse(plain, where="the options")
    assert words in str(caught.value)
    assert isinstance(caught.value, ConfigError) or "expression" in words
