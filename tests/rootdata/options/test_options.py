import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rootdata.errors import ConfigError, ExpressionError
from rootdata.missing import mask_sentinels
from rootdata.options.columns import Collection, Scaling
from rootdata.options.data import DataConfig, parse_data
from rootdata.options.order import OrderConfig, parse_order
from rootdata.options.parsed import described
from rootdata.options.parts import Split
from rootdata.options.read import CacheConfig, parse_read
from rootdata.options.samples import Sample

SMALLEST = {"samples": {"all": {"files": "a.root"}}, "flat": ["met"]}


def with_options(**changes):
    return parse_data({**SMALLEST, **changes})


def in_sample(**changes):
    return parse_data({**SMALLEST, "samples": {"all": {"files": "a.root", **changes}}})


def in_collection(**changes):
    return parse_data({**SMALLEST, "jagged": {"jets": {"branches": ["Jet_pt"], **changes}}})


def test_defaults_are_the_documented_ones():
    config = with_options()
    assert config.samples == (Sample(name="all", files=("a.root",)),)
    assert config.classes == ("background", "signal")
    assert (config.layout, config.pad, config.fraction, config.missing) == ("vector", 0.0, 1.0, ())
    assert config.split == Split(by="hash", train=0.64, val=0.16, test=0.2)
    assert config.scaling_of("met") == Scaling(kind="standard")
    assert parse_order({}, samples=["all"]) == OrderConfig(
        mix="sample", batch_size=1024, chunk_size=100_000, shuffle=True, seed=42, drop_last=False
    )


def test_every_option_arrives_where_it_belongs():
    config = parse_data(
        {
            "samples": {
                "ttH": {"files": ["a.root", Path("b")], "tree": "Events", "label": 1, "cut": "met > 1", "weight": 2},
                "QCD": {"files": "c.root", "label": 0, "weight": "genWeight"},
            },
            "flat": ["met", "ht"],
            "jagged": {"jets": {"branches": ["Jet_pt"], "length": 10, "sort": "-Jet_pt", "cut": "Jet_pt > 30"}},
            "derived": {"ht": "sum(Jet_pt)"},
            "cut": "nJet >= 6",
            "weight": 0.5,
            "classes": ["QCD", "ttH"],
            "layout": "tokens",
            "scale": {"default": "minmax", "met": "log", "ht": {"shift": 1, "factor": 2}, "Jet_pt": None},
            "missing": [-999, -99.0],
            "pad": -1,
            "fraction": 0.5,
            "split": {"by": "event % 5", "val": [3], "test": 4},
        }
    )
    assert config.samples == (
        Sample(name="ttH", files=("a.root", "b"), tree="Events", label=1, cut="met > 1", weight=2.0),
        Sample(name="QCD", files=("c.root",), label=0, weight="genWeight"),
    )
    assert config.jagged == (
        Collection(name="jets", branches=("Jet_pt",), length=10, sort="-Jet_pt", cut="Jet_pt > 30"),
    )
    assert config.features == ("met", "ht", "Jet_pt")
    assert {f: config.scaling_of(f) for f in ("met", "ht", "Jet_pt", "other")} == {
        "met": Scaling(kind="log"),
        "ht": Scaling(kind="given", shift=1.0, factor=2.0),
        "Jet_pt": Scaling(kind="none"),
        "other": Scaling(kind="minmax"),
    }
    assert config.split == Split(by="event % 5", train=None, val=(3,), test=(4,))
    assert (config.missing, config.pad, config.fraction, config.weight) == ((-999.0, -99.0), -1.0, 0.5, 0.5)
    assert (config.cut, config.derived, config.classes) == ("nJet >= 6", {"ht": "sum(Jet_pt)"}, ("QCD", "ttH"))


def test_short_forms_mean_the_long_ones():
    short = parse_data({"samples": {"all": "a.root"}, "flat": "met", "jagged": {"jets": ["Jet_pt"]}, "missing": -999})
    long = parse_data(
        {
            "samples": {"all": {"files": ["a.root"]}},
            "flat": ["met"],
            "jagged": {"jets": {"branches": ["Jet_pt"], "length": "auto"}},
            "missing": [-999.0],
        }
    )
    assert short == long


def test_a_parsed_configuration_can_be_taken_apart_and_parsed_again():
    config = in_collection(length=3, sort="-Jet_pt")
    again = parse_data(
        {
            "samples": {s.name: s for s in config.samples},
            "flat": config.flat,
            "jagged": {c.name: c for c in config.jagged},
            "scale": config.scale,
            "split": config.split,
        }
    )
    assert again == config


def test_yaml_containers_are_as_good_as_plain_ones():
    plain = {
        "samples": {"ttH": {"files": ["a.root"], "label": 1}, "QCD": {"files": ["b.root"], "label": 0}},
        "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt"], "length": 3}},
        "scale": {"met": "log"},
        "split": {"train": 0.5, "val": 0.5},
    }
    assert parse_data(OmegaConf.create(plain)) == parse_data(plain)
    mix = OmegaConf.create({"ttH": 1.0, "QCD": 2.0})
    assert parse_order({"mix": mix}, samples=["ttH", "QCD"]).mix == {"ttH": 1.0, "QCD": 2.0}


def test_a_configuration_can_not_be_changed():
    config = with_options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.cut = "met > 1"


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"train": 0.5, "val": 0.5}, Split(by="hash", train=0.5, val=0.5, test=0.0)),
        ({"train": 1}, Split(by="hash", train=1.0, val=0.0, test=0.0)),
        ({"by": "entries", "train": 0.1, "test": 0.9}, Split(by="entries", train=0.1, val=0.0, test=0.9)),
        ({"train": "*A.root", "test": ["b", "c"]}, Split(by="files", train=("*A.root",), val=(), test=("b", "c"))),
        ({"by": "event % 4", "train": [0, 1], "val": 2}, Split(by="event % 4", train=(0, 1), val=(2,), test=())),
        ({"by": "event % 4", "val": [3], "test": [1]}, Split(by="event % 4", train=None, val=(3,), test=(1,))),
        ({"by": "event % 4", "test": [1]}, Split(by="event % 4", train=None, val=(), test=(1,))),
    ],
)
def test_splits(split, expected):
    assert with_options(split=split).split == expected


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any))
def test_shares_of_any_whole_numbers_are_accepted(parts):
    shares = [p / math.fsum(parts) for p in parts]
    split = with_options(split=dict(zip(("train", "val", "test"), shares, strict=True))).split
    assert [split.train, split.val, split.test] == shares


@pytest.mark.parametrize("level", ["data", "order", "sample", "collection", "scaling", "split", "scale"])
def test_a_misspelt_option_is_named_with_the_nearest_one(level):
    wrong = {
        "data": lambda: with_options(flatt=["x"]),
        "order": lambda: parse_order({"batchsize": 3}, samples=["all"]),
        "sample": lambda: in_sample(lable=1),
        "collection": lambda: in_collection(lenght=3),
        "scaling": lambda: with_options(scale={"met": {"shift": 1, "faktor": 2}}),
        "split": lambda: with_options(split={"trian": 1.0}),
        "scale": lambda: with_options(scale={"mett": "log"}),
    }
    message = {
        "data": "unknown option 'flatt' in the data options; nearest: 'flat'",
        "order": "unknown option 'batchsize' in the order options; nearest: 'batch_size'",
        "sample": "unknown option 'lable' in samples.all; nearest: 'label'",
        "collection": "unknown option 'lenght' in jagged.jets; nearest: 'length'",
        "scaling": "unknown option 'faktor' in scale.met; nearest: 'factor'",
        "split": "unknown option 'trian' in split; nearest: 'train'",
        "scale": "unknown option 'mett' in scale; nearest: 'met'",
    }
    with pytest.raises(ConfigError) as caught:
        wrong[level]()
    assert str(caught.value).startswith(message[level])


# option, values of a wrong type or out of range, what the message must name
REFUSED = [
    ("samples", [None, {}, [], "a.root", 5, True], "samples"),
    ("flat", [5, [5], [None], True, [["met"]], {"met": 1}, ["met", "met"]], "flat"),
    ("jagged", [["Jet_pt"], "Jet_pt", 5, True], "jagged"),
    ("derived", ["sum(x)", ["a"], {"a": 5}, {"a": None}, {"a": True}, 5], "derived"),
    ("cut", [5, True, ["met > 1"], {"met": 1}, 1.5], "cut"),
    ("label", [1, True, ["label"], 0.5], "label"),
    ("weight", [True, ["w"], {"w": 1}, math.nan, math.inf], "weight"),
    ("classes", ["signal", ["signal"], ["a", "a"], [], 2, {"a": 1}], "classes"),
    ("layout", ["vectr", 5, None, True, ["vector"]], "layout"),
    ("scale", ["standart", 5, True, ["standard"], {"met": 5}, {"met": True}, {"met": {"factor": 0}}], "scale"),
    ("scale", [{"met": {"shift": "1"}}, {"met": {"factor": math.nan}}, {"met": ["log"]}], "scale.met"),
    ("missing", ["-999", ["x"], [True], [math.nan], [None], {"a": "x"}], "missing"),
    ("pad", ["0", True, None, math.inf, [0], {"met": math.inf}], "pad"),
    ("fraction", [0, -0.1, 1.01, True, "0.5", None, math.nan, [0.5]], "fraction"),
    ("split", [0.8, "hash", [0.8, 0.2], True, {}], "split"),
    ("split", [{"train": 0.5}, {"train": 0.7, "val": 0.7}, {"train": 1.5, "val": -0.5}, {"train": True}], "split"),
    ("split", [{"train": math.nan}, {"by": 5}, {"by": ["event % 5"]}, {"by": True}, {"by": {"a": 1}}], "split"),
    ("split", [{"by": "event % 5", "val": [0.5]}, {"by": "e", "val": True}, {"by": "e", "val": ["3"]}], "split"),
    ("split", [{"by": "event % 5", "val": [3], "test": [3]}, {"by": "event % 5", "val": {"a": 1}}], "split"),
    ("split", [{"by": "hash", "train": "0.8", "test": "0.2"}, {"by": "entries", "train": [0.5], "test": 0.5}], "split"),
]


@pytest.mark.parametrize(
    ("option", "value", "named"), [(option, v, named) for option, values, named in REFUSED for v in values]
)
def test_wrong_types_and_ranges_are_refused_by_name(option, value, named):
    with pytest.raises(ConfigError) as caught:
        with_options(**{option: value})
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("files", v) for v in (None, [], 5, True, [5], {"a": 1}, [None])],
        *[("tree", v) for v in (5, True, ["Events"])],
        *[("label", v) for v in (-1, 2, "1", True, 0.5, 1.0, [1])],
        *[("cut", v) for v in (5, True, ["a > 1"])],
        *[("weight", v) for v in (True, [1], math.nan)],
    ],
)
def test_wrong_options_of_a_sample_are_refused_by_name(option, value):
    with pytest.raises(ConfigError) as caught:
        in_sample(**{option: value})
    assert f"samples.all.{option}" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("branches", v) for v in (None, [], 5, [5], ["Jet_pt", "Jet_pt"], {"a": 1})],
        *[("length", v) for v in (0, -1, 1.5, 3.0, True, "3", "automatic", None, [3])],
        *[("sort", v) for v in (5, True, ["-Jet_pt"])],
        *[("cut", v) for v in (5, True, ["a > 1"])],
    ],
)
def test_wrong_options_of_a_collection_are_refused_by_name(option, value):
    with pytest.raises(ConfigError) as caught:
        in_collection(**{option: value})
    assert f"jagged.jets.{option}" in str(caught.value)


@pytest.mark.parametrize("name", ["x", "flat", "label", "weight", "index", "mask", "a_mask", "a b", "1jets", "a-b", ""])
def test_a_collection_can_not_take_a_key_of_the_batch(name):
    with pytest.raises(ConfigError, match="becomes a key of the batch"):
        with_options(jagged={name: ["Jet_pt"]})


@pytest.mark.parametrize(
    "changes",
    [
        {"jagged": {"jets": Collection(name="jets", branches=("Jet_pt",), length=0)}},
        {"jagged": {"jets": Collection(name="jets", branches=())}},
        {"jagged": {"x": Collection(name="x", branches=("Jet_pt",))}},
        {"samples": {"all": Sample(name="all", files=())}},
        {"samples": {"all": Sample(name="all", files=("a.root",), label=-1)}},
        {"scale": Scaling(kind="standart")},
        {"scale": Scaling(kind="given", factor=0.0)},
        {"split": Split(by="hash", train=0.5, val=0.0, test=0.0)},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_ready_made_parts_are_checked_like_plain_ones(changes):
    with pytest.raises(ConfigError):
        with_options(**changes)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("mix", v) for v in ("samples", 5, None, True, ["sample"], {}, {"all": -1}, {"all": 0}, {"al": 1})],
        *[("mix", v) for v in ({"all": True}, {"all": "1"}, {"all": math.nan})],
        *[("batch_size", v) for v in (0, -1, 1.0, "5", True)],
        *[("chunk_size", v) for v in (0, -1, 1e5, "5", True)],
        *[("shuffle", v) for v in (0, 1, "yes")],
        *[("seed", v) for v in (-1, 1.5, "5", True)],
        *[("drop_last", v) for v in (0, 1, "yes")],
        *[("open_blocks", v) for v in (0, -1, 1.5, "5", True)],
    ],
)
def test_wrong_order_options_are_refused_by_name(option, value):
    if option == "mix" and value is None:
        assert parse_order({"mix": None}, samples=["all"]).mix == "sample"  # an empty line of YAML is no choice
        return
    with pytest.raises(ConfigError) as caught:
        parse_order({option: value}, samples=["all"])
    assert option in str(caught.value)


def test_a_sample_left_out_of_mix_or_misspelt_is_named():
    with pytest.raises(ConfigError, match="mix: no weight for sample 'QCD'"):
        parse_order({"mix": {"ttH": 1}}, samples=["ttH", "QCD"])
    with pytest.raises(ConfigError, match="unknown option 'ttHH' in mix; nearest: 'ttH'"):
        parse_order({"mix": {"ttHH": 1, "QCD": 1}}, samples=["ttH", "QCD"])


def test_no_features_no_data():
    with pytest.raises(ConfigError, match="no features"):
        parse_data({"samples": {"all": "a.root"}})


def test_a_label_is_given_to_all_samples_or_to_none():
    with pytest.raises(ConfigError, match=r"samples\.QCD\.label is missing while other samples have one"):
        with_options(samples={"ttH": {"files": "a.root", "label": 1}, "QCD": {"files": "b.root"}})


def test_a_label_beyond_the_classes_names_those():
    with pytest.raises(ConfigError, match=r"samples\.all\.label is 2; allowed: 0 \(background\), 1 \(signal\)"):
        in_sample(label=2)
    assert parse_data(
        {**SMALLEST, "classes": ["a", "b", "c"], "samples": {"all": {"files": "a.root", "label": 2}}}
    ).samples[0].label == 2  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"cut": "met >"},
        {"cut": ""},
        {"label": "is_signal = 1"},
        {"weight": "__import__('os')"},
        {"derived": {"ht": "sum(Jet_pt"}},
        {"split": {"by": "event %% 5", "val": [1]}},
        {"samples": {"all": {"files": "a.root", "cut": "met.__class__()"}}},
        {"jagged": {"jets": {"branches": ["Jet_pt"], "cut": "lambda: 1"}}},
        {"jagged": {"jets": {"branches": ["Jet_pt"], "sort": "--"}}},
    ],
    ids=str,
)
def test_expressions_are_parsed_at_once(changes):
    with pytest.raises(ExpressionError):
        with_options(**changes)


def test_features_come_once_flat_ones_first():
    config = DataConfig(
        samples=(Sample(name="all", files=("a.root",)),),
        flat=("met", "ht"),
        jagged=(Collection(name="a", branches=("pt", "eta")), Collection(name="b", branches=("eta", "met"))),
    )
    assert config.features == ("met", "ht", "pt", "eta")


# How events are read


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ("memory", CacheConfig(dir=None, max_bytes=4_000_000_000)),
        ({"max_bytes": 10}, CacheConfig(dir=None, max_bytes=10)),
        ({"dir": "/scratch"}, CacheConfig(dir="/scratch", max_bytes=50_000_000_000)),
        ({"dir": "/scratch", "max_bytes": 7}, CacheConfig(dir="/scratch", max_bytes=7)),
    ],
)
def test_a_cache_has_a_place_and_a_bound(given, kept):
    assert parse_read({"cache": given}).cache == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "disk"}, "cache: got 'disk'; allowed: 'memory', or"),
        ({"cache": {"folder": "x"}}, "unknown option 'folder' in cache"),
        ({"cache": {"dir": "x", "max_bytes": 0.5}}, "cache.max_bytes: got 0.5"),
        ({"patience": 0}, "patience: got 0; expected a number of seconds above 0"),
        ({"deadline": "long"}, "deadline: got 'long'"),
        ({"num_workers": -1}, "num_workers: got -1"),
        ({"prefech": 2}, "unknown option 'prefech' in the reading options; nearest: 'prefetch'"),
    ],
)
def test_wrong_ways_to_read_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        parse_read(options)


def test_a_list_within_the_files_holds_places_of_one():
    sample = parse_data({"samples": {"a": {"files": ["x.root", ["y.root", "z.root"]]}}, "flat": ["met"]}).samples[0]
    assert sample.files == ("x.root", ("y.root", "z.root"))
    with pytest.raises(ConfigError, match=r"samples\.a\.files: got an empty list of replicas"):
        parse_data({"samples": {"a": {"files": ["x.root", []]}}, "flat": ["met"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"on_bad_file": "ignore"}, "on_bad_file: got 'ignore'; allowed: 'error', 'skip'")],
)
def test_bad_files_are_an_error_or_skipped(options, message):
    with pytest.raises(ConfigError, match=message):
        parse_data({"samples": {"a": "x.root"}, "flat": ["met"], **options})


@pytest.mark.parametrize("pad", [math.nan, float("nan"), "nan", {"met": "nan"}])
def test_pad_may_be_nan_in_rows_and_is_a_word_where_it_is_written(pad):
    config = with_options(flat=["met", "ht"], pad=pad)
    assert math.isnan(config.pad_of("met"))
    assert config.pads_with_nan
    assert config == with_options(flat=["met", "ht"], pad={"met": math.nan} if isinstance(pad, dict) else math.nan)
    told = described(config, "inputs")["pad"]
    assert told == ({"met": "nan"} if isinstance(pad, dict) else "nan")
    assert math.isnan(with_options(flat=["met", "ht"], pad=told).pad_of("met"))
    assert not with_options(flat=["met", "ht"], pad=0).pads_with_nan
    with pytest.raises(ConfigError, match=r"pad: got nan with layout 'tokens'; .* 'vector'; give a number"):
        with_options(flat=["met", "ht"], pad=pad, layout="tokens")


def test_pad_and_clip_are_numbers_or_one_of_each_feature():
    config = with_options(flat=["met", "ht"], pad={"default": -1, "ht": -2.5}, clip={"met": 5})
    assert [config.pad_of(name) for name in ("met", "ht")] == [-1, -2.5]
    assert [config.clip_of(name) for name in ("met", "ht")] == [5, None]
    assert with_options(flat=["met", "ht"], pad=3, clip=4).pad_of("met") == 3
    assert with_options(flat=["met", "ht"], pad=3, clip=4).clip_of("ht") == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 0}, r"clip: got 0; expected the largest size of a scaled value, above 0"),
        ({"clip": {"met": -1}}, r"clip\.met: got -1; expected"),
        ({"pad": {"meet": 1}}, r"unknown option 'meet' in pad; nearest: 'met'"),
        ({"clip": {"meet": 1}}, r"unknown option 'meet' in clip; nearest: 'met'"),
        ({"pad": {"met": "x"}}, r"pad\.met: got 'x'; expected a finite number"),
    ],
)
def test_a_wrong_pad_or_clip_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        with_options(flat=["met", "ht"], **changes)


@pytest.mark.parametrize(
    ("number", "dtype"), [(2**64 - 1, "u8"), (2**63 - 1, "i8"), (-(2**63) + 1, "i8"), (2**53 + 1, "i8")]
)
def test_whole_sentinels_stay_exact(number, dtype):
    column = np.array([number, number - 1, 7], dtype)
    for config in (with_options(missing=number), with_options(missing={"met": [number]})):
        assert mask_sentinels(column, config.missing_of("met")).tolist() == [None, number - 1, 7]
    assert [type(m) for m in with_options(missing=[-999, 2**53, 10**30]).missing] == [float] * 3


def test_missing_is_a_list_or_one_of_each_branch():
    assert with_options(missing=[-999, -1]).missing == (-999, -1)
    assert with_options(missing={"default": -999}).missing == with_options(missing=-999).missing == (-999,)
    config = with_options(flat=["met", "cov"], missing={"met": -1, "cov": [], "default": [-999, -9]})
    assert [config.missing_of(n) for n in ("met", "cov", "cov[3]", "ht")] == [(-1,), (), (), (-999, -9)]
    assert sorted(config.sentinels) == [-999, -9, -1]
    assert with_options(missing={"met": [-1]}).missing_of("ht") == ()
    with pytest.raises(ConfigError, match=r"missing\.met: got 'x'; expected a finite number"):
        with_options(missing={"met": ["x"]})


# Folds


def test_the_fold_says_what_is_tested_validated_and_trained():
    config = with_options(folds={"count": 5, "by": "event"}, fold=4)
    assert config.split == Split(by="(event) % 5", train=None, val=(0,), test=(4,))
    assert with_options(folds=5, fold=1).split == Split(by="hash", folds=5, train=None, val=(2,), test=(1,))
    assert [one.fold for one in config.every_fold] == [0, 1, 2, 3, 4]
    assert with_options().every_fold == (with_options(),)
    assert with_options(split=with_options(folds=5, fold=1).split).split.folds == 5  # one that was parsed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 2, "fold": 0}, "folds.count: got 2; expected 3 or more: one tests the network"),
        ({"folds": 5.0, "fold": 0}, "folds.count: got 5.0"),
        ({"folds": True, "fold": 0}, "folds.count: got True"),
        ({"folds": {"by": "event"}, "fold": 0}, "expected how many, such as 5"),
        ({"folds": {"count": 5, "bye": "event"}, "fold": 0}, "unknown option 'bye' in folds"),
        ({"folds": 5}, "no `fold`; name the one that is tested, fold=0 to fold=4"),
        ({"folds": 5, "fold": 5}, "fold: got 5; of 5 folds there are 0 to 4"),
        ({"folds": 5, "fold": -1}, "fold: got -1"),
        ({"fold": 1}, "fold: got 1 without `folds`"),
        ({"folds": 5, "fold": 0, "split": {"train": 0.5, "test": 0.5}}, "split: given beside `folds`"),
        ({"folds": 5, "fold": 0, "jagged": {"jets": ["Jet_pt"]}}, "jagged.jets.length: auto is learnt"),
    ],
)
def test_folds_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(ConfigError) as caught:
        with_options(**changes)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_expression_of_folds_has_to_parse():
    with pytest.raises(ExpressionError):
        with_options(folds={"count": 5, "by": "event %"}, fold=0)
