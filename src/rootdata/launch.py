"""Between Hydra and a training script: check the configuration, build its objects, report mistakes in one sentence.

A group of the configuration that has a ``_target_`` may hold the target's parameters, and *helpers*: values that other
places refer to, as ``folder`` in ``files: ${data.folder}/*.root``. Anything else is a typo and is rejected.
"""

from __future__ import annotations

import functools
import inspect
import os
import pkgutil
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rootdata.errors import ConfigError, FileError, RootDataError, nearest

SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
Task = Callable[[DictConfig], Any]


def main(*, config_path: str | Path, config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Decorate the function that gets the composed configuration, as ``hydra.main`` does.

    Mistakes of the user (an unknown option, a wrong type, a bad file: any :class:`RootDataError`) end the program with
    one sentence and status 2; Ctrl-C ends it with status 130. ``HYDRA_FULL_ERROR=1`` shows the traceback instead.

    Parameters
    ----------
    config_path : folder of the configuration, relative to the file of the function
    config_name : the primary configuration in it
    """

    def decorate(task: Task) -> Callable[[], None]:
        folder = Path(inspect.getfile(task)).resolve().parent / config_path
        is_full = os.environ.get("HYDRA_FULL_ERROR")

        @functools.wraps(task)
        def job(config: DictConfig) -> Any:
            restore("HYDRA_FULL_ERROR", is_full)
            # Lightning's own, with the newest torch; nothing that a user could change.
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
            with one_sentence(is_full=is_full == "1", folder=folder, config_name=config_name):
                check(config, known=known_groups(folder / f"{config_name}.yaml"), used=references(config))
                return task(config)

        @functools.wraps(task)
        def run() -> None:
            # Hydra prints what goes wrong in composing, and exits, unless this is set.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            with one_sentence(is_full=is_full == "1", folder=folder, config_name=config_name):
                hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)(job)()

        return run

    return decorate


def restore(name: str, value: str | None) -> None:
    """Set an environment variable back to what it was."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def one_sentence(*, is_full: bool, folder: Path, config_name: str) -> Iterator[None]:
    """Turn errors that a user can mend into one sentence and an exit status."""
    try:
        yield
    except KeyboardInterrupt:
        stop("stopped by Ctrl-C", status=130)
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning has shut down and leaves with status 1
            stop("stopped by Ctrl-C; ckpt_path=... goes on from a checkpoint in the output folder", status=130)
        raise
    except Exception as error:
        sentence = explain(error, folder=folder, config_name=config_name)
        if is_full or sentence is None:
            raise
        stop(sentence, status=2)


def stop(sentence: str, *, status: int) -> NoReturn:
    """Print a sentence and leave; without the chain of errors behind it."""
    sys.stdout.flush()
    print(f"\n{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    raise SystemExit(status) from None


def explain(error: BaseException, *, folder: Path, config_name: str) -> str | None:
    """Say in one sentence what the user can mend; None if it is a fault of the program."""
    if isinstance(error, RootDataError):
        return str(error)
    if isinstance(error, InstantiationException):
        return explain(error.__cause__, folder=folder, config_name=config_name) if error.__cause__ else None
    if isinstance(error, MissingConfigException):
        return explain_choice(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} can't be read: {first_line(error)}; quote a value that has spaces or commas"
    if isinstance(error, ConfigCompositionException):
        key = re.search(r"Could not override '([^'@]+)", str(error))
        if key:
            return explain_key(key[1], known=composed_keys(folder, config_name, near=key[1]))
        return first_line(error.__cause__ or error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):
        return "GROUP=null: a group is given by the name of one of its files; write '~GROUP' to leave it out"
    lightning = sys.modules.get("pytorch_lightning.utilities.exceptions")  # not worth its import for an error elsewhere
    is_misconfigured = lightning is not None and isinstance(error, lightning.MisconfigurationException)
    return (
        first_line(error) if is_misconfigured or isinstance(error, (HydraException, OmegaConfBaseException)) else None
    )


def first_line(error: BaseException) -> str:
    """Give the sentence of an error, with the key that it is about, without the details below it."""
    sentence, key = str(error).strip().split("\n")[0], getattr(error, "full_key", None)
    return f"{key!r}: {sentence}" if key else sentence


def explain_choice(error: MissingConfigException) -> str:
    """Say which configurations a group has."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not error.options:
        return f"configuration {error.missing_cfg_file!r} not found; {first_line(error)}"
    hint = nearest(name, error.options)
    return f"{group}={name}: {name!r} is not an option of {group!r}; {hint}; each is a file in configs/{group}/"


def explain_key(key: str, *, known: Mapping[str, bool]) -> str:
    """Say which key comes nearest to one that is not in the configuration.

    Parameters
    ----------
    key : dotted
    known : dotted keys; True where it is set in the configuration, False where its target would take it
    """
    if known.get(key) is False:
        return f"{key!r} is not set in the configuration; write '+{key}=...' to add it"
    parent = key.rpartition(".")[0]
    siblings = [other for other in known if other.rpartition(".")[0] == parent]
    hint = nearest(key, siblings, limit=1)
    if not hint.startswith("nearest"):
        elsewhere = nearest(key, known, limit=1)
        hint = elsewhere if elsewhere.startswith("nearest") or not siblings else hint
    return f"{key!r} is not an option; {hint}"


def composed_keys(folder: Path, config_name: str, *, near: str) -> dict[str, bool]:
    """List the keys that could have been given: those of the configuration with the groups that were chosen.

    Parameters
    ----------
    near : dotted key; what the target of its group takes is listed too
    """
    words = [word for word in sys.argv[1:] if (folder / word.partition("=")[0]).is_dir() and "," not in word]
    config = compose(folder, config_name, overrides=words) or compose(folder, config_name, overrides=[])
    keys = {group.name: True for group in folder.iterdir() if group.is_dir()}
    for path, node in walk(config or OmegaConf.create()):
        keys |= {join(path, key): True for key in node}
        if path == near.rpartition(".")[0]:
            with suppress(ConfigError):  # a target that can't be imported is another mistake
                keys |= {join(path, key): False for key in options_of(node) or () if key not in node}
    return keys


def compose(folder: Path, config_name: str, *, overrides: list[str]) -> DictConfig | None:
    """Compose a configuration without running anything; None where that fails."""
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            return hydra.compose(config_name=config_name, overrides=overrides)
    except (HydraException, OmegaConfBaseException):
        return None


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


def check(config: DictConfig, *, known: Collection[str], used: Collection[str]) -> None:
    """Reject keys that nothing takes and values of a wrong type, before anything is built.

    Parameters
    ----------
    config : composed; may hold interpolations, which must resolve
    known : names that may stand at the top
    used : dotted places that others refer to, as :func:`references` finds them

    Raises
    ------
    ConfigError
        Naming the key, the nearest that would be taken, or what its value may be.
    """
    for path, node in walk(config):
        options = options_of(node) if path else dict.fromkeys(map(str, known), Any)
        if options is None:
            continue
        for key in map(str, node):
            place = join(path, key)
            if key in options:
                check_value(node, key, hint=options[key], place=place)
            elif key not in SPECIAL and place not in used and f".{key}" not in used:
                raise ConfigError(explain_key(place, known={join(path, option): True for option in options}))


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
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # annotations of others may name what exists for type checkers alone
        hints = {}
    return {name: hints.get(name, Any) for name in parameters}


def load(target: str) -> Callable[..., Any]:
    """Import what a ``_target_`` names."""
    try:
        found = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"_target_ {target!r} can't be imported: {first_line(error)}") from error
    if not callable(found):
        raise ConfigError(f"_target_ {target!r} is a {type(found).__name__}; takes a class or a function")
    return typing.cast("Callable[..., Any]", found)


def check_value(node: DictConfig, key: str, *, hint: Any, place: str) -> None:
    """Compare one value with the type of the parameter that it is for."""
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
    else:
        kind = type(None) if hint is None else origin or hint
        is_a_list = inspect.isclass(kind) and is_list(kind)
        each = ", each " + " or ".join(describe(arguments[0])) if is_a_list and arguments else ""
        yield WORDS.get(kind) or (f"a list{each}" if is_a_list else "a mapping")


def known_groups(primary: Path) -> set[str]:
    """Name what may stand at the top of the composed configuration: groups, and keys of the primary file."""
    own = {str(key) for key in typing.cast("DictConfig", OmegaConf.load(primary))}
    groups = {group.name for group in primary.parent.iterdir() if group.is_dir()}
    return {name for name in own | groups if name not in {"defaults", "hydra"}}


def build(node: DictConfig, *, given: Mapping[str, Any] | None = None) -> Any:
    """Build the object that a node describes, from its options without the helpers.

    Parameters
    ----------
    node : with a ``_target_``
    given : arguments that come from the program
    """
    options = options_of(node)
    plain = typing.cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    wanted = {key: value for key, value in plain.items() if options is None or key in options or key in SPECIAL}
    if not given:
        return instantiate(wanted, _convert_="all")
    # Not through Hydra, which would copy the arguments into a configuration.
    return instantiate({**wanted, "_partial_": True}, _convert_="all")(**given)


def build_all(group: DictConfig | None) -> list[Any]:
    """Build every object of a group, in its order; none for a group that is empty or null."""
    return [build(node) for node in (group or {}).values() if node and "_target_" in node]


def save_inputs(config: DictConfig, data: Any, *, folder: str | Path) -> None:
    """Write what a training was made from: ``config.yaml``, resolved, and ``specs.json`` of its data."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True), encoding="utf-8")
    data.specs.save(Path(folder, "specs.json"))


def outcome(trainer: Any, *, folder: str | Path) -> Any:
    """Make a table of what came out and where it is, to be printed by rich.

    Parameters
    ----------
    trainer : a Lightning trainer after its work
    folder : of the outputs
    """
    from rich.table import Table

    from rootdata.callbacks import ScoreReport

    report = next((callback for callback in trainer.callbacks if isinstance(callback, ScoreReport)), None)
    figures, paths = (report.metrics, report.paths) if report else ({}, {})
    rows: dict[str, Any] = {f"test {name}": figures.get(name) for name in ("auc", "accuracy", "loss")}
    rows = {name.replace("auc", "AUC"): f"{value:.4f}" for name, value in rows.items() if value is not None}
    places = {
        "ROC curve": paths.get("roc_plot", paths.get("roc")),
        "scores": paths.get("scores_plot", paths.get("scores")),
        "metrics": paths.get("metrics"),
        "checkpoint": getattr(trainer.checkpoint_callback, "best_model_path", None),
        "specs": Path(folder, "specs.json"),
        "configuration": Path(folder, "config.yaml"),
    }
    table = Table("what", "where", show_header=False)
    for name, value in rows.items():
        table.add_row(name, f"[bold]{value}")
    for name, path in places.items():
        if path and Path(path).exists():
            path = Path(path).absolute()
            table.add_row(name, str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
    return table


def require(folder: str | Path, *, remedy: str) -> None:
    """Check that there is a folder of ROOT files, for use as ``prepare`` of a data module.

    Raises
    ------
    FileError
        Saying how to get the files.
    """
    if not any(Path(folder).glob("*.root")):
        raise FileError(f"no ROOT files in {str(Path(folder).absolute())!r}; {remedy}")
