"""Counters of all processes, as Prometheus reads them.

Each process writes files of its own in a private folder (``prometheus_client``'s multiprocess mode); a scrape, in
whichever API process it ends up, adds them. The parent adds the files of a dead process to one file, so that counts
never go backwards and files don't pile up.

What Triton has is there by its own names too (:func:`as_triton`). Ours follow them, without ``nv_`` and in seconds
instead of microseconds:

================================================  =========  ===================  ====================================
name                                              kind       labels               Triton
================================================  =========  ===================  ====================================
``inference_requests_total``                      counter    road, model,         ``inference_request_success`` ...
                                                             version, status
``inference_requests_seconds_total``              counter    as above             ``inference_request_duration_us``
``inference_count_total`` (events)                counter    model, version       ``inference_count``
``inference_compute_infer_duration_seconds``      counter    model, version       same, in us
``inference_request_duration_seconds``            histogram  road                 same, in us
``inference_pending_request_count``               gauge                           same
``inference_batch_size``                          histogram                       ``inference_exec_count`` is its count
``model_load_duration_seconds``                   histogram  model
``http_responses_total``                          counter    path, status
``process_restarts_total``                        counter    process
================================================  =========  ===================  ====================================
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import fcntl
import importlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from serve.messages import Request

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_Counters = tuple[Any, Any, Any, Any, Any]
_Key = tuple[str, str, int, int]  # road, model, version, status
_PENDING = "nv_inference_pending_request_count"
_OF_MODEL = ("model", "version")


class Metrics:
    """The counters of this process, and the sum over all.

    One object serves a process and those that are forked from it.

    Parameters
    ----------
    folder : private, the same for all processes of a server
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        os.environ[_FOLDER] = str(folder)
        self._folder = folder
        values, client = _client(".values"), _client()
        # What is counted from here on goes to files, whether or not the library was imported before.
        self._values = values.ValueClass = values.MultiProcessValue()
        registry = client.CollectorRegistry()
        self._known: dict[_Key, _Counters] = {}
        self._noted: list[tuple[_Key, int, float, float]] = []

        def make(kind: Any, name: str, text: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
            return kind(name, text, labels, registry=registry, **options)

        counter, histogram = client.Counter, client.Histogram
        self._requests = make(counter, "inference_requests", "Requests answered", ("road", *_OF_MODEL, "status"))
        self._took = make(
            counter, "inference_requests_seconds", "Time from requests to answers", ("road", *_OF_MODEL, "status")
        )
        self._events = make(counter, "inference_count", "Events scored", _OF_MODEL)
        self._compute = make(counter, "inference_compute_infer_duration_seconds", "Time that models ran", _OF_MODEL)
        self._seconds = make(
            histogram, "inference_request_duration_seconds", "From request to answer", ("road",), buckets=_SECONDS
        )
        self._loads = make(histogram, "model_load_duration_seconds", "Time to load", ("model",), buckets=_SECONDS)
        self.batches = make(histogram, "inference_batch_size", "Requests answered together", buckets=_SIZES)
        self.pending = make(
            client.Gauge, "inference_pending_request_count", "Requests waiting", multiprocess_mode="livesum"
        )
        self._answers = make(counter, "http_responses", "Answers, refusals of any kind included", ("path", "status"))
        self._answered: collections.Counter[tuple[str, int]] = collections.Counter()
        self._restarts = make(counter, "process_restarts", "Processes started again", ("process",))

    def observe(
        self, request: Request, *, status: int, num_events: int = 0, seconds: float = 0.0, computed: float = 0.0
    ) -> None:
        """Count a request that has been answered; :meth:`flush` shows it to others.

        Parameters
        ----------
        request : counted by road, model and version
        status : of the answer, as in HTTP
        num_events : that were scored
        seconds : from request to answer
        computed : of them in the model, s
        """
        self._noted.append(((request.road, request.model, request.version, status), num_events, seconds, computed))

    def count_answer(self, path: str, status: int) -> None:
        """Count an answer over HTTP; :meth:`flush` shows it to others.

        Parameters
        ----------
        path : as it is documented, with the names of its parts; empty where there is none
        status : of HTTP
        """
        self._answered[path, status] += 1

    def flush(self) -> None:
        """Write what has been counted where others see it; many at once take a fraction of the time."""
        answered, self._answered = self._answered, collections.Counter()
        for kind, count in answered.items():
            self._answers.labels(*kind).inc(count)
        noted, self._noted = self._noted, []
        for key, group in itertools.groupby(sorted(noted), key=lambda note: note[0]):
            requests, took, durations, events, compute = self._known.get(key) or self._learn(key)
            notes = list(group)
            requests.inc(len(notes))
            took.inc(sum(note[2] for note in notes))
            _observe_all(durations, [note[2] for note in notes])
            events.inc(sum(note[1] for note in notes))
            compute.inc(sum(note[3] for note in notes))

    def _learn(self, key: _Key) -> _Counters:
        """Find the counters of a kind of requests; the library takes its time for that."""
        road, model, version, status = key
        self._known[key] = (
            self._requests.labels(road, model, version, status),
            self._took.labels(road, model, version, status),
            self._seconds.labels(road),
            self._events.labels(model, version),
            self._compute.labels(model, version),
        )
        return self._known[key]

    def observe_load(self, model: str, seconds: float) -> None:
        """Count a model that a worker has loaded."""
        self._loads.labels(model).observe(seconds)

    def count_restart(self, process: str) -> None:
        """Count a process that was started again."""
        self._restarts.labels(process).inc()

    def render(self) -> bytes:
        """Return the sum over all processes in Prometheus' text format, as of the last :meth:`flush` of each."""
        client = _client()
        registry = client.CollectorRegistry()
        with _locked(self._folder, fcntl.LOCK_SH):
            found = _Sum(self._folder)
        registry.register(found)
        return cast("bytes", client.generate_latest(registry)) + as_triton(found.collect())

    def close(self) -> None:
        """Close the files of this process; nothing can be counted any more."""
        self._values.close_all_files()

    def bury(self, pid: int) -> None:
        """Add the counts of a dead process to those of all dead ones and remove its files."""
        _client(".multiprocess").mark_process_dead(pid, str(self._folder))
        with _locked(self._folder, fcntl.LOCK_EX):
            for path in self._folder.glob(f"*_{pid}.db"):
                _add(path, path.with_name(path.name.replace(f"_{pid}.db", "_0.db")))
                path.unlink()


class _Sum:
    """What a registry asks for: the sum over the files of a folder, as of now."""

    def __init__(self, folder: Path) -> None:
        # A file that a process is just creating is still empty.
        files = [str(path) for path in sorted(folder.glob("*.db")) if path.stat().st_size]
        self._families = list(_client(".multiprocess").MultiProcessCollector.merge(files))

    def collect(self) -> list[Any]:
        return self._families


def as_triton(families: Iterable[Any]) -> bytes:
    """Write what Triton's dashboards and autoscalers ask for, by its names, labels and units.

    Requests that were answered together count as one execution each, and what is not run is time in the queue.

    Parameters
    ----------
    families : of Prometheus' client
    """
    totals: dict[tuple[str, str], float] = collections.defaultdict(float)  # of a metric and its labels
    for sample in (sample for family in families for sample in family.samples):
        for name, labels, value in _in_words_of_triton(sample.name, sample.labels, sample.value):
            totals[name, ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))] += value
    lines, last = [], ""
    for (name, text), total in sorted(totals.items()):
        if name != last:
            lines.append(f"# TYPE {name} {'gauge' if name == _PENDING else 'counter'}")
        lines.append(f"{name}{{{text}}} {total:.0f}" if text else f"{name} {total:.0f}")
        last = name
    return "".join(f"{line}\n" for line in lines).encode()


def _in_words_of_triton(
    name: str, labels: Mapping[str, str], value: float
) -> Iterator[tuple[str, dict[str, str], float]]:
    of_model = {key: labels[key] for key in _OF_MODEL if key in labels}
    match name:
        case "inference_requests_total" if labels["status"] == "200":
            yield "nv_inference_request_success", of_model, value
            yield "nv_inference_exec_count", of_model, value
        case "inference_requests_total":
            yield "nv_inference_request_failure", of_model, value
        case "inference_requests_seconds_total" if labels["status"] == "200":
            yield "nv_inference_request_duration_us", of_model, 1e6 * value
            yield "nv_inference_queue_duration_us", of_model, 1e6 * value
        case "inference_count_total":
            yield "nv_inference_count", of_model, value
        case "inference_compute_infer_duration_seconds_total":
            yield "nv_inference_compute_infer_duration_us", of_model, 1e6 * value
            yield "nv_inference_queue_duration_us", of_model, -1e6 * value
        case "inference_pending_request_count":
            yield _PENDING, {}, value


def _observe_all(histogram: Any, values: Sequence[float]) -> None:
    """Do what ``histogram.observe`` does with each value, for the cost of a few.

    The library offers one at a time alone, which takes it longer than all else that is counted of a request; so this
    reaches for the counters of its buckets, whose bounds end with infinity.
    """
    bounds = histogram._upper_bounds  # noqa: SLF001
    places = collections.Counter(bisect.bisect_left(bounds, value) for value in values)
    for place, count in places.items():
        histogram._buckets[place].inc(count)  # noqa: SLF001
    histogram._sum.inc(sum(values))  # noqa: SLF001


def _client(module: str = "") -> Any:
    """Import a module of the client library; it has no types."""
    return importlib.import_module(f"prometheus_client{module}")


def _add(source: Path, target: Path) -> None:
    files = _client(".mmap_dict").MmapedDict
    total = files(str(target))
    for key, value, timestamp, _ in files.read_all_values_from_file(str(source)):
        total.write_value(key, total.read_value(key)[0] + value, timestamp)
    total.close()


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Keep scrapes and burials apart; the lock of a process that dies is freed by the system."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, kind)
        yield
