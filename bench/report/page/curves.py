"""Learning curves of cells, from their logs, thinned to what a page can hold."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.run.store import LOG

# by their names in a line of log.jsonl
CURVES = {
    "loss": "training loss",
    "train_top1": "training top-1 %",
    "val_top1": "validation top-1 %",
    "lr": "learning rate",
}
_POINTS = 20_000  # of each quantity, of all cells together
_LEAST, _MOST = 10, 100  # of a curve


def curves_of(folders: Sequence[Path]) -> list[dict[str, list[list[float]]]]:
    """Return each cell's curves by name: epochs, and values at them. A cell without a log has none."""
    most = max(_LEAST, min(_MOST, _POINTS // max(1, len(folders))))
    return [_curves(folder / LOG, most) for folder in folders]


def _curves(file: Path, most: int) -> dict[str, list[list[float]]]:
    lines = _lines(file, most)
    found = {}
    for name in CURVES:
        points = [(line["epoch"], line[name]) for line in lines if _finite(line, "epoch") and _finite(line, name)]
        if points:
            found[name] = [[float(f"{value:.4g}") for value in values] for values in zip(*points, strict=True)]
    return found


def _lines(file: Path, most: int) -> list[dict[str, Any]]:
    """At most so many lines of a log of either kind, of training and of validation, in their order.

    Lines are chosen before they are parsed: a thousand logs may have a million. One that a killed process left torn is
    passed over.
    """
    try:
        texts = [text for text in file.read_text(encoding="utf-8").splitlines() if text.endswith("}")]
    except (OSError, ValueError):
        return []
    kinds: tuple[list[str], list[str]] = ([], [])
    for text in texts:
        kinds['"val_top1"' in text].append(text)
    found = []
    for kind in kinds:
        for index in _spread(len(kind), most):
            with contextlib.suppress(ValueError):
                line = json.loads(kind[index])
                found += [line] if isinstance(line, dict) else []
    return found


def _finite(line: dict[str, Any], name: str) -> bool:
    value = line.get(name)
    return isinstance(value, int | float) and math.isfinite(value)


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many indices, evenly apart, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / (most - 1)) for index in range(most)]
