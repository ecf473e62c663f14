"""Folds from the files to the answers: each event is scored by the network that never saw it, by every road."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pytest
import torch
import uproot
import yaml

from forks_for_tests import run_script
from rootdata.analysis.friends.predict import predict
from rootdata.bundle.assemble import Assembler, lists_of
from rootdata.bundle.export import export
from rootdata.bundle.graph.conversion import run
from rootdata.bundle.manifest import MODEL, Manifest, open_bundle
from rootdata.errors import BundleError, ConfigError
from rootdata.jagged import Jagged
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.models import DeepSets
from rootdata.table import Table
from serve.app.memory import Room
from serve.codec import media
from serve.handler import Call, Handler
from serve.messages import Reply, Request
from serve.models.engine import Engine
from serve.models.repository import Repository
from serve.processes.metrics import Metrics
from serve.settings import Settings

CLOSE = 1e-6
COUNT, NUM_EVENTS = 3, 240
BY = "event // is_simulated"  # of data, where that is 0, the quotient is missing


def events_of(seed: int, *, is_simulated: bool = True) -> dict[str, Any]:
    """Make up events whose numbers no float64 holds."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2, NUM_EVENTS)
    return {
        "event": np.uint64(2**63) + np.arange(NUM_EVENTS, dtype=np.uint64) * np.uint64(3 * seed + 1),
        "is_simulated": np.full(NUM_EVENTS, is_simulated),
        "met": rng.exponential(40, NUM_EVENTS).astype("f4"),
        "Jet_pt": ak.unflatten(rng.exponential(50, counts.sum()).astype("f4"), counts),
    }


@dataclasses.dataclass(frozen=True)
class Served:
    """The networks of all folds, their data, and their bundle."""

    networks: list[DeepSets]
    modules: list[RootDataModule]
    folder: Path
    manifest: Manifest

    def scores(self, fold: int, part: str = "test") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Score the events of a part as training does: (sample, file, entry), and the score."""
        network, data = self.networks[fold].eval(), self.modules[fold]
        batches = list(getattr(data, f"{part}_dataloader")())
        with torch.no_grad():
            scores = torch.cat([network.scores(batch) for batch in batches])
        return torch.cat([batch["index"] for batch in batches]).numpy(), scores.numpy()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[..., Path]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    made = {f"s{seed}": events_of(seed) for seed in (1, 2)} | {"data": events_of(3, is_simulated=False)}
    return {name: write_tree(folder / f"{name}.root", events, step=50) for name, events in made.items()}


def options_of(files: dict[str, Path], fold: int, **changes: Any) -> dict[str, Any]:
    return {
        "samples": {f"s{i}": {"files": str(files[f"s{i}"]), "label": i - 1} for i in (1, 2)},
        "flat": ["met"], "jagged": {"jets": {"branches": ["Jet_pt"], "length": 3}}, "layout": "tokens",
        "folds": {"count": COUNT, "by": BY}, "fold": fold, **changes,
    }  # fmt: skip


def data_of(files: dict[str, Path], fold: int, **changes: Any) -> RootDataModule:
    return RootDataModule(**options_of(files, fold, **{"index": True, **changes}))


@pytest.fixture(scope="module")
def served(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Served:
    modules = [data_of(files, fold) for fold in range(COUNT)]
    networks = []
    for fold, data in enumerate(modules):
        torch.manual_seed(fold)
        networks.append(DeepSets(data.shapes, phi=[4], rho=[4]))
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export(networks, modules, folder)
    return Served(networks, modules, folder, open_bundle(folder))


def table_of_file(path: Path, manifest: Manifest) -> Table:
    with uproot.open(path) as file:
        columns = {branch.name: file["Events"][branch.name].array() for branch in manifest.branches}
    made = {n: Jagged.from_awkward(c) if c.ndim == 2 else np.asarray(c) for n, c in columns.items()}
    return Table(num_events=NUM_EVENTS, columns=made)


def by_onnx(folder: Path, table: Table) -> npt.NDArray[np.float32]:
    return run((folder / MODEL).read_bytes(), Assembler(open_bundle(folder))(table))[:, 0]


def test_each_network_has_events_that_no_other_part_of_it_has(served: Served) -> None:
    for data in served.modules:
        parts = [served.scores(data.data.fold or 0, part)[0] for part in ("train", "val", "test")]
        together = np.concatenate(parts)
        assert len(np.unique(together, axis=0)) == len(together) == 2 * NUM_EVENTS
    tested = np.concatenate([served.scores(fold)[0] for fold in range(COUNT)])
    assert len(np.unique(tested, axis=0)) == len(tested) == 2 * NUM_EVENTS


@pytest.mark.parametrize("by", [BY, pytest.param(None, marks=pytest.mark.long)])
def test_whoever_reads_and_goes_on_has_the_same_events_of_each_fold(files: dict[str, Path], by: str | None) -> None:
    tested: list[Any] = []
    for fold in range(COUNT):
        plain = options_of(files, fold, folds={"count": COUNT, "by": by}, batch_size=32)
        mine: dict[str, list[Any]] = {}
        for part in ("train", "val", "test"):
            whole = RootDataset(plain, part, index=True)
            again = {"specs": whole.specs, "index": True}
            mine[part] = sorted(events_in(whole.batches(0)))
            assert sorted(events_in(RootDataset(plain, part, num_workers=3, **again).batches(0))) == mine[part]
            ranks = [RootDataset(plain, part, rank=r, world_size=2, **again) for r in (0, 1)]
            assert sorted(e for rank in ranks for e in events_in(rank.batches(0))) == mine[part]
            first = events_in(itertools.islice(whole.batches(0), 1))
            assert sorted(first + events_in(whole.batches(0, start=1))) == mine[part]
        together = [event for events in mine.values() for event in events]
        assert len(set(together)) == len(together) == 2 * NUM_EVENTS
        tested += mine["test"]
    assert len(set(tested)) == len(tested) == 2 * NUM_EVENTS


def events_in(batches: Any) -> list[tuple[int, ...]]:
    """Say which events come: (sample, file, entry) of each."""
    return [tuple(event) for batch in batches for event in batch["index"].tolist()]


def test_a_bundle_scores_each_event_by_the_network_that_never_saw_it(served: Served, files: dict[str, Path]) -> None:
    found = {
        sample: by_onnx(served.folder, table_of_file(files[f"s{sample + 1}"], served.manifest)) for sample in (0, 1)
    }
    for fold in range(COUNT):
        index, scores = served.scores(fold)
        mine = np.array([found[sample][entry] for sample, _, entry in index])
        np.testing.assert_allclose(mine, scores, rtol=0, atol=CLOSE)

    swapped = Served([*served.networks[1:], served.networks[0]], served.modules, served.folder, served.manifest)
    assert abs(swapped.scores(0)[1] - served.scores(0)[1]).max() > 100 * CLOSE  # it is seen whose score it is


def test_events_that_no_fold_has_get_the_mean(served: Served, files: dict[str, Path]) -> None:
    table = table_of_file(files["data"], served.manifest)
    found, tensors = by_onnx(served.folder, table), Assembler(served.manifest)(table)
    assert np.isnan(tensors["fold"]).all()
    graph = (served.folder / MODEL).read_bytes()
    of_each = [run(graph, {**tensors, "fold": np.full((NUM_EVENTS, 1), fold, "f8")})[:, 0] for fold in range(COUNT)]
    np.testing.assert_allclose(found, np.mean(of_each, axis=0), rtol=0, atol=CLOSE)
    for number in (np.nan, np.inf, -1.0):
        assert run(graph, {**tensors, "fold": np.full((NUM_EVENTS, 1), number)})[:, 0] == pytest.approx(
            found, abs=CLOSE
        )
    assert run(graph, {**tensors, "fold": np.full((NUM_EVENTS, 1), COUNT + 1.0)})[:, 0] == pytest.approx(
        of_each[1], abs=CLOSE
    )


def test_the_manifest_says_which_network_it_is(served: Served) -> None:
    folds = served.manifest.folds
    assert folds is not None
    assert (folds.count, folds.by, folds.rule, folds.feature) == (COUNT, BY, "expression", "fold")
    assert len({scaling["met"].shift for scaling in folds.scaling}) == COUNT  # each is scaled by its own events
    assert served.manifest.scaling is None
    assert served.manifest.selection is not None
    assert served.manifest.selection.split == {}
    assert {"event", "is_simulated"} < {branch.name for branch in served.manifest.branches}
    assert served.manifest.parity is not None
    assert served.manifest.parity.max_difference < CLOSE


def test_an_answer_says_where_the_fold_is_missing(handler: Handler) -> None:
    events = [{"event": 7, "is_simulated": simulated, "met": 9.0, "Jet_pt": [50.0]} for simulated in (True, False)]
    call = Call(road="physics", model="folds", content_type=media.JSON, options={"explain": ""})
    reply = asyncio.run(handler.answer(handler.prepare(call), orjson.dumps({"events": events})))
    told = orjson.loads(reply.body)
    assert ["fold" in one["missing"] for one in told["explain"]] == [False, True], told


@pytest.mark.long
def test_a_hash_can_not_be_known_to_a_graph(files: dict[str, Path], served: Served, tmp_path: Path) -> None:
    modules = [data_of(files, fold, folds=COUNT) for fold in range(COUNT)]
    manifest = export(served.networks, modules, tmp_path / "bundle")
    assert manifest.folds is not None
    assert (manifest.folds.count, manifest.folds.by, manifest.folds.rule) == (COUNT, None, "average")
    assert "event" not in {branch.name for branch in manifest.branches}
    hashed = Served(served.networks, modules, tmp_path / "bundle", manifest)
    mean = np.zeros(NUM_EVENTS)
    for fold in range(COUNT):
        for part in ("train", "val", "test"):
            index, scores = hashed.scores(fold, part)
            first = index[:, 0] == 0
            mean[index[first, 2]] += scores[first] / COUNT
    found = by_onnx(hashed.folder, table_of_file(files["s1"], manifest))
    np.testing.assert_allclose(found, mean, rtol=0, atol=CLOSE)


def test_friend_trees_have_the_score_of_the_network_that_never_saw_the_event(
    served: Served, files: dict[str, Path], tmp_path: Path
) -> None:
    predict(served.folder, [str(files["s1"]), str(files["data"])], out=tmp_path)
    for name in ("s1", "data"):
        with uproot.open(next(tmp_path.rglob(f"{name}*.root"))) as file:
            found = file["Friends"]["score_signal"].array(library="np")
        expected = by_onnx(served.folder, table_of_file(files[name], served.manifest))
        np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)
    with pytest.raises(ConfigError, match="parts: the model is 3 networks"):
        predict(served.folder, [str(files["s1"])], out=tmp_path / "other", parts=True)


@pytest.mark.parametrize("kept", [[0, 1], [0, 1, 1], [0]])
def test_networks_of_some_folds_are_no_bundle(served: Served, tmp_path: Path, kept: list[int]) -> None:
    with pytest.raises(BundleError, match="give one of each"):
        export([served.networks[k] for k in kept], [served.modules[k] for k in kept], tmp_path / "bundle")


# Roads


class Here:
    """A pool without processes."""

    pending, is_able = 0, True

    def __init__(self, settings: Settings) -> None:
        self._engine = Engine(settings)

    def show_counts_soon(self) -> None:
        pass

    async def submit(self, request: Request) -> Reply:
        if request.path is not None:
            *_, reply = self._engine.begin(request)
            return reply
        [reply] = self._engine.answer([request])
        return reply if isinstance(reply, Reply) else list(reply)[-1]


@pytest.fixture(scope="module")
def handler(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handler]:
    folder = tmp_path_factory.mktemp("server")
    Repository(folder / "models").publish(served.folder, "folds")
    settings, metrics = Settings(models=folder / "models"), Metrics(folder / "metrics")
    yield Handler.of(settings, pool=Here(settings), metrics=metrics, folder=folder, room=Room(1 << 20))
    metrics.close()


def asked(handler: Handler, body: bytes, content_type: str = media.JSON) -> tuple[int, Any]:
    call = Call(road="physics", model="folds", content_type=content_type)
    reply = asyncio.run(handler.answer(handler.prepare(call), body))
    return reply.status, orjson.loads(reply.body)


def answered(handler: Handler, body: bytes, content_type: str = media.JSON) -> npt.NDArray[np.float32]:
    status, answer = asked(handler, body, content_type)
    assert status == 200, answer
    return np.asarray(answer["scores"]["signal"], np.float32)


def roads(handler: Handler, table: Table, file: Path) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    from serve.codec import binary

    lists = lists_of(table)
    events = [{name: values[i] for name, values in lists.items()} for i in range(table.num_events)]
    yield "events", answered(handler, orjson.dumps({"events": events}))
    yield "one event", np.concatenate([answered(handler, orjson.dumps({"events": [event]})) for event in events[:20]])
    yield "columns", answered(handler, orjson.dumps({"columns": lists}))
    yield "binary", answered(handler, binary.encode(table), media.COLUMNS)
    arrays = {
        n: ak.to_arrow(c.to_awkward() if isinstance(c, Jagged) else c, extensionarray=False)
        for n, c in table.columns.items()
    }
    sink = pa.BufferOutputStream()
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    yield "arrow", answered(handler, bytes(sink.getvalue()), media.ARROW)
    call = Call(road="physics", model="folds", content_type=media.ROOT, accept=media.ROOT)
    reply = asyncio.run(handler.answer_file(handler.prepare(call), file))
    with uproot.open(str(reply.path)) as answer:
        yield "root", answer["scores"]["score_signal"].array(library="np")


@pytest.mark.parametrize("name", ["s1", "data"])
def test_every_road_gives_the_same(handler: Handler, served: Served, files: dict[str, Path], name: str) -> None:
    table = table_of_file(files[name], served.manifest)
    expected = by_onnx(served.folder, table)
    for road, scores in roads(handler, table, files[name]):
        np.testing.assert_allclose(scores, expected[: len(scores)], rtol=0, atol=CLOSE, err_msg=road)


def test_events_without_the_branch_of_the_fold_are_refused(handler: Handler) -> None:
    body = orjson.dumps({"events": [{"met": 1.0, "Jet_pt": [], "is_simulated": True}]})
    status, answer = asked(handler, body)
    assert (status, answer["error"]["message"]) == (422, "branch 'event' is missing in event 0; the model needs it")


# The command

ROOT = Path(__file__).parents[1]
QUICK = ["trainer=cpu", "trainer.enable_progress_bar=false", "~callbacks.progress", "trainer.num_sanity_val_steps=0"]
QUICK += ["callbacks.score_report.plots=false"]


def train(folder: Path, *words: str, status: int = 0) -> str:
    """Run the script in a folder that has somebody's files and configuration, and return what it printed."""
    return run_script(folder, "--config-dir", str(folder / "configs"), "data=mine", *words, status=status)


def of_mine(files: dict[str, Path], folder: Path) -> list[str]:
    """Write a configuration of data; return the words that train small networks on it."""
    config = {
        "samples": {f"s{i}": {"files": str(files[f"s{i}"]), "label": i - 1} for i in (1, 2)},
        "flat": ["met"], "jagged": {"jets": {"branches": ["Jet_pt"], "length": 3}}, "observers": ["met"],
    }  # fmt: skip
    (folder / "configs" / "data").mkdir(parents=True)
    (folder / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump(config))
    return [*QUICK, "trainer.max_epochs=1", "model.hidden=[8]", "data.batch_size=50", "model.lr=0.01"]


def scored(folder: Path) -> Any:
    with uproot.open(folder / "oof_scores.root") as file:
        return file["scores"].arrays(library="np")


@pytest.mark.long
def test_one_command_trains_all_folds_and_goes_on_where_it_was_stopped(files: dict[str, Path], tmp_path: Path) -> None:
    words = ["experiment=kfold", f"data.folds={{count: {COUNT}, by: '{BY}'}}", *of_mine(files, tmp_path)]
    printed = train(tmp_path, *words)
    [run_folder] = list((tmp_path / "outputs" / "mine_dnn_folds").iterdir())
    assert (tmp_path / "outputs" / "mine_dnn" / "latest").resolve() == run_folder
    for fold in range(COUNT):
        of_fold = {path.name for path in (run_folder / f"fold_{fold}").iterdir()}
        assert {"roc.json", "metrics.json", "specs.json", "config.yaml", "fold_scores.npz"} <= of_fold
        assert "bundle" not in of_fold
    figures = json.loads((run_folder / "metrics.json").read_text())
    areas = [json.loads((run_folder / f"fold_{fold}" / "metrics.json").read_text())["auc"] for fold in range(COUNT)]
    assert figures["folds"]["auc"]["values"] == areas
    assert figures["auc_mean"] == pytest.approx(np.mean(areas))
    assert figures["auc_spread"] == pytest.approx(np.std(areas, ddof=1))
    assert figures["events"] == 2 * NUM_EVENTS
    assert f"{figures['auc_mean']:.5g} ± " in printed
    # what was written is what is served
    events, manifest = scored(run_folder), open_bundle(run_folder / "bundle")
    served = [by_onnx(run_folder / "bundle", table_of_file(files[f"s{i}"], manifest)) for i in (1, 2)]
    np.testing.assert_allclose(np.concatenate(served), events["score_signal"], rtol=0, atol=CLOSE)
    assert events["fold"].tolist() == [int(v) % COUNT for i in (1, 2) for v in events_of(i)["event"]]
    assert manifest.metrics["auc"] == pytest.approx(figures["auc"])
    # stopped in the middle
    weights = {path: path.stat().st_mtime_ns for path in run_folder.glob("fold_[01]/checkpoints/*.ckpt")}
    shutil.rmtree(run_folder / "fold_2")
    for name in ("oof_scores.root", "metrics.json"):
        (run_folder / name).unlink()
    printed = train(tmp_path, *words, "resume=auto", "export=false")
    assert f"going on with the folds in outputs/mine_dnn_folds/{run_folder.name}" in printed
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
    assert list((tmp_path / "outputs" / "mine_dnn_folds").iterdir()) == [run_folder]
    again = scored(run_folder)
    for name, values in events.items():
        np.testing.assert_array_equal(again[name], values)


@pytest.mark.long
@pytest.mark.parametrize(
    "model", ["lightgbm", *(pytest.param(model, marks=pytest.mark.matrix) for model in ("xgboost", "sklearn"))]
)
def test_one_command_trains_trees_of_all_folds_into_one_bundle(
    files: dict[str, Path], tmp_path: Path, model: str
) -> None:
    pytest.importorskip(model, reason=f"needs {model}")
    of_mine(files, tmp_path)
    more = ["+model.estimator.max_iter=5"] if model == "sklearn" else ["model.trees=3", "trainer.max_epochs=1"]
    train(tmp_path, "experiment=kfold", f"data.folds={{count: {COUNT}, by: '{BY}'}}", f"model={model}", *QUICK, *more)
    [run_folder] = list((tmp_path / "outputs" / f"mine_{model}_folds").iterdir())
    events, manifest = scored(run_folder), open_bundle(run_folder / "bundle")
    assert manifest.folds is not None
    assert (manifest.folds.count, manifest.folds.feature) == (COUNT, "fold")
    served = [by_onnx(run_folder / "bundle", table_of_file(files[f"s{i}"], manifest)) for i in (1, 2)]
    np.testing.assert_allclose(np.concatenate(served), events["score_signal"], rtol=0, atol=2 * CLOSE)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment=kfold", "data.folds={count: 3, by: met}"], "expected one whole number an event"),
        (["data.folds=3"], "no `fold`; name the one that is tested, fold=0 to fold=2, or train all of them"),
    ],
)
def test_folds_that_can_not_be_trained_are_refused_before_the_first(
    files: dict[str, Path], tmp_path: Path, words: list[str], said: str
) -> None:
    sentence = train(tmp_path, *words, *of_mine(files, tmp_path), status=2)
    assert said in sentence
    assert len(sentence.splitlines()) == 1
    assert not list(tmp_path.rglob("*.ckpt"))
