"""The format of one's own that docs/formats.md shows is run as it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from models import make_bundle
from servers import Handle

DOCUMENT = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
[SOURCE] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
START, CURL = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)
LINES = "application/x-ndjson"
EVENTS = [{"HT": 431.0, "MET_pt": 20.5}, {"HT": 99.5, "MET_pt": 130.0}, {"HT": 1.0, "MET_pt": 2.0}]
BODY = b"\n".join(map(orjson.dumps, EVENTS)) + b"\n"
PATH = "/models/ttH/predict"


@pytest.fixture
def client(tmp_path: Path, start_server: Callable[..., Handle]) -> Iterator[httpx.Client]:
    (tmp_path / "my_lines.py").write_text(SOURCE)
    make_bundle(tmp_path / "bundle")
    words = START.replace("python -m serve models", f"-m serve {tmp_path / 'models'} --port 0").split()
    words[words.index("ttH=bundle")] = f"ttH={tmp_path / 'bundle'}"
    environment = {"PYTHONPATH": f"{Path(__file__).parents[3] / 'src'}:{tmp_path}"}
    handle = start_server(words, environment=environment)
    with httpx.Client(base_url=handle.url, timeout=60) as client:
        yield client


def test_a_format_of_ones_own(client: httpx.Client) -> None:
    assert LINES in CURL
    expected = client.post(PATH, json={"events": EVENTS}).json()["scores"]["signal"]
    answer = client.post(PATH, content=BODY, headers={"Content-Type": LINES, "Accept": LINES})
    assert (answer.status_code, answer.headers["content-type"]) == (200, LINES)
    assert [orjson.loads(line)["signal"] for line in answer.content.splitlines()] == pytest.approx(expected, rel=1e-6)
    as_json = client.post(PATH, content=BODY, headers={"Content-Type": LINES})
    assert as_json.json()["scores"]["signal"] == expected
    long = client.post(PATH, content=BODY * 10_000, headers={"Content-Type": LINES, "Accept": LINES})  # in slices
    assert len(long.content.splitlines()) == 30_000

    wrong = client.post(PATH, content=b'{"HT": 1.0}\n', headers={"Content-Type": LINES})
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "MET_pt")
    explained = client.post(f"{PATH}?explain", content=BODY, headers={"Content-Type": LINES, "Accept": LINES})
    assert explained.status_code == 406
    unknown = client.post(PATH, content=BODY, headers={"Content-Type": "text/x-nobody"})
    assert LINES in unknown.json()["error"]["message"]
    described = client.get("/openapi.json").json()["paths"]["/models/{name}/predict"]["post"]
    assert LINES in described["requestBody"]["content"]
    assert LINES in described["responses"]["200"]["content"]
