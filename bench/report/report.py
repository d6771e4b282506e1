"""A report: what is rendered, in whatever format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.runs import Runs
from bench.report.table import ResultTable
from bench.run.result import Result


@dataclass(frozen=True)
class Report:
    """Runs, what was chosen of them, and the table of that.

    Attributes:
        runs: the source, with the files of the cells.
        results: those that were chosen, in the runs' order.
        table: of these.
    """

    runs: Runs
    results: Sequence[Result]
    table: ResultTable
