"""The file of `bench profile --all`: written row by row, taken up where it was left, never of two kinds of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from bench.errors import UserError
from bench.files import reason, why_not_writable, write_text
from bench.run.profile_columns import COLUMNS, CONDITIONS, MODEL, csv_of, read_back, texts
from bench.run.profile_result import Profile

Key = tuple[str, ...]


class ProfileTable:
    """A CSV file of profiles of one code on one device, used in one way.

    Args:
        file: of the table; what it holds already is taken up where it was measured alike.
        planned: every row that is asked for, with its conditions and without its measurements, in the table's order.

    Attributes:
        anew: why the rows that the file holds are not taken up and the next write replaces them; "" where they are.

    Raises:
        UserError: the file cannot be read, or is not such a table.
    """

    def __init__(self, file: Path, planned: Sequence[Profile]) -> None:
        self.file = file
        wanted = [texts(profile) for profile in planned]
        self._order = [_key(row) for row in wanted]
        self._rows: dict[Key, Mapping[str, str]] = {}
        found = _read(file)
        self.anew = _incompatibility(found, wanted) if wanted else ""
        if not self.anew:
            self._rows = {_key(row): row for row in found}

    def known(self, profile: Profile) -> Profile | None:
        """The profile of a planned model that was measured before; None where it was not, or its row is damaged."""
        row = self._rows.get(_key(texts(profile)))
        if row is None or not profile.macs:
            return None
        try:
            return read_back(profile, row)
        except ValueError:
            return None

    def put(self, profile: Profile) -> None:
        """Write a row, in its place; the others stay, those too that another command has written. Raises UserError."""
        row = texts(profile)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.file.parent / f".{self.file.name}.lock"):
                found = _read(self.file)
                if not _incompatibility(found, [row]):
                    self._rows.update((_key(other), other) for other in found)
                self._rows[_key(row)] = row
                order = [key for key in self._order if key in self._rows]
                rows = [self._rows[key] for key in (*order, *(key for key in self._rows if key not in set(order)))]
                write_text(self.file, csv_of(rows))
        except OSError as error:
            raise UserError([f"out is {str(self.file)!r}: cannot be written ({reason(error)})"]) from error


def obstacles(file: Path) -> list[str]:
    """Return why no such table can be kept in a file, in sentences; its folder is made where it is not there."""
    if file.is_dir():
        return [f"out is {str(file)!r}: it is a folder, expected a file"]
    if file.exists() and not file.is_file():
        return [f"out is {str(file)!r}: it is not a file, expected one that can be written row by row"]
    if file.suffix != ".csv":
        return [f"out is {str(file)!r}: expected a file that ends in .csv, which --all writes row by row"]
    why = why_not_writable(file.parent)
    return [f"out is {str(file)!r}: {why}"] if why else []


def _key(row: Mapping[str, str]) -> Key:
    return tuple(row[name] for name in MODEL)


def _read(file: Path) -> list[dict[str, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "expected text in UTF-8"
        raise UserError([f"out is {str(file)!r}: cannot be read ({why})"]) from error
    reader = csv.DictReader(io.StringIO(text), restval="")
    if text.strip() and not {"backbone", "strategy", "classes", "gmacs_view_head"} <= set(reader.fieldnames or ()):
        # somebody's own file, which nothing must replace
        raise UserError([f"out is {str(file)!r}: it holds something else than profiles, expected another file"])
    return [{name: row.get(name) or "" for name in COLUMNS} for row in reader]


def _incompatibility(found: Sequence[Mapping[str, str]], wanted: Sequence[Mapping[str, str]]) -> str:
    """Return the difference that keeps a file's rows from standing with the wanted ones; "" where all can."""
    if not found:
        return ""
    for name in CONDITIONS:
        others = [row[name] for row in found if row[name] != wanted[0][name]]
        if others and name == "versions":
            return "other versions of packages"
        if others:
            return f"{name.replace('_', ' ')} {others[0] or 'unknown'}, not {wanted[0][name] or 'unknown'}"
    if wanted[0]["dirty"] == "True":
        return "code that was changed since its commit"
    keys = {_key(row) for row in wanted}
    models = {(row["backbone"], row["strategy"]): row for row in wanted}
    for row in found:
        other = models.get((row["backbone"], row["strategy"]))
        if other is not None and _key(row) not in keys:
            name = next(name for name in MODEL if row[name] != other[name])
            return f"{row['backbone']} {row['strategy']} with {name} {row[name] or 'none'}, not {other[name] or 'none'}"
    return ""
