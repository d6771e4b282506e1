"""The comparison table itself, before any format: rows, columns, best values, footnotes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.columns import row as csv_row
from bench.result import Result


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        key: of results.csv.
        header: as shown, with the unit.
        digits: after the point.
        better: which end of the scale is marked; None where neither is a merit.
        spread: whether the spread over seeds is shown.
    """

    key: str
    header: str
    digits: int
    better: Literal["high", "low"] | None = None
    spread: bool = False


NUMBERS = (
    Column("top1", "top-1 %", 1, "high", spread=True),
    Column("top5", "top-5 %", 1, "high"),
    Column("mean_class", "mean class %", 1, "high"),
    Column("top1_reversed", "reversed %", 1),
    Column("top1_shuffled", "shuffled %", 1),
    Column("params_m", "params M", 2),
    Column("trained_params_m", "trained M", 3, "low"),
    Column("gmacs_total", "GMACs", 3, "low"),
    Column("train_clips_per_s", "train clips/s", 0, "high"),
    Column("infer_clips_per_s", "infer clips/s", 0, "high"),
    Column("train_memory_gb", "train GB", 3, "low"),
    Column("infer_memory_gb", "infer GB", 3, "low"),
)

# shown as columns where cells of one backbone and strategy differ in them
_AXES: dict[str, Callable[[Result], str]] = {
    "data set": lambda r: r.cell.dataset,
    "frames": lambda r: str(r.cell.frames),
    "views": lambda r: f"{r.cell.clips}x{r.cell.crops}",
    "options": lambda r: " ".join(f"{name}={value}" for name, value in sorted(r.cell.options.items())),
    "epochs": lambda r: str(r.cell.recipe.epochs),
    "batch": lambda r: str(r.cell.recipe.batch_size),
    "rate": lambda r: f"{r.cell.recipe.lr:g}",
    "precision": lambda r: r.cell.precision,
    "device": lambda r: r.cell.device,
}


@dataclass
class Row:
    """Cells that differ in the seed alone, or one cell that failed.

    Attributes:
        labels: the leading columns' texts, by header.
        values: mean over seeds, by a column's key.
        spreads: standard deviation over seeds, where there are two or more.
        seeds: how many seeds stand behind the values.
        failure: what to show in place of numbers.
        notes: numbers of the footnotes.
    """

    labels: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    seeds: int = 0
    failure: str | None = None
    notes: list[int] = field(default_factory=list)


@dataclass
class Sheet:
    """A table ready to be rendered.

    Attributes:
        labels: headers of the leading columns.
        columns: the number columns that have values.
        rows: in the run's order.
        footnotes: texts; their numbers count from 1.
        caption: lines on what all rows share.
    """

    labels: list[str]
    columns: list[Column]
    rows: list[Row]
    footnotes: list[str]
    caption: list[str]

    def text(self, row: Row, column: Column) -> str:
        """A number as shown; `-` where there is none."""
        value = row.values.get(column.key)
        if value is None:
            return "-"
        shown = f"{value:.{column.digits}f}"
        if column.spread and column.key in row.spreads:
            shown += f" ± {row.spreads[column.key]:.{column.digits}f}"
        return shown

    def best(self, row: Row, column: Column) -> bool:
        """Whether the row holds the column's best value, as it is shown; ties are all marked."""
        if column.better is None or column.key not in row.values:
            return False
        pick = max if column.better == "high" else min
        rounded = [round(other.values[column.key], column.digits) for other in self.rows if column.key in other.values]
        return len(rounded) > 1 and round(row.values[column.key], column.digits) == pick(rounded)


def _groups(results: Iterable[Result]) -> list[list[Result]]:
    """Done cells that differ in the seed alone together, every other cell by itself."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        key = result.cell.model_copy(update={"seed": 0}).key
        groups.setdefault(key if result.status == "done" else f"{key} {result.cell.key}", []).append(result)
    return list(groups.values())


def _label(result: Result) -> tuple[str, str]:
    return f"{result.cell.backbone}@{result.cell.weights_label}", result.cell.strategy


def make_sheet(results: Sequence[Result]) -> Sheet:
    """The comparison table of a run's results."""
    axes = [
        name
        for name, value in _AXES.items()
        if len({(_label(r), value(r)) for r in results}) > len({_label(r) for r in results})
    ]
    notes: dict[str, int] = {}
    rows = []
    for group in _groups(results):
        first = group[0]
        backbone, strategy = _label(first)
        row = Row({"backbone": backbone, "strategy": strategy, **{name: _AXES[name](first) for name in axes}})
        if first.status != "done":
            row.failure = f"{first.status} (seed {first.cell.seed}): {first.error}"
        else:
            _fill(row, [csv_row(result) for result in group])
        for text in dict.fromkeys(note for result in group for note in result.footnotes):
            row.notes.append(notes.setdefault(text, len(notes) + 1))
        rows.append(row)
    columns = [column for column in NUMBERS if any(column.key in row.values for row in rows)]
    return Sheet(["backbone", "strategy", *axes], columns, rows, list(notes), _caption(results))


def _fill(row: Row, records: list[dict[str, Any]]) -> None:
    row.seeds = len(records)
    for column in NUMBERS:
        numbers = [record[column.key] for record in records if record[column.key] is not None]
        if numbers:
            row.values[column.key] = statistics.fmean(numbers)
        if len(numbers) > 1:
            row.spreads[column.key] = statistics.stdev(numbers)


def _caption(results: Sequence[Result]) -> list[str]:
    done = [result for result in results if result.status == "done" and result.measured and result.metrics]
    if not done:
        return []
    lines = []
    protocols = dict.fromkeys(
        f"{r.cell.dataset}, {r.cell.frames}x{r.cell.clips}x{r.cell.crops} (frames x clips x crops), "
        f"{r.cell.recipe.epochs} epochs of batch {r.cell.recipe.batch_size}"
        for r in done
    )
    seeds = sorted({r.cell.seed for r in done})
    several = f"; mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    lines.append("; ".join(protocols) + several)
    speeds = dict.fromkeys(
        f"{m.device}, {r.cell.precision}, batch {m.batch_size}"
        + (f", {m.threads} threads" if r.cell.device == "cpu" else "")
        for r in done
        if (m := r.measured)
    )
    lines.append(f"speed and memory: {'; '.join(speeds)}")
    return lines
