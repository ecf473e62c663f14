"""The ``preprocess.json`` of weaver, with which CMSSW fills the inputs of a graph.

Its format is that of ``btagbtvdeep::PreprocessParams`` in CMSSW's ``RecoBTag/FeatureTools``: for every input the names
of its variables, how each is shifted and scaled, and how many objects there are. Shift and scale are 0 and 1 here: the
graph scales by itself, so that nothing can be done twice. CMSSW replaces NaN and infinities before the graph sees them:
by the first number that stands for "no value" in the branch, where one was declared.
"""

from __future__ import annotations

from typing import Any

from rootdata.bundle.manifest import Manifest, TensorSpec
from rootdata.options.data import DataConfig

MOST = 1 << 20  # objects of an event where all are kept
NO_FOLD = -1.0  # stands for the number of a fold that is missing
WIDEST = 3.4e38  # no value is clipped: the largest float32


def preprocessing(manifest: Manifest) -> dict[str, Any]:
    """Describe the inputs of a graph as weaver does."""
    config, fold = manifest.config(), manifest.folds.feature if manifest.folds else ""
    lengths = {c.name: None if c.length == "auto" else c.length for c in config.jagged}
    inputs = {t.name: _input(t, lengths.get(t.collection or "", 1), config, fold=fold) for t in manifest.inputs}
    return {
        "output_names": list(manifest.columns),
        "input_names": [t.name for t in manifest.inputs],
        "input_shapes": {t.name: _shape(t) for t in manifest.inputs},
        **inputs,
    }


def _shape(tensor: TensorSpec) -> list[int]:
    """Write the shape of one event; -1 where the graph takes any number of objects."""
    return [1, *(size if isinstance(size, int) else -1 for size in tensor.shape[1:])]


def _input(tensor: TensorSpec, length: int | None, config: DataConfig, *, fold: str) -> dict[str, Any]:
    names = [tensor.name] if tensor.is_mask else list(tensor.features)
    nothing = {name: NO_FOLD if name == fold else next(iter(config.missing_of(name)), 0.0) for name in names}
    bounds = {"min_length": 1, "max_length": MOST} if length is None else {"var_length": length}
    return {"var_names": names, "var_infos": {name: _variable(nothing[name]) for name in names}, **bounds}


def _variable(none: float) -> dict[str, float]:
    return {
        "median": 0.0,
        "norm_factor": 1.0,
        "replace_inf_value": none,
        "lower_bound": -WIDEST,
        "upper_bound": WIDEST,
        "pad": 0.0,
    }
