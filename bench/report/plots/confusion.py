"""Classes that are taken for others, and those in which two models differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from safetensors import SafetensorError, safe_open

from backbones.registry import UnknownName
from bench.data.dataset import DATASETS, DataError
from bench.errors import UserError
from bench.report.plots.chosen import Chosen, chosen_cell, chosen_row
from bench.report.plots.request import Lacking, PlotRequest
from bench.report.plots.rows import evaluated_rows
from bench.report.plots.style import COLOURS, panels, short
from bench.report.runs import Runs
from bench.run.store import ADAPTER, PREDICTIONS
from bench.spec import Cell
from bench.stats.outcomes import CellFolders, predicted
from bench.text import one_line

_NAMED = 40  # classes whose names have room
_FILLED = 15  # classes of a matrix whose numbers have room
_BAR = 0.17  # inches


def confusion(runs: CellFolders, chosen: Chosen) -> np.ndarray:
    """Return how often videos of each class (rows) were taken for each class (columns), over all seeds: (C, C).

    Raises:
        Lacking: predictions are not there or are damaged.
    """
    try:
        found = predicted(runs, chosen.results)
    except FileNotFoundError:
        raise Lacking([f"{chosen.label}: its {PREDICTIONS} is not there"]) from None
    except (OSError, ValueError) as error:
        raise Lacking([f"{chosen.label}: {error}"]) from error
    classes = max(each.probabilities.shape[1] for each in found)
    counts = np.zeros((classes, classes), dtype=np.int64)
    for each in found:
        np.add.at(counts, (each.labels, each.probabilities.argmax(axis=1)), 1)
    return counts


def shares(counts: np.ndarray) -> np.ndarray:
    """Return the percentages of each row, (C, C); NaN in those of classes without videos."""
    sums = counts.sum(axis=1, keepdims=True)
    return np.where(sums > 0, 100 * counts / np.maximum(sums, 1), np.nan)


def class_names(cell: Cell, folder: Path, count: int) -> list[str]:
    """Return the names of a cell's classes, from its adapter file or its data set; their numbers where neither is there
    or has as many.

    Args:
        folder: of the cell's files.
        count: of the classes.
    """
    places = [folder / ADAPTER]
    places += [] if cell.model_file is None else [Path(cell.model_file.path)]
    for place in places:
        try:
            with safe_open(place, "numpy") as file:
                names = json.loads((file.metadata() or {}).get("classes", "[]"))
        except (OSError, ValueError, SafetensorError):
            continue
        if isinstance(names, list) and len(names) == count:
            return [one_line(str(name)) for name in names]
    try:
        known = DATASETS.get(cell.dataset)(cell.data).classes
    except (UnknownName, DataError, UserError, OSError, ValueError):
        known = ()
    return [one_line(name) for name in known] if len(known) == count else [str(index) for index in range(count)]


def draw(runs: Runs, request: PlotRequest) -> Figure:
    """Draw the confusion matrix of a row or cell, by default of the best row; of two the differences class by class.

    Raises:
        Lacking: there are no predictions.
        UserError: what is named is not there, or two have different classes.
    """
    chosen = _chosen(runs, request)
    found = [confusion(runs, each) for each in chosen]
    names = class_names(chosen[0].cell, runs.cell_folder(chosen[0].cell), len(found[0]))
    if len(chosen) == 1:
        return _matrix(chosen[0], found[0], names, request)
    one, other = chosen
    if len(found[0]) != len(found[1]) or one.cell.dataset != other.cell.dataset:
        raise UserError(
            [
                f"{one.label} has the {len(found[0])} classes of {one.cell.dataset}, {other.label} the {len(found[1])} "
                f"of {other.cell.dataset}: expected the same classes"
            ]
        )
    return _difference(chosen, found, names, request)


def _chosen(runs: Runs, request: PlotRequest) -> list[Chosen]:
    rows = evaluated_rows(runs, request.metric)
    if not rows:
        raise Lacking([f"no row that is done has {request.metric}"])
    problems: list[str] = []
    if len(request.cells) + len(request.rows) > 2:
        named = ", ".join((*request.cells, *request.rows))
        problems.append(f"{named}: expected at most two cells or rows, the second to compare with the first")
    found = []
    for choose, names in ((chosen_cell, request.cells), (chosen_row, request.rows)):
        for name in names:
            try:
                found.append(choose(name, rows))
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(problems)
    best = max(rows, key=lambda row: row.values[request.metric])
    return found or [Chosen(best.label, best.results)]


def _matrix(chosen: Chosen, counts: np.ndarray, names: Sequence[str], request: PlotRequest) -> Figure:
    count, width = len(names), request.size.width
    figure, (axes,) = panels(f"confusion matrix of {chosen.label}", request.size, 1, 1, 0.8 * width)
    values = shares(counts)
    edges = np.arange(count + 1) - 0.5
    # as pixels where vectors would be larger than those
    mesh = axes.pcolormesh(edges, edges, np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=100)
    mesh.set_rasterized(count > _NAMED)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_title(short(chosen.label, 60))
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    if count <= _NAMED:
        shown = [short(name, 22) for name in names]
        size = min(6.5, 72 * 0.55 * width / count)
        axes.set_xticks(range(count), shown, rotation=90, fontsize=size)
        axes.set_yticks(range(count), shown, fontsize=size)
    if count <= _FILLED:
        for (label, guess), value in np.ndenumerate(values):
            if value > 0:
                colour = "white" if value > 60 else "black"
                axes.text(guess, label, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=5.5)
    figure.colorbar(mesh, ax=axes, label="% of the class's videos", shrink=0.8)
    return figure


def _difference(
    chosen: Sequence[Chosen], counts: Sequence[np.ndarray], names: Sequence[str], request: PlotRequest
) -> Figure:
    one, other = (np.diag(shares(each)) for each in counts)
    both = np.flatnonzero(np.isfinite(one) & np.isfinite(other))
    order = both[np.argsort(-(one - other)[both], kind="stable")]
    shown = order if len(order) <= _NAMED else np.concatenate([order[: _NAMED // 2], order[-_NAMED // 2 :]])
    values = (one - other)[shown]
    label, base = (short(each.label, 60) for each in chosen)
    figure, (axes,) = panels(f"{label} and {base} by class", request.size, 1, 1, 0.7 + _BAR * len(shown))
    places = np.arange(len(shown))
    axes.barh(places, values, 0.75, color=[COLOURS[0] if value >= 0 else COLOURS[1] for value in values])
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(places, [short(names[index], 36) for index in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    left_out = f"\nthe {_NAMED // 2} of each end, of {len(order):,} classes" if len(shown) < len(order) else ""
    axes.set_title(f"{label}\nminus {base}{left_out}")
    axes.set_xlabel("accuracy of the class, percentage points")
    return figure
