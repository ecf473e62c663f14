"""A real server with two small models, shared by the tests of its paths; each test changes models of its own."""

from __future__ import annotations

import dataclasses
import io
import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import models
import pytest
from servers import Handle, announced, kill, launch

from serve.models.repository import Repository

LIMITS = {
    "--max-body": 100_000, "--max-file": 300_000, "--max-upload": 400_000, "--max-events": 500, "--max-objects": 20,
    "--timeout": 20, "--max-timeout": 25,
}  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class Site:
    """A server, what talks to it, and its folders."""

    handle: Handle
    client: httpx.Client
    folder: Path
    bundles: dict[str, Path]

    @property
    def address(self) -> str:
        return self.handle.url.removeprefix("http://")

    def left_files(self) -> list[Path]:
        """Return the bodies that lie in the server's temporary folder."""
        return [p for p in self.handle.temporary.rglob("*") if p.name.startswith("body-")]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "flat": models.make_bundle(folder / "flat"),
        "jets": models.make_bundle(folder / "jets", jets=True),
        "other": models.make_bundle(folder / "other", seed=7, tags=("fast",), author="Lise"),
    }


@pytest.fixture(scope="session")
def start_site(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> Iterator[Callable[..., Site]]:
    """Start servers with the models ``flat`` and ``jets``; they end with the tests."""
    sites: list[Site] = []

    def start(*options: Any) -> Site:
        folder = tmp_path_factory.mktemp("models") / "repo"
        temporary = tmp_path_factory.mktemp("s")
        for name in ("flat", "jets"):
            Repository(folder).publish(bundles[name], name)
        words = ["-m", "serve", str(folder), "--port", "0", *map(str, options)]
        handle = Handle(launch(words, temporary=temporary), "", temporary, temporary / "log")
        sites.append(Site(handle=handle, client=httpx.Client(timeout=60), folder=folder, bundles=bundles))
        handle.url = announced(handle, seconds=60)
        sites[-1].client.base_url = handle.url
        return sites[-1]

    yield start
    for site in sites:
        site.client.close()
        site.handle.stop()
        for pid in site.handle.all_pids() if site.handle.process.poll() is None else []:
            kill(pid)
        site.handle.process.stdout.close()


@pytest.fixture(scope="session")
def site(start_site: Callable[..., Site]) -> Site:
    """Give a server without keys and with small limits."""
    return start_site(*itertools.chain.from_iterable(LIMITS.items()))


@pytest.fixture(scope="session")
def archive(bundles: dict[str, Path]) -> Callable[..., bytes]:
    """Pack a bundle, with other files where they are given."""

    def pack(name: str = "flat", **others: bytes) -> bytes:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w:gz") as tar:
            tar.add(bundles[name], arcname=".")
            for file, content in others.items():
                entry = tarfile.TarInfo(file.replace("_json", ".json"))
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return target.getvalue()

    return pack
