"""How well numbers were predicted: response, bias and resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rootdata.analysis.report.canvas import MUTED, Canvas, Numbers, add_legend, colours, fill
from rootdata.training import responses
from rootdata.training.responses import Predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def response(events: Predicted) -> Numbers:
    """Return of each target its figures, the response, and the figures in slices of the true value."""
    found = responses.to_dict(events)["targets"]
    edges = np.linspace(*responses.SHOWN, responses.BINS + 1).tolist()
    for column, name in enumerate(events.names):
        values, weight = responses.response_of(events, column)
        found[name]["response"] = fill(values, weight, edges=edges)
    return dict(found)


def draw_response(found: Numbers, canvas: Canvas) -> Figure:
    """Draw for each target the distribution of the response, and bias and resolution over the true value."""
    import mplhep

    figure, panels = canvas.figure(2 * len(found), columns=2)
    blue, orange = colours([False, False])
    for number, (name, one) in enumerate(found.items()):
        left, right = panels[2 * number : 2 * number + 2]
        shown = one["response"]
        values, errors = np.array(shown["values"]), np.sqrt(shown["variances"])
        outside = shown["below"][0] + shown["above"][0]
        share = outside / (values.sum() + outside or 1.0)
        mplhep.histplot(values, shown["edges"], ax=left, yerr=errors, color=blue, label=f"{share:.1%} lie outside")
        left.axvline(1, color=MUTED, ls="--", lw=1.2)
        left.set(xlim=responses.SHOWN, ylim=(0, None))
        left.set_xlabel(f"{name}: predicted / true")
        left.set_ylabel(canvas.events)
        add_legend(left, loc="upper right")
        slices = [piece for piece in one["slices"] if piece["bias"] is not None]
        middle = [(piece["low"] + piece["high"]) / 2 for piece in slices]
        for key, colour in (("bias", orange), ("resolution", blue)):
            right.plot(middle, [piece[key] for piece in slices], color=colour, marker="o", ms=4, label=key)
        right.axhline(0, color=MUTED, ls="--", lw=1.2)
        right.set_xlabel(f"True {name}")
        right.set_ylabel("Predicted - true")
        add_legend(right, loc="best")
    return canvas.finish(figure, panels[0])
