"""How images are asked for: what names tell, what is refused, and that what was parsed can be parsed again."""

import math

import pytest

from rootdata.errors import ConfigError, ExpressionError
from rootdata.options.data import parse_data
from rootdata.options.image import Axis, last_word, reduction_of
from rootdata.options.parsed import described
from rootdata.scan.specs import key_of

JETS = ["Jet_eta", "Jet_phi", "Jet_pt", "Jet_btag"]


def parsed(jets=None, **changes):
    jets = {"branches": JETS, **(jets or {})}
    return parse_data({"samples": {"a": "a.root"}, "layout": "image", "jagged": {"jets": jets}, **changes})


def test_names_tell_axes_periods_and_channels():
    image = parsed().images["jets"]
    assert image.x == Axis(column="Jet_eta", bins=32, range=None, period=0.0)
    assert image.y == Axis(column="Jet_phi", bins=32, range=(-math.pi, math.pi), period=2 * math.pi)
    assert image.channels == ("count", "sum(Jet_pt)", "max(Jet_btag)")


@pytest.mark.parametrize(
    ("name", "word"), [("Jet_eta", "eta"), ("jets.Phi", "phi"), ("JetEta", "eta"), ("dphi", "dphi"), ("ETA", "eta")]
)
def test_the_last_word_of_a_name_decides(name, word):
    assert last_word(name) == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count", ("count", "")), (" sum( Jet_pt ) ", ("sum", "Jet_pt")), ("max(`a b`)", ("max", "a b")),
        ("mean(abs(x) + (y))", ("mean", "abs(x) + (y)")), ("median(x)", None), ("sum", None), ("sum()", None),
    ],
)  # fmt: skip
def test_a_channel_is_a_reduction_of_a_column(text, expected):
    assert reduction_of(text) == expected


def test_a_collection_that_is_drawn_has_the_columns_of_its_image_and_no_others():
    config = parsed({"image": {"x": "Jet_pt", "channels": ["mean(Jet_e)", "sum(Jet_pt * Jet_btag)"]}})
    assert config.jagged[0].branches == ("Jet_pt", "Jet_phi", "Jet_e", "Jet_pt * Jet_btag")
    assert config.derived == {"Jet_pt * Jet_btag": "Jet_pt * Jet_btag"}
    assert config.coordinates == {"Jet_pt", "Jet_phi"}


@pytest.mark.parametrize(
    ("changes", "forms"),
    [
        ({"layout": "tokens"}, ["tokens", "image"]),
        ({"layout": "image"}, ["image", "image"]),
        ({"layout": "vector", "jagged": {"a": ["Jet_pt"], "b": ["Jet_eta"]}}, ["tokens", "tokens"]),
    ],
)
def test_the_layout_is_the_form_of_collections_that_name_none(changes, forms):
    jagged = {"a": ["Jet_eta", "Jet_phi"], "b": {"branches": ["Jet_eta", "Jet_phi"], "form": "image"}}
    config = parse_data({"samples": {"a": "a.root"}, "jagged": jagged, **changes})
    assert [config.form_of(c) for c in config.jagged] == forms


@pytest.mark.parametrize("image", [{}, {"channels": ["sum(Jet_pt ** 2)"], "x": {"bins": 3, "range": [0, 1]}}])
def test_what_was_parsed_is_parsed_again(image):
    config = parsed({"image": image})
    plain = {c["name"]: {k: v for k, v in c.items() if k != "name"} for c in described(config, "inputs")["jagged"]}
    again = parse_data({"samples": {"a": "a.root"}, "layout": "image", "jagged": plain, "derived": config.derived})
    assert again == config
    assert parse_data({"samples": {"a": "a.root"}, "layout": "image", "jagged": {"jets": config.jagged[0]},
                       "derived": config.derived}) == config  # fmt: skip


def test_specs_depend_on_the_grid_of_what_is_drawn_and_on_nothing_else_of_an_image():
    fine, coarse = ({"image": {"x": {"bins": bins}}} for bins in (8, 4))
    assert key_of(parsed(fine)) != key_of(parsed(coarse))
    assert key_of(parsed(fine, layout="tokens")) == key_of(parsed(coarse, layout="tokens")) == key_of(
        parsed(layout="tokens")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"x": {"bins": 0}}, [r"jagged.jets.image.x.bins: got 0; expected a whole number of at least 1"]),
        ({"x": {"range": [2, 1]}}, ["image.x.range: got [2, 1]", "the lower one first"]),
        ({"x": {"range": [1]}}, ["expected two numbers"]),
        (
            {"y": {"range": [-3.2, 3.2]}},
            ["image.y.range: got [-3.2, 3.2], which is no full period of 'Jet_phi'", "6.28"],
        ),
        ({"y": {"range": [0, 180], "period": 360}}, ["no full period of 'Jet_phi' (360)", "period=0"]),
        ({"y": {"period": -1}}, ["image.y.period: got -1", "or 0"]),
        ({"y": "Jet_eta"}, ["both axes are 'Jet_eta'"]),
        ({"x": {"bins": 4000}, "y": {"bins": 4000}}, ["4000 x 4000 cells", "at most"]),
        ({"channels": ["median(Jet_pt)"]}, ["image.channels: got 'median(Jet_pt)'", "count, sum(...)"]),
        ({"chanels": []}, ["'chanels'", "nearest: 'channels'"]),
        ({"x": {"bin": 4}}, ["'bin'", "jagged.jets.image.x", "nearest: 'bins'"]),
        ({"onto": "jets"}, ["jagged.jets.image.onto: got 'jets'", "none is drawn; leave `onto` out"]),
        ({"onto": "tracks", "x": {"bins": 4}}, ["image.x.bins: the grid is that of the image"]),
        ("eta-phi", ["jagged.jets.image: got 'eta-phi'; expected a mapping such as"]),
    ],
)
def test_what_makes_no_image_is_refused_in_words(image, words):
    with pytest.raises(ConfigError) as error:
        parsed({"image": image})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_axis_in_degrees_and_one_that_does_not_wrap_are_given_by_their_period():
    degrees = parsed({"image": {"y": {"period": 360}}}).images["jets"].y
    assert degrees.range == (-180, 180)
    plain = parsed({"image": {"y": {"range": [-3.2, 3.2], "period": 0}}}).images["jets"].y
    assert (plain.range, plain.period) == ((-3.2, 3.2), 0)
    rounded = parsed({"image": {"y": {"range": [0, 6.28]}}}).images["jets"].y
    assert rounded.range == (0, 2 * math.pi)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"jagged": {"jets": {"branches": JETS, "form": "imag"}}},
            ["jagged.jets.form: got 'imag'", "nearest: 'image'"],
        ),
        (
            {"layout": "vector", "jagged": {"jets": {"branches": JETS, "form": "image"}}},
            ["jagged.jets.form: got 'image', and the layout 'vector' has no forms", "tokens, image"],
        ),
        ({"jagged": {"mu": ["Mu_pt", "Mu_q"]}}, ["none of Mu_pt, Mu_q is called 'eta'", "name the column"]),
        ({"scale": {"Jet_btag": {"factor": -1}}}, ["'max(Jet_btag)'", "scale.Jet_btag.factor is negative"]),
    ],
)
def test_forms_and_images_that_do_not_go_together_are_refused_in_words(changes, words):
    with pytest.raises(ConfigError) as error:
        parsed(**changes)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_expression_of_a_channel_that_does_not_parse_is_shown():
    with pytest.raises(ExpressionError, match=r"jagged\.jets\.image\.channels"):
        parsed({"image": {"channels": ["sum(Jet_pt *)"]}})
