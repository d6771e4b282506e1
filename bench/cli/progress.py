"""Progress of long work: the time left, and a bar in a terminal or a line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from bench.text import counted, duration, one_line

if TYPE_CHECKING:
    from bench.run.result import Result
    from bench.spec import Cell

# a pace is told after so many seconds, or so large a part of a mean piece
_LONG_ENOUGH = 30.0
_FAR_ENOUGH = 0.2
_FIRST = 10.0  # seconds after which a log gets its first line: what is shorter needs none
_QUIET = 60.0  # seconds between two lines of a log


def about(seconds: float | None) -> str:
    """Return `about 12 min left`; an empty text where the time is not known, or over."""
    return "" if seconds is None or seconds < 0.5 else f"about {duration(seconds)} left"


class TimeLeft:
    """Time left of pieces of work, some of which may be done in parts and side by side.

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
        """Set the size of a piece, and how much is expected to be done in a second until there is a pace."""
        self._sizes[key] = size
        self._expected = pace

    def rename(self, key: Hashable, now: Hashable) -> None:
        """Give a piece that is not begun another key."""
        if key in self._sizes:
            self._sizes[now] = self._sizes.pop(key)

    def begin(self) -> None:
        """Start the clock, where it does not run yet."""
        if self._begun is None:
            self._begun = time.monotonic()

    def at(self, key: Hashable, part: float) -> None:
        """Note that a piece is done to a part of 0..1."""
        self.begin()
        self._parts[key] = part

    def drop(self, key: Hashable) -> None:
        """Forget a piece that failed: its time tells nothing."""
        self._sizes.pop(key, None)
        self._parts.pop(key, None)

    def seconds(self) -> float | None:
        """Return the time left; None where it is not known yet."""
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
    """Time left of a run: of measuring its models, then of training and evaluating its cells."""

    def __init__(self) -> None:
        self.begun((), 1)

    def begun(self, cells: Sequence[Cell], workers: int) -> None:
        """Note the cells that will run. On a CPU they share what a measurement has alone."""
        self.total, self.ended = len(cells), 0
        self._pace = 1.0 if any(cell.device == "cpu" for cell in cells) else float(workers)
        self._models = TimeLeft({})
        self._measuring: int | None = None
        self._cells = TimeLeft(dict.fromkeys((cell.key for cell in cells), None), workers)

    def measuring(self, index: int, total: int) -> None:
        """Note that the index-th model, from 1, of `total` is measured now; those that are passed over took no time."""
        if self._measuring is None:
            self._models = TimeLeft(dict.fromkeys(range(index, total + 1), None))
            self._models.begin()
        else:
            self._models.at(self._measuring, 1.0)
            for known in range(self._measuring + 1, index):
                self._models.drop(known)
        self._measuring = index

    def expected(self, cell: Cell, seconds: float) -> None:
        """Note how long a cell takes by the speed of its model."""
        self._cells.expect(cell.key, seconds, self._pace)

    def progress(self, cell: Cell, event: Mapping[str, Any]) -> None:
        """Note how far a cell is: measuring is over."""
        self._models = TimeLeft({})
        # training is most of a cell; evaluating counts as its last tenth
        parts = {"training": 0.9 * event["done"], "evaluating": 0.9 + 0.1 * event["done"]}
        self._cells.at(cell.key, parts.get(event["stage"], 0.0))

    def chosen(self, planned: Cell, cell: Cell) -> None:
        """Note that a cell takes the place of a planned one, with another recipe of as much work."""
        self._cells.rename(planned.key, cell.key)

    def finished(self, result: Result) -> None:
        """Note that a cell has ended."""
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
        """The time left as a sentence, `about 12 min left (7 of 18 cells ended)`; empty where it is not known."""
        return f"{self} ({self.ended:,} of {counted(self.total, 'cell')} ended)" if str(self) else ""


class Progress(Protocol):
    """Function that shows how far a stage of the work is."""

    def __call__(self, stage: str, done: int = 0, total: int | None = None, more: str = "") -> None:
        """Show it.

        Args:
            stage: what is done; time left is of one stage.
            done: pieces of it.
            total: pieces in all; None where that is not known.
            more: what else is told, such as the speed.
        """
        ...


class StageTime:
    """Time left of a stage of which `done` of `total` alike pieces are done; another stage begins anew."""

    def __init__(self) -> None:
        self._stage: str | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> str:
        """Return the time left in words, see `about`."""
        if stage != self._stage:
            self._stage, self._first, self._left = stage, done, TimeLeft({"": 1.0})
            self._left.begin()
        if total is None or total <= self._first:
            return ""
        self._left.at("", (done - self._first) / (total - self._first))
        return about(self._left.seconds())


class Lines:
    """Progress as lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._left = StageTime()
        self._due = time.monotonic() + _FIRST

    def __call__(self, stage: str, done: int = 0, total: int | None = None, more: str = "") -> None:
        left = self._left(stage, done, total)
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _QUIET
        parts = [stage if total is None else f"{stage}: {done:,} of {total:,}", more, left]
        self._stream.write(f"{time.strftime('%H:%M:%S')} {one_line(', '.join(filter(None, parts)))}\n")
        self._stream.flush()


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield a display for where the standard error goes; in a terminal it leaves nothing behind."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(sys.stderr)
        return

    from rich import progress as bars

    left = StageTime()
    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[more]}", markup=False),
        bars.TextColumn("{task.fields[left]}"),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False, more="", left="")

        def show(stage: str, done: int = 0, total: int | None = None, more: str = "") -> None:
            bar.update(
                task,
                description=one_line(stage),
                completed=done,
                total=total,
                more=one_line(more),
                left=left(stage, done, total),
                visible=True,
            )

        yield show
