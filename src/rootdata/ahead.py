"""Reading ahead: the threads and processes that do it, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reader(Protocol[T_co]):
    """Reads blocks by number."""

    def __call__(self, number: int) -> T_co:
        """Read one block."""

    def close(self) -> None:
        """Close the files."""


_process_reader: list[Reader[Any]] = []


def _start_process(make: Callable[[], Reader[Any]]) -> None:
    _process_reader[:] = [make()]


def _read_in_process(number: int) -> Any:
    return _process_reader[0](number)


@contextmanager
def reading(make: Callable[[], Reader[T]], *, processes: int) -> Iterator[Callable[[int], Future[T]]]:
    """Provide ``submit(block number) -> Future``.

    Parameters
    ----------
    make : makes a reader; it can be sent to another process
    processes : reading processes; 0 reads in threads of this process
    """
    pool: Executor
    if processes:
        context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_process, initargs=(make,))
        try:
            yield lambda number: pool.submit(_read_in_process, number)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return
    reader = make()
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="rootdata-read")
    try:
        yield lambda number: pool.submit(reader, number)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        reader.close()


def prefetched(source: Iterator[T], *, depth: int) -> Iterator[T]:
    """Run an iterator in a background thread, ``depth`` items ahead.

    An exception of the source is raised here. Closing this generator stops the thread and closes the source, in the
    thread that ran it, before it returns.
    """
    if not depth:
        yield from source
        return
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(kind: str, item: Any) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in source:
                if not offer("item", item):
                    return
            offer("end", None)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the items are taken
            offer("error", error)
        finally:
            source.close()  # type: ignore[attr-defined]

    thread = threading.Thread(target=run, name="rootdata-mix", daemon=True)
    thread.start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
    finally:
        stopped.set()
        thread.join()
