"""Trees boosted by XGBoost, out of the stream of events."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from rootdata import disk
from rootdata.loading.dataset import RootDataset
from rootdata.models.estimators.estimator import Estimator, Logits, arrays_of, refuse_negative
from rootdata.models.estimators.rounds import Rounds

if TYPE_CHECKING:
    import xgboost


class XGBoost(Estimator):
    """Trees boosted by XGBoost; each round adds one, or one for each of more than two classes.

    The events are read three times as training begins and kept as bins: on disk with ``external_memory``, beside the
    outputs, in memory without.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    classes : how many
    trees : rounds between two looks at the validation part, which are an epoch
    depth : of each tree
    lr : how much of each tree counts
    external_memory : whether the bins are kept on disk
    threads : by default as many as torch has
    seed : of what is drawn by chance
    params : further ones of the library, by its names
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        trees: int = 10,
        depth: int = 6,
        lr: float = 0.1,
        external_memory: bool = True,
        threads: int | None = None,
        seed: int = 0,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(shapes, classes=classes)
        self._trees, self._external = trees, external_memory
        objective = {"objective": "binary:logistic"} if classes == 2 else {
            "objective": "multi:softprob", "num_class": classes}  # fmt: skip
        self._params = {
            **objective, "tree_method": "hist", "max_depth": depth, "learning_rate": lr, "seed": seed,
            "nthread": threads or torch.get_num_threads(), **(params or {}),
        }  # fmt: skip
        self._booster: xgboost.Booster | None = None
        self._train: Any = None
        self._held = contextlib.ExitStack()

    def feed(self, events: RootDataset) -> Rounds:
        """Say what an epoch is made of."""
        self._events = events
        return Rounds(events, self._trees)

    def on_fit_start(self) -> None:
        """Refuse weights that XGBoost does not take."""
        refuse_negative("XGBoost", self.trainer.datamodule, remedy="LightGBM does: model=lightgbm")  # type: ignore[attr-defined]

    def learn(self, batch: Any) -> None:
        """Add a tree."""
        import xgboost

        if self._train is None:
            self._train = self._binned()
            kept = None if self._booster is None else bytearray(self.to_bytes())
            self._booster = xgboost.Booster(self._params, [self._train], model_file=kept)
        self._booster.update(self._train, int(batch))

    def _binned(self) -> Any:
        import xgboost

        folder = None
        if self._external:
            folder = self._held.enter_context(disk.making(Path(self.trainer.default_root_dir, "bins")))
        stream = _stream(lambda: arrays_of(self._events, mean_weight=self.mean_weight), folder)
        options = {"max_bin": self._params.get("max_bin", 256), "nthread": self._params["nthread"]}
        kind = xgboost.ExtMemQuantileDMatrix if self._external else xgboost.QuantileDMatrix
        return kind(stream, **options)

    def on_fit_end(self) -> None:
        """Forget the bins."""
        self._forget()

    def on_exception(self, *_: Any) -> None:
        """Forget the bins."""
        self._forget()

    def teardown(self, stage: str) -> None:
        """Forget the bins."""
        self._forget()

    def _forget(self) -> None:
        self._train = None
        self._held.close()

    def try_on(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> None:
        """Do one round with a few events."""
        import xgboost

        self._booster = xgboost.train(self._params, xgboost.QuantileDMatrix(x, label), 1)

    def raw(self, x: npt.NDArray[np.float32]) -> Logits | None:
        """Give the logits of events."""
        return None if self._booster is None else self._booster.inplace_predict(x, predict_type="margin")

    def native(self, x: npt.NDArray[np.float32]) -> Logits:
        """Give the probabilities of all classes."""
        found = self._booster.inplace_predict(x)
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found

    def to_bytes(self) -> bytes:
        """Write the trees as JSON."""
        return b"" if self._booster is None else bytes(self._booster.save_raw("json"))

    def of_bytes(self, kept: bytes) -> None:
        """Take over trees."""
        import xgboost

        self._booster = xgboost.Booster(self._params, model_file=bytearray(kept))

    def graph(self) -> Any:
        """Write the trees as an ONNX graph."""
        from onnxmltools import convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        return convert_xgboost(self._booster, initial_types=[("x", FloatTensorType([None, self.n_inputs]))])


def _stream(read: Callable[[], Iterator[dict[str, npt.NDArray[Any]]]], folder: Path | None) -> Any:
    """Wrap arrays so that XGBoost reads them, several times.

    Parameters
    ----------
    read : begins anew
    folder : of what is kept on disk; None for nothing
    """
    import xgboost

    class Stream(xgboost.DataIter):
        def __init__(self) -> None:
            super().__init__(cache_prefix=None if folder is None else str(folder / "bins"))
            self._batches = iter(())

        def reset(self) -> None:
            self._batches = read()

        def next(self, input_data: Any) -> bool:
            batch = next(self._batches, None)
            if batch is None:
                return False
            input_data(data=batch["x"], label=batch["label"], weight=batch["weight"])
            return True

    return Stream()
