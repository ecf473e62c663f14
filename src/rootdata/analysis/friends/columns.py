"""What is written beside each event: its number, whether it was selected, scores, observers, weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.analysis.friends.conform import check_branch, conform
from rootdata.analysis.friends.scorer import Scorer, Scores
from rootdata.analysis.friends.tree import Arrays, plain_name
from rootdata.bundle.assemble import cut_groups
from rootdata.bundle.manifest import BranchSpec, Manifest
from rootdata.errors import BranchError, ConfigError, DataError, nearest
from rootdata.events import needs, selection
from rootdata.events.evaluation import Block
from rootdata.events.split import NO_PART
from rootdata.expressions.grammar import parse
from rootdata.io.trees import Tree
from rootdata.jagged import Columns
from rootdata.missing import Bools
from rootdata.options.columns import Observer
from rootdata.options.data import DataConfig, parse_data

ENTRY, SELECTED, PART = "entry", "selected", "part"
OF_THE_BUNDLE = "bundle"
NOMINAL = "nominal"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FriendOptions:
    """What is wanted beside the scores.

    Parameters
    ----------
    fill : stands for a score of an event that is not selected
    cut : ``bundle`` selects what the training selected; ``None`` all events; else an expression
    observers : column name to branch or expression; ``None`` for those of the training
    weights : name of a variation to the event's weight under it, an expression; ``nominal`` is that without one
    parts : whether to say which part of the training's data an event is in
    parameters : branch that the model takes to an expression that is its value, whatever the file has
    """

    fill: float = -1.0
    cut: str | None = OF_THE_BUNDLE
    observers: Mapping[str, str] | None = None
    weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parts: bool = False
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, as files that were written before there were parameters have it without any."""
        plain = dataclasses.asdict(self)
        return plain if self.parameters else {name: one for name, one in plain.items() if name != "parameters"}


def score_names(columns: Sequence[str], regressions: Sequence[str]) -> tuple[str, ...]:
    """Name the columns of scores: ``score_<class>``, and those of regressions as they are called."""
    return tuple(plain_name(name) if name in regressions else f"score_{plain_name(name)}" for name in columns)


def weight_name(variation: str) -> str:
    """Name the column of the weights under a variation; ``nominal`` is none."""
    return "weight" if variation == NOMINAL else f"weight_{plain_name(variation)}"


class FriendColumns:
    """Makes the columns of one model's friend trees.

    Parameters
    ----------
    scorer : gives the scores
    wanted : what stands beside them

    Raises
    ------
    ConfigError
        For names that are taken, and expressions that can't be parsed.
    """

    def __init__(self, scorer: Scorer, wanted: FriendOptions) -> None:
        manifest = scorer.manifest
        self.scorer = scorer
        self._fill = np.float32(wanted.fill)
        self._cuts = _cuts_of(manifest, wanted.cut)
        self._is_own_cut = wanted.cut != OF_THE_BUNDLE
        observers = _of_the_training(manifest) if wanted.observers is None else wanted.observers
        self.of_the_bundle = _decided(manifest, wanted)
        self.scores = score_names(manifest.columns, manifest.regressions)
        self._weights = tuple(weight_name(name) for name in wanted.weights)
        self._config = _config(
            manifest,
            {plain_name(name): text for name, text in observers.items()}
            | dict(zip(self._weights, wanted.weights.values(), strict=True)),
        )
        _check_parameters(wanted.parameters, manifest)
        self._given = dataclasses.replace(self._config, observers=_observers(wanted.parameters))
        self._read = tuple(spec for spec in manifest.branches if spec.name not in wanted.parameters)
        self._has_parts = wanted.parts
        if wanted.parts and manifest.folds is not None:
            raise ConfigError(
                f"parts: the model is {manifest.folds.count} networks, each with a fold for its test; leave parts out"
            )
        fixed = (ENTRY, SELECTED, *([PART] if wanted.parts else []), *self.scores)
        check_names((*fixed, *map(plain_name, observers), *self._weights))

    def of(self, tree: Tree) -> FriendColumnsOfFile:
        """Look at what an open tree holds, and say which of its branches are read.

        Raises
        ------
        BranchError
            For a branch that is absent or of another kind; names file, tree, and the nearest branches.
        """
        for spec in self._read:
            self._check_read(spec, tree)
        beside = (*needs.observer_branches(self._config), *needs.observer_branches(self._given))
        if self._has_parts:
            beside += needs.split_branches(self._config)
        for name in beside:
            _check_there(name, tree)
        cuts = tuple(self._known_of(group, tree) for group in self._cuts)
        needed = [*(spec.name for spec in self._read), *beside]
        needed += [name for group in cuts for cut in group for name in needs.branches_of(cut, self._config)]
        return FriendColumnsOfFile(columns=self, branches=tuple(dict.fromkeys(needed)), cuts=cuts)

    def _check_read(self, spec: BranchSpec, tree: Tree) -> None:
        try:
            check_branch(tree, spec)
        except BranchError as error:
            if spec.name not in _parameters_of(self.scorer.manifest):
                raise
            raise BranchError(
                f"{error}; it is a parameter of the network: give its value, parameters={{{spec.name}: 500}} "
                f"or --parameter {spec.name}=500"
            ) from error

    def _known_of(self, group: Sequence[str], tree: Tree) -> tuple[str, ...]:
        """Keep the cuts of a group, one for each sample, for which the file has the branches."""
        known, missed = [], None
        for cut in group:
            try:
                for name in needs.branches_of(cut, self._config):
                    tree.describe(name)
                known.append(cut)
            except BranchError as error:
                missed = missed or error
        if not known and missed is not None:
            whose = "cut='...'" if self._is_own_cut else "the bundle's cut"
            raise BranchError(f"{missed}; {whose} needs it: cut=null scores all events")
        return tuple(known)

    def make(self, raw: Columns, cuts: Sequence[Sequence[str]], block: Block) -> Arrays:
        """Make the columns of a block.

        Parameters
        ----------
        raw : branch name to column
        cuts : groups of cuts; of each group an event has to pass one
        block : where the columns come from
        """
        n = block.stop - block.start
        selected = np.ones(n, bool)
        for group in cuts:
            selected &= functools.reduce(np.logical_or, (self._passes(cut, raw, block) for cut in group))
        beside = selection.observed(self._config, raw, block=block, selected=selected)
        scores = self._scores(raw, selected, block)
        made: dict[str, npt.NDArray[Any]] = {ENTRY: np.arange(block.start, block.stop), SELECTED: selected}
        if self._has_parts:
            parts = selection.parts_of(self._config, raw, block=block)
            made[PART] = np.where(parts < NO_PART, parts, -1).astype(np.int8)
        made |= dict(zip(self.scores, scores.T, strict=True))
        return made | {name: self._held(name, values, selected, block) for name, values in beside.items()}

    def _passes(self, cut: str, raw: Columns, block: Block) -> Bools:
        return selection.passes(cut, self._config, raw, block=block)

    def _scores(self, raw: Columns, selected: Bools, block: Block) -> Scores:
        """Score the selected events: (n, columns), the fill value for the others."""
        scores = np.full((len(selected), len(self.scores)), self._fill, np.float32)
        given = selection.observed(self._given, raw, block=block, selected=selected)
        for name, values in given.items():
            _check_finite(name, values, selected, block, option="parameters")
        rows = np.flatnonzero(selected)
        table = conform({**raw, **given}, self.scorer.manifest.branches, block, rows, missing=self._config.missing)
        if len(rows):
            scores[rows] = self.scorer.scores(table, where=str(block))
        bad = np.flatnonzero(selected & ~np.isfinite(scores).all(axis=1))
        if len(bad):
            raise DataError(
                f"{self.scorer.name} gives NaN or infinity for entry {block.start + int(bad[0])} of "
                f"{block.location.path}; its values are beyond what the model can be used for: cut such events away, "
                "cut='...'"
            )
        return scores

    def _held(self, name: str, values: npt.NDArray[Any], selected: Bools, block: Block) -> npt.NDArray[Any]:
        """Bring a weight to float32; one of a selected event has to be a number."""
        if name not in self._weights:
            return values
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        _check_finite(name, single, selected, block, option="weights")
        return single


@dataclasses.dataclass(frozen=True, kw_only=True)
class FriendColumnsOfFile:
    """The columns for one file.

    Parameters
    ----------
    columns : of the model
    branches : that are read
    cuts : groups of those cuts of which the file has the branches
    """

    columns: FriendColumns
    branches: tuple[str, ...]
    cuts: tuple[tuple[str, ...], ...]

    def __call__(self, raw: Columns, block: Block) -> Arrays:
        """Make the columns of a block of the file."""
        return self.columns.make(raw, self.cuts, block)


def _check_finite(name: str, values: npt.NDArray[Any], selected: Bools, block: Block, *, option: str) -> None:
    """Refuse a number that selected events must have, and one of them has not."""
    bad = np.flatnonzero(selected & ~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{option}: {name!r} is missing or not finite at entry {block.start + int(bad[0])} of "
            f"{block.location.path}; give such events a value: where(isnan(x), 0, x)"
        )


def _check_parameters(given: Mapping[str, str], manifest: Manifest) -> None:
    """Refuse values of what the model does not take, or takes as another thing than one number an event."""
    flat = [spec.name for spec in manifest.branches if spec.kind == "flat"]
    known = _parameters_of(manifest) or flat
    for name, text in given.items():
        parse(text, where=f"parameters.{name}")
        if name not in known:
            raise ConfigError(f"parameters: got {name!r}, which is none of the model's; {nearest(name, known)}")


def _parameters_of(manifest: Manifest) -> list[str]:
    """Name the parameters of the network, as far as the manifest says it."""
    data = manifest.training.get("data")
    found = data.get("parameters") if isinstance(data, Mapping) else None
    return list(map(str, found)) if isinstance(found, Mapping) else []


def _observers(given: Mapping[str, str]) -> tuple[Observer, ...]:
    return tuple(Observer(name=name, value=text) for name, text in given.items())


def _check_there(name: str, tree: Tree) -> None:
    try:
        tree.describe(name)
    except BranchError as error:
        raise BranchError(
            f"{error}; an observer, a weight, a parameter or the split needs it: check what is to be written"
        ) from error


def _cuts_of(manifest: Manifest, cut: str | None) -> tuple[tuple[str, ...], ...]:
    if cut == OF_THE_BUNDLE:
        return cut_groups(manifest.selection) or ()
    if cut is None:
        return ()
    parse(cut, where="cut")
    return ((cut,),)


def _of_the_training(manifest: Manifest) -> Mapping[str, str]:
    """Return the observers of the training, as far as the manifest says it."""
    data = manifest.training.get("data")
    found = data.get("observers") if isinstance(data, Mapping) else None
    if isinstance(found, Mapping):
        return {str(name): str(text) for name, text in found.items()}
    return {str(text): str(text) for text in found} if isinstance(found, list | tuple) else {}


def _decided(manifest: Manifest, wanted: FriendOptions) -> dict[str, Any]:
    """Return what the bundle decides of the columns beside the scores, for options that leave it to it."""
    decided: dict[str, Any] = {}
    if wanted.observers is None and (observers := _of_the_training(manifest)):
        decided["observers"] = observers
    if wanted.parts and manifest.selection is not None:
        decided["split"] = dict(manifest.selection.split)
    return decided


def _config(manifest: Manifest, observers: Mapping[str, str]) -> DataConfig:
    more: dict[str, Any] = {"observers": observers}
    if manifest.selection is not None and manifest.selection.split:
        more["split"] = manifest.selection.split
    return parse_data({**manifest.features, "samples": {"events": {"files": "events"}}, **more})


def check_names(names: Sequence[str]) -> None:
    """Check that each column has a name of its own, whatever the case of its letters.

    Raises
    ------
    ConfigError
    """
    lowered = [name.lower() for name in names]
    twice = next((name for name in names if lowered.count(name.lower()) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two columns of the friend tree would be called {twice!r}; call one of them otherwise: "
            "observers: {name: expression}"
        )
