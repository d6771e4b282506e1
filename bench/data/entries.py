"""An entry of a list of videos, whatever the format of the list, and the errors about lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Test for a whole number from 0 on, in at most 18 plain digits."""
    # isdecimal alone would let other scripts' digits through, int() alone '1_0' and '+1'; long ones fail
    return text.isascii() and text.isdecimal() and len(text) <= 18


def is_video_path(text: str) -> bool:
    """Return whether a path's last part is the name of a video."""
    return is_video(text.replace("\\", "/").rpartition("/")[2])


def more_than_half(answers: Iterable[bool]) -> bool:
    """Test for a majority of yes: lists are read as most of their lines want it, and the others told."""
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
