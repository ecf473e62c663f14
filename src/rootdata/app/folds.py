"""All folds by one command: a sweep over ``data.fold``, and what becomes of its trainings together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rootdata.app import building, folders, launch, sentences
from rootdata.errors import ConfigError
from rootdata.options.parts import Folds, parse_folds
from rootdata.training import runs
from rootdata.training.resume import CONFIG, difference, essence, read_config

FOLD = "data.fold"


class EveryFold(Callback):
    """Let a sweep of ``data.folds`` train all of them, and join what they left: one file of scores and one bundle.

    Hydra calls this where it stands in ``hydra.callbacks``.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check that all folds can be trained, choose those that are, and the folder that is gone on with."""
        with sentences.in_one_sentence(), _known(config):
            folds = _folds_of(config)
            if folds is None:
                return
            with read_write(config.hydra), open_dict(config.hydra):
                if not _swept(config) and config.data.get("fold") is None:
                    every = ",".join(map(str, range(folds.count)))
                    config.hydra.sweeper.params = {**(config.hydra.sweeper.params or {}), FOLD: every}
                found = _before(config) if config.get("resume") == "auto" else None
                if found is not None:
                    config.hydra.sweep.dir = str(found)
            if not runs.follows(folders.trainer_of(config)):
                building.build(config.data, given={"fold": 0}).prepare_data()  # which looks at all folds

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Join the folds, once all of them are trained."""
        with sentences.in_one_sentence(), _known(config):
            if _folds_of(config) is None or not _swept(config) or runs.follows(folders.trainer_of(config)):
                return
            from rich.console import Console

            from rootdata.app.joining import export_folds, join

            console, folder = Console(), Path(config.hydra.sweep.dir)
            try:
                console.print(join(folder, latest=OmegaConf.select(config, "paths.latest")))
            except ConfigError as error:  # of some folds, or of other options swept beside them
                console.print(f"not joined: {error}", highlight=False, soft_wrap=True, markup=False)
                return
            if config.export:
                export_folds(folder, folder / launch.BUNDLE)
            console.print(f"folds: {folder}", highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _known(config: DictConfig) -> Iterator[None]:
    """Let values of Hydra's own, which others refer to, be those of this configuration."""
    known = HydraConfig.instance()
    before = known.cfg
    known.set_config(config)
    try:
        yield
    finally:
        known.cfg = before


def _folds_of(config: DictConfig) -> Folds | None:
    """Return the folds of a configuration; None where it has none."""
    plain = OmegaConf.select(config, "data.folds")
    return parse_folds(OmegaConf.to_container(plain, resolve=True) if OmegaConf.is_config(plain) else plain, "folds")


def _swept(config: DictConfig) -> bool:
    """Say whether the command, or what was added to it, names the folds that are trained."""
    is_named = any(word.lstrip("+").startswith(f"{FOLD}=") for word in config.hydra.overrides.task)
    return is_named or FOLD in (config.hydra.sweeper.params or {})


def is_joined(config: DictConfig) -> bool:
    """Say whether a training is one of a sweep over folds, whose networks become one bundle."""
    return OmegaConf.select(config, FOLD) is not None and HydraConfig.get().mode == RunMode.MULTIRUN


def _before(config: DictConfig) -> Path | None:
    """Find the folder of an earlier sweep over the folds of the same configuration, the last one that was started."""
    mine = _essence(_plain(config))
    parent = Path(config.hydra.sweep.dir).parent
    starts = [path for path in parent.glob(f"*/*/{CONFIG}") if not path.parents[1].is_symlink()]
    for path in sorted(starts, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        other = read_config(path.parent)
        if other is not None and other["data"].get("folds") and not difference(mine, _essence(other)):
            print(f"resume=auto: going on with the folds in {path.parents[1]}", flush=True)
            return path.parents[1]
    return None


def _plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, resolved, but for the folder of a run, which a sweep has not."""
    copy = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    with read_write(copy), open_dict(copy):
        OmegaConf.update(copy, "paths.output_dir", "<folder>")  # as `essence` calls it
        return building.plain(copy)


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    return essence({**config, "data": {k: v for k, v in config["data"].items() if k != "fold"}})
