"""Text for people: messages that no terminal takes for commands, counted nouns, small numbers and times."""

from __future__ import annotations

import math
from collections.abc import Iterable

_LISTED = 10  # texts that a message lists


def visible(text: str) -> str:
    """Spell out everything that would not print; lines stay lines. Names may come out of any file."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def one_line(text: str) -> str:
    """Put a text into one `visible` line, for tables and logs."""
    return visible(" ".join(text.split()))


def indented(text: str, width: int) -> str:
    """Move every line but the first to the right by `width` columns, to stand below the first one."""
    return text.replace("\n", "\n" + " " * width)


def shortened(text: str, longest: int) -> str:
    """Return the text, `visible` and of at most `longest` letters (40 or more): of a longer one the beginning and the
    end, which tells what was expected.
    """
    if len(text) <= longest and len(spelled := visible(text)) <= longest:
        return spelled
    mark = " ... (shortened) ... "
    tail = (longest - len(mark)) // 3
    head = longest - len(mark) - tail
    return visible(text[:head])[:head] + mark + visible(text[-tail:])[-tail:]


def listed(texts: Iterable[str]) -> str:
    """Return different texts as a list with commas: of more than ten the first ten, and how many there are."""
    different = list(dict.fromkeys(texts))
    shown = ", ".join(different[:_LISTED])
    return shown if len(different) <= _LISTED else f"{shown}, ... ({len(different):,} in all)"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return `1 epoch`, `2 epochs`, `1,500 cells`.

    Args:
        plural: where it is not the noun and an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def quantity(value: float, digits: int) -> str:
    """Return a number with so many digits after the point, and more where it would show fewer than three that count.

    So 85.8 is 85.800 in three digits and 0.000579 is 0.000579, which is not 0.001 and still less 0.000. 0 is 0.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(digits, 2 - math.floor(math.log10(abs(value))))}f}"


def duration(seconds: float) -> str:
    """Return a time in the unit that fits: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def byte_size(count: float) -> str:
    """Return a number of bytes in the largest unit of thousands that it fills: 196 MB, 1.2 TB."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
