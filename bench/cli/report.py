"""`bench report`: the comparison table of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import not_among
from bench.cli.output import obstacles, say, write
from bench.errors import UserError

FORMATS = ("terminal", "markdown", "csv", "html")


def report(
    run: Annotated[
        str | None, typer.Argument(help="A run's folder, or its name under results/. [default: the latest run]")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help=f"How to render it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "terminal",
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Show accuracies with 95 % intervals over test videos and seeds.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write to this file in place of the terminal.")] = None,
) -> None:
    """Render a run's comparison table: best values marked, failed cells shown, footnotes below."""
    from bench.run.store import RESULTS, find

    problems = not_among("format", format_, FORMATS)
    problems += [] if output is None else obstacles("output", output)
    try:
        chosen = find(run, RESULTS)
        results, lost = chosen.read()
        missing = len(lost)
        if not results:
            problems.append(f"the run {str(chosen.folder)!r} has no results yet: expected at least one cell that ended")
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    from bench.report.table import groups, make_table

    found = None
    if intervals:
        from bench.stats.intervals import intervals_of

        rows = [group for group in groups(results) if group[0].status == "done"]
        found = {group[0].cell.key: intervals_of(chosen, group) for group in rows}
    table = make_table(results, missing, found)
    if output is None and format_ == "terminal" and sys.stdout.isatty():
        from rich.console import Console

        from bench.report.terminal import TableView

        Console(highlight=False).print(TableView(table))
        return

    from bench.report.formats import RENDERERS

    if format_ == "html":
        from bench.report.page.render import render_page
        from bench.report.runs import Runs

        text = render_page(Runs([chosen]), table)
    else:
        text = RENDERERS[format_](results, table)
    if output is None:
        say(text)
    else:
        write("output", output, text)
