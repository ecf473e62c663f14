"""From ``main`` of a script to its work: options checked, a folder of its own, one sentence for what goes wrong."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rootdata.app.building import settle
from rootdata.app.checking import check, references
from rootdata.app.folders import own_folder, trainer_of
from rootdata.app.printing import print_anything
from rootdata.app.sentences import known_groups, one_sentence, say_stopped
from rootdata.disk import write_atomic
from rootdata.errors import ConfigError, FileError
from rootdata.shutdown.signals import Ending
from rootdata.training import runs
from rootdata.training.resume import CONFIG, keep_logs, tidy

Task = Callable[[DictConfig], Any]
BUNDLE = "bundle"  # folder in that of a training


def main(*, config_path: str | Path, config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Decorate the function that gets the composed configuration, as ``hydra.main`` does.

    Mistakes of the user (an unknown option, a wrong type, a bad file: any :class:`RootDataError`) end the program with
    one sentence and status 2; ``HYDRA_FULL_ERROR=1`` shows the traceback instead. Ctrl-C ends it with status 130 and
    SIGTERM with 143, whatever it does, and the other ranks of a training with it. While the function runs, its folder
    is locked (see :func:`own_folder`).

    Parameters
    ----------
    config_path : folder of the configuration, relative to the file of the function
    config_name : the primary configuration in it
    """

    def decorate(task: Task) -> Callable[[], None]:
        folder = Path(inspect.getfile(task)).resolve().parent / config_path
        is_full = os.environ.get("HYDRA_FULL_ERROR")

        @functools.wraps(task)
        def job(config: DictConfig) -> Any:
            restore("HYDRA_FULL_ERROR", is_full)
            # Lightning's own, with the newest torch; nothing that a user could change.
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            with one_sentence(is_full=is_full == "1", folder=folder, config_name=config_name):
                check(config, known=known_groups(folder / f"{config_name}.yaml"), used=references(config))
                check_task(config)
                settle(config)
                with own_folder(config):
                    return task(config)

        @functools.wraps(task)
        def run() -> None:
            print_anything()
            # Hydra prints what goes wrong in composing, and exits, unless this is set.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            with (
                Ending(say=say_stopped),
                one_sentence(is_full=is_full == "1", folder=folder, config_name=config_name),
            ):
                hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)(job)()

        return run

    return decorate


def check_task(config: DictConfig) -> None:
    """Refuse to test or export a network that nobody trained, a checkpoint that is none, a seed that libraries refuse.

    Raises
    ------
    ConfigError
    """
    path, resume, seed = config.get("ckpt_path"), config.get("resume"), config.get("seed", 0)
    if not 0 <= seed < 1 << 32:
        raise ConfigError(f"seed: got {seed}; expected a whole number from 0 to {(1 << 32) - 1}")
    if config.get("train") is False and path is None and not resume and (config.test or config.export):
        raise ConfigError(
            "train=false: there is no trained network to test or export; name its checkpoint, as ckpt_path=FILE, or "
            "leave train=false out"
        )
    if path is None or "://" in str(path) or Path(str(path)).is_dir():  # elsewhere, or in parts
        return
    path = str(path)
    if not Path(path).exists():
        raise ConfigError(f"ckpt_path={path}: there is no such file (seen from {Path.cwd()}); check the path")
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"ckpt_path={path} is no checkpoint, or not a whole one; take another")


def restore(name: str, value: str | None) -> None:
    """Set an environment variable back to what it was."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def save_inputs(config: DictConfig, data: Any, *, folder: str | Path) -> None:
    """Write what a training was made from: ``config.yaml``, resolved, and ``specs.json`` of its data.

    A log of metrics that is there already is kept under another name; what ``resume=auto`` left behind is removed.

    Parameters
    ----------
    config : the whole configuration, composed
    data : a data module, of which the specs are saved
    folder : of the outputs; made where it is not there

    Raises
    ------
    ConfigError
        If this process was taken for a part of another one's training, in whose folder it is.
    """
    if runs.follows(trainer_of(config)):
        raise ConfigError(
            f"process {runs.rank()} of several trains on its own; set trainer.devices=1 for a training each, "
            "trainer=ddp for one of all of them"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    keep_logs(Path(folder))
    if config.get("resume") and config.ckpt_path:
        tidy(Path(config.ckpt_path))
    write_atomic(Path(folder, CONFIG), OmegaConf.to_yaml(config, resolve=True))
    data.specs.save(Path(folder, "specs.json"))


def outcome(trainer: Any, *, folder: str | Path) -> Any:
    """Make a table of what came out and where it is, to be printed by rich.

    Parameters
    ----------
    trainer : a Lightning trainer after its work
    folder : of the outputs
    """
    from rich.table import Table

    from rootdata.training.callbacks import ScoreReport
    from rootdata.training.responses import FIGURES

    report = next((callback for callback in trainer.callbacks if isinstance(callback, ScoreReport)), None)
    figures, paths = (report.metrics, report.paths) if report else ({}, {})
    rows: dict[str, Any] = {f"test {name}": figures.get(name) for name in ("auc", "accuracy", "loss")}
    rows = {name.replace("auc", "AUC"): f"{value:.4f}" for name, value in rows.items() if value is not None}
    rows |= {f"test {name}": f"{value:.5g}" for name, value in figures.items() if name.rpartition("/")[2] in FIGURES}
    rows |= {f"sculpting of {n}": f"{v:.4f}" for n, v in figures.get("sculpting", {}).items() if v is not None}
    places = {
        "report": paths.get("report"),
        "ROC curve": paths.get("roc_plot", paths.get("roc")),
        "scores": paths.get("scores_plot", paths.get("scores")),
        "confusion": paths.get("confusion_plot", paths.get("confusion")),
        "responses": paths.get("responses_plot", paths.get("responses")),
        "sculpting": paths.get("sculpting_plot", paths.get("sculpting")),
        "metrics": paths.get("metrics"),
        "checkpoint": getattr(trainer.checkpoint_callback, "best_model_path", None),
        "bundle": Path(folder, BUNDLE),
        "specs": Path(folder, "specs.json"),
        "configuration": Path(folder, "config.yaml"),
    }
    table = Table(show_header=False)
    for column in ("what", "where"):
        table.add_column(column, overflow="fold")
    for name, value in rows.items():
        table.add_row(name, f"[bold]{value}")
    for name, path in places.items():
        if path and Path(path).exists():
            path = Path(path).absolute()
            table.add_row(name, str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
    return table


def require(folder: str | Path, *, files: Sequence[object] = (), remedy: str) -> None:
    """Check that there is a folder of ROOT files, for use as ``prepare`` of a data module.

    Parameters
    ----------
    folder : where files lie by default
    files : what the samples name; where that lies elsewhere, the folder is not wanted
    remedy : how to get the files, or name others

    Raises
    ------
    FileError
        Saying how to get the files.
    """
    if files and not any(str(place).startswith(str(folder)) for place in files):
        return
    if not any(Path(folder).glob("*.root")):
        raise FileError(f"no ROOT files in {str(Path(folder).absolute())!r}; {remedy}")
