"""Print what the server needs: the base dependencies in ``pyproject.toml`` and its extra ``serve``, less training's.

``pip install rootdata[serve]`` would bring torch, which is larger than all the rest together and never imported here.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

TRAINING = frozenset(
    {"hydra-core", "omegaconf", "onnxscript", "pytorch-lightning", "PyYAML", "rich", "torch", "torchmetrics"}
)


def requirements() -> list[str]:
    """Return the requirements, as pip reads them."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    every = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    return [r for r in every if re.split(r"[^\w.-]", r)[0] not in TRAINING]


if __name__ == "__main__":
    print(*requirements(), sep="\n")
