"""What a data set tells the harness: its classes, its lists of videos, and how its clips are drawn."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backbones.registry import Registry

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Sampling = Literal["uniform", "dense"]
# (done, total): called as a long preparation proceeds
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Video:
    """One listed video. `name` is its path as the list gives it, unique within a split; `label` counts from 0."""

    path: Path
    label: int
    name: str


class DataError(Exception):
    """A data set that cannot be used as it lies on the disk; the message says what is wrong and what was expected."""


class VideoDataset(ABC):
    """A data set: where its videos are and how they are shown to a model.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list datasets`.
        size: which model a bare backbone family means here: "tiny" or "base".
        frames: frames of a clip where the user says nothing.
        sampling: "uniform" (over the whole video) or "dense" (every `stride`-th frame).
        flip: whether a horizontal flip keeps the label.
        clips, crops: the test views.
        small: whether decoding its videos costs so little that processes for it would only cost time.
        content: hash of all that decides what the videos show, where the data set makes them itself; else "".

    Args:
        root: the folder of the videos, where the data set needs one (`--data-root`).
    """

    name: str
    summary: str
    size: Literal["tiny", "base"] = "base"
    frames: int = 8
    sampling: Sampling = "uniform"
    flip: bool = True
    clips: int = 1
    crops: Literal[1, 3] = 1
    small: bool = False
    content: str = ""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names; a video's label is its index here."""

    @abstractmethod
    def prepare(self, progress: Progress | None = None) -> None:
        """Make the videos readable (render, check that they exist). Safe to call twice and from two processes.

        Raises DataError.
        """

    @abstractmethod
    def videos(self, split: Split) -> tuple[Video, ...]:
        """The listed videos, in the list's order. Raises DataError."""

    def stride(self, frames: int) -> int:
        """Frames of the video from one frame of a dense clip to the next."""
        return max(1, 128 // frames)

    def recipe(self, family: str, strategy: str) -> Mapping[str, Any]:
        """What this data set changes in the recipe for a backbone family and a strategy."""
        return {}

    def fingerprint(self) -> str:
        """SHA-256 over the lists' names and labels and the files' sizes: tells two states of a data set apart.

        A file that is missing has no size, and its run goes on.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            for video in self.videos(split):
                try:
                    size: int | None = video.path.stat().st_size
                except OSError:
                    size = None
                digest.update(f"{split}\0{video.name}\0{video.label}\0{size}\n".encode())
        return digest.hexdigest()


DATASETS: Registry[type[VideoDataset]] = Registry("data set", "aim_bench.datasets", ("bench.data.motion",))
register_dataset = DATASETS.register
