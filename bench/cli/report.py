"""`bench report`: the comparison table of runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from bench.cli.options import not_among
from bench.cli.output import obstacles, say, write
from bench.cli.selecting import PLUGIN_HELP, WHERE_HELP, WHERE_METAVAR, plugin_problems
from bench.errors import UserError

FORMATS = ("terminal", "markdown", "csv", "json", "latex", "html")
BEST = ("bold", "none")
_CELLS, _SHAPE, _NUMBERS, _LATEX = "Cells", "Rows and columns", "Numbers", "LaTeX"
_AIM = "aim"  # `bench.report.published.AIM`


class ReportCommand(TyperCommand):
    """The command, in which `--published` may stand without a value: the figures of AIM's paper are meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        filled: list[str] = []
        for index, word in enumerate(args):
            filled.append(word)
            if word == "--published" and (index + 1 == len(args) or args[index + 1].startswith("-")):
                filled.append(_AIM)
        return super().parse_args(ctx, filled)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs whose rows make the table: folders, or names under results/. [default: the latest run]",
            show_default=False,
        ),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help=f"How to render it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option(help="Write to this file in place of the terminal.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help=WHERE_HELP,
            metavar=WHERE_METAVAR,
            rich_help_panel=_CELLS,
        ),
    ] = None,
    plugin: Annotated[list[str] | None, typer.Option(help=PLUGIN_HELP, rich_help_panel=_CELLS)] = None,
    tuning: Annotated[
        bool,
        typer.Option(
            "--tuning",
            help="In place of the table the trials of `bench run --tune`: their spread, and what they made of the "
            "rows' gaps.",
            rich_help_panel=_CELLS,
        ),
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Shape of a table of AIM's paper, with its published figures beside the runs': paper/table1 and the "
            "others of `bench list papers`.",
            metavar="TABLE",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of results.csv, in place of the usual ones: top1,gmacs_total,...",
            metavar="LIST",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help="Order of the rows: a label or a column of results.csv; -NAME is descending.",
            metavar="[-]NAME",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="A number column for each value of this, such as dataset or frames.",
            metavar="NAME",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="With --by, what tells rows apart, such as backbone,strategy. [default: all that differs]",
            metavar="LIST",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="With --by, the columns of results.csv that it shows. [default: top1]",
            metavar="LIST",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    intervals: Annotated[
        bool | None,
        typer.Option(
            "--intervals/--no-intervals",
            help="Accuracies with 95 % intervals over test videos and seeds, and ≈ where they are not told apart from "
            "the best; without: mean ± standard deviation. [default: yes, of csv no]",
            show_default=False,
            rich_help_panel=_NUMBERS,
        ),
    ] = None,
    best: Annotated[
        str,
        typer.Option(
            help="How the best value of a column is marked: bold (the second: underlined) or none.",
            metavar="bold|none",
            rich_help_panel=_NUMBERS,
        ),
    ] = "bold",
    published: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FILE]",
            help="Published figures below the rows, from a CSV file; without one, those of AIM's paper. Repeatable.",
            rich_help_panel=_NUMBERS,
        ),
    ] = None,
    caption: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Of the table, with --format latex.", rich_help_panel=_LATEX)
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the table for \\ref, with --caption.", rich_help_panel=_LATEX),
    ] = None,
) -> None:
    """Render the comparison table of runs: best values marked, failed cells shown, footnotes below."""
    from bench.report.runs import find_runs
    from bench.report.shape import Shape, names, shaped

    marks: Literal["bold", "none"] = "none" if best == "none" else "bold"
    shape = Shape(
        columns=names(columns),
        where=tuple(where or ()),
        sort=(sort or "").strip(),
        best=marks,
        rows=names(rows),
        by=(by or "").strip(),
        metrics=names(metric),
        published=tuple(published or ()),
        layout=layout or "",
    )
    problems = not_among("format", format_, FORMATS) + not_among("best", best, BEST)
    problems += [] if output is None else obstacles("output", output)
    problems += _of_latex(format_, caption, label) + plugin_problems(plugin or ())
    if tuning:
        given = shape != Shape() or intervals is not None
        _print(_of_tuning(runs or [], format_, given, [*problems, *shape.problems()]), output)
        return
    try:
        found = find_runs(runs or [])
    except UserError as error:
        raise UserError([*problems, *shape.problems(), *error.problems]) from error
    made = shaped(found, shape, format_ != "csv" if intervals is None else intervals, problems)
    table = made.table
    if intervals and format_ == "csv":
        table.shaped = True
    table.title, table.reference = caption or "", label or ""
    if output is None and format_ == "terminal" and sys.stdout.isatty():
        from rich.console import Console

        from bench.report.terminal import TableView

        Console(highlight=False).print(TableView(table))
        return

    from bench.report.formats import RENDERERS

    _print(RENDERERS[format_](made), output)


def _print(text: str, output: Path | None) -> None:
    if output is None:
        say(text)
    else:
        write("output", output, text)


def _of_tuning(runs: list[str], format_: str, shaped: bool, problems: list[str]) -> str:
    """The trials of a run as text. Raises UserError on all mistakes, `problems` among them."""
    from bench.report.tuning import TUNING_RENDERERS, tuned_rows
    from bench.run.find import find
    from bench.run.store import RESULTS

    problems += not_among("format", format_, list(TUNING_RENDERERS)) if format_ in FORMATS else []
    problems += ["tuning is True: options that shape the table do not go with it"] if shaped else []
    if len(runs) > 1:
        problems.append(f"runs are {', '.join(runs)}: expected one with --tuning")
    try:
        searches = tuned_rows(find(runs[0] if runs else None, RESULTS))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    return TUNING_RENDERERS[format_](searches)


def _of_latex(format_: str, caption: str | None, label: str | None) -> list[str]:
    """Sentences on a caption and a label that cannot be."""
    given = {"caption": caption, "label": label}
    found = [
        f"{name} is {text!r}: expected --format latex too, which alone has one"
        for name, text in given.items()
        if text is not None and format_ != "latex"
    ]
    if label is not None and not re.fullmatch(r"[\w:./+-]+", label, re.ASCII):
        found.append(f"label is {label!r}: expected letters, digits and any of _ : . / + -")
    if label is not None and caption is None and not found:
        found.append(f"label is {label!r}: expected --caption too, whose number it stands for")
    return found
