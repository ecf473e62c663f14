"""The types that the page's JavaScript is checked with are those of the server; ``make page`` checks it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rootdata.bundle import manifest
from serve.models.cards import Card
from serve.models.index import Summary
from serve.page import files

ROOT = Path(__file__).parents[2]
TYPES = (ROOT / ".ci" / "page" / "types.d.ts").read_text()
OF_MANIFESTS = {
    "Branch": manifest.BranchSpec,
    "EventSelection": manifest.Selection,
    "FeatureRange": manifest.Range,
    "FoldRule": manifest.FoldRule,
    "Manifest": manifest.Manifest,
    "OutputSpec": manifest.OutputSpec,
    "Parity": manifest.Parity,
    "SampleSelection": manifest.SampleSelection,
    "TensorSpec": manifest.TensorSpec,
}


def fields_of(interface: str) -> dict[str, str]:
    """Return the fields of an interface, and their types."""
    found = re.search(rf"^interface {interface} \{{\n(.*?)^\}}", TYPES, re.MULTILINE | re.DOTALL)
    assert found, interface
    return dict(re.findall(r"^  (\w+\??): (.*);", found[1], re.MULTILINE))


@pytest.mark.parametrize("interface", OF_MANIFESTS)
def test_what_a_manifest_holds_is_what_the_page_expects(interface: str) -> None:
    ours = {field.name: str(field.type) for field in dataclasses.fields(OF_MANIFESTS[interface])}
    theirs = {name.rstrip("?"): kind for name, kind in fields_of(interface).items()}
    assert list(theirs) == list(ours)
    for name, kind in ours.items():
        assert ("None" in kind) == ("null" in theirs[name]), name


def test_the_kinds_of_branches_and_batches_are_those_that_the_page_knows() -> None:
    assert re.findall(r'"(\w+)"', fields_of("Branch")["kind"]) == list(manifest.KINDS)
    assert re.findall(r'"(\w+)"', fields_of("Manifest")["batching"]) == list(manifest.BATCHING)
    assert re.findall(r'"(\w+)"', fields_of("FoldRule")["rule"]) == [manifest.EXPRESSION, manifest.AVERAGE]


def test_what_is_said_of_a_model_in_a_list_is_what_the_page_expects() -> None:
    about = Summary(author="", description="", created="", columns=(), metrics={}, features=(), tags=())
    known = {"name": "m", "versions": (), "latest": None, "aliases": {}, "tags": (), "broken": {}}
    always = Card(**known, about=None).to_dict()
    all_of_it = Card(**known, about=about, problem="none").to_dict()
    theirs = fields_of("Card")
    assert {name for name in theirs if not name.endswith("?")} == always.keys()
    assert {name.rstrip("?") for name in theirs} == all_of_it.keys()


def test_every_file_of_the_page_is_checked_and_nothing_of_node_is_shipped() -> None:
    scripts = sorted(files._STATIC.glob("*.js"))
    assert len(scripts) > 10
    assert [path.name for path in scripts if not path.read_text().startswith("// @ts-check\n")] == []
    assert {path.suffix for path in files._STATIC.iterdir()} == {".css", ".html", ".js", ".svg"}
    assert [path for path in (ROOT / "src").rglob("*") if path.name in {"node_modules", "package.json"}] == []


def test_the_tools_are_pinned() -> None:
    wanted = json.loads((ROOT / ".ci" / "page" / "package.json").read_text())["devDependencies"]
    locked = json.loads((ROOT / ".ci" / "page" / "package-lock.json").read_text())["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, of in locked.items() if name and "integrity" not in of] == []
