"""What a model wants to be sent, prepared once for each model, and the checks that all formats share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from rootdata.bundle.manifest import BranchSpec, Manifest
from rootdata.jagged import Column, Ints, Jagged, offsets_of
from rootdata.missing import Sentinels, sentinels_of, with_sentinels
from rootdata.table import Table
from serve.codec.casting import Array, Locate, flattened, from_array, from_list, in_events, in_lists, in_rows
from serve.errors import InvalidEvents, InvalidModel, TooLarge
from serve.parsing import given
from serve.settings import Settings

_MOST = 64  # schemas that are kept of a model: clients choose which branches of cuts they send


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Flats:
    """The flat branches of one number type, which are cast together."""

    dtype: np.dtype[Any]
    names: tuple[str, ...]
    row: Any
    """From an event to its values, or to its one value."""

    def columns(self, events: Sequence[Mapping[str, Any]], *, first: int = 0) -> Iterable[tuple[str, Array]]:
        """Gather the values of events: pairs of a name and a column, (n,).

        Parameters
        ----------
        events : each with all the branches of these columns
        first : number of the first event, for errors
        """
        rows = list(map(self.row, events))
        if len(self.names) == 1:
            values: Sequence[Any] = rows
        else:
            values = rows[0] if len(rows) == 1 else flattened(rows)
        table = from_list(values, self.dtype, in_rows(self.names, first=first)).reshape(-1, len(self.names))
        return zip(self.names, table.T, strict=True)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Schema:
    """The branches of a model, by what they hold.

    Parameters
    ----------
    dtypes : branch name to its number type; every branch
    flats : flat branches by number type
    fixed : branch name to its width
    groups : name of the counts to the jagged branches that share them
    missing : numbers that stand for no value
    """

    specs: Mapping[str, BranchSpec]
    dtypes: Mapping[str, np.dtype[Any]]
    flats: tuple[Flats, ...]
    fixed: Mapping[str, int]
    groups: Mapping[str, tuple[str, ...]]
    missing: Sentinels = ()

    def cast(self, name: str, values: Array, locate: Locate) -> Array:
        """Cast numbers to the type of a branch; what stands for no value in theirs does so in that.

        Parameters
        ----------
        name : of the branch
        values, locate : as in :func:`serve.codec.casting.from_array`

        Raises
        ------
        InvalidEvents
            Naming the first value that does not fit.
        """
        made = from_array(values, self.dtypes[name], locate)
        return with_sentinels(made, values, sentinels_of(self.missing, name))

    def group_of(self, name: str) -> str | None:
        """Name the counts of a jagged branch; None for others."""
        spec = self.specs[name]
        return (spec.counts or name) if spec.kind == "jagged" else None


class Schemas:
    """What a model may be sent: its branches, and those that only the training's cuts need where a client sends them.

    Parameters
    ----------
    manifest : of the model
    """

    def __init__(self, manifest: Manifest) -> None:
        self._branches = manifest.branches
        self._missing: Sentinels = manifest.config().missing if manifest.features else ()
        self.of_cuts: Mapping[str, BranchSpec] = (
            {b.name: b for b in manifest.selection.branches} if manifest.selection is not None else {}
        )
        """Branches that may be sent, so that ``?explain`` can tell whether an event passes the cuts."""
        self.trees: tuple[str, ...] = manifest.selection.trees if manifest.selection is not None else ()
        """Names of the trees that the model was trained on, as far as is known."""
        self._made: dict[frozenset[str], Schema] = {}

    def of(self, sent: Iterable[str] = ()) -> Schema:
        """Return what decoding needs; made once for what clients send.

        Parameters
        ----------
        sent : names of what a client sends

        Raises
        ------
        InvalidEvents
            For a model of which only the tensors are known.
        InvalidModel
            Where the manifest names a number type that is none.
        """
        also = frozenset(self.of_cuts.keys() & set(sent)) if self.of_cuts else frozenset[str]()
        if also not in self._made:
            if len(self._made) >= _MOST:
                self._made.clear()
            self._made[also] = _prepared(
                (*self._branches, *(b for name, b in self.of_cuts.items() if name in also)), self._missing
            )
        return self._made[also]


def _prepared(branches: Sequence[BranchSpec], missing: Sentinels) -> Schema:
    if not branches:
        raise InvalidEvents(
            "the model takes tensors, not events: how branches become its inputs is not known; "
            "send the tensors to /v2/models/<name>/infer"
        )
    dtypes = {b.name: _number_type(b) for b in branches}
    flat = [b.name for b in branches if b.kind == "flat"]
    by_type = {dtypes[name]: tuple(n for n in flat if dtypes[n] == dtypes[name]) for name in flat}
    groups: dict[str, tuple[str, ...]] = {}
    for b in branches:
        if b.kind == "jagged":
            groups[b.counts or b.name] = (*groups.get(b.counts or b.name, ()), b.name)
    return Schema(
        specs={b.name: b for b in branches},
        dtypes=dtypes,
        flats=tuple(Flats(dtype=d, names=names, row=itemgetter(*names)) for d, names in by_type.items()),
        fixed={b.name: b.width for b in branches if b.kind == "fixed"},
        groups=groups,
        missing=missing,
    )


def _number_type(branch: BranchSpec) -> np.dtype[Any]:
    try:
        dtype = np.dtype(branch.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "biuf":
        raise InvalidModel(f"manifest: branch {branch.name!r} is of type {branch.dtype!r}; expected a number type")
    return dtype


def check_events(num_events: int, settings: Settings) -> None:
    """Check the number of events.

    Raises
    ------
    TooLarge
        Where it is above the limit.
    """
    if num_events > settings.max_events:
        raise TooLarge(
            f"got {num_events} events; a request may have {settings.max_events}; send several, or a ROOT file",
            field="events",
        )


def check_counts(counts: Ints, name: str, settings: Settings, *, first: int = 0) -> None:
    """Check the numbers of objects of some events.

    Parameters
    ----------
    counts : (n_events,)
    name : of the branch or collection
    settings : its ``max_objects`` is the limit
    first : number of the first event, for errors

    Raises
    ------
    TooLarge
        Where one is above the limit.
    InvalidEvents
        Where one is negative.
    """
    if not len(counts):
        return
    if int(counts.max()) > settings.max_objects:
        event = int(counts.argmax())
        raise TooLarge(
            f"{name!r} of event {first + event}: got {counts[event]} objects; an event may have {settings.max_objects}",
            field=name,
            event=first + event,
        )
    if int(counts.min()) < 0:
        event = int(counts.argmin())
        raise InvalidEvents(
            f"counts of {name!r} of event {first + event}: got {counts[event]}; expected 0 or more",
            field=name,
            event=first + event,
        )


def check_alike(counts: Ints, name: str, others: Ints, other: str, *, first: int = 0) -> None:
    """Check that two jagged branches have the same number of objects in each event.

    Parameters
    ----------
    counts : (n_events,) of the first branch of a collection
    name : of that branch
    others : (n_events,) of another one
    other : its name, which the error is about
    first : number of the first event, for errors

    Raises
    ------
    InvalidEvents
        Naming the first event where they have not.
    """
    if counts is others or np.array_equal(counts, others):
        return
    event = int(np.flatnonzero(counts != others)[0])
    raise InvalidEvents(
        f"{other!r} of event {first + event}: got {others[event]} objects; {name!r} has {counts[event]}; "
        "both describe the same objects and need the same number",
        field=other,
        event=first + event,
    )


def fixed_column(rows: Sequence[Any], name: str, schema: Schema, *, first: int = 0) -> Array:
    """Turn one list an event of a branch of fixed size into a column, (n, width).

    Parameters
    ----------
    rows : (n_events,) what the JSON has for the branch in each event
    name : of the branch
    schema : says how many values an event has, and of which type
    first : number of the first event, for errors

    Raises
    ------
    InvalidEvents
        For what is no list, or one of another length.
    """
    width = schema.fixed[name]
    check_lists(rows, name, first=first)
    if set(map(len, rows)) - {width}:
        event = next(i for i, row in enumerate(rows) if len(row) != width)
        raise InvalidEvents(
            f"{name!r} of event {first + event}: got {len(rows[event])} values; expected {width}",
            field=name,
            event=first + event,
        )
    locate = in_events(name, width=width, first=first)
    return from_list(flattened(rows), schema.dtypes[name], locate).reshape(-1, width)


def check_lists(rows: Sequence[Any], name: str, *, first: int = 0) -> None:
    """Check that a branch has a list in each event.

    Parameters
    ----------
    rows : (n_events,) what the JSON has for the branch in each event
    name : of the branch
    first : number of the first event, for errors

    Raises
    ------
    InvalidEvents
        Naming the first event where it has not.
    """
    if set(map(type, rows)) - {list}:
        event = next(i for i, row in enumerate(rows) if type(row) is not list)
        message = f"{name!r} of event {first + event}: got {given(rows[event])}; expected a list of numbers"
        raise InvalidEvents(message, field=name, event=first + event)


def conform(
    columns: Mapping[str, Column], num_events: int, schema: Schema, settings: Settings, *, first: int = 0
) -> Table:
    """Check and cast columns of numbers, as binary formats bring them, to what the model wants.

    Parameters
    ----------
    columns : branch name to a column of ``num_events`` events; exactly the branches of the schema
    num_events : length of the columns
    schema : says which types are wanted, and which branches share their counts
    settings : with the limit of objects
    first : number of the first event, for errors

    Raises
    ------
    InvalidEvents, TooLarge
        Naming the branch and the event that is wrong.
    """
    result: dict[str, Column] = {}
    for group in schema.flats:
        for name in group.names:
            values = _of_kind(columns[name], schema.specs[name])
            result[name] = schema.cast(name, values, in_events(name, first=first))
    for name, width in schema.fixed.items():
        values = _of_kind(columns[name], schema.specs[name])
        result[name] = schema.cast(name, values, in_events(name, width=width, first=first))
    for group_name, names in schema.groups.items():
        jagged = {name: _jagged(columns[name], name) for name in names}
        result |= _aligned(jagged, group_name, schema, settings, first)
    return Table(num_events=num_events, columns=result)


def _aligned(
    jagged: Mapping[str, Jagged], group: str, schema: Schema, settings: Settings, first: int
) -> dict[str, Column]:
    lead, *others = jagged
    offsets = jagged[lead].offsets
    check_counts(np.diff(offsets), group, settings, first=first)
    for other in others:
        if jagged[other].offsets is not offsets:
            check_alike(jagged[lead].counts, lead, jagged[other].counts, other, first=first)
    return {
        name: Jagged(offsets, schema.cast(name, column.content, in_lists(name, offsets, first=first)))
        for name, column in jagged.items()
    }


def _of_kind(column: Column, spec: BranchSpec) -> Array:
    """Check that a column is flat, or fixed and of the right width."""
    if isinstance(column, np.ndarray) and column.shape[1:] == ((spec.width,) if spec.kind == "fixed" else ()):
        return column
    raise wrong_kind(spec, kind_of_column(column))


def _jagged(column: Column, name: str) -> Jagged:
    if isinstance(column, Jagged):
        return column
    raise InvalidEvents(f"{name!r}: got {kind_of_column(column)}; expected a list an event, of any length", field=name)


def wrong_kind(spec: BranchSpec, got: str) -> InvalidEvents:
    """Make the error for a branch of another kind than the model wants."""
    kinds = {"flat": "one number an event", "fixed": f"{spec.width} numbers an event"}
    expected = kinds.get(spec.kind, "a list an event, of any length")
    return InvalidEvents(f"{spec.name!r}: got {got}; expected {expected}", field=spec.name)


def kind_of_column(column: Column) -> str:
    """Say in words what a column holds."""
    if isinstance(column, Jagged):
        return "a list an event"
    return "one number an event" if column.ndim == 1 else f"{column.shape[1]} numbers an event"


def jagged_group(
    lists: Mapping[str, Sequence[Any]], group: str, schema: Schema, settings: Settings, *, first: int = 0
) -> dict[str, Jagged]:
    """Turn one list an event of each branch of a group into jagged columns with common offsets.

    Parameters
    ----------
    lists : branch name to its list in each event
    group : name of the collection, for errors
    schema : says which types are wanted
    settings : with the limit of objects
    first : number of the first event, for errors

    Raises
    ------
    InvalidEvents, TooLarge
        For what is no list, for unequal lengths, for too many objects, for a value that does not fit.
    """
    lead, counts, offsets = "", np.zeros(0, np.int64), np.zeros(1, np.int64)
    result: dict[str, Jagged] = {}
    for name, rows in lists.items():
        check_lists(rows, name, first=first)
        own = np.fromiter(map(len, rows), np.int64, len(rows))
        if lead:
            check_alike(counts, lead, own, name, first=first)
        else:
            check_counts(own, group, settings, first=first)
            lead, counts, offsets = name, own, offsets_of(own)
        locate = in_lists(name, offsets, first=first)
        result[name] = Jagged(offsets, from_list(flattened(rows), schema.dtypes[name], locate))
    return result
