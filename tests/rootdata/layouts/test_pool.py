import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ShapeError
from rootdata.events.selection import Events, Objects
from rootdata.jagged import Jagged
from rootdata.layouts.inverse import to_awkward
from rootdata.layouts.layout import Layout, Padded, kept_fraction
from rootdata.layouts.packed import Packed, pack
from rootdata.layouts.pool import Pool
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.transform import Transform
from strategies import SENTINEL, blocks, masked, ordinary


def dense(block, rows, *, missing=(SENTINEL,)):
    """Pack a block and gather some of its events."""
    packed = pack(masked(block.events, missing), block.layout, block.transforms, sample=3, file=8)
    return gather(block.layout, packed, rows)


def gather(layout, packed, rows):
    """Gather events of one block: the arrays of the layout alone."""
    rows = np.array(rows, np.int64)
    arrays = Pool(layout, [packed]).gather(np.zeros(len(rows), np.int64), rows)
    return {name: arrays[name] for name in layout.shapes}


def scaled(values, transform):
    """Scale in float64, NaN for what is missing: the meaning of a transform, said another way."""
    x = np.array(values, np.float64)
    x[~np.isfinite(x) | (x == SENTINEL)] = np.nan
    return (
        (np.sign(x) * np.log1p(np.abs(x)) if transform.curve is SIGNED_LOG else x) - transform.shift
    ) * transform.factor


def padded(events, collection, transforms, rows):
    """Pad a collection with awkward: (events, length, features), and which objects are there."""
    objects = events.objects[collection.name]
    columns, real = [], None
    for name in collection.branches:
        content = scaled(objects.columns[name], transforms[name])
        lists = ak.Array([content[a:b] for a, b in zip(objects.offsets[:-1], objects.offsets[1:], strict=True)] + [[]])
        lists = ak.pad_none(ak.values_astype(lists[:-1], np.float64), collection.length, axis=1, clip=True)
        real = ~ak.to_numpy(ak.is_none(lists, axis=1)).reshape(-1, collection.length)
        columns.append(ak.to_numpy(ak.fill_none(lists, np.nan)).reshape(-1, collection.length))
    return np.stack(columns, axis=-1)[rows], real[rows]


def reference(block, rows):
    """Make the arrays of a layout with awkward."""
    layout, transforms = block.layout, block.transforms
    n = len(block.events)
    flat = np.stack([scaled(block.events.flat[f], transforms[f]) for f in layout.flat] or [np.empty(n)], axis=-1)[rows]
    flat = flat[:, : len(layout.flat)]
    objects = {c.name: padded(block.events, c, transforms, rows) for c in layout.collections}
    if layout.kind == "tokens":
        arrays = {"flat": filled(flat, layout)} if layout.flat else {}
        for name, (values, real) in objects.items():
            arrays |= {name: filled(values, layout), f"{name}_mask": real}
        return arrays
    x = np.concatenate([flat, *(_flattened(values) for values, _ in objects.values())], axis=1)
    return {"x": filled(x, layout), "mask": ~np.isnan(x)}


def _flattened(values):
    return values.reshape(len(values), values.shape[1] * values.shape[2])


def filled(values, layout):
    return np.where(np.isnan(values), layout.pad, values)


def some_rows(block, data):
    last = len(block.events) - 1
    return data.draw(st.lists(st.integers(0, last), max_size=12)) if last >= 0 else []


@given(blocks(), st.data())
def test_dense_arrays_equal_an_awkward_reference(block, data):
    rows = some_rows(block, data)
    found, expected = dense(block, rows), reference(block, rows)
    assert found.keys() == expected.keys() == block.layout.shapes.keys()
    for name, values in found.items():
        assert values.dtype == (np.bool_ if name.endswith("mask") else np.float32)
        assert values.shape == (len(rows), *block.layout.shapes[name])
        if values.dtype == np.bool_:
            np.testing.assert_array_equal(values, expected[name])
        else:
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5)


@given(blocks(kind="vector"))
def test_names_and_columns_of_the_vector_layout_agree(block):
    layout, rows = block.layout, range(len(block.events))
    assert layout.shapes["x"] == (len(layout.feature_names),)
    x = dense(block, rows)["x"]
    for column, name in enumerate(layout.feature_names):
        if name in block.events.flat:
            expected = filled(scaled(block.events.flat[name], block.transforms[name]), layout)
        else:
            branch, position = name[:-1].split("[")
            collection = next(c for c in layout.collections if branch in c.branches)
            values, _ = padded(block.events, collection, block.transforms, rows)
            expected = filled(values[:, int(position), collection.branches.index(branch)], layout)
        np.testing.assert_allclose(x[:, column], expected, rtol=1e-5, atol=1e-5)


@given(blocks(elements=ordinary))
def test_the_inverse_gives_back_what_was_put_in(block):
    layout = block.layout
    record = to_awkward(layout, dense(block, range(len(block.events))), block.transforms)
    assert len(record) == len(block.events)
    for name in layout.flat:
        np.testing.assert_allclose(ak.to_numpy(record[name]), block.events.flat[name], rtol=1e-4, atol=1e-4)
    for c in layout.collections:
        objects = block.events.objects[c.name]
        for name in c.branches:
            expected = Jagged(objects.offsets, objects.columns[name]).to_awkward()[:, : c.length]
            assert ak.num(record[c.name, name]).to_list() == ak.num(expected).to_list()
            np.testing.assert_allclose(ak.flatten(record[c.name, name]), ak.flatten(expected), rtol=1e-4, atol=1e-4)


@given(blocks(kind="vector"))
def test_the_inverse_of_a_vector_has_nan_for_what_is_missing(block):
    record = to_awkward(block.layout, dense(block, range(len(block.events))), block.transforms)
    for name in block.layout.flat:
        missing = np.isnan(scaled(block.events.flat[name], Transform()))
        np.testing.assert_array_equal(np.isnan(ak.to_numpy(record[name])), missing)
    for c in block.layout.collections:
        values, _ = padded(block.events, c, {b: Transform() for b in c.branches}, range(len(block.events)))
        some = ~np.isnan(values).all(axis=2)
        last = np.where(some.any(axis=1), c.length - np.argmax(some[:, ::-1], axis=1), 0)
        for i, name in enumerate(c.branches):
            assert ak.num(record[c.name, name]).to_list() == last.tolist()
            expected = [np.isnan(row[:n, i]).tolist() for row, n in zip(values, last, strict=True)]
            assert ak.to_list(np.isnan(record[c.name, name])) == expected


@given(blocks())
def test_events_keep_their_label_weight_and_identity(block):
    packed = pack(block.events, block.layout, block.transforms, sample=3, file=8)
    assert len(packed) == len(block.events)
    np.testing.assert_array_equal(packed.label, block.events.label)
    np.testing.assert_array_equal(packed.weight, block.events.weight)
    rows = np.arange(len(packed))[::-1].copy()
    got = Pool(block.layout, [packed]).gather(np.zeros(len(packed), np.int64), rows)
    assert got["index"].tolist() == [[3, 8, entry] for entry in block.events.entry[rows].tolist()]
    np.testing.assert_array_equal(got["label"], block.events.label[rows])
    np.testing.assert_array_equal(got["weight"], block.events.weight[rows])


@given(st.data())
def test_events_of_several_blocks_are_gathered_in_any_order(data):
    block = data.draw(blocks())
    packed = pack(block.events, block.layout, block.transforms, sample=1, file=2)
    twice = pack(block.events, block.layout, {n: Transform(factor=2.0) for n in block.transforms}, sample=5, file=6)
    n = len(packed)
    places = data.draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, n - 1)), max_size=9)) if n else []
    which, rows = np.array(places, np.int64).reshape(-1, 2).T.copy()
    got = Pool(block.layout, [packed, twice]).gather(which, rows)
    each = [Pool(block.layout, [p]).gather(np.zeros(n, np.int64), np.arange(n)) for p in (packed, twice)]
    for name, values in got.items():
        expected = [each[w][name][r] for w, r in places]
        np.testing.assert_array_equal(values, np.array(expected, values.dtype).reshape(values.shape))


@pytest.mark.parametrize("offsets", [[0, 5, 2], [1, 1, 2], [0, 2], [0, -1, 2]])
def test_offsets_that_point_elsewhere_are_refused(offsets):
    events = Events(
        entry=np.arange(2),
        part=np.zeros(2, np.uint8),
        label=np.zeros(2, np.int64),
        weight=np.ones(2, np.float32),
        flat={},
        objects={"jets": Objects(offsets=np.array(offsets), columns={"pt": np.ones(2, np.float32)})},
        before=np.zeros(3, np.int64),
    )
    layout = Layout(kind="vector", flat=(), collections=(Padded(name="jets", branches=("pt",), length=2),))
    with pytest.raises(ShapeError, match=f"{len(offsets)} offsets for 2 events"):
        pack(events, layout, {"pt": Transform()}, sample=0, file=0)


@pytest.mark.parametrize("kind", ["vector", "tokens"])
@given(block=blocks(elements=ordinary))
def test_a_real_value_equal_to_the_padding_stays_real(kind, block):
    # Scaling sends every value to 0, and 0 is the padding: only the mask can tell them apart.
    flat, collections = block.layout.flat, block.layout.collections
    zero = {name: Transform(factor=1e-30) for name in block.transforms}
    layout = Layout(kind=kind, flat=flat, collections=collections, pad=0.0)
    block = type(block)(block.events, layout, zero)
    found, expected = dense(block, range(len(block.events)), missing=()), {}
    counts = {c.name: np.diff(block.events.objects[c.name].offsets) for c in collections}
    there = {c.name: np.arange(c.length) < counts[c.name][:, None] for c in collections}
    if kind == "vector":
        real = [there[c.name].repeat(len(c.branches), axis=1) for c in collections]
        expected["mask"] = np.concatenate([np.ones((len(block.events), len(flat)), bool), *real], axis=1)
    else:
        expected = {f"{name}_mask": real for name, real in there.items()}
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_what_is_beyond_float32_when_it_is_scaled_is_missing(dtype):
    layout = Layout(kind="vector", flat=("x",), collections=())
    events = Events(
        entry=np.arange(3), part=np.zeros(3, np.uint8), label=np.zeros(3, np.int64), weight=np.ones(3, np.float32),
        flat={"x": np.array([1, 3, 2**60], dtype)}, objects={}, before=np.array([3, 0, 0]),
    )  # fmt: skip
    packed = pack(events, layout, {"x": Transform(factor=1e38)}, sample=0, file=0)
    out = gather(layout, packed, [0, 1, 2])
    assert out["mask"].tolist() == [[True], [True], [False]]
    assert out["x"].ravel().tolist() == [np.float32(1e38), np.float32(1e38) * 3, 0]


def test_padding_is_put_in_after_scaling():
    layout = Layout(kind="tokens", flat=(), collections=(Padded(name="jets", branches=("pt",), length=3),), pad=-9.0)
    jets = Jagged(np.array([0, 1, 1]), np.array([[5.0]], np.float32))
    arrays = {"jets": np.array([[[0.5], [-9], [-9]], [[-9], [-9], [-9]]], np.float32)}
    arrays["jets_mask"] = np.array([[True, False, False], [False] * 3])
    transforms = {"pt": Transform(shift=4.0, factor=0.5)}
    assert to_awkward(layout, arrays, transforms).jets.pt.to_list() == [[5.0], []]
    packed = Packed(
        flat=np.empty((2, 0), np.float32),
        objects={"jets": Jagged(jets.offsets, (jets.content - 4) * 0.5)},
        label=np.zeros(2, np.int64),
        weight=np.ones(2, np.float32),
        entry=np.zeros(2, np.int64),
        sample=0,
        file=0,
    )
    out = gather(layout, packed, [0, 1])
    np.testing.assert_array_equal(out["jets"], arrays["jets"])
    np.testing.assert_array_equal(out["jets_mask"], arrays["jets_mask"])


@given(blocks(), st.data())
def test_arrays_of_another_shape_are_refused(block, data):
    arrays = dense(block, range(len(block.events)))
    name = data.draw(st.sampled_from(sorted(arrays)))
    wider = {**arrays, name: np.concatenate([arrays[name], arrays[name]], axis=-1)}
    fewer = {k: v for k, v in arrays.items() if k != name}
    for wrong in (wider, fewer):
        with pytest.raises(ShapeError, match=rf"^{name}: got .*{block.layout.kind} layout has"):
            to_awkward(block.layout, wrong, block.transforms)


@given(st.lists(st.integers(0, 20), max_size=8), st.integers(1, 9))
def test_kept_fraction_counts_objects(histogram, length):
    events = [m for m, n in enumerate(histogram) for _ in range(n)]
    total = sum(events)
    expected = sum(min(m, length) for m in events) / total if total else 1.0
    assert kept_fraction(histogram, length) == pytest.approx(expected)
