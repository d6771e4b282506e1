"""Published figures as rows beside ours: told apart, with their source, never best and never tested."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.files import reason
from bench.papers.figures import AIM_FIGURES, QUANTITIES, SOURCE, read_printed
from bench.report.axes import facts, name_of
from bench.report.table import ResultTable, Row
from bench.run.columns import COLUMNS, MEASURES
from bench.text import one_line

AIM = "aim"  # stands for the figures of AIM's paper, which lie in the package
FIGURES = "figures"  # header of the leading column that tells them apart
_SOURCES = {AIM: SOURCE}
_LABELS = {"method": "strategy", "pretrain": "weights", "temporal_views": "clips", "spatial_views": "crops"}
_KNOWN = ("source", *COLUMNS, *QUANTITIES, *_LABELS)
_CHOOSING = ("dataset", "frames", "views")


@dataclass(frozen=True)
class Figures:
    """A row of published figures.

    Attributes:
        source: where they stand, such as a paper's table.
        labels: texts by the labels' names: backbone, strategy, dataset, frames, views.
        texts: numbers as they are printed, by columns of results.csv.
    """

    source: str
    labels: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_published(names: Sequence[str]) -> list[Figures]:
    """Return the rows of files of published figures.

    Args:
        names: of CSV files, or `AIM`. A file has the columns of `results/aim_paper.csv`, or of results.csv.

    Raises:
        UserError: a file cannot be read, has unknown columns, or a text where a number is expected.
    """
    found: list[Figures] = []
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            text = _text(name)
            found += _parsed(name, text, problems)
        except (OSError, UnicodeError, csv.Error) as error:
            told = reason(error) if isinstance(error, OSError) else str(error)
            problems.append(f"published is {name!r}: cannot be read ({told})")
    if problems:
        raise UserError(problems)
    return found


def _text(name: str) -> str:
    if name == AIM:
        return AIM_FIGURES.read_text(encoding="utf-8")
    return Path(name).read_text(encoding="utf-8-sig")


def _parsed(name: str, text: str, problems: list[str]) -> list[Figures]:
    columns, rows = read_printed(text)
    unknown = [column for column in columns if column not in _KNOWN]
    problems += [
        f"published is {name!r}: its column {column!r} is unknown, expected columns of results.csv"
        f"{did_you_mean(column or '', _KNOWN)}"
        for column in unknown
    ]
    if not {"strategy", "method"} & {*columns} or "backbone" not in columns:
        problems.append(f"published is {name!r}: expected the columns backbone and method (or strategy)")
    found = []
    for number, values in rows:
        named = {_LABELS.get(key, key): value for key, value in values.items()}
        texts = {QUANTITIES.get(key, key): value for key, value in values.items()}
        numbers = {key: text for key, text in texts.items() if key in _COLUMNS_OF_NUMBERS}
        wrong = [key for key, text in numbers.items() if not _is_number(text)]
        problems += [
            f"published is {name!r}: line {number} has {numbers[key]!r} as {key}, expected a number" for key in wrong
        ]
        source = named.get("source") or Path(name).name
        where = f" ({_SOURCES[name]})" if name in _SOURCES else f" ({Path(name).name})" if "source" in named else ""
        labels = {
            "backbone": " ".join(named[key] for key in ("backbone", "weights") if key in named),
            "strategy": " ".join(named[key] for key in ("strategy", "options") if key in named),
        }
        labels |= {key: named[key] for key in ("dataset", "frames", "views") if key in named}
        if "clips" in named and "crops" in named:
            labels["views"] = f"{named['clips']}x{named['crops']}"
        found.append(Figures(source + where, labels, {k: t for k, t in numbers.items() if k not in wrong}))
    return found


_COLUMNS_OF_NUMBERS = {*MEASURES, "val_top1", "adapter_mb", "train_ms", "infer_ms"}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def with_published(table: ResultTable, figures: Sequence[Figures], conditions: Sequence[str] = ()) -> ResultTable:
    """Return the table with published figures below its own rows.

    Figures are of the table's data sets; where none are, all of them stand there and the caption says so. Numbers stand
    as they were printed. In a pivot they stand in the column of their own value.

    Args:
        table: any; its uncertainties are there already.
        figures: of any sources.
        conditions: of `select.where`, of which those of data set, frames and views hold for the figures as well.
    """
    ours = {result.cell.dataset for row in table.rows for result in row.results}
    kept = [each for each in figures if _meets(each, conditions)]
    shared = [each for each in kept if each.labels.get("dataset") in ours]
    chosen = shared or kept
    labels = _labels(table, chosen)
    notes = list(table.footnotes)
    added: list[Row] = []
    for each in chosen:
        row = _row(table, labels, each)
        if row is None:
            continue
        note = f"published: {each.source}"
        if note not in notes:
            notes.append(note)
        row.notes = [notes.index(note) + 1]
        into = next((other for other in added if table.by and _fits(other, row)), None)
        if into is None:
            added.append(row)
        else:
            into.values |= row.values
            into.texts |= row.texts
            into.notes += [number for number in row.notes if number not in into.notes]
    if not added:
        reason = "has one of these columns" if chosen else "meets the conditions"
        return replace(table, caption=[*table.caption, f"none of the published figures {reason}"])
    caption = list(table.caption)
    if not shared:
        theirs = ", ".join(dict.fromkeys(each.labels.get("dataset", "-") for each in kept))
        caption.append(f"published figures are of other data sets ({theirs}): they stand beside ours, not against them")
    labels, rows = [*labels, FIGURES], _measured(table, labels)
    return replace(table, labels=labels, rows=[*rows, *added], footnotes=notes, caption=caption)


def _meets(figures: Figures, conditions: Sequence[str]) -> bool:
    for condition in conditions:
        name, _, text = condition.partition("=")
        name = name_of(name)
        wanted = [part.strip() for part in text.split(",")]
        if name in _CHOOSING and name in figures.labels and figures.labels[name] not in wanted:
            return False
    return True


def _labels(table: ResultTable, figures: Sequence[Figures]) -> list[str]:
    """The leading columns, with those in which our rows and the figures differ."""
    labels = list(table.labels)
    if table.by:
        return labels
    known = [facts(row.results[0]) for row in table.rows if row.results]
    for header, name in (("data set", "dataset"), ("frames", "frames"), ("views", "views")):
        every = {each.labels.get(name, "-") for each in figures} | {each[name][0] for each in known}
        if header not in labels and len(every) > 1:
            labels.append(header)
    return labels


def _measured(table: ResultTable, labels: Sequence[str]) -> list[Row]:
    """Our own rows, with all of the labels."""
    for row in table.rows:
        known = facts(row.results[0]) if row.results else {}
        for label in labels:
            row.labels.setdefault(label, one_line(known.get(name_of(label), ("-",))[0]))
        row.labels[FIGURES] = "measured"
    return table.rows


def _row(table: ResultTable, labels: Sequence[str], figures: Figures) -> Row | None:
    """The figures as a row; None where the table has no column for them."""
    row = Row({label: figures.labels.get(name_of(label), "-") for label in labels}, published=True)
    row.labels[FIGURES] = "published"
    for column in table.columns:
        if table.by and column.key != f"{column.of}[{figures.labels.get(table.by)}]":
            continue
        if column.quantity in figures.texts:
            row.texts[column.key] = figures.texts[column.quantity]
            row.values[column.key] = float(figures.texts[column.quantity])
    return row if row.values else None


def _fits(one: Row, other: Row) -> bool:
    """Test that two rows of figures have the same labels and no column in common."""
    return one.labels == other.labels and not one.values.keys() & other.values.keys()
