"""`bench data`: look at a data set, and decode it ahead."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from bench.cli.check import DataRequest, check, opened
from bench.cli.options import Given, takes
from bench.cli.output import tell
from bench.cli.prepare import prepare
from bench.cli.progress import progress
from bench.data.dataset import DataError
from bench.errors import UserError
from bench.files import reason, why_not_writable
from bench.spec.fields import Flag, UserPath

data = typer.Typer(
    help="Look at a data set, check it, decode it ahead.", no_args_is_help=True, rich_markup_mode="markdown"
)
data.command("check")(check)
data.command("prepare")(prepare)


class ShowRequest(DataRequest):
    split: Literal["train", "val", "test"] = Field("train", description="List of it")
    frames: Annotated[int | None, Flag(default="the data set's")] = Field(None, ge=1, description="Frames of a clip")
    out: Annotated[UserPath, Flag(default=".")] = Field(Path(), description="Folder for the pictures")


@data.command("show")
@takes(ShowRequest)
def show(given: Given[ShowRequest]) -> None:
    """Write a contact sheet (PNG) and an animation (GIF) of the first video of every class."""
    from bench.data.show import write_pictures

    out = given.values.get("out", Path())
    obstacle = why_not_writable(out)
    request, dataset = opened(given, [f"out is {str(out)!r}: cannot be written ({obstacle})"] if obstacle else ())
    try:
        with progress() as advance:
            dataset.prepare(partial(advance, f"preparing {dataset.name}"))
        frames = request.frames or dataset.defaults().frames
        written = write_pictures(dataset, request.split, request.out, frames=frames)
    except DataError as error:
        raise UserError([str(error)]) from error
    except OSError as error:
        raise UserError([f"out is {str(out)!r}: cannot be written ({reason(error)})"]) from error
    for file in written:
        tell(str(file))
