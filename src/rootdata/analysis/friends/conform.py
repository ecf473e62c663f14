"""Branches of a file, brought to the number types that a bundle takes: rounded at most, never changed silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.bundle.manifest import BranchSpec
from rootdata.errors import BranchError, DataError
from rootdata.events.evaluation import Block
from rootdata.io.trees import Tree
from rootdata.jagged import Column, Columns, Ints, Jagged
from rootdata.missing import Sentinels, sentinels_of, with_sentinels
from rootdata.table import Table, take


def check_branch(tree: Tree, spec: BranchSpec) -> None:
    """Check that an open tree has a branch, and one of its kind.

    Raises
    ------
    BranchError
        Naming file, tree and branch.
    """
    branch = tree.describe(spec.name)
    where = f"(tree {tree.location.tree!r}, {tree.location.path})"
    if branch.kind == "unusable":
        raise BranchError(f"branch {spec.name!r} can't be used: {branch.note} {where}")
    if branch.kind != spec.kind or (spec.kind == "fixed" and branch.width != spec.width):
        got, expected = _kind(branch.kind, branch.width), _kind(spec.kind, spec.width)
        raise BranchError(f"branch {spec.name!r}: got {got}; the bundle takes {expected} {where}")


def _kind(kind: str, width: int) -> str:
    return {"flat": "one number an event", "fixed": f"{width} numbers an event"}.get(kind, "a list an event")


def conform(raw: Columns, specs: Sequence[BranchSpec], block: Block, rows: Ints, *, missing: Sentinels = ()) -> Table:
    """Take the branches of a bundle out of those of a block, each of the number type that it takes.

    Parameters
    ----------
    raw : branch name to column
    specs : of the bundle
    block : where the columns come from
    rows : the events of the block that are wanted, by number, rising
    missing : numbers that stand for no value; each is one in any type

    Raises
    ------
    DataError
        For a value that the type can't hold; names the entry.
    """
    whole = Table(num_events=block.stop - block.start, columns={spec.name: raw[spec.name] for spec in specs})
    chosen = whole if len(rows) == whole.num_events else take(whole, rows)
    entries = block.start + rows
    columns = {s.name: _column(chosen.columns[s.name], s, block, entries, sentinels_of(missing, s.name)) for s in specs}
    return Table(num_events=len(rows), columns=columns)


def _column(column: Column, spec: BranchSpec, block: Block, entries: Ints, sentinels: Sequence[float]) -> Column:
    dtype = np.dtype(spec.dtype)
    if isinstance(column, Jagged):
        content, bad = _cast(column.content, dtype)
        if bad is not None:
            event = int(np.searchsorted(column.offsets, bad, side="right")) - 1
            raise _unfit(column.content[bad], spec, block, entries[event])
        if content is column.content:
            return column
        return Jagged(column.offsets, with_sentinels(content, column.content, sentinels), column.valid)
    values, bad = _cast(column, dtype)
    if bad is not None:
        raise _unfit(column.reshape(-1)[bad], spec, block, entries[bad // max(1, int(np.prod(column.shape[1:])))])
    return with_sentinels(values, column, sentinels)


def _cast(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> tuple[npt.NDArray[Any], int | None]:
    """Cast numbers, and find the first that is changed by more than rounding."""
    if values.dtype == dtype:
        return values, None
    with np.errstate(all="ignore"):
        made = values.astype(dtype)
        wrong = np.isfinite(values) & ~np.isfinite(made) if dtype.kind == "f" else made != values
    bad = np.flatnonzero(wrong)
    return made, int(bad[0]) if len(bad) else None


def _unfit(value: Any, spec: BranchSpec, block: Block, entry: int) -> DataError:
    return DataError(
        f"branch {spec.name!r} is {value} at entry {entry} of {block.location.path} (tree "
        f"{block.location.tree!r}); the bundle takes {spec.dtype}, which can't hold that"
    )
