"""The processes of the server.

::

    parent ──┬── API process …   HTTP: uvicorn, the LitServe app, a pool of connections
             └── worker …        LitServe's inference_worker: LitAPI.setup makes the engine, our LitLoop runs it

LitServe's: the app (``LitServer.app``, a FastAPI), the worker's entry (``inference_worker``), the places for what is
particular to a server (``LitAPI.setup``, ``LitLoop.run``, ``lifespan``), spawned workers and forked API processes that
share one listening socket. Ours, with the reason: the way from API process to worker (unix sockets; LitServe's queues
live in a manager process and cost five times the time), and supervision (LitServe does not notice a dead API process,
loses the requests of a dead worker, and leaves processes behind when the parent is terminated).

The parent never runs a model and has no threads: API processes are forked from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn

from serve.app.http import ClientConnection
from serve.app.memory import Room, limit_of_bodies
from serve.handler import Handler
from serve.keys import UNIX
from serve.processes.litserve_api import MakeEngine, ModelAPI, ModelServer, show_messages, start_worker, worker_name
from serve.processes.loop import RequestEngine
from serve.processes.metrics import Metrics
from serve.processes.progress import Slot
from serve.processes.supervisor import Child, StartError, Stuck, Watch, become_child, exit_with_parent, spare_collector
from serve.processes.transport import LeastBusyPool
from serve.settings import Settings

_KEEP_ALIVE = 75  # s; longer than the 60 s after which common proxies close a connection
_OWN_FILES = 40  # that an API process has open without any connection
_LONGEST_SOCKET_PATH = 100  # bytes; systems allow 104 to 108


Install = Callable[[Any, Handler], Any]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Pipes:
    """What joins the parent and its children."""

    lifeline: Connection
    parent_lifeline: Connection
    reports: Connection
    parent_reports: Connection

    @classmethod
    def make(cls) -> _Pipes:
        lifeline, parent_lifeline = multiprocessing.Pipe(duplex=False)
        parent_reports, reports = multiprocessing.Pipe(duplex=False)
        return cls(lifeline=lifeline, parent_lifeline=parent_lifeline, reports=reports, parent_reports=parent_reports)


def engine_of_models(settings: Settings, metrics: Metrics) -> RequestEngine:
    """Make the engine that runs the models of a repository."""
    from serve.models.engine import Engine

    return Engine(settings, observe_load=metrics.observe_load)


def serve_forever(
    settings: Settings, *, install: Install, make_engine: MakeEngine = engine_of_models, grace: float = 10.0
) -> int:
    """Serve until SIGTERM, SIGHUP or SIGINT; return the exit status.

    Parameters
    ----------
    settings : counts and limits
    install : adds routes to the app; it is called once, before the processes are made. It may return another ASGI
        application that is to be asked first, and has to pass on the lifespan
    make_engine : function of a module, called in each worker
    grace : s that running requests get when the server is stopped

    Returns
    -------
    0 after a signal, 130 after a second Ctrl-C, 1 where processes can't be started, 2 where the address can't be used
    """
    show_messages()
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        return _fail(_sentence(error, settings), status=2)
    try:
        with listener, _removed(listener), _private_folder() as folder:
            return _run(settings, listener, folder=folder, install=install, make_engine=make_engine, grace=grace)
    except StartError as error:
        return _fail(str(error), status=1)


def _run(
    settings: Settings,
    listener: socket.socket,
    *,
    folder: Path,
    install: Install,
    make_engine: MakeEngine,
    grace: float,
) -> int:
    pipes = _Pipes.make()
    metrics = Metrics(folder / "metrics")
    api = ModelAPI(settings, make_engine=make_engine, folder=folder, lifeline=pipes.lifeline, reports=pipes.reports)
    slots, paths = api.slots(), [api.path_of(worker) for worker in range(settings.workers)]
    room = Room(
        (settings.max_pending_bytes or limit_of_bodies()) // settings.api_processes,
        most_requests=max(1, settings.max_pending // 2),
    )
    pool = LeastBusyPool(paths, slots=slots, settings=settings, metrics=metrics, room=room)
    handler = Handler.of(settings, pool=pool, metrics=metrics, folder=folder, room=room)
    server = ModelServer(api, pool)
    app = install(server.app, handler) or server.app
    protocol = functools.partial(
        ClientConnection,
        patience=settings.timeout,
        most=settings.max_connections or limit_of_connections(),
        count=functools.partial(handler.count_answer, ""),
    )
    http = functools.partial(_serve_http, server, app, protocol, listener, pipes=pipes, folder=folder, grace=grace)
    watch = Watch(
        [*_api_children(http, settings.api_processes), *_worker_children(api, slots)],
        reports=pipes.parent_reports,
        on_ready=functools.partial(_announce, listener),
        on_death=functools.partial(_bury, metrics, folder),
        on_stop=listener.close,
    )
    try:
        return watch.run(grace=grace)
    finally:
        metrics.close()


class _Http(uvicorn.Server):
    """A uvicorn that leaves Ctrl-C to the parent and ends with status 0 after SIGTERM."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield


def _serve_http(
    server: ModelServer,
    app: Any,
    protocol: Any,
    listener: socket.socket,
    *,
    name: str,
    pipes: _Pipes,
    folder: Path,
    grace: float,
) -> None:
    """Be an API process; this runs in a fork of the parent."""
    become_child()
    pipes.parent_lifeline.close()
    exit_with_parent(pipes.lifeline, folder=folder)
    server.report = functools.partial(pipes.reports.send_bytes, name.encode())
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, int(grace)),
    )
    spare_collector()
    _Http(config).run(sockets=[listener])


def limit_of_connections() -> int:
    """Return how many connections an API process keeps, unless it is told: half of the files that it may open."""
    return max(4, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OWN_FILES) // 2)


def _api_children(serve_http: Callable[..., None], count: int) -> Iterator[Child]:
    for number in range(count):
        name = f"API process {number}"
        start = functools.partial(_start_api_process, functools.partial(serve_http, name=name))
        yield Child(name=name, start=start, is_graceful=True)


def _start_api_process(target: Callable[[], None]) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    return process


def _worker_children(api: ModelAPI, slots: Sequence[Slot]) -> Iterator[Child]:
    for worker, slot in enumerate(slots):
        yield Child(
            name=worker_name(worker),
            start=functools.partial(start_worker, api, worker),
            is_stuck=Stuck(slot, seconds=api.settings.stalled),
        )


def _announce(listener: socket.socket) -> None:
    name = listener.getsockname()
    if isinstance(name, str):
        address = f"{UNIX}{name}"
    else:
        host, port = name[:2]
        address = f"http://{_netloc(host, port)}"
    sys.stdout.write(f"serving {address}\n")
    sys.stdout.flush()


def _netloc(host: str, port: int) -> str:
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def _bury(metrics: Metrics, folder: Path, name: str, pid: int) -> None:
    """Count a death, and remove the bodies that the process can't remove any more."""
    metrics.bury(pid)
    metrics.count_restart(name)
    for path in folder.glob(f"body-{pid}-*"):
        path.unlink(missing_ok=True)


def _listen(host: str, port: int) -> socket.socket:
    if host.startswith(UNIX):
        return _listen_on_path(host.removeprefix(UNIX))
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def _listen_on_path(path: str) -> socket.socket:
    """Listen on a socket in the file system; one that a dead server left behind is replaced.

    Who may write to it may ask: that is the owner alone, unless the umask says otherwise.
    """
    if not path or len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise OSError(errno.ENAMETOOLONG, f"the path of a socket has 1 to {_LONGEST_SOCKET_PATH} bytes")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket() and not _is_heard(path):
            Path(path).unlink()
        listener.bind(path)
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_heard(path: str) -> bool:
    """Say whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(path) != errno.ECONNREFUSED


@contextlib.contextmanager
def _removed(listener: socket.socket) -> Iterator[None]:
    """Remove the file of a Unix socket at the end, if it is still this one's."""
    name = listener.getsockname()
    made = os.stat(name).st_ino if isinstance(name, str) else None  # noqa: PTH116
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if made is not None and os.stat(name).st_ino == made:  # noqa: PTH116
                Path(name).unlink()


def _sentence(error: OSError, settings: Settings) -> str:
    is_path = settings.host.startswith(UNIX)
    address = settings.host if is_path else _netloc(settings.host, settings.port)
    if is_path and error.errno == errno.EADDRINUSE:
        return f"{address} is in use, or is another file; stop that server, or choose another path"
    if is_path:
        return f"can't listen on {address}: {error.strerror}; choose another path"
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use by another process; stop it, or choose another port (0 takes a free one)"
    return f"can't listen on {address}: {error.strerror}; choose another host or port"


def _fail(message: str, *, status: int) -> int:
    sys.stderr.write(f"{message}\n")
    return status


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """Give a folder that only this user can enter, and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="serve-"))
    try:
        if len(bytes(folder)) > _LONGEST_SOCKET_PATH - len("/worker-999"):
            raise StartError(
                f"the path of a temporary folder is too long for sockets: {folder}; set TMPDIR to a shorter one"
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
