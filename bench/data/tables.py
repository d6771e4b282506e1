"""Lists that are tables: CSV, TSV, and CSV with semicolons as Excel writes it where the comma is the decimal sign.

A header may name the columns, in any order, and other columns mean nothing; without one, a row is path and label, or
path, number of frames and label. Fields may be quoted (RFC 4180). Labels are numbers, also written as 1.0, or names of
classes; where there are columns of both, the numbers are taken.

Read by the standard library: pandas tells neither the line of a fault nor more than the first, and stops at it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from backbones.registry import did_you_mean
from bench.data.annotations import Entry, is_number, is_video_path, more_than_half, unusable
from bench.data.dataset import DataError

SUFFIXES = (".csv", ".tsv")
_SIGNS = {"\t": "tab", ";": "semicolon", ",": "comma"}
# what columns are called, the best known first; case, spaces, hyphens and underscores do not count
_PATHS = ("path", "file", "filename", "video", "video_path", "file_path", "name", "video_name", "folder")
_LABELS = ("label", "class", "label_id", "class_name", "target", "category", "class_id", "label_name")
_FRAMES = ("frames", "n_frames", "num_frames", "total_frames", "frame_count")
_EXCEL = re.compile(r"sep=[;,]")  # a first line that tells the separator
_ENOUGH = 10_000  # lines to tell the separator from
_NUMERIC = re.compile(r"[-+]?[0-9]+([.,][0-9]*)?")


class _Row(NamedTuple):
    where: str
    text: str
    fields: list[str]


class _Video(NamedTuple):
    """The fields of a row that count; `frames` may be empty."""

    path: str
    frames: str
    label: str


# --- the separator ---


def separator(lines: Sequence[str], table: bool) -> str | None:
    """The sign between the columns; None where the lines are `path label` and not a table.

    Args:
        lines: of the file, without the blank ones.
        table: whether the file's suffix says that it is a table.
    """
    lines = lines[:_ENOUGH]
    for sign in _SIGNS:
        if is_header(_fields(lines[0], sign)):
            return sign
    if all("\t" in line for line in lines):
        return "\t"
    for sign in _SIGNS:  # names of classes may end in a number: a video before the sign tells more
        if all(_has_video_first(line, sign) for line in lines):
            return sign
    spaced = [line.rsplit(maxsplit=1) for line in lines]
    numbers = sum(is_number(parts[-1]) for parts in spaced)
    if not table:
        votes = {sign: sum(_has_number_last(line, sign) for line in lines) for sign in _SIGNS}
        best = max(votes, key=lambda sign: votes[sign])
        return best if votes[best] > numbers else None
    if numbers == len(lines) and all(is_video_path(parts[0]) for parts in spaced):
        return None  # `path label` in a .csv, as some tools write it
    signed = {
        sign: sum(_has_video_first(line, sign) or _has_number_last(line, sign) for line in lines) for sign in _SIGNS
    }
    there = {sign: sum(sign in line for line in lines) for sign in _SIGNS}
    best = max(_SIGNS, key=lambda sign: (signed[sign], there[sign]))
    return best if 2 * there[best] > len(lines) else None


def _has_number_last(line: str, sign: str) -> bool:
    return sign in line and _NUMERIC.fullmatch(_fields(line, sign)[-1]) is not None


def _has_video_first(line: str, sign: str) -> bool:
    fields = _fields(line, sign) if sign in line else []
    return len(fields) > 1 and (is_video_path(fields[0]) or is_video_path(sign.join(fields[:-1])))


def _fields(line: str, sign: str) -> list[str]:
    try:
        fields = next(csv.reader([line], delimiter=sign, skipinitialspace=True))
    except csv.Error:  # a field of more than 131,072 characters, which reading the rows tells
        return [line]
    return [field.strip() for field in fields]


# --- rows ---


def read_table(file: Path, text: str, sign: str) -> list[Entry]:
    """The entries of a table, in its order; empty rows mean nothing.

    Args:
        file: for messages, and because the suffix tells whether a path with a comma in it wants quotes.
        text: its content.
        sign: between the columns.

    Raises DataError where there is no video, the header lacks a column or names one twice, or rows are malformed, which
    are all told.
    """
    rows = _rows(file, text, sign)
    if _is_header_of(file, rows):
        found = _by_name(file, rows, sign)
        rows = rows[1:]
    else:
        found = _by_place(rows, sign, strict=file.suffix.lower() in SUFFIXES)
    numbers = more_than_half(_NUMERIC.fullmatch(one.label) is not None for one in found if isinstance(one, _Video))
    entries, wrong = [], []
    for row, one in zip(rows, found, strict=True):
        entry = _entry(row, one, sign, numbers) if isinstance(one, _Video) else one
        if isinstance(entry, Entry):
            entries.append(entry)
        else:
            wrong.append((row.where, row.text, entry))
    if wrong:
        raise unusable(file, wrong)
    return entries


def _rows(file: Path, text: str, sign: str) -> list[_Row]:
    """The rows that hold anything. Raises DataError where there is none, and for all lines with wrong quotes."""
    lines = text.split("\n")
    rows = []
    first = 1
    reader = csv.reader(io.StringIO(text), delimiter=sign, skipinitialspace=True, strict=True)
    try:
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if any(stripped) and not _EXCEL.fullmatch(lines[first - 1]):
                rows.append(_Row(f"line {first}", lines[first - 1].strip(), stripped))
            first = reader.line_num + 1
    except csv.Error:
        raise unusable(file, list(_misquoted(lines, sign))) from None
    if not rows:
        raise DataError(f"{file}: the list is empty: expected lines of 'relative/path.mp4{sign}label'")
    return rows


def _misquoted(lines: Sequence[str], sign: str) -> Iterator[tuple[str, str, str]]:
    """The lines that cannot be read by themselves: one with an open quote would take those after it with it."""
    for number, line in enumerate(lines, start=1):
        try:
            list(csv.reader([line], delimiter=sign, skipinitialspace=True, strict=True))
        except csv.Error as error:
            told = "a quote is opened and not closed"
            if "expected after" in str(error):
                told = f"something follows a closing quote: expected a {_SIGNS[sign]}, and two quotes for one inside"
            elif "limit" in str(error):
                told = f"a field has more than {csv.field_size_limit():,} characters"
            yield f"line {number}", line[:200].strip(), told


def _entry(row: _Row, found: _Video, sign: str, numbers: bool) -> Entry | str:
    """The entry of a row, or what is wrong with it."""
    frames, label = _whole(found.frames, sign), _whole(found.label, sign)
    if not found.path:
        return "the path is empty"
    if not found.label:
        return "the label is empty"
    if "\n" in found.path + found.label:
        return "a quoted field goes over more than one line: is a quote not closed?"
    if found.frames and frames is None:
        return f"the number of frames {found.frames!r} is not a whole number"
    if numbers and label is None:
        return f"the label {found.label!r} is not a whole number from 0 on"
    if is_video_path(found.label):
        return (
            f"the label {found.label!r} is a video's name: expected the path first, or a header that names the columns"
        )
    name = found.path if frames is None else found.path.replace("\\", "/").rstrip("/")
    return Entry(name, label if numbers and label is not None else found.label, row.where, row.text, frames=frames)


def _whole(text: str, sign: str) -> int | None:
    """A whole number from 0 on, also as 1.0 (1,0 beside semicolons); else None."""
    found = re.fullmatch(r"([0-9]{1,18})([.,]0*)?" if sign == ";" else r"([0-9]{1,18})(\.0*)?", text)
    return int(found[1]) if found else None


# --- columns ---


def is_header(fields: Sequence[str]) -> bool:
    """Return whether the fields of a line name a column of paths and one of labels."""
    return bool(_places(fields, _PATHS) and _places(fields, _LABELS))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _places(header: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the indices of a header's columns of these names, in the names' order."""
    names = [_plain(name) for name in header]
    return [names.index(name) for name in map(_plain, known) if name in names]


def _is_header_of(file: Path, rows: Sequence[_Row]) -> bool:
    """Return whether the first row is a header. Raises DataError where it seems to be one and lacks a column."""
    fields = rows[0].fields
    if is_header(fields):
        return True
    if any(is_video_path(field) or _NUMERIC.fullmatch(field) for field in fields):
        return False
    known = {"paths": _PATHS, "labels": _LABELS}
    lacking = {what: names for what, names in known.items() if not _places(fields, names)}
    others = rows[1:]
    videos = bool(others) and all(any(map(is_video_path, row.fields)) for row in others)
    if len(lacking) == len(known) and not videos:
        return False
    told = []
    for what, names in lacking.items():
        near = next(filter(None, (did_you_mean(field, names) for field in fields)), "")
        told.append(f"no column of {what}: expected one of {', '.join(names)}{near}")
    raise DataError(f"{file}: {rows[0].where} seems to be a header ({', '.join(fields)}) and has {'; and '.join(told)}")


def _by_name(file: Path, rows: Sequence[_Row], sign: str) -> list[_Video | str]:
    """Return the videos of the rows below a header, or their faults. Raises DataError for the header's own faults."""
    header, rows = rows[0].fields, rows[1:]
    if not rows:
        raise DataError(f"{file}: the list has a header ({', '.join(header)}) and no videos below it")
    path, *_ = _places(header, _PATHS)
    labels = _places(header, _LABELS)
    numbers = [
        at for at in labels if more_than_half(_NUMERIC.fullmatch(field) is not None for field in _column(rows, at))
    ]
    label = (numbers or labels)[0]
    frames = next(iter(_places(header, _FRAMES)), None)
    used = [at for at in (path, label, frames) if at is not None]
    names = [_plain(name) for name in header]
    if twice := [header[at] for at in used if names.count(names[at]) > 1]:
        raise DataError(f"{file}: the header has {', '.join(map(repr, twice))} more than once, expected it once")
    found: list[_Video | str] = []
    for row in rows:
        if len(row.fields) <= max(used) or any(row.fields[len(header) :]):
            found.append(
                f"{_counted(row)}, and the header has {len(header)}: expected as many, and quotes around a field with "
                f"a {_SIGNS[sign]} in it"
            )
        else:
            found.append(_Video(row.fields[path], "" if frames is None else row.fields[frames], row.fields[label]))
    return found


def _column(rows: Sequence[_Row], at: int) -> Iterator[str]:
    return (row.fields[at] for row in rows if at < len(row.fields))


def _counted(row: _Row) -> str:
    return f"it has {len(row.fields)} column{'s' * (len(row.fields) != 1)}"


def _by_place(rows: Sequence[_Row], sign: str, strict: bool) -> list[_Video | str]:
    """Return the rows' videos where there is no header, or what is wrong with them.

    Args:
        strict: a path that holds the sign, and is not evidently a video's, is a fault.
    """
    fields = []
    for row in rows:
        last = max(at for at, field in enumerate(row.fields) if field)  # spreadsheets add empty columns
        fields.append(row.fields[: max(last + 1, 2)])
    folders = more_than_half(len(parts) > 2 and all(map(_NUMERIC.fullmatch, parts[-2:])) for parts in fields)
    expected = f"path{sign}frames{sign}label" if folders else f"relative/path.mp4{sign}label"
    found: list[_Video | str] = []
    for row, parts in zip(rows, fields, strict=True):
        rest = 2 if folders else 1
        path = sign.join(parts[:-rest])
        if len(parts) <= rest:
            found.append(f"expected '{expected}'")
        elif strict and len(parts) > rest + 1 and not is_video_path(path):
            found.append(
                f"{_counted(row)}: expected '{expected}', quotes around a field with a {_SIGNS[sign]} in it, or a "
                "first line that names the columns"
            )
        else:
            found.append(_Video(path, parts[-2] if folders else "", parts[-1]))
    return found
