"""A server that is shown by jupyter-server-proxy, alone and behind the proxy of a JupyterHub, as in its notebooks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from models import make_bundle
from proxies import free_port
from servers import poll

from serve.models.repository import Repository

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jupyter_server_proxy") is None,
    reason="NO JUPYTER: needs jupyter-server-proxy; nothing was tested behind it",
)
HUB = "hub.cern.ch"
HUB_PROXY = Path(__file__).parents[2] / ".ci/page/node_modules/.bin/configurable-http-proxy"
EVENTS = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """Give a Jupyter server that has a prefix, as those of a hub have."""
    folder, port = tmp_path_factory.mktemp("j"), free_port()
    words = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.base_url=/user/anna/",
             "--ServerApp.allow_remote_access=True", f"--ServerApp.root_dir={folder}",
             "--IdentityProvider.token=t"]  # fmt: skip
    homes = {name: str(folder) for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | homes
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jupyter_server", *words], env=environment, stderr=log)
    address = f"http://127.0.0.1:{port}/user/anna"
    try:
        poll(lambda: is_up(f"{address}/api"), seconds=60, every=0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def hub(jupyter):
    """Give the proxy that a JupyterHub has in front of its users' servers, told of one as the hub tells it."""
    if not HUB_PROXY.exists():
        pytest.skip("NO HUB PROXY: needs configurable-http-proxy, which `make page` installs")
    port, api = free_port(), free_port()
    words = [f"--ip=127.0.0.1 --port={port}", f"--api-ip=127.0.0.1 --api-port={api}", "--log-level=error"]
    environment = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": "t"}
    process = subprocess.Popen([HUB_PROXY, *" ".join(words).split()], env=environment)
    routes, headers = f"http://127.0.0.1:{api}/api/routes", {"Authorization": "token t"}
    try:
        poll(lambda: is_up(routes, headers), seconds=60, every=0.1)
        target = {"target": jupyter.removesuffix("/user/anna")}
        assert httpx.post(f"{routes}/user/anna", json=target, headers=headers).status_code == 201
        yield f"http://127.0.0.1:{port}/user/anna"
    finally:
        process.terminate()
        process.wait(20)


def is_up(address, headers=None):
    try:
        return httpx.get(address, headers=headers).is_success
    except httpx.TransportError:
        return False


def through(front, server, host):
    """Talk as a page at ``host`` does, to the server behind the proxy."""
    port, own = server.url.rsplit(":", 1)[1], front.rsplit(":", 1)[1].partition("/")[0]
    headers = {"Authorization": "token t", "Host": f"{host}:{own}", "Origin": f"http://{host}:{own}"}
    return httpx.Client(base_url=f"{front}/proxy/{port}", headers=headers, timeout=30)


@pytest.fixture(params=["jupyter", pytest.param("hub", marks=pytest.mark.long)])
def front(request):
    return request.getfixturevalue(request.param)


@pytest.mark.long
@pytest.mark.parametrize(
    ("host", "options", "status"),
    [("127.0.0.1", [], 200), (HUB, ["--allow-host", HUB], 200), (HUB, [], 403)],
)
def test_pages_of_the_hub_may_ask_if_its_name_is_known(front, start_server, tmp_path, host, options, status):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "bundle"), "flat")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", *options])
    with through(front, server, host) as client:
        answer = client.post("/models/flat/predict", json=EVENTS)
        assert answer.status_code == status, answer.text
        if status == 403:
            assert "--allow-host" in answer.json()["error"]["message"]
            return
        assert answer.json()["num_events"] == 1
        assert client.get("/models").json()[0]["name"] == "flat"
        for path in ("/", "/page/app.js", "/page/settings.json", "/models/flat/versions/1/model.onnx"):
            assert client.get(path).status_code == 200
        large = {"events": EVENTS["events"] * 20_000}
        assert client.post("/models/flat/predict", json=large).json()["num_events"] == 20_000
