"""Which cases of a test are in the fast lane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], *, every: int = 3) -> list[Any]:
    """Leave one of every few cases in the fast lane, and put the others into the long one.

    Parameters
    ----------
    cases : as ``parametrize`` takes them; a tuple has the values of several arguments
    every : how many cases there are for one in the fast lane
    """
    return [
        case
        if i % every == 0
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for i, case in enumerate(cases)
    ]
