"""The command line: ``rootdata inspect``, ``scan``, ``export``, ``predict``, ...; also `python -m rootdata`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rootdata.app.printing import print_anything
from rootdata.causes import sentence_of
from rootdata.errors import ConfigError, FileError
from rootdata.options import values
from rootdata.tth import command as simulation

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160  # of what goes into a pipe or a file, where there is no terminal to ask


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns
    -------
    The exit status: 2 after a mistake that the user can mend, told in one sentence; 130 after Ctrl-C.
    """
    arguments = make_parser().parse_args(words)
    print_anything()
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has left, as `head` does; what is still to be flushed goes nowhere.
        _print_no_more()
        return 0
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"rootdata: {sentence}", file=sys.stderr)
        return 2
    return status


def _print_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class CommandParser(argparse.ArgumentParser):
    """Tells a mistake in the words of a command in one sentence, as the command itself does."""

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        what = re.sub(r"^([^:]+): invalid (int|float) value: (.*)", _not_a_number, message.removeprefix("argument "))
        self.exit(2, f"rootdata: {what}; {self.prog} --help lists what there is\n")


def _not_a_number(match: re.Match[str]) -> str:
    return f"{match[1]}: got {match[3]}; expected {'a whole number' if match[2] == 'int' else 'a number'}"


def make_parser() -> argparse.ArgumentParser:
    """Declare the commands; nothing heavy is imported for it."""
    parser = CommandParser(prog="rootdata", description="ROOT files for PyTorch Lightning.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_scan(commands)
    _add_export(commands)
    _add_predict(commands)
    _add_report(commands)
    _add_cache(commands)
    simulate = commands.add_parser("simulate", help="make ttH(bb) samples", description="Make ttH(bb) samples.")
    simulation.add_arguments(simulate)
    simulate.set_defaults(run=simulation.run)
    return parser


def _add_inspect(commands: Any) -> None:
    words = "say what is in ROOT files, and write a data configuration for them"
    parser = commands.add_parser("inspect", help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument(
        "files", nargs="+", metavar="FILE[:TREE]",
        help="path, 'glob', folder or text file of paths; each is a sample, which NAME=FILE gives a name",
    )  # fmt: skip
    parser.add_argument("--tree", help="name of the tree, where a file has several")
    parser.add_argument("--entries", type=int, default=10_000, help="read of a file (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="show every branch, trigger bits and flags included")
    parser.add_argument("--collection", action="append", default=[], metavar="NAME", help="show all its branches")
    parser.add_argument("--match", metavar="REGEX", help="show the branches whose names hold it: 'Jet_|MET'")
    parser.add_argument(
        "--patience", type=float, default=20.0, metavar="SECONDS",
        help="in which files elsewhere are tried again (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--deadline", type=float, default=30.0, metavar="SECONDS",
        help="that an attempt to read from elsewhere may take (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page for a browser: report.html")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found: report.json")
    parser.add_argument("--write", type=Path, metavar="YAML", help="write a data configuration: configs/data/mine.yaml")
    parser.add_argument("--signal", action="append", default=[], metavar="SAMPLE", help="label 1; may be repeated")
    parser.add_argument("--force", action="store_true", help="overwrite the configuration")
    parser.set_defaults(run=run_inspect)


def _add_scan(commands: Any) -> None:
    words = "read the files of a data configuration once, and say what was learnt"
    parser = commands.add_parser("scan", help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument("config", metavar="CONFIG.yaml|data=NAME", help="a file, or a name from configs/data")
    parser.add_argument("overrides", nargs="*", help="as of train.py, such as data.seed=7")
    parser.add_argument("--configs", type=Path, default=Path("configs"), help="the folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write the specs here, too")
    parser.add_argument("--scheduler", metavar="URL", help="of dask, whose workers read: tcp://host:8786")
    parser.set_defaults(run=run_scan)


def _add_export(commands: Any) -> None:
    words = "write the network of a checkpoint as an ONNX bundle, preprocessing included"
    parser = commands.add_parser("export", help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument(
        "checkpoint", type=Path, metavar="CKPT", help="a checkpoint that train.py wrote, or the folder of all folds"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the bundle (default: beside the checkpoints)")
    parser.add_argument("--events", type=int, default=1000, help="compared with torch (default: %(default)s)")
    parser.add_argument("--float32", action="store_true", help="all inputs float32, as CMSSW and SOFIE want them")
    parser.add_argument("--average", action="store_true", help="of all folds the mean, for every event")
    parser.add_argument("--author", default="", help="for the manifest")
    parser.add_argument("--description", default="", help="for the manifest")
    parser.add_argument("--tag", action="append", default=[], help="for the manifest; may be repeated")
    parser.set_defaults(run=run_export)


def _add_predict(commands: Any) -> None:
    words = "write the scores of a model beside the events, a friend tree for each file"
    parser = commands.add_parser("predict", help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument("bundle", metavar="BUNDLE|URL", help="folder, or a served model: http://host:8000/models/ttH")
    parser.add_argument("files", nargs="+", metavar="FILE[:TREE]", help="path, 'glob', folder or text file of paths")
    parser.add_argument("--out", default="friends", metavar="FOLDER", help="of the scores (default: %(default)s)")
    parser.add_argument("--name", default="Friends", help="of the tree that is written (default: %(default)s)")
    parser.add_argument(
        "--kind", default="TTree", choices=("TTree", "RNTuple"),
        help="of that tree (default: %(default)s); ROOT can't attach an RNTuple to a TTree as its friend",
    )  # fmt: skip
    parser.add_argument("--tree", help="of the events (default: that of the training, or the only one)")
    parser.add_argument(
        "--fill", type=float, default=-1.0, help="score of events that are not selected (default: %(default)g)"
    )
    parser.add_argument(
        "--cut", default="bundle", help="selects events: bundle as the training, none all, or an expression"
    )
    parser.add_argument(
        "--observer", action="append", metavar="[NAME=]EXPRESSION",
        help="written as well; may be repeated (default: those of the training)",
    )  # fmt: skip
    parser.add_argument(
        "--weight", action="append", metavar="NAME=EXPRESSION",
        help="of events, written as weight_NAME, nominal=... as weight; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--parameter", action="append", metavar="NAME=VALUE",
        help="of a parameterised network, a number or an expression: mass=500; may be repeated",
    )  # fmt: skip
    parser.add_argument("--parts", action="store_true", help="write which part of the training's data an event is in")
    parser.add_argument("--workers", type=int, default=0, help="files at a time (default: processors, at most 4)")
    parser.add_argument("--force", action="store_true", help="overwrite what other models left in the folder")
    parser.set_defaults(run=run_predict)


def _add_report(commands: Any) -> None:
    words = "make the page of a training that was tested, or of several side by side"
    parser = commands.add_parser("report", help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a training, such as outputs/.../latest"
    )
    parser.add_argument(
        "--out", type=Path, metavar="HTML", help="default: report.html of the run; compare.html of several"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the page that --out names")
    parser.add_argument("--style", default="plain", help="plain, CMS, ATLAS or LHCb (default: %(default)s)")
    parser.add_argument("--label", default="", help="beside the experiment's name: 'Simulation Preliminary'")
    parser.add_argument("--energy", type=float, metavar="TEV", help="of the collisions, for the label")
    parser.add_argument("--luminosity", type=float, metavar="FB", help="in fb^-1, for the label")
    parser.add_argument(
        "--background-uncertainty",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the significance (default: %(default)g)",
    )
    parser.set_defaults(run=run_report)


def _add_cache(commands: Any) -> None:
    words = "say how much a cache of decoded blocks holds, or empty it"
    parser = commands.add_parser("cache", help=words, description=words[0].upper() + words[1:] + ".")
    parser.add_argument("folder", metavar="DIR", help="the folder that was given as cache.dir")
    parser.add_argument("--clear", action="store_true", help="remove all blocks; runs that use them read them anew")
    parser.set_defaults(run=run_cache)


# inspect


def run_inspect(arguments: argparse.Namespace) -> int:
    """Show what is in files, or write it: as a page, as JSON, as a data configuration.

    Returns
    -------
    0, or 1 where the configuration needs a label before it can be trained with.
    """
    for option, endings in _ENDINGS.items():
        _check_target(option, getattr(arguments, option), endings, force=arguments.force)
    if arguments.entries < 1:
        raise ConfigError(f"--entries: got {arguments.entries}; expected a whole number of at least 1")
    from rootdata.inspection import choice, files, tables

    choice.signals_of(arguments.signal, files.name_samples(arguments.files))
    console = _console()
    is_long = arguments.all or bool(arguments.collection) or arguments.match is not None
    with console.status("reading ..."):
        found = files.inspect(
            arguments.files, tree=arguments.tree, entries=arguments.entries, flags=is_long,
            patience=values.seconds(arguments.patience, "--patience"),
            deadline=values.seconds(arguments.deadline, "--deadline"),
        )  # fmt: skip
    if is_long:
        wanted = tables.select(found, collections=arguments.collection, match=arguments.match)
        console.print(tables.tables(found, width=console.width, wanted=None if arguments.all else wanted))
    is_written = any(getattr(arguments, option) for option in _ENDINGS)
    if is_long and not is_written:
        return 0
    chosen = choice.choose(found, signal=arguments.signal)
    if not is_written:
        console.print(tables.overview(found, chosen, width=console.width))
    _write_reports(found, chosen, arguments, console)
    return 0 if arguments.write is None else _write(found, chosen, arguments, console)


_ENDINGS = {"write": (".yaml", ".yml"), "html": (".html", ".htm"), "json": (".json",)}


def _check_target(option: str, path: Path | None, endings: Sequence[str], *, force: bool) -> None:
    if path is None:
        return
    if path.suffix not in endings:
        example = "configs/data/mine.yaml" if option == "write" else f"report{endings[0]}"
        raise ConfigError(f"--{option}: got {str(path)!r}; expected a name that ends in {endings[0]}: {example}")
    if path.exists() and not force:
        raise ConfigError(f"--{option}: {path} exists; add --force to overwrite it, or choose another name")


def _write_text(option: str, path: Path, text: str, console: Console) -> None:
    from rich.markup import escape

    from rootdata import cache_folder

    try:
        cache_folder.write_atomic(path, text)
    except OSError as error:
        raise FileError(f"--{option}: {path} can't be written ({error}); choose another place") from error
    console.print(f"[bold]wrote {escape(str(path))}[/]", highlight=False, soft_wrap=True)


def _write_reports(found: Any, chosen: Any, arguments: argparse.Namespace, console: Console) -> None:
    if arguments.html is None and arguments.json is None:
        return
    from rootdata.inspection import report

    for option, write in (("html", report.as_page), ("json", report.as_json)):
        path = getattr(arguments, option)
        if path is not None:
            _write_text(option, path, write(found, chosen), console)


def _write(found: Any, chosen: Any, arguments: argparse.Namespace, console: Console) -> int:
    from rich.markup import escape

    from rootdata.inspection.suggest import suggest

    path = arguments.write
    suggestion = suggest(found, chosen)
    _write_text("write", path, suggestion.text, console)
    for note in suggestion.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)
    console.print("next:", highlight=False)
    for line in _next(path):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    return 0 if suggestion.is_complete else 1


def _next(path: Path) -> list[str]:
    place = path.absolute()
    is_home = place.parent.name == "data" and (place.parents[1] / "train.yaml").exists()
    train = f"python train.py data={path.stem} model=dnn"
    scan = f"python -m rootdata scan {path}"
    return [scan, train] if is_home else [scan, f"mv {path} configs/data/ && {train}"]


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=WIDTH)


# scan


def run_scan(arguments: argparse.Namespace) -> int:
    """Run the first pass of a data configuration, or find what it learnt before."""
    from rootdata import cache_folder
    from rootdata.app.composing import data_module

    overrides = list(arguments.overrides)
    if arguments.scheduler is not None:
        overrides.append(f"++data.scheduler='{arguments.scheduler}'")
    data = data_module(arguments.config, configs=arguments.configs, overrides=overrides)
    started = time.time()
    data.prepare_data()
    seconds = time.time() - started
    specs, console = data.specs, _console()
    console.print(data.summary())
    path = cache_folder.specs_path(specs.fingerprint)
    entries = sum(file.entries for file in specs.files)
    kept = _time_of(path)
    speed = f"{entries:,} entries in {seconds:.1f} s, {entries / max(seconds, 1e-3):,.0f} a second"
    words = f"{path} ({'known from before' if kept is not None and kept < started else speed})"
    console.print(f"specs: {words if kept is not None else f'not kept ({speed})'}", highlight=False, soft_wrap=True)
    if arguments.out is not None:
        try:
            specs.save(arguments.out)
        except OSError as error:
            raise FileError(f"--out: {arguments.out} can't be written ({error}); choose another place") from error
        console.print(f"specs: {arguments.out}", highlight=False, soft_wrap=True)
    return 0


def _time_of(path: Path) -> float | None:
    """Return when a file was written; None where there is none that can be seen."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


# export


def run_export(arguments: argparse.Namespace) -> int:
    """Export a checkpoint, and say how well the graph agrees with the network."""
    if arguments.events < 1:
        raise ConfigError(f"--events: got {arguments.events}; expected a whole number of at least 1")
    console, options = _console(), {"num_events": arguments.events, "float32": arguments.float32}
    options |= {"author": arguments.author, "description": arguments.description, "tags": arguments.tag}
    if arguments.checkpoint.is_dir():
        from rootdata.app.joining import export_folds, join

        place = arguments.out or arguments.checkpoint / "bundle"
        console.print(join(arguments.checkpoint))
        manifest = export_folds(arguments.checkpoint, place, average=arguments.average, **options)
    else:
        if arguments.average:
            raise ConfigError(f"--average: {arguments.checkpoint} is one network; give the folder of all folds")
        from rootdata.app.rebuild import rebuild, report_of
        from rootdata.bundle.export import export

        network, data, folder = rebuild(arguments.checkpoint)
        place = arguments.out or folder / "bundle"
        manifest = export(network, data, place, **report_of(folder), **options)
    console.print(f"bundle: {place}", highlight=False, soft_wrap=True)
    if manifest.parity is not None:
        compared, difference = manifest.parity.num_events, manifest.parity.max_difference
        console.print(f"scores differ from torch by at most {difference:.1e} ({compared} events)", highlight=False)
    return 0


# predict


def run_predict(arguments: argparse.Namespace) -> int:
    """Write the scores of files, and say where they are."""
    from rootdata.analysis.friends.predict import predict

    asked = vars(arguments)
    same = ("bundle", "files", "out", "name", "kind", "tree", "fill", "parts", "workers", "force")
    console = _console()
    found = predict(
        **{option: asked[option] for option in same},
        cut=None if arguments.cut in {"none", "null"} else arguments.cut,  # null, as Hydra and errors call it
        observers=_expressions(arguments.observer, "--observer"),
        weights=_expressions(arguments.weight, "--weight", example="up='genWeight * 1.1'"),
        parameters=_expressions(arguments.parameter, "--parameter", example="mass=500"),
        progress=console.is_terminal,
    )
    console.print(found.summary(), highlight=False, soft_wrap=True, markup=False)
    return 0


def _expressions(words: Sequence[str] | None, where: str, *, example: str = "") -> dict[str, str] | None:
    """Take ``NAME=EXPRESSION`` apart; one without a name is called as it is written.

    Parameters
    ----------
    words : as they were given
    where : option, for an error
    example : of a word, where it has to have a name
    """
    if words is None:
        return None
    found = {}
    for word in words:
        match = re.match(r"(\w+)=(?!=)(.+)", word)
        if example and match is None:
            raise ConfigError(f"{where}: got {word!r}; expected NAME=EXPRESSION, such as {example}")
        found[match[1] if match else word] = match[2] if match else word
    return found


# report


def run_report(arguments: argparse.Namespace) -> int:
    """Make the page of one training anew, or one of several."""
    from rootdata.analysis.report import compare, make
    from rootdata.analysis.report.config import ReportConfig

    _check_target("out", arguments.out, (".html", ".htm"), force=arguments.force)
    config = ReportConfig.parse(
        style=arguments.style, label=arguments.label, energy=arguments.energy, luminosity=arguments.luminosity,
        background_uncertainty=arguments.background_uncertainty,
    )  # fmt: skip
    if len(arguments.runs) == 1:
        place = make.report(arguments.runs[0], config, out=arguments.out)
    else:
        place = compare.compare(arguments.runs, config, out=arguments.out or Path("compare.html"))
    _console().print(f"report: {place}", highlight=False, soft_wrap=True, markup=False)
    return 0


# cache


def run_cache(arguments: argparse.Namespace) -> int:
    """Show what a folder of decoded blocks holds; remove it where that was asked for."""
    from rootdata.cache import blocks

    if arguments.clear:
        blocks.clear(arguments.folder)
    entries, size = blocks.usage(arguments.folder)
    words = f"{arguments.folder}: {entries:,} blocks, {size / 1e9:,.3f} GB"
    _console().print(words, highlight=False, soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
