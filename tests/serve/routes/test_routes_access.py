"""Who may do what, what lies open, and errors that belong to no path."""

from __future__ import annotations

import itertools
import re
import socket

import pytest
from servers import poll

from serve.app.asgi import operations
from serve.formats.known import Formats
from serve.keys import SCOPES, Keys

EVENTS = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture(scope="module")
def secrets(keys):
    return {scope: keys.create(scope, scope=scope) for scope in SCOPES}


@pytest.fixture(scope="module")
def closed(start_site, secrets, keys):
    """A server that asks for keys, and listens on all addresses."""
    found = start_site("--keys", keys._path, "--host", "0.0.0.0")
    found.client.base_url = found.handle.url.replace("0.0.0.0", "127.0.0.1")
    return found


def sent(site, operation, path, key):
    for part in ("name", "version", "alias", "tag"):
        path = path.replace(f"{{{part}}}", "none")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return site.client.request(operation.method, path, headers=headers)


@pytest.mark.parametrize("operation", operations(Formats()), ids=lambda o: f"{o.method} {o.paths[0]}")
def test_each_path_asks_for_its_scope(closed, secrets, operation):
    needed = 0 if operation.scope is None else SCOPES.index(operation.scope)
    for path in operation.paths:
        nobody = sent(closed, operation, path, None)
        assert (nobody.status_code == 401) == (operation.scope is not None)
        for rank, scope in enumerate(SCOPES):
            answer = sent(closed, operation, path, secrets[scope])
            assert answer.status_code != 401
            assert (answer.status_code == 403) == (rank < needed), answer.text
            assert answer.status_code < 500


def test_keys_are_taken_from_two_headers(closed, secrets):
    for headers in ({"Authorization": f"bearer {secrets['predict']}"}, {"X-API-Key": secrets["predict"]}):
        answer = closed.client.post("/models/flat/predict", json=EVENTS, headers=headers)
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("key", ["x", "rk_000000000000_" + "a" * 43, "Bearer", "\xff", "rk_" + "a" * 9000])
def test_wrong_keys_are_refused(closed, key):
    answer = closed.client.get("/models", headers={"Authorization": b"Bearer " + key.encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert closed.client.get("/v2", headers={"X-API-Key": "x"}).json()["error"].startswith("the API key")


def test_a_revoked_key_opens_nothing(closed, keys):
    secret = keys.create("short")
    headers = {"X-API-Key": secret}
    assert closed.client.get("/models", headers=headers).status_code == 200
    keys.revoke(secret.split("_")[1])
    assert closed.client.get("/models", headers=headers).status_code == 401


def test_health_and_the_document_lie_open(closed):
    for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/openapi.json"):
        assert closed.client.get(path).status_code == 200
    assert closed.client.get("/metrics").status_code == 401
    assert closed.client.get("/openapi.json").json()["components"]["securitySchemes"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "169.254.169.254"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:8000"}, 200),
    ],
)
def test_pages_of_other_sites_get_nothing_from_a_server_without_keys(site, headers, status):
    assert site.client.get("/models", headers=headers).status_code == status
    assert site.client.get("/models", headers={"Origin": site.handle.url}).status_code == 200


def test_no_answer_is_for_other_sites(site):
    answer = site.client.options("/models", headers={"Origin": site.handle.url, "Access-Control-Request-Method": "GET"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/docs", "/redoc", "/health", "/info", "/predict", "/models/", "/data"]
)
def test_unknown_paths_are_told(site, path):
    answer = site.client.get(path)
    if path == "/" and answer.status_code == 200:
        return  # the web page
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_unknown_methods_are_told(site):
    answer = site.client.delete("/models/flat/tags/x/y")
    assert answer.status_code == 404
    for method, path in itertools.product(
        ("PATCH", "TRACE", "BREW"), ("/models", "/models/flat/predict", "/health/live")
    ):
        answer = site.client.request(method, path)
        if method != "BREW":  # which the HTTP parser does not know
            assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
        assert 400 <= answer.status_code < 500
    assert site.client.get("/models/flat/predict").headers["allow"] == "POST"
    assert site.client.head("/models").status_code == 200


def test_metrics_count_all_roads(site):
    site.client.post("/models/flat/predict", json=EVENTS)
    site.client.post("/json", json={"keys": ["HT", "MET_pt"], "values": [1, 2], "model": "flat"})
    text = site.client.get("/metrics").text
    for road in ("physics", "tfaas-json"):
        assert re.search(
            rf'inference_requests_total{{model="flat",road="{road}",status="200",version="1"}} [1-9]', text
        ), text


@pytest.mark.long
def test_a_server_without_its_folder_is_not_ready(start_site):
    lost = start_site()
    assert lost.client.get("/health/ready").json() == {"status": "ready"}
    lost.folder.rename(lost.folder.with_name("moved"))
    for path in ("/health/ready", "/v2/health/ready"):
        answer = lost.client.get(path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert lost.client.get("/health/live").status_code == 200
    assert lost.client.get("/models").json() == []
    assert lost.client.post("/models/flat/predict", json=EVENTS).status_code == 404
    lost.folder.with_name("moved").rename(lost.folder)
    poll(lambda: lost.client.get("/health/ready").status_code == 200)
    assert lost.client.post("/models/flat/predict", json=EVENTS).status_code == 200


@pytest.mark.long
def test_a_client_that_pauses_is_told(start_site):
    slow = start_site("--timeout", "0.3")
    host, port = slow.address.split(":")
    with socket.create_connection((host, int(port))) as connection, connection.makefile("rb") as stream:
        head = f"POST /models/flat/predict HTTP/1.1\r\nHost: {slow.address}\r\nContent-Length: 100\r\nConnection: close"
        connection.sendall(head.encode() + b'\r\n\r\n{"events":')
        answer = stream.read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"body_too_slow" in answer
