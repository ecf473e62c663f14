"""Fixtures that start servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from servers import HERE, Handle, announced, kill, launch

StartServer = Callable[..., Handle]


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers by a command line; what is left of them is ended after the test."""
    handles: list[Handle] = []

    def start(
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        seconds: float = 60,
        first: Callable[[], object] = lambda: None,
    ) -> Handle:
        temporary = tmp_path_factory.mktemp("s")
        process = launch(arguments, temporary=temporary, environment=environment, first=first)
        handle = Handle(process, "", temporary, temporary / "log")
        handles.append(handle)
        handle.url = announced(handle, seconds=seconds)
        return handle

    yield start
    for handle in handles:
        pids = handle.all_pids() if handle.process.poll() is None else []
        for pid in pids:
            kill(pid)
        handle.process.wait(10)
        if handle.process.stdout:
            handle.process.stdout.close()


@pytest.fixture
def start_toy(start_server: StartServer) -> Callable[..., Handle]:
    """Start the toy server with some settings."""

    def start(**settings: Any) -> Handle:
        return start_server([str(HERE / "toy.py"), json.dumps(settings)])

    return start
