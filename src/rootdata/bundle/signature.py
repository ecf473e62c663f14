"""What an exported graph takes and gives: its branches, inputs and outputs, found out from configuration and events."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rootdata.bundle.manifest import (
    EVENTS,
    EXPRESSION,
    REGRESSION,
    SCORES,
    BranchSpec,
    Computed,
    FoldRule,
    Manifest,
    OutputSpec,
    Range,
    SampleSelection,
    Scaled,
    Selection,
    Step,
    TensorSpec,
)
from rootdata.errors import BundleError
from rootdata.events import needs, selection
from rootdata.expressions.vocabulary import ENTRY
from rootdata.jagged import Column, Jagged, same_offsets
from rootdata.layouts.layout import Layout
from rootdata.options.columns import Collection, TakenScaling
from rootdata.options.data import DataConfig
from rootdata.options.parsed import described
from rootdata.scaling.curves import SIGNED_LOG, name_of
from rootdata.scan.scanned import layout_of, transforms_of
from rootdata.scan.specs import Specs
from rootdata.table import Table

EXACT = 2**24  # whole numbers up to it are what they are in float32
BLUR = 1e-4  # how much of a scaled feature's unit float32 may round away
IN_THE_GRAPH = ("scale",)  # what of the options of inputs the graph does; of the others the manifest tells
RULES = {
    "missing": "NaN, infinities and, in branches alone, the numbers in features.missing: of all branches, or by branch "
    "with those of all others as default; before anything is computed",
    "expressions": "docs/expressions.md of rootdata; computed.steps have the type of each part",
    "cut": "an object is kept where the cut is true, neither false nor unknown (computed of what is missing)",
    "sort": "after the cut, by the expression, from the largest with a leading '-'; ties in the order of the file; "
    "objects of which the key is missing last",
    "length": "after the sort the first `length` objects are kept; where it is 'auto' all of them",
    "mask": "1 where there is an object, 0 where there is none; values there are ignored",
    "missing in inputs": "NaN in float32 and float64; in int64 the number of features.missing that was read",
    "inside the graph": "scaling, the pad value, the layout (images are drawn there, by coordinates that are not "
    "scaled, and sums in them of values that are not shifted) and the activation: send raw values",
}
"""What a manifest says of how inputs are made, for those who make them."""
NUMBERED = {
    ENTRY: "a branch like others, but of files without one the number of the event in its tree, from 0: a ROOT file "
    "that is sent has it of itself, other events bring it along",
}
"""The same, where features or cuts ask for the number of the event."""


def draft(
    config: DataConfig,
    specs: Specs,
    table: Table,
    *,
    columns: Sequence[str],
    targets: Sequence[str] = (),
    is_fixed: bool = False,
    float32: bool = False,
    cut_columns: Mapping[str, Column] | None = None,
    folds: FoldRule | None = None,
) -> Manifest:
    """Describe the graph of a network that is trained on this data, still without the graph.

    Parameters
    ----------
    config : of the data that the network is trained on
    specs : of the same data; give lengths, scaling and the ranges of training
    table : some events, which show the number types
    columns : names of the scores
    targets : names of what is predicted beside them
    is_fixed : whether collections always have their full length; they do where a layout does not mask objects
    float32 : let all features travel as float32
    cut_columns : branches that only cuts on events need, of some events, which show the number types
    folds : how the graph chooses, where it holds the networks of several folds

    Raises
    ------
    BundleError
        Where two inputs would have the same name; for a feature that float32 does not hold.
    """
    layout = layout_of(config, specs)
    flat, objects = selection.features(config, table.columns, num_events=table.num_events, where="the compared events")
    is_fixed = is_fixed or not layout.form.masks_objects
    types = {name: flat[name].dtype for name in layout.flat}
    types |= {b: objects[c.name].columns[b].dtype for c in layout.collections for b in c.branches}
    scaling = _scaling(config, specs, types)
    if float32:
        _check_single(types, scaling, specs)
    single = np.dtype(np.float32)
    held = {name: single if float32 else _held(name, dtype, config) for name, dtype in types.items()}
    inputs = _inputs(None, {name: held[name] for name in layout.flat}, None)
    for c in layout.collections:
        takes_any = c.grid is not None or f"{c.name}_mask" in layout.shapes  # a form may need all places, else
        is_elastic = c.keeps_all or (takes_any and not is_fixed and c.length > 1)
        axis = c.name if is_elastic else c.length
        inputs += _inputs(c.name, {b: held[b] for b in c.branches}, axis)
        inputs.append(TensorSpec(name=f"{c.name}_mask", dtype="float32", shape=(EVENTS, axis), collection=c.name))
    if folds is not None and folds.feature:
        kind = "float32" if float32 else "float64"  # which both hold it, and NaN where it is missing
        inputs.append(TensorSpec(name=folds.feature, dtype=kind, shape=(EVENTS, 1), features=(folds.feature,)))
    _check_names([t.name for t in inputs])
    served = with_fold(config, folds)
    return Manifest(
        sha256="",
        size=0,
        inputs=tuple(inputs),
        outputs=_outputs(config, columns, targets),
        branches=_branches(config, table),
        features=_options(served, layout),
        selection=_selection(config, specs, table, cut_columns or {}),
        computed=_computed(served, table),
        scaling=scaling,
        folds=folds,
        rules=RULES | _taken(config) | (NUMBERED if ENTRY in {*table.columns, *(cut_columns or {})} else {}),
        ranges=_ranges(specs),
    )


def fold_rule(config: DataConfig, *, average: bool = False) -> FoldRule | None:
    """Say how a graph of several folds chooses; ``None`` where the data has no folds.

    Parameters
    ----------
    config : of the data
    average : give the mean of all networks for every event, as for folds by a hash
    """
    if config.folds is None:
        return None
    if config.folds.by is None or average:
        return FoldRule(count=config.folds.count, by=config.folds.by)
    taken = {*config.features, *config.derived, *(c.name for c in config.jagged), *needs.feature_branches(config)}
    taken |= set(needs.branches_of(config.folds.by, config))
    feature = next(name for name in (f"fold{'_' * n}" for n in itertools.count()) if name not in taken)
    return FoldRule(count=config.folds.count, by=config.folds.by, rule=EXPRESSION, feature=feature)


def of_folds(drafts: Sequence[Manifest]) -> Manifest:
    """Describe the graph of the networks of all folds, of which each was described alone.

    Raises
    ------
    BundleError
        Where one takes or gives something else than the others.
    """
    first = drafts[0]
    for number, draft in enumerate(drafts):
        if (draft.inputs, draft.outputs) != (first.inputs, first.outputs):
            raise BundleError(
                f"folds: the network of fold {number} takes {[list(t.shape) for t in draft.inputs]}, that of fold 0 "
                f"{[list(t.shape) for t in first.inputs]}; train all folds with the same options"
            )
    if first.folds is None or first.selection is None:
        return first
    return dataclasses.replace(
        first,
        scaling=None,
        folds=dataclasses.replace(first.folds, scaling=tuple(draft.scaling or {} for draft in drafts)),
        ranges=_widest([draft.ranges for draft in drafts]),
        selection=dataclasses.replace(first.selection, split={}),  # each network has its own: see `folds`
    )


def _widest(ranges: Sequence[Mapping[str, Range]]) -> dict[str, Range]:
    """Join the ranges of the folds' training events, each of which is that of most events."""
    names = dict.fromkeys(name for one in ranges for name in one)
    return {name: _joined([one[name] for one in ranges if name in one]) for name in names}


def _joined(ranges: Sequence[Range]) -> Range:
    def mean(what: str) -> float:
        return float(np.mean([getattr(one, what) for one in ranges]))

    return Range(
        low=min(one.low for one in ranges),
        high=max(one.high for one in ranges),
        mean=mean("mean"),
        std=mean("std"),
        missing=mean("missing"),
    )


def with_fold(config: DataConfig, folds: FoldRule | None) -> DataConfig:
    """Let the number of the fold be one more flat feature, where a graph takes it."""
    if folds is None or not folds.feature or config.folds is None:
        return config
    derived = {**config.derived, folds.feature: str(config.folds.expression)}
    return dataclasses.replace(config, flat=(*config.flat, folds.feature), derived=derived)


def _outputs(config: DataConfig, columns: Sequence[str], targets: Sequence[str]) -> tuple[OutputSpec, ...]:
    """Describe scores, and what regressions predict, as far as there are any."""
    both = sorted(set(columns) & set(targets))
    if both:
        raise BundleError(f"targets: {both[0]!r} is the name of a class, too; call the target otherwise")
    units = {target.name: target.unit or "" for target in config.targets}
    known = tuple(units.get(name, "") for name in targets)
    scores = OutputSpec(name=SCORES, dtype="float32", shape=(EVENTS, len(columns)), columns=tuple(columns))
    predicted = OutputSpec(
        name=REGRESSION, dtype="float32", shape=(EVENTS, len(targets)), columns=tuple(targets), kind=REGRESSION,
        units=known if any(known) else (),
    )  # fmt: skip
    return (*([scores] if columns else []), *([predicted] if targets else []))


def _selection(config: DataConfig, specs: Specs, table: Table, cut_columns: Mapping[str, Column]) -> Selection:
    """Say which events the network is trained on."""
    others = {name: column for name, column in cut_columns.items() if name not in table.columns}
    known = _branches(config, Table(num_events=table.num_events, columns={**table.columns, **others}))
    return Selection(
        cut=config.cut,
        samples={s.name: SampleSelection(cut=s.cut, label=s.label, weight=s.weight) for s in config.samples},
        label=config.label,
        weight=config.weight,
        split=described(config, "specs")["split"],
        branches=tuple(branch for branch in known if branch.name in others),
        trees=tuple(dict.fromkeys(file.tree for file in specs.files)),
    )


def _computed(config: DataConfig, table: Table) -> tuple[Computed, ...]:
    """List the expressions of features, with the type of each part."""
    none = {name: column.take_events(np.zeros(len(column), bool)) if isinstance(column, Jagged) else column[:0]
            for name, column in table.columns.items()}  # fmt: skip
    found = selection.steps(config, none, where="the compared events")
    return tuple(
        Computed(use=use, name=name, steps=tuple(_step(text, value) for text, value in parts.items()))
        for (use, name), parts in found.items()
    )


def _step(text: str, value: Any) -> Step:
    if isinstance(value, Jagged):
        return Step(text=text, dtype=value.content.dtype.name, kind="jagged")
    return Step(text=text, dtype=value.dtype.name, kind="flat" if value.ndim == 1 else "jagged")


def _taken(config: DataConfig) -> dict[str, str]:
    """Say where a scaling comes from that was not learnt of the training events."""
    places = {one.place for one in config.scale.values() if isinstance(one, TakenScaling)}
    if not places:
        return {}
    own = [name for name, one in config.scale.items() if not isinstance(one, TakenScaling)]
    rest = f"; that of {', '.join(own)} is not" if own else ""
    return {"scaling": f"taken over from {places.pop()}, not learnt anew{rest}"}


def _scaling(config: DataConfig, specs: Specs, types: Mapping[str, np.dtype[Any]]) -> dict[str, Scaled]:
    """Say how each feature is scaled: float32 in float32, all others in float64."""
    return {
        name: Scaled(
            shift=float(t.shift),
            factor=float(t.factor),
            log=t.curve == SIGNED_LOG,
            curve="" if t.curve == SIGNED_LOG else name_of(t.curve),
            clip=t.clip,
            dtype="float32" if _tensor_type(types[name]) == "float32" else "float64",
        )
        for name, t in transforms_of(config, specs).items()
    }


def _check_single(types: Mapping[str, np.dtype[Any]], scaling: Mapping[str, Scaled], specs: Specs) -> None:
    """Refuse features of which float32 would lose digits that count."""
    for name, dtype in types.items():
        stats = specs.columns[name]
        if not stats.count or scaling[name].dtype == "float32":
            continue
        size = max(abs(float(stats.low)), abs(float(stats.high)))
        found = f"feature {name!r} is {dtype.name} and goes from {stats.low:g} to {stats.high:g} in training events"
        remedy = "leave float32 out, take the feature out, or derive a smaller one"
        if dtype.kind in "iu" and size > EXACT:
            raise BundleError(f"float32: {found}; whole numbers are exact up to 2**24 = {EXACT} there; {remedy}")
        blur = 0.0 if scaling[name].log or scaling[name].curve else size * 2.0**-24 * abs(scaling[name].factor)
        if dtype.kind == "f" and not blur <= BLUR:
            raise BundleError(
                f"float32: {found}; rounding would move it by {blur:.1g} of its scaled unit, at most {BLUR:g} is "
                f"allowed; {remedy}"
            )


def _inputs(collection: str | None, dtypes: Mapping[str, np.dtype[Any]], axis: int | str | None) -> list[TensorSpec]:
    """Group features by the number type that holds them: what is not float32 would lose its last digits there."""
    groups: dict[str, list[str]] = {}
    for name, dtype in dtypes.items():
        groups.setdefault(_tensor_type(dtype), []).append(name)
    stem = collection or "flat"
    return [
        TensorSpec(
            name=stem if dtype == "float32" else f"{stem}_{dtype}",
            dtype=dtype,
            shape=(EVENTS, len(names)) if axis is None else (EVENTS, len(names), axis),
            features=tuple(names),
            collection=collection,
        )
        for dtype, names in groups.items()
    ]


def _held(name: str, dtype: np.dtype[Any], config: DataConfig) -> np.dtype[Any]:
    """Choose the type of a feature: whole numbers that are computed may be missing, which an integer can't say."""
    return np.dtype(np.float64) if name in config.derived and dtype.kind in "biu" else dtype


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BundleError(f"collection {twice[0]!r}: this name is taken in the graph; call the collection otherwise")


def _tensor_type(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f" and dtype.itemsize <= 4:
        return "float32"
    return "float64" if dtype.kind == "f" or dtype == np.uint64 else "int64"


def _options(config: DataConfig, layout: Layout) -> dict[str, Any]:
    """Write the options that turn branches into features, as plain data, with what was learnt of lengths and grids."""
    plain = {name: value for name, value in described(config, "inputs").items() if name not in IN_THE_GRAPH}
    jagged = {}
    for given, c in zip(plain["jagged"], layout.collections, strict=True):
        own = {n: v for n, v in given.items() if n not in {"name", "form", "image"}}
        own["length"] = "auto" if c.keeps_all else c.length
        form = {} if given["form"] is None else {"form": c.form}
        jagged[c.name] = own | form | ({} if c.grid is None else {"image": c.grid.described()})
    return {**plain, "jagged": jagged}


def _branches(config: DataConfig, table: Table) -> tuple[BranchSpec, ...]:
    groups = _count_groups(config.jagged, {n: c for n, c in table.columns.items() if isinstance(c, Jagged)})
    return tuple(_branch(name, column, groups.get(name)) for name, column in table.columns.items())


def _branch(name: str, column: Column, counts: str | None) -> BranchSpec:
    if isinstance(column, Jagged):
        return BranchSpec(name=name, dtype=column.content.dtype.name, kind="jagged", counts=counts)
    if column.ndim == 2:
        return BranchSpec(name=name, dtype=column.dtype.name, kind="fixed", width=column.shape[1])
    return BranchSpec(name=name, dtype=column.dtype.name)


def _count_groups(collections: Sequence[Collection], columns: Mapping[str, Jagged]) -> dict[str, str]:
    """Say which jagged branches have their counts in common: those of a collection, and their namesakes."""
    groups = {b: c.name for c in reversed(collections) for b in c.branches if b in columns}
    for name, column in columns.items():
        if name not in groups:
            # Jet_btag is only used in a cut on jets, say: the same prefix, and the same counts in all these events
            kin = [b for b in groups if _stem(b) == _stem(name)]
            alike = (groups[b] for b in kin if same_offsets(columns[b].offsets, column.offsets))
            groups[name] = next(alike, name)
    return groups


def _stem(name: str) -> str:
    return re.split(r"[_.]", name, maxsplit=1)[0]


def _ranges(specs: Specs) -> dict[str, Range]:
    """Take the ranges of training events; a feature without a single value has none."""
    return {
        name: Range(
            low=float(stats.low),
            high=float(stats.high),
            mean=stats.moments.mean,
            std=stats.moments.std,
            missing=stats.missing / (stats.count + stats.missing),
        )
        for name, stats in specs.columns.items()
        if stats.count
    }


def score_columns(asked: Sequence[str] | None, width: int, classes: Sequence[str]) -> tuple[str, ...]:
    """Name the columns of the scores: every class, or of two classes with one score that with label 1.

    Parameters
    ----------
    asked : names that the user gave; None or empty for those of the classes
    width : number of columns that the network returns
    classes : names by class number

    Raises
    ------
    BundleError
        Where the number of names is not that of the columns.
    """
    names = tuple(asked) if asked else (classes[1],) if width == 1 and len(classes) == 2 else tuple(classes)
    if len(names) != width or len(set(names)) < width:
        raise BundleError(f"columns: got {list(names)} for {width} columns of scores; give each a name of its own")
    return names
