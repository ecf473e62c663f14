"""What LitServe runs in a worker: an engine, set up there and nowhere else."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from litserve import LitAPI
from litserve.utils import configure_logging

from serve.app.memory import bound_process, limit_of_worker
from serve.processes.loop import Engine, SocketLoop
from serve.processes.metrics import Metrics
from serve.processes.progress import Slot, slots
from serve.processes.supervisor import become_child, exit_with_parent
from serve.settings import Settings

MakeEngine = Callable[[Settings, Metrics], Engine]


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


def show_messages() -> None:
    """Write what goes wrong, LitServe's messages too, to the standard error."""
    logging.basicConfig(format="%(message)s")
    configure_logging("WARNING", stream=sys.stderr)


def worker_name(worker: int) -> str:
    """Return the name by which a worker is known to the parent."""
    return f"worker {worker}"
