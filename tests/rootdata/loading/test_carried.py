"""Targets and observers: what goes with the inputs of an event, through every road that batches take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from files_for_tests import make_events, write

from rootdata.errors import ConfigError, DataError, RootDataError
from rootdata.loading.dataset import RootDataset
from rootdata.scan.specs import Specs

OBSERVERS = {"event": "event", "w": "weight", "n": "count(Jet_pt)", "is_hard": "met > 40", "twice": "2 * met"}
TARGETS = {"mass": {"value": "2 * met + sum(Jet_pt)"}, "size": {"value": "met + 1", "scale": "log"}}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carried")
    for k in range(2):
        write(folder / f"{k}.root", make_events(300, seed=k), steps=(100, 200))
    return folder


def options(files: Path, **changes: Any) -> dict[str, Any]:
    return {
        "samples": {"a": {"files": str(files / "*.root")}},
        "label": "is_signal",
        "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}},
        "batch_size": 32,
        "chunk_size": 128,
        "targets": TARGETS,
        "observers": OBSERVERS,
        "observe_training": True,
        **changes,
    }  # fmt: skip


def truth() -> dict[int, dict[str, float]]:
    """Compute by hand what belongs to each event number."""
    found = {}
    for k in range(2):
        made = make_events(300, seed=k)
        for i in range(300):
            met, jets = made["met"][i], made["Jet"]["pt"][i].to_numpy()
            found[int(made["event"][i])] = {
                "w": made["weight"][i], "n": len(jets), "is_hard": bool(met > 40), "twice": np.float32(2) * met,
                "mass": 2 * float(met) + float(jets.astype(np.float64).sum()), "size": float(met) + 1,
            }  # fmt: skip
    return found


def rows(batches: Iterator[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Put batches behind each other."""
    parts = list(batches)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_each_event_has_its_own_values_exactly(files: Path, part: str) -> None:
    data = RootDataset(options(files), part)
    got, known = rows(iter(data)), truth()
    kinds = {n.removeprefix("observers/"): v.dtype for n, v in got.items() if n.startswith("observers/")}
    assert kinds == {
        "event": torch.int64, "w": torch.float64, "n": torch.int64, "is_hard": torch.bool, "twice": torch.float32,
    }  # fmt: skip
    assert got["targets"].dtype == torch.float32
    transforms = data._events.scanned.target_transforms
    assert list(transforms) == ["mass", "size"]
    for i, event in enumerate(got["observers/event"].tolist()):
        for name in ("w", "n", "is_hard", "twice"):
            assert got[f"observers/{name}"][i].item() == known[event][name], (event, name)
        for column, (name, transform) in enumerate(transforms.items()):
            value = float(transform.invert(got["targets"][i, column].numpy()[None])[0])
            assert value == pytest.approx(known[event][name], rel=2e-6, abs=1e-5)
    assert len(set(got["observers/event"].tolist())) == data.num_events == len(got["label"])


def test_statistics_are_those_of_training_events(files: Path) -> None:
    data = RootDataset(options(files, targets={"mass": TARGETS["mass"]}), "train", ordered=True)
    scaled = rows(iter(data))["targets"].double()
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scaled.std(correction=0)) == pytest.approx(1, rel=1e-5)


def test_training_batches_hold_observers_where_that_is_asked_for(files: Path) -> None:
    def keys(part: str, **changes: Any) -> set[str]:
        return {n for n in next(iter(RootDataset(options(files, **changes), part))) if n.startswith("observers/")}

    named = {f"observers/{name}" for name in OBSERVERS}
    assert keys("train") == keys("val", observe_training=False) == named
    assert keys("train", observe_training=False) == set()


def test_inputs_are_the_same_with_and_without(files: Path) -> None:
    plain = RootDataset(options(files, targets=None, observers=None), "train")
    carrying = RootDataset(options(files), "train")
    for a, b in zip(plain, carrying, strict=True):
        assert not {"targets"} & a.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_cached_blocks_hold_them(files: Path, tmp_path: Path, where: str) -> None:
    cache = {"dir": str(tmp_path)} if where == "disk" else "memory"
    expected = rows(iter(RootDataset(options(files, seed=3), "train")))
    cached = RootDataset(options(files, seed=3, cache=cache), "train")
    for epoch in range(2):
        cached.epoch = 0
        got = rows(iter(cached))
        assert got.keys() == expected.keys(), epoch
        assert all(torch.equal(got[name], expected[name]) for name in got)
    # others ask the same store for other columns
    other = RootDataset(options(files, seed=3, cache=cache, observers=["event"]), "train")
    assert torch.equal(rows(iter(other))["observers/event"], expected["observers/event"])
    other = RootDataset(options(files, seed=3, cache=cache, targets={"mass": "met"}), "train")
    assert rows(iter(other))["targets"].shape[1] == 1


def test_a_place_in_an_epoch_and_ranks_give_the_same_rows(files: Path) -> None:
    whole = RootDataset(options(files), "train")
    batches = list(whole)
    resumed = RootDataset(options(files, num_workers=0), "train")
    iterator = iter(resumed)
    for _ in range(5):
        next(iterator)
    again = RootDataset(options(files), "train")
    again.load_state_dict(resumed.state_dict())
    for a, b in zip(batches[5:], again, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    for part in ("train", "val"):
        together = rows(iter(RootDataset(options(files), part)))
        shares = [rows(iter(RootDataset(options(files), part, rank=r, world_size=2))) for r in range(2)]
        joined = {name: torch.cat([share[name] for share in shares]) for name in shares[0]}
        order, same = (torch.argsort(found["observers/event"]) for found in (together, joined))
        assert all(torch.equal(together[name][order], joined[name][same]) for name in together)


VARIED = {"nominal": "weight", "up": "2 * weight", "hard": "where(met > 40, -1, met)"}


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_weights_under_variations_ride_along_beside_training(files: Path, part: str) -> None:
    def keys(batch: dict[str, torch.Tensor]) -> set[str]:
        return {name for name in batch if name.startswith("variations/")}

    options_of = {"weights": VARIED, "targets": None, "observers": ["event", "met"]}
    one = {"a": {"files": str(files / "*.root"), "weight": "1 + met"}}
    named = {"variations/up", "variations/hard"}
    assert keys(next(iter(RootDataset(options(files, **options_of), part)))) == (set() if part == "train" else named)
    for ordered in (True, False):
        got = rows(iter(RootDataset(options(files, **options_of, samples=one), part, ordered=ordered)))
        if keys(got):
            assert keys(got) == named
            assert {got[name].dtype for name in named} == {torch.float32}
            torch.testing.assert_close(got["variations/up"], 2 * got["weight"])
            met = got["observers/met"].double()
            hard = (torch.where(met > 40, -1.0, met) * (1 + met)).float()
            torch.testing.assert_close(got["variations/hard"], hard)
    together = rows(iter(RootDataset(options(files, **options_of), "val")))
    plain = rows(iter(RootDataset(options(files, targets=None, weight="weight"), "val")))
    assert torch.equal(together["weight"], plain["weight"])


def test_another_variation_is_another_data_set(files: Path) -> None:
    state = RootDataset(options(files, weights=VARIED), "train").state_dict()
    with pytest.raises(RootDataError, match=r"weights\.up was '2 \* weight', now None"):
        RootDataset(options(files, weights={"nominal": "weight", "hard": VARIED["hard"]})).load_state_dict(state)


def test_another_target_or_observer_is_another_training(files: Path) -> None:
    state = RootDataset(options(files), "train").state_dict()
    for changes in ({"targets": {"mass": "met"}}, {"observers": ["event"]}):
        with pytest.raises(RootDataError, match=next(iter(changes))):
            RootDataset(options(files, **changes), "train").load_state_dict(state)


def test_specs_keep_the_statistics_and_are_what_they_were_without(files: Path, tmp_path: Path) -> None:
    specs = RootDataset(options(files), "train").specs
    specs.save(tmp_path / "specs.json")
    assert Specs.load(tmp_path / "specs.json") == specs
    assert list(specs.targets) == ["mass", "size"]
    plain = RootDataset(options(files, targets=None, observers=None), "train").specs
    assert "targets" not in plain.to_dict()
    assert "targets" not in RootDataset(options(files, targets=None, observers=None), "train").identity


def test_sentinels_are_observed_as_they_were_read(tmp_path: Path) -> None:
    made = make_events(40)
    made["is_signal"][:] = np.arange(40) % 2
    made["met"][3], made["event"][5] = -999, 999
    write(tmp_path / "a.root", made)
    change = {"observers": ["met", "event", "is_signal"], "missing": [-999, 999], "targets": None}
    data = RootDataset(options(tmp_path, **change, split={"train": 1.0}), "train", ordered=True)
    got = rows(iter(data))
    assert got["observers/met"][3] == -999
    assert got["observers/event"].tolist() == made["event"].tolist()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"targets": {"m": "1 + 0 * met"}}, r"targets\.m: .* is constant \(1\)"),
        ({"targets": {"m": {"value": "1 + 0 * met", "scale": "none"}}}, r"targets\.m: .* is constant"),
        ({"targets": {"m": "max(Jet_pt)"}}, r"target 'm', 'max\(Jet_pt\)' is missing .* at entry \d+ of .*\.root"),
        ({"targets": {"m": "Jet_pt"}}, "target 'm'.* gives a list an event"),
        ({"observers": ["Jet_pt"]}, "observer 'Jet_pt' gives a list an event|observer.* gives a list an event"),
        ({"observers": {"n": "where(met > 30, event, event[0])"}}, "observer|event"),
        ({"observers": ["mett"]}, "'mett' not found; nearest: 'met'"),
        ({"targets": {"m": "mett"}}, "'mett' not found; nearest: 'met'"),
    ],
)
def test_what_cant_be_carried_is_refused_before_the_first_batch(
    files: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RootDataError, match=sentence):
        RootDataset(options(files, **changes), "train")


def test_whole_numbers_that_are_missing_or_too_large_name_their_entry(tmp_path: Path) -> None:
    made = make_events(40)
    made["is_signal"][:] = np.arange(40) % 2
    made["event"][7] = np.uint64(2**63)
    write(tmp_path / "a.root", made)
    with pytest.raises(DataError, match=r"observer 'event'.* is 2\*\*63 or more at entry 7 of"):
        RootDataset(options(tmp_path, observers=["event"], targets=None), "train")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"targets": {"m": {"value": "met", "scale": "logg"}}}, "targets.m.scale: got 'logg'; allowed"),
        ({"targets": {"m": {"valu": "met"}}}, "unknown option 'valu' in .*targets.m"),
        ({"targets": {"m": {"scale": "log"}}}, r"targets\.m"),
        ({"targets": {"a b": "met"}}, "no plain word"),
        ({"targets": ["met"]}, "expected a mapping such as"),
        ({"targets": {"m": "met +"}}, "targets.m"),
        ({"observers": ["met +"]}, "observers"),
        ({"observers": ["met", "met"]}, "listed twice"),
        ({"observe_training": "yes"}, "observe_training"),
    ],
)
def test_wrong_options_are_refused_at_once(files: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ConfigError, RootDataError), match=sentence):
        RootDataset(options(files, **changes), "train")
