"""Samples of ttH(bb) and its backgrounds, made on the spot: a fast generator in numpy, and Pythia 8 as its reference.

The physics is described in ``docs/tth.md``. Importing this package loads none of its modules;
a name does so when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rootdata.tth.fast import ensure, generate
    from rootdata.tth.full import generate_full

__all__ = ["ensure", "generate", "generate_full"]

_HOMES: Final = {"ensure": "rootdata.tth.fast", "generate": "rootdata.tth.fast", "generate_full": "rootdata.tth.full"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
