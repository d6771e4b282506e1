"""The comparison table itself, before any format: rows, columns, best values, footnotes."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from bench.report.axes import axes_of, label_of
from bench.run.columns import row as csv_row
from bench.run.result import Result, Status
from bench.spec import Budget
from bench.stats.bootstrap import Interval
from bench.text import counted, one_line, quantity

_PERCENT = frozenset({"top1", "top5", "mean_class", "top1_reversed", "top1_shuffled", "val_top1", "loader_wait"})
Best = Literal["bold", "none"]


@dataclass(frozen=True)
class Column:
    """A column of numbers, or of texts out of results.csv.

    Attributes:
        key: of the rows' values: a column of results.csv, or of a pivot with the value that the rows have there.
        header: as shown, with the unit.
        digits: after the point, at least; of percents no more, see `bench.text.quantity` for the others. None: six that
            count, and no zeros at the end.
        better: which end of the scale is marked; None where neither is a merit.
        spread: whether the spread over seeds is shown.
        of: column of results.csv that a pivot's column shows; empty where the key is one.
        numeric: no text stands in it.
    """

    key: str
    header: str
    digits: int | None
    better: Literal["high", "low"] | None = None
    spread: bool = False
    of: str = ""
    numeric: bool = True

    @property
    def quantity(self) -> str:
        """The column of results.csv."""
        return self.of or self.key

    def text(self, value: float) -> str:
        """A value as shown."""
        if self.digits is None:
            return f"{value:.6g}"
        return f"{value:.{self.digits}f}" if self.quantity in _PERCENT else quantity(value, self.digits)


_TOP5 = Column("top5", "top-5 %", 1, "high")
NUMBERS = (
    Column("top1", "top-1 %", 1, "high", spread=True),
    _TOP5,
    Column("mean_class", "mean class %", 1, "high"),
    Column("top1_reversed", "reversed %", 1),
    Column("top1_shuffled", "shuffled %", 1),
    Column("params_m", "params M", 2),
    Column("trained_params_m", "trained M", 3, "low"),
    Column("gmacs_total", "GMACs", 3, "low"),
    Column("train_clips_per_s", "train clips/s", 0, "high"),
    # of trainings that may run side by side on a CPU: no contest
    Column("train_clips_per_s_loaded", "loaded clips/s", 0),
    Column("loader_wait", "loader wait %", 1),
    Column("infer_clips_per_s", "infer clips/s", 0, "high"),
    Column("train_memory_gb", "train GB", 3, "low"),
    Column("infer_memory_gb", "infer GB", 3, "low"),
)

_EVALUATED = "evaluated"  # shown where a test video could not be read


@dataclass
class Row:
    """Cells that differ in the seed alone, one cell that failed, a pivot's row, or published figures.

    Attributes:
        labels: the leading columns' texts, by header.
        values: mean over seeds, by a column's key.
        spreads: standard deviation over seeds, where there are two or more.
        intervals: 95 % intervals of accuracies, in place of the spreads.
        alike: columns in which the row is not told apart from the best one.
        texts: what stands in place of numbers, or numbers as others printed them, by a column's key.
        seeds: that stand behind the values.
        status: done, or what became of the cell.
        failure: why there are no numbers; None where there are.
        notes: numbers of the footnotes.
        results: behind the row.
        parts: results behind one column of a pivot, by its key; where all failed, these.
        published: the figures are another source's: they are never best, and never tested.
    """

    labels: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    alike: set[str] = field(default_factory=set)
    texts: dict[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    status: Status = "done"
    failure: str | None = None
    notes: list[int] = field(default_factory=list)
    results: Sequence[Result] = ()
    parts: dict[str, Sequence[Result]] = field(default_factory=dict)
    published: bool = False

    def behind(self, column: Column) -> Sequence[Result]:
        """Return the results behind a number."""
        return self.parts.get(column.key, ()) if self.parts else self.results


@dataclass
class ResultTable:
    """A table ready to be rendered; its rows and columns stay as they are.

    Attributes:
        labels: headers of the leading columns.
        columns: the number columns that have values; the first of all where none has.
        rows: in the run's order.
        footnotes: texts; their numbers count from 1.
        caption: lines on what all rows share.
        marks: bold where the best value of each column is marked, and the second best.
        shaped: rows and columns were asked for, so that formats of cells (csv, json) show these and not the cells.
        by: of a pivot, name of what its columns are values of.
        title: above the table, and `reference` its name in other texts, in formats that have them.
    """

    labels: list[str]
    columns: list[Column]
    rows: list[Row]
    footnotes: list[str]
    caption: list[str]
    marks: Best = "bold"
    shaped: bool = False
    by: str = ""
    title: str = ""
    reference: str = ""

    @property
    def noted_label(self) -> str:
        """The leading column in which the numbers of footnotes stand."""
        return self.labels[min(1, len(self.labels) - 1)]

    @property
    def failures(self) -> list[str]:
        """A line for each cell without numbers."""
        return [
            f"{' '.join(row.labels[label] for label in self.labels)}: {row.failure}"
            for row in self.rows
            if row.failure is not None
        ]

    def number(self, row: Row, column: Column) -> str:
        """A number as shown; what became of the cell in place of the first one, `-` where there is none."""
        value = row.values.get(column.key)
        if column.key in row.texts:
            return row.texts[column.key]
        if value is None:
            return row.status if row.failure is not None and column is self.columns[0] else "-"
        return column.text(value)

    def spread(self, row: Row, column: Column) -> str:
        """The interval or the deviation beside a number; empty where there is none."""
        if (found := row.intervals.get(column.key)) is not None:
            return f"[{column.text(found.low)}, {column.text(found.high)}]"
        if column.spread and column.key in row.spreads:
            return f"± {column.text(row.spreads[column.key])}"
        return ""

    def text(self, row: Row, column: Column) -> str:
        """A number as shown, with its interval or deviation; ≈ where it is not told apart from the best."""
        parts = [self.number(row, column), self.spread(row, column), "≈" if column.key in row.alike else ""]
        return " ".join(part for part in parts if part)

    def best(self, row: Row, column: Column) -> bool:
        """Return whether the row holds the column's best value, as it is shown; ties are marked unless all rows tie."""
        return self._ranked(row, column, 0)

    def second(self, row: Row, column: Column) -> bool:
        """Return whether the row holds the next value after the best, as it is shown."""
        return self._ranked(row, column, 1)

    def _ranked(self, row: Row, column: Column, rank: int) -> bool:
        if row.published or self.marks == "none" or column.key not in self._leading:
            return False
        return row.values.get(column.key) in self._leading[column.key][rank]

    @cached_property
    def _leading(self) -> dict[str, tuple[set[float], set[float]]]:
        """Values of each column in which one is better that are shown as its best, and as its second.

        Of two different values as they are shown the other one is the last as well, and not marked as the second.
        """
        found = {}
        for column in self.columns:
            if column.better is None:
                continue
            values = {row.values[column.key] for row in self.rows if column.key in row.values and not row.published}
            as_shown = {value: float(column.text(value)) for value in values}
            order = sorted(set(as_shown.values()), reverse=column.better == "high")
            if len(order) > 1:
                ranked = [{value for value in values if as_shown[value] == shown} for shown in order[:2]]
                found[column.key] = (ranked[0], ranked[1] if len(order) > 2 else set())
        return found


def groups(results: Iterable[Result]) -> list[list[Result]]:
    """Return done cells that differ in the seed alone together, every other cell by itself, in order."""
    found: dict[str, list[Result]] = {}
    for result in results:
        key = result.cell.model_copy(update={"seed": 0}).key
        found.setdefault(key if result.status == "done" else f"{key} {result.cell.key}", []).append(result)
    return list(found.values())


def make_table(results: Sequence[Result], missing: int = 0, deviations: bool = True) -> ResultTable:
    """The comparison table of a run, or of several.

    Args:
        results: the rows, those of the same cell in several seeds together.
        missing: how many cells have no result.
        deviations: the caption says that means stand with deviations; not so where intervals are to take their place.
    """
    axes = axes_of([result.cell for result in results])
    texts = {id(result): {name: values[index] for name, values in axes.items()} for index, result in enumerate(results)}
    incomplete = any(m.evaluated < m.listed for result in results if (m := result.metrics))
    seeds = {result.cell.seed for result in results if result.status == "done"}
    notes: dict[str, int] = {}
    rows = []
    for group in groups(results):
        first = group[0]
        backbone, strategy = label_of(first.cell)
        labels = {"backbone": backbone, "strategy": strategy, **texts[id(first)]}
        row = Row(labels, status=first.status, results=group)
        if incomplete:
            row.labels[_EVALUATED] = _evaluated(group)
        row.labels = {name: one_line(text) for name, text in row.labels.items()}
        told = list(dict.fromkeys(one_line(note) for result in group for note in result.footnotes))
        if first.status != "done":
            row.failure = one_line(f"{first.status} (seed {first.cell.seed}): {first.error}")
        else:
            _fill(row, group)
            if set(row.seeds) != seeds:
                told.append(f"seed{'s' * (len(row.seeds) != 1)} {', '.join(map(str, row.seeds))} alone")
        row.notes = sorted(notes.setdefault(text, len(notes) + 1) for text in told)
        rows.append(row)
    headers = ["backbone", "strategy", *axes, *([_EVALUATED] if incomplete else [])]
    return ResultTable(headers, _shown(rows, results), rows, list(notes), caption_of(results, missing, deviations))


def _shown(rows: Sequence[Row], results: Sequence[Result]) -> list[Column]:
    """The columns that have values."""
    # of a few classes all cells lack top-5: `-` says so better than no column
    shown = {key for row in rows for key in row.values} | {_TOP5.key for row in rows if NUMBERS[0].key in row.values}
    if all(map(_blind, results)):
        shown -= {"top1_reversed", "top1_shuffled"}
    return [column for column in NUMBERS if column.key in shown] or [NUMBERS[0]]


def _blind(result: Result) -> bool:
    """Test that the order of the frames means nothing to a method, and that its accuracies bear that out."""
    metrics = result.metrics
    if metrics is None:
        return True
    same = {metrics.top1_reversed, metrics.top1_shuffled} <= {metrics.top1, None}
    return metrics.order_aware is False and same


def _evaluated(group: Sequence[Result]) -> str:
    """Videos that stand behind a group's accuracies, of those listed."""
    counts = dict.fromkeys(f"{m.evaluated} / {m.listed}" for result in group if (m := result.metrics))
    return ", ".join(counts) or "-"


def _fill(row: Row, group: Sequence[Result]) -> None:
    records = [csv_row(result) for result in group]
    row.seeds = tuple(sorted(result.cell.seed for result in group))
    for column in NUMBERS:
        fill(row, column, [record[column.key] for record in records])


def fill(row: Row, column: Column, values: Sequence[float | None]) -> None:
    """Put the mean of seeds into a row's column, and the standard deviation where there are two or more."""
    # two lines of a mean and a deviation: importing pandas takes 1.2 s of CPU, longer than a report of 1,000 rows
    numbers = [value for value in values if value is not None]
    if numbers:
        row.values[column.key] = statistics.fmean(numbers)
    if len(numbers) > 1:
        row.spreads[column.key] = statistics.stdev(numbers)


_SPEEDS = {"train_clips_per_s", "infer_clips_per_s", "train_ms", "infer_ms"}
# beginnings of the caption's lines, and of footnotes, that are about some columns alone
_ABOUT = {
    "top-5 of": {"top5"},
    "speed measured while": _SPEEDS,
    "speed and memory": _SPEEDS | {"train_memory_gb", "infer_memory_gb"},
    "loaded clips/s": {"train_clips_per_s_loaded", "loader_wait"},
}  # fmt: skip


def relevant(caption: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """Return the lines of a caption without those on columns that are not there."""
    keys = {column.quantity for column in columns}
    apart = [begin for begin, about in _ABOUT.items() if not about & keys]
    return [line for line in caption if not line.startswith(tuple(apart))]


def caption_of(results: Sequence[Result], missing: int, deviations: bool = True) -> list[str]:
    """Lines on what all rows share; see `make_table`."""
    lines = []
    if missing:
        cells = f"{missing:,} of {counted(missing + len(results), 'cell')}"
        lines.append(f"without a result, and not shown: {cells} (not run to the end, or a damaged file)")
    done = [result for result in results if result.status == "done" and result.measured]
    if not done:
        return lines
    protocols = dict.fromkeys(
        f"{r.cell.dataset}, {r.cell.protocol} (frames x clips x crops), "
        f"{counted(r.cell.recipe.epochs, 'epoch')} of batch {r.cell.recipe.batch_size}"
        if r.metrics
        else f"{r.cell.protocol} (frames x clips x crops), not trained"
        for r in done
    )
    seeds = sorted({r.cell.seed for r in done if r.metrics})
    of_seeds = f"; mean{' ± standard deviation' * deviations} over seeds {', '.join(map(str, seeds))}"
    several = of_seeds if len(seeds) > 1 else ""
    lines.append(one_line("; ".join(protocols)) + several)
    tuned = [r.cell.tuning for r in done if r.cell.tuning is not None]
    lines += budgets(tuned)
    if tuned and (others := sum(r.cell.tuning is None for r in done)):
        lines.append(f"of {counted(others, 'cell')} the recipe was not tuned")
    if any(r.metrics and r.metrics.top5 is None for r in done):
        lines.append("top-5 of five classes or fewer is 100 % by definition, and left out")
    speeds = dict.fromkeys(
        f"{m.device}, {r.cell.precision}, batch {m.batch_size}"
        + (f", {counted(m.threads, 'thread')}" if r.cell.device == "cpu" else "")
        for r in done
        if (m := r.measured)
    )
    lines.append(f"speed and memory: {'; '.join(speeds)}")
    if any(r.training and r.training.train_clips_per_s_loaded is not None for r in done):
        shared = any(r.cell.device == "cpu" for r in done)
        lines.append(
            "loaded clips/s: of the training itself, from decoding to step; loader wait: share of it in which the step "
            "waited for clips" + ("; on a CPU cells train side by side and share its cores" if shared else "")
        )
    return lines


def budgets(found: Iterable[Budget]) -> list[str]:
    """Return a line on each effort with which recipes were chosen, with all that was varied at it."""
    named: dict[str, list[str]] = {}
    for budget in found:
        told = (
            f"recipe of each row chosen by {counted(budget.trials, 'trial')} of {counted(budget.epochs, 'epoch')} "
            f"(seed {budget.seed}) on validation videos; {budget.sampler}, seed {budget.sampler_seed}"
        )
        named.setdefault(told, []).extend(name.removeprefix("options.") for name in budget.space)
    return [f"{told}; over {', '.join(dict.fromkeys(names))}" for told, names in named.items()]
