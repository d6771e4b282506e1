"""Runs whose cells have kept predictions that are right on chosen videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.run.store import PREDICTIONS, Run
from bench.spec import Cell
from tests.bench import make

VIDEOS = 60
NAMES = tuple(f"v{index}" for index in range(VIDEOS))
CLASSES = 6


def first(count: int, videos: int = VIDEOS) -> np.ndarray:
    """Right on the first so many videos."""
    return np.arange(videos) < count


def write(run: Run, cell: Cell, right: np.ndarray, names: Sequence[str] = NAMES) -> None:
    """Put a result that is right on some videos, with its predictions; with the frames reordered none is right."""
    run.put(make.done(cell, top1=100 * float(right.mean())))
    labels = np.arange(len(names)) % CLASSES
    every = {"probabilities": right, "probabilities_reversed": right & False, "probabilities_shuffled": right & False}
    arrays = {}
    for name, each in every.items():
        p = np.full((len(names), CLASSES), 0.01, dtype=np.float32)
        p[np.arange(len(names)), labels] = 0.4
        p[np.arange(len(names)), (labels + 1) % CLASSES] = np.where(each, 0.2, 0.5)
        arrays[name] = p
    np.savez_compressed(run.cell_folder(cell) / PREDICTIONS, names=np.array(names), labels=labels, **arrays)


def run_of(folder: Path, rows: Mapping[Cell, np.ndarray]) -> Run:
    """A run of cells that are right on these videos."""
    run = Run(folder)
    run.open(make.matrix(), list(rows), "bench run", {})
    for cell, right in rows.items():
        write(run, cell, right)
    run.write_csv()
    return run
