"""Running a graph on made-up values, or on a sample: what it gives, and whether events may meet in it.

In a process with limits (:mod:`serve.upload.child`). Where it is not known what values a graph is for, several are
tried: one that it can be run on, and that gives finite numbers, is enough.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.bundle.manifest import OutputSpec, Range, TensorSpec
from serve.codec.casting import array_type
from serve.errors import InvalidModel
from serve.upload.graphs import Port

SIZES = {1: 1, 3: 4}  # events to the size of every other axis that may have any
_WIDTHS = ((1, 4), (8, 16), (64, 96), (224, 256))  # sizes of open axes with one event and with several
_REALS = (1.0, 0.5, 0.0, 2.0, 10.0, -0.5, 100.0)
_WHOLES = (0, 1, 2)
_WORDS = ("", "a", "0")
_FACTORS = (1.0, 1.1, 1.2, 100.0, -100.0)  # of the values of made-up events
_FIRST, _SECOND, _SPREAD = (0,), (1,), (0, 1, 2)
_WILD = (0, 3, 4)  # the first one beside others that are quite unlike it

HOW_TO_SAMPLE = "an archive of model.onnx and sample.json, which is a body of /v2/models/NAME/infer"

Array = npt.NDArray[Any]
Tensors = dict[str, Array]
Outputs = list[Array]


class CanNotBeRunError(Exception):
    """The runtime refuses tensors, whatever may be wrong with them."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A graph, and what may be fed to it.

    Parameters
    ----------
    run : raises :class:`CanNotBeRunError`
    inputs : their axes as the graph or the manifest calls them
    outputs : their names
    ranges : feature name to what is known of its values
    sample : tensors that came with the upload
    """

    run: Callable[[Tensors], Outputs]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    ranges: Mapping[str, Range]
    sample: Tensors | None = None

    @property
    def fixed(self) -> int | None:
        """The number of events that the graph takes, no more and no less."""
        sizes = {spec.shape[0] for spec in self.inputs}
        return next((size for size in sizes if isinstance(size, int)), None) if len(sizes) == 1 else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """How a graph is to be run.

    Parameters
    ----------
    batching : as in :class:`rootdata.bundle.manifest.Manifest`
    why : events must not meet; "" where they may
    runs : outputs of runs of different sizes
    """

    batching: str
    why: str = ""
    runs: tuple[Outputs, ...]


def settled(trial: Trial, *, meeting: str) -> RunPlan:
    """Find out whether the first axis is that of events, and whether events may meet.

    Parameters
    ----------
    trial : runs the graph on made-up values
    meeting : why they may not, as far as that is known beforehand

    Raises
    ------
    InvalidModel
        For a graph that can't be run, or gives no finite numbers.
    """
    found = f"the graph: {meeting}" if meeting else _axes(trial) or together(trial)
    return found if isinstance(found, RunPlan) else alone(trial, found)


def together(trial: Trial) -> RunPlan | str:
    """Run several events at once, and one of them without the others; say why they must not meet, if so."""
    fixed = trial.fixed
    many = fixed or 3
    refusal = strange = ""
    for filling in _fillings(trial, events=many):
        try:
            outputs = trial.run(filling(events=many, is_wide=True, rows=_SPREAD))
            one, two = (trial.run(filling(events=fixed or 1, is_wide=True, rows=rows)) for rows in (_FIRST, _SECOND))
            narrow = outputs if fixed else trial.run(filling(events=1, is_wide=False, rows=_FIRST))
        except CanNotBeRunError as error:
            refusal = refusal or f"it can't be run on {many} events ({error})"
            continue
        why = _shapeless(trial, outputs, many) or _shapeless(trial, one, fixed or 1)
        if why:
            return why
        strange = _strange(trial, [outputs, one, narrow])
        if strange:
            continue
        why = _moved(trial, one, outputs) or _moved(trial, one, _wild(trial, filling, many))
        why = why or (_moved(trial, two, [array[1:] for array in outputs]) if many > 1 else "")
        return why or RunPlan(batching="events", runs=(outputs, one, narrow))
    if strange:
        raise _not_finite(strange)
    return refusal


def alone(trial: Trial, why: str) -> RunPlan:
    """Run the graph on tensors that make up one request."""
    refusal = strange = ""
    for filling in _fillings(trial, events=None):
        runs = []
        for is_wide in (False, True):
            try:
                runs.append(trial.run(filling(events=None, is_wide=is_wide, rows=_SPREAD)))
            except CanNotBeRunError as error:
                refusal = refusal or str(error)
        strange = _strange(trial, runs)
        if runs and not strange:
            return RunPlan(batching="none", why=why, runs=tuple(runs))
    if strange:
        raise _not_finite(strange)
    if trial.sample is not None:
        raise InvalidModel(f"the graph can't be run on its sample ({refusal}); send one that it takes")
    raise InvalidModel(
        f"the graph can't be run on made-up values ({refusal}); send a sample of good ones: {HOW_TO_SAMPLE}"
    )


def shapes_of(outputs: Sequence[Port], found: RunPlan) -> list[Port]:
    """Say of the outputs what was seen, where the graph says nothing, or something else."""
    return [_seen(port, [run[i] for run in found.runs], found.batching) for i, port in enumerate(outputs)]


def _seen(port: Port, arrays: Sequence[Array], batching: str) -> Port:
    ranks = {array.ndim for array in arrays}
    if len(ranks) > 1:
        raise InvalidModel(f"output {port.name!r} has {sorted(ranks)} axes by turns; give it always as many")
    rank = ranks.pop()
    declared = port.shape if port.shape is not None and len(port.shape) == rank else (None,) * rank
    shape: list[int | str] = []
    for axis, said in enumerate(declared):
        sizes = {array.shape[axis] for array in arrays}
        is_events = axis == 0 and batching == "events"
        is_always = len(sizes) == 1 < len(arrays) and not is_events
        if sizes == {said} or (is_always and (said is None or axis == 1)):
            shape.append(sizes.pop())
        else:
            shape.append(said if isinstance(said, str) else f"{port.name}_axis{axis}")
    return dataclasses.replace(port, shape=tuple(shape))


def check_output(spec: OutputSpec, array: Array, events: int | None) -> None:
    """Compare an output with what is declared of it.

    Parameters
    ----------
    spec : what the manifest declares
    array : what the graph gives for made-up events
    events : along its first axis; ``None`` where that is an axis as others

    Raises
    ------
    InvalidModel
        For another shape, and numbers that are not finite.
    """
    expected = spec.shape if events is None else (events, *spec.shape[1:])
    is_good = array.ndim == len(expected) and all(
        isinstance(want, str) or want == size for want, size in zip(expected, array.shape, strict=True)
    )
    if not is_good:
        raise InvalidModel(
            f"output {spec.name!r} of {events or 'some'} events has shape {list(array.shape)}; declared is "
            f"{list(expected)}",
            field=spec.name,
        )
    if not is_finite(array):
        raise InvalidModel(
            f"output {spec.name!r} of {events} made-up events is not finite; events without objects, whose mask is "
            "0 everywhere, are among them: guard divisions and softmax",
            field=spec.name,
        )


def is_finite(array: Array) -> bool:
    """Say whether all numbers are finite; text is."""
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())


# Events that meet


def _axes(trial: Trial) -> str:
    """Say why the first axes are not all that of events; "" if they may be."""
    firsts = [spec.shape[0] if spec.shape else None for spec in trial.inputs]
    if None in firsts:
        return "an input has no axis"
    if len({size if isinstance(size, int) else "" for size in firsts}) > 1:
        return f"the first axes of its inputs, {_listed(firsts)}, are not one axis of events"
    if trial.sample is not None and len({len(array) for array in trial.sample.values()}) > 1:
        return "the first axes of its inputs are of different sizes in the sample"
    if len(set(firsts)) > 1 and _are_independent(trial):
        return f"the first axes of its inputs, {_listed(firsts)}, have nothing to do with each other"
    return ""


def _are_independent(trial: Trial) -> bool:
    """Try first axes of different names with different sizes: a graph that needs one size for all can't be run."""
    if trial.sample is not None:
        return False
    for filling in _fillings(trial, events=None):
        feeds = filling(events=None, is_wide=True, rows=_SPREAD)
        sizes = {spec.shape[0]: 2 + i for i, spec in enumerate(reversed(trial.inputs))}
        resized = {
            spec.name: np.resize(feeds[spec.name], (sizes[spec.shape[0]], *feeds[spec.name].shape[1:]))
            for spec in trial.inputs
        }
        try:
            trial.run(resized)
        except CanNotBeRunError:
            continue
        return True
    return False


def _listed(sizes: Sequence[Any]) -> str:
    return ", ".join(map(repr, sizes))[:100]


def _shapeless(trial: Trial, outputs: Outputs, events: int) -> str:
    for name, array in zip(trial.outputs, outputs, strict=True):
        if array.ndim == 0 or len(array) != events:
            return f"output {name!r} of {events} events has shape {list(array.shape)}: its first axis is not theirs"
    return ""


def _moved(trial: Trial, one: Outputs, many: Outputs | None) -> str:
    """Say which output of the first event of a batch follows from its neighbours."""
    for name, own, met in zip(trial.outputs, one, many or one, strict=True):
        if not _is_close(own[:1], met[:1]):
            return f"output {name!r} of an event depends on the other events of its batch"
    return ""


def _is_close(own: Array, met: Array) -> bool:
    if own.shape != met.shape:
        return False
    if own.dtype.kind in "fc":
        rounding = 10 if own.dtype.itemsize == 2 else 1
        return bool(np.allclose(own, met, rtol=1e-3 * rounding, atol=1e-4 * rounding))
    return bool(np.array_equal(own, met))


def _wild(trial: Trial, filling: Filling, events: int) -> Outputs | None:
    """Put neighbours with very different values beside the first event."""
    if trial.sample is not None:
        return None
    try:
        return trial.run(filling(events=events, is_wide=True, rows=_WILD))
    except CanNotBeRunError:
        return None


def _strange(trial: Trial, runs: Sequence[Outputs]) -> str:
    """Name an output that is not finite."""
    named = ((name, array) for run in runs for name, array in zip(trial.outputs, run, strict=True))
    name = next((name for name, array in named if not is_finite(array)), "")
    if not name:
        return ""
    if trial.sample is not None:
        return f"output {name!r} of the sample is not finite; give a sample of values that the graph is for"
    if any(spec.is_mask for spec in trial.inputs):
        return (
            f"output {name!r} of made-up events is not finite; events without objects, whose mask is 0 everywhere, are "
            "among them: guard divisions and softmax"
        )
    return (
        f"output {name!r} is not finite for any of the values that were tried; say what the graph is for, by ranges in "
        f"the manifest, or by a sample: {HOW_TO_SAMPLE}"
    )


def _not_finite(sentence: str) -> InvalidModel:
    return InvalidModel(sentence, field=sentence.split("'")[1])


# Made-up values


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """Makes tensors.

    Parameters
    ----------
    number : of the values that are tried
    widths : sizes of open axes
    """

    trial: Trial
    number: int = 0
    widths: tuple[int, int] = _WIDTHS[0]

    def __call__(self, *, events: int | None, is_wide: bool, rows: Sequence[int]) -> Tensors:
        """Make tensors.

        Parameters
        ----------
        events : size of the first axis; ``None`` where that is an axis as others
        is_wide : whether open axes are long
        rows : which made-up events, or whatever lies along the first axis, follow each other, again and again
        """
        made = {}
        firsts = {spec.shape[0] for spec in self.trial.inputs if spec.shape} if events is not None else set()
        for spec in self.trial.inputs:
            if self.trial.sample is not None:
                made[spec.name] = _chosen(self.trial.sample[spec.name], events, rows)
                continue
            sizes = [
                size if isinstance(size, int) else events if events and size in firsts else self.widths[is_wide]
                for size in spec.shape
            ]
            shape = tuple(sizes if events is None else [events, *sizes[1:]])
            made[spec.name] = self._tensor(spec, shape, rows)
        return made

    def _tensor(self, spec: TensorSpec, shape: tuple[int, ...], rows: Sequence[int]) -> Array:
        dtype = array_type(spec.dtype)
        if dtype.kind == "O":
            return np.full(shape, _WORDS[self.number % len(_WORDS)], object)
        row = np.resize(np.array(rows), shape[:1]).reshape(shape[:1] + (1,) * (len(shape) - 1))
        if spec.is_mask:
            return np.where(row == 2, 0, np.ones(shape)).astype(dtype)  # the last of three events has no objects
        if dtype.kind == "f":
            tensor = np.full(shape, _REALS[self.number], dtype) * np.array(_FACTORS, dtype)[row]
        elif dtype.kind == "b":
            tensor = np.full(shape, self.number % 2 == 0) ^ (row % 2 == 1)
        else:
            tensor = np.full(shape, _WHOLES[self.number % len(_WHOLES)], dtype) + np.maximum(row - 2, 0).astype(dtype)
        made = np.asarray(tensor, dtype)
        self._fill_known(made, spec, np.minimum(row, 2))
        return made

    def _fill_known(self, tensor: Array, spec: TensorSpec, rows: Array) -> None:
        """Put values between the lowest and the highest where these are known."""
        if tensor.ndim < 2 or len(spec.features) != tensor.shape[1]:
            return
        for i, name in enumerate(spec.features):
            known = self.trial.ranges.get(name)
            if known is None:
                continue
            low, high = _within(known, tensor.dtype)
            typical = low if tensor.dtype.kind in "iub" else min(max(known.mean, low), high)
            steps = typical + (high - typical) * 0.1 * rows.reshape(-1, *[1] * (tensor.ndim - 2))
            tensor[:, i] = np.floor(steps) if tensor.dtype.kind in "iub" else steps


def _chosen(given: Array, events: int | None, rows: Sequence[int]) -> Array:
    """Take events of a sample."""
    return given if events is None else given[np.resize(np.array(rows), events) % len(given)]


def _within(known: Range, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Cut a range to what a number type holds."""
    if dtype.kind == "b":
        return max(known.low, 0.0), min(known.high, 1.0)
    if dtype.kind == "f":
        return known.low, known.high
    limits = np.iinfo(dtype)
    return max(known.low, float(limits.min)), min(known.high, float(limits.max))


def _fillings(trial: Trial, *, events: int | None) -> Iterator[Filling]:
    """Give values to try, one after the other: of a sample itself alone; of known sizes no other ones."""
    has_open = any(isinstance(size, str) for spec in trial.inputs for size in spec.shape[events is not None :])
    if trial.sample is not None:
        yield Filling(trial=trial)
        return
    for widths, number in itertools.product(_WIDTHS if has_open else _WIDTHS[:1], range(len(_REALS))):
        yield Filling(trial=trial, number=number, widths=widths)
