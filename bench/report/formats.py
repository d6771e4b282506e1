"""The formats of `bench report`, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.report import markdown, terminal
from bench.report.table import make_table
from bench.run.columns import to_csv
from bench.run.result import Result

# of a run's results and of the number of its cells that have none
RENDERERS: dict[str, Callable[[Sequence[Result], int], str]] = {
    "terminal": lambda results, missing: terminal.render(make_table(results, missing)),
    "markdown": lambda results, missing: markdown.render(make_table(results, missing)),
    "csv": lambda results, missing: to_csv(results),
}
