"""A real server, shared by the tests of the clients that do not break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from models import make_bundle
from running import end, start
from servers import Handle

from serve.client.waiting import Client


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a bundle that takes flat features and jets."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "ttH", jets=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Handle]:
    """Give a server that all tests share; ``ttH`` is theirs to read, what else they publish theirs to remove."""
    folder = tmp_path_factory.mktemp("s")
    handle = start(folder, folder / "models", "--publish", f"ttH={bundle}")
    with Client(handle.url) as client:
        client.wait_until_ready(60)
    yield handle
    end(handle)


@pytest.fixture
def client(server: Handle) -> Iterator[Client]:
    """Give a client of the shared server."""
    with Client(server.url) as made:
        yield made
