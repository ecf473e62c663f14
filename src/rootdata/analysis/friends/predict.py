"""Scores of all files, a friend tree for each: several at once, and only those that are not there yet."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from rootdata.analysis.friends import tree as friend
from rootdata.analysis.friends.columns import OF_THE_BUNDLE, FriendColumns, FriendColumnsOfFile, FriendOptions
from rootdata.analysis.friends.names import SUFFIX, outputs_of, place_of
from rootdata.analysis.friends.scorer import open_scorer
from rootdata.bundle.manifest import Manifest
from rootdata.errors import BranchError, ConfigError, FileError
from rootdata.events.evaluation import Block
from rootdata.io.files import find, state_of, states_of
from rootdata.io.reader import BlockReader, ChangedError
from rootdata.io.trees import Tree, blocks_of
from rootdata.location import Friend, KnownFile, Location, State, is_remote
from rootdata.options import values
from rootdata.options.read import parse_read
from rootdata.scan.progress_bar import ProgressReport, bar


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WrittenFriends:
    """What became of the files.

    Parameters
    ----------
    written : files with scores that were made now
    skipped : those that were there already
    """

    written: tuple[Path, ...]
    skipped: tuple[Path, ...]

    def summary(self) -> str:
        """Say where the scores are, a line for each file."""
        lines = [*map(str, self.written), *(f"{path} (was there already)" for path in self.skipped)]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A file of events, and where its scores go."""

    location: Location
    output: Path


def predict(
    bundle: str | Path,
    files: str | Sequence[str],
    *,
    out: str | Path = "friends",
    name: str = friend.TREE,
    kind: str = "TTree",
    tree: str | None = None,
    fill: float = -1.0,
    cut: str | None = OF_THE_BUNDLE,
    observers: Sequence[str] | Mapping[str, str] | None = None,
    weights: Mapping[str, str | float] | None = None,
    parts: bool = False,
    parameters: Mapping[str, str | float] | None = None,
    workers: int = 0,
    patience: float = 120.0,
    deadline: float = 60.0,
    force: bool = False,
    progress: bool = False,
) -> WrittenFriends:
    """Write the scores of files, a file ``NAME_Friend.root`` for each, aligned with it entry by entry.

    A file with scores that is there, of the same model, events and options, is left as it is, so that the same call
    goes on where an earlier one was killed.

    Parameters
    ----------
    bundle : folder of a bundle, or the address of a served model, ``http://host:8000/models/ttH``
    files : paths, globs, folders, ``path:tree``, text files of those, local or remote
    out : folder of the files with scores
    name : of the tree in them
    kind : ``TTree``, or ``RNTuple``, which ROOT can't attach to a TTree
    tree : name of the tree of events; by default the one that the model was trained on, or the only one
    fill : stands for the scores of events that are not selected
    cut : ``bundle`` selects what the training selected; ``None`` all events; else an expression
    observers : branches or expressions to write as well, a list or name → expression; by default the training's
    weights : name of a variation → the event's weight under it, an expression, written as ``weight_<name>``;
        ``nominal`` → the weight without one, ``weight``
    parts : also say which part of the training's data an event is in: 0, 1, 2 for train, val, test, else -1
    parameters : parameter of the network → its value, a number or an expression, whatever the files have
    workers : files that are worked on at a time; 0: as many as there are processors, at most 4
    patience, deadline : of reading remote files, see :class:`rootdata.options.read.ReadConfig`
    force : overwrite what other models left in the folder
    progress : show a bar

    Raises
    ------
    ConfigError, BundleError, FileError, BranchError, DataError
        In one sentence; what was finished before stays.
    """
    values.choice(kind, friend.KINDS, "kind")
    name, folder = friend.checked_name(name), friend.checked_folder(out, "out")
    if not files:
        raise ConfigError("files: got none; name files, globs, folders or texts of them")
    workers = values.natural(workers, "workers")
    read = parse_read({"num_workers": workers, "patience": patience, "deadline": deadline})
    wanted = FriendOptions(
        fill=friend.checked_fill(fill), cut=_cut(cut), observers=_named(observers, "observers"),
        weights=_by_name(weights, "weights", "{'up': 'genWeight * 1.1'}"), parts=values.flag(parts, "parts"),
        parameters=_by_name(parameters, "parameters", "{'mass': 500}"),
    )  # fmt: skip
    with contextlib.closing(open_scorer(bundle)) as scorer:
        columns = FriendColumns(scorer, wanted)
        locations = _inputs(find([files] if isinstance(files, str) else files, tree=tree, read=read), folder)
        jobs = [_Job(location=w, output=o) for w, o in zip(locations, outputs_of(locations, folder), strict=True)]
        origin: dict[str, Any] = {
            "model": scorer.name,
            "checksum": checksum_of(scorer.manifest),
            "graph": scorer.manifest.sha256,
        }
        origin |= {"options": {**wanted.to_dict(), **columns.of_the_bundle, "tree": name, "kind": kind}}
        states = states_of([job.location for job in jobs], read=read)
        with BlockReader(read, limit=read.threads) as reader, bar("predicting", show=progress) as report:
            work = _Work(
                reader=reader, columns=columns, origin=origin, name=name, kind=kind, report=report, force=force
            )  # fmt: skip
            waiting = [j for j, state in zip(jobs, states, strict=True) if not work.is_done(j, state)]
            work.run(waiting, threads=read.threads)
    return WrittenFriends(
        written=tuple(job.output for job in waiting), skipped=tuple(job.output for job in jobs if job not in waiting)
    )


def checksum_of(manifest: Manifest) -> str:
    """Return what tells a model from any other that gives other scores: of its graph, and of what feeds it."""
    plain = manifest.to_dict()
    decides = [manifest.sha256, plain["features"], plain["branches"], plain["outputs"], manifest.cuts]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _cut(cut: Any) -> str | None:
    return None if cut is None else values.text(cut, "cut")


def _named(given: Any, where: str) -> dict[str, str] | None:
    """Return expressions by name; those that are listed are called as they are written."""
    if given is None:
        return None
    table = given if isinstance(given, Mapping) else {text: text for text in values.names(given, where)}
    return {str(name): values.text(text, f"{where}.{name}") for name, text in table.items()}


def _by_name(given: Any, where: str, example: str) -> dict[str, str]:
    """Return numbers or expressions by name as expressions."""
    table = values.mapping(given or {}, where, example)
    return {
        str(name): values.text(value, f"{where}.{name}")
        if isinstance(value, str)
        else repr(values.number(value, f"{where}.{name}"))
        for name, value in table.items()
    }


def _inputs(found: Sequence[Location], out: Path) -> list[Location]:
    """Leave out what an earlier call wrote: a glob finds it where the scores lie beside the events."""
    ours = [w for w in found if w.path.endswith(f"{SUFFIX}.root") and not is_remote(w.path)]
    below = [w for w in ours if Path(w.path).resolve().is_relative_to(out.resolve())]
    written = {w for w in below if friend.origin_of(Path(w.path)) is not None}
    if len(written) == len(found):
        raise FileError(f"files: {found[0].path} holds scores, as all that was named; name the files of events")
    return [w for w in found if w not in written]


class _OtherEvents(Exception):  # noqa: N818 - reads as what it says
    """Scores are those of another file, or tree."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """Reads files, scores them and writes the scores.

    Parameters
    ----------
    reader : shared by the threads
    columns : what is made of a block
    origin : of the model, and the options
    name, kind : of the trees that are written
    report : told how far it got
    force : overwrite what other models left
    """

    reader: BlockReader
    columns: FriendColumns
    origin: Mapping[str, Any]
    name: str
    kind: str
    report: ProgressReport | None
    force: bool
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)

    def is_done(self, job: _Job, state: State) -> bool:
        """Tell whether the scores of a file are there already.

        Raises
        ------
        FileError
            Where another model's are, or something else.
        """
        if not os.path.exists(job.output):  # noqa: PTH110 - never raises: what can't be there is told when it is written
            return False
        found = friend.origin_of(job.output)
        if not self.force:
            friend.refuse_another(job.output, found, self.origin["checksum"])
        try:
            return (
                found is not None and found["checksum"] == self.origin["checksum"] and self._agrees(job, found, state)
            )
        except (KeyError, TypeError):  # of another version
            return False
        except _OtherEvents as error:
            if self.force:
                return False
            raise FileError(f"{job.output} exists and holds the scores of {error}; {friend.OVERWRITE}") from error

    def _agrees(self, job: _Job, found: Mapping[str, Any], state: State) -> bool:
        """Tell whether scores are of these events, as they are now, and of these options."""
        if found["file"] != place_of(job.location) or self._tree_of(job.location, found) != found["tree"]:
            raise _OtherEvents(f"{found['file']}:{found['tree']}")
        friends = tuple(Friend(*told) for told in found["friends"])
        now = state if not friends else state_of(dataclasses.replace(job.location, friends=friends))
        then = State(**found["state"])
        is_same = bool(now.size) and bool(then.size) and not now.differs_from(then)
        return is_same and bool(found["options"] == self.origin["options"])

    def _tree_of(self, location: Location, found: Mapping[str, Any]) -> str | None:
        """Name the tree that would be read; where none was named then either, it is the one that was read."""
        if location.tree is not None:
            return location.tree
        is_same = found.get("asked", found["tree"]) is None
        return found["tree"] if is_same else self._open(location)[1].location.tree

    def run(self, jobs: Sequence[_Job], *, threads: int) -> None:
        """Work on several files at a time; the first error ends all of it."""
        pool = ThreadPoolExecutor(threads, thread_name_prefix="rootdata-predict")
        try:
            futures = [pool.submit(self.score, job) for job in jobs]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            self.stop.set()
            pool.shutdown(cancel_futures=True)
        errors = [f.exception() for f in futures if not f.cancelled() and f.exception() is not None]
        for error in sorted(errors, key=lambda e: isinstance(e, CancelledError)):
            if error is not None:
                raise error

    def score(self, job: _Job) -> None:
        """Score one file."""
        made, file, blocks = self._open(job.location)
        state = self.reader.state_of(file.location)
        if state.differs_from(file.state):
            raise ChangedError(f"{file.location.path} was changed while it was read; run the same again")
        if self.report is not None:
            self.report.expect(file.entries)
        none = made(self.reader.read(file, made.branches, 0, 0), _block(file, 0, 0))
        types = {name: values.dtype for name, values in none.items()}
        origin = {**self.origin, **_described(job.location, file, state)}
        with friend.writing(job.output, types, origin=origin, tree=self.name, kind=self.kind) as writer:
            for start, stop in blocks:
                if self.stop.is_set():
                    raise CancelledError
                writer.write(made(self.reader.read(file, made.branches, start, stop), _block(file, start, stop)))
                if self.report is not None:
                    self.report.advance(stop - start)
            if state_of(file.location).differs_from(state):
                raise ChangedError(f"{file.location.path} was changed while it was read; run the same again")
            writer.flush()
            if job.output.exists() and not self.force:  # which somebody else may have written meanwhile
                friend.refuse_another(job.output, friend.origin_of(job.output), self.origin["checksum"])

    def _open(self, location: Location) -> tuple[FriendColumnsOfFile, KnownFile, list[tuple[int, int]]]:
        """Open a file, the tree that the model was trained on where it holds several."""
        look = functools.partial(_look, self.columns)
        try:
            return self.reader.use(location, look)
        except BranchError:
            known = None if location.tree is not None else self._trained_on(location)
            if known is None:
                raise
            return self.reader.use(dataclasses.replace(location, tree=known), look)

    def _trained_on(self, location: Location) -> str | None:
        chosen = self.columns.scorer.manifest.selection
        trees = chosen.trees if chosen is not None else ()

        def first(names: Sequence[str]) -> str | None:
            return next((tree for tree in trees if tree in names), None)

        held = [tree.name for tree in self.reader.look_into(location, leave=first).usable]
        return first(held) if len(held) > 1 else None


def _look(columns: FriendColumns, tree: Tree) -> tuple[FriendColumnsOfFile, KnownFile, list[tuple[int, int]]]:
    made = columns.of(tree)
    file = KnownFile(location=tree.location, uuid=tree.uuid, entries=tree.num_entries, state=tree.state)
    return made, file, blocks_of(tree, made.branches)


def _block(file: KnownFile, start: int, stop: int) -> Block:
    return Block(location=file.location, start=start, stop=stop, num_entries=file.entries)


def _described(asked: Location, file: KnownFile, state: State) -> dict[str, Any]:
    """Say which events the scores are of."""
    friends = [[f.path, f.tree, f.alias, f.written] for f in file.location.friends]
    told = {"file": place_of(asked), "tree": file.location.tree, "uuid": file.uuid, "entries": file.entries}
    return told | {"asked": asked.tree, "friends": friends, "state": {"size": state.size, "version": state.version}}
