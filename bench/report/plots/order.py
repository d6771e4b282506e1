"""Sensitivity to the order of the frames: top-1 of clips forwards, reversed and shuffled."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.request import Lacking, PlotRequest
from bench.report.plots.rows import intervals, plot_rows
from bench.report.plots.style import COLOURS, GREY, Key, panels, short
from bench.report.runs import Runs
from bench.stats.outcomes import Metric

# name, colour, marker and its size: of a method that is blind to the order they lie on each other
ORDERS: dict[Metric, tuple[str, str, str, float]] = {
    "top1": ("forwards", COLOURS[0], "o", 5.8),
    "top1_reversed": ("reversed", COLOURS[1], "s", 4.0),
    "top1_shuffled": ("shuffled", COLOURS[2], "^", 2.8),
}
_ROW = 0.17  # inches


def draw(runs: Runs, request: PlotRequest) -> Figure:
    """Draw a line for each row, with its top-1 of the three orders and their 95 % intervals.

    Raises:
        Lacking: no row was tested with its frames reversed or shuffled.
    """
    rows = [row for row in plot_rows(runs.results) if {"top1_reversed", "top1_shuffled"} & set(row.values)]
    if not rows:
        raise Lacking(["no row that is done was tested with its frames reversed and shuffled"])
    several = len({row.cell.dataset for row in rows}) > 1
    labels = [f"{row.label}, {row.cell.dataset}" if several else row.label for row in rows]
    shown = [metric for metric in ORDERS if any(metric in row.values for row in rows)]
    marks = [
        Line2D([], [], color=colour, marker=marker, markersize=size, linestyle="none", label=name)
        for name, colour, marker, size in (ORDERS[metric] for metric in shown)
    ]
    figure, (axes,) = panels(
        "top-1 by the order of the frames", request.size, 1, 1, 0.45 + _ROW * len(rows), [Key("frames", marks)]
    )
    for place, row in enumerate(rows):
        its = [row.values[metric] for metric in shown if metric in row.values]
        axes.hlines(place, min(its), max(its), color=GREY, linewidth=0.6, zorder=1)
    found = [intervals(runs, row, shown) for row in rows]
    for metric in shown:
        name, colour, marker, size = ORDERS[metric]
        members = [(place, row) for place, row in enumerate(rows) if metric in row.values]
        x = [row.values[metric] for _, row in members]
        ends = [found[place].get(metric) for place, _ in members]
        axes.errorbar(
            x,
            [place for place, _ in members],
            xerr=[
                [0.0 if each is None else max(0.0, at - each.low) for each, at in zip(ends, x, strict=True)],
                [0.0 if each is None else max(0.0, each.high - at) for each, at in zip(ends, x, strict=True)],
            ],
            color=colour,
            marker=marker,
            markersize=size,
            linestyle="none",
            elinewidth=0.7,
            label=name,
        )
    axes.set_yticks(range(len(rows)), [short(label, 44 if request.size.width > 5 else 30) for label in labels])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-4, 104)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("top-1 %")
    return figure
