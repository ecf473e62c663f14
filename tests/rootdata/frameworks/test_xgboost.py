"""What XGBoost is handed: batches, or with a folder pages of many of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xgboost", reason="xgboost: this framework is not installed")

from rootdata.frameworks import xgboost


@pytest.mark.parametrize(("on_disk", "sizes"), [(False, [4, 4, 0, 4, 3]), (True, [8, 7])])
def test_pages_hold_all_events_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool, sizes: list[int]
) -> None:
    monkeypatch.setattr(xgboost, "PAGE", 6)
    whole = np.arange(30.0, dtype="f4").reshape(15, 2), np.arange(15), np.arange(15.0) + 100
    ends = np.cumsum([0, 4, 4, 0, 4, 3])
    batches = [tuple(part[a:b] for part in whole) for a, b in itertools.pairwise(ends)]
    found = xgboost.XGBoostBatches(lambda: iter(batches), folder=tmp_path if on_disk else None)

    def handed() -> Iterator[dict[str, Any]]:
        rows: dict[str, Any] = {}
        while found.next(rows.update):
            yield dict(rows)

    for _ in range(2):
        found.reset()
        pages = list(handed())
        assert [len(rows["label"]) for rows in pages] == sizes
        for name, expected in zip(("data", "label", "weight"), whole, strict=True):
            np.testing.assert_array_equal(np.concatenate([rows[name] for rows in pages]), expected)
