"""`bench predict`: a cell's trained model on any videos."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Given, not_among, takes
from bench.cli.output import obstacles, say, tell, write
from bench.cli.predicting import planned_by, predicting
from bench.errors import UserError
from bench.spec import PredictionRequest

FORMATS = ("terminal", "json", "csv")


@takes(PredictionRequest)
def predict(
    given: Given[PredictionRequest],
    format_: Annotated[
        str, typer.Option("--format", help=f"How to render it: {', '.join(FORMATS)}.", metavar="FORMAT")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option(help="Write to this file in place of the terminal.")] = None,
) -> None:
    """Predict the classes of videos by a cell's trained model.

    Views, pixels and probabilities are those of the cell's test. A video that cannot be read does not stop the others.
    """
    request, problems = given.checked()
    problems += not_among("format", format_, FORMATS)
    problems += [] if output is None else obstacles("output", output)
    if request is None:
        raise UserError(problems)

    from bench.run.prediction import execute, plan

    planned = planned_by(plan, request, problems)
    with predicting("the cell's file holds values that are not numbers") as show:
        found, notes = execute(request, planned, partial(show, "predicting"))
    for note in (*planned.notes, *notes):
        tell(f"note: {note}", err=True)

    from bench.report.predictions import PREDICTION_RENDERERS

    text = PREDICTION_RENDERERS[format_](found)
    if output is None:
        say(text)
    else:
        write("output", output, text)
    broken = [each for each in found if each.error]
    for each in broken:
        tell(f"bench: {each.video} could not be read: {each.error}", err=True)
    if broken:
        raise typer.Exit(1)
