"""Hold a composed configuration against what its targets take: unknown keys, missing values, wrong types.

A group of the configuration that has a ``_target_`` may hold the target's parameters, and *helpers*: values that other
places refer to, as ``folder`` in ``files: ${data.folder}/*.root``. Anything else is a typo and is rejected.
"""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from rootdata.errors import ConfigError, nearest
from rootdata.registry import resolve, why_not

MODEL = "model"  # group of the network
SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
BESIDE = {"init_from": str | None, "exclude": list[str], "freeze": list[str], "decorrelate": dict[str, Any] | None}
"""Options of ``model`` that stand beside those of its target, with their types: what is done with a network once it is
built, and what only some networks take."""
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def explain_key(key: str, *, known: Mapping[str, bool]) -> str:
    """Say which key comes nearest to one that is not in the configuration.

    Parameters
    ----------
    key : dotted
    known : dotted keys; True where it is set in the configuration, False where its target would take it
    """
    parent = key.rpartition(".")[0]
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    hint = nearest(key, siblings, limit=1, by=_own_name)
    is_near = hint.startswith("nearest")
    # what is within an option, as data.jagged.jets.cut, is not known here: its own check says more, once it is there
    is_within = "." in parent and parent in known and f"{parent}._target_" not in known
    if known.get(key) is False or (is_within and not is_near):
        return f"{key!r} is not set in the configuration; write '+{key}=...' to add it"
    if not is_near:
        elsewhere = nearest(key, known, limit=1, by=_own_name)
        hint = elsewhere if elsewhere.startswith("nearest") or not siblings else hint
    return f"{key!r} is not an option; {hint}"


def _own_name(key: str) -> str:
    """Return what stands behind the last dot: that all before it is alike makes no key near."""
    return key.rpartition(".")[2]


def walk(node: DictConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield every mapping of a configuration with its dotted place."""
    yield path, node
    for key in map(str, node):
        child = None if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key) else node[key]
        if isinstance(child, DictConfig):
            yield from walk(child, join(path, key))


def join(path: str, key: Any) -> str:
    """Append a key to a dotted place."""
    return f"{path}.{key}" if path else str(key)


def check(config: DictConfig, *, known: Mapping[str, Any], used: Collection[str]) -> None:
    """Reject keys that nothing takes and values of a wrong type, before anything is built.

    Parameters
    ----------
    config : composed; may hold interpolations, which must resolve
    known : names that may stand at the top, with their types
    used : dotted places that others refer to, as :func:`references` finds them

    Raises
    ------
    ConfigError
        Naming the key, the nearest that would be taken, or what its value may be.
    """
    for path, node in walk(config):
        options = options_of(node) if path else dict(known)
        if path == MODEL and "_target_" in node:
            options = _with_those_beside(node, options)
        if options is None:
            continue
        for key in map(str, node):
            place = join(path, key)
            if key in options:
                check_value(node, key, hint=options[key], place=place)
            elif key not in SPECIAL and place not in used and f".{key}" not in used:
                raise ConfigError(explain_key(place, known={join(path, option): True for option in options}))


def _with_those_beside(node: DictConfig, options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Add the options that stand beside those of a network; what only some networks take may be empty for others."""
    if options is None:
        return None
    if "decorrelate" not in options and node.get("decorrelate") is not None:
        raise ConfigError(
            f"'{MODEL}.decorrelate': {node['_target_']} does not take it; the networks of rootdata.models do, as does "
            "one of your own whose constructor has a parameter of that name"
        )
    return {**BESIDE, **options}


def references(config: DictConfig) -> set[str]:
    """Collect the dotted names inside all interpolations; a relative one begins with a dot.

    Those of every file count, chosen or not: whoever replaces what refers to a helper must not be told it's a typo.
    """
    sources = [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    texts = [path.read_text(encoding="utf-8") for source in sources for path in source.rglob("*.yaml")]
    text = "\n".join([*texts, str(OmegaConf.to_container(config, resolve=False))])
    names = {name for inside in re.findall(r"\$\{([^}]*)", text) for name in re.findall(r"[.\w]+", inside)}
    return {"." + name.lstrip(".") if name.startswith(".") else name for name in names}


def options_of(node: DictConfig) -> dict[str, Any] | None:
    """Give the parameters of a node's target with their types; None without a target or if it takes any."""
    if "_target_" not in node:
        return None
    target = load(str(node["_target_"]))
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # of what is written in C, such as datetime.timedelta
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations of others may name what exists for type checkers alone
        hints = {}
    return {name: hints.get(name, _annotation(parameter)) for name, parameter in parameters.items()}


def _annotation(parameter: inspect.Parameter) -> Any:
    """Return what a signature says of a parameter that its function does not name."""
    is_known = parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)
    return parameter.annotation if is_known else Any


def load(target: str) -> Callable[..., Any]:
    """Import what a ``_target_`` names."""
    try:
        found = resolve(target)
    except Exception as error:
        raise ConfigError(f"_target_ {target!r} can't be imported: {why_not(error)}") from error
    if not callable(found):
        raise ConfigError(f"_target_ {target!r} is a {type(found).__name__}; takes a class or a function")
    return typing.cast("Callable[..., Any]", found)


def check_value(node: DictConfig, key: str, *, hint: Any, place: str) -> None:
    """Compare one value with the type of the parameter that it is for.

    Parameters
    ----------
    node : the mapping that holds the value
    key : of the value in ``node``
    hint : annotation of the parameter, as :func:`options_of` gives it
    place : dotted key from the top of the configuration, for the error

    Raises
    ------
    ConfigError
        For a value that is missing or that the annotation does not allow.
    """
    if OmegaConf.is_missing(node, key):
        raise ConfigError(f"{place!r} has no value; give one as {place}=..., or in the file of its group")
    value = node[key]
    if isinstance(value, (DictConfig, ListConfig)):
        value = OmegaConf.to_container(value, resolve=True, throw_on_missing=False)
    if not fits(value, hint):
        allowed = list(dict.fromkeys(describe(hint)))
        hint = nearest(str(value), [words.strip("'") for words in allowed])
        close = f"; {hint}" if hint.startswith("nearest") else ""
        raise ConfigError(f"{place!r}: got {value!r}; takes {' or '.join(allowed)}{close}")


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a plain value can be meant by an annotation; in doubt it can."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    kind = type(None) if hint is None else origin or hint
    if not inspect.isclass(kind) or kind in (Any, object) or (isinstance(value, dict) and "_target_" in value):
        return True
    if _is_protocol(kind):  # of objects, which no plain value is
        return False
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, list):
        inner = arguments[0] if arguments and arguments[0] is not Ellipsis else Any
        return is_list(kind) and all(fits(item, inner) for item in value)
    if isinstance(value, dict):
        return not is_list(kind) and kind not in WORDS
    if isinstance(value, str):
        return kind is str or issubclass(kind, os.PathLike)
    return type(value) is kind or (kind not in WORDS and isinstance(value, kind))


def _is_protocol(kind: Any) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def is_list(kind: type) -> bool:
    """Tell whether a class stands for lists: a list is one, or it makes one from a list."""
    return issubclass(list, kind) or issubclass(kind, (list, tuple, set, frozenset))


def describe(hint: Any) -> Iterator[str]:
    """Name the values that an annotation allows, one by one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from describe(argument)
    elif origin is typing.Literal:
        yield from map(repr, arguments)
    elif not _is_protocol(hint):
        kind = type(None) if hint is None else origin or hint
        is_a_list = inspect.isclass(kind) and is_list(kind)
        each = ", each " + " or ".join(describe(arguments[0])) if is_a_list and arguments else ""
        yield WORDS.get(kind) or (f"a list{each}" if is_a_list else "a mapping")


def first_line(error: BaseException) -> str:
    """Give the sentence of an error, with the key that it is about, without the details below it."""
    sentence, key = str(error).strip().split("\n")[0], getattr(error, "full_key", None)
    return f"{key!r}: {sentence}" if key else sentence
