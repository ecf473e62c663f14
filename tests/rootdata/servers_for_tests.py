"""Real servers on loopback: XRootD, HTTP with and without parts of files, S3, and a proxy that is slow or cuts.

``pytest`` finds no fixtures here: a test module imports the classes, which are context managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest

SERVER = shutil.which("xrootd")
START_SECONDS = 30.0
CHUNK = 65_536  # bytes that a proxy sends on at once

xrootd = pytest.mark.skipif(
    SERVER is None or find_spec("XRootD") is None,
    reason="NO XROOTD: nothing of root:// was tested; apt-get install xrootd-server, pip install 'rootdata[remote]'",
)


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def eventually(is_so: Callable[[], bool], *, within: float = START_SECONDS, what: str = "it") -> None:
    """Wait until something is so."""
    end = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < end, f"{what} did not happen within {within} s"
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Say whether somebody accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


class Server:
    """Something that is started and stopped, on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class XRootDServer(Server):
    """An XRootD server that exports ``folder`` as ``/data``.

    It refuses to run as root: it then runs as ``nobody``, for whom ``folder`` and those above are opened.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.url = f"root://127.0.0.1:{self.port}//data"
        self._process: subprocess.Popen[bytes] | None = None
        # Not below pytest's folder: the names of sockets in it would be too long.
        self._home = Path(tempfile.mkdtemp(prefix="xrd-"))

    def start(self) -> None:
        """Start, on the same port each time, and wait until connections are accepted."""
        self._open_to_all()
        config = self._home / "server.cfg"
        config.write_text(
            f"xrd.port {self.port}\nxrd.network nodnr\nall.role server\noss.localroot {self._home}/root\n"
            f"all.export /data r/o\nall.adminpath {self._home}/admin\nall.pidpath {self._home}/run\n"
        )
        assert SERVER is not None
        command = [SERVER, "-c", str(config), "-l", str(self._home / "log"), "-n", "test"]
        self._process = subprocess.Popen(command, cwd=self._home, stdout=subprocess.DEVNULL, **self._user())
        eventually(lambda: is_listening(self.port), what=f"the start of the server (see {self._home}/log)")

    def _open_to_all(self) -> None:
        for name in ("root", "admin", "run"):
            (self._home / name).mkdir(exist_ok=True)
        link = self._home / "root" / "data"
        if not link.is_symlink():
            link.symlink_to(self.folder)
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            for path in (self._home, *self._home.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            for path in (self.folder, *self.folder.parents):
                if path.stat().st_uid == 0 and not path.stat().st_mode & 0o001:
                    path.chmod(path.stat().st_mode | 0o055)

    def _user(self) -> dict[str, Any]:
        return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if not os.getuid() else {}

    def stop(self) -> None:
        """End at once, connections and all; what was written stays, and it can be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)


class Proxy(Server):
    """Passes bytes to a server on loopback and back, each ``delay`` later; or not at all.

    Parameters
    ----------
    target : port of the server
    delay : seconds, one way
    cut_after : bytes of the server's answers after which connections are cut; once
    """

    def __init__(self, target: int, *, delay: float = 0.0, cut_after: int | None = None) -> None:
        super().__init__()
        self._target, self._delay = target, delay
        self.cut_after = cut_after
        self.cuts = 0
        self.sent = 0
        self.is_silent = False  # accepts, and never answers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def stop(self) -> None:
        """Cut every connection and end."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        ways: list[asyncio.Task[None]] = []
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._target)
            ways = [
                asyncio.ensure_future(self._pass_on(reader, there, is_answer=False)),
                asyncio.ensure_future(self._pass_on(back, writer, is_answer=True)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for way in ways:
                way.cancel()
            for side in (writer, there):
                if side is not None:
                    side.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)  # bounded: about 16 MB on their way
        sending = asyncio.ensure_future(self._send(waiting, writer))
        try:
            while data := await reader.read(CHUNK):
                if is_answer and self._is_cut(len(data)):
                    return
                if not self.is_silent:
                    await waiting.put((self._loop.time() + self._delay, data))
            await waiting.put((self._loop.time() + self._delay, b""))
            await sending
        except OSError:
            return
        finally:
            sending.cancel()

    async def _send(self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not data:  # the end
                    return
                writer.write(data)
                await writer.drain()

    def _is_cut(self, size: int) -> bool:
        self.sent += size
        if self.cut_after is None or self.sent < self.cut_after:
            return False
        self.cut_after, self.cuts = None, self.cuts + 1
        return True


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves files, and parts of them where the server allows."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not (self.server.has_parts and wanted and path.is_file()):  # type: ignore[attr-defined]
            super().do_GET()
            return
        with path.open("rb") as file:
            file.seek(int(wanted[1]))
            data = file.read(int(wanted[2]) - int(wanted[1]) + 1)
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(data)


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True
    has_parts = True

    def handle_error(self, *_: object) -> None:
        """Say nothing where a client hangs up."""


class HTTPServer(Server):
    """A web server of a folder.

    Parameters
    ----------
    has_parts : whether it answers a ``Range``
    """

    def __init__(self, folder: Path, *, has_parts: bool = True) -> None:
        super().__init__()
        self._folder, self._has_parts = folder, has_parts
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, in a thread."""

        def handler(*args: Any) -> _Files:
            return _Files(*args, directory=str(self._folder))

        self._server = _Quiet(("127.0.0.1", self.port), handler)
        self._server.has_parts = self._has_parts
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class S3Server(Server):
    """A server of S3 in memory, with one bucket, ``events``."""

    def __init__(self) -> None:
        super().__init__()
        self.url = "s3://events"
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Serve, in a thread."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.stop()
