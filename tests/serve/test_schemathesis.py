"""What a fuzzer makes of the OpenAPI document: no answer is an error of the server, and all are as described."""

from __future__ import annotations

import httpx
import models
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from serve.app.asgi import OPERATIONS
from serve.models.repository import Repository

EXAMPLES = 25
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.status_code_conformance,
]
schemathesis.serializer.alias("application/x-protobuf", "application/octet-stream")
pytestmark = pytest.mark.long
WAYS = [(operation.method, path) for operation in OPERATIONS for path in operation.paths]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose model is called as a fuzzer would call it too."""
    from servers import Handle, announced, kill, launch

    folder = tmp_path_factory.mktemp("models") / "repo"
    for jets in (False, True):
        Repository(folder).publish(models.make_bundle(folder.with_name(f"b{jets}"), jets=jets), "0")
    temporary = tmp_path_factory.mktemp("s")
    process = launch(["-m", "serve", str(folder), "--port", "0", "--timeout", "5"], temporary=temporary)
    handle = Handle(process, "", temporary, temporary / "log")
    handle.url = announced(handle, seconds=60)
    yield handle
    handle.stop()
    for pid in handle.all_pids() if process.poll() is None else []:
        kill(pid)
    process.stdout.close()


@pytest.fixture(scope="module")
def document(server):
    return schemathesis.openapi.from_dict(httpx.get(f"{server.url}/openapi.json").json())


@pytest.mark.parametrize(("method", "path"), WAYS, ids=lambda value: str(value))
def test_no_request_breaks_the_server(server, document, method, path):
    found = document[path][method]

    @given(case=found.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case):
        case.headers.pop("X-Timeout-Ms", None)  # a millisecond is too short, and 504 the answer to it
        case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)

    ask()
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
