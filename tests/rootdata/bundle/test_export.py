"""Bundles: the same scores as torch, from files to answers; whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundles_for_tests import (
    Attention,
    Count,
    PlainMean,
    batches_of,
    branches_of,
    make_data,
    scores_of,
    scores_of_table,
    session_of,
)
from torch import Tensor, nn

import rootdata.bundle.export as exporting
from rootdata import cache_folder, disk
from rootdata.bundle import trial
from rootdata.bundle.assemble import Assembler, table_of
from rootdata.bundle.export import export
from rootdata.bundle.folder import write
from rootdata.bundle.graph.conversion import METADATA
from rootdata.bundle.manifest import MANIFEST, MODEL, PREPROCESS, open_bundle
from rootdata.errors import BundleError, FileError
from rootdata.models import DNN
from rootdata.scan.scanned import layout_of
from rootdata.table import concatenate, take
from strategies import SENTINEL, columns_of

TINY = 1e-6


@pytest.fixture(scope="module")
def attention(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Attention with batch normalisation in the middle of a training, and its bundle."""
    torch.manual_seed(2)
    data = make_data(samples, classes=["a", "b", "c"])
    network, folder = Attention(data), tmp_path_factory.mktemp("attention") / "bundle"
    network.attend.eval()
    network(**{name: batches_of(data)[name] for name in ("flat", "jets", "jets_mask")})  # moves the running means
    return network, data, folder, export(network, data, folder, reveal_empty=True)


@pytest.fixture(scope="module")
def chain(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A chain of layers on vectors with (events, 1) logits, and its bundle."""
    data = make_data(samples, layout="vector", derived=None, flat=["met", "cov"], scale="standard",
                     jagged={"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}})  # fmt: skip
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(data.shapes["x"][0], 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    folder = tmp_path_factory.mktemp("chain") / "bundle"
    return network, data, folder, export(network, data, folder)


def by_torch(network: nn.Module, data: Any, call: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Give the logits of all test events, as Lightning would test them, and their index."""
    batch = batches_of(data)
    was = {module: module.training for module in network.modules()}
    network.eval()
    with torch.no_grad():
        logits = call(batch)
    for module, is_training in was.items():
        module.training = is_training
    return logits.numpy(), batch["index"].numpy()


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def softmax(logits: Any) -> Any:
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


# From the file to the score, by both roads


@pytest.mark.long
def test_deep_sets_score_as_in_torch(sets: Any) -> None:
    logits, index = by_torch(sets.network, sets.data, sets.network)
    table = branches_of(sets.data, index, [b.name for b in sets.manifest.branches])
    found = scores_of_table(sets.folder, table)
    assert found.shape == (len(index), 1)
    assert found.dtype == np.float32
    assert np.abs(found[:, 0] - sigmoid(logits)).max() < TINY
    assert found.std() > 0.005


@pytest.mark.long
def test_how_training_events_were_weighted_is_told_and_changes_no_score(samples: Path, tmp_path: Path) -> None:
    reweight = {"variables": ["nlep"], "bins": [[-1, 0, 1, 10]], "cap": 2.0}
    cross = {
        f"s{i}": {"files": str(samples / f"{i}.root"), "label": i, "cross_section": 2.0, "sum_of_weights": 700}
        for i in range(2)
    }
    weighted = {"samples": cross, "luminosity": 3.0, "balance": "classes", "reweight": reweight}
    torch.manual_seed(1)
    network = DNN(make_data(samples, layout="vector").shapes, hidden=[4])
    plain, told = (
        export(network, make_data(samples, layout="vector", **options), tmp_path / name, training={"seed": 1})
        for name, options in (("plain", {}), ("told", weighted))
    )
    assert plain.training == {"seed": 1}
    assert told.training["seed"] == 1
    found = told.training["data"]
    assert (found["luminosity"], found["balance"]) == (3.0, "classes")
    assert found["reweight"] == {**reweight, "to": "flat", "by": "weight", "bins": [[-1.0, 0.0, 1.0, 10.0]]}
    assert found["samples"]["s1"]["cross_section"] == 2.0
    assert found["samples"]["s1"]["sum_of_weights"]["number"] == 700
    assert open_bundle(tmp_path / "told").training == told.training
    assert (told.inputs, told.ranges) == (plain.inputs, plain.ranges)


@pytest.mark.long
def test_vectors_with_masks_score_as_in_torch(dense: Any) -> None:
    logits, index = by_torch(dense.network, dense.data, dense.network)
    table = branches_of(dense.data, index, [b.name for b in dense.manifest.branches])
    found = scores_of_table(dense.folder, table)
    assert dense.manifest.columns == ("a", "b", "c")
    assert np.abs(found - softmax(logits)).max() < TINY


@pytest.mark.long
def test_attention_scores_as_in_torch_where_there_are_jets(attention: Any) -> None:
    network, data, folder, manifest = attention
    logits, index = by_torch(network, data, lambda b: network(b["flat"], b["jets"], b["jets_mask"]))
    found = scores_of_table(folder, branches_of(data, index, [b.name for b in manifest.branches]))
    has_jets = ~np.isnan(logits).any(axis=1)
    assert 0 < has_jets.sum() < len(logits)
    assert np.abs(found - softmax(logits))[has_jets].max() < TINY
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.long
def test_a_chain_of_layers_scores_as_in_torch(chain: Any) -> None:
    network, data, folder, manifest = chain
    logits, index = by_torch(network, data, lambda b: network(b["x"]))
    found = scores_of_table(folder, branches_of(data, index, [b.name for b in manifest.branches]))
    assert manifest.columns == ("signal",)
    assert np.abs(found - sigmoid(logits)).max() < TINY


@pytest.mark.long
def test_a_score_does_not_depend_on_company(sets: Any) -> None:
    """One event, two, a thousand; collections as wide as they need, or full."""
    _, index = by_torch(sets.network, sets.data, sets.network)
    table = branches_of(sets.data, index, [b.name for b in sets.manifest.branches])
    together = scores_of_table(sets.folder, table)
    widths = set()
    for event in range(0, table.num_events, 7):
        one = take(table, np.array([event]))
        tensors = Assembler(sets.manifest)(one)
        widths.add(tensors["jets"].shape[2])
        assert abs(scores_of(sets.folder, tensors)[0, 0] - together[event, 0]) < TINY
    assert widths == {1, 2, 4}
    many = np.resize(np.arange(table.num_events), 1000)
    np.testing.assert_allclose(scores_of_table(sets.folder, take(table, many)), together[many], atol=TINY)


@pytest.mark.long
def test_object_axes_may_be_longer_than_in_training(sets: Any) -> None:
    tensors = Assembler(sets.manifest)(table_of(sets.manifest, sets.manifest.parity.columns))
    padded = {
        n: np.pad(t, [(0, 0)] * (t.ndim - 1) + [(0, 7)]) if n.startswith("jets") else t for n, t in tensors.items()
    }
    assert padded["jets"].shape[2] == 11
    np.testing.assert_allclose(scores_of(sets.folder, padded), scores_of(sets.folder, tensors), atol=TINY)


@pytest.mark.long
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30, SENTINEL])
def test_what_lies_in_masked_places_has_no_influence(sets: Any, attention: Any, garbage: float) -> None:
    for folder, manifest in ((sets.folder, sets.manifest), attention[2:]):
        tensors = Assembler(manifest)(table_of(manifest, manifest.parity.columns))
        clean = scores_of(folder, tensors)
        for name in ("jets", "jets_float64", "values_int64"):
            hidden = tensors[f"{name.split('_')[0]}_mask"] < 0.5
            spoilt = np.int64(7) if name.endswith("int64") else garbage
            tensors[name] = np.where(hidden[:, None, :], spoilt, tensors[name]).astype(tensors[name].dtype)
        np.testing.assert_array_equal(scores_of(folder, tensors), clean)


def test_missing_values_of_every_kind_are_the_same(sets: Any) -> None:
    """NaN, infinities and sentinels, in every number type, give the score of one another."""
    plain = dict(sets.manifest.parity.columns)
    scores = []
    for value in (None, SENTINEL):
        columns = {n: [value] * len(v) if n in {"met", "ht"} else v for n, v in plain.items()}
        columns["Jet_eta"] = [[value for _ in event] for event in plain["Jet_eta"]]
        scores.append(scores_of_table(sets.folder, table_of(sets.manifest, columns)))
    tensors = Assembler(sets.manifest)(table_of(sets.manifest, plain))
    column = list(sets.manifest.inputs[0].features).index("met")
    for value in (np.inf, -np.inf, np.nan, SENTINEL):
        tensors["flat"][:, column] = value
        scores.append(scores_of(sets.folder, tensors))
    np.testing.assert_array_equal(scores[0], scores[1])
    for other in scores[3:]:
        np.testing.assert_array_equal(other, scores[2])


def test_neighbouring_event_numbers_stay_apart(sets: Any) -> None:
    """``id`` is scaled by a shift of 2**60 in float64: in float32 all of these would be one number."""
    spec = next(t for t in sets.manifest.inputs if t.name == "flat_int64")
    assert spec.features == ("id", "nlep", "tagged")
    tensors = Assembler(sets.manifest)(table_of(sets.manifest, sets.manifest.parity.columns))
    first = {name: np.repeat(values[:1], 3, axis=0) for name, values in tensors.items()}
    first["flat_int64"][:, 0] = 2**60 + np.array([0, 1_000_000, 2_000_000])
    assert len(np.unique(scores_of(sets.folder, first))) == 3


def test_whole_numbers_that_are_computed_are_real_inputs(sets: Any) -> None:
    """``count(Mu_q) // nlep`` has whole numbers until an event has no lepton."""
    spec = next(t for t in sets.manifest.inputs if t.name == "flat_float64")
    assert set(spec.features) >= {"ht", "pairs"}
    columns = {n: v[:2] for n, v in sets.manifest.parity.columns.items()} | {"nlep": [1, 2]}
    whole = table_of(sets.manifest, columns)
    real = table_of(sets.manifest, columns | {"nlep": [1, 0]})
    alone, joined = scores_of_table(sets.folder, whole), scores_of_table(sets.folder, concatenate([whole, real]))
    np.testing.assert_allclose(joined[:3], np.concatenate([alone, alone[:1]]), atol=TINY)
    assert np.isfinite(joined).all()


# Networks that depend on the width


@pytest.mark.long
def test_a_network_that_needs_all_places_gets_them(samples: Path, tmp_path: Path) -> None:
    data = make_data(samples)
    network = PlainMean(data)
    manifest = export(network, data, tmp_path / "b")
    shapes = {t.name: t.shape for t in manifest.inputs}
    assert shapes["jets"] == ("events", 2, 4)
    assert shapes["jets_mask"] == ("events", 4)
    logits, index = by_torch(network, data, lambda b: network(b["jets"]))
    table = branches_of(data, index, [b.name for b in manifest.branches])
    for rows in (np.arange(len(index)), np.array([0]), np.flatnonzero(table.columns["Jet_pt"].counts <= 1)):
        found = scores_of_table(tmp_path / "b", take(table, rows))
        assert np.abs(found - sigmoid(logits[rows])).max() < TINY


def test_flattened_objects_need_all_places(samples: Path) -> None:
    data = make_data(samples)
    batch = {n: v for n, v in batches_of(data).items() if n not in {"label", "weight", "index"}}
    layout = layout_of(data.data, data.specs)
    layer = nn.Linear(12, 1)
    count = Count(data)
    assert not trial._is_elastic(layer, lambda n, b: n(b["jets"].flatten(1)), batch, layout)
    assert not trial._is_elastic(layer, lambda n, b: b["jets"].sum(1), batch, layout)  # padding is -0.5
    assert trial._is_elastic(count, lambda n, b: n(b), batch, layout)


# What is in a bundle


def test_the_manifest_says_what_is_needed(sets: Any) -> None:
    manifest = sets.manifest
    assert open_bundle(sets.folder) == manifest
    assert manifest.metrics == {"auc": 0.75}
    assert manifest.roc == {"signal": {"signal_efficiency": (0.0, 1.0), "background_efficiency": (0.0, 1.0)}}
    assert (manifest.author, manifest.description, manifest.tags) == ("Ada", "sets", ("a", "b"))
    assert manifest.software["torch"] == torch.__version__
    assert manifest.created.endswith("+00:00")
    assert manifest.size == (sets.folder / MODEL).stat().st_size
    assert manifest.parity.num_events > 100
    assert 0 <= manifest.parity.max_difference < TINY


@pytest.mark.long
@pytest.mark.parametrize("name", ["sets", "dense"])
def test_the_sample_reproduces_its_scores(name: str, request: pytest.FixtureRequest) -> None:
    exported = request.getfixturevalue(name)
    manifest = open_bundle(exported.folder)
    assert manifest.parity is not None
    found = scores_of_table(exported.folder, table_of(manifest, manifest.parity.columns))
    assert np.abs(found - np.array(manifest.parity.scores)).max() < TINY
    counts = {len(event) for event in manifest.parity.columns["Jet_pt"]}
    assert min(counts) == 0
    assert max(counts) > 4
    assert any(v is None for v in manifest.parity.columns["met"])


@pytest.mark.long
def test_the_graph_is_plain(sets: Any, dense: Any, attention: Any) -> None:
    for folder in (sets.folder, dense.folder, attention[2]):
        content = (folder / MODEL).read_bytes()
        for word in (b"site-packages", b".py", b"bundles_for_tests", b"DeepSets", b"Attention", bytes(Path.cwd())):
            assert word not in content, word
        graph = onnx.load_from_string(content)
        assert [(o.domain, o.version) for o in graph.opset_import if o.domain == ""] == [("", 20)]
        assert {o.domain for o in graph.opset_import} <= {"", "ai.onnx.ml"}
        assert all(t.data_location == onnx.TensorProto.DEFAULT for t in graph.graph.initializer)
        assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, MODEL, PREPROCESS])


def test_the_graph_knows_its_own_manifest(sets: Any) -> None:
    metadata = session_of(sets.folder).get_modelmeta().custom_metadata_map
    inside = json.loads(metadata[METADATA])
    whole = json.loads((sets.folder / MANIFEST).read_text())
    for key in ("inputs", "outputs", "branches", "features", "ranges", "schema"):
        assert inside[key] == whole[key]
    declared = {i.name: (i.type, i.shape) for i in session_of(sets.folder).get_inputs()}
    types = {"float32": "tensor(float)", "float64": "tensor(double)", "int64": "tensor(int64)"}
    assert declared == {t.name: (types[t.dtype], list(t.shape)) for t in sets.manifest.inputs}
    assert [(o.name, o.shape) for o in session_of(sets.folder).get_outputs()] == [("scores", ["events", 1])]


def test_a_bundle_is_enough_without_torch(sets: Any) -> None:
    program = """
import sys
import numpy as np, onnxruntime
from rootdata.bundle.assemble import Assembler, table_of
from rootdata.bundle.manifest import open_bundle
manifest = open_bundle(sys.argv[1])
session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", providers=["CPUExecutionProvider"])
tensors = Assembler(manifest)(table_of(manifest, manifest.parity.columns))
print(np.abs(session.run(None, tensors)[0] - np.array(manifest.parity.scores)).max())
assert not {"torch", "onnx", "pytorch_lightning", "hydra", "numba"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(sets.folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < TINY


@pytest.mark.long
def test_a_network_goes_on_as_it_was(sets: Any, dense: Any, attention: Any) -> None:
    assert all(module.training for module in dense.network.modules())
    network = attention[0]
    assert network.training
    assert network.flat[1].training
    assert not network.attend.training
    assert dense.network.trainer is not None
    assert all(p.grad_fn is None and p.requires_grad for p in sets.network.parameters())


# Replacing


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_second_export_replaces_the_first(chain: Any, tmp_path: Path) -> None:
    network, data, first, _ = chain
    place = tmp_path / "deep" / "place"
    place.mkdir(parents=True)  # an empty folder is as good as none
    for name, content in files_in(first).items():
        (place / name).write_bytes(content)
    (place / "notes.txt").write_text("gone with the old bundle")
    manifest = export(network, data, place, activation="none", columns=["logit"], num_events=20)
    assert manifest.columns == ("logit",)
    assert open_bundle(place) == manifest
    assert sorted(files_in(tmp_path)) == [f"deep/place/{n}" for n in sorted([*files_in(first)])]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert len(manifest.parity.columns["met"]) < 20
    assert manifest.parity.num_events == 20


class Interruption(BaseException):
    """What no code expects."""


@pytest.mark.parametrize("error", [OSError("no space left on device"), Interruption()])
@pytest.mark.parametrize("at", ["saving", "moving"])
def test_a_failure_leaves_the_old_bundle(
    chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: str
) -> None:
    _, _, first, manifest = chain
    place = tmp_path / "bundle"
    place.mkdir()
    for name, content in files_in(first).items():
        (place / name).write_bytes(content)
    before, rename = files_in(tmp_path), Path.rename

    def fail(*_: Any) -> None:
        raise error

    def fail_to_move(path: Path, target: Any) -> Path:
        return fail() if path.name.startswith(".bundle.") and target == place else rename(path, target)

    with monkeypatch.context() as patch:
        if at == "saving":
            patch.setattr(cache_folder, "write_atomic", fail)
        else:
            patch.setattr(Path, "rename", fail_to_move)
        with pytest.raises(FileError if isinstance(error, OSError) else Interruption):
            write(b"another graph", manifest, place)
    assert files_in(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_what_a_killed_export_left_is_removed_by_the_next(chain: Any, tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        try:
            with disk.making(tmp_path / "bundle") as made:
                (made / "model.onnx").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.iterdir())) == 2
    write(b"a graph", chain[3], tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_refused(chain: Any, tmp_path: Path) -> None:
    network, data, _, _ = chain
    (tmp_path / "thesis.tex").write_text("all of it")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(BundleError, match="is there and no bundle; choose another folder"):
            export(network, data, place)
    assert files_in(tmp_path) == {"thesis.tex": b"all of it"}


def test_a_place_that_can_not_be_written_is_one_error(chain: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileError, match="can't be written"):
        write(b"", chain[3], tmp_path / "file" / "bundle")


# Whatever became of a network in training


class ByName(nn.Module):
    """Takes a tensor by its name."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.chain(x)


class Inside(ByName):
    """Compiles a part of itself."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__(torch.compile(chain, backend="eager"))


class MakesNumbers(ByName):
    """Makes numbers of the type that is usual at the time, as Lightning sets it."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.chain(x @ torch.eye(x.shape[1]))


def parametrized(how: Any) -> Any:
    def apply(chain: nn.Sequential) -> nn.Module:
        how(chain[0])
        return chain

    return apply


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training of one rank, for what needs one."""
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def also(*values: Any) -> Any:
    """Mark a case that the ordinary tests leave out."""
    return pytest.param(*values, marks=pytest.mark.long)


KINDS = {
    "compiled": lambda n: torch.compile(n, backend="eager"),
    "compiled by name": lambda n: torch.compile(ByName(n), backend="eager"),
    "compiled inside": Inside,
    "on devices": nn.DataParallel,
    "of a rank": lambda n: nn.parallel.DistributedDataParallel(ByName(n)),
    "averaged": lambda n: torch.optim.swa_utils.AveragedModel(ByName(n)),
    "averaged of a compiled one of a rank": lambda n: torch.optim.swa_utils.AveragedModel(
        torch.compile(nn.parallel.DistributedDataParallel(n), backend="eager")
    ),
    "weight norm": parametrized(nn.utils.parametrizations.weight_norm),
    "spectral norm": parametrized(nn.utils.parametrizations.spectral_norm),
    "orthogonal": parametrized(nn.utils.parametrizations.orthogonal),
    "pruned": parametrized(lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", amount=0.3)),
    "frozen": lambda n: n.requires_grad_(False),
    "half": lambda n: n.half(),
    "bfloat16": lambda n: n.bfloat16(),
    "double": lambda n: n.double(),
    "double that makes numbers": lambda n: MakesNumbers(n).double(),
    "half, compiled, by name": lambda n: torch.compile(ByName(n).half(), backend="eager"),
}
OFTEN = {"compiled", "on devices", "bfloat16", "double that makes numbers"}


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind if kind in OFTEN else also(kind) for kind in KINDS])
@pytest.mark.usefixtures("alone")
def test_a_network_is_exported_whatever_training_made_of_it(chain: Any, tmp_path: Path, kind: str) -> None:
    data = chain[1]
    torch.manual_seed(11)
    plain = nn.Sequential(nn.Linear(data.shapes["x"][0], 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    network = KINDS[kind](plain)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    manifest = export(network, data, tmp_path / "b", num_events=50)
    assert network.training
    assert torch.get_default_dtype() == torch.float32
    for name, values in network.state_dict().items():
        torch.testing.assert_close(values, before[name], atol=0, rtol=0)
    # The same by torch: the layers that were made at first, whatever is around them, with the weights as they are.
    dtype = torch.float64 if "double" in kind else torch.float32
    logits, index = by_torch(plain.to(dtype), data, lambda batch: plain(batch["x"].to(dtype)))
    found = scores_of_table(tmp_path / "b", branches_of(data, index, [b.name for b in manifest.branches]))
    assert np.abs(found - sigmoid(logits)).max() < TINY


@pytest.mark.long
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_rehearsal_leaves_nothing_and_draws_no_number(chain: Any, tmp_path: Path, kind: str) -> None:
    data = chain[1]
    network = nn.Sequential(nn.Linear(data.shapes["x"][0], 1), nn.Dropout(0.5)).to(getattr(torch, kind))
    before = torch.get_rng_state(), {name: values.clone() for name, values in network.state_dict().items()}
    exporting.rehearse(network, data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(values, before[1][name]) for name, values in network.state_dict().items())
    assert all(p.dtype == getattr(torch, kind) and p.requires_grad and p.grad is None for p in network.parameters())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda n: torch.jit.script(n), "made by torch.jit, of which no graph is made; export what it was made from"),
        (lambda n: ByName(torch.jit.script(n)), "ByName was made by torch.jit"),
        (lambda n: n.to("meta"), "Linear has weights without values"),
        (lambda n: torch.distributed.fsdp.FullyShardedDataParallel(n, device_id=torch.device("cpu")), "spread over"),
        (lambda n: torch.ao.quantization.quantize_dynamic(nn.Sequential(n)), "can't be written as an ONNX graph"),
        (lambda n: n.to(torch.complex64), "can't be called with the batches of this data"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.usefixtures("alone")
def test_what_can_not_be_exported_is_refused_before_it_is_trained(chain: Any, make: Any, words: str) -> None:
    network = make(nn.Linear(chain[1].shapes["x"][0], 1))
    with pytest.raises(BundleError, match=words) as caught:
        exporting.rehearse(network, chain[1])
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


# What can't be exported


class Refusing(nn.Module):
    """Can be called, and not be written as a graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1) * len(x.unique().tolist())


class Moody(nn.Module):
    """Gives another answer each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1) + torch.rand_like(x).sum(1)


def test_what_is_no_graph_is_refused_in_words(chain: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="can't be written as an ONNX graph"):
        export(Refusing(), chain[1], tmp_path / "b", num_events=5)
    assert list(tmp_path.iterdir()) == []


def test_chance_is_found_out(chain: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="depend on the batch, or on chance"):
        export(Moody(), chain[1], tmp_path / "b", num_events=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_mean_without_guard_is_refused_with_the_remedy(attention: Any, tmp_path: Path) -> None:
    network, data, _, _ = attention
    with pytest.raises(BundleError, match=r"events that have none|reveal_empty=True") as caught:
        export(network, data, tmp_path / "b")
    assert "guard its means and attention against an empty mask" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "options", "words"),
    [
        (
            lambda n, b: b["x"] * np.nan,
            {"activation": "none", "columns": list("abcdefghi")},
            "for every event; its weights are spoilt",
        ),
        (lambda n, b: (b["x"], b["x"]), {}, "returns tuple; expected one tensor"),
        (lambda n, b: b["x"].sum(), {}, r"returns shape \(\)"),
        (lambda n, b: b["x"].sum(0), {}, r"returns shape \(9,\) for x"),
        (lambda n, b: b["x"][:, :, None], {}, "returns shape"),
        (lambda n, b: b["x"], {}, "returns 9 columns for 2 classes; say with `activation`"),
        (lambda n, b: b["x"], {"activation": "relu"}, "got 'relu'; allowed: auto, sigmoid"),
        (lambda n, b: b["x"], {"activation": "none", "columns": ["a"]}, r"columns: got \['a'\] for 9"),
        (lambda n, b: b["x"][:, :2], {"columns": ["a", "a"]}, "a name of its own"),
        (lambda n, b: b["jets"], {}, r"can't be called with the batches of this data \(x \(.*, 9\), mask"),
    ],
)
def test_wrong_outputs_are_refused_in_words(
    chain: Any, tmp_path: Path, call: Any, options: dict[str, Any], words: str
) -> None:
    data = dataclasses.replace(chain[1].data)
    assert data.layout == "vector"
    with pytest.raises(BundleError, match=words):
        export(nn.Identity(), chain[1], tmp_path / "b", call=call, num_events=5, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_network_for_other_data_is_refused_in_words(chain: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"Sequential can't be called .* shapes cannot be multiplied"):
        export(nn.Sequential(nn.Linear(3, 1)), chain[1], tmp_path / "b")


def test_one_event_is_enough(tmp_path: Path, write_tree: Any) -> None:
    columns = columns_of(1, [5])
    write_tree(tmp_path / "0.root", columns)
    write_tree(tmp_path / "1.root", columns)
    data = make_data(
        tmp_path, flat=["gen"], jagged=None, derived=None, scale={"gen": {"shift": 1.0, "factor": 100.0}},
        split={"train": 1.0},
    )  # fmt: skip
    manifest = export(nn.Linear(1, 1), data, tmp_path / "b", call=lambda n, b: n(b["flat"]) * 1e5, activation="none")
    assert manifest.parity is not None
    assert manifest.parity.num_events == 2
