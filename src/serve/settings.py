"""What the server may be told: counts and limits."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Counts and limits of one server.

    Parameters
    ----------
    models : folder of the model repository
    host, port : where to listen; port 0 takes a free one. A host ``unix:PATH`` is a socket in the file system
    root_path : prefix under which a proxy shows the server, ``/ml``
    allow_host : names by which a server without keys may be asked, besides those of this machine
    allow_origin : sites whose pages may use the server, ``https://cern.ch``; ``*`` means all
    api_processes : that speak HTTP
    workers : that run models, one thread each
    sessions : models that a worker keeps loaded; the one used longest ago goes first
    max_batch : requests that are answered together
    max_pending : requests that may wait in an API process before new ones get a 503
    timeout : seconds that a request may take, unless it gives its own
    max_timeout : seconds that a request may give
    stalled : seconds without progress after which a worker gets no requests, and past its deadline is replaced
    max_body : bytes of a body, but for ROOT files and uploads
    max_pending_bytes : bytes of all bodies and answers held at the same time; None for a sixteenth of the memory
    worker_memory : bytes that a worker may have beyond what it starts with; None for its part of 3/4 of the memory
    max_connections : of an API process; the one that is idle for the longest time makes room. None for half of the
        files that it may open
    max_model_bytes : of the graphs that a worker keeps loaded; None for a quarter of what it may have of the memory
    max_file : bytes of a ROOT file to be scored
    max_upload : bytes of a model
    max_trash_bytes : of deleted models; of more, what was deleted first goes for good. None for any number
    max_trash_days : that deleted models can be restored; None for ever
    max_events : events of a request, but for ROOT files
    max_objects : objects of a collection in one event
    check_memory, check_seconds : limits of the check of an upload, bytes and seconds
    keys : file of API keys; None asks for none, which is refused on other addresses than loopback unless ``is_open``
    access_log : file that gets a line of JSON for each answer; ``-`` is the standard error, None writes none
    is_open : serve without keys on any address
    formats : dotted names of formats of one's own, classes derived from ``serve.formats.format.Format``
    """

    models: Path
    host: str = "127.0.0.1"
    port: int = 8000
    root_path: str = ""
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    api_processes: int = 1
    workers: int = 1
    sessions: int = 16
    max_batch: int = 64
    max_pending: int = 1024
    timeout: float = 30.0
    max_timeout: float = 600.0
    stalled: float = 5.0
    max_body: int = 64_000_000
    max_pending_bytes: int | None = None
    worker_memory: int | None = None
    max_connections: int | None = None
    max_model_bytes: int | None = None
    max_file: int = 20_000_000_000
    max_upload: int = 1_000_000_000
    max_trash_bytes: int | None = None
    max_trash_days: float | None = None
    max_events: int = 1_000_000
    max_objects: int = 10_000
    check_memory: int = 4_000_000_000
    check_seconds: float = 60.0
    keys: Path | None = None
    access_log: Path | None = None
    is_open: bool = False
    formats: tuple[str, ...] = ()
