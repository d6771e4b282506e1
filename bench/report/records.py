"""Results and rows of tables as records, for JSON and CSV: numbers in full, not as they are shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from bench.report.axes import name_of
from bench.report.table import ResultTable, Row
from bench.run.result import Result


def to_json(results: Sequence[Result]) -> str:
    """A list of records."""
    return json.dumps([record(result) for result in results], indent=2) + "\n"


def record(result: Result) -> dict[str, Any]:
    """A result without nesting as far as that goes; counts are whole numbers, not millions of parameters and GMACs."""
    cell, counts = result.cell, result.counted
    found: dict[str, Any] = {
        "status": result.status,
        "backbone": cell.backbone,
        "weights": cell.weights_label,
        "strategy": cell.strategy,
        "options": cell.options,
        "input_size": cell.input_size,
        "frames": cell.frames,
        "views": str(cell.views),
        "clips": cell.clips,
        "crops": cell.crops,
        "classes": cell.classes,
        "precision": cell.precision if cell.stages else None,
    }
    if cell.model_file is not None:
        found |= {"model_file": cell.model_file.path, "model_file_sha256": cell.model_file.sha256}
        found["layout"] = cell.model_file.layout
    if cell.dataset:
        found |= {"dataset": cell.dataset, "split": cell.split, "pixels": cell.pixels}
    macs = None if counts is None else counts.macs_view
    found |= {
        "params": counts and counts.params,
        "trained_params": counts and counts.trained_params,
        "macs_view": macs,
        "macs_total": None if macs is None else macs * cell.clips * cell.crops,
        "parts": {name: part.model_dump() for name, part in result.counts.parts.items()} if result.counts else {},
    }
    for part in (result.training, result.metrics):
        found |= {} if part is None else part.model_dump()
    found["measured"] = None if result.measured is None else result.measured.model_dump(mode="json")
    found["skipped"] = [video.model_dump() for video in result.skipped]
    found["footnotes"] = list(result.footnotes)
    found["error"] = result.error
    found["provenance"] = result.provenance.model_dump(mode="json")
    return found


def table_to_json(table: ResultTable) -> str:
    """A list of a table's rows, with the records of the results behind them where no columns were asked for."""
    return json.dumps([_row(table, row) for row in table.rows], indent=2) + "\n"


def _row(table: ResultTable, row: Row) -> dict[str, Any]:
    """A row: its labels by their names, then its numbers by column."""
    keys = [column.key for column in table.columns]
    found: dict[str, Any] = {name_of(label): row.labels[label] for label in table.labels}
    found |= {
        "status": row.status,
        "published": row.published,
        "seeds": list(row.seeds),
        "values": {key: row.values.get(key, row.texts.get(key)) for key in keys},
        "deviations": {key: row.spreads[key] for key in keys if key in row.spreads},
        "intervals": {key: [row.intervals[key].low, row.intervals[key].high] for key in keys if key in row.intervals},
        "best": [column.key for column in table.columns if table.best(row, column)],
        "not_told_apart_from_best": [key for key in keys if key in row.alike],
        "footnotes": [table.footnotes[number - 1] for number in row.notes],
        "failure": row.failure,
    }
    if not table.shaped:
        found["cells"] = [
            {"cell": result.cell.key, "seed": result.cell.seed, **record(result)} for result in row.results
        ]
    return found


def table_to_csv(table: ResultTable) -> str:
    """A line a row: labels, numbers of each column with their deviation and, where the table has them, intervals."""
    header = [name_of(label) for label in table.labels]
    several = any(column.key in row.spreads for row in table.rows for column in table.columns)
    intervals = {key for row in table.rows for key in row.intervals}
    for column in table.columns:
        header += [column.key, *[f"{column.key}_std"] * (several and column.numeric)]
        header += [f"{column.key}_low", f"{column.key}_high"] if column.key in intervals else []
    header = list(dict.fromkeys([*header, "seeds", "status", "footnotes"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n", restval="")
    writer.writeheader()
    for row in table.rows:
        line: dict[str, Any] = {name_of(label): row.labels[label] for label in table.labels}
        for column in table.columns:
            key = column.key
            line[key] = row.values.get(key, row.texts.get(key, ""))
            line |= {f"{key}_std": row.spreads[key]} if key in row.spreads else {}
            if key in row.intervals:
                line |= {f"{key}_low": row.intervals[key].low, f"{key}_high": row.intervals[key].high}
        notes = [*([row.failure] if row.failure else []), *(table.footnotes[number - 1] for number in row.notes)]
        line |= {"seeds": " ".join(map(str, row.seeds)), "footnotes": "; ".join(notes)}
        line["status"] = "published" if row.published else row.status
        writer.writerow({name: f"{value:.10g}" if isinstance(value, float) else value for name, value in line.items()})
    return text.getvalue()
