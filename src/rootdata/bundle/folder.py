"""The folder of a bundle, written as a whole or not at all."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rootdata import disk
from rootdata.bundle import cmssw
from rootdata.bundle.manifest import MANIFEST, MODEL, PREPROCESS, Manifest, save_manifest, sha256_of
from rootdata.errors import BundleError, FileError


def software(more: Sequence[str] = ()) -> dict[str, str]:
    """Name what made the bundle, with versions."""
    found = {}
    for name in ("rootdata", "torch", "pytorch-lightning", "onnx", "onnxscript", "onnxruntime", "numpy", *more):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def check_place(folder: Path) -> None:
    """Refuse a place that is not for a bundle, before any work is done."""
    if folder.is_dir() and (not any(folder.iterdir()) or (folder / MANIFEST).exists()):
        return
    if folder.exists():
        raise BundleError(f"{folder} is there and no bundle; choose another folder")


def write(graph: bytes, manifest: Manifest, folder: Path) -> Manifest:
    """Write the bundle beside its place and move it there at once.

    Parameters
    ----------
    graph : of the bundle
    manifest : what is known of it, but for checksum and size
    folder : of the bundle; replaced if it is one already

    Raises
    ------
    FileError
        Where it can't be written; what was there stays.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _written(graph, manifest, folder)
    except OSError as error:
        raise FileError(f"the bundle {folder} can't be written ({error}); choose another place") from error


def _written(graph: bytes, manifest: Manifest, folder: Path) -> Manifest:
    with disk.making(folder) as made:
        (made / MODEL).write_bytes(graph)
        manifest = dataclasses.replace(manifest, sha256=sha256_of(made / MODEL), size=len(graph))
        (made / PREPROCESS).write_text(json.dumps(cmssw.preprocessing(manifest), indent=1) + "\n", encoding="utf-8")
        save_manifest(manifest, made)
        disk.exchange(made, folder)
    return manifest
