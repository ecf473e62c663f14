"""The repository: immutable versions, one rename for each change, and nothing half after a crash."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import threading
import time
from pathlib import Path

import models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from crashes_for_tests import crash
from rootdata.bundle.manifest import open_bundle
from serve import atomic
from serve.errors import BadRequest, Conflict, InvalidModel, NotFound, Overloaded
from serve.models.repository import Repository
from serve.models.trash import Trash


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bundles with different graphs."""
    folder = tmp_path_factory.mktemp("bundles")
    models.make_bundle(folder / "b", seed=1, parity=False, tags=("fast",), metrics={"auc": 0.8, "loss": 0.4})
    return models.make_bundle(folder / "a", jets=True, parity=False), folder / "b"


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repo")


def state(root):
    """Everything that readers can see."""
    return {card.name: (card.versions, card.latest, dict(card.aliases), card.tags) for card in Repository(root).cards()}


def check_all(root):
    """Every version there is must be whole."""
    for name, (versions, *_) in state(root).items():
        for version in versions:
            open_bundle(root / name / str(version))


# What is there


def test_publish_resolve_and_read(repository, made, tmp_path):
    assert [repository.publish(made[i % 2], "ttH", tags=["top"]) for i in range(3)] == [1, 2, 3]
    assert repository.resolve("ttH") == repository.resolve("ttH", "latest") == repository.resolve("ttH", 3) == 3
    assert repository.resolve("ttH", "2") == 2
    assert repository.manifest("ttH", 2) == open_bundle(made[1])
    assert repository.manifest("ttH", 2) is repository.manifest("ttH", 2)
    folder = repository.path("ttH", 2)
    assert (folder / "model.onnx").read_bytes() == (made[1] / "model.onnx").read_bytes()
    assert (folder / "model.onnx").stat().st_nlink == 1
    assert (folder / "model.onnx").stat().st_mode & 0o222 == 0
    assert sorted(p.name for p in (tmp_path / "repo").iterdir()) == [".lock", ".numbers", ".staging", ".trash", "ttH"]
    assert list((tmp_path / "repo" / ".staging").iterdir()) == []


def test_unknown_models_versions_and_aliases_name_what_there_is(repository, made):
    with pytest.raises(NotFound, match="model 'ttH' not found; there are none") as caught:
        repository.resolve("ttH")
    assert caught.value.code == "unknown_model"
    repository.publish(made[0], "ttH")
    repository.set_alias("ttH", "production", 1)
    with pytest.raises(NotFound, match="model 'tth' not found; nearest: 'ttH'"):
        repository.card("tth")
    with pytest.raises(NotFound, match="has no version 7; it has 1"):
        repository.resolve("ttH", 7)
    with pytest.raises(NotFound, match="alias 'prodction' is not known; nearest: 'production'"):
        repository.resolve("ttH", "prodction")
    for name in ("../ttH", ".staging", "", "ttH/1", "a" * 200):
        with pytest.raises(BadRequest, match="allowed are"):
            repository.resolve(name)


def test_aliases_and_tags(repository, made):
    for _ in range(2):
        repository.publish(made[1], "ttH")
    repository.set_alias("ttH", "production", 1)
    repository.set_alias("ttH", "staging", 1)
    repository.set_alias("ttH", "production", 2)
    repository.add_tags("ttH", ["b", "a", "b"])
    repository.delete_alias("ttH", "staging")
    repository.remove_tag("ttH", "b")
    card = repository.card("ttH")
    assert (card.aliases, card.tags) == ({"production": 2}, ("a", "fast"))
    assert repository.resolve("ttH", "production") == 2
    json.dumps(card.to_dict(), allow_nan=False)
    with pytest.raises(NotFound, match="has no alias 'staging'"):
        repository.delete_alias("ttH", "staging")
    with pytest.raises(NotFound, match="has no version 3"):
        repository.set_alias("ttH", "production", 3)
    with pytest.raises(NotFound, match="has no tag 'b'"):
        repository.remove_tag("ttH", "b")
    with pytest.raises(Conflict, match="is in the manifest"):
        repository.remove_tag("ttH", "fast")
    for bad in ("latest", "7"):
        with pytest.raises(BadRequest, match="already means a version"):
            repository.set_alias("ttH", bad, 1)


def test_search(repository, made):
    repository.publish(made[0], "ttH")
    repository.publish(made[1], "qcd", tags=["old"])

    def found(**query):
        return [card.name for card in repository.search(**query)]

    assert found() == ["qcd", "ttH"]
    assert found(tag="fast") == found(tag="old") == ["qcd"]
    assert found(feature="Jet_pt") == ["ttH"]
    assert found(feature="HT") == ["qcd", "ttH"]
    assert found(bounds={"min_auc": 0.85}) == ["ttH"]
    assert found(bounds={"min_auc": 0.5, "max_loss": 0.4}) == ["qcd"]
    assert found(author="marie", text="TT") == ["ttH"]
    assert found(text="a test", tag="none") == []
    for bad, value in [("auc", 1.0), ("min_", 1.0), ("min_auc", float("nan"))]:
        with pytest.raises(BadRequest, match=r"min_<metric> or|finite"):
            found(bounds={bad: value})


def test_changes_by_others_are_seen_by_the_next_call(repository, made, tmp_path):
    reader = Repository(tmp_path / "repo")
    for version in range(1, 30):
        assert repository.publish(made[0], "ttH") == version
        assert reader.resolve("ttH") == version
        repository.set_alias("ttH", "production", version)
        assert reader.resolve("ttH", "production") == version
    repository.delete("ttH")
    with pytest.raises(NotFound, match="not found"):
        reader.resolve("ttH")


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path):
    # As on file systems whose clock ticks once a second: the folder looks the same after the second change.
    path, found = tmp_path / "x", ["a"]
    path.mkdir()
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    watched = atomic.Watched(path, lambda: (found[0], True))
    assert watched.get() == "a"
    found[0] = "b"
    assert watched.get() == "b"
    os.utime(path, ns=(now - 10**10, now - 10**10))
    assert watched.get() == "b"
    found[0] = "c"
    assert watched.get() == "b"  # settled: a stat is enough
    os.utime(path, ns=(now, now))
    assert watched.get() == "c"


def test_a_change_while_a_read_takes_its_time_is_seen(tmp_path):
    # A process that stands still between its look and its read: the clock has gone on, the folder looks the same.
    path, found = tmp_path / "x", ["a"]
    path.mkdir()

    def read():
        value, found[0] = found[0], "b"
        while time.time_ns() - path.stat().st_mtime_ns <= atomic.SETTLED_NS:
            pass
        return value, True

    nearly_settled = time.time_ns() - atomic.SETTLED_NS + 50_000_000
    os.utime(path, ns=(nearly_settled, nearly_settled))
    watched = atomic.Watched(path, read)
    assert watched.get() == "a"
    assert watched.get() == "b"


# Deleting


def test_a_number_is_never_used_again(repository, made):
    for _ in range(3):
        repository.publish(made[0], "ttH")
    repository.delete("ttH", 3)
    repository.delete("ttH", 2)
    assert repository.publish(made[0], "ttH") == 4
    repository.delete("ttH")
    repository.purge(days=-1)
    assert repository.publish(made[0], "ttH") == 5
    assert repository.versions("ttH") == (5,)


def test_what_an_alias_points_at_stays(repository, made):
    repository.publish(made[0], "ttH")
    repository.set_alias("ttH", "production", 1)
    with pytest.raises(Conflict, match="alias 'production' points at version 1 of 'ttH'; move it"):
        repository.delete("ttH", 1)
    repository.delete("ttH")
    with pytest.raises(NotFound, match="model 'ttH' not found"):
        repository.delete("ttH")


def test_restore(repository, made, tmp_path):
    for _ in range(2):
        repository.publish(made[0], "ttH", tags=["x"])
    before = state(tmp_path / "repo")
    repository.delete("ttH", 1)
    repository.restore("ttH", 1)
    assert state(tmp_path / "repo") == before
    repository.delete("ttH")
    repository.restore("ttH")
    assert state(tmp_path / "repo") == before
    repository.delete("ttH")
    repository.publish(made[0], "ttH")
    with pytest.raises(Conflict, match="exists again"):
        repository.restore("ttH")
    assert repository.purge(days=1) == 0
    assert repository.purge(days=-1) == 1
    with pytest.raises(NotFound, match="not in the trash"):
        repository.restore("ttH")


def in_trash(folder):
    """Return what lies in the trash, the oldest first, without the times."""
    return [
        path.name.split("@")[0] for path in sorted((folder / ".trash").iterdir(), key=lambda p: p.name.split("@")[2])
    ]


@given(order=st.lists(st.sampled_from(["ttH", "QCD", "W"]), min_size=1, max_size=7), kept=st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_the_trash_keeps_the_newest_within_its_bytes(made, tmp_path_factory, order, kept):
    folder = tmp_path_factory.mktemp("trash")
    size = sum(path.stat().st_size for path in made[0].iterdir())
    repository = Repository(folder, max_trash_bytes=kept * size + size // 2)
    for name in order:
        repository.publish(made[0], name)
        repository.delete(name)
        assert len(in_trash(folder)) <= kept
    assert in_trash(folder) == order[len(order) - min(kept, len(order)) :]


def test_what_is_too_old_leaves_the_trash_when_something_is_put_there(made, tmp_path):
    folder = tmp_path / "repo"
    repository, without = Repository(folder, max_trash_days=2), Repository(folder)
    for name, days in (("old", 2.1), ("young", 1.9)):
        without.publish(made[0], name)
        without.delete(name)
        [path] = (folder / ".trash").glob(f"{name}@*")
        name, what, _, word = path.name.split("@")
        path.rename(path.with_name(f"{name}@{what}@{time.time() - days * 86_400:.6f}@{word}"))
    without.publish(made[0], "ttH")
    without.delete("ttH")
    assert in_trash(folder) == ["old", "young", "ttH"]  # nobody said that there are limits
    repository.publish(made[0], "QCD")
    repository.delete("QCD")
    assert in_trash(folder) == ["young", "ttH", "QCD"]
    repository.restore("young")


def test_a_trash_that_can_not_be_emptied_keeps_nobody_from_deleting(made, tmp_path, caplog, monkeypatch):
    repository = Repository(tmp_path / "repo", max_trash_bytes=1)
    repository.publish(made[0], "ttH")
    monkeypatch.setattr(Trash, "purge", lambda *_, **__: (tmp_path / "nowhere" / "x").mkdir())
    repository.delete("ttH")
    assert in_trash(tmp_path / "repo") == ["ttH"]
    assert "the trash can't be kept within its limits" in caplog.text


# What people put there by hand


def breakages():
    return {
        "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing; publish"),
        "no model": (lambda f: (f / "model.onnx").unlink(), "model.onnx is missing; publish"),
        "no json": (lambda f: rewrite(f / "manifest.json", "{"), "can't be read"),
        "other schema": (lambda f: rewrite(f / "manifest.json", '{"schema": 99}'), "schema is 99"),
        "deep": (lambda f: rewrite(f / "manifest.json", "[" * 100_000), "can't be read"),
        "half a model": (lambda f: rewrite(f / "model.onnx", "x"), "has 1 bytes, manifest.json says"),
        "link": (lambda f: relink(f / "model.onnx"), "links are not followed"),
        "folder": (lambda f: ((f / "manifest.json").unlink(), (f / "manifest.json").mkdir()), "no regular file"),
    }


def rewrite(path, text):
    path.chmod(0o644)
    path.write_text(text)


def relink(path):
    path.rename(path.with_name("away"))
    path.symlink_to(path.with_name("away"))


@pytest.mark.parametrize("kind", breakages())
def test_a_broken_version_hides_nothing_else(repository, made, tmp_path, kind):
    repository.publish(made[0], "good")
    repository.publish(made[0], "ttH")
    folder = tmp_path / "repo" / "ttH" / "2"
    shutil.copytree(made[0], folder)
    breakage, reason = breakages()[kind]
    breakage(folder)
    assert [c.name for c in repository.cards()] == ["good", "ttH"]
    card = repository.card("ttH")
    assert (card.versions, card.latest) == ((1, 2), 1)
    assert reason in card.broken[2]
    assert str(tmp_path) not in card.broken[2]
    assert repository.resolve("ttH") == 1
    for _ in range(2):
        with pytest.raises(InvalidModel, match="version 2"):
            repository.manifest("ttH", 2)
    shutil.rmtree(tmp_path / "repo" / "ttH" / "1")
    assert repository.card("ttH").latest is None
    assert repository.card("ttH").to_dict()["broken"]
    with pytest.raises(InvalidModel, match="no version can be used"):
        repository.resolve("ttH")
    assert [c.name for c in repository.search(feature="HT")] == ["good"]
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(made[0], folder, dirs_exist_ok=True)
    assert repository.resolve("ttH") == 2  # repaired, as a copy that was under way would be


def test_other_folders_and_links_are_no_models(repository, made, tmp_path):
    root = tmp_path / "repo"
    repository.publish(made[0], "ttH")
    shutil.copytree(root / "ttH", tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "ttH" / "9").symlink_to(made[0])
    (root / "ttH" / "08").mkdir()
    (root / "my model" / "1").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "file").write_text("")
    assert state(root) == {"ttH": ((1,), 1, {}, ())}
    for name in ("link", "empty", "file"):
        with pytest.raises(NotFound, match="not found"):
            repository.resolve(name)


@pytest.mark.parametrize("text", ["{", "[]", '{"aliases": {"a": "1"}}', '{"tags": [1]}', '{"aliases": {"a": true}}'])
def test_a_broken_config_is_named_and_not_overwritten(repository, made, tmp_path, text):
    repository.publish(made[0], "ttH")
    path = tmp_path / "repo" / "ttH" / "config.json"
    path.write_text(text)
    assert "repair or remove" in repository.card("ttH").problem
    assert repository.resolve("ttH") == 1
    with pytest.raises(InvalidModel, match=r"alias 'production': ttH/config.json can't be read .*repair or remove"):
        repository.resolve("ttH", "production")
    with pytest.raises(Conflict, match="repair or remove"):
        repository.set_alias("ttH", "production", 1)
    assert path.read_text() == text


def test_the_policy_is_kept(repository, made, tmp_path):
    repository.publish(made[0], "ttH")
    path = tmp_path / "repo" / "ttH" / "config.json"
    path.write_text('{"policy": {"load": "at start"}}')
    repository.set_alias("ttH", "production", 1)
    assert json.loads(path.read_text())["policy"] == {"load": "at start"}


def test_what_is_no_bundle_is_not_published(repository, made, tmp_path):
    def copy(name):
        return Path(shutil.copytree(made[0], tmp_path / name))

    bad = {name: copy(name) for name in ("graph", "link", "missing", "pipe")}
    (bad["graph"] / "model.onnx").write_bytes(b"else")
    relink(bad["link"] / "manifest.json")
    (bad["missing"] / "manifest.json").unlink()
    (bad["pipe"] / "model.onnx").unlink()
    os.mkfifo(bad["pipe"] / "model.onnx")
    for folder in bad.values():
        with pytest.raises(InvalidModel) as caught:
            repository.publish(folder, "ttH")
        assert "/" not in caught.value.message
    with pytest.raises(BadRequest, match="tag"):
        repository.publish(made[0], "ttH", tags=["a/b"])
    assert state(tmp_path / "repo") == {}
    assert list((tmp_path / "repo" / ".staging").iterdir()) == []


# Several writers


def publish_many(root, folder, count):
    repository = Repository(root)
    for _ in range(count):
        repository.publish(folder, "ttH", tags=[f"p{os.getpid()}"])


def start(*tasks):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=function, args=arguments) for function, *arguments in tasks]
    for process in processes:
        process.start()
    return processes


def test_two_processes_publish_consecutive_versions(made, tmp_path):
    root = tmp_path / "repo"
    processes = start((publish_many, root, made[0], 50), (publish_many, root, made[1], 50))
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0]
    assert Repository(root).versions("ttH") == tuple(range(1, 101))
    check_all(root)
    graphs = [Repository(root).manifest("ttH", v).sha256 for v in range(1, 101)]
    assert sorted(map(graphs.count, set(graphs))) == [50, 50]
    assert len(Repository(root).card("ttH").tags) == 2 + (graphs[-1] == open_bundle(made[1]).sha256)


def test_threads_publish_and_read_at_the_same_time(repository, made, tmp_path):
    errors = []

    def write():
        try:
            for _ in range(15):
                version = repository.publish(made[0], "ttH")
                assert repository.resolve("ttH") >= version
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert repository.versions("ttH") == tuple(range(1, 61))
    check_all(tmp_path / "repo")


def test_without_locks_a_version_is_still_never_replaced(made, tmp_path, monkeypatch):
    # A file system whose locks exclude nobody: each of the writers believes that it is alone.
    monkeypatch.setattr(atomic, "try_lock", lambda handle: True)
    root = tmp_path / "repo"
    processes = start(*[(publish_plain, root, made[i % 2], 20) for i in range(4)])
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0] * 4
    assert Repository(root).versions("ttH") == tuple(range(1, 81))
    check_all(root)


def publish_plain(root, folder, count):
    repository = Repository(root)
    for _ in range(count):
        repository.publish(folder, "ttH")


def test_a_lock_that_nobody_gives_back_is_an_answer(repository, made, tmp_path, monkeypatch):
    repository.publish(made[0], "ttH")
    monkeypatch.setattr(atomic, "LOCK_SECONDS", 0.05)
    with atomic.locked(tmp_path / "repo" / ".lock"), pytest.raises(Overloaded, match="holds the lock"):
        repository.publish(made[0], "ttH")


# Crashes

REPOSITORY_CODE = ("serve/models/", "serve/atomic.py", "rootdata/disk.py")


CHANGES = {
    "publish the first": lambda r, folder: r.publish(folder, "new"),
    "publish another": lambda r, folder: r.publish(folder, "ttH"),
    "set an alias": lambda r, folder: r.set_alias("ttH", "production", 2),
    "delete an alias": lambda r, folder: r.delete_alias("ttH", "production"),
    "add tags": lambda r, folder: r.add_tags("ttH", ["x", "y"]),
    "delete a version": lambda r, folder: r.delete("ttH", 3),
    "delete a model": lambda r, folder: r.delete("ttH"),
    "restore": lambda r, folder: r.restore("gone"),
    "purge": lambda r, folder: r.purge(days=-1),
    "recover": lambda r, folder: r.recover(seconds=0),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", CHANGES)
def test_a_crash_at_some_lines_leaves_old_or_new(made, tmp_path, kind):
    try_crashes(made, tmp_path, kind, step=20)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", CHANGES)
def test_a_crash_at_any_line_leaves_old_or_new(made, tmp_path, kind):
    try_crashes(made, tmp_path, kind, step=1)


def try_crashes(made, tmp_path, kind, *, step):
    start_root = tmp_path / "start"
    repository = Repository(start_root)
    for i in range(3):
        repository.publish(made[i % 2], "ttH", tags=["top"])
    repository.set_alias("ttH", "production", 1)
    repository.publish(made[0], "gone")
    repository.delete("gone")
    (start_root / ".staging" / "left" / "bundle").mkdir(parents=True)
    old = state(start_root)
    seen = []
    line = 0
    is_over = False
    while not is_over:
        line += random.Random(line).randint(1, step)
        root = tmp_path / f"at{line}"
        shutil.copytree(start_root, root)
        is_over = crash(lambda root=root: CHANGES[kind](Repository(root), made[0]), line=line, code=REPOSITORY_CODE)
        seen.append(state(root))
        check_all(root)
        again = Repository(root)
        assert again.recover(seconds=0) >= 0
        assert list((root / ".staging").iterdir()) == []
        again.delete("ttH") if "ttH" in seen[-1] else None
        assert again.publish(made[0], "ttH") == max([3, *seen[-1].get("ttH", [[]])[0]]) + 1
        assert open_bundle(root / "ttH" / str(again.resolve("ttH")))
        shutil.rmtree(root)
    new = seen[-1]
    switch = seen.index(new)
    assert seen == [old] * switch + [new] * (len(seen) - switch) or new == old
    assert all(s in (old, new) for s in seen)
    assert len(seen) > 3
    assert (new == old) == (kind in {"purge", "recover"})


CHURN = (
    lambda r, name, rng, folders: r.publish(rng.choice(folders), name, tags=[rng.choice("xyz")]),
    lambda r, name, rng, folders: r.set_alias(name, "production", rng.choice(r.versions(name))),
    lambda r, name, rng, folders: r.delete_alias(name, "production"),
    lambda r, name, rng, folders: r.delete(name, rng.choice(r.versions(name))),
    lambda r, name, rng, folders: rng.random() < 0.2 and r.delete(name),
    lambda r, name, rng, folders: r.restore(name),
    lambda r, name, rng, folders: r.recover(seconds=0),
    lambda r, name, rng, folders: r.purge(days=-1),
)


def churn(root, folders, seed):
    """Change everything as fast as possible until killed."""
    rng = random.Random(seed)
    repository = Repository(root)
    while True:
        with contextlib.suppress(NotFound, Conflict):
            rng.choice(CHURN)(repository, rng.choice(["a", "b"]), rng, folders)


@pytest.mark.long
def test_kill_9_at_random_moments_under_concurrent_writers(made, tmp_path):
    root = tmp_path / "repo"
    rng = random.Random(5)
    highest = {"a": 0, "b": 0}
    contents = {}
    for round_ in itertools.takewhile(lambda _: min(highest.values()) <= 25, range(200)):
        writers = start(*[(churn, root, made, 10 * round_ + i) for i in range(3)])
        deadline = time.monotonic() + rng.uniform(0.02, 0.12)
        while time.monotonic() < deadline:
            check_readable(root)
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.join()
        check_all(root)
        repository = Repository(root)
        for name, (versions, _, aliases, _) in state(root).items():
            assert set(aliases.values()) <= set(versions)
            for version in versions:
                inode = (root / name / str(version)).stat().st_ino
                assert contents.setdefault((name, version), inode) == inode  # a number never means another model
            fresh = repository.publish(made[0], name)
            assert fresh > highest[name]
            highest[name] = fresh
            contents[name, fresh] = (root / name / str(fresh)).stat().st_ino
        repository.recover(seconds=0)
        assert not (root / ".staging").exists() or list((root / ".staging").iterdir()) == []
    assert min(highest.values()) > 25  # however slow the machine, the writers came to something


def check_readable(root):
    """A reader next to the writers meets whole models, or none."""
    repository = Repository(root)
    for card in repository.cards():
        assert card.problem is None
        assert card.broken == {}


def test_recover_leaves_a_living_writer_alone(repository, made, tmp_path):
    staging = tmp_path / "repo" / ".staging"
    with repository.staging() as area:
        (area / "half").write_text("x")
        (staging / "dead").mkdir()
        (staging / ".config.json.123").write_text("{")
        assert Repository(tmp_path / "repo").recover() == 0  # too young
        assert Repository(tmp_path / "repo").recover(seconds=0) == 2
        assert (area / "half").exists()
    assert list(staging.iterdir()) == []


# Any sequence of changes, against a dictionary


class Model(RuleBasedStateMachine):
    """The repository does what a dictionary would do."""

    folders = ()
    versions = Bundle("versions")
    names = st.sampled_from(["a", "b"])
    words = st.sampled_from(["x", "y", "z"])

    @initialize()
    def begin(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.writer = Repository(self.folder.name)
        self.reader = Repository(self.folder.name)
        self.models = {}
        self.trash = {}
        self.highest = {"a": 0, "b": 0}

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(target=versions, name=names, which=st.integers(0, 1), tags=st.lists(words, max_size=2))
    def publish(self, name, which, tags):
        version = self.writer.publish(self.folders[which], name, tags=tags)
        self.highest[name] += 1
        assert version == self.highest[name]
        model = self.models.setdefault(name, {"versions": {}, "aliases": {}, "tags": set(self.left_tags(name))})
        model["versions"][version] = which
        model["tags"] |= set(tags)
        return (name, version)

    def left_tags(self, name):
        # A model whose versions were all deleted one by one keeps its config.json.
        return self.emptied.pop(name, ()) if hasattr(self, "emptied") else ()

    @rule(target_version=versions, alias=words)
    def set_alias(self, target_version, alias):
        name, version = target_version
        if version in self.models.get(name, {"versions": {}})["versions"]:
            self.writer.set_alias(name, alias, version)
            self.models[name]["aliases"][alias] = version
        else:
            with pytest.raises(NotFound):
                self.writer.set_alias(name, alias, version)

    @rule(name=names, alias=words)
    def delete_alias(self, name, alias):
        if alias in self.models.get(name, {"aliases": {}})["aliases"]:
            self.writer.delete_alias(name, alias)
            del self.models[name]["aliases"][alias]
        else:
            with pytest.raises(NotFound):
                self.writer.delete_alias(name, alias)

    @rule(name=names, tag=words, adds=st.booleans())
    def tag(self, name, tag, adds):
        known = self.models.get(name)
        if known is None or (not adds and tag not in known["tags"]):
            with pytest.raises(NotFound):
                self.writer.add_tags(name, [tag]) if adds else self.writer.remove_tag(name, tag)
        elif adds:
            self.writer.add_tags(name, [tag])
            known["tags"].add(tag)
        else:
            self.writer.remove_tag(name, tag)
            known["tags"].discard(tag)

    @rule(gone=consumes(versions))
    def delete_version(self, gone):
        name, version = gone
        known = self.models.get(name)
        if known is None or version not in known["versions"]:
            with pytest.raises(NotFound):
                self.writer.delete(name, version)
        elif version in known["aliases"].values():
            with pytest.raises(Conflict):
                self.writer.delete(name, version)
        else:
            self.writer.delete(name, version)
            del known["versions"][version]
            if not known["versions"]:
                self.emptied = {**getattr(self, "emptied", {}), name: self.models.pop(name)["tags"]}

    @rule(name=names)
    def delete_model(self, name):
        if name in self.models:
            self.writer.delete(name)
            self.trash[name] = self.models.pop(name)
        else:
            with pytest.raises(NotFound):
                self.writer.delete(name)

    @rule(name=names)
    def restore_model(self, name):
        if name not in self.trash:
            with pytest.raises(NotFound):
                self.writer.restore(name)
        elif name in self.models or name in getattr(self, "emptied", {}):
            with pytest.raises(Conflict):
                self.writer.restore(name)
        else:
            self.writer.restore(name)
            self.models[name] = self.trash.pop(name)

    @rule()
    def clean(self):
        assert self.writer.recover(seconds=0) == 0
        self.writer.purge(days=-1)
        self.trash = {}

    @invariant()
    def same(self):
        if not hasattr(self, "reader"):
            return
        for repository in (self.writer, self.reader, Repository(self.folder.name)):
            found = {c.name: c for c in repository.cards()}
            assert set(found) == set(self.models)
            for name, known in self.models.items():
                card = found[name]
                assert card.versions == tuple(sorted(known["versions"]))
                assert card.aliases == known["aliases"]
                assert repository.resolve(name) == max(known["versions"])
                assert set(card.tags) - {"fast"} == known["tags"]
                for version, which in known["versions"].items():
                    assert repository.manifest(name, version) == open_bundle(self.folders[which])
                for alias, version in known["aliases"].items():
                    assert repository.resolve(name, alias) == version


def test_any_sequence_of_changes(made):
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Bound", (Model,), {"folders": made})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))
