"""The same for programs and browsers: JSON that holds all, a page that loads nothing."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from files_for_tests import make_events, write

from rootdata.inspection.choice import choose
from rootdata.inspection.files import inspect
from rootdata.inspection.report import as_json, as_page


@pytest.fixture
def found(tmp_path):
    odd = {"pt<b>#1": np.linspace(0, 1, 80), "nothing": np.full(80, np.nan), "huge": np.full(80, np.inf)}
    return inspect(
        [
            f"sig={write(tmp_path / 'a.root', make_events(80) | odd)}",
            f"bkg={write(tmp_path / 'b.root', make_events(80))}",
        ]
    )


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def test_json_holds_all_and_is_json(found):
    chosen = choose(found)
    read = json.loads(as_json(found, chosen), parse_constant=refuse)
    assert list(read["branches"]) == list(found.columns)
    assert read["choice"]["flat"] == list(chosen.features.flat)
    assert read["choice"]["collections"] == {"Jet": ["Jet_pt", "Jet_eta"]}
    assert read["samples"]["sig"]["label"] == 1
    met = read["branches"]["met"]
    assert (met["typename"], met["role"], met["entries"]) == ("float", "feature", 160)
    assert met["mean"] == found.columns["met"].stats.moments.mean
    assert read["branches"]["nothing"]["mean"] is None
    assert {t["tree"] for t in read["trees"]} == {"Events"}


class Page(HTMLParser):
    """Read a page strictly: what is opened is closed, and what is loaded is noted."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in {"meta", "input"}:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in {"src", "href", "action"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_is_whole_and_loads_nothing(found):
    text = as_page(found, choose(found))
    page = Page()
    page.feed(text)
    assert (page.open, page.loads) == ([], [])
    assert "@import" not in text
    assert "url(" not in text
    assert all(name in page.texts for name in found.columns)
    assert "prefers-color-scheme: dark" in text
    assert "<b>" not in text
