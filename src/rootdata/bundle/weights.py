"""Weights that were learnt before: out of a checkpoint or a bundle, into another network, and kept as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rootdata.bundle.graph.deployed import unwrapped
from rootdata.bundle.manifest import MANIFEST, MODEL, open_bundle
from rootdata.causes import OUTSIDE, cause_of
from rootdata.errors import BundleError, ConfigError, FileError, nearest
from rootdata.io.retry import blamed
from rootdata.scan.taken import bundle_of

CHECKPOINTS = "*.ckpt"
EPSILON = 1e-5  # which torch adds to the variance in a batch normalisation
FOLDED = 1e-5  # of the largest weight: what folding in another precision or order may change
IN_GRAPH = "network."  # before the name of a weight in the graph of a bundle


def init_from(network: nn.Module, place: str | Path, *, exclude: Sequence[str] = (), data: Any = None) -> list[str]:
    """Let a network begin with the weights of a trained one; buffers, as edges of encodings, are among them.

    Parameters
    ----------
    network : changed in place; wrappers of torch, such as that of ``compile``, are seen through
    place : a checkpoint of Lightning, or a bundle that lies beside the checkpoint that it was made of
    exclude : patterns of names (``head.*``) of weights that stay as they are, whether or not they are there
    data : the data module that it will be trained on; where nothing is excluded, its features have to be those that the
        weights were learnt with, in their order, as far as the checkpoint tells them

    Returns
    -------
    the names of what was taken over

    Raises
    ------
    ConfigError
        For the first weight that only one of the two has, or with another shape; for a pattern that matches none; for
        other features.
    BundleError, FileError
        For a place without such weights.
    """
    checkpoint = checkpoint_of(Path(place))
    own = _tensors(unwrapped(network).state_dict())
    kept = _loaded(checkpoint)
    there = _tensors(_weights_in(kept, checkpoint))
    if not exclude:
        _check_features(_features_in(kept), _features(getattr(data, "identity", {})), place)
    _check_patterns(exclude, [*own, *there], where="exclude")
    for name in {**own, **there}:
        here, found = own.get(name), there.get(name)
        if not _matches(name, exclude) and _shape(here) != _shape(found):
            raise ConfigError(
                f"init_from={place}: weight {name!r} is {_shape(found)} there, {_shape(here)} in this network; give it "
                f"the options of that one, or exclude=[{name!r}] to begin without this weight"
            )
    taken = {name: values for name, values in there.items() if not _matches(name, exclude)}
    if not taken:
        raise ConfigError(
            f"exclude: got {list(exclude)}, which leaves nothing to take from {place}; leave init_from out"
        )
    unwrapped(network).load_state_dict(taken, strict=False)
    return list(taken)


def freeze(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Let weights stay as they are in a training.

    A module with buffers all of whose own weights stay is put into ``eval`` mode, which Lightning keeps (and warns
    of): the running means of a batch normalisation stay, too.

    Parameters
    ----------
    network : changed in place
    patterns : of names of weights, as ``named_parameters`` has them: ``network.0.*``

    Returns
    -------
    the names of the weights that stay

    Raises
    ------
    ConfigError
        For a pattern that matches none, and where nothing is left to train.
    """
    bare = unwrapped(network)
    known = dict(bare.named_parameters())
    _check_patterns(patterns, list(known), where="freeze")
    frozen = [name for name in known if _matches(name, patterns)]
    if len(frozen) == len(known):
        raise ConfigError(f"freeze: got {list(patterns)}, which leaves no weight to be trained; name fewer")
    for name in frozen:
        known[name].requires_grad_(False)
    for module in bare.modules():
        own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
        if own and not any(own) and any(True for _ in module.buffers(recurse=False)):
            module.train(mode=False)
    return frozen


def _check_features(there: Mapping[str, Sequence[str]], here: Mapping[str, Sequence[str]], place: Any) -> None:
    """Refuse inputs of the same number that mean something else."""
    for name, known in there.items():
        if list(known) != list(here.get(name, known)):
            was, now = next((a, b) for a, b in zip_longest(known, here[name]) if a != b)
            raise ConfigError(
                f"init_from={place}: its weights were learnt with {name} = {', '.join(known)}, where {was!r} has the "
                f"place of {now!r} here; give the features in that order, or exclude=[...] the weights that see them"
            )


def _features_in(kept: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the features that a training saw, of each collection and ``flat``; empty where a checkpoint has none."""
    places = (state["identity"] for state in kept.values() if isinstance(state, Mapping) and "identity" in state)
    return _features(next(places, {}))


def _features(identity: Mapping[str, Any]) -> dict[str, list[str]]:
    jagged = {str(c["name"]): list(c["branches"]) for c in identity.get("jagged", ())}
    return {**({"flat": list(identity["flat"])} if "flat" in identity else {}), **jagged}


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Leave out what is no tensor, such as the scaling of targets: that is learnt of the data."""
    return {name: values for name, values in state.items() if isinstance(values, Tensor)}


def _shape(values: Tensor | None) -> str:
    return "absent" if values is None else f"of shape {tuple(values.shape)}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], names: Sequence[str], *, where: str) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"{where}: no weight matches {pattern!r}; {nearest(pattern, names)}")


def checkpoint_of(place: Path) -> Path:
    """Find the checkpoint that is meant by a place: itself, or that which the bundle there was made of.

    A graph holds folded weights, some without their names. So a bundle is taken for the checkpoint in the folder of its
    training that has the weights which the graph names, as they are or times the batch normalisation behind them.

    Raises
    ------
    BundleError, FileError
        For a place that is neither, and a bundle that none of the checkpoints around it fits.
    """
    if not place.is_dir():
        return place
    folder = bundle_of(place)
    if folder is None:
        raise BundleError(f"{place} is no bundle (it has no {MANIFEST}), and no checkpoint; give the path of either")
    open_bundle(folder)
    named = _named_in(folder / MODEL)
    for path in sorted(folder.absolute().parent.rglob(CHECKPOINTS)):
        weights = weights_of(path)
        if named and all(_is_kept(weights, name, values) for name, values in named.items()):
            return path
    raise BundleError(
        f"{folder}: none of the checkpoints in {folder.absolute().parent} holds the weights of its graph, which are "
        "folded there; give the checkpoint that it was made of"
    )


def _named_in(graph: Path) -> dict[str, Tensor]:
    """Return the weights that a graph holds under their names."""
    import onnx
    from onnx import numpy_helper

    initializers = onnx.load(graph).graph.initializer
    found = {i.name.removeprefix(IN_GRAPH): i for i in initializers if i.name.startswith(IN_GRAPH)}
    return {name: torch.from_numpy(numpy_helper.to_array(i).copy()) for name, i in found.items()}


def _is_kept(weights: Mapping[str, Any], name: str, values: Tensor) -> bool:
    """Whether a graph's weight is that of a checkpoint, or what a batch normalisation behind its layer makes of it."""
    if _is_same(weights.get(name), values):
        return True
    layer, _, kind = name.rpartition(".")
    behind = _behind(weights, layer)
    folded = None if behind is None else _folded(weights, layer, behind).get(kind)
    if folded is None or folded.shape != values.shape:
        return False
    return bool((folded - values).abs().max() <= FOLDED * folded.abs().max())


def _behind(weights: Mapping[str, Any], layer: str) -> str | None:
    """Name the layer that a checkpoint holds behind another one."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
    place = layers.index(layer) + 1 if layer in layers else len(layers)
    return layers[place] if place < len(layers) else None


def _folded(weights: Mapping[str, Any], layer: str, norm: str) -> dict[str, Tensor]:
    """Fold the means and widths of a batch normalisation into the linear layer before it, as graphs are made."""
    linear, bias = weights.get(f"{layer}.weight"), weights.get(f"{layer}.bias")
    mean, variance = (weights.get(f"{norm}.running_{what}") for what in ("mean", "var"))
    if not isinstance(linear, Tensor) or mean is None or variance is None or len(linear) != len(variance):
        return {}
    gain, shift = weights.get(f"{norm}.weight", 1.0), weights.get(f"{norm}.bias", 0.0)
    factor = gain / (variance + EPSILON).sqrt()
    return {
        "weight": linear * factor.reshape(-1, *[1] * (linear.ndim - 1)),
        "bias": ((0.0 if bias is None else bias) - mean) * factor + shift,
    }


def _is_same(weights: Any, values: Tensor) -> bool:
    if not isinstance(weights, Tensor) or weights.shape != values.shape:
        return False
    return torch.equal(weights.to(values.dtype), values)


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """Read the weights of a Lightning checkpoint; nothing in it is executed.

    Raises
    ------
    BundleError, FileError
    """
    return _weights_in(_loaded(checkpoint), checkpoint)


def _weights_in(kept: Mapping[str, Any], checkpoint: Path) -> dict[str, Tensor]:
    found = kept.get("state_dict")
    if not isinstance(found, dict) or not found:
        raise BundleError(f"{checkpoint} is no checkpoint of Lightning (it holds no weights)")
    return found


def _loaded(checkpoint: Path) -> dict[str, Any]:
    """Read what a checkpoint holds."""
    if not checkpoint.is_file():
        raise FileError(f"checkpoint {checkpoint} does not exist (seen from {Path.cwd()})")
    try:
        found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of damaged files fails in any way
        if cause_of(error) in OUTSIDE:
            raise blamed(error, f"checkpoint {checkpoint} can't be read") from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BundleError(f"{checkpoint} is no checkpoint of Lightning ({reason})") from error
    return found if isinstance(found, dict) else {}
