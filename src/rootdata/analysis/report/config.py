"""What can be chosen of a report."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Self

from rootdata.errors import ConfigError
from rootdata.options import typed, values
from rootdata.options.typed import option

STYLES = ("plain", "CMS", "ATLAS", "LHCb")


def _style(value: Any, where: str) -> str:
    return values.choice(value, STYLES, where)


def _above_zero(value: Any, where: str) -> float:
    found = values.number(value, where)
    if found <= 0:
        raise ConfigError(f"{where}: got {found:g}; expected a number above 0")
    return found


def _not_negative(value: Any, where: str) -> float:
    found = values.number(value, where)
    if found < 0:
        raise ConfigError(f"{where}: got {found:g}; expected 0 or more")
    return found


def _shares(value: Any, where: str) -> tuple[float, ...]:
    found = tuple(values.number(share, where) for share in values.listed(value, where))
    if not found or not all(0 < share < 1 for share in found) or any(b <= a for a, b in itertools.pairwise(found)):
        raise ConfigError(f"{where}: got {list(found)}; expected signal efficiencies that rise, above 0 and below 1")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """The options of a report.

    Parameters
    ----------
    style : how pictures look: ``plain``, or as an experiment asks for: ``CMS``, ``ATLAS``, ``LHCb`` (by mplhep)
    label : words beside the experiment's name, such as ``Simulation Preliminary``
    energy : of the collisions in TeV, for the label
    luminosity : in fb^-1, for the label; yields are the sums of weights, which have to mean it
    background_uncertainty : relative, of the significance
    working_points : signal efficiencies at which the rejection of background is told
    bins : of distributions of the score
    training_events : of the training part that are scored, to be compared with the test; 0 leaves that out
    importance_events : test events whose inputs are kept for distributions and importances; 0 leaves these out
    shuffles : of every input, whose spread is the error of its importance
    gradients : compute integrated gradients, too
    """

    style: str = option(_style, "plain")
    label: str = option(values.text, "")
    energy: float | None = option(_above_zero, None, is_optional=True)
    luminosity: float | None = option(_above_zero, None, is_optional=True)
    background_uncertainty: float = option(_not_negative, 0.1)
    working_points: tuple[float, ...] = option(_shares, (0.3, 0.5, 0.7, 0.9))
    bins: int = option(values.positive, 40)
    training_events: int = option(values.natural, 100_000)
    importance_events: int = option(values.natural, 10_000)
    shuffles: int = option(values.positive, 3)
    gradients: bool = option(values.flag, False)

    @classmethod
    def parse(cls, **plain: Any) -> Self:
        """Check options.

        Raises
        ------
        ConfigError
        """
        return typed.parse(cls, plain, where="the options of the report", prefix="report: ")
