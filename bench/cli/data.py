"""`bench data`: look at a data set, and decode it ahead."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from bench.cli.check import check, named
from bench.cli.choices import not_among
from bench.cli.output import tell
from bench.cli.prepare import prepare
from bench.cli.progress import progress
from bench.cli.where import ClassNames, DataRoot, Fold, LabelsFrom, TestList, TrainList, ValList, source
from bench.data.dataset import SPLITS, DataError, Split
from bench.errors import UserError
from bench.files import why_not_writable
from bench.plugins import load as load_plugins

data = typer.Typer(
    help="Look at a data set, check it, decode it ahead.", no_args_is_help=True, rich_markup_mode="markdown"
)
data.command("check")(check)
data.command("prepare")(prepare)


@data.command("show")
def show(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[str, typer.Option(help=f"Which of its lists: {', '.join(SPLITS)}.", metavar="SPLIT")] = "train",
    frames: Annotated[int | None, typer.Option(help="Frames of a clip. [default: the data set's]", min=1)] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path(),
    data_root: DataRoot = None,
    train_list: TrainList = None,
    val_list: ValList = None,
    test_list: TestList = None,
    class_names: ClassNames = None,
    fold: Fold = None,
    labels_from: LabelsFrom = None,
    plugin: Annotated[
        list[str] | None, typer.Option(help="A Python file or module that registers more data sets. Repeatable.")
    ] = None,
) -> None:
    """Write a contact sheet (PNG) and an animation (GIF) of the first video of every class."""
    from bench.data.show import write_pictures

    problems = not_among("split", split, SPLITS)
    try:
        load_plugins(plugin or ())
    except UserError as error:
        problems += error.problems
    wanted: tuple[Split, ...] = (split,) if split in SPLITS else ()
    where = source(data_root, train_list, val_list, test_list, class_names, fold, labels_from, problems)
    chosen = named(dataset, where, wanted, problems)
    if obstacle := why_not_writable(out):
        problems.append(f"out is {str(out)!r}: cannot be written ({obstacle})")
    if problems or chosen is None:
        raise UserError(problems)
    try:
        with progress() as advance:
            chosen.prepare(partial(advance, f"preparing {dataset}"))
        written = write_pictures(chosen, cast(Split, split), out, frames=frames or chosen.defaults().frames)
    except DataError as error:
        raise UserError([str(error)]) from error
    except OSError as error:
        raise UserError([f"out is {str(out)!r}: cannot be written ({error.strerror or error})"]) from error
    for file in written:
        tell(str(file))
