"""Place of a data set on this machine, as a user says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from bench.files import did_you_mean_path
from bench.spec.fields import DATA, Flag, Place
from bench.spec.frozen import FrozenModel

Fold = Literal[1, 2, 3]
LabelsFrom = Literal[0, 1]
LISTS = ("train_list", "val_list", "test_list")


class DataSource(FrozenModel):
    """Places of a data set's parts; None is left to the data set to find under `root`, or not needed.

    Attributes:
        root: folder of the videos.
        train_list, val_list, test_list: lists or official annotation files.
        class_names: file of the classes' names, in the order of their labels.
        fold: which of a data set's official splits, from 1.
        labels_from: the number that lists have for the first class.
    """

    root: Path | None = None
    train_list: Path | None = None
    val_list: Path | None = None
    test_list: Path | None = None
    class_names: Path | None = None
    fold: Fold | None = None
    labels_from: LabelsFrom = 0

    @model_serializer(mode="wrap")
    def _as_before(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The values without a labels_from of 0, so that cells of before it have the keys that they had."""
        written: dict[str, Any] = values(self)
        if not self.labels_from:
            written.pop("labels_from", None)
        return written

    @classmethod
    def of(cls, **given: Any) -> DataSource:
        """The source with every path whole and without links, so that the same place always makes the same cell."""
        whole = {name: os.path.realpath(value) for name, value in given.items() if isinstance(value, Path)}
        return cls(**{**given, **whole})

    @property
    def empty(self) -> bool:
        """True where nothing was said of where it is."""
        return self == DataSource(labels_from=self.labels_from)

    @property
    def lists(self) -> dict[str, Path]:
        """The lists that were given, by the field's name."""
        return {name: path for name in LISTS if (path := getattr(self, name)) is not None}

    @property
    def files(self) -> dict[str, Path]:
        """The files that were given, by the field's name."""
        return self.lists | ({} if self.class_names is None else {"class_names": self.class_names})


class DataOptions(FrozenModel):
    """Fields of every request that say where a data set lies."""

    data_root: Annotated[Place | None, Flag(DATA)] = Field(
        None, description="Folder of the videos, below which lists of the usual names are found"
    )
    train_list: Annotated[Place | None, Flag(DATA)] = Field(
        None, description="List of the training videos, or official file"
    )
    val_list: Annotated[Place | None, Flag(DATA)] = Field(
        None, description="List of the validation videos, or official file"
    )
    test_list: Annotated[Place | None, Flag(DATA, default="the validation's")] = Field(
        None, description="List of the test videos"
    )
    class_names: Annotated[Place | None, Flag(DATA)] = Field(
        None, description="File of the classes' names, in the labels' order"
    )
    fold: Annotated[Fold | None, Flag(DATA, default="1")] = Field(
        None, description="Official split of ucf101 and hmdb51: 1, 2 or 3"
    )
    labels_from: Annotated[LabelsFrom, Flag(DATA)] = Field(
        0, description="The first class's number in lists of your own: 0 or 1"
    )

    @property
    def source(self) -> DataSource:
        """Place of the data sets."""
        fields = {name: getattr(self, name) for name in DataOptions.model_fields}
        return DataSource.of(root=fields.pop("data_root"), **fields)

    def missing(self) -> list[str]:
        """Return the files and folders that were named and that do not exist, in sentences."""
        names = ("data_root", *LISTS, "class_names")
        return missing_places(**{name: getattr(self, name) for name in names})


def missing_places(**given: Path | None) -> list[str]:
    """Return the places that a user named and that are not there, in sentences.

    Args:
        given: by the field's name, as written; `data_root` is a folder, the others are files (official lists may be a
            folder of them).
    """
    problems = []
    for name, path in given.items():
        if path is None:
            continue
        noun, there = ("folder", os.path.isdir(path)) if name == "data_root" else ("file", os.path.exists(path))
        if not there and os.path.exists(path):
            problems.append(f"{name} is {str(path)!r}: it is not a {noun}")
        elif not there:
            problems.append(f"{name} is {str(path)!r}: there is no such {noun}{did_you_mean_path(path)}")
    return problems
