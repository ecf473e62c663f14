"""Objects out of options: what targets take, networks that begin with weights, columns that networks need."""

import json
import typing

import pytest
import torch
from omegaconf import OmegaConf

from rootdata.app import building
from rootdata.errors import ConfigError, FileError


class Thing:
    """A target for the tests."""

    def __init__(self, size: int, *, names: typing.Sequence[str] = (), extra: dict[str, int] | None = None):
        self.size, self.names, self.extra = size, names, extra


def test_build_drops_helpers_and_converts():
    text = {"folder": "a", "names": ["${..folder}/b"], "size": 3, "_target_": f"{__name__}.Thing"}
    marker = object()
    thing = building.build(OmegaConf.create(text), given={"extra": {"it": marker}})
    assert type(thing.names) is list
    assert thing.names == ["a/b"]
    assert thing.extra["it"] is marker


def test_build_all_takes_what_has_a_target():
    group = OmegaConf.create({"one": {"_target_": f"{__name__}.Thing", "size": 1}, "off": None, "plain": {"size": 2}})
    assert [thing.size for thing in building.build_all(group)] == [1]
    assert building.build_all(None) == []


def test_what_saves_a_stopped_training_sees_the_end_of_a_batch_last():
    stopped = {"_target_": "rootdata.training.stopping.SaveWhenStopped", "path": "x"}
    others = {name: {"_target_": "pytorch_lightning.Callback"} for name in ("before", "after")}
    group = OmegaConf.create({"before": others["before"], "stopped": stopped, "after": others["after"]})
    assert [type(c).__name__ for c in building.build_all(group)] == ["Callback", "Callback", "SaveWhenStopped"]


class OwnNetwork(torch.nn.Module):
    """A network of somebody's own; of its options only ``width`` is one."""

    def __init__(self, shapes, *, classes, width=2):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(shapes["x"][0], width), torch.nn.Linear(width, classes))


class FreeNetwork(OwnNetwork):
    """One that takes whatever is given."""

    def __init__(self, shapes, **more):
        super().__init__(shapes, classes=more.pop("classes"))
        assert not more


class KnownData:
    """The part of a data module that a network is built of."""

    shapes: typing.ClassVar = {"x": (3,)}
    classes = ("background", "signal")


BESIDE = {"init_from": None, "exclude": [], "freeze": [], "decorrelate": None}


def model_config(**changes):
    node = {"_target_": f"{__name__}.OwnNetwork", "width": 2, **BESIDE, **changes}
    return OmegaConf.create({"train": True, "ckpt_path": None, "model": node})


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": OwnNetwork(KnownData.shapes, classes=2).state_dict()}, path)
    return path


@pytest.mark.parametrize("kind", ["OwnNetwork", "FreeNetwork"])
def test_networks_of_ones_own_begin_with_weights_and_keep_some(checkpoint, kind, capsys):
    config = model_config(_target_=f"{__name__}.{kind}", init_from=str(checkpoint), freeze=["layers.0.*"])
    if kind == "FreeNetwork":
        del config.model.width
    network = building.build_model(config, KnownData)
    there = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(values, there[name]) for name, values in network.state_dict().items())
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"layers.0.weight", "layers.0.bias"}
    assert f"model.init_from: the network begins with {len(there)} tensors of {checkpoint}" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"ckpt_path": "last.ckpt"}, {"train": False}])
def test_who_goes_on_does_not_begin_again(changes, capsys):
    config = OmegaConf.merge(model_config(init_from="gone.ckpt", freeze=["layers.0.*"]), changes)
    network = building.build_model(config, KnownData)
    assert not network.layers[0].weight.requires_grad
    said = "model.init_from: gone.ckpt is not looked at; weights are those of last.ckpt\n"
    assert capsys.readouterr().out == (said if "ckpt_path" in changes else "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_from": "gone.ckpt"}, "checkpoint gone.ckpt does not exist"),
        ({"exclude": ["layers.1.*"]}, "model.exclude: got patterns of weights that are not taken over"),
        ({"freeze": ["layer.0.*"]}, "freeze: no weight matches 'layer.0.*'"),
    ],
)
def test_what_does_not_fit_is_said_before_a_training(changes, words):
    with pytest.raises((ConfigError, FileError), match=words):
        building.build_model(model_config(**changes), KnownData)


def test_weights_of_another_shape_are_said_before_a_training(checkpoint):
    words = r"weight 'layers.0.weight' is of shape \(2, 3\) there, of shape \(5, 3\) in this network"
    with pytest.raises(ConfigError, match=words):
        building.build_model(model_config(width=5, init_from=str(checkpoint)), KnownData)


@pytest.mark.parametrize(
    ("observers", "columns", "expected"),
    [
        ([], ["mbb"], ["mbb"]),
        (None, ["mbb"], ["mbb"]),
        ("ht", "mbb", ["ht", "mbb"]),
        (["ht"], "mbb", ["ht", "mbb"]),
        (["mbb"], ["mbb", "ht"], ["mbb", "ht"]),
        ({"m": "mbb / 2"}, ["m", "ht"], {"m": "mbb / 2", "ht": "ht"}),
    ],
)
def test_data_deliver_what_a_network_is_decorrelated_from(observers, columns, expected):
    config = OmegaConf.create({"data": {"observers": observers, "observe_training": False, "scale": "standard"}})
    OmegaConf.set_struct(config, True)
    building.settle(config)
    assert not config.data.observe_training
    config = OmegaConf.merge({"model": {"decorrelate": {"columns": columns}}}, config)
    OmegaConf.set_struct(config, True)
    building.settle(config)
    assert config.data.observers == expected
    assert config.data.observe_training


def test_a_scaling_is_not_taken_over_for_what_is_derived_in_another_way(tmp_path):
    scaling = {"ratio": {"shift": 1.0, "factor": 2.0}}
    manifest = {"scaling": scaling, "features": {"derived": {"ratio": "met / ht"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    data = {"scale": {"from": str(tmp_path)}, "flat": ["ratio"], "derived": {"ratio": "met / ht"}, "jagged": None}
    config = OmegaConf.create({"data": data})
    building.settle(config)
    assert config.data.scale.taken == scaling
    config = OmegaConf.create({"data": {**data, "derived": {"ratio": "ht / met"}}})
    with pytest.raises(ConfigError, match=r"'ratio' is met / ht there and ht / met here; derive it in the same way"):
        building.settle(config)


def test_who_can_not_decorrelate_says_so():
    from rootdata.app.checking import check

    node = OmegaConf.create({"model": {"_target_": f"{__name__}.OwnNetwork", **BESIDE}})
    check(node, known={"model": typing.Any}, used=[])
    node.model.decorrelate = {"columns": ["mbb"]}
    with pytest.raises(ConfigError, match=r"OwnNetwork does not take it; the networks of rootdata.models do"):
        check(node, known={"model": typing.Any}, used=[])


def test_why_a_target_within_a_list_is_not_imported_is_told():
    node = OmegaConf.create({"_target_": "builtins.dict", "plugins": [{"_target_": "os.nothing_there"}]})
    with pytest.raises(
        ConfigError, match=r"_target_ 'os\.nothing_there' can't be imported: module 'os' has no attribute"
    ):
        building.build(node)
