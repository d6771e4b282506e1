"""The look of all plots: sizes of text, colours that colour-blind readers tell apart, panels with their legends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context, rcdefaults
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType, MarkerType

from bench.report.plots.request import Size

# Okabe and Ito, Color Universal Design (2008); yellow, the faintest on white, comes last
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
# signs, then stars of so many points, turned by so many degrees
MARKERS: tuple[MarkerType, ...] = (
    *("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "H", "8"),
    *((4, 1, 0), (3, 1, 0), (6, 1, 0), (4, 1, 45), (8, 1, 0), (3, 1, 180)),
)
DASHES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.")
GREY = "#777777"
_LONGEST = 40  # letters of a name
_GAP = 0.04  # inches around a legend
_NARROWEST = 0.35  # inches, of an entry of a legend
_HIGHEST = 200.0  # inches of a figure: a PNG may have 65,535 pixels
STYLE: Any = {  # matplotlib names the keys in its types, of which each version has others
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 7,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.title_fontsize": 6.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # TrueType, whole: journals refuse outlines that cannot be searched
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "aim-bench",
    "text.parse_math": False,  # a name with two dollar signs is a name
    "xtick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 6.5,
    "ytick.major.width": 0.6,
}


@contextmanager
def styled() -> Iterator[None]:
    """Let what is drawn or rendered inside have the look, and leave the user's own settings as they were."""
    with rc_context():
        rcdefaults()
        with rc_context(STYLE):
            yield


def short(text: str, longest: int = _LONGEST) -> str:
    """Return a name as there is room for it."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


@dataclass(frozen=True)
class Look:
    """Colour and marker; hollow where all the colours were used once."""

    colour: str
    marker: MarkerType
    hollow: bool

    @property
    def face(self) -> str:
        return "white" if self.hollow else self.colour


class Looks:
    """Looks of rows: a colour for each backbone, a marker for each strategy.

    Args:
        backbones, methods: names, which may come several times.
    """

    def __init__(self, backbones: Sequence[str], methods: Sequence[str]) -> None:
        self.backbones = list(dict.fromkeys(backbones))
        self.methods = list(dict.fromkeys(methods))

    def __call__(self, backbone: str, method: str) -> Look:
        place, shape = self.backbones.index(backbone), self.methods.index(method)
        marker = MARKERS[shape % len(MARKERS)]
        return Look(COLOURS[place % len(COLOURS)], marker, place // len(COLOURS) % 2 == 1)

    def keys(self, line: LineStyleType = "none") -> list[Key]:
        """Return the legends.

        Args:
            line: style of the lines through the markers; none by default.
        """
        first = self.methods[0]
        looks = [(name, self(name, first)) for name in self.backbones]
        colours = [_mark(name, look.colour, look.face, "s", line) for name, look in looks]
        shapes = [(name, self(self.backbones[0], name).marker) for name in self.methods]
        return [Key("backbone", colours), Key("strategy", [_mark(name, GREY, GREY, m, "none") for name, m in shapes])]


def _mark(name: str, colour: str, face: str, marker: MarkerType, line: LineStyleType) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, mfc=face, linestyle=line, label=short(name))


@dataclass(frozen=True)
class Key:
    """A legend below the panels: its title and the artists of its entries, each with its label."""

    title: str
    entries: Sequence[Artist]


def panels(
    title: str,
    size: Size,
    count: int,
    columns: int,
    height: float,
    keys: Sequence[Key] = (),
) -> tuple[Figure, list[Axes]]:
    """Return a figure with its panels in a grid, and the legends below them.

    Args:
        title: of the figure, for those who cannot see it.
        size: of the figure; without a height it is as high as panels and legends are.
        count: of the panels.
        columns: of the grid, at most.
        height: of a row of panels, in inches.
        keys: the legends.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(size.width, size.height or rows * height))
    figure.set_label(title)
    FigureCanvasAgg(figure)
    legends = [_legend(figure, key) for key in keys]
    tall = [(legend.get_window_extent().height / figure.dpi) + _GAP for legend in legends]
    if size.height is None:
        figure.set_size_inches(size.width, min(rows * height + sum(tall), _HIGHEST))
    whole = figure.get_figheight()
    top = sum(tall)
    figure.set_layout_engine(
        "constrained", rect=(0, top / whole, 1, 1 - top / whole), w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.05
    )
    for legend, its in zip(legends, tall, strict=True):
        legend.set_bbox_to_anchor((_GAP / size.width, top / whole))
        top -= its
    axes = figure.subplots(rows, columns, squeeze=False)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def _legend(figure: Figure, key: Key) -> Legend:
    """A legend of as many columns as the figure has room for."""
    most = int(figure.get_figwidth() / _NARROWEST)
    for columns in range(min(len(key.entries), most), 0, -1):
        legend = figure.legend(
            handles=[*key.entries],
            title=key.title,
            alignment="left",
            loc="upper left",
            ncols=columns,
            borderaxespad=0,
            borderpad=0.2,
            columnspacing=1.2,
            handletextpad=0.4,
            handlelength=1.6,
        )
        legend.set_in_layout(False)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width - 2 * _GAP * figure.dpi:
            return legend
        legend.remove()
    raise ValueError("a legend without entries")


def laid_out(figure: Figure) -> Figure:
    """Put the panels in their places, and keep them there whatever is added."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure
