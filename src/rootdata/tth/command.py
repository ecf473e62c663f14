"""The command line of the generators: ``python -m rootdata simulate [FOLDER]``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rootdata.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``simulate``."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("data/tth"), help="to be made (default: %(default)s)"
    )
    parser.add_argument("--n-events", type=int, default=100_000, help="of all files together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers (default: %(default)s)")
    parser.add_argument(
        "--generator",
        choices=("fast", "pythia"),
        default="fast",
        help="numpy in seconds, or Pythia 8 in hours (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        choices=("selected", "full"),
        default="selected",
        help="analysis selection, or all events with 74 branches (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the set that is asked for, unless the folder has it, and say what is there.

    Raises
    ------
    ConfigError
        If Pythia is asked for the full set, which only the fast generator makes.
    """
    start = time.perf_counter()
    paths = _generate(arguments)
    size = sum(path.stat().st_size for path in paths) / 1e6
    print(f"{len(paths)} files, {size:.1f} MB in {arguments.folder} ({time.perf_counter() - start:.1f} s)")
    return 0


def _generate(arguments: argparse.Namespace) -> list[Path]:
    folder, n_events, seed = arguments.folder, arguments.n_events, arguments.seed
    if arguments.generator == "pythia":
        if arguments.set == "full":
            raise ConfigError(
                "--set: 'full' with --generator pythia; allowed: 'selected'; the full set is made by --generator fast"
            )
        from rootdata.tth.physics import pythia

        return pythia.ensure(folder, n_events, seed=seed)
    if arguments.set == "full":
        from rootdata.tth.full import generate_full

        return generate_full(folder, n_events, seed=seed, progress=True)
    from rootdata.tth.fast import ensure

    return ensure(folder, n_events, seed=seed)
