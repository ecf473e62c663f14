"""The process in which an upload is unpacked and tried (``python -m serve.checking_child``, see :mod:`serve.check`).

It limits itself before it opens a file, and prints one line of JSON: what it found, or what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from rootdata import bundle
from rootdata.bundle import MANIFEST, MODEL, BranchSpec, Manifest, OutputSpec, TensorSpec
from rootdata.errors import BundleError
from rootdata.inputs import Assembler, Table, table_of
from rootdata.jagged import Jagged, offsets_of
from serve import archives, graphs
from serve.archives import LABELS, PARAMS, PREPROCESS
from serve.errors import InvalidModel, ServeError
from serve.faults import fault_of
from serve.graphs import Port

# What three events may take beyond the graph itself, which is in memory a few times while it is parsed and optimised.
FREE_MEMORY = 500_000_000
COPIES = 8
TOLERANCE = 1e-5
SIZES = {1: 1, 3: 4}  # events to the size of every other axis that may have any
_SHOWN = 600

Tensors = Mapping[str, npt.NDArray[Any]]


def main() -> NoReturn:
    """Do the task of the command line, print the answer, and leave without a word to any library."""
    request = json.loads(sys.argv[1])
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    task, limits = request["task"], request["limits"]
    limit_time(limits["seconds"])
    limit_memory(limits["memory"], size=_size_of(task.get("folder")))
    try:
        with _blamed("the upload"):
            found = check(**task) if request["command"] == "check" else unpack(**task)
    except ServeError as error:
        said = error.message.replace(f"{task.get('folder')}/", "")  # a client need not know where uploads lie
        found = {"error": type(error).__name__, "message": said[:2000], "field": error.field}
    os.write(answer, json.dumps(found).encode() + b"\n")
    os._exit(0)


def limit_time(seconds: float) -> None:
    """Let the kernel end this process when its time is over, also where nobody waits for it any more."""
    whole = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
    signal.setitimer(signal.ITIMER_REAL, seconds + 5.0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def limit_memory(memory: int, *, size: int) -> None:
    """Limit the address space to what a graph of ``size`` bytes may need, at most ``memory``; no core files."""
    limit = min(memory, _taken() + FREE_MEMORY + COPIES * size)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def unpack(archive: str, into: str, max_bytes: int, *, is_named: bool) -> dict[str, Any]:
    """Unpack an archive."""
    return {"files": archives.unpack(Path(archive), Path(into), max_bytes=max_bytes, is_named=is_named)}


def check(folder: str, features: Sequence[str] | None, columns: Sequence[str] | None) -> dict[str, Any]:
    """Check the bundle in a folder; see :func:`serve.check.check`."""
    path = Path(folder)
    model = graphs.read(path / MODEL)
    graphs.refuse_strangers(model)
    _check_opset(graphs.opset(model))
    _check_graph(path / MODEL)
    if not (path / MANIFEST).exists():
        bundle.save(_made_manifest(path, features, columns), path)
    manifest = _manifest(path)
    _check_preprocess(path / PREPROCESS)
    _check_ports(manifest, *graphs.ports(model))
    opset = graphs.opset(model)
    del model
    session = _session(path / MODEL)
    _check_batches(manifest, session)
    if manifest.takes_events:
        _check_events(manifest, session)
    return {
        "opset": opset,
        "takes_no_events": _takes_no_events(manifest, session),
        "parity": _check_parity(manifest, session),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


@contextlib.contextmanager
def _blamed(what: str) -> Iterator[None]:
    """Turn whatever a graph or a manifest brings about into one sentence."""
    try:
        yield
    except ServeError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:_SHOWN]
        if isinstance(error, MemoryError) or "alloc" in said:
            limit = resource.getrlimit(resource.RLIMIT_AS)[0]
            raise InvalidModel(
                f"{what}: this needs more memory than a graph of its size may have ({limit} bytes for all); "
                "look for a constant or an axis that is far too large"
            ) from error
        fault = fault_of(error, f"{what} can't be looked at")
        raise fault or InvalidModel(f"{what}: {said or type(error).__name__}") from error


def _size_of(folder: str | None) -> int:
    return 0 if folder is None else (Path(folder) / MODEL).stat().st_size


def _taken() -> int:
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _check_graph(path: Path) -> None:
    with _blamed(f"{MODEL} breaks the rules of ONNX"):
        onnx.checker.check_model(str(path), full_check=True)


def _check_opset(opset: int) -> None:
    known = onnx.defs.onnx_opset_version()
    if opset > known:
        raise InvalidModel(f"{MODEL}: opset {opset} is newer than {known}, the last one known here; export with 20")


def _made_manifest(folder: Path, features: Sequence[str] | None, columns: Sequence[str] | None) -> Manifest:
    features, columns = _named(folder, *graphs.ports(graphs.read(folder / MODEL)), features, columns)
    return graphs.bundle_of_graph(folder / MODEL, features=features, columns=columns)


def _named(
    folder: Path,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    features: Sequence[str] | None,
    columns: Sequence[str] | None,
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Add names that are not given from what TFaaS's clients send beside a graph.

    ``params.json`` may say ``features`` and ``labels``. Labels name the scores; those that are as many as the input has
    features, and not as many as the scores, name the features.
    """
    labels, params = folder / LABELS, folder / PARAMS
    said = json.loads(params.read_bytes()) if params.exists() else {}
    features = features or _words(said.get("features"))
    if columns is None:
        columns = _words(labels.read_text()) if labels.exists() else _words(said.get("labels"))
    if features is None and columns and _width(inputs) == len(columns) != _width(outputs):
        return columns, None
    return features, columns


def _words(value: Any) -> list[str] | None:
    """Take words out of a list, or of text with commas or lines; the name of a file, or nothing, has none."""
    if isinstance(value, str):
        value = [] if value.endswith((".txt", ".csv", ".json")) else value.replace(",", "\n").splitlines()
    words = [str(word).strip() for word in value] if isinstance(value, list) else []
    return [word for word in words if word] or None


def _width(ports: Sequence[Port]) -> int | str | None:
    """Return the size of the second axis of the first port with two axes."""
    return next((port.shape[1] for port in ports if len(port.shape) == 2), None)


def _manifest(folder: Path) -> Manifest:
    """Read a manifest that a browser can read too: JSON has no NaN."""
    try:
        json.loads((folder / MANIFEST).read_bytes(), parse_constant=_refuse_constant)
        manifest = bundle.load(folder)
    except (BundleError, ValueError, RecursionError) as error:
        raise InvalidModel(str(error)[:_SHOWN], field=MANIFEST) from error
    found = (folder / MODEL).stat().st_size
    if manifest.size != found:
        raise InvalidModel(f"{MANIFEST}: size is {manifest.size}, {MODEL} has {found} bytes", field="size")
    return manifest


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{MANIFEST}: {text} is no JSON; write null, or leave the entry out")


def _check_preprocess(path: Path) -> None:
    if path.exists():
        with _blamed(f"{PREPROCESS} can't be read"):
            if not isinstance(json.loads(path.read_bytes()), dict):
                raise InvalidModel(f"{PREPROCESS}: expected an object", field=PREPROCESS)


def _check_ports(manifest: Manifest, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Compare what the manifest and the graph say of inputs and outputs."""
    for what, told, found in (("input", manifest.inputs, inputs), ("output", manifest.outputs, outputs)):
        by_name = {port.name: port for port in found}
        if {spec.name for spec in told} != set(by_name):
            said = ", ".join(repr(spec.name) for spec in told)
            raise InvalidModel(
                f"{MANIFEST}: {what}s are {said:.300}; the graph has {', '.join(map(repr, by_name)):.300}; export again"
            )
        for spec in told:
            _check_port(spec, by_name[spec.name], what)


def _check_port(spec: TensorSpec | OutputSpec, port: Port, what: str) -> None:
    is_same = spec.dtype == port.dtype and len(spec.shape) == len(port.shape) and len(port.shape) > 0
    if not is_same or any(f != s and isinstance(f, int) for f, s in zip(port.shape, spec.shape, strict=True)):
        said = f"{spec.dtype} {list(spec.shape)}"
        raise InvalidModel(
            f"{MANIFEST}: {what} {spec.name!r} is {said}; the graph says {port}; export again", field=spec.name
        )


def _session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with _blamed(f"onnxruntime {ort.__version__} can't load {MODEL}"):
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _check_batches(manifest: Manifest, session: Any) -> None:
    """Run made-up batches; an event must get the same scores alone and among others, as the server mixes requests."""
    fixed = [t.shape[0] for t in manifest.inputs if isinstance(t.shape[0], int)]
    if fixed:
        raise InvalidModel(
            f"the batch size is frozen to {fixed[0]}; export it with a free first axis (dynamic_shapes)", field="inputs"
        )
    for events, width in SIZES.items():
        scores = _run(manifest, session, _made_up(manifest, events=events, width=width), events=events)
    alone = _run(manifest, session, _made_up(manifest, events=1, width=SIZES[3]), events=1)
    for spec, one, many in zip(manifest.outputs, alone, scores, strict=True):
        if not np.allclose(one[0], many[0], rtol=1e-3, atol=1e-4):
            raise InvalidModel(
                f"output {spec.name!r} of an event depends on the other events of its batch; "
                "export the network in evaluation mode (module.eval())",
                field=spec.name,
            )


def _made_up(manifest: Manifest, *, events: int, width: int) -> dict[str, npt.NDArray[Any]]:
    """Make tensors of typical values; the last of three events has no objects."""
    return {spec.name: _made_up_tensor(manifest, spec, events, width) for spec in manifest.inputs}


def _made_up_tensor(manifest: Manifest, spec: TensorSpec, events: int, width: int) -> npt.NDArray[Any]:
    shape = (events, *(size if isinstance(size, int) else width for size in spec.shape[1:]))
    tensor = np.full(shape, 0 if spec.dtype == "int64" else 1, spec.dtype)
    if spec.is_mask:
        tensor[2:] = 0
    elif len(spec.features) == (shape[1] if len(shape) > 1 else 0):
        for i, name in enumerate(spec.features):
            if name in manifest.ranges:
                known = manifest.ranges[name]
                tensor[:, i] = known.low if spec.dtype == "int64" else known.mean
    if spec.dtype != "int64" and not spec.is_mask:
        tensor *= 1 + 0.1 * np.arange(events).reshape(-1, *([1] * (len(shape) - 1)))
    return tensor


def _run(manifest: Manifest, session: Any, feeds: Tensors, *, events: int) -> list[npt.NDArray[Any]]:
    with _blamed(f"the graph can't be run on {events} events"):
        found = session.run([spec.name for spec in manifest.outputs], dict(feeds))
    for spec, array in zip(manifest.outputs, found, strict=True):
        _check_output(spec, array, events)
    return list(found)


def _check_output(spec: OutputSpec, array: Any, events: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise InvalidModel(f"output {spec.name!r} holds no numbers; leave it out of the export", field=spec.name)
    expected = (events, *spec.shape[1:])
    is_good = array.ndim == len(expected) and all(
        isinstance(want, str) or want == size for want, size in zip(expected, array.shape, strict=True)
    )
    if not is_good:
        raise InvalidModel(
            f"output {spec.name!r} of {events} events has shape {list(array.shape)}; declared is {list(expected)}",
            field=spec.name,
        )
    if not np.isfinite(array).all():
        raise InvalidModel(
            f"output {spec.name!r} of {events} made-up events is not finite; events without objects, whose mask is "
            "0 everywhere, are among them: guard divisions and softmax",
            field=spec.name,
        )


def _takes_no_events(manifest: Manifest, session: Any) -> bool:
    try:
        _run(manifest, session, _made_up(manifest, events=0, width=1), events=0)
    except InvalidModel:
        return False
    return True


def _check_events(manifest: Manifest, session: Any) -> None:
    """Send three made-up events by branch name, with none, one and three objects."""
    scores = manifest.outputs[0]
    if scores.dtype != "float32" or len(scores.shape) != 2 or scores.shape[1] != len(scores.columns):
        raise InvalidModel(
            f"{MANIFEST}: output {scores.name!r} is {scores.dtype} {list(scores.shape)} with {len(scores.columns)} "
            "columns; scores of events are float32 (events, columns)",
            field=scores.name,
        )
    with _blamed(f"{MANIFEST}: branches, features and inputs do not fit together"):
        table = Table(num_events=3, columns={b.name: _made_up_column(manifest, b) for b in manifest.branches})
        feeds = Assembler(manifest)(table)
    _run(manifest, session, feeds, events=3)


def _made_up_column(manifest: Manifest, branch: BranchSpec) -> Any:
    known = manifest.ranges.get(branch.name)
    dtype = np.dtype(branch.dtype)
    value = 1 if known is None else known.mean if dtype.kind == "f" else known.low
    if branch.kind == "jagged":
        return Jagged(offsets_of(np.array([0, 1, 3])), np.full(4, value, dtype))
    return np.full(3 if branch.kind == "flat" else (3, branch.width), value, dtype)


def _check_parity(manifest: Manifest, session: Any) -> float | None:
    """Compare the scores of the manifest's own events with those that it promises."""
    sample = manifest.parity
    if sample is None or not manifest.takes_events:
        return None
    with _blamed(f"{MANIFEST}: the events of parity can't be used"):
        table = table_of(manifest, sample.columns)
        feeds = Assembler(manifest)(table)
        expected = np.array(sample.scores, np.float64)
    found = _run(manifest, session, feeds, events=table.num_events)[0]
    if expected.shape != found.shape or not len(expected):
        raise InvalidModel(
            f"{MANIFEST}: parity has scores of shape {list(expected.shape)}; the graph gives {list(found.shape)}",
            field="parity",
        )
    largest = float(np.abs(found - expected).max())
    if not largest <= TOLERANCE:
        raise InvalidModel(
            f"{MANIFEST}: the graph's scores of its own sample differ by {largest:.3g}; allowed is {TOLERANCE:g}; "
            "export again, so that graph and manifest belong together",
            field="parity",
        )
    return largest


if __name__ == "__main__":
    main()
