"""Accuracy against what it costs: a point a row, and the front of those that no other row beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.report.comparison import METRIC_NAMES
from bench.report.plots.labels import place_labels
from bench.report.plots.request import Lacking, PlotRequest
from bench.report.plots.rows import PlotRow, evaluated_rows, intervals, legend_names
from bench.report.plots.style import GREY, MARKERS, Look, Looks, laid_out, panels, short
from bench.report.runs import Runs
from bench.stats.bootstrap import Interval

_FEW = 12  # points of a panel that all have labels; of more, those of the front


@dataclass(frozen=True)
class Cost:
    """A column of costs.

    Attributes:
        key: of results.csv.
        label: with the unit.
        sign: -1 where more of it is better.
        logarithmic: its axis.
    """

    key: str
    label: str
    sign: int = 1
    logarithmic: bool = False


COSTS = (
    Cost("trained_params_m", "trained parameters, M", logarithmic=True),
    Cost("gmacs_total", "GMACs, all test views"),
    Cost("infer_clips_per_s", "inference, clips/s", -1),
    Cost("train_clips_per_s", "training, clips/s", -1),
    Cost("infer_memory_gb", "inference, GB"),
    Cost("train_memory_gb", "training, GB"),
)


def front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Return the points that no other one beats: none is at least as good in both and better in one.

    Args:
        costs: less is better.
        accuracies: more is better.

    Returns:
        Indices, by rising cost; points that are equal are all among them.
    """
    found: list[int] = []
    best, paid = -math.inf, -math.inf
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -accuracies[i])):
        if accuracies[index] > best or (accuracies[index] == best and costs[index] == paid):
            found.append(index)
            best, paid = accuracies[index], costs[index]
    return found


def draw(runs: Runs, request: PlotRequest) -> Figure:
    """Draw accuracy against costs, a panel for each of them (and each data set).

    Raises:
        Lacking: no row has the accuracy, or none a cost.
        UserError: a cost is none of `COSTS`.
    """
    rows = evaluated_rows(runs, request.metric)
    costs = _costs(request.against)
    shown = [cost for cost in costs if any(cost.key in row.values for row in rows)]
    problems = [] if rows else [f"no row that is done has {request.metric}"]
    if rows and request.against:
        problems += [f"no row that is done has {cost.key}" for cost in costs if cost not in shown]
    if rows and not shown:
        problems.append("no row that is done has any of the costs")
    if problems:
        raise Lacking(problems)
    data_sets = list(dict.fromkeys(row.cell.dataset for row in rows))
    ends = {row.cell.key: intervals(runs, row, [request.metric]).get(request.metric) for row in rows}
    names = legend_names(rows, len(MARKERS))
    looks = Looks([row.backbone for row in rows], [*names.values()])
    of_rows = {row.cell.key: looks(row.backbone, names[row.cell.key]) for row in rows}
    wide = request.size.width > 5
    count = len(shown) * len(data_sets)
    columns = (3 if count > 4 else 2) if wide else (2 if count > 2 else 1)
    figure, grid = panels(
        f"{METRIC_NAMES[request.metric]} against costs",
        request.size,
        count,
        columns,
        1.9 if wide else 1.6,
        looks.keys(),
    )
    fronts = []
    for place, axes in enumerate(grid):
        data_set, cost = data_sets[place // len(shown)], shown[place % len(shown)]
        members = [row for row in rows if row.cell.dataset == data_set and cost.key in row.values]
        fronts.append((members, _draw(axes, cost, members, ends, of_rows, request)))
        if len(data_sets) > 1:
            axes.set_title(short(data_set))
        if place % min(columns, count) == 0:
            axes.set_ylabel(METRIC_NAMES[request.metric])
    laid_out(figure)
    for place, (axes, (members, on_front)) in enumerate(zip(grid, fronts, strict=True)):
        _label(axes, shown[place % len(shown)], members, on_front, ends, request)
    return figure


def _costs(names: Sequence[str]) -> list[Cost]:
    known = {cost.key: cost for cost in COSTS}
    problems = [
        f"against is {name!r}: expected one of {', '.join(known)}{did_you_mean(name, known)}"
        for name in names
        if name not in known
    ]
    if problems:
        raise UserError(problems)
    return [known[name] for name in dict.fromkeys(names)] or list(COSTS)


def _draw(
    axes: Axes,
    cost: Cost,
    rows: Sequence[PlotRow],
    ends: dict[str, Interval | None],
    looks: dict[str, Look],
    request: PlotRequest,
) -> list[int]:
    """Draw a panel; the rows of its front."""
    x = [row.values[cost.key] for row in rows]
    y = [row.values[request.metric] for row in rows]
    found = front([cost.sign * value for value in x], y)
    if cost.logarithmic and all(value > 0 for value in x):
        _logarithmic(axes, x)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5 if request.size.width > 5 else 3))
    # a front goes in steps: between two points nothing was measured, and the cheaper one is what can be had
    line = [x[index] for index in found], [y[index] for index in found]
    axes.plot(*line, color=GREY, ls="--", lw=0.8, drawstyle="steps-post", label="front", zorder=1.5)
    for row, across, up in zip(rows, x, y, strict=True):
        look = looks[row.cell.key]
        its = ends[row.cell.key]
        axes.errorbar(
            across,
            up,
            None if its is None else [[max(0.0, up - its.low)], [max(0.0, its.high - up)]],
            color=look.colour,
            marker=look.marker,
            mfc=look.face,
            elinewidth=0.7,
            label=row.label,
        )
    axes.set_xlabel(cost.label)
    return found


def _label(
    axes: Axes,
    cost: Cost,
    rows: Sequence[PlotRow],
    on_front: Sequence[int],
    ends: dict[str, Interval | None],
    request: PlotRequest,
) -> None:
    """Label the points of a panel: of a few all, of more those of the front."""
    at = [(row.values[cost.key], row.values[request.metric]) for row in rows]
    named = [*on_front]
    if len(rows) <= _FEW:
        named += [index for index in range(len(rows)) if index not in on_front]
    lines = []
    for (x, _), row in zip(at, rows, strict=True):
        if (its := ends[row.cell.key]) is not None:
            lines.append(((x, its.low), (x, its.high)))
    for one, other in pairwise(on_front):
        corner = (at[other][0], at[one][1])
        lines += [(at[one], corner), (corner, at[other])]
    place_labels(
        axes,
        [(*at[index], short(rows[index].variant(), 24)) for index in named],
        [at[index] for index in range(len(rows)) if index not in named],
        lines,
        optional=len(named) - len(on_front),
    )


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xscale("log")
    ratio = max(values) / min(values)
    if ratio < 1 + 1e-6:  # equal, but for the last digits of means: without limits the axis would have no width
        axes.set_xlim(min(values) / 2, max(values) * 2)
    wide = ratio > 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
