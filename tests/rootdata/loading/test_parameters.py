"""Parameterised networks: hypotheses of signal, drawn for background by the event, the seed and the epoch alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uproot
from files_for_tests import make_events, write

from rootdata.analysis.friends.predict import predict
from rootdata.bundle.export import export
from rootdata.bundle.manifest import MODEL
from rootdata.errors import BranchError, ConfigError, DataError, RootDataError
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.models.dnn import DNN

MASSES = (300.0, 400.0, 500.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signal of three masses, of which 300 is as frequent as the others together; background knows no mass."""
    folder = tmp_path_factory.mktemp("parameters")
    for k in range(2):
        made = make_events(400, seed=k)
        write(folder / f"background_{k}.root", made, steps=(100, 200))
        mass = np.array(MASSES, np.float32)[np.random.default_rng(k).choice(3, 400, p=(0.5, 0.25, 0.25))]
        write(folder / f"signal_{k}.root", {**make_events(400, seed=10 + k), "gen": mass}, steps=(150,))
    return folder


def options(files: Path, **changes: Any) -> dict[str, Any]:
    return {
        "samples": {
            "background": {"files": str(files / "background_*.root"), "label": 0},
            "signal": {"files": str(files / "signal_*.root"), "label": 1},
        },
        "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt"], "length": 2}},
        "parameters": {"mass": "gen"},
        "batch_size": 64,
        "chunk_size": 256,
        **changes,
    }  # fmt: skip


def delivered(data: RootDataset, *, epoch: int = 0, start: int = 0) -> dict[tuple[int, ...], float]:
    """Return the parameter of every event by its index, in physical units."""
    scanned = data._events.scanned
    place, transform = scanned.layout.flat.index("mass"), scanned.transforms["mass"]
    found: dict[tuple[int, ...], float] = {}
    for batch in data.batches(epoch, start=start):
        rows = batch["flat"] if "flat" in batch else batch["x"]
        if "mask" in batch:
            assert batch["mask"][:, place].all()
        values = transform.invert(rows[:, place].numpy())
        found |= {tuple(i): round(float(v), 2) for i, v in zip(batch["index"].tolist(), values, strict=True)}
    return found


def dataset(files: Path, part: str = "train", **changes: Any) -> RootDataset:
    more = {key: changes.pop(key) for key in ("rank", "world_size", "ordered") if key in changes}
    return RootDataset(options(files, **changes), part, index=True, **more)


def test_signal_has_its_own_and_background_the_same_distribution(files: Path) -> None:
    data = dataset(files)
    found = delivered(data)
    masses = {s: np.array([v for i, v in found.items() if i[0] == s]) for s in (0, 1)}
    shares = [[float((masses[s] == m).mean()) for m in MASSES] for s in (0, 1)]
    assert shares[1] == pytest.approx([0.5, 0.25, 0.25], abs=0.08)
    assert shares[0] == pytest.approx(shares[1], abs=0.09)  # some 500 events each
    assert set(masses[0]) == set(MASSES)
    again = delivered(data, epoch=1)
    changed = np.mean([found[i] != again[i] for i in found if i[0] == 0])
    assert changed == pytest.approx(1 - sum(s**2 for s in shares[0]), abs=0.09)
    assert all(found[i] == again[i] for i in found if i[0] == 1)
    equal = delivered(dataset(files, parameters={"mass": {"value": "gen", "values": [100, 200]}}))
    background = np.array([v for i, v in equal.items() if i[0] == 0])
    assert set(background) == {100, 200}
    assert float((background == 100).mean()) == pytest.approx(0.5, abs=0.09)


def test_it_follows_from_event_seed_and_epoch_alone(files: Path) -> None:
    expected = [delivered(dataset(files), epoch=epoch) for epoch in (0, 1)]
    assert expected[0] != expected[1]
    for changes in (
        {"num_workers": 3, "cache": "memory", "batch_size": 100},
        {"layout": "tokens", "mix": "file", "partitions": 2, "open_blocks": 1},
    ):
        data = dataset(files, **changes)
        assert [delivered(data, epoch=epoch) for epoch in (0, 1)] == expected, changes
    ranks = [delivered(dataset(files, rank=rank, world_size=2), epoch=1) for rank in range(2)]
    assert {**ranks[0], **ranks[1]} == expected[1]
    # in the midst of an epoch
    late = delivered(dataset(files), epoch=1, start=5)
    assert late == {i: expected[1][i] for i in late}
    assert 0 < len(late) < len(expected[1])
    assert delivered(dataset(files, seed=7)) != expected[0]


def test_validation_and_test_are_the_same_every_time(files: Path) -> None:
    for part in ("val", "test"):
        first = delivered(dataset(files, part))
        assert first == delivered(dataset(files, part), epoch=3) == delivered(dataset(files, part, seed=7))
    assert delivered(dataset(files, ordered=True)) == delivered(dataset(files, ordered=True), epoch=2)


def test_a_copied_set_draws_the_same(files: Path, tmp_path: Path) -> None:
    for path in files.glob("*.root"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert delivered(dataset(files)) == delivered(dataset(tmp_path))


def test_samples_may_give_a_number_or_an_expression_each(files: Path) -> None:
    samples = {
        "background": {"files": str(files / "background_*.root"), "label": 0},
        "low": {"files": str(files / "signal_0.root"), "label": 1, "parameters": {"mass": 250}},
        "high": {"files": str(files / "signal_1.root"), "label": 1, "parameters": {"mass": "gen + 1000"}},
    }
    found = delivered(dataset(files, samples=samples, parameters={"mass": {"value": None}}))
    of = {s: {v for i, v in found.items() if i[0] == s} for s in range(3)}
    assert of[1] == {250.0}
    assert of[2] == {1300.0, 1400.0, 1500.0}
    assert of[0] == of[1] | of[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"mass": "gen +"}}, "parameters.mass"),
        ({"parameters": {"mass": {"value": "gen", "vals": [1]}}}, "unknown option 'vals' in parameters.mass"),
        ({"parameters": {"mass": {}}}, "parameters.mass has no value; give it an expression"),
        ({"parameters": {"mass": {"value": "gen", "classes": ["sgnal"]}}}, "parameters.mass.classes"),
        ({"parameters": {"Jet_pt": "gen"}}, "'Jet_pt' is taken or no plain word"),
        ({"derived": {"r": "met / mass"}, "flat": ["r"]}, "derived column 'r' uses 'mass'"),
        ({"parameters": {"entry": "gen"}}, "'entry' is taken or no plain word"),
        ({"cut": "mass > 1"}, "parameters.mass: cut uses 'mass'; a parameter is an input and nothing else"),
        ({"weights": {"up": "mass"}}, "parameters.mass: weights.up uses 'mass'"),
        ({"observers": ["mass"]}, "parameters.mass: observers.mass uses 'mass'"),
        ({"reweight": {"variables": ["mass"], "bins": [2]}}, "parameters.mass: reweight.variables uses 'mass'"),
        ({"split": {"by": "mass % 5", "val": [1]}}, "parameters.mass: split.by uses 'mass'"),
        ({"parameters": {"met": "gen"}}, r"parameters.met: .*background_0\.root has a branch of that name"),
        ({"parameters": {"mass": "genn"}}, "'genn' not found"),
        ({"parameters": {"mass": "gen / 0"}}, "is missing or not finite"),
        ({"parameters": {"mass": {"value": "gen", "classes": "background"}}}, "'gen' not found"),
    ],
)
def test_what_can_not_be_meant_is_one_sentence(files: Path, changes: Any, words: str) -> None:
    with pytest.raises(RootDataError, match=words):
        dataset(files, **changes)


def test_a_sample_names_parameters_that_there_are(files: Path) -> None:
    samples = {"s": {"files": str(files / "signal_*.root"), "label": 1, "parameters": {"mas": 3}}}
    with pytest.raises(ConfigError, match=r"unknown option 'mas' in samples.s.parameters; nearest: 'mass'"):
        dataset(files, samples=samples)


def test_without_any_value_there_is_nothing_to_draw_from(files: Path) -> None:
    with pytest.raises(DataError, match="'mass' has no real value in the training events"):
        dataset(files, samples={"s": {"files": str(files / "signal_*.root")}}, label="event * 0")


def test_nothing_changes_where_there_are_none(files: Path) -> None:
    plain, other = (dataset(files, parameters=p) for p in (None, {"mass": "gen"}))
    assert "mass" not in plain.specs.columns
    for a, b in itertools.islice(zip(plain, other, strict=True), 3):
        assert torch.equal(a["x"][:, 0], b["x"][:, 0])
        assert torch.equal(a["x"][:, 1:], b["x"][:, 2:])
    assert "parameters" not in plain.identity
    assert other.identity["parameters"] == [{"name": "mass", "value": "gen", "classes": [], "values": []}]


def test_it_may_have_the_name_of_the_branch_that_it_is(files: Path) -> None:
    data = dataset(files, parameters={"gen": "gen"})
    assert data._events.scanned.layout.flat == ("met", "gen")
    assert dataset(files, parameters={"hash": "gen"})._events.scanned.layout.flat == ("met", "hash")  # no such branch


@pytest.mark.long
def test_clients_give_it_like_any_other_input(files: Path, tmp_path: Path) -> None:
    data = RootDataModule(**options(files))
    manifest = export(DNN(data.shapes, hidden=[8]).eval(), data, tmp_path / "bundle", num_events=60)
    assert (tmp_path / "bundle" / MODEL).is_file()
    assert {(b.name, b.kind, b.dtype) for b in manifest.branches} >= {("mass", "flat", "float32")}
    assert "gen" not in {b.name for b in manifest.branches}
    assert manifest.parity is not None
    assert {value for value in manifest.parity.columns["mass"] if value is not None} == set(MASSES)
    assert manifest.config().flat == ("met", "mass")
    assert not manifest.config().parameters
    assert manifest.parity.max_difference < 1e-5

    # files have no such branch: whoever scores them says what it is, a number or an expression
    background, signal = (files / f"{name}_0.root" for name in ("background", "signal"))
    with pytest.raises(BranchError, match="branch 'mass' not found"):
        predict(tmp_path / "bundle", str(background), out=tmp_path / "none")
    own = np.asarray(uproot.open(f"{signal}:Events")["gen"].array())
    found = {value: _scores(tmp_path, signal, value) for value in (300, 500.0, "gen")}
    assert (found["gen"] == np.where(own == 300, found[300], found["gen"])).all()
    assert (found["gen"] == np.where(own == 500, found[500.0], found["gen"])).all()
    assert (found[300] != found[500.0]).any()
    for given, words in (
        ({"mas": 1}, "parameters: got 'mas', which is none of the model's; nearest: 'mass'"),
        ({"mass": "gen / 0"}, "parameters: 'mass' is missing or not finite at entry 0"),
        ({"mass": "genn"}, "branch 'genn' not found"),
        ({"mass": "gen +"}, "parameters.mass: not an expression"),
        ({"mass": [500]}, "parameters.mass: got \\[500\\]"),
    ):
        with pytest.raises(RootDataError, match=words):
            predict(tmp_path / "bundle", str(signal), out=tmp_path / "wrong", parameters=given)


def _scores(folder: Path, file: Path, mass: Any) -> Any:
    out = folder / f"friends_{mass}"
    assert predict(folder / "bundle", str(file), out=out, parameters={"mass": mass}).written
    assert predict(folder / "bundle", str(file), out=out, parameters={"mass": mass}).skipped
    return uproot.open(f"{out}/{file.stem}_Friend.root:Friends")["score_signal"].array(library="np")
