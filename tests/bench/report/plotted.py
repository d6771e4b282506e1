"""Runs with predictions and logs, made by hand, for tests of plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.run.store import LOG, PREDICTIONS, Run
from bench.spec import Cell
from tests.bench import make

VIDEOS, CLASSES = 60, 10
LABELS = np.arange(VIDEOS) % CLASSES
SUFFIXES = {"top1": "", "top1_reversed": "_reversed", "top1_shuffled": "_shuffled"}


def right(count: int) -> np.ndarray:
    """The first so many videos, (V)."""
    return np.arange(VIDEOS) < count


def probabilities(count: int) -> np.ndarray:
    """The label is most probable of the first videos, the class after it of the others, (V, C)."""
    guess = np.where(right(count), LABELS, (LABELS + 1) % CLASSES)
    return np.eye(CLASSES, dtype=np.float32)[guess]


def add(run: Run, cell: Cell, counts: Sequence[int], log: Sequence[Mapping[str, float]] = (), **changes: Any) -> None:
    """Write a cell that is done.

    Args:
        counts: videos that it has right: forwards, reversed, shuffled.
        log: lines of its log.jsonl.
        changes: of what was measured.
    """
    of = dict(zip(SUFFIXES, counts, strict=False))
    accuracies = {"top1_reversed": None, "top1_shuffled": None}
    accuracies |= {name: 100 * count / VIDEOS for name, count in of.items()}
    result = make.done(cell, **changes)
    run.write(result.model_copy(update={"metrics": make.metrics(mean_class=accuracies["top1"], **accuracies)}))
    arrays = {f"probabilities{SUFFIXES[name]}": probabilities(count) for name, count in of.items()}
    np.savez(run.cell_folder(cell) / PREDICTIONS, names=[f"v{i}" for i in range(VIDEOS)], labels=LABELS, **arrays)
    if log:
        lines = "".join(json.dumps(line) + "\n" for line in log)
        (run.cell_folder(cell) / LOG).write_text(lines, encoding="utf-8")


def opened(folder: Path, cells: Sequence[Cell]) -> Run:
    run = Run(folder)
    run.open(make.matrix(), list(cells), "bench run", {})
    return run
