"""How events are weighted: to the luminosity, balanced, reweighted, and under variations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from rootdata.errors import ConfigError, nearest
from rootdata.expressions.grammar import parse as parse_expression
from rootdata.options import typed, values
from rootdata.options.typed import option

BALANCES = ("classes", "samples")
FLAT = "flat"
BY = ("weight", "resample")
MOST_VARIABLES = 3
MOST_BINS = 100_000  # of all variables together: with more, next to none holds events enough for a factor
RUNS, SUM, GENERATED = "Runs", "genEventSumw", "genWeight"
"""Tree and branch of NanoAOD that hold the sum of generator weights, and the branch of the events that they are of."""
SOURCES = "a number, {tree: Runs, branch: genEventSumw}, {histogram: cutflow, bin: 0}, or {events: genWeight}"
DATA = "data"


def weight(value: Any, where: str) -> str | float | None:
    """Check a weight: a number or an expression."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return None if value is None else values.number(value, where)
    return values.expression(value, where)


def positive(value: Any, where: str) -> float | None:
    """Check a number above 0, where one is given."""
    if value is None:
        return None
    number = values.number(value, where)
    if number <= 0:
        raise ConfigError(f"{where}: got {number:g}; expected a number above 0")
    return number


def cross_section(value: Any, where: str) -> float | Literal["data"] | None:
    """Check a cross section in pb, or that the events were recorded and have none."""
    if isinstance(value, str):
        if value != DATA:
            raise ConfigError(f"{where}: got {value!r}; expected a number of pb, or 'data' for recorded events")
        return "data"
    return positive(value, where)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WeightSource:
    """Where the sum of the generator weights of a whole sample stands; one of four.

    Parameters
    ----------
    number : the sum itself
    tree, branch : of every file, added up over all entries
    histogram, bin : of every file; a bin by its number, from 0 and without underflow, or by its label
    events : expression that is added up over all entries of the events' tree, before cuts
    """

    number: float | None = None
    tree: str | None = None
    branch: str | None = None
    histogram: str | None = None
    bin: int | str | None = None
    events: str | None = None

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.number:g}"
        if self.events is not None:
            return f"{self.events} of all entries"
        return f"{self.tree}.{self.branch}" if self.tree is not None else f"{self.histogram}[{self.bin or 0}]"


OF_RUNS = WeightSource(tree=RUNS, branch=SUM)


def weight_source(value: Any, where: str) -> WeightSource | None:
    """Check where a sum of generator weights stands."""
    if isinstance(value, WeightSource):  # taken apart, so that it is checked like a plain one
        plain = {f.name: v for f in dataclasses.fields(value) if (v := getattr(value, f.name)) is not None}
        value = plain.get("number", plain)
    if value is None or not isinstance(value, Mapping):
        if isinstance(value, str):
            raise ConfigError(f"{where}: got {value!r}; expected {SOURCES}")
        return None if value is None else WeightSource(number=positive(value, where))
    values.reject_unknown(value, ("tree", "branch", "histogram", "bin", "events"), where=where)
    given = {str(k) for k in value}
    if given == {"events"}:
        parse_expression(values.text(value["events"], f"{where}.events"), where=f"{where}.events")
    elif given not in ({"tree", "branch"}, {"histogram"}, {"histogram", "bin"}):
        raise ConfigError(f"{where}: got {dict(value)}; expected {SOURCES}")
    if "bin" in value and not isinstance(value["bin"], str):
        values.natural(value["bin"], f"{where}.bin")
    for name in given & {"tree", "branch", "histogram"}:
        values.text(value[name], f"{where}.{name}")
    return WeightSource(**value)


def variations(value: Any, where: str) -> dict[str, str | float] | None:
    """Check weights by name."""
    table = values.mapping(value or {}, where, "{'nominal': 'genWeight', 'puUp': 'genWeight * puUp'}")
    found = {str(name): weight(one, f"{where}.{name}") for name, one in table.items()}
    empty = next((name for name, one in found.items() if one is None or not name), None)
    if empty is not None:
        raise ConfigError(f"{where}.{empty}: got nothing; expected a name, and an expression or a number")
    return {name: one for name, one in found.items() if one is not None} or None


# Reweighting

Bins = int | tuple[float, ...]


def _variables(value: Any, where: str) -> tuple[str, ...]:
    found = values.names(value, where)
    if not 1 <= len(found) <= MOST_VARIABLES:
        raise ConfigError(f"{where}: got {len(found)}; expected one to {MOST_VARIABLES} branches or expressions")
    for text in found:
        parse_expression(text, where=where)
    return found


def _bins(value: Any, where: str) -> tuple[Bins, ...]:
    return tuple(_axis(one, f"{where}[{i}]") for i, one in enumerate(values.listed(value, where)))


def _axis(value: Any, where: str) -> Bins:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return values.positive(value, where, or_else=", or a list of edges")
    edges = tuple(values.number(edge, where) for edge in value)
    if len(edges) < 2 or any(low >= high for low, high in pairwise(edges)):
        raise ConfigError(f"{where}: got {list(edges)}; expected two or more edges, rising")
    return edges


def _cap(value: Any, where: str) -> float | None:
    found = None if value is None else values.number(value, where)
    if found is not None and found < 1:
        raise ConfigError(
            f"{where}: got {found:g}; expected the largest factor as a multiple of the mean one, 1 or more; null caps "
            "nothing"
        )
    return found


def _by(value: Any, where: str) -> str:
    return values.choice(value, BY, where)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reweight:
    """How training events are weighted so that each class has the same distribution of some variables.

    Parameters
    ----------
    variables : one to three branches, derived columns or expressions with one number an event
    bins : of each variable: a number, of bins with as many training events each, or a list of edges
    to : ``flat``, or the name of a class or sample whose distribution all classes get
    cap : largest factor, as a multiple of the mean one
    by : ``weight``, or ``resample``: events are left out instead
    """

    variables: tuple[str, ...] = option(_variables)
    bins: tuple[Bins, ...] = option(_bins)
    to: str = option(values.text, FLAT)
    cap: float | None = option(_cap, None)
    by: str = option(_by, "weight")


def reweight(value: Any, where: str) -> Reweight | None:
    """Check how events are reweighted."""
    if value is None:
        return None
    if isinstance(value, Reweight):
        value = {name: getattr(value, name) for name in typed.names_of(Reweight)}
    plain = values.mapping(value, where, "{'variables': ['fj_pt', 'fj_eta'], 'bins': [15, 12], 'to': 'flat'}")
    for name in ("variables", "bins"):
        if name not in plain:
            raise ConfigError(f"{where}.{name} is missing; give the variables, and the bins of each")
    found = typed.parse(Reweight, plain, where=where, prefix=f"{where}.")
    if len(found.bins) != len(found.variables):
        raise ConfigError(
            f"{where}.bins: got {len(found.bins)} for {len(found.variables)} variables; give one entry for each, a "
            "number of bins or a list of edges: [15, 12], [[200, 300, 500], 12]"
        )
    total = 1
    for axis in found.bins:
        total *= axis if isinstance(axis, int) else len(axis) - 1
    if total > MOST_BINS:
        raise ConfigError(f"{where}.bins: got {total:,} in all; expected {MOST_BINS:,} at most")
    return found


def check_reference(found: Reweight | None, *, classes: Sequence[str], samples: Sequence[str]) -> None:
    """Refuse to match a distribution that nobody has.

    Parameters
    ----------
    found : what was asked for
    classes, samples : their names

    Raises
    ------
    ConfigError
    """
    known = [FLAT, *classes, *samples]
    if found is not None and found.to not in known:
        raise ConfigError(
            f"reweight.to: got {found.to!r}; expected 'flat', or the name of a class or sample; "
            f"{nearest(found.to, known)}"
        )
