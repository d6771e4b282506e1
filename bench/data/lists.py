"""Lists of videos in mmaction's format: a line `relative/path.mp4 label`, labels from 0.

Paths may hold spaces: a line is split once, from the right. Blank lines mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.data.base import DataError, Video

_SHOWN = 5  # complaints printed; a list of the wrong format has one a line


def read_list(file: Path, root: Path, classes: int | None) -> tuple[Video, ...]:
    """The videos of a list, in its order.

    Args:
        file: the list, UTF-8.
        root: the folder its paths are relative to. Whether the videos exist is not checked here.
        classes: how many classes there are, or None where that is not known.

    Raises DataError where the file cannot be read, is empty, or has lines that are malformed, name a label outside
    0..classes - 1 or repeat a path; all lines are read first, and the first few complaints are shown with their count.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {file}: {error}") from error
    videos: list[Video] = []
    lines: dict[str, int] = {}  # path -> the line that names it first
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, label, complaint = _parse(line, classes)
        if not complaint and name in lines:
            complaint = f"the path is already on line {lines[name]}"
        if complaint:
            wrong.append(f"line {number}: {line!r}: {complaint}")
            continue
        lines[name] = number
        videos.append(Video(path=root / name, label=label, name=name))
    if wrong:
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        noun = "line" if len(wrong) == 1 else "lines"
        shown = "\n  ".join(wrong[:_SHOWN])
        raise DataError(f"{file}: {len(wrong)} {noun} of the list cannot be used:\n  {shown}{more}")
    if not videos:
        raise DataError(f"{file}: the list is empty: expected lines of 'relative/path.mp4 label'")
    return tuple(videos)


def _parse(line: str, classes: int | None) -> tuple[str, int, str]:
    """(path, label, complaint); the complaint is empty where the line is good."""
    parts = line.strip().rsplit(maxsplit=1)
    if len(parts) != 2:
        return "", -1, "expected 'relative/path.mp4 label'"
    name, text = parts
    # isdecimal alone would let other scripts' digits through, and int() alone '1_0' and '+1'
    if not (text.isascii() and text.isdecimal()):
        return name, -1, f"the label {text!r} is not a whole number from 0 on"
    label = int(text)
    if classes is not None and label >= classes:
        return name, label, f"the label {label} is out of range: expected 0 to {classes - 1}"
    return name, label, ""


def write_list(file: Path, videos: Iterable[Video]) -> None:
    """Write a list that `read_list` reads back. Raises ValueError for a name that a line cannot hold."""
    lines = []
    for video in videos:
        if video.name != video.name.strip() or not video.name or len(video.name.splitlines()) != 1:
            raise ValueError(f"{video.name!r} cannot stand in a list: expected one line without spaces at its ends")
        lines.append(f"{video.name} {video.label}\n")
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
