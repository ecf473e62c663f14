"""What ``train.py`` leaves: its best network as a bundle; and the other way, data and network from its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from rootdata import disk
from rootdata.app import building, launch, sentences
from rootdata.app.checking import check, walk
from rootdata.bundle.export import export
from rootdata.bundle.graph.deployed import unwrapped
from rootdata.bundle.weights import weights_of
from rootdata.causes import OUTSIDE, cause_of
from rootdata.errors import BundleError, RootDataError
from rootdata.io.retry import blamed
from rootdata.training.resume import CONFIG, METRICS

SPECS, ROC, SCORES = "specs.json", "roc.json", "scores.json"


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
    weights = weights_of(checkpoint)
    folder = next((f for f in checkpoint.absolute().parents[:2] if (f / CONFIG).is_file()), None)
    if folder is None:
        raise BundleError(
            f"no {CONFIG} beside {checkpoint} or above it: train.py did not write it; call "
            "rootdata.bundle.export.export(network, data, folder) from Python"
        )
    known = folder / SPECS
    with _explained(folder / CONFIG):
        config = _options(folder / CONFIG)
        data = building.build(config.data, given={"specs": known if known.is_file() else None})
        network = building.build_network(config.model, data)
    load_weights(network, weights, where=checkpoint)
    return network, data, folder


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a changed configuration leads to into one sentence."""
    try:
        yield
    except RootDataError:
        raise
    except Exception as error:
        if cause_of(error) in OUTSIDE:
            raise blamed(error, f"{path}: what it says can't be built") from error
        sentence = sentences.explain(error, folder=path.parent, config_name=path.name) or _in_a_line(error)
        raise BundleError(f"{path}: {sentence}; is it what train.py wrote?") from error


def _options(path: Path) -> DictConfig:
    """Read what ``train.py`` was given, and check what data and network are built of."""
    config = OmegaConf.masked_copy(cast("DictConfig", OmegaConf.load(path)), ["data", "model"])
    if not all(isinstance(node := config.get(key), DictConfig) and "_target_" in node for key in ("data", "model")):
        raise BundleError(f"{path} does not say what `data` and `model` are; is it what train.py wrote?")
    helpers = {f".{key}" for _, node in walk(config) for key in map(str, node)}
    check(config, known=dict.fromkeys(("data", "model"), Any), used=helpers)
    return config


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_weights(network: nn.Module, weights: dict[str, torch.Tensor], *, where: Path) -> None:
    """Put weights into a network of the same shape; one in double precision is taken over with it.

    Parameters
    ----------
    network : changed in place; wrappers of torch, such as that of ``compile``, are seen through
    weights : of a checkpoint, by the names of ``state_dict``
    where : path of the checkpoint, for the error

    Raises
    ------
    BundleError
        Where names or shapes differ.
    """
    network = unwrapped(network)
    real = (v for v in weights.values() if isinstance(v, torch.Tensor) and v.is_floating_point())
    if {values.dtype for values in real} == {torch.float64}:
        network.double()
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise BundleError(f"{where} does not fit the network of its {CONFIG}: {_in_a_line(error)}") from error


def report_of(folder: Path) -> dict[str, Any]:
    """Return the metrics, ROC curves and distributions that the test wrote into a folder, as far as it did."""
    found: dict[str, Any] = {}
    if (folder / METRICS).is_file():
        metrics = _json(folder / METRICS)
        found["metrics"] = {k: float(v) for k, v in metrics.items() if type(v) in (int, float)}
    if (folder / ROC).is_file():
        curves = _json(folder / ROC).get("classes", {})
        found["roc"] = {
            name: {k: curve[k] for k in curve if k.endswith("efficiency")} for name, curve in curves.items()
        }
    if (folder / SCORES).is_file():
        found["scores"] = _json(folder / SCORES).get("classes", {})
    if (folder / CONFIG).is_file():
        # through JSON, which has no infinity: it becomes a word
        plain = json.dumps(OmegaConf.to_container(OmegaConf.load(folder / CONFIG)))
        found["training"] = json.loads(plain, parse_constant=str)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{path} can't be read ({error}); remove it, or test the network again") from error
    return found if isinstance(found, dict) else {}


def export_best(
    trainer: Any,
    network: Any,
    data: Any,
    *,
    folder: str | Path,
    ckpt_path: str | None = None,
    latest: str | Path | None = None,
) -> None:
    """Write the best weights of a training as a bundle, into ``bundle`` of its folder.

    Parameters
    ----------
    trainer : a Lightning trainer after its work
    network : the Lightning module; takes over the best weights
    data : the data module that it was trained with
    folder : of the outputs
    ckpt_path : the checkpoint to export where the trainer has written none
    latest : a link that will point at the folder
    """
    best = getattr(trainer.checkpoint_callback, "best_model_path", "") or ckpt_path
    if best:
        load_weights(network, weights_of(Path(best)), where=Path(best))
    export(network, data, Path(folder, launch.BUNDLE), **report_of(Path(folder)))
    if latest is not None:
        point(Path(latest), at=Path(folder))


def point(link: Path, *, at: Path) -> None:
    """Let a link point at a folder, and make it where there is none; anything but a link stays as it is."""
    if link.exists() and not link.is_symlink():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    disk.link(link, os.path.relpath(at, link.parent.resolve()))
