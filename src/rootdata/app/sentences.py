"""What went wrong with a command, in one sentence; signals and exit statuses."""

from __future__ import annotations

import errno
import re
import signal
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rootdata.app.checking import explain_key, first_line, join, options_of, walk
from rootdata.causes import home_of, sentence_of
from rootdata.errors import ConfigError, RootDataError, nearest
from rootdata.shutdown.signals import SIGNALS, Ending, Stopped, is_first_here, status_of

LIGHTNING = {"pytorch_lightning", "lightning", "lightning_fabric"}
GO_ON = "the same command with resume=auto goes on from the last checkpoint"


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
        return explain_override(str(error.override))
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


def explain_override(word: str) -> str:
    """Say how a word of the command line that Hydra can't read has to be written."""
    key, equals, value = word.partition("=")
    if not equals:
        remedy = "options are written as data.batch_size=512"
    elif value[:1] in {"[", "{"}:
        remedy = "close its brackets and quotes, and quote what has spaces or signs in it"
    elif re.search(r"[\"'\\\\]", value):
        remedy = "close its quotes: one pair for the shell, one for the value, as \"data.cut='nJet >= 2'\""
    else:
        remedy = f"quote its value, and all of it for the shell: \"{key}='{value}'\""
    return f"{word!r} can't be read; {remedy}"


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


def known_groups(primary: Path) -> dict[str, Any]:
    """Name what may stand at the top of the composed configuration: groups, and keys of the primary file.

    What is true or false in that file has to be so: Hydra takes ``no`` and ``off`` as text, which Python takes as true.
    """
    own = typing.cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(primary), resolve=False))
    types = {
        **dict.fromkeys(groups_of(primary), Any),
        **{k: bool if isinstance(v, bool) else Any for k, v in own.items()},
    }
    return {name: kind for name, kind in types.items() if name not in {"defaults", "hydra"}}


def groups_of(primary: Path) -> set[str]:
    """Name the groups beside a primary file, where it takes any."""
    has_groups = "defaults" in typing.cast("DictConfig", OmegaConf.load(primary))
    return {group.name for group in primary.parent.iterdir() if group.is_dir()} if has_groups else set()


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """End the program by a sentence where a callback of Hydra fails: Hydra would print it, and go on."""
    try:
        yield
    except (RootDataError, OSError) as error:
        stop(str(error), status=2)
