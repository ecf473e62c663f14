"""Histograms, and figures in the style that an experiment asks for; as files, and for a page that is light or dark.

Needs matplotlib, hist and mplhep (extra ``plot``).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata import disk
from rootdata.analysis.report.config import ReportConfig
from rootdata.errors import ConfigError
from rootdata.training.pictures import COLOURS, SIGNAL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Numbers = dict[str, Any]

NEEDED = ("matplotlib", "hist", "mplhep")
FORMATS = ("png", "pdf")
PANELS = 3  # beside each other
INCH = 72.0  # points
ROOM = 0.85  # of the width of a figure's column, which its panel has
LETTER = 0.55  # width of one, in its size
NAMES = 0.2  # of the usual width of a figure, which names beside a panel have
LHCB = 28.0  # points, of titles in its style
HANDLE = "-----"  # as wide as what stands before a text in a legend
MUTED = "#808080"  # seen on light and on dark
INK = "#000000"
_LONG = re.compile(r"(\.\d{2})\d+")  # coordinates to a hundredth of a point are enough


def check_installed() -> None:
    """Refuse to draw without the libraries for it.

    Raises
    ------
    ConfigError
    """
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"the report needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed; "
            "run pip install 'rootdata[plot]', or set callbacks.score_report.plots=false"
        )


# Histograms


def fill(values: Any, weight: Any, *, edges: Sequence[float]) -> Numbers:
    """Fill a histogram with weights, under- and overflow included.

    Parameters
    ----------
    values, weight : (n,)
    edges : of the bins, rising; the last bin holds its upper edge, too

    Returns
    -------
    ``edges``, ``values`` and ``variances`` of the bins, and the same of what lies ``below`` and ``above``
    """
    import hist

    values, bounds = np.asarray(values, np.float64), np.asarray(edges, np.float64)
    axis = hist.axis.Variable(bounds)
    filled = hist.Hist(axis, storage=hist.storage.Weight())
    inside = np.where(values == bounds[-1], np.nextafter(bounds[-1], -np.inf), values)
    filled.fill(inside, weight=np.asarray(weight, np.float64))
    view = filled.view(flow=True)
    sums, squares = np.asarray(view["value"]), np.asarray(view["variance"])
    return {
        "edges": bounds.tolist(), "values": sums[1:-1].tolist(), "variances": squares[1:-1].tolist(),
        "below": [float(sums[0]), float(squares[0])], "above": [float(sums[-1]), float(squares[-1])],
    }  # fmt: skip


def total_of(histogram: Numbers) -> float:
    """Return the sum of all weights, those outside included."""
    return float(sum(histogram["values"]) + histogram["below"][0] + histogram["above"][0])


def normalised(histogram: Numbers) -> tuple[Floats, Floats]:
    """Return shares of the whole in each bin, and their errors."""
    total = total_of(histogram) or 1.0
    return np.array(histogram["values"]) / total, np.sqrt(np.array(histogram["variances"])) / abs(total)


# Figures


def colours(is_signal: Sequence[bool]) -> list[str]:
    """Choose a colour for each of several curves: a red for signal."""
    signal, other = 0, 0
    found = []
    for one in is_signal:
        table, number = (SIGNAL_COLOURS, signal) if one else (COLOURS, other)
        found.append(table[number % len(table)])
        signal, other = signal + one, other + (not one)
    return found


def fitting_size(texts: Sequence[str], axes: Axes, *, size: str, columns: int = 1) -> float:
    """Return the size of letters in points, ``size`` or as much less as it takes for texts to be no wider than a panel.

    Parameters
    ----------
    texts : one above another, or in several columns
    axes : the panel, of a figure that was made here
    size : by matplotlib's words
    columns : beside each other
    """
    from matplotlib.font_manager import FontProperties

    grid, figure = axes.get_gridspec(), axes.get_figure(root=True)
    if grid is None or figure is None:
        raise ConfigError("a panel of a figure's grid is needed")
    room = INCH * ROOM * float(figure.get_size_inches()[0]) / grid.ncols / columns
    longest = max(map(len, texts), default=0) * LETTER
    return min(float(FontProperties(size=size).get_size_in_points()), room / max(longest, 1.0))


def add_legend(axes: Axes, *, loc: str, columns: int = 1) -> None:
    """Put a legend into a panel, in letters that let it fit, and leave the panel its size.

    Parameters
    ----------
    axes : the panel
    loc : where, by matplotlib's words
    columns : of the legend
    """
    texts = [f"{HANDLE}{text}" for text in axes.get_legend_handles_labels()[1]]
    size = fitting_size(texts, axes, size="small", columns=columns)
    axes.legend(loc=loc, ncols=columns, fontsize=size).set_in_layout(False)


class Canvas:
    """Makes figures of one style, and files of them.

    Parameters
    ----------
    config : says which style, and what the label says
    weighted : whether the events have weights other than 1, which every figure tells
    words : in which it does so, where a figure shows several tests
    """

    def __init__(self, config: ReportConfig, *, weighted: bool, words: str = "") -> None:
        self.config = config
        self.weighted = weighted
        self.words = words or ("weighted events" if weighted else "unweighted events")

    @property
    def events(self) -> str:
        """What is counted, for the axis."""
        return "Sum of weights" if self.weighted else "Events"

    @contextlib.contextmanager
    def styled(self) -> Iterator[None]:
        """Let figures that are made and saved here look as the style wants."""
        import matplotlib as mpl

        for name in ("matplotlib.mathtext", "matplotlib.font_manager"):  # of symbols that a style's fonts lack
            logging.getLogger(name).setLevel(logging.ERROR)
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(self._parameters())
            yield

    def _parameters(self) -> dict[str, Any]:
        import mplhep

        mine = {"svg.hashsalt": "rootdata", "svg.fonttype": "path", "legend.frameon": False}
        name = self.config.style
        if name == "plain":
            ticks = {f"{axis}tick.{key}": True for axis in "xy" for key in ("minor.visible",)}
            sides = {"xtick.top": True, "ytick.right": True, "xtick.direction": "in", "ytick.direction": "in"}
            sizes = {
                "font.size": 12.0,
                "axes.labelsize": 13.0,
                "xaxis.labellocation": "right",
                "yaxis.labellocation": "top",
            }
            return {**ticks, **sides, **sizes, **mine, "figure.figsize": (6.4, 5.2), "lines.linewidth": 1.8}
        found = dict(getattr(mplhep.style, "LHCb2" if name == "LHCb" else name))
        if name == "LHCb":
            found["font.size"] = LHCB  # the style's own, 14, is that of nothing in it; letters of a legend go by it
        return {**found, **mine, "figure.autolayout": False, "figure.constrained_layout.use": False}

    def figure(
        self,
        n_panels: int = 1,
        *,
        columns: int = PANELS,
        height: float = 0.82,
        is_dense: bool = False,
        names: Sequence[str] = (),
    ) -> tuple[Figure, list[Axes]]:
        """Make a figure of panels.

        Parameters
        ----------
        n_panels : how many
        columns : of them beside each other at most
        height : of a panel, in its width
        is_dense : many small panels, with room for their titles; finding out how much each needs takes its time
        names : small ones beside the panel, for which a figure is as much wider as they are long
        """
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.font_manager import FontProperties

        width = float(mpl.rcParams["figure.figsize"][0])
        across = min(n_panels, columns)
        down = -(-n_panels // across)
        if is_dense:
            size = (width * across * 0.4, width * height * down * 0.4)
            figure = Figure(figsize=size)
            figure.subplots_adjust(
                left=0.3 / size[0],
                right=1 - 0.3 / size[0],
                bottom=0.9 / size[1],
                top=1 - 0.4 / size[1],
                wspace=0.12,
                hspace=0.5,
            )
        else:
            letters = (
                max(map(len, names), default=0) * LETTER * FontProperties(size="small").get_size_in_points() / INCH
            )
            size = (width * across + max(letters - NAMES * width, 0.0), width * height * down)
            figure = Figure(figsize=size, layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in panels[n_panels:]:
            axes.set_visible(False)
        return figure, panels[:n_panels]

    def finish(self, figure: Figure, axes: Axes, *, has_label: bool = True) -> Figure:
        """Put the label above a panel, and below the figure whether its events are weighted.

        Parameters
        ----------
        figure : with everything else in it
        axes : the first panel
        has_label : whether there is room for the label
        """
        _keep_words(figure)
        if has_label:
            self._label(figure, axes)
        low = min(0.01, 0.08 / figure.get_size_inches()[1])
        figure.supxlabel(self.words, x=0.01, y=low, ha="left", fontsize="x-small", color=MUTED)
        return figure

    def _label(self, figure: Figure, axes: Axes) -> None:
        config = self.config
        if config.style != "plain":
            import mplhep

            figure.draw_without_rendering()  # mplhep puts words behind each other in a panel as it is now
            label = {"CMS": mplhep.cms, "ATLAS": mplhep.atlas, "LHCb": mplhep.lhcb}[config.style].label
            above = 0  # where no legend is, and nothing drawn
            label(config.label, ax=axes, loc=above, data=True, com=config.energy, lumi=config.luminosity)
        else:
            facts = [f"{config.luminosity:g} fb$^{{-1}}$"] if config.luminosity else []
            facts += [f"({config.energy:g} TeV)"] if config.energy else []
            if config.label:
                axes.set_title(config.label, loc="left", fontsize=12, fontweight="bold")
            if facts:
                axes.set_title(" ".join(facts), loc="right", fontsize=12)


def _keep_words(figure: Figure) -> None:
    """Show names with dollars as they are, where what stands between these is no formula."""
    from matplotlib.cbook import is_math_text
    from matplotlib.mathtext import MathTextParser
    from matplotlib.text import Text

    parser = MathTextParser("path")
    for text in figure.findobj(Text):
        words = text.get_text()
        if is_math_text(words):
            try:
                parser.parse(words)
            except ValueError:
                text.set_parse_math(False)


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write a figure as PNG and PDF, and return it as SVG for a page.

    Parameters
    ----------
    figure : made, and saved, in its style
    folder : of the files
    name : of them, without ending
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # once; with "none" each format would still be drawn twice
    width = figure.get_size_inches()[0]
    for ending in FORMATS:
        with disk.writing(folder / f"{name}.{ending}") as file:
            metadata = {"CreationDate": None} if ending == "pdf" else None
            figure.savefig(file, format=ending, dpi=max(60.0, 960 / width), metadata=metadata)
    return inline(figure, name)


def inline(figure: Figure, name: str) -> str:
    """Return a figure as SVG whose black is the page's ink, whether that is light or dark."""
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor").replace(MUTED, "var(--muted)")
    svg = re.sub(r'(<svg [^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(r' id="(?!m|p|D|[a-zA-Z]+-)[a-z]+_\d+"', "", svg)  # of groups, which nothing refers to
    svg = re.sub(r' d="[^"]*"', lambda path: _LONG.sub(r"\1", path[0]), svg)
    return re.sub(r"\s*\n\s*", " ", svg).replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
