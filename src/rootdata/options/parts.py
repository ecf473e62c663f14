"""Which events are for training, validation and test: splits and folds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from rootdata.errors import ConfigError
from rootdata.expressions.grammar import parse as parse_expression
from rootdata.options import typed, values
from rootdata.options.typed import option

PARTS = ("train", "val", "test")
FEWEST_FOLDS = 3
SPLIT_KINDS = ("hash", "entries", "files")  # what a split goes by where it is no expression

PartName = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """How events are dealt to train, val and test.

    Parameters
    ----------
    by : ``"hash"`` (of file and entry), ``"entries"`` (ranges of every file), ``"files"``, or an integer expression
    train, val, test : a share in [0, 1], or for an expression the values that belong to the part (``None``: all
        others), or for files the patterns of their paths
    folds : how many there are of the hash, where it deals to folds: the parts have their numbers then
    """

    by: str
    train: Any
    val: Any
    test: Any
    folds: int | None = option(values.positive, None, is_silent=True)


def parse_split(value: Any, where: str) -> Split:
    """Check which events are for which part."""
    if isinstance(value, Split):
        value = dataclasses.asdict(value)
    table = dict(values.mapping(value, where, "{'train': 0.64, 'val': 0.16, 'test': 0.2}"))
    values.reject_unknown(table, ["by", "folds", *PARTS], where=where)
    parts = {p: table.get(p) for p in PARTS}
    by = table.get("by")
    if table.get("folds") is not None:  # as a fold of the hash is described
        return dataclasses.replace(
            _dealt("hash", _split_values(parts, where)), folds=_fold_count(table["folds"], f"{where}.folds")
        )
    if by is None:
        by = "files" if any(isinstance(v, (str, list, tuple)) for v in parts.values()) else "hash"
    if by == "files":
        return _dealt("files", {p: values.names(v, f"{where}.{p}") for p, v in parts.items()})
    if values.typed(by, str, f"{where}.by") in {"hash", "entries"}:
        return _dealt(by, _shares(parts, where))
    parse_expression(by, where=f"{where}.by")
    return _dealt(by, _split_values(parts, where))


def _dealt(by: str, parts: Mapping[str, Any]) -> Split:
    return Split(by=by, train=parts["train"], val=parts["val"], test=parts["test"])


def _shares(parts: Mapping[str, Any], where: str) -> dict[str, float]:
    shares = {p: values.number(v if v is not None else 0.0, f"{where}.{p}") for p, v in parts.items()}
    total = math.fsum(shares.values())
    if min(shares.values()) < 0 or abs(total - 1.0) > 1e-6:
        shown = ", ".join(f"{p}={s:g}" for p, s in shares.items())
        raise ConfigError(f"{where}: got {shown}, which add up to {total:g}; shares are positive and add up to 1")
    return shares


def _split_values(parts: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...] | None]:
    given = {p: None if v is None else values.integers(v, f"{where}.{p}") for p, v in parts.items()}
    rest = [p for p, v in given.items() if v is None]
    if given["train"] is not None or len(rest) > 1:
        given = {p: v if v is not None or p == "train" else () for p, v in given.items()}
    listed = [i for v in given.values() if v for i in v]
    twice = sorted({i for i in listed if listed.count(i) > 1})
    if twice:
        raise ConfigError(f"{where}: the value {twice[0]} is in two parts; each value belongs to one part")
    return given


def _fold_count(value: Any, where: str) -> int:
    if values.integer(value, where) < FEWEST_FOLDS:
        raise ConfigError(
            f"{where}: got {value}; expected {FEWEST_FOLDS} or more: one tests the network, the next one validates "
            "it, and it is trained on the others"
        )
    return int(value)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Folds:
    """How events are dealt to folds, each of which is tested by a network that is trained without it.

    Parameters
    ----------
    count : of the folds, 3 or more
    by : expression with one whole number an event, of which the remainder by ``count`` is the fold; by default a hash
        of file and entry
    """

    count: int = option(_fold_count)
    by: str | None = option(values.optional_expression, None)

    @property
    def expression(self) -> str | None:
        """The number of the fold, 0 to ``count - 1``, as an expression; ``None`` where the hash decides."""
        return None if self.by is None else f"({self.by}) % {self.count}"

    def split(self, fold: int) -> Split:
        """Say which events belong to train, val and test where a fold is tested."""
        is_hashed = self.expression is None
        return Split(
            by=self.expression or "hash",
            train=None,
            val=((fold + 1) % self.count,),
            test=(fold,),
            folds=self.count if is_hashed else None,
        )

    def lack(self, fold: int, part: str, what: str) -> str:
        """Say that a part has no events of some kind where a fold is tested, and what would help.

        Parameters
        ----------
        fold : that is tested
        part : ``train``, ``val`` or ``test``
        what : that it lacks, such as ``events``
        """
        own = {"test": f"fold {fold}", "val": f"fold {(fold + 1) % self.count}"}
        by = "the hash of file and entry" if self.by is None else repr(self.by)
        return (
            f"folds: {own.get(part, f'the training part of fold {fold}')} has no {what}; take fewer than {self.count}, "
            f"or another expression than {by}"
        )


def parse_folds(value: Any, where: str) -> Folds | None:
    """Check how events are dealt to folds; ``None`` stands for no folds."""
    if value is None or isinstance(value, Folds):
        return value
    plain = value if isinstance(value, Mapping) else {"count": value}
    if "count" not in plain:
        raise ConfigError(f"{where}: got {dict(plain)!r}; expected how many, such as 5 or {{count: 5, by: event % 5}}")
    return typed.parse(Folds, plain, where=where, prefix=f"{where}.")
