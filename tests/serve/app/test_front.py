"""Servers behind a proxy with a prefix, on a Unix socket, and asked by pages of other sites."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import tritonclient.http as triton
from models import make_bundle
from proxies import nginx
from servers import Handle, announced, kill, launch, poll

from serve.client import Client
from serve.models.repository import Repository

SITE = "https://hub.cern.ch"
EVENTS = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Give a server on a socket, with a prefix, a name and a site that it knows."""
    folder = tmp_path_factory.mktemp("s")
    Repository(folder / "repo").publish(make_bundle(folder / "bundle"), "flat")
    path = folder / "socket"
    options = ["--root-path", "/ml", "--allow-origin", SITE, "--allow-host", "ML.cern.ch"]
    words = ["-m", "serve", str(folder / "repo"), "--host", f"unix:{path}", *options]
    handle = Handle(launch(words, temporary=folder), "", folder, folder / "log")
    handle.url = announced(handle, seconds=60)
    assert handle.url == f"unix:{path}"
    yield handle
    pids = handle.all_pids()
    assert handle.stop() == 0
    assert not path.exists()
    for pid in pids:
        kill(pid)
    handle.process.stdout.close()


@pytest.fixture(scope="module")
def client(server):
    transport = httpx.HTTPTransport(uds=server.url.removeprefix("unix:"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
        yield client


def test_a_socket_is_the_owners_alone(server):
    mode = Path(server.url.removeprefix("unix:")).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o022 == 0  # by the umask of whoever runs the tests


@pytest.mark.parametrize("prefix", ["", "/ml"])
def test_paths_may_have_the_prefix_or_not(client, prefix):
    assert client.get(f"{prefix}/models/flat").json()["name"] == "flat"
    assert client.post(f"{prefix}/models/flat/predict", json=EVENTS).json()["num_events"] == 1
    assert client.get(f"{prefix}/v2/models/flat").json()["name"] == "flat"
    assert "<html" in client.get(f"{prefix}/").text
    assert client.get(f"{prefix}/page/app.js").status_code == 200
    assert client.get(f"{prefix}/ml/ml/models").status_code == 404
    assert client.get(f"{prefix}/models%2Fflat").status_code == 404


def test_what_the_server_says_of_its_paths_has_the_prefix(client, server):
    graph = (server.temporary / "bundle" / "model.onnx").read_bytes()
    answer = client.post("/models/led/versions", content=graph)
    assert answer.headers["location"] == "/ml/models/led/versions/1"
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/ml"}]
    answer = client.get("/ml")
    assert (answer.status_code, answer.headers["location"]) == (308, "/ml/")


def test_a_path_that_only_starts_like_the_prefix_is_another_one(client):
    assert client.get("/mlmodels").status_code == 404
    assert client.get("/%6dl/models").status_code == 404


def test_a_page_of_a_known_site_may_ask(client):
    asked = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    answer = client.options("/models/flat/predict", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "x-api-key"
    answer = client.post("/models/flat/predict", json=EVENTS, headers={"Origin": SITE})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "X-Model-Version" in answer.headers["access-control-expose-headers"]
    answer = client.get("/models/none", headers={"Origin": SITE})  # a page may read errors, too
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (404, SITE)


@pytest.mark.parametrize("origin", ["https://evil.org", "http://hub.cern.ch", f"{SITE}.evil.org", "null", "http://["])
def test_a_page_of_another_site_may_not(client, origin):
    answer = client.post("/models/flat/predict", json=EVENTS, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "--allow-origin" in answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert client.options("/models/flat/predict", headers=asked).status_code == 405


def test_a_cache_is_told_that_answers_depend_on_the_site(client):
    for headers in ({}, {"Origin": SITE}, {"Origin": "https://evil.org"}):
        assert client.get("/models", headers=headers).headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("ml.cern.ch", 200),
        ("ML.CERN.CH:8443", 200),
        ("localhost", 200),
        ("evil.org", 403),
        ("ml.cern.ch.evil.org", 403),
    ],
)
def test_only_known_names_are_answered_without_keys(client, host, status):
    answer = client.get("/models", headers={"Host": host})
    assert answer.status_code == status
    assert answer.is_success or "--allow-host" in answer.json()["error"]["message"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_asks_through_the_socket(server):
    command = [
        "curl",
        "-s",
        "--fail",
        "--unix-socket",
        server.url.removeprefix("unix:"),
        "http://localhost/health/live",
    ]
    assert b"live" in subprocess.run(command, capture_output=True, check=True, timeout=20).stdout


LOCATIONS = """
    location /ml/ {
        proxy_pass http://rootdata;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_request_buffering off;
    }
    location /stripped/ {
        proxy_pass http://rootdata/;
        proxy_set_header Host $http_host;
    }
"""


def test_nginx_stands_in_front(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("n")
    with nginx(folder, servers=[server.url], locations=LOCATIONS):
        transport = httpx.HTTPTransport(uds=str(folder / "front"))
        for host in ("ml.cern.ch", "ml.cern.ch:8443"):  # a page says its port, too
            with httpx.Client(transport=transport, base_url=f"http://{host}", timeout=30) as client:
                check_through(client, host)


def check_through(client, host):
    own = {"Origin": f"http://{host}"}  # as the page itself sends it
    for prefix in ("/ml", "/stripped"):  # with HTTP/1.1 that is kept, and with HTTP/1.0
        for _ in range(3):
            answer = client.post(f"{prefix}/models/flat/predict", json=EVENTS, headers=own)
            assert answer.status_code == 200, answer.text
        assert client.get(f"{prefix}/").status_code == 200
        assert client.get(f"{prefix}/models", headers={"Host": "evil.org"}).status_code == 403
    large = {"events": EVENTS["events"] * 20_000}
    assert client.post("/ml/models/flat/predict", json=large).json()["num_events"] == 20_000
    assert client.get("/ml", follow_redirects=False).status_code == 301  # nginx's own


ROLLING = """
    location ~ /(predict|infer)$ {
        proxy_pass http://rootdata;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_next_upstream error timeout http_502 http_503 non_idempotent;
    }
    location / {
        proxy_pass http://rootdata;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_request_buffering off;
    }
"""


@pytest.mark.long
def test_servers_are_restarted_in_turn_and_no_request_fails(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("n")
    Repository(folder / "repo").publish(make_bundle(folder / "bundle"), "flat")

    def start(number):
        return start_server(["-m", "serve", str(folder / "repo"), "--host", f"unix:{folder}/{number}"])

    servers = [start(number) for number in range(2)]
    upstream = [f"{server.url} max_fails=0" for server in servers]
    with nginx(folder, servers=upstream, locations=ROLLING) as url, ThreadPoolExecutor(8) as pool:
        is_over = threading.Event()
        clients = [pool.submit(ask_until, is_over, url) for _ in range(8)]
        try:
            for number, signal_number in ((0, signal.SIGTERM), (1, signal.SIGHUP), (0, signal.SIGHUP)):
                assert servers[number].stop(number=signal_number) == 0
                servers[number] = start(number)  # which returns when it answers
        finally:
            is_over.set()
        answers = Counter(answer for client in clients for answer in client.result(60))
    assert set(answers) == {200}
    assert answers[200] > 1000  # so that there was one on its way whatever happened


def ask_until(is_over, url):
    """Predict over and over, by a connection that is kept and by new ones; return what came of it."""
    told = []
    with httpx.Client(base_url=url, timeout=60) as kept:
        while not is_over.is_set():
            try:
                answer = (kept if len(told) % 10 else httpx).post(f"{url}/models/flat/predict", json=EVENTS, timeout=60)
                told.append(answer.status_code)
            except httpx.HTTPError as error:
                told.append(repr(error))
    return told


@pytest.mark.long
def test_a_socket_that_a_dead_server_left_is_used_again_and_a_living_one_is_not(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("s")
    path = folder / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    words = ["-m", "serve", str(folder / "repo"), "--host", f"unix:{path}"]
    server = start_server(words)
    again = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 2
    assert "is in use" in again.stderr
    assert again.stderr.count("\n") == 1
    assert server.stop(number=signal.SIGHUP) == 0  # as when a terminal is closed
    assert not path.exists()
    path.write_text("a file of somebody")
    again = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, path.read_text()) == (2, "a file of somebody")


@pytest.mark.long
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="NO IPV6: this machine has none; nothing of it was tested")
def test_a_server_is_asked_over_ipv6(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "bundle"), "flat")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--host", "::1", "--port", "0"])
    address = server.url.removeprefix("http://")
    assert address.startswith("[::1]:")
    own = {"Origin": server.url}  # as its page sends it
    assert httpx.post(f"{server.url}/models/flat/predict", json=EVENTS, headers=own).status_code == 200
    assert httpx.get(f"{server.url}/models", headers={"Host": "evil.org"}).status_code == 403
    with Client(server.url) as client:  # loopback, and so served without keys
        assert client.predict("flat", EVENTS["events"]).version == 1
    with triton.InferenceServerClient(address) as client:
        assert client.is_model_ready("flat")
    port = address.rpartition(":")[2]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health/live")
    words = [sys.executable, "-m", "serve", str(tmp_path / "repo"), "--host", "[::1]", "--port", port]  # as in a URL
    again = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert f"[::1]:{port} is in use" in again.stderr


def test_all_addresses_need_keys_over_ipv6_too(tmp_path):
    words = [sys.executable, "-m", "serve", str(tmp_path / "repo"), "--host", "::"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--keys" in done.stderr


@pytest.mark.parametrize("host", ["unix:", "unix:/nowhere/socket", "unix:/" + "x" * 200])
def test_a_path_that_can_not_be_listened_on_is_told(tmp_path, host):
    words = [sys.executable, "-m", "serve", str(tmp_path / "repo"), "--host", host]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "can't listen on unix:" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.long
def test_a_hang_up_lets_requests_finish(start_toy):
    server = start_toy(grace=10)
    pids = server.all_pids()
    slow = "/echo?op=sleep&seconds=1&timeout=5"
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(f"POST {slow} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nslow".encode())
        poll(lambda: "inference_pending_request_count 1.0" in httpx.get(f"{server.url}/metrics").text)
        for pid in pids:  # as a terminal does it
            os.kill(pid, signal.SIGHUP)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert server.process.wait(20) == 0
    assert server.log.read_text() == ""


@pytest.mark.long
def test_a_server_that_nohup_started_stays(start_server, tmp_path):
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0"], first=ignore)
    os.kill(server.pid, signal.SIGHUP)
    time.sleep(0.2)
    assert server.is_ready("/health/ready")
    assert server.stop() == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--root-path", "ml"], ["--root-path", "/ml/../x"], ["--root-path", "/m l"], ["--root-path", "http://x/ml"],
        ["--allow-host", "http://ml"], ["--allow-host", "ml:80"], ["--allow-host", ""],
        ["--allow-origin", "hub.cern.ch"], ["--allow-origin", "https://hub.cern.ch/"], ["--allow-origin", "*"],
    ],
)  # fmt: skip
def test_what_can_not_be_meant_is_refused(tmp_path, words, capsys):
    from serve.__main__ import main

    try:
        code = main([str(tmp_path / "repo"), *words])
    except SystemExit as end:  # of argparse
        code = end.code
    assert code == 2
    assert words[0] in capsys.readouterr().err
