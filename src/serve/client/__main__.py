"""The command line of the client: ``python -m serve.client --url http://... predict events.root --model ttH ...``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.client.errors import ClientError, InvalidInput, ServerError, Unreachable

if TYPE_CHECKING:
    from serve.client.scores import Scores
    from serve.client.waiting import Client

URL = "http://127.0.0.1:8000"
KEY = "ROOTDATA_KEY"  # the environment is seen by fewer people than a command line


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    The exit status: 1 where there is no server or it fails, so that trying later may help; 2 after a mistake that the
    user can mend; both told in one sentence; 130 after Ctrl-C.
    """
    arguments = make_parser().parse_args(words)
    try:
        return _run(arguments)
    except ClientError as error:
        sys.stdout.flush()
        print(f"serve.client: {error}", file=sys.stderr)
        is_later = isinstance(error, Unreachable) or (isinstance(error, ServerError) and error.status >= 500)
        return 1 if is_later else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has left, as `head` does; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace) -> int:
    from serve.client.progress import shown_on
    from serve.client.waiting import Client

    key = arguments.key or os.environ.get(KEY) or None
    url = arguments.url or URL
    times = {"timeout": arguments.timeout, "file_timeout": max(600.0, arguments.timeout)}
    with shown_on(sys.stderr) as progress, Client(url, key=key, ca=arguments.ca, progress=progress, **times) as client:
        for line in arguments.run(client, arguments) or ():
            if progress is not None:
                progress.clear()
            print(line)
    sys.stdout.flush()
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Declare the commands; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(prog="python -m serve.client", description="Ask a prediction server.")
    parser.add_argument(
        "--url", action="append", help=f"of the server; given again, of others in case it is away (default: {URL})"
    )
    parser.add_argument("--key", help=f"of the server (default: the environment's {KEY})")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificates that are trusted, in place of the system's"
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds of a request (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_questions(commands)
    _add_changes(commands)
    return parser


def _command(commands: Any, name: str, run: Any, words: str) -> Any:
    parser = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", _predict, "score the events of a ROOT or JSON file")
    parser.add_argument("input", metavar="FILE.root|FILE.json|-", help='JSON: [{"HT": 431.0, ...}, ...]; - reads stdin')
    parser.add_argument("--model", required=True, metavar="NAME")
    _add_version(parser)
    parser.add_argument("--alias", help="instead of the latest version")
    parser.add_argument(
        "--tree", help="of a ROOT file (default: the one that the model was trained on, or its only one)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="for the scores of a ROOT file: .root, .arrow or .json"
    )
    parser.add_argument("--explain", action="store_true", help="say what is unlike the training events, as JSON lines")


def _add_questions(commands: Any) -> None:
    _command(commands, "models", _models, "list the models")
    parser = _command(commands, "search", _search, "find models")
    for name in ("tag", "feature", "author", "text"):
        parser.add_argument(f"--{name}")
    for name in ("min", "max"):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="METRIC=VALUE", help="such as auc=0.9")
    parser = _command(commands, "card", _card, "say what is known of a model, or all of a version, as JSON")
    parser.add_argument("name")
    _add_version(parser)
    parser = _command(commands, "ready", _ready, "say whether the server takes requests")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for it at most so long")
    parser = _command(commands, "download", _download, "fetch a bundle")
    parser.add_argument("name")
    _add_version(parser)
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")


def _add_changes(commands: Any) -> None:
    parser = _command(commands, "upload", _upload, "publish a bundle as the next version of a model")
    parser.add_argument("name")
    parser.add_argument("source", type=Path, help="folder of a bundle, an archive of one, or an .onnx file")
    for name, words in (("tag", ""), ("feature", "of a graph alone: "), ("column", "of a graph alone: ")):
        parser.add_argument(f"--{name}", action="append", default=[], help=f"{words}may be repeated")
    parser.add_argument(
        "--batching", choices=("events", "none"), help="none: run requests, and their events, one by one"
    )
    parser = _command(commands, "alias", _alias, "let an alias point at a version")
    parser.add_argument("name")
    parser.add_argument("alias")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("version", type=int, nargs="?")
    chosen.add_argument("--delete", action="store_true", help="remove it instead")
    parser = _command(commands, "tag", _tag, "add a tag to a model")
    parser.add_argument("name")
    parser.add_argument("tag")
    parser.add_argument("--delete", action="store_true", help="remove it instead")
    for name, words in (("delete", "move a model to the trash"), ("restore", "take a model out of the trash")):
        parser = _command(commands, name, _delete if name == "delete" else _restore, words)
        parser.add_argument("name")
        _add_version(parser)

    parser = _command(commands, "purge", _purge, "remove what is in the trash for good")
    parser.add_argument("--days", type=float, help="only what was deleted longer ago")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="only what is more than that, the oldest first")


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", type=int, metavar="N", help="instead of the latest one, or of all of them")


# Scores


def _predict(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    is_root = arguments.input.endswith(".root")
    if arguments.out is not None and (arguments.explain or not is_root):
        raise InvalidInput("--out: takes the scores of ROOT files, without --explain; otherwise write > FILE")
    if arguments.out is not None:
        yield str(
            client.predict_file(
                arguments.model, arguments.input, arguments.out,
                version=arguments.version, alias=arguments.alias, tree=arguments.tree,
            )
        )  # fmt: skip
        return
    scores = client.predict(
        arguments.model, arguments.input if is_root else _events(arguments.input),
        version=arguments.version, alias=arguments.alias, explain=arguments.explain, tree=arguments.tree,
    )  # fmt: skip
    yield from _explained(scores) if arguments.explain else _table(scores)


def _events(path: str) -> Any:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        plain = json.loads(text)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise InvalidInput(f"{path}: this is not JSON ({error}); ROOT files end in .root") from error
    events = plain.get("events") if isinstance(plain, dict) else plain
    if not isinstance(events, list):
        raise InvalidInput(f'{path}: expected a list of events, [{{"HT": 431.0, ...}}, ...], or {{"events": [...]}}')
    return events


def _table(scores: Scores) -> Iterator[str]:
    yield "\t".join(scores.columns)
    for row in scores.scores:
        yield "\t".join(map(str, row))


def _explained(scores: Scores) -> Iterator[str]:
    for row, told in zip(scores.scores.tolist(), scores.explain or (), strict=True):
        yield json.dumps({"scores": dict(zip(scores.columns, row, strict=True)), "explain": told})


# Models


def _models(client: Client, arguments: argparse.Namespace) -> Iterator[str]:  # noqa: ARG001 - as all commands
    yield from _listed(client.models())


def _search(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    bounds = dict(_bound(kind, word) for kind in ("min", "max") for word in getattr(arguments, kind))
    found = client.search(
        tag=arguments.tag, feature=arguments.feature, author=arguments.author, text=arguments.text, bounds=bounds
    )
    yield from _listed(found)


def _bound(kind: str, word: str) -> tuple[str, float]:
    metric, _, value = word.partition("=")
    try:
        return f"{kind}_{metric}", float(value)
    except ValueError as error:
        raise InvalidInput(f"--{kind}: got {word!r}; expected one like auc=0.9") from error


def _listed(models: list[dict[str, Any]]) -> Iterator[str]:
    """Write a line for each model: name, latest version, aliases, tags, metrics."""
    for model in models:
        aliases = [f"{alias}={version}" for alias, version in model["aliases"].items()]
        metrics = [f"{name}={value:.4g}" for name, value in model.get("metrics", {}).items()]
        fields = [model["name"], str(model["latest"]), *(" ".join(f) or "-" for f in (aliases, model["tags"], metrics))]
        yield "\t".join(fields)


def _card(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    yield json.dumps(client.card(arguments.name, arguments.version), indent=1)


def _ready(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    client.wait_until_ready(arguments.wait)
    yield "ready"


def _download(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    yield str(client.download(arguments.name, arguments.version, into=arguments.into))


def _upload(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    version = client.upload(
        arguments.name,
        arguments.source,
        tags=arguments.tag,
        features=arguments.feature,
        columns=arguments.column,
        batching=arguments.batching,
    )
    yield f"{arguments.name}\t{version}"


def _alias(client: Client, arguments: argparse.Namespace) -> None:
    if arguments.delete:
        client.delete_alias(arguments.name, arguments.alias)
    else:
        client.set_alias(arguments.name, arguments.alias, arguments.version)


def _tag(client: Client, arguments: argparse.Namespace) -> None:
    change = client.remove_tag if arguments.delete else client.add_tag
    change(arguments.name, arguments.tag)


def _delete(client: Client, arguments: argparse.Namespace) -> None:
    client.delete(arguments.name, arguments.version)


def _restore(client: Client, arguments: argparse.Namespace) -> None:
    client.restore(arguments.name, arguments.version)


def _purge(client: Client, arguments: argparse.Namespace) -> Iterator[str]:
    yield f"removed {client.purge(days=arguments.days, max_bytes=arguments.max_bytes)} from the trash"


if __name__ == "__main__":
    sys.exit(main())
