"""Accuracy over the share of the training videos: a line for each backbone and strategy."""

from __future__ import annotations

import json
from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.report.comparison import METRIC_NAMES
from bench.report.plots.request import Lacking, PlotRequest
from bench.report.plots.rows import PlotRow, evaluated_rows, intervals, legend_names
from bench.report.plots.style import MARKERS, Looks, panels, short
from bench.report.runs import Runs
from bench.spec import Cell
from bench.tune.space import OPTION

AXIS = "training videos"  # the table's column of the fraction


def draw(runs: Runs, request: PlotRequest) -> Figure:
    """Draw an accuracy over the training fraction, with 95 % intervals; a panel for each data set.

    Raises:
        Lacking: no row has the accuracy, or all rows trained on the same fraction.
    """
    rows = [row for row in evaluated_rows(runs, request.metric) if "train" in row.cell.stages]
    if not rows:
        raise Lacking([f"no row that trained and is done has {request.metric}"])
    fractions = {row.cell.train_fraction for row in rows}
    if len(fractions) < 2:
        raise Lacking(
            [f"all rows trained on {rows[0].cell.train_percent} of the videos: expected several --train-fraction"]
        )
    data_sets = list(dict.fromkeys(row.cell.dataset for row in rows))
    lines = _lines(rows)
    firsts = [_first(line, mixed=any(row.cell.tuning is None for row in rows)) for line in lines]
    names = legend_names(firsts, len(MARKERS), AXIS)
    looks = Looks([row.backbone for row in firsts], [*names.values()])
    wide = request.size.width > 5
    columns = 2 if wide else 1
    figure, grid = panels(
        f"{METRIC_NAMES[request.metric]} over training fractions",
        request.size,
        len(data_sets),
        columns,
        2.6 if wide else 2.2,
        looks.keys("-"),
    )
    for place, (axes, data_set) in enumerate(zip(grid, data_sets, strict=True)):
        for first, line in zip(firsts, lines, strict=True):
            if first.cell.dataset != data_set:
                continue
            look = looks(first.backbone, names[first.cell.key])
            y = [row.values[request.metric] for row in line]
            found = [intervals(runs, row, [request.metric]).get(request.metric) for row in line]
            ends = [(up, up) if each is None else (each.low, each.high) for each, up in zip(found, y, strict=True)]
            axes.errorbar(
                [100 * row.cell.train_fraction for row in line],
                y,
                [
                    [max(0.0, up - low) for up, (low, _) in zip(y, ends, strict=True)],
                    [max(0.0, high - up) for up, (_, high) in zip(y, ends, strict=True)],
                ],
                color=look.colour,
                marker=look.marker,
                mfc=look.face,
                elinewidth=0.7,
                label=f"{first.backbone} {first.variant(AXIS)}",
            )
        shown = sorted({100 * row.cell.train_fraction for row in rows if row.cell.dataset == data_set})
        if shown[-1] / shown[0] >= 5:
            axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(shown))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("training videos, %")
        if len(data_sets) > 1:
            axes.set_title(short(data_set))
        if place % columns == 0:
            axes.set_ylabel(METRIC_NAMES[request.metric])
    return figure


def _lines(rows: list[PlotRow]) -> list[list[PlotRow]]:
    """Rows that differ in the fraction alone, or in the recipe that was chosen for it too, by rising fraction."""
    found: dict[str, list[PlotRow]] = {}
    for row in rows:
        found.setdefault(_without_fraction(row.cell), []).append(row)
    return [sorted(line, key=lambda row: row.cell.train_fraction) for line in found.values()]


def _first(line: list[PlotRow], mixed: bool) -> PlotRow:
    """The line's first row, without the parts of its recipe that were chosen for this fraction alone.

    Args:
        mixed: other lines were not tuned.
    """
    row = line[0]
    if row.cell.tuning is None:
        return row
    chosen = {name.removeprefix(OPTION).replace("_", " ") for name in (*row.cell.tuning.space, "time_lr")}
    further = {name: text for name, text in row.further.items() if name not in chosen}
    return replace(row, further=further | ({"trials": str(row.cell.tuning.trials)} if mixed else {}))


def _without_fraction(cell: Cell) -> str:
    """The text of what the cells of a line share."""
    parts = cell.model_dump(mode="json", exclude={"train_fraction", "seed", "tuning"})
    if cell.tuning is not None:
        for name in cell.tuning.space:  # each fraction has its own study
            place, _, option = name.rpartition(".")
            parts["options" if place else "recipe"].pop(option)
        parts["recipe"].pop("time_lr")  # follows lr
        parts["tuning"] = cell.tuning.model_dump(mode="json", exclude={"chosen", "values"})
    return json.dumps(parts, sort_keys=True)
