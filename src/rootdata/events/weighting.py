"""What the weights of events are multiplied by once all of them are known: to a luminosity, balanced, reweighted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rootdata.errors import DataError
from rootdata.events.quantiles import Quantiles
from rootdata.events.selection import Doubles, Events, Thinning
from rootdata.events.split import uniform
from rootdata.jagged import Ints
from rootdata.location import Location
from rootdata.missing import Bools
from rootdata.options.weighting import Bins

Singles = npt.NDArray[np.float32]
Edges = tuple[tuple[float, ...], ...]

TALLIED = ("events", "sum", "size", "squares", "largest")
"""What is known of the weights in a bin: how many, their sum, that of their sizes, of squares, the largest size."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What reweighting does to the training events of a class.

    Parameters
    ----------
    events : before
    outside : of them, in no bin, or in one that can't be brought to what is asked for
    bins, empty : how many, and how many of those without events where there should be some
    unusable : bins whose weights add up to 0 or less
    capped : bins whose factor is that of the cap
    effective, effective_before : (sum w)^2 / sum w^2
    largest : size of a weight, as a multiple of the mean one
    """

    events: int
    outside: int
    bins: int
    empty: int
    unusable: int
    capped: int
    effective: float
    effective_before: float
    largest: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BinFactors:
    """By what the weights of a class's training events are multiplied.

    Parameters
    ----------
    edges : of the bins of each variable; infinite ones at the ends of those that were learnt
    factors : of each bin, the last variable's running fastest
    figures : what follows
    """

    edges: Edges
    factors: tuple[float, ...]
    figures: Figures

    def at(self, values: Sequence[Doubles]) -> Doubles:
        """Return the factor of each event; 0 in no bin."""
        table = np.append(np.array(self.factors), 0.0)
        return table[bins_of(values, self.edges)]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weighting:
    """What the weights of events are multiplied by.

    Parameters
    ----------
    samples : factor of each sample, in every part
    yields : sum of the weights of each sample, of its selected events in all parts, with that factor alone
    balance : for every sample, factor of training events of each class; behind the last class of those without a label
    bins : of each class, and of events without a label; ``None`` where they stay
    is_resampled : whether events are kept as often as their factor says, instead of being weighted by it
    """

    samples: tuple[float, ...]
    yields: tuple[float, ...]
    balance: tuple[tuple[float, ...], ...] = ()
    bins: tuple[BinFactors | None, ...] = ()
    is_resampled: bool = False

    def of_sample(self, sample: int) -> dict[str, Any]:
        """Describe all that becomes of a sample's weights."""
        known = slice(sample, sample + 1)
        return dataclasses.replace(self, samples=self.samples[known], yields=(), balance=self.balance[known]).to_dict()

    def apply(self, events: Events, sample: int, *, training: bool) -> Events:
        """Multiply the weights of events, those under variations among them.

        Parameters
        ----------
        events : of one sample
        sample : its number
        training : whether balance and reweighting count, too
        """
        factor: Any = self.samples[sample]
        if training:
            factor = factor * self._of_training(events, sample)
        variations = {
            name: _times(weight, factor, what=f"weights.{name}") for name, weight in events.variations.items()
        }
        return dataclasses.replace(events, weight=_times(events.weight, factor, what="weight"), variations=variations)

    def _of_training(self, events: Events, sample: int) -> Any:
        factor: Any = np.array(self.balance[sample])[events.label] if self.balance else 1.0  # label -1 is the last
        if self.bins and not self.is_resampled:
            factor = factor * self.factors(events.label, events.reweighted)
        return factor

    def factors(self, label: Ints, values: Sequence[Doubles]) -> Doubles:
        """Return the factor that reweighting gives each event."""
        factors = np.ones(len(label))
        for number, known in enumerate(self.bins):
            rows = np.flatnonzero(label % len(self.bins) == number)
            if known is not None and len(rows):
                factors[rows] = known.at([v[rows] for v in values])
        return factors

    @property
    def thinning(self) -> Thinning | None:
        """What leaves out training events; ``None`` where all are kept."""
        return self._kept if self.is_resampled else None

    def _kept(self, entry: Ints, label: Ints, reweighted: Sequence[Doubles], location: Location) -> Bools:
        """Keep an event where the number drawn for it is below its factor, as a share of its class's largest."""
        largest = np.array([max(known.factors) if known else 1.0 for known in self.bins])
        kept: Bools = uniform(entry, location, what="resample") < self.factors(label, reweighted) / largest[label]
        return kept

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; infinite edges as ``None``."""
        plain = dataclasses.asdict(self)
        for known in plain["bins"]:
            if known is not None:
                known["edges"] = [[e if np.isfinite(e) else None for e in axis] for axis in known["edges"]]
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_dict` gave."""
        return cls(
            samples=tuple(plain["samples"]),
            yields=tuple(plain["yields"]),
            balance=tuple(map(tuple, plain["balance"])),
            bins=tuple(None if known is None else _bin_factors(known) for known in plain["bins"]),
            is_resampled=bool(plain["is_resampled"]),
        )


def _bin_factors(plain: Mapping[str, Any]) -> BinFactors:
    edges = (
        tuple((-np.inf if i == 0 else np.inf) if e is None else e for i, e in enumerate(axis))
        for axis in plain["edges"]
    )
    return BinFactors(edges=tuple(edges), factors=tuple(plain["factors"]), figures=Figures(**plain["figures"]))


def _times(weight: Singles, factor: Any, *, what: str) -> Singles:
    with np.errstate(over="ignore"):
        single: Singles = (weight.astype(np.float64) * factor).astype(np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{what}: got {np.abs(weight).max():g}, which times {np.max(factor):g} float32 can't hold")
    return single


# Bins


def edges_of(bins: Sequence[Bins], quantiles: Sequence[Quantiles | None]) -> Edges:
    """Return the edges of the bins of every variable.

    Parameters
    ----------
    bins : a number of bins, or edges, of each variable
    quantiles : of those variables whose bins are a number; equal edges become one, and nothing is outside
    """
    pairs = zip(bins, quantiles, strict=True)
    return tuple(_learnt(axis, known) if isinstance(axis, int) else tuple(axis) for axis, known in pairs)


def _learnt(bins: int, known: Quantiles | None) -> tuple[float, ...]:
    if known is None or not known.count:
        return -np.inf, np.inf
    inner = sorted({known.at(i / bins) for i in range(1, bins)})
    # An edge belongs to the bin above it: one at the smallest value has nothing below.
    return (-np.inf, *(e for e in inner if e > known.at(0.0)), np.inf)


def bins_of(values: Sequence[Doubles], edges: Edges) -> Ints:
    """Return the bin of each event, -1 for those in none; the last bin of a variable holds its upper edge.

    Parameters
    ----------
    values : (n,) of each variable
    edges : of the bins of each
    """
    bins, is_outside = np.zeros(len(values[0]), np.int64), np.zeros(len(values[0]), bool)
    for column, axis in zip(values, edges, strict=True):
        place = np.searchsorted(axis, column, side="right") - 1
        place[column == axis[-1]] = len(axis) - 2
        is_outside |= (place < 0) | (place > len(axis) - 2)
        bins = bins * (len(axis) - 1) + place
    bins[is_outside] = -1
    return bins


def count_bins(edges: Edges) -> int:
    """Return the number of bins of all variables together."""
    return int(np.prod([len(axis) - 1 for axis in edges]))


def tally(bins: Ints, weight: Doubles, num_bins: int) -> Doubles:
    """Add up the weights in each bin.

    Parameters
    ----------
    bins, weight : (n,); bin -1 is that of events in none
    num_bins : without it

    Returns
    -------
    (bins + 1, 5) as :data:`TALLIED` has it; behind the last bin events in none
    """
    found = np.zeros((num_bins + 1, len(TALLIED)))
    for column, values in enumerate((np.ones(len(bins)), weight, np.abs(weight), weight**2)):
        found[:, column] = np.bincount(bins % (num_bins + 1), values, minlength=num_bins + 1)
    np.maximum.at(found[:, 4], bins, np.abs(weight))
    return found


def add(first: Doubles, second: Doubles) -> Doubles:
    """Add up two tallies."""
    total = first + second
    total[:, 4] = np.maximum(first[:, 4], second[:, 4])
    return total


def bin_factors(
    edges: Edges, own: Doubles, wanted: Doubles | None, *, cap: float | None, is_resampled: bool, what: str
) -> BinFactors:
    """Learn by what the weights in each bin are multiplied.

    Parameters
    ----------
    edges : of the bins
    own : tally of the class's training events
    wanted : that of those whose distribution it shall have; ``None`` makes it flat
    cap : largest factor, as a multiple of the mean one
    is_resampled : whether events are left out instead of being weighted
    what : whose they are, for an error

    Raises
    ------
    DataError
        Where no bin can be brought to what is asked for.
    """
    inside, total = own[:-1], own[:, 2].sum()
    target = np.ones(len(inside)) if wanted is None else np.maximum(wanted[:-1, 1], 0.0)
    is_usable = (inside[:, 1] > 0) & (target > 0)
    if not is_usable.any():
        lacks = "lies within the bins" if wanted is None else "lies in a bin of those that it shall look like"
        raise DataError(
            f"reweight: none of the {int(own[:, 0].sum()):,} training events of {what} {lacks}, or their weights add "
            "up to 0 there; give other bins"
        )
    factors = np.zeros(len(inside))
    factors[is_usable] = target[is_usable] / inside[is_usable, 1]
    limit = np.inf if cap is None else _limit(factors[is_usable], inside[is_usable, 2], cap)
    is_capped = factors > limit
    factors = np.minimum(factors, limit)
    factors *= total / (factors @ inside[:, 2])
    there = inside[:, 0] > 0
    shares = factors / factors.max() if is_resampled else factors
    squares = (shares if is_resampled else shares**2) @ inside[:, 3]
    largest = inside[:, 4][factors > 0].max() if is_resampled else (factors * inside[:, 4]).max()
    remaining = shares @ inside[:, 0] if is_resampled else own[:, 0].sum()
    figures = Figures(
        events=int(own[:, 0].sum()),
        outside=int(own[-1, 0] + inside[~is_usable, 0].sum()),
        bins=len(inside),
        empty=int((~there & (target > 0)).sum()),
        unusable=int((there & (inside[:, 1] <= 0)).sum()),
        capped=int(is_capped.sum()),
        effective=float((shares @ inside[:, 1]) ** 2 / squares),
        effective_before=float(own[:, 1].sum() ** 2 / own[:, 3].sum()),
        largest=float(largest / (shares @ inside[:, 2] / remaining)),
    )
    return BinFactors(edges=edges, factors=tuple(factors.tolist()), figures=figures)


def _limit(factors: Doubles, sizes: Doubles, cap: float) -> float:
    """Return the largest factor that is ``cap`` times the mean of what it leaves of all factors.

    Parameters
    ----------
    factors, sizes : of every bin: its factor, and the sum of the sizes of the weights in it
    cap : 1 or more
    """
    order = np.argsort(factors)[::-1]
    ordered, weights = factors[order], sizes[order]
    total, above, below = weights.sum(), np.cumsum(weights), np.sum(ordered * weights) - np.cumsum(ordered * weights)
    if ordered[0] * total <= cap * np.sum(ordered * weights):
        return np.inf
    # With the k largest cut to c, c = cap * (below_k + c * above_k) / total.
    for k, (high, low) in enumerate(pairwise([*ordered, 0.0])):
        rest = total - cap * above[k]
        limit = cap * below[k] / rest if rest > 0 else np.inf
        if low <= limit <= high:
            return float(limit)
    return float(ordered[-1])
