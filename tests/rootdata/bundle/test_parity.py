"""The events that a graph is compared on: real ones of every sample, and every edge of what can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import batches_of, branches_of, make_data
from files_for_tests import write

from rootdata.bundle import parity
from rootdata.events.needs import feature_branches
from rootdata.jagged import Jagged
from strategies import SENTINEL


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Jagged):
        return same(first.offsets, second.offsets) and same(first.content, second.content)
    return bool(first.dtype == second.dtype and np.array_equal(first, second, equal_nan=first.dtype.kind == "f"))


def test_real_events_are_test_events_of_every_sample(samples: Any) -> None:
    data = make_data(samples)
    table = parity.real_events(data.data, data.specs, 10_000)
    index = batches_of(data)["index"].numpy()
    ordered = index[np.lexsort(index.T[::-1])]
    expected = branches_of(data, ordered, feature_branches(data.data))
    assert table.num_events == len(index) == data.specs.num_events("test")
    assert list(table.columns) == list(feature_branches(data.data))
    assert all(same(table.columns[name], column) for name, column in expected.columns.items())


def test_a_sentinel_is_missing_in_files_of_either_type(tmp_path: Path) -> None:
    values = np.where(np.arange(40) % 4, np.arange(40.0), -999.9)
    for number, dtype in enumerate(("f4", "f8")):
        write(tmp_path / f"{number}.root", {"x": values.astype(dtype)})
    found = {"samples": {"all": {"files": str(tmp_path / "*.root")}}, "flat": ["x"], "jagged": None, "derived": None}
    data = make_data(tmp_path, **found, missing=[-999.9], scale="none", layout="vector", split={"test": 1.0})
    table = parity.real_events(data.data, data.specs, 80)
    assert table.columns["x"].tolist() == [*values.tolist()] * 2


@pytest.mark.parametrize("num_events", [1, 2, 3, 41])
def test_no_more_events_are_read_than_asked_for(samples: Any, num_events: int) -> None:
    data = make_data(samples, cut="tagged == 0", scale="none")
    table = parity.real_events(data.data, data.specs, num_events)
    assert table.num_events == num_events
    assert not table.columns["tagged"].any()
    assert all(len(column) == num_events for column in table.columns.values())


def test_without_a_test_part_others_are_taken(samples: Any) -> None:
    for split in ({"train": 1.0}, {"train": 0.5, "val": 0.5}):
        data = make_data(samples, split=split)
        assert parity.real_events(data.data, data.specs, 10_000).num_events == data.specs.num_events(list(split)[-1])


@pytest.mark.parametrize("num_events", [1, 3, 8, 20])
def test_every_edge_is_among_the_bent_events(samples: Any, num_events: int) -> None:
    data = make_data(samples)
    table = parity.real_events(data.data, data.specs, num_events)
    before = table.columns["met"].copy()
    edges, each = parity.edge_events(table, data.data, longest=4), parity.bent_events(num_events)
    assert each == min(8, num_events)
    assert edges.num_events % each == 0
    pt, met, ident = edges.columns["Jet_pt"], edges.columns["met"], edges.columns["id"]
    assert isinstance(pt, Jagged)
    assert (pt.counts[:each] == 0).all()
    assert (pt.counts[each : 2 * each] == 4 + parity.OVERFULL).all()
    assert np.isnan(met[-each:]).all()
    assert {np.inf, -np.inf, SENTINEL} <= set(met.tolist())
    assert int(SENTINEL) in ident
    content = {n: c.content if isinstance(c, Jagged) else c for n, c in table.columns.items()}
    assert {n: c.dtype for n, c in content.items()} == {
        n: c.content.dtype if isinstance(c, Jagged) else c.dtype for n, c in edges.columns.items()
    }
    assert same(table.columns["met"], before)  # bent is a copy


def test_the_batch_is_that_of_a_training(samples: Any) -> None:
    for layout in ("tokens", "vector"):
        data = make_data(samples, layout=layout)
        batch = batches_of(data)
        table = branches_of(data, batch["index"].numpy(), feature_branches(data.data))
        made = parity.training_batch(data.data, data.specs, table)
        assert made.keys() == data.shapes.keys()
        for name, values in made.items():
            np.testing.assert_array_equal(values, batch[name].numpy())
