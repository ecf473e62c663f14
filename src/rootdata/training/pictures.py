"""Figures as is usual in the field: ticks all around, colours that readers of any colour vision tell apart.

Needs matplotlib (extra ``plot``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootdata.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by readers of any colour vision: M. A. Petroff, arXiv:2107.02270; the reds are kept for signal.
SIGNAL_COLOURS = ("#bd1f01", "#e76300")
COLOURS = ("#3f90da", "#ffa90e", "#832db6", "#94a4a2", "#a96b59", "#b9ac70", "#717581", "#92dadd")


def in_legend(name: str) -> str:
    """Return a name as a label that matplotlib shows in a legend: it leaves out those that begin with an underscore.

    Examples
    --------
    >>> in_legend("ttH"), in_legend("_ttH")
    ('ttH', ' _ttH')
    """
    return f" {name}" if name.startswith("_") else name


def new_figure(n_panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels beside each other, ticks all around, as is usual in the field."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import AutoMinorLocator
    except ImportError as error:
        raise ConfigError(
            "plots: got true; they need matplotlib, which is not installed; "
            "run pip install 'rootdata[plot]', or set callbacks.score_report.plots=false"
        ) from error
    figure = Figure(figsize=(6.4 * n_panels, 5.2), layout="constrained")
    panels = list(figure.subplots(1, n_panels, squeeze=False)[0])
    for axes in panels:
        axes.xaxis.set_minor_locator(AutoMinorLocator())
        axes.tick_params(which="both", direction="in", top=True, right=True, labelsize=11)
        axes.tick_params(which="major", length=7)
        axes.tick_params(which="minor", length=4)
    return figure, panels
