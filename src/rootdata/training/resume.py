"""The last checkpoint of a configuration, looked for in the folders of the trainings before."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from rootdata.causes import OUTSIDE, cause_of
from rootdata.loading import position
from rootdata.options.parsed import READING

CONFIG = "config.yaml"  # written by a training into its folder, resolved
LOG = "metrics.csv"
METRICS = "metrics.json"  # of a training that was tested

MATHEMATICS = (
    *("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("limit_train_batches", "overfit_batches", "sync_batchnorm"),
)
"""Options of the trainer that change what a network becomes, but how long it is trained."""

Plain = Mapping[str, Any]
HowFar = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FoundCheckpoint:
    """A checkpoint to go on from.

    Attributes
    ----------
    folder : of the training that wrote it
    epoch : in which it was written, from 0
    step : how often the weights had been changed
    epochs : that were over
    is_over : whether early stopping had ended the training
    identity : of the events and their order, as the data module saved it; empty where it saved none
    """

    path: Path
    folder: Path
    epoch: int
    step: int
    epochs: int
    is_over: bool
    identity: Plain = dataclasses.field(default_factory=dict)

    def reached(self, trainer: Plain) -> str:
        """Name the limit of a trainer, by its options, that this training has reached already; empty without one."""
        limits = (("max_epochs", self.epochs), ("max_steps", self.step))
        found = ((name, trainer.get(name), done) for name, done in limits)
        return next((f"trainer.{name}={limit}" for name, limit, done in found if limit and 0 < limit <= done), "")


def find(
    config: Plain, *, identity: Callable[[], Plain | None] = lambda: None, say: Callable[[str], object]
) -> FoundCheckpoint | None:
    """Find the last checkpoint of a configuration beside the folder that it would write to.

    Parameters
    ----------
    config : resolved
    identity : tells what the events and their order are now, see :func:`rootdata.loading.position.identity_of`: what a
        checkpoint must have been made with. Where there is none, as of another data module, the options of the data are
        compared
    say : told what is passed over, and why

    Returns
    -------
    The one that got furthest, of the training that was started last and left any; None without one.
    """
    nearly = ""
    for folder in runs_beside(Path(config["paths"]["output_dir"])):
        other = read_config(folder)
        if other is None:
            continue
        different = difference(essence(config, data=False), essence(other, data=False))
        found = None if different else furthest(folder, say=say)
        if found:
            different = other_data(config, other, found, identity=identity)
        if found and not different:
            return found
        nearly = nearly or (different and f"{folder.name} differs in {different}")
    if nearly:
        say(nearly)
    return None


def other_data(config: Plain, other: Plain, found: FoundCheckpoint, *, identity: Callable[[], Plain | None]) -> str:
    """Name the first difference between the events of a checkpoint and those of now; empty where there is none.

    Parameters
    ----------
    config : of the training that is to go on, resolved
    other : of the training that wrote the checkpoint
    found : the checkpoint; where it holds the identity of its events, that decides, else the options of the data
    identity : tells what the events and their order are now; None where the data module can't say
    """
    if found.identity and (now := identity()):
        return position.difference(found.identity, now)
    return difference(essence(config), essence(other))


def runs_beside(folder: Path) -> list[Path]:
    """List the folders with the same parent in which trainings left checkpoints, the last started first."""
    configs = [p for p in folder.parent.glob(f"*/{CONFIG}") if not p.parent.is_symlink()]
    configs = [p for p in configs if next(p.parent.rglob("*.ckpt"), None)]
    return [p.parent for p in sorted(configs, key=lambda p: (p.stat().st_mtime_ns, p), reverse=True)]


def read_config(folder: Path) -> dict[str, Any] | None:
    """Read what a training was made from; None where that is no configuration of ``train.py``."""
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except Exception:  # noqa: BLE001 - whatever a file of this name may hold: it is somebody else's
        return None
    return cast("dict[str, Any]", config) if is_ours(config) else None


def is_ours(config: Any) -> bool:
    """Tell whether plain values are a configuration of ``train.py``."""
    wanted = ("paths", "data", "model", "trainer")
    return isinstance(config, dict) and all(isinstance(config.get(key), dict) for key in wanted)


def essence(config: Plain, *, data: bool = True) -> dict[str, Any]:
    """Take from a configuration what decides the weights, as dotted keys; its own folder is replaced by ``<folder>``.

    Parameters
    ----------
    config : of a training, resolved
    data : whether the options of the data are among it, but for those that change how events are read
    """
    options = {key: value for key, value in config["data"].items() if data and key not in READING}
    trainer = {key: config["trainer"].get(key) or None for key in MATHEMATICS}  # 0, false and null are one
    kept = {"seed": config.get("seed"), "data": options, "model": config["model"], "trainer": trainer}
    folder = str(config["paths"].get("output_dir"))
    return {key: v.replace(folder, "<folder>") if isinstance(v, str) else v for key, v in leaves(kept)}


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value inside mappings and lists with its dotted place; what is not set has none."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}.{number}")
    elif value is not None:
        yield place, "nan" if isinstance(value, float) and math.isnan(value) else value  # which is equal to itself


def difference(one: Plain, other: Plain) -> str:
    """Name the first place at which two flat mappings differ, with both values; empty if they are equal."""
    for key in [*one, *other]:
        if one.get(key) != other.get(key):
            return f"{key}: {other.get(key)!r} there, {one.get(key)!r} here"
    return ""


def furthest(folder: Path, *, say: Callable[[str], object]) -> FoundCheckpoint | None:
    """Return the checkpoint of a training that got furthest, the latest of those."""
    candidates: list[tuple[HowFar, FoundCheckpoint]] = []
    for path in folder.rglob("*.ckpt"):
        try:
            found = read(path, folder=folder)
        except Exception as error:  # noqa: BLE001 - the reader of damaged files fails in any way
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            why = "it can't be read" if cause_of(error) in OUTSIDE else "it is no whole checkpoint"
            say(f"{path} is passed over, {why} ({reason})")
        else:
            candidates.append(((found.step, found.epoch, path.stat().st_mtime_ns), found))
    return max(candidates, key=lambda pair: pair[0])[1] if candidates else None


def read(path: Path, *, folder: Path) -> FoundCheckpoint:
    """Read how far a checkpoint of Lightning got; weights stay on disk, and nothing in it is executed."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if "loops" not in content or not content.get("optimizer_states"):
        raise ValueError("it holds weights alone")
    return FoundCheckpoint(
        path=path,
        folder=folder,
        epoch=int(content["epoch"]),
        step=int(content["global_step"]),
        epochs=int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]),
        is_over=any(is_patience_gone(state) for state in content.get("callbacks", {}).values()),
        identity=next((s["identity"] for s in content.values() if isinstance(s, dict) and s.get("identity")), {}),
    )


def is_patience_gone(state: Any) -> bool:
    """Tell from a callback's state whether it is that of an early stopping which has stopped."""
    return (
        isinstance(state, Mapping)
        and {"wait_count", "patience"} <= set(state)
        and (state["wait_count"] >= state["patience"])
    )


def keep_logs(folder: Path) -> None:
    """Rename the tables of metrics below a folder, ``metrics.1.csv`` the oldest: a new logger deletes its file."""
    for log in folder.rglob(LOG):
        names = (path.name.split(".")[1] for path in log.parent.glob("metrics.*.csv"))
        number = 1 + max((int(name) for name in names if name.isdecimal()), default=0)
        log.rename(log.with_name(f"metrics.{number}.csv"))


def tidy(checkpoint: Path) -> None:
    """Remove the other recent checkpoints, all behind this one: Lightning leaves each that it was resumed from."""
    for path in checkpoint.parent.glob("recent_*.ckpt"):
        if path != checkpoint:
            path.unlink(missing_ok=True)
