"""Results as JSON, and the formats of `bench report` by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from bench.report import markdown, terminal
from bench.report.table import make_table
from bench.run.columns import to_csv
from bench.run.result import Result

# of a run's results and of the number of its cells that have none
RENDERERS: dict[str, Callable[[Sequence[Result], int], str]] = {
    "terminal": lambda results, missing: terminal.render(make_table(results, missing)),
    "markdown": lambda results, missing: markdown.render(make_table(results, missing)),
    "csv": lambda results, missing: to_csv(results),
}


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
