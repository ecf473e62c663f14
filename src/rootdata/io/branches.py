"""What a branch holds: one number an event, a list of numbers, several, or what can't be used."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rootdata.errors import BranchError, nearest
from rootdata.expressions.nested import FLATTEN, NUM
from rootdata.io.formats.object_lists import object_list_of
from rootdata.io.formats.parts import MOST_PARTS, BranchPart, is_record, parts_of
from rootdata.io.guard import Unusable, guarded

BranchKind = Literal["flat", "jagged", "fixed", "unusable"]

# Of Double32_t and Float16_t (TStreamerElement.cxx of ROOT, GetRange): the types of members that may have a range, of
# arrays 20 or 40 more, and the bounds that ROOT and uproot understand alike.
_FEW_BITS, _OF_ARRAYS = {9, 19}, 20
_BRACKETS = re.compile(r"\[([^\]]*)\]")
_BOUND = r"[-]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|twopi|2\*pi|pi(/[24])?)"
NUMBERS = "the number of the entry in its tree"
_STREAMED = 4  # role of a field of an RNTuple that has no parts
_WIDTH = 60  # of a type that is shown
_RANGE = re.compile(rf"{_BOUND},{_BOUND}(,\d+)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """What a branch holds.

    Parameters
    ----------
    kind : ``flat`` (a number an event), ``jagged`` (a list), ``fixed`` (``width`` numbers an event) or ``unusable``
    dtype : numpy name of the number type, empty where unusable
    note : why it is unusable, or what is strange about it
    counter : name of the branch that holds the counts of a jagged branch, where the file says so
    friend : what the friend tree is called that it is of
    """

    name: str
    kind: BranchKind
    dtype: str = ""
    width: int = 0
    note: str = ""
    counter: str | None = None
    friend: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """How uproot reads a branch.

    Parameters
    ----------
    kind : name of its interpretation
    typename : of what an entry holds
    dtype : of the numbers, where there are any
    shape : of the numbers of an entry, or of an object
    counter : of the objects, by name
    range : that the file declares for numbers of few bits, as ``0,100,16``
    has_range : whether uproot knows of one
    parts : the columns that it is divided into, where an entry or an object holds several numbers
    is_nested : whether entries hold lists of lists
    """

    kind: str
    typename: str
    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    counter: str | None
    range: str | None
    has_range: bool
    parts: tuple[BranchPart, ...]
    is_nested: bool = False


def reading_of(branch: Any) -> Reading | Unusable:
    """Say how uproot reads a branch of a TTree."""
    return guarded(lambda: _reading_of(branch))


def columns_in(reading: Reading | Unusable) -> tuple[BranchPart, ...]:
    """Return the columns that a branch is divided into; none where it is one, or can't be used."""
    if isinstance(reading, Unusable) or len(reading.parts) > MOST_PARTS or _why_not_numbers(reading):
        return ()
    return reading.parts


def members_of(reading: Reading | Unusable, how: str) -> dict[str, BranchPart]:
    """Return what is made of members of lists of lists, by what stands behind the branch's name.

    Parameters
    ----------
    reading : of the branch
    how : ``flatten`` or ``num``
    """
    parts = reading.parts if isinstance(reading, Reading) and reading.is_nested else ()
    return {part.suffix: dataclasses.replace(part, how=how) for part in parts}


def describe_branch(name: str, branch: Any, reading: Reading | Unusable) -> Branch:
    """Describe a branch of a TTree, or what the columns have in common that it is divided into.

    Parameters
    ----------
    name : that it was asked for by
    branch : of uproot
    reading : of it, as :func:`reading_of` says
    """
    if _is_group(branch) and (isinstance(reading, Unusable) or reading.kind == "AsGrouped"):
        return Branch(name, "unusable", note="it holds no numbers itself, only other branches")
    if isinstance(reading, Unusable):
        return Branch(name, "unusable", note=f"uproot can't interpret {_declared(branch)} ({reading.why})")
    why = _why_not_numbers(reading)
    if why:
        return Branch(name, "unusable", note=why)
    if reading.dtype is None:
        return Branch(name, "jagged" if reading.kind == "AsJagged" else "flat", counter=reading.counter)
    dtype = reading.dtype.newbyteorder("=").name
    if reading.kind == "AsJagged":
        return Branch(name, "jagged", dtype, counter=reading.counter)
    return Branch(name, "fixed" if reading.shape else "flat", dtype, width=reading.shape[0] if reading.shape else 0)


def _reading_of(branch: Any) -> Reading:
    reading = branch.interpretation
    if isinstance(reading, Exception):  # uproot returns it, and raises it where it is used
        raise reading
    kind = type(reading).__name__
    if (lists := object_list_of(reading)) is not None:
        return Reading(
            kind="AsJagged",
            typename=str(branch.typename),
            dtype=lists.dtype,
            shape=(),
            counter=None,
            range=None,
            has_range=False,
            parts=parts_of(lists.dtype, is_list=True) if lists.dtype.names else (),
            is_nested=lists.is_nested,
        )
    is_list = kind == "AsJagged"
    content = reading.content if is_list else reading
    dtype = None if kind == "AsGrouped" else np.dtype(content.numpy_dtype).base
    is_number = dtype is not None and dtype.kind in "iufb"
    has_range = is_number and hasattr(content, "to_dims")
    shape = tuple(content.to_dims if has_range else content.inner_shape if is_number else ())
    stored = getattr(content, "from_dtype", None) if kind != "AsGrouped" else None
    if is_number:
        stored = np.dtype((dtype, shape))
    elif stored is None or not is_record(stored):
        stored = np.dtype(np.void)
    return Reading(
        kind=kind,
        typename=str(branch.typename or kind),
        dtype=dtype if is_number else None,
        shape=shape,
        counter=_counter_of(branch) if is_list else None,
        range=_range_of(branch) if is_number else None,
        has_range=has_range,
        parts=parts_of(stored, is_list=is_list),
    )


def _counter_of(branch: Any) -> str | None:
    counter = branch.member("fLeaves")[0].member("fLeafCount")
    return None if counter is None else str(counter.member("fName"))


def _range_of(branch: Any) -> str | None:
    """Return the range that a ``Double32_t`` or ``Float16_t`` has: in the title of the leaf, or of the member."""
    leaf = branch.member("fLeaves")[0]
    if leaf.classname in {"TLeafD32", "TLeafF16"}:
        title = leaf.member("fTitle")
    elif leaf.classname == "TLeafElement" and leaf.member("fType") % _OF_ARRAYS in _FEW_BITS:
        title = getattr(branch.streamer, "title", "")
    else:
        return None
    return next((text.replace(" ", "") for text in _BRACKETS.findall(title) if "," in text), None)


def _why_not_numbers(reading: Reading) -> str:
    """Say why a branch can't be used; nothing where it, or each of its parts, can."""
    if len(reading.parts) > MOST_PARTS:
        return f"it holds {_cut(reading.typename)}, more than {MOST_PARTS} columns"
    if reading.is_nested:
        return why_nested(reading.typename, [part.suffix for part in reading.parts])
    if reading.dtype is None and not reading.parts:
        return f"it holds {reading.typename}, neither a number nor a list of numbers"
    if reading.range and not (reading.has_range and _RANGE.fullmatch(reading.range)):
        return f"its numbers are stored in the range [{reading.range}], which uproot takes for another"
    return ""


def why_nested(typename: str, members: Sequence[str] = ()) -> str:
    """Say why lists of lists are no column, and what can be made of them.

    Parameters
    ----------
    typename : of what an entry holds
    members : what stands behind the name of the branch for each member of the objects, where they have some
    """
    of = f"its name and {' or '.join(members)}" if members else "its name"
    return f"it holds lists of lists ({typename}): flatten(...) of {of} joins them, num(...) counts them"


def _is_group(branch: Any) -> bool:
    below = guarded(lambda: len(branch.branches))
    return isinstance(below, int) and below > 0


def _declared(branch: Any) -> str:
    """Return what the file says that a branch holds: a class, or ``v[n]/f``."""
    title = guarded(lambda: str(branch.member("fClassName", none_if_missing=True) or branch.member("fTitle")))
    return "it" if isinstance(title, Unusable) or not title.strip() else _cut(title.splitlines()[0])


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def divided(name: str, columns: Sequence[str]) -> Branch:
    """Describe a branch that is read by its columns alone."""
    shown = columns if len(columns) <= 3 else (columns[0], "...", columns[-1])
    note = f"it holds {len(columns)} columns, which have names of their own: {', '.join(shown)}"
    return Branch(name, "unusable", note=f"{note} (in expressions in backticks)")


def of_lists(whole: Branch, how: str, dtype: str, *, is_nested: bool) -> Branch:
    """Describe what ``flatten`` or ``num`` makes of a branch.

    Parameters
    ----------
    whole : the branch, under the name of what is made of it
    how : the function
    dtype : of its numbers
    is_nested : whether it holds lists of lists
    """
    if how == NUM and whole.kind == "jagged":
        return Branch(whole.name, "jagged" if is_nested else "flat", "int64")
    if is_nested:
        return Branch(whole.name, "jagged", dtype)
    return Branch(whole.name, "unusable", note="it is made of no lists" + (" of lists" if how == FLATTEN else ""))


def why_no_numbers(field: Any) -> str:
    """Say what a field of an RNTuple holds that is neither numbers nor lists of numbers."""
    if guarded(lambda: int(field.record.struct_role)) == _STREAMED:
        return f"it holds {type_of(field)}, written by ROOT as a whole instead of by its members"
    return f"it holds {type_of(field)}, not numbers or lists of numbers"


def type_of(field: Any) -> str:
    """Return the type of a field of an RNTuple, as the file spells it."""
    typename = guarded(lambda: str(field.typename or ""))
    return "records" if isinstance(typename, Unusable) or not typename else typename


def unknown_branch(name: str, known: Iterable[str], *, where: str) -> BranchError:
    """Make the error for a name that no branch has.

    Parameters
    ----------
    name : that was asked for
    known : names that there are
    where : the file, and the tree
    """
    remedy = "check the names in features, derived columns, cuts and other expressions"
    return BranchError(f"branch {name!r} not found; {nearest(name, known)} ({where}); {remedy}")


def unusable_branch(name: str, why: str, *, where: str) -> BranchError:
    """Make the error for a branch that holds no numbers.

    Parameters
    ----------
    name : that was asked for
    why : it can't be used
    where : the file, and the tree
    """
    return BranchError(
        f"branch {name!r} can't be used: {why} ({where}); remove it from features, derived columns and cuts"
    )


def check_same_kinds(branches: Mapping[str, Branch], other: Mapping[str, Branch], *, first: str, path: str) -> None:
    """Raise where a branch is of another kind in this file than in the first one.

    Parameters
    ----------
    branches : name to what the first file holds
    other : the same of this file; has at least these names
    first : path of the first file, for the error
    path : of this file, for the error

    Raises
    ------
    BranchError
        Naming both files, the branch and both kinds.
    """
    for name, branch in branches.items():
        if NUMBERS in {branch.note, other[name].note} and branch.note != other[name].note:
            has, lacks = (path, first) if branch.note == NUMBERS else (first, path)
            raise BranchError(
                f"{name!r} is a branch in {has}, but {lacks} has none, where it would be {NUMBERS}: leave it out, or "
                "make the files anew"
            )
        if (branch.kind, branch.width) != (other[name].kind, other[name].width):
            raise BranchError(
                f"branch {name!r} is {other[name].kind} in {path} but {branch.kind} in {first}; "
                "the files of all samples must agree: leave the branch out, or make the files anew"
            )
