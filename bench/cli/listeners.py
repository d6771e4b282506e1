"""Views of a run in progress: a few lines that are redrawn in a terminal, plain lines in a log file or a pipe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bench.cli.progress import RunTimeLeft, StageTime
from bench.run.result import Result
from bench.spec import Cell
from bench.text import counted, indented, one_line, visible

_MARKS = {
    "done": ("●", "green"),
    "failed": ("✗", "red"),
    "oom": ("✗", "red"),
    "interrupted": ("‖", "yellow"),
    "running": ("◐", "cyan"),
    "waiting": ("·", "dim"),
}
_MARKED = 12  # cells of a backbone and a strategy that are shown by a mark each; more are counted
_OTHER_LINES = 12  # of a terminal, that are left for what is not the matrix
_QUIET = 30.0  # seconds between two lines on the same thing
_QUIET_LEFT = 60.0  # seconds between two lines on the time left


class LiveListener:
    """View that redraws a few lines: a bar over all cells, the matrix as marks, a line for each running cell.

    Of thousands of cells it draws no more than of a screenful: they are counted, and most backbones left out.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting the workers", total=None, left="")
        self._left = RunTimeLeft()
        self._left_text, self._left_until = "", 0.0
        self._preparing = StageTime()
        # (backbone, strategy) -> the states of its cells by their keys, in the run's order
        self._matrix: dict[tuple[str, str], dict[str, str]] = {}
        self._running: dict[Cell, dict[str, Any]] = {}
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveListener:
        self._live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def _show(self, description: str, done: float, total: int | None, left: str = "") -> None:
        self._bar.update(self._task, description=one_line(description), completed=done, total=total, left=left)

    def noted(self, note: str) -> None:
        self._console.print(Text(visible(note), "yellow"), soft_wrap=True)

    def preparing(self, what: str, done: int, total: int) -> None:
        self._show(f"preparing {what}", done, total, self._preparing(what, done, total))

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        self._left.begun(cells, workers)
        matrix: dict[tuple[str, str], dict[str, str]] = {}
        for cell in cells:
            matrix.setdefault((cell.backbone, cell.strategy), {})[cell.key] = "waiting"
        self._matrix = matrix  # whole at once: another thread draws it
        before = f" ({skipped:,} done before)" if skipped else ""
        self._show(f"starting {counted(workers, 'worker')}{before}", 0, None)

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        self._left.measuring(index, total)
        self._show(f"measuring {cell.backbone} {cell.strategy}", index - 1, total, str(self._left))

    def expected(self, cell: Cell, seconds: float) -> None:
        self._left.expected(cell, seconds)

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        self._left.progress(cell, event)
        if cell not in self._running:
            self._square(cell)[cell.key] = "running"
        self._running[cell] = event
        self._advance()

    def ended(self, result: Result) -> None:
        self._running.pop(result.cell, None)
        self._square(result.cell)[result.cell.key] = result.status
        self._left.finished(result)
        style = _MARKS[result.status][1]
        outcome = f"{_accuracy(result.cell)} {result.metrics.top1:.1f} %" if result.metrics else str(result.error)
        told = one_line(f"{result.cell.label}: {outcome}")
        self._console.print(Text(f"{result.status:11} {told}", style), soft_wrap=True)
        self._advance()

    def chosen(self, planned: Cell, cell: Cell) -> None:
        self._left.chosen(planned, cell)
        if (
            cells := self._matrix.get((cell.backbone, cell.strategy))
        ) is not None:  # it may be chosen at the very start
            cells[cell.key] = cells.pop(planned.key, "waiting")

    def waiting(self, what: str) -> None:
        self._show(f"waiting for {what}", self._left.ended, self._left.total)

    def _square(self, cell: Cell) -> dict[str, str]:
        return self._matrix[cell.backbone, cell.strategy]

    def _advance(self) -> None:
        if time.monotonic() >= self._left_until:  # it looks at every cell
            self._left_text, self._left_until = str(self._left), time.monotonic() + 1
        self._show("training", self._left.ended, self._left.total, self._left_text)

    def _draw(self) -> Group:
        return Group(self._bar, *([self._table()] if self._matrix else []), self._details())

    def _table(self) -> Table:
        """Return the matrix: backbones down, strategies across, a mark a cell; as many backbones as fit."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        strategies = list(dict.fromkeys(strategy for _, strategy in self._matrix))
        backbones = list(dict.fromkeys(backbone for backbone, _ in self._matrix))
        room = max(4, self._console.size.height - _OTHER_LINES)
        table.add_column("")
        for strategy in strategies:
            table.add_column(strategy)
        first = 0
        if len(backbones) > room:  # from the first one that has something to do
            running = {cell.backbone for cell in self._running}
            first = next((index for index, backbone in enumerate(backbones) if backbone in running), 0)
            first = min(first, len(backbones) - room)
        for backbone in backbones[first : first + room]:
            table.add_row(backbone, *(_marks(self._matrix.get((backbone, strategy), {})) for strategy in strategies))
        if len(backbones) > room:
            table.add_row(Text(f"and {counted(len(backbones) - room, 'other backbone')}", style="dim"))
        return table

    def _details(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for cell, event in list(self._running.items()):
            loss = f"loss {event['loss']:.3f}" if "loss" in event else ""
            speed = f"{event['clips_per_s']:.0f} clips/s" if "clips_per_s" in event else ""
            table.add_row(cell.label, event["stage"], f"{event['done']:.0%}", loss, speed)
        return table


def _marks(states: dict[str, str]) -> Text:
    """Return the states of cells, a mark each; of many cells a mark for each state and how many are in it."""
    text = Text()
    if len(states) <= _MARKED:
        for state in states.values():
            text.append(*_MARKS[state])
        return text
    counts = Counter(_MARKS[state] for state in states.values())
    for mark, style in dict.fromkeys(_MARKS.values()):
        if count := counts[mark, style]:
            text.append(f"{' ' * bool(text)}{mark}{count:,}", style)
    return text


def _accuracy(cell: Cell) -> str:
    return "top-1" if cell.split == "test" else "validation top-1"


class PlainListener:
    """View with a line for each thing that begins or ends, and now and then one on the progress and the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._left = RunTimeLeft()
        self._preparing = StageTime()
        self._said: dict[str, float] = {}
        self._said_left = -_QUIET_LEFT

    def __enter__(self) -> PlainListener:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _say(self, text: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {indented(visible(text), 9)}\n")
        self._stream.flush()

    def _due(self, topic: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(topic, -_QUIET) < _QUIET:
            return False
        self._said[topic] = now
        return True

    def _say_left(self) -> None:
        now = time.monotonic()
        if now - self._said_left >= _QUIET_LEFT and (sentence := self._left.sentence):
            self._said_left = now
            self._say(sentence)

    def preparing(self, what: str, done: int, total: int) -> None:
        left = self._preparing(what, done, total)
        if done == total or self._due(what):
            self._say(f"preparing {what}: {done:,} of {total:,}{', ' * bool(left)}{left}")

    def noted(self, note: str) -> None:
        self._say(note)

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        self._left.begun(cells, workers)
        before = f", {skipped:,} done before" if skipped else ""
        self._say(f"{counted(len(cells), 'cell')} to run{before}; {counted(workers, 'worker')}")

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        self._left.measuring(index, total)
        self._say(f"measuring {index:,} of {total:,}: {cell.backbone} {cell.strategy}")
        self._say_left()

    def expected(self, cell: Cell, seconds: float) -> None:
        self._left.expected(cell, seconds)

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        self._left.progress(cell, event)
        if event["stage"] == "starting":
            self._said[cell.key] = time.monotonic()
            self._say(f"started {cell.label}")
        elif self._due(cell.key):
            loss = f", loss {event['loss']:.3f}, {event['clips_per_s']:.0f} clips/s" if "loss" in event else ""
            self._say(f"{event['stage']} {cell.label}: {event['done']:.0%}{loss}")
        self._say_left()

    def ended(self, result: Result) -> None:
        self._left.finished(result)
        self._said.pop(result.cell.key, None)
        if result.metrics is not None:
            outcome = f"{_accuracy(result.cell)} {result.metrics.top1:.1f} %, {sum(result.seconds.values()):.0f} s"
        else:
            outcome = one_line(str(result.error))
        which = f"{self._left.ended:,} of {self._left.total:,}"
        self._say(f"{result.status} {which}: {result.cell.label}: {outcome}")
        self._say_left()

    def chosen(self, planned: Cell, cell: Cell) -> None:
        self._left.chosen(planned, cell)
        if cell.tuning is not None:
            values = ", ".join(f"{name}={value}" for name, value in cell.tuning.values.items())
            self._say(f"trial {cell.tuning.chosen} is the best for {cell.label}: {values}")

    def waiting(self, what: str) -> None:
        self._say(f"waiting for {what}")
