"""Lines of a user's or mmaction2's list -> entries, whatever the format of the lines.

A line is `path label`, `path,label` or `path<tab>label`, or has the number of frames between the two, as lists of
folders of frames have it. The format is told from all the lines of a file together, so that a line which does not
follow it is a complaint and not another format. Paths may hold spaces: a line is split from the right.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.base import DataError
from bench.data.listing import is_video

_SHOWN = 5  # complaints printed; a list of the wrong format has one a line
_EXPECTED = {" ": "relative/path.mp4 label", ",": "relative/path.mp4,label", "\t": "relative/path.mp4<tab>label"}
# what columns are called in files that have a header
_PATHS = ("path", "video", "video_path", "file", "file_name", "filename", "file_path", "name", "video_name", "folder")
_LABELS = ("label", "class", "target", "category", "label_id", "class_id", "class_name", "label_name")
_FRAMES = ("frames", "n_frames", "num_frames", "total_frames", "frame_count")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a list says of one video.

    Attributes:
        name: its path as the list gives it.
        label: a number from 0, or a class's name.
        where: in the file ("line 3").
        text: of the list on it, for complaints.
        places: where it may lie below a folder of videos, the likeliest first; one that ends in `.*` has any video
            suffix. Empty: under its name alone.
        frames: how many a folder of frames has.
    """

    name: str
    label: int | str
    where: str
    text: str = ""
    places: tuple[str, ...] = ()
    frames: int | None = None


def is_number(text: str) -> bool:
    """Whether a text is a whole number from 0 on, in plain digits."""
    # isdecimal alone would let other scripts' digits through, and int() alone '1_0' and '+1'
    return text.isascii() and text.isdecimal()


def read_text(file: Path) -> str:
    """A text file's content. Raises DataError where it is none or cannot be read."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {file}: {error}") from error


def unusable(file: Path, complaints: Sequence[tuple[str, str, str]]) -> DataError:
    """An error with the first few complaints and their count.

    Args:
        complaints: (where, the list's text, what is wrong).
    """
    noun = "line" if len(complaints) == 1 else "lines"
    shown = "\n  ".join(f"{where}: {text!r}: {told}" for where, text, told in complaints[:_SHOWN])
    more = f"\n  and {len(complaints) - _SHOWN} more" if len(complaints) > _SHOWN else ""
    return DataError(f"{file}: {len(complaints)} {noun} of the list cannot be used:\n  {shown}{more}")


def read_entries(file: Path) -> list[Entry]:
    """The entries of a list, in its order; blank lines mean nothing.

    Raises DataError where the file cannot be read, is empty, or has malformed lines, which are all told.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file).splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    sign = _delimiter([line for _, line in lines])
    columns = _columns(_fields(lines[0][1], sign)) if lines and sign != " " else None
    if columns:
        lines = lines[1:]
    rows = [(f"line {number}", line, _split(line, sign, columns)) for number, line in lines]
    if not rows:
        raise DataError(f"{file}: the list is empty: expected lines of 'relative/path.mp4 label'")
    folders = columns is None and _more_than_half(_is_folder(row) for _, _, row in rows)
    named = sign != " " and not _more_than_half(is_number(row[-1]) for _, _, row in rows)
    entries, wrong = [], []
    for where, line, row in rows:
        found = _entry(where, line, row, sign, folders, named)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            wrong.append((where, line, found))
    if wrong:
        raise unusable(file, wrong)
    return entries


def _more_than_half(answers: Iterable[bool]) -> bool:
    listed = list(answers)
    return 2 * sum(listed) > len(listed)


def _delimiter(lines: Sequence[str]) -> str:
    """What stands between path and label: a space (or several), a comma or a tab."""
    if not lines:
        return " "
    if all("\t" in line for line in lines):
        return "\t"
    # labels may be names that end in a number: what precedes the comma tells
    below = lines[1:] if _columns(_fields(lines[0], ",")) else lines
    if all(is_video(line.rpartition(",")[0].strip(' "')) for line in below):
        return ","
    votes = {sign: sum(is_number(_split(line, sign, None)[-1]) for line in lines) for sign in (" ", "\t", ",")}
    return max(votes, key=lambda sign: votes[sign])  # the first of equals


def _fields(line: str, sign: str) -> list[str]:
    if sign == " ":
        return line.split()
    parts = next(csv.reader([line], skipinitialspace=True)) if sign == "," else line.split(sign)
    return [part.strip() for part in parts]


def _columns(header: Sequence[str]) -> tuple[int, int, int | None] | None:
    """The places of path, label and, where there is one, number of frames in a line that names columns; else None."""
    names = [name.lower().replace(" ", "_") for name in header]
    path, label, frames = (
        next((names.index(name) for name in known if name in names), None) for known in (_PATHS, _LABELS, _FRAMES)
    )
    return None if path is None or label is None else (path, label, frames)


def _split(line: str, sign: str, columns: tuple[int, int, int | None] | None) -> list[str]:
    """[path, label], or [path, frames, label] where the fields before the label hold a number of frames."""
    if sign == " ":
        parts = line.rsplit(maxsplit=1)
        return parts if len(parts) == 2 else ["", line]
    fields = _fields(line, sign)
    if columns:
        if len(fields) <= max(place for place in columns if place is not None):
            return [""]
        return [fields[place] for place in (columns[0], columns[2], columns[1]) if place is not None]
    return [sign.join(fields[:-1]), fields[-1]] if len(fields) > 1 else [""]


def _is_folder(row: Sequence[str]) -> bool:
    """Whether a path and label are `path frames label` in truth."""
    path, frames = _without_frames(row[0])
    return bool(path) and is_number(frames) and is_number(row[-1])


def _without_frames(path: str) -> tuple[str, str]:
    for sign in ("\t", ",", None):
        parts = path.rsplit(sign, maxsplit=1)
        if len(parts) == 2 and is_number(parts[1].strip()):
            return parts[0].strip(), parts[1].strip()
    return "", ""


def _entry(where: str, line: str, row: Sequence[str], sign: str, folders: bool, named: bool) -> Entry | str:
    """The entry of a line, or what is wrong with it."""
    path, label = row[0], row[-1]
    frames = row[1] if len(row) == 3 else None
    if folders:
        path, frames = _without_frames(path)
    if len(row) < 2 or not path:
        return "expected 'path frames label'" if folders else f"expected '{_EXPECTED[sign]}'"
    if frames is not None and not is_number(frames):
        return f"the number of frames {frames!r} is not a whole number"
    if not (named or is_number(label)):
        return f"the label {label!r} is not a whole number from 0 on"
    if not label:
        return "the label is empty"
    name = path.replace("\\", "/").rstrip("/") if folders else path
    return Entry(name, label if named else int(label), where, line, frames=None if frames is None else int(frames))
