"""The comparison table itself, before any format: rows, columns, best values, footnotes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from bench.run.columns import row as csv_row
from bench.run.result import Result, Status
from bench.spec import Cell
from bench.stats.bootstrap import DRAWS, Interval
from bench.text import counted, one_line, quantity


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        key: of results.csv.
        header: as shown, with the unit.
        digits: after the point, at least; of percents no more, see `bench.text.quantity` for the others.
        better: which end of the scale is marked; None where neither is a merit.
        spread: whether the spread over seeds is shown.
    """

    key: str
    header: str
    digits: int
    better: Literal["high", "low"] | None = None
    spread: bool = False

    def text(self, value: float) -> str:
        """A value as shown."""
        return f"{value:.{self.digits}f}" if self.header.endswith("%") else quantity(value, self.digits)


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

# shown as columns where cells differ in them
_AXES: dict[str, Callable[[Cell], str]] = {
    "data set": lambda cell: cell.dataset,
    "frames": lambda cell: str(cell.frames),
    "views": lambda cell: str(cell.views),
    "training videos": lambda cell: cell.train_percent,
    "epochs": lambda cell: str(cell.recipe.epochs),
    "batch": lambda cell: str(cell.recipe.batch_size),
    "precision": lambda cell: cell.precision,
    "device": lambda cell: cell.device,
}
_EVALUATED = "evaluated"  # shown where a test video could not be read
_IN_AXES = frozenset({"epochs", "batch_size"})  # of the recipe


@dataclass
class Row:
    """Cells that differ in the seed alone, or one cell that failed.

    Attributes:
        labels: the leading columns' texts, by header.
        values: mean over seeds, by a column's key.
        spreads: standard deviation over seeds, where there are two or more.
        intervals: 95 % intervals of accuracies, in place of the spreads.
        seeds: that stand behind the values.
        status: done, or what became of the cell.
        failure: why there are no numbers; None where there are.
        notes: numbers of the footnotes.
        results: behind the row.
    """

    labels: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    status: Status = "done"
    failure: str | None = None
    notes: list[int] = field(default_factory=list)
    results: Sequence[Result] = ()


@dataclass
class ResultTable:
    """A table ready to be rendered; its rows and columns stay as they are.

    Attributes:
        labels: headers of the leading columns.
        columns: the number columns that have values; the first of all where none has.
        rows: in the run's order.
        footnotes: texts; their numbers count from 1.
        caption: lines on what all rows share.
    """

    labels: list[str]
    columns: list[Column]
    rows: list[Row]
    footnotes: list[str]
    caption: list[str]

    @property
    def failures(self) -> list[str]:
        """A line for each cell without numbers."""
        return [
            f"{' '.join(row.labels[label] for label in self.labels)}: {row.failure}"
            for row in self.rows
            if row.failure is not None
        ]

    def text(self, row: Row, column: Column) -> str:
        """A number as shown; what became of the cell in place of the first one, `-` where there is none."""
        value = row.values.get(column.key)
        if value is None:
            if row.failure is not None and column is self.columns[0]:
                return row.status
            return "-"
        shown = column.text(value)
        if (found := row.intervals.get(column.key)) is not None:
            shown += f" [{column.text(found.low)}, {column.text(found.high)}]"
        elif column.spread and column.key in row.spreads:
            shown += f" ± {column.text(row.spreads[column.key])}"
        return shown

    def best(self, row: Row, column: Column) -> bool:
        """Return whether the row holds the column's best value, as it is shown; ties are marked unless all rows tie."""
        value = row.values.get(column.key)
        return value is not None and float(column.text(value)) == self._best.get(column.key)

    @cached_property
    def _best(self) -> dict[str, float]:
        """The best value of each column in which one is better, as it is shown."""
        found = {}
        for column in self.columns:
            if column.better is None:
                continue
            shown = {float(column.text(row.values[column.key])) for row in self.rows if column.key in row.values}
            if len(shown) > 1:
                found[column.key] = max(shown) if column.better == "high" else min(shown)
        return found


def groups(results: Iterable[Result]) -> list[list[Result]]:
    """Return done cells that differ in the seed alone together, every other cell by itself, in order."""
    found: dict[str, list[Result]] = {}
    for result in results:
        key = result.cell.model_copy(update={"seed": 0}).key
        found.setdefault(key if result.status == "done" else f"{key} {result.cell.key}", []).append(result)
    return list(found.values())


def _label(cell: Cell) -> tuple[str, str]:
    return cell.backbone_label, cell.method


def _further(cell: Cell) -> dict[str, str]:
    """Return a cell's further parts by name: a column only where it tells cells of one backbone and strategy apart."""
    recipe = cell.recipe.model_dump(exclude=set(_IN_AXES))
    recipe = {"lr": recipe.pop("lr"), **recipe}
    values = {"weights file": cell.weights, **cell.options, **cell.head_options, **recipe}
    where = {f"data {name}" if name == "root" else name: value for name, value in cell.data}
    values |= {
        **where,
        "order test": cell.order_test,
        "decoder": cell.decoder,
        "cache format": cell.cache_format,
        "compiled": cell.compile,
        "checkpointed": cell.checkpoint_activations,
        "kernels": cell.kernels,
        "classes": cell.classes,
    }
    values |= {f"{name} sha256": digest[:8] for name, digest in cell.sources.items()}
    return {name.replace("_", " "): _plain(value) for name, value in values.items()}


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "..".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def axes_of(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """Return the leading columns beside backbone and strategy: header -> a text for each cell."""
    labels = [_label(cell) for cell in cells]
    axes = {name: texts for name, value in _AXES.items() if len(set(texts := [value(cell) for cell in cells])) > 1}
    further = [_further(cell) for cell in cells]
    for name in dict.fromkeys(name for values in further for name in values):
        texts = [values.get(name, "-") for values in further]
        # a learning rate that follows another one tells nothing new
        known = list(zip(labels, *axes.values(), strict=True))
        if len(set(zip(known, texts, strict=True))) > len(set(known)):
            axes[name] = texts
    return axes


def make_table(
    results: Sequence[Result], missing: int = 0, intervals: Mapping[str, Mapping[str, Interval]] | None = None
) -> ResultTable:
    """The comparison table of a run.

    Args:
        results: the rows, those of the same cell in several seeds together.
        missing: how many cells of the run have no result.
        intervals: by the key of a row's first cell, of accuracies by their column.
    """
    axes = axes_of([result.cell for result in results])
    texts = {
        result.cell.key: {name: values[index] for name, values in axes.items()} for index, result in enumerate(results)
    }
    incomplete = any(m.evaluated < m.listed for result in results if (m := result.metrics))
    seeds = {result.cell.seed for result in results if result.status == "done"}
    notes: dict[str, int] = {}
    rows = []
    for group in groups(results):
        first = group[0]
        backbone, strategy = _label(first.cell)
        labels = {"backbone": backbone, "strategy": strategy, **texts[first.cell.key]}
        row = Row(labels, status=first.status, results=group)
        if incomplete:
            row.labels[_EVALUATED] = _evaluated(group)
        row.labels = {name: one_line(text) for name, text in row.labels.items()}
        told = list(dict.fromkeys(one_line(note) for result in group for note in result.footnotes))
        if first.status != "done":
            row.failure = one_line(f"{first.status} (seed {first.cell.seed}): {first.error}")
        else:
            _fill(row, group)
            row.intervals = (intervals or {}).get(first.cell.key, {})
            if set(row.seeds) != seeds:
                told.append(f"seed{'s' * (len(row.seeds) != 1)} {', '.join(map(str, row.seeds))} alone")
        row.notes += [notes.setdefault(text, len(notes) + 1) for text in told]
        rows.append(row)
    # of a few classes all cells lack top-5: `-` says so better than no column
    shown = {key for row in rows for key in row.values} | {_TOP5.key for row in rows if NUMBERS[0].key in row.values}
    if all(map(_blind, results)):
        shown -= {"top1_reversed", "top1_shuffled"}
    columns = [column for column in NUMBERS if column.key in shown] or [NUMBERS[0]]
    headers = ["backbone", "strategy", *axes, *([_EVALUATED] if incomplete else [])]
    caption = _caption(results, missing)
    if intervals is not None:
        caption.append(f"[low, high]: 95 % interval over test videos and seeds, of a bootstrap with {DRAWS:,} draws")
    return ResultTable(headers, columns, rows, list(notes), caption)


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


def _fill(row: Row, group: list[Result]) -> None:
    # two lines of a mean and a deviation: importing pandas takes 1.2 s of CPU, longer than a report of 1,000 rows
    records = [csv_row(result) for result in group]
    row.seeds = tuple(sorted(result.cell.seed for result in group))
    for column in NUMBERS:
        numbers = [record[column.key] for record in records if record[column.key] is not None]
        if numbers:
            row.values[column.key] = statistics.fmean(numbers)
        if len(numbers) > 1:
            row.spreads[column.key] = statistics.stdev(numbers)


def _caption(results: Sequence[Result], missing: int) -> list[str]:
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
    several = f"; mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    lines.append(one_line("; ".join(protocols)) + several)
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
