"""The distance correlation against its definition, and as a term of the loss."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import make_events, write
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.errors import ConfigError, DataError, RootDataError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.cnn import CNN
from rootdata.models.deepsets import DeepSets
from rootdata.models.dnn import DNN
from rootdata.models.encodedsets import EncodedSets
from rootdata.models.losses.disco import Decorrelator, Ranks, distance_correlation, few, parse_decorrelation
from rootdata.models.mlp import MLP

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


def definition(scores: Any, column: Any, weight: Any) -> float:
    """Compute it by the expectation values over one, two and three events that it is defined by, in float64."""
    scores = np.asarray(scores, np.float64).reshape(len(scores), -1)
    w = np.asarray(weight, np.float64) / np.asarray(weight, np.float64).sum()
    a = np.sqrt(((scores[:, None] - scores[None]) ** 2).sum(-1))
    b = np.abs(np.subtract.outer(*[np.asarray(column, np.float64)] * 2))

    def covariance(one: Any, other: Any) -> float:
        first = np.einsum("i,j,ij,ij", w, w, one, other)
        second = np.einsum("i,j,ij", w, w, one) * np.einsum("i,j,ij", w, w, other)
        third = np.einsum("i,j,k,ij,ik", w, w, w, one, other)
        return float(first + second - 2 * third)

    spreads = covariance(a, a), covariance(b, b)
    return float(np.clip(covariance(a, b) / np.sqrt(np.prod(spreads)), 0, 1)) if min(spreads) > 0 else 0.0


def made(seed: int, n: int, *, columns: int = 1) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    scores = rng.random((n, columns)).astype("f4")
    column = (rng.normal(0, 1, n) + 3 * scores[:, 0] ** 2).astype("f4")
    return (scores[:, 0] if columns == 1 else scores), column, rng.random(n) + 0.1


@given(seed=st.integers(0, 10**6), n=st.integers(3, 40), columns=st.sampled_from([1, 3]), signs=st.booleans())
@settings(max_examples=40, deadline=None)
def test_it_is_the_one_of_the_definition(seed: int, n: int, columns: int, signs: bool) -> None:
    scores, column, weight = made(seed, n, columns=columns)
    if signs:  # a fifth of the events counts against the others, as at next-to-leading order
        weight = np.where(np.arange(n) % 5 == 4, -0.2, weight + 0.5)
    got = distance_correlation(torch.tensor(scores), torch.tensor(column), torch.tensor(weight).float())
    expected = definition(scores, column, weight.astype("f4"))
    assert float(got) == pytest.approx(expected, abs=2e-5)


def test_ends_of_the_scale_and_what_does_not_matter() -> None:
    scores, column, weight = (torch.tensor(v) for v in made(1, 500))
    value = float(distance_correlation(scores, column, weight))
    assert float(distance_correlation(scores, 3 * scores - 1)) == pytest.approx(1, abs=1e-5)
    assert value == pytest.approx(float(distance_correlation(scores * 5 - 2, column * 1e-3, weight * 7)), abs=1e-5)
    # a mass in other units, and one far from 0 whose differences float32 would lose
    assert value == pytest.approx(float(distance_correlation(scores, column.double() * 100 + 1e12, weight)), abs=1e-4)
    far = torch.where(column > 1, 3e38, -3e38)  # whose difference is no float32
    assert float(distance_correlation(scores, far)) == pytest.approx(float(distance_correlation(scores, column > 1)))
    independent = distance_correlation(scores, torch.rand(500, generator=torch.Generator().manual_seed(2)))
    assert 0 <= float(independent) < 0.02 < value
    # a weight of 2 is an event that comes twice
    twice = torch.cat([torch.arange(500), torch.arange(250)])
    doubled = distance_correlation(scores, column, torch.where(torch.arange(500) < 250, 2.0, 1.0))
    assert float(doubled) == pytest.approx(float(distance_correlation(scores[twice], column[twice])), abs=1e-5)


@pytest.mark.parametrize(
    ("scores", "column", "weight"),
    [
        (torch.full((20,), 0.3), torch.arange(20.0), None),
        (torch.rand(20), torch.full((20,), 91.2), None),
        (torch.rand(20), torch.ones(20, dtype=torch.int64), None),
        (torch.rand(20), torch.arange(20.0), torch.zeros(20)),
        (torch.rand(20), torch.arange(20.0), torch.tensor([1.0, -1.0] * 10)),
        (torch.rand(1), torch.rand(1), None),
        (torch.rand(0), torch.rand(0), None),
    ],
)
def test_where_there_is_none_it_is_nothing_and_pulls_nowhere(scores: Any, column: Any, weight: Any) -> None:
    scores = scores.clone().requires_grad_()
    found = distance_correlation(scores, column, weight)
    found.backward()  # type: ignore[no-untyped-call]
    assert float(found.detach()) == 0
    assert not scores.grad.any()


def test_the_gradient_is_that_of_the_definition() -> None:
    scores, column, weight = (torch.tensor(v) for v in made(3, 12))
    scores = scores.requires_grad_()
    distance_correlation(scores, column, weight).backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    for i in range(12):
        moved = [scores.detach().double().numpy() + sign * step * (np.arange(12) == i) for sign in (1, -1)]
        slope = (definition(moved[0], column, weight) - definition(moved[1], column, weight)) / (2 * step)
        assert float(scores.grad[i]) == pytest.approx(slope, abs=1e-3)


def test_descending_makes_a_score_independent() -> None:
    scores, column, _ = (torch.tensor(v) for v in made(4, 200))
    scores = scores.clone().requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=0.02)
    before = float(distance_correlation(scores, column).detach())
    for _ in range(60):
        optimizer.zero_grad()
        distance_correlation(scores, column).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(distance_correlation(scores, column).detach()) < before / 5


def test_memory_is_bounded_by_a_subset_that_is_always_the_same() -> None:
    chosen = few(10_000, 2048)
    assert chosen is not None
    assert len(chosen.unique()) == 2048
    assert (int(chosen[0]), int(chosen[-1])) == (0, 9995)
    assert few(2048, 2048) is None
    n = 5000
    batch = {"label": torch.zeros(n, dtype=torch.int64), "observers/m": torch.rand(n)}
    disco, scores = Decorrelator(parse_decorrelation({"columns": ["m"]}), 2), torch.rand(n)  # type: ignore[arg-type]
    found, used = disco.of(scores, batch)
    assert used == 2048
    assert float(found) == float(disco.of(scores, batch)[0])


def test_only_the_chosen_events_with_a_value_count() -> None:
    scores, column, weight = (torch.tensor(v).float() for v in made(5, 90))
    label = torch.arange(90) % 3
    column[::10], column[5::10] = float("nan"), -999.0
    batch = {"label": label, "weight": weight, "observers/m": column, "observers/n": column.nan_to_num(0) ** 2}
    for on, wanted in (("background", [0]), ("all", [0, 1, 2])):
        disco = Decorrelator(parse_decorrelation({"columns": ["m"], "classes": on}), 3)  # type: ignore[arg-type]
        disco._missing = {"m": (-999.0,)}
        rows = np.isin(label, wanted) & np.isfinite(column.numpy()) & (column.numpy() != -999)
        got, used = disco.of(scores, batch)
        assert used == rows.sum()
        assert float(got) == pytest.approx(definition(scores[rows], column[rows], weight[rows]), abs=2e-5)
    both = Decorrelator(parse_decorrelation({"columns": ["m", "n"], "classes": "all"}), 3)  # type: ignore[arg-type]
    alone = Decorrelator(parse_decorrelation({"columns": "n", "classes": "all"}), 3)  # type: ignore[arg-type]
    first = Decorrelator(parse_decorrelation({"columns": "m", "classes": "all"}), 3)  # type: ignore[arg-type]
    total = float(both.of(scores, batch)[0])
    assert total == pytest.approx(sum(float(one.of(scores, batch)[0]) for one in (alone, first)))


class Threads:
    """Ranks as threads of this process: what each gives is stacked once all have given it."""

    def __init__(self, count: int) -> None:
        self._given: list[Any] = [None] * count
        self._all = threading.Barrier(count, timeout=30)

    def rank(self, number: int) -> Ranks:
        def gather(own: torch.Tensor) -> torch.Tensor:
            self._given[number] = own
            self._all.wait()
            stacked = torch.stack(self._given)
            self._all.wait()
            return stacked

        return Ranks(number=number, count=len(self._given), gather=gather)


@given(data=st.data(), n=st.integers(0, 60), world=st.integers(2, 4), columns=st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_parts_of_a_batch_have_the_loss_and_the_gradient_of_the_whole(
    data: st.DataObject, n: int, world: int, columns: int
) -> None:
    scores, column, weight = (torch.tensor(v).float() for v in made(n, n, columns=columns))
    label, weight = torch.arange(n) % 3, torch.where(torch.arange(n) % 7 == 3, -0.1, weight)
    column[::5] = float("nan")
    batch = {"label": label, "weight": weight, "observers/m": column, "observers/n": torch.arange(n) ** 2}
    disco = Decorrelator(parse_decorrelation({"columns": ["m", "n"]}), 3)  # type: ignore[arg-type]
    whole = scores.clone().requires_grad_()
    expected, used = disco.of(whole, batch)
    expected.backward()  # type: ignore[no-untyped-call]

    cuts = sorted(data.draw(st.lists(st.integers(0, n), min_size=world - 1, max_size=world - 1), label="cuts"))
    parts, threads = list(itertools.pairwise([0, *cuts, n])), Threads(world)

    def part(number: int) -> tuple[float, int, torch.Tensor]:
        rows = slice(*parts[number])
        own = scores[rows].clone().requires_grad_()
        found, of = disco.of(own, {k: v[rows] for k, v in batch.items()}, ranks=threads.rank(number))
        found.backward()  # type: ignore[no-untyped-call]
        return float(found.detach()), of, own.grad

    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(part, range(world)))
    assert {of for _, of, _ in found} == {used}
    for value, _, _ in found:
        assert value == pytest.approx(float(expected.detach()), abs=1e-6)
    together = torch.cat([gradient for *_, gradient in found])  # ranks average theirs
    torch.testing.assert_close(together / world, whole.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"columns": []}, "decorrelate.columns is empty"),
        ({"strength": 2}, "decorrelate.columns is empty"),
        ({"columns": ["m"], "strength": -1}, "strength: got -1, which would reward a correlation"),
        ({"columns": ["m"], "strength": float("nan")}, "expected a finite number"),
        ({"columns": ["m"], "strenght": 1}, "unknown option 'strenght' in model.decorrelate; nearest: 'strength'"),
        ({"columns": ["m", "m"]}, "'m' is listed twice"),
        ({"columns": ["m"], "classes": []}, "allowed: background, all, or names of classes"),
        ({"columns": ["m"], "classes": ["all", "QCD"]}, "allowed: background, all, or names of classes"),
        (["m"], "model.decorrelate: got"),
    ],
)
def test_what_can_not_be_meant_is_refused(plain: Any, words: str) -> None:
    with pytest.raises(RootDataError, match=words):
        DNN({"x": (3,), "mask": (3,)}, decorrelate=plain)


def test_a_network_without_a_score_has_nothing_to_decorrelate() -> None:
    heads = {"m": {"kind": "regression", "loss": "mse"}}
    with pytest.raises(ConfigError, match="no head of kind 'classification'"):
        DNN({"x": (3,), "mask": (3,)}, heads=heads, decorrelate={"columns": ["m"]})


def test_classes_are_called_by_their_names() -> None:
    options = parse_decorrelation({"columns": ["m"], "classes": ["ttbar", "QCD"]})
    assert options is not None
    assert options.labels(["QCD", "ttH", "ttbar"]) == (2, 0)
    with pytest.raises(ConfigError, match=r"classes: got 'ttbar'; nearest: 'ttbarr'"):
        options.labels(["QCD", "ttH", "ttbarr"])
    with pytest.raises(ConfigError, match="names that a RootDataModule knows"):
        Decorrelator(options, 3).labels  # noqa: B018
    usual = parse_decorrelation({"columns": ["m"]})
    assert usual is not None
    assert usual.labels(["QCD", "ttH"]) == (0,)
    with pytest.raises(ConfigError, match="classes: got 'background'"):
        usual.labels(["QCD", "ttH", "ttbar"])


# With data


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disco")
    for k in range(2):
        write(folder / f"{k}.root", make_events(400, seed=k), steps=(100, 200))
    return folder


def make_data(files: Path, **changes: Any) -> RootDataModule:
    options: dict[str, Any] = {
        "samples": {"a": {"files": str(files / "*.root")}},
        "label": "is_signal",
        "weight": "weight",
        "flat": ["met"],
        "jagged": {"jets": {"branches": ["Jet_pt"], "length": 3}},
        "batch_size": 64,
        "derived": {"same": "is_signal", "nothing": "met * 0", "other": "1 - is_signal", "ht": "sum(Jet_pt)"},
        "observers": ["met", "same", "nothing", "other", "is_signal", "ht"],
        "observe_training": True,
        **changes,
    }
    return RootDataModule(**options)


def make_trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(**{**quiet, "max_epochs": 1, "enable_checkpointing": False, **options})


@pytest.mark.parametrize(
    ("changes", "decorrelate", "words"),
    [
        ({}, {"columns": ["mett"]}, "'mett' is no observer of the data; nearest: 'met'"),
        ({"observers": None}, {"columns": ["met"]}, "'met' is no observer of the data; the data have none"),
        ({"observe_training": False}, {"columns": ["met"]}, "set data.observe_training=true"),
        ({}, {"columns": ["is_signal"]}, "'is_signal' is the label"),
        ({}, {"columns": ["same"]}, "'same' is the label"),
        (
            {"label": "is_signal > 0"},
            {"columns": ["same"]},
            r"'same' is constant \(0\) in the training events of backg",
        ),
        ({}, {"columns": ["other"], "classes": "all"}, "'other' follows from the label alone"),
        ({}, {"columns": ["met", "nothing"]}, r"'nothing' is constant \(0\)"),
        ({"derived": {"no": "met / 0"}, "observers": ["no"]}, {"columns": ["no"]}, "'no' has no value"),
        ({}, {"columns": ["met"], "classes": "signl"}, "classes: got 'signl'; nearest: 'signal'"),
    ],
)
def test_columns_are_looked_at_before_the_first_batch(files: Path, changes: Any, decorrelate: Any, words: str) -> None:
    data = make_data(files, **changes)
    network = DNN(data.shapes, hidden=[4], decorrelate=decorrelate)
    with pytest.raises((ConfigError, DataError), match=words):
        make_trainer().fit(network, data)


def test_a_target_is_no_column_to_decorrelate_from(files: Path) -> None:
    data = make_data(files, targets={"m": "2 * met"}, observers={"m": "2*met"})
    heads = {"class": {"kind": "classification"}, "m": {"kind": "regression", "loss": "mse"}}
    network = DNN(data.shapes, hidden=[4], heads=heads, decorrelate={"columns": ["m"]})
    with pytest.raises(ConfigError, match="is the target 'm', which the network is to predict"):
        make_trainer().fit(network, data)


def test_it_is_logged_and_part_of_the_loss(files: Path) -> None:
    logged = {}
    for strength in (0, 3):
        data = make_data(files)
        data.setup()
        torch.manual_seed(1)
        network = DNN(data.shapes, hidden=[4], dropout=0, decorrelate={"columns": ["met", "ht"], "strength": strength})
        trainer = make_trainer(limit_train_batches=1)
        trainer.fit(network, data)
        logged[strength] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert {"train/disco", "val/disco"} <= logged[strength].keys() == set(network.logged)
        assert all(0 < logged[strength][f"{part}/disco"] < 2 for part in ("train", "val"))
    # the first step sees the same network: the losses differ by the term alone
    first, second = logged[0], logged[3]
    assert second["train/disco"] == pytest.approx(first["train/disco"])
    assert second["train/loss"] - first["train/loss"] == pytest.approx(3 * first["train/disco"], rel=1e-4)


AS_RANKS = """
import json, os, sys
import pytorch_lightning as pl
import torch
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.dnn import DNN
options, decorrelate, folder, port = json.loads(sys.argv[1])

class Net(DNN):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)

def train(rank, world):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": str(port),
                   "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                   "TORCHELASTIC_RUN_ID": "ranks"}
    torch.set_num_threads(1)
    torch.manual_seed(4)
    data = RootDataModule(**options)
    network = Net(data.shapes, hidden=[8], dropout=0.0, decorrelate=decorrelate)
    trainer = pl.Trainer(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", max_epochs=1,
                         logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.fit(network, data)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = [value for p in network.parameters() for value in p.detach().flatten().tolist()]
    open(f"{folder}/{world}_{rank}.json", "w").write(json.dumps([figures, weights]))

for rank, world in ((0, 1), (0, 2), (1, 2)):
    if not os.fork():
        status = 1
        try:
            train(rank, world)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
sys.exit(any(os.wait()[1] for _ in range(3)))
"""


@pytest.mark.long
@pytest.mark.parametrize("num_val", [90, 91])  # of the 91st event a rank has no batch
def test_two_ranks_train_as_one(files: Path, tmp_path: Path, num_val: int) -> None:
    options = {
        "samples": {"a": {"files": str(files / "*.root")}}, "label": "is_signal", "weight": "weight", "flat": ["met"],
        "observers": ["met"], "observe_training": True, "batch_size": 90, "chunk_size": 180, "drop_last": True,
        "split": {"by": f"event % 1000 >= 45 + {num_val - 90} * (event < 1000)", "val": [0], "test": []},
    }  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # the validation events are those of one batch, which is of the same events then
    asked = json.dumps([options, {"columns": ["met"], "strength": 1}, str(tmp_path), port])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ROOTDATA_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", AS_RANKS, asked], env=environment, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (alone, weights), *ranks = (
        json.loads((tmp_path / name).read_text()) for name in ("1_0.json", "2_0.json", "2_1.json")
    )
    assert alone["train/disco"] > 0.01
    for figures, of_rank in ranks:
        np.testing.assert_allclose(of_rank, weights, rtol=1e-5, atol=1e-6)
        assert figures == pytest.approx(alone, rel=1e-5 if num_val == 90 else 0.1)


def test_a_batch_without_the_column_says_what_to_give() -> None:
    network = DNN({"x": (3,), "mask": (3,)}, decorrelate={"columns": ["m"]})
    batch = {"x": torch.rand(4, 3), "label": torch.tensor([0, 1, 0, 1])}
    with pytest.raises(ConfigError, match=r"hold no observer 'm'; give the data observers=\['m'\]"):
        network.training_step(batch, 0)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (DNN, {"x": (4,), "mask": (4,)}),
        (MLP, {"x": (4,), "mask": (4,)}),
        (DeepSets, {"flat": (2,), "jets": (3, 2), "jets_mask": (3,)}),
        (EncodedSets, {"flat": (2,), "flat_mask": (2,), "jets": (3, 2), "jets_mask": (3,)}),
        (CNN, {"jets": (2, 8, 8)}),
    ],
)
def test_every_network_takes_it_and_checkpoints_hold_it_plain(kind: Any, shapes: Any) -> None:
    network = kind(shapes, decorrelate={"columns": ("m",), "strength": 2})
    assert network.decorrelation.options.columns == ("m",)
    assert network.hparams["decorrelate"] == {"columns": ["m"], "strength": 2}
    assert kind(shapes).decorrelation is None
