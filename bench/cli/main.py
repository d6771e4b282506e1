"""`bench`: the command line. Nothing here or in the verbs imports torch before it is needed."""

from __future__ import annotations

import io
import logging
import sys
import warnings

import typer
from rich.console import Console

from bench.cli.data import data
from bench.cli.eval import eval_
from bench.cli.export import export
from bench.cli.list import list_
from bench.cli.pretrain import pretrain
from bench.cli.profile import profile
from bench.cli.report import report
from bench.cli.run import run
from bench.errors import UserError

app = typer.Typer(
    name="bench",
    help="Adapt image models to video and compare them: every backbone x every strategy, trained and measured alike.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command("run")(run)
app.command("report")(report)
app.command("eval")(eval_)
app.command("export")(export)
app.command("profile")(profile)
app.command("list")(list_)
app.add_typer(data, name="data")
app.command("pretrain")(pretrain)


def main() -> None:
    """Run the command line; a user's mistakes are told in sentences and end with exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ± shows a ?, not a traceback
    # the libraries' own words, which a user can do nothing about; what matters we tell ourselves
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        app(prog_name="bench")
    except UserError as error:
        console = Console(stderr=True, highlight=False)
        count = len(error.problems)
        console.print(f"[red]bench: {count} problem{'s' if count > 1 else ''}; nothing was run or changed.[/red]")
        for problem in error.problems:
            console.print(f"  - {problem}", markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
