"""The command line of the server: options, mistakes in one sentence, keys, publishing."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import httpx
import kinds
import models
import pytest
from servers import SOURCE

from serve.__main__ import main
from serve.errors import NotFound
from serve.keys import Keys
from serve.models.repository import Repository


def run(capsys, *words):
    try:
        status = main([str(w) for w in words])
    except SystemExit as left:
        status = left.code
    written = capsys.readouterr()
    return status, written.out, written.err


def test_help_is_quick_and_loads_nothing_heavy():
    code = "import sys\nfrom serve.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCE)}
    )
    assert time.monotonic() - started < 5
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"numpy", "litserve", "fastapi", "onnxruntime", "uvicorn", "starlette"}
    for option in (
        "--port",
        "--keys",
        "--open",
        "--workers",
        "--api-processes",
        "--publish",
        "--max-events",
        "--root-path",
        "--allow-host",
        "--allow-origin",
        "unix:PATH",
    ):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "MODELS"),
        (["M", "--port", "70000"], "65535"),
        (["M", "--port", "x"], "whole number"),
        (["M", "--workers", "0"], "from 1"),
        (["M", "--timeout", "-1"], "above 0"),
        (["M", "--timeout", "nan"], "above 0"),
        (["M", "--timeout", "700"], "--max-timeout"),
        (["M", "--publish", "ttH"], "NAME=BUNDLE"),
        (["M", "--publish", "ttH=none"], "model.onnx"),
        (["M", "--publish", "../ttH=none"], "allowed"),
        (["M", "--host", "0.0.0.0"], "--keys FILE, or --open"),
        (["M", "--keys", "none"], "keys add"),
        (["M", "--ports", "1"], "--ports"),
        (["keys"], "add|list|revoke"),
        (["M", "--max-trash-bytes", "0"], "from 1"),
        (["M", "--max-trash-days", "-1"], "above 0"),
        (["purge"], "MODELS"),
        (["purge", "none"], "no folder"),
        (["purge", "M", "--days", "-1"], "above 0"),
        (["purge", "M", "--max-bytes", "-1"], "from 0"),
        (["keys", "add", "K", "two words"], "allowed"),
        (["keys", "add", "K", "me", "--scope", "all"], "predict"),
        (["keys", "revoke", "K", "123"], "no key"),
        (["publish", "M", "ttH", "none"], "model.onnx"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    status, _, told = run(capsys, *words)
    assert status == 2
    assert sentence in told.splitlines()[-1], told
    assert "Traceback" not in told


def test_keys_are_made_listed_and_revoked(tmp_path, capsys):
    file = tmp_path / "keys"
    status, secret, _ = run(capsys, "keys", "add", file, "me", "--scope", "publish", "--days", "1")
    assert status == 0
    assert Keys(file).authorize(f"Bearer {secret.strip()}", scope="publish").name == "me"
    _, listed, _ = run(capsys, "keys", "list", file)
    assert "publish" in listed
    assert "me" in listed
    assert secret.strip() not in listed
    assert run(capsys, "keys", "revoke", file, listed.split()[0])[0] == 0
    assert run(capsys, "keys", "list", file)[1] == ""


def test_publish_adds_versions(tmp_path, capsys):
    bundle = models.make_bundle(tmp_path / "bundle")
    for version in (1, 2):
        status, said, _ = run(capsys, "publish", tmp_path / "repo", "ttH", bundle)
        assert (status, said) == (0, f"published ttH, version {version}\n")
    (bundle / "model.onnx").write_bytes(b"no graph")
    status, _, told = run(capsys, "publish", tmp_path / "repo", "ttH", bundle)
    assert status == 2
    assert "model.onnx" in told
    assert Repository(tmp_path / "repo").versions("ttH") == (1, 2)


def test_publish_leaves_the_folder_as_it_is_and_takes_the_batching(tmp_path, capsys):
    folder = kinds.written(kinds.classifier([0, 1], has_maps=True), tmp_path / "maps")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for version, words in ((1, []), (2, ["--batching", "none"])):
        status, said, _ = run(capsys, "publish", tmp_path / "repo", "maps", folder, *words)
        assert (status, said) == (0, f"published maps, version {version}\n")
        assert Repository(tmp_path / "repo").manifest("maps", version).batching == (words[1] if words else "events")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    status, help_text, _ = run(capsys, "publish", "--help")
    assert status == 0
    assert "--batching" in help_text


@pytest.mark.long
def test_publishing_without_room_is_told_in_one_sentence(tmp_path, capsys):
    bundle = models.make_bundle(tmp_path / "bundle")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        status, _, told = run(capsys, "publish", tmp_path / "repo", "ttH", bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2
    assert told.startswith("serve: File too large: ")


def test_serving_publishes_what_is_new_and_makes_the_folder(tmp_path, start_server):
    bundle, folder = models.make_bundle(tmp_path / "bundle"), tmp_path / "keys"  # called like a command
    arguments = ["-m", "serve", str(folder), "--port", "0", "--publish", f"ttH={bundle}"]
    for version in (1, 1, 2):
        if version == 2:
            models.make_bundle(bundle, seed=5)
        handle = start_server(arguments)
        body = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}
        answer = httpx.post(f"{handle.url}/models/ttH/predict", json=body, timeout=30).json()
        assert answer["version"] == version
        assert handle.stop() == 0
    assert Repository(folder).versions("ttH") == (1, 2)


def test_the_trash_is_emptied_by_command(tmp_path, capsys):
    bundle = models.make_bundle(tmp_path / "bundle")
    repository = Repository(tmp_path / "repo")
    for name in ("first", "second", "third"):
        repository.publish(bundle, name)
        repository.delete(name)
    size = sum(path.stat().st_size for path in bundle.iterdir())
    for words, removed in (
        (("--days", 1), 0),
        (("--max-bytes", 10 * size), 0),
        (("--max-bytes", size), 2),
        ((), 1),
        ((), 0),
    ):
        status, out, _ = run(capsys, "purge", tmp_path / "repo", *words)
        assert (status, out) == (0, f"removed {removed} from the trash\n")
    with pytest.raises(NotFound):
        repository.restore("third")


def test_the_trash_has_limits_from_the_start_on(tmp_path, start_server):
    bundle = models.make_bundle(tmp_path / "bundle")
    repository = Repository(tmp_path / "repo")
    size = sum(path.stat().st_size for path in bundle.iterdir())
    for name in ("first", "second", "third"):
        repository.publish(bundle, name)
        repository.delete(name)
    repository.publish(bundle, "fourth")
    words = ["--max-trash-bytes", str(2 * size), "--max-trash-days", "100"]
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", *words])

    def trash():
        return sorted(path.name.split("@")[0] for path in (tmp_path / "repo" / ".trash").iterdir())

    assert trash() == ["second", "third"]
    assert httpx.delete(f"{server.url}/models/fourth").status_code == 204
    assert trash() == ["fourth", "third"]
