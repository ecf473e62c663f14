"""Piecewise-linear encoding against its definition, and edges that come from data."""

import numpy as np
import pytest
import torch
from bundles_for_tests import make_data, write_samples
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ConfigError
from rootdata.models.encodings import PiecewiseLinear, edges_from

numbers = st.floats(-1e3, 1e3, width=32)


@given(st.lists(numbers, min_size=2, max_size=9), st.lists(numbers, min_size=1, max_size=9))
def test_each_number_is_how_far_a_value_got_through_a_bin(edges, values):
    edges = np.sort(np.array(edges, np.float32))
    encoding = PiecewiseLinear(1, len(edges) - 1)
    encoding.set_edges(torch.from_numpy(edges[None]))
    x = torch.tensor(values)[:, None]
    found = encoding(x, torch.ones_like(x, dtype=torch.bool)).numpy()
    for i, (low, high) in enumerate(zip(edges[:-1].astype(float), edges[1:].astype(float), strict=True)):
        bent = np.clip((np.array(values) - low) / (high - low), 0, 1) if high > low else np.zeros(len(values))
        assert np.allclose(found[:, i], bent, atol=1e-3 if high - low < 1e-3 * max(abs(low), 1) else 1e-5)


def test_what_is_masked_is_nothing():
    encoding = PiecewiseLinear(2, 3)
    encoding.set_edges(torch.tensor([[0.0, 1, 2, 3], [0, 1, 1, 1]]))
    found = encoding(torch.full((1, 2), 2.5), torch.tensor([[True, False]]))
    assert found.tolist() == [[1.0, 1.0, 0.5, 0.0, 0.0, 0.0]]


def test_edges_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"got shape \(1, 3\); expected \(2, 4\)"):
        PiecewiseLinear(2, 3).set_edges(torch.zeros(1, 3))


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return write_samples(tmp_path_factory.mktemp("samples"), write_tree)


def test_edges_cut_the_training_values_into_equal_parts(samples):
    data = make_data(samples, layout="vector", quantiles=True)
    data.setup("fit")
    edges = data.edges(4)
    batches = [{k: v.numpy() for k, v in b.items()} for b in data.train_dataloader()]
    x, mask = (np.concatenate([b[name] for b in batches]) for name in ("x", "mask"))
    assert edges["x"].shape == (x.shape[1], 5)
    assert (np.diff(edges["x"], axis=1) >= 0).all()
    for i, own in enumerate(edges["flat"]):
        assert np.array_equal(own, edges["x"][i])
        values = x[mask[:, i], i]
        below, up_to = ([share(values, edge).mean() for edge in own] for share in (np.less, np.less_equal))
        shares = np.linspace(0, 1, 5)
        assert all(a <= q + 0.02 and b >= q - 0.02 for a, b, q in zip(below, up_to, shares, strict=True))
    jets = np.tile(edges["jets"], (4, 1))  # of the objects of a collection all have the edges of their feature
    assert np.array_equal(edges["x"][len(edges["flat"]) :], np.concatenate([jets, np.tile(edges["values"], (2, 1))]))


def test_who_has_no_quantiles_is_told(samples):
    with pytest.raises(ConfigError, match=r"quantiles: got false; .*set it to true"):
        make_data(samples).edges(4)
    with pytest.raises(ConfigError, match="which a RootDataModule knows: give that to the trainer, or call"):
        edges_from(None, 4)
