"""`bench data`: look at a data set."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backbones.registry import UnknownName
from bench.data.base import DATASETS, DataError
from bench.errors import UserError

data = typer.Typer(help="Look at a data set.", no_args_is_help=True, rich_markup_mode="markdown")


class Which(StrEnum):
    train = "train"
    val = "val"
    test = "test"


@data.command("show")
def show(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[Which, typer.Option(help="Which of its lists.")] = Which.train,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip. [default: the data set's]", min=1)] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    data_root: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
) -> None:
    """Write a contact sheet (PNG) and an animation (GIF) of the first video of every class."""
    from rich.console import Console
    from rich.progress import Progress

    from bench.data.show import write_pictures

    try:
        chosen = DATASETS.get(dataset)(data_root)
    except UnknownName as error:
        raise UserError([str(error)]) from None
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"preparing {dataset}", total=None)
            chosen.prepare(lambda done, total: progress.update(task, completed=done, total=total))
        written = write_pictures(chosen, split.value, out, frames=frames or chosen.frames)
    except DataError as error:
        raise UserError([str(error)]) from error
    except OSError as error:
        raise UserError([f"out is {str(out)!r}: cannot be written ({error.strerror or error})"]) from error
    for file in written:
        typer.echo(file)
