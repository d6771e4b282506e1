"""Rows of the comparison table as plots have them: what tells them apart, their means, their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.report.axes import axes_of
from bench.report.runs import Runs
from bench.report.table import groups
from bench.run.columns import row as csv_row
from bench.run.result import Result
from bench.spec import Cell
from bench.stats.bootstrap import Interval, accuracy
from bench.stats.outcomes import CellFolders, Metric, outcomes, predicted
from bench.text import one_line

# how values of the table's further columns are said; others by name and value
_SAID = {
    "device": "{value}",
    "frames": "{value} frames",
    "precision": "{value}",
    "training videos": "{value} of the videos",
    "trials": "{value} trials",
}


@dataclass(frozen=True)
class PlotRow:
    """Done cells that differ in the seed alone.

    Attributes:
        backbone: as tables show it.
        method: strategy, and head where that is not the linear one.
        further: what else tells rows apart, by the table's header.
        results: of its seeds.
    """

    backbone: str
    method: str
    further: dict[str, str]
    results: tuple[Result, ...]

    @property
    def cell(self) -> Cell:
        """The first of its cells."""
        return self.results[0].cell

    def variant(self, *without: str) -> str:
        """Return the method with what tells its rows apart, but for the headers in `without` and the data set."""
        told = [
            _SAID.get(name, "{name} {value}").format(name=name, value=text)
            for name, text in self.further.items()
            if name not in (*without, "data set")
        ]
        return f"{self.method} ({', '.join(told)})" if told else self.method

    @property
    def label(self) -> str:
        return f"{self.backbone} {self.variant()}"

    @cached_property
    def values(self) -> dict[str, float]:
        """Means over the seeds, by the column of results.csv; a column that a seed lacks is left out."""
        records: list[dict[str, Any]] = [csv_row(result) for result in self.results]
        return {
            name: statistics.fmean(record[name] for record in records)
            for name, value in records[0].items()
            if isinstance(value, float | int) and all(record[name] is not None for record in records)
        }


def plot_rows(results: Sequence[Result]) -> list[PlotRow]:
    """Return the rows of the cells that are done, in the table's order."""
    rows = [group for group in groups(results) if group[0].status == "done"]
    axes = axes_of([group[0].cell for group in rows])
    return [
        PlotRow(
            one_line(group[0].cell.backbone_label),
            one_line(group[0].cell.method),
            {name: one_line(texts[index]) for name, texts in axes.items()},
            tuple(group),
        )
        for index, group in enumerate(rows)
    ]


def legend_names(rows: Sequence[PlotRow], most: int, *without: str) -> dict[str, str]:
    """Return what rows are called in a legend, by the key of their first cell: by their variants, or, where these are
    more than `most` that can be told apart, by their methods.

    Args:
        without: headers that are not among what tells variants apart.
    """
    names = {row.cell.key: row.variant(*without) for row in rows}
    return names if len(set(names.values())) <= most else {row.cell.key: row.method for row in rows}


def evaluated_rows(runs: Runs, metric: Metric) -> list[PlotRow]:
    """Return the rows that have the accuracy."""
    return [row for row in plot_rows(runs.results) if metric in row.values]


def intervals(runs: CellFolders, row: PlotRow, metrics: Sequence[Metric]) -> dict[Metric, Interval]:
    """Return the 95 % intervals of a row's accuracies; of none whose predictions are not there or are damaged."""
    seeds = [result.cell.seed for result in row.results]
    try:
        kept = predicted(runs, row.results)
        of_all = {metric: outcomes(kept, seeds, metric) for metric in metrics}
    except (OSError, ValueError):
        return {}
    return {
        metric: accuracy(found.right, found.labels if found.by_class else None)
        for metric, found in of_all.items()
        if found is not None and found.names
    }
