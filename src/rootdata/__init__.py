"""Stream ROOT files into PyTorch Lightning.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rootdata.errors import RootDataError as RootDataError
    from rootdata.loading.datamodule import RootDataModule as RootDataModule
    from rootdata.loading.dataset import RootDataset as RootDataset
    from rootdata.scan.specs import Specs as Specs

_HOMES = {
    "RootDataModule": "rootdata.loading.datamodule",
    "RootDataset": "rootdata.loading.dataset",
    "RootDataError": "rootdata.errors",
    "Specs": "rootdata.scan.specs",
}

__version__ = "0.1.0"

__all__ = ["RootDataError", "RootDataModule", "RootDataset", "Specs"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rootdata' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
