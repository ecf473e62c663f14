"""Tasks of the first pass on other processes and machines: those of dask, or of any executor."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from rootdata.errors import ConfigError, FileError, RootDataError

T = TypeVar("T")

CONNECT_SECONDS = 10.0

Submit = Callable[[Sequence[Callable[[], Any]]], Sequence[Any]]
"""Hands in tasks, and returns something with a ``result()`` for each, in their order."""


class Executor(Protocol):
    """Whatever runs functions elsewhere: one of ``concurrent.futures``, of Parsl, TaskVine or mpi4py, a dask client."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Begin to run a function, and return its future."""


class Handed(Generic[T]):
    """The result of a task that an executor runs, which may have to be waited for."""

    def __init__(self, future: Any, name: str) -> None:
        self._future = future
        self._name = name

    def result(self) -> T:
        """Wait for it.

        Raises
        ------
        ConfigError
            Where tasks or their results can't be sent.
        FileError
            Where the executor broke down; otherwise what the task raised.
        """
        try:
            found: T = self._future.result()
        except (pickle.PicklingError, ImportError) as error:
            raise ConfigError(
                f"scheduler: {self._name} can't run the tasks ({_brief(error)}); install the version of rootdata there "
                "that runs here"
            ) from error
        except (concurrent.futures.BrokenExecutor, concurrent.futures.CancelledError) as error:
            raise FileError(
                f"scheduler: {self._name} broke down ({_brief(error)}); look into the logs of its workers, start again"
            ) from error
        return found


@contextmanager
def submitting(scheduler: str | Executor, *, patience: float) -> Iterator[Submit]:
    """Provide what submits tasks. What still runs when this ends with an error is given up.

    What still runs when this ends with an error is given up.

    Parameters
    ----------
    scheduler : address of a dask scheduler, ``tcp://host:8786``, or an executor, which stays open
    patience : seconds to wait for the first worker of a dask scheduler

    Raises
    ------
    ConfigError
        Where there is no scheduler, it has no worker, or what was given runs nothing.
    """
    if isinstance(scheduler, str):
        with connected(scheduler, patience=patience) as submit:
            yield submit
        return
    name, executor = type(scheduler).__name__, scheduler
    if hasattr(scheduler, "get_executor"):  # a dask client: equal tasks are to be run each
        executor = scheduler.get_executor(pure=False)
    if not callable(getattr(executor, "submit", None)):
        raise ConfigError(f"scheduler: got {scheduler!r}; takes the address of a dask scheduler, or an executor")
    futures: list[Any] = []

    def submit_all(tasks: Sequence[Callable[[], Any]]) -> list[Handed[Any]]:
        added = [executor.submit(_call, task) for task in tasks]
        futures.extend(added)
        return [Handed(future, name) for future in added]

    try:
        yield submit_all
    except BaseException:
        for future in futures:
            with contextlib.suppress(Exception):  # the error that is on its way says more
                future.cancel()
        raise


class Result(Generic[T]):
    """The result of a task, which may have to be waited for."""

    def __init__(self, future: Any, address: str) -> None:
        self._future = future
        self._address = address

    def result(self) -> T:
        """Wait for it.

        Raises
        ------
        FileError
            Where workers died again and again, or the scheduler is gone; otherwise what the task raised.
        """
        import distributed

        try:
            found: T = self._future.result()
        except RootDataError:
            raise
        except distributed.scheduler.KilledWorker as error:
            raise FileError(
                f"scheduler {self._address}: the workers that took over a task died one after the other "
                f"({_brief(error)}); look into their logs, or give them more memory"
            ) from error
        except ImportError as error:
            raise ConfigError(
                f"scheduler {self._address}: its workers can't run the tasks ({_brief(error)}); install the version of "
                "rootdata there that runs here"
            ) from error
        except (distributed.CancelledError, distributed.comm.CommClosedError, TimeoutError) as error:
            raise FileError(
                f"scheduler {self._address}: the connection was lost ({_brief(error)}); start again"
            ) from error
        self._future.release()  # nobody asks twice: the workers need not keep it
        return found


@contextmanager
def connected(address: str, *, patience: float) -> Iterator[Callable[[Sequence[Callable[[], Any]]], list[Result[Any]]]]:
    """Provide ``submit(tasks) -> results``, in the order of the tasks.

    A task whose worker dies goes to another one. What still runs when this ends is given up.

    Parameters
    ----------
    address : of the scheduler, ``tcp://host:8786``
    patience : seconds to wait for its first worker

    Raises
    ------
    ConfigError
        Where there is no scheduler, or it has no worker.
    """
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(
            f"scheduler: got {address!r}, but dask.distributed is not installed; install rootdata[cluster]"
        ) from error

    try:
        # Whether somebody answers is asked first: a client that was refused does not end well.
        place = distributed.comm.get_address_host_port(address)
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"scheduler: {address!r} can't be reached ({_brief(error)}); start one with `dask scheduler`, check the "
            "address, or leave `scheduler` out"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError as error:
            raise ConfigError(
                f"scheduler: {address!r} has no worker after {patience:g} s; start some with `dask worker {address}`"
            ) from error
        futures: list[Any] = []

        def submit(tasks: Sequence[Callable[[], Any]]) -> list[Result[Any]]:
            added = client.map(_call, tasks, pure=False)
            futures.extend(added)
            return [Result(future, address) for future in added]

        try:
            yield submit
        except BaseException:
            if client.status == "running":  # otherwise nobody is there who could be told, and it takes half a minute
                with contextlib.suppress(Exception):  # the error that is on its way says more
                    client.cancel(futures, force=True)
            raise


def _call(task: Callable[[], T]) -> T:
    return task()


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
