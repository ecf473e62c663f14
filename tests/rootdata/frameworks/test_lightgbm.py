"""Rows by number, in whatever way LightGBM or somebody else asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import make_data

from rootdata.errors import ConfigError
from rootdata.frameworks.batches import Batches
from rootdata.frameworks.lightgbm import LightGBMRows, dataset


@pytest.mark.parametrize(
    "which", [slice(None), slice(3, 200), slice(None, 5), slice(-5, None), slice(0, 90, 20), slice(7, 7), [9, 1], -1]
)
def test_rows_are_those_of_the_table(which: Any, samples: Path) -> None:
    source = Batches(make_data(samples, layout="vector", batch_size=64), ordered=True)
    rows = LightGBMRows(source.rows, source.num_events)
    np.testing.assert_array_equal(rows[which], source.table()[0][which])
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_several_targets_are_refused(samples: Path) -> None:
    unlabelled = {"s": {"files": str(samples / "0.root")}}
    two = make_data(samples, layout="vector", targets={"a": "nlep", "b": "2 * nlep"}, samples=unlabelled)
    with pytest.raises(ConfigError, match="targets: got 2; LightGBM learns one number of an event"):
        dataset(two)
