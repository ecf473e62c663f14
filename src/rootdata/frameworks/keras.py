"""Batches for Keras 3, whatever its backend, and bundles of its models."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootdata.bundle.export import export as export_module
from rootdata.bundle.manifest import Manifest, load_manifest
from rootdata.errors import BundleError, ConfigError, LibraryError
from rootdata.frameworks.batches import Batches, Triple

try:
    import keras
except ImportError as error:  # of its backend, too, which is TensorFlow where nothing was said
    backend = getattr(error, "name", None) in {"tensorflow", "torch", "jax"}
    more = ", or choose another backend before Keras is imported: KERAS_BACKEND=torch" if backend else ""
    raise LibraryError.of("keras", error, install="rootdata[keras]", more=more) from error

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule


class KerasBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one part, for ``fit`` and ``evaluate``; its length is exact, epochs follow each other.

    A batch is the input tensors by name, which inputs of a model are called by, the truth and the weights. Give ``fit``
    ``shuffle=False``: the events are shuffled already, and a stream can't jump.

    Parameters
    ----------
    data : a data module
    part : ``train``, ``val`` or ``test``
    truth : ``label`` or ``targets``, see :class:`rootdata.frameworks.batches.Batches`

    Raises
    ------
    ConfigError, DataError
        As :class:`rootdata.frameworks.batches.Batches`; while it is read, for batches that are not asked for in turn.
    """

    def __init__(self, data: RootDataModule, part: str = "train", *, truth: str | None = None) -> None:
        super().__init__(workers=1, use_multiprocessing=False)  # another number would ask out of turn
        self._source = Batches(data, part, truth=truth)
        self._rewind()
        self._is_within, self._is_over = False, False  # an epoch that began, that ended

    def _rewind(self) -> None:
        self._open: Iterator[Triple] = iter(())
        self._number = -1
        self._last: Triple | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is being read: a copy begins with its epoch anew."""
        return {**self.__dict__, "_open": iter(()), "_number": -1, "_last": None}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> Any:
        """Return a batch: the first, the one before again, or the next.

        Keras looks at the first ones before an epoch begins; with ``steps_per_epoch`` its epochs end in the midst of
        those here.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        if number == 0 and self._is_over:
            self._source.epoch += self._source.is_shuffled
            self._is_over = False
            self._rewind()
        if number == self._number and self._last is not None:
            return self._last
        if number == 0:
            self._open = self._source.triples(self._source.epoch)
        elif number != self._number + 1:
            raise ConfigError(
                f"KerasBatches: batch {number} was asked for after {self._number}; give fit(..., shuffle=False): the "
                "events are shuffled already"
            )
        self._number, self._last = number, next(self._open)
        self._is_over = self._is_over or number == len(self) - 1
        return self._last

    def on_epoch_begin(self) -> None:
        """Note that what is asked for from now on is used, but for a first batch that Keras looks at alone."""
        self._is_within = True

    def on_epoch_end(self) -> None:
        """Let the next first batch be that of the next epoch, which has another order."""
        self._is_over = self._is_over or (self._is_within and self._number > 0)
        self._is_within = False


def export(model: Any, data: RootDataModule, folder: str | Path, **options: Any) -> Manifest:
    """Export a Keras model as a bundle, as :func:`rootdata.bundle.export.export` does with a torch module.

    A model of the torch backend is one; a model of another backend is saved and loaded by a process of its own under
    the torch backend, so that layers of one's own have to be registered with Keras there, too.

    Parameters
    ----------
    model : takes the input tensors by name; ends in probabilities (a sigmoid or softmax as its last activation), or
        else in logits
    data : that it was trained on
    folder : of the bundle; replaced if it is one already
    options : more arguments of :func:`rootdata.bundle.export.export`, as primitives

    Raises
    ------
    BundleError, FileError
        As there.
    """
    if keras.backend.backend() == "torch":
        return _exported(model, data, Path(folder), options)
    with tempfile.TemporaryDirectory() as place:
        model.save(Path(place) / "model.keras")
        (Path(place) / "data.pickle").write_bytes(pickle.dumps(data))
        words = [sys.executable, "-m", __name__, place, str(Path(folder).absolute()), json.dumps(options)]
        done = subprocess.run(  # noqa: S603 - this module, by this interpreter
            words, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise BundleError(f"the model can't be exported: {next(reversed(done.stderr.strip().splitlines()), '')}")
    return load_manifest(folder)


def _exported(model: Any, data: RootDataModule, folder: Path, options: Mapping[str, Any]) -> Manifest:
    ends = getattr(getattr(model.layers[-1], "activation", None), "__name__", "linear")
    activation = "auto" if ends == "linear" else "none"
    names = [tensor.name for tensor in model.inputs]
    own = {"activation": activation, "call": lambda net, batch: _called(net, batch, names)}
    return export_module(model, data, folder, **{**own, **options})


def _called(model: Any, batch: Mapping[str, Any], names: list[str]) -> Any:
    """Call a model by the names of its inputs; one column of probabilities is one number an event."""
    found = model({name: batch[name] for name in names})
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def _main(place: Path, folder: Path, options: Mapping[str, Any]) -> None:
    data = pickle.loads((place / "data.pickle").read_bytes())  # noqa: S301 - written by the process that waits for this
    _exported(keras.saving.load_model(place / "model.keras"), data, folder, options)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
