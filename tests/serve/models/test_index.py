"""What is remembered of models: the same as what is read anew, whatever happens to the files."""

from __future__ import annotations

import json
import os
import shutil
import time

import httpx
import pytest
from models import make_bundle

from serve.atomic import SETTLED_NS
from serve.models.repository import Repository

NUM_MODELS = 24
MANY = 2000


def fill(root, bundle, count, *, age=2 * SETTLED_NS):
    """Put copies of a bundle into a repository, as made some time ago."""
    for number in range(count):
        home = root / f"m{number:04d}"
        shutil.copytree(bundle, home / "1")
        rest(home, age=age)
    return root


def rest(home, *, age=2 * SETTLED_NS):
    """Let a folder look as if nobody had changed it for a while."""
    then = time.time_ns() - age
    os.utime(home, ns=(then, then))


@pytest.fixture
def repo(tmp_path):
    return fill(tmp_path / "repo", make_bundle(tmp_path / "bundle", tags=("fast",)), NUM_MODELS)


def listed(root):
    return [card.to_dict() for card in Repository(root).cards()]


def test_what_is_remembered_is_what_was_read(repo):
    before = listed(repo)
    assert (repo / ".index").is_file()
    assert listed(repo) == before
    assert [c.name for c in Repository(repo).search(tag="fast", feature="HT", bounds={})] == [c["name"] for c in before]


def test_it_is_taken_from_the_file(repo):
    listed(repo)
    text = (repo / ".index").read_text()
    (repo / ".index").write_text(text.replace('"a test"', '"from the file"'))
    assert {card["description"] for card in listed(repo)} == {"from the file"}
    assert (repo / "m0001" / "1" / "manifest.json").exists()


def new_version(repo, home):
    Repository(repo).publish(home / "1", home.name)


def replaced_manifest(repo, home):
    path = home / "1" / "manifest.json"
    path.write_text(path.read_text().replace("a test", "another"))


def broken_manifest(repo, home):
    (home / "1" / "manifest.json").write_text("{")


def lost_graph(repo, home):
    (home / "1" / "model.onnx").unlink()


def changed_config(repo, home):
    (home / "config.json").write_text(json.dumps({"tags": ["by hand"]}))
    rest(home)


def broken_config(repo, home):
    (home / "config.json").write_text("{")
    rest(home)


CHANGES = {
    "alias": lambda repo, home: Repository(repo).set_alias(home.name, "best", 1),
    "unload": lambda repo, home: Repository(repo).unload(home.name),
    "delete": lambda repo, home: Repository(repo).delete(home.name),
    "version": new_version,
    "manifest": replaced_manifest,
    "broken manifest": broken_manifest,
    "graph": lost_graph,
    "config": changed_config,
    "broken config": broken_config,
    "link": lambda repo, home: (home.rename(repo / ".away"), home.symlink_to(repo / ".away")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen_after_a_start(repo, name):
    before = listed(repo)
    CHANGES[name](repo, repo / "m0003")
    after = listed(repo)
    (repo / ".index").unlink()
    assert after == listed(repo)
    assert after != before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema": 2, "models": {}}', b'{"schema": 1, "models": {"m0000": [[1], 2]}}', b"\xff"],
)
def test_a_file_that_can_not_be_used_is_made_anew(repo, content):
    before = listed(repo)
    (repo / ".index").write_bytes(content)
    assert listed(repo) == before
    assert json.loads((repo / ".index").read_bytes())["models"].keys() == {card["name"] for card in before}


def test_entries_that_are_damaged_are_read_again(repo):
    before = listed(repo)
    plain = json.loads((repo / ".index").read_bytes())
    for (_, seen), spoil in zip(
        plain["models"].values(), [{"latest": None}, {"about": 3}, {"versions": None}], strict=False
    ):
        seen.update(spoil)
    (repo / ".index").write_text(json.dumps(plain))
    assert listed(repo) == before


def test_what_has_just_changed_is_not_remembered(tmp_path):
    """Two changes within a tick of the clock look the same."""
    repo = fill(tmp_path / "repo", make_bundle(tmp_path / "bundle"), NUM_MODELS, age=0)
    listed(repo)
    assert not (repo / ".index").exists()


@pytest.mark.long
def test_two_thousand_models_are_listed_right_after_a_start(start_server, tmp_path):
    repo = fill(tmp_path / "repo", make_bundle(tmp_path / "bundle", jets=True), MANY)
    for _ in range(2):
        server = start_server(["-m", "serve", str(repo), "--port", "0"], seconds=120)
        took = []
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for path in ("/models", "/models", "/models?text=m19", "/v2/repository/index", "/models?limit=50"):
                began = time.monotonic()
                answer = client.get(path)
                took.append(time.monotonic() - began)
                assert answer.status_code == 200
            assert len(answer.json()) == 50
            assert answer.headers["x-total-count"] == str(MANY)
        assert server.stop() == 0
        assert max(took) < 0.3 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), took
