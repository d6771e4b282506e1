"""Files that come with data sets: text, JSON items, names of classes; the entry of a list, and the errors about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data.dataset import DataError
from bench.data.files import is_video
from bench.files import reason

_SHOWN = 5  # complaints printed; a list of the wrong format has one a line
# how files begin that are not text
_NOT_TEXT = {
    b"PK\x03\x04": "a spreadsheet or an archive: export the list as CSV in UTF-8",
    b"\xff\xfe": "text in UTF-16, as Excel's 'Unicode text': save it as CSV in UTF-8",
    b"\xfe\xff": "text in UTF-16, as Excel's 'Unicode text': save it as CSV in UTF-8",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list: one video and its label.

    Attributes:
        name: its path as the list gives it.
        label: a number as the list gives it, or a class's name.
        where: in the file ("line 3").
        text: of the list on it, for complaints.
        candidates: where it may lie below a folder of videos, the likeliest first; one that ends in `.*` has any video
            suffix. Empty: under its name alone.
        frames: how many a folder of frames has.
    """

    name: str
    label: int | str
    where: str
    text: str = ""
    candidates: tuple[str, ...] = ()
    frames: int | None = None


def is_number(text: str) -> bool:
    """Test for a whole number from 0 on, in at most 18 plain digits."""
    # isdecimal alone would let other scripts' digits through, int() alone '1_0' and '+1'; long ones fail
    return text.isascii() and text.isdecimal() and len(text) <= 18


def is_video_path(text: str) -> bool:
    """Return whether a path's last part is the name of a video."""
    return is_video(text.replace("\\", "/").rpartition("/")[2])


def more_than_half(answers: Iterable[bool]) -> bool:
    """Test for a majority: lists are read as most of their lines demand, and the others are reported."""
    listed = list(answers)
    return 2 * sum(listed) > len(listed)


def read_text(file: Path) -> str:
    """A text file's content, with line ends as `\\n`. Raises DataError where it is not UTF-8 or cannot be read."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the list {file}: {reason(error)}") from error
    for begin, told in _NOT_TEXT.items():
        if content.startswith(begin):
            raise DataError(f"cannot read the list {file}: it is {told}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"cannot read the list {file}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}): "
            "expected a text file in UTF-8 (Excel saves it as 'CSV UTF-8')"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unusable(file: Path, complaints: Sequence[tuple[str, str, str]], hint: str = "") -> DataError:
    """An error with the first few complaints and their count.

    Args:
        complaints: (where, the list's text, what is wrong).
        hint: what may be behind them all.
    """
    noun = "line" if len(complaints) == 1 else "lines"
    shown = "\n  ".join(f"{where}: {text!r}: {told}" for where, text, told in complaints[:_SHOWN])
    more = f"\n  and {len(complaints) - _SHOWN} more" if len(complaints) > _SHOWN else ""
    because = f"\n  {hint}" if hint else ""
    return DataError(f"{file}: {len(complaints)} {noun} of the list cannot be used:\n  {shown}{more}{because}")


def read_items(file: Path, needed: Sequence[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """("item N", the item as text, the item) of each.

    Args:
        needed: names that every item has.

    Raises DataError where the file is not such a list, or items lack a name, which are all told.
    """
    try:
        found = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{file}: expected a list of items with {', '.join(needed)}")
    items = [(f"item {number}", json.dumps(item)[:100], item) for number, item in enumerate(found, start=1)]
    wrong = [
        (where, text, f"expected {', '.join(needed)}")
        for where, text, item in items
        if not isinstance(item, dict) or not all(name in item for name in needed)
    ]
    if wrong:
        raise unusable(file, wrong)
    return items


_NUMBERED = re.compile(r"(\d+)[\s,]+(\S.*)")
_QUOTED = re.compile(r'"([^"]+)"')


def read_class_names(file: Path) -> tuple[str, ...]:
    """The names in the order of their labels.

    Text: a name a line, or `number name` a line with numbers from 0 or 1 (UCF-101's classInd.txt), separated by spaces,
    a tab or a comma, with or without a header. JSON: a list of names or of their parts (Diving-48's vocabulary), or an
    object from name to number (SSv2's labels) or from number to name.

    Raises DataError where the file is none of these or a name repeats.
    """
    text = read_text(file)
    names = _of_json(file, text) if file.suffix.lower() == ".json" else _of_lines(text)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{file}: expected the names of the classes, one a line, or a JSON list of them")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{file}: classes are named twice: {', '.join(twice[:5])}")
    return tuple(names)


def _of_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if len(lines) > 1 and not found[0] and all(found[1:]):  # a header, or a name and numbered ones
        found, lines = found[1:], lines[1:]
    numbered = [(int(match[1]), match[2].strip('" ')) for match in found if match]
    first = min((number for number, _ in numbered), default=0)
    if len(numbered) == len(lines) and first in (0, 1):
        names = dict(numbered)
        if sorted(names) == list(range(first, first + len(lines))):
            return [names[number] for number in sorted(names)]
    return [match[1] if (match := _QUOTED.fullmatch(line)) else line for line in lines]


def _of_json(file: Path, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    if isinstance(found, Mapping):
        try:
            if all(key.isdecimal() for key in found):
                numbered = {int(key): value for key, value in found.items()}
            else:
                numbered = {int(value): key for key, value in found.items()}
        except (TypeError, ValueError):
            return []
        ordered = sorted(numbered)
        whole = len(numbered) == len(found) and ordered == list(range(len(ordered)))
        return [numbered[number] for number in ordered] if whole else []
    if not isinstance(found, list):
        return []
    return [
        "+".join(name) if isinstance(name, list) and all(isinstance(p, str) for p in name) else name for name in found
    ]
