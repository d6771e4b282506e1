"""Intervals of the accuracies of a table's row."""

from __future__ import annotations

from collections.abc import Sequence

from bench.run.result import Result
from bench.stats.bootstrap import Interval, accuracy
from bench.stats.outcomes import METRICS, CellFolders, outcomes, predicted


def intervals_of(run: CellFolders, results: Sequence[Result]) -> dict[str, Interval]:
    """Return the intervals of cells that differ in the seed alone, by the accuracy's column.

    A row has none of an accuracy that it lacks, and none at all where predictions are not there or are damaged: the
    accuracies themselves stand in the results.
    """
    try:
        found = predicted(run, results)
        of_all = {name: outcomes(found, [result.cell.seed for result in results], name) for name in METRICS}
    except (OSError, ValueError):
        return {}
    return {
        name: accuracy(each.right, each.labels if each.by_class else None)
        for name, each in of_all.items()
        if each is not None and each.names
    }
