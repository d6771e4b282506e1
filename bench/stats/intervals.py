"""Intervals of the accuracies of a table's rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.run.result import Result
from bench.stats.bootstrap import Interval, accuracies
from bench.stats.outcomes import CellFolders, Metric, Outcomes, outcomes_by_metric, predicted


def outcomes_of(runs: CellFolders, results: Sequence[Result], metrics: Sequence[Metric]) -> dict[Metric, Outcomes]:
    """Return the outcomes of cells that differ in the seed alone, by metric; without those that they lack.

    Raises:
        OSError: predictions are not there, or cannot be read.
        ValueError: they are damaged, or a video has different classes in two of them.
    """
    found = outcomes_by_metric(predicted(runs, results), [result.cell.seed for result in results], metrics)
    return {metric: each for metric, each in found.items() if each.names}


def intervals_of(rows: Sequence[Outcomes]) -> list[Interval]:
    """Return the intervals of accuracies, in their order. Those of as many seeds and videos are computed together."""
    together: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        classes = row.labels.tobytes() if row.by_class else None
        together.setdefault((row.right.shape, classes), []).append(index)
    found: dict[int, Interval] = {}
    for indices in together.values():
        first = rows[indices[0]]
        right = np.stack([rows[index].right for index in indices])
        found |= zip(indices, accuracies(right, first.labels if first.by_class else None), strict=True)
    return [found[index] for index in range(len(rows))]
