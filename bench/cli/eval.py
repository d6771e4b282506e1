"""`bench eval`: evaluate a checkpoint."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Given, not_among, takes
from bench.cli.output import say, tell
from bench.cli.predicting import planned_by, predicting
from bench.errors import UserError
from bench.spec import EvaluationRequest

if TYPE_CHECKING:
    from bench.run.matrix import Plan
    from bench.run.result import Result
    from bench.stats.per_class import ClassAccuracy

FORMATS = ("table", "json", "csv")


@takes(EvaluationRequest)
def eval_(
    given: Given[EvaluationRequest],
    format_: Annotated[
        str, typer.Option("--format", help=f"How to print it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "table",
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also the accuracy of every class, and what it is taken for.")
    ] = False,
) -> None:
    """Evaluate a checkpoint on a data set: one of `bench run`, or one that AIM's released code wrote.

    Test views, accuracy and order test are those of `bench run`.
    """
    request, problems = given.checked()
    problems += not_among("format", format_, FORMATS)
    if request is None:
        raise UserError(problems)

    from bench.run.evaluation import plan

    planned = planned_by(plan, request, problems)
    for note in planned.defaults:
        tell(note, err=True)
    with tempfile.TemporaryDirectory(prefix="aim-bench-eval-") as folder:
        result = _evaluated(request, planned, Path(folder) if per_class else None)
        classes = _classes(Path(folder), planned) if per_class else []
    if format_ == "table":
        from bench.report.formats import render_evaluation
        from bench.report.per_class import render

        tell(render_evaluation(result))
        if per_class:
            tell("\n" + render(classes).rstrip())
    elif format_ == "csv":
        from bench.report.per_class import to_csv as classes_to_csv
        from bench.run.columns import to_csv

        say(classes_to_csv(classes) if per_class else to_csv([result]))
    else:
        from bench.report.per_class import records
        from bench.report.records import record

        say(f"{json.dumps(record(result) | ({'per_class': records(classes)} if per_class else {}), indent=2)}\n")


def _classes(folder: Path, planned: Plan) -> list[ClassAccuracy]:
    """Every class of the data set with its predictions, which lie in the folder."""
    from bench.data.dataset import DATASETS
    from bench.run.store import PREDICTIONS
    from bench.stats.per_class import per_class

    (cell,) = planned.cells
    return per_class(folder / PREDICTIONS, DATASETS.get(cell.dataset)(cell.data).classes)


def _evaluated(request: EvaluationRequest, planned: Plan, folder: Path | None) -> Result:
    from bench.run.evaluation import execute
    from bench.run.provenance import command

    precision = planned.placement.precision
    narrow = f", or {precision} is too narrow" * (precision != "fp32")
    with predicting(f"the checkpoint holds values that are not numbers{narrow}") as show:
        return execute(
            request,
            planned,
            command(),
            partial(show, f"preparing {planned.cells[0].dataset}"),
            partial(show, "evaluating"),
            folder,
        )
