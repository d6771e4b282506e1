"""Data sets that lie on a disk as a folder of videos and lists of them, official ones or mmaction2's.

A data set of this kind says what its files are usually called, and how its official ones are read; finding them, names
and places of videos, and what is wrong with them is the same for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from bench.data.annotations import Entry, read_class_names
from bench.data.dataset import DataError, Progress, Split, Video, VideoDataset
from bench.data.files import Listing
from bench.data.lists import read_entries, to_videos
from bench.text import counted

Names = tuple[str, ...]
# where lists lie below a data set's folder
_LIST_FOLDERS = ("", "annotations", "annotation", "labels", "lists")
# where videos lie below a data set's folder; "" is that folder
_VIDEO_FOLDERS: Mapping[Split, Names] = {
    "train": ("", "videos_train", "train", "train_256", "videos", "rawframes_train", "rawframes"),
    "val": (
        "",
        "videos_val",
        "val",
        "val_256",
        "validate",
        "validation",
        "test",
        "videos",
        "rawframes_val",
        "rawframes",
    ),
}
_SPLIT_NAMES: Mapping[Split, str] = {"train": "training", "val": "validation", "test": "test"}


class AnnotatedDataset(VideoDataset):
    """A data set behind lists.

    Where there are both, mmaction2's list goes before the official one: it was made for the files on this disk. The
    test is the validation list, unless the user gives another: of none of these the official test labels are public.

    Attributes:
        count: number of classes.
        homes: what the data set's folder is usually called, where the root holds several.
        lists: usual names of lists; `{split}` stands for train or val, `{fold}` for the official split's number.
        official_train, official_val: usual names of the official files.
        official_names: whether the official training list tells the names of the classes.
        name_files: usual names of files with the names of the classes.
        video_folders: where videos lie, beyond what is usual for all.
    """

    takes: Literal["nothing", "root", "lists"] = "lists"
    needs_source = True
    partial_copies = True
    count: ClassVar[int]
    homes: ClassVar[Names] = ()
    lists: ClassVar[Names] = ()
    official_train: ClassVar[Names] = ()
    official_val: ClassVar[Names] = ()
    official_names: ClassVar[bool] = False
    name_files: ClassVar[Names] = ()
    video_folders: ClassVar[Names] = ()

    def is_official(self, file: Path) -> bool:
        """Test for an official file (or folder), as opposed to a list."""
        return False

    def read_official(self, file: Path, split: Split) -> list[Entry]:
        """The entries of an official file. Raises DataError."""
        raise NotImplementedError

    def official_classes(self, file: Path) -> Names:
        """Names of the classes in an official training file; called where `official_names` is True."""
        raise NotImplementedError

    # --- finding ---

    @cached_property
    def _homes(self) -> list[str]:
        if self.root is None:
            return []
        return [str(self.root), *(home for name in self.homes if os.path.isdir(home := os.path.join(self.root, name)))]

    def _found(self, names: Names, beside: Iterable[Path] = ()) -> tuple[Path | None, str]:
        """Return the first of the names that exists, and the folders that were searched: beside these files first."""
        folders = [str(path.parent) for path in beside]
        folders += [os.path.join(home, below) if below else home for home in self._homes for below in _LIST_FOLDERS]
        for name in names:
            for folder in folders:
                if os.path.exists(path := os.path.join(folder, name)):
                    return Path(path), ""
        return None, f"{', '.join(names)} in {', '.join(folders)}" if names and folders else ""

    @property
    def fold(self) -> int | None:
        """The number of the official split: the first where the user says nothing."""
        return self.source.fold or next(iter(self.folds), None)

    @cached_property
    def _searched(self) -> dict[Split, tuple[Path | None, str]]:
        """List of each split, None where there is none, and the folders that were searched."""
        found: dict[Split, tuple[Path | None, str]] = {}
        for split in _SPLIT_NAMES:
            if given := self.source.lists.get(f"{split}_list"):
                found[split] = given, ""
            else:
                found[split] = found["val"] if split == "test" else self._found(self._usual(split))
        return found

    def _usual(self, split: Split) -> Names:
        official = self.official_train if split == "train" else self.official_val
        return tuple(name.format(split=split, fold=self.fold) for name in (*self.lists, *official))

    @property
    def splits(self) -> tuple[Split, ...]:
        return tuple(split for split, (path, _) in self._searched.items() if path is not None)

    def file(self, split: Split) -> Path:
        """The list of a split. Raises DataError where it is neither given nor found."""
        path, looked = self._searched[split]
        if path is None:
            split = "val" if split == "test" else split
            flag, noun = f"{split}_list (--{split}-list FILE)", f"{_SPLIT_NAMES[split]} list"
            if looked:
                raise DataError(
                    f"{self.name}: no {noun} was found: looked for {looked}; expected one of them, or {flag}"
                )
            other = ", or data_root (--data-root FOLDER) to find one in" if self._usual(split) else ""
            raise DataError(f"{self.name}: there is no {noun}: expected {flag}{other}")
        return path

    @cached_property
    def _names_file(self) -> Path | None:
        if self.source.class_names is not None or self._naming_list is not None:
            return self.source.class_names
        return self._found(self.name_files, self.source.lists.values())[0]

    @cached_property
    def _naming_list(self) -> Path | None:
        """Official list that names the classes: the training's; None where there is none."""
        split = next(iter(self.splits), None)
        if not self.official_names or split is None or not self.is_official(self.file(split)):
            return None
        return self.file(split)

    @property
    def _nameless(self) -> bool:
        """True where no file names the classes."""
        return self._names_file is None and self._naming_list is None

    def files(self) -> Mapping[str, tuple[Path, ...]]:
        found = {f"{split} list": _whole(self.file(split)) for split in self.splits if self._own_list(split)}
        return found if self._names_file is None else {**found, "class names": (self._names_file,)}

    def _own_list(self, split: Split) -> bool:
        return split != "test" or self.file("test") != self.file("val")

    def missing_lists(self, splits: Sequence[Split]) -> list[str]:
        problems = []
        for split in splits:
            try:
                self.file(split)
            except DataError as error:
                problems.append(str(error))
        return list(dict.fromkeys(problems))

    def takes_labels_from(self, splits: Sequence[Split]) -> bool:
        found = [self.file(split) for split in splits if split in self.splits]
        return not found or not all(map(self.is_official, found))

    def notes(self) -> tuple[str, ...]:
        said = [
            f"{self.name} {split} list = {self.file(split)}"
            for split in self.splits
            if f"{split}_list" not in self.source.lists and self._own_list(split)
        ]
        if "test" in self.splits and not self._own_list("test"):
            said.append(f"{self.name} test = its val list")
        if self._names_file is not None and self.source.class_names is None:
            said.append(f"{self.name} class names = {self._names_file}")
        return tuple(said)

    # --- reading ---

    @cached_property
    def classes(self) -> Names:
        if self._names_file is not None:
            names, origin = read_class_names(self._names_file), self._names_file
        elif self._naming_list is not None:
            names, origin = self.official_classes(self._naming_list), self._naming_list
        else:
            return tuple(map(str, range(self.count)))  # nothing names them
        if len(names) != self.count:
            raise DataError(f"{origin} names {counted(len(names), 'class', 'classes')}: {self.name} has {self.count}")
        return names

    def entries(self, split: Split) -> list[Entry]:
        """Read the list of a split. Raises DataError."""
        file = self.file(split)
        return (
            self.read_official(file, split) if self.is_official(file) else read_entries(file, self._labels_from(file))
        )

    def _labels_from(self, file: Path) -> int:
        """The first class's number in a list; official files have their own."""
        return 0 if self.is_official(file) else self.source.labels_from

    def _counted_by(self) -> str:
        """Return the source of the number of classes, for the error about a label beyond it."""
        return f"{self._names_file} names {len(self.classes)} classes" if self._names_file is not None else ""

    @cached_property
    def _videos(self) -> dict[Split, tuple[Video, ...]]:
        return {}

    def videos(self, split: Split) -> tuple[Video, ...]:
        file = self.file(split)
        if not self._own_list(split):
            split = "val"
        if split not in self._videos:
            entries = self.entries(split)
            if self._nameless and any(isinstance(entry.label, str) for entry in entries):
                looked = f"{', '.join(self.name_files)} below data_root or beside the list" if self.name_files else ""
                raise DataError(
                    f"{file}: it has names of classes, of which the order is not known: expected "
                    f"{looked}{' or ' * bool(looked)}class_names (--class-names FILE)"
                )
            finder = VideoFinder(self._folders(split, file))
            self._videos[split] = to_videos(
                file, entries, self.classes, finder.find, self._labels_from(file), self._counted_by()
            )
        return self._videos[split]

    def _folders(self, split: Split, file: Path) -> Iterator[str]:
        """Folders below which a list's videos may lie."""
        usual = _VIDEO_FOLDERS["train" if split == "train" else "val"]
        for home in self._homes:
            for below in (*usual, *self.video_folders):
                if os.path.isdir(folder := os.path.join(home, below) if below else home):
                    yield folder
        yield str(file.parent)

    def prepare(self, progress: Progress | None = None) -> None:
        """Do nothing: `bench.data.validate` checks the lists and their videos."""


def _whole(path: Path) -> tuple[Path, ...]:
    """Return a file; of a folder of official files each of them."""
    return tuple(sorted(path.rglob("*.txt"))) if path.is_dir() else (path,)


class VideoFinder:
    """Index of the videos below some folders, which does not ask the file system for each.

    Args:
        folders: below which they may lie, the likeliest first.
    """

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = list(dict.fromkeys(folders))
        self._listing = Listing()

    def find(self, entry: Entry) -> Path:
        """The first candidate that exists; where none does, the first that was looked for."""
        for candidate in entry.candidates or (entry.name,):
            below, _, leaf = candidate.rpartition("/")
            for folder in self._folders:
                whole = os.path.join(folder, below) if below else folder
                if leaf.endswith(".*"):
                    found = self._listing.video(whole, leaf[:-2])
                else:
                    found = leaf if leaf in self._listing.names(whole) else None
                if found is not None:
                    return Path(whole, found)
        return Path(self._folders[0], entry.name)
