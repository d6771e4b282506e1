"""Events of a run, for whoever shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from bench.run.result import Result
from bench.spec import Cell


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

    def waiting(self, what: str) -> None:
        """Nothing goes on until `what`, which another process does, is done."""
        ...
