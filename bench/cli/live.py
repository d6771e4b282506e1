"""A run live in the terminal: the matrix, the running cells, loss, clips a second, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bench.result import Result
from bench.spec import Cell

_MARKS = {"done": ("●", "green"), "failed": ("✗", "red"), "oom": ("✗", "red"), "interrupted": ("‖", "yellow")}


class LiveListener:
    """Redraws a few lines: a bar over all cells, the matrix as marks, a line for each running cell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting the workers", total=None, left="")
        self._cells: list[Cell] = []
        self._status: dict[Cell, str] = {}
        self._running: dict[Cell, dict[str, Any]] = {}
        self._since = time.monotonic()
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveListener:
        self._live.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._live.__exit__(*details)

    def _show(self, description: str, done: float, total: int | None, left: str = "") -> None:
        self._bar.update(self._task, description=description, completed=done, total=total, left=left)

    def noted(self, note: str) -> None:
        self._console.print(note, style="yellow", markup=False)

    def preparing(self, what: str, done: int, total: int) -> None:
        self._show(f"preparing {what}", done, total)

    def begun(self, cells: Sequence[Cell], skipped: int, workers: int) -> None:
        self._cells = list(cells)
        before = f" ({skipped} done before)" if skipped else ""
        self._show(f"starting {workers} workers{before}", 0, None)

    def measuring(self, cell: Cell, index: int, total: int) -> None:
        self._show(f"measuring {cell.backbone} {cell.strategy}", index - 1, total)

    def progress(self, cell: Cell, event: dict[str, Any]) -> None:
        if not self._status and not self._running:
            self._since = time.monotonic()
        self._running[cell] = event
        self._advance()

    def ended(self, result: Result) -> None:
        self._running.pop(result.cell, None)
        self._status[result.cell] = result.status
        style = _MARKS[result.status][1]
        outcome = f"top-1 {result.metrics.top1:.1f} %" if result.metrics else str(result.error)
        self._console.print(Text(f"{result.status:11} {result.cell.label}: {outcome}", style=style))
        self._advance()

    def waiting(self, what: str) -> None:
        self._show(f"waiting for {what}", len(self._status), len(self._cells))

    def _advance(self) -> None:
        # training is most of a cell; evaluating counts as its last tenth
        part = sum(
            0.9 * event["done"] if event["stage"] == "training" else 0.9 + 0.1 * event["done"]
            for event in self._running.values()
            if event["stage"] in ("training", "evaluating")
        )
        done = len(self._status) + part
        left = ""
        if done > 0.2:
            seconds = (time.monotonic() - self._since) * (len(self._cells) - done) / done
            left = f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
        self._show("training", len(self._status), len(self._cells), left)

    def _draw(self) -> Group:
        return Group(self._bar, *([self._matrix()] if self._cells else []), self._details())

    def _matrix(self) -> Table:
        """Backbones down, strategies across, a mark for each cell."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        strategies = list(dict.fromkeys(cell.strategy for cell in self._cells))
        table.add_column("")
        for strategy in strategies:
            table.add_column(strategy)
        for backbone in dict.fromkeys(cell.backbone for cell in self._cells):
            marks = []
            for strategy in strategies:
                text = Text()
                for cell in self._cells:
                    if (cell.backbone, cell.strategy) == (backbone, strategy):
                        text.append(*self._mark(cell))
                marks.append(text)
            table.add_row(backbone, *marks)
        return table

    def _mark(self, cell: Cell) -> tuple[str, str]:
        if cell in self._running:
            return "◐", "cyan"
        return _MARKS[self._status[cell]] if cell in self._status else ("·", "dim")

    def _details(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for cell, event in list(self._running.items()):
            loss = f"loss {event['loss']:.3f}" if "loss" in event else ""
            speed = f"{event['clips_per_s']:.0f} clips/s" if "clips_per_s" in event else ""
            table.add_row(cell.label, event["stage"], f"{event['done']:.0%}", loss, speed)
        return table
