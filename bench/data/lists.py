"""Lists of videos: entries -> videos, and back into a file in mmaction2's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.data.base import Video
from bench.data.entries import Entry, read_entries, unusable


def read_list(file: Path, root: Path, classes: int | None) -> tuple[Video, ...]:
    """The videos of a list, in its order. Whether they exist is not checked here.

    Args:
        file: the list, UTF-8, in any format of `bench.data.entries`.
        root: the folder its paths are relative to.
        classes: how many classes there are, or None where that is not known.

    Raises DataError where the file cannot be read, is empty, or has lines that are malformed, name a label outside
    0..classes - 1 or repeat a path; all lines are read first, and the first few complaints are shown with their count.
    """
    return to_videos(file, read_entries(file), classes, lambda entry: root / entry.name)


def to_videos(
    file: Path,
    entries: Iterable[Entry],
    classes: Sequence[str] | int | None,
    place: Callable[[Entry], Path],
) -> tuple[Video, ...]:
    """The videos of a list's entries.

    Args:
        file: for the error.
        entries: in the list's order.
        classes: names of the classes, their number, or None where that is not known; labels that are names need names.
        place: where an entry's video lies.

    Raises DataError for labels that are no class's and for paths that repeat.
    """
    numbers = {} if classes is None or isinstance(classes, int) else {name: i for i, name in enumerate(classes)}
    count = classes if classes is None or isinstance(classes, int) else len(classes)
    videos: list[Video] = []
    first: dict[str, str] = {}  # path -> where the list names it first
    wrong = []
    for entry in entries:
        label = entry.label if isinstance(entry.label, int) else numbers.get(entry.label, -1)
        complaint = ""
        if label < 0:
            complaint = f"there is no class {entry.label!r} among the {len(numbers)} known by name"
        elif count is not None and label >= count:
            complaint = f"the label {label} is out of range: expected 0 to {count - 1}"
        elif entry.name in first:
            complaint = f"the path is already on {first[entry.name]}"
        if complaint:
            wrong.append((entry.where, entry.text, complaint))
            continue
        first[entry.name] = entry.where
        videos.append(Video(place(entry), label, entry.name, entry.frames))
    if wrong:
        raise unusable(file, wrong)
    return tuple(videos)


def write_list(file: Path, videos: Iterable[Video]) -> None:
    """Write a list that `read_list` reads back. Raises ValueError for a name that a line cannot hold."""
    lines = []
    for video in videos:
        if video.name != video.name.strip() or not video.name or len(video.name.splitlines()) != 1:
            raise ValueError(f"{video.name!r} cannot stand in a list: expected one line without spaces at its ends")
        lines.append(f"{video.name} {video.label}\n")
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
