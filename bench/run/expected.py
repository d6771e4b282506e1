"""Expected duration of a cell's training, by the measured speed of its model."""

from __future__ import annotations

from typing import Any

from bench.data.dataset import DATASETS, Split
from bench.measure.result import Measured
from bench.spec import Cell

_ORDERS = 3  # in which the order test predicts: as they are, reversed, shuffled


class ExpectedTime:
    """Seconds that cells take with the whole machine to themselves, if they need not wait for their clips."""

    def __init__(self) -> None:
        self._counts: dict[Any, dict[Split, int] | None] = {}

    def __call__(self, cell: Cell, measured: Measured) -> float | None:
        """Of training and of the test; None where the data set's lists cannot be read, which the cell itself tells."""
        if (counts := self._videos(cell)) is None:
            return None
        views = counts["test"] * cell.clips * cell.crops * (_ORDERS if cell.order_test else 1)
        clips = counts["train"] * cell.recipe.epochs
        return clips / measured.train_clips_per_s + views / measured.infer_clips_per_s

    def _videos(self, cell: Cell) -> dict[Split, int] | None:
        key = (cell.dataset, cell.data)
        if key not in self._counts:
            try:
                dataset = DATASETS.get(cell.dataset)(cell.data)
                self._counts[key] = {"train": len(dataset.videos("train")), "test": len(dataset.videos("test"))}
            except Exception:  # a plugin's code can raise anything
                self._counts[key] = None
        return self._counts[key]
