"""`bench data`: look at a data set, and decode it ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from backbones.registry import UnknownName
from bench.cli.choices import not_among
from bench.cli.prepare import prepare
from bench.data.base import DATASETS, SPLITS, DataError, Split
from bench.errors import UserError
from bench.files import did_you_mean_path, why_not_writable
from bench.plugins import load as load_plugins

data = typer.Typer(help="Look at a data set, decode it ahead.", no_args_is_help=True, rich_markup_mode="markdown")


data.command("prepare")(prepare)


@data.command("show")
def show(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[str, typer.Option(help=f"Which of its lists: {', '.join(SPLITS)}.", metavar="SPLIT")] = "train",
    frames: Annotated[int | None, typer.Option(help="Frames of a clip. [default: the data set's]", min=1)] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    data_root: Annotated[Path | None, typer.Option(help="Folder of the videos.")] = None,
    plugin: Annotated[
        list[str] | None, typer.Option(help="A Python file or module that registers more data sets. Repeatable.")
    ] = None,
) -> None:
    """Write a contact sheet (PNG) and an animation (GIF) of the first video of every class."""
    from rich.console import Console
    from rich.progress import Progress

    from bench.data.show import write_pictures

    problems = not_among("split", split, SPLITS)
    try:
        load_plugins(plugin or ())
    except UserError as error:
        problems += error.problems
    try:
        found = DATASETS.get(dataset)
    except UnknownName as error:
        problems.append(str(error))
    if data_root is not None and not data_root.is_dir():
        problems.append(f"data_root is {str(data_root)!r}: there is no such folder{did_you_mean_path(data_root)}")
    if obstacle := why_not_writable(out):
        problems.append(f"out is {str(out)!r}: cannot be written ({obstacle})")
    if problems:
        raise UserError(problems)
    chosen = found(data_root)
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(f"preparing {dataset}", total=None)
            chosen.prepare(lambda done, total: progress.update(task, completed=done, total=total))
        written = write_pictures(chosen, cast(Split, split), out, frames=frames or chosen.frames)
    except DataError as error:
        raise UserError([str(error)]) from error
    except OSError as error:
        raise UserError([f"out is {str(out)!r}: cannot be written ({error.strerror or error})"]) from error
    for file in written:
        typer.echo(file)
