"""What the columns of an Arrow schema hold, told as branches, and how their arrays become columns.

The fields of a record are columns of their own, ``jets.pt``, whether an event has one record or a list of them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import DataError
from rootdata.io.branches import Branch
from rootdata.jagged import Column, Columns, Jagged, offsets_of, same_offsets

_WIDTH = 60  # of a type that is shown
_NO_NUMBERS = "numbers, lists of numbers, and records of these can be used"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A column of numbers, or one that can't be used.

    Parameters
    ----------
    name : fields that lead to it, joined by points
    path : the same fields; the first is that of the table
    branch : what it holds
    numbers : of the columns that it consists of where records and lists are taken apart, as Parquet counts them
    """

    name: str
    path: tuple[str, ...]
    branch: Branch
    numbers: tuple[int, ...]


def leaves_of(schema: Any) -> dict[str, Leaf]:
    """Return the leaves of an Arrow schema by their names.

    Parameters
    ----------
    schema : of pyarrow
    """
    found: list[Leaf] = []
    number = 0
    for field in schema:
        found += _leaves((field.name,), field.type, _Around(), number)
        number += _count(field.type)
    times = Counter(leaf.name for leaf in found)
    known: dict[str, Leaf] = {}
    for leaf in found:
        if times[leaf.name] > 1:
            branch = Branch(leaf.name, "unusable", note=f"{times[leaf.name]} columns have this name")
            leaf = dataclasses.replace(leaf, branch=branch)
        known.setdefault(leaf.name, leaf)
    return known


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Around:
    """The list that a column is in: whether there is one, and how long it is where all are of one length."""

    is_list: bool = False
    width: int = 0


def _leaves(path: tuple[str, ...], kind: Any, around: _Around, number: int) -> Iterator[Leaf]:
    import pyarrow.types as pt

    kind = _stored(kind)
    if pt.is_struct(kind) and kind.num_fields:
        for i in range(kind.num_fields):
            inner = kind.field(i)
            yield from _leaves((*path, inner.name), inner.type, around, number)
            number += _count(inner.type)
        return
    is_around = around.is_list or around.width
    if _is_list(kind) and not is_around:
        yield from _leaves(path, kind.value_type, _Around(is_list=True), number)
    elif pt.is_fixed_size_list(kind) and not is_around and kind.list_size:
        yield from _leaves(path, kind.value_type, _Around(width=kind.list_size), number)
    else:
        numbers = tuple(range(number, number + _count(kind)))
        name = ".".join(path)
        yield Leaf(name=name, path=path, branch=_branch(name, kind, around), numbers=numbers)


def _branch(name: str, kind: Any, around: _Around) -> Branch:
    dtype = _dtype(kind)
    if dtype is None:
        shown = _shown(kind)
        where = "lists of " if around.is_list else f"arrays of {around.width} " if around.width else ""
        return Branch(name, "unusable", note=f"it holds {where}{shown}; {_NO_NUMBERS}")
    if around.is_list:
        return Branch(name, "jagged", dtype.name)
    return Branch(name, "fixed" if around.width else "flat", dtype.name, width=around.width)


def _shown(kind: Any) -> str:
    import pyarrow.types as pt

    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind):
        return "text"
    return str(kind) if len(str(kind)) <= _WIDTH else f"{str(kind)[:_WIDTH]}..."


def _dtype(kind: Any) -> np.dtype[Any] | None:
    """Return the number type of a column; ``None`` where it holds something else."""
    import pyarrow.types as pt

    if pt.is_boolean(kind):
        return np.dtype(np.bool_)
    if pt.is_float16(kind):  # nothing computes with so few bits; every value has its like
        return np.dtype(np.float32)
    if pt.is_integer(kind) or pt.is_floating(kind):
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found
    return None


def _stored(kind: Any) -> Any:
    """Return the type of the values themselves, behind a dictionary of them and what a library makes of them."""
    import pyarrow as pa
    import pyarrow.types as pt

    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pt.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _is_list(kind: Any) -> bool:
    import pyarrow.types as pt

    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_list_view(kind) or pt.is_large_list_view(kind))


def _count(kind: Any) -> int:
    """Count the columns of numbers or texts that a column consists of, as Parquet counts them."""
    import pyarrow.types as pt

    kind = _stored(kind)
    if pt.is_struct(kind):
        return sum(_count(kind.field(i).type) for i in range(kind.num_fields))
    if pt.is_map(kind):
        return _count(kind.key_type) + _count(kind.item_type)
    if _is_list(kind) or pt.is_fixed_size_list(kind):
        return _count(kind.value_type)
    return 1


# Arrays


def columns_of(batch: Any, leaves: Mapping[str, Leaf]) -> Columns:
    """Take the values of leaves out of a batch.

    Parameters
    ----------
    batch : a record batch of pyarrow that has the columns of the leaves
    leaves : by the names that the columns shall have

    Raises
    ------
    DataError
        For an integer or a truth value that is null.
    """
    arrays = {name: batch.column(batch.schema.get_field_index(leaf.path[0])) for name, leaf in leaves.items()}
    return {name: _column(arrays[name], leaf) for name, leaf in leaves.items()}


def no_events(leaf: Leaf) -> Column:
    """Return the column of no events."""
    content = np.empty(0, leaf.branch.dtype)
    if leaf.branch.kind == "jagged":
        return Jagged(np.zeros(1, np.int64), content)
    return content.reshape(0, leaf.branch.width) if leaf.branch.kind == "fixed" else content


def sharing(columns: Columns) -> Columns:
    """Let columns of equal lists have the same offsets, which makes comparing them cheap."""
    known: list[Jagged] = []
    for name, column in columns.items():
        if isinstance(column, Jagged):
            like = next((k for k in known if same_offsets(k.offsets, column.offsets)), None)
            if like is None:
                known.append(column)
            else:
                columns[name] = Jagged(like.offsets, column.content)
    return columns


def _column(array: Any, leaf: Leaf) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as pt

    offsets: npt.NDArray[np.int64] | None = None
    absent: npt.NDArray[np.bool_] | None = None
    fields = list(leaf.path[1:])
    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            array = array.storage
        elif pt.is_dictionary(kind):
            array = array.dictionary_decode()
        elif pt.is_struct(kind):
            array = pc.struct_field(array, [kind.get_field_index(fields.pop(0))])
        elif _is_list(kind):
            offsets = offsets_of(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False))
            array = array.flatten()
        elif pt.is_fixed_size_list(kind):
            size = kind.list_size
            if array.null_count:
                absent = np.repeat(array.is_null().to_numpy(zero_copy_only=False), size)
            array = array.values.slice(array.offset * size, len(array) * size)
        else:
            break
    values = _numbers(array, absent, leaf)
    if offsets is not None:
        return Jagged(offsets, values)
    return values.reshape(-1, leaf.branch.width) if leaf.branch.kind == "fixed" else values


def _numbers(array: Any, absent: npt.NDArray[np.bool_] | None, leaf: Leaf) -> npt.NDArray[Any]:
    dtype = np.dtype(leaf.branch.dtype)
    if array.null_count:
        own = array.is_null().to_numpy(zero_copy_only=False)
        absent = own if absent is None else absent | own
    if dtype.kind != "f" and absent is not None and absent.any():
        kind = "a truth value" if dtype.kind == "b" else "an integer"
        raise DataError(
            f"column {leaf.name!r} holds {int(absent.sum()):,} nulls, and {kind} can't say that it has no value; write "
            "it as real numbers, or with a number in their place that `missing` names"
        )
    if dtype.kind != "f" or absent is None:
        return np.array(array.to_numpy(zero_copy_only=False), dtype)
    values = np.array(array.to_numpy(zero_copy_only=False), dtype)
    values[absent] = np.nan
    return values


def paths_of(leaves: Sequence[Leaf]) -> list[str]:
    """Return the columns of the table that leaves are in, each once."""
    return list(dict.fromkeys(leaf.path[0] for leaf in leaves))
