"""Images: what is in a cell, by a few lines of Python; what is in none; and what comes back of them."""

import math

import awkward as ak
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rootdata.events.selection import Events, Objects
from rootdata.jagged import Jagged, offsets_of
from rootdata.layouts.grid import OUTSIDE, Channel, Grid, Line
from rootdata.layouts.inverse import to_awkward
from rootdata.layouts.layout import Layout, Padded
from rootdata.layouts.packed import pack
from rootdata.layouts.pool import Pool
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.transform import Transform
from strategies import axes, blocks, drawn, masked

ETA = Line(column="eta", bins=4, low=-2.0, high=2.0, wraps=False)
PHI = Line(column="phi", bins=8, low=-math.pi, high=math.pi, wraps=True)
SCALING = {"eta": Transform(shift=5.0), "phi": Transform(shift=5.0), "pt": Transform(shift=30.0, factor=0.1)}


def events_of(**lists):
    """Make events of one collection out of lists."""
    counts = np.array([len(event) for event in next(iter(lists.values()))])
    columns = {name: np.array([v for event in values for v in event], np.float32) for name, values in lists.items()}
    n = len(counts)
    return Events(
        entry=np.arange(n), part=np.zeros(n, np.uint8), label=np.zeros(n, np.int64), weight=np.ones(n, np.float32),
        flat={}, objects={"jets": Objects(offsets=offsets_of(counts), columns=columns)}, before=np.zeros(3, np.int64),
    )  # fmt: skip


def layout_of(*channels, x=ETA, y=PHI, length=5, pad=0.0):
    grid = Grid(x=x, y=y, channels=tuple(Channel(*c) for c in channels))
    jets = Padded(name="jets", branches=("eta", "phi", "pt"), length=length, form="image", grid=grid)
    return Layout(kind="image", flat=(), collections=(jets,), pad=pad)


def arrays_of(events, layout, transforms):
    n = len(events)
    packed = pack(masked(events), layout, transforms, sample=0, file=0)
    arrays = Pool(layout, [packed]).gather(np.zeros(n, np.int64), np.arange(n))
    return {name: arrays[name] for name in layout.shapes}


def cell_of(line, value):
    """Find the cell of a value by the words of the documentation, in float64; None where rounding decides."""
    width = (line.high - line.low) / line.bins
    if line.wraps:
        value = line.low + (value - line.low) % (line.high - line.low)
    place = (value - line.low) / width
    if abs(place - round(place)) < 1e-3 + 1e-5 * abs(value) / width:
        return None
    return math.floor(place) if 0 <= place < line.bins else OUTSIDE


@given(axes, st.floats(-1e4, 1e4, width=32))
def test_a_value_lies_in_the_cell_between_whose_edges_it_is(line, value):
    expected = cell_of(line, value)
    assume(expected is not None)
    assert line.bins_of(np.array([value], np.float32)).tolist() == [expected]


@given(axes, st.integers(-3, 3), st.floats(0.01, 0.99))
def test_on_an_axis_that_wraps_a_turn_changes_nothing(line, turns, share):
    period = line.high - line.low
    value = line.low + share * period
    wrapping = Line(column="x", bins=line.bins, low=line.low, high=line.high, wraps=True)
    assume(cell_of(wrapping, value) is not None and cell_of(wrapping, value + turns * period) is not None)
    both = np.array([value, value + turns * period], np.float32)
    assert len(set(wrapping.bins_of(both).tolist())) == 1


def test_both_edges_belong_to_the_grid_and_what_is_no_number_does_not():
    edges = np.array([-2.0, 2.0, np.nextafter(np.float32(2), np.float32(3)), np.nan], np.float32)
    assert ETA.bins_of(edges).tolist() == [0, 3, OUTSIDE, OUTSIDE]
    turn = np.array([-3.1415, 3.1415, 3 * math.pi + 0.1, np.nan], np.float32)
    assert PHI.bins_of(turn).tolist() == [0, 7, 0, OUTSIDE]


def reference(layout, events, transforms):
    """Draw object by object, with dicts: channel name to cell to its values."""
    images = {}
    for owner in (c for c in layout.collections if c.grid is not None and c.grid.onto is None):
        parts = layout.drawn_into(owner)
        shape = (len(events), *layout.shapes[owner.name])
        image = np.zeros(shape, np.float64)
        first = 0
        for part in parts:
            objects = events.objects[part.name]
            columns = [np.empty(int(objects.offsets[-1]), np.float32) for _ in part.columns]
            for out, column in zip(columns, part.columns, strict=True):
                column.transform(transforms).apply(objects.columns[column.branch], out)
            cells = part.grid.cells_of(columns[0], columns[1])
            for number, channel in enumerate(part.grid.channels):
                source = columns[part.grid.sources[number]]
                empty = layout.pad if channel.how in ("max", "mean") else 0.0
                for event, start in enumerate(objects.offsets[:-1]):
                    found = {}
                    for i in range(start, min(objects.offsets[event + 1], start + part.length)):
                        if cells[i] >= 0 and (channel.how == "count" or not np.isnan(source[i])):
                            found.setdefault(int(cells[i]), []).append(float(source[i]))
                    flat = image[event, first + number].reshape(-1)
                    flat[:] = empty
                    for cell, values in found.items():
                        made = {"count": len, "sum": sum, "max": max, "mean": np.mean}[channel.how]
                        flat[cell] = made(values)
            first += len(part.grid.channels)
        images[owner.name] = image
    return images


@given(blocks(kind="tokens"), st.data())
def test_a_cell_holds_what_is_made_of_the_objects_in_it(block, data):
    layout, events = data.draw(drawn(block.layout)), masked(block.events)
    found = arrays_of(block.events, layout, block.transforms)
    for name, expected in reference(layout, events, block.transforms).items():
        largest = max(1.0, float(np.abs(expected).max(initial=0.0)))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6 * largest)


BENT = Transform(shift=3.0, factor=0.1, curve=SIGNED_LOG, clip=0.01)  # of all that, a sum takes the factor alone


@pytest.mark.parametrize("scaling", [SCALING, SCALING | {"pt": BENT}])
@given(events=st.lists(st.lists(st.tuples(*[st.floats(-4, 4, width=32)] * 3), max_size=6), max_size=5))
def test_the_sum_over_an_image_is_that_of_the_objects_inside(scaling, events):
    eta, phi, pt = ([[obj[i] for obj in event] for event in events] for i in range(3))
    image = arrays_of(events_of(eta=eta, phi=phi, pt=pt), layout_of(("sum", "pt"), ("count", "")), scaling)["jets"]
    for i, event in enumerate(events):
        inside = [obj for obj in event[:5] if -2 <= obj[0] <= 2]
        assert image[i, 1].sum() == len(inside)
        assert image[i, 0].sum() == pytest.approx(0.1 * math.fsum(obj[2] for obj in inside), abs=1e-5)


def test_an_object_without_a_place_is_nowhere_and_one_without_a_value_adds_none():
    events = events_of(eta=[[0.5, math.nan, 0.5]], phi=[[1.0, 1.0, 1.0]], pt=[[40.0, 50.0, math.nan]])
    image = arrays_of(events, layout_of(("count", ""), ("sum", "pt"), ("mean", "pt"), pad=-7.0), SCALING)["jets"][0]
    assert image.reshape(3, -1).max(axis=1).tolist() == [2.0, 4.0, 1.0]
    assert image[0].sum() == 2
    assert (image[2] == -7).sum() == 31  # an empty cell of a mean is padding, of a sum it is nothing


def test_rows_are_those_of_y_and_columns_those_of_x():
    events = events_of(eta=[[1.5]], phi=[[-3.0]], pt=[[10.0]])
    layout = layout_of(("count", ""))
    assert layout.shapes == {"jets": (1, 8, 4)}
    assert np.argwhere(arrays_of(events, layout, SCALING)["jets"]).tolist() == [[0, 0, 0, 3]]


def test_a_filled_cell_comes_back_as_an_object_in_physical_units_with_a_word_on_what_is_lost():
    events = events_of(eta=[[0.5, 0.6, -1.5], []], phi=[[0.1, 0.2, 3.0], []], pt=[[40.0, 60.0, 20.0], []])
    layout = layout_of(("sum", "pt"), ("max", "pt"), ("count", ""))
    record = to_awkward(layout, arrays_of(events, layout, SCALING), SCALING)
    assert record.fields == ["jets"]
    assert ak.num(record.jets).to_list() == [2, 0]
    first = {name: pytest.approx(values) for name, values in record.jets[0, 0].to_list().items()}
    assert first == {"eta": 0.5, "phi": math.pi / 8, "sum(pt)": 100.0, "max(pt)": 60.0, "count": 2.0}
    assert record.jets[0, 1].to_list()["eta"] == -1.5
    said = ak.parameters(record)["__doc__"]
    assert "a filled one of 4 x 8 cells" in said
    assert "after the first 5" in said


def test_channels_of_another_collection_come_behind_with_its_name_where_it_is_needed():
    jets = layout_of(("count", ""), ("sum", "pt")).collections[0]
    grid = Grid(x=ETA, y=PHI, channels=(Channel("count", ""),), onto="jets")
    muons = Padded(name="muons", branches=("eta", "phi"), length=2, form="image", grid=grid)
    layout = Layout(kind="image", flat=(), collections=(muons, jets))
    assert layout.shapes == {"jets": (3, 8, 4)}
    assert list(layout.unpacked(jets)) == ["eta", "phi", "count", "sum(pt)", "muons.count"]
    events = events_of(eta=[[0.5]], phi=[[1.0]], pt=[[40.0]])
    muon = Objects(offsets=np.array([0, 1]), columns={n: np.array([-1.5], np.float32) for n in ("eta", "phi")})
    both = Events(**{f: getattr(events, f) for f in events.__slots__} | {"objects": {**events.objects, "muons": muon}})
    record = to_awkward(layout, arrays_of(both, layout, SCALING), SCALING)
    assert record.jets[0].tolist() == [
        {"eta": -1.5, "phi": pytest.approx(-3 * math.pi / 8), "count": 0, "sum(pt)": 0, "muons.count": 1},
        {"eta": 0.5, "phi": pytest.approx(3 * math.pi / 8), "count": 1, "sum(pt)": 40, "muons.count": 0},
    ]


def test_an_image_knows_nothing_of_objects_that_no_event_has():
    empty = Jagged(np.zeros(1, np.int64), np.empty((0, 3), np.float32))
    assert len(empty) == 0
    assert arrays_of(events_of(eta=[], phi=[], pt=[]), layout_of(("sum", "pt")), SCALING)["jets"].shape == (0, 1, 8, 4)
