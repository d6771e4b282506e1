"""`bench compare`: the rows of runs against a baseline, on the same test videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import not_among
from bench.cli.output import obstacles, say, write
from bench.errors import UserError

FORMATS = ("terminal", "markdown", "csv", "json")
METRICS = ("top1", "top5", "mean_class", "top1_reversed", "top1_shuffled")


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs whose rows are compared: folders, or names under results/. [default: the latest run]",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str,
        typer.Option(
            help="Row that the others are compared with: a strategy, of each backbone its own; BACKBONE/STRATEGY for "
            "one of all; 'STRATEGY OPTION=VALUE' where options tell rows apart."
        ),
    ] = "frozen",
    metric: Annotated[str, typer.Option(help=f"Accuracy: {', '.join(METRICS)}.", metavar="METRIC")] = "top1",
    format_: Annotated[
        str, typer.Option("--format", help=f"How to render it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option(help="Write to this file in place of the terminal.")] = None,
) -> None:
    """Test each row of runs against a baseline on the same test videos: difference, interval, p, effect size."""
    from bench.report.runs import Runs, find_runs

    problems = not_among("format", format_, FORMATS) + not_among("metric", metric, METRICS)
    problems += [] if baseline.strip() else ["baseline is '': expected a strategy of the run"]
    problems += [] if output is None else obstacles("output", output)
    found: Runs | None = None
    try:
        found = find_runs(runs or [])
    except UserError as error:
        problems += error.problems
    if problems or found is None:
        raise UserError(problems)

    from bench.report.comparison import COMPARISON_RENDERERS, compared
    from bench.stats.outcomes import METRICS as KNOWN

    name = next(each for each in KNOWN if each == metric)
    text = COMPARISON_RENDERERS[format_](compared(found, found.results, baseline, name), name, found.notes)
    if output is None:
        say(text)
    else:
        write("output", output, text)
