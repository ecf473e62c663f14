"""What gives scores of events: a bundle, run here, or whatever else an address leads to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from rootdata.bundle.assemble import Assembler, Tensors
from rootdata.bundle.manifest import MANIFEST, MODEL, Manifest, open_bundle
from rootdata.causes import OUTSIDE, cause_of, told
from rootdata.errors import BundleError, ConfigError, nearest
from rootdata.registry import SCORERS
from rootdata.table import Table, cut

Scores = npt.NDArray[np.float32]

SLICE = 1024  # events that go through a graph at a time: what a layer makes of them should stay in the cache
PIECE = 2048  # events that are padded together where the widest decides how much memory they take


class Scorer(Protocol):
    """Scores events; threads may share it.

    ``name`` is what people call the model, ``manifest`` says what it takes and gives.
    """

    name: str
    manifest: Manifest

    def scores(self, table: Table, *, where: str) -> Scores:
        """Return the scores of some events, (n, columns) float32.

        Parameters
        ----------
        table : the branches of the manifest, of the types that it says
        where : what the events come from, for errors
        """

    def close(self) -> None:
        """Let go of what it holds."""


def open_scorer(model: str | Path) -> Scorer:
    """Open the model of a folder, or of an address: ``http://host:8000/models/ttH``.

    Raises
    ------
    BundleError
        For a folder that is no bundle, a model that takes no events, an address without a model.
    ConfigError
        For an address of a kind that nobody knows.
    """
    scheme, mark, _ = str(model).partition("://")
    kind = scheme if mark else "bundle"
    if kind not in SCORERS.names():
        known = [name for name in SCORERS.names() if name != "bundle"]
        raise ConfigError(
            f"bundle: got {str(model)!r}; expected a folder, or an address that begins with "
            f"{' or '.join(f'{name}://' for name in known)}; {nearest(kind, known)}"
        )
    opener = cast("Callable[[str], Scorer]", SCORERS.find(kind))
    scorer = opener(str(model))
    if not scorer.manifest.takes_events:
        scorer.close()
        raise BundleError(
            f"{model}: its manifest names no branches, the graph takes tensors alone; export it with rootdata, or add "
            "the names of its features"
        )
    return scorer


class BundleScorer:
    """Runs the graph of a bundle by onnxruntime, on one thread a call.

    Parameters
    ----------
    folder : of the bundle
    """

    def __init__(self, folder: str | Path) -> None:
        self.name = str(Path(folder).resolve())
        self.manifest = _manifest_of(Path(folder))
        self._session = _session(Path(folder, MODEL))
        self._assemble = Assembler(self.manifest) if self.manifest.takes_events else None
        self._is_elastic = any(isinstance(axis, str) for t in self.manifest.inputs for axis in t.shape[1:])
        self._outputs = [self.manifest.outputs[i].name for i in self.manifest.answered]

    def scores(self, table: Table, *, where: str) -> Scores:
        """Return the scores of some events; see :class:`Scorer`."""
        num_events, step = table.num_events, PIECE if self._is_elastic else max(table.num_events, 1)
        parts = [self._piece(cut(table, low, min(low + step, num_events)), where) for low in range(0, num_events, step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.manifest.columns)), np.float32)

    def _piece(self, table: Table, where: str) -> Scores:
        if self._assemble is None:
            raise BundleError(f"{self.name}: its manifest names no branches")
        tensors = self._assemble.tensors(self._assemble.features(table, where=where))
        fixed = self.manifest.fixed_batch
        step = 1 if self.manifest.batching == "none" else fixed or SLICE
        parts = [
            self._run({name: values[low : low + step] for name, values in tensors.items()}, size=fixed)
            for low in range(0, table.num_events, step)
        ]
        return np.concatenate(parts)

    def _run(self, tensors: Tensors, *, size: int | None) -> Scores:
        """Run the graph on some events; where it takes a fixed number, the last one is repeated."""
        num_events = len(next(iter(tensors.values())))
        if size is not None and num_events < size:
            places = np.minimum(np.arange(size), num_events - 1)
            tensors = {name: values[places] for name, values in tensors.items()}
        try:
            outputs: list[Any] = self._session.run(self._outputs, tensors)
        except Exception as error:
            if cause_of(error) in OUTSIDE:
                raise
            raise BundleError(told(f"{self.name}: its graph can't be run on these events", error)) from error
        answers = [values.reshape(len(values), -1).astype(np.float32, copy=False)[:num_events] for values in outputs]
        return answers[0] if len(answers) == 1 else np.concatenate(answers, axis=1)

    def close(self) -> None:
        """Do nothing: the session goes with the object."""


class Bundles:
    """Opens bundles in folders."""

    def __call__(self, folder: str) -> BundleScorer:
        """Open one."""
        return BundleScorer(folder)


def _manifest_of(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise BundleError(f"bundle: {str(folder)!r} is no folder (seen from {Path.cwd()}); name that of a bundle")
    if not (folder / MANIFEST).is_file():
        inside = [str(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))]
        remedy = (
            f"did you mean {inside[0]}?" if inside else "name the folder that export wrote, or that a training left"
        )
        raise BundleError(f"bundle: {str(folder)!r} is no bundle, it has no {MANIFEST}; {remedy}")
    return open_bundle(folder)


def _session(graph: Path) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # files are scored side by side instead
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # it keeps what its largest run took for good
    options.log_severity_level = 4  # its errors come back as exceptions
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if cause_of(error) in OUTSIDE:
            raise
        raise BundleError(told(f"{graph} can't be loaded by onnxruntime", error)) from error
