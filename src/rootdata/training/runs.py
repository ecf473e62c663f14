"""The folder of a training: its own, locked as long as it runs, and the same for all of its processes.

A folder that is named by the time is a new one: who comes second in the same second gets ``_1`` behind the name. One
that the user names may hold an earlier training: it is used again to go on with that one, and for no other.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rootdata import disk
from rootdata.errors import ConfigError, FileError
from rootdata.training.resume import CONFIG, difference, essence, is_ours, read_config

LOCK = ".lock"
LOCK_SECONDS = 2.0  # whoever sweeps holds a lock for a moment
LAUNCH_SECONDS = 300.0  # that the processes of a training may start after each other
RESULTS = ("checkpoints/*.ckpt", "metrics.json", "bundle/manifest.json")
ELSEWHERE = "choose another folder: hydra.run.dir=... or paths.output_dir=..."

# The number of a process among those of its training: torchrun's, which may run inside the others; Lightning's own, on
# one node and several; SLURM's, IBM's, Open MPI's and those of other MPIs. The first that is there counts.
_RANKS = (
    ("RANK",),
    ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK"),
    *(("SLURM_PROCID",), ("JSM_NAMESPACE_RANK",), ("OMPI_COMM_WORLD_RANK",), ("PMIX_RANK",), ("PMI_RANK",)),
)
# What these processes have in common, and with no others.
_LAUNCHES = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "LSB_JOBID", "PMIX_NAMESPACE"),
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
)

Plain = Mapping[str, Any]


# Processes of one training


def rank() -> int:
    """Return the number of this process among those that were started together, from its environment; 0 alone."""
    for names in _RANKS:
        numbers = [int(word) for name in names if (word := os.environ.get(name, "")).isdecimal()]
        if numbers:
            return max(numbers)
    return 0


def follows(trainer: Plain | None) -> bool:
    """Tell whether this process works in the folder of another one, the first of its training.

    Parameters
    ----------
    trainer : its options; with one device, each process is a training of its own
    """
    options = trainer or {}
    devices = options.get("devices")
    is_one = devices in (1, "1") or (isinstance(devices, list) and len(devices) == 1)
    is_single = options.get("strategy") in (None, "auto") and options.get("num_nodes") in (None, 1)
    return rank() > 0 and not (is_one and is_single)


def launch() -> str:
    """Say what started this process and others of its training; empty where nothing did."""
    return " ".join(f"{name}={os.environ[name]}" for name in _LAUNCHES if name in os.environ)


# Folders


def new_place(wanted: Path, *, is_first: bool) -> Path:
    """Make a new folder, or find the one that the first process of the same training made, and locked.

    Parameters
    ----------
    wanted : named by the time, which processes that start one after the other see differently
    is_first : whether this is the process that makes it

    Raises
    ------
    ConfigError
        Where the first process has made none.
    """
    if is_first:
        return disk.new_folder(wanted)
    deadline = time.monotonic() + LAUNCH_SECONDS
    while launch() and time.monotonic() < deadline:
        for lock in wanted.parent.glob(f"*/{LOCK}"):
            owner = disk.owner_of(lock)
            if owner is not None and owner.launch == launch() and disk.is_held(lock):
                return lock.parent
        time.sleep(0.1)
    raise ConfigError(
        f"process {rank()} of this training does not find the folder of the first one in {wanted.parent}; "
        "give all of them the same hydra.run.dir=..."
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one training, and remove what killed ones left half-written in it and in those beside it.

    Raises
    ------
    ConfigError
        If another training has it, and lives.
    FileError
        If it can't be written.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(disk.hold(folder / LOCK, seconds=LOCK_SECONDS, owner=disk.myself(launch=launch())))
        except disk.LockedError as error:
            raise ConfigError(f"{folder} is in use by another training ({_who(error.owner)}); {ELSEWHERE}") from None
        except OSError as error:
            if error.errno not in disk.NO_LOCKS:
                raise FileError(f"{folder} can't be written ({error}); {ELSEWHERE}") from error
            warnings.warn(f"{folder} can't be locked ({error}): start no other training in it", stacklevel=3)
        sweep(folder)
        yield


def sweep(folder: Path) -> None:
    """Remove what killed trainings left half-written in a folder that is locked, and in others with its parent."""
    _sweep_inside(folder)
    for lock in folder.parent.glob(f"*/{LOCK}"):
        if lock.parent != folder and not lock.parent.is_symlink():
            with contextlib.suppress(OSError, disk.LockedError), disk.hold(lock, seconds=0):
                _sweep_inside(lock.parent)


def _sweep_inside(folder: Path) -> None:
    for place in (folder, *folder.iterdir()):
        if place.is_dir() and not place.is_symlink():
            disk.sweep(place)


def _who(owner: disk.Owner | None) -> str:
    return str(owner or "it is not known by whom")


# What may go into a folder


def refuse_mixture(folder: Path, config: Plain) -> None:
    """Refuse a folder that holds results, unless the same training goes on from a checkpoint that is named.

    Parameters
    ----------
    folder : of the outputs
    config : resolved

    Raises
    ------
    ConfigError
        Naming the first difference.
    """
    if not is_ours(config) or not any(next(folder.glob(pattern), None) for pattern in RESULTS):
        return
    other = read_config(folder)
    if other is None:
        raise ConfigError(f"{folder} holds results of a training, and no {CONFIG} that says of which; {ELSEWHERE}")
    different = difference(essence(config), essence(other))
    if different:
        raise ConfigError(f"{folder} holds a training that differs in {different}; {ELSEWHERE}")
    if config.get("resume") is not None:
        raise ConfigError(f"{folder} holds results, and no checkpoint that this training can go on from; {ELSEWHERE}")
    if config.get("ckpt_path") is None:
        raise ConfigError(f"{folder} holds a training of this configuration; resume=auto goes on with it; {ELSEWHERE}")


def refuse_twin(folder: Path, config: Plain) -> None:
    """Refuse to go on with a configuration that is being trained, in a folder with the same parent.

    Parameters
    ----------
    folder : of this training
    config : resolved

    Raises
    ------
    ConfigError
        Naming who does.
    """
    for path in folder.parent.glob(f"*/{CONFIG}"):
        lock = path.with_name(LOCK)
        if path.parent == folder or path.parent.is_symlink() or not disk.is_held(lock):
            continue
        other = read_config(path.parent)
        if other is not None and not difference(essence(config), essence(other)):
            raise ConfigError(
                f"resume=auto: this configuration is being trained in {path.parent} ({_who(disk.owner_of(lock))}); "
                "wait for it or stop it; without resume=auto a training gets a folder of its own"
            )
