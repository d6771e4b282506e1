"""A report: what is rendered, in whatever format."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.runs import Runs
from bench.report.table import ResultTable


@dataclass(frozen=True)
class Report:
    """Runs and their table.

    Attributes:
        runs: the source, with the results that were chosen alone.
        table: of these.
    """

    runs: Runs
    table: ResultTable
