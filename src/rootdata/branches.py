"""What a branch holds: one number an event, a list of numbers, several, or what can't be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rootdata.causes import brief
from rootdata.errors import BranchError
from rootdata.jagged import Jagged
from rootdata.patience import is_passing

Kind = Literal["flat", "jagged", "fixed", "unusable"]


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """What a branch holds.

    Parameters
    ----------
    kind : ``flat`` (a number an event), ``jagged`` (a list), ``fixed`` (``width`` numbers an event) or ``unusable``
    dtype : numpy name of the number type, empty where unusable
    note : why it is unusable
    counter : name of the branch that holds the counts of a jagged branch, where the file says so
    """

    name: str
    kind: Kind
    dtype: str = ""
    width: int = 0
    note: str = ""
    counter: str | None = None


def describe_branch(name: str, branch: Any) -> Branch:
    """Describe a branch of a TTree, as uproot has it."""
    try:
        reading = branch.interpretation
        typename = str(branch.typename)
    except Exception as error:  # whatever an unknown streamer raises, it can't be read
        if is_passing(error):
            raise
        return Branch(name, "unusable", note=f"uproot can't interpret it ({brief(error)})")
    kind = type(reading).__name__
    if kind == "AsJagged" and _number_type(reading.content):
        counter = branch.member("fLeaves")[0].member("fLeafCount")
        counter_name = None if counter is None else str(counter.member("fName"))
        return Branch(name, "jagged", _number_type(reading.content), counter=counter_name)
    dtype = _number_type(reading)
    if not dtype:
        return Branch(name, "unusable", note=f"it holds {typename or kind}, neither a number nor a list of numbers")
    shape = getattr(reading, "inner_shape", None) or ()
    if len(shape) > 1:
        return Branch(name, "unusable", note=f"it holds nested arrays ({typename})")
    return Branch(name, "fixed" if shape else "flat", dtype, width=shape[0] if shape else 0)


def _number_type(reading: Any) -> str:
    dtype = getattr(reading, "numpy_dtype", None)
    if dtype is None:
        return ""
    base = np.dtype(dtype).base
    return base.newbyteorder("=").name if base.kind in "iufb" else ""


def _form(field: Any) -> Any:
    """Return the form of what reading a field gives, without reading."""
    import awkward as ak

    whole, path = field.to_akform()
    array = ak.Array(whole.length_zero_array())
    for step in (*(path or [field.name])[:-1], field.name):
        array = array[step]
    return array.layout.form


def describe_field(name: str, field: Any) -> Branch:
    """Describe a field of an RNTuple, as uproot has it."""
    import awkward as ak

    try:
        form = _form(field)
    except Exception as error:  # as above
        if is_passing(error):
            raise
        return Branch(name, "unusable", note=f"uproot can't interpret it ({brief(error)})")
    is_list = isinstance(form, (ak.forms.ListOffsetForm, ak.forms.ListForm))
    is_fixed = isinstance(form, ak.forms.RegularForm)
    inner = form.content if is_list or is_fixed else form
    if not isinstance(inner, ak.forms.NumpyForm) or inner.parameter("__array__") is not None or inner.inner_shape:
        return Branch(name, "unusable", note=f"it holds {field.typename or 'records'}, not numbers or lists of numbers")
    kind: Kind = "jagged" if is_list else "fixed" if is_fixed else "flat"
    return Branch(name, kind, inner.primitive, width=form.size if is_fixed else 0)


def to_column(array: Any, branch: Branch) -> npt.NDArray[Any] | Jagged:
    """Turn what uproot read of a branch into numbers (n,) or (n, width), or lists, in the byte order of the machine.

    Raises
    ------
    BranchError
        For a branch that can't be used.
    """
    import awkward as ak

    if branch.kind == "unusable":
        raise BranchError(f"branch {branch.name!r} can't be used: {branch.note}")
    if branch.kind == "jagged":
        return Jagged.from_awkward(array)
    layout = array.layout
    values = np.asarray(layout.data if isinstance(layout, ak.contents.NumpyArray) else ak.to_numpy(array))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def check_same_kinds(branches: Mapping[str, Branch], other: Mapping[str, Branch], *, first: str, path: str) -> None:
    """Raise where a branch is of another kind in this file than in the first one.

    Raises
    ------
    BranchError
        Naming both files, the branch and both kinds.
    """
    for name, branch in branches.items():
        if (branch.kind, branch.width) != (other[name].kind, other[name].width):
            raise BranchError(
                f"branch {name!r} is {other[name].kind} in {path} but {branch.kind} in {first}; "
                "the files of all samples must agree: leave the branch out, or make the files anew"
            )
