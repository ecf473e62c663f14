"""The process that unpacks and tries an upload, ``python -m serve.upload.child``; see :mod:`serve.upload.check`.

It limits itself before it opens a file, and prints one line of JSON: what it found, or what is wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
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

from rootdata.bundle.assemble import Assembler, table_of
from rootdata.bundle.manifest import (
    MANIFEST,
    MODEL,
    PREPROCESS,
    BranchSpec,
    Manifest,
    OutputSpec,
    TensorSpec,
    open_bundle,
    save_manifest,
    sha256_of,
)
from rootdata.errors import BundleError
from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table
from serve.codec import inference
from serve.errors import InvalidModel, ServeError
from serve.faults import fault_of
from serve.models.session import answer_of, joined, one_by_one
from serve.parsing import parse_object
from serve.settings import Settings
from serve.upload import archives, graphs, trials
from serve.upload.archives import LABELS, PARAMS, SAMPLE
from serve.upload.graphs import Port
from serve.upload.trials import Filling, Trial

# What three events may take beyond the graph itself, which is in memory a few times while it is parsed and optimised.
FREE_MEMORY = 500_000_000
COPIES = 8
TOLERANCE = 1e-5
_MANY = 10_000_000  # of what a sample's axes may have
_SHOWN = 600

Tensors = Mapping[str, npt.NDArray[Any]]


def main() -> NoReturn:
    """Do the task of the command line, print the answer, and leave at once, without what libraries do at exit."""
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
        found = {"error": type(error).__name__, "message": said[:2000], "field": error.field, "code": error.code}
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
    """Unpack an archive; see :func:`serve.upload.archives.unpack`.

    Parameters
    ----------
    archive, into : absolute paths
    max_bytes : of all files together
    is_named : as in :func:`serve.upload.archives.unpack`
    """
    return {"files": archives.unpack(Path(archive), Path(into), max_bytes=max_bytes, is_named=is_named)}


def check(
    folder: str, features: Sequence[str] | None, columns: Sequence[str] | None, batching: str | None
) -> dict[str, Any]:
    """Check the bundle in a folder; see :func:`serve.upload.check.check`.

    Parameters
    ----------
    folder : absolute path
    features, columns, batching : as :func:`serve.upload.check.check` takes them
    """
    path = Path(folder)
    facts, notes = _read(path)
    with _blamed(f"onnxruntime {ort.__version__} can't load {MODEL}"):
        session = _session(path / MODEL)
    if (path / MANIFEST).exists():
        manifest = _manifest(path)
        _check_ports(manifest, facts.inputs, facts.outputs)
        manifest, why = _with_batching(manifest, facts, batching)
        _check_runs(path, manifest, session)
    else:
        manifest, why = _made_manifest(path, facts, session, features=features, columns=columns, batching=batching)
    if why:
        remedy = "; if it is not meant so, export the network in evaluation mode (module.eval())"
        notes.append(f"requests are run one by one (batching: none): {why}{remedy if 'depends' in why else ''}")
        save_manifest(manifest, path)
    _check_preprocess(path / PREPROCESS)
    if manifest.takes_events:
        _check_events(manifest, session)
    return {
        "opset": facts.opset,
        "takes_no_events": _takes_no_events(path, manifest, session),
        "parity": _check_parity(manifest, session),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "batching": manifest.batching,
        "notes": notes,
    }


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is kept of a graph, which itself may be large.

    Parameters
    ----------
    meeting : as :func:`serve.upload.graphs.meeting` says
    classes : as :func:`serve.upload.graphs.classes_of` says
    """

    opset: int
    inputs: list[Port]
    outputs: list[Port]
    meeting: str
    classes: Mapping[str, tuple[str, ...]]
    software: Mapping[str, str]


def _read(folder: Path) -> tuple[Facts, list[str]]:
    """Look at the graph; one that comes alone and gives maps is written anew without them."""
    model = graphs.read(folder / MODEL)
    graphs.refuse_strangers(model)
    opset = graphs.opset(model)
    _check_opset(opset)
    classes = graphs.classes_of(model)
    changed = [] if (folder / MANIFEST).exists() else graphs.without_maps(model)
    if changed:
        (folder / MODEL).write_bytes(model.SerializeToString())
    inputs, outputs = graphs.ports(model)
    is_changed, has_shapes = graphs.with_short_domains(model), not graphs.with_some_shapes(model)
    _check_graph(str(folder / MODEL) if has_shapes and not is_changed else model, is_full=has_shapes)
    software = {model.producer_name: model.producer_version} if model.producer_name else {}
    facts = Facts(
        opset=opset, inputs=inputs, outputs=outputs, meeting=graphs.meeting(model), classes=classes, software=software
    )
    notes = [f"output {name!r}: a map for each event (ZipMap) became a tensor, (events, classes)" for name in changed]
    return facts, notes


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


def _check_graph(model: Any, *, is_full: bool) -> None:
    """Check a graph, or that in a file. Declared sizes that are wrong matter where it is run, not here.

    Parameters
    ----------
    is_full : compare shapes, too
    """
    with _blamed(f"{MODEL} breaks the rules of ONNX"):
        try:
            onnx.checker.check_model(model, full_check=is_full)
        except onnx.shape_inference.InferenceError as error:
            if "differ in dimension" not in str(error):
                raise
            onnx.checker.check_model(model)


def _check_opset(opset: int) -> None:
    known = onnx.defs.onnx_opset_version()
    if opset > known:
        raise InvalidModel(f"{MODEL}: opset {opset} is newer than {known}, the last one known here; export with 20")


def _made_manifest(
    folder: Path,
    facts: Facts,
    session: Any,
    *,
    features: Sequence[str] | None,
    columns: Sequence[str] | None,
    batching: str | None,
) -> tuple[Manifest, str]:
    """Make the manifest of a graph that comes alone, by what it declares and does; say why requests must not meet."""
    features, columns = _named(folder, facts.inputs, facts.outputs, features, columns)
    path = folder / MODEL
    draft = graphs.manifest_of(sha256_of(path), path.stat().st_size, facts.inputs, facts.outputs, batching="none")
    trial = _trial(folder, draft, session, outputs=[port.name for port in facts.outputs])
    if batching == "none":
        found = trials.alone(trial, "the upload says so")
    else:
        found = trials.settled(trial, meeting=facts.meeting)
    if batching == "events" and found.why:
        raise InvalidModel(f"batching: got 'events'; {found.why}; batching=none serves it", field="batching")
    made = graphs.manifest_of(
        draft.sha256,
        draft.size,
        facts.inputs,
        trials.shapes_of(facts.outputs, found),
        batching=found.batching,
        features=features,
        columns=columns,
        classes=facts.classes,
        software=facts.software,
    )
    save_manifest(made, folder)
    return made, found.why


def _with_batching(manifest: Manifest, facts: Facts, batching: str | None) -> tuple[Manifest, str]:
    """Set the batching of a manifest as the upload says, or as its operators ask for."""
    if batching == "events" and (facts.meeting or manifest.batching == "none"):
        why = (
            f"the graph: {facts.meeting}" if facts.meeting else f"{MANIFEST} says 'none', which is to be changed there"
        )
        raise InvalidModel(f"batching: got 'events'; {why}", field="batching")
    if batching == "none" and manifest.batching != "none":
        return dataclasses.replace(manifest, batching="none"), "the upload says so"
    if facts.meeting and manifest.batching != "none":
        return dataclasses.replace(manifest, batching="none"), f"the graph: {facts.meeting}"
    return manifest, ""


def _check_runs(folder: Path, manifest: Manifest, session: Any) -> None:
    """Run the graph as its manifest says; an event must get the same scores alone and among others."""
    trial = _trial(folder, manifest, session)
    found = trials.together(trial) if manifest.batching == "events" else trials.alone(trial, "")
    if isinstance(found, str):
        raise InvalidModel(
            f"{found}; export the network in evaluation mode (module.eval()), or, if it is meant so, publish it with "
            "batching=none: requests, and the events in them, are then run one by one",
            field="batching",
        )
    for run in found.runs:
        for spec, array in zip(manifest.outputs, run, strict=True):
            events = len(array) if array.ndim and manifest.batching == "events" else None
            trials.check_output(spec, array, events)


def _trial(folder: Path, manifest: Manifest, session: Any, *, outputs: Sequence[str] | None = None) -> Trial:
    names = [spec.name for spec in manifest.outputs] if outputs is None else list(outputs)
    return Trial(
        run=functools.partial(_try, session, names),
        inputs=manifest.inputs,
        outputs=tuple(names),
        ranges=manifest.ranges,
        sample=_sample(folder, manifest),
    )


def _sample(folder: Path, manifest: Manifest) -> dict[str, npt.NDArray[Any]] | None:
    """Read tensors that came with the upload."""
    path = folder / SAMPLE
    if not path.exists():
        return None
    try:
        free = dataclasses.replace(manifest, batching="none", branches=())
        settings = Settings(models=folder, max_events=_MANY)
        return dict(inference.decode(path.read_bytes(), None, free, settings=settings).tensors)
    except ServeError as error:
        raise InvalidModel(f"{SAMPLE}: {error.message}", field=SAMPLE) from error


def _try(session: Any, names: list[str], feeds: Tensors) -> list[npt.NDArray[Any]]:
    """Run the graph on tensors that it may refuse."""
    try:
        found = session.run(names, dict(feeds))
    except Exception as error:
        said = " ".join(str(error).split())
        if isinstance(error, MemoryError) or "alloc" in said:
            raise
        raise trials.CanNotBeRunError(said[:_SHOWN]) from error
    for name, array in zip(names, found, strict=True):
        if not isinstance(array, np.ndarray):
            raise InvalidModel(f"output {name!r} gives no tensor; leave it out of the export", field=name)
    return list(found)


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
    said = parse_object(params.read_bytes(), what=PARAMS) if params.exists() else {}
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
    return next((port.shape[1] for port in ports if port.shape is not None and len(port.shape) == 2), None)


def _manifest(folder: Path) -> Manifest:
    """Read a manifest that a browser can read too: JSON has no NaN."""
    try:
        json.loads((folder / MANIFEST).read_bytes(), parse_constant=_refuse_constant)
        manifest = open_bundle(folder)
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
    # What a graph declares of its outputs may be wrong: runs tell.
    shape = spec.shape if port.shape is None or what == "output" else port.shape
    is_same = spec.dtype == port.dtype and len(spec.shape) == len(shape)
    if not is_same or any(f != s and isinstance(f, int) for f, s in zip(shape, spec.shape, strict=True)):
        said = f"{spec.dtype} {list(spec.shape)}"
        raise InvalidModel(
            f"{MANIFEST}: {what} {spec.name!r} is {said}; the graph says {port}; export again", field=spec.name
        )


def _session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(manifest: Manifest, session: Any, feeds: Tensors, *, events: int) -> list[npt.NDArray[Any]]:
    """Run the graph on events as the server does."""
    run = functools.partial(session.run, [spec.name for spec in manifest.outputs])
    run_events = one_by_one if manifest.batching == "none" else joined
    with _blamed(f"the graph can't be run on {events} events"):
        found = run_events(run, dict(feeds), manifest)
    for spec, array in zip(manifest.outputs, found, strict=True):
        trials.check_output(spec, array, events)
    return list(found)


def _takes_no_events(folder: Path, manifest: Manifest, session: Any) -> bool:
    if manifest.batching == "none" or manifest.fixed_batch is not None:
        return False
    trial = _trial(folder, manifest, session)
    try:
        found = trial.run(Filling(trial=trial)(events=0, is_wide=False, rows=(0,)))
        for spec, array in zip(manifest.outputs, found, strict=True):
            trials.check_output(spec, array, 0)
    except (trials.CanNotBeRunError, InvalidModel):
        return False
    return True


def _check_events(manifest: Manifest, session: Any) -> None:
    """Send three made-up events by branch name, with none, one and three objects."""
    for scores in (manifest.outputs[i] for i in manifest.answered):
        widths = scores.shape[1:] or (1,)
        if not scores.dtype.startswith("float") or len(scores.shape) not in {1, 2} or widths != (len(scores.columns),):
            raise InvalidModel(
                f"{MANIFEST}: output {scores.name!r} is {scores.dtype} {list(scores.shape)} with "
                f"{len(scores.columns)} columns; scores of events are real numbers, (events, columns)",
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
    found = answer_of(_run(manifest, session, feeds, events=table.num_events), manifest)
    if expected.shape != found.shape or not len(expected):
        raise InvalidModel(
            f"{MANIFEST}: parity has scores of shape {list(expected.shape)}; the graph gives {list(found.shape)}",
            field="parity",
        )
    largest = float((np.abs(found - expected) / _units(manifest, expected)).max())
    if not largest <= TOLERANCE:
        raise InvalidModel(
            f"{MANIFEST}: the graph's scores of its own sample differ by {largest:.3g}; allowed is {TOLERANCE:g}; "
            "export again, so that graph and manifest belong together",
            field="parity",
        )
    return largest


def _units(manifest: Manifest, expected: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what differences are measured by, (columns,): 1 for scores, and for targets the largest value."""
    is_target = np.array([column in manifest.regressions for column in manifest.columns])
    return np.where(is_target, np.maximum(np.abs(expected).max(axis=0), np.finfo(np.float32).tiny), 1.0)


if __name__ == "__main__":
    main()
