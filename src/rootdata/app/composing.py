"""A data module out of a configuration, without the run that Hydra would start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from rootdata.app import building, checking, sentences
from rootdata.errors import ConfigError, FileError


def data_module(word: str, *, configs: Path, overrides: Sequence[str]) -> Any:
    """Build the data module that ``train.py`` would build.

    Parameters
    ----------
    word : ``data=NAME`` of a file in the folder of configurations, or a YAML file
    configs : the folder of configurations
    overrides : as on the command line of ``train.py``

    Raises
    ------
    ConfigError, FileError
        For a file that is absent, and whatever ``train.py`` would refuse.
    """
    folder, choice = _place(word, configs)
    try:
        config = _compose(folder, [choice, *overrides]) if folder else _load(choice, overrides)
        return building.build(config.data)
    except (HydraException, OmegaConfBaseException) as error:
        sentence = sentences.explain(error, folder=folder or Path(), config_name="train")
        if sentence is None:
            raise
        raise ConfigError(sentence) from error


def _place(word: str, configs: Path) -> tuple[Path | None, str]:
    """Find the folder of configurations and the choice in it; no folder for a file that stands alone."""
    if word.endswith((".yaml", ".yml")):
        path = Path(word).absolute()
        if not path.is_file():
            raise FileError(f"{word} does not exist; check the path (seen from {Path.cwd()})")
        is_home = path.parent.name == "data" and (path.parents[1] / "train.yaml").exists()
        return (path.parents[1], f"data={path.stem}") if is_home else (None, str(path))
    if not word.startswith("data="):
        raise ConfigError(f"scan: got {word!r}; expected a .yaml file, or data=NAME of a file in {configs / 'data'}")
    if not (configs / "train.yaml").exists():
        raise FileError(f"no train.yaml in {configs.absolute()}; name the folder with --configs, or give a .yaml file")
    return configs.absolute(), word


def _compose(folder: Path, overrides: Sequence[str]) -> Any:
    """Compose and check a configuration as ``train.py`` does."""
    with initialize_config_dir(version_base="1.3", config_dir=str(folder)):
        # The folder of a run's outputs is known to a run alone.
        config = compose("train", overrides=["++paths.output_dir=.", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    checking.check(config, known=sentences.known_groups(folder / "train.yaml"), used=checking.references(config))
    return config


def _load(path: str, overrides: Sequence[str]) -> Any:
    """Read a data configuration that stands alone."""
    try:
        options = OmegaConf.load(path)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}; mend it") from error
    if not isinstance(options, DictConfig):
        raise ConfigError(f"{path} holds no mapping; expected the options of RootDataModule: `samples: ...`")
    base = {"seed": 42, "data": {"_target_": "rootdata.RootDataModule"}}
    config = OmegaConf.merge(base, {"data": options}, OmegaConf.from_dotlist([o.lstrip("+") for o in overrides]))
    used = set(re.findall(r"[.\w]+", " ".join(re.findall(r"\$\{([^}]*)", OmegaConf.to_yaml(config)))))
    checking.check(cast("DictConfig", config), known={"seed": int, "data": Any}, used=used)
    return config
