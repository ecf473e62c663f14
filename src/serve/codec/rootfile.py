"""Events from a ROOT file, block by block, and scores into one."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import uproot

from rootdata.causes import OF_THE_MACHINE, Cause, cause_of
from rootdata.errors import BranchError
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.formats import signatures
from rootdata.io.reader import BlockReader
from rootdata.io.retry import blamed
from rootdata.io.trees import Tree, blocks_of
from rootdata.location import KnownFile, Location
from rootdata.table import Table, cut
from serve.codec import schema
from serve.codec.schema import Schema, Schemas
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge
from serve.parsing import check_all_there
from serve.settings import Settings

TREE = "scores"
_OURS = OF_THE_MACHINE | {Cause.BUG, Cause.PERMISSION, Cause.DISK}  # whoever sent the file is not to blame for them
# Blocks are what baskets and clusters allow, some 8 MB; a file with one huge basket is no reason to run out of memory.
MAX_BLOCK_BYTES = 1_000_000_000

Floats = npt.NDArray[np.float32]


def tables(path: str | Path, schemas: Schemas, *, tree: str | None, settings: Settings) -> Iterator[Table]:
    """Read the events of a ROOT file in pieces; branches that the model does not need are left alone.

    Parameters
    ----------
    path : of a file on this machine
    schemas : the branches that the model takes
    tree : name of the tree; None for the one that the model was trained on, or else the only one
    settings : limits of what one event may hold; events are as many as they are

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming the tree, the branch and the event that is wrong.
    """
    wanted = schemas.of()
    with Path(path).open("rb") as content:  # whose name does not say that it is one
        why_not = signatures.why_not_root(content.read(signatures.LENGTH))
    if why_not:
        raise BadRequest(f"the file: {why_not}")
    try:
        with BlockReader(limit=1, follow=False) as reader:  # whoever sends a file shall not choose what is opened
            look = functools.partial(_look, wanted)
            try:
                file, blocks = reader.use(Location(str(path), tree), look)
            except BranchError:  # it holds several
                known = None if tree is not None else _trained_on(reader, path, schemas.trees)
                if known is None:
                    raise
                file, blocks = reader.use(Location(str(path), known), look)
            for start, stop in blocks:
                read = reader.read(file, list(wanted.specs), start, stop)
                block = schema.conform(read, stop - start, wanted, settings, first=start)
                for low in range(0, block.num_events, BLOCK_ENTRIES):
                    yield cut(block, low, min(low + BLOCK_ENTRIES, block.num_events))
    except ServeError:
        raise
    except BranchError as error:
        raise InvalidEvents(_public(error, path), field="tree") from error
    except Exception as error:
        if cause_of(error) in _OURS:
            raise
        raise BadRequest(_public(blamed(error, f"{path} can't be read"), path)) from error


def _trained_on(reader: BlockReader, path: str | Path, trees: Sequence[str]) -> str | None:
    """Return the first tree of a model's training that a file holds, too; none where it holds none of them."""

    def first(names: Sequence[str]) -> str | None:
        return next((tree for tree in trees if tree in names), None)

    return first([tree.name for tree in reader.look_into(Location(str(path)), leave=first).usable])


def _public(error: Exception, path: str | Path) -> str:
    """Say the same without the server's own path."""
    return str(error).replace(str(path), "the file").replace("tree=... or path:tree", "the option `tree`")


def _look(wanted: Schema, source: Tree) -> tuple[KnownFile, list[tuple[int, int]]]:
    """Check what an opened tree declares, before anything is allocated for it, and cut it into blocks."""
    names = list(wanted.specs)
    _check_branches(source, wanted)
    blocks = blocks_of(source, names)
    for start, stop in blocks:
        if not 0 <= source.nbytes(names, start, stop) <= MAX_BLOCK_BYTES:
            raise TooLarge(
                f"entries {start} to {stop} of tree {source.location.tree!r} can only be read at once, and take more "
                f"than {MAX_BLOCK_BYTES} bytes; write the file with smaller baskets or clusters"
            )
    file = KnownFile(location=source.location, uuid=source.uuid, entries=source.num_entries, state=source.state)
    return file, blocks


def _check_branches(source: Tree, wanted: Schema) -> None:
    for name, spec in wanted.specs.items():
        try:
            branch = source.describe(name)
        except BranchError:
            check_all_there(source.names(), [name])
            raise
        if branch.kind == "unusable":
            raise InvalidEvents(f"branch {name!r} can't be used: {branch.note}", field=name)
        if branch.kind != spec.kind or (spec.kind == "fixed" and branch.width != spec.width):
            kinds = {"flat": "one number an event", "fixed": f"{branch.width} numbers an event"}
            raise schema.wrong_kind(spec, kinds.get(branch.kind, "a list an event"))


class RootScoreWriter:
    """Writes scores into the tree ``scores`` of a new ROOT file, in constant memory; a context manager.

    Parameters
    ----------
    target : path, or a file open for bytes
    columns : names of the scores; their branches are called ``score_<name>``
    regressions : those of the columns that hold physical values; their branches are called ``predicted_<name>``
    """

    def __init__(self, target: Path | Any, columns: Sequence[str], *, regressions: Collection[str] = ()) -> None:
        self._names = [f"{'predicted' if name in regressions else 'score'}_{name}" for name in columns]
        # Scores look random to a compressor.
        self._file = uproot.recreate(target, compression=None)
        self._tree = self._file.mktree(TREE, dict.fromkeys(self._names, np.dtype(np.float32)))

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""
        if len(scores):
            self._tree.extend(dict(zip(self._names, np.ascontiguousarray(scores.T, np.float32), strict=True)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
