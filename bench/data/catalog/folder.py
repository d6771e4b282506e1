"""`folder`: a user's own videos, one folder a class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from bench.data.dataset import DataError, Progress, Sampling, Split, Video, VideoDataset, register_dataset
from bench.data.files import is_video
from bench.text import counted

_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test", "testing"),
}
_VAL_SHARE = 0.2  # of the videos of a class, where the folders tell no split
_IMAGES = (".jpg", ".jpeg", ".png")


@register_dataset("folder")
class Folder(VideoDataset):
    """`train/<class>/*` and `val/<class>/*` (and `test/<class>/*`), or `<class>/*` and a split of our own.

    Our own split gives a fifth of each class's videos to validation and test, by the hash of their names: it is the
    same on every machine, in every cell whatever its seed, and whatever the order in which the disk lists them.

    Videos are files with a video's suffix, or folders that hold pictures. Hidden files and others are passed over;
    links are followed, as collections are often made of them.
    """

    name = "folder"
    summary = "your own: train/<class>/* and val/<class>/*, or <class>/*"
    sampling: Sampling = "uniform"
    clips = 1
    crops: Literal[1, 3] = 1
    needs_source = True

    @property
    def _root(self) -> Path:
        if self.root is None:
            raise DataError(
                "folder: expected data_root (--data-root FOLDER), with train/<class> and val/<class> or <class>"
            )
        return self.root

    @cached_property
    def _splits(self) -> dict[Split, Path]:
        """The folders of the splits; empty where there is none for training."""
        found: dict[Split, Path] = {}
        for split, names in _NAMES.items():
            for name in names:
                if (self._root / name).is_dir():
                    found.setdefault(split, self._root / name)
        if "train" not in found:
            return {}
        if "val" not in found and "test" not in found:
            raise DataError(
                f"folder: {self._root} has {found['train'].name} and no val: expected val/<class> beside it"
            )
        val = found.get("val") or found["test"]
        return {"val": val, "test": val, **found}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        names = _folders(self._splits.get("train", self._root))
        if len(names) < 2:
            where = self._splits.get("train", self._root)
            raise DataError(
                f"folder: {where} holds {counted(len(names), 'folder')}: expected one a class, two classes or more"
            )
        return names

    def notes(self) -> tuple[str, ...]:
        if not self._splits:
            return ("folder split = 80 % train, 20 % val and test of each class, by the hash of the videos' names",)
        return () if self._splits["test"] != self._splits["val"] else (f"folder test = {self._splits['val'].name}",)

    def prepare(self, progress: Progress | None = None) -> None:
        _ = self._all

    def videos(self, split: Split) -> tuple[Video, ...]:
        return self._all[split]

    @cached_property
    def _all(self) -> dict[Split, tuple[Video, ...]]:
        if not self._splits:
            return self._own_split()
        found = {split: self._under(folder) for split, folder in self._splits.items()}
        for split, folder in self._splits.items():
            if strange := sorted(set(_folders(folder)) - set(self.classes)):
                raise DataError(
                    f"folder: {folder} has classes that {self._splits['train']} has not: {', '.join(strange[:5])}"
                )
            if not found[split]:
                raise DataError(f"folder: {folder} holds no video: expected files such as <class>/name.mp4")
        if empty := sorted(set(range(len(self.classes))) - {video.label for video in found["train"]}):
            raise DataError(
                f"folder: classes without a video to train: {', '.join(self.classes[i] for i in empty[:5])}"
            )
        return found

    def _own_split(self) -> dict[Split, tuple[Video, ...]]:
        train: list[Video] = []
        val: list[Video] = []
        few = []
        by_label: list[list[Video]] = [[] for _ in self.classes]
        for video in self._under(self._root):
            by_label[video.label].append(video)
        for name, videos in zip(self.classes, by_label, strict=True):
            if len(videos) < 2:
                few.append(f"{name} ({len(videos)})")
            held = set(sorted(videos, key=_draw)[: max(1, round(len(videos) * _VAL_SHARE))])
            val += [video for video in videos if video in held]
            train += [video for video in videos if video not in held]
        if few:
            raise DataError(
                f"folder: classes with fewer than two videos, of which none can be split: {', '.join(few[:5])} "
                f"in {self._root}"
            )
        return {"train": tuple(train), "val": tuple(val), "test": tuple(val)}

    def _under(self, folder: Path) -> tuple[Video, ...]:
        """The videos of a folder of classes, class by class, each by name."""
        videos = []
        for label, name in enumerate(self.classes):
            try:
                entries = sorted(os.scandir(folder / name), key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise DataError(f"folder: {folder / name} cannot be read ({error.strerror})") from error
            for entry in entries:
                if _shows(entry):
                    path = Path(entry.path)
                    videos.append(Video(path, label, path.relative_to(self._root).as_posix()))
        return tuple(videos)


def _folders(root: Path) -> tuple[str, ...]:
    try:
        with os.scandir(root) as entries:
            return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))
    except OSError as error:
        raise DataError(f"folder: {root} cannot be read ({error.strerror})") from error


def _shows(entry: os.DirEntry[str]) -> bool:
    """Test for a video, or a folder of a video's frames."""
    if not entry.is_dir():
        return is_video(entry.name)
    if entry.name.startswith("."):
        return False
    with os.scandir(entry.path) as inside:
        return any(one.name.lower().endswith(_IMAGES) for one in inside)


def _draw(video: Video) -> bytes:
    return hashlib.sha256(video.name.encode("utf-8", "surrogateescape")).digest()
