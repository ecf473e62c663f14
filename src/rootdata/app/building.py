"""Objects out of a composed configuration: data, network, callbacks, loggers, trainer."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from rootdata.app.checking import BESIDE, SPECIAL, first_line, load, options_of
from rootdata.causes import home_of
from rootdata.errors import ConfigError, RootDataError
from rootdata.shutdown.signals import Ending


def build(node: DictConfig, *, given: Mapping[str, Any] | None = None) -> Any:
    """Build the object that a node describes, from its options without the helpers.

    Parameters
    ----------
    node : with a ``_target_``
    given : arguments that come from the program

    Raises
    ------
    ConfigError
        For options that the target does not take, and where a library is absent.
    """
    options = options_of(node)
    plain = typing.cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    wanted = {key: value for key, value in plain.items() if options is None or key in options or key in SPECIAL}
    try:
        if wanted.get("_partial_") and not given:
            return instantiate(wanted, _convert_="all")
        # Not through Hydra, which would copy the arguments into a configuration.
        return instantiate({**wanted, "_partial_": True}, _convert_="all")(**(given or {}))
    except Exception as error:
        found = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(found, (RootDataError, OSError)) or home_of(found) == "rootdata":  # said well enough elsewhere
            raise
        for target in _targets(wanted):  # Hydra does not say in its first line why one can't be imported
            load(target)
        name = str(node.get("_target_")).rpartition(".")[2]
        raise ConfigError(f"{name} can't be made: {first_line(found)}; check its options") from error


def _targets(value: Any) -> Iterator[str]:
    """Yield every ``_target_`` within a plain value."""
    if isinstance(value, Mapping) and isinstance(value.get("_target_"), str):
        yield value["_target_"]
    within = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for one in within:
        yield from _targets(one)


def build_network(node: DictConfig, data: Any) -> Any:
    """Build the network of a configuration, as it is before anything is learnt.

    Parameters
    ----------
    node : with a ``_target_``, and the options that stand beside those of it
    data : a data module, which knows the shapes and the classes
    """
    own = options_of(node) or {}
    beside = [key for key in BESIDE if key not in own and (key != "decorrelate" or node.get(key) is None)]
    kept = OmegaConf.create({key: v for key, v in plain(node).items() if key not in beside})  # ${seed} is not its own
    return build(kept, given={"shapes": data.shapes, "classes": len(data.classes)})


def build_model(config: DictConfig, data: Any) -> Any:
    """Build the network that is to be trained: with the weights that it begins with, and those that stay.

    A training that goes on from a checkpoint takes the weights from there.

    Parameters
    ----------
    config : the whole configuration
    data : a data module, which knows the shapes and the classes

    Raises
    ------
    ConfigError, BundleError, FileError
        For weights that do not fit, and patterns that match none.
    """
    from rootdata.bundle.weights import freeze, init_from

    node, own = config.model, options_of(config.model) or {}
    network = build_network(node, data)
    given = {key: node.get(key) for key in BESIDE if key not in own}
    place = given.get("init_from")
    if place and config.get("train", True) and not config.get("ckpt_path"):
        taken = init_from(network, place, exclude=given.get("exclude") or (), data=data)
        say(f"the network begins with {len(taken)} tensors of {place}", option="model.init_from")
    elif place and config.get("train", True):
        say(f"{place} is not looked at; weights are those of {config.ckpt_path}", option="model.init_from")
    elif given.get("exclude") and not given.get("init_from"):
        raise ConfigError("model.exclude: got patterns of weights that are not taken over, and no model.init_from")
    if given.get("freeze"):
        freeze(network, given["freeze"])
    return network


def settle(config: DictConfig) -> None:
    """Put into a configuration what follows from its options, so that what is saved of a training is all of it.

    The columns that a network is decorrelated from become observers; a scaling that is taken over becomes numbers.
    """
    from rootdata.scan.taken import with_taken_scale

    observe(config)
    scale = OmegaConf.select(config, "data.scale")
    if isinstance(scale, DictConfig):
        told = {name: OmegaConf.select(config, f"data.{name}") for name in ("scale", "flat", "jagged", "derived")}
        known = {name: plain(node) if OmegaConf.is_config(node) else node for name, node in told.items()}
        config.data.scale = with_taken_scale(known)["scale"]


def observe(config: DictConfig) -> None:
    """Let the data deliver the columns that a network is decorrelated from; changes the configuration in place."""
    wanted = OmegaConf.select(config, "model.decorrelate.columns")
    if not wanted or "observers" not in (config.get("data") or {}):
        return
    observers = config.data.observers
    named = dict(observers) if isinstance(observers, DictConfig) else {name: name for name in _names(observers)}
    lacking = [name for name in _names(wanted) if name not in named]
    if lacking:
        is_mapping = isinstance(observers, DictConfig)
        config.data.observers = named | {name: name for name in lacking} if is_mapping else [*named, *lacking]
    config.data.observe_training = True


def _names(value: Any) -> list[str]:
    """List names as options take them: none, one, or a list."""
    return [value] if isinstance(value, str) else [str(name) for name in value or ()]


def build_all(group: DictConfig | None) -> list[Any]:
    """Build every object of a group, in its order; none for a group that is empty or null.

    What saves a stopped training comes last: a batch is done when all other callbacks have seen its end.
    """
    from rootdata.training.stopping import SaveWhenStopped

    built = [build(node) for node in (group or {}).values() if node and "_target_" in node]
    return sorted(built, key=lambda thing: isinstance(thing, SaveWhenStopped))


def build_trainer(config: DictConfig, *, callbacks: Sequence[Any], loggers: Sequence[Any]) -> Any:
    """Build a Lightning trainer that ends all its ranks together, and refuses before the first batch what is in vain.

    Parameters
    ----------
    config : the whole configuration
    callbacks : Lightning's, run after those that every training has
    loggers : Lightning's; where there are none, logging is off
    """
    from rootdata.shutdown.ranks import EndOnSignal
    from rootdata.training.callbacks import ExportCheck
    from rootdata.training.ready import ReadyCheck

    own = [EndOnSignal(), ReadyCheck(), *([ExportCheck()] if config.export else []), *_fold_scores(config)]
    trainer = build(config.trainer, given={"callbacks": [*own, *callbacks], "logger": list(loggers) or False})
    if (ending := Ending.current()) is not None:
        ending.expect(trainer.strategy.launcher)
    return trainer


def _fold_scores(config: DictConfig) -> list[Any]:
    """Make what keeps the scores of a fold, where one is tested."""
    if OmegaConf.select(config, "data.fold") is None:
        return []
    from rootdata.analysis.folds import FoldScores

    return [FoldScores(config.paths.output_dir)]


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, resolved."""
    return typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))


def say(sentence: str, *, option: str = "resume=auto") -> None:
    """Print a sentence about an option from the first process of a training."""
    from pytorch_lightning.utilities import rank_zero_only

    rank_zero_only(print)(f"{option}: {sentence}", flush=True)
