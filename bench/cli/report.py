"""`bench report`: the comparison table of a run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UserError


class Format(StrEnum):
    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"


def report(
    run: Annotated[
        str | None, typer.Argument(help="A run's folder, or its name under results/. [default: the latest run]")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to render it.")] = Format.terminal,
    output: Annotated[Path | None, typer.Option(help="Write to this file in place of the terminal.")] = None,
) -> None:
    """Render a run's comparison table: best values marked, failed cells shown, footnotes below."""
    from bench.report.formats import FORMATS
    from bench.runner.start import RESULTS
    from bench.store import find

    chosen = find(run, RESULTS)
    results = chosen.results()
    if not results:
        raise UserError([f"the run {str(chosen.folder)!r} has no results yet"])
    if output is None and format_ is Format.terminal and sys.stdout.isatty():
        from rich.console import Console

        from bench.report.sheet import make_sheet
        from bench.report.terminal import table

        Console(highlight=False).print(table(make_sheet(results)))
        return
    text = FORMATS[format_.value](results)
    if output is None:
        sys.stdout.write(text)
        return
    from bench.files import write_text

    try:
        write_text(output, text)
    except OSError as error:
        raise UserError([f"output is {str(output)!r}: cannot be written ({error.strerror or error})"]) from error
