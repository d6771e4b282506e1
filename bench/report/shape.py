"""The table that a command asks for: which cells, which rows and columns, and what stands beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.errors import UserError, collected
from bench.papers.tables import find_table
from bench.report.layout import lay_out
from bench.report.pivot import pivot
from bench.report.published import FIGURES, Figures, read_published, with_published
from bench.report.report import Report
from bench.report.runs import Runs
from bench.report.select import ordered, unknown_columns, unsortable, where, with_columns
from bench.report.table import Best, ResultTable, make_table
from bench.run.columns import COLUMNS
from bench.run.result import Result


@dataclass(frozen=True)
class Shape:
    """Wishes for a table; the defaults are the table of `bench run`.

    Attributes:
        columns: of results.csv, in place of the usual ones.
        where: conditions that a cell must meet, see `select.where`.
        sort: name of what rows are ordered by; `-NAME` is descending. Empty: as they are.
        best: how best values are marked.
        rows: of a pivot, names of what tells its rows apart.
        by: of a pivot, name of what tells its columns apart; empty where the table is not one.
        metrics: of a pivot, columns of results.csv.
        published: files of published figures whose rows stand below ours, or `published.AIM`.
        layout: name of a published table, whose rows and columns it has; empty where it has its own.
    """

    columns: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    sort: str = ""
    best: Best = "bold"
    rows: tuple[str, ...] = ()
    by: str = ""
    metrics: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    layout: str = ""

    def problems(self) -> list[str]:
        """Return what is wrong with it whatever the results are."""
        found = unknown_columns(self.columns) + unknown_columns(self.metrics, "metric")
        for name, given in (("rows", self.rows), ("metric", self.metrics)):
            if given and not self.by:
                found.append(f"{name} is {','.join(given)!r}: expected --by NAME too, of which each value is a column")
        if self.layout:
            try:
                find_table(self.layout, "layout")
            except UserError as error:
                found += error.problems
            clashing = {"columns": ",".join(self.columns), "by": self.by, "published": ",".join(self.published)}
            found += [
                f"{name} is {text!r}: a layout has rows, columns and published figures of its own"
                for name, text in clashing.items()
                if text
            ]
        if self.by and self.columns:
            found.append(f"columns is {','.join(self.columns)!r}: with --by the columns are its values; see --metric")
        return found


def shaped(runs: Runs, shape: Shape, intervals: bool = False, others: Sequence[str] = ()) -> Report:
    """Return the report on the results that a shape chooses.

    Args:
        runs: the source.
        shape: of the table.
        intervals: accuracies stand with their intervals, and are tested against the best; else with deviations.
        others: sentences on what else is wrong with the command, which are told together with those on the shape.

    Raises:
        UserError: `others`, the shape's own problems, names or values that the results do not have, or a file of
            published figures that is not one.
    """
    problems = [*others, *shape.problems()]
    figures: list[Figures] = []
    results, table = list(runs.results), None
    with collected(problems):
        figures = read_published(shape.published)
    with collected(problems):
        results = where(runs.results, shape.where)
    with collected(problems):
        table = _rows_and_columns(runs, results, shape, intervals)
    if table is not None and shape.sort:
        problems += unsortable(table, shape.sort, (FIGURES,) if shape.published else ())
    if problems or table is None:
        raise UserError(list(dict.fromkeys(problems)))
    table = replace(table, marks=shape.best, caption=[*table.caption, *runs.notes])
    if intervals:
        # numpy is not imported for tables that have no intervals
        from bench.report.uncertainty import with_uncertainty

        table = with_uncertainty(table, runs, tested=shape.best != "none")
    if shape.published:
        table = replace(with_published(table, figures, shape.where), shaped=True)
    return Report(runs.only(results), ordered(table, shape.sort) if shape.sort else table)


def _rows_and_columns(runs: Runs, results: Sequence[Result], shape: Shape, intervals: bool) -> ResultTable:
    """The table without uncertainties, in the results' order; columns that are not ones are left out."""
    if shape.layout:
        return lay_out(find_table(shape.layout, "layout"), results, partial(make_table, deviations=not intervals))
    if shape.by:
        metrics = shape.metrics or ("top1",)
        return pivot(results, shape.by, metrics, shape.rows, runs.missing, not intervals)
    table = _told_apart(make_table(results, runs.missing, not intervals), runs)
    columns = [name for name in shape.columns if name in COLUMNS]
    return with_columns(table, columns) if columns else table


def _told_apart(table: ResultTable, runs: Runs) -> ResultTable:
    """The table with a column of the runs' names where rows of several runs would look the same."""
    rows = [row for row in table.rows if row.failure is None]
    if len(runs.folders) == 1 or len({tuple(row.labels.values()) for row in rows}) == len(rows):
        return table
    for row in table.rows:
        names = dict.fromkeys(runs.run_of(result.cell).folder.name for result in row.results)
        row.labels["run"] = ", ".join(names)
    return replace(table, labels=[*table.labels, "run"])


def names(text: str | None) -> tuple[str, ...]:
    """Return the names of a comma list, each once."""
    return tuple(dict.fromkeys(name for part in (text or "").split(",") if (name := part.strip())))
