"""Verbs of `bench`. Nothing here or in them imports torch before it is needed."""

from __future__ import annotations

import typer

from bench.cli.compare import compare
from bench.cli.data import data
from bench.cli.eval import eval_
from bench.cli.export import export
from bench.cli.list import list_
from bench.cli.plot import plot
from bench.cli.predict import predict
from bench.cli.pretrain import pretrain
from bench.cli.profile import profile
from bench.cli.push import push
from bench.cli.report import ReportCommand, report
from bench.cli.run import run
from bench.cli.status import cancel, status

app = typer.Typer(
    name="bench",
    help="Adapt image models to video and compare them: every backbone x every strategy, trained and measured alike.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command("run")(run)
app.command("status")(status)
app.command("cancel")(cancel)
app.command("report", cls=ReportCommand)(report)
app.command("compare")(compare)
app.command("plot")(plot)
app.command("eval")(eval_)
app.command("predict")(predict)
app.command("export")(export)
app.command("push")(push)
app.command("profile")(profile)
app.command("list")(list_)
app.add_typer(data, name="data")
app.command("pretrain")(pretrain)
