"""The time that work still takes, by the pace so far: of pieces of any kind, and of a whole run."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from bench.run.result import Result
from bench.spec import Cell
from bench.text import counted, duration

# a pace is told after so many seconds, or so large a part of a mean piece
_LONG_ENOUGH = 30.0
_FAR_ENOUGH = 0.2


def about(seconds: float | None) -> str:
    """`about 12 min left`; an empty text where the time is not known, or over."""
    return "" if seconds is None or seconds < 0.5 else f"about {duration(seconds)} left"


class TimeLeft:
    """Pieces of work, some of which may be done in parts and side by side.

    Args:
        sizes: how much work each piece is, by its key, in any unit; None: as much as the others in the mean.
        at_once: how many pieces are worked on at a time.
    """

    def __init__(self, sizes: Mapping[Any, float | None], at_once: int = 1) -> None:
        self._sizes = dict(sizes)
        self._parts: dict[Hashable, float] = {}
        self._at_once = max(1, min(at_once, len(sizes)))
        self._expected: float | None = None
        self._begun: float | None = None

    def expect(self, key: Hashable, size: float, pace: float) -> None:
        """The size of a piece, of which so much is expected to be done in a second, until there is a pace."""
        self._sizes[key] = size
        self._expected = pace

    def begin(self) -> None:
        """Time goes from here, or from where this was first called."""
        if self._begun is None:
            self._begun = time.monotonic()

    def at(self, key: Hashable, part: float) -> None:
        """A piece is done to a part of 0..1."""
        self.begin()
        self._parts[key] = part

    def drop(self, key: Hashable) -> None:
        """A piece failed: it is not worked on any more, and its time tells nothing."""
        self._sizes.pop(key, None)
        self._parts.pop(key, None)

    def seconds(self) -> float | None:
        """The time left; None where it is not known yet."""
        known = [size for size in self._sizes.values() if size is not None]
        mean = sum(known) / len(known) if known else 1.0
        sizes = {key: mean if size is None else size for key, size in self._sizes.items()}
        left = [size * (1 - self._parts.get(key, 0.0)) for key, size in sizes.items()]
        rest = sum(left)
        if rest <= 0:
            return 0.0
        done = sum(sizes.values()) - rest
        elapsed = 0.0 if self._begun is None else time.monotonic() - self._begun
        pace = self._expected
        if done > 0 and elapsed > 0 and (elapsed >= _LONG_ENOUGH or done >= _FAR_ENOUGH * mean):
            pace = done / elapsed
        # in the end the longest piece goes on alone
        return None if pace is None else max(rest, max(left) * self._at_once) / pace


class RunTimeLeft:
    """Time left of a run: what its models take to be measured, then its cells to be trained and evaluated."""

    def __init__(self) -> None:
        self.begun((), 1)

    def begun(self, cells: Sequence[Cell], workers: int) -> None:
        """These cells will run. On a CPU they share what a measurement has alone, elsewhere each worker has it all."""
        self.total, self.ended = len(cells), 0
        self._pace = 1.0 if any(cell.device == "cpu" for cell in cells) else float(workers)
        self._models = TimeLeft({})
        self._measuring: int | None = None
        self._cells = TimeLeft(dict.fromkeys((cell.key for cell in cells), None), workers)

    def measuring(self, index: int, total: int) -> None:
        """The index-th model, from 1, of `total` is being measured; those that are passed over took no time."""
        if self._measuring is None:
            self._models = TimeLeft(dict.fromkeys(range(index, total + 1), None))
            self._models.begin()
        else:
            self._models.at(self._measuring, 1.0)
            for known in range(self._measuring + 1, index):
                self._models.drop(known)
        self._measuring = index

    def expected(self, cell: Cell, seconds: float) -> None:
        """A cell takes so long by the speed of its model."""
        self._cells.expect(cell.key, seconds, self._pace)

    def progress(self, cell: Cell, event: Mapping[str, Any]) -> None:
        """A cell runs: measuring is over."""
        self._models = TimeLeft({})
        # training is most of a cell; evaluating counts as its last tenth
        parts = {"training": 0.9 * event["done"], "evaluating": 0.9 + 0.1 * event["done"]}
        self._cells.at(cell.key, parts.get(event["stage"], 0.0))

    def finished(self, result: Result) -> None:
        """A cell has ended."""
        self.ended += 1
        if result.status == "done":
            self._cells.at(result.cell.key, 1.0)
        else:
            self._cells.drop(result.cell.key)

    def __str__(self) -> str:
        models, cells = self._models.seconds(), self._cells.seconds()
        return about(None if models is None or cells is None else models + cells)

    @property
    def sentence(self) -> str:
        """`about 12 min left (7 of 18 cells ended)`; an empty text where that is not known."""
        return f"{self} ({self.ended:,} of {counted(self.total, 'cell')} ended)" if str(self) else ""
