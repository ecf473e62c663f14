"""Stream ROOT files into PyTorch Lightning.

The names below are the public face; they are loaded when they are first used, so that importing the package costs
nothing. What a configuration names beside them (callbacks, loggers, networks) is public by its documentation; all else
may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootdata.bundle.export import export as export
    from rootdata.bundle.manifest import Manifest as Manifest
    from rootdata.bundle.manifest import open_bundle as open_bundle
    from rootdata.errors import RootDataError as RootDataError
    from rootdata.inspection.files import inspect as inspect
    from rootdata.loading.datamodule import RootDataModule as RootDataModule
    from rootdata.loading.dataset import RootDataset as RootDataset
    from rootdata.scan.specs import Specs as Specs

_HOMES = {
    "Manifest": "rootdata.bundle.manifest",
    "RootDataError": "rootdata.errors",
    "RootDataModule": "rootdata.loading.datamodule",
    "RootDataset": "rootdata.loading.dataset",
    "Specs": "rootdata.scan.specs",
    "export": "rootdata.bundle.export",
    "inspect": "rootdata.inspection.files",
    "open_bundle": "rootdata.bundle.manifest",
}

__all__ = ["Manifest", "RootDataError", "RootDataModule", "RootDataset", "Specs", "export", "inspect", "open_bundle"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rootdata' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
