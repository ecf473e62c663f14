"""Every layout and scaling that is known, and those of the examples: what trains and what is exported are twins."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rootdata.bundle.graph.deployed import Deployed, Scaler
from rootdata.bundle.manifest import TensorSpec
from rootdata.errors import ConfigError, DataError, ShapeError
from rootdata.events.statistics import ColumnStats
from rootdata.layouts.layout import Layout
from rootdata.layouts.packed import pack
from rootdata.layouts.pool import Pool
from rootdata.options.columns import Scaling
from rootdata.options.data import parse_data
from rootdata.registry import LAYOUTS, SCALINGS, Registry
from rootdata.scaling.fit import fit, kind_of
from rootdata.scaling.transform import Transform
from strategies import SENTINEL, blocks, drawn, masked, ordinary, raw_of

FORM = "own_form.Leading"
LAYOUT_NAMES = (*LAYOUTS.names(), "own_layout.ChannelsFirst", FORM, "wrapped")
KEEP_EVERYTHING = {"vector", "tokens", "image", "jagged", "own_layout.ChannelsFirst", "wrapped"}
SCALING_NAMES = (*SCALINGS.names(), "own_scaling.Asinh")


def gathered(block):
    """Gather all events of a block, as training does."""
    n = len(block.events)
    packed = pack(masked(block.events), block.layout, block.transforms, sample=0, file=0)
    arrays = Pool(block.layout, [packed]).gather(np.zeros(n, np.int64), np.arange(n))
    return {name: arrays[name] for name in block.layout.shapes}


def specs_of(block):
    """Declare the inputs of the graph of a block."""
    layout, specs = block.layout, []
    for dtype in ("float32", "float64"):
        names = tuple(f for f in layout.flat if block.events.flat[f].dtype == dtype)
        if names:
            specs.append(TensorSpec(name=f"flat_{dtype}", dtype=dtype, shape=("events", len(names)), features=names))
    for c in layout.collections:
        shape = ("events", len(c.branches), c.length)
        specs.append(TensorSpec(name=c.name, dtype="float32", shape=shape, features=c.branches, collection=c.name))
        specs.append(TensorSpec(name=f"{c.name}_mask", dtype="float32", shape=("events", c.length), collection=c.name))
    return specs


def in_layout(block, kind, data):
    """Give a block another layout; images are drawn anyhow."""
    if kind in {FORM, "wrapped"}:  # of the first collection, beside tokens
        first = [dataclasses.replace(c, form=kind) for c in block.layout.collections[:1]]
        collections = (*first, *block.layout.collections[1:])
        return dataclasses.replace(
            block, layout=dataclasses.replace(block.layout, kind="tokens", collections=collections)
        )
    layout = dataclasses.replace(block.layout, kind=kind)
    if kind == "jagged":
        joined = tuple(
            dataclasses.replace(c, form=kind, keeps_all=data.draw(st.booleans())) for c in layout.collections
        )
        return dataclasses.replace(block, layout=dataclasses.replace(layout, collections=joined))
    return dataclasses.replace(block, layout=data.draw(drawn(layout)) if kind == "image" else layout)


@given(block=blocks())
def test_wrapped_places_repeat_the_objects_of_the_event_and_masks_tell_which_are_real(block):
    wrapped = dataclasses.replace(block, layout=in_layout(block, "wrapped", None).layout)
    plain = dataclasses.replace(block, layout=dataclasses.replace(block.layout, kind="tokens"))
    found, expected = gathered(wrapped), gathered(plain)
    for c in block.layout.collections[:1]:
        values, mask = found[c.name], found[f"{c.name}_mask"]
        np.testing.assert_array_equal(mask, expected[f"{c.name}_mask"])
        for event, tokens, count in zip(values, expected[c.name], mask.sum(1), strict=True):
            for i in range(c.length):
                np.testing.assert_array_equal(event[i], tokens[i % count if count else i])


class Filled(Layout):
    """Fills another number in for each feature."""

    __slots__ = ()

    def fill(self, features, length=1):
        return np.tile(np.array([self.pad - len(f) - ord(f[-1]) for f in features], np.float32), (length, 1))


@pytest.mark.parametrize("kind", LAYOUT_NAMES)
@pytest.mark.parametrize("form", [Layout, Filled])
@given(block=blocks(), data=st.data())
def test_a_graph_makes_what_training_gathers(kind, form, block, data):
    block = in_layout(block, kind, data)
    layout = form(**{f.name: getattr(block.layout, f.name) for f in dataclasses.fields(Layout)})
    block = dataclasses.replace(block, layout=layout)
    specs = specs_of(block)
    deployed = Deployed(
        nn.Identity(), lambda _, batch: batch, layout=block.layout, specs=specs, transforms=block.transforms,
        missing=(SENTINEL,), activation="none",
    )  # fmt: skip
    made, arrays = deployed.batch(*map(torch.from_numpy, raw_of(block, specs))), gathered(block)
    assert list(made) == list(arrays)
    for name, expected in arrays.items():
        offsets = name.endswith("offsets")
        assert made[name].dtype == (torch.bool if name.endswith("mask") else torch.int64 if offsets else torch.float32)
        assert tuple(made[name].shape[1:]) == block.layout.shapes[name]
        assert name in layout.by_object or len(expected) == len(block.events) + offsets
        np.testing.assert_allclose(made[name].numpy(), expected, rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("kind", LAYOUT_NAMES)
@given(block=blocks(elements=ordinary), data=st.data())
def test_what_was_gathered_is_taken_apart_again(kind, block, data):
    block = in_layout(block, kind, data)
    try:
        flat, objects = block.layout.form.unpack(block.layout, gathered(block))
    except ShapeError:  # one that counts, say
        assert kind not in KEEP_EVERYTHING
        return
    assert flat.shape == (len(block.events), len(block.layout.flat))
    for c in (c for c in block.layout.collections if c.grid is None):  # for images see test_image.py
        source, (values, there) = block.events.objects[c.name], objects[c.name]
        counts = np.minimum(np.diff(source.offsets), c.limit)
        assert there.sum(axis=1).tolist() == counts.tolist()
        for i, name in enumerate(c.branches):
            scaled = np.empty(len(source.columns[name]), np.float32)
            block.transforms[name].apply(source.columns[name], scaled)
            kept = [scaled[a : a + n] for a, n in zip(source.offsets[:-1], counts, strict=True)]
            np.testing.assert_allclose(values[..., i][there], np.concatenate([[], *kept]), rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("kind", LAYOUT_NAMES)
@given(block=blocks(), data=st.data())
def test_what_is_cut_off_a_slab_is_what_is_gathered_alone(kind, block, data):
    block = in_layout(block, kind, data)
    last = len(block.events) - 1
    rows = np.array(data.draw(st.lists(st.integers(0, last), max_size=12)) if last >= 0 else [], np.int64)
    pool = Pool(block.layout, [pack(masked(block.events), block.layout, block.transforms, sample=0, file=0)])
    slab, size = pool.gather(np.zeros(len(rows), np.int64), rows), data.draw(st.integers(1, 5))
    for low in range(0, len(rows), size):
        alone = pool.gather(np.zeros(len(rows[low : low + size]), np.int64), rows[low : low + size])
        cut = block.layout.cut(slab, low, low + size)
        assert cut.keys() == alone.keys()
        assert block.layout.num_events(cut) == len(alone["label"])
        for name, values in alone.items():
            np.testing.assert_array_equal(cut[name], values)
            assert cut[name].dtype == values.dtype


columns = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=40).map(lambda v: np.array(v, np.float32))


@pytest.mark.parametrize("kind", SCALING_NAMES)
@given(column=columns)
def test_columns_kernels_and_graphs_scale_alike(kind, column):
    scaling = Scaling(kind=kind)
    asked = kind_of(scaling)
    stats = ColumnStats.of(
        column, curve=None if asked.curve is None else asked.curve.apply, quantiles=asked.needs_quantiles
    )
    try:
        transform = fit("x", scaling, stats)
    except DataError:  # constant, or nearly so
        return
    plain = np.empty(len(column), np.float32)
    transform.apply(column, plain)
    spec = TensorSpec(name="x", dtype="float32", shape=("events", 1), features=("x",))
    by_graph, missing = Scaler(spec, [transform], ())(torch.from_numpy(column[:, None]))
    assert not missing.any()
    np.testing.assert_allclose(by_graph[:, 0].numpy(), plain, rtol=1e-5, atol=1e-5)
    back = transform.invert(plain)
    spread = max(1.0, float(np.abs(column).max()))
    np.testing.assert_allclose(back, column, rtol=1e-4, atol=1e-5 * spread + 1e-4 / abs(transform.factor))


@pytest.mark.parametrize("kind", SCALING_NAMES)
def test_missing_values_stay_missing(kind):
    curve = kind_of(Scaling(kind=kind)).curve
    out = np.empty(3, np.float32)
    Transform(shift=1.0, factor=2.0, curve=curve).apply(np.array([np.nan, np.inf, 3.0], np.float32), out)
    assert np.isnan(out).tolist() == [True, True, False]


def options(**changes):
    return {"samples": {"a": {"files": "a.root"}}, "flat": ["met"], **changes}


def test_those_of_ones_own_are_named_by_where_they_are():
    config = parse_data(options(layout="own_layout.ChannelsFirst", scale={"met": "own_scaling.Asinh"}))
    assert config.layout == "own_layout.ChannelsFirst"
    assert type(kind_of(config.scaling_of("met"))).__name__ == "Asinh"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layout": "vectr"},
            r"layout: got 'vectr'; allowed: 'vector', 'tokens', 'image', 'jagged', or the dotted name .*nearest: 'vect",
        ),
        ({"layout": "own_layout.Nothing"}, r"layout: the layout 'own_layout\.Nothing' can't be made: .*Nothing"),
        (
            {"layout": "collections.OrderedDict"},
            r"layout: 'collections\.OrderedDict' is no layout: it lacks masks_objects, shapes\(layout\), .*LayoutKind",
        ),
        (
            {"layout": "own_form.Leading"},
            r"no layout: it lacks masks_objects, shapes\(layout\), gather\(layout, rows, ",
        ),
        (
            {"layout": "tokens", "jagged": {"jets": {"branches": ["pt"], "form": "own_layout.ChannelsFirst"}}},
            r"jagged\.jets\.form: 'own_layout\.ChannelsFirst' is no form: it lacks shapes\(layout, collection\)",
        ),
        (
            {"scale": "own_layout.ChannelsFirst"},
            r"no scaling: it lacks curve, needs_quantiles, is_learnt, location\(st",
        ),
        ({"scale": "nowhere.Asinh"}, r"scale: the scaling 'nowhere\.Asinh' can't be made: No module named 'nowhere'"),
        ({"scale": {"met": "standart"}}, r"scale\.met: got 'standart'; .*nearest: 'standard'"),
    ],
)
def test_what_leads_nowhere_is_said(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_data(options(**changes))


def test_why_the_module_of_ones_own_fails_is_said_with_the_line(monkeypatch, tmp_path):
    (tmp_path / "failing_kinds.py").write_text("import math\nfrom math import nothing_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = r"scaling 'failing_kinds\.Mine' can't be made: ImportError: cannot import name 'nothing.*kinds\.py, line 2\)"
    with pytest.raises(ConfigError, match=told):
        parse_data(options(scale="failing_kinds.Mine"))


def test_an_installed_package_announces_its_own(monkeypatch, tmp_path):
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rootdata.layouts]\nchannels = own_layout:ChannelsFirst\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    known = Registry("layout", group="rootdata.layouts", built_in={"vector": "rootdata.layouts.vector:Vector"})
    assert known.names() == ("vector", "channels")
    assert known.check("channels", "layout") == "channels"
    assert type(known.find("channels")).__name__ == "ChannelsFirst"
