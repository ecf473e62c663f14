"""What a list of models shows of each, and which ones a search is for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from serve.errors import BadRequest
from serve.models.index import Summary

Condition = Callable[["Card"], bool]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What is known of a model.

    Parameters
    ----------
    versions : all that are there, rising
    latest : the highest one that can be used; ``None`` if none can
    tags : the model's own and those in the manifest of the latest version
    about : what the manifest of the latest version says
    broken : versions above the latest that can't be used, and why
    problem : why ``config.json`` can't be read
    unloaded : versions that are out of service
    """

    name: str
    versions: tuple[int, ...]
    latest: int | None
    aliases: Mapping[str, int]
    tags: tuple[str, ...]
    about: Summary | None
    broken: Mapping[int, str]
    problem: str | None = None
    unloaded: tuple[int, ...] = ()

    @property
    def features(self) -> frozenset[str]:
        """Names of branches and features that the latest version takes."""
        return frozenset(self.about.features) if self.about else frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Return a summary as plain data for JSON."""
        made = self.about
        about = {} if made is None else {
            "author": made.author, "description": made.description, "created": made.created,
            "columns": list(made.columns), "metrics": dict(made.metrics), "features": list(made.features),
        }  # fmt: skip
        known = {
            "name": self.name, "latest": self.latest, "versions": list(self.versions), "aliases": dict(self.aliases),
            "tags": list(self.tags), **about, "broken": {str(v): why for v, why in self.broken.items()},
            "unloaded": list(self.unloaded),
        }  # fmt: skip
        return known if self.problem is None else {**known, "problem": self.problem}


def conditions(
    *,
    tag: str | None = None,
    feature: str | None = None,
    author: str | None = None,
    text: str | None = None,
    bounds: Mapping[str, float] | None = None,
) -> list[Condition]:
    """Return what a card must fulfil; what is not given does not matter.

    Parameters
    ----------
    tag : that the model has
    feature : a branch or feature that it takes
    author, text : parts of the author, and of name, description, author or tags; in any case of letters
    bounds : ``min_<metric>`` or ``max_<metric>`` to a number; a model without the metric does not fulfil it

    Raises
    ------
    BadRequest
        For a bound of another name, or one that is no number.
    """
    wanted: list[Condition] = [_limit(name, value) for name, value in (bounds or {}).items()]
    if tag is not None:
        wanted.append(lambda card: tag in card.tags)
    if feature is not None:
        wanted.append(lambda card: feature in card.features)
    if author is not None:
        wanted.append(lambda card: card.about is not None and _is_in(author, card.about.author))
    if text is not None:
        wanted.append(lambda card: _is_in(text, _prose(card)))
    return wanted


def _is_in(part: str, whole: str) -> bool:
    return part.casefold() in whole.casefold()


def _prose(card: Card) -> str:
    made = card.about
    about = (made.description, made.author) if made else ()
    return "\n".join((card.name, *card.tags, *about))


def _limit(name: str, value: float) -> Condition:
    """Turn ``min_auc`` and a number into a condition."""
    kind, _, metric = name.partition("_")
    if kind not in {"min", "max"} or not metric:
        raise BadRequest(f"{name[:100]!r} is no condition; write min_<metric> or max_<metric>", field=name[:100])
    if not math.isfinite(value):
        raise BadRequest(f"{name[:100]}: got {value}; expected a finite number", field=name[:100])

    def is_met(card: Card) -> bool:
        found = None if card.about is None else card.about.metrics.get(metric)
        return found is not None and (found >= value if kind == "min" else found <= value)

    return is_met
