"""The command line of the client against the real server."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from running import columns, free_port
from servers import SOURCE, Handle, default_signals

from serve.client.__main__ import KEY, main
from serve.client.waiting import Client

EVENT = {"HT": 431.0, "MET_pt": 20.0, "Jet_pt": [120.5, 80.2], "Jet_eta": [0.1, -1.2]}


@pytest.fixture
def run(server: Handle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command, and return its status, what it printed and its complaint."""
    monkeypatch.delenv(KEY, raising=False)

    def command(*words: Any, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(["--url", server.url, *map(str, words)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def write(path: Path) -> Path:
    events = columns(40)
    flat = {"HT": events["HT"], "MET_pt": events["MET_pt"], "Jet_pt": events["Jet"].pt, "Jet_eta": events["Jet"].eta}
    with uproot.recreate(path) as file:
        file.mktree(
            "Events", {n: c.dtype if isinstance(c, np.ndarray) else ak.type(c).content for n, c in flat.items()}
        )
        file["Events"].extend(flat)
    return path


@pytest.mark.parametrize("document", [[EVENT, EVENT], {"events": [EVENT, EVENT]}])
def test_events_of_a_json_file_are_scored(document: Any, run: Any, client: Client, tmp_path: Path) -> None:
    expected = client.predict("ttH", [EVENT])["signal"][0]
    (tmp_path / "events.json").write_text(json.dumps(document))
    for words, stdin in ((tmp_path / "events.json", ""), ("-", json.dumps(document))):
        status, out, err = run("predict", words, "--model", "ttH", stdin=stdin)
        assert (status, err) == (0, "")
        names, *rows = out.splitlines()
        assert names == "signal"
        assert [np.float32(row) for row in rows] == [expected, expected]


def test_a_root_file_is_scored(run: Any, client: Client, tmp_path: Path) -> None:
    path = write(tmp_path / "events.root")
    expected = client.predict("ttH", columns(40))["signal"]
    status, out, _ = run("predict", path, "--model", "ttH", "--version", 1)
    assert status == 0
    np.testing.assert_allclose([float(x) for x in out.splitlines()[1:]], expected, atol=1e-6)
    assert run("predict", path, "--model", "ttH", "--out", tmp_path / "scores.root")[0] == 0
    with uproot.open(tmp_path / "scores.root") as file:
        np.testing.assert_allclose(file["scores"]["score_signal"].array(library="np"), expected, atol=1e-6)


def test_explain_gives_json_lines(run: Any) -> None:
    status, out, _ = run("predict", "-", "--model", "ttH", "--explain", stdin=json.dumps([{**EVENT, "HT": 9e3}]))
    assert status == 0
    [line] = map(json.loads, out.splitlines())
    assert set(line["scores"]) == {"signal"}
    assert line["explain"]["outside"]["HT"]["value"] == 9e3


def test_a_model_from_upload_to_trash(run: Any, bundle: Path, tmp_path: Path) -> None:
    steps: list[tuple[list[Any], str]] = [
        (["upload", "cli", bundle, "--tag", "new", "--batching", "events"], "cli\t1\n"),
        (["alias", "cli", "production", 1], ""),
        (["tag", "cli", "run3"], ""),
        (["search", "--tag", "run3", "--min", "auc=0.5"], "cli\t1\tproduction=1\tnew run3\tauc=0.9\n"),
        (["search", "--max", "auc=0.5"], ""),
        (["models"], "cli\t1\tproduction=1\tnew run3\tauc=0.9\nttH\t1\t-\t-\tauc=0.9\n"),
        (["download", "cli", "--into", tmp_path / "copy"], f"{tmp_path / 'copy'}\n"),
        (["tag", "cli", "run3", "--delete"], ""),
        (["alias", "cli", "production", "--delete"], ""),
        (["delete", "cli"], ""),
        (["restore", "cli"], ""),
        (["delete", "cli"], ""),
        (["ready"], "ready\n"),
    ]
    for words, expected in steps:
        assert run(*words) == (0, expected, ""), words
    status, out, _ = run("card", "ttH", "--version", 1)
    assert status == 0
    assert json.loads(out)["manifest"]["author"] == "Marie"


@pytest.mark.parametrize(
    ("words", "stdin", "complaint"),
    [
        (["predict", "-", "--model", "tth"], "[]", "nearest: 'ttH'"),
        (["predict", "-", "--model", "ttH"], "[{]", "this is not JSON"),
        (["predict", "-", "--model", "ttH"], "7", "expected a list of events"),
        (["predict", "-", "--model", "ttH"], "[7]", "expected a list of dicts"),
        (["predict", "-", "--model", "ttH"], '[{"HT": 1}]', "'MET_pt' is missing in event 0"),
        (["predict", "-", "--model", "ttH", "--out", "x.root"], "[]", "--out"),
        (["predict", "nothing.root", "--model", "ttH"], "", "nothing.root is no file"),
        (["predict", "nothing.json", "--model", "ttH"], "", "nothing.json: No such file"),
        (["search", "--min", "auc"], "", "expected one like auc=0.9"),
        (["card", "tth"], "", "nearest: 'ttH'"),
        (["upload", "x", "/nowhere"], "", "expected the folder of a bundle"),
        (["alias", "ttH", "production", "9"], "", "no version 9"),
    ],
)
def test_mistakes_are_told_in_a_sentence(words: list[str], stdin: str, complaint: str, run: Any) -> None:
    status, out, err = run(*words, stdin=stdin)
    assert (status, out) == (2, "")
    assert err.startswith("serve.client: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_a_server_that_is_away_is_another_status(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["--url", url, "--timeout", "0.5", "models"]) == 1
    assert url in capsys.readouterr().err


def test_options_that_are_none_end_with_the_usage() -> None:
    for words in (["nothing"], ["alias", "ttH", "production"], ["predict", "x.root"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2


def test_the_key_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(KEY, "not a key")
    assert main(["models"]) == 2
    assert "key: it has characters that no key has" in capsys.readouterr().err


def test_ctrl_c_ends_quietly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = [sys.executable, "-m", "serve.client", "--url", url, "models"]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        asking = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals)
        connection, _ = silent.accept()
        with connection:
            asking.send_signal(signal.SIGINT)
            _, complaint = asking.communicate(timeout=30)
    assert (asking.returncode, complaint) == (130, "")
