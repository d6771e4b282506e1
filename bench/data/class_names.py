"""Files of class names, in the forms in which they come with data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.dataset import DataError
from bench.data.entries import read_text

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
