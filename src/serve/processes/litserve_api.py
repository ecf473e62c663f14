"""All that touches LitServe: its API, its loop and its server, with what is ours put in place of theirs.

LitServe runs :class:`ModelAPI` and :class:`SocketLoop` in each worker, and :class:`ModelServer` has the app of the API
processes. Nothing else imports it, so that a look here tells what a new version of it may break.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import sys
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from litserve import LitAPI, LitServer
from litserve.callbacks import CallbackRunner
from litserve.loops import LitLoop, inference_worker
from litserve.utils import configure_logging
from starlette.formparsers import MultiPartParser

from serve.app.memory import bound_process, keep_no_large_blocks, limit_of_worker
from serve.processes.loop import RequestEngine, Worker, listen
from serve.processes.metrics import Metrics
from serve.processes.progress import Slot, slots
from serve.processes.supervisor import become_child, exit_with_parent, spare_collector
from serve.processes.transport import LeastBusyPool
from serve.settings import Settings

MakeEngine = Callable[[Settings, Metrics], RequestEngine]


class SocketLoop(LitLoop):  # type: ignore[misc]
    """LitServe's loop of a worker, reading from sockets instead of queues."""

    def run(
        self,
        lit_api: Any,
        device: str,  # noqa: ARG002
        worker_id: int,
        request_queue: Any,  # noqa: ARG002
        transport: Any,  # noqa: ARG002
        workers_setup_status: Any,  # noqa: ARG002
        callback_runner: Any,  # noqa: ARG002
    ) -> None:
        """Work until the process is ended.

        Parameters
        ----------
        lit_api : a :class:`ModelAPI`, with the engine of this process
        device : not used: models run on processors
        worker_id : from 0; decides on which socket this worker listens
        request_queue, transport, workers_setup_status, callback_runner : not used: requests come through the socket
        """
        with listen(lit_api.path_of(worker_id)) as listener:
            spare_collector()
            slot = lit_api.slots()[worker_id]
            slot.rest()
            lit_api.report(worker_id)
            Worker(lit_api.engine, listener, settings=lit_api.settings, metrics=lit_api.metrics, slot=slot).run()


class ModelAPI(LitAPI):  # type: ignore[misc]
    """Carries a server's settings into its workers and makes the engine there.

    Parameters
    ----------
    settings : of the server
    make_engine : a function of a module, so that another process finds it
    folder : private to the server: sockets, metrics, temporary files
    lifeline : that ends with the parent
    reports : to the parent
    """

    def __init__(
        self, settings: Settings, *, make_engine: MakeEngine, folder: Path, lifeline: Connection, reports: Connection
    ) -> None:
        super().__init__(loop=SocketLoop())
        self.settings = settings
        self._make_engine = make_engine
        self._folder = folder
        self._lifeline = lifeline
        self._reports = reports

    def setup(self, device: Any) -> None:  # noqa: ARG002
        """Make the engine; LitServe calls this in each worker."""
        become_child()
        # Who tells all processes to stop means the parent: this one works until the API processes have their answers.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        exit_with_parent(self._lifeline, folder=self._folder)
        show_messages()
        self.metrics = Metrics(self._folder / "metrics")
        keep_no_large_blocks()
        bound_process(self.settings.worker_memory or limit_of_worker(self.settings.workers))
        self.engine = self._make_engine(self.settings, self.metrics)

    def path_of(self, worker: int) -> Path:
        """Return the path of a worker's socket."""
        return self._folder / f"worker-{worker}"

    def slots(self) -> list[Slot]:
        """Map the places where workers say what they do."""
        return slots(self._folder / "progress", workers=self.settings.workers, room=self.settings.max_batch)

    def report(self, worker: int) -> None:
        """Tell the parent that a worker is ready."""
        self._reports.send_bytes(worker_name(worker).encode())


class ModelServer(LitServer):  # type: ignore[misc]
    """LitServe's server with none of its paths, queues and compression: the app, and its start and end.

    Parameters
    ----------
    pool : of connections to the workers
    """

    def __init__(self, api: ModelAPI, pool: LeastBusyPool) -> None:
        super().__init__(api, accelerator="cpu", devices=1, workers_per_device=api.settings.workers)
        self.report: Callable[[], None] = _nothing
        self._pool = pool
        self.app.user_middleware.clear()  # it compresses every answer, for 3 to 4 times the processor time
        self.app.router.routes.clear()
        self.app.router.redirect_slashes = False
        # LitServe keeps uploaded forms in memory whole; back to Starlette's own limit
        MultiPartParser.spool_max_size = 1 << 20

    def register_endpoints(self) -> None:
        """Leave out LitServe's paths: they lead through its queues."""

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:  # noqa: ARG002
        """Keep the connections to the workers while the app runs; report when there are all."""
        async with self._pool.running():
            reporting = asyncio.create_task(self._report_when_complete())
            try:
                yield
            finally:
                reporting.cancel()

    async def _report_when_complete(self) -> None:
        await self._pool.complete()
        self.report()


def start_worker(api: ModelAPI, worker: int) -> BaseProcess:
    """Start LitServe's worker, without the queues and the manager that it usually has."""
    request_queue, transport, setup_status, restart = None, None, dict[str, str](), False
    process = multiprocessing.get_context("spawn").Process(
        target=inference_worker,
        args=(api, "cpu", worker, request_queue, transport, setup_status, CallbackRunner(), restart),
    )
    process.start()
    return process


def show_messages() -> None:
    """Write what goes wrong, LitServe's messages too, to the standard error."""
    logging.basicConfig(format="%(message)s")
    configure_logging("WARNING", stream=sys.stderr)


def worker_name(worker: int) -> str:
    """Return the name by which a worker is known to the parent."""
    return f"worker {worker}"


def _nothing() -> None:
    """Do nothing."""
