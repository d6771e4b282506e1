"""Curves of trainings from the logs of their cells, brought to common epochs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BINS = 100  # of a curve, at most


@dataclass(frozen=True)
class Curve:
    """Values of several trainings at the same epochs.

    Attributes:
        epochs: (E).
        values: (S, E), of each training.
    """

    epochs: np.ndarray
    values: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Means over the trainings, (E)."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def low(self) -> np.ndarray:
        """Smallest values, (E)."""
        return np.asarray(self.values.min(axis=0))

    @property
    def high(self) -> np.ndarray:
        """Largest values, (E)."""
        return np.asarray(self.values.max(axis=0))


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a log.jsonl; those that are not whole are left out. Raises OSError."""
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and _number(values.get("epoch")):
            found.append(values)
    return found


def interval_curve(logs: Sequence[Sequence[dict[str, Any]]], name: str) -> Curve | None:
    """Return a quantity that lines have as the mean of an interval of steps, such as `loss`.

    The intervals are of equal time, not of equal steps, and each training's are its own. So its values hold from line
    to line, and are averaged over as many equal bins of the training as the shortest log has lines, `BINS` at most.

    Returns:
        The curve at the bins' middles; None where a log has no such line.
    """
    steps = [[(line["epoch"], line[name]) for line in log if _number(line.get(name))] for log in logs]
    if not steps or not all(steps):
        return None
    end = min(line[-1][0] for line in steps)
    edges = np.linspace(0, end, min(BINS, *map(len, steps)) + 1)
    rows = []
    for line in steps:
        at = np.array([0.0, *(epoch for epoch, _ in line)])
        area = np.concatenate([[0.0], np.cumsum(np.diff(at) * [value for _, value in line])])
        rows.append(np.diff(np.interp(edges, at, area)) / np.diff(edges))
    return Curve((edges[1:] + edges[:-1]) / 2, np.stack(rows))


def epoch_curve(logs: Sequence[Sequence[dict[str, Any]]], name: str) -> Curve | None:
    """Return a quantity of whole epochs, such as `val_top1`, at those epochs at which all logs have it; else None."""
    found = [{line["epoch"]: line[name] for line in log if _number(line.get(name))} for log in logs]
    common = sorted(set.intersection(*map(set, found))) if found else []
    if not common:
        return None
    return Curve(np.array(common), np.array([[each[epoch] for epoch in common] for each in found]))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
