"""Folders and files of a data set on this machine, and the views that a test takes of its videos."""

from __future__ import annotations

import operator
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BeforeValidator, Field

from bench.files import did_you_mean_path
from bench.spec.fields import DATA, Flag, FrozenModel, UserPath

Fold = Literal[1, 2, 3]
LabelsFrom = Literal[0, 1]
LISTS = ("train_list", "val_list", "test_list")
EXPECTED_VIEWS = "expected clips x crops, such as 3x1, or with the short side before the crop, such as 1x1@256"
# of the picture before the crop, in pixels: decoded frames have this size too
_LARGEST = 4096


class DataSource(FrozenModel):
    """Folders and files of a data set; None is left to the data set to find under `root`, or not needed.

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
    # 0 is left out, so that cells of before it have the keys that they had. Not by a function in Python: pydantic makes
    # an error of its own of a Ctrl-C that comes in one
    labels_from: LabelsFrom = Field(0, exclude_if=operator.not_)

    @classmethod
    def of(cls, **given: Any) -> DataSource:
        """Return the source with absolute paths without links, so that the same folder always makes the same cell."""
        whole = {name: os.path.realpath(value) for name, value in given.items() if isinstance(value, Path)}
        return cls(**{**given, **whole})

    @property
    def empty(self) -> bool:
        """True where nothing was said of where it is."""
        return self == DataSource(labels_from=self.labels_from)

    @property
    def lists(self) -> dict[str, Path]:
        """Lists that were given, by the field's name."""
        return {name: path for name in LISTS if (path := getattr(self, name)) is not None}

    @property
    def files(self) -> dict[str, Path]:
        """Files that were given, by the field's name."""
        return self.lists | ({} if self.class_names is None else {"class_names": self.class_names})


class DataOptions(FrozenModel):
    """Fields of every request that say where a data set lies."""

    data_root: Annotated[UserPath | None, Flag(DATA)] = Field(
        None, description="Folder of the videos, below which lists of the usual names are found"
    )
    train_list: Annotated[UserPath | None, Flag(DATA)] = Field(
        None, description="List of the training videos, or official file"
    )
    val_list: Annotated[UserPath | None, Flag(DATA)] = Field(
        None, description="List of the validation videos, or official file"
    )
    test_list: Annotated[UserPath | None, Flag(DATA, default="the validation's")] = Field(
        None, description="List of the test videos"
    )
    class_names: Annotated[UserPath | None, Flag(DATA)] = Field(
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
        """Folders and files of the data sets."""
        fields = {name: getattr(self, name) for name in DataOptions.model_fields}
        return DataSource.of(root=fields.pop("data_root"), **fields)

    def missing(self) -> list[str]:
        """Return the files and folders that were named and that do not exist, in sentences."""
        names = ("data_root", *LISTS, "class_names")
        return missing_paths(**{name: getattr(self, name) for name in names})


def missing_paths(**given: Path | None) -> list[str]:
    """Return the files and folders that a user named and that do not exist, in sentences.

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


class Views(NamedTuple):
    """Clips of a video, crops of a clip, and the pixels of the short side before the crop.

    `short_side` None is the side of the model's input: the crops then cover the short side.
    """

    clips: int
    crops: Literal[1, 3]
    short_side: int | None = None

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}" + (f"@{self.short_side}" if self.short_side else "")


def parse_views(value: Any) -> Views:
    """Read views such as `3x1` or `1x3@256`. Raises ValueError, its message in half a sentence."""
    written = value if isinstance(value, str) else ""
    found = re.fullmatch(r"\s*(\d{1,3})\s*[x×]\s*(\d{1,3})\s*(?:@\s*(\d{1,5})\s*)?", written)
    if found is None or not int(found[1]):
        raise ValueError(EXPECTED_VIEWS)
    if (crops := int(found[2])) not in (1, 3):
        raise ValueError("expected 1 crop (the centre) or 3 (left, centre, right)")
    side = None if found[3] is None else int(found[3])
    if side is not None and not 1 <= side <= _LARGEST:
        raise ValueError(f"expected a short side of 1 to {_LARGEST} pixels")
    return Views(int(found[1]), cast(Literal[1, 3], crops), side)


def checked_views(views: Views, size: int | None, model: str) -> tuple[Views, str | None]:
    """Return the views, without a short side that is the model's input anyway, and a sentence on one that is too small.

    Args:
        size: pixels of the input's side; None where it is not known.
    """
    if size is None or views.short_side is None or views.short_side > size:
        return views, None
    told = f"views is {str(views)!r}: {model} is shown {size} pixels, expected a short side of at least {size}"
    return views._replace(short_side=None), told if views.short_side < size else None


def _written(value: Any) -> str | None:
    return None if value is None else str(parse_views(value))


TestViews = Annotated[str | None, BeforeValidator(_written)]
