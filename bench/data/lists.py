"""Lists of videos: a file of any format -> entries -> videos, and back into a file in mmaction2's format.

A list is a table (`bench.data.tables`), or has lines of `path label`, or `path frames label` as lists of folders of
frames have it. The format is told from all the lines of a file together, so that a line which does not follow it is a
complaint and not another format. Paths may hold spaces: a line is split from the right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from backbones.registry import did_you_mean
from bench.data.annotations import Entry, is_number, is_video_path, more_than_half, read_text, unusable
from bench.data.dataset import DataError, Video
from bench.data.tables import SUFFIXES, is_header, read_table, separator

STARTS_AT_1 = "do the labels start at 1? --labels-from 1 (labels_from: 1 in a YAML file) says so"
_EXPECTED = "expected 'relative/path.mp4 label'"


def read_entries(file: Path, labels_from: int = 0) -> list[Entry]:
    """The entries of a list, in its order; blank lines mean nothing.

    Args:
        file: UTF-8, in any format.
        labels_from: the number of the first class.

    Raises DataError where the file cannot be read, is empty, has no labels, or has malformed lines, which are all told.
    """
    text = read_text(file)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise DataError(f"{file}: the list is empty: expected lines of 'relative/path.mp4 label'")
    sign = separator([line for _, line in lines], file.suffix.lower() in SUFFIXES)
    entries = _spaced(file, lines) if sign is None else read_table(file, text, sign)
    below = [entry for entry in entries if isinstance(entry.label, int) and entry.label < labels_from]
    if below:
        told = f"expected {labels_from} or more, as labels_from is {labels_from}"
        raise unusable(file, [(entry.where, entry.text, f"the label is {entry.label}: {told}") for entry in below])
    if labels_from and isinstance(entries[0].label, str):
        raise DataError(
            f"{file}: labels_from is {labels_from}, and the labels are names of classes ({entries[0].label!r}): "
            "expected labels_from for numbers alone"
        )
    return entries


def _spaced(file: Path, lines: Sequence[tuple[int, str]]) -> list[Entry]:
    """The entries of lines of `path label` or `path frames label`."""
    if all(is_video_path(line) for _, line in lines[1:]) and len(lines[0][1].split()) == 1:  # the first: a header
        raise DataError(
            f"{file}: its lines are paths without a label: {_EXPECTED} on each; where folders are the classes, the "
            "data set 'folder' needs no list"
        )
    parts = [line.rsplit(maxsplit=2) for _, line in lines]
    folders = more_than_half(len(words) == 3 and all(map(is_number, words[1:])) for words in parts)
    entries, wrong = [], []
    for number, line in lines:
        found = _entry(f"line {number}", line, folders)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            wrong.append((f"line {number}", line, found))
    if wrong:
        named = more_than_half(not is_number(line.split()[-1]) for _, line in lines)
        hint = "names of classes, and a header, want a comma or a tab between the columns, as a .csv has them"
        raise unusable(file, wrong, hint if named or is_header(lines[0][1].split()) else "")
    return entries


def _entry(where: str, line: str, folders: bool) -> Entry | str:
    """The entry of a line, or what is wrong with it."""
    words = line.rsplit(maxsplit=2 if folders else 1)
    label = words[-1]
    if len(words) < (3 if folders else 2):
        return "expected 'path frames label'" if folders else _EXPECTED
    if is_video_path(line):
        return f"it has no label: {_EXPECTED}"
    if folders and not is_number(words[1]):
        return "expected 'path frames label'"
    if not is_number(label):
        return f"the label {label!r} is not a whole number from 0 on"
    if folders:
        return Entry(words[0].replace("\\", "/").rstrip("/"), int(label), where, line, frames=int(words[1]))
    return Entry(words[0], int(label), where, line)


def read_list(file: Path, root: Path, classes: int | None) -> tuple[Video, ...]:
    """The videos of a list, in its order. Whether they exist is not checked here.

    Args:
        file: the list, UTF-8, in any format.
        root: the folder its paths are relative to.
        classes: how many classes there are, or None where that is not known.

    Raises DataError where the file cannot be read, is empty, or has lines that are malformed, name a label outside
    0..classes - 1 or repeat a path; all lines are read first, and the first few complaints are shown with their count.
    """
    return to_videos(file, read_entries(file), classes, lambda entry: root / entry.name)


def to_videos(
    file: Path,
    entries: Sequence[Entry],
    classes: Sequence[str] | int | None,
    find: Callable[[Entry], Path],
    labels_from: int = 0,
    counted: str = "",
) -> tuple[Video, ...]:
    """The videos of a list's entries.

    Args:
        file: for the error.
        entries: in the list's order.
        classes: names of the classes, their number, or None where that is not known; labels that are names need names.
        find: returns the path of an entry's video.
        labels_from: the number of the first class; no label is below it.
        counted: what tells the number of classes, for the error about a label beyond it.

    Raises DataError for labels that are not a class's and for paths that repeat.
    """
    names = () if classes is None or isinstance(classes, int) else classes
    numbers = {name: label for label, name in enumerate(names)}
    count = classes if classes is None or isinstance(classes, int) else len(classes)
    last = None if count is None else labels_from + count - 1
    videos: list[Video] = []
    first: dict[str, str] = {}  # path -> where the list names it first
    wrong = []
    beyond = False
    for entry in entries:
        label = entry.label
        complaint = ""
        if isinstance(label, str):
            if label not in numbers:
                near = did_you_mean(label, names)
                complaint = f"there is no class {label!r} among the {len(names)} known by name{near}"
        elif last is not None and label > last:
            beyond = True
            complaint = f"the label {label} is out of range: expected {labels_from} to {last}"
        if not complaint and entry.name in first:
            complaint = f"the path is already on {first[entry.name]}"
        if complaint:
            wrong.append((entry.where, entry.text, complaint))
            continue
        first[entry.name] = entry.where
        index = numbers[label] if isinstance(label, str) else label - labels_from
        videos.append(Video(find(entry), index, entry.name, entry.frames))
    if wrong:
        labels = {entry.label for entry in entries if isinstance(entry.label, int)}
        from_1 = beyond and labels_from == 0 and 0 not in labels and max(labels) == count
        raise unusable(file, wrong, STARTS_AT_1 if from_1 else counted if beyond else "")
    return tuple(videos)


def write_list(file: Path, videos: Iterable[Video]) -> None:
    """Write a list that `read_list` reads back. Raises ValueError for a name that a line cannot hold."""
    lines = []
    for video in videos:
        if video.name != video.name.strip() or not video.name or len(video.name.splitlines()) != 1:
            raise ValueError(f"{video.name!r} cannot stand in a list: expected one line without spaces at its ends")
        lines.append(f"{video.name} {video.label}\n")
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
