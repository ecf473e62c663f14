"""The manifest of a bundle: everything that is needed to use an exported model, without torch and without onnx.

A bundle is a folder with ``model.onnx`` and ``manifest.json``. The graph takes raw physics values, one tensor for every
collection and number type, with the features of an event one after the other, (events, features, objects), as CMSSW's
producers fill them; a float32 mask (events, objects) is 1 where an object is real. NaN, infinities and, in features
that are branches, sentinels mean "no value" and are padded inside the graph, after scaling. Integers that are branches
travel as int64; integers and booleans that are computed as float64, NaN where they are missing; in a bundle that was
exported with ``float32=True`` all travel as float32.

A manifest has a schema. Schema 2 added ``selection``, ``computed``, ``scaling`` and ``rules``. Older manifests are
read: what they do not have is ``None``, which means that it is not known. Newer ones are refused. Outputs that hold
something else than scores say so by their ``kind``; a version of before there were kinds refuses these alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rootdata import cache_folder
from rootdata.causes import reason_of, told
from rootdata.errors import BundleError, RootDataError, version_remedy
from rootdata.expressions.grammar import parse
from rootdata.options import annotated
from rootdata.options.data import DataConfig, parse_data

SCHEMA = 2
READABLE = (1, SCHEMA)  # schemas that this version reads
MANIFEST = "manifest.json"
MODEL = "model.onnx"
PREPROCESS = "preprocess.json"  # for CMSSW
OPTIONAL_FILES = (PREPROCESS,)
BUNDLE_FILES = (MODEL, MANIFEST, *OPTIONAL_FILES)  # which an export writes, a server keeps and a client sends
EVENTS = "events"  # name of the batch axis
BRANCH_DTYPES = ("bool", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")
DTYPES = (*BRANCH_DTYPES, "float16", "string")  # of tensors; masks are float32
SCORES, REGRESSION = "scores", "regression"  # kinds of outputs, and the names that an export gives them
BATCHING = ("events", "none")
MAX_RANK = 32
KINDS = ("flat", "fixed", "jagged")
EXPRESSION, AVERAGE = "expression", "average"  # how a graph of several folds chooses
DEPTH = 50  # of lists and objects in a manifest
_REMEDY = "export the model again"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BranchSpec:
    """A branch that a client sends.

    Parameters
    ----------
    dtype : numpy name of the number type in the training files, ``float32``, ``int32``, ``bool``, ...
    kind : ``flat`` (one number an event), ``fixed`` (``width`` numbers an event) or ``jagged``
    counts : of a jagged branch, the group whose branches all have the same number of objects in an event
    unit : as far as it is known
    """

    name: str
    dtype: str
    kind: str = "flat"
    width: int = 1
    counts: str | None = None
    unit: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """An input of the graph.

    Parameters
    ----------
    dtype : numpy name of its number type, or ``string``; an export uses ``float32``, ``float64`` and ``int64``
    shape : sizes, or names of axes of any size: ``("events", 13)``, ``("events", 6, "jets")``, ``("events", "jets")``
    features : what lies along the second axis; empty for a mask
    collection : its collection; ``None`` for flat features
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    features: tuple[str, ...] = ()
    collection: str | None = None

    @property
    def is_mask(self) -> bool:
        """Whether it says which objects are real."""
        return self.collection is not None and not self.features


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """An output of the graph.

    Parameters
    ----------
    shape : as in :class:`TensorSpec`
    columns : names of what lies along the second axis: ``("signal",)`` for two classes, every class for more; the
        targets of a regression
    kind : ``scores``, or ``regression``: physical values
    units : of the columns of a regression, empty where one is not known
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    columns: tuple[str, ...]
    kind: str = SCORES
    units: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without what stands at its default."""
        plain = dataclasses.asdict(self)
        return {name: value for name, value in plain.items() if name not in {"kind", "units"} or self.kind != SCORES}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What training events looked like in one feature.

    Parameters
    ----------
    low, high : smallest and largest value that is not missing
    missing : share of the values that are
    """

    low: float
    high: float
    mean: float
    std: float
    missing: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How well the graph agrees with the network it was made from, and a sample to check it by.

    Parameters
    ----------
    num_events : real events that were compared
    max_difference : the largest one between any two scores; of regressions in units of the spread in training, or of
        the value itself where that is larger
    columns : branch name to the values of the sample's events, lists for jagged branches, ``None`` for NaN
    scores : what the network says of them, (events, columns), those of regressions behind those of classes
    """

    num_events: int
    max_difference: float
    columns: Mapping[str, Any]
    scores: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SampleSelection:
    """What was asked of the events of one sample.

    Parameters
    ----------
    cut, label, weight : as in :class:`rootdata.options.samples.Sample`
    """

    cut: str | None = None
    label: int | None = None
    weight: str | float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which events the network was trained on.

    Parameters
    ----------
    cut : what holds for all samples; ``None`` where there is none
    samples : sample name to what holds for its events beside that
    label, weight, split : as in :class:`rootdata.options.data.DataConfig`
    branches : that the cuts on events need and the features do not; a client may send them, to be told what is cut
    trees : names of the trees of its files, one of which is read of a file that holds several
    """

    cut: str | None = None
    samples: Mapping[str, SampleSelection] = dataclasses.field(default_factory=dict)
    label: str | None = None
    weight: str | float | None = None
    split: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    branches: tuple[BranchSpec, ...] = ()
    trees: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A part of an expression, as it is computed.

    Parameters
    ----------
    dtype : numpy name of its number type
    kind : ``flat`` (one number an event) or ``jagged``
    """

    text: str
    dtype: str
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """An expression that features are made with.

    Parameters
    ----------
    use : ``derived``, or ``cut`` or ``sort`` of a collection
    name : of the derived column, or of the collection
    steps : its parts in the order in which they are computed; the last one is the result
    """

    use: str
    name: str
    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """How the graph scales a feature: ``(f(x) - shift) * factor``, where f is the identity or ``sign(x) log(1 + |x|)``.

    Parameters
    ----------
    log : whether f is the logarithm
    dtype : in which that is computed; the result is float32
    curve : name of an f that is learnt, or of the class of one of somebody's own, which is in the graph alone
    clip : size at which what is scaled is cut off
    """

    shift: float
    factor: float
    log: bool
    dtype: str
    curve: str = ""
    clip: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FoldRule:
    """Which of the networks in a graph scores an event.

    Parameters
    ----------
    count : of the networks, each of which was trained without the events of one fold
    by : expression with one whole number an event, of which the remainder by ``count`` is the fold; ``None`` where a
        hash of file and entry dealt the events, which no graph can know
    rule : ``expression``: the network that did not see the events of that fold, the mean of all where the fold is
        missing; ``average``: the mean of all for every event
    feature : the input that holds the number of the fold, NaN where it is missing; empty where there is none
    scaling : of each network, as :attr:`Manifest.scaling`
    """

    count: int
    by: str | None = None
    rule: str = AVERAGE
    feature: str = ""
    scaling: tuple[Mapping[str, Scaled], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is known of an exported model.

    Parameters
    ----------
    sha256, size : of the file of the graph; bytes
    branches : what a client sends; empty for a graph of which only the tensors are known
    inputs, outputs : of the graph, in its order
    features : the options of :class:`rootdata.options.data.DataConfig` that turn branches into features
    selection : which events the network was trained on
    computed : expressions, each after those that it needs
    scaling : feature name to what the graph does to it; inside the graph, so that nobody else need; ``None`` where the
        networks of folds have each their own
    folds : which of several networks scores an event; ``None`` where there is one
    rules : in words, what the options of ``features`` mean: what is missing, how objects are cut, sorted and padded
    ranges : feature name to what training events looked like
    metrics : of the test events
    roc : of each class that can be signal, ``signal_efficiency`` and ``background_efficiency``, of one length
    scores : of each class that can be signal, the sum of weights of each sample in equal bins of the score, from 0 to 1
    training : the configuration that it was trained with
    software : name to version
    batching : ``events`` where the first axis of all inputs and outputs is that of events and no event has to do with
        another; ``none`` for any other graph, which is run on the tensors of one request, or on one event, at a time
    created : UTC, ISO 8601
    """

    sha256: str
    size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]
    branches: tuple[BranchSpec, ...] = ()
    features: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    selection: Selection | None = None
    computed: tuple[Computed, ...] | None = None
    scaling: Mapping[str, Scaled] | None = None
    rules: Mapping[str, str] | None = None
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    roc: Mapping[str, Mapping[str, tuple[float, ...]]] = dataclasses.field(default_factory=dict)
    scores: Mapping[str, Mapping[str, tuple[float, ...]]] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    software: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parity: Parity | None = None
    tags: tuple[str, ...] = ()
    author: str = ""
    description: str = ""
    created: str = ""
    batching: str = "events"
    folds: FoldRule | None = None
    schema: int = SCHEMA

    @property
    def takes_events(self) -> bool:
        """Whether it is known how branches become inputs; otherwise only tensors can be sent."""
        return bool(self.branches)

    @property
    def fixed_batch(self) -> int | None:
        """The number of events that the graph takes, no more and no less; ``None`` where it takes any."""
        size = self.inputs[0].shape[0] if self.inputs[0].shape else None
        return size if isinstance(size, int) else None

    @property
    def answered(self) -> tuple[int, ...]:
        """Which outputs make an answer about events: the first one, and regressions."""
        return tuple(i for i, output in enumerate(self.outputs) if i == 0 or output.kind == REGRESSION)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of an answer: scores, then what regressions predict."""
        return tuple(column for i in self.answered for column in self.outputs[i].columns)

    @property
    def regressions(self) -> tuple[str, ...]:
        """Names of those columns that are physical values."""
        return tuple(column for output in self.outputs if output.kind == REGRESSION for column in output.columns)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts on events: that of all samples, and those of each."""
        if self.selection is None:
            return ()
        own = (sample.cut for sample in self.selection.samples.values())
        return tuple(dict.fromkeys(cut for cut in (self.selection.cut, *own) if cut is not None))

    def config(self) -> DataConfig:
        """Return the options that turn branches into features.

        Raises
        ------
        BundleError
            Where they do not parse.
        """
        try:
            return parse_data({**self.features, "samples": {"events": {"files": "events"}}})
        except RootDataError as error:
            raise BundleError(f"manifest: features: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = dataclasses.asdict(self) | {"outputs": [output.to_dict() for output in self.outputs]}
        return {name: value for name, value in plain.items() if name != "folds" or value is not None}

    @classmethod
    def from_dict(cls, plain: Any) -> Self:
        """Parse what :meth:`to_dict` gave.

        Raises
        ------
        BundleError
            Naming the field that is absent, unknown or of a wrong type, or another schema.
        """
        if _is_deep(plain):
            raise BundleError(f"manifest: lists and objects are nested deeper than {DEPTH} levels")
        got = plain.get("schema") if isinstance(plain, Mapping) else type(plain).__name__
        if got not in READABLE:
            remedy = version_remedy(got, SCHEMA, anew=_REMEDY)
            raise BundleError(f"manifest: schema is {got!r:.80}; this version reads {_listed(READABLE)}; {remedy}")
        manifest: Self = annotated.parse(cls, plain, where="manifest", error=BundleError, remedy=_REMEDY)
        manifest._check()
        return manifest

    def _check_inputs(self) -> None:
        if self.batching not in BATCHING:
            raise BundleError(f"manifest: batching is {self.batching!r:.80}; allowed: {', '.join(BATCHING)}")
        has_events = self.batching == "events" or self.takes_events
        for tensor in self.inputs:
            if tensor.dtype not in DTYPES or len(tensor.shape) > MAX_RANK or (has_events and not tensor.shape):
                raise BundleError(
                    f"manifest: input {tensor.name!r} is {tensor.dtype} {list(tensor.shape)}; allowed: "
                    f"{', '.join(DTYPES)}, with 1 to {MAX_RANK} axes, or none where batching is 'none'"
                )
        firsts = [tensor.shape[0] for tensor in self.inputs] if has_events else []
        if len({size if isinstance(size, int) else None for size in firsts}) > 1:
            raise BundleError(
                f"manifest: the first axes of inputs are {firsts[:9]}; where the first axis is that of events it is "
                "the same for all; otherwise batching is 'none'"
            )

    def _check(self) -> None:
        self._check_inputs()
        cut_only = self.selection.branches if self.selection is not None else ()
        for branch in (*self.branches, *cut_only):
            if branch.kind not in KINDS or branch.dtype not in BRANCH_DTYPES or not 1 <= branch.width <= 10_000:
                raise BundleError(
                    f"manifest: branch {branch.name!r} is {branch.kind!r} {branch.dtype!r}, width {branch.width}"
                )
        for what, names in (
            ("branches", [b.name for b in (*self.branches, *cut_only)]),
            ("inputs", [t.name for t in self.inputs]),
            ("outputs", [o.name for o in self.outputs]),
        ):
            if len(set(names)) < len(names) or (not names and what != "branches"):
                raise BundleError(f"manifest: {what}: got {names}; needs different names, at least one")
        for output in self.outputs:
            if output.kind not in {SCORES, REGRESSION} or len(output.units) not in {0, len(output.columns)}:
                raise BundleError(
                    f"manifest: output {output.name!r} is of kind {output.kind!r:.80} with {len(output.units)} units; "
                    f"allowed: {SCORES}, {REGRESSION}; none, or a unit for each column"
                )
        if self.regressions and len(set(self.columns)) < len(self.columns):
            raise BundleError(f"manifest: columns of outputs: got {list(self.columns)[:9]}; needs different names")
        if self.branches:
            for text in self.cuts:
                _parse_cut(text)
            config = self.config()
            for collection in config.jagged:
                if collection.length == "auto" and not config.keeps_all(collection):
                    raise BundleError(f"manifest: features.jagged.{collection.name}: its length must be a number")


def save_manifest(manifest: Manifest, folder: str | Path) -> None:
    """Write ``manifest.json``, atomically.

    Raises
    ------
    BundleError
        For something in it that JSON has no word for.
    """
    try:
        text = json.dumps(manifest.to_dict(), indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest can't be written as JSON ({error}); plain numbers and words are") from error
    cache_folder.write_atomic(Path(folder) / MANIFEST, text)


def open_bundle(folder: str | Path) -> Manifest:
    """Read the manifest of a bundle and check that the graph is the one it was written for.

    Raises
    ------
    BundleError
        For a folder that is no bundle, a manifest that does not parse, or another graph.
    """
    manifest = load_manifest(folder)
    graph = Path(folder) / MODEL
    try:
        found = sha256_of(graph)
    except OSError as error:
        raise BundleError(told(f"{graph}: the graph can't be read", error)) from error
    if found != manifest.sha256:
        raise BundleError(f"{graph} is not the graph that {MANIFEST} describes (its checksum differs); export it again")
    return manifest


def load_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of a bundle alone."""
    path = Path(folder) / MANIFEST
    try:
        return Manifest.from_dict(json.loads(path.read_bytes(), parse_constant=_refuse))
    except (OSError, ValueError, RecursionError) as error:
        sentence = str(error) if isinstance(error, BundleError) else f"it can't be read ({reason_of(error)})"
        raise BundleError(f"{path}: {sentence}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_deep(plain: Any) -> bool:
    """Say whether plain data are nested so deep that recursion over them might fail; without recursion."""
    level = [plain]
    for _ in range(DEPTH):
        level = [
            v
            for x in level
            for v in (x.values() if isinstance(x, Mapping) else x if isinstance(x, (list, tuple)) else ())
        ]
    return bool(level)


def _parse_cut(text: str) -> None:
    try:
        parse(text, where="manifest: selection")
    except RootDataError as error:
        raise BundleError(str(error)) from error


def _listed(schemas: tuple[int, ...]) -> str:
    return "schemas " + " and ".join(map(str, schemas))
