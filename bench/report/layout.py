"""A run in the shape of a published table: its rows and columns, the published figures beside the run's own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from adapters.base import STRATEGIES
from backbones.families import FAMILIES
from bench.papers.figures import QUANTITIES
from bench.papers.tables import PAPER, PaperTable, PublishedRow
from bench.report.axes import axes_of
from bench.report.table import NUMBERS, Column, ResultTable, Row, groups, make_table, relevant
from bench.run.result import Result
from bench.spec import Cell, Matrix
from bench.text import counted, one_line

_LABELS = ("method", "backbone", "pretraining", "views")
_ACCURACIES = ("top1", "top5")
_HOURS = Column("train_hours", "train hours", 2)


class _Published(Column):
    """A column of printed figures, in the digits that are printed."""

    def text(self, value: float) -> str:
        return f"{value:.{self.digits}f}" if self.header.endswith("%") else f"{value:g}"


class _Difference(Column):
    """A column of differences in percentage points, with their sign."""

    def text(self, value: float) -> str:
        return f"{value:+.{self.digits}f}"


@dataclass(frozen=True)
class _Match:
    """Seeds of one cell that stand for a row, and how well they do.

    Attributes:
        group: their results.
        rank: 0: backbone and data set are the row's; 1: another data set; 2: counted alone; 3: a family's tiny model in
            place of the row's.
        unlike: what else is not as published, in words.
    """

    group: Sequence[Result]
    rank: int
    unlike: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """True where its accuracy is measured on the row's data set with the row's weights."""
        return self.rank == 0 and not self.unlike


def lay_out(
    paper: PaperTable, results: Sequence[Result], make: Callable[[Sequence[Result]], ResultTable] = make_table
) -> ResultTable:
    """Return the rows and columns of a published table with a run's numbers and, in columns of their own, the figures.

    A row takes the cells of its backbone, strategy, options, frames and share of the training videos, their seeds
    together. Trained cells go before those that were only counted, and these before a family's tiny model, which stands
    for the row's own in a replica; a footnote says so. The difference from a published accuracy is shown where data
    set, weights and views are the paper's. A row of which the run has no cell keeps its figures alone.

    Args:
        make: makes the run's own table of some of the results.
    """
    wanted, every, columns = paper.methods, groups(results), _columns(paper)
    used: dict[str, Result] = {}
    rows: list[Row] = []
    notes: dict[str, int] = {}
    lacking = 0
    for printed in paper.rows:
        matches = [] if printed.method not in wanted else _matches(printed, wanted[printed.method], every)
        axes = axes_of([match.group[0].cell for match in matches])
        lacking += not matches
        for index, match in enumerate(matches):
            row, told = _own(match, make)
            told = [*match.unlike, *(f"{name} {texts[index]}" for name, texts in axes.items()), *told]
            row.notes = sorted(
                notes.setdefault(text, len(notes) + 1) for text in map(one_line, relevant(told, columns))
            )
            rows.append(_labelled(row, printed, match.comparable))
            used |= {result.cell.key: result for result in match.group}
        rows += [] if matches else [_labelled(Row({}, published=True), printed, False)]
    caption = [f"{PAPER}, {paper.title}: {paper.summary}; beside this run's numbers the published ones"]
    if lacking:
        caption.append(f"this run has no cell of {counted(lacking, 'row')}")
    if others := sum(group[0].cell.key not in used for group in every):
        caption.append(f"not shown: {counted(others, 'row')} of this run that the paper's table does not have")
    caption += make(list(used.values())).caption if used else []
    return ResultTable(list(_LABELS), columns, rows, list(notes), relevant(caption, columns), shaped=True)


def _columns(paper: PaperTable) -> list[Column]:
    """The run's column, the published one and, of accuracies, the difference, of each quantity that is printed."""
    own = {column.key: column for column in (*NUMBERS, _HOURS)}
    columns: list[Column] = []
    for name, key in QUANTITIES.items():
        if not any(name in row.figures for row in paper.rows):
            continue
        column = replace(own[key], better=None)
        columns += [column, _Published(f"published_{key}", f"published {column.header}", 1)]
        if key in _ACCURACIES:
            columns.append(_Difference(f"difference_{key}", f"{column.header.removesuffix(' %')} difference", 1))
    return columns


def _labelled(row: Row, printed: PublishedRow, comparable: bool) -> Row:
    """A row under the paper's names, with the published figures."""
    texts = (printed.method, printed.backbone, printed.pretraining, printed.protocol)
    row.labels = dict(zip(_LABELS, texts, strict=True))
    for name, value in printed.figures.items():
        key = QUANTITIES[name]
        row.values[f"published_{key}"] = value
        if comparable and key in _ACCURACIES and key in row.values:
            row.values[f"difference_{key}"] = row.values[key] - value
    return row


def _own(match: _Match, make: Callable[[Sequence[Result]], ResultTable]) -> tuple[Row, list[str]]:
    """The row of the run's own table, and its footnotes."""
    table = make(match.group)
    (row,) = table.rows
    seconds = [result.training.train_seconds for result in match.group if result.training is not None]
    if seconds:
        row.values["train_hours"] = statistics.fmean(seconds) / 3600
    return row, [table.footnotes[number - 1] for number in row.notes]


def _matches(printed: PublishedRow, method: Matrix, every: Sequence[Sequence[Result]]) -> list[_Match]:
    """The cells that stand for a row, of those that there are the ones of the best rank."""
    found = [match for group in every if (match := _match(printed, method, group)) is not None]
    exact = [match for match in found if match.group[0].cell.frames == printed.frames]
    found = exact or [match for match in found if match.rank == 3]
    best = min((match.rank for match in found), default=0)
    return [match for match in found if match.rank == best]


def _match(printed: PublishedRow, method: Matrix, group: Sequence[Result]) -> _Match | None:
    """The seeds of a cell as those of a row; None where its model is another one, whatever its frames are."""
    cell, model = group[0].cell, printed.model
    counts_alone = not cell.stages
    tiny = cell.backbone == f"{model.family}:tiny"
    if cell.backbone != model.architecture and not tiny:
        return None
    if cell.head != "linear" or cell.strategy not in method.strategies or cell.model_file is not None:
        return None
    if not counts_alone and cell.train_fraction not in method.train_fractions:
        return None
    if not _same_options(cell, method.options):
        return None
    protocol = f"{cell.frames}x{cell.views}"
    unlike = []
    if tiny:
        where = f" on {cell.dataset}" if cell.dataset else ""
        unlike.append(f"{cell.backbone_label}{where}, {protocol}, in place of {printed.backbone} on {printed.dataset}")
    else:
        if cell.weights != model.weights and not counts_alone:
            unlike.append(f"weights {cell.weights_label}, published with {model.weights_label}")
        if cell.dataset not in ("", printed.dataset):
            unlike.append(f"on {cell.dataset}, published on {printed.dataset}")
        if protocol != printed.protocol:
            unlike.append(f"views {protocol}, published with {printed.protocol}")
    rank = 3 if tiny else 2 if counts_alone else int(cell.dataset != printed.dataset)
    return _Match(group, rank, tuple(unlike))


def _same_options(cell: Cell, asked: Mapping[str, object]) -> bool:
    """Test that a cell's options are the defaults of its strategy and, over them, those of a method that it takes."""
    strategy = STRATEGIES.get(cell.strategy)
    taken = {name: value for name, value in asked.items() if name in strategy.options.model_fields}
    whole = strategy.options(**taken).model_dump(mode="json")
    fitted, _ = strategy.fit_options(whole, FAMILIES.get(cell.backbone.partition(":")[0]), (cell.frames,))
    return {name: fitted.get(name) for name in cell.options} == cell.options
