"""What ``train.py`` leaves: its best network as a bundle; and the other way, data and network from its folder."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from rootdata import launch
from rootdata.errors import BundleError, FileError
from rootdata.export import export

CONFIG, SPECS, METRICS, ROC = "config.yaml", "specs.json", "metrics.json", "roc.json"


def rebuild(checkpoint: Path) -> tuple[nn.Module, Any, Path]:
    """Build the network with the weights of a checkpoint, and the data module that it was trained on.

    Returns
    -------
    network, data module, and the folder of the training

    Raises
    ------
    BundleError
        For a file that is no checkpoint, or was not written by ``train.py``.
    """
    folder = next((f for f in checkpoint.absolute().parents[:2] if (f / CONFIG).is_file()), None)
    if folder is None:
        raise BundleError(
            f"no {CONFIG} beside {checkpoint} or above it: train.py did not write it; call "
            "rootdata.export.export(network, data, folder) from Python"
        )
    weights = weights_of(checkpoint)
    try:
        config = cast("DictConfig", OmegaConf.load(folder / CONFIG))
        known = folder / SPECS
        data = launch.build(config.data, given={"specs": known if known.is_file() else None})
        network = launch.build(config.model, given={"shapes": data.shapes, "classes": len(data.classes)})
    except OmegaConfBaseException as error:
        raise BundleError(f"{folder / CONFIG}: {error}; is it what train.py wrote?") from error
    load_weights(network, weights, where=checkpoint)
    return network, data, folder


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a Lightning checkpoint; nothing in it is executed."""
    if not checkpoint.is_file():
        raise FileError(f"checkpoint {checkpoint} does not exist (seen from {Path.cwd()})")
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{checkpoint} is no checkpoint of Lightning ({reason})") from error
    return cast("dict[str, torch.Tensor]", found)


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], *, where: Path) -> None:
    """Put weights into a network of the same shape."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{where} does not fit the network of its {CONFIG}: {reason}") from error


def report_of(folder: Path) -> dict[str, Any]:
    """Return the metrics and ROC curves that the test wrote into a folder, as far as it did."""
    found: dict[str, Any] = {}
    if (folder / METRICS).is_file():
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        found["metrics"] = {k: float(v) for k, v in metrics.items() if type(v) in (int, float)}
    if (folder / ROC).is_file():
        curves = json.loads((folder / ROC).read_text(encoding="utf-8"))["classes"]
        found["roc"] = {
            name: {k: curve[k] for k in curve if k.endswith("efficiency")} for name, curve in curves.items()
        }
    if (folder / CONFIG).is_file():
        found["training"] = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    return found


def export_best(trainer: Any, network: Any, data: Any, *, folder: str | Path, latest: str | Path | None = None) -> None:
    """Write the best weights of a training as a bundle, into ``bundle`` of its folder.

    Parameters
    ----------
    trainer : a Lightning trainer after its work
    folder : of the outputs
    latest : a link that will point at the folder
    """
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if best:
        load_weights(network, weights_of(Path(best)), where=Path(best))
    export(network, data, Path(folder, launch.BUNDLE), **report_of(Path(folder)))
    if latest is not None:
        point(Path(latest), at=Path(folder))


def point(link: Path, *, at: Path) -> None:
    """Make a link to a folder, or turn it there; what is no link stays as it is."""
    if link.exists() and not link.is_symlink():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.symlink_to(os.path.relpath(at, link.parent.resolve()), target_is_directory=True)
    fresh.replace(link)
