"""A model in memory: its graph in onnxruntime, its manifest, and what makes tensors of events."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.arena import give_back
from rootdata.bundle.assemble import Assembler, Tensors, table_of
from rootdata.bundle.manifest import MANIFEST, MODEL, Manifest, sha256_of
from serve.codec.casting import array_type
from serve.codec.schema import Schemas
from serve.errors import InvalidEvents, InvalidModel, ServeError
from serve.faults import is_lack, public
from serve.formats.format import Heading
from serve.processes.deadline import Terminator, late

Run = Callable[[Tensors], list[npt.NDArray[Any]]]

SLICE = 1024  # events that go through a graph at a time: what a layer makes of them should stay in the cache
_CELLS = 1 << 22  # numbers that a layer is likely to make of them at most
_LOADS = 4  # models that are loaded at the same time
_AGAIN = 1.0  # s after which a model that could not be loaded is tried again
_WARM_UP = 5.0  # s that the first run of a model may take


class Model:
    """A loaded model.

    Parameters
    ----------
    name, version : where it was published
    manifest : of the same version
    graph : path of the ONNX file
    """

    def __init__(self, name: str, version: int, manifest: Manifest, graph: Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # More cores are used by more workers. A spinning thread would be a busy core in an idle server.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The runtime keeps what its largest run took for good; the C library is as quick, and gives it back.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        options.log_severity_level = 4  # its errors come back as exceptions
        self.name, self.version, self.manifest = name, version, manifest
        self.schemas = Schemas(manifest)
        self.assembler = Assembler(manifest) if manifest.takes_events else None
        self.has_open_axes = any(isinstance(a, str) for t in manifest.inputs for a in t.shape[1:])
        self.runs_alone = manifest.batching == "none"
        self._session = _loaded(graph, options, model=f"model {name!r}, version {version},")
        self._outputs = [o.name for o in manifest.outputs]
        self.terminator = Terminator()  # that of the process takes its place, where runs have to end

    @functools.cached_property
    def heading(self) -> Heading:
        """What an answer with scores of this model says of it."""
        made = self.manifest
        return Heading(model=self.name, version=self.version, columns=made.columns, regressions=made.regressions)

    def run(self, tensors: Tensors) -> list[npt.NDArray[Any]]:
        """Run the graph.

        Parameters
        ----------
        tensors : input name to its values, events along the first axis if the manifest says so

        Returns
        -------
        the values of every output, in the order of the manifest

        Raises
        ------
        InvalidEvents
            If the graph refuses the tensors.
        """
        return self._run(tensors) if self.runs_alone else joined(self._run, tensors, self.manifest)

    def run_events(self, tensors: Tensors) -> list[npt.NDArray[Any]]:
        """Run the graph on events, on each alone where it would mix those of a batch.

        Parameters
        ----------
        tensors : input name to its values, events along the first axis

        Returns
        -------
        the answer, (events, columns) float32: scores, and what regressions predict; then the other outputs

        Raises
        ------
        InvalidEvents
            If the graph refuses the tensors.
        """
        run_all = one_by_one if self.runs_alone else joined
        outputs = run_all(self._run, tensors, self.manifest)
        return [answer_of(outputs, self.manifest), *outputs[1:]]

    def warm_up(self) -> None:
        """Run the manifest's sample, if there is one: the first run takes longer than those after it."""
        sample = self.manifest.parity
        if sample is not None and self.assembler is not None:
            self.run_events(self.assembler(table_of(self.manifest, sample.columns)))

    def _run(self, tensors: Tensors) -> list[npt.NDArray[Any]]:
        options = _run_options()
        try:
            with self.terminator.ending(options):
                found: list[npt.NDArray[Any]] = self._session.run(self._outputs, tensors, options)
        except (MemoryError, ServeError):
            raise
        except Exception as error:
            if options.terminate:
                raise late() from error
            if is_lack(error):
                raise MemoryError(f"model {self.name!r} needs more memory than there is for a worker") from None
            raise InvalidEvents(f"model {self.name!r} can't be run on this: {_first_line(error)}") from error
        return found


def joined(run: Run, tensors: Tensors, manifest: Manifest) -> list[npt.NDArray[Any]]:
    """Run a graph on events, as many at a time as it takes.

    Parameters
    ----------
    run : takes tensors and gives the values of every output
    tensors : input name to its values, events along the first axis
    manifest : says how many events the graph takes at a time, where that is fixed, and which outputs it has
    """
    num_events, fixed = len(next(iter(tensors.values()))), manifest.fixed_batch
    if not num_events:
        return _nothing(tensors, manifest)
    step = events_at_once(tensors) if fixed is None else max(fixed, 1)
    if num_events <= step and fixed is None:
        return run(tensors)
    parts = [
        _of_slice(run, {name: values[low : low + step] for name, values in tensors.items()}, fixed)
        for low in range(0, num_events, step)
    ]
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


def one_by_one(run: Run, tensors: Tensors, manifest: Manifest) -> list[npt.NDArray[Any]]:
    """Run a graph on each event alone, repeated where the graph takes a fixed number.

    Parameters
    ----------
    run : takes tensors and gives the values of every output
    tensors : input name to its values, events along the first axis
    manifest : says how many events the graph takes at a time, where that is fixed, and which outputs it has
    """
    num_events, size = len(next(iter(tensors.values()))), manifest.fixed_batch or 1
    if not num_events:
        return _nothing(tensors, manifest)
    parts = [
        run({name: values[event : event + 1].repeat(size, axis=0) for name, values in tensors.items()})
        for event in range(num_events)
    ]
    return [np.concatenate([values[:1] for values in pieces]) for pieces in zip(*parts, strict=True)]


def _of_slice(run: Run, tensors: Tensors, size: int | None) -> list[npt.NDArray[Any]]:
    """Run a graph that may take a fixed number of events on fewer: the last one is repeated."""
    num_events = len(next(iter(tensors.values())))
    if size is None or num_events == size:
        return run(tensors)
    places = np.minimum(np.arange(size), num_events - 1)
    return [values[:num_events] for values in run({name: values[places] for name, values in tensors.items()})]


def answer_of(outputs: Sequence[npt.NDArray[Any]], manifest: Manifest) -> npt.NDArray[np.float32]:
    """Put scores and what regressions predict side by side, (events, columns) float32.

    Parameters
    ----------
    outputs : the values of every output, in the order of the manifest
    manifest : says which of them make an answer
    """
    if not len(outputs[0]):
        return np.empty((0, len(manifest.columns)), np.float32)
    parts = [as_scores(outputs[i]) for i in manifest.answered]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def as_scores(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Bring the first output to what answers hold: (events, columns) float32."""
    if values.dtype == np.float32 and values.ndim == 2:
        return values
    return values.reshape(len(values), -1 if values.size else 1).astype(np.float32)


def _nothing(tensors: Tensors, manifest: Manifest) -> list[npt.NDArray[Any]]:
    """Make the values of every output for no events; open axes have the sizes of those of their name in the inputs."""
    sizes = {
        axis: size
        for spec in manifest.inputs
        for axis, size in zip(spec.shape[1:], tensors[spec.name].shape[1:], strict=True)
    }
    shapes = [[sizes.get(axis, 0) if isinstance(axis, str) else axis for axis in o.shape[1:]] for o in manifest.outputs]
    return [np.empty((0, *s), array_type(o.dtype)) for s, o in zip(shapes, manifest.outputs, strict=True)]


def _loaded(graph: Path, options: Any, *, model: str) -> Any:
    """Make a session; what the runtime can't load is told."""
    import onnxruntime

    graph.open("rb").close()  # says what is in the way, which the runtime does not
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if is_lack(error):
            raise
        raise InvalidModel(
            f"{model} can't be loaded by onnxruntime {onnxruntime.__version__} ({public(_first_line(error))}); publish "
            "it anew, or update the runtime",
            field="model",
        ) from error


def events_at_once(tensors: Tensors) -> int:
    """Say how many events go through a graph together: fewer where each is large, or has objects to be compared.

    Parameters
    ----------
    tensors : input name to its values, events along the first axis

    Examples
    --------
    >>> [events_at_once({"x": np.empty(shape)}) for shape in ((9, 27), (9, 7, 300), (2, 3, 512, 512), (1, 9000, 4))]
    [1024, 46, 5, 1]
    """
    cells = 1
    for values in tensors.values():
        widest = max(values.shape[1:], default=1) if values.ndim > 2 else 1  # attention compares each with each
        cells = max(cells, widest**2, int(np.prod(values.shape[1:])))
    return max(1, min(SLICE, _CELLS // cells))


def _run_options() -> Any:
    """Make onnxruntime's ``RunOptions``, through which a run can be ended."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # its errors come back as exceptions
    return options


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class Loading(Exception):  # noqa: N818  # nothing is wrong
    """A model is being loaded, or waits for others that are."""


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class _Load:
    """A model on its way into memory; whoever has it loaded looks at it once it ``is_over``."""

    name: str
    make: Callable[[], Model]
    model: Model | None = None
    error: Exception | None = None
    seconds: float = 0.0
    is_over: bool = False

    def run(self, done: Callable[[], None] = lambda: None) -> None:
        """Load it.

        Parameters
        ----------
        done : called at the end
        """
        started = time.perf_counter()
        try:
            self.model = self.make()
        except Exception as error:  # noqa: BLE001  # told to those who ask for the model
            self.error = error
        self.seconds = time.perf_counter() - started
        self.is_over = True
        done()


class Models:
    """The models of a worker: loaded when asked for, the one used longest ago dropped where there are too many.

    Parameters
    ----------
    locate : model name and version to the folder and the manifest; raises for what is not there
    limit : how many are kept
    most_bytes : of their graphs; one that has more by itself is kept alone
    observe_load : told the name of each model that is loaded, and the seconds that it took
    """

    def __init__(
        self,
        locate: Callable[[str, int], tuple[Path, Manifest]],
        *,
        limit: int,
        most_bytes: int,
        observe_load: Callable[[str, float], None],
    ) -> None:
        self._locate, self._limit, self._most, self._observe_load = locate, limit, most_bytes, observe_load
        self._models: OrderedDict[tuple[Any, ...], Model] = OrderedDict()
        self._loads: dict[tuple[Any, ...], _Load] = {}
        self._sizes: dict[tuple[Any, ...], int] = {}
        self._failed: dict[tuple[Any, ...], tuple[float, Exception]] = {}
        self._done: Callable[[], None] | None = None
        self._samples = threading.Lock()
        self._terminator = Terminator()  # of runs of samples

    def __len__(self) -> int:
        return len(self._models)

    def load_beside(self, done: Callable[[], None]) -> None:
        """Load models in threads of their own from now on; until then :meth:`get` waits for them.

        Parameters
        ----------
        done : called, in such a thread, when a model is loaded or can't be
        """
        self._done = done

    def get(self, name: str, version: int) -> Model:
        """Return a model that is in memory.

        Raises
        ------
        Loading
            If it is on its way there; see :meth:`collect`.
        """
        folder, manifest = self._locate(name, version)
        graph = folder / MODEL
        status = graph.stat()
        # A folder that was replaced behind our back is another model, whatever its number.
        key = (name, version, status.st_ino, status.st_mtime_ns)
        if key not in self._models:
            self._load(key, lambda: self._made(name, version, manifest, graph), size=status.st_size)
        self._models.move_to_end(key)
        return self._models[key]

    def _load(self, key: tuple[Any, ...], make: Callable[[], Model], *, size: int) -> None:
        """Load a model; what went wrong a moment ago is not tried again at once."""
        if key in self._loads:
            raise Loading
        failed = self._failed.pop(key, None)
        if failed is not None and time.monotonic() - failed[0] < _AGAIN:
            self._failed[key] = failed
            raise failed[1]
        self._make_room(size)
        load = _Load(name=key[0], make=make)
        if self._done is None:
            load.run()
        else:  # the runtime lets other threads work meanwhile
            threading.Thread(target=load.run, args=(self._done,), name="load", daemon=True).start()
        self._loads[key], self._sizes[key] = load, size
        if self._done is not None:
            raise Loading
        self.collect()
        if load.error is not None:
            raise self._failed.pop(key)[1]

    def _made(self, name: str, version: int, manifest: Manifest, graph: Path) -> Model:
        """Make a model of the graph that the manifest is of, and run it once.

        An error of that run is left to the first request.
        """
        model = Model(name, version, manifest, graph)
        if sha256_of(graph) != manifest.sha256:
            raise InvalidModel(
                f"model {name!r}, version {version}: {MODEL} is not the file that {MANIFEST} was written for "
                "(sha256 differs); copy the whole bundle",
                field="model",
            )
        with self._samples, contextlib.suppress(Exception):
            self._terminator.moment = time.monotonic() + _WARM_UP
            model.terminator = self._terminator
            model.warm_up()
        return model

    def collect(self) -> None:
        """Take over what has been loaded.

        To be called before requests are looked at in the order in which they came: so the first of them finds its
        model, whatever those behind it need room for.
        """
        if not self._loads:
            return
        now = time.monotonic()
        self._failed = {key: kept for key, kept in self._failed.items() if now - kept[0] < _AGAIN}
        for key, load in [(key, load) for key, load in self._loads.items() if load.is_over]:
            del self._loads[key]
            if load.model is not None:
                self._models[key] = load.model
                self._observe_load(load.name, load.seconds)
            elif load.error is not None:
                del self._sizes[key]
                self._failed[key] = now, load.error

    def _make_room(self, size: int) -> None:
        if len(self._loads) >= _LOADS:
            raise Loading
        dropped = []
        while self._models and self._is_full(size):
            dropped.append(next(iter(self._models)))
            self._forget(dropped[-1])
        if dropped:
            give_back()
        if self._loads and self._is_full(size):
            raise Loading  # what is on its way can be dropped once it is there

    def _is_full(self, size: int) -> bool:
        number = len(self._models) + len(self._loads)
        return number >= self._limit or sum(self._sizes.values()) + size > self._most

    def drop(self, is_served: Callable[[str, int], bool]) -> None:
        """Forget models that are not served any more."""
        gone = [key for key in self._models if not is_served(key[0], key[1])]
        for key in gone:
            self._forget(key)
        if gone:
            give_back()

    def _forget(self, key: tuple[Any, ...]) -> None:
        del self._models[key], self._sizes[key]
