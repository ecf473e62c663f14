"""The servers: how each is started, watched and stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.serve import load, network, roads, trees
from benchmarks.serve.roads import Road

ROOT = Path(__file__).parents[2]
START = 90.0  # seconds
STOP = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """A server.

    Parameters
    ----------
    command : from the folder with the models and the port to what starts it: one worker with one thread
    """

    name: str
    command: Callable[[Path, int], list[str]]
    roads: tuple[Road, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that runs."""

    pid: int
    port: int


PROJECT = Contestant(
    name="rootdata",
    command=lambda models, port: [sys.executable, "-m", "serve", str(models), "--port", str(port)],
    roads=roads.project(),
)


def contestants(mlserver: Path | None) -> list[Contestant]:
    """List the servers; MLServer only where there is an interpreter that has it."""

    def app(name: str) -> Callable[[Path, int], list[str]]:
        module = f"benchmarks.serve.apps.{name}"
        return lambda models, port: [sys.executable, "-m", module, str(graph_of(models)), str(port)]

    found = [
        PROJECT,
        Contestant(name="stock LitServe", command=app("litserve_app"), roads=roads.litserve()),
        Contestant(name="FastAPI", command=app("fastapi_app"), roads=roads.fastapi()),
    ]
    if mlserver:
        command = _mlserver_command(mlserver)
        found.append(Contestant(name="MLServer", command=command, roads=roads.mlserver()))
    return found


def graph_of(models: Path) -> Path:
    """Return the path of the network's graph."""
    return models / network.MODEL / "1" / "model.onnx"


def _mlserver_command(python: Path) -> Callable[[Path, int], list[str]]:
    def command(models: Path, port: int) -> list[str]:
        import orjson

        home = models.with_name(f"{models.name}-mlserver")
        home.mkdir(exist_ok=True)
        # Without worker processes it is at its cheapest: the model runs where HTTP is spoken.
        server = {"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, "debug": False}
        server |= {"grpc_port": free_port(), "metrics_port": free_port()}
        model = {
            "name": network.MODEL,
            "implementation": "benchmarks.serve.apps.mlserver_app.OnnxRuntime",
            "max_batch_size": 64,
            "max_batch_time": 0.005,
            "parameters": {"uri": str(graph_of(models))},
        }
        (home / "settings.json").write_bytes(orjson.dumps(server))
        (home / "model-settings.json").write_bytes(orjson.dumps(model))
        return [str(python), "-m", "mlserver.cli.main", "start", str(home)]

    return command


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(contestant: Contestant, models: Path) -> Iterator[Server]:
    """Start a server, wait for its first answer, stop it and all its processes in the end."""
    port = free_port()
    command = contestant.command(models, port)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(process, port, contestant.roads[0])
            yield Server(pid=process.pid, port=port)
        except Exception as error:
            log.seek(0)
            error.add_note(f"{contestant.name} ({' '.join(command)}) wrote:\n{log.read()[-4000:].decode()}")
            raise
        finally:
            stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, road: Road) -> None:
    request = road.request(network.make_events(road.events))
    job = load.Job(port=port, server=process.pid, requests=[request], clients=1, seconds=0)
    deadline = time.monotonic() + START
    while True:
        try:
            load.run(job)
        except OSError:  # it does not listen yet, or has no model yet
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to stop, and end what is left of it."""
    members = {p.pid for p in trees.tree(process.pid)}
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP)
    for pid in (members & {p.pid for p in trees.tree(process.pid)}) | {process.pid}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
