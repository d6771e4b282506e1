"""Trials of a run's recipes: what each row gained by its tuning, and what of the gap between two rows tuning made."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from bench.errors import UserError
from bench.report.axes import axes_of
from bench.report.formats import pipe_table, text_table
from bench.report.table import budgets
from bench.run.result import Result
from bench.run.store import Run
from bench.spec import Cell
from bench.text import counted, one_line
from bench.tune.choose import accuracy
from bench.tune.record import StudyRecord, records


@dataclass(frozen=True)
class TunedRow:
    """Search for the recipe of one row of the table.

    Attributes:
        labels: its texts by header: backbone, strategy and what tells rows apart.
        record: the study.
        results: of the trials that ended, by number.
    """

    labels: dict[str, str]
    record: StudyRecord
    results: Mapping[int, Result]

    @property
    def accuracies(self) -> dict[int, float]:
        """Accuracy on validation videos in percent, of each trial that has one, by number."""
        found = {number: accuracy(result) for number, result in self.results.items()}
        return {number: value for number, value in sorted(found.items()) if value is not None}

    @property
    def untuned(self) -> float | None:
        """Accuracy of the recipe as it is."""
        return self.accuracies.get(0)

    @property
    def best(self) -> float | None:
        """Accuracy of the trial that was chosen; None while none is."""
        return None if self.record.tuning is None else self.accuracies.get(self.record.tuning.chosen)

    @property
    def setting(self) -> tuple[object, ...]:
        """Return what rows share whose gaps are of interest."""
        cell, budget = self.record.cell, self.record.budget
        effort = (budget.trials, budget.epochs, budget.seed, budget.sampler_seed)
        return cell.backbone_label, cell.dataset, cell.data, cell.frames, cell.train_fraction, *effort


@dataclass(frozen=True)
class Gap:
    """Difference of two rows on the validation videos, in percentage points.

    Attributes:
        untuned: between the recipes as they are.
        tuned: between the ones that were chosen.
    """

    row: TunedRow
    other: TunedRow
    untuned: float
    tuned: float

    @property
    def made(self) -> float:
        """Part of the tuned gap that tuning made: negative where it closed the gap."""
        return self.tuned - self.untuned


def tuned_rows(run: Run) -> list[TunedRow]:
    """Return the searches of a run, in its order.

    Raises:
        UserError: the run has none, or run.json cannot be read.
    """
    found = records(run)
    if not found:
        raise UserError([f"the run {str(run.folder)!r} has no trials: expected one of `bench run --tune N`"])
    results = {result.cell.folder: result for result in run.trials()}
    cells = [record.cell for record in found]
    axes = axes_of(cells)
    rows = []
    for index, record in enumerate(found):
        own = {number: results[name] for number, name in enumerate(record.trials) if name in results}
        texts = {name: one_line(values[index]) for name, values in axes.items()}
        cell = record.cell
        rows.append(TunedRow({"backbone": cell.backbone_label, "strategy": cell.method, **texts}, record, own))
    if len({tuple(row.labels.values()) for row in rows}) < len(rows):  # one row, searched with several budgets
        for row in rows:
            budget = row.record.budget
            row.labels["budget"] = f"{budget.trials} of {counted(budget.epochs, 'epoch')}, seed {budget.sampler_seed}"
            row.labels["space"] = ", ".join(name.removeprefix("options.") for name in budget.space)
    return rows


def gaps(rows: Sequence[TunedRow]) -> list[Gap]:
    """Return the differences between any two rows that are tuned in the same setting, the tuned better one first."""
    found = []
    for one, other in combinations(rows, 2):
        known = (one.untuned, other.untuned, one.best, other.best)
        # of one row that was searched in two spaces there is no gap
        if one.setting != other.setting or one.record.cell == other.record.cell or None in known:
            continue
        first, second = (one, other) if (one.best or 0) >= (other.best or 0) else (other, one)
        untuned = (first.untuned or 0.0) - (second.untuned or 0.0)
        found.append(Gap(first, second, untuned, (first.best or 0.0) - (second.best or 0.0)))
    return found


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.removeprefix('options.')} {f'{value:g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )


def _of_rows(rows: Sequence[TunedRow]) -> tuple[list[str], list[list[str]], int]:
    """The headers, the lines and the number of leading texts of the table of searches."""
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    headers = [*labels, "trials", "failed", "as it is %", "lowest %", "median %", "deviation", "best %", "chosen"]
    lines = []
    for row in rows:
        budget, found = row.record.budget, list(row.accuracies.values())
        failed = sum(accuracy(result) is None for result in row.results.values())
        ended = len(row.results)
        tuning = row.record.tuning
        lines.append(
            [
                *(row.labels.get(name, "-") for name in labels),
                str(ended) if ended == budget.trials else f"{ended} of {budget.trials}",
                str(failed),
                _percent(row.untuned),
                _percent(min(found, default=None)),
                _percent(statistics.median(found) if found else None),
                _percent(statistics.stdev(found) if len(found) > 1 else None),
                _percent(row.best),
                "-" if tuning is None else f"{tuning.chosen}: {_values(tuning.values)}",
            ]
        )
    return headers, lines, len(labels)


def _of_gaps(found: Sequence[Gap]) -> tuple[list[str], list[list[str]], int]:
    headers = ["backbone", "row", "against", "gap as they are", "gap tuned", "made by tuning"]
    lines = [
        [
            gap.row.labels["backbone"],
            _name(gap.row),
            _name(gap.other),
            f"{gap.untuned:+.1f}",
            f"{gap.tuned:+.1f}",
            f"{gap.made:+.1f}" + (f" ({100 * gap.made / gap.tuned:.0f} %)" if gap.tuned else ""),
        ]
        for gap in found
    ]
    return headers, lines, 3


def _name(row: TunedRow) -> str:
    """The row without its backbone."""
    return " ".join(text for name, text in row.labels.items() if name != "backbone")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _below(rows: Sequence[TunedRow]) -> list[str]:
    """Return what a reader of the tables must know."""
    notes = dict.fromkeys(note for row in rows for result in row.results.values() for note in result.footnotes)
    return [
        *budgets([row.record.budget for row in rows]),
        "accuracies of trials on validation videos; that of the best is the highest of so many, and so too high: the "
        "table of the run has the test's",
        *map(one_line, notes),
    ]


def _rendered(rows: Sequence[TunedRow], table: Callable[[Sequence[str], Sequence[Sequence[str]], int], str]) -> str:
    found = gaps(rows)
    parts = [table(*_of_rows(rows)), *([table(*_of_gaps(found))] if found else [])]
    return "\n".join([*parts, "".join(f"{line}  \n" for line in _below(rows))])


def _csv(rows: Sequence[TunedRow]) -> str:
    """A line for each trial."""
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    names = list(dict.fromkeys(name for row in rows for name in row.record.budget.space))
    records_of = []
    for row in rows:
        for number, folder in enumerate(row.record.trials):
            result = row.results.get(number)
            cell = None if result is None else result.cell
            records_of.append(
                {
                    **row.labels,
                    "trial": number,
                    "cell": folder.rpartition("-")[2],
                    "status": "" if result is None else result.status,
                    "val_top1": "" if (value := accuracy(result)) is None else f"{value:.6g}",
                    "chosen": row.record.tuning is not None and row.record.tuning.chosen == number,
                    "epochs": row.record.budget.epochs,
                    **({} if cell is None else {name: _value(cell, name) for name in row.record.budget.space}),
                    "error": "" if result is None or result.error is None else one_line(result.error),
                }
            )
    file = io.StringIO()
    columns = [*labels, "trial", "cell", "status", "val_top1", "chosen", "epochs", *names, "error"]
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records_of)
    return file.getvalue()


def _value(cell: Cell, name: str) -> Any:
    _, dot, option = name.partition(".")
    return cell.options[option] if dot else getattr(cell.recipe, name)


TUNING_RENDERERS: dict[str, Callable[[Sequence[TunedRow]], str]] = {
    "terminal": lambda rows: _rendered(rows, text_table).replace("  \n", "\n"),
    "markdown": lambda rows: _rendered(rows, pipe_table),
    "csv": _csv,
}
