"""The command line of the server.

``python -m serve MODELS`` serves a folder of models; ``python -m serve publish MODELS NAME BUNDLE``,
``python -m serve purge MODELS`` and ``python -m serve keys add|list|revoke FILE`` need no running server. A folder
that is called like a command is written with its path: ``./keys``.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rootdata.app.printing import print_anything
from rootdata.causes import reason_of, sentence_of
from rootdata.errors import ConfigError
from serve.errors import ServeError
from serve.settings import Settings

_SCOPES = ("predict", "publish", "admin")
_COUNTS = {
    "workers": "processes that run models, one thread each",
    "api_processes": "processes that speak HTTP",
    "sessions": "models that a worker keeps in memory",
    "max_batch": "requests that are answered together",
    "max_pending": "requests that may wait in a process before new ones get a 503",
    "max_body": "bytes of a body, but for ROOT files and uploads",
    "max_pending_bytes": "bytes of all bodies and answers held at the same time (default: a sixteenth of the memory)",
    "worker_memory": "bytes of memory of a worker (default: its part of three quarters of the memory, at least 1 GB)",
    "max_connections": "connections of a process that speaks HTTP (default: half of the files that it may open)",
    "max_model_bytes": "bytes of the models that a worker keeps in memory (default: a quarter of its memory)",
    "max_file": "bytes of a ROOT file to be scored",
    "max_upload": "bytes of a model",
    "max_trash_bytes": "bytes of deleted models; of more, the oldest go for good (default: any number)",
    "max_events": "events of a request, but for ROOT files",
    "max_objects": "objects of a collection in one event",
}
_TIMES = {
    "timeout": "seconds that a request may take, unless it gives its own",
    "max_timeout": "seconds that a request may give",
    "stalled": "seconds without progress after which a worker gets no requests, and past a deadline is replaced",
    "check_seconds": "seconds that the check of an upload may take",
    "max_trash_days": "days after which deleted models go for good (default: never)",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    The exit status: 2 after a mistake that the user can mend, told in one sentence; that of the server otherwise
    """
    given = sys.argv[1:] if words is None else list(words)
    parse, run = _COMMANDS.get(given[0] if given else "", (None, None))
    if parse is None or run is None:
        parse, run = _serve_parser, _serve
    else:
        given = given[1:]
    arguments = parse().parse_args(given)
    print_anything()
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        sys.stdout.flush()
        sys.stderr.write(f"serve: {sentence}\n")
        return 2


def _sentence(error: Exception) -> str | None:
    """Say what the user, or an administrator, can mend; None for a fault of the program."""
    if isinstance(error, ImportError):
        return f"{reason_of(error)}; pip install 'rootdata[serve]'"
    return str(error) if isinstance(error, ServeError) else sentence_of(error)


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve the models of a folder over HTTP.",
        epilog="Other commands: publish MODELS NAME BUNDLE; purge MODELS; keys add|list|revoke FILE. "
        "Write ./keys for a folder that is called keys.",
    )
    known = {field.name: field.default for field in dataclasses.fields(Settings)}
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder of the model repository; made if need be")
    parser.add_argument(
        "--host", default=known["host"], help="address to listen on, or unix:PATH (default: %(default)s)"
    )
    parser.add_argument("--port", type=_port, default=known["port"], help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--root-path", type=_root_path, default="", metavar="/PREFIX", help="under which a proxy shows the server"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        type=_host,
        metavar="NAME",
        help="by which a server without keys may be asked, as through a proxy; may be given several times",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        type=_origin,
        metavar="https://SITE",
        help="whose pages may use the server; * with keys means all; may be given several times",
    )
    parser.add_argument("--keys", type=Path, metavar="FILE", help="API keys; see 'python -m serve keys'")
    parser.add_argument(
        "--access-log", type=Path, metavar="FILE", help="write a line of JSON for each answer; - is the standard error"
    )
    parser.add_argument(
        "--format", action="append", default=[], metavar="MODULE.CLASS", dest="formats",
        help="take and give a format of one's own, a class in Python; may be given several times",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", dest="is_open", help="serve other machines without keys")
    parser.add_argument(
        "--publish", action="append", default=[], type=_publication, metavar="NAME=BUNDLE",
        help="publish a bundle first, unless it is the newest version already; may be given several times",
    )  # fmt: skip
    for kind, options in ((_count, _COUNTS), (_seconds, _TIMES)):
        for name, text in options.items():
            option = f"--{name.replace('_', '-')}"
            shown = text if known[name] is None else f"{text} (default: %(default)s)"
            parser.add_argument(option, type=kind, default=known[name], metavar="N", help=shown)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    given = dict(vars(arguments))
    publications = given.pop("publish")
    hosts, origins = tuple(given.pop("allow_host")), tuple(given.pop("allow_origin"))
    formats = tuple(given.pop("formats"))
    settings = Settings(**given, allow_host=hosts, allow_origin=origins, formats=formats)
    if "*" in origins and settings.keys is None:
        raise ConfigError("--allow-origin '*' lets any page in a visitor's browser in; give --keys, or name the sites")
    if settings.timeout > settings.max_timeout:
        raise ConfigError(f"--timeout {settings.timeout:g} is more than --max-timeout {settings.max_timeout:g}")
    if settings.keys is not None and not settings.keys.is_file():
        raise ConfigError(
            f"--keys {settings.keys}: there is no such file; python -m serve keys add {settings.keys} NAME"
        )
    # Processes are forked, which threads would not survive; more cores are used by more workers.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from serve.keys import Keys, check_exposure

    check_exposure(settings.host, settings.keys, is_open=settings.is_open)
    if settings.keys is not None:
        Keys(settings.keys).known()  # a file that can't be read would let nobody in
    if settings.formats:
        from serve.formats.known import formats_of

        formats_of(settings.formats)  # before models are published
    settings.models.mkdir(parents=True, exist_ok=True)
    for name, bundle in publications:
        _publish_if_new(settings, name, bundle)
    from serve.app.asgi import install
    from serve.processes.launch import serve_forever

    return serve_forever(settings, install=install)


def _publish_if_new(settings: Settings, name: str, bundle: Path) -> None:
    from rootdata.bundle.manifest import open_bundle
    from serve.errors import InvalidModel, NotFound
    from serve.models.repository import Repository

    repository = Repository(settings.models)
    try:
        is_new = repository.manifest(name, repository.resolve(name)).sha256 != open_bundle(bundle).sha256
    except (NotFound, InvalidModel):
        is_new = True
    if is_new:
        # The first line of standard output says where the server is.
        sys.stderr.write(f"{_publish_checked(settings, name, bundle)}\n")


def _publish_checked(settings: Settings, name: str, bundle: Path, *, batching: str | None = None) -> str:
    from serve.models.repository import Repository
    from serve.upload.check import Limits, check

    if not bundle.is_dir():
        raise ConfigError(f"{bundle} is no folder; a bundle is a folder with model.onnx and manifest.json")
    limits = Limits(size=settings.max_upload, memory=settings.check_memory, seconds=settings.check_seconds)
    repository = Repository(settings.models)
    with repository.staging() as area:  # the check may complete a bundle; that of the user stays as it is
        copy = area / "checked"
        _copy(bundle, copy)
        check(copy, limits=limits, batching=batching)
        version = repository.publish(copy, name)
    return f"published {name}, version {version}"


def _copy(bundle: Path, target: Path) -> None:
    """Copy a bundle as it is, for the check to say what does not belong there, and stop at the first error."""
    target.mkdir()
    for path in bundle.iterdir():
        if path.is_dir() and not path.is_symlink():
            (target / path.name).mkdir()
        else:
            shutil.copy2(path, target / path.name, follow_symlinks=False)


def _publish_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve publish", description="Check a bundle and publish it as the next version of a model."
    )
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder of the model repository; made if need be")
    parser.add_argument("name", metavar="NAME", help="of the model")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder with model.onnx and manifest.json")
    parser.add_argument(
        "--batching", choices=("events", "none"), help="none: run requests, and the events in them, one by one"
    )
    return parser


def _publish(arguments: argparse.Namespace) -> int:
    arguments.models.mkdir(parents=True, exist_ok=True)
    text = _publish_checked(
        Settings(models=arguments.models), arguments.name, arguments.bundle, batching=arguments.batching
    )
    sys.stdout.write(f"{text}\n")
    return 0


def _purge_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serve purge",
        description="Remove deleted models from the trash for good; all, if nothing is said.",
    )
    parser.add_argument("models", type=Path, metavar="MODELS", help="folder of the model repository")
    parser.add_argument("--days", type=_seconds, metavar="N", help="only those deleted longer ago")
    parser.add_argument(
        "--max-bytes", type=_amount, metavar="N", help="only those beyond so many bytes, the oldest first"
    )
    return parser


def _purge(arguments: argparse.Namespace) -> int:
    from serve.models.repository import Repository

    if not arguments.models.is_dir():
        raise ConfigError(f"{arguments.models} is no folder; give that of the model repository")
    unsaid = 0.0 if arguments.max_bytes is None else math.inf
    days = unsaid if arguments.days is None else arguments.days
    removed = Repository(arguments.models).purge(days=days, max_bytes=arguments.max_bytes)
    sys.stdout.write(f"removed {removed} from the trash\n")
    return 0


def _keys_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serve keys", description="Make, list and revoke API keys.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="add|list|revoke")
    add = commands.add_parser("add", help="make a key and print it; it can't be shown again")
    listed = commands.add_parser("list", help="list keys, never the secrets")
    revoke = commands.add_parser("revoke", help="let a key open nothing any more")
    for parsed in (add, listed, revoke):
        parsed.add_argument("file", type=Path, metavar="FILE")
    add.add_argument("name", metavar="NAME", help="whose it is, or what for")
    add.add_argument("--scope", choices=_SCOPES, default="predict", help="each includes those before it")
    add.add_argument("--days", type=_seconds, metavar="N", help="until it expires; by default never")
    revoke.add_argument("id", metavar="ID", help="what 'list' shows first")
    return parser


def _keys(arguments: argparse.Namespace) -> int:
    from serve.keys import Keys

    keys = Keys(arguments.file)
    if arguments.command == "add":
        expires = None if arguments.days is None else time.time() + 86_400 * arguments.days
        sys.stdout.write(keys.create(arguments.name, scope=arguments.scope, expires=expires) + "\n")
    elif arguments.command == "revoke":
        keys.revoke(arguments.id)
    else:
        for key in keys.known():
            sys.stdout.write(f"{key.id}  {key.scope:8} {_until(key.expires)}  {key.name}\n")
    return 0


def _until(expires: float | None) -> str:
    return "forever   " if expires is None else time.strftime("%Y-%m-%d", time.gmtime(expires))


def _port(word: str) -> int:
    return _number(word, least=0, most=65_535)


def _amount(word: str) -> int:
    return _number(word, least=0, most=1 << 62)


def _count(word: str) -> int:
    return _number(word, least=1, most=1 << 62)


def _number(word: str, *, least: int, most: int) -> int:
    if not (word.isascii() and word.isdecimal() and least <= int(word) <= most):
        raise argparse.ArgumentTypeError(f"got {word!r}; expected a whole number from {least} to {most}")
    return int(word)


def _seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"got {word!r}; expected a number above 0")
    return value


def _root_path(word: str) -> str:
    path = word.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9._~@+-]+)*", path) or re.search(r"/\.{1,2}(/|$)", path):
        raise argparse.ArgumentTypeError(f"got {word!r}; expected a path such as /ml")
    return path


def _host(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", word):
        raise argparse.ArgumentTypeError(f"got {word!r}; expected a name such as ml.cern.ch, without a port")
    return word.lower()


def _origin(word: str) -> str:
    if word != "*" and not re.fullmatch(r"https?://[A-Za-z0-9._:\[\]-]+", word):
        raise argparse.ArgumentTypeError(f"got {word!r}; expected a site such as https://cern.ch, without a path")
    return word.lower()


def _publication(word: str) -> tuple[str, Path]:
    name, equals, bundle = word.partition("=")
    if not (name and equals and bundle):
        raise argparse.ArgumentTypeError(f"got {word!r}; expected NAME=BUNDLE, as in ttH=bundles/ttH")
    return name, Path(bundle)


_Command = tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]
_COMMANDS: dict[str, _Command | tuple[Any, Any]] = {
    "publish": (_publish_parser, _publish),
    "purge": (_purge_parser, _purge),
    "keys": (_keys_parser, _keys),
}

if __name__ == "__main__":
    sys.exit(main())
