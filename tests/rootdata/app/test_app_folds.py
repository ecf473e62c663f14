"""A sweep over all folds: which are trained, in which folder, and what is refused before the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, read_write

from rootdata.app import folds
from rootdata.app.folds import EveryFold

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def composed(tmp_path: Path, write_tree: Callable[..., Path]) -> Callable[..., Any]:
    """Compose as train.py does with --multirun, on small files of two samples, one of which has odd events alone."""
    for label in (0, 1):
        columns = {"met": np.arange(60, dtype="f4"), "event": np.arange(60) * (1 + label) + label}
        write_tree(tmp_path / f"{label}.root", columns)
    samples = {name: {"files": str(tmp_path / f"{label}.root"), "label": label} for label, name in enumerate("bs")}

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(yaml.safe_dump({"samples": samples, "flat": ["met"]}))

    def make(*words: str) -> Any:
        own = [f"hydra.searchpath=[file://{tmp_path}]", "data=mine", f"hydra.sweep.dir={tmp_path}/sweeps/new"]
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            config = compose("train", [*own, *words], return_hydra_config=True)
        with read_write(config.hydra):
            config.hydra.overrides.task = list(words)
        return config

    return make


def swept(config: Any) -> Any:
    EveryFold().on_multirun_start(config)
    return (config.hydra.sweeper.params or {}).get("data.fold")


def test_all_folds_are_trained_unless_the_command_names_some(composed: Any) -> None:
    assert swept(composed("experiment=kfold", "data.folds=3")) == "0,1,2"
    assert swept(composed("experiment=kfold", "data.folds={count: 3, by: event // 7}")) == "0,1,2"
    config = composed("experiment=kfold", "data.folds=3")
    with read_write(config.hydra):
        config.hydra.overrides.task = ["data.fold=1,2"]
    assert swept(config) is None


def test_other_sweeps_are_left_alone(composed: Any) -> None:
    config = composed("model.lr=0.1")
    before = OmegaConf.to_container(config.hydra.sweeper)
    assert swept(config) is None
    assert OmegaConf.to_container(config.hydra.sweeper) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "{count: 3, by: event // 1000}",
            "folds: fold 1 has no selected events; take fewer than 3, or another expression than",
        ),
        ("{count: 4, by: event}", "folds: fold 0 has no events of 'signal'; take fewer"),
        ("2", "folds.count: got 2; expected 3 or more"),
        ("{count: 3, by: met}", "expected one whole number an event"),
    ],
)
def test_what_can_not_be_trained_is_refused(composed: Any, given: str, said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        EveryFold().on_multirun_start(composed("experiment=kfold", f"data.folds={given}"))
    sentence = capsys.readouterr().err.strip()
    assert caught.value.code == 2
    assert said in sentence
    assert len(sentence.splitlines()) == 1


@pytest.mark.parametrize("model", ["sklearn", "xgboost", "lightgbm"])
def test_trees_are_swept_as_networks_are(composed: Any, model: str) -> None:
    assert swept(composed("experiment=kfold", "data.folds=3", f"model={model}")) == "0,1,2"


def test_the_last_sweep_of_the_same_options_is_gone_on_with(composed: Any, tmp_path: Path) -> None:
    words = ["experiment=kfold", "data.folds=3", "resume=auto"]
    for name, more in (("one", []), ("two", []), ("other", ["model.dropout=0.4"])):
        config = composed(*words, *more)
        with folds._known(config):
            plain = folds._plain(config)
        plain["data"]["fold"] = 1
        place = tmp_path / "sweeps" / name / "fold_1"
        place.mkdir(parents=True)
        (place / "config.yaml").write_text(yaml.safe_dump(plain))
    config = composed(*words)
    EveryFold().on_multirun_start(config)
    assert config.hydra.sweep.dir == str(tmp_path / "sweeps" / "two")
    config = composed("experiment=kfold", "data.folds=4", "resume=auto")
    EveryFold().on_multirun_start(config)
    assert config.hydra.sweep.dir == str(tmp_path / "sweeps" / "new")
