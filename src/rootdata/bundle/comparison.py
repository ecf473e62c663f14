"""The scores of a graph beside those of what it was made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from rootdata.bundle import parity
from rootdata.bundle.assemble import Assembler, lists_of, table_of
from rootdata.bundle.graph.conversion import Scores, opened, run
from rootdata.bundle.manifest import Manifest, Parity
from rootdata.errors import BundleError
from rootdata.jagged import Ints
from rootdata.table import Table, take

TOLERANCE = 1e-5  # between scores; more is a fault, not rounding
SAMPLE = 8  # real events that travel with the manifest


def with_folds(
    found: Parity, graph: bytes, draft: Manifest, compared: Table, each: Sequence[Scores], spreads: Sequence[float]
) -> Parity:
    """Compare the graph with the model of each fold on all events, as if they were of this fold.

    The compared events alone would not do: those at the edges are mostly of one fold.

    Parameters
    ----------
    found : of the comparison of each event by its own fold
    graph : of all folds
    draft : says how a model is chosen
    compared : the events
    each : what every model says of them
    spreads : of the targets
    """
    feature = draft.folds.feature if draft.folds is not None else ""
    if not feature:
        return found
    tensors = {name: np.concatenate([values] * len(each)) for name, values in Assembler(draft)(compared).items()}
    numbers = np.repeat(np.arange(len(each)), compared.num_events).reshape(-1, 1)
    tensors[feature] = numbers.astype(tensors[feature].dtype)
    apart = _compare(np.concatenate(each), run(graph, tensors), spreads)
    return dataclasses.replace(found, max_difference=max(found.max_difference, apart))


def parity_of(
    graph: bytes, draft: Manifest, compared: Table, expected: Scores, *, num_real: int, spreads: Sequence[float] = ()
) -> Parity:
    """Compare the graph with torch: on all events at once, and one by one on the sample that the manifest holds.

    Parameters
    ----------
    graph : of the bundle
    draft : what is known of it
    compared : real events, and behind them those at the edges
    expected : their scores by torch
    num_real : how many are real
    spreads : of the targets, by which differences are divided
    """
    rows = _sample(num_real, compared.num_events - num_real)
    # in JSON an infinity becomes NaN, and a derived column may tell them apart
    rows = rows[~parity.has_infinity(take(compared, rows))]
    columns = lists_of(take(compared, rows))
    difference = max(
        _compare(expected, run(graph, Assembler(draft)(compared)), spreads),
        _compare(expected[rows], _one_by_one(graph, draft, table_of(draft, columns)), spreads),
    )
    scores = tuple(map(tuple, expected[rows].tolist()))
    return Parity(num_events=num_real, max_difference=difference, columns=columns, scores=scores)


def _one_by_one(graph: bytes, draft: Manifest, table: Table) -> Scores:
    """Run a graph on every event alone, with no more places for objects than it needs."""
    assemble, answer = Assembler(draft), opened(graph)
    events = (take(table, np.array([i])) for i in range(table.num_events))
    return np.concatenate([answer(assemble(event)) for event in events])


def _compare(expected: Scores, found: Scores, spreads: Sequence[float] = ()) -> float:
    """Return the largest difference.

    Parameters
    ----------
    expected, found : (events, columns)
    spreads : of the targets in the last columns, which are compared in units of it, or of their value

    Raises
    ------
    BundleError
        If it is more than rounding.
    """
    unit = np.ones(expected.shape)
    if spreads:
        unit[:, -len(spreads) :] = np.maximum(np.abs(expected[:, -len(spreads) :]), spreads)
    sizes = np.abs(expected / unit).max(axis=1)
    differences = (np.abs(expected - found) / unit).max(axis=1)
    excess = differences / np.maximum(1.0, sizes)
    if not float(excess.max()) <= TOLERANCE:
        event = int(np.argmax(np.nan_to_num(excess, nan=np.inf)))
        raise BundleError(
            f"the graph gives {found[event].tolist()} where the network gives {expected[event].tolist()} (event "
            f"{event} of {len(expected)} that were compared); does the network depend on the batch, or on chance?"
        )
    return float(differences.max())


def _sample(num_real: int, num_edges: int) -> Ints:
    """Pick some real events, spread over all of them, and one of each kind of edge, which come behind them."""
    rows = np.unique(np.linspace(0, num_real - 1, SAMPLE).astype(np.int64))
    return np.concatenate([rows, np.arange(num_real, num_real + num_edges, parity.bent_events(num_real))])


def plain_lists(lists: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Return lists of plain numbers, for JSON."""
    return {name: tuple(float(v) for v in values) for name, values in lists.items()}
