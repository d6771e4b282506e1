"""Contract of a data set: its classes, its lists of videos, and how its clips are drawn."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from backbones.names import BackboneName
from backbones.registry import Registry
from bench.data.files import sizes
from bench.spec.recipe_entries import Defaults, RecipeEntry, entries_of, read_entries
from bench.spec.source import DataSource, Views
from bench.yaml_files import parse

Split = Literal["train", "val", "test"]
# methods that a data set might have in the belief that they decide something
_NOT_ASKED = ("recipe", "options_for", "frames_for", "views_for", "stride_for", "stride")
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Sampling = Literal["uniform", "dense"]
# (done, total): called as a long preparation proceeds
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Video:
    """One listed video, a file or a folder of its frames.

    Attributes:
        path: where it lies; where it was not found, where it was looked for first.
        label: from 0.
        name: its path as the list gives it, unique within a split.
        frames: how many frames a folder has, where the list says.
    """

    path: Path
    label: int
    name: str
    frames: int | None = None


class DataError(Exception):
    """Fault of a data set as it lies on the disk; the message says what is wrong and what was expected."""


class VideoDataset(ABC):
    """A data set: where its videos are and how they are shown to a model.

    Attributes:
        name: as on the command line.
        summary: one line for `bench list datasets`.
        size: which model a bare backbone family means here: "tiny" or "base".
        frames: frames of a clip, where neither the user nor an entry of `recipes` says otherwise; so with clips, crops
            and span.
        sampling: "uniform" (over the whole video) or "dense" (frames evenly apart).
        span: frames of the video that a dense clip covers.
        flip: whether a horizontal flip keeps the label.
        clips, crops: the test views.
        small: whether decoding its videos costs so little that processes for it would only cost time.
        content: hash of all that decides what the videos show, where the data set makes them itself; else "".
        takes: what it takes of a source: "nothing", a "root" alone, or "lists" too.
        needs_source: whether it cannot be found where the source says nothing.
        folds: numbers of the official splits that there are; empty where there is one alone.
        recipes: entries of its own, by name, as bench/recipes/*.yaml have them: a YAML text or a mapping. They hold for
            this data set and those that derive from it.
        partial_copies: whether lists that lack classes are nothing to tell, as of a published data set's subsets.

    Args:
        source: where it lies.
    """

    name: str
    summary: str
    size: Literal["tiny", "base"] = "base"
    frames: int = 8
    span: int = 128
    sampling: Sampling = "uniform"
    flip: bool = True
    clips: int = 1
    crops: Literal[1, 3] = 1
    small: bool = False
    content: str = ""
    takes: Literal["nothing", "root", "lists"] = "root"
    needs_source: bool = False
    folds: tuple[int, ...] = ()
    partial_copies: bool = False
    recipes: ClassVar[str | Mapping[str, Any]] = {}
    own_entries: ClassVar[tuple[RecipeEntry, ...]] = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Read the class's own entries. Raises TypeError or ValueError, of a plugin told as it is imported."""
        super().__init_subclass__(**arguments)
        if gone := [name for name in _NOT_ASKED if name in vars(cls)]:
            raise TypeError(f"{cls.__name__}.{gone[0]}() is never called: expected `recipes`, or a method defaults()")
        if "recipes" not in vars(cls):
            return
        problems: list[str] = []
        found = parse(cls.recipes) if isinstance(cls.recipes, str) else cls.recipes
        cls.own_entries = tuple(read_entries(found, f"{cls.__name__}.recipes", problems).values())
        problems += [f"{e.where} names a dataset: expected none, it is its own" for e in cls.own_entries if e.dataset]
        if problems:
            raise ValueError("; ".join(problems))

    def __init__(self, source: DataSource | None = None) -> None:
        self.source = source or DataSource()

    @property
    def root(self) -> Path | None:
        """The folder of the videos, where the user named one."""
        return self.source.root

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

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits whose lists are there."""
        return SPLITS

    def files(self) -> Mapping[str, tuple[Path, ...]]:
        """Return the files that decide which videos there are, by kind ("train list"); other content, another cell."""
        return {}

    def missing_lists(self, splits: Sequence[Split]) -> list[str]:
        """Return the files that these splits need and that were neither named nor found, in sentences."""
        return []

    def takes_labels_from(self, splits: Sequence[Split]) -> bool:
        """Return whether the lists of these splits are a user's own, whose labels may start at 1."""
        return False

    def notes(self) -> tuple[str, ...]:
        """Notes for the user on what was found without being named, in sentences."""
        return ()

    def original(self, video: Video) -> str | None:
        """The recording that a video was cut from, where its name tells."""
        return None

    def defaults(self, backbone: BackboneName | None = None, strategy: str | None = None) -> Defaults:
        """The values of a cell where its user says nothing: the class's attributes, and the entries over them.

        A plugin's data set says its own in `recipes`, or overrides this method and returns other values.

        Args:
            backbone: None leaves out what holds for some backbones alone.
            strategy: its name; None leaves out what holds for some strategies alone.
        """
        # one uniform clip covers the video
        views = Views(1 if self.sampling == "uniform" else self.clips, self.crops)
        found = Defaults(self.frames, self.span, views).changed_by(entries_of(""), backbone, strategy)
        for parent in reversed(type(self).__mro__):
            if name := vars(parent).get("name"):
                found = found.changed_by(entries_of(name), backbone, strategy)
            found = found.changed_by(vars(parent).get("own_entries", ()), backbone, strategy)
        return found

    def fingerprint(self) -> str:
        """SHA-256 over the lists' names and labels and the files' sizes, which tells two states of them apart.

        A file that is missing has no size, and its run goes on.
        """
        digest = hashlib.sha256()
        for split in self.splits:
            videos = self.videos(split)
            for video, size in zip(videos, sizes([video.path for video in videos]), strict=True):
                digest.update(f"{split}\0{video.name}\0{video.label}\0{size}\n".encode())
        return digest.hexdigest()


DATASETS: Registry[type[VideoDataset]] = Registry(
    "data set",
    "aim_bench.datasets",
    (
        "bench.data.motion.dataset",
        "bench.data.catalog.kinetics",
        "bench.data.catalog.ssv2",
        "bench.data.catalog.diving48",
        "bench.data.catalog.ucf101",
        "bench.data.catalog.hmdb51",
        "bench.data.catalog.folder",
        "bench.data.catalog.listed",
    ),
)
register_dataset = DATASETS.register
