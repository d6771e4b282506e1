"""Events of a run, for whoever shows it, and the time that its cells are expected to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bench.data.dataset import DATASETS, SPLITS, Split
from bench.measure.result import Measured
from bench.run.result import Result
from bench.spec import Cell

_ORDERS = 3  # in which the order test predicts: as they are, reversed, shuffled


class Listener(Protocol):
    """Shows a run as it proceeds. Every method returns at once."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Data or weights are being made ready: `done` of `total`."""
        ...

    def noted(self, note: str) -> None:
        """Take a note that the numbers' reader must know of the data, in a sentence."""
        ...

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        """These cells will run; `skipped` ones are done already."""
        ...

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        """The model of a cell is being measured, the index-th (from 1) of `total`."""
        ...

    def expected(self, cell: Cell, seconds: float) -> None:
        """A cell will train and be evaluated for so long, if it goes at its model's speed on the whole machine."""
        ...

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        """A running cell: stage, done (0..1), and in training loss and clips_per_s."""
        ...

    def ended(self, result: Result) -> None:
        """A cell came to an end, whatever its status."""
        ...

    def chosen(self, planned: Cell, cell: Cell) -> None:
        """A cell will run in place of the one that was planned, as its recipe was chosen."""
        ...

    def waiting(self, what: str) -> None:
        """Nothing goes on until `what`, which another process does, is done."""
        ...


class ExpectedTime:
    """Seconds that cells take with the whole machine to themselves, if they need not wait for their clips."""

    def __init__(self) -> None:
        self._counts: dict[Any, dict[Split, int] | None] = {}

    def __call__(self, cell: Cell, measured: Measured, together: int = 1) -> float | None:
        """Of training and of the test; None where the data set's lists cannot be read, which the cell itself tells.

        Args:
            together: cells that train from one forward pass, this one among them, which so has a share of its time.
        """
        if (counts := self._videos(cell)) is None:
            return None
        views = counts[cell.split] * cell.clips * cell.crops * (_ORDERS if cell.order_test else 1)
        clips = counts["train"] * cell.train_fraction * cell.recipe.epochs
        forward = 1 / measured.infer_clips_per_s  # seconds of a clip
        step = 0.0 if measured.train_clips_per_s is None else 1 / measured.train_clips_per_s
        # of a frozen model most of a step, and next to all of a test
        saved = forward * (1 - 1 / together)
        return clips * max(step / together, step - saved) + views * (forward - saved)

    def _videos(self, cell: Cell) -> dict[Split, int] | None:
        key = (cell.dataset, cell.data)
        if key not in self._counts:
            try:
                dataset = DATASETS.get(cell.dataset)(cell.data)
                self._counts[key] = {split: len(dataset.videos(split)) for split in SPLITS}
            except Exception:  # a plugin's code can raise anything
                self._counts[key] = None
        return self._counts[key]
