"""A colleague's road: arrays made of the manifest alone, by docs/serving.md, give every score that torch gives."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch
from servers import Handle
from torch import Tensor, nn

from rootdata.bundle.assemble import Assembler, lists_of
from rootdata.bundle.export import export
from rootdata.bundle.manifest import open_bundle
from rootdata.io.reader import BlockReader
from rootdata.loading.datamodule import RootDataModule
from rootdata.location import Location
from rootdata.models.cnn import CNN
from rootdata.models.deepsets import DeepSets
from rootdata.models.dnn import DNN
from rootdata.table import Table, take
from sofie_for_tests import Compiled

CLOSE = 1e-6
DIVIDED = Path(__file__).parents[1] / "data" / "divided.root"
NUM_EVENTS = 300
CUT = "met < 120 and nJet >= 1 and trigger == 1"


# The recipe of docs/serving.md, one event at a time. Nothing of rootdata is used, and no score depends on a guess.


class Recipe:
    """Makes the inputs of a graph of events as JSON holds them: branch name to a value, or to a list of them."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.manifest, self.features = manifest, manifest["features"]
        self.types = {b["name"]: np.dtype(b["dtype"]).type for b in manifest["branches"]}
        self.computed = {(c["use"], c["name"]): c["steps"] for c in manifest["computed"]}

    def inputs(self, events: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
        made = [self.event(event) for event in events]
        found = {}
        for tensor in self.manifest["inputs"]:
            name, collection, last = tensor["name"], tensor["collection"], tensor["shape"][-1]
            rows = [flat if collection is None else objects[collection] for flat, objects in made]
            if collection is None:
                found[name] = np.array([[row[f] for f in tensor["features"]] for row in rows], tensor["dtype"])
                continue
            width = last if isinstance(last, int) else max([1, *map(len, rows)])
            shape = (len(tensor["features"]), width) if tensor["features"] else (width,)
            values = np.zeros((len(rows), *shape), tensor["dtype"])
            for i, row in enumerate(rows):
                for k, each in enumerate(row):
                    values[i, ..., k] = [each[f] for f in tensor["features"]] if tensor["features"] else 1
            found[name] = values
        return found

    def event(self, event: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
        """Make the flat features of an event, and for each collection the features of each object that is kept."""
        raw = {name: each(kind, event[name]) for name, kind in self.types.items()}
        known: dict[str, Any] = {name: self.without_missing(name, value) for name, value in raw.items()}
        for (use, name), steps in self.computed.items():
            if use == "derived":
                known[name] = compute(steps, known)
                raw[name] = each(lambda v: math.nan if v is None else v, known[name], missing=math.nan)
        flat: dict[str, Any] = {}
        for name in self.features["flat"]:
            several = isinstance(raw[name], list)
            flat |= {f"{name}[{i}]": v for i, v in enumerate(raw[name])} if several else {name: raw[name]}
        objects = {name: self.objects(name, options, raw, known) for name, options in self.features["jagged"].items()}
        return flat, objects

    def without_missing(self, name: str, column: Any) -> Any:
        missing = self.features["missing"]
        own = missing.get(name, missing.get("default", [])) if isinstance(missing, dict) else missing
        return each(lambda value: None if not math.isfinite(value) or value in own else value, column)

    def objects(self, name: str, options: Any, raw: Any, known: Any) -> list[dict[str, Any]]:
        places = list(range(len(raw[options["branches"][0]])))
        if options["cut"] is not None:
            chosen = compute(self.computed["cut", name], known)
            places = [i for i in places if chosen[i] is not None and chosen[i]]
        if options["sort"] is not None:
            keys, sign = compute(self.computed["sort", name], known), -1 if options["sort"].startswith("-") else 1
            places.sort(key=lambda i: (keys[i] is None, 0.0 if keys[i] is None else sign * float(keys[i])))
        return [{b: raw[b][i] for b in options["branches"]} for i in places[: options["length"]]]


def each(function: Callable[[Any], Any], value: Any, *, missing: Any = None) -> Any:
    if isinstance(value, list):
        return [each(function, v, missing=missing) for v in value]
    return missing if value is None else function(value)


def compute(steps: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> Any:
    """Compute an expression for one event, every part of it in the type that the manifest says."""
    # A name with brackets or points, as a branch may have, is one word: in backticks, or as it is.
    odd = {name: f"odd{i}" for i, name in enumerate(sorted(known, key=len, reverse=True)) if not name.isidentifier()}
    known = known | {word: known[name] for name, word in odd.items()}

    def plain(text: str) -> str:
        for name, word in odd.items():
            text = text.replace(f"`{name}`", word).replace(name, word)
        return text

    text, types = plain(steps[-1]["text"]), {plain(step["text"]): np.dtype(step["dtype"]).type for step in steps}

    def value_of(node: ast.expr) -> Any:
        kind = types.get(ast.get_source_segment(text, node) or "")
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return known[node.id]
        if isinstance(node, ast.Call):
            objects = [v for v in value_of(node.args[0]) if v is not None]
            return REDUCERS[node.func.id](objects, kind)  # type: ignore[attr-defined]
        left, right = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.left, node.comparators[0])  # type: ignore[attr-defined]
        operate = OPERATORS[type(node.op if isinstance(node, ast.BinOp) else node.ops[0])]  # type: ignore[attr-defined]
        a, b = value_of(left), value_of(right)
        if isinstance(a, list) or isinstance(b, list):
            size = len(a if isinstance(a, list) else b)
            pairs = zip(*(x if isinstance(x, list) else [x] * size for x in (a, b)), strict=True)
            return [operate(x, y, kind) for x, y in pairs]
        return operate(a, b, kind)

    return value_of(ast.parse(text, mode="eval").body)


def in_type(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Convert both operands to the type of the result, and compute there; without a value the result is missing."""

    def operate(a: Any, b: Any, kind: Any) -> Any:
        if a is None or b is None:
            return None
        with np.errstate(all="ignore"):
            if np.dtype(kind).kind in "iu":
                return None if not int(b) and function is floor else kind(function(int(a), int(b)))
            result = kind(function(kind(a), kind(b)))
        return result if np.isfinite(result) else None

    return operate


def floor(a: Any, b: Any) -> Any:
    return a // b


REDUCERS: dict[str, Callable[[list[Any], Any], Any]] = {
    "max": lambda objects, kind: kind(max(objects)) if objects else None,
    "sum": lambda objects, kind: kind(sum(map(kind, objects))),
    "count": lambda objects, kind: kind(len(objects)),
}
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: in_type(lambda a, b: a + b),
    ast.Mult: in_type(lambda a, b: a * b),
    ast.Div: in_type(lambda a, b: a / b),
    ast.FloorDiv: in_type(floor),
    ast.Gt: lambda a, b, kind: None if a is None else kind(a > b),
}


# Columns that are parts of branches


@pytest.mark.long
def test_columns_that_are_parts_of_branches_give_the_scores_of_torch(tmp_path: Path) -> None:
    """Parts of lists of arrays, leaves, lists of lists and the number of the event go all the way."""
    data = RootDataModule(
        {"all": {"files": str(DIVIDED), "tree": "t"}}, label="jet.q > 0",
        flat=["MET", "jet.pt", "m[0]", "nested.k", "entry", "total", "lead", "third"],
        derived={
            "total": "sum(flatten(vv)) + count(num(vv))", "lead": "max(`Jet_tau[1]`) * 2", "third": "entry // 3",
            "far": "`Jet_tau[2]` / jet.pt",
        },
        jagged={
            "jets": {"branches": ["Jet_pt", "Jet_tau[0]", "far", "num(vv)"], "length": 3, "sort": "-`Jet_tau[4]`",
                     "cut": "`grid[1][2]` > 1100"},
            "links": {"branches": ["flatten(links)"], "length": 4},
        },
        layout="vector", scale="standard", split={"by": "entry % 2", "train": [0], "val": [], "test": [1]},
    )  # fmt: skip
    torch.manual_seed(7)
    network = DNN(data.shapes, hidden=[8], use_mask=True).eval()
    export(network, data, tmp_path / "bundle")
    entries, scores = by_torch(network, data)
    assert sorted(entries.tolist()) == list(range(1, 60, 2))
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    names = [b["name"] for b in manifest["branches"]]
    assert {"Jet_tau[0]", "jet.pt", "flatten(vv)", "num(vv)", "entry"} <= {*names}
    assert manifest["selection"]["trees"] == ["t"]
    assert "in its tree" in manifest["rules"]["entry"]
    with BlockReader() as reader:
        file = reader.describe(Location(str(DIVIDED), "t"), names).file
        columns = reader.read(file, names, 0, file.entries)
    table = take(Table(num_events=60, columns=columns), entries)
    graph = onnxruntime.InferenceSession(str(tmp_path / "bundle" / "model.onnx"), providers=["CPUExecutionProvider"])
    (by_bundle,) = graph.run(None, Assembler(open_bundle(tmp_path / "bundle"))(table))
    lists = lists_of(table)
    events = [{name: values[i] for name, values in lists.items()} for i in range(len(entries))]
    (by_recipe,) = graph.run(None, Recipe(manifest).inputs(events))
    for found in (by_bundle, by_recipe):
        np.testing.assert_allclose(found[:, 0], scores, rtol=0, atol=CLOSE)
    assert scores.std() > 0.01


# Data, networks


def collisions(seed: int) -> dict[str, Any]:
    """Make events with sentinels and NaN, ties, integers, truth values, none and too many objects."""
    rng = np.random.default_rng(seed)
    jets, muons = rng.poisson(2.5, NUM_EVENTS), rng.poisson(0.7, NUM_EVENTS)
    met = rng.exponential(60.0, NUM_EVENTS).astype(np.float32)
    met[rng.random(NUM_EVENTS) < 0.1], met[::31] = -999, np.nan
    pt = rng.exponential(40.0, jets.sum()).astype(np.float32) + 5
    pt[rng.random(len(pt)) < 0.3] = 33.25  # ties
    tag = rng.uniform(size=len(pt)).astype(np.float32)
    tag[rng.random(len(tag)) < 0.2] = -999
    charge = rng.choice([-1, 1, -999], muons.sum()).astype(np.int32)
    return {
        "met": met, "ht": rng.exponential(300.0, NUM_EVENTS), "nJet": jets.astype(np.int32),
        "run": 360_000 + rng.integers(0, 900, NUM_EVENTS), "isolated": rng.random(NUM_EVENTS) < 0.4,
        "trigger": (rng.random(NUM_EVENTS) < 0.8).astype(np.int32),
        "cov": rng.normal(size=(NUM_EVENTS, 2)).astype(np.float32),
        "Jet_pt": ak.unflatten(pt, jets), "Jet_eta": ak.unflatten(rng.normal(size=len(pt)).astype(np.float32), jets),
        "Jet_tag": ak.unflatten(tag, jets), "Muon_charge": ak.unflatten(charge, muons),
    }  # fmt: skip


def data_of(files: Mapping[str, Path], layout: str) -> RootDataModule:
    return RootDataModule(
        {
            "signal": {"files": str(files["learn"]), "label": 1},
            "other": {"files": str(files["score"]), "label": 0},
        },
        cut=CUT,
        flat=["met", "ht", "nJet", "run", "isolated", "cov", "hardest", "ratio", "twice", "muons"],
        derived={
            "hardest": "max(Jet_pt)", "ratio": "met / sum(Jet_pt)", "twice": "met * 2", "muons": "count(Muon_charge)",
            "relative": "Jet_pt / hardest", "share": "nJet // count(Muon_charge)",
        },
        jagged={
            "jets": {
                "branches": ["Jet_eta", "relative", "Jet_pt", "Jet_tag"], "length": 4, "sort": "-Jet_tag",
                "cut": "Jet_pt > 12", "image": {"x": {"bins": 4}, "y": {"column": "Jet_pt", "bins": 5}},
            },
            "charges": {"branches": ["Muon_charge"], "length": 2, "form": "tokens" if layout == "image" else None},
        },
        scale={"met": "log", "ht": "minmax", "cov": "none"}, pad=-0.5, layout=layout,
        missing={"Jet_tag": [-999, -1], "nJet": [2], "default": [-999]},
        split={"train": ["*learn*"], "val": [], "test": ["*score*"]},
    )  # fmt: skip


class Pairs(nn.Module):
    """Sums over pairs of jets: a mask of its own, made of masks of unlike shapes."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.flat = nn.Linear(shapes["flat"][0], 8)
        self.left, self.right = nn.Linear(shapes["jets"][1], 8), nn.Linear(shapes["jets"][1], 8)
        self.head = nn.Linear(8, 1)

    def forward(self, flat: Tensor, jets: Tensor, jets_mask: Tensor, charges_mask: Tensor) -> Tensor:
        both = jets_mask.unsqueeze(1) & jets_mask.unsqueeze(2)
        some = both | (charges_mask[:, :1].unsqueeze(2) ^ both)
        pairs = torch.relu(self.left(jets).unsqueeze(1) + self.right(jets).unsqueeze(2)) * both.unsqueeze(3)
        total = pairs.sum(dim=(1, 2)) / 16 + some.to(flat.dtype).sum(dim=(1, 2)).unsqueeze(1) / 16
        logits: Tensor = self.head(torch.relu(self.flat(flat)) + total)
        return logits[:, 0]


NETWORKS: dict[str, tuple[str, Callable[..., Any]]] = {
    "dnn": ("vector", lambda shapes: DNN(shapes, hidden=[16, 8], use_mask=True)),
    "deepsets": ("tokens", lambda shapes: DeepSets(shapes, phi=[8], rho=[8])),
    "custom": ("tokens", Pairs),
    "cnn": ("image", lambda shapes: CNN(shapes, channels=[4, 8], phi=[4], hidden=[8])),
}


@dataclasses.dataclass(frozen=True)
class Made:
    """A bundle, and what torch says of the events of a file that pass the cut."""

    folder: Path
    manifest: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    entries: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    @property
    def picked(self) -> list[Mapping[str, Any]]:
        return [self.events[i] for i in self.entries]


def by_torch(network: nn.Module, data: RootDataModule) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    entries, scores = [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            entries.append(batch["index"][:, 2].numpy())
            taken = ("flat", "jets", "jets_mask", "charges_mask")
            logits = network(*(batch[k] for k in taken)) if isinstance(network, Pairs) else network(batch)
            scores.append(logits.sigmoid().numpy())
    return np.concatenate(entries), np.concatenate(scores)


OTHERS = (("deepsets", True), ("custom", True), ("deepsets", False), ("cnn", True), ("cnn", False))


@pytest.fixture(
    scope="module",
    params=[
        ("dnn", True),
        *(pytest.param(p, marks=pytest.mark.long) for p in OTHERS),
    ],
    ids=lambda p: f"{p[0]}{'-float32' * p[1]}",
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write_tree: Any) -> Made:
    name, float32 = request.param
    folder = tmp_path_factory.mktemp(name)
    columns = {part: collisions(seed) for seed, part in enumerate(("learn", "score"))}
    data = data_of({part: write_tree(folder / f"{part}.root", c) for part, c in columns.items()}, NETWORKS[name][0])
    torch.manual_seed(5)
    network = NETWORKS[name][1](data.shapes).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights *= 3.0  # scores far apart, as of a trained network
    export(network, data, folder / "bundle", float32=float32)
    entries, scores = by_torch(network, data)
    assert 50 < len(entries) < NUM_EVENTS
    assert scores.std() > 0.02
    lists = {n: ak.to_list(ak.Array(c)) for n, c in columns["score"].items()}
    events = [{n: values[i] for n, values in lists.items()} for i in range(NUM_EVENTS)]
    return Made(
        folder / "bundle", json.loads((folder / "bundle" / "manifest.json").read_text()), events, entries, scores
    )


def without_nan(event: Mapping[str, Any]) -> dict[str, Any]:
    return {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in event.items()}


@pytest.mark.long
def test_arrays_of_the_manifest_alone_give_the_scores_of_torch(made: Made) -> None:
    inputs = Recipe(made.manifest).inputs(made.picked)
    graph = made.folder / "model.onnx"
    (scores,) = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"]).run(None, inputs)
    np.testing.assert_allclose(scores[:, 0], made.scores, rtol=0, atol=CLOSE)
    with np.errstate(all="ignore"):
        (others,) = onnx.reference.ReferenceEvaluator(str(graph)).run(None, inputs)
    np.testing.assert_allclose(others[:, 0], made.scores, rtol=0, atol=CLOSE)


@pytest.mark.long
def test_the_manifest_says_which_events_were_trained_on(made: Made) -> None:
    selection = made.manifest["selection"]
    assert selection["cut"] == CUT
    assert [b["name"] for b in selection["branches"]] == ["trigger"]
    passing = [
        i for i, e in enumerate(made.events)
        if math.isfinite(e["met"]) and e["met"] != -999 and e["met"] < 120
        and e["nJet"] not in {0, 2} and e["trigger"] == 1
    ]  # fmt: skip
    assert sorted(made.entries.tolist()) == passing


@pytest.mark.long
def test_the_server_gives_them_too_and_says_what_was_cut(
    made: Made, start_server: Callable[..., Handle], tmp_path: Path
) -> None:
    server = start_server(["-m", "serve", str(tmp_path / "models"), "--port", "0", "--publish", f"m={made.folder}"])
    events = [without_nan(event) for event in made.events]
    needed = {b["name"] for b in made.manifest["branches"]}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        few = [{n: v for n, v in e.items() if n in needed} for e in events]
        plain = http.post("/models/m/predict", json={"events": few}).json()["scores"]["signal"]
        np.testing.assert_allclose(np.array(plain)[made.entries], made.scores, rtol=0, atol=CLOSE)
        told = http.post("/models/m/predict?explain", json={"events": events}).json()
        assert told["scores"]["signal"] == pytest.approx(plain, abs=CLOSE)
        wanted = [[] if i in set(made.entries.tolist()) else [f"fails the training's cut {CUT!r}"] for i in range(300)]
        assert [event["cuts"] for event in told["explain"]] == wanted


@pytest.mark.long
def test_the_code_of_sofie_gives_them_too(made: Made, tmp_path: Path) -> None:
    if any(t["dtype"] != "float32" for t in made.manifest["inputs"]):
        pytest.skip("SOFIE takes float32 inputs alone: export with float32=True")
    program = Compiled(made.folder / "model.onnx", tmp_path)
    axes = {t["name"]: tuple(t["shape"]) for t in made.manifest["inputs"]}
    recipe = Recipe(made.manifest)
    scores = program(recipe.inputs(made.picked), axes=axes)
    np.testing.assert_allclose(scores, made.scores, rtol=0, atol=CLOSE)
    alone = program(*(recipe.inputs([event]) for event in made.picked[:40]), axes=axes)
    np.testing.assert_allclose(alone, made.scores[:40], rtol=0, atol=CLOSE)
