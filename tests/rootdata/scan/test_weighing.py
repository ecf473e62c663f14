"""Weights that follow from all events: to a luminosity, balanced, reweighted; whoever reads, the same, and as said."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, add, epoch_of, make_events, scanned
from rich.console import Console

from rootdata.errors import RootDataError
from rootdata.events.weighting import bins_of, count_bins
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.options.data import parse_data
from rootdata.options.parsed import described
from rootdata.scan.specs import Specs
from rootdata.scan.summary import summarize

REAL = SHARED / "real"
PYTHIA = SHARED / "tth_pythia"
SPLIT = {"by": "entries", "train": 0.6, "val": 0.2, "test": 0.2}
SAME = 3e-7  # of float32
pytestmark = pytest.mark.usefixtures("small_blocks")


def make(path: Path, seed: int, *, n: int = 240, runs: dict[str, list[float]] | None = None, **more: Any) -> Path:
    """Write events with weights of both signs, and beside them runs and a histogram."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    columns = make_events(n, seed) | {"genWeight": rng.choice([1.5, 1.5, 2.0, -0.5], n)}
    with uproot.recreate(path) as file:
        add(file, columns, steps=more.get("steps", (n // 3, n // 2)), kind=more.get("kind", "TTree"))
        if runs is not None:
            found = {name: np.array(values) for name, values in runs.items()}
            add(file, found, tree="Runs", kind=more.get("kind", "TTree"))
        file["folder/cuts"] = (np.array([100.0 + seed, 7.0]), np.array([0.0, 1.0, 2.0]))
        file["sum"] = (np.array([50.0]), np.array([0.0, 1.0]))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples of two files each."""
    folder = tmp_path_factory.mktemp("weighing")
    for seed, name in enumerate(("s0", "s1", "b0", "b1")):
        make(folder / f"{name}.root", seed, runs={"genEventSumw": [1000.0 * seed + 10, 5.0], "genEventCount": [7, 8]})
    return folder


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "samples": {
            "s": {"files": str(folder / "s*.root"), "tree": "Events", "label": 1, "cross_section": 0.5},
            "b": {"files": str(folder / "b*.root"), "tree": "Events", "label": 0, "cross_section": 800.0, "weight": 2},
        },
        "luminosity": 59.7, "weight": "genWeight", "weights": {"up": "genWeight * met"},
        "flat": ["met"], "split": SPLIT, "batch_size": 16, "chunk_size": 64,
    }  # fmt: skip
    return {name: value for name, value in (plain | changes).items() if value is not None}


def true_weights(folder: Path, totals: tuple[float, float] = (1030.0, 5030.0)) -> dict[tuple[int, ...], float]:
    """Compute by hand: sample, file and entry to the weight times cross section and luminosity over the sum."""
    found: dict[tuple[int, ...], float] = {}
    for k, name in enumerate(("s0", "s1", "b0", "b1")):
        factor = (0.5, 800.0 * 2.0)[k // 2] * 1000 * 59.7 / totals[k // 2]
        for entry, weight in enumerate(uproot.open(folder / f"{name}.root")["Events/genWeight"].array(library="np")):
            found[k // 2, k, entry] = weight * factor
    return found


def joined(batches: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found = list(batches)
    return {name: np.concatenate([batch[name].numpy() for batch in found]) for name in found[0]}


def weights_of(events: dict[str, Any]) -> dict[tuple[int, ...], float]:
    return {tuple(i): w for i, w in zip(events["index"].tolist(), events["weight"].tolist(), strict=True)}


def shown(plain: dict[str, Any], specs: Specs) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(summarize(parse_data(plain), specs))
    return " ".join(capture.get().split())


# To the luminosity


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_event_weighs_what_its_cross_section_and_the_luminosity_say(folder: Path, part: str) -> None:
    true, got = true_weights(folder), epoch_of(options(folder), part)
    found = weights_of(got)
    assert len(found) == {"train": 576, "val": 192, "test": 192}[part]
    assert found == pytest.approx({index: true[index] for index in found}, rel=SAME)
    assert min(found.values()) < 0


@pytest.mark.parametrize(
    "changes",
    [
        {"cut": "met > 30", "split": {"by": "files", "train": ["*0.root"], "val": ["s1.root"], "test": ["b1.root"]}},
        {"fraction": 0.4, "mix": {"s": 3, "b": 1}},
    ],
)
def test_cuts_splits_and_fractions_do_not_change_it(folder: Path, changes: dict[str, Any]) -> None:
    plain = options(folder, **changes)
    specs = scanned({name: value for name, value in plain.items() if name not in {"batch_size", "chunk_size", "mix"}})
    assert specs.weighting is not None
    assert specs.weighting.samples == pytest.approx((0.5 * 59700 / 1030, 800 * 59700 / 5030))
    found, true = weights_of(epoch_of(plain)), true_weights(folder)
    assert found == pytest.approx({index: true[index] for index in found}, rel=SAME)


@pytest.mark.parametrize(
    ("source", "totals"),
    [
        (None, (1030.0, 5030.0)),
        ({"tree": "Runs", "branch": "genEventSumw"}, (1030.0, 5030.0)),
        ({"tree": "Runs", "branch": "genEventCount"}, (30.0, 30.0)),
        ({"histogram": "folder/cuts", "bin": 0}, (201.0, 205.0)),
        ({"histogram": "sum"}, (100.0, 100.0)),
        ({"events": "1"}, (480.0, 480.0)),
        ({"events": "2 * abs(genWeight)"}, None),
        (1234.5, (1234.5, 1234.5)),
    ],
)
def test_the_sum_of_weights_may_stand_anywhere(folder: Path, source: Any, totals: Any) -> None:
    if totals is None:
        read = [uproot.open(f)["Events/genWeight"].array(library="np") for f in sorted(folder.glob("*.root"))]
        sizes = [2 * float(np.abs(values).sum()) for values in read]  # b0, b1, s0, s1
        totals = (sizes[2] + sizes[3], sizes[0] + sizes[1])
    plain = options(folder, cut="met > 20", sum_of_weights=None if isinstance(source, float) else source)
    if isinstance(source, float):
        plain["samples"] = {name: one | {"sum_of_weights": source} for name, one in plain["samples"].items()}
    weighting = scanned({name: v for name, v in plain.items() if name not in {"batch_size", "chunk_size"}}).weighting
    assert weighting is not None
    assert weighting.samples == pytest.approx((0.5 * 59700 / totals[0], 800 * 59700 / totals[1]))


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_names_of_older_files_are_found_and_a_sum_counts_once_for_all_trees_of_a_file(
    tmp_path: Path, kind: str
) -> None:
    path = make(tmp_path / "a.root", 1, runs={"genEventSumw_": [40.0, 2.0]}, kind=kind)
    with uproot.update(path) as file:
        add(file, make_events(60), tree="More")
    samples = {"a": {"files": [f"{path}:Events", f"{path}:More"], "cross_section": 2.0, "luminosity": 3.0}}
    plain = {"samples": samples, "flat": ["met"], "split": {"train": 1.0}}
    weighting = scanned(plain).weighting
    assert weighting is not None
    assert weighting.samples == pytest.approx((2.0 * 3.0 * 1000 / 42.0,))
    bare = {"samples": {"a": samples["a"] | {"sum_of_weights": {"events": "1"}}}}
    assert scanned(plain | bare).weighting.samples == pytest.approx((6000 / 300,))  # type: ignore[union-attr]


def test_recorded_events_beside_simulated_ones_stay_as_they_are(folder: Path) -> None:
    plain = options(folder)
    plain["samples"]["b"]["cross_section"] = "data"
    weighting = scanned({n: v for n, v in plain.items() if n not in {"batch_size", "chunk_size"}}).weighting
    assert weighting is not None
    assert weighting.samples == pytest.approx((0.5 * 59700 / 1030, 1.0))


def test_a_skim_is_said_with_both_sums(folder: Path) -> None:
    plain = {n: v for n, v in options(folder).items() if n not in {"batch_size", "chunk_size"}}
    specs = scanned(plain)
    known = [sum(f.generated[1] for f in specs.files if f.sample == i) for i in (0, 1)]  # type: ignore[index,misc]
    words = shown(plain, specs)
    assert f"s: Runs.genEventSumw adds up to 1030, genWeight of its events to {known[0]:.8g}: they are a skim" in words
    own = uproot.open(folder / "s0.root")["Events/genWeight"].array(library="np").sum()
    own += uproot.open(folder / "s1.root")["Events/genWeight"].array(library="np").sum()
    assert known[0] == pytest.approx(own)
    whole = dict(plain, sum_of_weights={"events": "genWeight"})
    assert "skim" not in shown(whole, scanned(whole))


@pytest.mark.long
@pytest.mark.skipif(not REAL.exists(), reason="the shared data folder is not here")
def test_files_of_cms_have_the_sums_of_their_runs_and_say_that_they_are_skims() -> None:
    files = {
        "DY": ("DYJetsToLL--UL17_v6-v2_109_Skim.root", 1.1257e9, 1.8045e6),
        "GJet": ("GJet_v11_Skim.root", 211_846, 100),
        "ttH": ("ttH_M125_2017.root", 45_869.3, 120.7),
    }
    samples = {n: {"files": str(REAL / f), "tree": "Events", "cross_section": 1.0} for n, (f, _, _) in files.items()}
    plain = {"samples": samples, "flat": ["MET_pt"], "weight": "genWeight", "luminosity": 1.0}
    specs = scanned(plain)
    words = shown(plain, specs)
    for file, (name, (_, of_runs, of_events)) in zip(specs.files, files.items(), strict=True):
        assert file.generated == pytest.approx((of_runs, of_events), rel=1e-4)
        assert f"{name}: Runs.genEventSumw adds up to" in words


# Balance and reweighting

MET = {"variables": ["met"], "bins": [7]}
TWO = {"variables": ["met", "count(Jet_pt)"], "bins": [[0, 20, 60, 1000], 3]}
WAYS: dict[str, dict[str, Any]] = {
    "normalised": {},
    "plain": {"luminosity": None, "samples": None},
    "classes": {"balance": "classes"},
    "samples": {"balance": "samples"},
    "flat": {"reweight": MET},
    "flat, of a fraction": {"reweight": MET, "fraction": 0.4},
    "flat in two, capped, balanced": {"reweight": TWO | {"cap": 2}, "balance": "classes"},
    "like a class": {"reweight": TWO | {"to": "signal"}},
    "like a sample": {"reweight": MET | {"to": "b"}, "balance": "samples"},
    "resampled": {"reweight": MET | {"by": "resample"}, "balance": "classes"},
    "three dimensions": {"reweight": {"variables": ["met", "event % 3", "weight"], "bins": [3, [0, 1, 2], 2]}},
}


def way(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    changed = dict(WAYS[name])
    if "samples" in changed:
        plain = options(folder)["samples"]
        changed["samples"] = {s: {k: v for k, v in one.items() if k != "cross_section"} for s, one in plain.items()}
    return options(folder, **(changed | changes))


FEW = ("flat, of a fraction", "flat in two, capped, balanced", "like a sample", "resampled")


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.long) for n in WAYS])
def test_the_mean_weight_and_all_sums_are_those_of_the_events_that_come(folder: Path, name: str) -> None:
    plain = way(folder, name)
    data = RootDataset(plain)
    for part in ("train", "val", "test"):
        events, specs = epoch_of(plain, part, specs=data.specs), data.specs
        assert specs.mean_weight(part) == pytest.approx(np.abs(events["weight"].astype(float)).mean(), rel=1e-6)
        counts, sums = specs.of_classes(part)
        for label in (0, 1):
            own = events["weight"][events["label"] == label].astype(float)
            assert counts[label] == len(own)
            assert sums[label] == pytest.approx((own.sum(), np.abs(own).sum()), rel=1e-5)
    # what balances and reweights is for the training alone
    val = epoch_of(plain, "val", specs=data.specs)["weight"]
    usual = epoch_of(way(folder, "plain" if name == "plain" else "normalised"), "val")["weight"]
    assert val.tolist() == usual.tolist()


@pytest.mark.parametrize("name", ["classes", pytest.param("resampled", marks=pytest.mark.long)])
def test_classes_weigh_the_same(folder: Path, name: str) -> None:
    events = epoch_of(way(folder, name))
    sizes = [np.abs(events["weight"][events["label"] == k].astype(float)).sum() for k in (0, 1)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)


@pytest.mark.parametrize("name", ["samples", pytest.param("like a sample", marks=pytest.mark.long)])
def test_samples_weigh_the_same(folder: Path, name: str) -> None:
    events = epoch_of(way(folder, name))
    sizes = [np.abs(events["weight"][events["index"][:, 0] == k].astype(float)).sum() for k in (0, 1)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)


def test_a_training_is_flat_or_like_what_was_asked_for(folder: Path) -> None:
    seen = {"observers": ["met"], "observe_training": True}
    for name, label in (("flat", 0), ("like a sample", 1)):
        plain = way(folder, name, **seen)
        specs, events = RootDataset(plain).specs, epoch_of(plain)
        assert specs.weighting is not None
        known = specs.weighting.bins[label]
        assert known is not None
        rows = events["label"] == label
        met, weight = events["observers/met"].astype(float), events["weight"].astype(float)
        bins = bins_of([met], known.edges)
        heights = np.bincount(bins[rows], weight[rows], minlength=count_bins(known.edges))
        asked = np.ones(len(heights)) if name == "flat" else np.bincount(bins[~rows], weight[~rows])
        np.testing.assert_allclose(heights / heights.sum(), asked / asked.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long) for n in ("normalised", "like a class", "like a sample")] + ["resampled"],
)
def test_whoever_reads_learns_the_same(folder: Path, name: str) -> None:
    plain = {n: v for n, v in way(folder, name).items() if n not in {"batch_size", "chunk_size"}}
    texts = {json.dumps(scanned(plain, workers=n).to_dict()) for n in (1, 2, 5)}
    with ThreadPoolExecutor(2) as executor:
        texts.add(json.dumps(scanned(plain, scheduler=executor).to_dict()))
    assert len(texts) == 1
    specs = scanned(plain)
    assert Specs.from_dict(json.loads(texts.pop())) == specs


@pytest.mark.parametrize("name", ["resampled", pytest.param("flat in two, capped, balanced", marks=pytest.mark.long)])
def test_ranks_readers_and_resume_give_the_same_events_with_the_same_weights(folder: Path, name: str) -> None:
    plain = way(folder, name)
    data = RootDataset(plain, index=True)
    whole = [{k: v.numpy() for k, v in batch.items()} for batch in data.batches(1)]
    four = RootDataset(plain, specs=data.specs, index=True, num_workers=4)
    again = RootDataset(plain, specs=data.specs, index=True)
    again.load_state_dict({**data.state_dict(), "epoch": 1, "batch": 3})
    rest = [{k: v.numpy() for k, v in batch.items()} for batch in again]
    ranks = [RootDataset(plain, specs=data.specs, index=True, rank=r, world_size=2) for r in (0, 1)]
    joined = [
        {k: np.concatenate([a[k].numpy(), b[k].numpy()]) for k in a}
        for a, b in zip(*(r.batches(1) for r in ranks), strict=True)
    ]
    for key in ("weight", "index", "label"):
        expected = np.concatenate([b[key] for b in whole])
        assert np.array_equal(np.concatenate([b[key].numpy() for b in four.batches(1)]), expected)
        assert np.array_equal(np.concatenate([b[key] for b in rest]), np.concatenate([b[key] for b in whole[3:]]))
    order = [sorted(map(tuple, b["index"].tolist())) for b in whole]
    assert [sorted(map(tuple, b["index"].tolist())) for b in joined] == order
    assert {k: v for b in joined for k, v in weights_of(b).items()} == {
        k: v for b in whole for k, v in weights_of(b).items()
    }
    with pytest.raises(RootDataError, match=r"balance was 'classes', now None"):
        RootDataset(plain | {"balance": None}).load_state_dict(data.state_dict())


def test_blocks_that_are_kept_have_the_weights_of_this_data_set(folder: Path, tmp_path: Path) -> None:
    """Another file of the sample changes the sum, and so the weights of those that were kept."""
    kept = {"cache": {"dir": str(tmp_path / "blocks")}}
    old = (folder / "s0.root").stat().st_mtime - 100
    for file in folder.glob("*.root"):
        os.utime(file, (old, old))
    both = epoch_of(options(folder, **kept))
    plain = options(folder, **kept)
    plain["samples"]["s"]["files"] = str(folder / "s0.root")
    one = weights_of(epoch_of(plain))
    ratio = {one[i] / w for i, w in weights_of(both).items() if i[:2] == (0, 0)}
    assert list(ratio) == pytest.approx([1030 / 15] * len(ratio), rel=1e-6)
    assert weights_of(epoch_of(options(folder, **kept))) == weights_of(both)


def test_kept_blocks_of_a_copy_are_not_taken_for_those_of_a_file_of_another_name(tmp_path: Path) -> None:
    """Events are left out by the name of their file: the same content under another name keeps others."""
    old = make(tmp_path / "a" / "one.root", 3, steps=range(6, 240, 6)).stat().st_mtime - 100
    shutil.copy(tmp_path / "a" / "one.root", tmp_path / "other.root")
    for file in tmp_path.rglob("*.root"):
        os.utime(file, (old, old))
    found = []
    for path, kept in (
        (tmp_path / "a" / "one.root", True),
        (tmp_path / "other.root", True),
        (tmp_path / "other.root", False),
    ):
        plain = options(
            tmp_path, samples={"s": {"files": str(path), "tree": "Events"}}, luminosity=None, label="is_signal",
            reweight=MET | {"by": "resample"}, cache={"dir": str(tmp_path / "blocks")} if kept else None,
        )  # fmt: skip
        found.append(weights_of(epoch_of(plain)).keys())
    assert found[0] != found[1] == found[2]


def test_the_part_that_is_trained_on_has_physical_weights_where_it_is_predicted(folder: Path) -> None:
    plain = way(folder, "flat in two, capped, balanced", split={"train": 1.0}, index=True)
    data = RootDataModule(**plain)
    data.setup()
    true = true_weights(folder)
    predicted = joined(data.predict_dataloader())
    assert weights_of(predicted) == pytest.approx(true, rel=SAME)
    ratio = predicted["variations/up"] / predicted["weight"]
    assert weights_of(joined(data.dataset("train", balanced=False))) == weights_of(predicted)
    training = joined(data.dataset("train", ordered=True))
    assert weights_of(training) == weights_of(joined(data.train_dataloader())) != weights_of(predicted)
    np.testing.assert_allclose(training["variations/up"] / training["weight"], ratio, rtol=1e-6)
    assert np.abs(training["weight"].astype(float)).mean() == pytest.approx(data.mean_weight)


def test_options_that_nobody_sets_say_nothing_so_that_older_specs_stay_valid() -> None:
    config = parse_data({"samples": {"a": {"files": "a.root"}}, "flat": ["met"]})
    told = described(config, "specs", "files", "inputs")
    new = {"weights", "luminosity", "sum_of_weights", "balance", "reweight"}
    assert not new & told.keys()
    assert set(told["samples"][0]) == {"name", "label", "cut", "weight", "tree"}


def test_the_summary_says_what_reweighting_costs(folder: Path) -> None:
    plain = {
        n: v for n, v in way(folder, "flat in two, capped, balanced").items() if n not in {"batch_size", "chunk_size"}
    }
    specs = scanned(plain)
    words = shown(plain, specs)
    assert "reweighted by met, count(Jet_pt) to flat" in words
    assert specs.weighting is not None
    for known in specs.weighting.bins[:2]:
        assert known is not None
        f = known.figures
        assert f"{f.events} {f.bins} {f.empty} {f.unusable} {f.outside} {f.capped} {f.effective:,.0f} of " in words
        assert f.largest <= 2.0 * 1.5 / 0.5  # the cap, and the range of the weights themselves


# Bad input


def with_source(source: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda plain: plain.update(sum_of_weights=source)


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no such tree": (
        with_source({"tree": "Run", "branch": "genEventSumw"}),
        r"samples\.s\.sum_of_weights: the sum .* of .*s0\.root is not known \(tree 'Run' not found .*nearest: 'Runs'",
    ),
    "no such branch": (with_source({"tree": "Runs", "branch": "sumw"}), r"s0\.root is not known \(branch 'sumw' not"),
    "no such histogram": (
        with_source({"histogram": "cuts", "bin": 0}),
        r"'cuts' not found in .*; known: 'folder/cuts', 'sum'",
    ),
    "no such bin": (with_source({"histogram": "folder/cuts", "bin": 2}), r"has no bin 2: 0 to 1"),
    "no such label": (with_source({"histogram": "folder/cuts", "bin": "all"}), r"has no bin 'all': 0 to 1"),
    "which bin": (with_source({"histogram": "folder/cuts"}), r"has several bins, of which one must be named: 0 to 1"),
    "lists": (with_source({"tree": "Events", "branch": "Jet_pt"}), r"has no single number an entry: it is jagged"),
    "no such column": (with_source({"events": "genWeigth"}), r"branch 'genWeigth' not found; nearest: 'genWeight'"),
    "a sum of 0": (with_source({"events": "genWeight - genWeight"}), r"adds up to 0; a sample can't be weighted"),
    "a negative sum": (
        with_source({"events": "-1"}),
        r"samples\.s\.sum_of_weights: .* adds up to -480; a sample can't",
    ),
    "too large": (lambda plain: plain.update(luminosity=1e60), r"samples\.s: its weights add up to .* float32 can't"),
    "no luminosity": (lambda plain: plain.pop("luminosity"), r"samples\.s\.cross_section is given, but no luminosity"),
    "no cross section": (
        lambda plain: plain["samples"]["s"].pop("cross_section"),
        r"samples\.s\.cross_section is missing while other samples have one; .*or 'data' for recorded events",
    ),
    "nowhere a cross section": (
        lambda plain: [one.pop("cross_section") for one in plain["samples"].values()],
        r"luminosity is given, but no sample has a cross_section",
    ),
    "outside": (
        lambda plain: plain.update(reweight={"variables": ["met"], "bins": [[-2, -1]]}),
        r"reweight: none of the 288 training events of 'background' lies within the bins",
    ),
    "jagged": (
        lambda plain: plain.update(reweight={"variables": ["Jet_pt"], "bins": [3]}),
        r"reweight\.variables 'Jet_pt' gives a list an event",
    ),
    "missing": (
        lambda plain: plain.update(reweight={"variables": ["max(Jet_pt)"], "bins": [3]}),
        r"reweight\.variables 'max\(Jet_pt\)' is missing or not finite at entry \d+ of .*s0\.root",
    ),
    "unknown": (
        lambda plain: plain.update(reweight={"variables": ["mett"], "bins": [3]}),
        r"branch 'mett' not found; nearest: 'met'",
    ),
    "an empty class": (
        lambda plain: plain.update(balance="classes", classes=["a", "b", "c"]),
        r"balance: got 'classes', and the weights of the training events of 'c' add up to 0",
    ),
    "no labels": (
        lambda plain: [plain.update(balance="classes"), *(one.pop("label") for one in plain["samples"].values())],
        r"balance: got 'classes', and no training event has a label",
    ),
    "no weight": (
        lambda plain: plain.update(balance="samples", weight="genWeight * 0"),
        r"balance: got 'samples', and the weights of the training events of 's' add up to 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_is_one_sentence_before_a_training(folder: Path, name: str) -> None:
    change, words = BAD[name]
    plain = options(folder)
    change(plain)
    with pytest.raises(RootDataError, match=words) as caught:
        RootDataset(plain)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runs", [None, {"genEventSumw": [np.nan]}, {"genEventSumw": []}, {"sumw": [1.0]}])
def test_the_file_that_lacks_its_sum_is_named_or_left_out(folder: Path, tmp_path: Path, runs: Any) -> None:
    bad = make(tmp_path / "bad.root", 9, runs=runs)
    plain = options(folder)
    plain["samples"]["s"]["files"] = [str(folder / "s0.root"), str(bad)]
    with pytest.raises(RootDataError, match=r"bad\.root.* give a number, \{tree: Runs, branch: genEventSumw\}"):
        RootDataset(plain)
    with pytest.warns(UserWarning, match="1 of 4 files are skipped"):
        weighting = RootDataset(plain | {"on_bad_file": "skip"}).specs.weighting
    assert weighting is not None
    assert weighting.samples[0] == pytest.approx(0.5 * 59700 / 15)


# As large as an analysis


@pytest.mark.long
@pytest.mark.skipif(not PYTHIA.exists(), reason="the shared data folder is not here")
def test_spectra_of_the_pythia_events_are_flat_in_training_and_in_test_events() -> None:
    """Held by chi2 with the variances that are expected, and the error of the weights themselves."""
    names = ("fj_pt", "fj_eta")
    plain = {
        "samples": {
            "background": {"files": [str(PYTHIA / f) for f in ("QCD*.root", "TT*.root", "ttH_un*.root")], "label": 0},
            "ttH": {"files": str(PYTHIA / "ttH_signal.root"), "label": 1},
        },
        "flat": ["HT"], "observers": list(names), "observe_training": True,
        "reweight": {"variables": list(names), "bins": [15, 12]},
    }  # fmt: skip
    specs = RootDataset(plain).specs
    assert specs.weighting is not None
    train, test = (epoch_of(plain, part, specs=specs) for part in ("train", "test"))
    for label, effective in ((0, 0.94), (1, 0.95)):
        known = specs.weighting.bins[label]
        assert known is not None
        found = []
        for events in (train, test):
            rows = events["label"] == label
            found.append(bins_of([events[f"observers/{name}"][rows].astype(float) for name in names], known.edges))
            assert (found[-1] >= 0).all()
        factors, n = np.array(known.factors), len(known.factors)
        counts = np.bincount(found[0], minlength=n)
        heights = np.bincount(found[0], train["weight"][train["label"] == label].astype(float), minlength=n)
        np.testing.assert_allclose(heights, heights.mean(), rtol=1e-6)
        of_test = np.bincount(found[1], factors[found[1]], minlength=n)
        expected = of_test.mean()
        variance = factors * expected + expected**2 / counts
        assert ((of_test - expected) ** 2 / variance).sum() / (n - 1) < 1.5
        # without the error of the weights it is of 1 + test / training events, not of 1
        ratio, of_one = len(found[1]) / len(found[0]), math.sqrt(2 / (n - 1))
        without = ((of_test - expected) ** 2 / (factors * expected)).sum() / (n - 1)
        assert abs(without / (1 + ratio) - 1) < 2 * of_one, without
        assert known.figures.effective > effective * known.figures.events
