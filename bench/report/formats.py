"""The formats of `bench report`, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.columns import frame, to_csv
from bench.report import markdown, terminal
from bench.report.sheet import make_sheet
from bench.result import Result

FORMATS: dict[str, Callable[[Sequence[Result]], str]] = {
    "terminal": lambda results: terminal.render(make_sheet(results)),
    "markdown": lambda results: markdown.render(make_sheet(results)),
    "csv": lambda results: to_csv(frame(list(results))),
}
