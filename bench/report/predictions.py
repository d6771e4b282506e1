"""Predictions of single videos as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from bench.run.prediction import VideoPrediction
from bench.text import one_line

_DIGITS = 9  # of a probability: float32 has no more


def _terminal(found: Sequence[VideoPrediction]) -> str:
    blocks = []
    for each in found:
        lines = [one_line(each.video)]
        if each.error:
            lines.append(f"  could not be read: {one_line(each.error)}")
        for name, probability in zip(each.classes, each.probabilities, strict=True):
            lines.append(f"  {100 * probability:5.1f} %  {one_line(name)}")
        blocks.append("\n".join(lines))
    return "\n".join(blocks) + "\n"


def _json(found: Sequence[VideoPrediction]) -> str:
    records = []
    for each in found:
        record: dict[str, Any] = {"video": each.video, "error": each.error or None}
        record["predictions"] = [
            {"label": label, "class": name, "probability": _rounded(probability)}
            for label, name, probability in zip(each.labels, each.classes, each.probabilities, strict=True)
        ]
        records.append(record)
    return json.dumps(records, indent=2) + "\n"


def _csv(found: Sequence[VideoPrediction]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["video", "rank", "label", "class", "probability", "error"])
    for each in found:
        rows = enumerate(zip(each.labels, each.classes, each.probabilities, strict=True), start=1)
        for rank, (label, name, probability) in rows:
            writer.writerow([each.video, rank, label, name, _rounded(probability), ""])
        if each.error:
            writer.writerow([each.video, "", "", "", "", one_line(each.error)])
    return file.getvalue()


def _rounded(probability: float) -> float:
    return float(f"{probability:.{_DIGITS}g}")


PREDICTION_RENDERERS: dict[str, Callable[[Sequence[VideoPrediction]], str]] = {
    "terminal": _terminal,
    "json": _json,
    "csv": _csv,
}
