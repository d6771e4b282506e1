"""Rows and columns of a table that a user asks for: cells by what they are, columns by name, an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from backbones.registry import did_you_mean
from bench.errors import UserError
from bench.report.axes import facts, name_of, plain
from bench.report.table import NUMBERS, Column, ResultTable, fill, relevant
from bench.run.columns import COLUMNS
from bench.run.columns import row as csv_row
from bench.run.result import Result
from bench.text import listed, one_line


def where(results: Sequence[Result], conditions: Sequence[str]) -> list[Result]:
    """Return the results that meet all conditions.

    Args:
        results: of any runs.
        conditions: `NAME=VALUE[,VALUE ...]`, of which one value must be the result's. A name is that of a label, of an
            option or of a column of results.csv; a backbone is named by its family or with its weights as well.

    Raises:
        UserError: a name that no result has, a value that none of them has, or conditions that none meets together.
    """
    known = [facts(result) for result in results] if conditions else []
    names = list(dict.fromkeys(name for each in known for name in each))
    problems: list[str] = []
    kept = list(range(len(results)))
    for condition in conditions:
        written, equals, text = condition.partition("=")
        name = name_of(written)
        if not equals or not name or not text.strip():
            problems.append(f"where is {condition!r}: expected NAME=VALUE[,VALUE ...]")
            continue
        if name not in names:
            problems.append(f"where is {condition!r}: {not_a_name(name, names)}")
            continue
        has = [each.get(name, ()) for each in known]
        every = list(dict.fromkeys(text for texts in has for text in texts))
        # a value that holds a comma, such as a device's name, is one value
        wanted = [text] if text in every else [part.strip() for part in text.split(",")]
        for value in wanted:
            if not any(_means(texts, value) for texts in has):
                there = listed(one_line(texts[0]) for texts in has if texts)
                problems.append(
                    f"where is {condition!r}: no cell has the {name} {value!r}, expected of {there}"
                    f"{did_you_mean(value, every)}"
                )
        kept = [index for index in kept if any(_means(has[index], value) for value in wanted)]
    if conditions and not kept and not problems:
        problems.append(f"where is {', '.join(map(repr, conditions))}: no cell meets all of it")
    if problems:
        raise UserError(problems)
    return [results[index] for index in kept] if conditions else list(results)


def _means(texts: Sequence[str], value: str) -> bool:
    if value in texts:
        return True
    try:
        number = float(value)
    except ValueError:
        return False
    return any(_number(text) == number for text in texts)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def not_a_name(name: str, names: Sequence[str]) -> str:
    """Return the words on a name that tables have no values of."""
    near = did_you_mean(name, names)
    return f"expected the name of a label, of an option or of a column of results.csv{near}"


# --- columns ---


def unknown_columns(names: Sequence[str], option: str = "columns") -> list[str]:
    """Return a sentence on each name that is not a column of results.csv."""
    expected = "expected columns of results.csv"
    return [f"{option}: {name!r} is not one, {expected}{did_you_mean(name, COLUMNS)}" for name in names
            if name not in COLUMNS]  # fmt: skip


def column_of(name: str, values: Sequence[Any] = ()) -> Column:
    """Return the column that shows a column of results.csv: as the table has it, else under its own name.

    Args:
        name: of `COLUMNS`.
        values: which tell a column that the table does not have by itself from one of texts.
    """
    known = {column.key: column for column in NUMBERS}
    if name in known:
        return known[name]
    there = [value for value in values if value is not None]
    numeric = name != "seed" and bool(there) and all(type(value) in (int, float) for value in there)
    return Column(name, name, 1 if name == "val_top1" else None, numeric=numeric)


def with_columns(table: ResultTable, names: Sequence[str]) -> ResultTable:
    """Return the table with these columns of results.csv in place of its own, in this order.

    A name that one of the leading columns has is left to it. Numbers are means over seeds, texts those of all seeds.

    Raises:
        UserError: a name is not a column.
    """
    if problems := unknown_columns(names):
        raise UserError(problems)
    labels = {name_of(label) for label in table.labels}
    columns = _filled(table, [name for name in dict.fromkeys(names) if name not in labels])
    columns = columns or [NUMBERS[0]]
    return replace(table, columns=columns, caption=relevant(table.caption, columns), shaped=True)


def _filled(table: ResultTable, names: Sequence[str]) -> list[Column]:
    """Return the columns of these names, with what the results behind the rows have put into the rows."""
    records = [[csv_row(result) for result in row.results] for row in table.rows]
    columns = [column_of(name, [one[name] for those in records for one in those]) for name in names]
    for row, those in zip(table.rows, records, strict=True):
        for column in columns:
            if column.key in row.values or not those:
                continue
            values = [one[column.key] for one in those]
            if not column.numeric:
                texts = dict.fromkeys(one_line(plain(value)) for value in values if value not in (None, ""))
                row.texts |= {column.key: ", ".join(texts)} if texts else {}
            elif row.failure is None:
                fill(row, column, values)
    return columns


# --- order ---


def ordered(table: ResultTable, name: str) -> ResultTable:
    """Return the table with its rows in the order of a column, rows that lack it last; equal ones stay as they are.

    Args:
        table: any.
        name: of a column of the table, a label or a column of results.csv; `-NAME` is descending.

    Raises:
        UserError: there is no such column.
    """
    if problems := unsortable(table, name):
        raise UserError(problems)
    descending, wanted = name.startswith("-"), name.removeprefix("-").strip()
    keys = _keys(table, wanted)
    numeric = all(isinstance(key, float) for key in keys if key is not None)
    there = [(key if numeric else str(key), index) for index, key in enumerate(keys) if key is not None]
    there.sort(key=lambda each: each[0], reverse=descending)
    lacking = [row for row, key in zip(table.rows, keys, strict=True) if key is None]
    return replace(table, rows=[*(table.rows[index] for _, index in there), *lacking], shaped=True)


def unsortable(table: ResultTable, name: str, further: Sequence[str] = ()) -> list[str]:
    """Return the sentence on a name of `ordered` that is not one of a column; nothing where it is one.

    Args:
        further: labels that the table is about to get.
    """
    wanted = name.removeprefix("-").strip()
    keys = [column.key for column in table.columns]
    headers = [*table.labels, *(column.header for column in table.columns)]
    names = [*keys, *map(name_of, table.labels), *further, *COLUMNS]
    if wanted in names or wanted in headers:
        return []
    return [f"sort is {name!r}: expected [-]NAME of a label or a column of results.csv{did_you_mean(wanted, names)}"]


def _keys(table: ResultTable, name: str) -> list[float | str | None]:
    """Return what each row has of a column."""
    labels = {name_of(label): label for label in table.labels} | {label: label for label in table.labels}
    if name in labels:
        texts = [row.labels[labels[name]] for row in table.rows]
        numbers = [_number(text) for text in texts]
        return [*texts] if None in numbers else [*numbers]
    key = next((column.key for column in table.columns if name in (column.key, column.header)), None)
    if key is None:
        (column,) = _filled(table, [name])
        key = column.key
    return [row.values.get(key, row.texts.get(key)) for row in table.rows]
