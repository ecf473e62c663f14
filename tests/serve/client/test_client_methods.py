"""The methods of both clients are made of the operations: nothing is lost on the way, neither words nor types."""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from pathlib import Path
from typing import Any

import pytest
from models import make_bundle
from running import free_port

from serve.client import AsyncClient, Client, operations
from serve.client.errors import Unreachable

OPERATIONS = {
    name: operation
    for name, operation in inspect.getmembers(operations, inspect.isfunction)
    if not name.startswith("_") and next(iter(inspect.signature(operation).parameters), "") == "servers"
}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_operation_is_a_method_and_nothing_else_is(kind: type) -> None:
    methods = {n for n, _ in inspect.getmembers(kind, inspect.isfunction) if not n.startswith("_")}
    assert methods == {*OPERATIONS, "close"}
    assert len(OPERATIONS) == 16


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_method_has_the_words_and_the_parameters_of_its_operation(kind: type, name: str) -> None:
    method, operation = getattr(kind, name), OPERATIONS[name]
    _, *wanted = inspect.signature(operation).parameters.values()
    own, *found = inspect.signature(method).parameters.values()
    assert (own.name, found) == ("self", wanted)
    assert f"Steps[{inspect.signature(method).return_annotation}]" == inspect.signature(operation).return_annotation
    assert (method.__name__, method.__doc__) == (name, operation.__doc__)
    assert method.__doc__


def test_a_wrong_parameter_is_refused_before_anything_is_sent() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(TypeError, match="'versions'"):
        client.predict("ttH", {}, versions=3)  # type: ignore[call-arg]


def test_what_was_packed_is_gone_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, url = make_bundle(tmp_path / "ttH"), f"http://127.0.0.1:{free_port()}"
    packed = tmp_path / "packed"
    packed.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(packed))
    told: list[Any] = []

    async def upload() -> None:
        async with AsyncClient(url, retries=1, progress=lambda *sizes: told.append(sizes)) as client:
            await client.upload("ttH", bundle)

    with Client(url, retries=1) as client:
        for ask in (lambda: client.upload("ttH", bundle), lambda: asyncio.run(upload())):
            with pytest.raises(Unreachable) as error:
                ask()
            assert error.traceback  # which keeps all that was going on: it is not the collector that cleans up
            assert list(packed.iterdir()) == []
