"""Estimators of scikit-learn, and others with its interface: batch by batch, or all events at once."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.bundle.graph.conversion import opened
from rootdata.bundle.graph.joined import Joined
from rootdata.errors import BundleError, ConfigError, DataError, ResumeError
from rootdata.loading.dataset import RootDataset
from rootdata.models.estimators.estimator import MADE_UP, Arrays, Estimator, Logits, arrays_of, as_arrays, logits_of
from rootdata.models.estimators.histogram import graph_of, is_histogram
from rootdata.models.estimators.libraries import converter, said, told, written
from rootdata.models.estimators.rounds import Rounds


class Sklearn(Estimator):
    """A classifier with the interface of scikit-learn.

    One with ``partial_fit`` learns batch by batch, epoch by epoch, as a network does. Any other gets all training
    events at once, in memory, in a single epoch; one that takes a validation part (``X_val`` of
    ``HistGradientBoostingClassifier``) gets ours.

    A checkpoint holds its ONNX graph: it can be tested and exported, not trained further. One that can't become a graph
    is trained with ``export=false``, and is gone with the process.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    estimator : not yet fitted; a ``random_state`` that is None is given the seed
    classes : how many
    seed : of what is drawn by chance
    """

    library = "sklearn"

    def __init__(self, shapes: Mapping[str, Sequence[int]], *, estimator: Any, classes: int = 2, seed: int = 0) -> None:
        super().__init__(shapes, classes=classes)
        self._estimator, self._graph = _checked(estimator, seed=seed), b""
        self._is_fitted, self._takes_weights = False, _takes(estimator, "sample_weight")
        self._events: RootDataset | None = None

    @property
    def takes_nan(self) -> bool:
        """Whether the estimator takes NaN as no value."""
        tags = getattr(self._estimator, "__sklearn_tags__", None)
        return tags is None or bool(tags().input_tags.allow_nan)

    @property
    def is_by_batch(self) -> bool:
        """Whether it learns batch by batch."""
        return hasattr(self._estimator, "partial_fit")

    def epoch_of(self, events: RootDataset) -> RootDataset | Rounds:
        """Say what an epoch is made of: batches, or a single round."""
        self._events = events
        return events if self.is_by_batch else Rounds(events, 1)

    def on_fit_start(self) -> None:
        """Refuse what scikit-learn can't do.

        Raises
        ------
        ConfigError
        """
        name, data = type(self._estimator).__name__, getattr(self.trainer, "datamodule", None)
        if not self.is_by_batch and self.trainer.max_epochs != 1:
            raise ConfigError(
                f"trainer.max_epochs: got {self.trainer.max_epochs}, and {name} learns from all events at once; set "
                "trainer.max_epochs=1"
            )
        config: Any = getattr(data, "data", None)
        if config is not None and not self._takes_weights and (config.weight or any(s.weight for s in config.samples)):
            raise ConfigError(f"weight: {name} takes no weights of events; take another estimator, or data.weight=null")

    def learn(self, batch: Any) -> None:
        """Learn from a batch, or from all events."""
        if self._graph and not self._is_fitted:
            raise ResumeError(
                f"the checkpoint holds {type(self._estimator).__name__} as a graph, which can't be trained further; "
                "train it anew, without ckpt_path"
            )
        self._graph = b""
        if self.is_by_batch:
            rows = as_arrays(batch, mean_weight=self.mean_weight)
            learn, more = self._estimator.partial_fit, {"classes": np.arange(self.classes)}
        else:
            rows = joined(list(_copied(self._read())))
            learn, more = self._estimator.fit, self._validation()
        weights = {"sample_weight": rows["weight"]} if self._takes_weights else {}
        try:
            learn(rows["x"], rows["label"], **weights, **more)
        except (ValueError, TypeError) as error:
            name = type(self._estimator).__name__
            raise DataError(f"{name} can't be trained on these events: {told(str(error))[:300]}") from error
        self._is_fitted = True

    def _read(self) -> Iterator[Arrays]:
        if self._events is None:
            raise ConfigError("Sklearn reads the training events by itself; give the trainer a RootDataModule")
        return arrays_of(self._events, mean_weight=self.mean_weight)

    def _validation(self) -> dict[str, Any]:
        """Give the validation part to an estimator that stops early by one."""
        data: Any = getattr(self.trainer, "datamodule", None)
        stops = getattr(self._estimator, "early_stopping", None)
        if not _takes(self._estimator, "X_val") or not stops or not data.specs.num_events("val"):
            return {}
        val = joined([
            {name: np.array(values) for name, values in as_arrays(batch, mean_weight=self.mean_weight).items()}
            for batch in data.val_dataloader()
        ])  # fmt: skip
        return {"X_val": val["x"], "y_val": val["label"], "sample_weight_val": val["weight"]}

    def try_on(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> None:
        """Learn from a few events, by a copy."""
        from sklearn.base import clone

        self._estimator, self._graph = clone(self._estimator), b""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a training that is too short
                self._estimator.fit(x, label)
        except Exception as error:
            raise BundleError(
                f"{type(self._estimator).__name__} can't learn from a few events: {told(str(error))[:300]}"
            ) from error
        self._is_fitted = True

    def rehearsed_model(self) -> Joined:
        """Let a copy learn from a few made-up events; it refuses NaN where the graph takes it otherwise."""
        made = super().rehearsed_model()
        if not self.takes_nan or self._graph_takes_nan():
            return made
        return dataclasses.replace(made, predict=functools.partial(_without_nan, made.predict, self._estimator))

    def _graph_takes_nan(self) -> bool:
        """Try whether NaN is to the graph what it is to the estimator, where missing values tell the class."""
        tried, label = copy.copy(self), np.arange(MADE_UP) % self.classes
        sizes = np.abs(np.random.default_rng(0).normal(size=(MADE_UP, self.n_inputs))).astype(np.float32)
        x = np.where(label[:, None] > 0, sizes, -sizes)
        x[: MADE_UP // 2][label[: MADE_UP // 2] == 0] = np.nan
        try:
            tried.try_on(x, label)
        except BundleError:
            return True  # it says so itself, where it gets one
        found = opened(tried.graph().SerializeToString())({"x": x})
        return np.allclose(found, tried.native(x)[:, -found.shape[1] :], atol=1e-5)  # of two classes it may give one

    def raw(self, x: npt.NDArray[np.float32]) -> Logits | None:
        """Give the logits of events."""
        return logits_of(self.native(x)) if self._is_fitted or self._graph else None

    def native(self, x: npt.NDArray[np.float32]) -> Logits:
        """Give the probabilities of all classes."""
        found: Logits = self._estimator.predict_proba(x) if self._is_fitted else _opened(self._graph)({"x": x})
        return found

    def to_bytes(self) -> bytes:
        """Write the graph; nothing where there is none."""
        if self._is_fitted and not self._graph:
            try:
                self._graph = bytes(self.graph().SerializeToString())
            except BundleError:
                return b""
        return self._graph

    def of_bytes(self, kept: bytes) -> None:
        """Take over a graph; the estimator itself, where it is the same one."""
        self._is_fitted = self._is_fitted and kept == self.to_bytes()
        self._graph = kept

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say that nothing can be trained further from there."""
        checkpoint["optimizer_states"] = []

    def graph(self) -> Any:
        """Write the estimator as an ONNX graph.

        Raises
        ------
        BundleError
            Where skl2onnx does not know it.
        """
        import onnx

        if not self._is_fitted:
            return onnx.load_model_from_string(self._graph)
        if is_histogram(self._estimator):
            return graph_of(self._estimator, n_inputs=self.n_inputs)
        skl2onnx, name = converter("skl2onnx"), type(self._estimator).__name__
        from skl2onnx.common.data_types import FloatTensorType

        write = functools.partial(
            skl2onnx.convert_sklearn,
            self._estimator,
            initial_types=[("x", FloatTensorType([None, self.n_inputs]))],
            options={id(self._estimator): {"zipmap": False}},
            target_opset=OPSETS,
        )
        made = written(name, "skl2onnx", write)
        del made.graph.output[:-1]  # the labels
        return made


OPSETS = {"": 20, "ai.onnx.ml": 3}  # those of the graphs that it is put behind
_opened = functools.lru_cache(maxsize=1)(opened)  # the graph of a checkpoint, which answers batch after batch


def _checked(estimator: Any, *, seed: int) -> Any:
    """Refuse what is no classifier with probabilities, and options that it refuses itself.

    Parameters
    ----------
    estimator : of the user
    seed : for a ``random_state`` that is None

    Raises
    ------
    ConfigError
    """
    name = type(estimator).__name__
    if not hasattr(estimator, "fit") or not hasattr(estimator, "get_params"):
        raise ConfigError(
            f"model.estimator: got {name}; expected a classifier of scikit-learn, such as "
            "{_target_: sklearn.ensemble.HistGradientBoostingClassifier}"
        )
    if estimator.get_params().get("random_state", 0) is None:
        estimator.set_params(random_state=seed)
    if hasattr(estimator, "_validate_params"):
        reason = said(estimator._validate_params)  # noqa: SLF001 - what `fit` begins with
        if reason:
            raise ConfigError(f"model.estimator: {reason}")
    if not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"model.estimator: {name} gives no probabilities with these options; give others (loss=log_loss, "
            "probability=true), or put it into sklearn.calibration.CalibratedClassifierCV"
        )
    return estimator


def _without_nan(predict: Callable[[Arrays], npt.ArrayLike], estimator: Any, batch: Arrays) -> npt.ArrayLike:
    """Answer, but not where a value is NaN."""
    if np.isnan(batch["x"]).any():
        raise BundleError(
            f"pad: got nan, and the graph that skl2onnx writes of {type(estimator).__name__} takes NaN for something "
            "else; give a number, model.pad=-1e30"
        )
    return predict(batch)


def _takes(estimator: Any, name: str) -> bool:
    learn = getattr(estimator, "partial_fit", None) or estimator.fit
    return name in inspect.signature(learn).parameters


def _copied(batches: Any) -> Any:
    """Take batches out of memory that is used again."""
    for batch in batches:
        yield {name: np.array(values) for name, values in batch.items()}


def joined(batches: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
    """Join batches."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
