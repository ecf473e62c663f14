"""The glue between Hydra and a training script: compose, build the objects, report mistakes as one sentence."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import shutil
import signal
import sys
import typing
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from rootdata.app.checking import BESIDE, SPECIAL, check, explain_key, first_line, join, options_of, references, walk
from rootdata.app.printing import print_anything
from rootdata.causes import home_of, sentence_of
from rootdata.disk import write_atomic
from rootdata.errors import ConfigError, FileError, RootDataError, nearest
from rootdata.shutdown.signals import SIGNALS, Ending, Stopped, is_first_here, status_of
from rootdata.training import runs
from rootdata.training.resume import CONFIG, METRICS, find, keep_logs, tidy

Task = Callable[[DictConfig], Any]

LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
BUNDLE = "bundle"  # folder in that of a training
GO_ON = "the same command with resume=auto goes on from the last checkpoint"


def main(*, config_path: str | Path, config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Decorate the function that gets the composed configuration, as ``hydra.main`` does.

    Mistakes of the user (an unknown option, a wrong type, a bad file: any :class:`RootDataError`) end the program with
    one sentence and status 2; ``HYDRA_FULL_ERROR=1`` shows the traceback instead. Ctrl-C ends it with status 130 and
    SIGTERM with 143, whatever it does, and the other ranks of a training with it. While the function runs, its folder
    is locked (see :func:`own_folder`).

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
                check_task(config)
                settle(config)
                with own_folder(config):
                    return task(config)

        @functools.wraps(task)
        def run() -> None:
            print_anything()
            # Hydra prints what goes wrong in composing, and exits, unless this is set.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            with (
                Ending(say=say_stopped),
                one_sentence(is_full=is_full == "1", folder=folder, config_name=config_name),
            ):
                hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)(job)()

        return run

    return decorate


def check_task(config: DictConfig) -> None:
    """Refuse to test or export a network that nobody trained, and a checkpoint that is none.

    Raises
    ------
    ConfigError
    """
    path, resume = config.get("ckpt_path"), config.get("resume")
    if config.get("train") is False and path is None and not resume and (config.test or config.export):
        raise ConfigError(
            "train=false: there is no trained network to test or export; name its checkpoint, as ckpt_path=FILE, or "
            "leave train=false out"
        )
    if path is None or "://" in str(path) or Path(path).is_dir():  # elsewhere, or in parts
        return
    if not Path(path).exists():
        raise ConfigError(f"ckpt_path={path}: there is no such file (seen from {Path.cwd()}); check the path")
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"ckpt_path={path} is no checkpoint, or not a whole one; take another")


def restore(name: str, value: str | None) -> None:
    """Set an environment variable back to what it was."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def one_sentence(*, is_full: bool, folder: Path, config_name: str) -> Iterator[None]:
    """Turn signals, and errors that a user can mend, into one sentence and an exit status.

    Parameters
    ----------
    is_full : leave errors as they are, with their traceback, as ``HYDRA_FULL_ERROR=1`` asks for; signals are told all
        the same
    folder : of the configuration files, in which names near to a wrong one are looked for
    config_name : of the primary file in it, without ``.yaml``

    Raises
    ------
    Told
        With the exit status, once the sentence has been written.
    """
    try:
        yield
    except Told:
        raise
    except BaseException as error:
        ending = Ending.current()
        signum = signal_behind(error, seen=ending.signum if ending else None)
        if ending is not None and signum is not None:
            ending.arrived()
        if signum is not None:
            say_stopped(signum, is_of_lightning=isinstance(error, SystemExit) and not isinstance(error, Stopped))
            raise Told(status_of(signum)) from None
        sentence = explain(error, folder=folder, config_name=config_name) if isinstance(error, Exception) else None
        if is_full or sentence is None:
            raise
        stop(sentence, status=2)


class Told(SystemExit):
    """The program ends, and has said why."""


def stop(sentence: str, *, status: int) -> NoReturn:
    """Print a sentence and leave; without the chain of errors behind it."""
    say_why(sentence)
    raise Told(status) from None


def signal_behind(error: BaseException, *, seen: int | None) -> int | None:
    """Return the signal that an error comes from, None where it comes from none.

    Parameters
    ----------
    error : that ends the program
    seen : a signal that this process got before: what fails then, as an exchange with a rank that is gone, fails for it
    """
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return signal.SIGINT  # Lightning leaves with status 1 after it
    if isinstance(error, Stopped):
        return error.signum
    if type(error).__name__ == "SIGTERMException":  # Lightning's, between two batches
        return signal.SIGTERM
    status = getattr(error, "exit_code", None)  # of a rank that torch's multiprocessing has started
    return next((s for s in SIGNALS if status in {-s, status_of(s)}), seen)


def say_stopped(signum: int, *, is_of_lightning: bool = False) -> None:
    """Say by which signal the program ends, once for all ranks of a machine, and how a training goes on.

    Parameters
    ----------
    signum : SIGINT or SIGTERM
    is_of_lightning : whether it was Lightning that left, which it does in a training
    """
    ending, name = Ending.current(), "Ctrl-C" if signum == signal.SIGINT else "SIGTERM"
    has_trained = is_of_lightning or (ending is not None and ending.has_trained)
    if is_first_here():
        say_why(f"stopped by {name}" + (f"; {GO_ON}" if has_trained else ""))


def say_why(sentence: str) -> None:
    """Print why the program ends, behind what it has printed."""
    sys.stdout.flush()
    print(f"\n{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr, flush=True)


def explain(error: BaseException, *, folder: Path, config_name: str) -> str | None:
    """Say in one sentence what the user, or an administrator, can mend; None if it is a fault of the program.

    Parameters
    ----------
    error : of composing, instantiating or training; for one of Hydra's instantiation its cause is explained
    folder : of the configuration files, in which names near to a wrong one are looked for
    config_name : of the primary file in it, without ``.yaml``
    """
    if isinstance(error, RootDataError):
        return str(error)
    if isinstance(error, InstantiationException):
        return explain(error.__cause__, folder=folder, config_name=config_name) if error.__cause__ else None
    if isinstance(error, MissingConfigException):
        return explain_choice(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} can't be read: {first_line(error)}; quote a value that has spaces or commas"
    if isinstance(error, ConfigCompositionException):
        written = re.search(r"Could not override '([^'@]+)", str(error))
        if written:
            within = str(getattr(error.__cause__, "full_key", ""))  # of a mapping that was written, one of its keys
            key = within if within.startswith(f"{written[1]}.") else written[1]
            return explain_key(key, known=composed_keys(folder, config_name, near=key))
        return first_line(error.__cause__ or error)
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string"):
        return "GROUP=null: a group is given by the name of one of its files; write '~GROUP' to leave it out"
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"{error}; make room there, or choose another folder: paths.output_dir=...; {GO_ON}"
    lightning = sys.modules.get("pytorch_lightning.utilities.exceptions")  # not worth its import for an error elsewhere
    is_misconfigured = lightning is not None and isinstance(error, lightning.MisconfigurationException)
    if is_misconfigured or isinstance(error, (HydraException, OmegaConfBaseException)):
        return first_line(error)
    if str(error).startswith("Error(s) in loading state_dict"):
        return "the checkpoint holds another network, or one of other inputs; give the options that it was trained with"
    if isinstance(error, (ValueError, RuntimeError)) and home_of(error) in LIGHTNING:
        return first_line(error)
    return sentence_of(error) if isinstance(error, Exception) else None


def explain_choice(error: MissingConfigException) -> str:
    """Say which configurations a group has."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not error.options:
        return f"configuration {error.missing_cfg_file!r} not found; {first_line(error)}"
    hint = nearest(name, error.options)
    return f"{group}={name}: {name!r} is not an option of {group!r}; {hint}; each is a file in configs/{group}/"


def composed_keys(folder: Path, config_name: str, *, near: str) -> dict[str, bool]:
    """List the keys that could have been given: those of the configuration with the groups that were chosen.

    Parameters
    ----------
    folder : of the configuration files; each folder in it is a group
    config_name : of the primary file in it, without ``.yaml``
    near : dotted key; what the target of its group takes is listed too
    """
    words = [word for word in sys.argv[1:] if (folder / word.partition("=")[0]).is_dir() and "," not in word]
    config = compose(folder, config_name, overrides=words) or compose(folder, config_name, overrides=[])
    keys = dict.fromkeys(groups_of(folder / f"{config_name}.yaml"), True)
    for path, node in walk(config or OmegaConf.create()):
        keys |= {join(path, key): True for key in node}
        if path == near.rpartition(".")[0]:
            with suppress(ConfigError):  # a target that can't be imported is another mistake
                keys |= {join(path, key): False for key in options_of(node) or () if key not in node}
    return keys


def compose(folder: Path, config_name: str, *, overrides: list[str]) -> DictConfig | None:
    """Compose a configuration without running anything; None where that fails.

    Parameters
    ----------
    folder : of the configuration files, absolute
    config_name : of the primary file in it, without ``.yaml``
    overrides : in Hydra's notation, ``group=choice`` or ``key=value``
    """
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(folder)):
            return hydra.compose(config_name=config_name, overrides=overrides)
    except (HydraException, OmegaConfBaseException):
        return None


def known_groups(primary: Path) -> set[str]:
    """Name what may stand at the top of the composed configuration: groups, and keys of the primary file."""
    own = {str(key) for key in typing.cast("DictConfig", OmegaConf.load(primary))}
    return {name for name in own | groups_of(primary) if name not in {"defaults", "hydra"}}


def groups_of(primary: Path) -> set[str]:
    """Name the groups beside a primary file, where it takes any."""
    has_groups = "defaults" in typing.cast("DictConfig", OmegaConf.load(primary))
    return {group.name for group in primary.parent.iterdir() if group.is_dir()} if has_groups else set()


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
        name = str(node.get("_target_")).rpartition(".")[2]
        raise ConfigError(f"{name} can't be made: {first_line(found)}; check its options") from error


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


class OwnFolder(Callback):
    """Give a run, or a sweep, that is named by the time a new folder, before Hydra writes anything into it.

    Of the processes of one training the first one makes it, and all others find it. Hydra calls this where it stands in
    ``hydra.callbacks``.
    """

    def __init__(self) -> None:
        self._held = ExitStack()

    def __reduce__(self) -> tuple[type[OwnFolder], tuple[()]]:
        """Go along to the jobs of a cluster without the lock, which the process that submits them holds."""
        return type(self), ()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Choose the folder of a run."""
        with in_one_sentence():
            choose_folder(config, "run")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Choose the folder of a sweep, and hold it; its jobs are told by an option."""
        with in_one_sentence():
            is_first = choose_folder(config, "sweep")
            folder = str(config.hydra.sweep.dir)
            if is_first:
                self._held.enter_context(runs.locked(Path(folder)))
            quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
            with read_write(config.hydra):
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Let go of the folder of a sweep."""
        self._held.close()


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """End the program by a sentence where a callback of Hydra fails: Hydra would print it, and go on."""
    try:
        yield
    except (RootDataError, OSError) as error:
        stop(str(error), status=2)


def choose_folder(config: DictConfig, mode: str) -> bool:
    """Set the folder of a run, or a sweep, where it is named by the time; tell whether this is the first process.

    Parameters
    ----------
    config : the whole configuration, Hydra's part included
    mode : ``run`` or ``sweep``
    """
    node, known = config.hydra[mode], HydraConfig.instance()
    is_first = not runs.follows(trainer_of(config))
    name = typing.cast("dict[str, Any]", OmegaConf.to_container(node))["dir"]  # as it is written
    if "${now:" in name:
        before = known.cfg
        known.set_config(config)  # the folder's name asks for it
        try:
            wanted = Path(node.dir)
        finally:
            known.cfg = before
        with read_write(config.hydra):
            node.dir = str(runs.new_place(wanted, is_first=is_first))
    return is_first


def trainer_of(config: DictConfig) -> dict[str, Any] | None:
    """Return the options of the trainer, plain; None where there are none."""
    node = config.get("trainer")
    return typing.cast("dict[str, Any]", OmegaConf.to_container(node)) if isinstance(node, DictConfig) else None


@contextmanager
def own_folder(config: DictConfig) -> Iterator[None]:
    """Hold the folders of a run while it lasts: Hydra's, and the one of the outputs, which ``resume=auto`` chooses.

    Raises
    ------
    ConfigError
        If another training has one of them, or left results there that this one would mix with its own.
    """
    if runs.follows(trainer_of(config)):  # the first process of this training holds them
        if config.get("resume"):
            resume(config)
        yield
        return
    text, hydras = OmegaConf.to_yaml(config), Path(HydraConfig.get().runtime.output_dir)
    with ExitStack() as held:
        known: set[Path] = set()

        def hold(folder: str | Path) -> Path:
            place = Path(folder).absolute()
            if place.resolve() not in known:
                held.enter_context(runs.locked(place))
                known.add(place.resolve())
            return place

        hold(hydras)
        if config.get("resume"):
            runs.refuse_twin(Path(config.paths.output_dir).absolute(), plain(config))
            resume(config, hold=hold)
        if OmegaConf.select(config, "paths.output_dir"):
            place, has_found = hold(config.paths.output_dir), config.get("resume") and config.ckpt_path
            if not has_found:
                runs.refuse_mixture(place, plain(config))
        save_command(text, folder=hydras / ".hydra")
        try:
            yield
        except BaseException:
            forget_unused(hydras)
            raise


def forget_unused(folder: Path) -> None:
    """Remove the folder of a run that was named by the time and failed before it left anything of its own there.

    Parameters
    ----------
    folder : Hydra's, with the command and an empty log
    """
    known = HydraConfig.get()
    is_named = any(word.startswith("hydra.run.dir=") for word in known.overrides.hydra)
    log = folder / f"{known.job.name}.log"
    left = {path.name for path in folder.iterdir()} - {".hydra", runs.LOCK, log.name}
    if known.mode == RunMode.MULTIRUN or is_named or left or (log.exists() and log.stat().st_size):
        return
    shutil.rmtree(folder, ignore_errors=True)
    for above in folder.parents:  # which were made for it
        if not above.is_relative_to(Path.cwd()) or above == Path.cwd() or any(above.iterdir()):
            return
        above.rmdir()


def save_command(text: str, *, folder: Path) -> None:
    """Write what Hydra was told, each file whole: the configuration before it is resolved, its own, the overrides."""
    write_atomic(folder / "config.yaml", text)
    write_atomic(folder / "hydra.yaml", OmegaConf.to_yaml(HydraConfig.instance().cfg))
    write_atomic(folder / "overrides.yaml", OmegaConf.to_yaml(HydraConfig.get().overrides.task))


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain values, resolved."""
    return typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))


def resume(config: DictConfig, *, hold: Callable[[Path], object] = lambda _: None) -> None:
    """Where ``resume=auto`` asks for it, let a training go on from the last checkpoint of the same configuration.

    ``ckpt_path`` and ``paths.output_dir`` are set to it and its folder. Every process finds the same one: none is
    written before all of them train.

    Parameters
    ----------
    config : the whole configuration; changed in place
    hold : locks a folder, so that nothing changes in it any more; of the first process alone

    Raises
    ------
    ConfigError
        For another value, or with a ``ckpt_path``.
    """
    if config.resume is None:
        return
    if config.resume != "auto":
        raise ConfigError(f"resume: got {config.resume!r}; allowed: null, auto; a checkpoint is named by ckpt_path=...")
    if config.ckpt_path is not None:
        raise ConfigError(f"resume=auto looks for a checkpoint, ckpt_path={config.ckpt_path} names one; leave out one")

    @functools.cache
    def identity() -> dict[str, Any] | None:
        return getattr(build(config.data), "identity", None)

    found = find(plain(config), identity=identity, say=say)
    while found is not None:
        hold(found.folder)
        # Another one may have been at work until now.
        seen, found = found, find(plain(config), identity=identity, say=lambda _: None)
        if found == seen:
            break
    if found is None:
        folder = Path(config.paths.output_dir).parent
        say(f"no checkpoint of this configuration in {folder}; starting from the beginning")
        return
    say(f"going on from epoch {found.epoch}, step {found.step}: {found.path}")
    config.ckpt_path, config.paths.output_dir = str(found.path), str(found.folder)
    if found.is_over:
        say("early stopping had ended this training; it is tested and exported again")
        config.trainer.max_epochs = found.epoch + 1
    elif limit := found.reached(config.trainer):
        say(f"this training was finished, it had reached {limit}; it is tested and exported again")
    elif (found.folder / METRICS).exists():
        say("this training was finished; it is trained further in its folder, whose figures and bundle are made anew")
    # That there are files of the same training is what was asked for.
    warnings.filterwarnings("ignore", message=r".* exists and is not empty")


def say(sentence: str, *, option: str = "resume=auto") -> None:
    """Print a sentence about an option from the first process of a training."""
    from pytorch_lightning.utilities import rank_zero_only

    rank_zero_only(print)(f"{option}: {sentence}", flush=True)


def save_inputs(config: DictConfig, data: Any, *, folder: str | Path) -> None:
    """Write what a training was made from: ``config.yaml``, resolved, and ``specs.json`` of its data.

    A log of metrics that is there already is kept under another name; what ``resume=auto`` left behind is removed.

    Parameters
    ----------
    config : the whole configuration, composed
    data : a data module, of which the specs are saved
    folder : of the outputs; made where it is not there

    Raises
    ------
    ConfigError
        If this process was taken for a part of another one's training, in whose folder it is.
    """
    if runs.follows(trainer_of(config)):
        raise ConfigError(
            f"process {runs.rank()} of several trains on its own; set trainer.devices=1 for a training each, "
            "trainer=ddp for one of all of them"
        )
    Path(folder).mkdir(parents=True, exist_ok=True)
    keep_logs(Path(folder))
    if config.get("resume") and config.ckpt_path:
        tidy(Path(config.ckpt_path))
    write_atomic(Path(folder, CONFIG), OmegaConf.to_yaml(config, resolve=True))
    data.specs.save(Path(folder, "specs.json"))


def outcome(trainer: Any, *, folder: str | Path) -> Any:
    """Make a table of what came out and where it is, to be printed by rich.

    Parameters
    ----------
    trainer : a Lightning trainer after its work
    folder : of the outputs
    """
    from rich.table import Table

    from rootdata.training.callbacks import ScoreReport
    from rootdata.training.responses import FIGURES

    report = next((callback for callback in trainer.callbacks if isinstance(callback, ScoreReport)), None)
    figures, paths = (report.metrics, report.paths) if report else ({}, {})
    rows: dict[str, Any] = {f"test {name}": figures.get(name) for name in ("auc", "accuracy", "loss")}
    rows = {name.replace("auc", "AUC"): f"{value:.4f}" for name, value in rows.items() if value is not None}
    rows |= {f"test {name}": f"{value:.5g}" for name, value in figures.items() if name.rpartition("/")[2] in FIGURES}
    rows |= {f"sculpting of {n}": f"{v:.4f}" for n, v in figures.get("sculpting", {}).items() if v is not None}
    places = {
        "report": paths.get("report"),
        "ROC curve": paths.get("roc_plot", paths.get("roc")),
        "scores": paths.get("scores_plot", paths.get("scores")),
        "confusion": paths.get("confusion_plot", paths.get("confusion")),
        "responses": paths.get("responses_plot", paths.get("responses")),
        "sculpting": paths.get("sculpting_plot", paths.get("sculpting")),
        "metrics": paths.get("metrics"),
        "checkpoint": getattr(trainer.checkpoint_callback, "best_model_path", None),
        "bundle": Path(folder, BUNDLE),
        "specs": Path(folder, "specs.json"),
        "configuration": Path(folder, "config.yaml"),
    }
    table = Table(show_header=False)
    for column in ("what", "where"):
        table.add_column(column, overflow="fold")
    for name, value in rows.items():
        table.add_row(name, f"[bold]{value}")
    for name, path in places.items():
        if path and Path(path).exists():
            path = Path(path).absolute()
            table.add_row(name, str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
    return table


def require(folder: str | Path, *, files: Sequence[object] = (), remedy: str) -> None:
    """Check that there is a folder of ROOT files, for use as ``prepare`` of a data module.

    Parameters
    ----------
    folder : where files lie by default
    files : what the samples name; where that lies elsewhere, the folder is not wanted
    remedy : how to get the files, or name others

    Raises
    ------
    FileError
        Saying how to get the files.
    """
    if files and not any(str(place).startswith(str(folder)) for place in files):
        return
    if not any(Path(folder).glob("*.root")):
        raise FileError(f"no ROOT files in {str(Path(folder).absolute())!r}; {remedy}")
