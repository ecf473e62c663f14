"""The preprocessing inside a graph, in torch: what training does, number for number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rootdata.bundle.graph.deployed import Deployed, Scaler, activation_of, call_of
from rootdata.bundle.manifest import TensorSpec
from rootdata.bundle.signature import _inputs
from rootdata.errors import BundleError
from rootdata.layouts.layout import Layout, Padded
from rootdata.layouts.packed import pack
from rootdata.layouts.pool import Pool
from rootdata.missing import find_missing, mask_sentinels
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.transform import Transform
from strategies import SENTINEL, Block, blocks, masked, number_columns, raw_of

some_transforms = st.builds(
    Transform, shift=st.sampled_from([0.0, 1.5, -40.0, 1e6]), factor=st.sampled_from([1.0, 0.025, -2.0]),
    curve=st.sampled_from([None, SIGNED_LOG]),
)  # fmt: skip


def spec_of(column: Any) -> TensorSpec:
    """Declare the input that holds a column, as an export does."""
    (spec,) = _inputs(None, {"x": column.dtype}, None)
    return spec


@given(number_columns(min_size=1), some_transforms, st.sampled_from([(), (SENTINEL,), (SENTINEL, 7.0, 0.5, 1e300)]))
def test_values_are_scaled_as_in_training(column: Any, transform: Transform, missing: tuple[float, ...]) -> None:
    spec = spec_of(column)
    raw = torch.from_numpy(column.astype(spec.dtype)[:, None])
    scaled, gone = Scaler(spec, [transform], missing)(raw)
    read, expected = mask_sentinels(column, missing), np.empty(len(column), np.float32)
    transform.apply(read, expected)
    marks = find_missing(read)
    np.testing.assert_array_equal(gone[:, 0].numpy(), np.zeros(len(column), bool) if marks is None else marks)
    assert torch.isfinite(scaled).all()
    kept = ~gone[:, 0].numpy()
    np.testing.assert_allclose(scaled[:, 0].numpy()[kept], expected[kept], rtol=3e-7, atol=1e-6)
    if transform.curve is None:
        np.testing.assert_array_equal(scaled[:, 0].numpy()[kept], expected[kept])


by_branch = st.dictionaries(
    st.sampled_from(["a", "b", "c", "default"]),
    st.lists(st.sampled_from([SENTINEL, -1.0, 0.0, 3.0]), max_size=3).map(tuple),
)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@given(missing=by_branch, derived=st.sets(st.sampled_from("abc")), data=st.data())
def test_each_branch_has_sentinels_of_its_own(dtype: str, missing: Any, derived: set[str], data: Any) -> None:
    rows = st.lists(st.tuples(*[st.sampled_from([-999, -1, 0, 2, 3])] * 3), min_size=1, max_size=6)
    raw, features = np.array(data.draw(rows), dtype), ("a", "b[1]", "c")
    spec = TensorSpec(name="x", dtype=dtype, shape=("events", 3), features=features)
    _, gone = Scaler(spec, [Transform()] * 3, missing, {"b[1]" if name == "b" else name for name in derived})(
        torch.from_numpy(raw)
    )
    for i, branch in enumerate("abc"):
        own = () if branch in derived else missing.get(branch, missing.get("default", ()))
        assert gone[:, i].tolist() == [value in own for value in raw[:, i].tolist()]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_what_is_beyond_float32_when_it_is_scaled_is_missing_as_in_training(dtype: str) -> None:
    column, transform = np.array([1, 3, 2**60], dtype), Transform(factor=1e38)
    spec = TensorSpec(name="x", dtype=dtype, shape=("events", 1), features=("x",))
    scaled, missing = Scaler(spec, [transform], ())(torch.from_numpy(column[:, None]))
    trained = np.empty(3, np.float32)
    transform.apply(column, trained)
    assert missing[:, 0].tolist() == np.isnan(trained).tolist() == [False, False, True]
    np.testing.assert_array_equal(scaled[:2, 0], trained[:2])


def test_event_numbers_keep_their_differences() -> None:
    column = 2**60 + np.arange(5)
    transform = Transform(shift=2.0**60, factor=1.0)
    scaled, _ = Scaler(spec_of(column), [transform], ())(torch.from_numpy(column[:, None]))
    # neighbours of 2**60 are 256 apart in float64, as they are in training
    assert scaled[:, 0].tolist() == [0.0] * 5
    expected = np.empty(5, np.float32)
    transform.apply(column, expected)
    assert scaled[:, 0].tolist() == expected.tolist()


def test_a_shift_that_float32_can_not_say_is_taken_off_in_two_steps() -> None:
    column, transform = 10_000_003 + np.arange(9), Transform(shift=10_000_006.7, factor=0.5)
    spec = TensorSpec(name="flat", dtype="float32", shape=("events", 1), features=("x",))
    raw, expected = torch.from_numpy(column.astype(np.float32)[:, None]), np.empty(9, np.float32)
    transform.apply(column, expected)
    scaled, _ = Scaler(spec, [transform], (), wide={"x"})(raw)
    np.testing.assert_allclose(scaled[:, 0].numpy(), expected, rtol=3e-7, atol=1e-7)
    assert np.abs(Scaler(spec, [transform], ())(raw)[0][:, 0].numpy() - expected).max() > 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_keep_the_digits_of_all_sizes(dtype: Any) -> None:
    sizes = np.concatenate([np.logspace(-37, 37, 2000), [0.0, 2.0**24, 3e38]]).astype(dtype)
    column, transform = np.concatenate([sizes, -sizes]), Transform(curve=SIGNED_LOG, factor=1e6)
    expected = np.empty(len(column), np.float32)
    transform.apply(column, expected)
    scaled, _ = Scaler(spec_of(column), [transform], ())(torch.from_numpy(column[:, None]))
    np.testing.assert_allclose(scaled[:, 0].numpy(), expected, rtol=5e-7, atol=1e-36)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sentinel_is_a_number_where_it_was_computed(dtype: str) -> None:
    spec = TensorSpec(name="flat", dtype=dtype, shape=("events", 3), features=("met", "difference", "ht"))
    raw = torch.full((2, 3), SENTINEL, dtype=getattr(torch, dtype))
    raw[1] = math.nan
    for derived, expected in (
        ({"difference"}, [True, False, True]),
        ((), [True] * 3),
        (set(spec.features), [False] * 3),
    ):
        values, gone = Scaler(spec, [Transform(shift=1.0)] * 3, (SENTINEL, -9.0), derived)(raw)
        assert gone.tolist() == [expected, [True] * 3]
        assert values[0][~gone[0]].tolist() == [SENTINEL - 1.0] * expected.count(False)


class Everything(nn.Module):
    """Returns a batch as one row an event."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.cat([v.flatten(1).float() for v in batch.values()], dim=1)


@given(blocks())
def test_a_graph_makes_the_batches_of_training(block: Block) -> None:
    layout, n = block.layout, len(block.events)
    specs = _inputs(None, {f: c.dtype for f, c in block.events.flat.items()}, None) if layout.flat else []
    for c in layout.collections:
        specs += _inputs(c.name, {b: block.events.objects[c.name].columns[b].dtype for b in c.branches}, c.length)
        specs.append(TensorSpec(name=f"{c.name}_mask", dtype="float32", shape=("events", c.length), collection=c.name))
    deployed = Deployed(
        Everything(), lambda n, b: n(b), layout=layout, specs=specs, transforms=block.transforms,
        missing=(SENTINEL,), activation="none",
    )  # fmt: skip
    made = deployed.batch(*map(torch.from_numpy, raw_of(block, specs)))
    packed = pack(masked(block.events), layout, block.transforms, sample=0, file=0)
    arrays = Pool(layout, [packed]).gather(np.zeros(n, np.int64), np.arange(n))
    arrays = {name: arrays[name] for name in layout.shapes}
    assert list(made) == list(arrays)
    for name, expected in arrays.items():
        assert made[name].dtype == (torch.bool if name.endswith("mask") else torch.float32)
        np.testing.assert_allclose(made[name].numpy(), expected, rtol=3e-7, atol=1e-6)
    assert (
        deployed(*map(torch.from_numpy, raw_of(block, specs))).shape
        == (n, sum(a[0].size for a in arrays.values()) if n else 0)
        or not n
    )


def test_one_padded_object_is_shown_of_an_event_without_any() -> None:
    mask = torch.tensor([[False, False], [True, False], [False, True]])
    layout = Layout(kind="tokens", flat=(), collections=(Padded(name="jets", branches=("a",), length=2),), pad=3.0)
    for reveals, expected in ((True, [1, 1, 1]), (False, [0, 1, 1])):
        deployed = Deployed(
            nn.Identity(), lambda n, b: b["jets_mask"].sum(1), layout=layout, specs=[], transforms={}, missing=(),
            activation="none", reveal_empty=reveals,
        )  # fmt: skip
        batch = {"jets": torch.zeros(3, 2, 1), "jets_mask": mask}
        assert deployed.scores(batch)[:, 0].tolist() == expected
        assert batch["jets_mask"] is mask


# How networks are called


class Named(nn.Module):
    def forward(self, flat: Tensor, jets: Tensor, jets_mask: Tensor) -> Tensor:
        return flat + jets * jets_mask


class Swapped(nn.Module):
    def forward(self, jets_mask: Tensor, flat: Tensor) -> Tensor:
        return flat - jets_mask


class Whole(nn.Module):
    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["flat"]


class Optional(nn.Module):
    def forward(self, flat: Tensor, jets_mask: Tensor | None = None, scale: float = 10.0) -> Tensor:
        return flat * scale if jets_mask is None else jets_mask


class Neither(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


BATCH = {"flat": torch.tensor(1.0), "jets": torch.tensor(2.0), "jets_mask": torch.tensor(3.0)}


@pytest.mark.parametrize(
    ("network", "expected"),
    [(Named(), 7.0), (Swapped(), -2.0), (Whole(), 1.0), (Optional(), 3.0), (nn.Sequential(nn.ReLU()), 1.0)],
)
def test_a_network_is_called_by_the_names_of_its_arguments(network: nn.Module, expected: float) -> None:
    assert call_of(network, list(BATCH))(network, BATCH).item() == expected


def test_a_plain_layer_can_not_be_called_by_name() -> None:
    assert call_of(nn.Linear(1, 1), ["x", "mask"])(nn.Identity(), {"x": 5}) == {"x": 5}


def test_arguments_that_are_no_keys_are_refused_with_the_remedy() -> None:
    with pytest.raises(BundleError, match=r"Neither.forward takes \['a', 'b'\]; the batches have .*give `call`"):
        call_of(Neither(), list(BATCH))


# Activations


@pytest.mark.parametrize(
    ("asked", "shape", "classes", "chosen"),
    [
        ("auto", (5,), 2, "sigmoid"), ("auto", (5, 1), 2, "sigmoid"), ("auto", (5, 2), 2, "softmax"),
        ("auto", (5, 3), 3, "softmax"), ("none", (5, 7), 2, "none"), ("sigmoid", (5, 7), 2, "sigmoid"),
    ],
)  # fmt: skip
def test_outputs_become_scores(asked: str, shape: tuple[int, ...], classes: int, chosen: str) -> None:
    assert activation_of(asked, torch.zeros(shape), classes) == chosen


@pytest.mark.parametrize(
    ("asked", "shape", "words"),
    [("auto", (5, 4), "4 columns for 3 classes"), ("auto", (5, 1, 1), "expected"), ("relu", (5,), "allowed: auto")],
)
def test_outputs_that_mean_nothing_are_refused(asked: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        activation_of(asked, torch.zeros(shape), 3)
