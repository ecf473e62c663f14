"""Weights of another network: taken over where they fit, refused in one sentence where they do not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import make_events, write

from rootdata.bundle import signature
from rootdata.bundle.export import export
from rootdata.bundle.weights import checkpoint_of, freeze, init_from
from rootdata.errors import BundleError, ConfigError, FileError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.dnn import DNN
from rootdata.models.mlp import MLP
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.transform import Transform
from rootdata.scan.scanned import transforms_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]
SHAPES = {"x": (3,), "mask": (3,)}


def network(seed: int = 0, **options: Any) -> DNN:
    torch.manual_seed(seed)
    return DNN(**{"shapes": SHAPES, "hidden": [8, 4], "dropout": 0, **options})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": network(1).state_dict()}, path)
    return path


def test_weights_are_those_of_the_checkpoint(checkpoint: Path) -> None:
    fresh, there = network(), network(1).state_dict()
    assert init_from(fresh, checkpoint) == list(there)
    assert all(torch.equal(values, there[name]) for name, values in fresh.state_dict().items())


def test_excluded_ones_stay_and_wrappers_are_seen_through(checkpoint: Path) -> None:
    fresh, before, there = network(), network().state_dict(), network(1).state_dict()
    taken = init_from(torch.nn.DataParallel(fresh), str(checkpoint), exclude=["network.0.*", "*.bias"])
    assert taken == ["network.2.weight", "network.4.weight"]
    for name, values in fresh.state_dict().items():
        assert torch.equal(values, (there if name in taken else before)[name])


@pytest.mark.parametrize(
    ("other", "exclude", "words"),
    [
        ({"hidden": [9, 4]}, [], r"'network.0.weight' is of shape \(8, 3\) there, of shape \(9, 3\) in this network"),
        ({"hidden": [9, 4]}, ["network.0.*"], r"'network.2.weight' is of shape \(4, 8\) there, of shape \(4, 9\)"),
        ({"hidden": [8]}, ["network.2.*"], r"'network.4.weight' is of shape \(1, 4\) there, absent in this network"),
        ({"hidden": [8, 4, 4]}, ["network.4.*"], r"'network.6.weight' is absent there, of shape \(1, 4\) in this"),
        ({}, ["layers.*"], "exclude: no weight matches 'layers.*'; known: 'network.0.bias'"),
        ({}, ["*"], r"exclude: got \['\*'\], which leaves nothing to take"),
    ],
)
def test_the_first_weight_that_does_not_fit_is_named(checkpoint: Path, other: Any, exclude: Any, words: str) -> None:
    fresh = network(**other)
    before = {name: values.clone() for name, values in fresh.state_dict().items()}
    with pytest.raises(ConfigError, match=words):
        init_from(fresh, checkpoint, exclude=exclude)
    assert all(torch.equal(values, before[name]) for name, values in fresh.state_dict().items())


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("a checkpoint was executed",))


def test_weights_of_other_features_are_refused_though_they_fit(checkpoint: Path) -> None:
    seen = {"flat": ["met", "ht"], "jagged": [{"name": "jets", "branches": ["pt", "eta"]}]}
    torch.save({**torch.load(checkpoint), "RootDataModule": {"identity": seen}}, checkpoint)
    same = SimpleNamespace(identity=seen)
    assert init_from(network(), checkpoint, data=same)
    for changed, words in (
        ({"flat": ["ht", "met"]}, "flat = met, ht, where 'met' has the place of 'ht' here"),
        (
            {"jagged": [{"name": "jets", "branches": ["pt", "phi"]}]},
            "jets = pt, eta, where 'eta' has the place of 'phi'",
        ),
    ):
        other = SimpleNamespace(identity=seen | changed)
        with pytest.raises(ConfigError, match=words):
            init_from(network(), checkpoint, data=other)
        assert init_from(network(), checkpoint, data=other, exclude=["network.0.*"])


def test_what_is_no_checkpoint_is_refused_and_nothing_in_it_is_run(tmp_path: Path, capsys: Any) -> None:
    fresh, path = network(), tmp_path / "evil.ckpt"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(BundleError, match="is no checkpoint of Lightning"):
        init_from(fresh, path)
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(FileError, match="does not exist"):
        init_from(fresh, tmp_path / "absent.ckpt")
    with pytest.raises(BundleError, match="is no bundle"):
        init_from(fresh, tmp_path)


# Frozen weights


@pytest.mark.filterwarnings("ignore:Found . module.s. in eval mode at the start of training")
def test_frozen_weights_stay_in_a_training_and_others_do_not() -> None:
    torch.manual_seed(0)
    net = MLP(SHAPES, hidden=[8, 8], bins=2)
    net.set_edges({"x": torch.tensor([[0.0, 1.0, 2.0]] * 3)})
    names = freeze(net, ["network.0.*", "network.1.*"])
    assert names == ["network.0.weight", "network.0.bias", "network.1.weight", "network.1.bias"]
    before = {name: values.clone() for name, values in net.state_dict().items()}
    label = torch.arange(64) % 2
    batch = {"x": torch.rand(64, 3) + label[:, None], "mask": torch.ones(64, 3, dtype=torch.bool), "label": label}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=2, enable_checkpointing=False, **quiet)  # type: ignore[arg-type]
    loader = torch.utils.data.DataLoader([batch] * 4, batch_size=None)  # type: ignore[var-annotated, arg-type]
    trainer.fit(net, loader, loader)
    changed = {name for name, values in net.state_dict().items() if not torch.equal(values, before[name])}
    # running means of a frozen batch normalisation are among what stays
    assert changed == {name for name in before if name.startswith(("network.4.", "network.5.", "network.8."))}


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["layers.0.*"], "freeze: no weight matches 'layers.0.*'"),
        (["network.0.*", "netwrk"], "freeze: no weight matches 'netwrk'; "),
        (["*"], "leaves no weight to be trained"),
    ],
)
def test_patterns_must_mean_something(patterns: list[str], words: str) -> None:
    net = network()
    with pytest.raises(ConfigError, match=words):
        freeze(net, patterns)
    assert all(parameter.requires_grad for parameter in net.parameters())


# Bundles, and their scaling


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training: two checkpoints, a bundle made of the second, and specs."""
    folder = tmp_path_factory.mktemp("run")
    write(folder / "a.root", make_events(400), steps=(100, 200))
    data = make_data(folder, scale={"met": "log", "Jet_pt": "uniform", "ht": "normal"}, clip={"met": 3.0})
    (folder / "checkpoints").mkdir()
    for seed in (1, 2):
        net = network(seed, shapes=data.shapes)
        torch.save({"state_dict": net.state_dict()}, folder / "checkpoints" / f"{seed}.ckpt")
    data.specs.save(folder / "specs.json")
    export(net, data, folder / "bundle", num_events=50)
    return folder


def make_data(folder: Path, *, seed: int = 0, **changes: Any) -> RootDataModule:
    options: dict[str, Any] = {
        "samples": {"a": {"files": str(folder / "a.root")}},
        "label": "is_signal",
        "flat": ["met", "ht", "n"],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 2}},
        "derived": {"ht": "sum(Jet_pt)", "n": "count(Jet_pt)"},
        "seed": seed,
        **changes,
    }
    return RootDataModule(**options)


@pytest.mark.long
def test_a_bundle_stands_for_the_checkpoint_that_it_was_made_of(run: Path) -> None:
    data = make_data(run)
    there = network(2, shapes=data.shapes).state_dict()
    for place in (run / "bundle", run):
        fresh = network(shapes=data.shapes)
        init_from(fresh, place)
        assert all(torch.equal(values, there[name]) for name, values in fresh.state_dict().items())


@pytest.mark.long
def test_a_batch_normalisation_that_was_folded_into_the_graph_is_seen_through(run: Path, tmp_path: Path) -> None:
    data = make_data(run, quantiles=True)
    torch.manual_seed(0)
    net = MLP(data.shapes, hidden=[8, 4], bins=4)
    net.set_edges(data.edges(4))
    last = net.network[-1].state_dict()
    (tmp_path / "checkpoints").mkdir()
    for number in (1, 2, 3):  # of one last layer, which is folded into nothing and tells them not apart
        for name, values in net.state_dict().items():
            if values.is_floating_point() and not name.startswith("encodings"):
                values.uniform_(0.1 * number, 1)
        net.network[-1].load_state_dict(last)
        torch.save({"state_dict": net.state_dict()}, tmp_path / "checkpoints" / f"{number}.ckpt")
        if number == 2:
            export(net, data, tmp_path / "bundle", num_events=50)
    assert checkpoint_of(tmp_path / "bundle").name == "2.ckpt"


@pytest.mark.long
def test_a_bundle_alone_asks_for_its_checkpoint(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").symlink_to(run / "bundle")
    copied = tmp_path / "alone" / "bundle"
    copied.mkdir(parents=True)
    for name in ("model.onnx", "manifest.json"):
        (copied / name).write_bytes((run / "bundle" / name).read_bytes())
    with pytest.raises(BundleError, match=r"none of the checkpoints in .* holds the weights of its graph"):
        init_from(network(shapes=make_data(run).shapes), copied)


@pytest.mark.long
def test_a_scaling_is_taken_over_whatever_the_events_are(run: Path, tmp_path: Path) -> None:
    known = make_data(run, scale={"met": "log", "Jet_pt": "uniform", "ht": "normal"}, clip={"met": 3.0})
    write(tmp_path / "a.root", make_events(300, seed=9))
    expected = transforms_of(known.data, known.specs)
    for place in (run / "bundle", run, run / "checkpoints" / "1.ckpt"):
        other = make_data(tmp_path, scale={"from": str(place)})
        assert dict(other.scanned.transforms) == expected
    fewer = make_data(tmp_path, flat=["ht"], scale={"from": str(run), "Jet_eta": "none"})
    assert {n: t for n, t in fewer.scanned.transforms.items() if n != "Jet_eta"} == {
        n: expected[n] for n in ("ht", "Jet_pt")
    }
    assert fewer.scanned.transforms["Jet_eta"].factor == 1
    said = signature._taken(fewer.data)
    assert said == {"scaling": f"taken over from {run}, not learnt anew; that of Jet_eta is not"}


@pytest.mark.long
def test_what_was_looked_up_needs_no_bundle_any_more(run: Path) -> None:
    from rootdata.scan.taken import with_taken_scale

    plain = with_taken_scale({"scale": {"from": str(run)}})["scale"]
    again = make_data(run, scale={**plain, "from": "/gone"})
    assert again.scanned.transforms == make_data(run, scale={"from": str(run)}).scanned.transforms


@pytest.mark.long
def test_a_feature_that_is_not_there_needs_a_scaling_of_its_own(run: Path) -> None:
    derived = {"ht": "sum(Jet_pt)", "n": "count(Jet_pt)", "new": "met + 1"}
    options = {"derived": derived, "flat": ["met", "new"]}
    with pytest.raises(ConfigError, match=r"scale.from=.*: feature 'new' is not scaled there; give it a scaling"):
        make_data(run, **options, scale={"from": str(run)}).setup()
    for scale in ({"from": str(run), "new": "minmax"}, {"from": str(run), "default": "minmax"}):
        data = make_data(run, **options, scale=scale)
        assert data.scanned.transforms["new"].shift == pytest.approx(data.specs.columns["new"].low)
    other = {"ht": "max(Jet_pt)", "n": "count(Jet_pt)"}
    with pytest.raises(ConfigError, match=r"'ht' is sum\(Jet_pt\) there and max\(Jet_pt\) here; derive it in the same"):
        make_data(run, derived=other, scale={"from": str(run)}).setup()
    assert make_data(run, derived=other, scale={"from": str(run), "ht": "minmax"}).scanned.transforms
    with pytest.raises(ConfigError, match="unknown option 'neww' in scale; nearest: 'new'"):
        make_data(run, **options, scale={"from": str(run), "neww": "log"})


@pytest.mark.long
def test_scales_of_no_bundle_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scale.from=.* is no bundle, and in no folder of a training that has one"):
        make_data(run, scale={"from": str(tmp_path)})
    with pytest.raises(ConfigError, match="is no bundle"):
        make_data(run, scale={"from": 3})
    (tmp_path / "bundle").mkdir()
    path = tmp_path / "bundle" / "manifest.json"
    for text in (
        "{",
        "[]",
        "{}",
        '{"scaling": {"met": {"shift": 1}}}',
        '{"scaling": {"met": {"shift": 1, "factor": 0}}}',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match="does not say how features are scaled"):
            make_data(run, scale={"from": str(tmp_path)})
    path.write_bytes((run / "bundle" / "manifest.json").read_bytes())  # without the specs of its training
    with pytest.raises(ConfigError, match=r"feature '(ht|Jet_pt)' is scaled by a curve that is in the graph al"):
        make_data(run, scale={"from": str(tmp_path)})


def test_the_name_of_a_manifest_is_the_same_in_both_rooms() -> None:
    from rootdata.bundle import manifest
    from rootdata.scan import taken

    assert taken.MANIFEST == manifest.MANIFEST


def test_the_numbers_of_a_manifest_are_those_of_the_scaling(tmp_path: Path) -> None:
    write(tmp_path / "a.root", make_events(200))
    scaling = {
        "met": {"shift": 3.5, "factor": 0.25, "log": True, "dtype": "float32", "curve": "", "clip": 2.0},
        "ht": {"shift": 1.0, "factor": 0.5, "log": False, "dtype": "float32", "curve": "", "clip": None},
        "elsewhere": {"shift": 1.0, "factor": 0.5, "log": False, "dtype": "float32"},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"scaling": scaling}))
    data = make_data(tmp_path, flat=["met", "ht"], jagged=None, scale={"from": str(tmp_path)})
    assert data.scanned.transforms == {
        "met": Transform(shift=3.5, factor=0.25, curve=SIGNED_LOG, clip=2.0),
        "ht": Transform(shift=1.0, factor=0.5),
    }
    assert (
        make_data(tmp_path, flat=["met"], jagged=None, clip=9, scale={"from": str(tmp_path)})
        .scanned.transforms["met"]
        .clip
        == 9
    )
