"""The folder of a run: chosen, held while it runs, gone on in, forgotten where nothing came of it."""

from __future__ import annotations

import functools
import shutil
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from rootdata.app.building import build, plain, say
from rootdata.app.sentences import in_one_sentence
from rootdata.disk import write_atomic
from rootdata.errors import ConfigError
from rootdata.training import runs
from rootdata.training.resume import METRICS, find


class OwnFolder(Callback):
    """Give a run, or a sweep, that is named by the time a new folder, before Hydra writes anything into it.

    Of the processes of one training the first one makes it, and all others find it. Hydra calls this where it stands in
    ``hydra.callbacks``.
    """

    def __init__(self) -> None:
        self._held = ExitStack()

    def __reduce__(self) -> tuple[type[OwnFolder], tuple[()]]:
        """Go along to the jobs of a cluster without the lock, which the process that submits them holds."""
        return type(self), ()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Choose the folder of a run."""
        with in_one_sentence():
            choose_folder(config, "run")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Choose the folder of a sweep, and hold it; its jobs are told by an option."""
        with in_one_sentence():
            is_first = choose_folder(config, "sweep")
            folder = str(config.hydra.sweep.dir)
            if is_first:
                self._held.enter_context(runs.locked(Path(folder)))
            quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
            with read_write(config.hydra):
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Let go of the folder of a sweep."""
        self._held.close()


def choose_folder(config: DictConfig, mode: str) -> bool:
    """Set the folder of a run, or a sweep, where it is named by the time; tell whether this is the first process.

    Parameters
    ----------
    config : the whole configuration, Hydra's part included
    mode : ``run`` or ``sweep``
    """
    node, known = config.hydra[mode], HydraConfig.instance()
    is_first = not runs.follows(trainer_of(config))
    name = typing.cast("dict[str, Any]", OmegaConf.to_container(node))["dir"]  # as it is written
    if "${now:" in name:
        before = known.cfg
        known.set_config(config)  # the folder's name asks for it
        try:
            wanted = Path(node.dir)
        finally:
            known.cfg = before
        with read_write(config.hydra):
            node.dir = str(runs.new_place(wanted, is_first=is_first))
    return is_first


def trainer_of(config: DictConfig) -> dict[str, Any] | None:
    """Return the options of the trainer, plain; None where there are none."""
    node = config.get("trainer")
    return typing.cast("dict[str, Any]", OmegaConf.to_container(node)) if isinstance(node, DictConfig) else None


@contextmanager
def own_folder(config: DictConfig) -> Iterator[None]:
    """Hold the folders of a run while it lasts: Hydra's, and the one of the outputs, which ``resume=auto`` chooses.

    Raises
    ------
    ConfigError
        If another training has one of them, or left results there that this one would mix with its own.
    """
    if runs.follows(trainer_of(config)):  # the first process of this training holds them
        if config.get("resume"):
            resume(config)
        yield
        return
    text, hydras = OmegaConf.to_yaml(config), Path(HydraConfig.get().runtime.output_dir)
    with ExitStack() as held:
        known: set[Path] = set()

        def hold(folder: str | Path) -> Path:
            place = Path(folder).absolute()
            if place.resolve() not in known:
                held.enter_context(runs.locked(place))
                known.add(place.resolve())
            return place

        hold(hydras)
        if config.get("resume"):
            runs.refuse_twin(Path(config.paths.output_dir).absolute(), plain(config))
            resume(config, hold=hold)
        if OmegaConf.select(config, "paths.output_dir"):
            place, has_found = hold(config.paths.output_dir), config.get("resume") and config.ckpt_path
            if not has_found:
                runs.refuse_mixture(place, plain(config))
        save_command(text, folder=hydras / ".hydra")
        try:
            yield
        except BaseException:
            forget_unused(hydras)
            raise


def forget_unused(folder: Path) -> None:
    """Remove the folder of a run that was named by the time and failed before it left anything of its own there.

    Parameters
    ----------
    folder : Hydra's, with the command and an empty log
    """
    known = HydraConfig.get()
    is_named = any(word.startswith("hydra.run.dir=") for word in known.overrides.hydra)
    log = folder / f"{known.job.name}.log"
    left = {path.name for path in folder.iterdir()} - {".hydra", runs.LOCK, log.name}
    if known.mode == RunMode.MULTIRUN or is_named or left or (log.exists() and log.stat().st_size):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for above in folder.parents:  # which were made for it
        if not above.is_relative_to(Path.cwd()) or above == Path.cwd() or any(above.iterdir()):
            return
        above.rmdir()


def save_command(text: str, *, folder: Path) -> None:
    """Write what Hydra was told, each file whole: the configuration before it is resolved, its own, the overrides."""
    write_atomic(folder / "config.yaml", text)
    write_atomic(folder / "hydra.yaml", OmegaConf.to_yaml(HydraConfig.instance().cfg))
    write_atomic(folder / "overrides.yaml", OmegaConf.to_yaml(HydraConfig.get().overrides.task))


def resume(config: DictConfig, *, hold: Callable[[Path], object] = lambda _: None) -> None:
    """Where ``resume=auto`` asks for it, let a training go on from the last checkpoint of the same configuration.

    ``ckpt_path`` and ``paths.output_dir`` are set to it and its folder. Every process finds the same one: none is
    written before all of them train.

    Parameters
    ----------
    config : the whole configuration; changed in place
    hold : locks a folder, so that nothing changes in it any more; of the first process alone

    Raises
    ------
    ConfigError
        For another value, or with a ``ckpt_path``.
    """
    if config.resume is None:
        return
    if config.resume != "auto":
        raise ConfigError(f"resume: got {config.resume!r}; allowed: null, auto; a checkpoint is named by ckpt_path=...")
    if config.ckpt_path is not None:
        raise ConfigError(f"resume=auto looks for a checkpoint, ckpt_path={config.ckpt_path} names one; leave out one")

    @functools.cache
    def identity() -> dict[str, Any] | None:
        return getattr(build(config.data), "identity", None)

    found = find(plain(config), identity=identity, say=say)
    while found is not None:
        hold(found.folder)
        # Another one may have been at work until now.
        seen, found = found, find(plain(config), identity=identity, say=lambda _: None)
        if found == seen:
            break
    if found is None:
        folder = Path(config.paths.output_dir).parent
        say(f"no checkpoint of this configuration in {folder}; starting from the beginning")
        return
    say(f"going on from epoch {found.epoch}, step {found.step}: {found.path}")
    config.ckpt_path, config.paths.output_dir = str(found.path), str(found.folder)
    if found.is_over:
        say("early stopping had ended this training; it is tested and exported again")
        config.trainer.max_epochs = found.epoch + 1
    elif limit := found.reached(config.trainer):
        say(f"this training was finished, it had reached {limit}; it is tested and exported again")
    elif (found.folder / METRICS).exists():
        say("this training was finished; it is trained further in its folder, whose figures and bundle are made anew")
    # That there are files of the same training is what was asked for.
    warnings.filterwarnings("ignore", message=r".* exists and is not empty")
