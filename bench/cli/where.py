"""The options that say where a data set lies, the same for every verb."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.spec.source import DataSource

_DATA = "The data"

DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the videos, below which lists of the usual names are found.", rich_help_panel=_DATA),
]
TrainList = Annotated[
    Path | None, typer.Option(help="List of the training videos, or official file.", rich_help_panel=_DATA)
]
ValList = Annotated[
    Path | None, typer.Option(help="List of the validation videos, or official file.", rich_help_panel=_DATA)
]
TestList = Annotated[
    Path | None, typer.Option(help="List of the test videos. [default: the validation's]", rich_help_panel=_DATA)
]
ClassNames = Annotated[
    Path | None, typer.Option(help="File of the classes' names, in the labels' order.", rich_help_panel=_DATA)
]
Fold = Annotated[
    str | None,
    typer.Option(
        help="Official split of ucf101 and hmdb51: 1, 2 or 3. [default: 1]", metavar="N", rich_help_panel=_DATA
    ),
]
LabelsFrom = Annotated[
    str | None,
    typer.Option(
        help="The first class's number in lists of your own: 0 or 1. [default: 0]", metavar="N", rich_help_panel=_DATA
    ),
]


def source(
    data_root: Path | None,
    train_list: Path | None,
    val_list: Path | None,
    test_list: Path | None,
    class_names: Path | None,
    fold: str | None,
    labels_from: str | None,
    problems: list[str],
) -> DataSource:
    """Return the place of the data; `problems` gets what is not there, and then the source is empty."""
    from bench.spec.source import DataSource, missing_paths

    given = {
        "data_root": data_root,
        "train_list": train_list,
        "val_list": val_list,
        "test_list": test_list,
        "class_names": class_names,
    }
    given = {name: None if path is None else Path(os.path.expanduser(path)) for name, path in given.items()}
    wrong = missing_paths(**given)
    if fold not in (None, "1", "2", "3"):
        wrong.append(f"fold is {fold!r}: expected 1, 2 or 3")
    if labels_from not in (None, "0", "1"):
        wrong.append(f"labels_from is {labels_from!r}: expected 0 or 1")
    problems += wrong
    if wrong:
        return DataSource()
    numbers = {"fold": None if fold is None else int(fold), "labels_from": int(labels_from or 0)}
    return DataSource.of(root=given.pop("data_root"), **given, **numbers)
