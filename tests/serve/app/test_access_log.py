"""What is refused is counted, the log has a line for each answer, and no line has a key."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from models import make_bundle
from prometheus_client.parser import text_string_to_metric_families
from servers import Handle, poll

from serve.keys import Keys
from serve.models.repository import Repository

EVENTS = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def key(keys: Keys) -> str:
    return keys.create("anna")


@pytest.fixture
def server(start_server, tmp_path: Path, key: str) -> Handle:
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "flat"), "flat")
    words = ["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--keys", str(tmp_path / "keys")]
    return start_server([*words, "--access-log", str(tmp_path / "log"), "--max-body", "1000"])


def samples(server: Handle, key: str) -> dict[tuple[str, str, str], float]:
    """Read the metrics: name, path or model, and status to the value."""
    text = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": key}).text
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {
        (s.name, s.labels.get("path", s.labels.get("model", "")), s.labels.get("status", "")): s.value for s in found
    }


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_each_answer_is_counted_and_logged_without_keys(server, key, tmp_path):
    path = "/models/{name}/predict"
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as http:
        assert http.post("/models/flat/predict", json=EVENTS).status_code == 200
        assert http.post("/models/flat/predict", content=b" " * 1001).status_code == 413
        assert http.post("/models/none/predict", json=EVENTS).status_code == 404
        assert http.put(f"/models/{key}/versions?key={key}", content=b"x").status_code == 403
        assert http.get(f"/{key}").status_code == 404
    assert httpx.post(f"{server.url}/models/flat/predict", json=EVENTS).status_code == 401
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(b"EAT / HTTP/1.1\r\n\r\n")
        assert b" 400 " in connection.recv(1000)
    expected = {(path, "200"): 1, (path, "413"): 1, (path, "404"): 1, (path, "401"): 1, ("", "404"): 1, ("", "400"): 1}
    found = samples(server, key)
    assert {what: found["http_responses_total", *what] for what in expected} == expected
    poll(lambda: len(lines_of(tmp_path / "log")) >= 7)  # a line is written after its answer has gone out
    lines = lines_of(tmp_path / "log")
    assert [line["status"] for line in lines] == [200, 413, 404, 403, 404, 401, 200]
    assert [line["who"] for line in lines[:3]] == ["anna"] * 3
    assert lines[5]["who"] is None
    assert lines[0]["path"] == "/models/flat/predict"
    assert lines[0]["bytes"] > 10
    assert 0 < lines[0]["seconds"] < 10
    assert key.split("_", 2)[2] not in (tmp_path / "log").read_text()


@pytest.mark.long
def test_metrics_have_tritons_names(server, key):
    for _ in range(3):
        httpx.post(
            f"{server.url}/models/flat/predict", json={"events": EVENTS["events"] * 2}, headers={"X-API-Key": key}
        )
    httpx.post(f"{server.url}/models/flat/predict", json={"events": 3}, headers={"X-API-Key": key})
    text = httpx.get(f"{server.url}/metrics", headers={"X-API-Key": key}).text
    lines = re.findall(r"^nv_inference_(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    found = {name: float(value) for name, value in lines}
    assert 'nv_inference_count{model="flat",version="1"} 6' in text.splitlines()
    assert found["request_success"] == found["exec_count"] == 3
    assert found["request_failure"] == 1
    assert 0 < found["compute_infer_duration_us"] < found["request_duration_us"] < 60e6
    assert 0 < found["queue_duration_us"] < found["request_duration_us"]
    assert found["pending_request_count"] == 0


@pytest.mark.long
def test_a_file_of_keys_that_can_not_be_read_turns_ready_off(server, tmp_path):
    path = tmp_path / "keys"
    good = path.read_bytes()
    assert server.is_ready("/health/ready")
    for spoil in (path.unlink, lambda: path.write_bytes(b"no key\n")):
        spoil()
        poll(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503)
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        path.write_bytes(good)
        os.utime(path)
        poll(lambda: server.is_ready("/health/ready"))


def test_a_log_that_can_not_be_written_costs_no_answer(start_server, tmp_path):
    Repository(tmp_path / "repo").publish(make_bundle(tmp_path / "flat"), "flat")
    server = start_server(["-m", "serve", str(tmp_path / "repo"), "--port", "0", "--access-log", "/dev/full"])
    assert httpx.post(f"{server.url}/models/flat/predict", json=EVENTS).status_code == 200
    poll(lambda: "No space left" in server.log.read_text())
