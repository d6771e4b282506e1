"""Learning curves: loss and accuracies over the epochs, mean and range over the seeds."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from bench.report.plots.logs import Curve, epoch_curve, interval_curve, read_log
from bench.report.plots.request import Lacking, PlotRequest
from bench.report.plots.rows import PlotRow, legend_names, plot_rows
from bench.report.plots.style import COLOURS, DASHES, Key, panels, short
from bench.report.runs import Runs
from bench.run.store import LOG

_LOSS = "training loss"
_TRAINED, _VALIDATED = "training top-1 %", "validation top-1 %"


def draw(runs: Runs, request: PlotRequest) -> Figure:
    """Draw loss and accuracies over the epochs; a row of panels for each backbone (and data set).

    Raises:
        Lacking: no cell that is done has a log.
    """
    curves = [(row, found) for row in plot_rows(runs.results) if (found := _curves(runs, row))]
    if not curves:
        raise Lacking(["no cell that trained and is done has its log.jsonl"])
    names = [name for name in (_LOSS, _TRAINED, _VALIDATED) if any(name in found for _, found in curves)]
    several = len({row.cell.dataset for row, _ in curves}) > 1
    titles = [f"{row.backbone}, {row.cell.dataset}" if several else row.backbone for row, _ in curves]
    blocks = list(dict.fromkeys(titles))
    called = legend_names([row for row, _ in curves], len(COLOURS) * len(DASHES))
    looks = {
        name: (COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)])
        for place, name in enumerate(dict.fromkeys(called.values()))
    }
    key = Key("strategy", [Line2D([], [], color=c, linestyle=d, label=short(name)) for name, (c, d) in looks.items()])
    wide = request.size.width > 5
    # where there is little room the panels of a backbone stand below each other
    columns = len(names) if wide else 1
    figure, grid = panels(
        "learning curves", request.size, len(blocks) * len(names), columns, 1.8 if wide else 1.5, [key]
    )
    for place, axes in enumerate(grid):
        block, name = blocks[place // len(names)], names[place % len(names)]
        for (row, found), title in zip(curves, titles, strict=True):
            if title == block and name in found:
                _draw(axes, found[name], *looks[called[row.cell.key]], row.label, marked=name == _VALIDATED)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylabel(name)
        if place % len(names) == 0:
            axes.set_title(short(block), loc="left")
        if place >= len(grid) - columns:
            axes.set_xlabel("epoch")
    return figure


def _curves(runs: Runs, row: PlotRow) -> dict[str, Curve]:
    """The curves of a row by the name of their axis; none where a log is not there."""
    try:
        logs = [read_log(runs.cell_folder(result.cell) / LOG) for result in row.results]
    except OSError:
        return {}
    found = {
        _LOSS: interval_curve(logs, "loss"),
        _TRAINED: interval_curve(logs, "train_top1"),
        _VALIDATED: epoch_curve(logs, "val_top1"),
    }
    return {name: curve for name, curve in found.items() if curve is not None}


def _draw(axes: Axes, curve: Curve, colour: str, dashes: LineStyleType, label: str, *, marked: bool) -> None:
    axes.plot(
        curve.epochs,
        curve.mean,
        color=colour,
        linestyle=dashes,
        marker="o" if marked else None,
        markersize=3,
        label=label,
    )
    if len(curve.values) == 1:
        return
    if len(curve.epochs) > 1:
        axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    else:
        axes.vlines(curve.epochs, curve.low, curve.high, color=colour, linewidth=0.7)
