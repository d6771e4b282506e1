"""Data that the script of a page shows, as one object of JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from bench.report.page.curves import CURVES, curves_of
from bench.report.page.videos import VideoData, video_data
from bench.report.runs import Runs
from bench.report.table import ResultTable, Row
from bench.run.columns import COLUMNS, to_csv
from bench.run.result import Result
from bench.text import one_line, shortened

_LONGEST = 4000  # letters of a traceback
# fields of a cell beside the columns of results.csv, which have no spaces in their names
_RUN, _FOLDER, _COMMAND, _MACHINE = "run", "cell folder", "command line", "processor"
_DECODERS, _HEAD, _RECIPE = "decoded by", "head made from", "full recipe"
_ATTEMPTS, _TRACEBACK = "attempts", "traceback"
# no columns of the table: it has them as labels, as footnotes, or below it
_NOT_OFFERED = {"cell", "backbone", "strategy", "status", "footnotes", "error"}


def page_data(runs: Runs, table: ResultTable) -> dict[str, Any]:
    """Return what the page's script shows: the rows of the table, their cells, their videos and their curves."""
    results = [result for row in table.rows for result in row.results]
    ends = list(accumulate(len(row.results) for row in table.rows))
    cells = [list(range(end - len(row.results), end)) for row, end in zip(table.rows, ends, strict=True)]
    fields = _fields(runs, results)
    shown = {column.key for column in table.columns}
    videos: VideoData = video_data(runs, results)
    return {
        "labels": [one_line(label) for label in table.labels],
        "columns": [
            {"key": each.key, "quantity": each.quantity, "header": each.header, "better": each.better}
            for each in table.columns
        ],
        "rows": [
            {
                "labels": [row.labels[label] for label in table.labels],
                "texts": [table.text(row, column) for column in table.columns],
                "values": [_number(row.values.get(column.key)) for column in table.columns],
                "best": [index for index, column in enumerate(table.columns) if table.best(row, column)],
                "notes": row.notes,
                "failure": row.failure,
                "cells": of_row,
                "parts": _parts(table, row, of_row),
            }
            for row, of_row in zip(table.rows, cells, strict=True)
        ],
        "footnotes": table.footnotes,
        "cells": {"count": len(results), "fields": fields},
        "further": [name for name in COLUMNS if name in fields and name not in shown | _NOT_OFFERED],
        **videos,
        "curves": curves_of([runs.cell_folder(result.cell) for result in results]),
        "curve_names": CURVES,
        "skipped": _skipped(results),
    }


def _parts(table: ResultTable, row: Row, cells: Sequence[int]) -> list[list[int]] | None:
    """Return the cells behind each number of a pivot's row; None where those of the row are behind all of them."""
    if not row.parts:
        return None
    places = {id(result): cell for result, cell in zip(row.results, cells, strict=True)}
    return [[places[id(result)] for result in row.behind(column)] for column in table.columns]


def to_script(data: object) -> str:
    """Return JSON for a `<script>` element: whatever texts it holds, no tag, comment or line begins or ends in them."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII alone, U+2028 and U+2029 escaped
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _number(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _fields(runs: Runs, results: Sequence[Result]) -> dict[str, list[Any]]:
    """Texts of each cell by name, `_coded`: the columns of results.csv as they stand there, and what else tells its
    origin. Those that no cell has are left out."""
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    fields = {name: [row[name] for row in rows] for name in COLUMNS}
    known = [result.provenance for result in results]
    fields |= {
        _RUN: [str(runs.run_of(result.cell).folder) for result in results],
        _FOLDER: [runs.cell_folder(result.cell).name for result in results],
        _COMMAND: [each.command for each in known],
        _MACHINE: [each.machine for each in known],
        _DECODERS: [", ".join(each.decoders) for each in known],
        _HEAD: [json.dumps(each.head, ensure_ascii=False) if each.head else "" for each in known],
        _RECIPE: [_recipe(result) for result in results],
        _ATTEMPTS: ["; ".join(f"{each.started}: {each.seconds:.0f} s" for each in which.attempts) for which in known],
    }
    coded = {name: _coded(texts, one_line) for name, texts in fields.items() if any(texts)}
    tracebacks = [result.traceback or "" for result in results]
    if any(tracebacks):
        coded[_TRACEBACK] = _coded(tracebacks, lambda text: shortened(text, _LONGEST))
    return coded


def _recipe(result: Result) -> str:
    if "train" not in result.cell.stages:
        return ""
    values = result.cell.recipe.model_dump(mode="json")
    return ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def _coded(texts: Sequence[str], clean: Callable[[str], str]) -> list[Any]:
    """Return the different texts, cleaned, and, where there are several, each cell's index among them."""
    places: dict[str, int] = {}
    at = [places.setdefault(text, len(places)) for text in texts]
    different = [clean(text) for text in places]
    return [different, at] if len(different) > 1 else [different]


def _skipped(results: Sequence[Result]) -> list[list[Any]]:
    """Data set, split, video and reason of the videos that could not be read, and how many cells met each."""
    cells: dict[tuple[str, str, str, str], int] = {}
    for result in results:
        for video in result.skipped:
            key = (result.cell.dataset, video.split, video.name, video.reason)
            cells[key] = cells.get(key, 0) + 1
    return [[*map(one_line, key), count] for key, count in cells.items()]
