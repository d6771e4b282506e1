"""Time that cells took, by what they did in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.report.plots.request import Lacking, PlotRequest
from bench.report.plots.rows import plot_rows
from bench.report.plots.style import COLOURS, Key, panels, short
from bench.report.runs import Runs
from bench.run.result import Result

WAIT = "waiting for clips"
# in the order in which a cell does them; others that a result tells come after them
_STAGES = ("build", "measure", "train", "evaluate", "write")
_MOST = 40  # bars; of more cells, a bar for each row of the table with the means over its seeds
_BAR = 0.17  # inches


def draw(runs: Runs, request: PlotRequest) -> Figure:
    """Draw a bar for each cell: its seconds by stage, and how long of its training it waited for clips.

    Raises:
        Lacking: no cell that is done tells its seconds.
    """
    rows = plot_rows([result for result in runs.results if result.seconds])
    if not rows:
        raise Lacking(["no cell that is done tells where its time went"])
    seeds = {result.cell.seed for row in rows for result in row.results}
    if sum(len(row.results) for row in rows) <= _MOST:
        told = [(row, [result]) for row in rows for result in row.results]
        labels = [f"{row.label}, seed {its[0].cell.seed}" if len(seeds) > 1 else row.label for row, its in told]
        bars = [its for _, its in told]
    else:
        labels, bars = [row.label for row in rows], [list(row.results) for row in rows]
    names = {name for bar in bars for result in bar for name in result.seconds}
    stages = [*(name for name in _STAGES if name in names), *sorted(names.difference(_STAGES))]
    waits = [_mean([wait(result) for result in bar]) for bar in bars]
    colours = dict(zip(stages, (COLOURS[place % len(COLOURS)] for place in range(len(stages))), strict=True))
    entries = [Patch(facecolor=colours[name], label=name) for name in stages]
    if any(waits):
        entries.append(Patch(facecolor="none", edgecolor="black", linewidth=0, hatch="//////", label=WAIT))
    figure, (axes,) = panels(
        "seconds of the cells by stage", request.size, 1, 1, 0.45 + _BAR * len(bars), [Key("stage", entries)]
    )
    places = np.arange(len(bars))
    left = np.zeros(len(bars))
    for name in stages:
        width = np.array([_mean([result.seconds.get(name, 0.0) for result in bar]) for bar in bars])
        axes.barh(places, width, 0.75, left, color=colours[name], label=name)
        if name == "train" and any(waits):
            axes.barh(
                places, waits, 0.75, left, color="none", edgecolor="black", linewidth=0, hatch="//////", label=WAIT
            )
        left = left + width
    axes.set_yticks(places, [short(label, 48 if request.size.width > 5 else 30) for label in labels])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("seconds" if len(bars[0]) == 1 else "seconds, mean over the seeds")
    return figure


def wait(result: Result) -> float:
    """Return the seconds in which a cell's training waited for its clips."""
    training = result.training
    if training is None or training.loader_wait is None or "train" not in result.seconds:
        return 0.0
    return min(training.train_seconds * training.loader_wait / 100, result.seconds["train"])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
