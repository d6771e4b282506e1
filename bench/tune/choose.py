"""Choice of a recipe among the trials of a study."""

from __future__ import annotations

from collections.abc import Mapping

from bench.run.result import Result
from bench.tune.trials import Study


def accuracy(result: Result | None) -> float | None:
    """Return the accuracy of a trial on its validation videos, in percent; None where it has none.

    Raises:
        ValueError: the result is not one of validation videos.
    """
    if result is None or result.metrics is None:
        return None
    if result.cell.trial is None or result.cell.split != "val":
        raise ValueError(f"{result.cell.label} is not a trial on validation videos")
    return result.metrics.top1


def best(study: Study, results: Mapping[str, Result]) -> int | None:
    """Return the number of the trial with the highest validation accuracy; of equal ones the first.

    Args:
        results: of the study's trials, by their cells' keys.

    Returns:
        None where a trial has not ended, where one has failed by something else than its values, or where none has an
        accuracy.
    """
    found = [results.get(trial.key) for trial in study.trials]
    if not all(result is not None and result.final for result in found):
        return None
    accuracies = {number: value for number, result in enumerate(found) if (value := accuracy(result)) is not None}
    return max(accuracies, key=lambda number: (accuracies[number], -number)) if accuracies else None
