"""The ``selected`` set: the same nine files, branches and shares whichever generator the events come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rootdata.tth.events import SimulatedEvents, SimulatedObjects
from rootdata.tth.physics.analysis import FatJets, Jets
from rootdata.tth.physics.arrays import Array, Bools
from rootdata.tth.samples import PROCESSES, SHARES, SIGNAL, TTH, UNMATCHED, file_counts, files_of
from rootdata.tth.write import Note, TreeWriter, holds, new_set


@dataclass(frozen=True, slots=True)
class Selected:
    """Selected events of a block and which of them are signal (n_events,)."""

    events: SimulatedEvents
    is_signal: Bools


def make_selected(
    folder: Path, note: Note, *, blocks: Callable[[str], Iterator[Selected]], progress: bool = False
) -> list[Path]:
    """Write the nine files of a set, unless the folder has the same set already.

    Parameters
    ----------
    folder : where the set goes
    note : what makes it
    blocks : gives the endless stream of selected events of a process
    progress : show a bar

    Returns
    -------
    the nine files, signal first

    Raises
    ------
    DataError
        If the folder has something else in it.
    """
    counts = file_counts(note.n_events)
    names = [f"{name}.root" for name in SHARES]
    if not holds(folder, note):
        with new_set(folder, note, files=names) as partial, bar(note.n_events, is_shown=progress) as advance:
            for process in PROCESSES:
                _write_process(partial, counts, process, blocks=blocks(process), advance=advance)
    return [folder / name for name in names]


def _write_process(
    folder: Path,
    counts: Mapping[str, int],
    process: str,
    *,
    blocks: Iterator[Selected],
    advance: Callable[[int, str], None],
) -> None:
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(TreeWriter(folder / f"{name}.root", limit=counts[name]))
            for name in files_of(process)
        }
        while any(writer.missing for writer in writers.values()):
            block = next(blocks)
            for name, events in _by_file(process, block).items():
                advance(writers[name].add(events), process)


def _by_file(process: str, block: Selected) -> dict[str, SimulatedEvents]:
    if process != TTH:
        return {process: block.events}
    return {SIGNAL: block.events[block.is_signal], UNMATCHED: block.events[~block.is_signal]}


def selected_events(variables: Mapping[str, Array], *, jets: Jets, fat_jets: FatJets, event: Array) -> SimulatedEvents:
    """Lay out selected events: identifier, flat variables, jets and boosted jets.

    ``nJet`` is left out: the file has it as the counter of the jets.

    Parameters
    ----------
    variables : (n_events,) each, of ``samples.VARIABLES``
    jets : (n_events, n_jets)
    fat_jets : (n_events, n_fat_jets)
    event : (n_events,) identifiers, unique within a process
    """
    flat = {"event": event.astype(np.uint64)} | {name: values for name, values in variables.items() if name != "nJet"}
    jet = {name: getattr(jets, name) for name in ("pt", "eta", "phi", "mass", "btag", "qgl")}
    fat_jet = {name: getattr(fat_jets, name) for name in ("pt", "eta", "phi", "mass", "msoftdrop")}
    fat_jet |= {"tau21": fat_jets.tau21, "tau32": fat_jets.tau32, "btagSub": fat_jets.btag_sub}
    collections = {
        "Jet": SimulatedObjects(jet, jets.is_real),
        "FatJet": SimulatedObjects(fat_jet, fat_jets.is_real),
    }
    return SimulatedEvents(flat, collections)


@contextmanager
def bar(total: int, *, is_shown: bool) -> Iterator[Callable[[int, str], None]]:
    """Show progress on the terminal; gives a function that is called with a number of new events and their process."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as shown:
        task = shown.add_task("", total=total)
        yield lambda events, description: shown.update(task, advance=events, description=description)
