"""From the branches of some events to the tensors of an exported graph, as in training but for the scaling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.bundle.manifest import BranchSpec, Manifest, Range, Selection, TensorSpec
from rootdata.errors import BundleError, RootDataError
from rootdata.events import needs, selection
from rootdata.events.evaluation import Block
from rootdata.events.selection import Objects
from rootdata.expressions.objects import Flat
from rootdata.jagged import Column, Ints, Jagged, offsets_of
from rootdata.location import Location
from rootdata.missing import Bools, as_real, find_missing, values_of
from rootdata.options.columns import MOST
from rootdata.table import Table

Tensors = dict[str, npt.NDArray[Any]]
SENT = "the events that were sent"  # what they are called in errors, where nobody says better


def table_of(manifest: Manifest, columns: Mapping[str, Sequence[Any]]) -> Table:
    """Make a table of lists, as a manifest's parity sample holds them.

    Parameters
    ----------
    manifest : names the branches and their types
    columns : branch name to a number, or a list of numbers, for every event; ``None`` for NaN

    Raises
    ------
    BundleError
        For a branch that is absent, or values that its type can't hold.
    """
    made: dict[str, Column] = {}
    for branch in manifest.branches:
        if branch.name not in columns:
            raise BundleError(f"branch {branch.name!r} is missing")
        try:
            made[branch.name] = _column(columns[branch.name], branch)
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"branch {branch.name!r}: {error}") from error
    num_events = {name: len(column) for name, column in made.items()}
    if len(set(num_events.values())) > 1:
        raise BundleError(f"the branches have different numbers of events: {num_events}")
    return Table(num_events=next(iter(num_events.values()), 0), columns=made)


def _column(values: Sequence[Any], branch: BranchSpec) -> Column:
    if branch.kind == "flat":
        return _numbers(values, branch.dtype)
    content = _numbers([v for event in values for v in event], branch.dtype)
    counts = np.array([len(event) for event in values], np.int64)
    if branch.kind == "jagged":
        return Jagged(offsets_of(counts), content)
    if (counts != branch.width).any():
        raise ValueError(f"every event has {branch.width} numbers")
    return content.reshape(-1, branch.width)


def _numbers(values: Sequence[Any], dtype: str) -> npt.NDArray[Any]:
    """Make an array of numbers; nothing but rounding may change them."""
    kind = np.dtype(dtype).kind
    allowed = (float, int, type(None)) if kind == "f" else (bool,) if kind == "b" else (int,)
    for value in values:
        if type(value) not in allowed:  # a bool is an int for isinstance
            raise TypeError(f"got {value!r:.80}; expected {dtype}")
    return np.array(values, dtype)


def lists_of(table: Table) -> dict[str, list[Any]]:
    """Turn a table into what :func:`table_of` takes, NaN and infinities into ``None``."""
    return {name: _lists(column) for name, column in table.columns.items()}


def _lists(column: Column) -> list[Any]:
    if isinstance(column, Jagged):
        content = _lists(column.content)
        return [content[a:b] for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        plain = column.astype(object)
        plain[~np.isfinite(column)] = None
        return list(plain.tolist())
    return list(column.tolist())


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RawFeatures:
    """The features of some events, not scaled.

    Parameters
    ----------
    flat : feature name to (n,)
    objects : collection name to its objects, cut and sorted, not yet truncated
    """

    num_events: int
    flat: Mapping[str, Flat]
    objects: Mapping[str, Objects]


class Assembler:
    """Makes the tensors of one model's graph.

    Parameters
    ----------
    manifest : of a model that takes events

    Raises
    ------
    BundleError
        For one of which the branches do not give the inputs.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._config = manifest.config()
        self._cuts = cut_groups(manifest.selection)
        self._inputs = manifest.inputs
        self._ranges = manifest.ranges
        self._lengths = {c.name: MOST if c.length == "auto" else c.length for c in self._config.jagged}
        self._is_fixed = {t.collection: isinstance(t.shape[-1], int) for t in manifest.inputs}
        for name, length in self._lengths.items():
            if length == MOST and self._is_fixed.get(name, True):
                raise BundleError(
                    f"manifest: features.jagged.{name}: its length must be a number, as its inputs have one"
                )
        self._check(manifest)

    def _check(self, manifest: Manifest) -> None:
        """Try it on no events, so that a manifest that contradicts itself is refused here."""
        try:
            made = self(table_of(manifest, {branch.name: [] for branch in manifest.branches}))
        except (RootDataError, LookupError, TypeError, ValueError) as error:
            raise BundleError(f"manifest: its inputs can't be made of its branches: {error}") from error
        for spec in manifest.inputs:
            got, declared = made[spec.name].shape, spec.shape
            if len(got) != len(declared) or any(
                isinstance(n, int) and n != m for n, m in zip(declared[1:], got[1:], strict=True)
            ):
                raise BundleError(f"manifest: input {spec.name!r} is declared as {declared}, its features give {got}")

    def __call__(self, table: Table) -> Tensors:
        """Make the tensors of some events; collections as wide as the graph and these events need."""
        return self.tensors(self.features(table))

    def features(self, table: Table, *, where: str = SENT) -> RawFeatures:
        """Compute derived columns, cut and sort objects.

        Parameters
        ----------
        table : the branches of some events
        where : what they come from, for errors

        Raises
        ------
        DataError, ExpressionError
            For columns that do not fit together.
        """
        flat, objects = selection.features(self._config, table.columns, num_events=table.num_events, where=where)
        return RawFeatures(num_events=table.num_events, flat=flat, objects=objects)

    def widths(self, features: RawFeatures) -> tuple[int, ...]:
        """Say how many objects of each collection the tensors need; events of the same widths can be joined."""
        return tuple(self._width(name, objects) for name, objects in features.objects.items())

    def tensors(self, features: RawFeatures) -> Tensors:
        """Lay features out as the graph takes them.

        Returns
        -------
        input name to its array, (events, features), (events, features, objects) or, for a mask, (events, objects)
        """
        made: Tensors = {}
        slots = {n: _Slots.of(o.offsets, self._width(n, o)) for n, o in features.objects.items()}
        for spec in self._inputs:
            if spec.collection is None:
                made[spec.name] = _flat(spec, features)
            elif spec.is_mask:
                made[spec.name] = slots[spec.collection].real.astype(np.float32)
            else:
                made[spec.name] = _padded(spec, features.objects[spec.collection], slots[spec.collection])
        return made

    def _width(self, collection: str, objects: Objects) -> int:
        limit = self._lengths[collection]
        if self._is_fixed.get(collection, True):
            return limit
        longest = int(np.diff(objects.offsets).max(initial=1))
        return min(limit, 1 << (max(longest, 1) - 1).bit_length())  # few different widths: more events can be joined

    def explain(self, features: RawFeatures, table: Table | None = None) -> list[dict[str, Any]]:
        """Say of each event what the model has not seen in training, or does not get to see.

        Parameters
        ----------
        features : of some events, before padding and scaling
        table : the branches of these events, those of the cuts among them, as far as they are known

        Returns
        -------
        One dict an event: ``outside`` (feature to its value and the training range), ``truncated`` (collection to the
        number of objects, and how many are kept) and ``missing`` (features without a value); with a table also
        ``cuts``, what keeps the event out of the training; empty where all is well. Without ``cuts`` it is not known,
        as of older bundles, what the cuts were.
        """
        told: list[dict[str, Any]] = [
            {"outside": {}, "truncated": {}, "missing": []} for _ in range(features.num_events)
        ]
        for name, values in features.flat.items():
            for event, finding in self._findings(name, values):
                _tell(told[event], name, finding)
        for collection, objects in features.objects.items():
            counts, limit = np.diff(objects.offsets), self._lengths[collection]
            for event in np.flatnonzero(counts > limit).tolist():
                told[event]["truncated"][collection] = {"objects": int(counts[event]), "kept": limit}
            owner = np.repeat(np.arange(len(counts)), counts)
            position = _positions(objects.offsets)
            for name, values in objects.columns.items():
                for at, finding in self._findings(name, values):
                    if position[at] < limit:
                        _tell(told[owner[at]], f"{name}[{position[at]}]", finding)
        if table is not None and self._cuts is not None:
            for findings in told:
                findings["cuts"] = []
            for cuts in self._cuts:
                for number, sentence in self._failures(cuts, table):
                    told[number]["cuts"].append(sentence)
        return told

    def _failures(self, cuts: Sequence[str], table: Table) -> Iterator[tuple[int, str]]:
        """Find the events that pass none of these cuts, as far as that is known, with a sentence for each."""
        words = "the training's cut " if len(cuts) == 1 else "the training's cut of every sample, "
        words += " and ".join(map(repr, cuts))
        passes, unknown = np.zeros(table.num_events, bool), ""
        sent = Block(location=Location(SENT), start=0, stop=table.num_events, num_entries=table.num_events)
        for cut in cuts:
            absent = [name for name in needs.branches_of(cut, self._config) if name not in table.columns]
            if absent:
                unknown = f"{absent[0]!r} was not sent"
                continue
            try:
                passes |= selection.passes(cut, self._config, table.columns, block=sent)
            except RootDataError as error:
                unknown = str(error).splitlines()[0]
        sentence = f"can't tell whether it passes {words}: {unknown}" if unknown else f"fails {words}"
        for event in np.flatnonzero(~passes).tolist():
            yield event, sentence

    def _findings(self, name: str, column: Flat) -> Iterator[tuple[int, dict[str, float] | None]]:
        """Give the places where a value is missing (with None) or outside its range."""
        known = self._ranges.get(name, Range(low=-np.inf, high=np.inf, mean=0.0, std=0.0))
        absent, values = find_missing(column), values_of(column)
        strange = (values < known.low) | (values > known.high)
        for at in np.flatnonzero(strange if absent is None else strange | absent).tolist():
            is_absent = absent is not None and absent[at]
            yield at, None if is_absent else {"value": values[at].item(), "low": known.low, "high": known.high}


def cut_groups(selection: Selection | None) -> tuple[tuple[str, ...], ...] | None:
    """List groups of cuts; an event of the training passes a cut of every group. ``None`` where they are not known."""
    if selection is None:
        return None
    own = [sample.cut for sample in selection.samples.values()]
    alternatives = () if None in own else tuple(dict.fromkeys(cut for cut in own if cut is not None))
    return tuple(cuts for cuts in ((selection.cut,) if selection.cut is not None else (), alternatives) if cuts)


def _tell(event: dict[str, Any], name: str, finding: dict[str, float] | None) -> None:
    if finding is None:
        event["missing"].append(name)
    else:
        event["outside"][name] = finding


@dataclasses.dataclass(frozen=True, slots=True)
class _Slots:
    """Where objects lie in a rectangle.

    Parameters
    ----------
    real : (events, width), True where there is an object
    kept : (objects,), True for those that have a place; None if all have
    """

    real: Bools
    kept: Bools | None

    @classmethod
    def of(cls, offsets: Ints, width: int) -> _Slots:
        counts = np.diff(offsets)
        is_cut = bool((counts > width).any())
        return cls(np.arange(width) < counts[:, None], _positions(offsets) < width if is_cut else None)


def _positions(offsets: Ints) -> Ints:
    """Count the objects of each event from 0, (objects,)."""
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def _flat(spec: TensorSpec, features: RawFeatures) -> npt.NDArray[Any]:
    made = np.empty((features.num_events, len(spec.features)), spec.dtype)
    for i, name in enumerate(spec.features):
        made[:, i] = _held(features.flat[name], made.dtype)
    return made


def _padded(spec: TensorSpec, objects: Objects, slots: _Slots) -> npt.NDArray[Any]:
    made = np.zeros((len(slots.real), len(spec.features), slots.real.shape[1]), spec.dtype)
    for i, name in enumerate(spec.features):
        content = _held(objects.columns[name], made.dtype)
        made[:, i][slots.real] = content if slots.kept is None else content[slots.kept]
    return made


def _held(column: Flat, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Write missing values as the input expects them: as the sentinel that was read, or in computed features as NaN."""
    values = values_of(column)
    return values if dtype.kind in "iub" or values.dtype.kind == "f" else as_real(column)
