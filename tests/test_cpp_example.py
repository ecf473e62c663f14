"""The C++ example: compiled with every warning an error, and run against a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "examples" / "cpp"
HERE = str(Path(__file__).parent / "serve")

# As in the example; the model is that of the tests, which takes the same branches.
EVENTS = {
    "HT": np.array([431.0, 99.5], np.float32),
    "MET_pt": np.array([20.0, 130.0], np.float32),
    "Jet_pt": [[120.0, 80.0, 31.0], [45.0]],
    "Jet_eta": [[0.1, -1.2, 2.2], [0.7]],
}


def has_libcurl() -> bool:
    """Say whether a program can be made with libcurl."""
    words = ["g++", "-x", "c++", "-fsyntax-only", "-"]
    source = b"#include <curl/curl.h>\n"
    return bool(shutil.which("g++")) and subprocess.run(words, input=source, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    not has_libcurl(), reason="THE C++ EXAMPLE IS NOT TESTED: g++ or the headers of libcurl are missing"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the example as its README says."""
    folder = tmp_path_factory.mktemp("cpp")
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    made = subprocess.run(["make"], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert all(flag in made.stdout for flag in ("-std=c++17", "-Wall", "-Wextra", "-Werror"))
    return folder / "score"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server with the model of the example."""
    code = "import models, pathlib, sys; models.make_bundle(pathlib.Path(sys.argv[1]), jets=True)"
    folder = tmp_path_factory.mktemp("s")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), HERE])}
    subprocess.run([sys.executable, "-c", code, str(folder / "ttH")], env=environment, check=True)
    words = [sys.executable, "-m", "serve", str(folder / "models"), "--port", "0", "--publish", f"ttH={folder / 'ttH'}"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "")
            yield next((line.split()[1] for line in lines if line.startswith("serving ")), "the server did not start")
        finally:
            server.terminate()


def run(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program), *words], capture_output=True, text=True, timeout=60)


@pytest.mark.long
def test_it_gets_the_scores_that_the_python_client_gets(program: Path, url: str) -> None:
    from serve.client import Client

    with Client(url) as client:
        client.wait_until_ready(60)
        expected = client.predict("ttH", EVENTS)["signal"]
    done = run(program, url, "ttH")
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_allclose([float(line) for line in done.stdout.splitlines()], expected, atol=1e-6)
    assert np.ptp(expected) > 0.01


def test_the_events_of_the_example_are_those_of_this_test() -> None:
    text = "".join((SOURCE / "score.cpp").read_text().split())
    for values in (EVENTS["HT"], EVENTS["MET_pt"], chain(*EVENTS["Jet_pt"]), chain(*EVENTS["Jet_eta"])):
        assert "{" + ",".join(f"{value:.1f}F" for value in values) + "}" in text


@pytest.mark.long
def test_errors_are_told_with_their_status(program: Path, url: str) -> None:
    unknown = run(program, url, "tth")
    assert unknown.returncode == 2
    assert "404" in unknown.stderr
    assert "nearest: 'ttH'" in unknown.stderr
    usage = run(program)
    assert usage.returncode == 2
    assert usage.stderr.startswith("usage")
    nobody = run(program, "http://127.0.0.1:1", "ttH")
    assert nobody.returncode == 1
    assert "http://127.0.0.1:1/models/ttH/predict" in nobody.stderr


@pytest.mark.long
def test_it_comes_back_after_the_time_that_the_server_asks_for(program: Path) -> None:
    asked: list[float] = []

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(time.monotonic())
            self.send_response(503 if len(asked) < 2 else 418)
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = run(program, f"http://127.0.0.1:{server.server_port}", "ttH")
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 2
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 1
