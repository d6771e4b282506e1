"""Tables with a column for each value of something, such as a data set: the shape of papers' tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.errors import UserError
from bench.report.axes import axes_of, facts, header_of, label_of, name_of
from bench.report.select import column_of, not_a_name, unknown_columns
from bench.report.table import ResultTable, Row, fill, make_table, relevant
from bench.run.columns import COLUMNS
from bench.run.columns import row as csv_row
from bench.run.result import Result
from bench.text import counted, listed, one_line


def pivot(
    results: Sequence[Result],
    by: str,
    metrics: Sequence[str] = ("top1",),
    rows: Sequence[str] = (),
    missing: int = 0,
    deviations: bool = True,
) -> ResultTable:
    """Return the table with a number column for each value of `by`, of several metrics for each of them.

    Args:
        results: of which those that differ in the seed alone stand together in one number.
        by: name of a label, an option or a column of results.csv.
        metrics: columns of results.csv that hold numbers.
        rows: names of what tells rows apart; by default all that `make_table` shows but `by`.
        missing: how many cells have no result.
        deviations: as in `make_table`.

    Raises:
        UserError: a name is unknown, or several rows of the plain table fall into one number: means are over seeds
            alone.
    """
    known = {id(result): facts(result) for result in results}
    records = {id(result): csv_row(result) for result in results}
    wanted, by = list(dict.fromkeys(map(name_of, rows))), name_of(by)
    of = {name: column_of(name, [one[name] for one in records.values()]) for name in metrics if name in COLUMNS}
    names = list(dict.fromkeys(name for each in known.values() for name in each))
    named = [*(("rows", name) for name in wanted), ("by", by)]
    problems = [f"{option} is {name!r}: {not_a_name(name, names)}" for option, name in named if name not in names]
    problems += [f"rows is {','.join(wanted)!r}: {by!r} is a column of its own, with --by"] if by in wanted else []
    problems += unknown_columns(metrics, "metric")
    problems += [f"metric: {name!r} holds texts, expected numbers" for name, each in of.items() if not each.numeric]
    if problems:
        raise UserError(problems)
    flat = make_table(results, missing, deviations)
    headers = [header_of(name) for name in wanted] or [label for label in flat.labels if name_of(label) != by]
    found: dict[tuple[str, ...], Row] = {}
    behind: dict[tuple[tuple[str, ...], str], list[Row]] = {}
    failed: dict[tuple[tuple[str, ...], str], list[Result]] = {}
    values: dict[str, None] = {}
    for each in flat.rows:
        value = _shared(by, each, known, "by")
        labels = {
            header: each.labels[header] if header in each.labels else _shared(name_of(header), each, known, "rows")
            for header in headers
        }
        place = tuple(labels.values())
        row = found.setdefault(place, Row(labels))
        row.results = [*row.results, *each.results]
        row.seeds = tuple(sorted({*row.seeds, *each.seeds}))
        row.notes += [note for note in each.notes if note not in row.notes]
        values[value] = None
        if each.failure is None:
            behind.setdefault((place, value), []).append(each)
        else:
            flat.footnotes.append(one_line(f"{header_of(by)} {value}: {each.failure}"))
            row.notes.append(len(flat.footnotes))
            failed.setdefault((place, value), []).extend(each.results)
            row.texts |= {f"{name}[{value}]": each.status for name in of}
    _alone(behind, headers, by)
    several = len(of) > 1
    columns = []
    for value in values:
        for name, column in of.items():
            header = f"{value} {column.header}" if several else value
            columns.append(replace(column, key=f"{name}[{value}]", header=header, of=name))
            for place, row in found.items():
                results_of = [result for each in behind.get((place, value), ()) for result in each.results]
                row.parts[columns[-1].key] = results_of or failed.get((place, value), [])
                if results_of:
                    row.texts.pop(columns[-1].key, None)  # another seed has failed
                fill(row, columns[-1], [records[id(result)][name] for result in results_of])
    caption = relevant(flat.caption, columns)
    if not several:
        caption.insert(0, f"{next(iter(of.values())).header} by {header_of(by)}")
    shape = replace(flat, labels=headers, columns=columns, rows=list(found.values()), caption=caption)
    return replace(shape, shaped=True, by=by)


def _shared(name: str, row: Row, known: Mapping[int, Mapping[str, tuple[str, ...]]], option: str) -> str:
    """The text that all results of a row have. Raises UserError where they differ in it, as in their seed."""
    texts = dict.fromkeys(known[id(result)].get(name, ("-",))[0] for result in row.results)
    if len(texts) > 1:
        raise UserError(
            [f"{option} is {name!r}: expected what cells of different seeds share, which are one number; they have "
             f"{listed(texts)}"]
        )  # fmt: skip
    return one_line(next(iter(texts)))


def _alone(behind: dict[tuple[tuple[str, ...], str], list[Row]], headers: Sequence[str], by: str) -> None:
    """See that each number has one row of the plain table behind it. Raises UserError."""
    problems = []
    for (place, value), rows in behind.items():
        if len(rows) > 1:
            cells = [row.results[0].cell for row in rows]
            backbones, strategies = zip(*map(label_of, cells), strict=True)
            every = {"backbone": backbones, "strategy": strategies, **axes_of(cells)}
            differing = {name: texts for name, texts in every.items() if name not in headers and len(set(texts)) > 1}
            told = "; ".join(f"{name}: {listed(texts)}" for name, texts in differing.items())
            add = ", ".join(map(name_of, differing)) or "what they differ in"
            problems.append(
                f"rows is {','.join(map(name_of, headers))!r}: {counted(len(rows), 'row')} of {' '.join(place)} have "
                f"the {header_of(by)} {value}, expected one; add {add} to --rows, or choose with --where "
                f"({told or 'they differ in their sources'})"
            )
    if problems:
        raise UserError(problems[:3])
